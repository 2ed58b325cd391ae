//! Money: fees twice, channels nobody paid for, amounts other than expected.

use anyhow::{Context, Result, ensure};
use lightning::ln::channelmanager::Bolt11InvoiceParameters;
use node::lsp::Conduct;
use node::transcript::{Entry, HtlcState, What};
use std::time::Duration;

use super::channel::{skims, skims_again};
use super::{
    AMOUNT_MSAT, Scenario, comes_back, failure, held, hold, is_handling_failed, msat, pay_once,
    payers_money, prepared, restart_lsp, scene, scene_of, usual,
};
use crate::record::bolt11::{self, Onion, buy, send};
use crate::story::{self, Setting};
use crate::world::{World, channel_is, is_onion};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-second-skim",
            "A second fee",
            "The LSP takes the opening fee again from a later payment, while the wallet expects the \
             fee of another lease. The guard remembers which lease was paid for.",
            skims_again,
            |world| Box::pin(second_skim(world)),
        ),
        failure(
            "fail-rounded-up",
            "The payer sent more than it was told to",
            "1 msat less than the path takes: LDK's router pays the path's minimum.",
            usual,
            |world| Box::pin(rounded_up(world)),
        ),
        failure(
            "fail-two-payers",
            "Two payers, one fee",
            "Two payments wait for the same recipient. One pays for the channel, the other is whole.",
            usual,
            |world| Box::pin(two_payers(world)),
        ),
        failure(
            "fail-unpaid-channel",
            "A channel that nobody pays for",
            "The payment that opened the channel failed, and no other comes. When the lease has run \
             out, the LSP closes the channel, whose funding it has withheld.",
            || skims(Conduct::SkimsMore(1)),
            |world| Box::pin(unpaid_channel(world)),
        ),
        failure(
            "fail-unfunded-channel",
            "A payment over a channel that is not funded",
            "LDK's own BOLT 11 invoice leads over the JIT channel before anybody has paid for it. The \
             guard claims nothing there.",
            bolt11::story,
            |world| Box::pin(unfunded_channel(world)),
        ),
    ]
}

async fn second_skim(world: &mut World) -> Result<()> {
    let (_, offer) = world.prepare_recipient().await?;
    world.pay_offline_recipient(&offer, AMOUNT_MSAT).await?;
    // With another lease from the same LSP, LDK takes less than the onion says from it again.
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    world.rest().await?;
    story::leave(world, "recipient").await?;
    let sent = hold(world, offer, 40_000_000).await?;
    scene_of(world, &sent, "second-skim", "A second fee").await?;
    world.start_recipient().await?;
    world.see_htlc(sent.from, "recipient", HtlcState::Refused).await?;
    world.see(sent.from, |e| is_handling_failed(e, "lsp", "")).await?;
    sent.comes_back(world).await
}

async fn rounded_up(world: &mut World) -> Result<()> {
    let (lease, offer) = prepared(world).await?;
    let least = lease.smallest_htlc_msat().context("the lease can be paid")?;
    scene(world, "rounded-up", "Rounded up by the router").await?;
    world.say(format!("The path takes HTLCs from {} on", msat(least)));
    let sent = hold(world, offer, least - 1).await?;
    let books = story::settle(world, &Setting::default(), sent.from).await?;
    let arrived = books.opening_fee_msat + books.recipient_received_msat;
    ensure!(arrived == least, "{arrived} msat arrived");
    Ok(())
}

async fn two_payers(world: &mut World) -> Result<()> {
    let (_, offer) = prepared(world).await?;
    let other = world.add_payer("payer-2").await?;
    let sent = hold(world, offer, 40_000_000).await?;
    let then = world.transcript.position();
    other.pay(&sent.offer, 40_000_000)?;
    let kept = |e: &Entry| matches!(&e.what, What::Mailbox { state, .. } if state == "kept");
    world.see(then, kept).await?;
    world.see(then, |_| world.copies_are_answered(then)).await?;
    let locked = || world.payer_lsp.locked_htlcs_from(&other.id()) > 0 && other.htlcs_rest();
    world.see(then, |_| locked()).await?;
    scene(world, "released", "Both are released").await?;
    world.say("A payment of each payer waits, and a message about each is in the mailbox");
    world.start_recipient().await?;
    for payer in ["payer", "payer-2"] {
        world.see_htlc(sent.from, payer, HtlcState::Paid).await?;
    }
    world.see(sent.from, |_| other.htlcs_rest()).await?;
    world.rest().await?;
    world.keep(other);
    Ok(())
}

async fn unpaid_channel(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    world.start_recipient().await?;
    sent.comes_back(world).await?;
    // Honest again from here on: what is left of the payment is put in order after a restart.
    let from = world.transcript.position();
    world.lsp_policy().conduct = Conduct::Honest;
    restart_lsp(world).await?;
    let usable = |world: &World| world.recipient().balances().channels.iter().any(|c| c.is_usable);
    world.see(from, |_| usable(world)).await?;
    // The mail is delivered more than once, and answered each time.
    world.see(from, |e| e.node == "payer-lsp" && is_onion(e, "release_held_htlc")).await?;
    scene(world, "closed", "Nobody pays for the channel").await?;
    let from = world.transcript.position();
    world
        .say("A JIT channel is open, its funding withheld; the payment that opened it was refused");
    world.lsp().clock().advance(Duration::from_secs(29 * 24 * 60 * 60));
    world.say("By the LSP's clock the lease has run out");
    for (node, peer) in [("lsp", "recipient"), ("recipient", "lsp")] {
        world.see(from, |e| e.node == node && channel_is(e, "closed", peer)).await?;
    }
    // The recipient's LDK hands its last state to the chain, which knows no such funding.
    let refused = |e: &Entry| matches!(&e.what, What::Broadcast { error: Some(_), .. });
    world.see(from, |e| e.node == "recipient" && refused(e)).await?;
    ensure!(world.chain.mempool().await?.is_empty(), "something was broadcast for it");
    Ok(())
}

async fn unfunded_channel(world: &mut World) -> Result<()> {
    // A payer strips the metadata: the channel is there, and nobody has paid for it.
    let lease = buy(world, AMOUNT_MSAT).await?;
    let invoice = world.recipient().jit_invoice(&lease, bolt11::VALID)?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    let mut onion = Onion::of_invoice(&invoice)?;
    onion.fields.payment_metadata = None;
    send(world, &lease, &[AMOUNT_MSAT], onion)?;
    comes_back(world, from, before).await?;

    let params = Bolt11InvoiceParameters { amount_msats: Some(40_000_000), ..Default::default() };
    let around = world.recipient().channel_manager().create_bolt11_invoice(params);
    let around = around.ok().context("LDK makes no invoice")?;
    let from = world.transcript.position();
    scene(world, "around", "Around the lease").await?;
    world.say("The payer has an invoice that leads over the channel itself, not over the lease");
    pay_once(world, &around)?;
    world.see_htlc(from, "recipient", HtlcState::Refused).await?;
    world.see(from, |e| is_handling_failed(e, "lsp", "")).await?;
    comes_back(world, from, before).await
}
