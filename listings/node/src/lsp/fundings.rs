//! The funding transactions of JIT channels: whether the chain takes them, and to whom they are
//! owed.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction};
use lightning::events::OutboundHTLCLocator;
use lightning::ln::types::ChannelId;
use lightning_block_sync::gossip::UtxoSource;
use lsps2_async::lsp::jit_table::{JitRecord, JitState};
use regtest::BroadcastError;

use super::LspRole;

impl LspRole {
    /// Whether a payment may go over a JIT channel that has just become ready: only if the chain
    /// takes the funding. For a channel that never comes, the client would give its preimage away.
    /// A channel whose funding is refused is given up, which fails what waits for it.
    pub(super) async fn funding_stands(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
        client: &PublicKey,
    ) -> bool {
        let record = self.table.by_user_channel_id(user_channel_id);
        let Some(record) = record.filter(|record| matches!(record.state, JitState::Opening(_)))
        else {
            return true;
        };
        match self.try_funding(&record, channel_id).await {
            Ok(()) => true,
            // The tick asks again.
            Err(BroadcastError::Unavailable { .. }) => false,
            Err(BroadcastError::Rejected { reason, .. }) => {
                self.give_up_funding(&record, channel_id, client, reason);
                false
            }
        }
    }

    async fn try_funding(
        &self,
        record: &JitRecord,
        channel_id: ChannelId,
    ) -> Result<(), BroadcastError> {
        let chain = &self.node.chain;
        if let Some(withheld) = &record.funding {
            return chain.would_take(&withheld.transaction).await;
        }
        let made = self.fundings.lock().unwrap().get(&record.user_channel_id).cloned();
        if let Some(funding) = made {
            // LDK has handed it over as well; whoever comes first is told what the chain says.
            return chain.broadcast(&[funding]).await;
        }
        // Made before a restart.
        let client = &record.client_node_id;
        let channels = self.node.channel_manager.list_channels_with_counterparty(client);
        let channel = channels.iter().find(|channel| channel.channel_id == channel_id);
        let Some(funding) = channel.and_then(|channel| channel.funding_txo) else { return Ok(()) };
        let (txid, coin) = (funding.txid, OutPoint::new(funding.txid, funding.index.into()));
        let unavailable = |reason| BroadcastError::Unavailable { txid, reason };
        let found = chain.transaction(txid).await.map_err(|e| unavailable(e.to_string()))?;
        let unspent = chain.is_output_unspent(coin).await;
        match found.is_some() || unspent.map_err(|_| unavailable("no answer".to_owned()))? {
            true => Ok(()),
            false => Err(BroadcastError::Rejected { txid, reason: "it is not there".to_owned() }),
        }
    }

    fn give_up_funding(
        &self,
        record: &JitRecord,
        channel_id: ChannelId,
        client: &PublicKey,
        reason: String,
    ) {
        self.node.note_channel("open_failed", channel_id, client, Some(reason));
        if let Some(funding) = self.fundings.lock().unwrap().remove(&record.user_channel_id) {
            self.node.wallet.release(&funding);
        }
        let reason = "the chain does not take the funding".to_owned();
        self.node.close_unopened(channel_id, client, reason);
        self.node.peer_manager.process_events();
    }

    /// An HTLC was claimed over a channel that is closed by now, and whose funding is withheld. LSPS2
    /// broadcasts the funding of a channel that is open, and no other. But the client has given its
    /// preimage for what it has in this one, and gets that on chain.
    pub(super) fn pay_out_closed(&self, claimed: &[OutboundHTLCLocator]) {
        for htlc in claimed {
            let open = self.node.channel_manager.list_channels();
            if open.iter().any(|channel| channel.channel_id == htlc.channel_id) {
                continue;
            }
            if let Some(record) = self.withheld_for(htlc.channel_id) {
                let funding = record.funding.expect("it is withheld").transaction;
                // On disk at once: what the wallet has noted is broadcast again at each block.
                self.node.wallet.note_broadcast(&funding);
                self.node.broadcast_now(funding);
            }
        }
    }

    /// An HTLC over a closed channel has failed: nobody is owed its funding, if that was withheld.
    pub(super) fn release_after_failure(&self, channel_id: ChannelId) {
        let record = self.withheld_for(channel_id);
        if let Some(record) = record.filter(|r| matches!(r.state, JitState::Retired(_))) {
            self.release_withheld(&record);
        }
    }

    fn withheld_for(&self, channel_id: ChannelId) -> Option<JitRecord> {
        self.table.all().into_iter().find(|record| {
            record.funding.as_ref().is_some_and(|f| funds(&f.transaction, channel_id))
        })
    }
}

/// Whether the id of a channel was made from this transaction (BOLT 2).
fn funds(transaction: &Transaction, channel_id: ChannelId) -> bool {
    let txid = transaction.compute_txid();
    (0..transaction.output.len()).any(|index| {
        let funding = lightning::chain::transaction::OutPoint { txid, index: index as u16 };
        ChannelId::v1_from_funding_outpoint(funding) == channel_id
    })
}
