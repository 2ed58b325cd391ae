use std::sync::atomic::Ordering;

use bitcoin::absolute::LockTime;
use bitcoin::transaction::Version;
use lightning::types::payment::PaymentHash;
use proptest::prelude::*;

use super::*;
use crate::lease::OpeningFeeParams;
use crate::lsp::decision::CLIENT_NEEDS_BLOCKS;
use crate::lsp::testing::*;

struct Bench {
    store: MemoryStore,
    switch: Arc<FakeSwitch>,
    lsps2: FakeLsps2,
    desk: JitDesk<Arc<FakeSwitch>, MemoryStore>,
    now: Duration,
    online: bool,
}

impl Bench {
    async fn new(record: JitRecord) -> Self {
        let store = MemoryStore::default();
        let switch = Arc::new(FakeSwitch::default());
        let lsps2 = FakeLsps2::new(Arc::clone(&switch), std::slice::from_ref(&record));
        let table = Arc::new(JitTable::load(store.clone()).await.unwrap());
        table.insert(record).await.unwrap();
        let desk = JitDesk::new(Arc::clone(&switch), table, DeskSettings::default());
        Self { store, switch, lsps2, desk, now: seconds(100), online: true }
    }

    async fn intercept(&mut self, htlc: InterceptedHtlc) -> Intercepted {
        self.switch.intercept(htlc);
        self.replay(htlc).await
    }

    async fn replay(&mut self, htlc: InterceptedHtlc) -> Intercepted {
        let online = self.online;
        let done = self.desk.htlc_intercepted(&self.lsps2, htlc, |_| online, self.now);
        done.await.unwrap()
    }

    async fn open_event(&mut self) -> OpenDecision {
        let online = self.online;
        let done = self.desk.open_channel(&self.lsps2, USER_ID, |_| online, self.now);
        done.await.unwrap()
    }

    async fn ready(&mut self) -> ChannelOutcome {
        if self.switch.channels.lock().unwrap().is_empty() {
            self.switch.add_channel(true);
        }
        let client = node(1);
        let done = self.desk.channel_ready(&self.lsps2, USER_ID, CHANNEL, &client, self.now);
        done.await.unwrap()
    }

    async fn claim(&mut self, hash: u8) -> FeeOutcome {
        let mut outcome = FeeOutcome::NotJit;
        for sent in self.switch.settle(PaymentHash([hash; 32])) {
            outcome = self.forwarded(&sent).await;
        }
        outcome
    }

    async fn forwarded(&mut self, sent: &Outgoing) -> FeeOutcome {
        let prev = InboundHTLCLocator {
            channel_id: ChannelId([3; 32]),
            htlc_id: Some(sent.htlc.intercept_id.0[0].into()),
            amount_msat: None,
            user_channel_id: None,
            node_id: None,
        };
        let next = OutboundHTLCLocator {
            channel_id: CHANNEL,
            amount_msat: None,
            user_channel_id: None,
            node_id: None,
        };
        let skim = Some(sent.skim_msat());
        let (prev, next) = ([prev], [next]);
        let done = self.desk.payment_forwarded(&self.lsps2, &prev, &next, skim, self.now);
        done.await.unwrap()
    }

    async fn reject(&mut self, hash: u8) -> FeeOutcome {
        let mut outcome = FeeOutcome::NotJit;
        for _ in self.switch.settle(PaymentHash([hash; 32])) {
            let failure = HTLCHandlingFailureType::Forward { node_id: None, channel_id: CHANNEL };
            let done = self.desk.htlc_handling_failed(&self.lsps2, &failure, self.now);
            outcome = done.await.unwrap();
        }
        outcome
    }

    async fn sweep(&mut self) -> Vec<Swept> {
        self.desk.sweep(&self.lsps2, self.now).await.unwrap()
    }

    /// A new process: LDK raises `HTLCIntercepted` again for what it holds.
    async fn restart(&mut self) {
        let table = Arc::new(JitTable::load(self.store.clone()).await.unwrap());
        self.desk = JitDesk::new(Arc::clone(&self.switch), table, DeskSettings::default());
        self.desk.resume(&self.lsps2, self.now).await.unwrap();
        let held = self.switch.held.lock().unwrap().clone();
        for htlc in held {
            self.replay(htlc).await;
        }
    }

    fn state(&self) -> JitState {
        self.desk.table().get(SCID).unwrap().state
    }

    fn sent(&self) -> Vec<(u8, u64)> {
        let out = self.switch.out.lock().unwrap();
        out.iter().map(|sent| (sent.htlc.intercept_id.0[0], sent.amount_msat)).collect()
    }

    fn held(&self) -> usize {
        self.switch.held.lock().unwrap().len()
    }

    fn failed(&self) -> Vec<u8> {
        self.switch.failed.lock().unwrap().iter().map(|id| id.0[0]).collect()
    }
}

fn fixed(size_msat: u64) -> JitRecord {
    JitRecord { payment_size_msat: Some(size_msat), ..sold() }
}

fn transaction() -> Transaction {
    Transaction { version: Version::TWO, lock_time: LockTime::ZERO, input: vec![], output: vec![] }
}

const PAYMENT: u64 = 100_000_000;

#[tokio::test]
async fn one_payment_opens_pays_the_fee_and_frees_the_scid() {
    let mut bench = Bench::new(sold()).await;
    let opening = bench.intercept(htlc(1, 1, PAYMENT)).await;
    let quote = Quote { opening_fee_msat: FEE, amt_to_forward_msat: PAYMENT - FEE };
    assert_eq!(opening, Intercepted::OpeningChannel(quote));
    let OpenDecision::Open(plan) = bench.open_event().await else { panic!("no plan") };
    assert!(plan.channel_value_sat > 196_000);
    assert_eq!(bench.open_event().await, OpenDecision::AlreadyOpen);
    assert_eq!(bench.ready().await, ChannelOutcome::Open(vec![]));
    assert_eq!(bench.sent(), [(1, PAYMENT - FEE)]);
    assert_eq!(bench.claim(1).await, FeeOutcome::Paid(vec![]));
    let full = Intercepted::ForwardedInFull { channel_id: CHANNEL, amount_msat: 5 };
    assert_eq!(bench.intercept(htlc(2, 2, 5)).await, full);
    assert!(matches!(bench.lsps2.state(SCID), Some(FakeState::Paid(_))));
}

#[tokio::test]
async fn bad_payments_are_failed_and_the_lease_survives() {
    let mut bench = Bench::new(sold()).await;
    let smallest = terms().min_payment_size_msat;
    let refused = bench.intercept(htlc(1, 1, smallest - 1)).await;
    assert!(matches!(refused, Intercepted::Refused(Refusal::TooSmall { .. })));
    let refused = bench.intercept(htlc(2, 2, terms().max_payment_size_msat + 1)).await;
    assert!(matches!(refused, Intercepted::Refused(Refusal::TooLarge { .. })));
    let greedy = InterceptedHtlc { inbound_amount_msat: PAYMENT - 1, ..htlc(3, 3, PAYMENT) };
    let refused = bench.intercept(greedy).await;
    assert!(matches!(refused, Intercepted::Refused(Refusal::WantsMoreThanItBrings { .. })));
    bench.online = false;
    let refused = bench.intercept(htlc(4, 4, PAYMENT)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::ClientOffline));
    assert_eq!(bench.failed(), [1, 2, 3, 4]);
    bench.online = true;
    let opening = bench.intercept(htlc(5, 5, smallest)).await;
    assert!(matches!(opening, Intercepted::OpeningChannel(_)));
}

/// 41 blocks are what an LDK client needs, and one may be mined while the channel opens.
#[tokio::test]
async fn a_payment_with_41_blocks_left_opens_nothing_and_one_with_42_does() {
    assert_eq!((CLIENT_NEEDS_BLOCKS, LEAST_BLOCKS_TO_OPEN), (41, 42));
    let mut bench = Bench::new(sold()).await;
    bench.switch.height.store(100, Ordering::Relaxed);
    let until = |id, client_expiry| InterceptedHtlc { client_expiry, ..htlc(id, id, PAYMENT) };
    for (id, expiry, blocks_left) in [(1, 141, 41), (2, 100, 0), (3, 99, 0)] {
        let late = bench.intercept(until(id, Some(expiry))).await;
        assert_eq!(late, Intercepted::Refused(Refusal::TooLate { blocks_left }));
    }
    assert_eq!((bench.failed(), bench.held()), (vec![1, 2, 3], 0));
    assert_eq!(bench.state(), JitState::Sold);
    let in_time = bench.intercept(until(4, Some(142))).await;
    assert!(matches!(in_time, Intercepted::OpeningChannel(_)));
}

#[tokio::test]
async fn an_expiry_that_ldk_did_not_say_refuses_nothing() {
    let mut bench = Bench::new(sold()).await;
    bench.switch.height.store(u32::MAX, Ordering::Relaxed);
    let unsaid = InterceptedHtlc { client_expiry: None, ..htlc(1, 1, PAYMENT) };
    assert!(matches!(bench.intercept(unsaid).await, Intercepted::OpeningChannel(_)));
}

/// The client claims all parts or none: the one that expires first decides.
#[tokio::test]
async fn the_first_part_to_expire_decides() {
    let mut bench = Bench::new(fixed(2 * PAYMENT)).await;
    let early = InterceptedHtlc { client_expiry: Some(142), ..htlc(1, 1, PAYMENT) };
    bench.switch.height.store(100, Ordering::Relaxed);
    assert_eq!(bench.intercept(early).await, Intercepted::Held(WaitsFor::MoreParts));
    bench.switch.height.store(101, Ordering::Relaxed);
    let late = bench.intercept(htlc(2, 1, PAYMENT)).await;
    assert_eq!(late, Intercepted::Refused(Refusal::TooLate { blocks_left: 41 }));
    assert_eq!((bench.failed(), bench.held()), (vec![1, 2], 0));
}

/// Blocks that are mined before the channel is created count too.
#[tokio::test]
async fn blocks_mined_while_the_client_is_away_end_the_opening() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.online = false;
    assert_eq!(bench.open_event().await, OpenDecision::WaitForClient);
    bench.switch.height.store(1_000 - 41, Ordering::Relaxed);
    assert!(bench.desk.pending_opens(|_| true).is_empty());
    bench.sweep().await;
    assert_eq!((bench.failed(), bench.state()), (vec![1], JitState::Sold));

    bench.switch.height.store(0, Ordering::Relaxed);
    bench.online = true;
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    bench.switch.height.store(1_000 - 41, Ordering::Relaxed);
    assert_eq!(bench.open_event().await, OpenDecision::Stale);
    assert_eq!((bench.failed(), bench.state()), (vec![1, 2], JitState::Sold));
}

#[tokio::test]
async fn unknown_expired_and_lost_leases_fail_at_once() {
    let mut bench = Bench::new(sold()).await;
    let stranger = InterceptedHtlc { requested_next_hop_scid: 1, ..htlc(1, 1, PAYMENT) };
    let refused = bench.intercept(stranger).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::UnknownScid(1)));
    bench.now = terms().valid_until;
    let refused = bench.intercept(htlc(2, 2, PAYMENT)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::Expired(terms().valid_until)));
    bench.now = seconds(1);
    bench.lsps2.leases.lock().unwrap().clear();
    let lost = Intercepted::Refused(Refusal::Retired(RetiredWhy::LostByLsps2));
    assert_eq!(bench.intercept(htlc(3, 3, PAYMENT)).await, lost);
    assert_eq!(bench.intercept(htlc(4, 4, PAYMENT)).await, lost);
    assert_eq!(bench.held(), 0);
}

#[tokio::test]
async fn a_refusal_by_lsps2_leaves_nothing_held() {
    let mut bench = Bench::new(sold()).await;
    bench.lsps2.refuses.store(true, Ordering::Relaxed);
    let refused = bench.intercept(htlc(1, 1, PAYMENT)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::NotTaken));
    assert_eq!(bench.held(), 0);
    assert!(matches!(bench.state(), JitState::Retired(_)));
}

/// An LSPS2 that did not write that it retired the lease would take the payment.
#[tokio::test]
async fn a_lease_that_lsps2_refused_stays_retired_over_a_restart() {
    let mut bench = Bench::new(sold()).await;
    bench.lsps2.refuses.store(true, Ordering::Relaxed);
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.lsps2.refuses.store(false, Ordering::Relaxed);
    bench.restart().await;
    let refused = bench.intercept(htlc(2, 2, PAYMENT)).await;
    assert!(matches!(refused, Intercepted::Refused(Refusal::Retired(_))), "{refused:?}");
    assert_eq!(bench.held(), 0);
    assert_eq!(bench.lsps2.open_events.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_failed_write_in_lsps2_undoes_nothing() {
    let mut bench = Bench::new(sold()).await;
    bench.lsps2.write_fails.store(true, Ordering::Relaxed);
    let opening = bench.intercept(htlc(1, 1, PAYMENT)).await;
    assert!(matches!(opening, Intercepted::OpeningChannel(_)));
    bench.ready().await;
    assert_eq!(bench.sent(), [(1, PAYMENT - FEE)]);
}

#[tokio::test]
async fn a_broken_store_holds_the_htlc_until_the_sweep() {
    let mut bench = Bench::new(sold()).await;
    bench.store.set_broken(true);
    bench.switch.intercept(htlc(1, 1, PAYMENT));
    let done = bench.desk.htlc_intercepted(&bench.lsps2, htlc(1, 1, PAYMENT), |_| true, bench.now);
    assert!(done.await.is_err());
    assert_eq!(bench.state(), JitState::Sold);
    bench.store.set_broken(false);
    bench.now += seconds(90);
    bench.sweep().await;
    assert_eq!(bench.failed(), [1]);
    assert!(matches!(bench.intercept(htlc(2, 2, PAYMENT)).await, Intercepted::OpeningChannel(_)));
}

#[tokio::test]
async fn a_later_part_of_the_fee_payment_passes_in_full() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    assert_eq!(bench.intercept(htlc(2, 1, 7)).await, Intercepted::Held(WaitsFor::Channel));
    let full = |amount_msat| Intercepted::ForwardedInFull { channel_id: CHANNEL, amount_msat };
    assert_eq!(bench.ready().await, ChannelOutcome::Open(vec![full(7)]));
    assert_eq!(bench.intercept(htlc(3, 1, 9)).await, full(9));
    let other = bench.intercept(htlc(4, 2, PAYMENT)).await;
    assert_eq!(other, Intercepted::Held(WaitsFor::FeePayment));
    assert!(matches!(bench.claim(1).await, FeeOutcome::Paid(_)));
    assert_eq!(bench.sent(), [(4, PAYMENT)]);
}

/// The smallest part may come first. What follows before the channel is planned has room in it, up
/// to the lease's largest payment, unless it would have cost more, or the client could take it and not
/// pay the fee.
#[tokio::test]
async fn the_channel_is_sized_for_all_parts_that_wait() {
    // The least fee is for up to 100 000 000 msat.
    const FIRST: u64 = 30_000_000;
    const REST: u64 = 70_000_000;
    let sized = async |record: JitRecord, later: InterceptedHtlc| {
        let mut bench = Bench::new(record).await;
        let opening = bench.intercept(htlc(1, 1, FIRST)).await;
        assert!(
            matches!(opening, Intercepted::OpeningChannel(quote) if quote.opening_fee_msat == FEE)
        );
        bench.intercept(later).await;
        let OpenDecision::Open(plan) = bench.open_event().await else { panic!("no plan") };
        plan.channel_value_sat
    };
    let sizing = ChannelSizing::default();
    let carries = |msat| sizing.channel_value_sat(FIRST - FEE + msat).unwrap();
    let trusted = || JitRecord { trust_model: TrustModel::ClientTrustsLsp, ..sold() };
    assert_eq!(sized(trusted(), htlc(2, 1, REST)).await, carries(REST));
    assert_eq!(sized(trusted(), htlc(2, 2, REST)).await, carries(0), "another payment");
    assert_eq!(sized(trusted(), htlc(2, 1, REST + 1)).await, carries(0), "all of it costs more");
    let agreed = JitRecord { payment_size_msat: Some(FIRST), ..trusted() };
    assert_eq!(sized(agreed, htlc(2, 1, REST + 1)).await, carries(0), "and is not agreed");

    let flat = OpeningFeeParams { proportional: 0, ..terms() };
    let most = flat.max_payment_size_msat;
    let flat = JitRecord { opening_fee_params: flat, ..trusted() };
    assert_eq!(sized(flat, htlc(2, 1, 5 * most)).await, carries(most - FIRST));
    let trusting = JitRecord { trust_model: TrustModel::LspTrustsClient, ..sold() };
    assert_eq!(sized(trusting, htlc(2, 1, REST)).await, carries(0));
}

#[tokio::test]
async fn a_fixed_size_payment_in_parts_reaches_the_fee_by_the_sum() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    let waits = Intercepted::Held(WaitsFor::MoreParts);
    assert_eq!(bench.intercept(htlc(1, 1, PAYMENT / 2)).await, waits);
    let opening = bench.intercept(htlc(2, 1, PAYMENT / 2)).await;
    assert!(matches!(opening, Intercepted::OpeningChannel(_)));
    bench.ready().await;
    assert_eq!(bench.claim(1).await, FeeOutcome::Paid(vec![]));
    assert_eq!(*bench.lsps2.sums.lock().unwrap(), [FEE / 2, FEE]);
}

/// A payer, or anybody on the way, adds parts with the same hash that the client will refuse. The fee
/// must not be divided among them: what they carry nobody pays.
#[tokio::test]
async fn a_part_that_the_lease_does_not_need_carries_no_fee() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    bench.intercept(htlc(1, 1, PAYMENT - 1)).await;
    assert_eq!(bench.held(), 1);
    let quote = bench.intercept(htlc(2, 1, PAYMENT)).await;
    let Intercepted::OpeningChannel(quote) = quote else { panic!("{quote:?}") };
    assert_eq!(
        quote.amt_to_forward_msat,
        PAYMENT - quote.opening_fee_msat,
        "sized by what it needs"
    );
    bench.open_event().await;
    bench.ready().await;
    let fee = quote.opening_fee_msat;
    assert_eq!(bench.sent(), [(2, PAYMENT - fee), (1, PAYMENT - 1)]);
}

#[test]
fn a_part_is_needed_if_the_others_do_not_reach_the_size() {
    let ids = |amounts: &[u64], size| {
        let parts = amounts.iter().zip(1..).map(|(msat, id)| htlc(id, 1, *msat)).collect();
        needed(parts, size).iter().map(|part| part.intercept_id.0[0]).collect::<Vec<_>>()
    };
    assert_eq!(ids(&[60, 40], 100), [1, 2]);
    assert_eq!(ids(&[99, 100], 100), [2]);
    assert_eq!(ids(&[39, 60, 40], 100), [2, 3]);
    assert_eq!(ids(&[1, 60, 1, 40, 1], 100), [2, 4]);
    assert_eq!(ids(&[10, 20], 100), [1, 2], "too little is too little");
}

/// Two parts share the fee. A third in full could stand in for one that the client refuses.
#[tokio::test]
async fn a_part_waits_while_others_share_the_fee() {
    let mut bench = Bench::new(fixed(2 * PAYMENT)).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.intercept(htlc(2, 1, PAYMENT)).await;
    bench.open_event().await;
    bench.ready().await;
    let third = bench.intercept(htlc(3, 1, PAYMENT)).await;
    assert_eq!(third, Intercepted::Held(WaitsFor::FeePayment));
    bench.claim(1).await;
    assert_eq!(bench.sent(), [(3, PAYMENT)]);
}

#[tokio::test]
async fn an_incomplete_payment_is_swept_and_does_not_count_later() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    bench.intercept(htlc(1, 1, PAYMENT / 2)).await;
    bench.now += seconds(90);
    let id = htlc(1, 1, 1).intercept_id;
    assert_eq!(bench.sweep().await, [Swept::Failed(id, Refusal::HeldTooLong)]);
    let waits = Intercepted::Held(WaitsFor::MoreParts);
    assert_eq!(bench.intercept(htlc(2, 1, PAYMENT / 2)).await, waits);
    assert!(bench.lsps2.open_events.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_failed_fee_payment_leaves_the_fee_to_the_next() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    let next = Intercepted::ForwardedForFee { channel_id: CHANNEL, opening_fee_msat: FEE };
    assert_eq!(bench.reject(1).await, FeeOutcome::FeePaymentFailed(vec![next]));
    assert_eq!(bench.sent(), [(2, PAYMENT - FEE)]);
    assert_eq!(bench.claim(2).await, FeeOutcome::Paid(vec![]));
}

/// LDK may forward over another channel than it was told: a failure on the JIT channel is not that of
/// the fee then, and what takes the fee a second time would be refused.
#[tokio::test]
async fn a_fee_on_its_way_over_another_channel_is_not_taken_again() {
    let mut bench = Bench::new(sold()).await;
    bench.switch.strays.store(true, Ordering::Relaxed);
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    let failed = HTLCHandlingFailureType::Forward { node_id: Some(node(1)), channel_id: CHANNEL };
    let told = bench.desk.htlc_handling_failed(&bench.lsps2, &failed, bench.now).await.unwrap();
    assert!(matches!(told, FeeOutcome::Owed { .. }), "{told:?}");
    assert_eq!(bench.sent(), [(1, PAYMENT - FEE)]);
}

#[tokio::test]
async fn a_payment_no_larger_than_the_fee_never_carries_it() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    bench.reject(1).await;
    let waits = Intercepted::Held(WaitsFor::MoreParts);
    assert_eq!(bench.intercept(htlc(2, 2, FEE)).await, waits);
    let fee = bench.intercept(htlc(3, 2, FEE + 1)).await;
    assert!(matches!(fee, Intercepted::ForwardedForFee { .. }));
    assert_eq!(bench.sent(), [(3, 1), (2, FEE)]);
}

#[tokio::test]
async fn the_failure_of_another_part_does_not_end_the_fee_payment() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    bench.intercept(htlc(2, 1, 5)).await;
    bench.switch.out.lock().unwrap().retain(|sent| sent.amount_msat != 5);
    let failure = HTLCHandlingFailureType::Forward { node_id: None, channel_id: CHANNEL };
    let outcome = bench.desk.htlc_handling_failed(&bench.lsps2, &failure, bench.now).await;
    assert!(matches!(outcome.unwrap(), FeeOutcome::Owed { .. }));
    assert!(matches!(bench.lsps2.state(SCID), Some(FakeState::Forwarding(..))));
}

#[tokio::test]
async fn a_replayed_event_counts_a_part_once() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    bench.intercept(htlc(1, 1, PAYMENT / 2)).await;
    bench.intercept(htlc(2, 1, PAYMENT / 2)).await;
    bench.ready().await;
    let sent = bench.switch.settle(PaymentHash([1; 32]));
    bench.forwarded(&sent[0]).await;
    assert!(matches!(bench.forwarded(&sent[0]).await, FeeOutcome::Owed { .. }));
    assert_eq!(bench.forwarded(&sent[1]).await, FeeOutcome::Paid(vec![]));
}

#[tokio::test]
async fn a_failed_open_fails_the_htlc_and_keeps_the_lease() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    assert!(matches!(bench.open_event().await, OpenDecision::Open(_)));
    let outcome = bench.desk.open_failed(&bench.lsps2, USER_ID, bench.now).await.unwrap();
    assert_eq!(outcome, ChannelOutcome::Reusable);
    assert_eq!(bench.failed(), [1, 2]);
    bench.intercept(htlc(3, 3, PAYMENT)).await;
    assert!(matches!(bench.open_event().await, OpenDecision::Open(_)));
}

#[tokio::test]
async fn an_opening_is_given_up_after_the_deadline() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.now += seconds(599);
    assert!(bench.sweep().await.is_empty());
    bench.now += seconds(1);
    let outcome = ChannelOutcome::Reusable;
    assert_eq!(bench.sweep().await, [Swept::OpenGivenUp { scid: SCID, outcome }]);
    assert_eq!(bench.failed(), [1]);
}

#[tokio::test]
async fn a_closed_channel_retires_the_lease_even_before_the_fee() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    bench.switch.channels.lock().unwrap().clear();
    let done = bench.desk.channel_closed(&bench.lsps2, USER_ID, CHANNEL, bench.now);
    let gone = RetiredWhy::ChannelClosed;
    assert_eq!(done.await.unwrap(), ChannelOutcome::Retired(gone));
    assert_eq!(bench.failed(), [2]);
    let refused = bench.intercept(htlc(3, 3, PAYMENT)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::Retired(gone)));
}

#[tokio::test]
async fn a_channel_that_closes_while_opening_fails_the_htlc() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.open_event().await;
    let done = bench.desk.channel_closed(&bench.lsps2, USER_ID, CHANNEL, bench.now);
    assert_eq!(done.await.unwrap(), ChannelOutcome::Reusable);
    assert_eq!(bench.failed(), [1]);
}

#[tokio::test]
async fn a_restart_after_the_open_event_opens_again() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.open_event().await;
    bench.online = false;
    bench.restart().await;
    assert!(bench.desk.pending_opens(|_| false).is_empty());
    let plans = bench.desk.pending_opens(|_| true);
    assert_eq!(plans.len(), 1);
    assert!(bench.desk.pending_opens(|_| true).is_empty());
    bench.ready().await;
    assert_eq!(bench.sent(), [(1, PAYMENT - FEE)]);
}

#[tokio::test]
async fn a_restart_between_ready_and_the_forward_still_collects_the_fee() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    // LSPS2 wrote that it forwarded; the ChannelManager did not.
    let out = std::mem::take(&mut *bench.switch.out.lock().unwrap());
    bench.switch.intercept(out[0].htlc);
    bench.restart().await;
    assert_eq!(bench.sent(), [(1, PAYMENT - FEE)]);
    assert_eq!(bench.claim(1).await, FeeOutcome::Paid(vec![]));
}

#[tokio::test]
async fn a_record_without_a_lease_in_lsps2_is_retired_on_resume() {
    let mut bench = Bench::new(sold()).await;
    bench.lsps2.leases.lock().unwrap().clear();
    bench.restart().await;
    assert!(matches!(bench.state(), JitState::Retired(_)));
}

#[tokio::test]
async fn a_withheld_funding_transaction_survives_a_restart() {
    let record = JitRecord { trust_model: TrustModel::ClientTrustsLsp, ..sold() };
    let mut bench = Bench::new(record).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    let funded = bench.desk.fund(&bench.lsps2, USER_ID, CHANNEL, node(1), transaction()).await;
    assert_eq!(funded.unwrap(), Funded::Withheld);
    bench.desk.funding_safe(&bench.lsps2, USER_ID).await.unwrap();
    assert_eq!(*bench.switch.funded.lock().unwrap(), [true]);
    bench.restart().await;
    assert_eq!(bench.lsps2.stored.lock().unwrap().len(), 2);
    assert_eq!(*bench.lsps2.safe.lock().unwrap(), 2);
}

#[tokio::test]
async fn a_fee_that_lsps2_did_not_note_returns_the_funding_transaction() {
    let record = JitRecord { trust_model: TrustModel::ClientTrustsLsp, ..sold() };
    let mut bench = Bench::new(record).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    let funded = bench.desk.fund(&bench.lsps2, USER_ID, CHANNEL, node(1), transaction()).await;
    assert_eq!(funded.unwrap(), Funded::Withheld);
    bench.desk.funding_safe(&bench.lsps2, USER_ID).await.unwrap();
    bench.ready().await;
    let state = FakeState::Owed(vec![], FEE, CHANNEL);
    bench.lsps2.leases.lock().unwrap().get_mut(&SCID).unwrap().1 = state;
    assert_eq!(bench.claim(1).await, FeeOutcome::PaidUnnoticed(Some(transaction())));
}

#[tokio::test]
async fn a_stale_queue_in_lsps2_does_not_stop_the_next_payment() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    // LSPS2 has an HTLC in its queue that LDK failed near its expiry.
    let state = FakeState::Forwarding(vec![htlc(9, 9, PAYMENT)], FEE, CHANNEL);
    bench.lsps2.leases.lock().unwrap().get_mut(&SCID).unwrap().1 = state;
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    bench.reject(1).await;
    assert_eq!(bench.sent(), [(2, PAYMENT - FEE)]);
}

#[tokio::test]
async fn dead_records_are_removed_after_a_while() {
    let mut bench = Bench::new(sold()).await;
    bench.now = terms().valid_until + DeskSettings::default().keep_dead;
    assert_eq!(bench.sweep().await, [Swept::Removed(SCID)]);
    assert!(bench.desk.table().get(SCID).is_none());
}

#[tokio::test]
async fn the_number_of_waiting_htlcs_is_bounded() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    for id in 0..MAX_HELD_PER_SCID {
        bench.intercept(htlc(id as u8, 1, 1)).await;
    }
    let refused = bench.intercept(htlc(200, 1, 1)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::TooManyHeld));
}

#[tokio::test]
async fn a_channel_that_cannot_carry_the_payment_fails_it_at_once() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.switch.unusable.store(true, Ordering::Relaxed);
    bench.ready().await;
    assert_eq!(bench.failed(), [1]);
    let refused = bench.intercept(htlc(2, 2, PAYMENT)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::NotForwardable));
    bench.switch.unusable.store(false, Ordering::Relaxed);
    let fee = bench.intercept(htlc(3, 3, PAYMENT)).await;
    assert!(matches!(fee, Intercepted::ForwardedForFee { .. }));
    assert_eq!(bench.sent(), [(3, PAYMENT - FEE)]);
}

#[tokio::test]
async fn a_missed_failure_of_the_fee_payment_is_found_by_the_sweep() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.ready().await;
    bench.switch.settle(PaymentHash([1; 32]));
    let waits = Intercepted::Held(WaitsFor::FeePayment);
    assert_eq!(bench.intercept(htlc(2, 2, PAYMENT)).await, waits);
    bench.now += seconds(90);
    bench.sweep().await;
    assert_eq!(bench.failed(), [2]);
    let fee = bench.intercept(htlc(3, 3, PAYMENT)).await;
    assert!(matches!(fee, Intercepted::ForwardedForFee { .. }));
    assert_eq!(bench.sent(), [(3, PAYMENT - FEE)]);
}

#[tokio::test]
async fn a_lease_that_lsps2_cannot_reset_is_abandoned() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    bench.intercept(htlc(1, 1, PAYMENT / 2)).await;
    bench.intercept(htlc(2, 1, PAYMENT / 2)).await;
    // LSPS2 lost a part in a crash and waits for it.
    let state = FakeState::Initial(vec![htlc(2, 1, PAYMENT / 2)]);
    bench.lsps2.leases.lock().unwrap().get_mut(&SCID).unwrap().1 = state;
    bench.now += seconds(600);
    let outcome = ChannelOutcome::Retired(RetiredWhy::OpenAbandoned);
    assert_eq!(bench.sweep().await, [Swept::OpenGivenUp { scid: SCID, outcome }]);
    assert!(bench.lsps2.state(SCID).is_none());
    assert_eq!(bench.held(), 0);
}

#[tokio::test]
async fn a_late_channel_serves_the_next_payment() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.now += seconds(600);
    bench.sweep().await;
    assert_eq!(bench.ready().await, ChannelOutcome::NothingToDo);
    bench.intercept(htlc(2, 2, PAYMENT)).await;
    assert_eq!(bench.open_event().await, OpenDecision::AlreadyOpen);
    assert!(bench.sent().is_empty(), "first the chain is asked");
    assert_eq!(bench.ready().await, ChannelOutcome::Open(vec![]));
    assert_eq!(bench.sent(), [(2, PAYMENT - FEE)]);
}

#[tokio::test]
async fn a_channel_that_is_ready_at_the_deadline_is_not_forwarded_over_unasked() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.switch.add_channel(true);
    bench.now += seconds(600);
    bench.sweep().await;
    assert!(bench.sent().is_empty());
    assert_eq!((bench.failed(), bench.held(), bench.state()), (vec![1], 0, JitState::Sold));
}

/// The client has signed and keeps `channel_ready` back: its channel may come to life at any time.
#[tokio::test]
async fn a_withheld_funding_is_not_forgotten_at_the_deadline() {
    let record = JitRecord { trust_model: TrustModel::ClientTrustsLsp, ..sold() };
    let mut bench = Bench::new(record).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.switch.add_channel(false);
    bench.desk.fund(&bench.lsps2, USER_ID, CHANNEL, node(1), transaction()).await.unwrap();
    bench.now += seconds(600);
    bench.sweep().await;
    assert_eq!((bench.failed(), bench.state()), (vec![1], JitState::Sold));
    assert!(bench.desk.table().get(SCID).unwrap().funding.is_some());

    let other = Transaction { lock_time: LockTime::from_consensus(1), ..transaction() };
    bench.desk.funding_gone(USER_ID, &other).await.unwrap();
    assert!(bench.desk.table().get(SCID).unwrap().funding.is_some());
    bench.desk.funding_gone(USER_ID, &transaction()).await.unwrap();
    assert!(bench.desk.table().get(SCID).unwrap().funding.is_none());
}

#[tokio::test]
async fn a_dead_record_stays_while_it_locks_coins() {
    let retired = Retired { why: RetiredWhy::ChannelClosed, since: seconds(1) };
    for state in [JitState::Retired(retired), JitState::Sold] {
        let funding = WithheldFunding { transaction: transaction(), broadcast_safe: true };
        let mut bench = Bench::new(JitRecord { state, funding: Some(funding), ..sold() }).await;
        bench.now = terms().valid_until + DeskSettings::default().keep_dead;
        assert!(bench.sweep().await.is_empty());
        bench.desk.funding_gone(USER_ID, &transaction()).await.unwrap();
        assert_eq!(bench.sweep().await, [Swept::Removed(SCID)]);
    }
}

#[tokio::test]
async fn the_plan_waits_for_the_client() {
    let mut bench = Bench::new(sold()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    bench.online = false;
    assert_eq!(bench.open_event().await, OpenDecision::WaitForClient);
    assert_eq!(bench.desk.pending_opens(|_| true).len(), 1);
    assert_eq!(bench.open_event().await, OpenDecision::WaitForClient);
    bench.online = true;
    assert_eq!(bench.open_event().await, OpenDecision::AlreadyOpen);
}

#[tokio::test]
async fn other_channels_are_none_of_its_business() {
    let mut bench = Bench::new(sold()).await;
    let stranger = node(8);
    let done = bench.desk.channel_ready(&bench.lsps2, USER_ID, CHANNEL, &stranger, bench.now);
    assert_eq!(done.await.unwrap(), ChannelOutcome::NotJit);
    let sent = Outgoing { htlc: htlc(1, 1, 10), amount_msat: 9 };
    assert_eq!(bench.forwarded(&sent).await, FeeOutcome::NotJit);
    let failure = HTLCHandlingFailureType::Forward { node_id: None, channel_id: CHANNEL };
    let failed = bench.desk.htlc_handling_failed(&bench.lsps2, &failure, bench.now).await;
    assert_eq!(failed.unwrap(), FeeOutcome::NotJit);
    assert!(bench.lsps2.sums.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_payment_is_refused_as_a_whole() {
    let mut bench = Bench::new(fixed(PAYMENT)).await;
    bench.intercept(htlc(1, 1, PAYMENT / 2)).await;
    bench.online = false;
    let refused = bench.intercept(htlc(2, 1, PAYMENT / 2)).await;
    assert_eq!(refused, Intercepted::Refused(Refusal::ClientOffline));
    assert_eq!(bench.failed(), [1, 2]);
}

/// What may happen to a desk.
#[derive(Clone, Debug)]
enum Step {
    Htlc {
        hash: u8,
        amount_msat: u64,
    },
    OpenEvent,
    Ready,
    Claim(u8),
    Reject(u8),
    OpenFailed,
    Wait(u64),
    Online(bool),
    Unusable(bool),
    Restart,
    /// A restart with a `ChannelManager` that has forgotten its last forward.
    Crash,
    /// One HTLC without a skim fails.
    RejectPart,
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let amount = prop_oneof![1..FEE * 2, Just(FEE), Just(PAYMENT), 1..PAYMENT * 12];
    prop_oneof![
        8 => (0..4u8, amount).prop_map(|(hash, amount_msat)| Step::Htlc { hash, amount_msat }),
        3 => Just(Step::OpenEvent),
        4 => Just(Step::Ready),
        3 => (0..4u8).prop_map(Step::Claim),
        2 => (0..4u8).prop_map(Step::Reject),
        1 => Just(Step::OpenFailed),
        2 => (1..200u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Online),
        1 => any::<bool>().prop_map(Step::Unusable),
        2 => Just(Step::Restart),
        2 => Just(Step::Crash),
        1 => Just(Step::RejectPart),
        1 => Just(Step::Close),
    ]
}

impl Bench {
    /// Returns what was skimmed from payments the client claimed.
    async fn step(&mut self, step: Step, next_id: &mut u8) -> u64 {
        match step {
            Step::Htlc { hash, amount_msat } => {
                *next_id = next_id.wrapping_add(1);
                self.intercept(htlc(*next_id, hash, amount_msat)).await;
            }
            Step::OpenEvent => drop(self.open_event().await),
            Step::Ready if matches!(self.state(), JitState::Opening(_)) => {
                self.ready().await;
            }
            Step::Ready => {}
            Step::Claim(hash) if self.switch.is_torn(PaymentHash([hash; 32])) => {
                self.reject(hash).await;
            }
            Step::Claim(hash) => {
                let sent = self.switch.settle(PaymentHash([hash; 32]));
                let skim = sent.iter().map(Outgoing::skim_msat).sum();
                for sent in &sent {
                    self.forwarded(sent).await;
                }
                return skim;
            }
            Step::Reject(hash) => drop(self.reject(hash).await),
            Step::OpenFailed => {
                self.desk.open_failed(&self.lsps2, USER_ID, self.now).await.unwrap();
            }
            Step::Wait(time) => {
                self.now += seconds(time);
                self.sweep().await;
            }
            Step::Online(online) => self.online = online,
            Step::Unusable(unusable) => self.switch.unusable.store(unusable, Ordering::Relaxed),
            Step::Restart => self.restart().await,
            Step::Crash => {
                let lost = self.switch.out.lock().unwrap().pop();
                lost.iter().for_each(|sent| self.switch.intercept(sent.htlc));
                self.restart().await;
            }
            Step::RejectPart => self.reject_part().await,
            Step::Close => self.close().await,
        }
        0
    }

    async fn reject_part(&mut self) {
        let part = {
            let mut out = self.switch.out.lock().unwrap();
            let position = out.iter().position(|sent| sent.skim_msat() == 0);
            position.map(|position| out.remove(position))
        };
        if let Some(part) = part {
            self.switch.lose_part(part.htlc.payment_hash);
            let failure = HTLCHandlingFailureType::Forward { node_id: None, channel_id: CHANNEL };
            let done = self.desk.htlc_handling_failed(&self.lsps2, &failure, self.now);
            done.await.unwrap();
        }
    }

    async fn close(&mut self) {
        let open = !self.switch.channels.lock().unwrap().is_empty();
        if open && self.switch.out.lock().unwrap().is_empty() {
            self.switch.channels.lock().unwrap().clear();
            let done = self.desk.channel_closed(&self.lsps2, USER_ID, CHANNEL, self.now);
            done.await.unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever happens: nothing hangs, and an honest client pays the fee at most once.
    #[test]
    fn nothing_hangs_and_the_fee_is_taken_once(
        steps in proptest::collection::vec(step(), 1..60),
        fixed_size in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let record = if fixed_size { fixed(PAYMENT) } else { sold() };
            let mut bench = Bench::new(record).await;
            let (mut skimmed, mut next_id) = (0, 0);
            for step in steps {
                skimmed += bench.step(step, &mut next_id).await;
            }
            let state = bench.state();
            bench.now += seconds(3_600);
            bench.sweep().await;
            bench.sweep().await;
            assert_eq!(bench.held(), 0);
            if let JitState::Open(open) = state {
                assert!(skimmed <= open.opening_fee_msat, "{skimmed} of {}", open.opening_fee_msat);
                assert_eq!(skimmed, open.skimmed_fee_msat);
            }
        });
    }
}

/// A node spawns its event handlers, so their futures must be `Send`.
#[expect(dead_code, reason = "it is only compiled")]
fn the_futures_are_send<CM, K, T>(
    desk: &mut JitDesk<CM, K>,
    lsps2: &lightning_liquidity::lsps2::service::LSPS2ServiceHandler<CM, K, T>,
) where
    CM: Deref + Send + Sync,
    CM::Target: lightning::ln::channelmanager::AChannelManager + Send + Sync + Sized,
    K: KVStore + Clone + Send + Sync,
    T: lightning::chain::chaininterface::BroadcasterInterface + Clone + Send + Sync,
{
    fn is_send(_: impl Send) {}
    let (now, failure) = (Duration::ZERO, HTLCHandlingFailureType::InvalidOnion);
    is_send(desk.htlc_intercepted(lsps2, htlc(1, 1, 1), |_| true, now));
    is_send(desk.open_channel(lsps2, 1, |_| true, now));
    is_send(desk.payment_forwarded(lsps2, &[], &[], None, now));
    is_send(desk.htlc_handling_failed(lsps2, &failure, now));
    is_send(desk.sweep(lsps2, now));
    is_send(desk.resume(lsps2, now));
}

/// Another lease of the same client, with a channel that is open.
fn another_channel(trust_model: TrustModel, fee_paid: bool) -> (JitRecord, ChannelView) {
    let (channel_id, user_channel_id) = (ChannelId([8; 32]), USER_ID + 1);
    let state = JitState::Open(OpenChannel {
        channel_id,
        opening_fee_msat: FEE,
        skimmed_fee_msat: if fee_paid { FEE } else { 0 },
        counted: Vec::new(),
        fee_payment: None,
        ended: Vec::new(),
        fee_paid,
    });
    let record = JitRecord { scid: SCID + 1, user_channel_id, trust_model, state, ..sold() };
    let view = ChannelView {
        channel_id,
        user_channel_id,
        counterparty: node(1),
        is_ready: true,
        skimmed: Vec::new(),
    };
    (record, view)
}

/// While the funding of one is withheld and nobody has paid for it, there is no second one: LDK could send
/// each payment over the channel of the other.
#[tokio::test]
async fn a_client_has_one_unpaid_channel_at_a_time() {
    use TrustModel::{ClientTrustsLsp, LspTrustsClient};
    for (trust, fee_paid, waits) in [
        (ClientTrustsLsp, false, true),
        (ClientTrustsLsp, true, false),
        (LspTrustsClient, false, false),
    ] {
        let mut bench = Bench::new(JitRecord { trust_model: trust, ..sold() }).await;
        let (other, view) = another_channel(trust, fee_paid);
        bench.desk.table().insert(other).await.unwrap();
        bench.switch.channels.lock().unwrap().push(view);
        bench.intercept(htlc(1, 1, PAYMENT)).await;
        let decision = bench.open_event().await;
        assert_eq!(decision == OpenDecision::WaitForAnother, waits, "{decision:?}");
        assert_eq!(bench.held(), 1);
        if waits {
            assert_eq!(bench.desk.pending_opens(|_| true), []);
            // It is closed, or paid for: then it is this one's turn, once.
            bench.switch.channels.lock().unwrap().clear();
            assert_eq!(bench.desk.pending_opens(|_| true).len(), 1);
            assert_eq!(bench.desk.pending_opens(|_| true), []);
        }
    }
}

/// Neither of two that are asked for at once has a channel: the first that asks goes first.
#[tokio::test]
async fn two_leases_that_wait_for_a_channel_do_not_wait_for_each_other() {
    let trusting = JitRecord { trust_model: TrustModel::ClientTrustsLsp, ..sold() };
    let mut bench = Bench::new(trusting.clone()).await;
    bench.intercept(htlc(1, 1, PAYMENT)).await;
    let opening = JitState::Opening(Opening {
        payment_hash: PaymentHash([2; 32]),
        intercept_ids: Vec::new(),
        amt_to_forward_msat: PAYMENT,
        opening_fee_msat: FEE,
        since: bench.now,
    });
    let other =
        JitRecord { scid: SCID + 1, user_channel_id: USER_ID + 1, state: opening, ..trusting };
    bench.desk.table().insert(other).await.unwrap();
    assert!(matches!(bench.open_event().await, OpenDecision::Open(_)));
    let online = |_: &PublicKey| true;
    let second = bench.desk.open_channel(&bench.lsps2, USER_ID + 1, online, bench.now).await;
    assert_eq!(second.unwrap(), OpenDecision::WaitForAnother);
    // The first is not coming.
    bench.desk.open_failed(&bench.lsps2, USER_ID, bench.now).await.unwrap();
    let second = bench.desk.open_channel(&bench.lsps2, USER_ID + 1, online, bench.now).await;
    assert!(matches!(second.unwrap(), OpenDecision::Open(_)));
}

fn went(from: u64, over: ChannelId) -> ([InboundHTLCLocator; 1], [OutboundHTLCLocator; 1]) {
    let prev = InboundHTLCLocator {
        channel_id: ChannelId([3; 32]),
        htlc_id: Some(from),
        amount_msat: None,
        user_channel_id: None,
        node_id: Some(node(2)),
    };
    let next = OutboundHTLCLocator {
        channel_id: over,
        amount_msat: None,
        user_channel_id: None,
        node_id: None,
    };
    ([prev], [next])
}

/// The HTLC that was handed over for the fee of one lease went out over the channel of the other, and a
/// payment in full over that of the first.
#[tokio::test]
async fn a_fee_is_that_of_the_lease_it_was_handed_over_for() {
    let (mut first, view) = another_channel(TrustModel::ClientTrustsLsp, false);
    let (prev, next) = went(5, CHANNEL);
    let name = forwards::intercept_id(&prev[0]).unwrap();
    assert_ne!(Some(name), forwards::intercept_id(&went(6, CHANNEL).0[0]));
    if let JitState::Open(open) = &mut first.state {
        let payment_hash = PaymentHash([1; 32]);
        open.fee_payment = Some(FeePayment { payment_hash, intercept_ids: vec![name] });
    }
    let (scid, id) = (first.scid, view.channel_id);
    let mut bench = Bench::new(sold()).await;
    bench.desk.table().insert(first).await.unwrap();
    let paid = |bench: &Bench| {
        bench
            .desk
            .table()
            .get(scid)
            .unwrap()
            .open()
            .map(|open| (open.skimmed_fee_msat, open.fee_paid))
    };
    let (other, over_it) = went(6, id);
    bench.desk.payment_forwarded(&bench.lsps2, &other, &over_it, None, bench.now).await.unwrap();
    assert_eq!(paid(&bench), Some((0, false)));
    let fee = Some(FEE);
    bench.desk.payment_forwarded(&bench.lsps2, &prev, &next, fee, bench.now).await.unwrap();
    assert_eq!(paid(&bench), Some((FEE, true)));
}

/// Another of the client's HTLCs fails, and the claim of the one with the fee is told of after that.
#[tokio::test]
async fn a_claim_that_is_told_of_late_is_a_fee_all_the_same() {
    let (mut first, _) = another_channel(TrustModel::ClientTrustsLsp, false);
    let (prev, next) = went(5, CHANNEL);
    if let JitState::Open(open) = &mut first.state {
        let intercept_ids = vec![forwards::intercept_id(&prev[0]).unwrap()];
        let payment_hash = PaymentHash([1; 32]);
        open.fee_payment = Some(FeePayment { payment_hash, intercept_ids });
    }
    let scid = first.scid;
    let mut bench = Bench::new(sold()).await;
    bench.desk.table().insert(first).await.unwrap();
    let (node_id, channel_id) = (Some(node(1)), CHANNEL);
    let failure = HTLCHandlingFailureType::Forward { node_id, channel_id };
    bench.desk.htlc_handling_failed(&bench.lsps2, &failure, bench.now).await.unwrap();
    let open = |bench: &Bench| bench.desk.table().get(scid).unwrap().open().cloned().unwrap();
    assert_eq!(open(&bench).fee_payment, None);
    let fee = Some(FEE);
    bench.desk.payment_forwarded(&bench.lsps2, &prev, &next, fee, bench.now).await.unwrap();
    assert!(open(&bench).fee_paid);
}

/// The skim of one lease is on its way and says nothing of the other.
#[tokio::test]
async fn a_fee_fails_although_that_of_another_lease_is_on_its_way() {
    let mut bench = Bench::new(sold()).await;
    let mut scids = Vec::new();
    for (byte, scid) in [(1, SCID + 1), (2, SCID + 2)] {
        let (mut record, mut view) = another_channel(TrustModel::ClientTrustsLsp, false);
        (record.scid, record.user_channel_id) = (scid, scid.into());
        view.channel_id = ChannelId([byte; 32]);
        if let JitState::Open(open) = &mut record.state {
            open.channel_id = view.channel_id;
            let payment_hash = PaymentHash([byte; 32]);
            open.fee_payment = Some(FeePayment { payment_hash, intercept_ids: Vec::new() });
        }
        bench.desk.table().insert(record).await.unwrap();
        bench.switch.channels.lock().unwrap().push(view);
        scids.push(scid);
    }
    let sent = Outgoing { htlc: htlc(1, 1, PAYMENT), amount_msat: PAYMENT - FEE };
    bench.switch.out.lock().unwrap().push(sent);
    let (node_id, channel_id) = (Some(node(1)), ChannelId([1; 32]));
    let failure = HTLCHandlingFailureType::Forward { node_id, channel_id };
    bench.desk.htlc_handling_failed(&bench.lsps2, &failure, bench.now).await.unwrap();
    let is_owed = |scid: &u64| {
        let record = bench.desk.table().get(*scid).unwrap();
        record.open().unwrap().fee_payment.is_none()
    };
    assert_eq!(scids.iter().map(is_owed).collect::<Vec<_>>(), [false, true]);
}
