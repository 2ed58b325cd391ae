//! Strangers, floods and clocks: what parties do to one another that keep to nothing.

mod channelless;
mod clocks;
mod floods;
mod leases;
mod lsps;
mod probes;

use guide::world::{Story, World};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use std::path::PathBuf;

fn story() -> Story {
    Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp)
}

/// What the payer can send, in msat.
fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels[0].outbound_msat
}

/// A folder of the LSP's store.
fn lsps_store(world: &World, namespace: &str) -> PathBuf {
    world.node_config("lsp").data_dir.join("store").join(namespace)
}

/// How many files there are below a folder, and their bytes.
fn disk(folder: &std::path::Path) -> (usize, u64) {
    let Ok(entries) = std::fs::read_dir(folder) else { return (0, 0) };
    entries.flatten().fold((0, 0), |(files, bytes), entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => {
            let (f, b) = disk(&entry.path());
            (files + f, bytes + b)
        }
        _ => (files + 1, bytes + entry.metadata().map_or(0, |m| m.len())),
    })
}
