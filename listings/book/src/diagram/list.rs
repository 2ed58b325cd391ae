//! A story as an ordered list: what the drawing shows, and how much it leaves out.

use std::fmt::Write;

use super::story::{Arrow, Folded, Power, Row, Shape, Story};
use crate::html::escape;

/// The list.
pub(super) fn list(story: &Story) -> String {
    let mut out = String::from("<ol>");
    for group in &story.groups {
        if let Some((number, title)) = &group.heading {
            let number = number.as_ref().map(|number| format!("{number} ")).unwrap_or_default();
            let _ =
                write!(out, "<li class=\"step\"><strong>{number}{}</strong><ol>", escape(title));
        }
        for (lane, power) in group.power.iter().enumerate() {
            let word = match power {
                Power::Online => continue,
                Power::Offline => "is offline",
                Power::Absent => "has not started",
            };
            item(&mut out, "state", &story.lanes[lane], word, "");
        }
        more(&mut out, &group.folded);
        for row in &group.rows {
            entry(&mut out, story, row);
            more(&mut out, &row.folded);
        }
        if group.heading.is_some() {
            out.push_str("</ol></li>");
        }
    }
    out.push_str("</ol>");
    out
}

fn entry(out: &mut String, story: &Story, row: &Row) {
    let label = |lane: &usize| story.lanes[*lane].as_str();
    let with = |text: &str, more: &Option<String>| match more {
        Some(more) => format!("{text}, {more}"),
        None => text.to_owned(),
    };
    match &row.shape {
        Shape::Move { from, to, kind, text, amount } => {
            let (class, word) = match kind {
                Arrow::Message => ("msg", ""),
                Arrow::Onion => ("onion", " (onion message)"),
                Arrow::Htlc => ("htlc", " (HTLC)"),
                Arrow::Settle => ("settle", ""),
                Arrow::Both => ("both", ""),
            };
            let arrow = if *kind == Arrow::Both { '↔' } else { '→' };
            let who = format!("{} {arrow} {}{word}", label(from), label(to));
            item(out, class, &who, &with(text, amount), &row.detail);
        }
        Shape::Mark { at, money, text, amount, more } => {
            let class = if *money { "money" } else { "note" };
            let text = match amount {
                Some(amount) if text == "asks to pay" => format!("{text} {amount}"),
                Some(amount) if *money => format!("{text}: {amount}"),
                amount => with(text, amount),
            };
            let text = match more {
                Some(more) => format!("{text}: {more}"),
                None => text,
            };
            // A reason is the detail, mostly.
            let detail = if more.as_ref() == Some(&row.detail) { "" } else { &row.detail };
            item(out, class, label(at), &text, detail);
        }
        Shape::Power { at, to } => {
            let word = if *to == Power::Online { "comes online" } else { "goes offline" };
            let detail = if *to == Power::Online { row.detail.as_str() } else { "" };
            item(out, "state", label(at), word, detail);
        }
        Shape::Aside(text) => item(out, "aside", "", text, &row.detail),
    }
}

fn item(out: &mut String, class: &str, who: &str, text: &str, detail: &str) {
    let _ = write!(out, "<li class=\"{class}\">");
    if !who.is_empty() {
        let _ = write!(out, "<span class=\"who\">{}</span> ", escape(who));
    }
    out.push_str(&escape(text));
    if !detail.is_empty() {
        let _ = write!(out, " <span class=\"detail\">({})</span>", escape(detail));
    }
    out.push_str("</li>");
}

/// Says what has no row of its own.
fn more(out: &mut String, folded: &[Folded]) {
    let mut parts = Vec::new();
    for (message, one, several) in [(true, "message", "messages"), (false, "event", "events")] {
        let names = folded.iter().filter(|folded| folded.message == message);
        let mut counted: Vec<(&str, usize)> = Vec::new();
        for Folded { name, .. } in names {
            match counted.iter_mut().find(|(known, _)| known == name) {
                Some((_, count)) => *count += 1,
                None => counted.push((name, 1)),
            }
        }
        let count: usize = counted.iter().map(|(_, count)| count).sum();
        if count > 0 {
            let shown = |(name, count): &(&str, usize)| match count {
                1 => (*name).to_owned(),
                count => format!("{name} ×{count}"),
            };
            let names: Vec<_> = counted.iter().map(shown).collect();
            let unit = if count == 1 { one } else { several };
            parts.push(format!("{count} more {unit} ({})", names.join(", ")));
        }
    }
    if !parts.is_empty() {
        let _ = write!(out, "<li class=\"more\">and {}</li>", escape(&parts.join(" and ")));
    }
}
