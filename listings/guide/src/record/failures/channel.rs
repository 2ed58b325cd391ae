//! The channel opens, or should, and the payment fails.

use anyhow::{Context, Result, ensure};
use lightning::ln::channelmanager::{OptionalOfferPaymentParams, PaymentId};
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lsps2_async::bolt11::InvoiceTerms;
use node::lsp::Conduct;
use node::transcript::{Entry, HtlcState};

use super::{
    AMOUNT_MSAT, Scenario, comes_back, failure, held, hold, is_handling_failed, payers_money,
    scene, scene_of, usual,
};
use crate::record::bolt11::{self, Onion, buy, send};
use crate::story::{self, Setting};
use crate::world::{Story, World, channel_is};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-underpaying-off",
            "The wallet takes no less than the onion says",
            "The fee is paid, no lease is outstanding, and the LSP skims all the same. LDK itself \
             refuses the HTLC.",
            skims_again,
            |world| Box::pin(underpaying_off(world)),
        ),
        failure(
            "fail-over-skim",
            "The LSP skims 1 msat too much",
            "The LSP forwards 1 msat less than the lease allows. The guard fails the payment.",
            || skims(Conduct::SkimsMore(1)),
            |world| Box::pin(over_skim(world)),
        ),
        failure(
            "fail-htlc-maximum",
            "More than may be in flight",
            "The wallet lets 25 % of an unannounced channel be in flight. The payment does not fit \
             the channel that was opened for it.",
            quarter_in_flight,
            |world| Box::pin(htlc_maximum(world)),
        ),
        failure(
            "fail-channel-refused",
            "The wallet takes no channels",
            "accept_inbound_channels is off: LDK refuses the JIT channel, without an event, and the \
             LSP fails the payment.",
            no_channels,
            |world| Box::pin(channel_refused(world)),
        ),
        failure(
            "fail-unbought-channel",
            "A channel that was not bought",
            "The wallet refuses a channel without a lease, one that is announced, and one that is far \
             too large.",
            usual,
            |world| Box::pin(unbought_channel(world)),
        ),
        failure(
            "fail-recipient-vanishes",
            "The recipient goes away as its channel becomes ready",
            "The channel is ready and the recipient is gone before the HTLC is forwarded. The LSP \
             forwards it when the recipient is back.",
            usual,
            |world| Box::pin(recipient_vanishes(world)),
        ),
        failure(
            "fail-private-forward",
            "No forwards to private channels",
            "The first payment opened the channel. An ordinary one over it fails at an LSP that does \
             not forward to unannounced channels.",
            usual,
            |world| Box::pin(private_forward(world)),
        ),
        failure(
            "fail-delta-demanded",
            "The wallet demands the invoice's delta",
            "A BOLT 11 invoice asks for 44 blocks, and the wallet handed the 44 to LDK too. Two blocks \
             that come while the channel opens fail the payment.",
            bolt11::story,
            |world| Box::pin(delta_demanded(world)),
        ),
    ]
}

pub(super) fn skims(conduct: Conduct) -> Story {
    let mut story = usual();
    story.lsp.conduct = conduct;
    story
}

pub(super) fn skims_again() -> Story {
    skims(Conduct::SkimsAgain)
}

async fn underpaying_off(world: &mut World) -> Result<()> {
    let (_, offer) = world.prepare_recipient().await?;
    world.pay_offline_recipient(&offer, AMOUNT_MSAT).await?;
    world.rest().await?;
    story::leave(world, "recipient").await?;
    let sent = hold(world, offer, 40_000_000).await?;
    scene_of(world, &sent, "underpaid", "Less than the onion says").await?;
    world.start_recipient().await?;
    let refused = |e: &Entry| is_handling_failed(e, "recipient", "FinalIncorrectHTLCAmount");
    world.see(sent.from, refused).await?;
    world.see(sent.from, |e| is_handling_failed(e, "lsp", "")).await?;
    sent.comes_back(world).await
}

async fn over_skim(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "over-skim", "1 msat too much").await?;
    world.start_recipient().await?;
    world.see_htlc(sent.from, "recipient", HtlcState::Refused).await?;
    world.see(sent.from, |e| is_handling_failed(e, "lsp", "")).await?;
    sent.comes_back(world).await
}

fn quarter_in_flight() -> Story {
    let mut story = usual();
    story.recipient_flags = |flags| {
        let handshake = &mut flags.channel_handshake_config;
        handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage = 25;
    };
    story
}

async fn htlc_maximum(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "htlc-maximum", "More than may be in flight").await?;
    world.start_recipient().await?;
    world.see_htlc(sent.from, "lsp", HtlcState::Failed).await?;
    sent.comes_back(world).await
}

fn no_channels() -> Story {
    let mut story = usual();
    story.recipient_flags = |flags| flags.accept_inbound_channels = false;
    story
}

async fn channel_refused(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "refused", "The wallet takes no channels").await?;
    world.say("The recipient has accept_inbound_channels at false");
    world.start_recipient().await?;
    world.see(sent.from, |e| e.node == "lsp" && channel_is(e, "closed", "recipient")).await?;
    sent.comes_back(world).await
}

async fn unbought_channel(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    scene(world, "no-lease", "No lease is outstanding").await?;
    offers_channel(world, 1_000_000, false).await?;
    scene(world, "announced", "With a lease: an announced channel").await?;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    offers_channel(world, 1_000_000, true).await?;
    scene(world, "too-large", "A channel that is far too large").await?;
    offers_channel(world, 20_000_001, false).await
}

/// Waits until the LSP knows that the wallet does not take this channel.
async fn offers_channel(world: &World, capacity_sat: u64, announced: bool) -> Result<()> {
    let from = world.transcript.position();
    world.lsp().open_channel(world.recipient().id(), capacity_sat, announced)?;
    world.see(from, |e| e.node == "recipient" && channel_is(e, "refused", "lsp")).await?;
    world.see(from, |e| e.node == "lsp" && channel_is(e, "closed", "recipient")).await?;
    Ok(())
}

async fn recipient_vanishes(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    world.lsp().hold_forwards(true);
    scene_of(world, &sent, "ready", "Ready, and away").await?;
    world.start_recipient().await?;
    world.see(sent.from, |e| e.node == "lsp" && channel_is(e, "ready", "recipient")).await?;
    world.see(sent.from, |e| e.node == "recipient" && channel_is(e, "ready", "lsp")).await?;
    story::leave(world, "recipient").await?;
    world.lsp().hold_forwards(false);
    scene(world, "back", "The recipient is back").await?;
    story::settle(world, &Setting::default(), sent.from).await?;
    Ok(())
}

async fn private_forward(world: &mut World) -> Result<()> {
    let (_, offer) = world.prepare_recipient().await?;
    world.pay_offline_recipient(&offer, AMOUNT_MSAT).await?;
    world.mine(6).await?;
    crate::world::set_flags(world.lsp(), |flags| flags.accept_forwards_to_priv_channels = false);
    let ordinary = world.recipient().channel_manager().create_offer_builder();
    let ordinary = ordinary.ok().context("the recipient makes no offer")?;
    let ordinary = ordinary.amount_msats(40_000_000).build().ok().context("it is no offer")?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "private", "An ordinary payment over the channel").await?;
    world.say("The recipient's LSP has accept_forwards_to_priv_channels at false");
    let once = OptionalOfferPaymentParams {
        retry_strategy: Retry::Attempts(0),
        ..OptionalOfferPaymentParams::default()
    };
    let paid =
        world.payer().channel_manager().pay_for_offer(&ordinary, None, PaymentId([1; 32]), once);
    paid.map_err(|error| anyhow::anyhow!("LDK does not pay this offer: {error:?}"))?;
    world.see(from, |e| is_handling_failed(e, "lsp", "PrivateChannelForward")).await?;
    comes_back(world, from, before).await
}

async fn delta_demanded(world: &mut World) -> Result<()> {
    let lease = buy(world, AMOUNT_MSAT).await?;
    let terms = InvoiceTerms::for_lease(&lease, world.recipient().now())?;
    let demanded = terms.min_final_cltv_expiry_delta;
    let inbound = world.recipient().channel_manager().create_inbound_payment(
        Some(AMOUNT_MSAT),
        3_600,
        Some(demanded),
        Some(terms.payment_metadata.clone()),
    );
    let (hash, secret, metadata) = inbound.ok().context("LDK takes no such payment")?;
    let mut fields = RecipientOnionFields::secret_only(secret, AMOUNT_MSAT);
    fields.payment_metadata = metadata;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    world.lsp().hold_forwards(true);
    scene(world, "delta", "Two blocks while the channel opens").await?;
    world.say(format!("The wallet hands create_inbound_payment the invoice's {demanded} blocks"));
    send(world, &lease, &[AMOUNT_MSAT], Onion { hash, fields, final_cltv_delta: demanded.into() })?;
    world.see(from, |e| e.node == "lsp" && channel_is(e, "ready", "recipient")).await?;
    world.see(from, |e| e.node == "recipient" && channel_is(e, "ready", "lsp")).await?;
    world.mine(2).await?;
    world.say("Two blocks come");
    world.lsp().hold_forwards(false);
    world.see(from, |e| is_handling_failed(e, "lsp", "")).await?;
    comes_back(world, from, before).await?;
    let claimed = world.recipient().balances().channels.iter().any(|c| c.outbound_msat > 0);
    ensure!(!claimed, "the wallet took it");
    Ok(())
}
