//! An HTLC hangs, or would without what this guide's LSP does.

use anyhow::{Context, Result, ensure};
use node::transcript::{HtlcState, What};
use std::time::Duration;

use super::limits::in_two_parts;
use super::payer::probe;
use super::{
    Scenario, comes_back, failure, held, is_handling_failed, msat, parked, payers_money, prepared,
    reestablished, restart_lsp, scene, scene_of, see_event, usual,
};
use crate::record::bolt11::{self, Onion, buy, send};
use crate::story::{self, Setting};
use crate::world::{Story, World, channel_is};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-dust",
            "Less than the path allows",
            "A payer that ignores the invoice sends 1 msat less than its path takes. The LSP refuses \
             it by the path itself, before anything is intercepted.",
            usual,
            |world| Box::pin(dust(world)),
        ),
        failure(
            "fail-lsp-restarts",
            "The LSP restarts between HTLCIntercepted and the open",
            "The LSP stops before it has opened the channel. LDK need not raise OpenChannel again; the \
             LSP opens from its own table.",
            usual,
            |world| Box::pin(lsp_restarts(world)),
        ),
        failure(
            "fail-no-coins",
            "The LSP has no coins",
            "The LSP cannot fund the channel. It tells LSPS2, fails the HTLC, and the lease can be \
             used again.",
            penniless,
            |world| Box::pin(no_coins(world)),
        ),
        failure(
            "fail-part-missing",
            "A part of a payment is missing",
            "A third of a fixed-size payment arrives over a BOLT 11 invoice, and no more. The LSP \
             fails it after 90 seconds.",
            bolt11::story,
            |world| Box::pin(part_missing(world)),
        ),
        failure(
            "fail-paid-in-parts",
            "A fixed-size payment in two parts",
            "Two HTLCs of a BOLT 11 payment make up the agreed size. Each pays its share of the fee, and \
             the LSP adds the shares up before it broadcasts the funding. A later payment passes in \
             full.",
            bolt11::story,
            |world| Box::pin(in_two_parts(world)),
        ),
        failure(
            "fail-lsp-restarts-with-mail",
            "The LSP restarts with mail",
            "The LSP keeps held_htlc_available for the recipient and restarts. The mailbox is on \
             disk: the recipient gets it.",
            usual,
            |world| Box::pin(lsp_restarts_with_mail(world)),
        ),
        failure(
            "fail-one-lsp",
            "Payer and recipient have one LSP",
            "The LSP holds the payment for the payer, without an event. It intercepts it when the \
             recipient releases it, and opens the channel.",
            one_lsp,
            |world| Box::pin(released_at_one_lsp(world)),
        ),
    ]
}

fn one_lsp() -> Story {
    Story { one_lsp: true, ..usual() }
}

async fn released_at_one_lsp(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene(world, "released", "The recipient comes online").await?;
    world.say(format!("{} wait at the LSP for a recipient that is away", msat(sent.msat)));
    let books = world.wake_recipient_and_settle(sent.from).await?;
    ensure!(books.routing_fee_msat == 0, "one node forwards, and charges {books:?}");
    world.see(sent.from, |e| e.node == "lsp" && matches!(e.what, What::Broadcast { .. })).await?;
    world.rest().await
}

async fn dust(world: &mut World) -> Result<()> {
    let (lease, _) = prepared(world).await?;
    let least = lease.smallest_htlc_msat().context("the lease can be paid")?;
    let invoice = world.lsp().static_invoice(b"alice", 0).await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "dust", "Less than the path allows").await?;
    world.say(format!("The path takes HTLCs from {} on", msat(least)));
    probe(world, invoice.payment_paths(), least - 1)?;
    world.see(from, |e| is_handling_failed(e, "lsp", "")).await?;
    comes_back(world, from, before).await
}

async fn lsp_restarts(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    world.lsp().hold_opens();
    scene_of(world, &sent, "intercepted", "Intercepted, and not opened").await?;
    world.start_recipient().await?;
    world.see_htlc(sent.from, "lsp", HtlcState::Intercepted).await?;
    see_event(world, sent.from, "lsp", "OpenChannel").await?;
    scene(world, "restarted", "After the restart").await?;
    world.say("The LSP's process ends, and begins again");
    restart_lsp(world).await?;
    story::settle(world, &Setting::default(), sent.from).await?;
    Ok(())
}

fn penniless() -> Story {
    let mut story = usual();
    story.lsp_coins = 0;
    story
}

async fn no_coins(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "no-coins", "The LSP has no coins").await?;
    world.start_recipient().await?;
    world.see(sent.from, |e| e.node == "lsp" && channel_is(e, "open_failed", "recipient")).await?;
    world.see(sent.from, |e| e.node == "recipient" && channel_is(e, "closed", "lsp")).await?;
    sent.comes_back(world).await
}

async fn part_missing(world: &mut World) -> Result<()> {
    const WHOLE_MSAT: u64 = 300_000_000;
    const PART_MSAT: u64 = 100_000_000;
    let lease = buy(world, WHOLE_MSAT).await?;
    let invoice = world.recipient().jit_invoice(&lease, bolt11::VALID)?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "part", "A part is missing").await?;
    world.say(format!("The invoice asks for {}; the payer sends a third", msat(WHOLE_MSAT)));
    send(world, &lease, &[PART_MSAT], Onion::of_invoice(&invoice)?)?;
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await?;
    world.rest().await?;
    world.lsp().clock().advance(Duration::from_secs(90));
    world.say("90 seconds pass by the LSP's clock");
    world.see_htlc(from, "lsp", HtlcState::Failed).await?;
    comes_back(world, from, before).await?;
    ensure!(world.recipient().balances().channels.is_empty(), "a channel was opened for a part");
    Ok(())
}

async fn lsp_restarts_with_mail(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    // Until it has parked the HTLC, the payer's LSP looks whether the next node is there.
    parked(world).await?;
    scene_of(world, &sent, "restart", "The LSP restarts").await?;
    let from = world.transcript.position();
    restart_lsp(world).await?;
    reestablished(world, from).await?;
    scene(world, "delivered", "The recipient gets its mail").await?;
    world.start_recipient().await?;
    story::settle(world, &Setting::default(), sent.from).await?;
    Ok(())
}
