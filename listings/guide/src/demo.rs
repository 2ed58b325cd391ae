//! `demo`: the whole story, as a timeline a person can follow, with the money at the end.

use anyhow::{Context, Result};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, Transcript, What};
use recording::ledger::Payment;
use recording::normalise::Normaliser;
use recording::told;
use regtest::Chain;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;

use crate::money::{Books, msat};
use crate::payable;
use crate::story::{self, Setting};
use crate::world::{Story, World};

/// What to play.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether the payer goes offline too.
    pub payer: PayerMode,
    /// Which side trusts.
    pub trust: TrustModel,
    /// What is paid, in msat.
    pub amount_msat: u64,
    /// Whether to print JSON, one object a line.
    pub json: bool,
}

/// The last line of a run in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Summary {
    /// `paid`, `refused` (nothing was tried) or `failed`.
    pub outcome: String,
    /// What left the payer, fees included, in msat.
    pub payer_sent_msat: u64,
    /// What the nodes on the way earned, in msat.
    pub routing_fee_msat: u64,
    /// What opening the channel cost, in msat.
    pub opening_fee_msat: u64,
    /// What the recipient got, in msat.
    pub recipient_received_msat: u64,
    /// The capacity of the channel that was opened, in sat.
    pub channel_capacity_sat: u64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// Why it was refused or failed, and what to do.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub error: Option<String>,
}

impl Summary {
    /// The summary of a run that did not pay.
    pub fn unpaid(outcome: &str, error: String) -> Self {
        Self {
            outcome: outcome.to_owned(),
            payer_sent_msat: 0,
            routing_fee_msat: 0,
            opening_fee_msat: 0,
            recipient_received_msat: 0,
            channel_capacity_sat: 0,
            elapsed_ms: 0,
            error: Some(error),
        }
    }
}

/// Something that must be chosen otherwise; nothing was started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Refused(pub String);

/// Plays the story.
pub async fn run(options: &Options, chain: Chain) -> Result<Summary> {
    let story = Story::new(options.payer, options.trust);
    check_amount(&story, options.amount_msat)?;
    let stage = Stage::new(options.json);
    if !options.json {
        println!("Setting up: coins, two LSPs and a payer, their channels and their gossip");
    }
    let mut world = World::new(chain, story).await?;
    let follower = stage.follow(world.transcript.clone());
    let played = play(&mut world, options).await;
    let elapsed_ms = world.transcript.elapsed_ms();
    // That the nodes stop now is no part of the story.
    stage.finish(follower).await;
    if played.is_ok() {
        world.stop().await;
    }
    let (books, channel_capacity_sat) = played?;
    Ok(Summary {
        outcome: "paid".to_owned(),
        payer_sent_msat: books.payer_sent_msat,
        routing_fee_msat: books.routing_fee_msat,
        opening_fee_msat: books.opening_fee_msat,
        recipient_received_msat: books.recipient_received_msat,
        channel_capacity_sat,
        elapsed_ms,
        error: None,
    })
}

/// An amount no lease of this LSP can serve is refused before anything starts.
fn check_amount(story: &Story, amount_msat: u64) -> Result<(), Refused> {
    payable::check(&story.lsp, amount_msat).map_err(|error| {
        let (instead, which) = error.instead();
        Refused(format!("{error}: use --amount {instead} {which}"))
    })
}

async fn play(world: &mut World, options: &Options) -> Result<(Books, u64)> {
    let setting = Setting {
        payer: options.payer,
        trust: options.trust,
        amount_msat: options.amount_msat,
        ..Setting::default()
    };
    let books = story::flow(world, &setting).await?;
    let channels = world.recipient().balances().channels;
    let capacity = channels.first().context("the recipient has no channel")?.capacity_sat;
    Ok((books, capacity))
}

/// Prints a run, as its transcript grows.
struct Stage {
    json: bool,
    done: Arc<watch::Sender<bool>>,
}

impl Stage {
    fn new(json: bool) -> Self {
        Self { json, done: Arc::new(watch::Sender::new(false)) }
    }

    fn follow(&self, transcript: Transcript) -> tokio::task::JoinHandle<()> {
        let (json, mut done) = (self.json, self.done.subscribe());
        tokio::spawn(async move {
            let mut printer = Printer::new(json);
            let mut from = 0;
            loop {
                let entries = tokio::select! {
                    entries = transcript.next(from) => entries,
                    _ = done.wait_for(|done| *done) => transcript.since(from),
                };
                if entries.is_empty() {
                    return;
                }
                from = entries.last().map_or(from, |last| last.seq + 1);
                for entry in entries {
                    printer.print(&entry);
                }
            }
        })
    }

    async fn finish(&self, follower: tokio::task::JoinHandle<()>) {
        self.done.send_replace(true);
        let _ = follower.await;
    }
}

/// Prints a run line by line: what the recorder would write of it, and before the first scene, what
/// sets it up.
struct Printer {
    json: bool,
    normaliser: Normaliser,
    began: bool,
}

impl Printer {
    fn new(json: bool) -> Self {
        let normaliser = Normaliser::new(Box::new(|_| Vec::new()));
        Self { json, normaliser, began: false }
    }

    fn print(&mut self, entry: &Entry) {
        if self.json {
            println!("{}", serde_json::to_string(entry).expect("an entry is JSON"));
            return;
        }
        let moment = self.normaliser.push(entry);
        if let What::Scene { id, title } = &entry.what {
            self.began = true;
            println!("\n{}", told::heading(id, title));
            return;
        }
        let what = match moment {
            Some(moment) if moment.background || moment.again => return,
            Some(moment) => moment.what,
            None if self.began => return,
            None => entry.what.clone(),
        };
        if let Some((_, text)) = told::text(&entry.node, &what) {
            println!("  {:>6} ms  {}", entry.at_ms, told::line(&entry.node, &text));
        }
    }
}

/// The books as a table.
pub fn table(summary: &Summary) -> String {
    let books = told::books(&Payment {
        sent_msat: summary.payer_sent_msat,
        routing_fee_msat: summary.routing_fee_msat,
        opening_fee_msat: summary.opening_fee_msat,
        received_msat: summary.recipient_received_msat,
        ..Payment::default()
    });
    format!(
        "\n{books}  channel opened for it: {} sat; {} ms in all\n",
        msat(summary.channel_capacity_sat),
        msat(summary.elapsed_ms)
    )
}
