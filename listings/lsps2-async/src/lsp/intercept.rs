//! The desk: every event of the LSP that concerns a JIT channel comes here.
//!
//! Two rules keep money safe. An HTLC is either on its way, or LSPS2's, or in [`HeldHtlcs`], from
//! where [`JitDesk::sweep`] fails it in time; failing one that LDK has already forwarded is an
//! error without effect. And the table is written before anything relies on it.
//!
//! The methods take `&mut self`: LDK's events and those of the `LiquidityManager` are handled at
//! the same time, so put the desk behind one asynchronous mutex and hold it for one event.

mod channels;
mod forwards;
mod sweep;

use std::collections::HashSet;
use std::sync::Arc;

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use core::ops::Deref;
use core::time::Duration;
use lightning::events::{HTLCHandlingFailureType, InboundHTLCLocator, OutboundHTLCLocator};
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::errors::APIError;
use lightning::util::persist::KVStore;

use crate::lease::TrustModel;
use crate::lsp::decision::{
    Circumstances, LEAST_BLOCKS_TO_OPEN, MAX_HELD_PER_SCID, Quote, Refusal, Verdict, WaitsFor,
    judge,
};
use crate::lsp::held::{HeldHtlcs, InterceptedHtlc, blocks_left, gross_msat, needed};
use crate::lsp::jit_table::{
    FeePayment, InboundHtlc, JitRecord, JitState, JitTable, JitTableError, OpenChannel, Opening,
    Retired, RetiredWhy, WithheldFunding,
};
use crate::lsp::open_plan::{ChannelSizing, OpenPlan};
use crate::lsp::service::{ChannelView, Lsps2Failure, Lsps2Service, Switch};
use crate::lsp::skim::{attribute_skim, book_skim};

/// How often LSPS2 is told of one failure: each call takes one stale payment out of its queue.
const MAX_STALE_PAYMENTS: usize = 32;

/// How many HTLCs are remembered for which a fee was owed again.
const MAX_ENDED: usize = 16;

/// The desk's time limits and channel sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeskSettings {
    /// How channels are sized.
    pub sizing: ChannelSizing,
    /// How long an HTLC may wait for its other parts or for the payment that carries the fee.
    /// bLIP-52 recommends at least 90 s.
    pub max_hold: Duration,
    /// How long a channel may take to open while HTLCs wait for it.
    pub open_deadline: Duration,
    /// How long expired and retired leases stay in the table, for the operator to see.
    pub keep_dead: Duration,
}

impl Default for DeskSettings {
    fn default() -> Self {
        Self {
            sizing: ChannelSizing::default(),
            max_hold: Duration::from_secs(90),
            open_deadline: Duration::from_secs(10 * 60),
            keep_dead: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// What was done with an intercepted HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intercepted {
    /// It was failed back, with the rest of its payment if that waited here.
    Refused(Refusal),
    /// It waits at the desk.
    Held(WaitsFor),
    /// Its payment is complete: LSPS2 will raise `OpenChannel`.
    OpeningChannel(Quote),
    /// LSPS2 had it already.
    HandedOverAgain,
    /// It was forwarded less the opening fee.
    ForwardedForFee {
        /// The JIT channel.
        channel_id: ChannelId,
        /// The fee, in msat.
        opening_fee_msat: u64,
    },
    /// It was forwarded in full.
    ForwardedInFull {
        /// The JIT channel.
        channel_id: ChannelId,
        /// The amount, in msat.
        amount_msat: u64,
    },
    /// A replay: it was forwarded before.
    OnItsWay,
}

/// What to do about `LSPS2ServiceEvent::OpenChannel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenDecision {
    /// Create this channel.
    Open(OpenPlan),
    /// It exists, or its plan was given out: nothing to do.
    AlreadyOpen,
    /// The client is away. [`JitDesk::pending_opens`] will return the plan when it is back.
    WaitForClient,
    /// Another JIT channel of this client is not paid for yet. [`JitDesk::pending_opens`] will return
    /// the plan when it is, or when that channel is closed: close it if nothing goes over it.
    WaitForAnother,
    /// No payment waits for it any more, or it is no lease of ours: nothing to do.
    Stale,
}

/// What became of an event about a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelOutcome {
    /// It is not a JIT channel.
    NotJit,
    /// The channel is open. These are the HTLCs that waited for it.
    Open(Vec<Intercepted>),
    /// A replay, or an event that came too late to matter.
    NothingToDo,
    /// The channel is not coming, its HTLCs were failed, and the lease can be used again.
    Reusable,
    /// The lease has ended.
    Retired(RetiredWhy),
}

/// What became of a forwarded or failed payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeeOutcome {
    /// It did not go over a JIT channel.
    NotJit,
    /// The fee is not, or not wholly, paid.
    Owed {
        /// Skimmed so far, in msat.
        skimmed_fee_msat: u64,
        /// The whole fee, in msat.
        opening_fee_msat: u64,
    },
    /// The fee is paid. These are the HTLCs that waited for that.
    Paid(Vec<Intercepted>),
    /// The fee is paid, and LSPS2 did not take note. The withheld funding transaction, if any, must
    /// be broadcast by the caller.
    PaidUnnoticed(Option<Transaction>),
    /// The payment that carried the fee failed. These are the HTLCs that waited for its end.
    FeePaymentFailed(Vec<Intercepted>),
}

/// What was done with a funding transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Funded {
    /// It is not a JIT channel: nothing was done.
    NotJit,
    /// LDK broadcasts the transaction when the client has signed.
    BroadcastByLdk,
    /// LSPS2 broadcasts the transaction when the fee is paid.
    Withheld,
}

impl Funded {
    fn by(withheld: bool) -> Self {
        if withheld { Self::Withheld } else { Self::BroadcastByLdk }
    }
}

/// Why a channel was not funded.
///
/// Close it (`ChannelManager::force_close_broadcasting_latest_txn`: it is not on chain), so that it
/// does not stand in the way of the next one, and call [`JitDesk::open_failed`].
#[derive(Debug, thiserror::Error)]
pub enum FundingError {
    /// The table could not be written. The channel was not funded.
    #[error(transparent)]
    Table(#[from] JitTableError),
    /// LDK did not take the transaction.
    #[error("LDK refused the funding transaction ({0}): release its inputs and fail the open")]
    Refused(String),
}

/// One thing that [`JitDesk::sweep`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Swept {
    /// An HTLC was failed back.
    Failed(InterceptId, Refusal),
    /// Something that waited was let through.
    LetThrough(Intercepted),
    /// The opening of a channel was given up after the deadline.
    OpenGivenUp {
        /// The SCID of the lease.
        scid: u64,
        /// Whether the lease can be used again.
        outcome: ChannelOutcome,
    },
    /// The record of a dead lease was removed.
    Removed(u64),
}

/// Handles the events of JIT channels. `S` points to the `ChannelManager`.
pub struct JitDesk<S: Deref<Target: Switch>, K: KVStore> {
    switch: S,
    table: Arc<JitTable<K>>,
    settings: DeskSettings,
    held: HeldHtlcs,
    plans_out: HashSet<u128>,
}

impl<S: Deref<Target: Switch>, K: KVStore> JitDesk<S, K> {
    /// A desk over a loaded table. Call [`Self::resume`] before any event is handled.
    pub fn new(switch: S, table: Arc<JitTable<K>>, settings: DeskSettings) -> Self {
        let held = HeldHtlcs::default();
        Self { switch, table, settings, held, plans_out: HashSet::new() }
    }

    /// The table, for lookups.
    pub fn table(&self) -> &JitTable<K> {
        &self.table
    }

    /// The HTLCs LDK holds for this desk.
    pub fn held(&self) -> &HeldHtlcs {
        &self.held
    }

    /// Handles `Event::HTLCIntercepted`.
    ///
    /// `connected` tells whether a peer is connected (bLIP-52: without the client, fail). On an
    /// error the HTLC is still held: return `ReplayEvent`, or let [`Self::sweep`] fail it.
    pub async fn htlc_intercepted<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        htlc: InterceptedHtlc,
        connected: impl Fn(&PublicKey) -> bool,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        let scid = htlc.requested_next_hop_scid;
        let Some(record) = self.table.get(scid) else {
            return Ok(self.refuse(&[htlc], Refusal::UnknownScid(scid)));
        };
        if self.held.is_sent(htlc.intercept_id) {
            return Ok(Intercepted::OnItsWay);
        }
        if self.is_crowded(&htlc) {
            return Ok(self.refuse(&[htlc], Refusal::TooManyHeld));
        }
        self.held.note(htlc, now);
        let client_connected = connected(&record.client_node_id);
        let done = self.handle_one(lsps2, record, htlc, client_connected, now).await?;
        if let Intercepted::ForwardedForFee { .. } = done {
            self.release(lsps2, scid, now).await?;
        }
        Ok(done)
    }

    async fn handle_one<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        record: JitRecord,
        htlc: InterceptedHtlc,
        client_connected: bool,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        let known = self.circumstances(&record, &htlc, client_connected, now);
        match judge(&record, &htlc, known) {
            Verdict::Refuse(why) => Ok(self.refuse_payment(&htlc, why)),
            Verdict::Hold(what) => Ok(Intercepted::Held(what)),
            Verdict::ForwardInFull(channel_id) => {
                Ok(self.forward_in_full(&record, &htlc, channel_id))
            }
            Verdict::OpenChannel(quote) => {
                self.ask_for_channel(lsps2, record, htlc, quote, now).await
            }
            Verdict::HandOverAgain => self.hand_over_again(lsps2, record, htlc, now).await,
            Verdict::PayFee(_) => self.pay_fee(lsps2, record, htlc, now).await,
            Verdict::FeePaymentLost(_) => self.pay_fee_again(lsps2, record, htlc, now).await,
        }
    }

    fn circumstances(
        &self,
        record: &JitRecord,
        htlc: &InterceptedHtlc,
        client_connected: bool,
        now: Duration,
    ) -> Circumstances {
        let parts = self.parts(record, htlc);
        let gross_msat = gross_msat(&parts);
        let blocks_left = blocks_left(&parts, self.switch.height());
        Circumstances { gross_msat, client_connected, blocks_left, now }
    }

    /// What waits here of a payment, without what the lease does not need.
    fn parts(&self, record: &JitRecord, htlc: &InterceptedHtlc) -> Vec<InterceptedHtlc> {
        let parts = self.held.parts(record.scid, htlc.payment_hash);
        match record.payment_size_msat {
            Some(size_msat) => needed(parts, size_msat),
            None => parts,
        }
    }

    /// The record says "opening" before LSPS2 hears of the payment: what LSPS2 then asks for must
    /// survive a crash.
    async fn ask_for_channel<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        mut record: JitRecord,
        htlc: InterceptedHtlc,
        quote: Quote,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        if !knows(lsps2, &record) {
            return self.retire_lost(record, now).await;
        }
        let parts = self.parts(&record, &htlc);
        let sizing = &self.settings.sizing;
        if sizing.channel_value_sat(quote.amt_to_forward_msat).is_none() {
            let why = Refusal::ChannelTooLarge(quote.amt_to_forward_msat);
            return Ok(self.refuse(&parts, why));
        }
        // ANCHOR: write-then-hand-over
        record.state = JitState::Opening(opening(&parts, htlc.payment_hash, quote, now));
        self.table.put(record.clone()).await?;
        if self.hand_over(lsps2, &parts).await.is_err() {
            self.take_back_opening(lsps2, record, now).await?;
            return Ok(Intercepted::Refused(Refusal::NotTaken));
        }
        Ok(Intercepted::OpeningChannel(quote))
        // ANCHOR_END: write-then-hand-over
    }

    /// LSPS2 knows an HTLC by its id, so handing it over twice is harmless.
    async fn hand_over_again<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        record: JitRecord,
        htlc: InterceptedHtlc,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        if !knows(lsps2, &record) {
            return self.retire_lost(record, now).await;
        }
        if self.hand_over(lsps2, &[htlc]).await.is_err() {
            self.take_back_opening(lsps2, record, now).await?;
            return Ok(Intercepted::Refused(Refusal::NotTaken));
        }
        Ok(Intercepted::HandedOverAgain)
    }

    /// Has LSPS2 forward one HTLC less the whole fee.
    async fn pay_fee<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        mut record: JitRecord,
        htlc: InterceptedHtlc,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        if !knows(lsps2, &record) {
            return self.retire_lost(record, now).await;
        }
        let fee =
            FeePayment { payment_hash: htlc.payment_hash, intercept_ids: vec![htlc.intercept_id] };
        let Some(open) = open_mut(&mut record) else {
            return Ok(self.refuse(&[htlc], Refusal::NoChannel));
        };
        open.fee_payment = Some(fee);
        let (channel_id, opening_fee_msat) = (open.channel_id, open.opening_fee_msat);
        self.table.put(record.clone()).await?;
        if self.hand_over(lsps2, &[htlc]).await.is_err() {
            self.end_fee_payment(lsps2, record).await?;
            return Ok(self.refuse(&[htlc], Refusal::NotForwardable));
        }
        self.held.sent(&[htlc.intercept_id]);
        Ok(Intercepted::ForwardedForFee { channel_id, opening_fee_msat })
    }

    /// After a restart LDK may hold an HTLC again that LSPS2 believes to be on its way.
    async fn pay_fee_again<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        record: JitRecord,
        htlc: InterceptedHtlc,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        if self.fee_in_flight(&record) {
            return Ok(self.refuse(&[htlc], Refusal::TornByRestart));
        }
        let record = self.end_fee_payment(lsps2, record).await?;
        match judge(&record, &htlc, alone(&htlc, now)) {
            Verdict::PayFee(_) => self.pay_fee(lsps2, record, htlc, now).await,
            Verdict::Hold(what) => Ok(Intercepted::Held(what)),
            Verdict::Refuse(why) => Ok(self.refuse(&[htlc], why)),
            Verdict::OpenChannel(_)
            | Verdict::HandOverAgain
            | Verdict::FeePaymentLost(_)
            | Verdict::ForwardInFull(_) => Ok(self.refuse(&[htlc], Refusal::TornByRestart)),
        }
    }

    /// Gives HTLCs to LSPS2. That it could not write its state is no failure: it acted, and it
    /// writes again by itself.
    async fn hand_over<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        htlcs: &[InterceptedHtlc],
    ) -> Result<(), Lsps2Failure> {
        for htlc in htlcs {
            self.held.hand_over(htlc.intercept_id);
            acted(lsps2.htlc_intercepted(htlc).await)?;
        }
        Ok(())
    }

    fn forward_in_full(
        &mut self,
        record: &JitRecord,
        htlc: &InterceptedHtlc,
        channel_id: ChannelId,
    ) -> Intercepted {
        let amount_msat = htlc.expected_outbound_amount_msat;
        let client = record.client_node_id;
        match self.switch.forward(htlc.intercept_id, channel_id, client, amount_msat) {
            Ok(()) => {
                self.held.forget(htlc.intercept_id);
                Intercepted::ForwardedInFull { channel_id, amount_msat }
            }
            // It may still be held, and nobody else would fail it.
            Err(_) => self.refuse(&[*htlc], Refusal::NotForwardable),
        }
    }

    /// Fails HTLCs back. An error of LDK means that it holds them no more.
    fn refuse(&mut self, htlcs: &[InterceptedHtlc], why: Refusal) -> Intercepted {
        for htlc in htlcs {
            let _gone = self.switch.fail(htlc.intercept_id);
            self.held.forget(htlc.intercept_id);
        }
        Intercepted::Refused(why)
    }

    /// Without one part the others cannot be claimed either.
    fn refuse_payment(&mut self, htlc: &InterceptedHtlc, why: Refusal) -> Intercepted {
        let parts = self.held.parts(htlc.requested_next_hop_scid, htlc.payment_hash);
        self.refuse(&parts, why);
        self.refuse(&[*htlc], why)
    }

    fn refuse_all(&mut self, scid: u64, why: Refusal) -> Intercepted {
        let waiting: Vec<_> = self.held.of_scid(scid).into_iter().map(|held| held.htlc).collect();
        self.refuse(&waiting, why)
    }

    /// LSPS2 has dropped the lease: it would take HTLCs and do nothing.
    async fn retire_lost(
        &mut self,
        record: JitRecord,
        now: Duration,
    ) -> Result<Intercepted, JitTableError> {
        let why = RetiredWhy::LostByLsps2;
        self.retire(record, why, now).await?;
        Ok(Intercepted::Refused(Refusal::Retired(why)))
    }

    /// HTLCs are failed first: they must not hang because the store fails.
    async fn retire(
        &mut self,
        mut record: JitRecord,
        why: RetiredWhy,
        now: Duration,
    ) -> Result<(), JitTableError> {
        self.refuse_all(record.scid, Refusal::Retired(why));
        self.plans_out.remove(&record.user_channel_id);
        record.state = JitState::Retired(Retired { why, since: now });
        self.table.put(record).await
    }

    /// Lets through what has waited, in order of arrival. Twice: the first time one HTLC may pay
    /// the fee, which frees the other parts of its payment.
    async fn release<L: Lsps2Service>(
        &mut self,
        lsps2: &L,
        scid: u64,
        now: Duration,
    ) -> Result<Vec<Intercepted>, JitTableError> {
        let mut done = Vec::new();
        for _ in 0..2 {
            for held in self.held.of_scid(scid) {
                let Some(record) = self.table.get(scid) else {
                    return Ok(done);
                };
                if held.handed_to_lsps2 || record.open().is_none() {
                    continue;
                }
                let moved = self.handle_one(lsps2, record, held.htlc, true, now).await?;
                done.extend(Some(moved).filter(|moved| !matches!(moved, Intercepted::Held(_))));
            }
        }
        Ok(done)
    }

    fn is_crowded(&self, htlc: &InterceptedHtlc) -> bool {
        let waiting = self.held.of_scid(htlc.requested_next_hop_scid);
        let new = waiting.iter().all(|held| held.htlc.intercept_id != htlc.intercept_id);
        new && waiting.iter().filter(|held| !held.handed_to_lsps2).count() >= MAX_HELD_PER_SCID
    }

    fn view(&self, record: &JitRecord, channel_id: ChannelId) -> Option<ChannelView> {
        let channels = self.switch.channels_with(&record.client_node_id);
        channels.into_iter().find(|view| view.channel_id == channel_id)
    }

    fn view_by_user_id(&self, record: &JitRecord) -> Option<ChannelView> {
        let channels = self.switch.channels_with(&record.client_node_id);
        channels.into_iter().find(|view| view.user_channel_id == record.user_channel_id)
    }
}

/// A payment for a channel that is still to be opened, and that the client would have to refuse.
fn is_too_late(held: &HeldHtlcs, opening: &Opening, height: u32) -> bool {
    let parts = opening.intercept_ids.iter().filter_map(|id| held.get(*id)).map(|held| held.htlc);
    blocks_left(&parts.collect::<Vec<_>>(), height).is_some_and(|left| left < LEAST_BLOCKS_TO_OPEN)
}

fn knows<L: Lsps2Service>(lsps2: &L, record: &JitRecord) -> bool {
    lsps2.knows(&record.client_node_id, record.user_channel_id)
}

fn opening(
    parts: &[InterceptedHtlc],
    payment_hash: PaymentHash,
    quote: Quote,
    since: Duration,
) -> Opening {
    Opening {
        payment_hash,
        intercept_ids: parts.iter().map(|part| part.intercept_id).collect(),
        amt_to_forward_msat: quote.amt_to_forward_msat,
        opening_fee_msat: quote.opening_fee_msat,
        since,
    }
}

fn open_mut(record: &mut JitRecord) -> Option<&mut OpenChannel> {
    match &mut record.state {
        JitState::Open(open) => Some(open),
        JitState::Sold | JitState::Opening(_) | JitState::Retired(_) => None,
    }
}

fn alone(htlc: &InterceptedHtlc, now: Duration) -> Circumstances {
    let gross_msat = htlc.expected_outbound_amount_msat;
    Circumstances { gross_msat, client_connected: true, blocks_left: None, now }
}

/// Whether LSPS2 acted.
fn acted(answer: Result<(), APIError>) -> Result<(), Lsps2Failure> {
    match answer.map_err(Lsps2Failure::from) {
        Ok(()) | Err(Lsps2Failure::NotPersisted(_)) => Ok(()),
        Err(failure) => Err(failure),
    }
}

#[cfg(test)]
mod tests;
