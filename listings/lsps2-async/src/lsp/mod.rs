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
//! Which event goes where:
//!
//! | Event | Call |
//! |---|---|
//! | start | [`JitDesk::resume`], once, before any event |
//! | every few seconds | [`JitDesk::sweep`], then [`JitDesk::pending_opens`] |
//! | peer connected | [`JitDesk::pending_opens`] |
//! | `LSPS2ServiceEvent::GetInfo` | [`sale::answer_get_info`] |
//! | `LSPS2ServiceEvent::BuyRequest` | [`sale::answer_buy`] |
//! | `LSPS2ServiceEvent::OpenChannel` | [`JitDesk::open_channel`], then [`OpenPlan::create`] |
//! | `HTLCIntercepted` | [`JitDesk::htlc_intercepted`] |
//! | `FundingGenerationReady` | [`JitDesk::fund`] |
//! | `FundingTxBroadcastSafe` | [`JitDesk::funding_safe`] |
//! | `ChannelReady` | [`JitDesk::channel_ready`] |
//! | `ChannelClosed` | [`JitDesk::channel_closed`] |
//! | `PaymentForwarded` | [`JitDesk::payment_forwarded`] |
//! | `HTLCHandlingFailed` | [`JitDesk::htlc_handling_failed`] |
//! | `PersistStaticInvoice` | [`StaticInvoices::persist`] |
//! | `StaticInvoiceRequested` | [`StaticInvoices::get`] |
//! | `OnionMessageIntercepted` | [`Mailbox::post`] |
//! | `OnionMessagePeerConnected` | [`Mailbox::take_for`] |
//!
//! [`JitDesk::resume`]: intercept::JitDesk::resume
//! [`JitDesk::sweep`]: intercept::JitDesk::sweep
//! [`JitDesk::pending_opens`]: intercept::JitDesk::pending_opens
//! [`JitDesk::open_channel`]: intercept::JitDesk::open_channel
//! [`JitDesk::htlc_intercepted`]: intercept::JitDesk::htlc_intercepted
//! [`JitDesk::fund`]: intercept::JitDesk::fund
//! [`JitDesk::funding_safe`]: intercept::JitDesk::funding_safe
//! [`JitDesk::channel_ready`]: intercept::JitDesk::channel_ready
//! [`JitDesk::channel_closed`]: intercept::JitDesk::channel_closed
//! [`JitDesk::payment_forwarded`]: intercept::JitDesk::payment_forwarded
//! [`JitDesk::htlc_handling_failed`]: intercept::JitDesk::htlc_handling_failed
//! [`OpenPlan::create`]: open_plan::OpenPlan::create
//! [`StaticInvoices::persist`]: static_invoices::StaticInvoices::persist
//! [`StaticInvoices::get`]: static_invoices::StaticInvoices::get
//! [`Mailbox::post`]: mailbox::Mailbox::post
//! [`Mailbox::take_for`]: mailbox::Mailbox::take_for
//! [`LSPS2ServiceHandler`]: lightning_liquidity::lsps2::service::LSPS2ServiceHandler

pub mod decision;
pub mod held;
pub mod intercept;
pub mod jit_table;
pub mod mailbox;
pub mod open_plan;
pub mod sale;
#[cfg(test)]
mod sequences;
pub mod service;
pub mod skim;
pub mod static_invoices;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod unguarded;
