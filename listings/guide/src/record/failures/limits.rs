//! Leases that have run out, amounts outside the limits, payments in parts. Each scenario ends with a
//! payment that is paid, over the same lease where that is still possible.

use anyhow::{Context, Result, ensure};
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, PaymentId};
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::offers::offer::Offer;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, HtlcState, What};

use super::payer::{VALIDITY, probe, short_lease};
use super::{
    AMOUNT_MSAT, Scenario, comes_back, failure, hold, is_handling_failed, msat, payers_money,
    prepared, scene, usual,
};
use crate::lab;
use crate::money::Books;
use crate::record::bolt11::{self, Onion, VALID, send, send_as};
use crate::story::{self, Setting};
use crate::world::{PATIENCE, Story, World, is_onion, is_wire};

/// What the LSP of these worlds takes for a channel, from a payment of up to 200 000 sat.
const FEE_MSAT: u64 = 2_000_000;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        failure(
            "fail-lease-over",
            "An offer whose lease is over",
            "The lease had run out before the payer paid. The server still has the invoice, so the \
             payment waits, and fails when it is released. With a new lease, a new offer is paid.",
            short_lease,
            |world| Box::pin(lease_over(world)),
        ),
        failure(
            "fail-scid-unknown",
            "An SCID that was never sold",
            "Two HTLCs for SCIDs that the LSP never gave out: one looks like an intercept SCID, the \
             other does not.",
            bolt11::story,
            |world| Box::pin(scid_unknown(world)),
        ),
        failure(
            "fail-under-minimum",
            "Less than the lease's smallest payment",
            "1 msat less than the lease allows comes over a BOLT 11 invoice, whose hint states no \
             minimum. The LSP's own table fails it, and the next payment opens the channel.",
            bolt11::story,
            |world| Box::pin(under_minimum(world)),
        ),
        failure(
            "fail-fee-not-below-payment",
            "A payment that is no larger than the fee",
            "The LSP sells payments from 1 sat on and asks for 2 000 sat at least. A payment of 2 000 \
             sat would leave nothing.",
            dear,
            |world| Box::pin(fee_not_below_payment(world)),
        ),
        failure(
            "fail-over-maximum",
            "More than the lease's largest payment",
            "A payer that ignores the invoice sends 1 msat more than the lease allows. No path states a \
             maximum to the LSP; its own table does.",
            online_payer,
            |world| Box::pin(over_maximum(world)),
        ),
        failure(
            "fail-larger-than-channel",
            "A second payment larger than the channel",
            "The first payment opened a channel for twice its amount. The second is four times as \
             large, and fails; the third is paid over the same channel, without a fee.",
            usual,
            |world| Box::pin(larger_than_channel(world)),
        ),
        failure(
            "fail-mpp-lsp-trusts",
            "A fixed-size payment in two parts, the LSP trusts",
            "Two HTLCs make up the agreed size. The LSP has broadcast the funding before it is paid; \
             the fee is whole with the second part, and later payments are not queued.",
            || Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient),
            |world| Box::pin(in_two_parts(world)),
        ),
        failure(
            "fail-part-after-open",
            "A second part that comes after the channel",
            "A third of a payment opens the channel under a variable lease; the rest comes when it is \
             open, and does not fit. The recipient gives the first part back, and the next payment \
             pays the fee.",
            bolt11::story,
            |world| Box::pin(part_after_open(world)),
        ),
    ]
}

/// Nothing hangs, the books balance, and no more was taken than a lease allows.
async fn end(world: &World) -> Result<()> {
    lab::end(world).await.map(drop)
}

/// Waits until the LSP has said this of a payment that it failed, or of its lease.
async fn lsp_says(world: &World, from: u64, why: &str) -> Result<()> {
    let says = |e: &Entry| match &e.what {
        What::Htlc { state: HtlcState::Failed, reason: Some(reason), .. } => reason.contains(why),
        _ => false,
    };
    world.see(from, |e| e.node == "lsp" && says(e)).await?;
    Ok(())
}

fn no_channel(world: &World) -> Result<()> {
    let channels = world.recipient().balances().channels;
    ensure!(channels.is_empty(), "a channel was opened: {channels:?}");
    Ok(())
}

/// The recipient, which is away, comes back, buys another lease, and shows its next offer.
async fn renewed(world: &mut World) -> Result<Offer> {
    if world.recipient.is_none() {
        world.start_recipient().await?;
    }
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await?;
    story::leave(world, "recipient").await?;
    let from = world.transcript.position();
    world.start_recipient().await?;
    // The newest is shown, once the wallet knows that the server has its invoice.
    world.see(from, |e| e.node == "recipient" && is_onion(e, "static_invoice_persisted")).await?;
    world.recipient().wait_for_offer(PATIENCE).await
}

/// Pays an offer of a recipient that is online, and leaves for that. This fee is skimmed from it.
async fn paid(world: &mut World, offer: Offer, amount_msat: u64, fee_msat: u64) -> Result<()> {
    story::leave(world, "recipient").await?;
    let sent = hold(world, offer, amount_msat).await?;
    let from = sent.from;
    world.start_recipient().await?;
    if let Err(reason) = world.see_judgement(from).await? {
        anyhow::bail!("the recipient refused it: {reason}");
    }
    let books = world.settled(from).await?;
    ensure!(
        books.opening_fee_msat == fee_msat
            && books.recipient_received_msat == amount_msat - fee_msat,
        "{books:?}"
    );
    Ok(())
}

async fn lease_over(world: &mut World) -> Result<()> {
    let (_, offer) = prepared(world).await?;
    world.pass(VALIDITY);
    scene(world, "over", "The lease is over, the offer is not").await?;
    world.say("The lease's valid_until has passed; the payer pays the offer");
    let sent = hold(world, offer, AMOUNT_MSAT).await?;
    world.start_recipient().await?;
    lsp_says(world, sent.from, "the lease ran out").await?;
    sent.comes_back(world).await?;
    no_channel(world)?;
    let offer = renewed(world).await?;
    scene(world, "renewed", "Another lease, another offer").await?;
    world.say("The wallet has bought a lease, and its next offer leads over that");
    paid(world, offer, AMOUNT_MSAT, FEE_MSAT).await?;
    end(world).await
}

/// A lease for any amount, and a wallet that is online.
async fn variable(world: &mut World) -> Result<Lease> {
    let policy = world.buying_policy();
    world.start_recipient().await?;
    world.recipient().buy_lease(world.lsp().id(), policy).await
}

/// What an invoice of a variable-size lease asks for, for this much.
fn onion(world: &World, lease: &Lease, amount_msat: u64) -> Result<Onion> {
    let invoice = world.recipient().jit_invoice(lease, VALID)?;
    let mut fields = RecipientOnionFields::secret_only(*invoice.payment_secret(), amount_msat);
    fields.payment_metadata = invoice.payment_metadata().cloned();
    let final_cltv_delta = u32::try_from(invoice.min_final_cltv_expiry_delta())?;
    Ok(Onion { hash: invoice.payment_hash(), fields, final_cltv_delta })
}

/// Pays this much over an invoice of a variable-size lease.
fn pay(world: &World, lease: &Lease, amount_msat: u64) -> Result<()> {
    send(world, lease, &[amount_msat], onion(world, lease, amount_msat)?)
}

/// A payment that the LSP fails, and that leaves no trace.
async fn refused(world: &World, lease: &Lease, amount_msat: u64, why: &str) -> Result<()> {
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    pay(world, lease, amount_msat)?;
    lsp_says(world, from, why).await?;
    comes_back(world, from, before).await?;
    no_channel(world)
}

/// The payment that opens the channel, over the same lease.
async fn opens(world: &World, lease: &Lease, amount_msat: u64) -> Result<()> {
    let from = world.transcript.position();
    pay(world, lease, amount_msat)?;
    let books = world.settled(from).await?;
    ensure!(books.opening_fee_msat == FEE_MSAT, "{books:?}");
    world.see(from, |e| e.node == "lsp" && matches!(e.what, What::Broadcast { .. })).await?;
    end(world).await
}

async fn scid_unknown(world: &mut World) -> Result<()> {
    let lease = variable(world).await?;
    let over = |scid| {
        let mut other = lease.clone();
        other.id.intercept_scid = scid;
        other
    };
    let unsold = world.lsp().channel_manager().get_intercept_scid();
    scene(world, "unsold", "An SCID of LDK's making").await?;
    world.say("The HTLC is for an SCID that LDK would intercept, and that nobody has bought");
    refused(world, &over(unsold), AMOUNT_MSAT, "no lease was sold under SCID").await?;
    scene(world, "foreign", "An SCID of no kind").await?;
    world.say("The HTLC is for SCID 1x1x1");
    let foreign = over((1 << 40) | (1 << 16) | 1);
    refused(world, &foreign, AMOUNT_MSAT, "UnknownNextPeer").await?;
    scene(world, "sold", "The SCID that was sold").await?;
    opens(world, &lease, AMOUNT_MSAT).await
}

async fn under_minimum(world: &mut World) -> Result<()> {
    let lease = variable(world).await?;
    let least = lease.opening_fee_params.min_payment_size_msat;
    scene(world, "under-minimum", "1 msat too few").await?;
    world.say(format!("The lease is for payments from {} on", msat(least)));
    refused(world, &lease, least - 1, "is less than").await?;
    scene(world, "minimum", "The smallest payment").await?;
    opens(world, &lease, least).await
}

/// An LSP whose smallest payment does not cover its fee.
fn dear() -> Story {
    let mut story = bolt11::story();
    story.lsp.fees.min_payment_size_msat = 1_000;
    story
}

async fn fee_not_below_payment(world: &mut World) -> Result<()> {
    let lease = variable(world).await?;
    scene(world, "fee", "Nothing would be left").await?;
    world.say(format!("The lease is for payments from {} on", msat(1_000)));
    refused(world, &lease, FEE_MSAT, "is less than").await?;
    scene(world, "one-more", "1 msat is left").await?;
    opens(world, &lease, FEE_MSAT + 1).await
}

fn online_payer() -> Story {
    Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp)
}

async fn over_maximum(world: &mut World) -> Result<()> {
    let (lease, offer) = world.prepare_recipient().await?;
    let most = lease.opening_fee_params.max_payment_size_msat;
    let invoice = world.lsp().static_invoice(b"alice", 0).await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    scene(world, "over-maximum", "1 msat too many").await?;
    world.say(format!("The lease is for payments of up to {}", msat(most)));
    probe(world, invoice.payment_paths(), most + 1)?;
    lsp_says(world, from, "is more than").await?;
    world.see(from, |e| is_handling_failed(e, "lsp", "UnknownNextPeer")).await?;
    comes_back(world, from, before).await?;
    no_channel(world)?;
    story::leave(world, "recipient").await?;
    scene(world, "maximum", "The largest payment").await?;
    // 1 % of it is more than the least fee.
    let sent = hold(world, offer, most).await?;
    let books = story::settle(world, &Setting::default(), sent.from).await?;
    ensure!(books.opening_fee_msat == most / 100, "{books:?}");
    end(world).await
}

async fn larger_than_channel(world: &mut World) -> Result<()> {
    let (_, offer) = world.prepare_recipient().await?;
    world.pay_offline_recipient(&offer, AMOUNT_MSAT).await?;
    story::leave(world, "recipient").await?;
    scene(world, "larger", "Larger than the channel").await?;
    let sent = hold(world, offer, 4 * AMOUNT_MSAT).await?;
    world.start_recipient().await?;
    world.see(sent.from, |e| is_handling_failed(e, "lsp", "")).await?;
    sent.comes_back(world).await?;
    scene(world, "third", "One that fits").await?;
    paid(world, sent.offer, 40_000_000, 0).await?;
    let channels = world.recipient().balances().channels.len();
    ensure!(channels == 1, "{channels} channels");
    end(world).await
}

/// Two parts of a fixed-size payment, and a later payment over the same SCID: LDK alone compares each
/// part's share of the fee with the whole, finds it unpaid, and queues what follows.
pub(super) async fn in_two_parts(world: &mut World) -> Result<()> {
    const PARTS_MSAT: [u64; 2] = [100_000_000, 200_000_000];
    const LATER_MSAT: u64 = 40_000_000;
    let whole_msat = PARTS_MSAT.iter().sum();
    let lease = bolt11::buy(world, whole_msat).await?;
    let invoice = world.recipient().jit_invoice(&lease, VALID)?;
    let from = world.transcript.position();
    scene(world, "parts", "Two parts").await?;
    world.say(format!("The payer splits {}", msat(whole_msat)));
    send(world, &lease, &PARTS_MSAT, Onion::of_invoice(&invoice)?)?;
    let books = forwarded(world, from, PARTS_MSAT.len()).await?;
    ensure!(books.opening_fee_msat == whole_msat / 100, "{books:?}");
    world.see(from, |e| e.node == "lsp" && matches!(e.what, What::Broadcast { .. })).await?;

    let params = Bolt11InvoiceParameters { amount_msats: Some(LATER_MSAT), ..Default::default() };
    let invoice = world.recipient().channel_manager().create_bolt11_invoice(params);
    let invoice = invoice.ok().context("LDK makes no invoice")?;
    let from = world.transcript.position();
    scene(world, "later", "A later payment over the same SCID").await?;
    send(world, &lease, &[LATER_MSAT], Onion::of_invoice(&invoice)?)?;
    let books = forwarded(world, from, 1).await?;
    ensure!(books.opening_fee_msat == 0, "{books:?}");
    ensure!(books.recipient_received_msat == LATER_MSAT, "{books:?}");
    end(world).await
}

/// Waits until both LSPs know that all parts were claimed.
async fn forwarded(world: &World, from: u64, parts: usize) -> Result<Books> {
    world.see_htlc(from, "payer", HtlcState::Paid).await?;
    let forwarded = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Forwarded, .. });
    for node in ["lsp", "payer-lsp"] {
        world.see_times(parts, from, |e| e.node == node && forwarded(e)).await?;
    }
    world.rest().await?;
    Books::of_one_payment(&world.transcript.since(from))
}

async fn part_after_open(world: &mut World) -> Result<()> {
    const PARTS_MSAT: [u64; 2] = [50_000_000, 100_000_000];
    let lease = variable(world).await?;
    let (from, before) = (world.transcript.position(), payers_money(world)?);
    let onion = onion(world, &lease, PARTS_MSAT.iter().sum())?;
    scene(world, "first", "The first part opens the channel").await?;
    send_as(world, &lease, &PARTS_MSAT[..1], &onion, PaymentId([1; 32]))?;
    world.see(from, |e| e.node == "recipient" && is_wire(e, "update_add_htlc")).await?;
    scene(world, "second", "The second part does not fit").await?;
    send_as(world, &lease, &PARTS_MSAT[1..], &onion, PaymentId([2; 32]))?;
    world.see(from, |e| is_handling_failed(e, "lsp", "")).await?;
    world.see_htlc(from, "payer", HtlcState::Failed).await?;
    world.rest().await?;
    world.say("Three minutes pass for the recipient, who waits for the rest");
    for _ in 0..4 {
        world.recipient().channel_manager().timer_tick_occurred();
    }
    // LDK's background processor does this at its own pace.
    world.recipient().channel_manager().process_pending_htlc_forwards();
    let failed = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Failed, .. });
    world.see_times(2, from, |e| e.node == "payer" && failed(e)).await?;
    world.rest().await?;
    ensure!(payers_money(world)? == before, "the payer has not all of it again");
    scene(world, "next", "A payment that fits").await?;
    opens(world, &lease, 40_000_000).await
}
