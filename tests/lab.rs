//! The failure lab: what breaks, provoked on purpose. Every test ends with the books: nothing hangs,
//! and what is lost is a fee that was agreed.

mod chain;
mod crash;
mod hold;
mod hostile;
mod leases;
mod limits;
mod random;
mod reach;
mod traps;
