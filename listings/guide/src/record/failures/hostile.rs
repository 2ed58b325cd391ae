//! Strangers, floods and clocks.

use anyhow::{Context, Result, ensure};
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, PaymentId};
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::routing::gossip::RoutingFees;
use lightning::routing::router::{PaymentParameters, RouteHint, RouteHintHop, RouteParameters};
use lightning::types::payment::PaymentPreimage;
use lightning::util::config::HTLCInterceptionFlags;
use lsps2_async::lease::{Lease, LeaseState};
use node::lsp::Conduct;
use node::transcript::HtlcState;
use std::time::Duration;

use super::channel::skims;
use super::{
    AMOUNT_MSAT, Scenario, comes_back, failure, held, hold, is_handling_failed, pay_once,
    payers_money, scene, scene_of, usual,
};
use crate::story::{self, Setting};
use crate::world::{Story, World, channel_is, set_flags};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-probe",
            "An HTLC that nobody can claim",
            "Somebody who has seen the static invoice sends an HTLC down its path while the wallet is \
             online. The LSP opens the channel, and the wallet refuses. The next payment pays the fee \
             over that channel.",
            usual,
            |world| Box::pin(probed(world)),
        ),
        failure(
            "fail-stripped",
            "A payment that names no lease",
            "A payer that knows the wallet's node id and its intercept SCID pays without the invoice's \
             path, so that no metadata comes with the HTLC. The guard lets no fee be taken from it.",
            usual,
            |world| Box::pin(stripped(world)),
        ),
        failure(
            "fail-skim-without-lease",
            "A fee on a payment over the channel itself",
            "The fee of the channel is paid. The LSP skims from a payment over the channel while the \
             wallet expects the fee of another lease.",
            || skims(Conduct::SkimsWithoutLease(1_000)),
            |world| Box::pin(skim_without_lease(world)),
        ),
        failure(
            "fail-stale-invoice",
            "A lease that has run out by the wallet's clock alone",
            "The server hands out an invoice whose lease the wallet holds to be over, and the LSP does \
             not. The wallet takes no channel, and the payer has its money back.",
            short_lease,
            |world| Box::pin(stale_invoice(world)),
        ),
        failure(
            "fail-clock",
            "A clock that is a day ahead",
            "The wallet's clock is a day ahead of its LSP's: every entry of the menu looks expired.",
            short_lease,
            |world| Box::pin(clock_ahead(world)),
        ),
    ]
}

/// An HTLC that is paid to the wallet over its intercept SCID, without the path of an invoice.
fn keysend(world: &World, lease: &Lease) -> Result<()> {
    let recipient = world.recipient().id();
    let hint = RouteHint(vec![RouteHintHop {
        src_node_id: lease.id.lsp_node_id,
        short_channel_id: lease.id.intercept_scid,
        fees: RoutingFees { base_msat: 0, proportional_millionths: 0 },
        cltv_expiry_delta: lease.cltv_expiry_delta,
        htlc_minimum_msat: None,
        htlc_maximum_msat: None,
    }]);
    let payee = PaymentParameters::for_keysend(recipient, 44, false).with_route_hints(vec![hint]);
    let payee = payee.map_err(|()| anyhow::anyhow!("a payee that is not blinded takes hints"))?;
    let route = RouteParameters::from_payment_params_and_value(payee, AMOUNT_MSAT);
    send(world, route)
}

/// Sends an HTLC with a preimage of the payer's.
fn send(world: &World, route: RouteParameters) -> Result<()> {
    let preimage = [9; 32];
    let fields = RecipientOnionFields::spontaneous_empty(route.final_value_msat);
    let (preimage, id) = (Some(PaymentPreimage(preimage)), PaymentId(preimage));
    let payer = world.payer().channel_manager();
    payer
        .send_spontaneous_payment(preimage, fields, id, route, Retry::Attempts(0))
        .map_err(|error| anyhow::anyhow!("LDK does not send this: {error:?}"))?;
    Ok(())
}

/// The wallet's only lease is as it was, and a payment under it is made.
async fn lease_still_works(
    world: &mut World,
    offer: lightning::offers::offer::Offer,
) -> Result<()> {
    let lease = world.recipient().leases().pop().context("the wallet has a lease")?;
    ensure!(lease.state == LeaseState::Active, "{:?}", lease.state);
    story::leave(world, "recipient").await?;
    scene(world, "paid", "The next payment").await?;
    let sent = hold(world, offer, AMOUNT_MSAT).await?;
    let books = story::settle(world, &Setting::default(), sent.from).await?;
    ensure!(books.opening_fee_msat == 2_000_000, "a fee of {} msat", books.opening_fee_msat);
    Ok(())
}

async fn probed(world: &mut World) -> Result<()> {
    let (_, offer) = world.prepare_recipient().await?;
    let invoice = world.lsp().static_invoice(b"alice", 0).await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "probe", "An HTLC that nobody can claim").await?;
    world.say("Somebody sends an HTLC down the path of the static invoice, without its request");
    let payee = PaymentParameters::blinded(invoice.payment_paths().to_vec());
    send(world, RouteParameters::from_payment_params_and_value(payee, AMOUNT_MSAT))?;
    world.see(from, |e| is_handling_failed(e, "lsp", "")).await?;
    comes_back(world, from, before).await?;
    ensure!(world.chain.mempool().await?.is_empty(), "the LSP has funded the channel");
    lease_still_works(world, offer).await
}

async fn stripped(world: &mut World) -> Result<()> {
    let (lease, offer) = world.prepare_recipient().await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "stripped", "A payment that names no lease").await?;
    world.say("A payer pays to the wallet's node id, over the intercept SCID");
    keysend(world, &lease)?;
    world.see_htlc(from, "recipient", HtlcState::Refused).await?;
    world.see(from, |e| is_handling_failed(e, "lsp", "")).await?;
    comes_back(world, from, before).await?;
    lease_still_works(world, offer).await
}

async fn skim_without_lease(world: &mut World) -> Result<()> {
    set_flags(world.lsp(), |flags| {
        flags.htlc_interception_flags |= HTLCInterceptionFlags::ToOnlinePrivateChannels as u8;
    });
    let (_, offer) = world.prepare_recipient().await?;
    world.pay_offline_recipient(&offer, AMOUNT_MSAT).await?;
    // With another lease from the same LSP, LDK takes less than the onion says from it again.
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    let params = Bolt11InvoiceParameters { amount_msats: Some(40_000_000), ..Default::default() };
    let invoice = world.recipient().channel_manager().create_bolt11_invoice(params);
    let invoice = invoice.ok().context("LDK makes no invoice")?;
    world.rest().await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "skim", "A fee on a payment over the channel itself").await?;
    world.say("The payer has an invoice that leads over the channel, and the LSP takes 1 000 msat");
    pay_once(world, &invoice)?;
    world.see_htlc(from, "recipient", HtlcState::Refused).await?;
    comes_back(world, from, before).await
}

const VALIDITY: Duration = Duration::from_secs(12 * 60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn short_lease() -> Story {
    let mut story = usual();
    story.lsp.fees.validity = VALIDITY;
    story
}

async fn stale_invoice(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "stale", "A lease that has run out by one clock").await?;
    // Nothing reaches the wallet's guard before its clock is set.
    world.lsp().hold_events(true);
    world.start_recipient().await?;
    world.recipient().clock().advance(DAY);
    world.say("By the wallet's clock the lease's valid_until has passed; by the LSP's it has not");
    world.lsp().hold_events(false);
    world.see(sent.from, |e| e.node == "recipient" && channel_is(e, "refused", "lsp")).await?;
    world.see_htlc(sent.from, "lsp", HtlcState::Failed).await?;
    sent.comes_back(world).await?;
    ensure!(world.recipient().balances().channels.is_empty(), "a channel was opened");
    Ok(())
}

async fn clock_ahead(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    world.recipient().clock().advance(DAY);
    let policy = world.buying_policy();
    scene(world, "ahead", "A day ahead").await?;
    match world.recipient().buy_lease(world.lsp().id(), policy).await {
        Ok(lease) => anyhow::bail!("bought {:?}", lease.id),
        Err(error) => world.say(format!("The wallet: {error:#}")),
    }
    Ok(())
}
