//! The funding transactions of JIT channels: whether the chain takes them, and to whom they are
//! owed.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction};
use lightning::chain::transaction::OutPoint as FundingOutPoint;
use lightning::events::OutboundHTLCLocator;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning_block_sync::gossip::UtxoSource;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::intercept::Swept;
use lsps2_async::lsp::jit_table::{JitRecord, JitState, OpenChannel, RetiredWhy};
use regtest::BroadcastError;
use std::time::Duration;

use super::stake::{Stake, channels_of};
use super::{Desk, LspRole};

/// How long the chain may take to answer.
pub(super) const CHAIN_PATIENCE: Duration = Duration::from_secs(5);

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
        let in_time = tokio::time::timeout(CHAIN_PATIENCE, self.try_funding(&record, channel_id));
        match in_time.await {
            // So does the tick here; a chain that hangs must not keep it from its other work.
            Err(_elapsed) => false,
            Ok(answer) => self.heed_chain(&record, channel_id, client, answer),
        }
    }

    fn heed_chain(
        &self,
        record: &JitRecord,
        channel_id: ChannelId,
        client: &PublicKey,
        answer: Result<(), BroadcastError>,
    ) -> bool {
        match answer {
            Ok(()) => true,
            // The tick asks again.
            Err(BroadcastError::Unavailable { .. }) => false,
            Err(BroadcastError::Rejected { reason, .. }) => {
                self.give_up_funding(record, channel_id, client, reason);
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
        let Some(funding) = self.funding_txo(record, channel_id) else { return Ok(()) };
        // LDK hands it over as well, but not again after a restart, and the chain may have been away.
        if let Some(transaction) = self.node.wallet.transaction(&funding.txid) {
            if record.trust_model == TrustModel::ClientTrustsLsp {
                // Nobody has paid for it yet.
                return chain.would_take(&transaction).await;
            }
            let answer = chain.broadcast(std::slice::from_ref(&transaction)).await;
            if answer.is_ok() {
                // What goes over the channel relies on it: it is broadcast until it is confirmed.
                self.node.wallet.note_broadcast(&transaction);
            }
            return answer;
        }
        let (txid, coin) = (funding.txid, OutPoint::new(funding.txid, funding.index.into()));
        let unavailable = |reason| BroadcastError::Unavailable { txid, reason };
        let found = chain.transaction(txid).await.map_err(|e| unavailable(e.to_string()))?;
        let unspent = chain.is_output_unspent(coin).await;
        match found.is_some() || unspent.map_err(|_| unavailable("no answer".to_owned()))? {
            true => Ok(()),
            false => Err(BroadcastError::Rejected { txid, reason: "it is not there".to_owned() }),
        }
    }

    fn funding_txo(&self, record: &JitRecord, channel_id: ChannelId) -> Option<FundingOutPoint> {
        let client = &record.client_node_id;
        let channels = self.node.channel_manager.list_channels_with_counterparty(client);
        channels.iter().find(|channel| channel.channel_id == channel_id)?.funding_txo
    }

    fn give_up_funding(
        &self,
        record: &JitRecord,
        channel_id: ChannelId,
        client: &PublicKey,
        reason: String,
    ) {
        self.node.note_channel("open_failed", channel_id, client, Some(reason));
        // What is withheld is released when the channel is closed.
        let funding = self.funding_txo(record, channel_id).filter(|_| record.funding.is_none());
        if let Some(funding) = funding.and_then(|txo| self.node.wallet.transaction(&txo.txid)) {
            self.node.wallet.release(&funding);
        }
        let reason = "the chain does not take the funding".to_owned();
        self.node.close_unopened(channel_id, client, reason);
        self.node.peer_manager.process_events();
    }

    /// Fundings that are paid for. LSPS2 broadcasts at each forward once it has the whole fee, and the chain
    /// may be away just then, or refuse it for a reason that passes: the wallet has it on disk, and the node
    /// broadcasts it again at each block.
    pub(super) fn keep_broadcasting(&self) {
        for record in self.table.all().into_iter().filter(is_paid_for) {
            let safe = record.funding.filter(|funding| funding.broadcast_safe);
            if let Some(funding) = safe {
                self.node.wallet.note_broadcast(&funding.transaction);
            }
        }
    }

    /// An HTLC was claimed over a channel that is closed by now, and whose funding is withheld. LSPS2
    /// broadcasts the funding of a channel that is open, and no other. But the client has given its
    /// preimage for what it has in this one, and gets that on chain.
    pub(super) async fn pay_out_closed(&self, desk: &mut Desk, claimed: &[OutboundHTLCLocator]) {
        for htlc in claimed {
            let open = self.node.channel_manager.list_channels();
            if open.iter().any(|channel| channel.channel_id == htlc.channel_id) {
                continue;
            }
            if let Some(record) = self.withheld_for(htlc.channel_id) {
                self.pay_out_and_forget(desk, &record).await;
            }
        }
    }

    /// An HTLC over a closed channel has failed: nobody is owed its funding, if that was withheld, but
    /// for what another HTLC brought.
    pub(super) async fn release_after_failure(&self, desk: &mut Desk, channel_id: ChannelId) {
        let open = self.node.channel_manager.list_channels();
        if open.iter().any(|channel| channel.channel_id == channel_id) {
            // [`Self::end_given_up`] sees to it.
            return;
        }
        let ended = |r: &JitRecord| matches!(r.state, JitState::Retired(_) | JitState::Sold);
        let Some(record) = self.withheld_for(channel_id).filter(ended) else { return };
        match self.stake_of_withheld(&record) {
            Stake::Something => self.pay_out_and_forget(desk, &record).await,
            // The monitor of a channel whose funding is not there lists the HTLC for ever.
            Stake::Perhaps | Stake::Nothing => self.release_and_forget(desk, &record).await,
        }
    }

    /// What becomes of the withheld funding of a channel that has just closed. To be called before its
    /// record is retired.
    pub(super) async fn settle_closed(
        &self,
        desk: &mut Desk,
        record: &JitRecord,
        channel_id: ChannelId,
    ) {
        if was_closed(record) {
            // LDK shows the closing again. What was kept at first is kept for an HTLC, whose end settles it.
            return;
        }
        // The next channel of the lease may have one by now.
        let its_own = record.funding.as_ref().filter(|f| funds(&f.transaction, channel_id));
        let Some(funding) = its_own else { return };
        match record.open() {
            Some(open) if open.fee_paid => {
                if funding.broadcast_safe {
                    // LSPS2 has broadcast it; now the wallet does so until the chain has it.
                    self.node.wallet.note_broadcast(&funding.transaction);
                    forget(desk, record.user_channel_id, &funding.transaction).await;
                }
            }
            // While an HTLC that went over it is not failed, the client may be owed the funding. The payment
            // with the fee may have gone over another channel.
            Some(_) | None => self.settle_by_stake(desk, record).await,
        }
    }

    /// For a channel that is closed and for which nobody pays the fee: the client may have been paid
    /// over it all the same, over its real SCID.
    async fn settle_by_stake(&self, desk: &mut Desk, record: &JitRecord) {
        match self.stake_of_withheld(record) {
            Stake::Nothing => self.release_and_forget(desk, record).await,
            Stake::Something => self.pay_out_and_forget(desk, record).await,
            // The end of the HTLC settles it.
            Stake::Perhaps => {}
        }
    }

    fn stake_of_withheld(&self, record: &JitRecord) -> Stake {
        let funding = record.funding.as_ref();
        funding.map_or(Stake::Nothing, |funding| self.stake_of(&funding.transaction))
    }

    async fn pay_out_and_forget(&self, desk: &mut Desk, record: &JitRecord) {
        if let Some(funding) = &record.funding {
            // On disk at once: what the wallet has noted is broadcast again at each block.
            self.node.wallet.note_broadcast(&funding.transaction);
            self.node.broadcast_now(funding.transaction.clone());
            forget(desk, record.user_channel_id, &funding.transaction).await;
        }
    }

    async fn release_and_forget(&self, desk: &mut Desk, record: &JitRecord) {
        if let Some(funding) = &record.funding {
            self.node.wallet.release(&funding.transaction);
            forget(desk, record.user_channel_id, &funding.transaction).await;
        }
    }

    /// Channels whose opening was given up, or whose lease LSPS2 has lost, and whose funding is withheld.
    /// The client may have signed and kept `channel_ready` back: such a channel is closed, and its coins
    /// are free again, unless the client has or may get something in it.
    ///
    /// With the desk locked: no payment may come in between.
    pub(super) async fn end_given_up(&self, desk: &mut Desk, swept: &[Swept]) {
        let just_now = |record: &JitRecord| {
            let given_up =
                |s: &Swept| matches!(s, Swept::OpenGivenUp { scid, .. } if *scid == record.scid);
            swept.iter().any(given_up)
        };
        for record in self.table.all() {
            if record.funding.is_none() || !(was_given_up(&record) || just_now(&record)) {
                continue;
            }
            let client = &record.client_node_id;
            let mut channels = self.node.channel_manager.list_channels_with_counterparty(client);
            channels.retain(|channel| channel.user_channel_id == record.user_channel_id);
            if !channels.iter().all(|channel| self.is_all_ours(channel)) {
                continue;
            }
            for channel in &channels {
                let reason = "the channel did not open in time".to_owned();
                self.node.close_unopened(channel.channel_id, client, reason);
            }
            if channels.is_empty() {
                self.settle_by_stake(desk, &record).await;
            }
        }
    }

    /// A new channel is about to be funded: that of an earlier attempt is gone.
    pub(super) fn release_earlier(&self, user_channel_id: u128) {
        let record = self.table.by_user_channel_id(user_channel_id);
        let opening = record.filter(|record| matches!(record.state, JitState::Opening(_)));
        if let Some(funding) = opening.and_then(|record| record.funding) {
            self.node.wallet.release(&funding.transaction);
        }
    }

    /// Whether nothing is on its way over a channel, and nothing in it is the client's.
    pub(super) fn is_all_ours(&self, channel: &ChannelDetails) -> bool {
        channel.pending_outbound_htlcs.is_empty()
            && self.stake_in(channel.channel_id, channel.channel_value_satoshis) == Stake::Nothing
    }

    fn withheld_for(&self, channel_id: ChannelId) -> Option<JitRecord> {
        self.table.all().into_iter().find(|record| {
            record.funding.as_ref().is_some_and(|f| funds(&f.transaction, channel_id))
        })
    }
}

/// A table that cannot be written keeps it: that costs a record, and no coins.
async fn forget(desk: &mut Desk, user_channel_id: u128, funding: &Transaction) {
    let _ = desk.funding_gone(user_channel_id, funding).await;
}

/// Nothing is forwarded over the channel of such a record, and of one that was closed no more is to
/// come than [`LspRole::settle_closed`] has left.
fn was_given_up(record: &JitRecord) -> bool {
    match &record.state {
        JitState::Sold => true,
        JitState::Retired(retired) => match retired.why {
            RetiredWhy::OpenAbandoned | RetiredWhy::LostByLsps2 => true,
            RetiredWhy::ChannelClosed => false,
        },
        JitState::Opening(_) | JitState::Open(_) => false,
    }
}

/// What is left of the funding of such a record waits for an HTLC to be claimed or failed.
fn was_closed(record: &JitRecord) -> bool {
    matches!(&record.state, JitState::Retired(retired) if retired.why == RetiredWhy::ChannelClosed)
}

/// What an honest wallet claims over a channel whose funding is withheld brings the whole fee. Whoever
/// claims something else does not get the LSP to fund it.
fn is_paid_for(record: &JitRecord) -> bool {
    record.open().is_some_and(|open| open.fee_paid)
}

/// The open channel of a record whose funding is withheld, if nobody pays or has paid for it. One with
/// the fee on its way, be it claimed and not yet booked, is not among them.
pub(super) fn unpaid_and_withheld(record: &JitRecord) -> Option<&OpenChannel> {
    let open = record.open().filter(|open| !open.fee_paid && open.fee_payment.is_none());
    open.filter(|_| record.funding.is_some())
}

/// Whether the id of a channel was made from this transaction.
fn funds(transaction: &Transaction, channel_id: ChannelId) -> bool {
    channels_of(transaction).any(|id| id == channel_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use bitcoin::transaction::Version;
    use lightning::types::payment::PaymentHash;
    use lsps2_async::lease::OpeningFeeParams;
    use lsps2_async::lsp::jit_table::{FeePayment, Retired, WithheldFunding};

    fn record(state: JitState) -> JitRecord {
        let key = SecretKey::from_slice(&[1; 32]).unwrap();
        let transaction = Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![],
            output: vec![],
        };
        JitRecord {
            scid: 1,
            client_node_id: PublicKey::from_secret_key(&Secp256k1::new(), &key),
            user_channel_id: 1,
            opening_fee_params: OpeningFeeParams {
                min_fee_msat: 1,
                proportional: 1,
                valid_until: Duration::from_secs(1),
                min_lifetime: 1,
                max_client_to_self_delay: 1,
                min_payment_size_msat: 1,
                max_payment_size_msat: 1,
            },
            payment_size_msat: None,
            trust_model: TrustModel::ClientTrustsLsp,
            cltv_expiry_delta: 72,
            state,
            funding: Some(WithheldFunding { transaction, broadcast_safe: true }),
        }
    }

    fn open(fee_payment: Option<FeePayment>, fee_paid: bool) -> JitState {
        JitState::Open(OpenChannel {
            channel_id: ChannelId([9; 32]),
            opening_fee_msat: 1,
            skimmed_fee_msat: 0,
            counted: vec![],
            fee_payment,
            ended: vec![],
            fee_paid,
        })
    }

    #[test]
    fn a_channel_whose_fee_is_on_its_way_is_not_closed_as_unpaid() {
        let fee = FeePayment { payment_hash: PaymentHash([1; 32]), intercept_ids: vec![] };
        let closes = |state| unpaid_and_withheld(&record(state)).is_some();
        assert!(closes(open(None, false)));
        assert!(!closes(open(Some(fee), false)));
        assert!(!closes(open(None, true)));
        assert!(!closes(JitState::Sold));
        let funded = JitRecord { funding: None, ..record(open(None, false)) };
        assert!(unpaid_and_withheld(&funded).is_none());
    }

    #[test]
    fn only_a_funding_that_the_fee_was_paid_for_is_broadcast() {
        let fee = FeePayment { payment_hash: PaymentHash([1; 32]), intercept_ids: vec![] };
        assert!(is_paid_for(&record(open(None, true))));
        assert!(!is_paid_for(&record(open(Some(fee), false))));
        assert!(!is_paid_for(&record(JitState::Sold)));
        let mut in_part = open(None, false);
        if let JitState::Open(open) = &mut in_part {
            (open.opening_fee_msat, open.skimmed_fee_msat) = (2, 1);
        }
        assert!(!is_paid_for(&record(in_part)), "the rest may never come");
    }

    #[test]
    fn coins_come_back_from_what_was_given_up_and_from_a_lease_that_lsps2_has_lost() {
        let retired = |why| JitState::Retired(Retired { why, since: Duration::ZERO });
        let given_up = |state| was_given_up(&record(state));
        assert!(given_up(JitState::Sold));
        assert!(given_up(retired(RetiredWhy::OpenAbandoned)));
        assert!(given_up(retired(RetiredWhy::LostByLsps2)));
        assert!(!given_up(retired(RetiredWhy::ChannelClosed)));
        assert!(!given_up(open(None, false)));
    }
}
