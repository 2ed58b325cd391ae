//! Processes that die between two writes.

#[cfg(unix)]
mod processes;

use guide::lab;
use guide::world::{PATIENCE, Story, World, is_wire};
use lightning::ln::channelmanager::Bolt11InvoiceParameters;
use lsps2_async::lease::{LeaseState, TrustModel};
use lsps2_async::lsp::intercept::DeskSettings;
use lsps2_async::payer::PayerMode;
use node::faults::{Fault, guards, points};
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::HtlcState;
use regtest::Chain;

/// A world with an offer, whose recipient is away and whose payment waits.
async fn waiting_for_the_recipient(trust: TrustModel) -> (World, u64) {
    let story = Story::new(PayerMode::OftenOffline, trust);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    lab::begin(&world, "crash", "A crash").await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    (world, from)
}

/// The recipient dies at these points, one after the other, and is paid in the end, for one fee.
async fn recipient_crashes_at(trust: TrustModel, faults: &[Fault]) {
    let (mut world, from) = waiting_for_the_recipient(trust).await;
    for fault in faults {
        let armed = world.faults("recipient");
        armed.arm(fault.clone());
        // It may die before it has greeted its LSP: it connects by itself.
        let config = world.node_config("recipient");
        let recipient = Recipient::start(config, RecipientPolicy::default()).await.unwrap();
        world.recipient = Some(recipient);
        let died = tokio::time::timeout(PATIENCE, armed.wait()).await;
        let seen = || format!("no {fault} in {:#?}", world.transcript.since(from));
        assert_eq!(&died.unwrap_or_else(|_| panic!("{}", seen())), fault);
        world.crash_recipient().await;
    }
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, 98_000_000);
    let leases = world.recipient().leases();
    let [lease] = &leases[..] else { panic!("{leases:?}") };
    assert!(matches!(&lease.state, LeaseState::Consumed(by) if by.settled), "{lease:?}");
    lab::end(&world).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_that_crashes_around_the_claim_is_paid_for_one_fee() {
    let faults = [
        Fault::at(points::BEFORE_CONSUMED),
        Fault::at(points::AFTER_CONSUMED),
        Fault::at(points::AFTER_CLAIM_FUNDS),
    ];
    recipient_crashes_at(TrustModel::ClientTrustsLsp, &faults).await;
}

/// The lease is spent, and the wallet comes back too late to claim: nobody has paid for the channel.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_over_a_channel_whose_payment_ran_out_is_refused() {
    let (mut world, from) = waiting_for_the_recipient(TrustModel::ClientTrustsLsp).await;
    let armed = world.faults("recipient");
    armed.arm(Fault::at(points::AFTER_CONSUMED));
    world.start_recipient().await.unwrap();
    tokio::time::timeout(PATIENCE, armed.wait()).await.unwrap();
    let client = world.recipient().id();
    world.crash_recipient().await;
    let channels = world.lsp().channel_manager().list_channels_with_counterparty(&client);
    let [htlc] = &channels[0].pending_outbound_htlcs[..] else { panic!("{channels:?}") };
    // LDK fails a payment back 39 blocks before it expires, and an LSP waits for three blocks more.
    let height = world.chain.height().await.unwrap();
    world.mine(htlc.cltv_expiry - 20 - height).await.unwrap();
    world.start_recipient().await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    lab::end(&world).await.unwrap();

    let amount_msats = Some(20_000_000);
    let params = Bolt11InvoiceParameters { amount_msats, ..Default::default() };
    let invoice = world.recipient().channel_manager().create_bolt11_invoice(params).unwrap();
    assert_eq!(invoice.route_hints().len(), 1, "it leads over the channel");
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, None).unwrap();
    let reason = world.see_judgement(from).await.unwrap().unwrap_err();
    assert!(reason.starts_with("no fee, or not all of it"), "{reason}");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    lab::end(&world).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payers_lsp_that_crashes_while_it_holds_loses_nothing() {
    let (mut world, from) = waiting_for_the_recipient(TrustModel::ClientTrustsLsp).await;
    world.crash_and_restart_payer_lsp().await.unwrap();
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// The LSP dies after the new channel's monitor is on disk for the first time, and before its channel
/// manager is written again. It starts again, and the channel is pending.
async fn dies_after_the_first_monitor(unguarded: bool) -> (World, u64) {
    let (mut world, from) = waiting_for_the_recipient(TrustModel::LspTrustsClient).await;
    let armed = world.faults("lsp");
    armed.arm(Fault::after_key("monitors", 1).since(points::HTLC_INTERCEPTED));
    world.start_recipient().await.unwrap();
    tokio::time::timeout(PATIENCE, armed.wait()).await.unwrap();
    world.crash_lsp().await;
    if unguarded {
        armed.leave_out(guards::FIRST_MONITOR);
    }
    let then = world.transcript.position();
    world.start_lsp().await.unwrap();
    world.see(then, |e| e.node == "lsp" && is_wire(e, "channel_ready")).await.unwrap();
    (world, from)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_whose_first_monitor_was_on_disk_before_a_crash_becomes_ready() {
    let (world, from) = dies_after_the_first_monitor(false).await;
    world.see_htlc(from, "recipient", HtlcState::Claimed).await.unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// Blocks and connections do not help; the LSP's own deadline ends it, and the payer has its money.
#[tokio::test(flavor = "multi_thread")]
async fn ldk_waits_for_ever_for_a_first_monitor_that_is_on_disk() {
    let (world, from) = dies_after_the_first_monitor(true).await;
    world.mine(6).await.unwrap();
    let client = world.recipient().id();
    let channels = world.lsp().channel_manager().list_channels_with_counterparty(&client);
    let [channel] = &channels[..] else { panic!("{channels:?}") };
    let (trap, guard) = ("first-monitor-write-goes-unnoticed", "the update at start");
    let waits = !channel.is_channel_ready;
    assert!(waits, "LDK has changed: trap {trap} no longer shows; the guard can go: {guard}");
    let deadline = DeskSettings::default().open_deadline;
    world.lsp().clock().advance(deadline);
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_lsp_that_crashes_between_intercept_and_open_opens_after_all() {
    let (mut world, from) = waiting_for_the_recipient(TrustModel::ClientTrustsLsp).await;
    let armed = world.faults("lsp");
    armed.arm(Fault::at(points::BEFORE_OPEN));
    world.start_recipient().await.unwrap();
    tokio::time::timeout(PATIENCE, armed.wait()).await.unwrap();
    world.crash_lsp().await;
    world.start_lsp().await.unwrap();
    world.see_htlc(from, "recipient", HtlcState::Claimed).await.unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}
