//! One test program: what every chain must do, and how a served chain behaves.

mod chain;
mod common;
mod server;
