//! LSPS2 errors, as the wallet tells of them; what goes over the wire is in the recordings.

use guide::world::{Story, World};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use regtest::Chain;

/// LDK's limit: unpaid leases and open requests of one client.
const LEASES: usize = 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_refuses_a_token_it_does_not_know_and_the_eleventh_lease() {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.start_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());

    let mut with_token = policy.clone();
    with_token.token = Some("SUMMER".to_owned());
    let error = world.recipient().buy_lease(lsp, with_token).await.unwrap_err();
    assert!(error.to_string().contains("does not accept the token"), "{error:#}");

    for _ in 0..LEASES {
        world.recipient().buy_lease(lsp, policy.clone()).await.unwrap();
    }
    // Not the purchase: the menu itself is refused.
    let error = world.recipient().buy_lease(lsp, policy).await.unwrap_err();
    assert!(error.to_string().contains("rejects this client"), "{error:#}");
    assert_eq!(world.recipient().leases().len(), LEASES);
    world.stop().await;
}
