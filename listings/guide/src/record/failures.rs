//! The failures that show on whole nodes: one scenario, or one scene of one, for each.
//!
//! A recording begins where the failure begins. What leads there is prepared before the first scene.

mod chain;
mod channel;
mod crash;
mod hang;
mod hostile;
mod limits;
mod money;
mod offer;
mod payer;
mod restart;

use anyhow::{Context, Result, ensure};
use lightning::ln::channelmanager::{
    Bolt11InvoiceParameters, OptionalBolt11PaymentParams, PaymentId,
};
use lightning::ln::outbound_payment::Retry;
use lightning::offers::offer::Offer;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, HtlcState, What};
use recording::view::grouped;
use serde_json::{Value, json};

use super::{Playing, Scenario};
use crate::story;
use crate::world::{Story, World, is_wire};

/// All of them.
pub(super) fn scenarios() -> Vec<Scenario> {
    let parts = [
        offer::scenarios(),
        payer::scenarios(),
        hang::scenarios(),
        channel::scenarios(),
        restart::scenarios(),
        money::scenarios(),
        limits::scenarios(),
        crash::scenarios(),
        chain::scenarios(),
        hostile::scenarios(),
    ];
    parts.into_iter().flatten().collect()
}

/// What is paid, where no other amount is told.
const AMOUNT_MSAT: u64 = 100_000_000;

fn failure(
    name: &'static str,
    title: &'static str,
    about: &'static str,
    story: fn() -> Story,
    play: for<'a> fn(&'a mut World) -> Playing<'a>,
) -> Scenario {
    let setting: fn() -> Vec<(&'static str, Value)> = || vec![("amount_msat", json!(AMOUNT_MSAT))];
    Scenario { name, title, about, story, setting, play }
}

/// A payer that may go offline, and a client that trusts its LSP.
fn usual() -> Story {
    Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp)
}

/// Begins a scene in a world at rest: nothing of what was prepared shows in it.
async fn scene(world: &World, id: &str, title: &str) -> Result<()> {
    world.rest().await?;
    world.transcript.scene(id, title);
    Ok(())
}

/// Steps 1 to 3, and a recipient that has gone away since.
async fn prepared(world: &mut World) -> Result<(Lease, Offer)> {
    let prepared = world.prepare_recipient().await?;
    story::leave(world, "recipient").await?;
    Ok(prepared)
}

/// The same for a scene that begins with a payment which waits.
async fn scene_of(world: &World, sent: &Sent, id: &str, title: &str) -> Result<()> {
    scene(world, id, title).await?;
    world.say(format!("{} wait at the payer's LSP for a recipient that is away", msat(sent.msat)));
    Ok(())
}

/// A payment on its way.
struct Sent {
    offer: Offer,
    /// How much, in msat.
    msat: u64,
    /// Since when.
    from: u64,
    /// What the payer could send before, in msat.
    before_msat: u64,
}

/// A payment that waits at the payer's LSP for a recipient that is offline. The payer is online.
async fn held(world: &mut World) -> Result<Sent> {
    let (_, offer) = prepared(world).await?;
    hold(world, offer, AMOUNT_MSAT).await
}

async fn hold(world: &World, offer: Offer, amount_msat: u64) -> Result<Sent> {
    let (from, before_msat) = (world.transcript.position(), payers_money(world)?);
    world.pay_while_recipient_is_offline(&offer, amount_msat).await?;
    world.rest().await?;
    Ok(Sent { offer, msat: amount_msat, from, before_msat })
}

/// The LSP's process ends and begins again. A recipient that is online connects after the payer's LSP:
/// who is first would be left to chance.
async fn restart_lsp(world: &mut World) -> Result<()> {
    let (from, lsp) = (world.transcript.position(), world.lsp().id());
    world.stop_lsp().await;
    if let Some(recipient) = &world.recipient {
        recipient.disconnect(&lsp)?;
    }
    let address = world.start_lsp().await?.address();
    see_from(world, from, "lsp", "payer-lsp", "channel_reestablish").await?;
    if let Some(recipient) = &world.recipient {
        recipient.connect_lsp(lsp, address).await?;
    }
    Ok(())
}

/// Waits until the LSPs have their channel again, over which no HTLC has gone so far: they say once
/// more that it is ready.
async fn reestablished(world: &World, from: u64) -> Result<()> {
    for (node, peer) in [("lsp", "payer-lsp"), ("payer-lsp", "lsp")] {
        see_from(world, from, node, peer, "channel_reestablish").await?;
        see_from(world, from, node, peer, "channel_ready").await?;
    }
    Ok(())
}

/// Waits until a node has this message from this peer.
async fn see_from(world: &World, from: u64, node: &str, sender: &str, name: &str) -> Result<()> {
    let is_it = |e: &Entry| matches!(&e.what, What::Wire { peer, .. } if peer == sender);
    world.see(from, |e| e.node == node && is_wire(e, name) && is_it(e)).await?;
    Ok(())
}

/// Waits until LDK has parked what it holds at the payer's LSP, of which no event tells: a payment to
/// that LSP itself, which it fails, is handled after what came before it.
async fn parked(world: &World) -> Result<()> {
    let from = world.transcript.position();
    let to_itself = Bolt11InvoiceParameters { amount_msats: Some(1_000_000), ..Default::default() };
    let invoice = world.payer_lsp.channel_manager().create_bolt11_invoice(to_itself);
    let invoice = invoice.ok().context("the payer's LSP makes no invoice")?;
    pay_once(world, &invoice)?;
    world.see_htlc(from, "payer", HtlcState::Failed).await?;
    world.rest().await
}

/// Pays a BOLT 11 invoice and does not try again, which LDK does for as long as there is time.
fn pay_once(world: &World, invoice: &lightning::bolt11_invoice::Bolt11Invoice) -> Result<()> {
    let params = OptionalBolt11PaymentParams {
        retry_strategy: Retry::Attempts(0),
        ..OptionalBolt11PaymentParams::default()
    };
    let id = PaymentId(invoice.payment_hash().0);
    let paid = world.payer().channel_manager().pay_for_bolt11_invoice(invoice, id, None, params);
    paid.map_err(|error| anyhow::anyhow!("LDK does not pay this invoice: {error:?}"))
}

/// What the payer can send, in msat: it tells whether a payment came back.
fn payers_money(world: &World) -> Result<u64> {
    let channels = world.payer().balances().channels;
    ensure!(!channels.is_empty(), "the payer has no channel");
    Ok(channels.iter().map(|channel| channel.outbound_msat).sum())
}

/// Waits until the payer is told, and has all of its money again.
async fn comes_back(world: &World, from: u64, before_msat: u64) -> Result<()> {
    world.see_htlc(from, "payer", HtlcState::Failed).await?;
    world.rest().await?;
    let now_msat = payers_money(world)?;
    ensure!(now_msat == before_msat, "the payer has {now_msat} msat, and had {before_msat} before");
    Ok(())
}

impl Sent {
    async fn comes_back(&self, world: &World) -> Result<()> {
        comes_back(world, self.from, self.before_msat).await
    }
}

/// Whether LDK tells this node that an HTLC failed here, or further on, with this reason.
fn is_handling_failed(entry: &Entry, node: &str, reason: &str) -> bool {
    match &entry.what {
        What::Event { name, detail } => {
            let failed = name == "HTLCHandlingFailed" && detail.to_string().contains(reason);
            entry.node == node && failed
        }
        _ => false,
    }
}

/// Waits until LDK has raised this event on a node.
async fn see_event(world: &World, from: u64, node: &str, wanted: &str) -> Result<()> {
    let is_it = |e: &Entry| matches!(&e.what, What::Event { name, .. } if name == wanted);
    world.see(from, |e| e.node == node && is_it(e)).await?;
    Ok(())
}

/// An amount as a sentence has it.
fn msat(amount: u64) -> String {
    format!("{} msat", grouped(amount))
}
