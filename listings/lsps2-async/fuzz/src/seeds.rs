//! What the fuzzers start from: bytes of recorded runs of nodes, and what this project's own code
//! writes.
//!
//! `RECORD=1 cargo test -p lsps2-async-fuzz seeds` writes the files anew.

use bitcoin::hex::FromHex;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use core::time::Duration;
use lightning::blinded_path::BlindedHop;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::msgs::OnionMessage;
use lightning::ln::types::ChannelId;
use lightning::offers::static_invoice::StaticInvoice;
use lightning::onion_message::packet::Packet;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::Writeable;
use lsps2_async::lease::{
    Consumption, Lease, LeaseId, LeaseRecord, LeaseState, OpeningFeeParams, TrustModel,
};
use lsps2_async::lsp::jit_table::{
    FeePayment, InboundHtlc, JIT_TABLE_NAMESPACE, JitRecord, JitState, JitTable, OpenChannel,
    Opening, Retired, RetiredWhy,
};
use lsps2_async::lsp::mailbox::{MAILBOX_NAMESPACE, Mailbox, MailboxLimits};
use lsps2_async::metadata::LeaseMetadata;
use recording::{Recording, entry::What};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::explain::EXPLAINED;
use crate::feed::Meal;
use crate::now;
use crate::store::Disk;

/// The corpus of a target.
pub(crate) fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target)
}

/// A target's seeds, by their names.
type Seeds = BTreeMap<(&'static str, String), Vec<u8>>;

const RECORDINGS: [&str; 3] = ["flow", "bolt11", "fail-purchase"];

/// A message that a node of a recorded run received.
struct Received {
    recording: &'static str,
    name: String,
    bytes: Vec<u8>,
}

/// The first of each kind, by name, from each recording.
fn received() -> Vec<Received> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../tests/recorded");
    let mut all = Vec::new();
    for recording in RECORDINGS {
        let mut seen = BTreeSet::new();
        let read = Recording::read(&folder.join(recording).with_extension("jsonl"));
        for moment in read.expect("a recording").moments {
            for layer in &moment.explained {
                let name = match &moment.what {
                    What::Lsps { .. } => format!("lsps {}", layer.title),
                    _ => layer.title.clone(),
                };
                let bytes = match layer.text {
                    true => layer.bytes.clone().into_bytes(),
                    false => Vec::from_hex(&layer.bytes).expect("hex"),
                };
                // Errors differ from one to the next, the rest does not.
                if seen.insert(name.clone()) || name.ends_with("error") {
                    all.push(Received { recording, name, bytes });
                }
            }
        }
    }
    all
}

fn of<'a>(received: &'a [Received], name: &str) -> Vec<&'a Received> {
    received.iter().filter(|message| message.name == name).collect()
}

fn node(seed: u8) -> PublicKey {
    SecretKey::from_slice(&[seed; 32]).expect("a key").public_key(&Secp256k1::new())
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const VALID_UNTIL: u64 = 1_800_000_000;

fn terms() -> OpeningFeeParams {
    OpeningFeeParams {
        min_fee_msat: 2_000_000,
        proportional: 10_000,
        valid_until: seconds(VALID_UNTIL),
        min_lifetime: 4_320,
        max_client_to_self_delay: 2_016,
        min_payment_size_msat: 10_000_000,
        max_payment_size_msat: 2_000_000_000,
    }
}

fn lease(intercept_scid: u64, payment_size_msat: Option<u64>) -> Lease {
    Lease {
        id: LeaseId { lsp_node_id: node(1), intercept_scid },
        cltv_expiry_delta: 144,
        opening_fee_params: terms(),
        payment_size_msat,
        trust_model: TrustModel::ClientTrustsLsp,
    }
}

fn spent() -> Consumption {
    Consumption {
        payment_hash: PaymentHash([1; 32]),
        channel_id: ChannelId([2; 32]),
        skimmed_fee_msat: 2_000_000,
        settled: false,
    }
}

fn records() -> [LeaseRecord; 4] {
    let expired = LeaseRecord { lease: lease(9, None), state: LeaseState::Expired };
    let active = LeaseRecord { lease: lease(7, None), state: LeaseState::Active };
    let fixed = LeaseRecord { lease: lease(8, Some(100_000_000)), state: LeaseState::Active };
    let consumed = LeaseRecord { lease: lease(10, None), state: LeaseState::Consumed(spent()) };
    [active, fixed, expired, consumed]
}

fn lease_stores(seeds: &mut Seeds) {
    let [active, fixed, expired, consumed] = records().map(|record| record.encode());
    let whole = || {
        let meal = Meal::default().byte(4);
        let entries = [&active, &fixed, &expired, &consumed];
        entries.iter().fold(meal, |meal, record| meal.byte(0).chunk(record))
    };
    // What is used: whether the disk fails, which lease, what is done with it.
    let consume =
        |meal: Meal, which, hash, fee| meal.raw(&[0, which, 1, hash, 2]).number(fee).byte(0);
    let settle = |meal: Meal, hash| meal.raw(&[0, 0, 2, hash]);
    let expire = |meal: Meal, at| meal.raw(&[0, 0, 3]).number(at);
    let mut put =
        |name: &str, meal: Meal| seeds.insert(("lease_store", name.into()), meal.served());
    put("spent-once", settle(consume(whole(), 0, 1, 2_000_000), 1));
    put("spent-twice", consume(consume(whole(), 0, 1, 2_000_000), 0, 2, 2_000_000));
    put("replayed", consume(whole(), 3, 1, 1_999_999));
    put("expired", expire(whole(), VALID_UNTIL));
    put("asked", whole().raw(&[0, 0, 4]).number(VALID_UNTIL - 1));
    put("disk-fails", whole().raw(&[1, 0, 1, 1, 2]).number(5).byte(0));
    put("bought", Meal::default().byte(0).raw(&[0, 0, 0]).chunk(&active));
    let foreign = Meal::default().byte(2).byte(1).chunk(&active).chunk(b"readme");
    put("foreign-keys", foreign.byte(0).chunk(&fixed));
}

fn claims(seeds: &mut Seeds) {
    let [active, fixed, expired, consumed] = records();
    let arrival = |record: &LeaseRecord, hash, amount: u64, skimmed: u64| {
        let head = Meal::default().chunk(&record.encode()).chunk(&[]);
        // The agreed metadata, from the seller, over a channel opened for the lease.
        let head = head.raw(&[1, 1, 1, hash]).number(amount).number(skimmed);
        head.byte(1).number(amount + skimmed).raw(&[2, 0, 1]).number(VALID_UNTIL - 10).served()
    };
    let mut put = |name: &str, bytes| seeds.insert(("claim", name.into()), bytes);
    put("variable", arrival(&active, 1, 98_000_000, 2_000_000));
    put("fixed", arrival(&fixed, 1, 98_000_000, 2_000_000));
    put("replayed", arrival(&consumed, 1, 98_000_000, 2_000_000));
    put("nothing-skimmed", {
        let head = Meal::default().chunk(&expired.encode()).chunk(&[]).raw(&[1, 1, 1, 1]);
        let head = head.number(5_000).number(0).byte(0).raw(&[2, 0, 0]);
        head.number(VALID_UNTIL).served()
    });
    put("refused-too-much", arrival(&active, 1, 90_000_000, 10_000_000));
    put("refused-expired", arrival(&expired, 1, 98_000_000, 2_000_000));
}

fn letter(byte: u8, len: usize) -> OnionMessage {
    let (version, public_key, hmac) = (0, node(2), [byte; 32]);
    let hop_data = vec![byte; len];
    let onion_routing_packet = Packet { version, public_key, hop_data, hmac };
    OnionMessage { blinding_point: node(3), onion_routing_packet }
}

fn mailboxes(seeds: &mut Seeds) {
    let disk = Disk::default();
    let mut mailbox =
        now(Mailbox::load(disk.clone(), MailboxLimits::default())).expect("an empty disk");
    for (peer, byte) in [(5, 1), (5, 2), (6, 3)] {
        let next_hop = lightning::blinded_path::message::NextMessageHop::NodeId(node(peer));
        let letter = letter(byte, 60);
        let posted = mailbox.post(Some(node(9)), &next_hop, &letter, |_| true, seconds(1));
        now(posted).expect("the disk works");
    }
    let entries = disk.entries(MAILBOX_NAMESPACE);
    let stored = entries.iter().fold(Meal::default().byte(3), |meal, ((_, _, key), letter)| {
        meal.chunk(key.as_bytes()).chunk(letter)
    });
    // After how long, whether the disk fails, whose, what.
    let post = |meal: Meal, byte, len, how| {
        meal.raw(&[1, 9, 0, 0]).chunk(&letter(byte, len).encode()).byte(how)
    };
    let take = |meal: Meal| meal.raw(&[1, 9, 0, 2]);
    let mut put = |name: &str, meal: Meal| seeds.insert(("mailbox", name.into()), meal.served());
    put("taken", take(take(take(stored.clone()))));
    put("expired", stored.clone().raw(&[100, 9, 0, 3]));
    let flood = (4..10).fold(stored, |meal, byte| post(meal, byte, 100, 0b01_11_01_01));
    put("flooded", take(flood));
    let empty = Meal::default().byte(0);
    put("posted", take(post(post(empty.clone(), 1, 20, 0b01_01_01), 1, 20, 0b01_01_01)));
    put(
        "of-many-senders",
        (0..4)
            .fold(empty.clone(), |meal, sender| post(meal, sender, 100, sender << 6 | 0b01_01_01)),
    );
    put("disk-fails", empty.raw(&[1, 0, 0, 0]).chunk(&letter(1, 20).encode()).byte(0b01_01_01));
}

fn static_invoices(seeds: &mut Seeds, received: &[Received]) {
    let hop = |seed| BlindedHop { blinded_node_id: node(seed), encrypted_payload: vec![seed; 44] };
    let hops = vec![hop(4), hop(5)];
    let path = BlindedMessagePath::from_blinded_path(node(2), node(3), hops).encode();
    for message in of(received, "static_invoice") {
        let invoice = StaticInvoice::try_from(message.bytes.clone()).expect("recorded");
        let time = invoice.created_at().as_secs() + 10;
        let call = |meal: Meal, slot| meal.byte(0).chunk(b"alice").raw(&[0, slot]).number(time);
        let stored = call(call(Meal::default(), 0).byte(0), 1).byte(1);
        let stored = stored.chunk(&message.bytes).chunk(&path);
        let name = |what| ("static_invoices", format!("{}-{what}", message.recording));
        seeds.insert(name("served"), call(stored.clone(), 1).byte(3).served());
        let stranger = stored.byte(0).chunk(b"bob").raw(&[0, 1]).number(time).byte(3);
        seeds.insert(name("asked-for-by-a-stranger"), stranger.served());
    }
}

fn jit_tables(seeds: &mut Seeds) {
    let open = OpenChannel {
        channel_id: ChannelId([9; 32]),
        opening_fee_msat: 2_000_000,
        skimmed_fee_msat: 0,
        counted: vec![InboundHtlc { channel_id: ChannelId([8; 32]), htlc_id: 3 }],
        fee_payment: Some(FeePayment {
            payment_hash: PaymentHash([1; 32]),
            intercept_ids: vec![InterceptId([1; 32])],
        }),
        ended: vec![InterceptId([6; 32])],
        fee_paid: false,
    };
    let opening = Opening {
        payment_hash: PaymentHash([1; 32]),
        intercept_ids: vec![InterceptId([1; 32]), InterceptId([2; 32])],
        amt_to_forward_msat: 98_000_000,
        opening_fee_msat: 2_000_000,
        since: seconds(8),
    };
    let paid = OpenChannel { fee_paid: true, fee_payment: None, ..open.clone() };
    let owed = OpenChannel { fee_payment: None, ..open.clone() };
    let retired = Retired { why: RetiredWhy::ChannelClosed, since: seconds(9) };
    let states = [
        ("sold", JitState::Sold),
        ("opening", JitState::Opening(opening)),
        ("open", JitState::Open(open)),
        ("owed", JitState::Open(owed)),
        ("paid", JitState::Open(paid)),
        ("retired", JitState::Retired(retired)),
    ];
    for (name, state) in states {
        let record = JitRecord {
            scid: 42,
            client_node_id: node(1),
            user_channel_id: 7,
            opening_fee_params: terms(),
            payment_size_msat: (name == "opening").then_some(100_000_000),
            trust_model: TrustModel::ClientTrustsLsp,
            cltv_expiry_delta: 144,
            state,
            funding: None,
        };
        let disk = Disk::default();
        let table = now(JitTable::load(disk.clone())).expect("an empty disk");
        now(table.insert(record)).expect("the disk works");
        let (_, bytes) = disk.entries(JIT_TABLE_NAMESPACE).pop_first().expect("the record");
        let meal = Meal::default().byte(2).number(42).chunk(&bytes).number(43).chunk(&[1, 2]);
        // A payment that fits: its amount, its names, and what is known.
        let meal = meal.number(100_000_000).raw(&[1, 1, 1, 0, 1, 1, 90]).number(VALID_UNTIL - 5);
        seeds.insert(("jit_table", name.into()), meal.served());
    }
}

fn lsps(seeds: &mut Seeds, received: &[Received]) {
    // The client trusts and pays at most 3 000 000 msat of 100 000 000 msat.
    let policy = |flags| Meal::default().byte(flags).number(100_000_000).number(3_000_000);
    let policy = |flags| policy(flags).raw(&[60, 144]).number(1_790_000_000);
    let answer = |message: &Received, id| {
        let mut json: serde_json::Value = serde_json::from_slice(&message.bytes).expect("JSON");
        json["id"] = id;
        json.to_string().into_bytes()
    };
    let id = |n: u8| serde_json::Value::from(n.to_string());
    for menu in of(received, "lsps answer to lsps2.get_info") {
        let asked = policy(2).byte(0).chunk(&answer(menu, id(0)));
        let name = |what| ("lsps_client", format!("{}-{what}", menu.recording));
        seeds.insert(name("menu"), asked.clone().served());
        for bought in of(received, "lsps answer to lsps2.buy") {
            for (flags, what) in [(2, "variable"), (3, "fixed"), (0, "not-trusted")] {
                let meal = policy(flags).byte(0).chunk(&answer(menu, id(0)));
                seeds.insert(name(what), meal.byte(0).chunk(&answer(bought, id(1))).served());
            }
        }
    }
    let errors = of(received, "lsps error");
    for (n, error) in errors.iter().enumerate() {
        let meal = policy(2).byte(0).chunk(&answer(error, id(0)));
        seeds.insert(("lsps_client", format!("refused-{n}-by-the-lsp")), meal.served());
    }
    let menu = of(received, "lsps answer to lsps2.get_info")[0];
    let mut odd: serde_json::Value = serde_json::from_slice(&menu.bytes).expect("JSON");
    odd["id"] = id(0);
    odd["result"]["opening_fee_params_menu"][0]["ongoing_proportional"] = 7.into();
    let (plain, odd_text) = (answer(menu, id(0)), odd.to_string());
    let mut put = |name: &str, meal: Meal| {
        seeds.insert(("lsps_client", name.into()), meal.served());
    };
    put("unknown-field", policy(2).byte(0).chunk(odd_text.as_bytes()));
    // LDK did not hear the one, or read it although more follows: it cannot stand for the other.
    let unheard = policy(2).byte(1).chunk(&plain);
    put("unknown-field-behind-an-unheard-menu", unheard.byte(0).chunk(odd_text.as_bytes()));
    let more = policy(2).byte(2).chunk((odd_text + "!").as_bytes());
    put("unknown-field-before-an-unread-menu", more.byte(0).chunk(&plain));
    let list = serde_json::json!([odd["result"]["opening_fee_params_menu"]]);
    odd["result"] = list;
    put("unknown-field-in-a-list", policy(2).byte(0).chunk(odd.to_string().as_bytes()));
    let bought = of(received, "lsps answer to lsps2.buy")[0];
    let mut trusting: serde_json::Value = serde_json::from_slice(&bought.bytes).expect("JSON");
    trusting["id"] = id(1);
    trusting["result"] = serde_json::json!(["1x2x3", 144, true]);
    let meal = policy(0).byte(0).chunk(&plain).byte(0);
    put("trust-in-a-list", meal.chunk(trusting.to_string().as_bytes()));
    sales(seeds, received);
}

fn sales(seeds: &mut Seeds, received: &[Received]) {
    let option = |meal: Meal, fee: u64| {
        let meal = meal.number(fee).number(10_000 << 44).number(86_400_000).raw(&[200, 200]);
        meal.number(10_000_000).number(2_000_000_000)
    };
    let policy = |flags| {
        let meal = Meal::default().number(1_790_000_000_000).byte(flags).byte(2);
        option(option(meal, 2_000_000), 3_000_000).byte(48)
    };
    for request in received.iter().filter(|message| message.name.starts_with("lsps lsps2.")) {
        let what = request.name.trim_start_matches("lsps lsps2.");
        let name = |how| ("lsps_sale", format!("{}-{what}-{how}", request.recording));
        // For a purchase: the names, and a disk that works. LDK takes the answer, or does not.
        for (flags, how) in [(0, "open"), (1, "for-a-token"), (4, "unanswered"), (14, "unwritten")]
        {
            let meal = policy(flags).chunk(&request.bytes).raw(&[1, 1, 1]);
            seeds.insert(name(how), meal.chunk(&request.bytes).raw(&[1, 2, 1]).served());
        }
    }
}

fn messages(seeds: &mut Seeds, received: &[Received]) {
    for message in received {
        let kind = match EXPLAINED.iter().position(|name| *name == message.name) {
            Some(kind) => kind,
            None if message.name.starts_with("lsps ") => EXPLAINED.len(),
            None if message.name == "lease metadata" => EXPLAINED.len() + 1,
            // What is inside an onion comes with the onion.
            None => continue,
        };
        let what = message.name.replace([' ', '.'], "-");
        let (name, mut n) = (format!("{}-{what}", message.recording), 1);
        let mut key = ("explain", name.clone());
        while seeds.contains_key(&key) {
            n += 1;
            key.1 = format!("{name}-{n}");
        }
        seeds.insert(key, Meal::default().byte(kind as u8).raw(&message.bytes).served());
    }
    let agreed = LeaseMetadata::for_lease(&lease(7, Some(100_000_000))).expect("payable");
    let onion = |flags: u8| {
        let meal = Meal::default().byte(EXPLAINED.len() as u8 + 2).byte(flags).number(100_000);
        let meal = if flags & 1 == 0 { meal.byte(6) } else { meal };
        let meal = meal.chunk(&agreed.encode());
        let meal = if flags & 2 == 2 { meal.byte(1) } else { meal };
        let meal = if flags & 16 == 16 { meal.number(7 << 32).chunk(b"custom") } else { meal };
        meal.number(98_000).byte(44).number(2_000).served()
    };
    for (flags, name) in
        [(2, "invoice"), (6, "invoice-with-delta"), (33, "keysend"), (80, "custom")]
    {
        seeds.insert(("explain", format!("onion-{name}")), onion(flags));
    }
}

fn all() -> Seeds {
    let (mut seeds, received) = (Seeds::new(), received());
    for metadata in of(&received, "lease metadata") {
        seeds.insert(("metadata", metadata.recording.into()), metadata.bytes.clone());
    }
    let names = ["variable", "fixed-size", "expired-unused", "spent"];
    for (name, record) in names.into_iter().zip(records()) {
        seeds.insert(("lease_record", name.into()), record.encode());
    }
    lease_stores(&mut seeds);
    claims(&mut seeds);
    mailboxes(&mut seeds);
    static_invoices(&mut seeds, &received);
    jit_tables(&mut seeds);
    lsps(&mut seeds, &received);
    messages(&mut seeds, &received);
    seeds
}

/// Each is there, and so are those of targets that have some which were made by hand.
#[test]
fn seeds_are_written_with_record_and_else_there() {
    let write = std::env::var_os("RECORD").is_some();
    for ((target, name), bytes) in all() {
        let file = corpus(target).join(&name);
        if write {
            std::fs::create_dir_all(corpus(target)).expect("a folder");
            std::fs::write(&file, &bytes).expect("a file");
        }
        assert!(
            file.is_file(),
            "no {target}/{name}: RECORD=1 cargo test -p lsps2-async-fuzz seeds"
        );
    }
}
