//! The payer is told: what fails a payment before it reaches the recipient.

use anyhow::{Context, Result, ensure};
use lightning::blinded_path::payment::BlindedPaymentPath;
use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::outbound_payment::{RecipientOnionFields, Retry};
use lightning::routing::router::{PaymentParameters, RouteParameters};
use lightning::types::payment::PaymentHash;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::decision::LEAST_BLOCKS_TO_OPEN;
use lsps2_async::payer::PayerMode;
use node::transcript::HtlcState;
use std::time::Duration;

use super::{
    AMOUNT_MSAT, Scenario, Sent, comes_back, failure, held, is_handling_failed, msat, parked,
    payers_money, prepared, scene, scene_of, usual,
};
use crate::story;
use crate::world::{PATIENCE, Story, World, channel_is, set_flags};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-below-minimum",
            "Below the minimum",
            "A tenth of the smallest payment that survives the fee: the payer's router finds no \
             path, and sends nothing.",
            usual,
            |world| Box::pin(below_minimum(world)),
        ),
        failure(
            "fail-not-intercepted",
            "The LSP does not intercept",
            "The recipient's LSP runs with LDK's default flags. It knows no channel of that SCID.",
            usual,
            |world| Box::pin(not_intercepted(world)),
        ),
        failure(
            "fail-long-recipient-id",
            "Too much in the onion",
            "The server gave its recipient an id of 1 024 bytes. It stands in the offer's path, so in \
             the invoice request, and with that it does not fit into the payment's onion.",
            long_ids,
            |world| Box::pin(long_recipient_id(world)),
        ),
        failure(
            "fail-lease-expired",
            "The lease has run out",
            "A payment waits until after the lease's valid_until. The LSP fails it when it arrives.",
            short_lease,
            |world| Box::pin(lease_expired(world)),
        ),
        failure(
            "fail-client-away",
            "The client is not connected",
            "A payer that does not wait for the recipient's word sends an HTLC over the intercept \
             SCID while the client is away.",
            online_payer,
            |world| Box::pin(client_away(world)),
        ),
        failure(
            "fail-not-held",
            "The payer's LSP does not hold",
            "The payer's LSP has stopped to hold HTLCs since its payer connected, and fails the one \
             that it is given to hold.",
            usual,
            |world| Box::pin(not_held(world)),
        ),
        failure(
            "fail-private-channel",
            "The payer's LSP takes no channel",
            "LDK's default: a node that announces its channels refuses one that is not to be \
             announced.",
            usual,
            |world| Box::pin(private_channel(world)),
        ),
        failure(
            "fail-held-too-long",
            "Held for too long",
            "The recipient comes online when 41 blocks are left of the HTLC. The LSP opens no \
             channel for it.",
            usual,
            |world| Box::pin(held_too_long(world)),
        ),
        failure(
            "fail-never-released",
            "Never released",
            "The recipient does not come at all. The payer's LSP gives the HTLC back 39 blocks before \
             it would expire on the way out.",
            usual,
            |world| Box::pin(never_released(world)),
        ),
    ]
}

async fn below_minimum(world: &mut World) -> Result<()> {
    let (lease, offer) = prepared(world).await?;
    let least = lease.smallest_htlc_msat().context("the lease can be paid")?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "below-minimum", "Below the minimum").await?;
    world.say(format!("The path takes HTLCs from {} on", msat(least)));
    let paid = world.pay_while_recipient_is_offline(&offer, least / 10).await;
    ensure!(paid.is_err(), "a payment below the minimum was sent");
    world.see(from, |_| world.copies_are_answered(from)).await?;
    comes_back(world, from, before).await
}

async fn not_intercepted(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    set_flags(world.lsp(), |flags| flags.htlc_interception_flags = 0);
    scene_of(world, &sent, "not-intercepted", "The LSP does not intercept").await?;
    world.say("The recipient's LSP has htlc_interception_flags at 0");
    world.start_recipient().await?;
    world.see(sent.from, |e| is_handling_failed(e, "lsp", "UnknownNextPeer")).await?;
    sent.comes_back(world).await
}

fn long_ids() -> Story {
    let mut story = usual();
    story.lsp.server.recipient_id_bytes = 1_024;
    story
}

async fn long_recipient_id(world: &mut World) -> Result<()> {
    world.start_recipient().await?;
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    let paths = world.lsp().paths_for(&[1; 1_024]).await?;
    world.recipient().use_paths(paths)?;
    let offer = world.recipient().wait_for_offer(PATIENCE).await?;
    story::leave(world, "recipient").await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "long-id", "Too much in the onion").await?;
    let paid = world.pay_while_recipient_is_offline(&offer, AMOUNT_MSAT).await;
    ensure!(paid.is_err(), "there was room in the onion");
    world.see(from, |_| world.copies_are_answered(from)).await?;
    comes_back(world, from, before).await
}

pub(super) const VALIDITY: Duration = Duration::from_secs(2 * 60 * 60);

pub(super) fn short_lease() -> Story {
    let mut story = usual();
    story.lsp.fees.validity = VALIDITY;
    story
}

async fn lease_expired(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    scene_of(world, &sent, "expired", "The lease has run out").await?;
    world.lsp().clock().advance(VALIDITY);
    world.say("By the LSP's clock the lease's valid_until has passed");
    world.start_recipient().await?;
    world.see_htlc(sent.from, "lsp", HtlcState::Failed).await?;
    sent.comes_back(world).await
}

fn online_payer() -> Story {
    Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp)
}

async fn client_away(world: &mut World) -> Result<()> {
    world.prepare_recipient().await?;
    let invoice = world.lsp().static_invoice(b"alice", 0).await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "client-away", "The client is not connected").await?;
    story::leave(world, "recipient").await?;
    world.say("The payer has the static invoice, and sends an HTLC with a hash of its own");
    probe(world, invoice.payment_paths(), AMOUNT_MSAT)?;
    world.see_htlc(from, "lsp", HtlcState::Failed).await?;
    comes_back(world, from, before).await
}

/// Sends an HTLC with a made-up hash down the invoice's paths, whatever limits they state, once.
pub(super) fn probe(world: &World, paths: &[BlindedPaymentPath], amount_msat: u64) -> Result<()> {
    let mut paths = paths.to_vec();
    for path in &mut paths {
        path.payinfo.htlc_minimum_msat = 0;
        path.payinfo.htlc_maximum_msat = u64::MAX;
    }
    let payee = PaymentParameters::blinded(paths);
    let hash = [7; 32];
    world
        .payer()
        .channel_manager()
        .send_payment(
            PaymentHash(hash),
            RecipientOnionFields::spontaneous_empty(amount_msat),
            PaymentId(hash),
            RouteParameters::from_payment_params_and_value(payee, amount_msat),
            Retry::Attempts(0),
        )
        .map_err(|error| anyhow::anyhow!("LDK does not send this: {error:?}"))
}

async fn not_held(world: &mut World) -> Result<()> {
    let (_, offer) = prepared(world).await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "not-held", "The payer's LSP does not hold").await?;
    set_flags(&world.payer_lsp, |flags| flags.enable_htlc_hold = false);
    world.say("The payer's LSP turns enable_htlc_hold off while its payer is connected");
    world.payer().pay(&offer, AMOUNT_MSAT)?;
    world.see(from, |e| is_handling_failed(e, "payer-lsp", "TemporaryNodeFailure")).await?;
    comes_back(world, from, before).await
}

async fn private_channel(world: &mut World) -> Result<()> {
    set_flags(&world.payer_lsp, |flags| {
        flags.channel_handshake_limits.force_announced_channel_preference = true;
    });
    scene(world, "private-channel", "The payer's LSP takes no channel").await?;
    let from = world.transcript.position();
    world.say("The payer's LSP has force_announced_channel_preference at true");
    world.payer().open_channel(world.payer_lsp.id(), 1_000_000, false)?;
    world.see(from, |e| e.node == "payer-lsp" && channel_is(e, "refused", "payer")).await?;
    world.see(from, |e| e.node == "payer" && channel_is(e, "closed", "payer-lsp")).await?;
    Ok(())
}

/// LDK's default on the payer's LSP, and what the recipient's LSP asks for in these worlds.
const FORWARDING_DELTAS: u32 = 72 + 72;

/// The height at which the only HTLC that the payer has sent would expire at the recipient.
fn expiry_at_recipient(world: &World) -> Result<u32> {
    let channels = world.payer().channel_manager().list_channels();
    let mut htlcs = channels.iter().flat_map(|channel| &channel.pending_outbound_htlcs);
    Ok(htlcs.next().context("nothing was sent")?.cltv_expiry - FORWARDING_DELTAS)
}

async fn mine_to(world: &World, height: u32) -> Result<()> {
    let now = world.chain.height().await?;
    world.mine(height - now).await
}

async fn held_too_long(world: &mut World) -> Result<()> {
    let sent: Sent = held(world).await?;
    mine_to(world, expiry_at_recipient(world)? - LEAST_BLOCKS_TO_OPEN + 1).await?;
    scene_of(world, &sent, "held-too-long", "Held for too long").await?;
    world.say("So many blocks have come that 41 would be left at the recipient");
    world.start_recipient().await?;
    world.see_htlc(sent.from, "lsp", HtlcState::Failed).await?;
    sent.comes_back(world).await?;
    ensure!(world.recipient().balances().channels.is_empty(), "a channel was opened for nothing");
    Ok(())
}

async fn never_released(world: &mut World) -> Result<()> {
    let sent = held(world).await?;
    parked(world).await?;
    let out = expiry_at_recipient(world)? + 72;
    mine_to(world, out - HTLC_FAIL_BACK_BUFFER - 1).await?;
    let from = world.transcript.position();
    scene_of(world, &sent, "never-released", "Never released").await?;
    world.say("A block comes, and 39 are left on the way out of the payer's LSP");
    world.mine(1).await?;
    comes_back(world, from, sent.before_msat).await
}
