//! The command of the guide, and the world of four parties that it and the tests play in.

pub mod book;
pub mod demo;
pub mod lab;
pub mod live;
pub mod money;
pub mod payable;
pub mod record;
pub mod serve;
pub mod story;
pub mod stranger;
pub mod terminal;
pub mod upgrade;
pub mod world;
