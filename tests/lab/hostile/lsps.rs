//! LSPS messages that no honest peer sends, in both directions.

use super::story;
use guide::stranger::{Heard, Stranger};
use guide::world::World;
use node::recipient::Recipient;
use node::transcript::{Entry, What};
use regtest::Chain;
use serde_json::{Value, json};
use std::time::Duration;

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// An answer without an error.
    Answered,
    /// An answer with this error.
    Refused(i64),
    /// LDK could not read it. It says so, and is deaf to this peer until that connects again.
    Unreadable,
    /// No answer, and the peer is still listened to.
    Dropped,
    /// The connection ends.
    HungUp,
}

const NOT_READ: i64 = -32700;

fn request(id: impl Into<Value>, method: &str, params: Value) -> Vec<u8> {
    json!({ "jsonrpc": "2.0", "id": id.into(), "method": method, "params": params })
        .to_string()
        .into_bytes()
}

fn get_info(id: impl Into<Value>) -> Vec<u8> {
    request(id, "lsps2.get_info", json!({}))
}

fn error_code(answer: &str) -> Option<i64> {
    serde_json::from_str::<Value>(answer).unwrap()["error"]["code"].as_i64()
}

/// Says something to the LSP, and finds out what becomes of it.
async fn fate(client: &Stranger, world: &World, payload: Vec<u8>, wanted: Fate) -> Fate {
    let (lsp, address) = (world.lsp().id(), world.lsp().address());
    client.say(lsp, payload);
    client.say(lsp, request("afterwards", "lsps0.list_protocols", json!({})));
    let is_late = |answer: &str| answer.contains("afterwards");
    let mut heard = client.hear().await.expect("a sign of life");
    let mut late = false;
    if let Heard::Said(_, answer) = &heard
        && is_late(answer)
    {
        if wanted == Fate::Dropped {
            return Fate::Dropped;
        }
        // What needs the LSP's application is answered after what LDK answers by itself.
        late = true;
        heard = client.hear().await.expect("an answer");
    }
    let fate = match heard {
        Heard::Gone(_) => {
            client.connect(lsp, address).await.unwrap();
            return Fate::HungUp;
        }
        Heard::Said(_, answer) => match error_code(&answer) {
            None => Fate::Answered,
            Some(NOT_READ) => Fate::Unreadable,
            Some(code) => Fate::Refused(code),
        },
        other => panic!("{other:?}"),
    };
    if fate == Fate::Unreadable {
        let from = world.transcript.position();
        client.hang_up();
        assert!(matches!(client.hear().await.unwrap(), Heard::Gone(_)), "it still listens");
        let gone = |e: &Entry| matches!(&e.what, What::Disconnected { peer } if *peer == client.id().to_string());
        world.see(from, |e| e.node == "lsp" && gone(e)).await.unwrap();
        client.connect(lsp, address).await.unwrap();
    } else if !late {
        let Heard::Said(_, answer) = client.hear().await.unwrap() else { panic!("gone") };
        assert!(is_late(&answer), "{answer}");
    }
    fate
}

fn terms(answer: &str) -> Value {
    serde_json::from_str::<Value>(answer).unwrap()["result"]["opening_fee_params_menu"][0].clone()
}

fn altered(terms: &Value, field: &str, value: Value) -> Value {
    let mut terms = terms.clone();
    terms[field] = value;
    terms
}

/// What a client says that knows the protocol badly, or too well.
fn client_says(own: &Value, of_another: &Value) -> Vec<(&'static str, Vec<u8>, Fate)> {
    use Fate::*;
    let buy = |terms: &Value, size: Value| {
        let mut params = json!({ "opening_fee_params": terms });
        if !size.is_null() {
            params["payment_size_msat"] = size;
        }
        request("b", "lsps2.buy", params)
    };
    let long = "7".repeat(30_000);
    let padded = format!("{}{}", " ".repeat(65_000), String::from_utf8(get_info("g")).unwrap());
    vec![
        ("nothing", vec![], Unreadable),
        ("no JSON", b"{".to_vec(), Unreadable),
        ("no UTF-8", vec![0xff, 0xfe], HungUp),
        ("no object", b"[1]".to_vec(), Unreadable),
        ("null", b"null".to_vec(), Unreadable),
        ("10 000 brackets", vec![b'['; 10_000], Unreadable),
        ("an id that is a number", get_info(1), Unreadable),
        ("no id", get_info(Value::Null), Unreadable),
        ("an id of 30 000 characters", get_info(long), Answered),
        ("65 000 bytes", padded.into_bytes(), Dropped),
        ("a method nobody knows", request("m", "lsps2.sell", json!({})), Unreadable),
        (
            "a token that is a number",
            request("t", "lsps2.get_info", json!({"token": 7})),
            Unreadable,
        ),
        (
            "a token nobody gave",
            request("t", "lsps2.get_info", json!({"token": "7"})),
            Refused(200),
        ),
        ("a purchase of nothing", request("b", "lsps2.buy", json!({})), Unreadable),
        ("an answer to nothing", br#"{"jsonrpc":"2.0","id":"a","result":{}}"#.to_vec(), Unreadable),
        (
            "that it could not read",
            br#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"?"}}"#.to_vec(),
            Dropped,
        ),
        (
            "a fee beyond 64 bits",
            buy(&altered(own, "min_fee_msat", json!("18446744073709551616")), Value::Null),
            Unreadable,
        ),
        (
            "a fee that is a number",
            buy(&altered(own, "min_fee_msat", json!(2_000_000)), Value::Null),
            Unreadable,
        ),
        ("a lower fee", buy(&altered(own, "min_fee_msat", json!("1")), Value::Null), Refused(201)),
        (
            "a date that is none",
            buy(&altered(own, "valid_until", json!("tomorrow")), Value::Null),
            Unreadable,
        ),
        (
            "a promise of 60 000 characters",
            buy(&altered(own, "promise", json!("7".repeat(60_000))), Value::Null),
            Dropped,
        ),
        ("terms of another client", buy(of_another, Value::Null), Refused(201)),
        ("a payment of 0", buy(own, json!("0")), Refused(202)),
        ("the largest payment there is", buy(own, json!(u64::MAX.to_string())), Refused(203)),
        ("its own terms", buy(own, Value::Null), Answered),
    ]
}

/// The LSP answers or turns deaf, sells nothing that it should not, and serves the next client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lsp_withstands_what_clients_say() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (lsp, address) = (world.lsp().id(), world.lsp().address());
    let (client, another) = (Stranger::new(0), Stranger::new(1));
    client.connect(lsp, address).await.unwrap();
    another.connect(lsp, address).await.unwrap();
    let own = terms(&client.ask(lsp, get_info("g")).await.unwrap().unwrap());
    let of_another = terms(&another.ask(lsp, get_info("g")).await.unwrap().unwrap());

    let mut wrong = Vec::new();
    for (what, payload, wanted) in client_says(&own, &of_another) {
        let sold = world.lsp().sold().len();
        let found = fate(&client, &world, payload, wanted).await;
        let sells = usize::from(what == "its own terms");
        if (found, world.lsp().sold().len() - sold) != (wanted, sells) {
            wrong.push(format!("{what}: {found:?} in place of {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");

    // Twice the same id, before the first is answered.
    client.say(lsp, get_info("twice"));
    client.say(lsp, get_info("twice"));
    let Heard::Said(_, answer) = client.hear().await.unwrap() else { panic!("gone") };
    assert!(answer.contains("twice"), "{answer}");

    let books = {
        let (_, offer) = world.prepare_recipient().await.unwrap();
        world.pay_offline_recipient(&offer, 100_000_000).await.unwrap()
    };
    assert_eq!(books.recipient_received_msat, 98_000_000);
    world.stop().await;
}

/// An entry of a menu that suits the wallet.
fn entry() -> Value {
    json!({
        "min_fee_msat": "2000000",
        "proportional": 10_000,
        "valid_until": "2099-01-01T00:00:00.000Z",
        "min_lifetime": 4_320,
        "max_client_to_self_delay": 2_016,
        "min_payment_size_msat": "10000000",
        "max_payment_size_msat": "2000000000",
        "promise": "a promise",
    })
}

fn menu(entries: &[Value]) -> Value {
    json!({ "opening_fee_params_menu": entries })
}

fn menu_with(field: &str, value: Value) -> Value {
    menu(&[altered(&entry(), field, value)])
}

fn sold(scid: &str, delta: Value) -> Value {
    json!({ "jit_channel_scid": scid, "lsp_cltv_expiry_delta": delta, "client_trusts_lsp": true })
}

/// What an LSP answers.
enum Answer {
    /// This result.
    Result(Value),
    /// This error.
    Error(Value),
    /// These bytes.
    Bytes(Vec<u8>),
    /// This result, to another request.
    ToAnother(Value),
}

fn payload(id: &str, answer: Answer) -> Vec<u8> {
    let message = match answer {
        Answer::Result(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Answer::Error(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error }),
        Answer::ToAnother(result) => json!({ "jsonrpc": "2.0", "id": "another", "result": result }),
        Answer::Bytes(bytes) => return bytes,
    };
    message.to_string().into_bytes()
}

/// The wallet buys from an LSP that answers like this, and says what came of it.
async fn buys(wallet: &Recipient, world: &World, lsp: &Stranger, answers: Vec<Answer>) -> String {
    let policy = world.buying_policy();
    let selling = async {
        let mut dropped = false;
        for answer in answers {
            let Ok(Heard::Said(client, asked)) = lsp.hear().await else { return };
            let asked: Value = serde_json::from_str(&asked).unwrap();
            let answer = payload(asked["id"].as_str().unwrap(), answer);
            dropped = answer.len() > 48 * 1024;
            lsp.say(client, answer);
        }
        // That it could not read the answer the wallet says to the LSP, and the wallet's user learns it
        // from the time-out.
        if !dropped {
            let Ok(Heard::Said(_, said)) = lsp.hear().await else { return };
            assert_eq!(error_code(&said), Some(NOT_READ), "{said}");
        }
        wallet.clock().advance(Duration::from_secs(31));
        std::future::pending::<()>().await;
    };
    tokio::select! {
        bought = wallet.buy_lease(lsp.id(), policy) => match bought {
            Ok(lease) => format!("bought {}", lease.id.intercept_scid),
            Err(error) => format!("{error:#}"),
        },
        () = selling => "the wallet hung up".to_owned(),
    }
}

/// What a hostile LSP answers to `lsps2.get_info`, and to `lsps2.buy`; and what the wallet says.
fn lsp_says() -> Vec<(Vec<Answer>, &'static str)> {
    use Answer::*;
    let falls_silent = "no answer from the LSP after";
    let fee = |field, value: Value| vec![Result(menu_with(field, value))];
    let sale = |scid, delta: Value| vec![Result(menu(&[entry()])), Result(sold(scid, delta))];
    let too_long = |name: &str| json!({ name: "7".repeat(60_000), "opening_fee_params_menu": [] });
    vec![
        (vec![Bytes(vec![])], falls_silent),
        (vec![Bytes(b"{".to_vec())], falls_silent),
        (vec![ToAnother(menu(&[entry()]))], falls_silent),
        (vec![Result(json!({}))], falls_silent),
        (vec![Result(menu(&[]))], "the LSP offers no JIT channels now"),
        (fee("min_fee_msat", json!("18446744073709551616")), falls_silent),
        (fee("min_fee_msat", json!("-1")), falls_silent),
        (fee("min_fee_msat", json!(u64::MAX.to_string())), "its fee is 18446744073709551615 msat"),
        (fee("proportional", json!(u32::MAX)), "its fee is 429496729500 msat"),
        (fee("proportional", json!(1_u64 << 32)), falls_silent),
        (fee("valid_until", json!("1969-12-31T23:59:59.000Z")), falls_silent),
        (
            fee("valid_until", json!("2026-01-01T00:00:00.000Z")),
            "every entry of the menu has expired",
        ),
        (fee("valid_until", json!("+300000-01-01T00:00:00.000Z")), falls_silent),
        (fee("promise", json!("7".repeat(513))), "the promise of menu entry 0 exceeds 512 bytes"),
        (
            fee("ongoing_proportional", json!(10_000)),
            "fields unknown to LDK (ongoing_proportional)",
        ),
        (
            vec![Result(menu(&[entry(), altered(&entry(), "min_fee_msat", json!("1"))]))],
            "menu entry 1 is not dearer than the one before it",
        ),
        (fee("max_client_to_self_delay", json!(0)), "it allows a to_self_delay of 0 blocks"),
        (fee("max_payment_size_msat", json!("0")), "it takes payments of 10000000 to 0 msat"),
        (
            vec![Error(json!({"code": 1, "message": "7".repeat(40_000)}))],
            "the LSP rejects this client",
        ),
        (vec![Error(json!({"code": i32::MIN, "message": "\u{202e}"}))], "unknown code -2147483648"),
        (sale("0x0x0", json!(72)), "the LSP gave the intercept SCID 0"),
        (sale("1x1", json!(72)), falls_silent),
        // LDK cuts the height to 24 bits.
        (sale("16777216x0x0", json!(72)), "the LSP gave the intercept SCID 0"),
        (sale("1x1x1", json!(u32::MAX)), "a CLTV delta of 4294967295 blocks"),
        (sale("1x1x1", json!(65_584)), "a CLTV delta of 65584 blocks"),
        (sale("1x1x1", json!(1_008)), "a CLTV delta of 1008 blocks"),
        (sale("1x1x1", json!(47)), "a CLTV delta of 47 blocks"),
        (sale("1x1x1", json!(-1)), falls_silent),
        (vec![Result(too_long("x"))], falls_silent),
    ]
}

/// The wallet says what is wrong, keeps nothing, and buys from the next LSP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wallet_withstands_what_an_lsp_answers() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    world.start_recipient().await.unwrap();
    let wallet = world.recipient();
    let mut wrong = Vec::new();
    let mut lsps = Vec::new();
    for (number, (answers, wanted)) in lsp_says().into_iter().enumerate() {
        let lsp = Stranger::new(number.try_into().unwrap());
        let address = lsp.listen().await.unwrap();
        wallet.connect(lsp.id(), address).await.unwrap();
        assert!(matches!(lsp.hear().await.unwrap(), Heard::Connected(_)));
        let found = buys(wallet, &world, &lsp, answers).await;
        if !found.contains(wanted) || found.len() > 600 {
            wrong.push(format!("{number}: {found} in place of {wanted}"));
        }
        wallet.disconnect(&lsp.id()).unwrap();
        lsps.push(lsp);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(wallet.leases().is_empty(), "{:?}", wallet.leases());

    // One SCID, sold twice.
    let lsp = Stranger::new(1_000);
    let address = lsp.listen().await.unwrap();
    wallet.connect(lsp.id(), address).await.unwrap();
    lsp.hear().await.unwrap();
    let sale = || vec![Answer::Result(menu(&[entry()])), Answer::Result(sold("1x2x3", json!(72)))];
    let first = buys(wallet, &world, &lsp, sale()).await;
    assert!(first.starts_with("bought "), "{first}");
    let second = buys(wallet, &world, &lsp, sale()).await;
    assert!(second.contains("the LSP reused an intercept SCID"), "{second}");
    assert_eq!(wallet.leases().len(), 1);

    let from = world.lsp().id();
    wallet.buy_lease(from, world.buying_policy()).await.unwrap();
    assert_eq!(wallet.leases().len(), 2);
    drop(lsps);
    world.stop().await;
}
