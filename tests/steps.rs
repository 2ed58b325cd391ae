//! Statements of the steps that no other test makes.

use guide::world::{Story, World};
use lightning_liquidity::utils::time::TimeProvider;
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::lsp::Conduct;
use node::transcript::HtlcState;
use regtest::Chain;
use std::time::Duration;

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

/// bLIP-52 binds the LSP to the SCID until `valid_until`. LDK's LSPS2 and the desk go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_intercept_scid_stands_for_its_channel_after_valid_until() {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    world.lsp().clock().advance(Duration::from_secs(29 * 24 * 60 * 60));
    assert!(world.lsp().clock().duration_since_epoch() > lease.opening_fee_params.valid_until);
    let from = world.transcript.position();
    let books = world.pay_offline_recipient(&offer, 40_000_000).await.unwrap();
    assert_eq!((books.opening_fee_msat, books.recipient_received_msat), (0, 40_000_000));
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await.unwrap();
    world.stop().await;
}

/// What only the store remembers nothing else can: a backup of it from before the payment makes the
/// wallet pay a dishonest LSP twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_store_from_an_old_backup_lets_the_fee_be_taken_again() {
    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    story.lsp.conduct = Conduct::SkimsAgain;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let leases = world.node_config("recipient").data_dir.join("store/lsps2_leases");
    let backup: Vec<_> = std::fs::read_dir(&leases)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|file| (std::fs::read(&file).unwrap(), file))
        .collect();
    assert_eq!(backup.len(), 1);
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);

    world.stop_recipient().await;
    for (bytes, file) in &backup {
        std::fs::write(file, bytes).unwrap();
    }
    let books = world.pay_offline_recipient(&offer, 40_000_000).await.unwrap();
    assert_eq!((books.opening_fee_msat, books.recipient_received_msat), (2_000_000, 38_000_000));
    world.stop().await;
}
