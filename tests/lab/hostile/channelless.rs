//! 250 peers without a channel.

use super::story;
use guide::lab;
use guide::stranger::Stranger;
use guide::world::World;
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::{Entry, What};
use regtest::Chain;

const LIST_PROTOCOLS: &str =
    r#"{"jsonrpc":"2.0","id":"hello","method":"lsps0.list_protocols","params":{}}"#;

/// Whether the LSP listens to it: LDK greets a peer before it counts how many it has.
async fn is_welcome(world: &World, stranger: &Stranger) -> bool {
    let (id, address) = (world.lsp().id(), world.lsp().address());
    stranger.connect(id, address).await.unwrap();
    stranger.ask(id, LIST_PROTOCOLS).await.unwrap().is_some()
}

/// LDK's `ChannelManager` takes 250 peers without a funded channel; the next is hung up on, unless it
/// has a channel. Whoever is turned away sees a greeting, and then the end of the connection. That
/// may be a wallet, or a payer that brings an invoice request: this one comes first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_251st_peer_without_a_channel_is_turned_away_and_a_client_with_one_is_paid() {
    let mut story = story();
    story.lsp.most_strangers = usize::MAX;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    world.stop_recipient().await;
    let (lsp, address) = (world.lsp().id(), world.lsp().address());
    world.payer().connect(lsp, address).await.unwrap();
    lab::begin(&world, "crowd", "251 peers without a channel").await.unwrap();

    let mut crowd = Vec::new();
    for number in 1..250 {
        let stranger = Stranger::new(number);
        assert!(is_welcome(&world, &stranger).await, "stranger {number} was turned away");
        crowd.push(stranger);
    }
    assert!(!is_welcome(&world, &Stranger::new(250)).await, "the 251st was taken");

    // The wallet with a channel comes and goes.
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 40_000_000).await.unwrap();
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.recipient_received_msat, 40_000_000);
    lab::end(&world).await.unwrap();

    let wallet = Recipient::start(world.node_config("wallet"), RecipientPolicy::default());
    let wallet = wallet.await.unwrap();
    let from = world.transcript.position();
    // Greeted and hung up on: which of the two it is told is open. It tries again by itself.
    let _ = wallet.connect_lsp(lsp, address).await;
    let gone = |e: &Entry| matches!(&e.what, What::Disconnected { peer } if peer == "lsp");
    world.see(from, |e| e.node == "wallet" && gone(e)).await.unwrap();
    assert!(!world.lsp().is_connected(&wallet.id()));

    // One goes, and the wallet, which has not given up, buys.
    crowd.pop().unwrap().hang_up();
    let both = || world.lsp().is_connected(&wallet.id()) && wallet.is_connected(&lsp);
    world.see(from, |_| both()).await.unwrap();
    wallet.buy_lease(lsp, world.buying_policy()).await.unwrap();
    wallet.stop().await;
    drop(crowd);
    world.stop().await;
}

/// The LSP keeps room: of those who have neither a lease nor a channel, the ones that have been there
/// for longest go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_keeps_room_hangs_up_on_strangers_and_on_no_client() {
    const MOST: u16 = 5;
    let mut story = story();
    story.lsp.most_strangers = MOST.into();
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    let mut strangers = Vec::new();
    for number in 0..2 * MOST {
        let stranger = Stranger::new(number);
        stranger.connect(world.lsp().id(), world.lsp().address()).await.unwrap();
        strangers.push(stranger);
    }
    let left = || {
        let here = |stranger: &&Stranger| world.lsp().is_connected(&stranger.id());
        strangers.iter().filter(here).count()
    };
    let is_gone = |e: &Entry| e.node == "lsp" && matches!(e.what, What::Disconnected { .. });
    let gone = || world.transcript.since(from).iter().filter(|e| is_gone(e)).count();
    let most = usize::from(MOST);
    world.see(from, |e| is_gone(e) && gone() >= most && left() == most).await.unwrap();
    let stays = strangers.iter().find(|s| world.lsp().is_connected(&s.id())).unwrap();
    assert!(stays.ask(world.lsp().id(), LIST_PROTOCOLS).await.unwrap().is_some());
    assert!(world.lsp().is_connected(&world.recipient().id()), "a client without a channel stays");
    assert!(world.lsp().is_connected(&world.payer_lsp.id()), "a peer with a channel stays");
    world.stop().await;
}

/// LDK counts a channel of a peer's own when it has a confirmation. Until then it has cost nothing, and
/// who opens one is a stranger as before; with the first block it is a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_confirmed_keeps_no_place_for_who_opened_it() {
    const MOST: u16 = 5;
    let mut story = story();
    story.lsp.most_strangers = MOST.into();
    let world = World::new(Chain::embedded(), story).await.unwrap();
    let (lsp, address) = (world.lsp().id(), world.lsp().address());
    let from = world.transcript.position();
    world.payer().connect(lsp, address).await.unwrap();
    world.payer().open_channel(lsp, 100_000, true).unwrap();
    let funded = |e: &Entry| matches!(&e.what, What::Broadcast { error: None, .. });
    world.see(from, |e| e.node == "payer" && funded(e)).await.unwrap();
    let come = async |numbers: std::ops::Range<u16>| {
        let strangers: Vec<_> = numbers.map(Stranger::new).collect();
        for stranger in &strangers {
            stranger.connect(lsp, address).await.unwrap();
        }
        strangers
    };
    let is_gone = |e: &Entry| e.node == "lsp" && matches!(e.what, What::Disconnected { .. });
    let payer_gone = |e: &Entry| {
        let payer = matches!(&e.what, What::Disconnected { peer } if peer == "payer");
        e.node == "lsp" && payer
    };
    let first = come(0..MOST).await;
    world.see(from, payer_gone).await.unwrap();

    world.mine(6).await.unwrap();
    let usable = || {
        let channels = world.lsp().channel_manager().list_usable_channels();
        channels.iter().any(|channel| channel.counterparty.node_id == world.payer().id())
    };
    // The payer connects again by itself.
    world.see(from, |_| usable()).await.unwrap();
    let from = world.transcript.position();
    let second = come(MOST..2 * MOST).await;
    world.see_times(MOST.into(), from, is_gone).await.unwrap();
    assert!(!world.transcript.since(from).iter().any(payer_gone), "a peer with a channel stays");
    drop((first, second));
    world.stop().await;
}
