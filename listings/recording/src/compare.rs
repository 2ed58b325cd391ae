//! How two recordings of one scenario differ.
//!
//! Nodes act side by side, so the order of all moments is not the same in every run. What is the
//! same is what happens in each scene in each thread: the channel messages of one direction of a
//! connection come in one order, and so do the states of an HTLC at one node. Housekeeping, copies
//! and times are not compared.

use serde_json::Value;
use similar::TextDiff;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::entry::{ChannelBalance, Closing, What};
use crate::moment::{Field, Moment, Recording};

/// Fields whose values differ from run to run.
const VARYING: [&str; 9] = [
    "id",
    "promise",
    "valid_until",
    "jit_channel_scid",
    "intercept_scid",
    "requested_next_hop_scid",
    "outgoing_htlc_expiry_block_height",
    "claim_deadline",
    "short_channel_id",
];

/// What two runs have in common of a moment, on one line.
pub fn line(moment: &Moment) -> String {
    if let What::Balances { onchain_sat, fees_sat, channels, closed } = &moment.what {
        // Two channels that open side by side are listed in either order.
        let mut channels: Vec<_> = channels.iter().map(owned).collect();
        channels.sort();
        channels.extend(closed.iter().map(left));
        let channels = channels.join("; ");
        return format!("balances {onchain_sat} sat on chain, {fees_sat} sat of fees; {channels}");
    }
    let mut value = serde_json::to_value(&moment.what).expect("a moment is JSON");
    if matches!(&moment.what, What::Lsps { json, .. } if has_scid(json)) {
        // An SCID has as many digits as it needs.
        value["bytes"] = Value::from("…");
    }
    mask(&mut value);
    let Value::Object(fields) = value else { unreachable!("it has a kind") };
    let kind = fields.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
    let mut out = kind;
    for (name, value) in fields.iter().filter(|(name, value)| *name != "kind" && !value.is_null()) {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = write!(out, " {name}={value}");
    }
    out
}

fn left(closed: &Closing) -> String {
    let Closing { peer, capacity_sat, own_msat, pending_msat, fees_sat, anchors_sat, .. } = closed;
    let fees_sat: u64 = fees_sat.values().sum();
    format!(
        "closed with {peer}: {own_msat} msat left of {capacity_sat} sat, pending {pending_msat:?}, \
         {fees_sat} sat of fees, {anchors_sat} sat in anchors"
    )
}

fn owned(channel: &ChannelBalance) -> String {
    let state = |is: bool, word: &'static str| if is { word } else { "" };
    format!(
        "with {}: {} of {} sat, {} msat in reserve, pending {:?}{}{}",
        channel.peer,
        channel.own_msat(),
        channel.capacity_sat,
        channel.reserve_msat,
        channel.pending_msat,
        state(channel.withheld, ", withheld"),
        state(channel.confirmed, ", confirmed"),
    )
}

fn mask(value: &mut Value) {
    match value {
        Value::String(text) => *text = masked(text),
        Value::Array(values) => values.iter_mut().for_each(mask),
        Value::Object(fields) => {
            for (name, value) in fields {
                match VARYING.contains(&name.as_str()) && !value.is_null() {
                    true => *value = Value::from("…"),
                    false => mask(value),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn has_scid(json: &Value) -> bool {
    json["result"].get("jit_channel_scid").is_some()
}

/// What stands between these is a number that differs from run to run: an SCID in LDK's own words,
/// a moment in time.
const NUMBERS: [(&str, &str); 3] =
    [("_scid: ", " "), ("short_channel_id: ", ","), ("", "s after the Unix epoch")];

fn masked(text: &str) -> String {
    let mut text = without_ids(text);
    for (before, after) in NUMBERS {
        text = without_numbers(&text, before, after);
    }
    without_scids(&text)
}

/// `1x104x7` becomes `…`.
fn without_scids(text: &str) -> String {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_scid = |word: &str| word.split('x').count() == 3 && word.split('x').all(is_number);
    let words = text.split(' ').map(|word| if is_scid(word) { "…" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

fn without_numbers(text: &str, before: &str, after: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (head, tail) = rest.split_at(at);
        let digits = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
        let (number, tail) = tail.split_at(digits);
        let is_one = head.ends_with(before) && tail.starts_with(after);
        out.push_str(head);
        out.push_str(if is_one { "…" } else { number });
        rest = tail;
    }
    out + rest
}

/// Shortened ids (`0123abcd…`, or with an output, `0123abcd…:1`) become `…`.
fn without_ids(text: &str) -> String {
    let mut pieces = text.split('…').peekable();
    let mut out = String::with_capacity(text.len());
    let mut after_id = false;
    while let Some(mut piece) = pieces.next() {
        if after_id && let Some(output) = piece.strip_prefix(':') {
            piece = output.trim_start_matches(|c: char| c.is_ascii_digit());
        }
        after_id = true;
        match pieces.peek() {
            Some(_) => {
                out.push_str(piece.trim_end_matches(|c: char| c.is_ascii_hexdigit()));
                out.push('…');
            }
            None => out.push_str(piece),
        }
    }
    out
}

/// The moments that run side by side with others, and in one order among themselves.
fn thread(moment: &Moment) -> Option<String> {
    let node = &moment.node;
    if moment.background || moment.again {
        return None;
    }
    Some(match &moment.what {
        What::Wire { peer, .. } => format!("messages {peer} → {node}"),
        What::Lsps { peer, .. } => format!("LSPS messages {peer} → {node}"),
        What::Onion { from, .. } => {
            format!("onion messages {} → {node}", from.as_deref().unwrap_or("?"))
        }
        What::Connected { peer } | What::Disconnected { peer } => {
            format!("connection of {node} with {peer}")
        }
        What::Started { .. } | What::Stopped => format!("{node} on and off"),
        What::Event { .. } => format!("events of {node}"),
        What::Htlc { .. } => format!("HTLCs of {node}"),
        What::Lease { .. } => format!("leases of {node}"),
        What::Offer { .. } => format!("static invoices of {node}"),
        What::Mailbox { .. } => format!("mailbox of {node}"),
        What::Paths { .. } => format!("router of {node}"),
        What::Channel { peer, .. } => format!("channel of {node} with {peer}"),
        What::Broadcast { .. } => format!("transactions of {node}"),
        What::Note { .. } | What::Scene { .. } => "the director".to_owned(),
        What::Block { .. } | What::OnionSent { .. } | What::Balances { .. } => return None,
    })
}

/// Scene and thread to the lines in it, the scenes numbered in their order.
type Threads = BTreeMap<(usize, String, String), Vec<String>>;

fn threads(moments: &[Moment]) -> Threads {
    let mut threads = Threads::new();
    let mut owned = BTreeMap::new();
    let mut together = BTreeSet::new();
    let scenes = moments.chunk_by(|one, next| one.scene == next.scene);
    for (at, scene) in scenes.enumerate() {
        let key = |thread: String| (at, scene[0].scene.clone(), thread);
        let side_by_side = are_side_by_side(scene);
        if side_by_side {
            together.insert(at);
        }
        for moment in scene.iter().filter(|moment| !side_by_side || !is_dance(moment)) {
            if let Some(thread) = thread(moment) {
                threads.entry(key(thread)).or_default().push(lines(moment).join("\n"));
            }
        }
        for (node, balances) in balances(scene) {
            let before = owned.insert(node.to_owned(), balances.clone()).unwrap_or_default();
            if before != balances {
                threads.insert(key(format!("balances of {node}")), vec![balances]);
            }
        }
    }
    for ((at, _, thread), lines) in &mut threads {
        // LDK hands events over in batches whose order is not the story's.
        if thread.starts_with("events") || thread.starts_with("onion") || together.contains(at) {
            lines.sort();
        }
    }
    threads
}

/// Whether several HTLCs go the same way in a scene. LDK commits to them together or one after the
/// other, and settles them so, as its timers have it.
fn are_side_by_side(scene: &[Moment]) -> bool {
    let mut pairs = BTreeSet::new();
    scene.iter().any(|moment| match &moment.what {
        What::Wire { peer, message, .. } if message == "update_add_htlc" => {
            !pairs.insert((peer, &moment.node))
        }
        _ => false,
    })
}

/// Whether it is one of the messages by which peers commit to what they have exchanged.
fn is_dance(moment: &Moment) -> bool {
    let dance = ["commitment_signed", "revoke_and_ack"];
    matches!(&moment.what, What::Wire { message, .. } if dance.contains(&message.as_str()))
}

/// What each node owns at the end of a scene; empty if that is nothing. What it owns while messages go
/// to and fro is a matter of moments, and a node that never had anything may say so or not.
fn balances(scene: &[Moment]) -> BTreeMap<&str, String> {
    let mut last = BTreeMap::new();
    for moment in scene {
        if let What::Balances { onchain_sat, channels, .. } = &moment.what {
            let something = *onchain_sat > 0 || !channels.is_empty();
            let line = if something { line(moment) } else { String::new() };
            last.insert(&*moment.node, line);
        }
    }
    last
}

fn lines(moment: &Moment) -> Vec<String> {
    let mut lines = vec![line(moment)];
    for explained in &moment.explained {
        lines.push(format!("  {}", explained.title));
        let line = |field| format!("    {}", field_line(field, explained.text));
        lines.extend(explained.fields.iter().map(line));
    }
    lines
}

/// In text a field begins and ends where the ones before it let it.
fn field_line(field: &Field, in_text: bool) -> String {
    let value = if field.varies { "…" } else { &field.value };
    let indent = "  ".repeat(field.depth.into());
    let says = format!("{} {value} ({})", field.name, field.meaning);
    match in_text {
        true => format!("{indent}{says}"),
        false => format!("{indent}{} +{} {says}", field.at, field.len),
    }
}

/// How `fresh` differs from `kept`, for a person to read; empty if it does not.
pub fn difference(kept: &Recording, fresh: &Recording) -> String {
    let mut out = String::new();
    let header = |recording: &Recording| {
        serde_json::to_string_pretty(&recording.header).expect("a header is JSON")
    };
    section(&mut out, "the header", &header(kept), &header(fresh));
    let (old, new) = (threads(&kept.moments), threads(&fresh.moments));
    let mut keys: Vec<_> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let text =
            |threads: &Threads| threads.get(key).map(|lines| lines.join("\n")).unwrap_or_default();
        section(&mut out, &format!("scene {}, {}", key.1, key.2), &text(&old), &text(&new));
    }
    out
}

fn section(out: &mut String, title: &str, kept: &str, fresh: &str) {
    if kept == fresh {
        return;
    }
    let _ = writeln!(out, "{title}:");
    let diff = TextDiff::from_lines(kept, fresh);
    for line in diff.unified_diff().context_radius(2).to_string().lines() {
        let _ = writeln!(out, "  {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::moment::{Explained, Header};

    fn moment(scene: &str, node: &str, what: What) -> Moment {
        let (scene, node) = (scene.to_owned(), node.to_owned());
        let (background, again, explained) = (false, false, Vec::new());
        Moment { n: 0, scene, node, what, background, again, explained }
    }

    fn wire(scene: &str, node: &str, peer: &str, message: &str) -> Moment {
        let (peer, message) = (peer.to_owned(), message.to_owned());
        moment(scene, node, What::Wire { peer, message, bytes: 97, content: None })
    }

    fn recording(moments: &[Moment]) -> Recording {
        let header = Header {
            name: "a".to_owned(),
            title: "A".to_owned(),
            about: String::new(),
            ldk: "0.0.0".to_owned(),
            setting: BTreeMap::new(),
            lanes: Vec::new(),
        };
        Recording { header, moments: moments.to_vec() }
    }

    #[test]
    fn what_runs_side_by_side_may_change_places_and_what_does_not_may_not() {
        let (a, b) = (wire("s", "lsp", "payer", "a"), wire("s", "payer", "lsp", "b"));
        let c = wire("s", "lsp", "payer", "c");
        let kept = recording(&[a.clone(), b.clone(), c.clone()]);
        assert_eq!(difference(&kept, &recording(&[b.clone(), a.clone(), c.clone()])), "");
        let shown = difference(&kept, &recording(&[b, c, a]));
        assert!(shown.starts_with("scene s, messages payer → lsp:\n"), "{shown}");
    }

    #[test]
    fn the_scene_counts() {
        let (a, b) = (wire("s", "lsp", "payer", "a"), wire("t", "lsp", "payer", "a"));
        let shown = difference(&recording(&[a]), &recording(&[b]));
        assert!(shown.contains("scene s, ") && shown.contains("scene t, "), "{shown}");
    }

    #[test]
    fn ids_and_scids_do_not_count_and_amounts_do() {
        let event = |hash: &str, scid: &str, msat: u64| {
            let detail = serde_json::json!({ "funding": format!("{hash}…:1"), "intercept_scid": scid, "msat": msat });
            recording(&[moment("s", "lsp", What::Event { name: "E".to_owned(), detail })])
        };
        let kept = event("0123abcd", "1x2x3", 5);
        assert_eq!(difference(&kept, &event("4567cdef", "1x20x3", 5)), "");
        let shown = difference(&kept, &event("0123abcd", "1x2x3", 6));
        assert!(shown.contains("\"msat\":6") && !shown.contains("0123abcd"), "{shown}");
    }

    #[test]
    fn numbers_of_one_run_in_a_text_do_not_count() {
        let text = "InvalidForward { requested_forward_scid: 1099606130688 } of 5 sat";
        assert_eq!(masked(text), "InvalidForward { requested_forward_scid: … } of 5 sat");
        assert_eq!(masked("SCID 1x104x7 of 0x5 sat"), "SCID … of 0x5 sat");
        let text = "the lease ran out 1795385868s after the Unix epoch, 12s ago";
        assert_eq!(masked(text), "the lease ran out …s after the Unix epoch, 12s ago");
    }

    #[test]
    fn housekeeping_and_copies_do_not_count() {
        let mut ping = wire("s", "lsp", "payer", "ping");
        ping.background = true;
        let mut copy = wire("s", "lsp", "payer", "a");
        copy.again = true;
        assert_eq!(difference(&recording(&[]), &recording(&[ping, copy])), "");
    }

    #[test]
    fn the_last_balances_of_a_scene_count_in_either_order_of_channels() {
        let channel = |peer: &str, msat: u64| ChannelBalance {
            id: String::new(),
            peer: peer.to_owned(),
            capacity_sat: 1_000,
            spendable_msat: msat,
            reserve_msat: 0,
            receivable_msat: 0,
            pending_msat: (0, 0),
            usable: true,
            confirmed: true,
            withheld: false,
        };
        let weigh = |channels: &[ChannelBalance]| {
            let channels = channels.to_vec();
            moment(
                "s",
                "lsp",
                What::Balances { onchain_sat: 1, fees_sat: 0, channels, closed: vec![] },
            )
        };
        let (a, b) = (channel("a", 5), channel("b", 6));
        let kept = recording(&[weigh(&[]), weigh(&[a.clone(), b.clone()])]);
        assert_eq!(difference(&kept, &recording(&[weigh(&[b.clone(), a.clone()])])), "");
        let shown = difference(&kept, &recording(&[weigh(&[b, channel("a", 7)])]));
        assert!(shown.contains("with a"), "{shown}");
    }

    #[test]
    fn a_field_at_another_place_or_of_another_value_is_a_difference() {
        let explained = |at: usize, value: &str, varies: bool| {
            let mut message = wire("s", "lsp", "payer", "a");
            let (name, value) = ("f".to_owned(), value.to_owned());
            let field = Field { at, len: 2, depth: 0, name, value, meaning: String::new(), varies };
            let (title, bytes) = ("a".to_owned(), String::new());
            message.explained = vec![Explained { title, bytes, text: false, fields: vec![field] }];
            recording(&[message])
        };
        let kept = explained(0, "1", false);
        assert_ne!(difference(&kept, &explained(2, "1", false)), "");
        assert_ne!(difference(&kept, &explained(0, "2", false)), "");
        assert_eq!(difference(&explained(0, "1", true), &explained(0, "2", true)), "");
    }
}
