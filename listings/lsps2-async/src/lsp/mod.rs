//! What an LSP adds to its event loop to serve offline recipients over JIT channels.
//!
//! LDK's [`LSPS2ServiceHandler`] decides the opening fee. Everything around it is the LSP's job:
//!
//! - [`sale`]: the menu, and the durable record of what was sold;
//! - [`jit_table`]: intercept SCID → sold lease, asked before LSPS2 is;
//! - [`intercept`]: the desk where every HTLC, channel and forwarding event is handled;
//! - [`decision`], [`held`], [`open_plan`], [`skim`]: the pure parts the desk is made of;
//! - [`service`]: the few calls of LDK the desk needs, as traits, so that it can be tested;
//! - [`static_invoices`]: what is served to payers while the recipient is offline;
//! - [`mailbox`]: what is kept for the recipient until it comes back.
//!
//! [`LSPS2ServiceHandler`]: lightning_liquidity::lsps2::service::LSPS2ServiceHandler

pub mod decision;
pub mod held;
pub mod intercept;
pub mod jit_table;
pub mod mailbox;
pub mod open_plan;
pub mod sale;
pub mod service;
pub mod skim;
pub mod static_invoices;
#[cfg(test)]
mod testing;
