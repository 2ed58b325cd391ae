//! What a diagram, the list beside it and the player show of a moment.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

use crate::entry::What;
use crate::moment::{Explained, Moment};
use crate::words;

/// What a step looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A new scene begins; `text` is its heading, `scene` its name.
    Scene,
    /// A message from one party to another.
    Message,
    /// An onion message, which others relay.
    Onion,
    /// An HTLC on its way: a message that moves money.
    Htlc,
    /// An LDK event at one party.
    Event,
    /// Something one party did or noted: a lease, an invoice, mail, a channel.
    Note,
    /// Money changed its owner at one party: paid, claimed, skimmed.
    Money,
    /// A party goes offline.
    Offline,
    /// A party comes online.
    Online,
    /// A connection between two parties, made or lost.
    Link,
    /// A block, for all.
    Block,
}

/// One step of the story, ready to be shown. The player gets these as JSON, recorded or live.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The moment's position in its recording.
    pub n: usize,
    /// The scene it belongs to.
    pub scene: String,
    /// What it looks like.
    pub kind: Kind,
    /// The lane where it happens; for a message, where it arrives.
    pub at: String,
    /// The lane a message comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// A short label, at most 60 characters: `lsps2.buy`, `HTLC claimed`.
    pub text: String,
    /// More, in a sentence: the event's fields, the message's size.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The amount that moves, in msat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub msat: Option<u64>,
    /// Whether only the player shows it, when the reader asks for everything.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// The message's size in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<usize>,
    /// Its bytes, explained.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<Explained>,
    /// How the parties' states change with it: party, then what (`online`, `channel:lsp`, `htlc`,
    /// `lease`, `mailbox`, `offer`, `balance`), then the new value in words; an empty value removes
    /// it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub changes: BTreeMap<String, BTreeMap<String, String>>,
}

/// Turns moments, one by one, into steps, and keeps the parties' states meanwhile.
#[derive(Default)]
pub struct Viewer {
    states: BTreeMap<String, BTreeMap<String, String>>,
    /// Which parties are connected, as the last one to tell of it saw it.
    links: BTreeMap<(String, String), bool>,
    /// Who has a channel to fund: one that opened in this recording, or waited for its funding.
    funds: BTreeSet<String>,
    /// What each party has broadcast.
    broadcast: BTreeSet<(String, String)>,
}

impl Viewer {
    /// A viewer of a recording from its first moment on.
    pub fn new() -> Self {
        Self::default()
    }

    /// The states of all parties now: party, then what, then its value in words.
    pub fn states(&self) -> &BTreeMap<String, BTreeMap<String, String>> {
        &self.states
    }

    /// The step that shows this moment.
    pub fn step(&mut self, moment: &Moment) -> Step {
        let mut step = shown(moment);
        if let What::Connected { peer } | What::Disconnected { peer } = &moment.what {
            let connected = matches!(moment.what, What::Connected { .. });
            let (one, other) =
                (moment.node.clone().min(peer.clone()), moment.node.clone().max(peer.clone()));
            // Both ends tell of it; the story needs it once.
            step.background |= self.links.insert((one, other), connected) == Some(connected);
        }
        if self.is_repeated(moment) {
            step.text = step.text.replacen("broadcasts: ", "broadcasts again: ", 1);
        }
        for (key, value) in changes(moment) {
            let state = self.states.entry(moment.node.clone()).or_default();
            let old = state.get(&key).map_or("", String::as_str);
            if old != value {
                let of_node = step.changes.entry(moment.node.clone()).or_default();
                of_node.insert(key.clone(), value.clone());
                match value.is_empty() {
                    true => state.remove(&key),
                    false => state.insert(key, value),
                };
            }
        }
        step
    }

    /// Whether a transaction goes to the chain that has been there: LSPS2 hands over a channel's
    /// funding at each payment it forwards.
    fn is_repeated(&mut self, moment: &Moment) -> bool {
        let node = &moment.node;
        match &moment.what {
            What::Channel { state, .. } if state == "opening" || state == "pending" => {
                self.funds.insert(node.clone());
            }
            What::Balances { channels, .. } if channels.iter().any(|channel| channel.withheld) => {
                self.funds.insert(node.clone());
            }
            What::Broadcast { txid, purpose, error: None } => {
                let known = !self.broadcast.insert((node.clone(), txid.clone()));
                return known || purpose == "Funding" && !self.funds.contains(node);
            }
            _ => {}
        }
        false
    }
}

/// All steps of a recording.
pub fn steps(moments: &[Moment]) -> Vec<Step> {
    let mut viewer = Viewer::new();
    moments.iter().map(|moment| viewer.step(moment)).collect()
}

fn shown(moment: &Moment) -> Step {
    let mut step = Step {
        n: moment.n,
        scene: moment.scene.clone(),
        kind: Kind::Note,
        at: moment.node.clone(),
        from: None,
        text: String::new(),
        detail: String::new(),
        msat: None,
        background: moment.background || moment.again,
        bytes: None,
        explained: moment.explained.clone(),
        changes: BTreeMap::new(),
    };
    match &moment.what {
        What::Started { restored } => {
            step.kind = Kind::Online;
            let how = if *restored { "starts from its folder" } else { "starts, new" };
            step.text = how.to_owned();
        }
        What::Stopped => {
            step.kind = Kind::Offline;
            step.text = "goes offline".to_owned();
        }
        What::Connected { peer } => {
            step.kind = Kind::Link;
            step.from = Some(peer.clone());
            step.text = "connected".to_owned();
        }
        What::Disconnected { peer } => {
            step.kind = Kind::Link;
            step.from = Some(peer.clone());
            step.text = "disconnected".to_owned();
        }
        What::Wire { peer, message, bytes, .. } => {
            step.kind = match message.as_str() {
                "update_add_htlc" | "update_fulfill_htlc" | "update_fail_htlc" => Kind::Htlc,
                _ => Kind::Message,
            };
            step.from = Some(peer.clone());
            step.text = message.clone();
            step.bytes = Some(*bytes);
            // An HTLC says in its bytes what it carries.
            let amount = |field: &&crate::Field| field.name == "amount_msat";
            let fields = moment.explained.iter().flat_map(|explained| &explained.fields);
            step.msat = fields.clone().find(amount).and_then(|field| number(&field.value));
        }
        What::Onion { message, bytes, from, .. } => {
            step.kind = Kind::Onion;
            step.from = from.clone();
            step.text = message.clone();
            step.bytes = Some(*bytes);
            if moment.again {
                let answers = message == "release_held_htlc";
                let how = if answers { "answers a copy" } else { "delivered again" };
                step.detail = how.to_owned();
            }
        }
        What::OnionSent { message, .. } => step.text = message.clone(),
        What::Lsps { peer, json, bytes, .. } => {
            step.kind = Kind::Message;
            step.from = Some(peer.clone());
            step.text = lsps(json);
            step.bytes = Some(*bytes);
        }
        What::Event { name, detail } => {
            step.kind = Kind::Event;
            step.text = name.clone();
            step.detail = fields(detail);
        }
        What::Htlc { state, amount_msat, skimmed_fee_msat, reason, .. } => {
            step.kind = Kind::Money;
            step.msat = (*amount_msat > 0).then_some(*amount_msat);
            step.text = words::of_htlc(&moment.node, *state).to_owned();
            let sum = words::sum(*state, *amount_msat, *skimmed_fee_msat);
            step.detail = sum
                .into_iter()
                .chain(reason.as_deref().map(words::plain))
                .collect::<Vec<_>>()
                .join(": ");
        }
        What::Lease { state, intercept_scid, detail } => {
            step.text = format!("lease {state}");
            let scid = intercept_scid.as_ref().map(|scid| format!("intercept SCID {scid}; "));
            step.detail = format!("{}{}", scid.unwrap_or_default(), fields(detail));
        }
        What::Offer { state, detail } => {
            step.text = format!("static invoice {state}");
            step.detail = fields(detail);
        }
        What::Mailbox { state, peer, messages, reason } => {
            let unit = if *messages == 1 { "message" } else { "messages" };
            step.text = format!("mailbox: {messages} {unit} {state}");
            let reason = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            step.detail = format!("for {peer}{reason}");
        }
        What::Paths { context, paths, detail } => {
            step.text = format!("router: {paths} path for the {}", context.replace('_', " "));
            step.detail = fields(detail);
        }
        What::Channel { state, peer, capacity_sat, reason, .. } => {
            step.text = format!("channel {state}");
            let size = capacity_sat.map(|sat| format!(", {} sat", grouped(sat)));
            let reason = reason.as_ref().map(|reason| format!(": {}", words::plain(reason)));
            let (size, reason) = (size.unwrap_or_default(), reason.unwrap_or_default());
            step.detail = format!("with {peer}{size}{reason}");
        }
        What::Broadcast { purpose, error, txid } => {
            step.text = match error {
                None => format!("broadcasts: {purpose}"),
                Some(_) => format!("the chain refuses: {purpose}"),
            };
            step.detail = error.clone().unwrap_or_else(|| format!("transaction {txid}"));
        }
        What::Block { height } => {
            step.kind = Kind::Block;
            step.text = format!("block {height}");
        }
        What::Balances { .. } => {
            step.kind = Kind::Money;
            step.text = "balances".to_owned();
            // They stand in the states; a line of their own would say it twice.
            step.background = true;
        }
        What::Scene { title, .. } => {
            step.kind = Kind::Scene;
            step.text = title.clone();
        }
        What::Note { text } => step.text = text.clone(),
    }
    step
}

/// How a moment changes the state of the party that saw it; an empty value removes a line.
fn changes(moment: &Moment) -> Vec<(String, String)> {
    let one = |key: &str, value: String| vec![(key.to_owned(), value)];
    match &moment.what {
        What::Started { .. } => one("power", "online".to_owned()),
        What::Stopped => one("power", "offline".to_owned()),
        What::Wire { message, peer, .. } if message == "update_add_htlc" => {
            one("htlc", format!("arrived from {peer}"))
        }
        What::Onion { message, .. } if message == "release_held_htlc" => {
            one("htlc", "released".to_owned())
        }
        What::Htlc { state, amount_msat, skimmed_fee_msat, reason, .. } => {
            let name = words::of_htlc(&moment.node, *state);
            let name = name.strip_prefix("HTLC ").unwrap_or(name);
            let sum = words::sum(*state, *amount_msat, *skimmed_fee_msat);
            let told = sum.into_iter().chain(reason.as_deref().map(words::plain));
            one("htlc", [name.to_owned()].into_iter().chain(told).collect::<Vec<_>>().join(": "))
        }
        What::Lease { state, intercept_scid, .. } => {
            let scid = intercept_scid.as_ref().map(|scid| format!(", SCID {scid}"));
            one("lease", format!("{state}{}", scid.unwrap_or_default()))
        }
        What::Offer { state, detail } => {
            let slot = detail["slot"].as_u64().map(|slot| format!(", slot {slot}"));
            one("static invoice", format!("{state}{}", slot.unwrap_or_default()))
        }
        What::Mailbox { state, messages, peer, .. } => match state.as_str() {
            "kept" => one("mailbox", format!("{messages} for {peer}")),
            "delivered" => one("mailbox", String::new()),
            _ => Vec::new(),
        },
        What::Channel { state, peer, capacity_sat, .. } => {
            let size = capacity_sat.map(|sat| format!(", {} sat", grouped(sat)));
            let gone = matches!(state.as_str(), "closed" | "refused" | "open_failed");
            let mut lines = vec![(
                format!("channel with {peer}"),
                format!("{state}{}", size.unwrap_or_default()),
            )];
            if gone {
                lines.push((format!("can send to {peer}"), String::new()));
            }
            lines
        }
        What::Balances { onchain_sat, channels, .. } => {
            let mut lines = vec![("on chain".to_owned(), format!("{} sat", grouped(*onchain_sat)))];
            for channel in channels {
                let reserve = match channel.reserve_msat {
                    0 => String::new(),
                    reserve => format!(", {} msat in reserve", grouped(reserve)),
                };
                lines.push((
                    format!("can send to {}", channel.peer),
                    format!(
                        "{} msat of {} sat{reserve}",
                        grouped(channel.spendable_msat),
                        grouped(channel.capacity_sat),
                    ),
                ));
            }
            lines
        }
        _ => Vec::new(),
    }
}

fn lsps(json: &serde_json::Value) -> String {
    if let Some(method) = json["method"].as_str() {
        return method.to_owned();
    }
    let result = &json["result"];
    match json["error"]["code"].as_i64() {
        Some(code) => format!("error {code}"),
        None if result.get("opening_fee_params_menu").is_some() => "menu of opening fees".into(),
        None if result.get("jit_channel_scid").is_some() => "intercept SCID, CLTV delta".into(),
        None => "answer".into(),
    }
}

/// The fields of a JSON object in words.
fn fields(detail: &serde_json::Value) -> String {
    let Some(fields) = detail.as_object() else { return String::new() };
    let shown = fields.iter().filter_map(|(name, value)| words::value(name, value));
    shown.collect::<Vec<_>>().join(", ")
}

/// The number in a value such as `100 000 000 msat`.
pub(crate) fn number(value: &str) -> Option<u64> {
    let digits = value.split(|c: char| c.is_ascii_alphabetic()).next().unwrap_or_default();
    digits.chars().filter(|c| !c.is_whitespace()).collect::<String>().parse().ok()
}

/// A number that a person can read: `98 000 000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}
