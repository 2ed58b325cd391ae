//! Leases that have run out, amounts outside the limits, payments in parts.
//!
//! What happens the same way each time is recorded: `guide::record`, `failures/limits.rs`.

use anyhow::{Result, ensure};
use guide::lab;
use guide::money::Books;
use guide::story;
use guide::world::{PATIENCE, Story, World, channel_is, is_onion};
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::offers::offer::Offer;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::lsp::jit_table::JitRecord;
use lsps2_async::payer::PayerMode;
use node::lsp::Lsp;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;
use std::time::Duration;

use crate::liquidity::{Onion, send_in_parts};

fn usual() -> Story {
    Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp)
}

/// What the payer can send, in msat: it tells whether a payment came back.
fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels.iter().map(|channel| channel.outbound_msat).sum()
}

/// Neither of the payer's channels carries the whole payment. The LSP, whose lease says nothing of
/// parts, opens one channel for the first and has room in it for the second, whichever is first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_variable_lease_is_paid_in_two_held_parts() {
    const AMOUNT_MSAT: u64 = 190_000_000;
    let mut story = usual();
    story.payer_channels_sat = &[100_000, 100_000];
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    story::leave(&mut world, "recipient").await.unwrap();
    lab::begin(&world, "parts", "A variable lease, paid in parts").await.unwrap();
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, AMOUNT_MSAT).await.unwrap();
    // Each part is held, and announced to the recipient, by itself.
    let kept = |e: &Entry| matches!(&e.what, What::Mailbox { state, .. } if state == "kept");
    world.see_times(2, from, kept).await.unwrap();
    let payer = world.payer().id();
    world.see(from, |_| world.payer_lsp.locked_htlcs_from(&payer) == 2).await.unwrap();
    world.start_recipient().await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    for node in ["lsp", "payer-lsp"] {
        let forwarded =
            |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Forwarded, .. });
        world.see_times(2, from, |e| e.node == node && forwarded(e)).await.unwrap();
    }
    world.see(from, |e| e.node == "lsp" && matches!(e.what, What::Broadcast { .. })).await.unwrap();
    lab::end(&world).await.unwrap();
    let books = Books::of_one_payment(&world.transcript.since(from)).unwrap();
    // The fee of the part that opened the channel.
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, AMOUNT_MSAT - 2_000_000);
    assert_eq!(world.recipient().balances().channels.len(), 1);
    world.stop().await;
}

/// What LSPS2 asks of each of two parts, and what both together would cost.
const PART_MSAT: u64 = 200_000_000;
const FEE_MSAT: u64 = 2_000_000;

/// Two parts of a payment, of which LSPS2 prices the first, wait when the channel is planned. It is sized
/// with this headroom. Returns what the payer could send before, too.
async fn two_parts_and_a_fee_for_one(headroom_percent: u64) -> (World, Lease, u64, u64) {
    let mut story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    story.lsp.desk.sizing.headroom_percent = headroom_percent;
    let sizing = story.lsp.desk.sizing;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.start_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let lease = world.recipient().buy_lease(lsp, policy).await.unwrap();
    lab::begin(&world, "dear", "Two parts and a fee for one").await.unwrap();
    let fee = |msat| lease.opening_fee_params.opening_fee_msat(msat);
    assert_eq!((fee(PART_MSAT), fee(2 * PART_MSAT)), (Some(FEE_MSAT), Some(2 * FEE_MSAT)));

    let invoice = world.recipient().jit_invoice(&lease, Duration::from_secs(3_600)).unwrap();
    let secret = *invoice.payment_secret();
    let mut fields = RecipientOnionFields::secret_only(secret, 2 * PART_MSAT);
    fields.payment_metadata = invoice.payment_metadata().cloned();
    let final_cltv_delta = invoice.min_final_cltv_expiry_delta().try_into().unwrap();
    let onion = Onion { hash: invoice.payment_hash(), fields, final_cltv_delta };
    let (from, before) = (world.transcript.position(), payers_money(&world));
    // Both are there before the plan is made: after the restart.
    world.lsp().hold_opens();
    send_in_parts(&world, &lease, &[PART_MSAT; 2], onion);
    let intercepted =
        |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Intercepted, .. });
    world.see_times(2, from, intercepted).await.unwrap();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    let opening = |e: &Entry| e.node == "lsp" && channel_is(e, "opening", "recipient");
    world.see(from, opening).await.unwrap();
    let client = world.recipient().id();
    let channels = world.lsp().channel_manager().list_channels_with_counterparty(&client);
    let capacity_sat = sizing.channel_value_sat(PART_MSAT - FEE_MSAT).unwrap();
    assert_eq!(channels[0].channel_value_satoshis, capacity_sat, "what the fee is for");
    (world, lease, from, before)
}

/// The other part goes over the channel in full, if that has room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_the_fee_is_not_for_is_forwarded_if_it_fits() {
    let (world, _, from, _) = two_parts_and_a_fee_for_one(300).await;
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    let forwarded = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Forwarded, .. });
    for node in ["lsp", "payer-lsp"] {
        world.see_times(2, from, |e| e.node == node && forwarded(e)).await.unwrap();
    }
    let books = Books::of_one_payment(&world.transcript.since(from)).unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    assert_eq!(books.recipient_received_msat, 2 * PART_MSAT - FEE_MSAT);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// Else LDK fails it back, the client gives the first one back, and nothing hangs. The channel stays, and
/// the next payment pays for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_the_fee_is_not_for_comes_back_if_it_does_not_fit() {
    let (world, lease, from, before) = two_parts_and_a_fee_for_one(100).await;
    let failed = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Failed, .. });
    let comes_back = world.see(from, |e| e.node == "lsp" && failed(e)).await.unwrap();
    let What::Htlc { reason, .. } = comes_back.what else { unreachable!() };
    assert!(reason.unwrap().contains("HTLCMaximum"));
    let one_is_back =
        |e: &Entry| matches!(&e.what, What::Event { name, .. } if name == "PaymentPathFailed");
    world.see(from, one_is_back).await.unwrap();
    world.rest().await.unwrap();
    // The recipient has the other one, and waits for three of LDK's minutes.
    for _ in 0..4 {
        world.recipient().channel_manager().timer_tick_occurred();
    }
    world.recipient().channel_manager().process_pending_htlc_forwards();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    assert!(world.chain.mempool().await.unwrap().is_empty(), "the funding is withheld");

    let from = world.transcript.position();
    let invoice = world.recipient().jit_invoice(&lease, Duration::from_secs(3_600)).unwrap();
    world.payer().pay_invoice(&invoice, Some(100_000_000)).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// LDK prunes a lease that has run out, says nothing, and answers HTLCs for it with `Ok(())`. The
/// desk looks into its own table first, and fails them at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_htlc_for_a_lease_that_ldk_has_pruned_fails_at_once() {
    let mut story = usual();
    // LDK's clock is the machine's. Long enough to be bought, short enough to wait for.
    story.lsp.fees.validity = Duration::from_secs(8);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.start_recipient().await.unwrap();
    let mut policy = world.buying_policy();
    policy.min_validity = Duration::ZERO;
    let lsp = world.lsp().id();
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    let paths = world.lsp().paths_for(b"alice").await.unwrap();
    world.recipient().use_paths(paths).unwrap();
    let offer = world.recipient().wait_for_offer(PATIENCE).await.unwrap();
    story::leave(&mut world, "recipient").await.unwrap();
    let record = world.lsp().sold().pop().unwrap();
    tokio::time::timeout(PATIENCE, pruned(world.lsp(), &record)).await.unwrap();

    lab::begin(&world, "pruned", "LDK has forgotten the lease").await.unwrap();
    fails_because(&mut world, &offer, "the lease ran out").await.unwrap();
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// The lease paid for one channel. When that is closed, a payment over the old offer fails at once; with
/// another lease, a new offer is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_channel_ends_its_lease_and_over_another_one_is_paid() {
    let mut world = World::new(Chain::embedded(), usual()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "retired", "A channel is closed, and its offer goes on")
        .await
        .unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    world.mine(6).await.unwrap();
    let (from, lsp) = (world.transcript.position(), world.lsp().id());
    let channel = world.recipient().channel_manager().list_channels()[0].channel_id;
    world.recipient().channel_manager().close_channel(&channel, &lsp).unwrap();
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(from, |e| e.node == node && channel_is(e, "closed", peer)).await.unwrap();
    }
    world.mine(6).await.unwrap();
    story::leave(&mut world, "recipient").await.unwrap();
    fails_because(&mut world, &offer, "the lease has ended: ChannelClosed").await.unwrap();

    world.start_recipient().await.unwrap();
    let policy = world.buying_policy();
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    story::leave(&mut world, "recipient").await.unwrap();
    let from = world.transcript.position();
    world.start_recipient().await.unwrap();
    // The newest offer is shown, once the wallet knows that the server has its invoice.
    let persisted = |e: &Entry| is_onion(e, "static_invoice_persisted");
    world.see(from, |e| e.node == "recipient" && persisted(e)).await.unwrap();
    let offer = world.recipient().wait_for_offer(PATIENCE).await.unwrap();
    story::leave(&mut world, "recipient").await.unwrap();
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, 98_000_000);
    guide::lab::end(&world).await.unwrap();
    world.stop().await;
}

/// Waits until LDK has dropped the lease: no event tells.
async fn pruned(lsp: &Lsp, record: &JitRecord) {
    let (client, id) = (&record.client_node_id, record.user_channel_id);
    let service = lsp.liquidity().lsps2_service_handler().unwrap();
    while service.channel_needs_manual_broadcast(id, client).is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        lsp.liquidity().persist().await.unwrap();
    }
}

/// A payment to a recipient that is away and comes back: the LSP fails it for this, no channel is
/// opened, the payer has everything again, and the recipient leaves.
async fn fails_because(world: &mut World, offer: &Offer, why: &str) -> Result<()> {
    let (from, before) = (world.transcript.position(), payers_money(world));
    world.pay_while_recipient_is_offline(offer, 100_000_000).await?;
    world.start_recipient().await?;
    let says = |e: &Entry| match &e.what {
        What::Htlc { state: HtlcState::Failed, reason: Some(reason), .. } => reason.contains(why),
        _ => false,
    };
    world.see(from, |e| e.node == "lsp" && says(e)).await?;
    world.see_htlc(from, "payer", HtlcState::Failed).await?;
    world.rest().await?;
    ensure!(payers_money(world) == before, "the payer has not all of it again");
    ensure!(world.recipient().balances().channels.is_empty(), "a channel was opened");
    story::leave(world, "recipient").await
}
