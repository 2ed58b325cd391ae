//! Recorded LSPS2 errors: see `recorded.rs`.

use crate::recorded::compare;
use guide::world::{Story, World};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::What;
use regtest::Chain;
use serde_json::Value;

/// LDK's limit: unpaid leases and open requests of one client.
const LEASES: usize = 10;

/// The last LSPS message the recipient got, without its request id.
fn last_answer(world: &World) -> String {
    let entries = world.transcript.since(0);
    let mut answers = entries.into_iter().filter_map(|entry| match entry.what {
        What::Lsps { json, .. } if entry.node == "recipient" => Some(json),
        _ => None,
    });
    let mut answer = answers.next_back().expect("an answer");
    answer["id"] = Value::from("…");
    format!("#lang: json\n{}\n", serde_json::to_string_pretty(&answer).unwrap())
}

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
    compare("lsps2-error-token", &last_answer(&world));

    for _ in 0..LEASES {
        world.recipient().buy_lease(lsp, policy.clone()).await.unwrap();
    }
    // Not the purchase: the menu itself is refused.
    let error = world.recipient().buy_lease(lsp, policy).await.unwrap_err();
    assert!(error.to_string().contains("rejects this client"), "{error:#}");
    compare("lsps2-error-limit", &last_answer(&world));
    assert_eq!(world.recipient().leases().len(), LEASES);
    world.stop().await;
}
