//! What the nodes own adds up, to the msat, at the end of every scene.

use crate::on_every_chain;
use guide::lab;
use guide::money::Books;
use guide::story::{self, Setting};
use guide::world::{Story, World, is_wire};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::lsp::Conduct;
use node::transcript::{ChannelBalance, Entry, HtlcState, Transcript, What};
use recording::ledger::{Ledger, Payment};
use recording::normalise::Normaliser;
use recording::{Moment, Recording};
use regtest::Chain;
use std::collections::HashMap;
use std::path::Path;

on_every_chain! {
    the_ledger_of_a_client_that_trusts_is_the_books
    the_ledger_of_an_lsp_that_trusts_is_the_books
}

async fn the_ledger_of_a_client_that_trusts_is_the_books(chain: Chain) {
    let ledger = played(chain, &Setting::default()).await;
    // The funding is broadcast last, after the claim; the fee for the miners with it.
    let at = |scene: &str| ledger.checkpoints.iter().find(|c| c.scene == scene).unwrap();
    assert_eq!(at("step-4").payment.in_flight_msat, at("step-4").payment.sent_msat);
    assert!(at("step-4").payment.sent_msat > 0);
    assert_eq!(at("step-4").miners_msat, 0);
    assert_eq!(at("step-5").payment.in_flight_msat, 0, "it is claimed, the payer offline or not");
    assert!(at("step-5").miners_msat > 0);
}

async fn the_ledger_of_an_lsp_that_trusts_is_the_books(chain: Chain) {
    let setting = Setting {
        payer: PayerMode::AlwaysOnline,
        trust: TrustModel::LspTrustsClient,
        // Not a round number of sat.
        amount_msat: 87_654_321,
        ..Setting::default()
    };
    let ledger = played(chain, &setting).await;
    assert!(ledger.checkpoints.last().unwrap().miners_msat > 0);
}

async fn played(chain: Chain, setting: &Setting) -> Ledger {
    let mut world = World::new(chain, Story::new(setting.payer, setting.trust)).await.unwrap();
    let books = story::flow(&mut world, setting).await.unwrap();
    says_each_balance_once(&world.transcript);
    let ledger = ledger(&world.transcript);
    assert_eq!(told_by(&ledger.checkpoints.last().unwrap().payment), books);
    let total = ledger.opening.total_msat();
    for checkpoint in &ledger.checkpoints {
        assert_eq!(checkpoint.total_msat(), total, "{}", checkpoint.scene);
        assert_eq!(checkpoint.payment.missing_msat(), 0, "{}", checkpoint.scene);
    }
    let end = ledger.checkpoints.last().unwrap();
    assert_eq!(end.htlcs_msat, 0);
    let received = i64::try_from(books.recipient_received_msat).unwrap();
    assert_eq!(end.payment.reserve_msat + end.payment.spendable_msat, received);
    // What the ledger calls spendable is what LDK says can be sent.
    let channels = world.recipient().balances().channels;
    assert_eq!(end.parties["recipient"].spendable_msat, channels[0].outbound_msat);
    assert_eq!(end.parties["recipient"].reserve_msat, channels[0].reserve_sat * 1_000);
    world.stop().await;
    ledger
}

fn told_by(payment: &Payment) -> Books {
    assert_eq!(payment.in_flight_msat, 0);
    Books {
        payer_sent_msat: payment.sent_msat,
        routing_fee_msat: payment.routing_fee_msat,
        opening_fee_msat: payment.opening_fee_msat,
        recipient_received_msat: payment.received_msat,
    }
}

fn moments(transcript: &Transcript) -> Vec<Moment> {
    let mut normaliser = Normaliser::new(Box::new(|_| Vec::new()));
    transcript.since(0).iter().filter_map(|entry| normaliser.push(entry)).collect()
}

fn ledger(transcript: &Transcript) -> Ledger {
    Ledger::of_moments(&moments(transcript)).unwrap()
}

/// Nothing is written that was written already; only the first scene makes every node repeat it.
fn says_each_balance_once(transcript: &Transcript) {
    let mut last: HashMap<String, What> = HashMap::new();
    let mut repeated: HashMap<String, u32> = HashMap::new();
    for Entry { node, what, .. } in transcript.since(0) {
        if let What::Balances { channels, .. } = &what {
            channels.iter().for_each(|channel| holds_no_more_than_it_can(&node, channel));
            if last.insert(node.clone(), what.clone()) == Some(what) {
                *repeated.entry(node).or_default() += 1;
            }
        }
    }
    assert!(repeated.values().all(|times| *times == 1), "{repeated:?}");
}

fn holds_no_more_than_it_can(node: &str, channel: &ChannelBalance) {
    let (towards, away) = channel.pending_msat;
    let held = channel.own_msat() + channel.receivable_msat + towards + away;
    assert!(held <= channel.capacity_sat * 1_000, "{node}: {channel:?}");
}

/// LDK shows events again after a restart; the second payment pays no opening fee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_payments_and_a_restart_of_everybody_balance() {
    let setting = Setting::default();
    let story = Story::new(setting.payer, setting.trust);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = story::prepare(&mut world).await.unwrap();
    let from = world.transcript.position();
    story::pay(&mut world, &setting, &offer).await.unwrap();
    story::settle(&mut world, &setting, from).await.unwrap();

    world.transcript.scene("restart", "Everybody restarts");
    story::leave(&mut world, "recipient").await.unwrap();
    story::leave(&mut world, "payer").await.unwrap();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();
    world.restart_payer_lsp().await.unwrap();
    let from = world.transcript.position();
    world.start_payer().await.unwrap();
    world.see(from, |e| e.node == "payer" && is_wire(e, "channel_reestablish")).await.unwrap();
    world.pay_while_recipient_is_offline(&offer, 40_000_000).await.unwrap();
    let second = story::settle(&mut world, &setting, from).await.unwrap();
    assert_eq!(second.opening_fee_msat, 0);

    let ledger = ledger(&world.transcript);
    let (first, last) = (&ledger.checkpoints[0], ledger.checkpoints.last().unwrap());
    assert_eq!(first.payment, Payment::default());
    assert_eq!(last.payment.opening_fee_msat, 2_000_000);
    assert_eq!(last.payment.received_msat, 100_000_000 - 2_000_000 + 40_000_000);
    world.stop().await;
}

/// A refused payment goes back: in the end everybody owns what they owned, but for the miners.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_payment_leaves_nothing_but_the_fee_for_the_miners() {
    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    story.lsp.conduct = Conduct::SkimsMore(1);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = story::prepare(&mut world).await.unwrap();
    story::leave(&mut world, "recipient").await.unwrap();
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.rest().await.unwrap();
    world.transcript.scene("refused", "The recipient refuses");
    world.start_recipient().await.unwrap();
    world.see_judgement(from).await.unwrap().unwrap_err();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    world.rest().await.unwrap();
    let ledger = ledger(&world.transcript);
    let held = &ledger.checkpoints[ledger.checkpoints.len() - 2];
    assert_eq!(held.payment.in_flight_msat, held.payment.sent_msat);
    let end = ledger.checkpoints.last().unwrap();
    let fee = end.miners_msat;
    assert!(fee > 0);
    assert_eq!(end.payment, Payment { onchain_fee_msat: fee, ..Payment::default() });
    for (name, holding) in &end.parties {
        let before = ledger.opening.parties[name].owned_msat();
        let paid = if name == "lsp" { fee } else { 0 };
        assert_eq!(holding.owned_msat() + paid, before, "{name}");
    }
    world.stop().await;
}

/// Every recording of the book balances: what the pages draw of it is proved where it is made.
#[test]
fn every_kept_recording_balances_and_ends_with_nothing_under_way() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recorded");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "jsonl") {
            let recording = Recording::read(&file).unwrap();
            let ledger = Ledger::of(&recording);
            let closed = ledger.and_then(|ledger| lab::nothing_lost(&ledger));
            assert!(closed.is_ok(), "{}: {:#}", recording.header.name, closed.unwrap_err());
            seen += 1;
        }
    }
    assert!(seen > 0);
}
