//! Whole-system tests: real nodes over TCP, on the embedded chain and, where `BITCOIND_EXE` names
//! one, on Bitcoin Core.

mod book;
mod browser;
mod chains;
mod command;
mod facts;
mod failures;
mod fees;
mod flags;
mod flow;
mod hold;
mod lab;
mod ledger;
mod liquidity;
mod live;
mod money;
mod offers;
mod player;
mod prose;
mod recorded;
mod recorded_lsps2;
mod recordings;
mod restarts;
mod skipped;
mod steps;
mod wire;
