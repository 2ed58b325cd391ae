//! Two leases of one wallet. LDK forwards over whichever channel with the client will do, not over the one
//! it was told: a fee belongs to the lease that was paid, and not to the channel it came over.

use guide::lab;
use guide::world::{Story, World, channel_is};
use lightning::ln::outbound_payment::RecipientOnionFields;
use lsps2_async::lease::{Lease, LeaseState, TrustModel};
use lsps2_async::lsp::jit_table::JitRecord;
use lsps2_async::payer::PayerMode;
use node::lsp::Conduct;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;
use std::time::Duration;

use crate::liquidity::{Onion, send_in_parts};

const HOUR: Duration = Duration::from_secs(3_600);
const FEE_MSAT: u64 = 2_000_000;

/// A recipient that is online and has bought this many leases.
async fn with_leases(trust: TrustModel, many: usize) -> (World, Vec<Lease>) {
    with_an_lsp_that(Conduct::Honest, trust, many).await
}

async fn with_an_lsp_that(conduct: Conduct, trust: TrustModel, many: usize) -> (World, Vec<Lease>) {
    let mut story = Story::new(PayerMode::AlwaysOnline, trust);
    story.lsp.conduct = conduct;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.start_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let mut leases = Vec::new();
    for _ in 0..many {
        leases.push(world.recipient().buy_lease(lsp, policy.clone()).await.unwrap());
    }
    (world, leases)
}

fn pay(world: &World, lease: &Lease, amount_msat: u64) {
    let invoice = world.recipient().jit_invoice(lease, HOUR).unwrap();
    world.payer().pay_invoice(&invoice, Some(amount_msat)).unwrap();
}

fn record(world: &World, lease: &Lease) -> JitRecord {
    let mut sold = world.lsp().sold().into_iter();
    sold.find(|record| record.scid == lease.id.intercept_scid).unwrap()
}

fn is_paid(world: &World, lease: &Lease) -> bool {
    record(world, lease).open().is_some_and(|open| open.fee_paid)
}

fn is_htlc(entry: &Entry, node: &str, wanted: HtlcState) -> bool {
    entry.node == node && matches!(&entry.what, What::Htlc { state, .. } if *state == wanted)
}

fn is_event(entry: &Entry, node: &str, wanted: &str) -> bool {
    entry.node == node && matches!(&entry.what, What::Event { name, .. } if name == wanted)
}

/// Pays, and waits until everybody has heard.
async fn paid(world: &World, lease: &Lease, amount_msat: u64) {
    let from = world.transcript.position();
    pay(world, lease, amount_msat);
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    world.see(from, |e| is_htlc(e, "lsp", HtlcState::Forwarded)).await.unwrap();
    world.rest().await.unwrap();
}

/// What the recipient owns in the channel of this lease, in msat.
fn recipients_msat(world: &World, lease: &Lease) -> u64 {
    let channel_id = record(world, lease).open().unwrap().channel_id;
    let said = world.transcript.last(|entry| match &entry.what {
        What::Balances { channels, .. } if entry.node == "recipient" => Some(channels.clone()),
        _ => None,
    });
    let channels = said.unwrap();
    let channel = channels.iter().find(|channel| channel.id == channel_id.to_string()).unwrap();
    channel.spendable_msat + channel.reserve_msat
}

/// Each channel's funding is in a block after this one.
async fn all_are_funded(world: &World, leases: &[Lease]) {
    world.mine(6).await.unwrap();
    for lease in leases {
        let channel_id = record(world, lease).open().unwrap().channel_id;
        let channels = world.lsp().channel_manager().list_channels();
        let channel = channels.iter().find(|channel| channel.channel_id == channel_id).unwrap();
        assert_eq!(channel.confirmations, Some(6), "a funding is withheld");
    }
}

/// The channel of the first lease has room for the payment of the second, and less room than its own: LDK
/// takes it. The fee is that of the second lease, whose channel is funded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fee_that_comes_over_the_channel_of_another_lease_pays_for_its_own() {
    for trust in [TrustModel::ClientTrustsLsp, TrustModel::LspTrustsClient] {
        let (world, leases) = with_leases(trust, 2).await;
        lab::begin(&world, "crossed", "A fee over the channel of another lease").await.unwrap();
        paid(&world, &leases[0], 50_000_000).await;
        assert_eq!(recipients_msat(&world, &leases[0]), 48_000_000);
        paid(&world, &leases[1], 40_000_000).await;
        assert_eq!(recipients_msat(&world, &leases[0]), 86_000_000, "it went where it was told");
        assert_eq!(recipients_msat(&world, &leases[1]), 0);
        assert!(is_paid(&world, &leases[0]) && is_paid(&world, &leases[1]));
        // What comes under either lease now is forwarded in full.
        paid(&world, &leases[1], 30_000_000).await;
        assert_eq!(recipients_msat(&world, &leases[1]), 30_000_000);
        all_are_funded(&world, &leases).await;
        lab::end(&world).await.unwrap();
        world.stop().await;
    }
}

/// Without a new channel there is nothing to pay for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fee_of_a_second_lease_is_refused_if_no_channel_came_for_it() {
    let trust = TrustModel::ClientTrustsLsp;
    let (world, leases) = with_an_lsp_that(Conduct::OpensNothing, trust, 2).await;
    lab::begin(&world, "nothing", "A fee, and no channel for it").await.unwrap();
    paid(&world, &leases[0], 50_000_000).await;
    let (from, before) = (world.transcript.position(), world.payer().balances().channels);
    pay(&world, &leases[1], 40_000_000);
    let reason = world.see_judgement(from).await.unwrap().unwrap_err();
    assert!(reason.contains("were skimmed over a channel that lease"), "{reason}");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    let now = world.payer().balances().channels;
    assert_eq!(now[0].outbound_msat, before[0].outbound_msat, "everything came back");
    let second = world.recipient().leases().into_iter().find(|r| r.lease.id == leases[1].id);
    assert_eq!(second.unwrap().state, LeaseState::Active, "nothing was paid under it");
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// It opens none, or one in which the payment would not have room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fee_of_a_second_lease_is_not_for_a_channel_that_is_too_small() {
    let trust = TrustModel::ClientTrustsLsp;
    let (world, leases) = with_an_lsp_that(Conduct::OpensNothing, trust, 3).await;
    lab::begin(&world, "small", "A fee for a small channel").await.unwrap();
    paid(&world, &leases[0], 50_000_000).await;
    for (capacity_sat, is_enough) in [(37_999, false), (38_000, true)] {
        let from = world.transcript.position();
        world.lsp().open_channel(world.recipient().id(), capacity_sat, false).unwrap();
        let ready = |e: &Entry| e.node == "recipient" && channel_is(e, "ready", "lsp");
        world.see(from, ready).await.unwrap();
        let from = world.transcript.position();
        pay(&world, &leases[1], 40_000_000);
        assert_eq!(world.see_judgement(from).await.unwrap().is_ok(), is_enough);
        let end = if is_enough { HtlcState::Paid } else { HtlcState::Failed };
        world.see_htlc(from, "payer", end).await.unwrap();
        world.rest().await.unwrap();
    }
    world.stop().await;
}

/// One part has room only in the new channel, and LDK sends the other over the old one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_in_parts_may_come_over_the_old_channel_and_the_new() {
    let (world, leases) = with_leases(TrustModel::ClientTrustsLsp, 2).await;
    lab::begin(&world, "parts-over-both", "Parts over two channels").await.unwrap();
    paid(&world, &leases[0], 50_000_000).await;
    let parts = [60_000_000, 30_000_000];
    let invoice = world.recipient().jit_invoice(&leases[1], HOUR).unwrap();
    let mut fields = RecipientOnionFields::secret_only(*invoice.payment_secret(), 90_000_000);
    fields.payment_metadata = invoice.payment_metadata().cloned();
    let final_cltv_delta = invoice.min_final_cltv_expiry_delta().try_into().unwrap();
    let onion = Onion { hash: invoice.payment_hash(), fields, final_cltv_delta };
    let from = world.transcript.position();
    send_in_parts(&world, &leases[1], &parts, onion);
    world.see_judgement(from).await.unwrap().unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    world.see_times(2, from, |e| is_htlc(e, "lsp", HtlcState::Forwarded)).await.unwrap();
    world.rest().await.unwrap();
    let here: Vec<_> = leases.iter().map(|lease| recipients_msat(&world, lease)).collect();
    assert_eq!(here.iter().sum::<u64>(), 140_000_000 - 2 * FEE_MSAT);
    assert!(here[0] > 48_000_000 && here[1] > 0, "both parts came over one channel: {here:?}");
    all_are_funded(&world, &leases).await;
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// LDK says on which channel the HTLC failed, and that is not the one of the lease. The fee is owed again
/// at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fee_that_fails_on_the_channel_of_another_lease_is_owed_again() {
    let (world, leases) = with_leases(TrustModel::ClientTrustsLsp, 2).await;
    lab::begin(&world, "crossed-back", "A fee that comes back over another channel").await.unwrap();
    paid(&world, &leases[0], 50_000_000).await;
    let from = world.transcript.position();
    world.recipient().hold_claims();
    pay(&world, &leases[1], 40_000_000);
    world.see(from, |e| is_event(e, "recipient", "PaymentClaimable")).await.unwrap();
    assert!(record(&world, &leases[1]).open().unwrap().fee_payment.is_some());
    world.see(from, |_| world.recipient().decline_held_claims()).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert!(record(&world, &leases[1]).open().unwrap().fee_payment.is_none());
    paid(&world, &leases[1], 40_000_000).await;
    assert!(is_paid(&world, &leases[1]));
    all_are_funded(&world, &leases).await;
    lab::end(&world).await.unwrap();
    world.stop().await;
}

fn openings(world: &World, from: u64) -> usize {
    let entries = world.transcript.since(from);
    entries.iter().filter(|e| e.node == "lsp" && channel_is(e, "opening", "recipient")).count()
}

/// Two payments at the same time, each under a lease of its own. The second channel is opened once the
/// first is paid for: else LDK could send each payment over the channel of the other, and a client that
/// fails one of them would have both channels for one fee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_leases_that_are_paid_at_once_are_opened_one_after_the_other() {
    for amounts in [[50_000_000, 40_000_000], [40_000_000, 50_000_000]] {
        let (world, leases) = with_leases(TrustModel::ClientTrustsLsp, 2).await;
        lab::begin(&world, "both", "Two leases are paid at once").await.unwrap();
        let from = world.transcript.position();
        world.lsp().hold_forwards(true);
        for (lease, amount_msat) in leases.iter().zip(amounts) {
            pay(&world, lease, amount_msat);
        }
        let intercepted = |e: &Entry| is_htlc(e, "lsp", HtlcState::Intercepted);
        world.see_times(2, from, intercepted).await.unwrap();
        world.see(from, |e| e.node == "lsp" && channel_is(e, "ready", "recipient")).await.unwrap();
        world.rest().await.unwrap();
        assert_eq!(openings(&world, from), 1);
        world.lsp().hold_forwards(false);
        let is_paid_for = |e: &Entry| is_htlc(e, "payer", HtlcState::Paid);
        world.see_times(2, from, is_paid_for).await.unwrap();
        let forwarded = |e: &Entry| is_htlc(e, "lsp", HtlcState::Forwarded);
        world.see_times(2, from, forwarded).await.unwrap();
        world.rest().await.unwrap();
        assert_eq!(openings(&world, from), 2);
        assert!(is_paid(&world, &leases[0]) && is_paid(&world, &leases[1]));
        let all: u64 = leases.iter().map(|lease| recipients_msat(&world, lease)).sum();
        assert_eq!(all, 90_000_000 - 2 * FEE_MSAT);
        all_are_funded(&world, &leases).await;
        lab::end(&world).await.unwrap();
        world.stop().await;
    }
}

/// A channel that nobody pays for does not keep the next one from being opened.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unpaid_channel_is_closed_for_a_payment_under_another_lease() {
    let (world, leases) = with_leases(TrustModel::ClientTrustsLsp, 2).await;
    lab::begin(&world, "idle", "A channel that nobody paid for").await.unwrap();
    let from = world.transcript.position();
    world.recipient().hold_claims();
    pay(&world, &leases[0], 50_000_000);
    world.see(from, |e| is_event(e, "recipient", "PaymentClaimable")).await.unwrap();
    // While it is on its way, the other payment waits.
    pay(&world, &leases[1], 40_000_000);
    let intercepted = |e: &Entry| is_htlc(e, "lsp", HtlcState::Intercepted);
    world.see_times(2, from, intercepted).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(openings(&world, from), 1);
    world.see(from, |_| world.recipient().decline_held_claims()).await.unwrap();
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(from, |e| e.node == node && channel_is(e, "closed", peer)).await.unwrap();
    }
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    world.see(from, |e| is_htlc(e, "lsp", HtlcState::Forwarded)).await.unwrap();
    world.rest().await.unwrap();
    assert!(is_paid(&world, &leases[1]));
    all_are_funded(&world, &leases[1..]).await;
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// What carries the fee of the second lease is held in the channel of the first when the second channel is
/// closed. Nobody may get anything from that, and its coins are free at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_closed_while_its_fee_is_elsewhere_keeps_no_coins() {
    let (world, leases) = with_leases(TrustModel::ClientTrustsLsp, 2).await;
    lab::begin(&world, "elsewhere", "A channel closes while its fee is elsewhere").await.unwrap();
    paid(&world, &leases[0], 50_000_000).await;
    let from = world.transcript.position();
    world.recipient().hold_claims();
    pay(&world, &leases[1], 40_000_000);
    world.see(from, |e| is_event(e, "recipient", "PaymentClaimable")).await.unwrap();
    let channel = record(&world, &leases[1]).open().unwrap().channel_id;
    let (lsp, wallet) = (world.lsp().id(), world.recipient().channel_manager());
    wallet.force_close_broadcasting_latest_txn(&channel, &lsp, "closed".to_owned()).unwrap();
    world.see(from, |e| e.node == "lsp" && channel_is(e, "closed", "recipient")).await.unwrap();
    world.see(from, |_| record(&world, &leases[1]).funding.is_none()).await.unwrap();
    world.see(from, |_| world.recipient().decline_held_claims()).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    lab::end(&world).await.unwrap();
    world.stop().await;
}
