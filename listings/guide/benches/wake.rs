//! How much longer a woken wallet waits for its money when a channel has to be opened for it.
//!
//! Alternates, in one run, an async payment over a JIT channel with an identical one over a channel
//! that is open already, and prints the medians from reconnect to claim, their ratio, and where the
//! time goes. It prints and never fails: `cargo bench -p guide --bench wake [-- PAIRS]`.

use guide::world::{PATIENCE, Story, World};
use lightning::offers::offer::Offer;
use lsps2_async::lease::TrustModel;
use lsps2_async::payer::PayerMode;
use node::recipient::{Recipient, RecipientPolicy};
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;
use std::time::Duration;

const AMOUNT_MSAT: u64 = 20_000_000;

/// LDK lets the first HTLC of a new process wait for up to 2 s. Both kinds of payment would wait for
/// the same moment, and hide what differs.
const WARM: Duration = Duration::from_millis(2_500);

/// A stage of a payment, and the entry that ends it.
type Stage = (&'static str, fn(&Entry, &str) -> bool);

const STAGES: [Stage; 6] = [
    ("learns that a payment waits", |e, me| e.node == me && onion(e, "held_htlc_available")),
    ("payer's LSP lets it go", |e, _| e.node == "payer-lsp" && onion(e, "release_held_htlc")),
    ("recipient's LSP has it", |e, _| e.node == "lsp" && wire(e, "update_add_htlc")),
    ("recipient has it", |e, me| e.node == me && wire(e, "update_add_htlc")),
    ("claimable", |e, me| e.node == me && htlc(e, HtlcState::Claimable)),
    ("claimed", |e, me| e.node == me && htlc(e, HtlcState::Claimed)),
];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let pairs = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(30);
    let story = Story::new(PayerMode::OftenOffline, TrustModel::LspTrustsClient);
    let world = World::new(Chain::embedded(), story).await?;
    let (settled, settled_offer) = settled_recipient(&world).await?;
    tokio::time::sleep(WARM).await;
    let (mut open, mut jit, mut ready) = (Vec::new(), Vec::new(), Vec::new());
    for pair in 0..pairs {
        let name = format!("fresh-{pair}");
        let (fresh, offer, ready_ms) = fresh_recipient(&world, &name).await?;
        ready.push(vec![ready_ms]);
        jit.push(reconnect_and_claim(&world, &fresh, &name, &offer).await?);
        open.push(reconnect_and_claim(&world, &settled, "settled", &settled_offer).await?);
        fresh.stop().await;
    }
    report(&open, &jit);
    println!("median ms from the server's paths to the offer: {}", median(&ready, 0));
    settled.stop().await;
    world.stop().await;
    Ok(())
}

async fn start(world: &World, name: &str) -> anyhow::Result<Recipient> {
    let recipient = Recipient::start(world.node_config(name), RecipientPolicy::default()).await?;
    recipient.connect_lsp(world.lsp().id(), world.lsp().address()).await?;
    recipient.buy_lease(world.lsp().id(), world.buying_policy()).await?;
    Ok(recipient)
}

/// The offer, and how long it took to be ready, in milliseconds.
async fn offer(world: &World, recipient: &Recipient, name: &str) -> anyhow::Result<(Offer, u64)> {
    let paths = world.lsp().paths_for(name.as_bytes()).await?;
    let asked = world.transcript.elapsed_ms();
    recipient.use_paths(paths)?;
    let offer = recipient.wait_for_offer(PATIENCE).await?;
    Ok((offer, world.transcript.elapsed_ms() - asked))
}

async fn fresh_recipient(world: &World, name: &str) -> anyhow::Result<(Recipient, Offer, u64)> {
    let recipient = start(world, name).await?;
    let (offer, ready_ms) = offer(world, &recipient, name).await?;
    tokio::time::sleep(WARM).await;
    Ok((recipient, offer, ready_ms))
}

/// A recipient with a channel, whose invoice has ordinary paths.
async fn settled_recipient(world: &World) -> anyhow::Result<(Recipient, Offer)> {
    let from = world.transcript.position();
    let recipient = start(world, "settled").await?;
    world.lsp().open_channel(recipient.id(), 10_000_000, false)?;
    world
        .see(from, |e| {
            let ready = matches!(&e.what, What::Channel { state, .. } if state == "ready");
            e.node == "settled" && ready
        })
        .await?;
    world.mine(6).await?;
    let (offer, _) = offer(world, &recipient, "settled").await?;
    Ok((recipient, offer))
}

/// Milliseconds from the reconnect to the end of each stage.
async fn reconnect_and_claim(
    world: &World,
    recipient: &Recipient,
    name: &str,
    offer: &Offer,
) -> anyhow::Result<Vec<u64>> {
    let (lsp, address) = (world.lsp().id(), world.lsp().address());
    recipient.disconnect(&lsp)?;
    world.pay_while_recipient_is_offline(offer, AMOUNT_MSAT).await?;
    let from = world.transcript.position();
    recipient.connect_lsp(lsp, address).await?;
    let connected = |e: &Entry| e.node == name && matches!(e.what, What::Connected { .. });
    let began = world.see(from, connected).await?;
    let mut times = Vec::new();
    let mut seq = began.seq;
    for (_, ends) in STAGES {
        let end = world.see(seq, |e| ends(e, name)).await?;
        seq = end.seq;
        times.push(end.at_ms - began.at_ms);
    }
    world.see(seq, |e| e.node == "payer" && htlc(e, HtlcState::Paid)).await?;
    Ok(times)
}

fn report(open: &[Vec<u64>], jit: &[Vec<u64>]) {
    println!("median ms from reconnect, {} pairs", open.len());
    println!("{:<30} {:>8} {:>8}", "", "open", "JIT");
    for (stage, (name, _)) in STAGES.iter().enumerate() {
        println!("{name:<30} {:>8} {:>8}", median(open, stage), median(jit, stage));
    }
    let last = STAGES.len() - 1;
    println!("ratio {:.2}", median(jit, last) as f64 / median(open, last) as f64);
}

fn median(runs: &[Vec<u64>], stage: usize) -> u64 {
    let mut times: Vec<_> = runs.iter().map(|run| run[stage]).collect();
    times.sort_unstable();
    times[times.len() / 2]
}

fn onion(entry: &Entry, name: &str) -> bool {
    guide::world::is_onion(entry, name)
}

fn wire(entry: &Entry, name: &str) -> bool {
    guide::world::is_wire(entry, name)
}

fn htlc(entry: &Entry, wanted: HtlcState) -> bool {
    matches!(entry.what, What::Htlc { state, .. } if state == wanted)
}
