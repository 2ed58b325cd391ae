//! Sequences that nobody thought of, and what they found.

use guide::lab::run::{Options, run};
use guide::world::{PATIENCE, Story, World};
use lsps2_async::lease::{LeaseState, TrustModel};
use lsps2_async::payer::PayerMode;
use node::transcript::HtlcState;
use regtest::Chain;
use std::time::Duration;

/// The long form of this is `cargo run --release -- lab`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_run_breaks_no_invariant() {
    let options = Options { seed: 2, length: 10, time: None, steps: Some(20), jobs: 2, keep: None };
    let counts = run(&options).await.unwrap();
    assert_eq!(counts.steps, 20);
    assert!(counts.paid >= 4, "each recipient was paid at the end: {counts}");
}

/// LDK forwards over whichever channel with the next node has the least room that will do, whatever
/// channel `forward_intercepted_htlc` named. The fee of a second lease is then taken over the channel
/// that the first has paid for: the wallet cannot tell that from a fee that is taken twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fee_of_a_second_lease_is_refused_over_the_first_channel() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, first) = world.prepare_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    // The newest lease is the one that is valid longest.
    world.lsp().clock().advance(Duration::from_secs(60));
    let second_lease = world.recipient().buy_lease(lsp, policy).await.unwrap();
    // LDK's minute passes: it makes another offer, which leads over the newest lease.
    let from = world.transcript.position();
    world.recipient().channel_manager().timer_tick_occurred();
    let another = || world.recipient().offer().filter(|offer| *offer != first);
    world.see(from, |_| another().is_some()).await.unwrap();
    let second = another().unwrap();

    world.pay_offline_recipient(&first, 12_000_000).await.unwrap();
    world.rest().await.unwrap();
    world.stop_recipient().await;
    let (from, before) = (world.transcript.position(), world.payer().balances().channels);
    world.pay_while_recipient_is_offline(&second, 20_000_000).await.unwrap();
    world.start_recipient().await.unwrap();
    let reason = world.see_judgement(from).await.unwrap().unwrap_err();
    assert!(reason.contains("were skimmed over a channel that lease"), "{reason}");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let now = world.payer().balances().channels;
    assert_eq!(now[0].outbound_msat, before[0].outbound_msat, "everything came back");
    let leases = world.recipient().leases();
    let lease = leases.iter().find(|record| record.lease.id == second_lease.id).unwrap();
    assert_eq!(lease.state, LeaseState::Active, "nothing was paid under it");
    tokio::time::timeout(PATIENCE, world.stop()).await.unwrap();
}
