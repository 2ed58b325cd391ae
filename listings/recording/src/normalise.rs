//! Entries into moments: what differs from run to run is shortened, linked or left out.

use serde_json::Value;
use std::collections::{HashMap, HashSet, VecDeque};

use crate::compare;
use crate::entry::{Entry, HtlcState, What};
use crate::moment::{Explained, Moment};

/// Messages of the nodes' housekeeping. They come when they come; the story does not depend on them.
const HOUSEKEEPING: [&str; 17] = [
    "init",
    "ping",
    "pong",
    "warning",
    "gossip_timestamp_filter",
    "query_channel_range",
    "reply_channel_range",
    "query_short_channel_ids",
    "reply_short_channel_ids_end",
    "channel_announcement",
    "node_announcement",
    "channel_update",
    "announcement_signatures",
    "peer_storage",
    "peer_storage_retrieval",
    "update_fee",
    // The hops of an onion message; the moment that counts is its arrival.
    "onion_message",
];

/// Events without a part in the story.
const SIDE_EVENTS: [&str; 3] =
    ["OnionMessagePeerConnected", "PaymentPathSuccessful", "OnionMessageIntercepted"];

/// A number of hex digits that is no amount and no height, but a key, an id or a signature.
const LONG: usize = 24;
/// How much of it is kept, so that a reader recognises it.
const KEPT: usize = 8;

/// Explains the bytes of a message, if it is one the book explains.
pub type Explain = Box<dyn Fn(&Entry) -> Vec<Explained> + Send + Sync>;

/// Turns entries, one by one as they come, into moments. What happens before the first scene is not
/// part of the recording.
pub struct Normaliser {
    explain: Explain,
    names: HashMap<String, String>,
    scene: Option<String>,
    n: usize,
    seen: HashSet<String>,
    /// Who made onion messages of this name, the latest last.
    makers: HashMap<String, Vec<String>>,
    /// Messages about held HTLCs that have not arrived yet, by their name, in the order in which they
    /// were made.
    under_way: HashMap<String, VecDeque<Made>>,
    /// Whether what a recipient has to answer is a copy, the oldest first. The answer to a copy is one
    /// too.
    unanswered: HashMap<String, VecDeque<bool>>,
    /// Whether an offer has become ready. From then on LDK makes further ones, and renews their
    /// invoices, whenever the recipient comes online.
    has_offer: bool,
    /// The ends of payments that a node has told of, before the first scene too.
    ended: HashSet<String>,
}

impl Normaliser {
    /// A normaliser that explains messages with `explain`.
    pub fn new(explain: Explain) -> Self {
        Self {
            explain,
            names: HashMap::new(),
            scene: None,
            n: 0,
            seen: HashSet::new(),
            makers: HashMap::new(),
            under_way: HashMap::new(),
            unanswered: HashMap::new(),
            has_offer: false,
            ended: HashSet::new(),
        }
    }

    /// Tells which party a node id, in hex, belongs to.
    pub fn introduce(&mut self, node_id: &str, name: &str) {
        self.names.insert(node_id.to_owned(), name.to_owned());
    }

    /// The moment of an entry; `None` if it is before the first scene, or only says who made an
    /// onion message.
    pub fn push(&mut self, entry: &Entry) -> Option<Moment> {
        if let What::OnionSent { message, .. } = &entry.what {
            let makers = self.makers.entry(message.clone()).or_default();
            makers.retain(|maker| *maker != entry.node);
            makers.push(entry.node.clone());
            self.sent(&entry.node, message);
            return None;
        }
        if let What::Scene { id, .. } = &entry.what {
            self.scene = Some(id.clone());
            self.seen.clear();
        }
        let letter = self.arrived(entry);
        let told = ending(entry).is_some_and(|ending| !self.ended.insert(ending));
        let renews = self.has_offer && is_of_an_offer(&entry.what);
        self.has_offer |= is_persisted(&entry.what);
        let scene = self.scene.clone()?;
        let explained = (self.explain)(entry);
        let mut what = self.readable(&entry.what);
        match &mut what {
            What::Onion { message, from, content, .. } => {
                let makers = self.makers.get(message.as_str());
                let other = |maker: &&String| **maker != entry.node;
                let latest = || makers?.iter().rev().find(other).cloned();
                let made = letter.as_ref().map(|letter| letter.maker.clone());
                *from = made.or_else(latest);
                *content = None;
            }
            What::Wire { content, .. } | What::Lsps { content, .. } => *content = None,
            _ => {}
        }
        let background = renews || is_background(&what);
        let mut moment = Moment {
            n: self.n,
            scene,
            node: entry.node.clone(),
            what,
            background,
            again: false,
            explained,
        };
        let first = self.seen.insert(format!("{} {}", moment.node, self.exactly(&moment)));
        moment.again = match (&letter, is_about_held(&moment.what)) {
            (Some(letter), true) => letter.again,
            (None, true) => true,
            _ => told || !first && may_come_again(&moment.what),
        };
        self.n += 1;
        Some(moment)
    }

    /// A node has made a message.
    fn sent(&mut self, node: &str, message: &str) {
        if !HELD.contains(&message) {
            return;
        }
        let mut owed = self.unanswered.get_mut(node).filter(|_| message == RELEASE);
        let again = owed.as_mut().and_then(|owed| owed.pop_front()).unwrap_or(false);
        let made = Made { maker: node.to_owned(), again };
        self.under_way.entry(message.to_owned()).or_default().push_back(made);
    }

    /// Which message about a held HTLC this is that arrives; `None` if none is under way. All of them
    /// have the same byte, so that equal bytes make no copy.
    fn arrived(&mut self, entry: &Entry) -> Option<Made> {
        let What::Onion { message, .. } = &entry.what else { return None };
        if !HELD.contains(&&**message) {
            return None;
        }
        let under_way = self.under_way.entry(message.clone()).or_default();
        let at = under_way.iter().position(|made| made.maker != entry.node);
        let made = at.and_then(|at| under_way.remove(at));
        if message != RELEASE {
            self.unanswered.entry(entry.node.clone()).or_default().push_back(made.is_none());
        }
        made
    }

    /// What makes a copy: all of a moment, but of an onion message not who sent it.
    fn exactly(&self, moment: &Moment) -> String {
        match &moment.what {
            What::Broadcast { txid, .. } => txid.clone(),
            _ => compare::line(moment),
        }
    }

    /// The same, with long hex shortened and node ids replaced by names.
    fn readable(&self, what: &What) -> What {
        let mut bare = what.clone();
        match &mut bare {
            What::Onion { content, .. }
            | What::Wire { content, .. }
            | What::Lsps { content, .. } => *content = None,
            _ => {}
        }
        let mut value = serde_json::to_value(&bare).expect("an entry is JSON");
        self.shorten(&mut value);
        serde_json::from_value(value).expect("a shortened entry is an entry")
    }

    fn shorten(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.shortened(text),
            Value::Array(values) => values.iter_mut().for_each(|value| self.shorten(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.shorten(value)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn shortened(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while !rest.is_empty() {
            let hex = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
            let (run, tail) = rest.split_at(hex);
            match self.names.get(run) {
                Some(name) => out.push_str(name),
                None if run.len() >= LONG => {
                    out.push_str(&run[..KEPT]);
                    out.push('…');
                }
                None => out.push_str(run),
            }
            let other = tail.find(|c: char| c.is_ascii_hexdigit()).unwrap_or(tail.len());
            out.push_str(&tail[..other]);
            rest = &tail[other..];
        }
        out
    }
}

/// A message about a held HTLC on its way.
struct Made {
    maker: String,
    /// Whether it answers a copy.
    again: bool,
}

/// The answer to the other message about a held HTLC.
const RELEASE: &str = "release_held_htlc";
/// Messages about held HTLCs: one byte, whatever HTLC it is.
const HELD: [&str; 2] = ["held_htlc_available", RELEASE];

fn is_about_held(what: &What) -> bool {
    matches!(what, What::Onion { message, .. } if HELD.contains(&&**message))
}

fn is_background(what: &What) -> bool {
    match what {
        What::Wire { message, .. } => HOUSEKEEPING.contains(&message.as_str()),
        What::Event { name, .. } => SIDE_EVENTS.contains(&name.as_str()),
        What::Block { .. } => true,
        _ => false,
    }
}

/// Whether it is a part of how an offer becomes ready.
fn is_of_an_offer(what: &What) -> bool {
    const MESSAGES: [&str; 4] =
        ["offer_paths_request", "offer_paths", "serve_static_invoice", "static_invoice_persisted"];
    match what {
        What::Onion { message, .. } => MESSAGES.contains(&message.as_str()),
        What::Event { name, .. } => name == "PersistStaticInvoice",
        What::Offer { state, .. } => state == "persisted",
        What::Paths { context, .. } => context == "static_invoice",
        _ => false,
    }
}

/// LDK tells of the end of a payment once more after a restart, if it had not written down that it
/// did.
fn ending(entry: &Entry) -> Option<String> {
    let node = &entry.node;
    match &entry.what {
        What::Event { name, detail } => {
            // LSPS2 asks for the channel of a lease once more, too.
            let ends = ["PaymentClaimed", "PaymentSent", "PaymentForwarded", "OpenChannel"];
            ends.contains(&name.as_str()).then(|| format!("{node} {name} {detail}"))
        }
        What::Htlc { state, payment_hash: Some(hash), .. } => {
            let ends = matches!(state, HtlcState::Claimed | HtlcState::Paid);
            ends.then(|| format!("{node} {state:?} {hash}"))
        }
        _ => None,
    }
}

fn is_persisted(what: &What) -> bool {
    matches!(what, What::Onion { message, .. } if message == "static_invoice_persisted")
}

/// LDK sends an onion message over several paths, and shows some events for each copy. A node
/// broadcasts a transaction until it confirms.
fn may_come_again(what: &What) -> bool {
    match what {
        What::Onion { .. }
        | What::Offer { .. }
        | What::Mailbox { .. }
        | What::Paths { .. }
        | What::Broadcast { .. } => true,
        What::Event { name, .. } => name == "StaticInvoiceRequested" || is_background(what),
        _ => is_background(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::Field;
    use serde_json::json;

    const NODE_ID: &str = "0218885f363927854a56b474fc6cac42d90bf822a7403be7932bdf12e6e1ceba1a";
    const HASH: &str = "eea3b73fdbd02a490ee8d800d5b2b3a41b6d8e5968c02344ebebe71b38f94d97";

    fn normaliser() -> Normaliser {
        let mut normaliser = Normaliser::new(Box::new(|_| Vec::new()));
        normaliser.introduce(NODE_ID, "lsp");
        normaliser
    }

    fn entry(node: &str, what: What) -> Entry {
        Entry { seq: 7, at_ms: 1234, node: node.to_owned(), what }
    }

    fn scene(id: &str) -> Entry {
        entry("director", What::Scene { id: id.to_owned(), title: "A scene".to_owned() })
    }

    fn onion(node: &str, message: &str) -> Entry {
        let message = message.to_owned();
        entry(node, What::Onion { message, bytes: 5, from: None, content: Some("00".to_owned()) })
    }

    fn made(node: &str, message: &str) -> Entry {
        entry(node, What::OnionSent { message: message.to_owned(), bytes: 5 })
    }

    #[test]
    fn what_comes_before_the_first_scene_is_left_out() {
        let mut normaliser = normaliser();
        assert!(normaliser.push(&entry("lsp", What::Stopped)).is_none());
        assert_eq!(normaliser.push(&scene("step-1")).unwrap().n, 0);
        let moment = normaliser.push(&entry("lsp", What::Stopped)).unwrap();
        assert_eq!((moment.n, &*moment.scene), (1, "step-1"));
    }

    #[test]
    fn ids_are_shortened_nodes_are_named_and_amounts_stay() {
        let mut normaliser = normaliser();
        normaliser.push(&scene("a"));
        let detail = json!({ "node": NODE_ID, "hash": HASH, "funding": format!("{HASH}:1"), "msat": 98_000_000 });
        let event = What::Event { name: "PaymentClaimable".to_owned(), detail };
        let What::Event { detail, .. } = normaliser.push(&entry("lsp", event)).unwrap().what else {
            panic!("another kind")
        };
        let short = json!({ "node": "lsp", "hash": "eea3b73f…", "funding": "eea3b73f…:1", "msat": 98_000_000 });
        assert_eq!(detail, short);
    }

    #[test]
    fn an_onion_message_comes_from_whoever_made_it_last() {
        let mut normaliser = normaliser();
        // The payer asks; later the server forwards the request to the recipient.
        normaliser.push(&made("payer", "invoice_request"));
        normaliser.push(&scene("a"));
        let from = |moment: Option<Moment>| match moment.unwrap().what {
            What::Onion { from, content, .. } => {
                assert_eq!(content, None, "bytes are for whoever explains them");
                from
            }
            other => panic!("{other:?}"),
        };
        let arrives = normaliser.push(&onion("lsp", "invoice_request"));
        assert_eq!(from(arrives).as_deref(), Some("payer"));
        assert!(normaliser.push(&made("lsp", "invoice_request")).is_none());
        let arrives = normaliser.push(&onion("recipient", "invoice_request"));
        assert_eq!(from(arrives).as_deref(), Some("lsp"));
        let arrives = normaliser.push(&onion("recipient", "static_invoice"));
        assert_eq!(from(arrives), None, "nobody made it");
    }

    #[test]
    fn each_message_about_a_held_htlc_arrives_once() {
        let mut normaliser = normaliser();
        let (held, release) = ("held_htlc_available", "release_held_htlc");
        normaliser.push(&made("payer", held));
        normaliser.push(&made("payer-2", held));
        normaliser.push(&scene("a"));
        let mut told = |entry| {
            let moment = normaliser.push(&entry)?;
            match moment.what {
                What::Onion { from, .. } => Some((from.unwrap_or_default(), moment.again)),
                other => panic!("{other:?}"),
            }
        };
        let is = |from: &str, again| Some((from.to_owned(), again));
        // Two payments wait: two messages of one byte, and two answers.
        assert_eq!(told(onion("recipient", held)), is("payer", false));
        assert_eq!(told(onion("recipient", held)), is("payer-2", false));
        assert_eq!(told(made("recipient", release)), None);
        assert_eq!(told(made("recipient", release)), None);
        assert_eq!(told(onion("payer-lsp", release)), is("recipient", false));
        assert_eq!(told(onion("payer-lsp", release)), is("recipient", false));
        // The mailbox delivers one of them once more; its answer is a copy too.
        assert_eq!(told(onion("recipient", held)), is("payer-2", true));
        assert_eq!(told(made("recipient", release)), None);
        assert_eq!(told(onion("payer-lsp", release)), is("recipient", true));
        // Another payment of the same payer is none.
        assert_eq!(told(made("payer", held)), None);
        assert_eq!(told(onion("recipient", held)), is("payer", false));
    }

    #[test]
    fn the_end_of_a_payment_is_told_again_after_a_restart() {
        let mut normaliser = normaliser();
        let claimed = |amount_msat| What::Htlc {
            state: HtlcState::Claimed,
            payment_hash: Some(format!("{amount_msat:064x}")),
            amount_msat,
            skimmed_fee_msat: 0,
            reason: None,
        };
        normaliser.push(&entry("recipient", claimed(1)));
        normaliser.push(&scene("a"));
        let mut again = |what| normaliser.push(&entry("recipient", what)).unwrap().again;
        assert!(again(claimed(1)), "told before the first scene");
        assert!(!again(claimed(2)));
        let forwarded = |htlc: u64| What::Event {
            name: "PaymentForwarded".to_owned(),
            detail: json!({ "prev_htlcs": [htlc] }),
        };
        assert!(!again(forwarded(1)));
        assert!(!again(forwarded(2)));
        normaliser.push(&scene("b"));
        let mut again = |what| normaliser.push(&entry("recipient", what)).unwrap().again;
        assert!(again(forwarded(2)) && again(claimed(2)), "told in another scene");
    }

    #[test]
    fn a_copy_is_marked_in_its_scene_and_a_channel_message_is_no_copy() {
        let mut normaliser = normaliser();
        let wire = |message: &str| {
            let (peer, message) = ("payer".to_owned(), message.to_owned());
            entry("lsp", What::Wire { peer, message, bytes: 97, content: None })
        };
        normaliser.push(&scene("a"));
        let mut again = |entry| {
            let moment = normaliser.push(&entry).unwrap();
            (moment.again, moment.background)
        };
        assert_eq!(again(onion("lsp", "invoice_request")), (false, false));
        assert_eq!(again(onion("lsp", "invoice_request")), (true, false));
        assert_eq!(again(onion("payer", "invoice_request")), (false, false));
        assert_eq!(again(wire("revoke_and_ack")), (false, false));
        assert_eq!(again(wire("revoke_and_ack")), (false, false));
        assert_eq!(again(wire("ping")), (false, true));
        assert_eq!(again(scene("b")), (false, false));
        assert_eq!(again(onion("lsp", "invoice_request")), (false, false));
    }

    #[test]
    fn what_renews_an_offer_is_housekeeping() {
        let mut normaliser = normaliser();
        normaliser.push(&scene("a"));
        let mut background = |entry| normaliser.push(&entry).unwrap().background;
        assert!(!background(onion("lsp", "serve_static_invoice")));
        assert!(!background(onion("recipient", "static_invoice_persisted")));
        assert!(background(onion("lsp", "serve_static_invoice")));
        assert!(!background(onion("payer", "static_invoice")));
    }

    #[test]
    fn bytes_are_explained_once_and_not_kept_twice() {
        let explained = Explained {
            title: "invoice_request".to_owned(),
            bytes: "00".to_owned(),
            text: false,
            fields: vec![Field {
                at: 0,
                len: 1,
                depth: 0,
                name: "type".to_owned(),
                value: "0".to_owned(),
                meaning: String::new(),
                varies: false,
            }],
        };
        let all = vec![explained];
        let explain = all.clone();
        let mut normaliser = Normaliser::new(Box::new(move |entry| match &entry.what {
            What::Onion { content: Some(_), .. } => explain.clone(),
            _ => Vec::new(),
        }));
        normaliser.push(&scene("a"));
        assert_eq!(normaliser.push(&onion("lsp", "invoice_request")).unwrap().explained, all);
        assert_eq!(normaliser.push(&entry("lsp", What::Stopped)).unwrap().explained, []);
    }
}
