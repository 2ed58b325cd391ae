//! Complete LDK nodes for async payments over LSPS2 JIT channels: recipient, LSP, payer and payer's
//! LSP, one file a role.
//!
//! Each restarts from its own folder, writes what it sees to one [`transcript`], and matches LDK's
//! events without a wildcard, so that a new kind of event breaks the build.

mod assemble;
mod balances;
mod channels;
mod disk;
mod events;
pub mod explain;
pub mod faults;
mod node;
mod paths;
mod peers;
mod relay;
mod tap;
pub mod transcript;
mod types;
mod wallet;

pub mod lsp;
pub mod payer;
pub mod payer_lsp;
pub mod recipient;

pub use assemble::wallet_script;
pub use channels::{Balances, ChannelBalance};
pub use disk::Disk;
pub use node::{Node, NodeConfig};
pub use types::{ChannelManager, Clock, LiquidityManager};
