//! Recordings of runs: what every node saw, in a form that the book draws and that tests compare.
//!
//! A [`entry::Entry`] is what a running node writes down. [`normalise::Normaliser`] turns entries
//! into [`Moment`]s: names instead of keys, ids and times, so that two runs of one scenario can be
//! compared. A [`Recording`] is a file of them. [`view`] turns moments into what a diagram or the
//! player shows, [`told`] into lines, [`pick`] finds one of them by name, and [`compare`] tells how
//! two recordings differ.

pub mod compare;
pub mod entry;
pub mod ledger;
mod moment;
pub mod normalise;
pub mod pick;
pub mod told;
pub mod view;
pub mod words;

pub use moment::{Explained, Field, Header, Lane, Moment, Recording, Scene};
