//! The short course: plain LSPS2 with `lightning-liquidity`, BOLT 11 and online BOLT 12. The wallet
//! is online and has no channel; everything else is as in the flow with an offer.

use crate::flow::funding_came_at_its_time;
use crate::on_every_chain;
use bitcoin::hashes::hmac::{Hmac, HmacEngine};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use guide::money::Books;
use guide::world::{PATIENCE, Story, World, channel_is, is_onion};
use lightning::blinded_path::IntroductionNode;
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::ln::channelmanager::{Bolt11InvoiceParameters, PaymentId};
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::offers::offer::Offer;
use lightning::routing::gossip::NodeId;
use lightning::routing::router::{Path, PaymentParameters, Route, RouteHop, RouteParameters};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use lsps2_async::bolt11::InvoiceTerms;
use lsps2_async::lease::{Lease, LeaseState, TrustModel};
use lsps2_async::payer::PayerMode;
use node::lsp::Conduct;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;
use std::time::Duration;

on_every_chain! {
    a_fixed_size_invoice_when_the_lsp_trusts
    a_fixed_size_invoice_when_the_client_trusts
    an_invoice_without_an_amount
    a_fixed_size_invoice_is_paid_in_two_parts
}

/// 1 % of it is above the minimum fee and has to be rounded up.
const AMOUNT_MSAT: u64 = 300_000_001;
const FEE_MSAT: u64 = 3_000_001;
/// What the payer's LSP takes for an HTLC.
const ROUTING_MSAT: u64 = 1_000;
const HOUR: Duration = Duration::from_secs(3_600);

fn story(trust: TrustModel) -> Story {
    Story::new(PayerMode::AlwaysOnline, trust)
}

/// A world whose recipient is online, has no channel, and has bought a lease.
async fn world_with_lease(chain: Chain, story: Story, fixed_msat: Option<u64>) -> (World, Lease) {
    let mut world = World::new(chain, story).await.unwrap();
    let mut policy = world.buying_policy();
    policy.payment_size_msat = fixed_msat.unwrap_or(policy.payment_size_msat);
    policy.fixed_size = fixed_msat.is_some();
    world.start_recipient().await.unwrap();
    let lsp = world.lsp().id();
    let lease = world.recipient().buy_lease(lsp, policy).await.unwrap();
    assert!(world.recipient().balances().channels.is_empty());
    (world, lease)
}

/// What the payer can send, in msat: it tells whether a payment came back.
fn payers_money(world: &World) -> u64 {
    world.payer().balances().channels[0].outbound_msat
}

async fn a_fixed_size_invoice_when_the_lsp_trusts(chain: Chain) {
    fixed_size(chain, TrustModel::LspTrustsClient).await;
}

async fn a_fixed_size_invoice_when_the_client_trusts(chain: Chain) {
    fixed_size(chain, TrustModel::ClientTrustsLsp).await;
}

async fn fixed_size(chain: Chain, trust: TrustModel) {
    let (world, lease) = world_with_lease(chain, story(trust), Some(AMOUNT_MSAT)).await;
    assert_eq!(lease.trust_model, trust, "the wallet knows what the LSP said");
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), Some(AMOUNT_MSAT));
    assert!(invoice.features().unwrap().supports_basic_mpp());
    leads_over_the_intercept_scid(&invoice, &lease);

    let from = world.transcript.position();
    // As text, the way an invoice travels.
    let invoice = invoice.to_string().parse().unwrap();
    world.payer().pay_invoice(&invoice, None).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(
        books,
        Books {
            payer_sent_msat: AMOUNT_MSAT + ROUTING_MSAT,
            routing_fee_msat: ROUTING_MSAT,
            opening_fee_msat: FEE_MSAT,
            recipient_received_msat: AMOUNT_MSAT - FEE_MSAT,
        }
    );
    let record = world.recipient().leases().pop().unwrap();
    let LeaseState::Consumed(consumption) = record.state else { panic!("{:?}", record.state) };
    assert_eq!(consumption.skimmed_fee_msat, FEE_MSAT);
    assert_eq!(consumption.payment_hash, invoice.payment_hash());
    funding_came_at_its_time(&world, trust).await;
    world.stop().await;
}

fn leads_over_the_intercept_scid(invoice: &Bolt11Invoice, lease: &Lease) {
    let [hint] = &invoice.route_hints()[..] else { panic!("{invoice}") };
    let [hop] = &hint.0[..] else { panic!("{invoice}") };
    assert_eq!(hop.short_channel_id, lease.id.intercept_scid);
    assert_eq!(hop.src_node_id, lease.id.lsp_node_id);
    assert_eq!(hop.cltv_expiry_delta, lease.cltv_expiry_delta);
    assert_eq!(invoice.min_final_cltv_expiry_delta(), 44);
    assert!(invoice.expires_at().unwrap() <= lease.opening_fee_params.valid_until);
}

/// A variable-size lease: the payer names the amount, and may not split it.
async fn an_invoice_without_an_amount(chain: Chain) {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, lease) = world_with_lease(chain, story, None).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    assert_eq!(invoice.amount_milli_satoshis(), None);
    assert!(!invoice.features().unwrap().supports_basic_mpp());
    leads_over_the_intercept_scid(&invoice, &lease);

    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, Some(AMOUNT_MSAT)).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    assert_eq!(books.recipient_received_msat, AMOUNT_MSAT - FEE_MSAT);
    world.stop().await;
}

/// Two HTLCs of one payment. LDK's LSPS2 waits until they add up; the fee comes off once.
async fn a_fixed_size_invoice_is_paid_in_two_parts(chain: Chain) {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, lease) = world_with_lease(chain, story, Some(AMOUNT_MSAT)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let from = world.transcript.position();
    let parts = [100_000_000, AMOUNT_MSAT - 100_000_000];
    send_in_parts(&world, &lease, &parts, of_invoice(&invoice));
    // LDK takes a share of the fee from each part, and tells of each in an event of its own.
    let skims = forwarded_by_lsp(&world, from, parts.len()).await;
    assert_eq!(skims, [1_000_000, FEE_MSAT - 1_000_000]);
    world.settled(from).await.unwrap();
    let books = Books::of_one_payment(&world.transcript.since(from)).unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    assert_eq!(books.recipient_received_msat, AMOUNT_MSAT - FEE_MSAT);
    assert_eq!(books.routing_fee_msat, 2 * ROUTING_MSAT);
    assert_eq!(world.recipient().balances().channels.len(), 1);
    // The LSP knows that its fee is paid: it broadcasts the funding it has withheld.
    funding_came_at_its_time(&world, TrustModel::ClientTrustsLsp).await;
    world.stop().await;
}

/// What the LSP skimmed from each of so many HTLCs, in msat, once it has forwarded them all. The
/// payer's LSP has then seen them too.
async fn forwarded_by_lsp(world: &World, from: u64, htlcs: usize) -> Vec<u64> {
    let forwarded_by = |node| {
        let entries = world.transcript.since(from).into_iter().filter(move |e| e.node == node);
        let skims = entries.filter_map(|e| match e.what {
            What::Htlc { state: HtlcState::Forwarded, skimmed_fee_msat, .. } => {
                Some(skimmed_fee_msat)
            }
            _ => None,
        });
        skims.collect::<Vec<_>>()
    };
    let all = |_: &Entry| {
        let done = ["lsp", "payer-lsp"].map(|node| forwarded_by(node).len() >= htlcs);
        done == [true, true]
    };
    world.see(from, all).await.unwrap();
    let mut skims = forwarded_by("lsp");
    skims.sort_unstable();
    skims
}

/// What a payer puts into the onion.
pub struct Onion {
    pub hash: PaymentHash,
    pub fields: RecipientOnionFields,
    pub final_cltv_delta: u32,
}

/// All of an invoice, and no block more than it asks for.
fn of_invoice(invoice: &Bolt11Invoice) -> Onion {
    let total_msat = invoice.amount_milli_satoshis().unwrap();
    let mut fields = RecipientOnionFields::secret_only(*invoice.payment_secret(), total_msat);
    fields.payment_metadata = invoice.payment_metadata().cloned();
    let final_cltv_delta = u32::try_from(invoice.min_final_cltv_expiry_delta()).unwrap();
    Onion { hash: invoice.payment_hash(), fields, final_cltv_delta }
}

/// Pays over a route made by hand: LDK's router adds blocks at random, and splits only if it must.
pub fn send_in_parts(world: &World, lease: &Lease, parts_msat: &[u64], onion: Onion) {
    let (payer, lsp) = (world.payer(), world.lsp());
    let to_payer_lsp = payer.channel_manager().list_usable_channels();
    let payers_lsp = world.payer_lsp.id();
    let to_lsp = lsp.channel_manager().list_channels_with_counterparty(&payers_lsp);
    let hop = |pubkey, short_channel_id, fee_msat, cltv_expiry_delta| RouteHop {
        pubkey,
        node_features: NodeFeatures::empty(),
        short_channel_id,
        channel_features: ChannelFeatures::empty(),
        fee_msat,
        cltv_expiry_delta,
        maybe_announced_channel: true,
    };
    let first = to_payer_lsp[0].get_outbound_payment_scid().unwrap();
    let second = to_lsp[0].short_channel_id.unwrap();
    let path = |part_msat: &u64| Path {
        hops: vec![
            hop(world.payer_lsp.id(), first, ROUTING_MSAT, 72),
            hop(lsp.id(), second, 0, lease.cltv_expiry_delta.into()),
            hop(
                world.recipient().id(),
                lease.id.intercept_scid,
                *part_msat,
                onion.final_cltv_delta,
            ),
        ],
        blinded_tail: None,
    };
    let paths: Vec<_> = parts_msat.iter().map(path).collect();
    let payee = PaymentParameters::from_node_id(world.recipient().id(), onion.final_cltv_delta);
    let params = RouteParameters::from_payment_params_and_value(payee, parts_msat.iter().sum());
    let route = Route { paths, route_params: Some(params) };
    let id = PaymentId(onion.fields.payment_secret.unwrap().0);
    payer.channel_manager().send_payment_with_route(route, onion.hash, onion.fields, id).unwrap();
}

// What the invoice must say.

/// LDK's own call has no place for a hint: without a channel, nobody can pay what it makes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ldks_own_invoice_names_no_way_to_a_wallet_without_a_channel() {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    let params = Bolt11InvoiceParameters { amount_msats: Some(AMOUNT_MSAT), ..Default::default() };
    let invoice = world.recipient().channel_manager().create_bolt11_invoice(params).unwrap();
    assert!(invoice.route_hints().is_empty());
    let error = world.payer().pay_invoice(&invoice, None).unwrap_err();
    assert!(error.to_string().contains("RouteNotFound"), "{error:#}");
    // The same payer finds the way over the lease.
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, None).unwrap();
    world.settled(from).await.unwrap();
    world.stop().await;
}

/// bLIP-52: the invoice asks for two blocks more, and the wallet does not insist on them. Two blocks
/// are mined while the channel opens, and the payer added none of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_mined_while_the_channel_opens_do_not_fail_the_payment() {
    let ended = paid_two_blocks_later(None).await;
    assert_eq!(ended, HtlcState::Claimed);
}

/// The trap: handed to `create_inbound_payment`, the invoice's delta is what LDK insists on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_delta_of_the_invoice_is_not_to_be_demanded_of_the_payment() {
    let ended = paid_two_blocks_later(Some(44)).await;
    assert_eq!(ended, HtlcState::Failed);
}

/// What becomes of a payment if the wallet hands this delta to LDK.
async fn paid_two_blocks_later(demanded: Option<u16>) -> HtlcState {
    let story = story(TrustModel::ClientTrustsLsp);
    let (mut world, lease) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    let terms = InvoiceTerms::for_lease(&lease, world.recipient().now()).unwrap();
    let (hash, secret, metadata) = world
        .recipient()
        .channel_manager()
        .create_inbound_payment(
            Some(AMOUNT_MSAT),
            3_600,
            demanded,
            Some(terms.payment_metadata.clone()),
        )
        .unwrap();
    let mut fields = RecipientOnionFields::secret_only(secret, AMOUNT_MSAT);
    fields.payment_metadata = metadata;
    let final_cltv_delta = terms.min_final_cltv_expiry_delta.into();
    world.lsp().hold_opens();
    let from = world.transcript.position();
    send_in_parts(&world, &lease, &[AMOUNT_MSAT], Onion { hash, fields, final_cltv_delta });
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await.unwrap();
    world.mine(2).await.unwrap();
    world.stop_lsp().await;
    world.start_lsp().await.unwrap();

    let ended = |e: &Entry| match &e.what {
        What::Htlc { state: HtlcState::Claimed, .. } if e.node == "recipient" => {
            Some(HtlcState::Claimed)
        }
        What::Htlc { state: HtlcState::Failed, .. } if e.node == "payer" => Some(HtlcState::Failed),
        _ => None,
    };
    let ended = world.transcript.wait_for(from, PATIENCE, ended).await.unwrap();
    let opened = world.transcript.since(from).iter().any(|e| channel_is(e, "ready", "recipient"));
    assert!(opened, "the channel was opened either way");
    world.stop().await;
    ended
}

/// The lease stands in the invoice, encrypted, and LDK derives the payment hash from it. A payer that
/// leaves it out, to help the LSP to a larger fee, is refused by LDK before the guard is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_that_leaves_the_lease_out_of_the_onion_is_refused_by_ldk() {
    let story = story(TrustModel::LspTrustsClient);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let clear = InvoiceTerms::for_lease(&lease, world.recipient().now()).unwrap().payment_metadata;
    let shown = invoice.payment_metadata().unwrap();
    assert!(shown.len() == clear.len() && *shown != clear, "LDK encrypts, to the same length");
    assert!(invoice.features().unwrap().requires_payment_metadata());

    let (from, before) = (world.transcript.position(), payers_money(&world));
    let mut onion = of_invoice(&invoice);
    onion.fields.payment_metadata = None;
    send_in_parts(&world, &lease, &[AMOUNT_MSAT], onion);
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let claimable = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Claimable, .. });
    assert!(!world.transcript.since(from).iter().any(claimable));
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    assert_eq!(world.recipient().leases()[0].state, LeaseState::Active);

    // The channel is there, and the fee is still owed: the honest payment pays it.
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, None).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    world.stop().await;
}

// What the guard and the desk do.

/// A payer strips the metadata, so the channel is there and nobody has paid for it: its LSP withholds
/// the funding. LDK's own invoice now leads over that channel, past the desk and its fee. Claimed, it
/// would give the preimage for a channel that may never be funded.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ldks_own_invoice_over_an_unfunded_channel_is_not_claimed() {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let from = world.transcript.position();
    let mut onion = of_invoice(&invoice);
    onion.fields.payment_metadata = None;
    send_in_parts(&world, &lease, &[AMOUNT_MSAT], onion);
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert!(world.chain.mempool().await.unwrap().is_empty(), "the funding is withheld");

    let (from, before) = (world.transcript.position(), payers_money(&world));
    let params = Bolt11InvoiceParameters { amount_msats: Some(40_000_000), ..Default::default() };
    let around = world.recipient().channel_manager().create_bolt11_invoice(params).unwrap();
    world.payer().pay_invoice(&around, None).unwrap();
    let reason = world.see_judgement(from).await.unwrap().expect_err("the recipient claimed it");
    assert_eq!(reason, "no fee, or not all of it, was taken over a channel that is not confirmed");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");

    // Over the lease the fee is paid, and the channel funded.
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, None).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    funding_came_at_its_time(&world, TrustModel::ClientTrustsLsp).await;
    world.stop().await;
}

/// A payer sends a part of its own making first: same hash, wrong secret. It must carry no share of the
/// fee, or the wallet would claim while the LSP still waits for the rest, with the funding withheld.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_with_a_wrong_secret_takes_no_share_of_the_fee_with_it() {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let from = world.transcript.position();
    let mut wrong = of_invoice(&invoice);
    wrong.fields.payment_secret = Some(PaymentSecret([7; 32]));
    wrong.fields.total_mpp_amount_msat = AMOUNT_MSAT - 1;
    send_in_parts(&world, &lease, &[AMOUNT_MSAT - 1], wrong);
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await.unwrap();
    send_in_parts(&world, &lease, &[AMOUNT_MSAT], of_invoice(&invoice));
    let claimed = world.see_htlc(from, "recipient", HtlcState::Claimed).await.unwrap();
    let What::Htlc { skimmed_fee_msat, .. } = claimed.what else { unreachable!() };
    assert_eq!(skimmed_fee_msat, FEE_MSAT);
    funding_came_at_its_time(&world, TrustModel::ClientTrustsLsp).await;
    world.stop().await;
}

/// A BOLT 11 payer sees the LSP's delta and need not keep to it: LDK checks 48 blocks, its own minimum,
/// for an HTLC that it intercepts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payer_of_an_invoice_can_leave_the_lsp_48_blocks_of_its_72() {
    let story = story(TrustModel::LspTrustsClient);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    assert_eq!(lease.cltv_expiry_delta, 72);
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let with_delta = |cltv_expiry_delta| Lease { cltv_expiry_delta, ..lease.clone() };
    let from = world.transcript.position();
    send_in_parts(&world, &with_delta(47), &[AMOUNT_MSAT], of_invoice(&invoice));
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let at_desk = |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Intercepted, .. });
    assert!(!world.transcript.since(from).iter().any(at_desk));
    let from = world.transcript.position();
    send_in_parts(&world, &with_delta(48), &[AMOUNT_MSAT], of_invoice(&invoice));
    world.settled(from).await.unwrap();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_that_skims_one_msat_more_from_an_invoice_gets_nothing() {
    let mut story = story(TrustModel::LspTrustsClient);
    story.lsp.conduct = Conduct::SkimsMore(1);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(100_000_000)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let (from, before) = (world.transcript.position(), payers_money(&world));
    world.payer().pay_invoice(&invoice, None).unwrap();
    let reason = world.see_judgement(from).await.unwrap().expect_err("the recipient claimed it");
    assert_eq!(reason, "2000001 msat were skimmed from 100000000 msat: 2000000 were agreed");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert_eq!(payers_money(&world), before, "the payer has everything back");
    assert_eq!(world.recipient().leases()[0].state, LeaseState::Active);
    world.stop().await;
}

/// LDK keeps no list of its invoices: this one is paid once more, over the channel, for no fee.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invoice_paid_twice_is_claimed_twice_for_one_fee() {
    let story = story(TrustModel::LspTrustsClient);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(100_000_000)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    for opening_fee_msat in [2_000_000, 0] {
        let from = world.transcript.position();
        world.payer().pay_invoice(&invoice, None).unwrap();
        let books = world.settled(from).await.unwrap();
        assert_eq!(books.opening_fee_msat, opening_fee_msat);
        assert_eq!(books.recipient_received_msat, 100_000_000 - opening_fee_msat);
    }
    assert_eq!(world.recipient().balances().channels.len(), 1);
    world.stop().await;
}

/// Once the channel is there, LDK's own invoice will do: it names the channel by its alias.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_first_payment_ldks_own_invoice_leads_over_the_channel() {
    let story = story(TrustModel::LspTrustsClient);
    let (world, lease) = world_with_lease(Chain::embedded(), story, Some(100_000_000)).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, None).unwrap();
    world.settled(from).await.unwrap();

    let params = Bolt11InvoiceParameters { amount_msats: Some(40_000_000), ..Default::default() };
    let invoice = world.recipient().channel_manager().create_bolt11_invoice(params).unwrap();
    let hop = invoice.route_hints()[0].0[0].clone();
    assert_eq!(hop.src_node_id, world.lsp().id());
    assert_ne!(hop.short_channel_id, lease.id.intercept_scid);
    assert_eq!(hop.fees.base_msat, 0, "this LSP forwards over JIT channels for nothing");
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, None).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!((books.opening_fee_msat, books.recipient_received_msat), (0, 40_000_000));
    let intercepted =
        |e: &Entry| matches!(e.what, What::Htlc { state: HtlcState::Intercepted, .. });
    assert!(!world.transcript.since(from).iter().any(intercepted));
    world.stop().await;
}

/// A BOLT 11 hint names no smallest HTLC, and no path enforces one: dust reaches the LSP's event
/// loop. LDK's LSPS2 would retire the SCID; the desk fails the HTLC and keeps the lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dust_on_an_invoice_without_an_amount_does_not_retire_the_lease() {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, lease) = world_with_lease(Chain::embedded(), story, None).await;
    let invoice = world.recipient().jit_invoice(&lease, HOUR).unwrap();
    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, Some(1_000)).unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let refused = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert_eq!(reason.unwrap(), "1000 msat is less than the 10000000 msat this lease needs");

    let from = world.transcript.position();
    world.payer().pay_invoice(&invoice, Some(100_000_000)).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.stop().await;
}

// What the LSP refuses to sell.

/// A client that does not look before it buys: the LSP's answers, over the wire.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lsp_refuses_sizes_it_does_not_serve_and_terms_it_did_not_promise() {
    let mut world =
        World::new(Chain::embedded(), story(TrustModel::LspTrustsClient)).await.unwrap();
    world.start_recipient().await.unwrap();
    let offered = menu(&world).await;
    let (least, most) = (offered.min_payment_size_msat, offered.max_payment_size_msat);
    assert_eq!((least, most), (10_000_000, 2_000_000_000));
    assert_eq!(refused(&world, Some(least - 1), offered.clone()).await, 202);
    assert_eq!(refused(&world, Some(most + 1), offered.clone()).await, 203);

    // Terms of another make, and terms of the LSP's own make that have run out.
    let cheaper = LSPS2OpeningFeeParams { min_fee_msat: 1, ..offered.clone() };
    assert_eq!(refused(&world, None, cheaper).await, 201);
    let stale = LSPS2OpeningFeeParams {
        valid_until: "2020-01-01T00:00:00Z".parse::<LSPSDateTime>().unwrap(),
        ..offered.clone()
    };
    let stale = LSPS2OpeningFeeParams { promise: promise(&world, &stale), ..stale };
    assert_eq!(refused(&world, None, stale).await, 201);

    let again = LSPS2OpeningFeeParams { promise: promise(&world, &offered), ..offered.clone() };
    assert_eq!(again, offered, "the test makes the promises the LSP makes");
    world.stop().await;
}

/// The only entry of the LSP's menu.
async fn menu(world: &World) -> LSPS2OpeningFeeParams {
    let from = world.transcript.position();
    let client = world.recipient().liquidity().lsps2_client_handler().unwrap();
    client.request_opening_params(world.lsp().id(), None);
    let menu = |e: &Entry| match &e.what {
        What::Lsps { json, .. } if e.node == "recipient" => {
            json["result"]["opening_fee_params_menu"].as_array().cloned()
        }
        _ => None,
    };
    let mut menu = world.transcript.wait_for(from, PATIENCE, menu).await.unwrap();
    serde_json::from_value(menu.remove(0)).unwrap()
}

/// The code of the error that the LSP answers `lsps2.buy` with.
async fn refused(world: &World, size_msat: Option<u64>, params: LSPS2OpeningFeeParams) -> i64 {
    let from = world.transcript.position();
    let client = world.recipient().liquidity().lsps2_client_handler().unwrap();
    client.select_opening_params(world.lsp().id(), size_msat, params).unwrap();
    let answer = |e: &Entry| match &e.what {
        What::Lsps { json, .. } if e.node == "recipient" => Some(json.clone()),
        _ => None,
    };
    let answer = world.transcript.wait_for(from, PATIENCE, answer).await.unwrap();
    answer["error"]["code"].as_i64().unwrap_or_else(|| panic!("{answer}"))
}

/// What LDK's LSP signs: an HMAC over the client's id and every field, in hex.
fn promise(world: &World, params: &LSPS2OpeningFeeParams) -> String {
    let secret = world.node_config("lsp").data_dir.join("promise_secret");
    let mut hmac = HmacEngine::<sha256::Hash>::new(&std::fs::read(secret).unwrap());
    hmac.input(&world.recipient().id().serialize());
    hmac.input(&params.min_fee_msat.to_be_bytes());
    hmac.input(&params.proportional.to_be_bytes());
    hmac.input(params.valid_until.to_rfc3339().as_bytes());
    hmac.input(&params.min_lifetime.to_be_bytes());
    hmac.input(&params.max_client_to_self_delay.to_be_bytes());
    hmac.input(&params.min_payment_size_msat.to_be_bytes());
    hmac.input(&params.max_payment_size_msat.to_be_bytes());
    Hmac::from_engine(hmac).to_string()
}

// The same wallet with an ordinary BOLT 12 offer.

/// No static invoice and no server: the wallet answers the invoice request itself, over the intercept
/// SCID, because its router builds that path for `PaymentContext::Bolt12Offer` too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ordinary_offer_of_an_online_wallet_is_paid_over_a_jit_channel() {
    let story = story(TrustModel::ClientTrustsLsp);
    let (world, _) = world_with_lease(Chain::embedded(), story, Some(AMOUNT_MSAT)).await;
    let offer = world.recipient().channel_manager().create_offer_builder().unwrap();
    let offer = offer.amount_msats(AMOUNT_MSAT).build().unwrap();
    assert_eq!(introduction_node(&world, &offer), world.lsp().id().into(), "asked through the LSP");
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT).unwrap();
    let books = world.settled(from).await.unwrap();
    assert_eq!(books.opening_fee_msat, FEE_MSAT);
    assert_eq!(books.recipient_received_msat, AMOUNT_MSAT - FEE_MSAT);
    let entries = world.transcript.since(from);
    assert!(entries.iter().any(|e| e.node == "payer" && is_onion(e, "invoice")));
    assert!(!entries.iter().any(|e| is_onion(e, "static_invoice")));
    world.see_htlc(from, "lsp", HtlcState::Intercepted).await.unwrap();
    assert_eq!(invoice_of_the_receipt(&world, from).await, "invoice");
    world.stop().await;
}

/// Through whom a payer asks. LDK names the node by a public channel of it and its side of that, or, as
/// long as the wallet has heard of no such channel, by its id.
fn introduction_node(world: &World, offer: &Offer) -> NodeId {
    match offer.paths()[0].introduction_node() {
        IntroductionNode::NodeId(id) => (*id).into(),
        IntroductionNode::DirectedShortChannelId(side, scid) => {
            let channels = world.lsp().channel_manager().list_channels();
            assert!(channels.iter().any(|channel| channel.short_channel_id == Some(*scid)));
            side.select_node_id(world.lsp().id().into(), world.payer_lsp.id().into())
        }
    }
}

/// The payer of a static invoice chose the preimage itself: LDK hands it nothing to prove with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_receipt_of_an_async_payment_is_a_static_invoice() {
    let mut world =
        World::new(Chain::embedded(), story(TrustModel::LspTrustsClient)).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let from = world.transcript.position();
    world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(invoice_of_the_receipt(&world, from).await, "static_invoice");
    world.stop().await;
}

/// Which kind of BOLT 12 invoice LDK hands the payer with the preimage; `null` for BOLT 11.
async fn invoice_of_the_receipt(world: &World, from: u64) -> serde_json::Value {
    let receipt = |e: &Entry| match &e.what {
        What::Event { name, detail } if e.node == "payer" && name == "PaymentSent" => {
            Some(detail["bolt12_invoice"].clone())
        }
        _ => None,
    };
    world.transcript.wait_for(from, PATIENCE, receipt).await.unwrap()
}
