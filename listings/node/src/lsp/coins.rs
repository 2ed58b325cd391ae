//! Coins that were taken for a channel of which a crash has left nothing, or nothing that is owed.

use bitcoin::{OutPoint, Transaction, Txid};
use lightning_block_sync::gossip::UtxoSource;
use lsps2_async::lsp::jit_table::JitRecord;
use std::collections::HashSet;

use super::LspRole;
use super::fundings::CHAIN_PATIENCE;
use crate::node::Node;

/// Who refers to the transactions that fund channels.
struct Referred {
    /// The table's, withheld from the chain.
    withheld: HashSet<Txid>,
    /// Those of LDK's channels.
    channels: HashSet<Txid>,
    /// Those of its monitors, which stay when a channel is gone.
    monitors: HashSet<Txid>,
}

/// What becomes of the coins of a funding that is not broadcast, as far as this node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Somebody needs it.
    Keep,
    /// Nobody will broadcast it. But this node may have died just after it did.
    FreeIfUnseen,
    /// Nobody but this wallet has ever known it.
    Free,
}

impl Referred {
    fn fate(&self, funding: &Txid) -> Fate {
        if self.withheld.contains(funding) || self.channels.contains(funding) {
            Fate::Keep
        } else if self.monitors.contains(funding) {
            Fate::FreeIfUnseen
        } else {
            Fate::Free
        }
    }
}

impl LspRole {
    /// Frees the coins of each funding that nobody needs any more: the process died before it handed the
    /// transaction on. Before anything else goes on, so that nobody is about to broadcast one.
    pub(super) async fn release_forgotten_coins(&self) {
        let withheld: Vec<_> =
            self.table.all().into_iter().filter_map(|record| record.funding).collect();
        let mut kept: HashSet<OutPoint> = HashSet::new();
        let mut keep = |funding: &Transaction| {
            kept.extend(funding.input.iter().map(|input| input.previous_output));
        };
        withheld.iter().for_each(|funding| keep(&funding.transaction));
        let referred = self.referred(&self.table.all());
        for funding in self.node.wallet.unsent() {
            let is_free = match referred.fate(&funding.compute_txid()) {
                Fate::Keep => false,
                Fate::Free => true,
                Fate::FreeIfUnseen => {
                    let seen = self.node.is_on_chain(&funding).await;
                    if seen == Some(true) {
                        self.node.wallet.note_broadcast(&funding);
                    }
                    seen == Some(false)
                }
            };
            if !is_free {
                keep(&funding);
            }
        }
        self.node.wallet.release_all_but(&kept);
    }

    fn referred(&self, records: &[JitRecord]) -> Referred {
        let withheld = records.iter().filter_map(|record| record.funding.as_ref());
        let channels = self.node.channel_manager.list_channels();
        let monitors = self.node.chain_monitor.list_monitors();
        let monitors = monitors.into_iter().filter_map(|channel_id| {
            let monitor = self.node.chain_monitor.get_monitor(channel_id).ok()?;
            Some(monitor.get_funding_txo().txid)
        });
        Referred {
            withheld: withheld.map(|funding| funding.transaction.compute_txid()).collect(),
            channels: channels.iter().filter_map(|c| Some(c.funding_txo?.txid)).collect(),
            monitors: monitors.collect(),
        }
    }
}

impl Node {
    /// Whether a transaction is in the chain or the mempool. `None` if the chain does not answer.
    async fn is_on_chain(&self, transaction: &Transaction) -> Option<bool> {
        let txid = transaction.compute_txid();
        let asked = async {
            if self.chain.transaction(txid).await.ok()?.is_some() {
                return Some(true);
            }
            // A chain without an index of its transactions.
            for vout in 0..transaction.output.len() as u32 {
                if self.chain.is_output_unspent(OutPoint { txid, vout }).await.ok()? {
                    return Some(true);
                }
            }
            Some(false)
        };
        tokio::time::timeout(CHAIN_PATIENCE, asked).await.ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hashes::Hash;

    #[test]
    fn coins_are_kept_for_as_long_as_somebody_may_need_their_transaction() {
        let txid = |byte| Txid::from_byte_array([byte; 32]);
        let only = |byte| HashSet::from([txid(byte)]);
        let referred = Referred {
            withheld: only(1),
            channels: only(2),
            monitors: HashSet::from([txid(2), txid(3)]),
        };
        assert_eq!(referred.fate(&txid(1)), Fate::Keep);
        assert_eq!(referred.fate(&txid(2)), Fate::Keep);
        assert_eq!(referred.fate(&txid(3)), Fate::FreeIfUnseen, "the channel is gone");
        assert_eq!(referred.fate(&txid(4)), Fate::Free, "whatever else is not known");
    }
}
