//! Coins that were taken for a channel of which a crash has left nothing.

use bitcoin::OutPoint;
use std::collections::HashSet;

use super::LspRole;

impl LspRole {
    /// Frees coins that were taken for a funding which nobody knows any more: the process died before it
    /// handed the transaction on. If LDK has a channel whose funding is not known here, nothing is
    /// freed: those may be its coins.
    pub(super) fn release_forgotten_coins(&self) {
        let withheld: Vec<_> =
            self.table.all().into_iter().filter_map(|record| record.funding).collect();
        let is_known = |funding: &lightning::chain::transaction::OutPoint| {
            let kept = withheld.iter().any(|f| f.transaction.compute_txid() == funding.txid);
            kept || self.node.wallet.knows(&funding.txid)
        };
        let channels = self.node.channel_manager.list_channels();
        let mut ours = channels.iter().filter(|channel| channel.is_outbound);
        if ours.any(|channel| channel.funding_txo.as_ref().is_none_or(|txo| !is_known(txo))) {
            return;
        }
        let inputs = withheld.iter().flat_map(|funding| &funding.transaction.input);
        let kept: HashSet<OutPoint> = inputs.map(|input| input.previous_output).collect();
        self.node.wallet.release_all_but(&kept);
    }
}
