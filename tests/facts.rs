//! Numbers and small facts of this LDK version that pages state: each held by the code itself.

use crate::money::probe;
use bitcoin::hashes::hmac::{Hmac, HmacEngine};
use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use guide::world::{Story, World};
use lightning::blinded_path::message::{
    AsyncPaymentsContext, BlindedMessagePath, MessageContext, MessageForwardNode,
};
use lightning::chain::channelmonitor::{ANTI_REORG_DELAY, HTLC_FAIL_BACK_BUFFER};
use lightning::io::Cursor;
use lightning::ln::channelmanager::{
    BREAKDOWN_TIMEOUT, MIN_CLTV_EXPIRY_DELTA, MIN_FINAL_CLTV_EXPIRY_DELTA, PaymentId,
};
use lightning::ln::msgs::{OnionPacket, RevokeAndACK, UpdateAddHTLC};
use lightning::ln::types::ChannelId;
use lightning::ln::wire::Type;
use lightning::offers::flow::MAX_STATIC_INVOICE_SIZE_BYTES;
use lightning::offers::offer::Offer;
use lightning::onion_message::async_payments::{
    AsyncPaymentsMessage, HeldHtlcAvailable, OfferPaths, OfferPathsRequest, ReleaseHeldHtlc,
    StaticInvoicePersisted,
};
use lightning::onion_message::offers::OffersMessage;
use lightning::onion_message::packet::OnionMessageContents;
use lightning::routing::router::{
    DEFAULT_MAX_PATH_COUNT, DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA, DEFAULT_PAYMENT_DUMMY_HOPS,
};
use lightning::sign::{RandomBytes, ReceiveAuthKey};
use lightning::types::features::InitFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::config::UserConfig;
use lightning::util::ser::{BigSize, Readable, Writeable};
use lightning_liquidity::events::MAX_EVENT_QUEUE_SIZE;
use lightning_liquidity::lsps0::ser::{LSPS_MESSAGE_TYPE_ID, LSPSDateTime, RawLSPSMessage};
use lightning_liquidity::lsps2::msgs::{
    LSPS2BuyRequest, LSPS2BuyResponse, LSPS2GetInfoRequest, LSPS2InterceptScid,
    LSPS2OpeningFeeParams,
};
use lightning_liquidity::lsps2::utils::{compute_opening_fee, is_valid_opening_fee_params};
use lightning_liquidity::lsps5::service::{
    DEFAULT_MAX_WEBHOOKS_PER_CLIENT, NOTIFICATION_COOLDOWN_TIME,
};
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::decision::{CLIENT_NEEDS_BLOCKS, LEAST_BLOCKS_TO_OPEN};
use lsps2_async::lsp::mailbox::MailboxLimits;
use lsps2_async::lsp::static_invoices::{MAX_STATIC_INVOICE_BYTES, ServerLimits};
use lsps2_async::payer::PayerMode;
use node::transcript::{Entry, HtlcState, What};
use regtest::Chain;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

fn node_id(seed: u8) -> PublicKey {
    PublicKey::from_secret_key(&Secp256k1::new(), &SecretKey::from_slice(&[seed; 32]).unwrap())
}

/// The TLV stream that follows a message's fixed fields: type and length of each record.
fn tlvs(message: &impl Writeable, fixed_bytes: usize) -> Vec<(u64, u64)> {
    let bytes = message.encode();
    let mut rest = Cursor::new(&bytes[fixed_bytes..]);
    let end = (bytes.len() - fixed_bytes) as u64;
    let mut records = Vec::new();
    while rest.position() < end {
        let kind: BigSize = Readable::read(&mut rest).unwrap();
        let length: BigSize = Readable::read(&mut rest).unwrap();
        rest.set_position(rest.position() + length.0);
        records.push((kind.0, length.0));
    }
    records
}

fn update_add_htlc() -> UpdateAddHTLC {
    UpdateAddHTLC {
        channel_id: ChannelId([0; 32]),
        htlc_id: 0,
        amount_msat: 1,
        payment_hash: PaymentHash([0; 32]),
        cltv_expiry: 1,
        skimmed_fee_msat: None,
        onion_routing_packet: OnionPacket {
            version: 0,
            public_key: Ok(node_id(1)),
            hop_data: [0; 1300],
            hmac: [0; 32],
        },
        blinding_point: None,
        hold_htlc: None,
        accountable: None,
    }
}

/// Channel id, HTLC id, amount, hash, expiry, onion.
const UPDATE_ADD_HTLC_FIXED: usize = 32 + 8 + 8 + 32 + 4 + 1366;

#[test]
fn a_held_htlc_and_a_skimmed_fee_are_two_odd_tlvs_of_update_add_htlc() {
    let mut htlc = update_add_htlc();
    assert_eq!(tlvs(&htlc, UPDATE_ADD_HTLC_FIXED), []);
    htlc.skimmed_fee_msat = Some(2_000_000);
    assert_eq!(tlvs(&htlc, UPDATE_ADD_HTLC_FIXED), [(65_537, 8)]);
    htlc.hold_htlc = Some(());
    assert_eq!(tlvs(&htlc, UPDATE_ADD_HTLC_FIXED), [(65_537, 8), (75_537, 0)]);
}

fn message_path() -> BlindedMessagePath {
    let context = AsyncPaymentsContext::OutboundPayment { payment_id: PaymentId([0; 32]) };
    let hop = MessageForwardNode { node_id: node_id(2), short_channel_id: None };
    BlindedMessagePath::new(
        &[hop],
        node_id(3),
        ReceiveAuthKey([4; 32]),
        MessageContext::AsyncPayments(context),
        false,
        RandomBytes::new([5; 32]),
        &Secp256k1::new(),
    )
}

#[test]
fn the_release_path_of_a_held_htlc_is_an_odd_tlv_of_revoke_and_ack() {
    let message = |paths| RevokeAndACK {
        channel_id: ChannelId([0; 32]),
        per_commitment_secret: [1; 32],
        next_per_commitment_point: node_id(1),
        release_htlc_message_paths: paths,
    };
    const FIXED: usize = 32 + 32 + 33;
    assert_eq!(tlvs(&message(Vec::new()), FIXED), []);
    let with_path = tlvs(&message(vec![(0, message_path())]), FIXED);
    assert_eq!(with_path.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [75_537]);
}

#[test]
fn the_async_payments_messages_have_these_types() {
    use AsyncPaymentsMessage as Message;
    let paths = OfferPaths { paths: Vec::new(), paths_absolute_expiry: None };
    let types = [
        Message::OfferPathsRequest(OfferPathsRequest { invoice_slot: 0 }),
        Message::OfferPaths(paths),
        Message::StaticInvoicePersisted(StaticInvoicePersisted {}),
        Message::HeldHtlcAvailable(HeldHtlcAvailable {}),
        Message::ReleaseHeldHtlc(ReleaseHeldHtlc {}),
    ]
    .map(|message| message.tlv_type());
    assert_eq!(types, [75_540, 75_542, 75_546, 72, 74]);
    // `serve_static_invoice` needs a signed invoice: that its type is taken is what is held here.
    assert!(AsyncPaymentsMessage::is_known_type(75_544));
}

#[test]
fn the_offers_messages_have_the_types_of_bolt_12_and_70() {
    let known: Vec<_> = (0..100).filter(|kind| OffersMessage::is_known_type(*kind)).collect();
    assert_eq!(known, [64, 66, 68, 70]);
}

/// Whether a bit is set in a feature vector.
fn has_bit(features: &InitFeatures, bit: usize) -> bool {
    features.le_flags().get(bit / 8).is_some_and(|byte| byte >> (bit % 8) & 1 == 1)
}

#[test]
fn the_hold_feature_is_bit_152_or_153() {
    let mut features = InitFeatures::empty();
    features.set_htlc_hold_optional();
    assert!(has_bit(&features, 153) && !has_bit(&features, 152));
    let mut features = InitFeatures::empty();
    features.set_htlc_hold_required();
    assert!(has_bit(&features, 152));
}

#[test]
fn lsps_messages_are_bolt_8_messages_37913_without_a_length() {
    let message = RawLSPSMessage { payload: "{}".to_owned() };
    assert_eq!((message.type_id(), LSPS_MESSAGE_TYPE_ID), (37_913, 37_913));
    assert_eq!(message.encode(), b"{}");
}

#[test]
fn ldks_public_limits_are_these() {
    assert_eq!(MIN_CLTV_EXPIRY_DELTA, 48);
    assert_eq!(HTLC_FAIL_BACK_BUFFER, 39);
    assert_eq!(u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA), HTLC_FAIL_BACK_BUFFER + 3);
    assert_eq!(MIN_FINAL_CLTV_EXPIRY_DELTA, 42);
    assert_eq!(BREAKDOWN_TIMEOUT, 144);
    assert_eq!(ANTI_REORG_DELAY, 6);
    assert_eq!(DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA, 1_008);
    assert_eq!(DEFAULT_MAX_PATH_COUNT, 10);
    assert_eq!(DEFAULT_PAYMENT_DUMMY_HOPS, 3);
    assert_eq!(MAX_STATIC_INVOICE_SIZE_BYTES, 5_120);
    assert_eq!(MAX_EVENT_QUEUE_SIZE, 1_000);
    assert_eq!(DEFAULT_MAX_WEBHOOKS_PER_CLIENT, 10);
    assert_eq!(NOTIFICATION_COOLDOWN_TIME, Duration::from_secs(60));
}

#[test]
fn our_limits_stay_within_ldks() {
    assert_eq!(MAX_STATIC_INVOICE_BYTES, MAX_STATIC_INVOICE_SIZE_BYTES);
    // LDK's recipients use ten slots of the 65 536 that the wire has.
    assert_eq!(ServerLimits::default().slots, 10);
    assert_eq!(ServerLimits::default().recipient_id_bytes, 64);
    let mailbox = MailboxLimits::default();
    // LDK gives up an async payment after seven days.
    assert_eq!(mailbox.time_to_live, Duration::from_secs(7 * 24 * 60 * 60));
    assert_eq!((mailbox.messages_per_peer, mailbox.deliveries), (30, 3));
    // LDK's recipient refuses an HTLC that expires within one block more than its buffer.
    assert_eq!(CLIENT_NEEDS_BLOCKS, HTLC_FAIL_BACK_BUFFER + 2);
    assert_eq!(LEAST_BLOCKS_TO_OPEN, 42);
}

#[test]
fn ldks_defaults_are_these() {
    let config = UserConfig::default();
    assert_eq!(config.htlc_interception_flags, 0);
    assert!(!config.accept_forwards_to_priv_channels);
    assert!(!config.enable_htlc_hold && !config.hold_outbound_htlcs_at_next_hop);
    let channel = config.channel_config;
    assert!(!channel.accept_underpaying_htlcs);
    assert_eq!(channel.forwarding_fee_base_msat, 1_000);
    assert_eq!(channel.forwarding_fee_proportional_millionths, 0);
    assert_eq!(channel.cltv_expiry_delta, 72);
    let handshake = config.channel_handshake_config;
    assert_eq!(handshake.our_to_self_delay, 144);
    assert_eq!(handshake.our_max_accepted_htlcs, 50);
    assert_eq!(handshake.unannounced_channel_max_inbound_htlc_value_in_flight_percentage, 100);
    assert_eq!(handshake.announced_channel_max_inbound_htlc_value_in_flight_percentage, 25);
    assert!(config.channel_handshake_limits.trust_own_funding_0conf);
    assert_eq!(config.channel_handshake_limits.their_to_self_delay, 2_016);
}

// LSPS2 as JSON.

fn terms() -> Value {
    json!({
        "min_fee_msat": "546000",
        "proportional": 1200,
        "valid_until": "2035-02-23T08:47:30.000Z",
        "min_lifetime": 1008,
        "max_client_to_self_delay": 2016,
        "min_payment_size_msat": "1000",
        "max_payment_size_msat": "1000000",
        "promise": "abcdefghijklmnopqrstuvwxyz"
    })
}

fn read_terms(json: Value) -> LSPS2OpeningFeeParams {
    serde_json::from_value(json).unwrap()
}

#[test]
fn amounts_are_strings_and_counts_are_numbers() {
    assert_eq!(read_terms(terms()).max_payment_size_msat, 1_000_000);
    let written = serde_json::to_value(read_terms(terms())).unwrap();
    for amount in ["min_fee_msat", "min_payment_size_msat", "max_payment_size_msat"] {
        assert!(written[amount].is_string(), "{amount}");
        let mut wrong = terms();
        wrong[amount] = json!(1_000);
        assert!(serde_json::from_value::<LSPS2OpeningFeeParams>(wrong).is_err(), "{amount}");
    }
    for count in ["proportional", "min_lifetime", "max_client_to_self_delay"] {
        assert!(written[count].is_number(), "{count}");
    }
    let buy = LSPS2BuyRequest {
        opening_fee_params: read_terms(terms()),
        payment_size_msat: Some(1_000_000),
    };
    assert_eq!(serde_json::to_value(&buy).unwrap()["payment_size_msat"], "1000000");
    let any_size = LSPS2BuyRequest { payment_size_msat: None, ..buy };
    assert!(serde_json::to_value(&any_size).unwrap().get("payment_size_msat").is_none());
}

/// A client copies the terms it chose; LDK reads and writes them instead. An LSP that compares the
/// text of the date, or has a field LDK does not know, gets something else back.
#[test]
fn ldks_client_does_not_send_the_terms_back_verbatim() {
    let written = serde_json::to_value(read_terms(terms())).unwrap();
    assert_eq!(terms()["valid_until"], "2035-02-23T08:47:30.000Z");
    assert_eq!(written["valid_until"], "2035-02-23T08:47:30Z", "the milliseconds are gone");
    let mut more = terms();
    more["ongoing_proportional"] = json!(7);
    let written = serde_json::to_value(read_terms(more)).unwrap();
    assert!(written.get("ongoing_proportional").is_none(), "the unknown field is gone");
}

#[test]
fn a_date_is_written_without_the_milliseconds_that_blip_50_shows() {
    let date = LSPSDateTime::new_from_duration_since_epoch(Duration::from_secs(1_800_000_000));
    assert_eq!(serde_json::to_value(date).unwrap(), "2027-01-15T08:00:00Z");
    // The promise covers another form of the same date.
    assert_eq!(date.to_rfc3339(), "2027-01-15T08:00:00+00:00");
    for before_1970_or_no_date in ["1969-12-31T23:59:59Z", "tomorrow", "2027-01-15"] {
        assert!(before_1970_or_no_date.parse::<LSPSDateTime>().is_err());
    }
}

#[test]
fn an_absent_token_is_null_and_an_absent_trust_flag_is_false() {
    let ask = LSPS2GetInfoRequest { token: None };
    assert_eq!(serde_json::to_value(ask).unwrap(), json!({ "token": null }));
    let read = |json| serde_json::from_value::<LSPS2BuyResponse>(json).unwrap();
    let answer = json!({ "jit_channel_scid": "29451x4815x1", "lsp_cltv_expiry_delta": 144 });
    assert!(!read(answer).client_trusts_lsp);
}

#[test]
fn an_scid_is_block_transaction_and_output() {
    let scid = 29_451 << 40 | 4_815 << 16 | 1;
    let name = LSPS2InterceptScid::from(scid);
    assert_eq!(serde_json::to_value(&name).unwrap(), "29451x4815x1");
    assert_eq!(name.to_scid(), Ok(scid));
    let nonsense: LSPS2InterceptScid = serde_json::from_value(json!("29451-4815-1")).unwrap();
    assert_eq!(nonsense.to_scid(), Err(()));
}

/// bLIP-52's pseudo-code divides by ten million; its C and Rust functions, and LDK, by one million.
#[test]
fn the_fee_is_in_millionths_and_rounded_up() {
    assert_eq!(compute_opening_fee(100_000_000, 0, 10_000), Some(1_000_000), "1 %");
    assert_eq!(compute_opening_fee(100_000_001, 0, 10_000), Some(1_000_001), "rounded up");
    assert_eq!(compute_opening_fee(100_000_000, 2_000_000, 10_000), Some(2_000_000), "the minimum");
    assert_eq!(compute_opening_fee(u64::MAX, 0, 2), None, "an overflow");
}

fn promised(secret: &[u8; 32], client: &PublicKey) -> LSPS2OpeningFeeParams {
    let mut terms = read_terms(terms());
    let mut hmac = HmacEngine::<sha256::Hash>::new(secret);
    hmac.input(&client.serialize());
    hmac.input(&terms.min_fee_msat.to_be_bytes());
    hmac.input(&terms.proportional.to_be_bytes());
    hmac.input(terms.valid_until.to_rfc3339().as_bytes());
    hmac.input(&terms.min_lifetime.to_be_bytes());
    hmac.input(&terms.max_client_to_self_delay.to_be_bytes());
    hmac.input(&terms.min_payment_size_msat.to_be_bytes());
    hmac.input(&terms.max_payment_size_msat.to_be_bytes());
    terms.promise = Hmac::from_engine(hmac).to_string();
    terms
}

#[test]
fn a_promise_holds_for_one_client_under_one_secret_with_these_terms() {
    let (secret, client) = ([7; 32], node_id(1));
    let terms = promised(&secret, &client);
    assert_eq!(terms.promise.len(), 64);
    assert!(is_valid_opening_fee_params(&terms, &secret, &client));
    assert!(!is_valid_opening_fee_params(&terms, &[8; 32], &client), "another secret");
    assert!(!is_valid_opening_fee_params(&terms, &secret, &node_id(2)), "another client");
    let cheaper = LSPS2OpeningFeeParams { min_fee_msat: 1, ..terms };
    assert!(!is_valid_opening_fee_params(&cheaper, &secret, &client), "other terms");
}

// What nodes say of themselves.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_lsp_says_in_init_that_it_sells_and_the_payers_lsp_that_it_holds() {
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let world = World::new(Chain::embedded(), story).await.unwrap();
    let features_of = |peer| {
        let channels = world.payer_lsp.channel_manager().list_channels_with_counterparty(&peer);
        channels.first().expect("a channel").counterparty.features.clone()
    };
    let (lsp, payer) = (features_of(world.lsp().id()), features_of(world.payer().id()));
    assert!(has_bit(&lsp, 729), "option_supports_lsps");
    assert!(!has_bit(&payer, 729) && !has_bit(&payer, 153), "a payer sells and holds nothing");
    assert!(!has_bit(&lsp, 152) && !has_bit(&lsp, 153), "the recipient's LSP holds nothing");
    let at_payer =
        world.payer().channel_manager().list_channels_with_counterparty(&world.payer_lsp.id());
    let payer_lsp = &at_payer.first().expect("a channel").counterparty.features;
    assert!(has_bit(payer_lsp, 153) && !has_bit(payer_lsp, 152));
    world.stop().await;
}

// How long a payment can be held.

/// LDK's default on the payer's LSP, and what the recipient's LSP asks for in these worlds.
const FORWARDING_DELTAS: u32 = 72 + 72;
const EXTRA: u16 = 144;

/// A payment that waits at the payer's LSP.
struct Held {
    world: World,
    offer: Offer,
    from: u64,
    /// The height at which it was sent.
    height: u32,
    /// The height at which its HTLC would expire at the recipient.
    at_recipient: u32,
}

async fn held_payment(extra_final_cltv_delta: u16) -> Held {
    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    story.recipient.paths.extra_final_cltv_delta = extra_final_cltv_delta;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let (from, height) = (world.transcript.position(), world.chain.height().await.unwrap());
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    let channels = world.payer().channel_manager().list_channels();
    let [htlc] = &channels[0].pending_outbound_htlcs[..] else { panic!("{channels:?}") };
    let at_recipient = htlc.cltv_expiry - FORWARDING_DELTAS;
    Held { world, offer, from, height, at_recipient }
}

async fn mine_to(world: &World, height: u32) {
    let now = world.chain.height().await.unwrap();
    world.mine(height - now).await.unwrap();
}

/// The shadow offset is random: what is certain is what the path adds, and three blocks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_can_be_held_until_the_lsp_keeps_42_blocks() {
    let Held { mut world, from, height, at_recipient, .. } = held_payment(EXTRA).await;
    let last = at_recipient - LEAST_BLOCKS_TO_OPEN;
    assert!(last - height >= u32::from(EXTRA) + 3, "{height} {at_recipient}");
    assert!(last - height <= u32::from(EXTRA) + 3 + 3 * 144, "{height} {at_recipient}");
    mine_to(&world, last).await;
    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.recipient_received_msat, 98_000_000);
    world.stop().await;
}

/// The LSP looks at what is left of an HTLC's time before it opens a channel, and keeps a block for the
/// opening. The payment is back at once, and the lease as it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_block_later_the_payment_is_back_with_the_payer() {
    let Held { mut world, offer, from, at_recipient, .. } = held_payment(0).await;
    mine_to(&world, at_recipient - LEAST_BLOCKS_TO_OPEN + 1).await;
    world.start_recipient().await.unwrap();
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    let refused = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert_eq!(reason.unwrap(), "41 blocks are left, and 42 are needed to open a channel");
    assert!(world.recipient().balances().channels.is_empty(), "a channel was opened for nothing");
    assert!(world.chain.mempool().await.unwrap().is_empty());
    world.stop_recipient().await;
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000);
    world.stop().await;
}

/// Nobody comes: the payer's LSP gives the HTLC back 39 blocks before it would have had to forward
/// it, without any event for its application.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_htlc_is_failed_39_blocks_before_its_outgoing_expiry() {
    let Held { world, offer, from, at_recipient, .. } = held_payment(0).await;
    let payer_lsp = world.payer_lsp.channel_manager();
    let [first] = &payer_lsp.list_channels_with_counterparty(&world.payer().id())[..] else {
        panic!("one channel")
    };
    let first = first.pending_inbound_htlcs[0].payment_hash;
    // LDK commits a second HTLC on the channel only after it has written down the first.
    let then = world.transcript.position();
    world.payer().pay(&offer, 50_000_000).unwrap();
    let both = || world.payer_lsp.locked_htlcs_from(&world.payer().id()) == 2;
    world.see(then, |e| matches!(e.what, What::Wire { .. }) && both()).await.unwrap();
    // Without this call the first would be parked some 50 ms later, which may be after all the
    // blocks. No event says that it is parked.
    payer_lsp.process_pending_htlc_forwards();

    let last = at_recipient + 72 - HTLC_FAIL_BACK_BUFFER - 1;
    mine_to(&world, last).await;
    let failed = |e: &Entry| match &e.what {
        What::Htlc { state: HtlcState::Failed, payment_hash, .. } => {
            e.node == "payer" && *payment_hash == Some(first.to_string())
        }
        _ => false,
    };
    assert!(!world.transcript.since(from).iter().any(failed), "it is still held");
    mine_to(&world, last + 1).await;
    world.see(from, failed).await.unwrap();
    world.stop().await;
}

/// Who fetched an invoice can send an HTLC with a hash of its own to the intercept SCID, without any
/// hold or release. While the wallet is away that costs the LSP nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_with_a_random_hash_opens_nothing_while_the_client_is_away() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::LspTrustsClient);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let invoice = world.lsp().static_invoice(b"alice", 0).await.unwrap();
    world.stop_recipient().await;
    let from = world.transcript.position();
    probe(&world, invoice.payment_paths(), 100_000_000).await;
    let refused = world.see_htlc(from, "lsp", HtlcState::Failed).await.unwrap();
    let What::Htlc { reason, .. } = refused.what else { unreachable!() };
    assert_eq!(reason.unwrap(), "the client is not connected");
    world.see_htlc(from, "payer", HtlcState::Failed).await.unwrap();
    assert!(world.chain.mempool().await.unwrap().is_empty(), "no channel was funded");
    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.opening_fee_msat, 2_000_000, "and the lease is as it was");
    world.stop().await;
}

/// A route has 1 008 blocks in all, and LDK keeps 80 of them for the random offset. 188 are the deltas
/// of these worlds; the rest a path may add.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_path_may_add_740_blocks_and_no_more() {
    let most = DEFAULT_MAX_TOTAL_CLTV_EXPIRY_DELTA - FORWARDING_DELTAS - 44 - 80;
    assert_eq!(most, 740);
    let held = held_payment(740).await;
    held.world.stop().await;

    let mut story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    story.recipient.paths.extra_final_cltv_delta = 741;
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    world.stop_recipient().await;
    let error = world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap_err();
    assert!(error.to_string().contains("no way to the recipient worked"), "{error:#}");
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_static_invoice_of_one_path_travels_in_a_large_onion_message() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let invoice = world.lsp().static_invoice(b"alice", 0).await.unwrap();
    assert_eq!(invoice.payment_paths().len(), 1);
    let bytes = invoice.serialized_length();
    assert!((1_350..1_500).contains(&bytes), "{bytes}");
    let characters = offer.to_string().len();
    assert!((320..450).contains(&characters), "{characters}");
    world.stop_recipient().await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    let sizes: BTreeSet<_> = world
        .transcript
        .since(from)
        .iter()
        .filter_map(|e| match &e.what {
            What::Wire { message, bytes, .. } if message == "onion_message" => Some(*bytes),
            _ => None,
        })
        .collect();
    // A message of up to 1 300 bytes of hops, and one of more, each with 101 bytes around them.
    assert_eq!(sizes, BTreeSet::from([1_401, 32_869]));
    world.stop().await;
}
