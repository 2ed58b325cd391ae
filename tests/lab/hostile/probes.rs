//! HTLCs that nobody can claim, sent by whoever has seen a static invoice.

use super::{payers_money, story};
use guide::lab;
use guide::world::World;
use lightning::blinded_path::payment::BlindedPaymentPath;
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::routing::router::{PaymentParameters, RouteParameters};
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lsps2_async::lease::{LeaseState, TrustModel};
use lsps2_async::lsp::jit_table::JitState;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;

/// Sends an HTLC down the path of an invoice, with a preimage of this byte and without the invoice
/// request that LDK's recipient looks for, and waits until it is back.
async fn probe(world: &World, path: BlindedPaymentPath, amount_msat: u64, byte: u8) {
    let (from, before) = (world.transcript.position(), payers_money(world));
    let preimage = Some(PaymentPreimage([byte; 32]));
    let (fields, id, route) = blinded(path, amount_msat, byte);
    let sender = world.payer().channel_manager();
    sender.send_spontaneous_payment(preimage, fields, id, route, Retry::Attempts(0)).unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(payers_money(world), before, "the payer has everything back");
}

/// The same with a hash, whose preimage nobody knows.
fn send_hash(world: &World, path: BlindedPaymentPath, amount_msat: u64, byte: u8) {
    let (fields, id, route) = blinded(path, amount_msat, byte);
    let (hash, sender) = (PaymentHash([byte; 32]), world.payer().channel_manager());
    sender.send_payment(hash, fields, id, route, Retry::Attempts(0)).unwrap();
}

fn blinded(
    path: BlindedPaymentPath,
    amount_msat: u64,
    byte: u8,
) -> (RecipientOnionFields, PaymentId, RouteParameters) {
    let payee = PaymentParameters::blinded(vec![path]);
    let route = RouteParameters::from_payment_params_and_value(payee, amount_msat);
    (RecipientOnionFields::spontaneous_empty(amount_msat), PaymentId([byte; 32]), route)
}

async fn jit_path(world: &World, slot: u16) -> BlindedPaymentPath {
    let invoice = world.lsp().static_invoice(b"alice", slot).await.unwrap();
    invoice.payment_paths()[0].clone()
}

/// Two probes and a path that the payer put together from two: one channel, funded once, and a lease
/// that is as it was. The first honest payment pays the fee over that channel.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_open_one_channel_and_the_next_honest_payment_pays_for_it() {
    let mut story = story();
    story.lsp.trust_model = TrustModel::LspTrustsClient;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    lab::begin(&world, "probes", "Probes").await.unwrap();
    let path = jit_path(&world, 0).await;
    for byte in 1..=3 {
        probe(&world, path.clone(), 100_000_000, byte).await;
        assert_eq!(world.chain.mempool().await.unwrap().len(), 1, "fundings after probe {byte}");
        assert_eq!(world.recipient().balances().channels.len(), 1);
    }
    let lease = world.recipient().leases().pop().unwrap();
    assert_eq!(lease.state, LeaseState::Active, "nothing was taken under it");
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// LDK `0.3.0-rc3` takes an HTLC without a preimage on a static invoice's path for a mistake of its own:
/// it fails the HTLC, and if it was built with debug assertions, it panics, and again after each restart
/// for as long as the HTLC is there (`PaymentPurpose::from_parts`, `events/mod.rs`). Whoever has the
/// invoice can send one. Nobody should run such a build with money.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ldk_ends_a_debug_build_for_a_hash_without_a_preimage() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, _offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    send_hash(&world, jit_path(&world, 0).await, 100_000_000, 7);
    if cfg!(debug_assertions) {
        let ended = |e: &Entry| matches!(e.what, What::Stopped) && e.node == "recipient";
        let shown = world.see(from, ended).await.is_ok();
        let trap = "hash-without-a-preimage-asserts";
        let guard = "the rule that a wallet with money has no debug assertions";
        assert!(shown, "LDK has changed: trap {trap} no longer shows; the guard can go: {guard}");
    } else {
        world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
        world.stop().await;
    }
}

/// The LSP's hop of one path and the recipient's of another: the second key follows from the first, so
/// the recipient cannot read what is meant for it. Metadata cannot be put under another lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metadata_of_one_path_cannot_be_put_into_another() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    lab::begin(&world, "mixed", "A path of two").await.unwrap();
    // Another path of the same wallet, built anew when it answers an online payer.
    let one = jit_path(&world, 0).await;
    let from = world.transcript.position();
    world.recipient().channel_manager().timer_tick_occurred();
    let stored = world
        .see(from, |e| match &e.what {
            What::Offer { state, detail } => state == "persisted" && detail["slot"] != 0,
            _ => false,
        })
        .await
        .unwrap();
    let What::Offer { detail, .. } = stored.what else { unreachable!() };
    let other = jit_path(&world, detail["slot"].as_u64().unwrap().try_into().unwrap()).await;

    let mut hops = one.blinded_hops().to_vec();
    hops[1] = other.blinded_hops()[1].clone();
    let mixed = BlindedPaymentPath::from_blinded_path_and_payinfo(
        world.lsp().id(),
        one.blinding_point(),
        hops,
        one.payinfo.clone(),
    );
    probe(&world, mixed, 100_000_000, 9).await;
    let claimable = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Claimable, .. });
    assert!(!world.transcript.since(from).iter().any(claimable), "the recipient read it");
    let leases = world.recipient().leases();
    assert!(leases.iter().all(|record| record.state == LeaseState::Active));
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// What a probe costs an LSP without a floor for its channels: the first payment sizes the channel, and
/// a small one that fails leaves a channel which no larger payment fits into.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_probe_makes_a_small_channel_unless_the_lsp_has_a_floor() {
    for (floor_sat, is_paid) in [(20_000, false), (300_000, true)] {
        let mut story = story();
        story.lsp.desk.sizing.min_channel_sat = floor_sat;
        let mut world = World::new(Chain::embedded(), story).await.unwrap();
        let (_, offer) = world.prepare_recipient().await.unwrap();
        lab::begin(&world, "small", "A small probe").await.unwrap();
        let path = jit_path(&world, 0).await;
        probe(&world, path, 10_000_000, 1).await;
        let before = payers_money(&world);
        let from = world.transcript.position();
        world.stop_recipient().await;
        world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
        if is_paid {
            let books = world.wake_recipient_and_settle(from).await.unwrap();
            assert_eq!(books.opening_fee_msat, 2_000_000);
        } else {
            world.start_recipient().await.unwrap();
            world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
            world.rest().await.unwrap();
            assert_eq!(payers_money(&world), before, "the payer has everything back");
            // The lease still takes what fits.
            let books = world.pay_offline_recipient(&offer, 15_000_000).await.unwrap();
            assert_eq!(books.opening_fee_msat, 2_000_000);
        }
        let sold = world.lsp().sold().pop().unwrap();
        assert!(matches!(sold.state, JitState::Open(open) if open.fee_paid));
        lab::end(&world).await.unwrap();
        world.stop().await;
    }
}
