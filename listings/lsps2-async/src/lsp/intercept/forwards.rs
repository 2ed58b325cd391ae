//! The desk's fee side: payments that were claimed, and payments that failed.

use bitcoin::hashes::{Hash, HashEngine, sha256};

use super::*;

impl<S: Deref<Target: Switch>, K: KVStore> JitDesk<S, K> {
    /// Handles `Event::PaymentForwarded`: books the skim and tells LSPS2 the channel's sum.
    pub async fn payment_forwarded<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        prev_htlcs: &[InboundHTLCLocator],
        next_htlcs: &[OutboundHTLCLocator],
        skimmed_fee_msat: Option<u64>,
        now: Duration,
    ) -> Result<FeeOutcome, JitTableError> {
        let owed = self.owed(prev_htlcs, next_htlcs);
        let from: Vec<_> = prev_htlcs.iter().filter_map(inbound).collect();
        let mut outcome = FeeOutcome::NotJit;
        for (channel_id, share) in attribute_skim(skimmed_fee_msat.unwrap_or(0), &owed) {
            outcome = self.book(lsps2, channel_id, &from, share, now).await?;
        }
        Ok(outcome)
    }

    /// Each JIT channel that these HTLCs may have paid for, once, with what it owes in msat.
    ///
    /// LDK forwards over whichever channel with the client will do, not over the one it was told: what
    /// was handed over as the payment of a fee pays for that lease, wherever it went.
    fn owed(
        &self,
        prev_htlcs: &[InboundHTLCLocator],
        next_htlcs: &[OutboundHTLCLocator],
    ) -> Vec<(ChannelId, u64)> {
        let paid_by = prev_htlcs.iter().filter_map(intercept_id).collect::<Vec<_>>();
        let records = self.table.all();
        let named = records.iter().filter_map(JitRecord::open).find(|open| {
            let fee = open.fee_payment.iter().flat_map(|fee| &fee.intercept_ids);
            fee.chain(&open.ended).any(|id| paid_by.contains(id))
        });
        if let Some(open) = named {
            return vec![(open.channel_id, open.owed_msat())];
        }
        let mut owed: Vec<(ChannelId, u64)> = Vec::new();
        for htlc in next_htlcs {
            let record = self.table.by_channel_id(htlc.channel_id);
            let Some(owes) = record.and_then(|record| record.open().map(OpenChannel::owed_msat))
            else {
                continue;
            };
            if owed.iter().all(|(channel_id, _)| *channel_id != htlc.channel_id) {
                owed.push((htlc.channel_id, owes));
            }
        }
        owed
    }

    async fn book<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        channel_id: ChannelId,
        from: &[InboundHtlc],
        skimmed_fee_msat: u64,
        now: Duration,
    ) -> Result<FeeOutcome, JitTableError> {
        let Some(mut record) = self.table.by_channel_id(channel_id) else {
            return Ok(FeeOutcome::NotJit);
        };
        let Some(mut open) = record.open().cloned() else {
            return Ok(FeeOutcome::NotJit);
        };
        let paid = book_skim(&mut open, from, skimmed_fee_msat);
        if record.open() != Some(&open) {
            record.state = JitState::Open(open.clone());
            self.table.put(record.clone()).await?;
        }
        let told = self.tell_sum(lsps2, &open).await;
        if !paid {
            return Ok(owed_outcome(&open));
        }
        let let_through = self.release(lsps2, record.scid, now).await?;
        Ok(match told {
            Ok(()) => FeeOutcome::Paid(let_through),
            Err(_) => FeeOutcome::PaidUnnoticed(self.to_broadcast(&record, channel_id)),
        })
    }

    /// If LSPS2's queue holds an HTLC that is gone it stops half-way, with its state moved on: the
    /// second call then does what is left, the broadcast.
    pub(super) async fn tell_sum<L: Lsps2Service>(
        &self,
        lsps2: &L,
        open: &OpenChannel,
    ) -> Result<(), Lsps2Failure> {
        let (channel_id, sum_msat) = (open.channel_id, open.skimmed_fee_msat);
        match acted(lsps2.payment_forwarded(channel_id, sum_msat).await) {
            Err(Lsps2Failure::HtlcGone(_)) => {
                acted(lsps2.payment_forwarded(channel_id, sum_msat).await)
            }
            told => told,
        }
    }

    /// Never for a channel that is gone: its commitment transaction would follow.
    fn to_broadcast(&self, record: &JitRecord, channel_id: ChannelId) -> Option<Transaction> {
        let funding = record.funding.as_ref().filter(|funding| funding.broadcast_safe)?;
        let view = self.view(record, channel_id).filter(|view| view.is_ready);
        view.map(|_| funding.transaction.clone())
    }

    /// Handles `Event::HTLCHandlingFailed`.
    ///
    /// Nothing was skimmed from an HTLC that failed, so the account stays as it is. LSPS2 takes any
    /// failure on the channel for that of the payment with the fee; it is told only when nothing of that
    /// payment is on its way. It may have gone over another channel with the client, so each of the
    /// client's leases is looked at.
    pub async fn htlc_handling_failed<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        failure_type: &HTLCHandlingFailureType,
        now: Duration,
    ) -> Result<FeeOutcome, JitTableError> {
        let HTLCHandlingFailureType::Forward { channel_id, node_id } = failure_type else {
            return Ok(FeeOutcome::NotJit);
        };
        let own = self.table.by_channel_id(*channel_id).filter(|record| record.open().is_some());
        let mut failed = self.fees_of(*node_id, *channel_id);
        failed.retain(|record| !self.fee_in_flight(record));
        if failed.is_empty() {
            return Ok(match own.as_ref().and_then(JitRecord::open) {
                None => FeeOutcome::NotJit,
                Some(open) if open.fee_paid => FeeOutcome::Paid(Vec::new()),
                Some(open) => owed_outcome(open),
            });
        }
        let mut released = Vec::new();
        for record in failed {
            let scid = record.scid;
            self.end_fee_payment(lsps2, record).await?;
            released.extend(self.release(lsps2, scid, now).await?);
        }
        Ok(FeeOutcome::FeePaymentFailed(released))
    }

    /// The leases whose fee may have been in what failed on this channel: that of the channel, and those
    /// of the same client whose fee was handed over.
    fn fees_of(&self, client: Option<PublicKey>, channel_id: ChannelId) -> Vec<JitRecord> {
        let mut records = self.table.all();
        records.retain(|record| {
            let Some(open) = record.open().filter(|open| !open.fee_paid) else { return false };
            let elsewhere = client == Some(record.client_node_id) && open.fee_payment.is_some();
            open.channel_id == channel_id || elsewhere
        });
        records
    }

    /// LDK forwards over whichever channel with the client will do, whatever channel it was told.
    pub(super) fn fee_in_flight(&self, record: &JitRecord) -> bool {
        let Some(fee) = record.open().and_then(|open| open.fee_payment.as_ref()) else {
            return false;
        };
        let channels = self.switch.channels_with(&record.client_node_id);
        channels.iter().any(|view| view.skimmed.contains(&fee.payment_hash))
    }

    /// The fee is owed again, here and in LSPS2. Each call takes one payment out of LSPS2's queue
    /// whose HTLCs are gone; it is done when LSPS2 finds none.
    pub(super) async fn end_fee_payment<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        mut record: JitRecord,
    ) -> Result<JitRecord, JitTableError> {
        let client = record.client_node_id;
        let Some(open) = open_mut(&mut record) else {
            return Ok(record);
        };
        if let Some(fee) = open.fee_payment.take() {
            open.ended.extend(fee.intercept_ids);
            open.ended.drain(..open.ended.len().saturating_sub(MAX_ENDED));
        }
        let channel_id = open.channel_id;
        self.table.put(record.clone()).await?;
        for _ in 0..MAX_STALE_PAYMENTS {
            let told = acted(lsps2.fee_payment_failed(channel_id, client).await);
            if !matches!(told, Err(Lsps2Failure::HtlcGone(_))) {
                break;
            }
        }
        Ok(record)
    }
}

fn owed_outcome(open: &OpenChannel) -> FeeOutcome {
    FeeOutcome::Owed {
        skimmed_fee_msat: open.skimmed_fee_msat,
        opening_fee_msat: open.opening_fee_msat,
    }
}

/// The name that LDK gave an intercepted HTLC: it makes it of these three, and tells nobody
/// (`channelmanager.rs`, `InterceptId::from_htlc_id_and_chan_id`).
pub(super) fn intercept_id(htlc: &InboundHTLCLocator) -> Option<InterceptId> {
    let (htlc_id, node_id) = (htlc.htlc_id?, htlc.node_id?);
    let mut engine = sha256::Hash::engine();
    engine.input(&htlc_id.to_be_bytes());
    engine.input(&htlc.channel_id.0);
    engine.input(&node_id.serialize());
    Some(InterceptId(sha256::Hash::from_engine(engine).to_byte_array()))
}

/// Events written by LDK before 0.3 have no HTLC id; they cannot concern this table.
fn inbound(htlc: &InboundHTLCLocator) -> Option<InboundHtlc> {
    let htlc_id = htlc.htlc_id?;
    Some(InboundHtlc { channel_id: htlc.channel_id, htlc_id })
}
