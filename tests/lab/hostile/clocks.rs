//! Clocks that disagree.

use super::story;
use guide::lab;
use guide::world::World;
use regtest::Chain;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A day either way is nothing to a lease of four weeks. (What it is to one of hours is recorded.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_a_day_apart_do_no_harm_to_a_lease_of_weeks() {
    for wallet_ahead in [false, true] {
        let mut world = World::new(Chain::embedded(), story()).await.unwrap();
        world.start_recipient().await.unwrap();
        match wallet_ahead {
            true => world.recipient().clock().advance(DAY),
            false => world.lsp().clock().advance(DAY),
        }
        let (lsp, policy) = (world.lsp().id(), world.buying_policy());
        world.recipient().buy_lease(lsp, policy).await.unwrap();
        let paths = world.lsp().paths_for(b"alice").await.unwrap();
        world.recipient().use_paths(paths).unwrap();
        let offer = world.recipient().wait_for_offer(guide::world::PATIENCE).await.unwrap();
        lab::begin(&world, "clocks", "Clocks a day apart").await.unwrap();
        let from = world.transcript.position();
        world.payer().pay(&offer, 100_000_000).unwrap();
        world.see_judgement(from).await.unwrap().unwrap();
        let books = world.settled(from).await.unwrap();
        assert_eq!(books.opening_fee_msat, 2_000_000);
        lab::end(&world).await.unwrap();
        world.stop().await;
    }
}
