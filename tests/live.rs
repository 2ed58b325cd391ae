//! Live runs, as a page asks for them: choices in, steps out, and nothing left behind.

use crate::book::{Served, Small};
use guide::live::{Choices, End, Live, Settings, Tell};
use guide::money::Books;
use guide::world::PATIENCE;
use lsps2_async::lease::TrustModel;
use node::lsp::LspPolicy;
use node::transcript::{HtlcState, What};
use recording::Header;
use recording::view::{Kind, Step};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A service without a book around it.
struct Service {
    address: SocketAddr,
    /// Where its runs keep their nodes.
    folder: TempDir,
    live: Option<Live>,
    _runtime: Runtime,
}

impl Service {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut settings = Settings::new("0.0.0");
        settings.folder = folder.path().to_owned();
        change(&mut settings);
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let live = Live::new(settings);
        let router = live.router(address.port());
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, folder, live: Some(live), _runtime: runtime }
    }

    fn ask(&self, request: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let host = self.address.to_string();
        let mut all = vec![("Host", &*host)];
        all.extend(headers.iter().filter(|(name, _)| *name != "Host"));
        if let Some(other) = headers.iter().find(|(name, _)| *name == "Host") {
            all[0] = *other;
        }
        let length = body.len().to_string();
        all.push(("Content-Length", &length));
        Answer::of(self.address, request, &all, body)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], "")
    }

    fn post(&self, choices: &Value) -> Answer {
        let json = [("Content-Type", "application/json")];
        self.ask("POST /live/run", &json, &choices.to_string())
    }

    /// Starts a run that is granted.
    fn start(&self, choices: &Value) -> String {
        let answer = self.post(choices);
        assert_eq!(answer.status, 202, "{choices}");
        answer.json()["run"].as_str().unwrap().to_owned()
    }

    fn follow(&self, run: &str) -> Answer {
        let answer = self.get(&format!("/live/events?run={run}"));
        assert_eq!(answer.status, 200);
        answer
    }

    fn follow_after(&self, run: &str, last: usize) -> Answer {
        let last = last.to_string();
        let request = format!("GET /live/events?run={run}");
        self.ask(&request, &[("Last-Event-ID", &last)], "")
    }

    fn is_running(&self) -> bool {
        self.get("/live").json()["running"].as_bool().unwrap()
    }

    /// Whether no run has a folder here.
    fn is_empty(&self) -> bool {
        self.folder.path().read_dir().unwrap().next().is_none()
    }
}

/// An answer whose body is read as it comes.
struct Answer {
    status: u16,
    head: String,
    body: BufReader<TcpStream>,
}

#[derive(Debug, Clone, PartialEq)]
struct Message {
    event: String,
    id: Option<usize>,
    data: String,
}

impl Answer {
    /// By HTTP 1.0, in which a body ends with its connection.
    fn of(address: SocketAddr, request: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(150))).unwrap();
        let mut text = format!("{request} HTTP/1.0\r\n");
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        stream.write_all(format!("{text}\r\n{body}").as_bytes()).unwrap();
        let mut body = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(body.read_line(&mut head).unwrap() > 0, "no head: {head}");
        }
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_lowercase(), body }
    }

    fn text(mut self) -> String {
        let mut text = String::new();
        self.body.read_to_string(&mut text).unwrap();
        text
    }

    fn json(self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn next(&mut self) -> Option<Message> {
        let mut message = Message { event: String::new(), id: None, data: String::new() };
        let mut line = String::new();
        loop {
            line.clear();
            if self.body.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            match line.trim_end().split_once(": ") {
                Some(("event", event)) => message.event = event.to_owned(),
                Some(("id", id)) => message.id = Some(id.parse().unwrap()),
                Some(("data", data)) => message.data = data.to_owned(),
                _ if message.event.is_empty() => {}
                _ => return Some(message),
            }
        }
    }

    fn messages(mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// What a reader who follows from the beginning has in the end.
struct Story {
    header: Header,
    steps: Vec<Step>,
    end: End,
}

impl Story {
    fn of(messages: &[Message]) -> Self {
        let [header, steps @ .., end] = messages else { panic!("{messages:?}") };
        assert_eq!((&*header.event, &*end.event), ("header", "end"));
        let step = |(n, message): (usize, &Message)| {
            assert_eq!((&*message.event, message.id), ("step", Some(n)));
            let step: Step = serde_json::from_str(&message.data).unwrap();
            assert_eq!(step.n, n);
            step
        };
        Self {
            header: serde_json::from_str(&header.data).unwrap(),
            steps: steps.iter().enumerate().map(step).collect(),
            end: serde_json::from_str(&end.data).unwrap(),
        }
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| step.kind == kind)
    }
}

fn usual() -> Value {
    json!({
        "amount_msat": 100_000_000,
        "min_fee_msat": 2_000_000,
        "proportional": 10_000,
        "trust": "client",
        "payer": "offline",
        "recipient": "offline",
    })
}

fn changed(field: &str, value: Value) -> Value {
    let mut choices = usual();
    choices[field] = value;
    choices
}

/// What a run must come to, by the crate's own fee code.
fn books(choices: &Value) -> Books {
    const ROUTING_MSAT: u64 = 1_000;
    let number = |field: &str| choices[field].as_u64().unwrap();
    let mut fees = LspPolicy::new(TrustModel::ClientTrustsLsp).fees;
    fees.min_fee_msat = number("min_fee_msat");
    fees.proportional = number("proportional") as u32;
    let amount_msat = number("amount_msat");
    let opening_fee_msat = fees.terms(Duration::ZERO).opening_fee_msat(amount_msat).unwrap();
    Books {
        payer_sent_msat: amount_msat + ROUTING_MSAT,
        routing_fee_msat: ROUTING_MSAT,
        opening_fee_msat,
        recipient_received_msat: amount_msat - opening_fee_msat,
    }
}

/// Every pair of payer, recipient and trust model, at the edges of amount and fee.
#[test]
fn a_reader_s_choices_are_played_until_it_is_paid() {
    let service = Service::new();
    for (payer, recipient, trust, amount_msat, min_fee_msat, proportional) in [
        ("offline", "offline", "client", 300_000_001, 2_000_000, 10_000),
        ("online", "online", "client", 10_000_001, 10_000_000, 0),
        ("offline", "online", "lsp", 10_000_000, 0, 0),
        ("online", "offline", "lsp", 2_000_000_000, 10_000_000, 100_000),
    ] {
        let choices = json!({
            "amount_msat": amount_msat,
            "min_fee_msat": min_fee_msat,
            "proportional": proportional,
            "trust": trust,
            "payer": payer,
            "recipient": recipient,
        });
        let run = service.start(&choices);
        let story = Story::of(&service.follow(&run).messages());
        assert_eq!(story.end.outcome, "paid", "{choices}: {:?}", story.end.error);
        assert_eq!(story.end.books, Some(books(&choices)), "{choices}");
        assert!(
            !service.is_running() && service.is_empty(),
            "its nodes are gone with their folder"
        );

        let setting = &story.header.setting;
        assert_eq!(
            (&setting["amount_msat"], &setting["payer"]),
            (&json!(amount_msat), &json!(payer))
        );
        let lanes: Vec<_> = story.header.lanes.iter().map(|lane| &*lane.id).collect();
        assert_eq!(lanes, ["payer", "payer-lsp", "lsp", "recipient"]);
        let scenes: Vec<_> = story.of_kind(Kind::Scene).map(|step| &*step.scene).collect();
        assert_eq!(scenes[..5], ["step-1", "step-2", "step-3", "step-4", "step-5"]);
        let leavers: Vec<_> = story.of_kind(Kind::Offline).map(|step| &*step.at).collect();
        for (party, chosen) in [("payer", payer), ("recipient", recipient)] {
            assert_eq!(leavers.contains(&party), chosen == "offline", "{choices}: {leavers:?}");
        }
    }
}

#[test]
fn a_run_goes_on_without_its_reader_and_is_there_for_the_next() {
    let service = Service::new();
    let run = service.start(&usual());
    let mut first = service.follow(&run);
    assert!(first.head.contains("content-type: text/event-stream"), "{}", first.head);
    let seen: Vec<_> = (0..10).map(|_| first.next().unwrap()).collect();
    drop(first);

    let all = service.follow(&run).messages();
    assert_eq!(Story::of(&all).end.outcome, "paid");
    assert_eq!(all[..10], seen[..]);
    // What a browser does when its connection breaks.
    assert_eq!(service.follow_after(&run, 8).messages(), all[10..]);
    let last = all.len() - 3;
    assert_eq!(service.follow_after(&run, last).messages(), all[last + 2..], "the end");
    assert_eq!(service.follow_after(&run, usize::MAX).messages(), all[last + 2..]);
    assert_eq!(service.follow(&run).messages(), all);

    let offer = service.get("/live").json();
    assert_eq!(offer["run"], json!(run), "a page finds the last run again");
    assert_eq!(service.get("/live/events?run=other").status, 404);
    assert_eq!(service.get("/live/events").status, 404);
}

#[test]
fn a_choice_that_cannot_be_played_is_refused_with_the_reason_before_anything_starts() {
    let service = Service::with(|settings| settings.tell = Arc::new(|_, _| unreachable!()));
    let refused = [
        ("amount_msat", json!(9_999_999), "below the 10 000 000 msat that pay for a channel"),
        ("amount_msat", json!(9_999_999), "choose 10 000 000 msat or more"),
        ("amount_msat", json!(2_000_000_001u64), "choose 2 000 000 000 msat or less"),
        ("amount_msat", json!("99999999999999999999"), "choose 2 000 000 000 msat or less"),
        ("amount_msat", json!("99999999999999999999"), "99999999999999999999 is too large"),
        ("amount_msat", json!(0), "choose 10 000 000 msat or more"),
        ("amount_msat", json!(-1), "digits only"),
        ("amount_msat", json!(100_000_000.5), "digits only"),
        ("amount_msat", json!("100 000 000"), "digits only"),
        ("amount_msat", json!("+100000000"), "digits only"),
        ("amount_msat", json!(""), "type a number of msat"),
        ("proportional", json!(""), "type a number of parts per million"),
        ("amount_msat", json!(null), "digits only"),
        ("amount_msat", json!([100_000_000]), "digits only"),
        ("min_fee_msat", json!(10_000_001), "the fee would be 10 000 001 msat"),
        ("min_fee_msat", json!(10_000_001), "Choose 10 000 000 msat or less"),
        ("min_fee_msat", json!("99999999999999999999"), "choose 10 000 000 msat or less"),
        ("min_fee_msat", json!(true), "digits only"),
        ("proportional", json!(100_001), "the fee would be 10 000 100 msat"),
        ("proportional", json!(100_001), "Choose 100 000 parts per million or less"),
        ("proportional", json!(u64::MAX), "Choose 100 000 parts per million or less"),
        ("proportional", json!(-1), "digits only"),
        ("trust", json!("nobody"), r#"choose "client" or "lsp""#),
        ("trust", json!(1), r#"choose "client" or "lsp""#),
        ("payer", json!("asleep"), r#"choose "offline" or "online""#),
        ("recipient", json!(false), r#"choose "offline" or "online""#),
        ("fees", json!(1), "there is no such choice"),
    ];
    let check = |choices: &Value, field: &str, reason: &str| {
        let answer = service.post(choices);
        assert_eq!(answer.status, 422, "{choices}");
        let refusal = answer.json();
        assert_eq!(refusal["field"], field, "{choices}: {refusal}");
        assert!(refusal["error"].as_str().unwrap().contains(reason), "{choices}: {refusal}");
    };
    for (field, value, reason) in refused {
        check(&changed(field, value), field, reason);
    }
    for field in ["amount_msat", "min_fee_msat", "proportional", "trust", "payer", "recipient"] {
        let mut choices = usual();
        choices.as_object_mut().unwrap().remove(field);
        check(&choices, field, "is missing");
    }
    // A fee that the wallet accepts for a usual payment may leave nothing of a small one.
    let mut choices = changed("amount_msat", json!(10_000_000));
    choices["min_fee_msat"] = json!(10_000_000);
    let nothing = "the opening fee of 10 000 000 msat would leave nothing of 10 000 000 msat: choose \
                   10 000 001 msat or more";
    check(&choices, "amount_msat", nothing);

    assert!(!service.is_running() && service.is_empty());
    assert_eq!(service.get("/live").json()["run"], Value::Null);
}

#[test]
fn what_is_offered_is_what_is_taken() {
    let service = Service::with(|settings| settings.tell = Arc::new(|_, _| unreachable!()));
    let offer = service.get("/live").json();
    assert_eq!((&offer["running"], &offer["limit_s"]), (&json!(false), &json!(120)));
    for field in ["amount_msat", "min_fee_msat", "proportional"] {
        let range = &offer["choices"][field];
        assert_eq!(range["default"], usual()[field]);
        for (edge, beyond) in [("min", -1), ("max", 1)] {
            let edge = range[edge].as_i64().unwrap();
            let choices = |value: i64| changed(field, json!(value)).as_object().unwrap().clone();
            // The smallest amount pays the usual fee and the largest fee leaves some of the usual
            // amount, so one edge at a time is within all limits.
            Choices::read(&choices(edge)).unwrap();
            let refusal = Choices::read(&choices(edge + beyond)).unwrap_err();
            assert_eq!(refusal.field, field);
        }
    }
    for field in ["trust", "payer", "recipient"] {
        let values = offer["choices"][field].as_array().unwrap();
        assert!(values.contains(&usual()[field]));
        for value in values {
            Choices::read(changed(field, value.clone()).as_object().unwrap()).unwrap();
        }
    }
    let most = changed("proportional", offer["choices"]["proportional"]["max"].clone());
    assert_eq!(books(&most).opening_fee_msat, 10_000_000, "what the wallet accepts, and no less");
}

#[test]
fn only_pages_of_this_server_get_anything() {
    let service = Service::with(|settings| settings.tell = Arc::new(|_, _| unreachable!()));
    let port = service.address.port();
    let json = ("Content-Type", "application/json");
    let body = usual().to_string();
    let rebound = format!("rebound.example:{port}");
    let neighbour = format!("http://127.0.0.1:{}", port.wrapping_add(1));
    let foreign = [
        ("Host", &*rebound),
        ("Host", "127.0.0.1"),
        ("Origin", "https://example.org"),
        ("Origin", "null"),
        ("Origin", &neighbour),
    ];
    for header in foreign {
        for request in ["GET /live", "POST /live/run", "GET /live/events?run=1"] {
            let answer = service.ask(request, &[header, json], &body);
            assert_eq!(answer.status, 403, "{request}, {header:?}");
            let told = answer.json();
            let advice = format!("open the book at http://127.0.0.1:{port}");
            assert!(told["error"].as_str().unwrap().contains(&advice), "{told}");
        }
    }
    let own = format!("http://localhost:{port}");
    assert_eq!(service.ask("GET /live", &[("Origin", &own)], "").status, 200);

    // What a form of another site can send.
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let answer = service.ask("POST /live/run", &[("Content-Type", kind)], &body);
        assert_eq!(answer.status, 415, "{kind}");
    }
    assert_eq!(service.ask("POST /live/run", &[], &body).status, 415);
    assert_eq!(service.ask("POST /live/run", &[json], "{").status, 400);
    assert_eq!(service.ask("POST /live/run", &[json], "[]").status, 400);
    assert_eq!(service.ask("POST /live/run", &[json], &" ".repeat(5_000)).status, 413);
    assert_eq!(service.ask("GET /live/run", &[json], &body).status, 405);
    assert!(!service.is_running() && service.is_empty());
}

/// A story that stands still once its nodes run. It tells where these are.
fn standstill(nodes: &Arc<Mutex<Vec<SocketAddr>>>) -> Tell {
    let nodes = nodes.clone();
    Arc::new(move |world, _| {
        let addresses = [world.payer().address(), world.payer_lsp.address(), world.lsp().address()];
        nodes.lock().unwrap().extend(addresses);
        world.transcript.scene("still", "Standing still");
        Box::pin(std::future::pending())
    })
}

fn any_listens(nodes: &Mutex<Vec<SocketAddr>>) -> bool {
    nodes.lock().unwrap().iter().any(|node| TcpStream::connect(node).is_ok())
}

/// Another test may be given a port that has just become free; it does not keep it for ever.
fn assert_nobody_listens(nodes: &Mutex<Vec<SocketAddr>>) {
    let begun = Instant::now();
    while any_listens(nodes) {
        assert!(begun.elapsed() < PATIENCE, "a node still listens");
        std::thread::yield_now();
    }
}

#[test]
fn one_run_at_a_time_and_none_without_its_server() {
    let nodes = Arc::default();
    let mut service = Service::with(|settings| settings.tell = standstill(&nodes));
    let run = service.start(&usual());
    let second = service.post(&usual());
    assert_eq!(second.status, 409);
    let told = second.json();
    assert!(told["error"].as_str().unwrap().contains("a run is under way"), "{told}");
    assert_eq!(told["run"], json!(run));
    assert_eq!(service.post(&changed("trust", json!(0))).status, 422, "refused all the same");

    let mut reader = service.follow(&run);
    assert_eq!(reader.next().unwrap().event, "header");
    assert_eq!(reader.next().unwrap().event, "step");
    assert!(service.is_running() && !service.is_empty() && any_listens(&nodes));

    drop(service.live.take());
    let rest = reader.messages();
    let end = rest.last().unwrap();
    assert_eq!(end.event, "end");
    assert!(end.data.contains("the server has stopped"), "{}", end.data);
    assert!(service.is_empty());
    assert_nobody_listens(&nodes);
    assert_eq!(service.post(&usual()).status, 503, "what is left of the server starts nothing");
}

#[test]
fn a_run_that_takes_too_long_is_stopped_wherever_it_is() {
    for limit in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(4)] {
        let nodes = Arc::default();
        let service = Service::with(|settings| {
            settings.limit = limit;
            settings.tell = standstill(&nodes);
        });
        let run = service.start(&usual());
        let messages = service.follow(&run).messages();
        let end = messages.last().unwrap();
        assert_eq!(end.event, "end");
        assert!(end.data.contains(r#""outcome":"failed""#), "{}", end.data);
        let reason = format!("it was not paid within {} s", limit.as_secs());
        assert!(end.data.contains(&reason), "{}", end.data);
        assert!(service.is_empty() && !service.is_running());
        assert_nobody_listens(&nodes);
    }
}

#[test]
fn a_run_that_breaks_off_ends_and_makes_room_for_the_next() {
    let still = Arc::default();
    let stands = standstill(&still);
    let service = Service::with(|settings| {
        settings.tell = Arc::new(move |world, setting| match setting.amount_msat {
            10_000_000 => {
                drop(stands(world, setting));
                panic!("on purpose")
            }
            20_000_000 => Box::pin(async { anyhow::bail!("it cannot be") }),
            _ => Box::pin(async {
                let reason = Some("no way there".to_owned());
                let (state, payment_hash) = (HtlcState::Failed, None);
                world.transcript.record(
                    "payer",
                    What::Htlc { state, payment_hash, amount_msat: 0, skimmed_fee_msat: 0, reason },
                );
                std::future::pending().await
            }),
        });
    });
    for (amount_msat, reason) in [
        (10_000_000, "the run panicked"),
        (20_000_000, "it cannot be"),
        (30_000_000, "the payment failed: no way there"),
    ] {
        let run = service.start(&changed("amount_msat", json!(amount_msat)));
        let messages = service.follow(&run).messages();
        let end: End = serde_json::from_str(&messages.last().unwrap().data).unwrap();
        assert_eq!(end.outcome, "failed");
        let error = end.error.unwrap();
        assert!(error.contains(reason), "{error}");
        assert!(service.is_empty());
        assert_nobody_listens(&still);
    }
}

/// The nodes of a run end with `cargo run`, and so does their folder.
#[cfg(unix)]
#[test]
fn ctrl_c_stops_a_live_run_too() {
    let small = Small::new("# Small\n\nText.\n");
    let before = small.files();
    let mut served = Served::start(small.root());
    let address = served.address.parse().unwrap();
    let headers = [("Host", &*served.address), ("Content-Type", "application/json")];
    let ask = |request: &str, body: &str| {
        let length = body.len().to_string();
        let headers = [headers[0], headers[1], ("Content-Length", &length)];
        Answer::of(address, request, &headers, body)
    };
    let started = ask("POST /live/run", &usual().to_string());
    assert_eq!(started.status, 202);
    let run = started.json()["run"].as_str().unwrap().to_owned();
    let mut reader = ask(&format!("GET /live/events?run={run}"), "");
    while reader.next().unwrap().event != "step" {}
    served.interrupt();
    assert_eq!(small.files(), before);
}
