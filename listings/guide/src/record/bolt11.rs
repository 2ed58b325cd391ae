//! Plain LSPS2: an online wallet without a channel, and a BOLT 11 invoice over its lease.

use anyhow::{Context, Result};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::routing::router::{Path, PaymentParameters, Route, RouteHop, RouteParameters};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::PaymentHash;
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::payer::PayerMode;
use node::transcript::What;
use recording::view::grouped;
use serde_json::json;
use std::time::Duration;

use super::Scenario;
use crate::world::{Story, World};

/// For how long the invoices here can be paid.
pub(super) const VALID: Duration = Duration::from_secs(3_600);
/// What the payer's LSP takes for an HTLC, in msat.
const ROUTING_MSAT: u64 = 1_000;
const AMOUNT_MSAT: u64 = 100_000_000;

/// A payer that is online, and a client that trusts its LSP.
pub(super) fn story() -> Story {
    Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp)
}

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "bolt11",
        title: "Plain LSPS2 with a BOLT 11 invoice",
        about: "An online wallet without a channel buys a lease of a fixed size, puts its intercept \
                SCID into the route hint of an invoice, and is paid over the channel that its LSP \
                opens for it.",
        story,
        setting: || {
            vec![
                ("amount_msat", json!(AMOUNT_MSAT)),
                ("payer", json!("online")),
                ("trust", json!("the client trusts the LSP")),
            ]
        },
        play: |world| Box::pin(play(world)),
    }
}

async fn play(world: &mut World) -> Result<()> {
    world.transcript.scene("buy", "Buy");
    let lease = buy(world, AMOUNT_MSAT).await?;
    world.transcript.scene("ask", "Ask");
    let invoice = world.recipient().jit_invoice(&lease, VALID)?;
    world.say(format!(
        "The wallet shows the payer an invoice of {} msat, with a hint over the intercept SCID",
        grouped(AMOUNT_MSAT)
    ));
    world.transcript.scene("pay", "Pay");
    let from = world.transcript.position();
    // As text, the way an invoice travels.
    let invoice = invoice.to_string().parse().ok().context("an invoice can be read again")?;
    world.payer().pay_invoice(&invoice, None)?;
    world.settled(from).await?;
    // Until its fee is paid, the LSP withholds the funding.
    world.see(from, |e| e.node == "lsp" && matches!(e.what, What::Broadcast { .. })).await?;
    world.rest().await
}

/// Steps 5 to 9: the wallet comes online and buys a lease of a fixed size.
pub(super) async fn buy(world: &mut World, size_msat: u64) -> Result<Lease> {
    let mut policy = world.buying_policy();
    policy.payment_size_msat = size_msat;
    policy.fixed_size = true;
    world.start_recipient().await?;
    world.recipient().buy_lease(world.lsp().id(), policy).await
}

/// What a payer puts into the onion.
pub(super) struct Onion {
    pub(super) hash: PaymentHash,
    pub(super) fields: RecipientOnionFields,
    pub(super) final_cltv_delta: u32,
}

impl Onion {
    /// All of an invoice, and no block more than it asks for.
    pub(super) fn of_invoice(invoice: &Bolt11Invoice) -> Result<Self> {
        let total_msat = invoice.amount_milli_satoshis().context("the invoice names an amount")?;
        let mut fields = RecipientOnionFields::secret_only(*invoice.payment_secret(), total_msat);
        fields.payment_metadata = invoice.payment_metadata().cloned();
        let final_cltv_delta = u32::try_from(invoice.min_final_cltv_expiry_delta())?;
        Ok(Self { hash: invoice.payment_hash(), fields, final_cltv_delta })
    }
}

/// Pays over the lease, once, one HTLC for each part, over a route made by hand: LDK's router adds
/// blocks at random, splits only if it must, and tries again for some seconds.
pub(super) fn send(world: &World, lease: &Lease, parts_msat: &[u64], onion: Onion) -> Result<()> {
    send_as(world, lease, parts_msat, &onion, PaymentId(onion.hash.0))
}

/// The same under this id: parts that LDK takes for payments of their own.
pub(super) fn send_as(
    world: &World,
    lease: &Lease,
    parts_msat: &[u64],
    onion: &Onion,
    id: PaymentId,
) -> Result<()> {
    let (payer, lsp, recipient) = (world.payer(), world.lsp(), world.recipient().id());
    let hop = |pubkey, short_channel_id, fee_msat, cltv_expiry_delta| RouteHop {
        pubkey,
        node_features: NodeFeatures::empty(),
        short_channel_id,
        channel_features: ChannelFeatures::empty(),
        fee_msat,
        cltv_expiry_delta,
        maybe_announced_channel: true,
    };
    let to_payer_lsp = payer.channel_manager().list_usable_channels();
    let first = to_payer_lsp.first().and_then(|c| c.get_outbound_payment_scid());
    let to_payer_lsp = first.context("the payer has no channel")?;
    let to_lsp = lsp.channel_manager().list_usable_channels();
    let to_lsp = to_lsp.iter().find_map(|c| c.short_channel_id.filter(|_| c.is_announced));
    let to_lsp = to_lsp.context("the LSPs have no channel")?;
    let path = |part_msat: &u64| Path {
        hops: vec![
            hop(world.payer_lsp.id(), to_payer_lsp, ROUTING_MSAT, 72),
            hop(lsp.id(), to_lsp, 0, lease.cltv_expiry_delta.into()),
            hop(recipient, lease.id.intercept_scid, *part_msat, onion.final_cltv_delta),
        ],
        blinded_tail: None,
    };
    let payee = PaymentParameters::from_node_id(recipient, onion.final_cltv_delta);
    let all_msat = parts_msat.iter().sum();
    let route_params = Some(RouteParameters::from_payment_params_and_value(payee, all_msat));
    let route = Route { paths: parts_msat.iter().map(path).collect(), route_params };
    payer
        .channel_manager()
        .send_payment_with_route(route, onion.hash, onion.fields.clone(), id)
        .map_err(|error| anyhow::anyhow!("LDK does not send this: {error:?}"))
}
