//! How two recordings of one scenario differ.
//!
//! Nodes act side by side, so the order of all moments is not the same in every run. What is the
//! same is what happens in each scene in each thread: the channel messages of one direction of a
//! connection come in one order, and so do the states of an HTLC at one node. Housekeeping, copies
//! and times are not compared.

use serde_json::Value;
use similar::TextDiff;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::entry::What;
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

/// Shortened ids (`0123abcd…`, or with an output, `0123abcd…:1`) become `…`.
fn masked(text: &str) -> String {
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
        What::Balances { .. } => format!("balances of {node}"),
        What::Note { .. } | What::Scene { .. } => "the director".to_owned(),
        What::Block { .. } | What::OnionSent { .. } => return None,
    })
}

/// Scene and thread to the lines in it, the scenes numbered in their order.
fn threads(moments: &[Moment]) -> BTreeMap<(usize, String, String), Vec<String>> {
    let mut order: Vec<&str> = Vec::new();
    let mut threads: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for moment in moments {
        if order.last() != Some(&&*moment.scene) {
            order.push(&moment.scene);
        }
        let Some(thread) = thread(moment) else { continue };
        let lines = threads.entry((order.len(), moment.scene.clone(), thread)).or_default();
        // What a node owns while messages go to and fro is a matter of moments; what it owns in the
        // end is not.
        if matches!(moment.what, What::Balances { .. }) {
            lines.clear();
        }
        lines.push(line(moment));
        for explained in &moment.explained {
            lines.push(format!("  {}", explained.title));
            let line = |field| format!("    {}", field_line(field, explained.text));
            lines.extend(explained.fields.iter().map(line));
        }
    }
    for ((_, _, thread), lines) in &mut threads {
        // LDK hands events over in batches whose order is not the story's.
        if thread.starts_with("events") || thread.starts_with("onion") {
            lines.sort();
        }
    }
    threads
}

/// In text a field begins and ends where the ones before it let it.
fn field_line(field: &Field, in_text: bool) -> String {
    let value = if field.varies { "…" } else { &field.value };
    let indent = "  ".repeat(field.depth.into());
    match in_text {
        true => format!("{indent}{} {value}", field.name),
        false => format!("{indent}{} +{} {} {value}", field.at, field.len, field.name),
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
        let text = |threads: &BTreeMap<_, Vec<String>>| {
            threads.get(key).map(|lines| lines.join("\n")).unwrap_or_default()
        };
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
