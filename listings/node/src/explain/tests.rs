use super::sheet::{Sheet, note};
use super::*;
use bitcoin::Network;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning::blinded_path::payment::{
    AsyncBolt12OfferContext, BlindedPaymentPath, PaymentConstraints, PaymentContext, ReceiveTlvs,
};
use lightning::ln::inbound_payment;
use lightning::ln::msgs::UpdateAddHTLC;
use lightning::ln::onion_utils::create_payment_onion;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::ln::types::ChannelId;
use lightning::offers::nonce::Nonce;
use lightning::routing::gossip::{NetworkGraph, NodeId};
use lightning::routing::router::{BlindedTail, DefaultRouter, Path, RouteHop, Router};
use lightning::routing::scoring::ProbabilisticScorer;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::Writeable;
use lsps2_async::metadata::LeaseMetadata;
use serde_json::json;
use std::sync::{Arc, RwLock};

#[test]
fn a_field_that_is_not_there_is_an_error() {
    let bytes = [1, 0, 2];
    let mut sheet = Sheet::new(&bytes);
    sheet.take(&1u8, note("one")).unwrap();
    let error = sheet.take(&3u16, note("three")).unwrap_err();
    assert_eq!(error.to_string(), "this is no three, at byte 1");
    sheet.take(&2u16, note("two")).unwrap();
    let explained = sheet.end("numbers").unwrap();
    let places: Vec<_> = explained.fields.iter().map(|field| (field.at, field.len)).collect();
    assert_eq!((places, &*explained.bytes), (vec![(0, 1), (1, 2)], "010002"));
}

#[test]
fn bytes_that_nobody_explains_are_an_error() {
    let mut sheet = Sheet::new(&[1, 0, 2]);
    sheet.take(&1u8, note("one")).unwrap();
    let error = sheet.end("numbers").unwrap_err();
    assert_eq!(error.to_string(), "2 bytes of numbers are left over, at byte 1");
}

#[test]
fn a_record_is_its_type_its_length_and_its_value() {
    let stream = [2, 1, 9, 4, 2, 7, 8];
    let mut sheet = Sheet::new(&stream);
    assert_eq!(sheet.types(), [2, 4]);
    sheet.tlv(2, &[9], note("small")).unwrap();
    assert!(sheet.tlv(4, &[7], note("cut off")).is_err());
    let mut sheet = Sheet::new(&stream);
    assert!(sheet.tlv(4, &[7, 8], note("too early")).is_err());
    sheet.tlv(2, &[9], note("small")).unwrap();
    sheet
        .record(4, note("large"), |sheet| {
            sheet.take(&7u8, note("seven"))?;
            sheet.take(&8u8, note("eight"))
        })
        .unwrap();
    let explained = sheet.end("stream").unwrap();
    let told: Vec<_> = explained.fields.iter().map(|f| (&*f.name, f.at, f.len, f.depth)).collect();
    let expected = [
        ("small", 0, 3, 0),
        ("type", 0, 1, 1),
        ("length", 1, 1, 1),
        ("value", 2, 1, 1),
        ("large", 3, 4, 0),
        ("type", 3, 1, 1),
        ("length", 4, 1, 1),
        ("seven", 5, 1, 1),
        ("eight", 6, 1, 1),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_record_that_is_cut_off_is_an_error() {
    for stream in [&[2][..], &[2, 5, 1], &[0xfd], &[2, 0xff, 1, 1, 1, 1, 1, 1, 1, 1]] {
        assert!(Sheet::new(stream).peek().is_err(), "{stream:?}");
    }
}

fn lsps(text: &str) -> Entry {
    let json = serde_json::from_str(text).unwrap_or_default();
    let (peer, content) = ("b".to_owned(), Some(text.to_owned()));
    let what = What::Lsps { peer, json, bytes: text.len(), content };
    Entry { seq: 0, at_ms: 0, node: "a".to_owned(), what }
}

/// Names in it that look like members, spaces, and escapes, do not move a range.
#[test]
fn members_are_found_in_json_that_others_write() {
    let text = concat!(
        r#" { "id" : "a\"id\": ü" , "list":[ 1, {"x" :[]} ],"#,
        r#""result":{"jit_channel_scid":"1x2x3","lsp_cltv_expiry_delta":144,"#,
        r#""client_trusts_lsp":false}} "#
    );
    let layers = explain(&lsps(text), &Transcript::new()).unwrap();
    let told = layers[0].fields.iter().map(|f| (&*f.name, &text[f.at..f.at + f.len]));
    let told: Vec<_> = told.skip(1).collect();
    let expected = [
        ("id", r#""id" : "a\"id\": ü""#),
        ("list", r#""list":[ 1, {"x" :[]} ]"#),
        ("[0]", "1"),
        ("[1]", r#"{"x" :[]}"#),
        ("x", r#""x" :[]"#),
    ];
    assert_eq!(told[..5], expected);
    assert_eq!(told[6], ("jit_channel_scid", r#""jit_channel_scid":"1x2x3""#));
    assert_eq!(layers[0].fields[0].len, text.len());
}

#[test]
fn json_that_ldk_writes_differently_is_not_explained() {
    let extra = r#"{"id":"1","result":{"jit_channel_scid":"1x2x3","lsp_cltv_expiry_delta":144,"client_trusts_lsp":false,"more":1}}"#;
    assert!(explain(&lsps(extra), &Transcript::new()).is_err());
    for text in ["", "{", "[]", "7", r#"{"a":1}{"b":2}"#, r#"{"a":1,"a":1}"#] {
        assert!(explain(&lsps(text), &Transcript::new()).is_err(), "{text}");
    }
}

#[test]
fn a_mismatch_is_shown_and_not_the_bytes() {
    let mut entry = lsps(r#"{"id":"1"}"#);
    if let What::Lsps { json, .. } = &mut entry.what {
        *json = json!({ "id": "2" });
    }
    let layers = explainer(&Transcript::new())(&entry);
    assert_eq!(layers[0].title, "not explained: this is no id, at byte 6");
    assert!(layers[0].fields.is_empty() && layers[0].bytes.is_empty());
}

struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

const PREIMAGE: PaymentPreimage = PaymentPreimage([3; 32]);

/// What LDK's router makes for a node that everybody knows: hops of its own before the last one.
fn path_with_dummies(keys: &KeysManager) -> BlindedPaymentPath {
    let secp = Secp256k1::new();
    let id = keys.get_node_id(Recipient::Node).unwrap();
    let other = SecretKey::from_slice(&[9; 32]).unwrap().public_key(&secp);
    let graph = Arc::new(NetworkGraph::new(Network::Regtest, Arc::new(Silent)));
    let ends = [NodeId::from_pubkey(&id), NodeId::from_pubkey(&other)];
    graph
        .add_channel_from_partial_announcement(
            1,
            None,
            0,
            ChannelFeatures::empty(),
            ends[0],
            ends[1],
        )
        .unwrap();
    let scorer = ProbabilisticScorer::new(Default::default(), graph.clone(), Arc::new(Silent));
    let scorer = Arc::new(RwLock::new(scorer));
    let router = DefaultRouter::new(graph, Arc::new(Silent), keys, scorer, Default::default());
    let tlvs = ReceiveTlvs {
        payment_secret: PaymentSecret([1; 32]),
        payment_constraints: PaymentConstraints { max_cltv_expiry: 900, htlc_minimum_msat: 1 },
        payment_context: PaymentContext::AsyncBolt12Offer(AsyncBolt12OfferContext {
            offer_nonce: Nonce::try_from(&[6; Nonce::LENGTH][..]).unwrap(),
            payment_metadata: None,
        }),
    };
    let key = keys.get_receive_auth_key();
    router.create_blinded_payment_paths(id, key, Vec::new(), tlvs, None, &secp).unwrap().remove(0)
}

/// The only hop, or the one before a blinded path.
fn hop_to(keys: &KeysManager, fee_msat: u64, cltv_expiry_delta: u32) -> RouteHop {
    RouteHop {
        pubkey: keys.get_node_id(Recipient::Node).unwrap(),
        node_features: NodeFeatures::empty(),
        short_channel_id: 1,
        channel_features: ChannelFeatures::empty(),
        fee_msat,
        cltv_expiry_delta,
        maybe_announced_channel: true,
    }
}

fn paid_over(path: &BlindedPaymentPath, keys: &KeysManager) -> UpdateAddHTLC {
    let tail = BlindedTail {
        trampoline_hops: Vec::new(),
        hops: path.blinded_hops().to_vec(),
        blinding_point: path.blinding_point(),
        excess_final_cltv_expiry_delta: 0,
        final_value_msat: 5_000,
    };
    let first = hop_to(keys, 0, path.payinfo.cltv_expiry_delta.into());
    let path = Path { hops: vec![first], blinded_tail: Some(tail) };
    let fields = RecipientOnionFields::spontaneous_empty(5_000);
    sent(&path, &fields, PaymentHash::from(PREIMAGE), Some(PREIMAGE))
}

fn sent(
    path: &Path,
    fields: &RecipientOnionFields,
    payment_hash: PaymentHash,
    preimage: Option<PaymentPreimage>,
) -> UpdateAddHTLC {
    let (onion_routing_packet, amount_msat, cltv_expiry) = create_payment_onion(
        &Secp256k1::new(),
        path,
        &SecretKey::from_slice(&[13; 32]).unwrap(),
        fields,
        300,
        &payment_hash,
        &preimage,
        None,
        [14; 32],
    )
    .unwrap();
    UpdateAddHTLC {
        channel_id: ChannelId([0; 32]),
        htlc_id: 0,
        amount_msat,
        payment_hash,
        cltv_expiry,
        skimmed_fee_msat: None,
        onion_routing_packet,
        blinding_point: None,
        hold_htlc: None,
        accountable: None,
    }
}

fn received(msg: &UpdateAddHTLC) -> Entry {
    let (message, peer) = ("update_add_htlc".to_owned(), "b".to_owned());
    let content = Some(msg.encode().to_lower_hex_string());
    let what = What::Wire { peer, message, bytes: msg.serialized_length(), content };
    Entry { seq: 0, at_ms: 0, node: "a".to_owned(), what }
}

/// A recipient opens every layer that is for itself, those of its dummy hops too.
#[test]
fn an_onion_is_opened_through_its_dummy_hops() {
    let keys = Arc::new(KeysManager::new(&[40; 32], 1, 2, true));
    let transcript = Transcript::keeping_bytes();
    transcript.lend_keys("a", &keys);
    let path = path_with_dummies(&keys);
    let entry = received(&paid_over(&path, &keys));
    let layers = explain(&entry, &transcript).unwrap();
    let hops = path.blinded_hops().len();
    assert!(hops > 1);
    assert_eq!(layers.len(), 1 + 2 * hops, "a payload and the recipient's data for each");
    let has = |name| move |layer: &&Explained| layer.fields.iter().any(|f| f.name == name);
    assert_eq!(layers.iter().filter(has("dummy")).count(), hops - 1);
    assert!(has("keysend_preimage")(&&layers[layers.len() - 2]));
    assert!(has("offer_nonce")(&&layers[layers.len() - 1]));

    // Whose keys are not there, its layers stay closed.
    let closed = explain(&Entry { node: "c".to_owned(), ..entry }, &transcript).unwrap();
    assert_eq!(closed, layers[..1]);
}

/// Metadata of a BOLT 11 invoice, and what `change` makes of it on its way.
fn paid_by_invoice(
    keys: &KeysManager,
    metadata: &[u8],
    delta: Option<u16>,
    change: impl FnOnce(&mut Vec<u8>),
) -> Entry {
    let (keys_of_payments, metadata) = (keys.get_expanded_key(), Some(metadata.to_vec()));
    let (hash, secret, metadata) = inbound_payment::create(
        &keys_of_payments,
        Some(7_000),
        3_600,
        keys,
        1_800_000_000,
        delta,
        metadata,
    )
    .unwrap();
    let mut fields = RecipientOnionFields::secret_only(secret, 7_000);
    fields.payment_metadata = metadata;
    change(fields.payment_metadata.as_mut().unwrap());
    let path = Path { hops: vec![hop_to(keys, 5_000, 100)], blinded_tail: None };
    received(&sent(&path, &fields, hash, None))
}

fn lease() -> LeaseMetadata {
    LeaseMetadata {
        lsp_node_id: SecretKey::from_slice(&[9; 32]).unwrap().public_key(&Secp256k1::new()),
        intercept_scid: 7,
        cltv_expiry_delta: 144,
        min_fee_msat: 2_000,
        proportional: 10_000,
        valid_until: std::time::Duration::from_secs(1_800_000_000),
        min_htlc_msat: 2_001,
        payment_size_msat: Some(7_000),
    }
}

#[test]
fn the_lease_in_an_invoice_is_decrypted() {
    let keys = Arc::new(KeysManager::new(&[40; 32], 1, 2, true));
    let transcript = Transcript::keeping_bytes();
    transcript.lend_keys("a", &keys);
    for delta in [None, Some(44)] {
        let entry = paid_by_invoice(&keys, &lease().encode(), delta, |_| ());
        let layers = explain(&entry, &transcript).unwrap();
        let titles: Vec<_> = layers.iter().map(|layer| &*layer.title).collect();
        let hop = "this hop of the onion, decrypted";
        assert_eq!(titles, ["update_add_htlc", hop, "lease metadata"]);
        assert_eq!(layers[2].bytes, lease().encode().to_lower_hex_string());
        let value = |name| layers[1].fields.iter().find(|f| f.name == name).map(|f| &*f.value);
        assert_eq!(value("amt_to_forward"), Some("5 000 msat"));
        assert_eq!(value("total_msat"), Some("7 000 msat"));
        assert!(value("payment_secret").is_some());
    }
}

/// Found by fuzzing: a payer that chooses the secret chooses where LDK's cipher begins to count, and a
/// debug build panicked when it came to the end of 32 bits.
#[test]
fn a_secret_at_the_end_of_the_ciphers_counter_is_only_refused() {
    let keys = Arc::new(KeysManager::new(&[40; 32], 1, 2, true));
    let transcript = Transcript::keeping_bytes();
    transcript.lend_keys("a", &keys);
    let mut fields = RecipientOnionFields::secret_only(PaymentSecret([0xff; 32]), 7_000);
    fields.payment_metadata = Some(vec![7; 65]);
    let path = Path { hops: vec![hop_to(&keys, 5_000, 100)], blinded_tail: None };
    let msg = sent(&path, &fields, PaymentHash([1; 32]), None);
    let mismatch = explain(&received(&msg), &transcript).unwrap_err();
    assert_eq!(mismatch.what, "the cipher does not count so far");
}

/// Nor is anything told of it; but what is around it is.
#[test]
fn an_inner_layer_that_does_not_fit_leaves_the_outer_ones() {
    let keys = Arc::new(KeysManager::new(&[40; 32], 1, 2, true));
    let transcript = Transcript::keeping_bytes();
    transcript.lend_keys("a", &keys);
    let shown = |entry: &Entry, outer: usize| {
        let mismatch = explain(entry, &transcript).unwrap_err();
        let layers = explainer(&transcript)(entry);
        assert_eq!(layers.len(), outer + 1);
        assert!(layers[..outer].iter().all(|layer| !layer.fields.is_empty()));
        let last = &layers[outer];
        assert_eq!(last.title, format!("not explained: {mismatch}"));
        assert!(last.fields.is_empty() && last.bytes.is_empty());
        last.title.clone()
    };
    for delta in [None, Some(44)] {
        let changed = paid_by_invoice(&keys, &lease().encode(), delta, |bytes| bytes[3] ^= 1);
        assert!(shown(&changed, 2).contains("no invoice of this node has this metadata"));
    }
    let other = paid_by_invoice(&keys, b"something else", None, |_| ());
    assert!(shown(&other, 2).contains("this is no lease"));
    // LDK does not open an onion for another hash, nor for an HTLC smaller than its path allows.
    let path = path_with_dummies(&keys);
    let msg = paid_over(&path, &keys);
    let payment_hash = PaymentHash([5; 32]);
    assert!(shown(&received(&UpdateAddHTLC { payment_hash, ..msg.clone() }), 1).contains("LDK"));
    let small = UpdateAddHTLC { amount_msat: 0, ..msg };
    assert!(shown(&received(&small), 1).contains("LDK does not open this onion"));
}
