//! Async payments over LSPS2 JIT channels: the join that LDK `0.3.0-rc3` leaves to the application.
//!
//! A recipient that is offline and has no channel is paid in five steps, and each step is one
//! module:
//!
//! 1. [`negotiate`]: the recipient buys LSPS2 parameters ahead of time, and keeps them as a
//!    [`lease`];
//! 2. [`metadata`]: the lease is encoded in the payment metadata;
//! 3. [`router`]: it is decoded and the intercept SCID is injected into the payment paths;
//! 4. [`payer`]: the payer pays over that imaginary SCID;
//! 5. [`lsp`]: the LSP detects it and opens a just-in-time channel before forwarding.
//!
//! [`claim`] is the guard at the end: it lets the recipient release the preimage only for a fee
//! that was agreed, once. [`hold`] says how long the recipient may stay away. [`bolt11`] is the
//! shorter way of a wallet that is online: plain LSPS2.
//!
//! Nothing here opens a socket, reads a clock or spawns a task: time is passed in as seconds since
//! the Unix epoch ([`core::time::Duration`]) and storage is LDK's [`KVStore`].
//!
//! [`KVStore`]: lightning::util::persist::KVStore

pub mod bolt11;
pub mod claim;
pub mod hold;
pub mod lease;
pub mod lsp;
pub mod metadata;
pub mod negotiate;
pub mod payer;
pub mod router;
