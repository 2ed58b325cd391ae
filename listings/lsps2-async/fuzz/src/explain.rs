//! The bytes of messages, told field by field.

use bitcoin::secp256k1::{Secp256k1, SecretKey, SignOnly};
use lightning::ln::inbound_payment;
use lightning::ln::msgs::UpdateAddHTLC;
use lightning::ln::onion_utils::create_payment_onion;
use lightning::ln::outbound_payment::{RecipientCustomTlvs, RecipientOnionFields};
use lightning::ln::types::ChannelId;
use lightning::routing::router::{Path, RouteHop};
use lightning::sign::{EntropySource, KeysManager, NodeSigner, Recipient};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning::util::ser::Writeable;
use node::explain::{explain as explained, explainer};
use node::transcript::{Entry, Transcript, What};
use recording::Explained;
use std::sync::{Arc, OnceLock};

use crate::feed::Feed;

/// The messages of a peer that the book explains. In an input their position stands first; the three
/// after the last are LSPS's JSON, the metadata of a lease, and what a payer puts into an onion for this
/// node.
pub const EXPLAINED: [&str; 13] = [
    "offer_paths_request",
    "offer_paths",
    "serve_static_invoice",
    "static_invoice_persisted",
    "invoice_request",
    "static_invoice",
    "held_htlc_available",
    "release_held_htlc",
    "open_channel",
    "accept_channel",
    "update_add_htlc",
    "update_fulfill_htlc",
    "revoke_and_ack",
];

/// The node that receives everything here, and whose keys open what is for it.
fn transcript() -> &'static Transcript {
    static TRANSCRIPT: OnceLock<Transcript> = OnceLock::new();
    TRANSCRIPT.get_or_init(|| {
        let transcript = Transcript::keeping_bytes();
        transcript.lend_keys("a", keys());
        transcript
    })
}

fn keys() -> &'static Arc<KeysManager> {
    static KEYS: OnceLock<Arc<KeysManager>> = OnceLock::new();
    KEYS.get_or_init(|| Arc::new(KeysManager::new(&[40; 32], 1, 2, true)))
}

/// Made once, since that is slow.
fn secp() -> &'static Secp256k1<SignOnly> {
    static SECP: OnceLock<Secp256k1<SignOnly>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::signing_only)
}

/// As the nodes do, but without what a fuzzer traces at each digit.
fn hex(bytes: &[u8]) -> String {
    const PAIRS: [[u8; 2]; 256] = {
        let (digits, mut pairs, mut n) = (*b"0123456789abcdef", [[0; 2]; 256], 0);
        while n < pairs.len() {
            pairs[n] = [digits[n >> 4], digits[n & 15]];
            n += 1;
        }
        pairs
    };
    let pairs: Vec<[u8; 2]> = bytes.iter().map(|byte| PAIRS[usize::from(*byte)]).collect();
    String::from_utf8(pairs.into_flattened()).expect("digits")
}

/// What is told lies within the bytes and, of a binary message, over all of them; and a picture is
/// always made, if only of what does not fit.
pub fn explain(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let kind = usize::from(feed.below(EXPLAINED.len() as u8 + 3));
    let Some(what) = what(kind, feed.rest()) else { return false };
    let entry = Entry { seq: 0, at_ms: 0, node: "a".to_owned(), what };
    let transcript = transcript();
    let mut layers = explainer(transcript)(&entry);
    // Once in a while, since it takes as long again.
    if bytes.len().is_multiple_of(8) {
        let again = explained(&entry, transcript).ok();
        assert_eq!(again, layers.iter().all(is_explained).then(|| layers.clone()));
    }
    if layers.last().is_some_and(|last| !is_explained(last)) {
        let last = layers.pop().expect("there is one");
        assert!(last.fields.is_empty() && last.bytes.is_empty());
    }
    // An onion for somebody else is not opened: its message is told of nevertheless.
    layers.iter().for_each(lies_over_its_bytes);
    !layers.is_empty()
}

fn is_explained(layer: &Explained) -> bool {
    !layer.title.starts_with("not explained: ")
}

fn what(kind: usize, bytes: &[u8]) -> Option<What> {
    let peer = "b".to_owned();
    if let Some(message) = EXPLAINED.get(kind) {
        let (message, content) = ((*message).to_owned(), Some(hex(bytes)));
        return Some(What::Wire { peer, message, bytes: bytes.len(), content });
    }
    if kind == EXPLAINED.len() {
        let text = std::str::from_utf8(bytes).ok()?.to_owned();
        let json = serde_json::from_str(&text).ok()?;
        return Some(What::Lsps { peer, json, bytes: bytes.len(), content: Some(text) });
    }
    if kind == EXPLAINED.len() + 1 {
        let detail = serde_json::json!({ "metadata": hex(bytes) });
        let (context, paths) = ("invoice".to_owned(), "jit".to_owned());
        return Some(What::Paths { context, paths, detail });
    }
    let bytes = onion(&mut Feed::new(bytes))?.encode();
    let (message, content) = ("update_add_htlc".to_owned(), Some(hex(&bytes)));
    Some(What::Wire { peer, message, bytes: bytes.len(), content })
}

/// In place of chance, so that an input always means the same.
struct Same;

impl EntropySource for Same {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        [5; 32]
    }
}

/// A payer that knows this node writes what it likes into the last layer.
fn onion(feed: &mut Feed<'_>) -> Option<UpdateAddHTLC> {
    let flags = feed.byte();
    let total_msat = feed.number();
    let mut fields = match flags & 1 {
        0 => RecipientOnionFields::secret_only(PaymentSecret([feed.byte(); 32]), total_msat),
        _ => RecipientOnionFields::spontaneous_empty(total_msat),
    };
    let metadata = feed.chunk().to_vec();
    let made = (flags & 2 == 2).then(|| {
        // As LDK makes it for an invoice of this node.
        let (delta, metadata) = ((flags & 4 == 4).then_some(44), Some(metadata.clone()));
        let (least, now) = (Some(total_msat & 0xffff), u64::from(feed.byte()));
        inbound_payment::create(
            &keys().get_expanded_key(),
            least,
            3_600,
            &Same,
            1_800_000_000 + now,
            delta,
            metadata,
        )
        .ok()
    });
    let mut payment_hash = PaymentHash([7; 32]);
    fields.payment_metadata = (flags & 8 == 8).then_some(metadata);
    if let Some((hash, secret, metadata)) = made.flatten() {
        (payment_hash, fields.payment_secret) = (hash, Some(secret));
        fields.payment_metadata = metadata;
    }
    if flags & 16 == 16 {
        let (kind, value) = ((1 << 16) | feed.number() >> 32, feed.chunk().to_vec());
        fields =
            fields.clone().with_custom_tlvs(RecipientCustomTlvs::new(vec![(kind, value)]).ok()?);
    }
    let hop = RouteHop {
        pubkey: keys().get_node_id(Recipient::Node).ok()?,
        node_features: NodeFeatures::empty(),
        short_channel_id: 1,
        channel_features: ChannelFeatures::empty(),
        fee_msat: feed.number(),
        cltv_expiry_delta: feed.byte().into(),
        maybe_announced_channel: true,
    };
    let (onion_routing_packet, amount_msat, cltv_expiry) = create_payment_onion(
        secp(),
        &Path { hops: vec![hop], blinded_tail: None },
        &SecretKey::from_slice(&[13; 32]).ok()?,
        &fields,
        300,
        &payment_hash,
        &(flags & 32 == 32).then_some(PaymentPreimage([3; 32])),
        None,
        [14; 32],
    )
    .ok()?;
    Some(UpdateAddHTLC {
        channel_id: ChannelId([0; 32]),
        htlc_id: 0,
        amount_msat,
        payment_hash,
        cltv_expiry,
        skimmed_fee_msat: (flags & 64 == 64).then(|| feed.number()),
        onion_routing_packet,
        blinding_point: None,
        hold_htlc: None,
        accountable: None,
    })
}

fn lies_over_its_bytes(layer: &Explained) {
    let len = if layer.text { layer.bytes.len() } else { layer.bytes.len() / 2 };
    let mut inside: Vec<(usize, usize)> = Vec::new();
    let mut covered = 0;
    for field in &layer.fields {
        let (from, to) = (field.at, field.at + field.len);
        assert!(to <= len, "{} ends at {to} of {len}", field.name);
        let depth = usize::from(field.depth);
        assert!(depth <= inside.len(), "{} has no field around it", field.name);
        inside.truncate(depth);
        if let Some((begins, ends)) = inside.last() {
            assert!(*begins <= from && to <= *ends, "{} leaves what is around it", field.name);
        } else if !layer.text {
            assert_eq!(covered, from, "{} does not follow the field before it", field.name);
            covered = to;
        }
        if layer.text {
            assert!(layer.bytes.is_char_boundary(from) && layer.bytes.is_char_boundary(to));
        }
        inside.push((from, to));
    }
    assert!(layer.text || covered == len, "{len} bytes, {covered} explained");
}
