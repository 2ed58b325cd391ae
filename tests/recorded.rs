//! Recorded output that pages show, compared with fresh runs.
//!
//! A page shows the file `recorded/NAME.txt` with its `output` directive; a test here makes the
//! same text anew. When the program has changed for a reason, `RECORD=1 cargo test recorded::`
//! writes the files; look at what changed before you commit it. Keys, ids and times differ from run
//! to run: they are shown as `…`.

use bitcoin::Network;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use guide::record;
use guide::world::{PATIENCE, Story, World};
use lightning::blinded_path::payment::{
    AsyncBolt12OfferContext, BlindedPaymentPath, Bolt12OfferContext, ForwardTlvs,
    PaymentConstraints, PaymentContext, PaymentForwardNode, PaymentRelay, ReceiveTlvs,
};
use lightning::offers::invoice_request::InvoiceRequestFields;
use lightning::offers::nonce::Nonce;
use lightning::offers::offer::OfferId;
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::{DefaultRouter, Router};
use lightning::routing::scoring::ProbabilisticScorer;
use lightning::sign::{RandomBytes, ReceiveAuthKey};
use lightning::types::features::BlindedHopFeatures;
use lightning::types::payment::PaymentSecret;
use lightning::util::logger::{Logger, Record};
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use lightning_liquidity::lsps2::utils::{compute_opening_fee, is_valid_opening_fee_params};
use lsps2_async::lease::{Lease, LeaseId, TrustModel};
use lsps2_async::metadata::{LeaseMetadata, PAYMENT_METADATA_KEY};
use lsps2_async::payer::PayerMode;
use node::lsp::LspPolicy;
use node::transcript::What;
use recording::ledger::Ledger;
use recording::{Recording, told};
use regtest::Chain;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, RwLock};
use std::time::Duration;

fn file(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.join("tests/recorded").join(name).with_extension("txt")
}

/// The recorded text, or `fresh` itself while recording. `fresh` is the whole file, its first line
/// `#lang: json` or the like if it is not plain text.
pub fn recorded(name: &str, fresh: &str) -> String {
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(file(name), fresh).unwrap();
    }
    std::fs::read_to_string(file(name))
        .unwrap_or_else(|e| panic!("{name}: {e}; run with RECORD=1 to write it"))
}

/// The recorded text is exactly `fresh`.
pub fn compare(name: &str, fresh: &str) {
    assert_eq!(recorded(name, fresh), fresh, "{name}: RECORD=1 writes it anew, see recorded.rs");
}

/// Replaces what follows `before`, up to the first character that is not `of`, by `…`.
fn blank(line: &str, before: &str, of: impl Fn(char) -> bool) -> String {
    match line.split_once(before) {
        Some((head, tail)) => format!("{head}{before}…{}", tail.trim_start_matches(of)),
        None => line.to_owned(),
    }
}

/// Each part under its heading, without what differs from run to run.
fn parts(story: &str) -> Vec<(String, BTreeSet<String>)> {
    let parts = story.trim().split("\n\n").map(|part| {
        let (heading, lines) = part.split_once('\n').expect("lines under a heading");
        let bare = |line| blank(line, "intercept SCID ", |c| c.is_ascii_digit() || c == 'x');
        (heading.to_owned(), lines.lines().map(bare).collect())
    });
    parts.collect()
}

/// The demo prints what the recording has, of which the first page shows the story and the books.
/// Nodes act side by side, so within a scene the set of lines is compared; what one node says of the
/// payment comes in one order.
#[test]
fn the_demo_prints_what_is_recorded_of_the_flow() {
    let program = env!("CARGO_BIN_EXE_guide");
    let output = Command::new(program).arg("demo").env_remove("BITCOIND_EXE").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = std::str::from_utf8(&output.stdout).unwrap();
    let begin = printed.find("Step 1").expect("the first step");
    let (story, books) = printed[begin..].split_once("\nWhere every msat went\n").expect("books");
    let untimed = |line: &str| match line.split_once(" ms  ") {
        Some((_, line)) => format!("  {line}"),
        None => line.to_owned(),
    };
    let story = story.lines().map(untimed).collect::<Vec<_>>().join("\n");

    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let flow = Recording::read(&record::file(&root, "flow")).unwrap();
    let kept = told::timeline(&flow.moments, true);
    assert_eq!(parts(&kept), parts(&story), "the demo printed:\n{printed}");
    let of_the_recipient = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| line.starts_with("  recipient "));
        lines.filter(|line| line.contains("HTLC")).map(str::to_owned).collect()
    };
    assert_eq!(of_the_recipient(&kept), of_the_recipient(&story));

    let ledger = Ledger::of(&flow).unwrap();
    let kept = told::books(&ledger.checkpoints.last().unwrap().payment);
    let (_, kept) = kept.split_once('\n').unwrap();
    let (books, _) = books.split_once("  channel opened").unwrap();
    assert_eq!(kept, books);
}

/// The LSPS messages since a position.
fn purchases(world: &World, from: u64) -> Vec<Value> {
    let entries = world.transcript.since(from).into_iter();
    let messages = entries.filter_map(|entry| match entry.what {
        What::Lsps { json, .. } => Some(json),
        _ => None,
    });
    messages.collect()
}

fn node_id(seed: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[seed; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

/// A lease on the terms the demo's LSP sells, bought so that it ends at 1 800 000 000.
fn example() -> Lease {
    let policy = LspPolicy::new(TrustModel::ClientTrustsLsp);
    let bought = Duration::from_secs(1_800_000_000) - policy.fees.validity;
    Lease {
        id: LeaseId {
            lsp_node_id: node_id(42),
            // 29451x4815x1, as in bLIP-52's example.
            intercept_scid: (29_451 << 40) | (4_815 << 16) | 1,
        },
        cltv_expiry_delta: policy.cltv_expiry_delta,
        opening_fee_params: policy.fees.terms(bought),
        payment_size_msat: None,
        trust_model: policy.trust_model,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn spaced(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().collect();
    groups.iter().map(|g| std::str::from_utf8(g).unwrap()).collect::<Vec<_>>().join(" ")
}

/// How many bytes `BigSize` takes (BOLT 1).
fn big_size_len(value: u64) -> usize {
    match value {
        0..=0xfc => 1,
        0xfd..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

/// The value of a lease, taken apart. The fields are found by their lengths alone; that what stands
/// there is the number in the last column is asserted of each.
fn taken_apart(metadata: &LeaseMetadata) -> String {
    let bytes = metadata.encode();
    let numbers = [
        ("CLTV delta", u64::from(metadata.cltv_expiry_delta), "blocks"),
        ("minimum fee", metadata.min_fee_msat, "msat"),
        ("proportional fee", u64::from(metadata.proportional), "ppm"),
        ("valid until", metadata.valid_until.as_secs(), "s"),
        ("smallest HTLC", metadata.min_htlc_msat, "msat"),
    ];
    let node = hex(&metadata.lsp_node_id.serialize());
    let scid = metadata.intercept_scid;
    let scid_text = format!("{}x{}x{}", scid >> 40, (scid >> 16) & 0xff_ffff, scid & 0xffff);
    let mut rows = vec![
        ("version", "01".to_owned(), "1".to_owned()),
        ("LSP node id", node.clone(), "a compressed key".to_owned()),
        ("intercept SCID", hex(&scid.to_be_bytes()), scid_text),
    ];
    for (name, number, unit) in numbers {
        rows.push((name, big_size(number), format!("{} {unit}", spaced(number))));
    }
    if let Some(size) = metadata.payment_size_msat {
        let value = big_size(size);
        rows.push(("TLV type", "02".to_owned(), "2, payment size".to_owned()));
        rows.push(("TLV length", big_size(value.len() as u64 / 2), spaced(value.len() as u64 / 2)));
        rows.push(("payment size", value, format!("{} msat", spaced(size))));
    }
    let mut out =
        format!("{:>6}  {:>5}  {:<16}  {:<20}  bytes\n", "offset", "len", "field", "means");
    let (mut at, mut whole) = (0, String::new());
    for (name, bytes, means) in rows {
        let len = bytes.len() / 2;
        let shown = if len > 9 {
            format!("{}…{}", &bytes[..8], &bytes[len * 2 - 8..])
        } else {
            bytes.clone()
        };
        writeln!(out, "{at:>6}  {len:>5}  {name:<16}  {means:<20}  {shown}").unwrap();
        (at, whole) = (at + len, whole + &bytes);
    }
    assert_eq!(whole, hex(&bytes), "the rows are the value");
    writeln!(out, "{at:>6}  {:>5}  end", "").unwrap();
    out + "\n" + &wrapped(&whole)
}

fn big_size(number: u64) -> String {
    let tail = &hex(&number.to_be_bytes());
    match big_size_len(number) {
        1 => tail[14..].to_owned(),
        3 => format!("fd{}", &tail[12..]),
        5 => format!("fe{}", &tail[8..]),
        _ => format!("ff{tail}"),
    }
}

fn wrapped(hex: &str) -> String {
    let lines: Vec<_> =
        hex.as_bytes().chunks(64).map(|l| std::str::from_utf8(l).unwrap()).collect();
    lines.join("\n") + "\n"
}

#[test]
fn the_metadata_byte_by_byte() {
    let variable = LeaseMetadata::for_lease(&example()).unwrap();
    let mut lease = example();
    lease.payment_size_msat = Some(100_000_000);
    let fixed = LeaseMetadata::for_lease(&lease).unwrap();
    for metadata in [&variable, &fixed] {
        assert_eq!(LeaseMetadata::decode(&metadata.encode()).as_ref(), Ok(metadata));
    }
    compare("metadata", &taken_apart(&variable));
    compare("metadata-fixed-size", &taken_apart(&fixed));
}

/// The recipient's hop of a path with one forwarding hop, in bytes.
fn recipient_hop_len(payment_context: PaymentContext) -> usize {
    let payment_constraints = PaymentConstraints { max_cltv_expiry: 900_000, htlc_minimum_msat: 1 };
    let lsp = PaymentForwardNode {
        tlvs: ForwardTlvs {
            short_channel_id: example().id.intercept_scid,
            payment_relay: PaymentRelay {
                cltv_expiry_delta: 72,
                fee_proportional_millionths: 0,
                fee_base_msat: 0,
            },
            payment_constraints,
            features: BlindedHopFeatures::empty(),
            next_blinding_override: None,
        },
        node_id: node_id(42),
        htlc_maximum_msat: 2_000_000_000,
    };
    let payment_secret = PaymentSecret([3; 32]);
    let tlvs = ReceiveTlvs { payment_secret, payment_constraints, payment_context };
    let (key, entropy) = (ReceiveAuthKey([5; 32]), RandomBytes::new([4; 32]));
    let path = BlindedPaymentPath::new(
        &[lsp],
        node_id(2),
        key,
        tlvs,
        u64::MAX,
        44,
        &entropy,
        &Secp256k1::new(),
    );
    path.unwrap().blinded_hops()[1].encrypted_payload.len()
}

/// The contexts of a static invoice, and of an invoice that is answered online, with a value of
/// this length.
fn contexts(value_len: Option<usize>) -> (PaymentContext, PaymentContext) {
    let payment_metadata =
        value_len.map(|len| BTreeMap::from([(PAYMENT_METADATA_KEY, vec![9; len])]));
    let offer_nonce = Nonce::try_from(&[6; Nonce::LENGTH][..]).unwrap();
    let invoice_request = InvoiceRequestFields {
        payer_signing_pubkey: node_id(7),
        quantity: None,
        payer_note_truncated: None,
        human_readable_name: None,
    };
    let online = Bolt12OfferContext {
        offer_id: OfferId([8; 32]),
        invoice_request,
        payment_metadata: payment_metadata.clone(),
    };
    let of_static = AsyncBolt12OfferContext { offer_nonce, payment_metadata };
    (PaymentContext::AsyncBolt12Offer(of_static), PaymentContext::Bolt12Offer(online))
}

fn hops(value_len: Option<usize>) -> [usize; 2] {
    let (of_static, online) = contexts(value_len);
    [of_static, online].map(recipient_hop_len)
}

/// The longest value that still fits under each step of the padding.
#[test]
fn what_the_metadata_costs() {
    let row = |what: &str, [of_static, online]: [usize; 2]| {
        format!("{what:<28}  {of_static:>13}  {online:>13}\n")
    };
    let mut out = format!("{:<28}  {:>13}  {:>13}\n", "value", "static", "online");
    out += &row("none", hops(None));
    for len in [8, 11, 17, 41, 47, 61, 68, 71, 77, 101, 107, 131, 160] {
        let what = match len {
            61 => "61 B, a variable-size lease".to_owned(),
            68 => "68 B, a fixed-size lease".to_owned(),
            _ => format!("{len} B"),
        };
        out += &row(&what, hops(Some(len)));
    }
    compare("metadata-cost", &out);
}

// What the pages state about LDK itself, and no other test asserts.

/// With no channel and no public node, LDK's own router has no path to offer, so that LDK builds no
/// static invoice.
#[test]
fn ldks_router_builds_no_path_for_a_wallet_without_a_channel() {
    let logger = Arc::new(Silent);
    let graph = Arc::new(NetworkGraph::new(Network::Regtest, logger.clone()));
    let scorer = ProbabilisticScorer::new(Default::default(), graph.clone(), logger.clone());
    let scorer = Arc::new(RwLock::new(scorer));
    let entropy = RandomBytes::new([4; 32]);
    let router = DefaultRouter::new(graph, logger, entropy, scorer, Default::default());
    let tlvs = ReceiveTlvs {
        payment_secret: PaymentSecret([3; 32]),
        payment_constraints: PaymentConstraints { max_cltv_expiry: 900_000, htlc_minimum_msat: 1 },
        payment_context: contexts(None).0,
    };
    let (key, secp) = (ReceiveAuthKey([5; 32]), Secp256k1::new());
    let paths = router.create_blinded_payment_paths(node_id(2), key, vec![], tlvs, None, &secp);
    assert!(paths.is_err());
}

struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

/// bLIP-52's formula in the prose divides by 10 000 000; its reference code and LDK by 1 000 000.
#[test]
fn the_fee_is_in_parts_per_million_and_rounded_up() {
    assert_eq!(compute_opening_fee(100_000_001, 0, 10_000), Some(1_000_001));
    assert_eq!(compute_opening_fee(100_000_001, 2_000_000, 10_000), Some(2_000_000));
    assert_eq!(compute_opening_fee(u64::MAX, 0, 10_000), None);
}

/// Unpaid leases count as requests do. The refusal comes to `get_info`, before anything is bought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_eleventh_unpaid_lease_is_refused() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.start_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    for _ in 0..10 {
        world.recipient().buy_lease(lsp, policy.clone()).await.unwrap();
    }
    let from = world.transcript.position();
    let error = world.recipient().buy_lease(lsp, policy).await.unwrap_err();
    assert!(error.to_string().starts_with("the LSP rejects this client"), "{error}");
    let methods: Vec<_> = purchases(&world, from)
        .iter()
        .filter_map(|json| json.get("method").and_then(Value::as_str).map(str::to_owned))
        .collect();
    assert_eq!(methods, ["lsps2.get_info"]);
    assert_eq!(world.recipient().leases().len(), 10);
    world.stop().await;
}

/// A promise is a MAC under the LSP's secret: with another secret, what is on the menus that were
/// handed out cannot be bought.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_menu_is_void_under_another_promise_secret() {
    let story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
    let mut world = World::new(Chain::embedded(), story).await.unwrap();
    world.start_recipient().await.unwrap();
    let (lsp, policy) = (world.lsp().id(), world.buying_policy());
    world.recipient().buy_lease(lsp, policy).await.unwrap();
    let bought = purchases(&world, 0)
        .iter()
        .find_map(|json| json.get("params")?.get("opening_fee_params").cloned());
    let params: LSPS2OpeningFeeParams = serde_json::from_value(bought.unwrap()).unwrap();
    let secret = std::fs::read(world.node_config("lsp").data_dir.join("promise_secret")).unwrap();
    let secret: [u8; 32] = secret.try_into().unwrap();
    let client = world.recipient().id();
    assert!(is_valid_opening_fee_params(&params, &secret, &client));
    assert!(!is_valid_opening_fee_params(&params, &[7; 32], &client));
    assert!(!is_valid_opening_fee_params(&params, &secret, &lsp), "it is one client's");
    world.stop().await;
}

/// LDK allows 1024 bytes of recipient id. It stands in the offer's path, hence in the invoice
/// request, and a payment to a static invoice carries that in its onion.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_recipient_id_makes_an_offer_unpayable() {
    let mut sizes = Vec::new();
    for (id, payable) in [(vec![1; 32], true), (vec![1; 1024], false)] {
        let mut story = Story::new(PayerMode::AlwaysOnline, TrustModel::ClientTrustsLsp);
        story.lsp.server.recipient_id_bytes = 1024;
        let mut world = World::new(Chain::embedded(), story).await.unwrap();
        world.start_recipient().await.unwrap();
        let (lsp, policy) = (world.lsp().id(), world.buying_policy());
        world.recipient().buy_lease(lsp, policy).await.unwrap();
        let paths = world.lsp().paths_for(&id).await.unwrap();
        world.recipient().use_paths(paths).unwrap();
        let offer = world.recipient().wait_for_offer(PATIENCE).await.unwrap();
        sizes.push(offer.as_ref().len());
        world.stop_recipient().await;
        let paid = world.pay_while_recipient_is_offline(&offer, 100_000_000).await;
        assert_eq!(paid.is_ok(), payable, "{paid:?}");
        if let Err(error) = paid {
            println!("{error:#}");
        }
        world.stop().await;
    }
    println!("offers of {sizes:?} bytes");
    assert!(sizes[1] >= sizes[0] + 1024 - 32);
}
