//! What a payer's router makes of an amount below the path's minimum.

use guide::world::{Story, World};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use regtest::Chain;

/// LDK's router plans for three times the amount, and pays the path's minimum up to there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_a_third_of_the_minimum_on_the_payers_router_sends_the_minimum() {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    let least = lease.smallest_htlc_msat().unwrap();
    assert_eq!(least, 10_000_000);
    world.stop_recipient().await;
    let refused = world.pay_while_recipient_is_offline(&offer, 3_333_333).await.unwrap_err();
    assert!(refused.to_string().contains("outside what its LSP takes"), "{refused:#}");
    let books = world.pay_offline_recipient(&offer, 3_333_334).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.opening_fee_msat + books.recipient_received_msat, least);
    world.stop().await;
}
