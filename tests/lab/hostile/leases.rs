//! Leases that one side has forgotten, and invoices of before.

use super::{lsps_store, payers_money, story};
use guide::lab;
use guide::world::{PATIENCE, Story, World};
use lsps2_async::lease::{LeaseState, TrustModel};
use lsps2_async::lsp::jit_table::{JitState, RetiredWhy};
use lsps2_async::payer::PayerMode;
use node::faults::{Fault, points};
use node::transcript::HtlcState;
use regtest::Chain;
use std::time::Duration;

/// A wallet that was restored from a backup without the lease of its invoice. It takes the channel for
/// another lease of the same LSP, and claims nothing that a fee was taken from under the lost one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_taken_under_a_lease_that_the_wallet_does_not_know() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (lost, offer) = world.prepare_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    world.stop_recipient().await;
    lab::begin(&world, "restored", "A wallet from a backup").await.unwrap();
    let (from, before) = (world.transcript.position(), payers_money(&world));
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    let folder = world.node_config("recipient").data_dir.join("store/lsps2_leases");
    std::fs::remove_file(folder.join(lost.id.to_string())).unwrap();
    world.start_recipient().await.unwrap();
    let reason = world.see_judgement(from).await.unwrap().unwrap_err();
    assert_eq!(
        reason,
        format!("a fee was skimmed under lease {}, which is not known here", lost.id)
    );
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    lab::end(&world).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    let left = world.recipient().leases();
    assert!(left.iter().all(|record| record.state == LeaseState::Active), "{left:?}");
    world.stop().await;
}

/// The secret is behind the promises of menus. What was sold is in the LSP's table and in LDK's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_served_although_the_lsp_has_lost_its_promise_secret() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    world.stop_lsp().await;
    let secret = world.node_config("lsp").data_dir.join("promise_secret");
    let before = std::fs::read(&secret).unwrap();
    std::fs::remove_file(&secret).unwrap();
    world.start_lsp().await.unwrap();
    assert_ne!(std::fs::read(&secret).unwrap(), before);
    lab::begin(&world, "secret", "Another promise secret").await.unwrap();
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// The server goes on with the invoice of the first lease. Its fee is what was agreed when it was
/// bought; the second, cheaper one is not touched, and later payments are whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_of_before_a_cheaper_purchase_costs_the_old_fee_once() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (old, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    world.lsp_policy().fees.min_fee_msat = 1_000_000;
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    world.start_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let new = world.recipient().buy_lease(lsp, policy).await.unwrap();
    assert_eq!(new.opening_fee_params.min_fee_msat, 1_000_000);

    lab::begin(&world, "stale", "An invoice of before").await.unwrap();
    let books = world.pay_offline_recipient(&offer, 50_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000, "the fee of the old lease");
    for record in world.recipient().leases() {
        let consumed = matches!(record.state, LeaseState::Consumed(_));
        assert_eq!(consumed, record.lease.id == old.id);
    }
    let books = world.pay_offline_recipient(&offer, 50_000_000).await.unwrap();
    assert_eq!((books.opening_fee_msat, books.recipient_received_msat), (0, 50_000_000));
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// LSPS2 has lost a lease while the channel for it was opened. The LSP fails what waits, and the only coin
/// it has, which was taken for that channel, is free for the next.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_whose_lsps2_has_lost_a_lease_has_the_coins_of_its_channel_again() {
    let mut story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    story.lsp_coins = 1;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    let armed = world.faults("lsp");
    armed.arm(Fault::at(points::AFTER_FUNDING));
    world.payer().pay(&offer, 100_000_000).unwrap();
    tokio::time::timeout(PATIENCE, armed.wait()).await.unwrap();
    world.crash_lsp().await;
    let lost = lsps_store(&world, "lightning_liquidity_state").join("lsps2_service");
    std::fs::remove_dir_all(lost).unwrap();
    world.start_lsp().await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let is_free = || {
        let record = world.lsp().sold().pop().unwrap();
        let JitState::Retired(retired) = record.state else { panic!("{:?}", record.state) };
        assert_eq!(retired.why, RetiredWhy::LostByLsps2);
        record.funding.is_none()
    };
    world.see(from, |_| is_free()).await.unwrap();

    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    let lease = world.recipient().buy_lease(lsp, policy).await.unwrap();
    let invoice = world.recipient().jit_invoice(&lease, Duration::from_secs(3_600)).unwrap();
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, Some(100_000_000)).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.rest().await.unwrap();
    world.stop().await;
}
