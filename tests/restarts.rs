//! Every party may stop between any two steps and start again from its folder.

use crate::on_every_chain;
use guide::world::{Story, World, channel_is, is_wire};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;

on_every_chain! {
    everybody_restarts_between_lease_and_payment
    the_online_payer_restarts_before_the_release
    the_payers_lsp_restarts_while_it_holds
    the_lsp_restarts_between_intercept_and_open
    the_recipient_goes_away_as_its_channel_becomes_ready
    the_lsp_restarts_after_the_channel_and_is_paid_again
}

async fn everybody_restarts_between_lease_and_payment(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    world.stop_payer().await;
    let from = world.transcript.position();
    world.start_payer().await.unwrap();
    world.see(from, |e| e.node == "payer" && is_wire(e, "channel_reestablish")).await.unwrap();
    // The recipient, too, starts from its folder in here, and the payer does once more.
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.stop().await;
}

async fn the_online_payer_restarts_before_the_release(chain: Chain) {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.stop_payer().await;
    world.start_payer().await.unwrap();
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.stop().await;
}

/// For what it holds LDK raises `HTLCIntercepted` when it restarts, though nothing is to be
/// intercepted. A payer's LSP that failed it would fail the payment.
async fn the_payers_lsp_restarts_while_it_holds(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    // LDK parks an HTLC some time after it is locked, and says nothing. It locks a second one only
    // when it has written down the first.
    let then = world.transcript.position();
    world.payer().pay(&offer, 40_000_000).unwrap();
    let kept = |e: &Entry| matches!(&e.what, What::Mailbox { state, .. } if state == "kept");
    world.see(then, kept).await.unwrap();
    let payer = world.payer().id();
    let both = || world.payer_lsp.locked_htlcs_from(&payer) == 2;
    world.see(then, |e| matches!(e.what, What::Wire { .. }) && both()).await.unwrap();
    world.payer_lsp.channel_manager().process_pending_htlc_forwards();

    world.restart_payer_lsp().await.unwrap();
    let raised =
        |e: &Entry| matches!(&e.what, What::Event { name, .. } if name == "HTLCIntercepted");
    world.see(then, |e| e.node == "payer-lsp" && raised(e)).await.unwrap();
    world.start_recipient().await.unwrap();
    let paid = |sat: u64| {
        move |e: &Entry| match e.what {
            What::Htlc { state: HtlcState::Paid, amount_msat, .. } => amount_msat / 1_000 == sat,
            _ => false,
        }
    };
    // Each with 1 sat of routing fee.
    for sent_sat in [100_001, 40_001] {
        world.see(from, paid(sent_sat)).await.unwrap();
    }
    world.stop().await;
}

/// LDK raises `OpenChannel` once. What the LSP knows after the restart it knows from its own table.
async fn the_lsp_restarts_between_intercept_and_open(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    world.lsp().hold_opens();
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await.unwrap();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    world.see_htlc(from, "recipient", HtlcState::Claimed).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    world.stop().await;
}

/// A channel that becomes ready as its wallet goes away waits for the wallet. If LDK was just
/// forwarding, the payment is back with the payer at once, and the next one pays the fee.
async fn the_recipient_goes_away_as_its_channel_becomes_ready(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let before = world.payer().balances().channels[0].outbound_msat;
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    world.see(from, |e| e.node == "recipient" && channel_is(e, "ready", "lsp")).await.unwrap();
    world.stop_recipient().await;
    world.start_recipient().await.unwrap();
    let ended = [HtlcState::Paid, HtlcState::Failed];
    let ended = world
        .see(from, |e| {
            e.node == "payer"
                && matches!(&e.what, What::Htlc { state, .. } if ended.contains(state))
        })
        .await
        .unwrap();
    if matches!(ended.what, What::Htlc { state: HtlcState::Failed, .. }) {
        assert_eq!(world.payer().balances().channels[0].outbound_msat, before);
        let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
        assert_eq!(books.opening_fee_msat, 2_000_000);
    }
    let balances = world.recipient().balances();
    let [channel] = &balances.channels[..] else { panic!("{balances:?}") };
    assert_eq!(channel.outbound_msat + channel.reserve_sat * 1_000, 98_000_000);
    world.stop().await;
}

async fn the_lsp_restarts_after_the_channel_and_is_paid_again(chain: Chain) {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    let mut world = World::new(chain, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    let books = world.pay_offline_recipient(&offer, 40_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 0);
    assert_eq!(books.recipient_received_msat, 40_000_000);
    world.stop().await;
}
