use recording::entry::{DIRECTOR, HtlcState, What};
use recording::{Explained, Field, Header, Lane, Moment, Recording};
use serde_json::json;
use std::path::Path;

use super::drawing::{Item, Layout, NARROW, Sheet, WIDE, wrap};
use super::story::{Arrow, Choice, Folded, Power, Row, Shape, Story};
use super::{Level, asked, drawn, list, rules};

/// Writes a recording.
#[derive(Default)]
struct Pen {
    moments: Vec<Moment>,
    scene: String,
}

impl Pen {
    fn add(mut self, node: &str, what: What) -> Self {
        if let What::Scene { id, .. } = &what {
            self.scene.clone_from(id);
        }
        self.moments.push(Moment {
            n: self.moments.len(),
            scene: self.scene.clone(),
            node: node.to_owned(),
            what,
            background: false,
            again: false,
            explained: Vec::new(),
        });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Moment)) -> Self {
        change(self.moments.last_mut().unwrap());
        self
    }

    fn scene(self, id: &str, title: &str) -> Self {
        self.add(DIRECTOR, What::Scene { id: id.into(), title: title.into() })
    }

    fn wire(self, from: &str, to: &str, message: &str) -> Self {
        let (peer, message) = (from.into(), message.into());
        self.add(to, What::Wire { peer, message, bytes: 97, content: None })
    }

    fn htlc(self, from: &str, to: &str, amount: &str) -> Self {
        let field = Field {
            at: 40,
            len: 8,
            depth: 0,
            name: "amount_msat".into(),
            value: amount.into(),
            meaning: String::new(),
            varies: false,
        };
        let (title, bytes) = ("update_add_htlc".into(), String::new());
        let explained = Explained { title, bytes, text: false, fields: vec![field] };
        self.wire(from, to, "update_add_htlc").with(|moment| moment.explained.push(explained))
    }

    fn onion(self, from: &str, to: &str, message: &str) -> Self {
        let (from, message) = (Some(from.into()), message.into());
        self.add(to, What::Onion { message, bytes: 1, from, content: None })
    }

    fn mail(self, at: &str, state: &str, messages: usize) -> Self {
        let (state, peer) = (state.into(), "wallet".into());
        self.add(at, What::Mailbox { state, peer, messages, reason: None })
    }

    fn event(self, at: &str, name: &str) -> Self {
        self.add(at, What::Event { name: name.into(), detail: json!({}) })
    }

    fn money(self, at: &str, state: HtlcState, amount_msat: u64, skimmed_fee_msat: u64) -> Self {
        let (payment_hash, reason) = (Some("aa".into()), None);
        self.add(at, What::Htlc { state, payment_hash, amount_msat, skimmed_fee_msat, reason })
    }

    fn stops(self, node: &str) -> Self {
        self.add(node, What::Stopped)
    }

    fn starts(self, node: &str, restored: bool) -> Self {
        self.add(node, What::Started { restored })
    }

    fn end(self) -> Recording {
        let lane = |(id, label): (&str, &str)| Lane { id: id.into(), label: label.into() };
        let lanes = [("payer", "Payer"), ("lsp", "Recipient's LSP"), ("wallet", "Recipient")];
        Recording {
            header: Header {
                name: "paid".into(),
                title: "Paid while away".into(),
                about: String::new(),
                ldk: "0.0.0".into(),
                setting: [].into(),
                lanes: lanes.map(lane).into(),
            },
            moments: self.moments,
        }
    }
}

/// Asked for, sent to a mailbox, delivered when the payer is away, and paid.
fn paid() -> Recording {
    Pen::default()
        .scene("step-1", "Buy <b>")
        .starts("wallet", false)
        .onion("wallet", "lsp", "offer_paths_request")
        .onion("lsp", "wallet", "static_invoice_persisted")
        .stops("wallet")
        .scene("step-2", "Ask")
        .onion("payer", "lsp", "invoice_request")
        .onion("payer", "lsp", "invoice_request")
        .with(|moment| moment.again = true)
        .mail("lsp", "kept", 1)
        .stops("payer")
        .scene("later", "Deliver")
        .starts("wallet", true)
        .mail("lsp", "delivered", 1)
        .onion("payer", "wallet", "held_htlc_available")
        .htlc("lsp", "wallet", "98000000 msat")
        .wire("lsp", "wallet", "commitment_signed")
        .wire("wallet", "lsp", "revoke_and_ack")
        .wire("wallet", "lsp", "commitment_signed")
        .wire("lsp", "wallet", "revoke_and_ack")
        .event("wallet", "PaymentClaimable")
        .money("wallet", HtlcState::Claimable, 98_000_000, 2_000_000)
        .event("wallet", "PaymentClaimed")
        .money("wallet", HtlcState::Claimed, 98_000_000, 2_000_000)
        .wire("wallet", "lsp", "update_fulfill_htlc")
        .end()
}

fn told(recording: &Recording, argument: &str) -> Result<Story, String> {
    let (_, choice) = asked(argument)?;
    let steps = recording::view::steps(&recording.moments);
    Story::new(recording, &steps, &choice)
}

fn story(recording: &Recording, argument: &str) -> Story {
    told(recording, argument).unwrap()
}

fn refusal(pen: Pen) -> String {
    told(&pen.end(), "paid").unwrap_err()
}

fn kept() -> Vec<Recording> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/recorded");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "jsonl"));
    files.map(|file| Recording::read(&file).unwrap()).collect()
}

/// Every story of every recording: whole and by scene, at each level.
fn every(see: impl Fn(&Story)) {
    let mut recordings = kept();
    assert!(!recordings.is_empty());
    recordings.push(paid());
    for recording in &recordings {
        let scenes: Vec<_> = recording.scenes().into_iter().map(|scene| scene.id).collect();
        let parts = scenes.iter().map(|scene| format!("x {scene}"));
        for part in parts.chain(["x".to_owned(), "x all".to_owned()]) {
            for level in ["brief", "usual", "full"] {
                match told(recording, &format!("{part} {level}")) {
                    Ok(story) => see(&story),
                    Err(e) => assert!(e.contains("left to draw"), "{}: {e}", recording.header.name),
                }
            }
        }
    }
}

#[test]
fn lanes_are_those_that_act_or_are_away() {
    let paid = paid();
    assert_eq!(story(&paid, "paid").lanes, ["Payer", "Recipient's LSP", "Recipient"]);
    assert_eq!(story(&paid, "paid step-1").lanes, ["Recipient's LSP", "Recipient"]);
    assert_eq!(story(&paid, "paid step-1 all").lanes.len(), 3);
    // The recipient does nothing here: it is offline.
    let ask = story(&paid, "paid step-2");
    assert_eq!(ask.lanes, ["Payer", "Recipient's LSP", "Recipient"]);
    assert_eq!(ask.groups[0].power, [Power::Online, Power::Online, Power::Offline]);
}

#[test]
fn a_part_begins_as_the_scenes_before_it_end() {
    let paid = paid();
    assert_eq!(story(&paid, "paid").groups[0].power[2], Power::Absent);
    let html = drawn(&paid, &asked("paid later").unwrap().1).unwrap();
    assert_eq!(html.matches(">offline</text>").count(), 4, "two lanes in two layouts");
    assert!(html.contains("class=\"life off\""));
    assert!(html.contains("<span class=\"who\">Payer</span> is offline"));
    // Between parts that do not follow each other, too.
    let parts = story(&paid, "paid step-1 later");
    assert_eq!(parts.groups[1].power, [Power::Offline, Power::Online, Power::Offline]);
    let is_off = |item: &&Item| matches!(item, Item::Life { offline: true, .. });
    let layout = Layout::new(&parts, WIDE);
    assert_eq!(layout.items.iter().filter(is_off).count(), 2);
}

#[test]
fn nobody_acts_while_away() {
    let away = || Pen::default().scene("a", "A").stops("wallet");
    let said = refusal(away().wire("lsp", "wallet", "open_channel"));
    assert_eq!(said, "moment 2: Recipient is offline and receives open_channel");
    let said = refusal(away().wire("wallet", "lsp", "accept_channel"));
    assert_eq!(said, "moment 2: Recipient is offline and sends accept_channel");
    let said = refusal(away().event("wallet", "PaymentClaimable"));
    assert_eq!(said, "moment 2: Recipient is offline and does PaymentClaimable");
    // Even if the level shows neither.
    assert!(refusal(away().wire("wallet", "lsp", "channel_reestablish")).contains("offline"));
    assert!(refusal(away().stops("wallet")).contains("again"));
    assert!(refusal(away().starts("wallet", true).starts("wallet", true)).contains("again"));
    let early = Pen::default().scene("a", "A").wire("wallet", "lsp", "error");
    assert!(refusal(early.starts("wallet", false)).contains("has not started and sends"));
    let stranger = Pen::default().scene("a", "A").event("stranger", "PaymentSent");
    assert!(refusal(stranger).contains("no lane `stranger`"));
}

#[test]
fn a_letter_goes_into_the_mailbox_and_out_of_it() {
    let paid = paid();
    let (ask, deliver) = (story(&paid, "paid step-2"), story(&paid, "paid later"));
    let into = ask.rows().find_map(|row| match &row.shape {
        Shape::Move { from, to, kind: Arrow::Onion, text, .. } if text.contains("kept") => {
            Some((*from, *to, text.as_str()))
        }
        _ => None,
    });
    assert_eq!(into, Some((0, 1, "held_htlc_available, kept for Recipient")));
    // Its maker is offline by now.
    let out = deliver.rows().find_map(|row| match &row.shape {
        Shape::Move { from, to, kind: Arrow::Onion, text, .. } => Some((*from, *to, text.as_str())),
        _ => None,
    });
    assert_eq!(out, Some((1, 2, "held_htlc_available, from the mailbox")));
    // Without a mailbox it is an error.
    let direct = Pen::default().scene("a", "A").stops("payer");
    assert!(refusal(direct.onion("payer", "wallet", "held_htlc_available")).contains("offline"));
}

#[test]
fn the_list_has_every_row_of_the_drawing_and_counts_the_rest() {
    every(|story| {
        let html = list::list(story);
        let told = super::joined(&html).replace("&lt;", "<").replace("&quot;", "\"");
        for row in story.rows() {
            let (text, amount) = match &row.shape {
                Shape::Move { text, amount, .. } | Shape::Mark { text, amount, .. } => {
                    (text.as_str(), amount.as_deref().unwrap_or_default())
                }
                Shape::Power { to: Power::Online, .. } => ("comes online", ""),
                Shape::Power { .. } => ("goes offline", ""),
                Shape::Aside(text) => (text.as_str(), ""),
            };
            for part in [text, amount] {
                assert!(told.contains(&super::joined(part)), "{part:?} is not in {told}");
            }
        }
        assert_eq!(html.matches("<ol").count(), html.matches("</ol>").count());
        assert_eq!(html.matches("<li").count(), html.matches("</li>").count());
    });
}

#[test]
fn every_moment_is_shown_folded_or_housekeeping() {
    let is_of_held = |moment: &Moment| matches!(&moment.what, What::Onion { message, .. } if rules::is_of_held(message));
    let in_row = |row: &Row| match &row.shape {
        Shape::Move { kind: Arrow::Both, .. } => row.detail.split(", ").count(),
        _ => 1,
    };
    for recording in kept().into_iter().chain([paid()]) {
        let drawable = |moment: &&Moment| {
            !moment.background
                && (!moment.again || is_of_held(moment))
                && rules::level(&moment.what).is_some()
        };
        let drawable = recording.moments.iter().filter(drawable).count();
        for level in ["brief", "usual", "full"] {
            let story = story(&recording, &format!("x {level}"));
            let folded: usize = story.groups.iter().map(|group| group.folded.len()).sum::<usize>()
                + story.rows().map(|row| row.folded.len()).sum::<usize>();
            // An event is not counted apart from the state that follows from it.
            let events = drawable - story.rows().map(in_row).sum::<usize>() - folded;
            let states = recording.moments.iter().filter(|m| !rules::events_of(&m.what).is_empty());
            let full = level == "full";
            assert!(if full { events == 0 } else { events <= states.count() }, "{level}: {events}");
        }
    }
}

#[test]
fn what_is_folded_is_named_and_counted() {
    let html = list::list(&story(&paid(), "paid brief"));
    let dance = "and 4 more messages (commitment_signed ×2, revoke_and_ack ×2) and 1 more event \
                 (HTLC claimable)";
    assert!(html.contains(dance), "{html}");
    let paid = paid();
    let usual = story(&paid, "paid later");
    let both = |row: &&Row| matches!(row.shape, Shape::Move { kind: Arrow::Both, .. });
    let folded = usual.rows().find(both).unwrap();
    let dance = "commitment_signed, revoke_and_ack, commitment_signed, revoke_and_ack";
    assert_eq!(folded.detail, dance);
    let delivered = Folded { message: false, name: "mailbox: 1 message delivered".into() };
    assert!(usual.rows().any(|row| row.folded.contains(&delivered)));
    // In full each message has its row, and an event is told before its state.
    let full = list::list(&story(&paid, "paid later full"));
    assert_eq!(full.matches("</span> revoke_and_ack").count(), 2);
    assert!(full.contains("PaymentClaimable") && !full.contains("class=\"more\""), "{full}");
}

#[test]
fn a_message_with_a_row_of_its_own_parts_its_exchange() {
    let recording = Pen::default()
        .scene("a", "Hold")
        .htlc("payer", "lsp", "1 msat")
        .wire("payer", "lsp", "commitment_signed")
        .wire("lsp", "payer", "revoke_and_ack")
        .with(|moment| {
            if let What::Wire { bytes, .. } = &mut moment.what {
                *bytes = 784;
            }
        })
        .onion("payer", "wallet", "held_htlc_available")
        .wire("lsp", "payer", "commitment_signed")
        .wire("payer", "lsp", "revoke_and_ack")
        .onion("payer", "wallet", "held_htlc_available")
        .with(|moment| moment.again = true)
        .end();
    let story = story(&recording, "paid a usual");
    let text = |row: &Row| match &row.shape {
        Shape::Move { text, .. } => text.clone(),
        other => panic!("{other:?}"),
    };
    let texts: Vec<_> = story.rows().map(text).collect();
    let expected = [
        "update_add_htlc",
        "commitment_signed",
        "revoke_and_ack, 784 bytes",
        "held_htlc_available",
        "rest of the commitment dance",
        "held_htlc_available, again",
    ];
    assert_eq!(texts, expected);
}

#[test]
fn a_copy_is_not_drawn() {
    let html = list::list(&story(&paid(), "paid step-2 full"));
    assert_eq!(html.matches("invoice_request").count(), 1, "{html}");
}

#[test]
fn amounts_are_grouped_and_stay_together() {
    let html = drawn(&paid(), &asked("paid later").unwrap().1).unwrap();
    let amount = "98\u{a0}000\u{a0}000\u{a0}msat";
    assert!(html.contains(&format!(">{amount}</text>")), "{html}");
    assert!(html.contains(&format!("update_add_htlc, {amount}")));
    assert!(html.contains("2\u{a0}000\u{a0}000\u{a0}msat skimmed"));
    assert!(!html.contains("98000000"));
}

/// The box of a text, or of a note.
fn area(item: &Item) -> Option<(f64, f64, f64, f64)> {
    match item {
        Item::Text { x, y, width, .. } => Some((*x, y - 11.0, x + width, y + 3.0)),
        _ => None,
    }
}

fn meet(a: (f64, f64, f64, f64), b: (f64, f64, f64, f64)) -> bool {
    a.0 < b.2 && b.0 < a.2 && a.1 < b.3 && b.1 < a.3
}

#[test]
fn nothing_overlaps_and_nothing_is_cut_off() {
    every(|story| {
        for sheet in [WIDE, NARROW] {
            check_places(story, sheet);
        }
    });
}

fn check_places(story: &Story, sheet: Sheet) {
    let layout = Layout::new(story, sheet);
    let texts: Vec<_> = layout.items.iter().filter_map(|item| Some((item, area(item)?))).collect();
    for (at, (item, one)) in texts.iter().enumerate() {
        let inside = one.0 >= 0.0 && one.2 <= layout.width() && one.3 <= layout.height();
        assert!(inside, "{}: {item:?}", sheet.name);
        for (other, two) in &texts[at + 1..] {
            assert!(!meet(*one, *two), "{}: {item:?} and {other:?}", sheet.name);
        }
    }
    // No arrow runs through a text, and no note covers what is not its own.
    for item in &layout.items {
        let (own, place) = match item {
            Item::Arrow { from, to, y, .. } => {
                (None, (from.min(*to), y - 4.0, from.max(*to), y + 4.0))
            }
            Item::Note { x, y, width, height, .. } => {
                assert!(*x >= 0.0 && x + width <= layout.width(), "{}: {item:?}", sheet.name);
                (Some((*y, y + height)), (*x, *y, x + width, y + height))
            }
            _ => continue,
        };
        for (text, place_of_text) in &texts {
            let within =
                own.is_some_and(|(top, end)| place_of_text.1 >= top && place_of_text.3 <= end);
            assert!(within || !meet(place, *place_of_text), "{}: {item:?}, {text:?}", sheet.name);
        }
    }
}

#[test]
fn a_failure_of_one_scene_and_three_lanes_looks_right() {
    let mut failed = Pen::default()
        .scene("fail", "The lease is spent")
        .add(DIRECTOR, What::Note { text: "8 days pass".into() })
        .htlc("payer", "lsp", "5000000 msat")
        .event("lsp", "HTLCIntercepted")
        .money("lsp", HtlcState::Intercepted, 5_000_000, 0)
        .wire("lsp", "payer", "update_fail_htlc")
        .add(
            "payer",
            What::Htlc {
                state: HtlcState::Failed,
                payment_hash: None,
                amount_msat: 5_000_000,
                skimmed_fee_msat: 0,
                reason: Some("the payment is below the smallest that pays the opening fee".into()),
            },
        )
        .end();
    failed.header.title = "Too small".into();
    let told = story(&failed, "fail");
    assert_eq!((told.title.as_str(), told.lanes.len()), ("Too small", 2));
    assert!(told.groups[0].heading.is_none());
    for sheet in [WIDE, NARROW] {
        check_places(&told, sheet);
    }
    let html = drawn(&failed, &Choice::default()).unwrap();
    for text in ["8\u{a0}days pass", "the payment is below", "class=\"settle\""] {
        assert!(html.contains(text), "{text}: {html}");
    }
    assert!(!html.contains('\u{a}') || html.ends_with("</figure>\n"), "one block of HTML");
}

#[test]
fn long_labels_wrap() {
    let lines = wrap("blinded_paths_for_async_recipient is called", 20.0 * 6.5, 6.5);
    assert_eq!(lines, ["blinded_paths_for_", "async_recipient is", "called"]);
    let lines = wrap("skim 2 000 000 msat", 16.0 * 6.5, 6.5);
    assert_eq!(lines, ["skim", "2\u{a0}000\u{a0}000\u{a0}msat"]);
}

#[test]
fn a_wish_is_understood_or_refused() {
    let (name, choice) = asked("flow step-2 step-3 full all \"Said so\"").unwrap();
    assert_eq!(name, "flow");
    let expected = Choice {
        scenes: vec!["step-2", "step-3"],
        level: Some(Level::Full),
        all: true,
        folded: false,
        caption: Some("Said so"),
    };
    assert_eq!(choice, expected);
    for wrong in ["", "flow full brief", "flow \"open", "flow \"a\" step-1", "flow all all"] {
        let refused = asked(wrong).is_err() || told(&paid(), wrong).is_err();
        assert!(refused, "{wrong}");
    }
    let said = told(&paid(), "paid step-9").unwrap_err();
    assert_eq!(said, "`paid` has no scene `step-9`, but step-1, step-2, later");
    assert!(told(&paid(), "paid step-1 step-1").unwrap_err().contains("twice"));
}

#[test]
fn captions_and_headings_say_the_step() {
    let paid = paid();
    assert_eq!(story(&paid, "paid").title, "Paid while away");
    assert_eq!(story(&paid, "paid step-1").title, "Step 1: Buy <b>");
    assert_eq!(story(&paid, "paid later").title, "Deliver");
    assert_eq!(story(&paid, "paid later \"Else\"").title, "Else");
    let whole = story(&paid, "paid");
    assert_eq!(whole.groups[0].heading, Some((Some("1".into()), "Buy <b>".into())));
    assert_eq!(whole.groups[2].heading, Some((None, "Deliver".into())));
    let html = drawn(&paid, &Choice::default()).unwrap();
    assert!(html.contains("Buy &lt;b&gt;") && !html.contains("Buy <b>"));
    assert_eq!(html.matches("role=\"img\" aria-label=\"").count(), 2);
}

#[test]
fn a_folded_diagram_says_what_it_is() {
    let html = drawn(&paid(), &asked("paid folded").unwrap().1).unwrap();
    let summary = "<details class=\"recorded\"><summary>Recorded: Paid while away</summary><figure";
    assert!(html.starts_with(summary) && html.ends_with("</figure></details>\n"), "{html}");
    assert!(asked("paid folded folded").is_err());
}

#[test]
fn the_table_of_levels_holds() {
    let wire = |message: &str, bytes| What::Wire {
        peer: "lsp".into(),
        message: message.into(),
        bytes,
        content: None,
    };
    let event = |name: &str| What::Event { name: name.into(), detail: json!({}) };
    let paths = |paths: &str| What::Paths {
        context: "static_invoice".into(),
        paths: paths.into(),
        detail: json!({}),
    };
    for (what, level) in [
        (wire("update_add_htlc", 1463), Some(Level::Brief)),
        (wire("open_channel", 351), Some(Level::Brief)),
        (wire("channel_ready", 75), Some(Level::Usual)),
        (wire("revoke_and_ack", 97), Some(Level::Full)),
        (wire("revoke_and_ack", 784), Some(Level::Usual)),
        (wire("channel_reestablish", 148), Some(Level::Full)),
        (event("FundingTxBroadcastSafe"), Some(Level::Usual)),
        (event("PaymentClaimable"), Some(Level::Full)),
        (paths("jit"), Some(Level::Brief)),
        (paths("refused"), Some(Level::Brief)),
        (What::Connected { peer: "lsp".into() }, Some(Level::Full)),
        (What::Block { height: 7 }, None),
    ] {
        assert_eq!(rules::level(&what), level, "{what:?}");
    }
}

#[test]
fn an_offer_that_is_kept_fresh_is_for_full() {
    let pen = Pen::default()
        .scene("a", "A")
        .onion("wallet", "lsp", "serve_static_invoice")
        .onion("lsp", "wallet", "static_invoice_persisted")
        .onion("wallet", "lsp", "serve_static_invoice")
        .onion("lsp", "wallet", "static_invoice_persisted");
    let kept = pen.end();
    assert_eq!(story(&kept, "kept").rows().count(), 2);
    assert_eq!(story(&kept, "kept full").rows().count(), 4);
}

#[test]
fn a_diagram_cannot_be_drawn_by_hand() {
    let book = tempfile::tempdir().unwrap();
    std::fs::create_dir(book.path().join("src")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(book.path().join(name), text).unwrap();
    write("Cargo.toml", "[workspace.dependencies]\n");
    write("Cargo.lock", "");
    write("src/page.md", "# Page\n\n```sequence\ntitle: Paid\n```\n");
    let (problems, _) = crate::check(book.path()).unwrap();
    let said = problems.into_result().unwrap_err().to_string();
    assert!(said.contains("src/page.md:3") && said.contains("{{#diagram"), "{said}");
}
