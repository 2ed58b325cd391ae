//! Who reaches whom: a payer and a recipient with one LSP, a payer to whom nobody can connect, an LSP
//! that is not announced, and a channel whose two ends wait for each other.

use guide::lab;
use guide::world::{PATIENCE, Story, World, channel_is, is_onion, set_flags};
use lightning::blinded_path::IntroductionNode;
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, OptionalBolt11PaymentParams, PaymentId,
};
use lightning::ln::outbound_payment::Retry;
use lightning::offers::offer::Offer;
use lsps2_async::claim::jit_user_channel_id;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::intercept::DeskSettings;
use lsps2_async::lsp::jit_table::JitState;
use lsps2_async::payer::{PayerMode, PaymentStage};
use node::payer::Payer;
use node::recipient::{Recipient, RecipientPolicy, take_less_than_the_onion_says};
use node::transcript::{Entry, HtlcState, What};
use node::wallet_script;
use regtest::Chain;
use serde_json::{Value, json};

const AMOUNT_MSAT: u64 = 100_000_000;

fn story() -> Story {
    Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp)
}

fn is_event(entry: &Entry, node: &str, wanted: &str) -> bool {
    entry.node == node && matches!(&entry.what, What::Event { name, .. } if name == wanted)
}

/// What a node's events of this name say, since position `from`.
fn events(world: &World, from: u64, node: &str, name: &str) -> Vec<Value> {
    let entries = world.transcript.since(from).into_iter();
    let these = entries.filter(|entry| is_event(entry, node, name));
    let detail = |entry: Entry| match entry.what {
        What::Event { detail, .. } => detail,
        _ => unreachable!("an event"),
    };
    these.map(detail).collect()
}

/// The payer has given up a payment that was on its way. Which of the two it reads depends on whether LDK
/// had the time to try again.
async fn given_up(world: &World, from: u64) {
    let reason = failed(world, from).await;
    assert!(["RetriesExhausted", "RouteNotFound"].contains(&reason.as_str()), "{reason}");
}

/// Why the payment failed, as the payer reads it in `PaymentFailed`.
async fn failed(world: &World, from: u64) -> String {
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let mut told = events(world, from, "payer", "PaymentFailed");
    told.pop().unwrap()["reason"].as_str().unwrap().to_owned()
}

fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels.iter().map(|channel| channel.outbound_msat).sum()
}

fn payers_htlcs(world: &World) -> usize {
    let channels = world.payer().channel_manager().list_channels();
    channels.iter().map(|channel| channel.pending_outbound_htlcs.len()).sum()
}

/// A recipient with an offer, which has gone away since.
async fn prepared(world: &mut World) -> Offer {
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    offer
}

// One LSP for both.

async fn with_one_lsp() -> (World, Offer) {
    let story = Story { one_lsp: true, ..story() };
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let offer = prepared(&mut world).await;
    lab::begin(&world, "one-lsp", "Payer and recipient have one LSP").await.unwrap();
    (world, offer)
}

/// The LSP holds without a word, as for anybody; what is released is intercepted then. The payer is away
/// by that time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_lsp_holds_for_its_own_client_is_intercepted_on_release() {
    let (mut world, offer) = with_one_lsp().await;
    for fee_msat in [2_000_000, 0] {
        world.stop_recipient().await;
        let from = world.transcript.position();
        world.pay_while_recipient_is_offline(&offer, AMOUNT_MSAT).await.unwrap();
        parked(&world).await;
        world.stop_payer().await;
        assert!(events(&world, from, "lsp", "HTLCIntercepted").is_empty(), "held with a word");
        let books = world.wake_recipient_and_settle(from).await.unwrap();
        // One hop: the path over an intercept SCID charges no routing fee.
        assert_eq!((books.payer_sent_msat, books.routing_fee_msat), (AMOUNT_MSAT, 0));
        assert_eq!(books.opening_fee_msat, fee_msat);
        assert_eq!(books.recipient_received_msat, AMOUNT_MSAT - fee_msat);

        assert_eq!(events(&world, from, "lsp", "HTLCIntercepted").len(), 1);
        let first = |is_it: &dyn Fn(&Entry) -> bool| {
            world.transcript.since(from).iter().position(is_it).unwrap()
        };
        let released = first(&|e| e.node == "lsp" && is_onion(e, "release_held_htlc"));
        let intercepted = first(&|e| is_event(e, "lsp", "HTLCIntercepted"));
        assert!(released < intercepted);
        let passed_by = world.transcript.since(from).iter().any(|e| {
            e.node == "payer-lsp" && matches!(e.what, What::Htlc { .. } | What::Onion { .. })
        });
        assert!(!passed_by, "there is another node on the way");
    }
    assert_eq!(world.recipient().balances().channels.len(), 1);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// After a restart LDK tells of what it holds, and at such an LSP it looks like a payment that was
/// released: for an SCID that this LSP sold. Its client is away, so the desk fails it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_lsp_holds_for_its_own_client_is_failed_when_it_restarts() {
    let (mut world, offer) = with_one_lsp().await;
    let money = payers_money(&world);
    world.pay_while_recipient_is_offline(&offer, AMOUNT_MSAT).await.unwrap();
    parked(&world).await;
    let from = world.transcript.position();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    given_up(&world, from).await;
    assert_eq!(events(&world, from, "lsp", "HTLCIntercepted").len(), 1);
    let refused = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert_eq!(reason.unwrap(), "the client is not connected");
    let why = events(&world, from, "lsp", "HTLCHandlingFailed").pop().unwrap();
    assert_eq!(why["failure_reason"], "Local { reason: UnknownNextPeer }");
    lab::end(&world).await.unwrap();
    assert_eq!(payers_money(&world), money);

    // What waits in the mailbox releases nothing, and the lease is as it was.
    let from = world.transcript.position();
    let books = world.pay_offline_recipient(&offer, AMOUNT_MSAT).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    let released = |e: &Entry| e.node == "lsp" && is_onion(e, "release_held_htlc");
    world.see_times(2, from, released).await.unwrap();
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// Waits until LDK has parked what it holds, of which no event tells: a payment to the LSP itself, which
/// it fails, is handled after what came before.
async fn parked(world: &World) {
    let from = world.transcript.position();
    let to_itself = Bolt11InvoiceParameters { amount_msats: Some(1_000_000), ..Default::default() };
    let invoice = world.lsp().channel_manager().create_bolt11_invoice(to_itself).unwrap();
    let id = PaymentId(invoice.payment_hash().0);
    let once = OptionalBolt11PaymentParams {
        retry_strategy: Retry::Attempts(0),
        ..OptionalBolt11PaymentParams::default()
    };
    world.payer().channel_manager().pay_for_bolt11_invoice(&invoice, id, None, once).unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
}

// A payer to whom nobody can connect.

/// Connected to its LSP as to any peer: it does not know that messages may go through it.
async fn without_a_relay(world: &World) -> Recipient {
    let config = world.node_config("recipient");
    let recipient = Recipient::start(config, RecipientPolicy::default()).await.unwrap();
    recipient.connect(world.lsp().id(), world.lsp().address()).await.unwrap();
    recipient
}

/// A payer with announced channels names itself as the end of its reply path, and a node that has never
/// announced itself has no address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_without_an_address_is_answered_through_the_lsp_or_not_at_all() {
    let online = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let story = Story { payer_announced: true, ..online };
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let recipient = without_a_relay(&world).await;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    recipient.buy_lease(lsp, policy).await.unwrap();
    recipient.use_paths(world.lsp().paths_for(b"alice").await.unwrap()).unwrap();
    let offer = recipient.wait_for_offer(PATIENCE).await.unwrap();
    world.recipient = Some(recipient);
    world.stop_recipient().await;

    lab::begin(&world, "no-address", "A payer without an address").await.unwrap();
    let (from, money) = (world.transcript.position(), payers_money(&world));
    let kept = |e: &Entry| matches!(&e.what, What::Mailbox { state, .. } if state == "kept");
    let payment = world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see(from, kept).await.unwrap();
    world.recipient = Some(without_a_relay(&world).await);
    world.see(from, |e| is_event(e, "recipient", "ConnectionNeeded")).await.unwrap();
    let payer = world.payer().id();
    for needed in events(&world, from, "recipient", "ConnectionNeeded") {
        assert_eq!(needed["node_id"], payer.to_string());
        assert_eq!(needed["addresses"], 0);
    }
    world.mine(6).await.unwrap();
    assert_eq!(world.payer().stage(payment), Some(PaymentStage::Waiting));
    assert_eq!((payers_htlcs(&world), payers_money(&world)), (0, money));
    assert!(!world.transcript.since(from).iter().any(|e| is_onion(e, "release_held_htlc")));

    // The mailbox has it still. A wallet with the relay answers.
    world.stop_recipient().await;
    let from = world.transcript.position();
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert!(events(&world, from, "recipient", "ConnectionNeeded").is_empty());
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, 98_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

// An LSP that is not announced.

fn hidden(payer: PayerMode) -> Story {
    Story { lsps_announced: false, ..Story::new(payer, TrustModel::ClientTrustsLsp) }
}

/// Somebody else has an announced channel with the LSP's neighbour, which is thereby public.
async fn with_a_public_neighbour(world: &mut World) {
    let config = world.node_config("neighbour");
    world.chain.mine(1, &wallet_script(&config.data_dir).unwrap()).await.unwrap();
    world.mine(100).await.unwrap();
    let neighbour = Payer::start(config, PayerMode::AlwaysOnline).await.unwrap();
    let (node, from) = (&world.payer_lsp, world.transcript.position());
    neighbour.connect(node.id(), node.address()).await.unwrap();
    neighbour.open_channel(node.id(), 1_000_000, true).unwrap();
    let sent = |e: &Entry| e.node == "neighbour" && matches!(e.what, What::Broadcast { .. });
    world.see(from, sent).await.unwrap();
    world.mine(6).await.unwrap();
    let gossiped = || {
        let nodes: [&node::Node; 3] = [world.lsp(), world.payer(), node];
        nodes.iter().all(|node| node.knows_of(&neighbour.id()))
    };
    world.see(from, |_| gossiped()).await.unwrap();
    world.keep(neighbour);
}

fn has_paths(answer: &anyhow::Result<Vec<impl Sized>>) -> bool {
    match answer {
        Ok(paths) => !paths.is_empty(),
        Err(error) => {
            let says = "this node is not announced yet: open an announced channel";
            assert_eq!(error.to_string(), says);
            false
        }
    }
}

/// Messages find it over a public peer. Money does not: what the wallet hands out begins at the LSP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_is_not_announced_is_found_by_messages_and_not_by_payments() {
    let mut world = World::new(Chain::embedded(), hidden(PayerMode::OftenOffline)).await.unwrap();
    assert!(has_paths(&world.lsp().paths_for(b"alice").await), "its only peer would do");
    world.start_recipient().await.unwrap();
    assert!(!has_paths(&world.lsp().paths_for(b"alice").await), "neither of two peers is public");
    world.stop_recipient().await;

    with_a_public_neighbour(&mut world).await;
    let offer = prepared(&mut world).await;
    let invoice = world.lsp().static_invoice(b"alice", 0).await.unwrap();
    let (there, lsp) = (world.payer_lsp.id(), world.lsp().id());
    for path in invoice.payment_paths() {
        assert_eq!(*path.introduction_node(), IntroductionNode::NodeId(lsp));
    }
    assert!(!world.payer().can_route(&there, &lsp), "the channel is announced");
    lab::begin(&world, "hidden-lsp", "An LSP that is not announced").await.unwrap();

    // It would lock an HTLC at once, and has the invoice, and no route.
    let (from, money) = (world.transcript.position(), payers_money(&world));
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    assert_eq!(failed(&world, from).await, "RouteNotFound");
    let entries = world.transcript.since(from);
    assert!(entries.iter().any(|e| e.node == "payer" && is_onion(e, "static_invoice")));
    assert!(events(&world, from, "payer", "ConnectionNeeded").is_empty());

    // One that waits for the release does not even look for a route: its message does not get through.
    set_flags(world.payer(), |config| config.hold_outbound_htlcs_at_next_hop = false);
    let from = world.transcript.position();
    let payment = world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see(from, |e| is_event(e, "payer", "ConnectionNeeded")).await.unwrap();
    let needed = events(&world, from, "payer", "ConnectionNeeded").pop().unwrap();
    assert_eq!((&needed["node_id"], &needed["addresses"]), (&json!(lsp.to_string()), &json!(0)));
    assert_eq!(world.payer().stage(payment), Some(PaymentStage::Waiting));

    assert_eq!((payers_htlcs(&world), payers_money(&world)), (0, money));
    assert!(world.lsp().sold().iter().all(|record| matches!(record.state, JitState::Sold)));
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// Whoever has a channel with that LSP needs no announcement to find it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_is_not_announced_serves_payers_of_its_own() {
    let story = Story { one_lsp: true, ..hidden(PayerMode::OftenOffline) };
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    with_a_public_neighbour(&mut world).await;
    let offer = prepared(&mut world).await;
    lab::begin(&world, "hidden-lsp-of-both", "Payer and recipient of a hidden LSP").await.unwrap();
    let books = world.pay_offline_recipient(&offer, AMOUNT_MSAT).await.unwrap();
    assert_eq!((books.payer_sent_msat, books.routing_fee_msat), (AMOUNT_MSAT, 0));
    assert_eq!(books.recipient_received_msat, 98_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

// A channel whose ends wait for each other.

/// The payer's HTLC waits at the LSP for a channel that the wallet has accepted, as any channel.
async fn with_an_ordinary_channel(trust: TrustModel) -> (World, Offer, u64) {
    let story = Story::new(PayerMode::AlwaysOnline, trust);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    lab::begin(&world, "not-zero-conf", "Accepted without zero-conf").await.unwrap();
    let from = world.transcript.position();
    world.recipient().hold_channels();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see(from, |e| is_event(e, "recipient", "OpenChannelRequest")).await.unwrap();
    let held = world.recipient().take_held_channels();
    let [(id, lsp)] = held[..] else { panic!("{held:?}") };
    let (name, may_skim) = (jit_user_channel_id(1), Some(take_less_than_the_onion_says()));
    let wallet = world.recipient().channel_manager();
    wallet.accept_inbound_channel(&id, &lsp, name, may_skim).unwrap();
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(from, |e| e.node == node && channel_is(e, "pending", peer)).await.unwrap();
    }
    (world, offer, from)
}

fn fundings(world: &World, from: u64) -> usize {
    let entries = world.transcript.since(from);
    let is_it = |e: &&Entry| {
        let funding = matches!(&e.what, What::Broadcast { purpose, .. } if purpose == "Funding");
        e.node == "lsp" && funding
    };
    entries.iter().filter(is_it).count()
}

/// The LSP waits for the channel before it forwards, and for the fee before it funds; the wallet waits
/// for the funding. The LSP's deadline ends it, whatever is mined.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_zero_conf_waits_for_a_funding_that_is_withheld() {
    let (mut world, offer, from) = with_an_ordinary_channel(TrustModel::ClientTrustsLsp).await;
    world.mine(6).await.unwrap();
    assert!(events(&world, from, "lsp", "ChannelReady").is_empty());
    assert_eq!((payers_htlcs(&world), fundings(&world, from)), (1, 0));
    world.lsp().clock().advance(DeskSettings::default().open_deadline);
    given_up(&world, from).await;
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(from, |e| e.node == node && channel_is(e, "closed", peer)).await.unwrap();
    }
    assert_eq!(fundings(&world, from), 0);
    lab::end(&world).await.unwrap();
    assert!(matches!(world.lsp().sold()[0].state, JitState::Sold), "the lease is as it was");
    world.stop_recipient().await;
    let books = world.pay_offline_recipient(&offer, AMOUNT_MSAT).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_not_zero_conf_carries_the_payment_once_it_is_six_deep() {
    let (world, _, from) = with_an_ordinary_channel(TrustModel::LspTrustsClient).await;
    world.see(from, |_| fundings(&world, from) == 1).await.unwrap();
    world.mine(5).await.unwrap();
    assert!(events(&world, from, "recipient", "ChannelReady").is_empty());
    world.mine(1).await.unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, 98_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// Six blocks take longer than an LSP waits. The channel it has paid for stays, and so does the fee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_is_ready_after_the_deadline_carries_the_next_payment() {
    let (mut world, offer, from) = with_an_ordinary_channel(TrustModel::LspTrustsClient).await;
    let money = payers_money(&world) + AMOUNT_MSAT + 1_000;
    world.see(from, |_| fundings(&world, from) == 1).await.unwrap();
    world.mine(5).await.unwrap();
    world.lsp().clock().advance(DeskSettings::default().open_deadline);
    given_up(&world, from).await;
    lab::end(&world).await.unwrap();
    assert_eq!(payers_money(&world), money);
    let ready = world.transcript.position();
    world.mine(1).await.unwrap();
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(ready, |e| e.node == node && channel_is(e, "ready", peer)).await.unwrap();
    }
    let books = world.pay_offline_recipient(&offer, AMOUNT_MSAT).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    assert_eq!(books.recipient_received_msat, 98_000_000);
    assert_eq!((world.recipient().balances().channels.len(), fundings(&world, from)), (1, 1));
    lab::end(&world).await.unwrap();
    world.stop().await;
}
