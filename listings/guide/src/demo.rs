//! `demo`: the whole story, as a timeline a person can follow, with the money at the end.

use anyhow::{Context, Result};
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, Transcript, What};
use regtest::Chain;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio::sync::watch;

use crate::money::{Books, msat};
use crate::payable;
use crate::story::{self, Setting};
use crate::world::{Story, World, is_onion};

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
    if played.is_ok() {
        world.stop().await;
    }
    stage.finish(follower).await;
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
                    print(&entry, json);
                }
            }
        })
    }

    async fn finish(&self, follower: tokio::task::JoinHandle<()>) {
        self.done.send_replace(true);
        let _ = follower.await;
    }
}

fn print(entry: &Entry, json: bool) {
    if json {
        println!("{}", serde_json::to_string(entry).expect("an entry is JSON"));
    } else if let What::Scene { id, title } = &entry.what {
        println!("\n{}", story::heading(id, title));
    } else if let Some(line) = tell(entry) {
        println!("  {:>6} ms  {:<10} {line}", entry.at_ms, entry.node);
    }
}

/// What a person wants to know of an entry; most messages are left to `--json`.
fn tell(entry: &Entry) -> Option<String> {
    Some(match &entry.what {
        What::Started { restored: false } => "starts for the first time".to_owned(),
        What::Started { restored: true } => "starts from its folder".to_owned(),
        What::Stopped => "goes offline".to_owned(),
        What::Htlc { state, amount_msat, skimmed_fee_msat, reason, .. } => {
            let skim = match skimmed_fee_msat {
                0 => String::new(),
                skim => format!(", {} msat skimmed", msat(*skim)),
            };
            let reason = reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
            let state = format!("{state:?}").to_lowercase();
            format!("HTLC {state}: {} msat{skim}{reason}", msat(*amount_msat))
        }
        What::Lease { state, intercept_scid, detail } => {
            let scid = intercept_scid.as_deref().unwrap_or("?");
            format!("lease {state}: intercept SCID {scid} {detail}")
        }
        What::Offer { state, detail } => format!("static invoice {state} {detail}"),
        What::Mailbox { state, messages, peer, .. } => {
            format!("mailbox: {messages} message(s) for {peer} {state}")
        }
        What::Channel { state, peer, capacity_sat, reason, .. } => {
            let size = capacity_sat.map(|sat| format!(" of {} sat", msat(sat))).unwrap_or_default();
            let reason = reason.as_ref().map(|r| format!(": {r}")).unwrap_or_default();
            format!("channel{size} with {peer} {state}{reason}")
        }
        What::Broadcast { purpose, error, .. } => match error {
            None => format!("broadcasts a transaction ({purpose})"),
            Some(error) => format!("the chain refuses a transaction ({purpose}): {error}"),
        },
        What::Onion { message, .. } if is_onion(entry, "held_htlc_available") => {
            format!("learns that a payment waits ({message})")
        }
        What::Onion { message, .. } if is_onion(entry, "release_held_htlc") => {
            format!("releases the payment ({message})")
        }
        What::Onion { message, bytes, .. } => format!("gets {message} ({bytes} bytes)"),
        What::Lsps { json, .. } => match json.get("method").and_then(|m| m.as_str()) {
            Some(method) => format!("is asked {method}"),
            None => "gets the answer".to_owned(),
        },
        What::Connected { peer } => format!("connected to {peer}"),
        What::Disconnected { .. }
        | What::Wire { .. }
        | What::OnionSent { .. }
        | What::Event { .. }
        | What::Paths { .. }
        | What::Balances { .. }
        | What::Scene { .. }
        | What::Note { .. }
        | What::Block { .. } => return None,
    })
}

/// The books as a table.
pub fn table(summary: &Summary) -> String {
    let rows = [
        ("payer sent", summary.payer_sent_msat),
        ("  routing fees, to the payer's LSP", summary.routing_fee_msat),
        ("  opening fee, to the recipient's LSP", summary.opening_fee_msat),
        ("  recipient received", summary.recipient_received_msat),
    ];
    let mut table = String::from("\nWhere every msat went\n");
    for (what, amount) in rows {
        table += &format!("  {what:<40} {:>16} msat\n", msat(amount));
    }
    table += &format!("  {:<40} {:>16} msat\n", "difference", 0);
    table += &format!(
        "  channel opened for it: {} sat; {} ms in all\n",
        msat(summary.channel_capacity_sat),
        msat(summary.elapsed_ms)
    );
    table
}
