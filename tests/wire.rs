//! What the transcript says of messages, from one run on real nodes: that it has them all, and that
//! what is said of their bytes is true.

use bitcoin::hex::FromHex;
use guide::world::{PATIENCE, Story, World, is_wire};
use lightning::util::ser::{BigSize, Readable};
use lsps2_async::lease::{Lease, TrustModel};
use lsps2_async::metadata::LeaseMetadata;
use lsps2_async::payer::PayerMode;
use node::explain::explain;
use node::transcript::{Entry, Transcript, What};
use recording::{Explained, Field};
use regtest::Chain;
use std::collections::BTreeSet;
use std::sync::OnceLock;

const AMOUNT_MSAT: u64 = 100_000_000;

/// A run that everything here looks at.
struct Run {
    transcript: Transcript,
    entries: Vec<Entry>,
    lease: Lease,
}

/// A payment to an offline recipient by an offline payer, and one to the same recipient online, which
/// answers the request itself.
async fn play() -> Run {
    let transcript = Transcript::keeping_bytes();
    let story = Story::new(PayerMode::OftenOffline, TrustModel::ClientTrustsLsp);
    let (folder, chain) = (std::env::temp_dir(), Chain::embedded());
    let mut world = World::within(&folder, chain, story, transcript.clone()).await.unwrap();
    let (lease, offer) = world.prepare_recipient().await.unwrap();
    world.pay_offline_recipient(&offer, AMOUNT_MSAT).await.unwrap();
    world.mine(6).await.unwrap();
    let from = world.transcript.position();
    world.payer().pay(&offer, AMOUNT_MSAT / 2).unwrap();
    world.settled(from).await.unwrap();
    // LDK pings its peers every ten seconds or so.
    let pong = |e: &Entry| is_wire(e, "pong").then_some(());
    transcript.wait_for(0, PATIENCE, pong).await.unwrap();
    world.stop().await;
    let entries = transcript.since(0);
    Run { transcript, entries, lease }
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(play())
    })
}

impl Run {
    fn layers(&self, entry: &Entry) -> Vec<Explained> {
        explain(entry, &self.transcript).unwrap_or_else(|e| panic!("{e}: {entry:?}"))
    }

    /// The layers of the messages of this name that `node` received.
    fn explained(&self, node: &str, message: &str) -> Vec<Vec<Explained>> {
        let entries = self.entries.iter().filter(|e| e.node == node && name(e) == Some(message));
        entries.map(|entry| self.layers(entry)).collect()
    }
}

/// The name of a message that arrived.
fn name(entry: &Entry) -> Option<&str> {
    match &entry.what {
        What::Wire { message, .. } | What::Onion { message, .. } => Some(message),
        What::Lsps { json, .. } => json["method"].as_str().or(Some("answer")),
        _ => None,
    }
}

fn content(entry: &Entry) -> Option<&str> {
    match &entry.what {
        What::Wire { content, .. } | What::Onion { content, .. } | What::Lsps { content, .. } => {
            content.as_deref()
        }
        _ => None,
    }
}

fn bytes_of(layer: &Explained) -> Vec<u8> {
    match layer.text {
        true => layer.bytes.clone().into_bytes(),
        false => Vec::from_hex(&layer.bytes).unwrap(),
    }
}

fn field<'a>(layer: &'a Explained, name: &str) -> &'a Field {
    let found = layer.fields.iter().find(|field| field.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {layer:?}"))
}

/// The bytes that a field stands on.
fn range(layer: &Explained, name: &str) -> Vec<u8> {
    let Field { at, len, .. } = *field(layer, name);
    bytes_of(layer)[at..at + len].to_vec()
}

/// A big-endian number of as many bytes as it takes.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[test]
fn messages_that_reach_no_handler_are_in_the_transcript_too() {
    let run = run();
    let mut seen = BTreeSet::new();
    for entry in &run.entries {
        let What::Wire { peer, message, bytes, .. } = &entry.what else { continue };
        assert_ne!(*peer, entry.node, "no node writes to itself: {entry:?}");
        assert!(*bytes > 0, "{entry:?}");
        seen.insert((&*entry.node, &**peer, &**message));
    }
    for ends in [["payer", "payer-lsp"], ["payer-lsp", "lsp"], ["lsp", "recipient"]] {
        for [node, peer] in [ends, [ends[1], ends[0]]] {
            for message in ["init", "gossip_timestamp_filter", "channel_reestablish"] {
                // The LSPs stay connected for as long as they run.
                let once = message == "channel_reestablish" && node != "payer" && peer != "payer";
                assert!(once || seen.contains(&(node, peer, message)), "{node} {peer} {message}");
            }
        }
    }
    let pinged = |message| seen.iter().any(|(.., seen)| *seen == message);
    assert!(pinged("ping") && pinged("pong"));
}

#[test]
fn an_init_comes_before_each_connection() {
    let run = run();
    for (node, peer) in [("recipient", "lsp"), ("lsp", "recipient"), ("payer", "payer-lsp")] {
        let with = |e: &&Entry| e.node == node;
        let kinds = run.entries.iter().filter(with).filter_map(|e| match &e.what {
            What::Wire { peer: from, message, .. } if from == peer && message == "init" => Some(0),
            What::Connected { peer: with } if with == peer => Some(1),
            _ => None,
        });
        let pairs: Vec<_> = kinds.collect();
        assert!(!pairs.is_empty() && pairs.chunks(2).all(|pair| pair == [0, 1]), "{pairs:?}");
    }
}

#[test]
fn every_onion_message_was_made_by_another_node_before() {
    let run = run();
    for (at, entry) in run.entries.iter().enumerate() {
        let What::Onion { message, bytes, .. } = &entry.what else { continue };
        let made = What::OnionSent { message: message.clone(), bytes: *bytes };
        let maker = run.entries[..at].iter().find(|e| e.what == made && e.node != entry.node);
        assert!(maker.is_some(), "{entry:?}");
    }
}

/// The messages that the book explains.
const EXPLAINED: [&str; 16] = [
    "lsps2.get_info",
    "lsps2.buy",
    "answer",
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

#[test]
fn what_the_book_explains_is_explained_from_its_first_byte_to_its_last() {
    let run = run();
    let mut seen = BTreeSet::new();
    for entry in &run.entries {
        let layers = run.layers(entry);
        if let Some(content) = content(entry) {
            assert_eq!(layers[0].bytes, content);
            seen.extend(name(entry));
        }
        layers.iter().for_each(covers);
    }
    assert_eq!(seen, BTreeSet::from(EXPLAINED));
}

/// The fields of depth 0 take all bytes without a gap, in order; those below one lie within it, one
/// after the other; and a TLV record's type and length are what stands there.
fn covers(layer: &Explained) {
    let bytes = bytes_of(layer);
    let mut ends = vec![bytes.len()];
    let (mut at, mut last) = (0, 0);
    for field in &layer.fields {
        let depth = usize::from(field.depth);
        assert!(depth <= last + 1, "{field:?}");
        if depth == 0 {
            assert_eq!(field.at, at, "no gap before {field:?} in {}", layer.title);
            at += field.len;
        }
        ends.truncate(depth + 1);
        assert!(field.at + field.len <= ends[depth], "{field:?} leaves the field around it");
        ends.push(field.at + field.len);
        last = depth;
    }
    assert_eq!(at, bytes.len(), "{}", layer.title);
    let names: Vec<_> = layer.fields.iter().map(|field| (&*field.name, field.depth)).collect();
    for (i, record) in layer.fields.iter().enumerate() {
        if names.get(i + 1) != Some(&("type", record.depth + 1)) {
            continue;
        }
        let mut stream = &bytes[record.at..];
        let BigSize(kind) = BigSize::read(&mut stream).unwrap();
        let BigSize(len) = BigSize::read(&mut stream).unwrap();
        assert_eq!(layer.fields[i + 1].value, kind.to_string(), "{record:?}");
        let value_at = bytes.len() - stream.len();
        assert_eq!(record.at + record.len, value_at + len as usize, "{record:?}");
    }
}

#[test]
fn the_members_of_json_stand_where_they_are_said_to() {
    let run = run();
    let layers = run.explained("recipient", "answer");
    for (layer, member) in [
        (&layers[0][0], r#""min_fee_msat":"2000000""#),
        (&layers[0][0], r#""proportional":10000"#),
        (&layers[1][0], r#""lsp_cltv_expiry_delta":72"#),
        (&layers[1][0], r#""client_trusts_lsp":true"#),
    ] {
        let name = member.split('"').nth(1).unwrap();
        assert_eq!(range(layer, name), member.as_bytes());
    }
    assert_eq!(field(&layers[0][0], "min_fee_msat").value, "2 000 000 msat");
    assert_eq!(field(&layers[0][0], "proportional").value, "10 000 ppm");
    assert_eq!(field(&layers[1][0], "lsp_cltv_expiry_delta").value, "72 blocks");
}

#[test]
fn the_lsp_finds_the_leases_scid_in_its_blinded_hop() {
    let run = run();
    let layers = &run.explained("lsp", "update_add_htlc")[0];
    let titles: Vec<_> = layers.iter().map(|layer| &*layer.title).collect();
    assert_eq!(
        titles,
        [
            "update_add_htlc",
            "this hop of the onion, decrypted",
            "its encrypted_recipient_data, decrypted",
        ]
    );
    assert_eq!(number(&range(&layers[0], "amount_msat")), AMOUNT_MSAT);
    let scid = range(&layers[2], "short_channel_id");
    assert_eq!(number(&scid[2..]), run.lease.id.intercept_scid, "behind type and length");
    let delta = range(&layers[2], "cltv_expiry_delta");
    assert_eq!(number(&delta), u64::from(run.lease.cltv_expiry_delta));
}

#[test]
fn the_recipient_finds_the_lease_in_its_hop() {
    let run = run();
    let agreed = LeaseMetadata::for_lease(&run.lease).unwrap();
    let layers = &run.explained("recipient", "update_add_htlc")[0];
    let lease = layers.last().unwrap();
    assert_eq!(lease.title, "lease metadata");
    assert_eq!(LeaseMetadata::decode(&bytes_of(lease)).as_ref(), Ok(&agreed));
    assert_eq!(number(&range(lease, "intercept SCID")), run.lease.id.intercept_scid);
    // It is the value that the layer above has as an entry of its metadata.
    let data = &layers[layers.len() - 2];
    let Field { at, .. } = *field(data, "payment_metadata");
    let whole = bytes_of(data);
    assert!(whole[at..].windows(lease.bytes.len() / 2).any(|window| window == bytes_of(lease)));
    // What the LSP has skimmed is the difference to what the payer meant.
    let (message, hop) = (&layers[0], &layers[1]);
    let skimmed = number(&range(message, "skimmed_fee_msat")[6..]);
    let meant = number(&range(hop, "amt_to_forward")[2..]);
    assert_eq!(number(&range(message, "amount_msat")) + skimmed, meant);
    assert_eq!((skimmed, meant), (2_000_000, AMOUNT_MSAT));
}

#[test]
fn the_router_is_written_down_with_the_lease_it_used() {
    let run = run();
    let answers = run.entries.iter().filter_map(|e| match &e.what {
        What::Paths { context, paths, detail } if e.node == "recipient" => {
            Some((e, (&**context, &**paths), detail))
        }
        _ => None,
    });
    let answers: Vec<_> = answers.collect();
    let (entry, _, detail) =
        answers.iter().find(|(_, answer, _)| *answer == ("static_invoice", "jit")).unwrap();
    let agreed = LeaseMetadata::for_lease(&run.lease).unwrap();
    let layers = run.layers(entry);
    assert_eq!(LeaseMetadata::decode(&bytes_of(&layers[0])).as_ref(), Ok(&agreed));
    assert_eq!(detail["metadata_bytes"], agreed.encode().len());
    assert_eq!(detail["htlc_minimum_msat"], agreed.min_htlc_msat);
    assert_eq!(detail["intercept_scid"], field(&layers[0], "intercept SCID").value);
    assert!(answers.iter().any(|(_, answer, _)| *answer == ("invoice", "ordinary")));
}

/// The page that takes the value apart, and the transcript, tell the same of it.
#[test]
fn the_lease_has_the_fields_of_the_page() {
    let run = run();
    let page = include_str!("recorded/metadata.txt");
    let rows = page.lines().skip(1).map_while(|row| {
        let cells: Vec<_> = row.split("  ").map(str::trim).filter(|c| !c.is_empty()).collect();
        let [at, len, name, ..] = cells[..] else { return None };
        Some((at.parse().ok()?, len.parse().ok()?, name.to_owned()))
    });
    let rows: Vec<(usize, usize, String)> = rows.collect();
    let layers = &run.explained("recipient", "update_add_htlc")[0];
    let fields = layers.last().unwrap().fields.iter();
    let fields: Vec<_> = fields.map(|field| (field.at, field.len, field.name.clone())).collect();
    assert_eq!(fields, rows);
}

/// The entry with one bit of its content flipped.
fn flipped(entry: &Entry, bit: usize) -> Entry {
    let mut entry = entry.clone();
    match &mut entry.what {
        What::Wire { content: Some(content), .. } | What::Onion { content: Some(content), .. } => {
            let mut bytes = Vec::from_hex(content).unwrap();
            let at = bit / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 8);
            *content = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        What::Lsps { content: Some(content), .. } => {
            let mut bytes = content.clone().into_bytes();
            let at = bit / 8 % bytes.len();
            bytes[at] ^= 1 << (bit % 7);
            *content = String::from_utf8(bytes).unwrap();
        }
        _ => unreachable!("it has a content"),
    }
    entry
}

#[test]
fn a_flipped_bit_is_noticed_or_told_as_it_is_and_never_a_panic() {
    let run = run();
    let mut refused = 0;
    for name in EXPLAINED {
        let entry =
            run.entries.iter().find(|e| self::name(e) == Some(name) && content(e).is_some());
        let entry = entry.unwrap();
        let bits = content(entry).unwrap().len() * 4;
        for bit in (0..bits).step_by(61) {
            let flipped = flipped(entry, bit);
            match explain(&flipped, &run.transcript) {
                Ok(layers) => {
                    // A key or an amount may be another one; then that is what the fields lie on.
                    assert_eq!(Some(&*layers[0].bytes), content(&flipped), "{name}, bit {bit}");
                    layers.iter().for_each(covers);
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(refused > 100, "{refused}");
}

/// What is signed, and what is encrypted, has no second reading; and JSON is what the node read.
#[test]
fn a_flipped_bit_in_what_is_signed_or_encrypted_fails_the_check() {
    let run = run();
    let htlc = |e: &&Entry| e.node == "lsp" && name(e) == Some("update_add_htlc");
    let htlc = run.entries.iter().find(htlc).unwrap();
    let onion = field(&run.layers(htlc)[0], "onion_routing_packet").clone();
    for byte in (onion.at + 34..onion.at + onion.len).step_by(101) {
        assert!(explain(&flipped(htlc, byte * 8), &run.transcript).is_err(), "byte {byte}");
    }
    for name in ["static_invoice", "invoice_request", "lsps2.buy"] {
        let entry = run.entries.iter().find(|e| self::name(e) == Some(name)).unwrap();
        for byte in (0..content(entry).unwrap().len() / 2).step_by(17) {
            let error = explain(&flipped(entry, byte * 8), &run.transcript);
            assert!(error.is_err(), "{name}, byte {byte}");
        }
    }
}

#[test]
fn a_message_that_is_cut_off_or_too_long_is_not_explained() {
    let run = run();
    for name in EXPLAINED {
        let entry =
            run.entries.iter().find(|e| self::name(e) == Some(name) && content(e).is_some());
        for change in [-2, 2] {
            let mut entry = entry.unwrap().clone();
            let (What::Wire { content: Some(content), .. }
            | What::Onion { content: Some(content), .. }
            | What::Lsps { content: Some(content), .. }) = &mut entry.what
            else {
                unreachable!("it has a content")
            };
            match change {
                2 => content.push_str("00"),
                _ => content.truncate(content.len() - 2),
            }
            assert!(explain(&entry, &run.transcript).is_err(), "{name} {change}");
        }
    }
}

#[test]
fn a_transcript_that_is_not_asked_to_keeps_no_bytes() {
    assert!(!Transcript::new().keeps_bytes());
    assert!(run().transcript.keeps_bytes());
}
