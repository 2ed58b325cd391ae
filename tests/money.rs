//! Nobody takes what was not agreed, and a refused payment goes back to the last msat.

use crate::on_every_chain;
use bitcoin::secp256k1::rand::{self, RngCore};
use guide::world::{Story, World, channel_is, is_wire};
use lightning::blinded_path::payment::BlindedPaymentPath;
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::routing::router::{PaymentParameters, RouteParameters};
use lightning::types::payment::PaymentHash;
use lsps2_async::lease::{LeaseState, TrustModel};
use lsps2_async::payer::PayerMode;
use node::lsp::Conduct;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;
use std::time::Duration;

on_every_chain! {
    an_lsp_that_skims_one_msat_more_gets_nothing
    an_lsp_that_skims_twice_gets_one_fee
}

fn story(conduct: Conduct) -> Story {
    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    story.lsp.conduct = conduct;
    story
}

/// What the payer can send, in msat: it tells whether a payment came back.
fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels[0].outbound_msat
}

async fn refused_because(world: &World, from: u64) -> String {
    world.see_judgement(from).await.unwrap().expect_err("the recipient claimed it")
}

async fn an_lsp_that_skims_one_msat_more_gets_nothing(chain: Chain) {
    let mut world = World::new(chain, story(Conduct::SkimsMore(1))).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let (from, before) = (world.transcript.position(), payers_money(&world));
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    let reason = refused_because(&world, from).await;
    assert_eq!(reason, "2000001 msat were skimmed from 100000000 msat: 2000000 were agreed");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    let lease = world.recipient().leases().pop().unwrap();
    assert_eq!(lease.state, LeaseState::Active, "nothing was claimed under the lease");
    world.stop().await;
}

async fn an_lsp_that_skims_twice_gets_one_fee(chain: Chain) {
    let mut world = World::new(chain, story(Conduct::SkimsAgain)).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    let received = world.recipient().balances().channels[0].outbound_msat;
    // A new lease from the same LSP: from now on LDK takes less than the onion says from it again.
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await.unwrap();

    world.stop_recipient().await;
    let (from, before) = (world.transcript.position(), payers_money(&world));
    world.pay_while_recipient_is_offline(&offer, 40_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    let reason = refused_because(&world, from).await;
    let twice = "2000000 msat were skimmed, and 2000000 msat were paid already, by payment ";
    assert!(reason.starts_with(twice), "{reason}");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    assert_eq!(world.recipient().balances().channels[0].outbound_msat, received);
    world.stop().await;
}

/// A payer that keeps to the invoice finds no route for less than it says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_under_the_minimum_fails_at_once_and_the_next_is_paid() {
    let mut world = World::new(Chain::embedded(), story(Conduct::Honest)).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    let least = lease.smallest_htlc_msat().unwrap();
    world.stop_recipient().await;
    let error = world.pay_while_recipient_is_offline(&offer, least / 10).await.unwrap_err();
    assert!(error.to_string().contains("outside what its LSP takes"), "{error:#}");
    let books = world.pay_offline_recipient(&offer, least).await.unwrap();
    assert_eq!(books.recipient_received_msat, least - 2_000_000);
    world.stop().await;
}

/// LDK's router pays up to three times the amount if a path asks for more: here, one msat more than
/// the payer was told to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_just_under_the_minimum_is_rounded_up_by_the_payers_router() {
    let mut world = World::new(Chain::embedded(), story(Conduct::Honest)).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    let least = lease.smallest_htlc_msat().unwrap();
    let books = world.pay_offline_recipient(&offer, least - 1).await.unwrap();
    assert_eq!(books.opening_fee_msat + books.recipient_received_msat, least);
    world.stop().await;
}

/// A payer that does not keep to it is stopped by the LSP before the HTLC is intercepted, because
/// the path itself carries the minimum. Without that one HTLC of dust would retire the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dust_from_a_payer_that_ignores_the_invoice_does_not_retire_the_lease() {
    let mut world = World::new(Chain::embedded(), story(Conduct::Honest)).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    let least = lease.smallest_htlc_msat().unwrap();
    let invoice = world.lsp().static_invoice(b"alice", 0).await.unwrap();
    let from = world.transcript.position();
    probe(&world, invoice.payment_paths(), least - 1).await;
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let entries = world.transcript.since(from);
    let intercepted =
        entries.iter().any(|e| matches!(e.what, What::Htlc { state: HtlcState::Intercepted, .. }));
    assert!(!intercepted, "the LSP refused it by the path's own minimum");
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.stop().await;
}

/// Sends an HTLC with a random hash down the invoice's paths, whatever minimum they state.
pub async fn probe(world: &World, paths: &[BlindedPaymentPath], amount_msat: u64) {
    let mut paths = paths.to_vec();
    for path in &mut paths {
        path.payinfo.htlc_minimum_msat = 0;
    }
    let channels = || world.payer().channel_manager().list_usable_channels();
    world.see(0, |e| matches!(e.what, What::Wire { .. }) && !channels().is_empty()).await.unwrap();
    let mut hash = [0; 32];
    rand::thread_rng().fill_bytes(&mut hash);
    let route = RouteParameters::from_payment_params_and_value(
        PaymentParameters::blinded(paths),
        amount_msat,
    );
    world
        .payer()
        .channel_manager()
        .send_payment(
            PaymentHash(hash),
            RecipientOnionFields::spontaneous_empty(amount_msat),
            PaymentId(hash),
            route,
            Retry::Attempts(0),
        )
        .unwrap_or_else(|error| {
            let (from, to) = (world.payer_lsp.id(), world.lsp().id());
            let routed = world.payer().can_route(&from, &to);
            panic!("{error:?}: route known: {routed}, channels: {:?}", channels());
        });
}

/// Without an outstanding lease it is LDK that refuses: the setting is off by then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_no_lease_outstanding_ldk_itself_refuses_a_skim() {
    let mut world = World::new(Chain::embedded(), story(Conduct::SkimsAgain)).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    let (from, before) = (world.transcript.position(), payers_money(&world));
    world.payer().pay(&offer, 40_000_000).unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let reason = world
        .see(from, |e| {
            let name = "FinalIncorrectHTLCAmount";
            let failed =
                matches!(&e.what, What::Event { detail, .. } if detail.to_string().contains(name));
            e.node == "recipient" && failed
        })
        .await;
    reason.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    world.stop().await;
}

/// The setting that lets the LSP forward less than the onion says does not survive a restart in
/// LDK `0.3.0-rc3`; the wallet sets it again. A wallet that goes away in between is paid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_restarts_between_the_opening_and_the_payment_is_paid() {
    let mut world = World::new(Chain::embedded(), story(Conduct::Honest)).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    // The HTLC is there; a new process looks at its first HTLC only after about two seconds.
    world.see(from, |e| e.node == "recipient" && is_wire(e, "update_add_htlc")).await.unwrap();
    world.stop_recipient().await;
    let claimed = |w: &World| {
        let claimed = |state| state == HtlcState::Claimed;
        let is_claim = |e: &Entry| matches!(e.what, What::Htlc { state, .. } if claimed(state));
        w.transcript.since(from).iter().any(is_claim)
    };
    assert!(!claimed(&world), "the wallet went away too late for this test to mean anything");
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, 98_000_000);
    world.stop().await;
}

/// A client that trusts its LSP, and a JIT channel whose fee was not paid: its first payment failed.
async fn a_channel_that_nobody_paid_for() -> World {
    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    story.lsp.conduct = Conduct::SkimsMore(1);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    refused_because(&world, from).await;
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert!(world.recipient().balances().channels[0].is_usable, "the channel is there");
    world
}

/// The funding of a channel whose fee nobody paid is withheld. An ordinary path over it would carry
/// no fee, so the funding would never come, and the wallet would hold money on no channel at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_invoice_leads_over_a_channel_that_is_not_paid_for() {
    let mut world = a_channel_that_nobody_paid_for().await;

    // The wallet asks for one more offer at each start.
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.start_recipient().await.unwrap();
    let persisted = world
        .see(from, |e| matches!(&e.what, What::Offer { state, .. } if state == "persisted"))
        .await
        .unwrap();
    let What::Offer { detail, .. } = persisted.what else { unreachable!() };
    let slot = detail["slot"].as_u64().unwrap() as u16;
    let invoice = world.lsp().static_invoice(b"alice", slot).await.unwrap();
    let hops: Vec<_> = invoice.payment_paths().iter().map(|p| p.blinded_hops().len()).collect();
    assert_eq!(hops, [2], "one JIT path; LDK's own paths have three dummy hops more");
    world.stop().await;
}

/// An opening fee pays for a channel: the first lease has one, the second may get one, and there is
/// no third. (That no fee is taken twice over one channel is tested with the guard.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_one_channel_for_each_lease() {
    let mut world = World::new(Chain::embedded(), story(Conduct::SkimsAgain)).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    let leases = world.recipient().leases();
    let LeaseState::Consumed(paid) = &leases[0].state else { panic!("{leases:?}") };
    let used = world.recipient().balances().channels.len();
    assert_eq!((leases.len(), used), (1, 1));
    assert_eq!(paid.skimmed_fee_msat, 2_000_000);

    // A second channel is expected for a second lease, and a third one is not.
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    let me = world.recipient().id();
    let from = world.transcript.position();
    world.lsp().open_channel(me, 1_000_000, false).unwrap();
    world.see(from, |e| e.node == "recipient" && channel_is(e, "requested", "lsp")).await.unwrap();
    world.lsp().open_channel(me, 1_000_000, false).unwrap();
    let refused = world.see(from, |e| e.node == "recipient" && channel_is(e, "refused", "lsp"));
    let What::Channel { reason, .. } = refused.await.unwrap().what else { unreachable!() };
    assert_eq!(reason.unwrap(), "every lease bought from this peer has its channel already");
    world.stop().await;
}

/// A channel far larger than any payment under the lease, or announced, is not what was bought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_takes_only_the_channel_it_bought() {
    let mut world = World::new(Chain::embedded(), story(Conduct::Honest)).await.unwrap();
    world.start_recipient().await.unwrap();
    let me = world.recipient().id();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let attempts = [
        (false, 1_000_000, false, "no lease bought from this peer is outstanding"),
        (true, 1_000_000, true, "a channel for a lease is not announced"),
        (true, 20_000_001, false, "the channel is far larger than any payment under the lease"),
    ];
    for (leased, capacity_sat, announced, wanted) in attempts {
        if leased && world.recipient().leases().is_empty() {
            world.recipient().buy_lease(lsp, policy.clone()).await.unwrap();
        }
        let from = world.transcript.position();
        world.lsp().open_channel(me, capacity_sat, announced).unwrap();
        // LDK offers a refused channel again, with a simpler channel type.
        let refused = world.see(from, |e| {
            let What::Channel { state, reason, .. } = &e.what else { return false };
            state == "refused" && reason.as_deref() == Some(wanted)
        });
        refused.await.unwrap();
    }
    world.stop().await;
}

/// LDK's LSPS2 does not look at `valid_until` when an HTLC arrives; left to it, the HTLC would be
/// served late or hang. The desk fails it at once, and the money is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_after_valid_until_is_back_with_the_payer_at_once() {
    const VALIDITY: Duration = Duration::from_secs(2 * 60 * 60);
    let mut story = story(Conduct::Honest);
    story.lsp.fees.validity = VALIDITY;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let (from, before) = (world.transcript.position(), payers_money(&world));
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.lsp().clock().advance(VALIDITY);
    world.start_recipient().await.unwrap();
    let failed = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = failed.what else { unreachable!() };
    assert!(reason.unwrap().starts_with("the lease ran out"));
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    world.stop().await;
}

/// A payment that fails after it opened a channel must not tie up the LSP's coins for good: once the
/// lease has run out, the channel whose funding was withheld is closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withheld_channel_that_nobody_pays_for_is_closed_when_its_lease_has_run_out() {
    let mut world = a_channel_that_nobody_paid_for().await;

    // Honest again from here on: what is left of the payment is put in order after a restart.
    world.stop_lsp().await;
    world.lsp_policy().conduct = Conduct::Honest;
    world.start_lsp().await.unwrap();
    world.lsp().clock().advance(Duration::from_secs(29 * 24 * 60 * 60));
    world.see(0, |e| e.node == "lsp" && channel_is(e, "closed", "recipient")).await.unwrap();
    assert!(world.chain.mempool().await.unwrap().is_empty(), "nothing was ever broadcast for it");
    world.stop().await;
}
