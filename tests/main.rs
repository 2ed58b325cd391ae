//! Whole-system tests: real nodes over TCP, on the embedded chain and, where `BITCOIND_EXE` names
//! one, on Bitcoin Core.

mod chains;
mod command;
mod flow;
mod money;
mod offers;
mod restarts;
