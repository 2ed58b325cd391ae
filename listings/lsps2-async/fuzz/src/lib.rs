//! What must hold whatever bytes come in.
//!
//! One function for each reader of foreign bytes: libFuzzer calls it with bytes it makes up (the
//! targets in `fuzz_targets/`), and `cargo test` with those of `corpus/`. It panics on a finding, and
//! says whether the bytes meant anything: were read, and not only refused.
#![forbid(unsafe_code)]

mod claim;
#[cfg(feature = "explain")]
mod explain;
mod feed;
mod jit_table;
mod lease;
mod lsps;
mod mailbox;
mod metadata;
#[cfg(all(test, feature = "explain"))]
mod seeds;
mod static_invoices;
mod store;
#[cfg(all(test, feature = "explain"))]
mod tests;

pub use claim::claim;
#[cfg(feature = "explain")]
pub use explain::{EXPLAINED, explain};
pub use feed::Feed;
pub use jit_table::jit_table;
pub use lease::{lease_record, lease_store};
pub use lsps::client::lsps_client;
pub use lsps::sale::lsps_sale;
pub use mailbox::mailbox;
pub use metadata::metadata;
pub use static_invoices::static_invoices;

/// A fuzz target: whether the bytes meant anything to it.
pub type Target = fn(&[u8]) -> bool;

/// Every target, by its name.
pub const TARGETS: &[(&str, Target)] = &[
    ("metadata", metadata),
    ("lease_record", lease_record),
    ("lease_store", lease_store),
    ("claim", claim),
    ("mailbox", mailbox),
    ("static_invoices", static_invoices),
    ("jit_table", jit_table),
    ("lsps_client", lsps_client),
    ("lsps_sale", lsps_sale),
    #[cfg(feature = "explain")]
    ("explain", explain),
];

/// Runs a future that waits for nothing: the stores here answer at once.
fn now<F: Future>(future: F) -> F::Output {
    let mut context = core::task::Context::from_waker(core::task::Waker::noop());
    match core::pin::pin!(future).poll(&mut context) {
        core::task::Poll::Ready(output) => output,
        core::task::Poll::Pending => panic!("it waits for something"),
    }
}

/// What bLIP-52 demands, computed apart from the code under test: the opening fee, in msat.
fn fee_msat(size_msat: u64, min_fee_msat: u64, proportional: u32) -> u128 {
    let share = u128::from(size_msat) * u128::from(proportional);
    share.div_ceil(1_000_000).max(min_fee_msat.into())
}

/// The fee that the code under test computed. It may give up where 64 bits do not hold the product.
fn check_fee(computed: Option<u64>, size_msat: u64, min_fee_msat: u64, proportional: u32) {
    let product = u128::from(size_msat) * u128::from(proportional) + 999_999;
    match computed {
        Some(fee) => assert_eq!(u128::from(fee), fee_msat(size_msat, min_fee_msat, proportional)),
        None => assert!(product > u64::MAX.into(), "{size_msat} msat have a fee"),
    }
}
