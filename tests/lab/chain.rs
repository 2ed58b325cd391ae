//! Force-closes, double-spends, reorganisations, and channels that do not open.

use guide::world::{Story, World, channel_is, is_wire};
use lightning::ln::types::ChannelId;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::jit_table::JitState;
use lsps2_async::payer::PayerMode;
use node::faults::{Fault, points};
use node::recipient::{FundingPolicy, Funds};
use node::transcript::{Closing, Entry, HtlcState, What};
use recording::ledger::{Ledger, Payment};
use regtest::{Chain, EmbeddedChain, RpcAuth};
use std::net::{Ipv4Addr, SocketAddr};
use tokio::runtime::Runtime;

const AMOUNT_MSAT: u64 = 100_000_000;

/// A payment that the recipient might claim, and has not; who paid is online.
struct Claimable {
    world: World,
    from: u64,
    /// What the payer could send before, in msat.
    before_msat: u64,
    channel: ChannelId,
    /// When the HTLC expires that the LSP was given.
    inbound_expiry: u32,
}

async fn claimable(trust: TrustModel) -> Claimable {
    let story = Story::new(PayerMode::AlwaysOnline, trust);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.recipient().hold_claims();
    let (from, before_msat) = (world.transcript.position(), payers_money(&world));
    guide::lab::begin(&world, "closed", "Closed by force under a payment").await.unwrap();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see_htlc(from, "recipient", HtlcState::Claimable).await.unwrap();
    world.rest().await.unwrap();
    let channel = world.recipient().channel_manager().list_channels()[0].channel_id;
    let inbound = world.lsp().channel_manager().list_channels();
    let inbound = inbound.iter().flat_map(|c| &c.pending_inbound_htlcs).next().unwrap();
    let inbound_expiry = inbound.cltv_expiry;
    Claimable { world, from, before_msat, channel, inbound_expiry }
}

fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels[0].outbound_msat
}

fn is_event(entry: &Entry, node: &str, wanted: &str) -> bool {
    entry.node == node && matches!(&entry.what, What::Event { name, .. } if name == wanted)
}

/// Whether the chain has taken a transaction of this node, by its purpose.
fn is_broadcast(entry: &Entry, node: &str, wanted: &str) -> bool {
    let taken = |what: &What| match what {
        What::Broadcast { purpose, error: None, .. } => purpose == wanted,
        _ => false,
    };
    entry.node == node && taken(&entry.what)
}

fn show(world: &World, from: u64) {
    if std::env::var("SHOW").is_err() {
        return;
    }
    for e in world.transcript.since(from) {
        if matches!(e.what, What::Onion { .. } | What::OnionSent { .. } | What::Wire { .. }) {
            continue;
        }
        println!("{} {}", e.node, serde_json::to_string(&e.what).unwrap());
    }
}

impl Claimable {
    /// Closes the JIT channel by force, and waits until both ends know.
    async fn close(&self, closer: &str) {
        let world = &self.world;
        let (manager, peer) = match closer {
            "lsp" => (world.lsp().channel_manager(), world.recipient().id()),
            _ => (world.recipient().channel_manager(), world.lsp().id()),
        };
        let why = "the test closes it".to_owned();
        manager.force_close_broadcasting_latest_txn(&self.channel, &peer, why).unwrap();
        for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
            world
                .see(self.from, |e| e.node == node && channel_is(e, "closed", peer))
                .await
                .unwrap();
        }
    }

    /// Mines one block after the other, so that nobody is late, until something is true.
    async fn mine_until(&self, at_most: u32, done: impl Fn(&World) -> bool) -> u32 {
        for blocks in 0..at_most {
            if done(&self.world) {
                return blocks;
            }
            self.world.mine(1).await.unwrap();
            self.world.rest().await.unwrap();
        }
        show(&self.world, self.from);
        panic!("it takes more than {at_most} blocks");
    }

    /// Waits until all that was in the channel is in a wallet, or with the miners; returns the ledger.
    async fn swept(&self) -> Ledger {
        // Everything waits for six blocks, and the LSP's own output for 144.
        self.world.mine(7).await.unwrap();
        self.in_wallet("recipient").await;
        self.world.mine(145).await.unwrap();
        self.in_wallet("lsp").await;
        guide::lab::ledger(&self.world).unwrap()
    }

    /// Between LDK's event and its handling an output is nowhere: then the ledger does not balance.
    async fn in_wallet(&self, node: &str) {
        let is_done = || {
            let entries = self.world.transcript.since(self.from);
            let said = entries.into_iter().rev().find_map(|e| match e.what {
                What::Balances { closed, .. } if e.node == node => Some(closed),
                _ => None,
            });
            let empty = |c: &Closing| c.own_msat == 0 && c.pending_msat == (0, 0);
            said.is_some_and(|closed| !closed.is_empty() && closed.iter().all(empty))
                && guide::lab::ledger(&self.world).is_ok()
        };
        let says = |e: &Entry| matches!(e.what, What::Balances { .. }) && e.node == node;
        if self.world.see(self.from, |e| says(e) && is_done()).await.is_err() {
            show(&self.world, self.from);
            panic!("what {node} had in the channel is not in its wallet");
        }
    }

    fn has(&self, node: &str, wanted: HtlcState) -> bool {
        let is_it = |e: &Entry| {
            e.node == node && matches!(e.what, What::Htlc { state, .. } if state == wanted)
        };
        self.world.transcript.since(self.from).iter().any(is_it)
    }
}

/// Whoever closes it: nothing is broadcast, and the payer has everything back before its LSP would go
/// to the chain.
async fn withheld(closer: &str) {
    let run = claimable(TrustModel::ClientTrustsLsp).await;
    run.close(closer).await;
    let closed_at = run.world.chain.height().await.unwrap();
    run.world.mine(run.inbound_expiry - 4 - closed_at).await.unwrap();
    assert!(!run.has("lsp", HtlcState::Failed), "LDK keeps it until here");
    run.world.mine(1).await.unwrap();
    run.world.see_htlc(run.from, "payer", HtlcState::Failed).await.unwrap();
    run.world.rest().await.unwrap();
    assert_eq!(payers_money(&run.world), run.before_msat);
    assert!(run.world.chain.mempool().await.unwrap().is_empty(), "nothing is broadcast");
    let ledger = guide::lab::end(&run.world).await.unwrap();
    let end = ledger.checkpoints.last().unwrap();
    assert_eq!(end.payment, Payment::default());
    for (name, holding) in &end.parties {
        let before = ledger.opening.parties[name].owned_msat();
        assert_eq!(holding.owned_msat(), before, "{name}");
    }
    run.world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_htlc_in_a_withheld_channel_that_the_recipient_closes_comes_back() {
    withheld("recipient").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_htlc_in_a_withheld_channel_that_the_lsp_closes_comes_back() {
    withheld("lsp").await;
}

/// The payment went all the way, and the recipient has it in its wallet, less what that cost.
fn paid_on_chain(ledger: &Ledger) {
    guide::lab::nothing_lost(ledger).unwrap();
    let end = ledger.checkpoints.last().unwrap();
    assert_eq!(end.payment.received_msat, 98_000_000);
    assert_eq!(end.payment.opening_fee_msat, 2_000_000);
    let (recipient, lsp) = (&end.parties["recipient"], &end.parties["lsp"]);
    assert_eq!(recipient.wallet_msat + recipient.closing_cost_msat, 98_000_000);
    // One or two small transactions. The anchors are the LSP's, who funded the channel.
    assert!((1..1_000_000).contains(&recipient.closing_cost_msat), "{recipient:?}");
    assert!((1..3_000_000).contains(&lsp.closing_cost_msat), "{lsp:?}");
    assert_eq!((recipient.closing_msat, lsp.closing_msat), (0, 0));
}

/// The client has given its preimage away and the channel is closed before the funding is broadcast:
/// LSPS2 then leaves the funding alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_that_closes_between_the_claim_and_the_broadcast_is_funded() {
    let run = claimable(TrustModel::ClientTrustsLsp).await;
    let world = &run.world;
    world.lsp().hold_events(true);
    world.recipient().judge_held_claims().await.unwrap();
    world.see(run.from, |e| e.node == "lsp" && is_wire(e, "update_fulfill_htlc")).await.unwrap();
    world
        .recipient()
        .channel_manager()
        .force_close_broadcasting_latest_txn(&run.channel, &world.lsp().id(), "closed".into())
        .unwrap();
    let gone = || world.lsp().channel_manager().list_channels().len() == 1;
    world.see(run.from, |_| gone()).await.unwrap();
    // Whose last state confirms would be left to chance.
    let mut run = run;
    run.world.stop_recipient().await;
    let world = &mut run.world;
    world.lsp().hold_events(false);
    world.see_htlc(run.from, "payer", HtlcState::Paid).await.unwrap();
    world.see(run.from, |e| is_broadcast(e, "lsp", "Funding")).await.unwrap();
    assert_eq!(world.chain.mempool().await.unwrap().len(), 1, "the funding");
    world.mine(1).await.unwrap();
    world.see(run.from, |e| is_broadcast(e, "lsp", "UnilateralClose")).await.unwrap();
    world.mine(1).await.unwrap();
    world.start_recipient().await.unwrap();
    // Its claim or its part of the LSP's transaction, and then the sweep to its wallet.
    for _ in 0..2 {
        world.mine(7).await.unwrap();
    }
    world.see(run.from, |e| is_broadcast(e, "recipient", "Sweep")).await.unwrap();
    world.mine(1).await.unwrap();
    let owned_sat = world.recipient().balances().onchain_spendable_sat;
    assert!((97_000..98_000).contains(&owned_sat), "98 000 sat less two small fees: {owned_sat}");
    run.world.stop().await;
}

/// The LSP dies when the closing has retired the record, and LDK shows the closing again. The HTLC that
/// went over the channel is not failed yet: if it is claimed after all, the client is owed the funding.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closing_that_is_shown_again_after_a_crash_does_not_free_a_funding_that_may_be_owed() {
    let mut run = claimable(TrustModel::ClientTrustsLsp).await;
    let world = &mut run.world;
    let armed = world.faults("lsp");
    armed.arm(Fault::after_key("lsps2_jit_table", 1));
    let manager = world.recipient().channel_manager();
    let why = "the test closes it".to_owned();
    manager.force_close_broadcasting_latest_txn(&run.channel, &world.lsp().id(), why).unwrap();
    tokio::time::timeout(guide::world::PATIENCE, armed.wait()).await.unwrap();
    world.crash_lsp().await;
    let then = world.transcript.position();
    world.start_lsp().await.unwrap();
    let closed = |e: &Entry| e.node == "lsp" && channel_is(e, "closed", "recipient");
    world.see(then, closed).await.unwrap();
    world.rest().await.unwrap();
    let sold = |world: &World| world.lsp().sold().pop().unwrap();
    let retired = sold(world);
    assert!(matches!(retired.state, JitState::Retired(_)), "{retired:?}");
    assert!(retired.funding.is_some(), "the HTLC is not failed");
    let closed_at = world.chain.height().await.unwrap();
    world.mine(run.inbound_expiry - 3 - closed_at).await.unwrap();
    world.see_htlc(run.from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert!(sold(world).funding.is_none(), "nobody is owed it");
    assert!(world.chain.mempool().await.unwrap().is_empty());
    run.world.stop().await;
}

/// The wallet claims while its LSP is away, and then somebody closes the channel.
async fn claimed_while_apart(closer: &str) -> Claimable {
    let run = claimable(TrustModel::LspTrustsClient).await;
    let world = &run.world;
    world.recipient().disconnect(&world.lsp().id()).unwrap();
    let gone = |e: &Entry| matches!(&e.what, What::Disconnected { peer } if peer == "recipient");
    world.see(run.from, |e| e.node == "lsp" && gone(e)).await.unwrap();
    world.recipient().judge_held_claims().await.unwrap();
    world.see_htlc(run.from, "recipient", HtlcState::Claimed).await.unwrap();
    let (manager, peer) = match closer {
        "lsp" => (world.lsp().channel_manager(), world.recipient().id()),
        _ => (world.recipient().channel_manager(), world.lsp().id()),
    };
    let why = "the test closes it".to_owned();
    manager.force_close_broadcasting_latest_txn(&run.channel, &peer, why).unwrap();
    world.see(run.from, |e| is_broadcast(e, closer, "UnilateralClose")).await.unwrap();
    run
}

/// From the LSP's transaction a wallet claims without coins of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_htlc_in_a_funded_channel_that_the_lsp_closes_is_claimed_on_chain() {
    let run = claimed_while_apart("lsp").await;
    run.world.mine(1).await.unwrap();
    let claim =
        |e: &Entry| matches!(&e.what, What::Broadcast { purpose, .. } if purpose == "Claim");
    run.world.see(run.from, |e| e.node == "recipient" && claim(e)).await.unwrap();
    run.world.mine(1).await.unwrap();
    run.world.see_htlc(run.from, "payer", HtlcState::Paid).await.unwrap();
    let forwarded = |e: &Entry| is_event(e, "lsp", "PaymentForwarded");
    let forwarded = run.world.see(run.from, forwarded).await.unwrap();
    let What::Event { detail, .. } = forwarded.what else { unreachable!() };
    assert_eq!(detail["claim_from_onchain_tx"], true);
    assert!(detail["skimmed_fee_msat"].is_null(), "{detail}");
    let ledger = run.swept().await;
    paid_on_chain(&ledger);
    run.world.stop().await;
}

/// From its own it cannot: with anchors, that takes coins, and a new wallet has none. The HTLC goes
/// back, although LDK has raised `PaymentClaimed`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_without_coins_that_closes_by_force_loses_what_it_has_just_claimed() {
    let run = claimed_while_apart("recipient").await;
    // The LSP asked for 72 blocks on its hop: the HTLC in this channel expires as many blocks earlier.
    let expiry = run.inbound_expiry - 72;
    run.world.mine(expiry - 5 - run.world.chain.height().await.unwrap()).await.unwrap();
    assert!(!run.has("lsp", HtlcState::Failed));
    run.mine_until(60, |_| run.has("payer", HtlcState::Failed)).await;
    assert_eq!(payers_money(&run.world), run.before_msat);
    // The books say so: what the wallet believes it was paid is nowhere.
    let error = format!("{:#}", guide::lab::ledger(&run.world).unwrap_err());
    assert!(error.contains("98 000 000 msat are too many"), "{error}");
    run.world.stop().await;
}

/// The transaction that funds the JIT channel, as the LSP has broadcast it.
async fn funding_of(world: &World) -> bitcoin::Transaction {
    let mempool = world.chain.mempool().await.unwrap();
    assert_eq!(mempool.len(), 1, "the funding and nothing else");
    world.chain.transaction(mempool[0]).await.unwrap().unwrap()
}

/// The LSP takes its coins back before the funding confirms.
async fn double_spend(world: &World) {
    let funding = funding_of(world).await;
    let instead = world.lsp().spend_elsewhere(Some(&funding)).unwrap();
    world.chain.broadcast(std::slice::from_ref(&instead)).await.unwrap();
    assert_eq!(world.chain.mempool().await.unwrap(), [instead.compute_txid()]);
    world.mine(1).await.unwrap();
    assert!(world.chain.mempool().await.unwrap().is_empty(), "it is confirmed");
}

/// What zero-conf costs if the LSP is dishonest: all that was received over the channel so far, here
/// one payment. LDK `0.3.0-rc3` keeps the channel open and usable; the wallet doubts it after 18 blocks,
/// and nothing more is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_double_spend_costs_a_wallet_that_claims_at_once_one_payment() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.settled(from).await.unwrap();
    world.rest().await.unwrap();
    double_spend(&world).await;
    let unconfirmed = Funds { unconfirmed_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), unconfirmed);

    let doubted = |e: &Entry| e.node == "recipient" && channel_is(e, "doubtful", "lsp");
    world.mine(16).await.unwrap();
    assert!(!world.transcript.since(from).iter().any(doubted));
    world.mine(1).await.unwrap();
    world.see(from, doubted).await.unwrap();
    let doubtful = Funds { doubtful_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), doubtful);
    let channels = world.recipient().balances().channels;
    assert!(channels[0].is_usable, "LDK sees nothing in it");

    let (from, before_msat) = (world.transcript.position(), payers_money(&world));
    world.payer().pay(&offer, 40_000_000).unwrap();
    let refused = world.see_htlc(from, "recipient", HtlcState::Refused).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert_eq!(reason.unwrap(), "the funding of its channel has not confirmed in 18 blocks");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(payers_money(&world), before_msat);

    // What is claimed is lost: the wallet's own last state spends an output that is not there.
    let (from, channel) = (world.transcript.position(), world.recipient().channel_manager());
    let id = channel.list_channels()[0].channel_id;
    channel.force_close_broadcasting_latest_txn(&id, &world.lsp().id(), "lost".into()).unwrap();
    let refused = |e: &Entry| matches!(&e.what, What::Broadcast { error: Some(_), .. });
    world.see(from, |e| e.node == "recipient" && refused(e)).await.unwrap();
    assert_eq!(world.recipient().balances().onchain_spendable_sat, 0);
    world.stop().await;
}

fn cautious(change: impl FnOnce(&mut FundingPolicy)) -> Story {
    let mut story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    change(&mut story.recipient.funding);
    story
}

/// The payment waits in the channel, and is claimed when the channel has confirmed; or it goes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_waits_for_a_confirmation_loses_nothing_to_a_double_spend() {
    let story = cautious(|policy| policy.confirmations = 1);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "waits", "The wallet waits").await.unwrap();
    let (from, before_msat) = (world.transcript.position(), payers_money(&world));
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    let claimable =
        world.see(from, |e| is_event(e, "recipient", "PaymentClaimable")).await.unwrap();
    let What::Event { detail, .. } = claimable.what else { unreachable!() };
    let deadline = detail["claim_deadline"].as_u64().unwrap() as u32;
    world.rest().await.unwrap();
    double_spend(&world).await;
    world.mine(deadline - 3 - world.chain.height().await.unwrap()).await.unwrap();
    assert_eq!(world.recipient().funds(), Funds::default(), "nothing is claimed");
    world.mine(1).await.unwrap();
    world.see_htlc(from, "recipient", HtlcState::Refused).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(payers_money(&world), before_msat, "the payer has everything back");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_that_waits_for_a_confirmation_is_paid_with_the_next_block() {
    let story = cautious(|policy| policy.confirmations = 1);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "waits", "The wallet waits").await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see(from, |e| is_event(e, "recipient", "PaymentClaimable")).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(world.recipient().funds(), Funds::default(), "nothing is claimed");
    world.mine(1).await.unwrap();
    world.settled(from).await.unwrap();
    guide::lab::end(&world).await.unwrap();
    let confirmed = Funds { confirmed_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), confirmed);

    // Over a channel that is paid for, nothing is limited; but what is not confirmed is.
    world.stop().await;
}

/// LDK does not show the payment again: the wallet has it on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_waits_for_a_confirmation_is_claimed_after_a_restart() {
    let story = cautious(|policy| policy.confirmations = 1);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see(from, |e| is_event(e, "recipient", "PaymentClaimable")).await.unwrap();
    world.rest().await.unwrap();
    world.stop_recipient().await;
    world.start_recipient().await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(world.recipient().funds(), Funds::default(), "nothing is claimed");
    world.mine(1).await.unwrap();
    world.settled(from).await.unwrap();
    let confirmed = Funds { confirmed_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), confirmed);
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_with_a_limit_takes_no_more_than_that_without_a_confirmation() {
    let story = cautious(|policy| policy.most_unconfirmed_msat = 100_000_000);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "limit", "The wallet has a limit").await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.settled(from).await.unwrap();
    let (from, before_msat) = (world.transcript.position(), payers_money(&world));
    world.payer().pay(&offer, 10_000_000).unwrap();
    world.see_htlc(from, "recipient", HtlcState::Refused).await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    assert_eq!(payers_money(&world), before_msat);
    world.mine(1).await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, 40_000_000).unwrap();
    world.see_htlc(from, "payer", HtlcState::Paid).await.unwrap();
    guide::lab::end(&world).await.unwrap();
    world.stop().await;
}

/// The recipient goes away for good when it has what was paid, and before the funding confirms. Its
/// channel confirms without it, and is there when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recipient_that_vanishes_after_the_claim_finds_its_channel_confirmed() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "gone", "Paid, and gone").await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.settled(from).await.unwrap();
    world.rest().await.unwrap();
    funding_of(&world).await;
    world.stop_recipient().await;
    world.mine(30).await.unwrap();
    let from = world.transcript.position();
    world.start_recipient().await.unwrap();
    let confirmed = Funds { confirmed_msat: 98_000_000, ..Funds::default() };
    world.see(from, |_| world.recipient().funds() == confirmed).await.unwrap();
    world.see(from, |e| e.node == "lsp" && is_wire(e, "channel_reestablish")).await.unwrap();
    guide::lab::end(&world).await.unwrap();
    world.stop().await;
}

/// A funding that had confirmed is undone, and another transaction takes its coins. LDK keeps a
/// zero-conf channel open all the same; what was received over it is lost. The wallet doubts it after
/// as many blocks as a new channel gets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_that_is_reorganised_out_and_replaced_is_doubted() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.settled(from).await.unwrap();
    world.rest().await.unwrap();
    let funding = funding_of(&world).await;
    world.mine(2).await.unwrap();
    let confirmed = Funds { confirmed_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), confirmed);

    world.chain.invalidate_tip(2).await.unwrap();
    let instead = world.lsp().spend_elsewhere(Some(&funding)).unwrap();
    world.chain.broadcast(&[instead]).await.unwrap();
    world.mine(3).await.unwrap();
    let unconfirmed = Funds { unconfirmed_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), unconfirmed);
    assert!(world.recipient().balances().channels[0].is_usable, "LDK trusts it");
    world.mine(18).await.unwrap();
    let doubted = |e: &Entry| e.node == "recipient" && channel_is(e, "doubtful", "lsp");
    world.see(from, doubted).await.unwrap();
    world.stop().await;
}

/// How many blocks are dropped, so that the chain is below the lock time of a transaction that the wallet
/// has just signed and refuses it: for a reason that passes, as with a mempool that is full.
const DROPPED: u32 = 2;

fn is_refused(entry: &Entry, node: &str) -> bool {
    let refused = |what: &What| match what {
        What::Broadcast { purpose, error: Some(error), .. } => {
            purpose == "Funding" && error.contains("non-final")
        }
        _ => false,
    };
    entry.node == node && refused(&entry.what)
}

/// The client has paid for a channel, and the chain refuses its funding at first. The node asks again at
/// each block, without a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paid_funding_that_the_chain_refuses_at_first_is_broadcast_again() {
    let run = claimable(TrustModel::ClientTrustsLsp).await;
    let world = &run.world;
    world.chain.invalidate_tip(DROPPED).await.unwrap();
    world.recipient().judge_held_claims().await.unwrap();
    world.see(run.from, |e| is_refused(e, "lsp")).await.unwrap();
    world.settled(run.from).await.unwrap();
    assert!(world.chain.mempool().await.unwrap().is_empty());
    world.mine(DROPPED + 1).await.unwrap();
    world.see(run.from, |e| is_broadcast(e, "lsp", "Funding")).await.unwrap();
    world.mine(1).await.unwrap();
    let confirmed = Funds { confirmed_msat: 98_000_000, ..Funds::default() };
    assert_eq!(world.recipient().funds(), confirmed);
    guide::lab::end(world).await.unwrap();
    run.world.stop().await;
}

/// The LSP dies with a funding that it has signed and shown to nobody. The coins of that one are free
/// after the restart, although another funding of this LSP is nowhere to be seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coins_of_a_funding_that_a_crash_has_left_nothing_of_are_free_again() {
    let mut story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    story.lsp_coins = 2;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    world.chain.invalidate_tip(DROPPED).await.unwrap();
    world.lsp().open_channel(world.payer_lsp.id(), 100_000, false).unwrap();
    world.see(from, |e| is_refused(e, "lsp")).await.unwrap();
    world.mine(DROPPED + 1).await.unwrap();
    let armed = world.faults("lsp");
    armed.arm(Fault::at(points::BEFORE_FUNDING));
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    tokio::time::timeout(guide::world::PATIENCE, armed.wait()).await.unwrap();
    world.crash_lsp().await;
    world.start_lsp().await.unwrap();
    // The coin of the first funding is taken, so this takes the other.
    world.settled(from).await.unwrap();
    world.stop().await;
}

/// The LSP trusts its client and dies before the chain has the funding, which nobody else would ever
/// broadcast: LDK does not after a restart, and the wallet has noted nothing. It is on the wallet's disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_that_was_not_broadcast_before_a_crash_is_broadcast_after_it() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "unsent", "Not broadcast before a crash").await.unwrap();
    let from = world.transcript.position();
    world.chain.invalidate_tip(DROPPED).await.unwrap();
    world.lsp().hold_forwards(true);
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.see(from, |e| is_refused(e, "lsp")).await.unwrap();
    world.see(from, |e| e.node == "lsp" && channel_is(e, "ready", "recipient")).await.unwrap();
    world.mine(DROPPED + 1).await.unwrap();
    assert!(world.chain.mempool().await.unwrap().is_empty());
    world.crash_lsp().await;
    world.start_lsp().await.unwrap();
    world.settled(from).await.unwrap();
    let closed = |e: &Entry| channel_is(e, "closed", "recipient");
    assert!(!world.transcript.since(from).iter().any(closed));
    assert_eq!(world.chain.mempool().await.unwrap().len(), 1, "the funding");
    world.mine(1).await.unwrap();
    guide::lab::end(&world).await.unwrap();
    world.stop().await;
}

/// A channel whose funding was never broadcast is closed. LDK watches it for ever; after a restart the
/// chain says that there is no such funding, and its coin is free.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_coins_of_a_funding_that_was_never_broadcast_are_free_when_its_channel_is_closed() {
    let mut story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    story.lsp_coins = 1;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let (from, peer) = (world.transcript.position(), world.payer_lsp.id());
    world.chain.invalidate_tip(DROPPED).await.unwrap();
    world.lsp().open_channel(peer, 100_000, false).unwrap();
    world.see(from, |e| is_refused(e, "lsp")).await.unwrap();
    let manager = world.lsp().channel_manager();
    let channels = manager.list_channels_with_counterparty(&peer);
    let refused = channels.iter().find(|channel| channel.is_outbound).unwrap().channel_id;
    manager.force_close_broadcasting_latest_txn(&refused, &peer, "closed".into()).unwrap();
    world.see(from, |e| e.node == "lsp" && channel_is(e, "closed", "payer-lsp")).await.unwrap();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    world.mine(DROPPED + 1).await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    world.settled(from).await.unwrap();
    world.stop().await;
}

/// A chain behind a server that may go away.
struct Server {
    chain: EmbeddedChain,
    address: SocketAddr,
    running: Option<Runtime>,
}

impl Server {
    async fn start() -> Self {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let mut server = Self { chain: EmbeddedChain::new(), address, running: None };
        server.come_back().await;
        server
    }

    fn go_away(&mut self) {
        if let Some(running) = self.running.take() {
            // With its connections.
            running.shutdown_background();
        }
    }

    async fn come_back(&mut self) {
        let (runtime, chain, address) = (Runtime::new().unwrap(), self.chain.clone(), self.address);
        let login = || "guide".to_owned();
        let served = runtime.spawn(async move {
            let (address, serving) = regtest::serve(chain, address, login(), login()).await?;
            tokio::spawn(serving);
            anyhow::Ok(address)
        });
        self.address = served.await.unwrap().unwrap();
        self.running = Some(runtime);
    }

    async fn chain(&self) -> Chain {
        let auth = RpcAuth::UserPass("guide".to_owned(), "guide".to_owned());
        Chain::rpc(&self.address.to_string(), auth).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.go_away();
    }
}

/// The LSP trusts its client, and the chain does not answer when the funding is to be broadcast, and for
/// the rest of that process' life. That is no reason to close the channel: neither before the restart nor
/// after it, when the chain answers that it has no such transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_funding_that_a_silent_chain_has_missed_is_broadcast_after_a_restart() {
    let mut server = Server::start().await;
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    let mut world = World::new(server.chain().await, story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    guide::lab::begin(&world, "silent", "The chain does not answer").await.unwrap();
    let from = world.transcript.position();
    server.go_away();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    let missed = |e: &Entry| matches!(e.what, What::Broadcast { error: Some(_), .. });
    world.see(from, |e| e.node == "lsp" && missed(e)).await.unwrap();
    world.see(from, |e| e.node == "lsp" && channel_is(e, "ready", "recipient")).await.unwrap();
    world.stop_lsp().await;
    server.come_back().await;
    assert!(world.chain.mempool().await.unwrap().is_empty());
    world.start_lsp().await.unwrap();
    world.see_htlc(from, "recipient", HtlcState::Claimed).await.unwrap();
    world.settled(from).await.unwrap();
    let closed = |e: &Entry| channel_is(e, "closed", "recipient");
    assert!(!world.transcript.since(from).iter().any(closed));
    assert_eq!(world.chain.mempool().await.unwrap().len(), 1, "the funding");
    world.mine(1).await.unwrap();
    guide::lab::end(&world).await.unwrap();
    world.stop().await;
}
