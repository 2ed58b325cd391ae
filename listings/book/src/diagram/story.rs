//! What is drawn of a recording: its lanes, and its rows in groups.

use recording::entry::{DIRECTOR, What};
use recording::view::{Kind, Step, grouped};
use recording::words;
use recording::{Lane, Moment, Recording};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap, VecDeque};

use super::rules::{self, Level};

/// A diagram before it is drawn.
#[derive(Debug)]
pub(super) struct Story {
    /// Its caption.
    pub(super) title: String,
    /// The labels of its lanes.
    pub(super) lanes: Vec<String>,
    /// Its parts; only one of several has a heading.
    pub(super) groups: Vec<Group>,
}

/// A scene.
#[derive(Debug)]
pub(super) struct Group {
    /// The step's number, if it is one of the five, and its heading.
    pub(super) heading: Option<(Option<String>, String)>,
    /// How each lane begins it.
    pub(super) power: Vec<Power>,
    /// What is folded before its first row.
    pub(super) folded: Vec<Folded>,
    /// Its rows.
    pub(super) rows: Vec<Row>,
}

/// Whether a party takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Power {
    /// It has never been started.
    Absent,
    Offline,
    Online,
}

/// One row of the drawing, and one entry of the list.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) shape: Shape,
    /// More about it, for the list.
    pub(super) detail: String,
    /// What happened after it and has no row.
    pub(super) folded: Vec<Folded>,
}

/// What a row looks like.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// A message.
    Move { from: usize, to: usize, kind: Arrow, text: String, amount: Option<String> },
    /// Something that one party notes.
    Mark { at: usize, money: bool, text: String, amount: Option<String>, more: Option<String> },
    /// A party goes or comes.
    Power { at: usize, to: Power },
    /// The director says something.
    Aside(String),
}

/// What an arrow looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrow {
    /// A message between peers.
    Message,
    /// An onion message, which others relay.
    Onion,
    /// An HTLC: it moves money.
    Htlc,
    /// The HTLC's end: a preimage, or a failure.
    Settle,
    /// Messages to and fro, folded.
    Both,
}

/// Something that has no row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Folded {
    /// Whether it is a message; else it is an event or a note.
    pub(super) message: bool,
    pub(super) name: String,
}

/// What the page asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Choice<'a> {
    pub(super) scenes: Vec<&'a str>,
    pub(super) level: Option<Level>,
    /// Whether lanes without a row stand there too.
    pub(super) all: bool,
    /// Whether the reader opens it first.
    pub(super) folded: bool,
    /// What stands above it; else the recording's title, or the scene's.
    pub(super) caption: Option<&'a str>,
}

impl Story {
    /// Chooses what is drawn.
    ///
    /// # Errors
    /// If a scene is not there, if nothing is left to draw, or if somebody acts while away: such a
    /// recording is wrong.
    pub(super) fn new(
        recording: &Recording,
        steps: &[Step],
        choice: &Choice<'_>,
    ) -> Result<Self, String> {
        let scenes = recording.scenes();
        let name = &recording.header.name;
        for (at, asked) in choice.scenes.iter().enumerate() {
            if !scenes.iter().any(|scene| scene.id == *asked) {
                let known: Vec<_> = scenes.iter().map(|scene| scene.id.as_str()).collect();
                return Err(format!("`{name}` has no scene `{asked}`, but {}", known.join(", ")));
            }
            if choice.scenes[..at].contains(asked) {
                return Err(format!("scene `{asked}` is asked for twice"));
            }
        }
        let chosen = |id: &str| choice.scenes.is_empty() || choice.scenes.contains(&id);
        let shown: Vec<_> = scenes.iter().filter(|scene| chosen(&scene.id)).collect();
        let level = choice.level.unwrap_or(match shown.len() {
            0 | 1 => Level::Usual,
            _ => Level::Brief,
        });
        let mut teller = Teller::new(recording, level);
        let mut groups = Vec::new();
        for scene in &scenes {
            let mut group = Group {
                heading: (shown.len() > 1).then(|| heading(&scene.id, &scene.title)),
                power: teller.power.clone(),
                folded: Vec::new(),
                rows: Vec::new(),
            };
            teller.dances.clear();
            for n in scene.moments.clone() {
                teller.tell(&recording.moments[n], &steps[n], &mut group)?;
            }
            if chosen(&scene.id) {
                groups.push(group);
            }
        }
        let title = match shown.as_slice() {
            [scene] if scenes.len() > 1 => {
                let (number, title) = heading(&scene.id, &scene.title);
                number.map_or_else(|| title.clone(), |number| format!("Step {number}: {title}"))
            }
            _ => recording.header.title.clone(),
        };
        let mut story = Self {
            title: choice.caption.map_or(title, str::to_owned),
            lanes: recording.header.lanes.iter().map(|lane| lane.label.clone()).collect(),
            groups,
        };
        if story.rows().next().is_none() {
            return Err(format!("nothing of `{name}` is left to draw"));
        }
        if !choice.all {
            story.leave_out_idle_lanes();
        }
        Ok(story)
    }

    /// All rows.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.groups.iter().flat_map(|group| &group.rows)
    }

    fn leave_out_idle_lanes(&mut self) {
        // That somebody is away is a part of the story.
        let away = |group: &Group, lane: usize| group.power[lane] == Power::Offline;
        let acts = |lane: usize| {
            self.groups.iter().any(|group| away(group, lane))
                || self.rows().any(|row| match &row.shape {
                    Shape::Move { from, to, .. } => *from == lane || *to == lane,
                    Shape::Mark { at, .. } | Shape::Power { at, .. } => *at == lane,
                    Shape::Aside(_) => false,
                })
        };
        let kept: Vec<usize> = (0..self.lanes.len()).filter(|lane| acts(*lane)).collect();
        let place = |lane: &mut usize| {
            let place = kept.iter().position(|kept| kept == lane);
            *lane = place.expect("a lane with a row is kept");
        };
        self.lanes = kept.iter().map(|lane| self.lanes[*lane].clone()).collect();
        for group in &mut self.groups {
            group.power = kept.iter().map(|lane| group.power[*lane]).collect();
            for row in &mut group.rows {
                match &mut row.shape {
                    Shape::Move { from, to, .. } => {
                        place(from);
                        place(to);
                    }
                    Shape::Mark { at, .. } | Shape::Power { at, .. } => place(at),
                    Shape::Aside(_) => {}
                }
            }
        }
    }
}

/// A step's number and its heading.
fn heading(id: &str, title: &str) -> (Option<String>, String) {
    let number = id.strip_prefix("step-").filter(|number| number.parse::<u8>().is_ok());
    (number.map(str::to_owned), title.to_owned())
}

/// An onion message that waited in a mailbox.
struct Letter {
    maker: String,
    message: String,
}

/// Messages that commit to an HTLC, to and fro.
#[derive(Clone, Copy)]
enum Dance {
    /// All of them so far are in this row.
    Whole(usize),
    /// One of them has a row of its own.
    Parted,
    /// Those after that one are in this row.
    Rest(usize),
}

/// Walks through a recording.
struct Teller<'a> {
    lanes: &'a [Lane],
    moments: &'a [Moment],
    level: Level,
    power: Vec<Power>,
    /// By the moment a mailbox kept it: a letter that was delivered later.
    kept: HashMap<usize, Vec<Letter>>,
    /// By the moment it arrived: who had kept it.
    arrived: HashMap<usize, String>,
    /// By the moment of a state: that of the event of LDK it follows from.
    events: BTreeMap<usize, usize>,
    /// Pairs of lanes that are committing, and the row that stands for it.
    dances: HashMap<(usize, usize), Dance>,
    /// Whether an invoice is at its server.
    served: bool,
}

impl<'a> Teller<'a> {
    fn new(recording: &'a Recording, level: Level) -> Self {
        let lanes = &recording.header.lanes;
        let begins = |lane: &Lane| {
            let mut own = recording.moments.iter().filter(|moment| moment.node == lane.id);
            own.find_map(|moment| match moment.what {
                What::Started { restored: false } => Some(Power::Absent),
                What::Started { restored: true } => Some(Power::Offline),
                What::Stopped => Some(Power::Online),
                _ => None,
            })
        };
        let power = lanes.iter().map(|lane| begins(lane).unwrap_or(Power::Online)).collect();
        let (kept, arrived) = letters(&recording.moments);
        Self {
            lanes,
            moments: &recording.moments,
            level,
            power,
            kept,
            arrived,
            events: events(&recording.moments),
            dances: HashMap::new(),
            served: false,
        }
    }

    fn lane(&self, id: &str) -> Result<usize, String> {
        let place = self.lanes.iter().position(|lane| lane.id == id);
        place.ok_or_else(|| format!("no lane `{id}` in the recording's header"))
    }

    fn label<'b>(&'b self, id: &'b str) -> &'b str {
        self.lanes.iter().find(|lane| lane.id == id).map_or(id, |lane| &lane.label)
    }

    /// Fails if the lane is away.
    fn present(&self, lane: usize, step: &Step, does: &str) -> Result<(), String> {
        let away = match self.power[lane] {
            Power::Online => return Ok(()),
            Power::Offline => "is offline",
            Power::Absent => "has not started",
        };
        let label = &self.lanes[lane].label;
        Err(format!("moment {}: {label} {away} and {does} {}", step.n, step.text))
    }

    fn tell(&mut self, moment: &'a Moment, step: &Step, group: &mut Group) -> Result<(), String> {
        // A letter that comes twice is answered twice; which is the copy, the letter says.
        let twice =
            matches!(&moment.what, What::Onion { message, .. } if rules::is_of_held(message));
        if moment.background || moment.again && !twice {
            return Ok(());
        }
        let what = &moment.what;
        if let What::Scene { .. } = what {
            return Ok(());
        }
        if moment.node == DIRECTOR {
            group.rows.push(row(Shape::Aside(words::plain(&step.text)), &step.detail));
            return Ok(());
        }
        let at = self.lane(&moment.node)?;
        match step.kind {
            Kind::Online | Kind::Offline => {
                let to = if step.kind == Kind::Online { Power::Online } else { Power::Offline };
                if (self.power[at] == Power::Online) == (to == Power::Online) {
                    let label = &self.lanes[at].label;
                    return Err(format!("moment {}: {label} {}, again", step.n, step.text));
                }
                self.power[at] = to;
                group.rows.push(row(Shape::Power { at, to }, &step.text));
                return Ok(());
            }
            _ => {}
        }
        // What comes out of a mailbox was sent by somebody who may be away by now.
        let from = match self.arrived.get(&moment.n).map(String::as_str).or(step.from.as_deref()) {
            Some(from) => Some(self.lane(from)?),
            None => None,
        };
        let is_message = matches!(step.kind, Kind::Message | Kind::Onion | Kind::Htlc);
        self.present(at, step, if is_message { "receives" } else { "does" })?;
        if let (true, Some(from)) = (is_message, from) {
            self.present(from, step, "sends")?;
        }
        let least = if self.served && rules::is_upkeep(what) {
            Some(Level::Full)
        } else {
            rules::level(what)
        };
        match what {
            What::Onion { message, .. } if message == "static_invoice_persisted" => {
                self.served = true;
            }
            _ => {}
        }
        let Some(least) = least else { return Ok(()) };
        if let (What::Wire { message, .. }, Some(from)) = (what, from) {
            let pair = (from.min(at), from.max(at));
            if rules::is_dance(message) {
                if self.level == Level::Usual && least > self.level {
                    self.dance((from, at), message, group);
                    return Ok(());
                }
                // A message of the exchange with a row of its own: what comes after it comes below.
                if let Some(dance) = self.dances.get_mut(&pair) {
                    *dance = Dance::Parted;
                }
            } else if message.starts_with("update_") {
                self.dances.remove(&pair);
            }
        }
        // What waits at the payer's LSP has no state there but this.
        let waits = matches!(what, What::Event { name, .. } if name == "HTLCIntercepted")
            && moment.node == "payer-lsp";
        let least = if waits { Level::Brief } else { least };
        // The state that follows from an event tells it.
        let told = self.level < Level::Full && self.events.values().any(|told| *told == moment.n);
        if told {
            return Ok(());
        }
        if least > self.level {
            fold(group, is_message, &step.text);
            return Ok(());
        }
        group.rows.push(self.row(moment, step, at, from, least));
        Ok(())
    }

    /// The size of the channel that a peer offers, where the nearest of the two says it.
    fn capacity(&self, offer: &Moment, peer: &str) -> Option<u64> {
        let said = self.moments.iter().filter_map(|moment| match &moment.what {
            What::Channel { state, peer: with, capacity_sat: Some(sat), .. }
                if matches!(state.as_str(), "opening" | "requested")
                    && ((moment.node == offer.node && with == peer)
                        || (moment.node == peer && *with == offer.node)) =>
            {
                Some((moment.n.abs_diff(offer.n), *sat))
            }
            _ => None,
        });
        said.min().map(|(_, sat)| sat)
    }

    /// Adds a message to the row that stands for its exchange.
    fn dance(&mut self, (from, to): (usize, usize), message: &str, group: &mut Group) {
        let pair = (from.min(to), from.max(to));
        let (at, text) = match self.dances.get(&pair).copied() {
            Some(Dance::Whole(at)) => (at, "commitment dance"),
            Some(Dance::Rest(at)) => (at, "rest of the commitment dance"),
            parted => {
                let at = group.rows.len();
                let dance = if parted.is_some() { Dance::Rest(at) } else { Dance::Whole(at) };
                self.dances.insert(pair, dance);
                // One message is no dance yet.
                let (kind, text) = (Arrow::Message, message.to_owned());
                group.rows.push(row(Shape::Move { from, to, kind, text, amount: None }, ""));
                return;
            }
        };
        let row = &mut group.rows[at];
        if let Shape::Move { kind, text: label, .. } = &mut row.shape
            && *kind == Arrow::Message
        {
            row.detail = std::mem::replace(label, text.to_owned());
            let (from, to) = pair;
            let (kind, text, amount) = (Arrow::Both, text.to_owned(), None);
            row.shape = Shape::Move { from, to, kind, text, amount };
        }
        row.detail = format!("{}, {message}", row.detail);
    }

    fn row(
        &mut self,
        moment: &'a Moment,
        step: &Step,
        at: usize,
        from: Option<usize>,
        least: Level,
    ) -> Row {
        let what = &moment.what;
        let mut detail = Vec::new();
        let bytes = step.bytes.map(|bytes| words::bytes(bytes as u64));
        detail.extend(bytes);
        match what {
            // The amount stands in the row.
            What::Htlc { .. } => {}
            What::Channel { peer, capacity_sat, reason, .. } => {
                detail.push(format!("with {}", self.label(peer)));
                detail.extend(capacity_sat.map(|sat| format!("{} sat", grouped(sat))));
                detail.extend(reason.clone());
            }
            What::Lease { intercept_scid, detail: terms, .. } => {
                detail.extend(intercept_scid.as_ref().map(|scid| format!("SCID {scid}")));
                detail.extend(fields(terms));
            }
            What::Paths { detail: terms, .. } => detail.extend(fields(terms)),
            _ if step.detail.is_empty() => {}
            _ => detail.push(step.detail.clone()),
        }
        let kind = match what {
            What::Onion { .. } => Arrow::Onion,
            What::Wire { message, .. } if message == "update_add_htlc" => Arrow::Htlc,
            What::Wire { message, .. }
                if message.starts_with("update_fulfill") || message.starts_with("update_fail") =>
            {
                Arrow::Settle
            }
            _ => Arrow::Message,
        };
        let is_message = matches!(step.kind, Kind::Message | Kind::Onion | Kind::Htlc);
        let shape = match (what, from) {
            (What::Mailbox { state, peer, .. }, _) if state == "kept" => {
                let letters = self.kept.remove(&moment.n).unwrap_or_default();
                let text = format!("kept for {}", self.label(peer));
                match letters.as_slice() {
                    [letter] if self.lane(&letter.maker).is_ok_and(|maker| maker != at) => {
                        let from = self.lane(&letter.maker).unwrap_or(at);
                        let amount = None;
                        detail = vec![text.clone()];
                        let text = format!("{}, {text}", letter.message);
                        Shape::Move { from, to: at, kind: Arrow::Onion, text, amount }
                    }
                    _ => mark(at, format!("mailbox: {text}")),
                }
            }
            (_, Some(from)) if is_message && from != at => {
                let mut text = step.text.clone();
                if let (What::Wire { message, bytes, .. }, true) = (what, least < Level::Full)
                    && rules::is_dance(message)
                {
                    // What makes it worth a row is what it carries.
                    text = format!("{message}, {}", words::bytes(*bytes as u64));
                    detail.clear();
                }
                if let Some(holder) = self.arrived.get(&moment.n) {
                    let maker = step.from.as_deref().unwrap_or(holder);
                    detail.push(format!("from the mailbox, made by {}", self.label(maker)));
                    let again = if moment.again { ", delivered again" } else { "" };
                    text.push_str(&format!(", from the mailbox{again}"));
                } else if moment.again {
                    text.push_str(", again");
                }
                let amount = match (what, step.msat) {
                    (What::Wire { peer, message, .. }, _) if message == "open_channel" => {
                        self.capacity(moment, peer).map(|sat| format!("{} sat", grouped(sat)))
                    }
                    (What::Lsps { json, .. }, _) => bought(json),
                    (_, Some(msat)) => Some(format!("{} msat", grouped(msat))),
                    _ => None,
                };
                Shape::Move { from, to: at, kind, text, amount }
            }
            _ => {
                let amount = match what {
                    // A node does not always know what it was about.
                    What::Htlc { state, amount_msat, skimmed_fee_msat, .. } => {
                        words::sum(*state, *amount_msat, *skimmed_fee_msat)
                    }
                    What::Event { name, detail } if name == "HTLCIntercepted" => {
                        let msat = detail["expected_outbound_amount_msat"].as_u64();
                        msat.map(|msat| format!("{} msat", grouped(msat)))
                    }
                    _ => None,
                };
                let more = match rules::asks_why(what) {
                    true => reason(what, step),
                    false => figures(what),
                };
                let text = match what {
                    What::Mailbox { state, peer, .. } => {
                        format!("mail for {} {state}", self.label(peer))
                    }
                    What::Offer { state, .. } if state == "ready" => "offer ready".to_owned(),
                    What::Paths { paths, .. } => match paths.as_str() {
                        "jit" => "router: path over the intercept SCID".to_owned(),
                        "refused" => "router: no path".to_owned(),
                        other => format!("router: {other} paths"),
                    },
                    _ => step.text.clone(),
                };
                let event = self.events.get(&moment.n).map(|n| &self.moments[*n].what);
                let more = match event {
                    Some(What::Event { name, detail: fields }) => {
                        detail.push(format!("event {name}"));
                        // What LDK itself says is what a reader finds in a log.
                        let said = fields["reason"].as_str().filter(|_| name == "PaymentFailed");
                        match said {
                            Some(said) => {
                                detail.extend(more);
                                Some(said.to_owned())
                            }
                            None => more,
                        }
                    }
                    _ => more,
                };
                Shape::Mark { at, money: step.kind == Kind::Money, text, amount, more }
            }
        };
        row(shape, &detail.join("; "))
    }
}

fn mark(at: usize, text: String) -> Shape {
    Shape::Mark { at, money: false, text, amount: None, more: None }
}

fn row(shape: Shape, detail: &str) -> Row {
    Row { shape, detail: detail.to_owned(), folded: Vec::new() }
}

fn fold(group: &mut Group, message: bool, name: &str) {
    let folded = match group.rows.last_mut() {
        Some(row) => &mut row.folded,
        None => &mut group.folded,
    };
    folded.push(Folded { message, name: name.to_owned() });
}

/// Which of LDK's events the states follow from: moments of states to moments of events.
fn events(moments: &[Moment]) -> BTreeMap<usize, usize> {
    /// The nodes note the state soon after the event; something else may come between.
    const NEAR: usize = 3;
    let mut events: BTreeMap<usize, usize> = BTreeMap::new();
    for moment in moments {
        let names = rules::events_of(&moment.what);
        let before = moments[..moment.n].iter().rev();
        let own = before.filter(|earlier| {
            let counts = !earlier.background && !matches!(earlier.what, What::Balances { .. });
            earlier.node == moment.node && counts
        });
        let found = own.take(NEAR).find(|earlier| {
            let named =
                matches!(&earlier.what, What::Event { name, .. } if names.contains(&&**name));
            named && !events.values().any(|told| *told == earlier.n)
        });
        events.extend(found.map(|found| (moment.n, found.n)));
    }
    events
}

/// Follows onion messages through mailboxes. A mailbox says that it keeps one, not which; which it was
/// shows when it is delivered, in the same order.
fn letters(moments: &[Moment]) -> (HashMap<usize, Vec<Letter>>, HashMap<usize, String>) {
    /// The moments at which the letters in one mailbox were kept; `delivered` have left it. One that
    /// was kept before the recording begins, or is delivered once more, has none.
    #[derive(Default)]
    struct Mailbox {
        kept: VecDeque<usize>,
        delivered: VecDeque<Option<usize>>,
    }
    let mut boxes: BTreeMap<(&str, &str), Mailbox> = BTreeMap::new();
    let mut kept: HashMap<usize, Vec<Letter>> = HashMap::new();
    let mut arrived = HashMap::new();
    for moment in moments {
        match &moment.what {
            What::Mailbox { state, peer, messages, .. } => {
                let mailbox = boxes.entry((&moment.node, peer)).or_default();
                for _ in 0..*messages {
                    match state.as_str() {
                        "kept" => mailbox.kept.push_back(moment.n),
                        "delivered" => mailbox.delivered.push_back(mailbox.kept.pop_front()),
                        _ => {}
                    }
                }
            }
            // What has not arrived by now does not.
            What::Stopped => {
                let own = boxes.iter_mut().filter(|((_, peer), _)| *peer == moment.node);
                own.for_each(|(_, mailbox)| mailbox.delivered.clear());
            }
            What::Onion { message, from: Some(maker), .. } => {
                let mut own = boxes
                    .iter_mut()
                    .filter(|((holder, peer), _)| *peer == moment.node && holder != maker);
                let letter = own.find_map(|((holder, _), mailbox)| {
                    mailbox.delivered.pop_front().map(|kept| (*holder, kept))
                });
                let Some((holder, at)) = letter else { continue };
                arrived.insert(moment.n, holder.to_owned());
                if let Some(at) = at {
                    kept.entry(at)
                        .or_default()
                        .push(Letter { maker: maker.clone(), message: message.clone() });
                }
            }
            _ => {}
        }
    }
    (kept, arrived)
}

/// Why it happened.
fn reason(what: &What, step: &Step) -> Option<String> {
    const NAMES: [&str; 4] = ["error", "why", "reason", "failure_reason"];
    let reason = match what {
        What::Htlc { reason, .. } | What::Mailbox { reason, .. } | What::Channel { reason, .. } => {
            reason.clone()
        }
        What::Broadcast { error, .. } => error.clone(),
        What::Lease { detail, .. }
        | What::Offer { detail, .. }
        | What::Paths { detail, .. }
        | What::Event { detail, .. } => {
            let said = NAMES.iter().find_map(|name| detail[name].as_str());
            said.map(str::to_owned).or_else(|| fields(detail))
        }
        _ => Some(step.detail.clone()),
    };
    reason.map(|reason| words::plain(&reason)).filter(|reason| !reason.is_empty())
}

/// What a wallet buys: the intercept SCID and the LSP's CLTV delta.
fn bought(answer: &Value) -> Option<String> {
    let scid = answer["result"]["jit_channel_scid"].as_str()?;
    let delta = answer["result"]["lsp_cltv_expiry_delta"].as_u64()?;
    Some(format!("{scid}, {delta} blocks"))
}

/// The figures that a chapter names, where a note has some.
fn figures(what: &What) -> Option<String> {
    match what {
        What::Paths { detail, .. } => {
            let bytes = detail["metadata_bytes"].as_u64()?;
            let scid = detail["intercept_scid"].as_str()?;
            Some(format!("{scid}, {} of metadata", words::bytes(bytes)))
        }
        What::Offer { state, detail } if state == "persisted" => {
            let (bytes, slot) = (detail["bytes"].as_u64()?, detail["slot"].as_u64()?);
            Some(format!("{}, slot {slot}", words::bytes(bytes)))
        }
        What::Event { name, detail } if name == "HTLCIntercepted" => {
            let hop = detail["requested_next_hop_scid"].as_str()?;
            Some(format!("next hop {hop}"))
        }
        _ => None,
    }
}

/// The fields of an object in words, but those that say nothing to a reader.
fn fields(detail: &Value) -> Option<String> {
    const MUTE: [&str; 6] =
        ["promise", "valid_until", "metadata", "intercept_scid", "client", "trust_model"];
    let fields = detail
        .as_object()?
        .iter()
        .filter(|(name, value)| !MUTE.contains(&name.as_str()) && !value.is_null());
    let words: Vec<_> = fields
        .map(|(name, value)| {
            let value = match (value.as_u64(), value.as_str()) {
                (Some(number), _) => grouped(number),
                (None, Some(text)) => words::plain(text),
                (None, None) => value.to_string(),
            };
            match name.strip_suffix("_msat") {
                Some(name) => format!("{} {value} msat", name.replace('_', " ")),
                None => format!("{} {value}", name.replace('_', " ")),
            }
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}
