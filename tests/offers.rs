//! Without a lease there is no offer; with one it is there at once.

use guide::world::{PATIENCE, Story, World, is_onion};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use regtest::Chain;
use std::time::Duration;

fn story() -> Story {
    Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp)
}

/// LDK retries a refused invoice at its next tick, a minute later.
const BEFORE_THE_NEXT_TICK: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_no_static_invoice_reaches_the_server() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    world.start_recipient().await.unwrap();
    let paths = world.lsp().paths_for(b"alice").await.unwrap();
    let from = world.transcript.position();
    world.recipient().use_paths(paths).unwrap();
    // The server answered, so the recipient has tried to build an invoice, and refused.
    world.see(from, |e| e.node == "recipient" && is_onion(e, "offer_paths")).await.unwrap();
    // A message that is answered in order, after the refused one.
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let served = |world: &World| {
        world.transcript.since(from).iter().any(|e| is_onion(e, "serve_static_invoice"))
    };
    assert!(!served(&world));
    assert!(world.recipient().offer().is_none());

    // A lease bought later does not wait for the tick.
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    let bought = world.transcript.elapsed_ms();
    let offer = world.recipient().wait_for_offer(BEFORE_THE_NEXT_TICK).await.unwrap();
    println!("ready {} ms after the lease", world.transcript.elapsed_ms() - bought);
    assert!(served(&world));
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.stop().await;
}

/// An online recipient without a channel answers the forwarded invoice request over the intercept
/// SCID. Were it to refuse, its `invoice_error` would make the payer abandon the payment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_online_recipient_without_a_channel_is_paid_too() {
    let mut story = story();
    story.payer = PayerMode::AlwaysOnline;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, 100_000_000).unwrap();
    let paid = world.see_htlc(from, "payer", node::transcript::HtlcState::Paid);
    tokio::time::timeout(PATIENCE, paid).await.unwrap().unwrap();
    let entries = world.transcript.since(from);
    assert!(entries.iter().any(|e| e.node == "payer" && is_onion(e, "invoice")));
    assert!(!entries.iter().any(|e| is_onion(e, "invoice_error")));
    world.stop().await;
}
