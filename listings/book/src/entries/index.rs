//! Where to find an entry: by what you see, by the node that sees it, by the event or error.
//!
//! Nothing of it is written by hand. What the entries say and what their recordings show is sorted
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use recording::entry::What;

use super::{Entry, Label, capital};
use crate::diagram;
use crate::recordings::Recordings;

/// Runs in which nothing fails: their events are no sign of a failure.
const UNTROUBLED: [&str; 3] = ["flow", "lsp-trusts-client", "bolt11"];

/// What comes with every other failure and tells nothing more.
const COMPANIONS: [(Label, &str); 2] =
    [(Label::Payer, "PaymentPathFailed"), (Label::PayersLsp, "Downstream")];

/// All that an index draws on.
pub(crate) struct Stock<'a> {
    pub(crate) entries: &'a [Entry],
    /// Each chapter's file and title.
    pub(crate) titles: &'a [(String, String)],
    pub(crate) recordings: &'a Recordings,
    /// The names of LDK's events.
    pub(crate) events: &'a BTreeSet<String>,
}

/// An index of the entries, in Markdown: `symptoms`, `nodes` or `events`.
///
/// # Errors
/// If there is no such index, nothing to put into it, or a recording cannot be read.
pub(crate) fn index(stock: &Stock<'_>, kind: &str) -> Result<String, String> {
    if stock.entries.is_empty() {
        return Err("there is no entry to list".to_owned());
    }
    match kind {
        "symptoms" => Ok(symptoms(stock)),
        "nodes" => Ok(nodes(stock)),
        "events" => events(stock),
        other => Err(format!("an index is `symptoms`, `nodes` or `events`, not `{other}`")),
    }
}

/// Each page's entries, with the words that lead to them.
fn symptoms(stock: &Stock<'_>) -> String {
    let mut out = String::from("<div class=\"symptoms\">\n");
    for entries in stock.entries.chunk_by(|a, b| a.page == b.page) {
        let page = &entries[0].page;
        let title = stock.titles.iter().find(|(path, _)| path == page).map(|(_, title)| title);
        let _ = write!(out, "\n**[{}]({page})**\n\n", title.unwrap_or(page));
        for entry in entries {
            let _ = write!(out, "- {}", entry.link());
            for also in entry.said(Label::Also) {
                let _ = write!(out, " <span class=\"also\">{}</span>", plain(&also.text));
            }
            out.push('\n');
        }
    }
    out + "\n</div>\n"
}

/// What each node sees.
fn nodes(stock: &Stock<'_>) -> String {
    let mut out = String::new();
    for node in Label::NODES {
        let mut rows = String::new();
        for entry in stock.entries {
            for point in &entry.points {
                let is_here = point.labels.contains(&node) || point.labels.contains(&Label::All);
                if is_here && !is_nothing(&point.text) {
                    let sees = brief(&plain(&point.text)).replace('|', "\\|");
                    let _ = writeln!(rows, "| {} | {} |", capital(&sees), entry.link());
                }
            }
        }
        if !rows.is_empty() {
            let who = node.name().replace("Payer", "payer").replace("Recipient", "recipient");
            let _ =
                write!(out, "\n### What the {who} sees\n\n| It sees | Entry |\n|---|---|\n{rows}");
        }
    }
    out
}

/// Whether a node sees nothing by which it would find the entry.
fn is_nothing(text: &str) -> bool {
    matches!(text.trim_end_matches('.'), "nothing" | "no event" | "perhaps nothing")
}

/// What an engineer looks up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Event,
    Reason,
    Text,
    Name,
}

impl Kind {
    const EVERY: [Self; 4] = [Self::Event, Self::Reason, Self::Text, Self::Name];

    fn heading(self) -> (&'static str, &'static str) {
        match self {
            Self::Event => ("Events of LDK", "Event"),
            Self::Reason => ("Reasons and errors", "Reason"),
            Self::Text => ("Texts in a log", "Text"),
            Self::Name => ("Messages, calls and fields", "Name"),
        }
    }
}

/// A word to look up, as Markdown.
type Key = (Kind, String);

/// Where a word is seen: the node, if the entry says which, and whether it is missing there.
type Place = (Option<Label>, bool);

/// Each event, reason, text and name, and the entries in which it is seen.
fn events(stock: &Stock<'_>) -> Result<String, String> {
    let mut found: BTreeMap<Key, BTreeMap<Place, BTreeSet<usize>>> = BTreeMap::new();
    let usual = usual(stock.recordings);
    for (n, entry) in stock.entries.iter().enumerate() {
        let mut note = |key: Key, place: Place| {
            found.entry(key).or_default().entry(place).or_default().insert(n);
        };
        for (key, missing) in words(&entry.title, stock.events) {
            note(key, (None, missing));
        }
        for point in &entry.points {
            for label in
                point.labels.iter().filter(|label| label.is_node() || **label == Label::Also)
            {
                let node = Some(*label).filter(|label| Label::NODES.contains(label));
                for (key, missing) in words(&point.text, stock.events) {
                    note(key, (node, missing));
                }
            }
        }
        for argument in &entry.diagrams {
            for (node, key) in recorded(stock.recordings, argument)? {
                let of_note = !usual.contains(&(node, key.clone()))
                    && !COMPANIONS.iter().any(|(at, name)| *at == node && key.contains(name));
                if of_note {
                    let kind = match stock.events.contains(&key) {
                        true => Kind::Event,
                        false => Kind::Reason,
                    };
                    note((kind, format!("`{key}`")), (Some(node), false));
                }
            }
        }
    }
    let mut out = String::new();
    for kind in Kind::EVERY {
        let mut keys: Vec<_> = found.iter().filter(|((of, _), _)| *of == kind).collect();
        keys.sort_by_key(|((_, key), _)| key.trim_matches(['`', '“']).to_lowercase());
        if keys.is_empty() {
            continue;
        }
        let (heading, column) = kind.heading();
        let _ = write!(out, "\n### {heading}\n\n| {column} | Entries |\n|---|---|\n");
        for ((_, key), places) in keys {
            let cell = cell(stock.entries, places);
            let _ = writeln!(out, "| {} | {cell} |", key.replace('|', "\\|"));
        }
    }
    Ok(out)
}

/// The entries of a word, by the node that sees it.
fn cell(entries: &[Entry], places: &BTreeMap<Place, BTreeSet<usize>>) -> String {
    let mut parts = Vec::new();
    // A title or a search word adds an entry only if no node of it says the same.
    let by_node: BTreeSet<_> =
        places.iter().filter(|((node, _), _)| node.is_some()).flat_map(|(_, ns)| ns).collect();
    for ((node, missing), ns) in places.iter().rev() {
        let ns: Vec<_> = ns
            .iter()
            .filter(|n| node.is_some() || !by_node.contains(n))
            .map(|n| entries[*n].link())
            .collect();
        if ns.is_empty() {
            continue;
        }
        let who = node.map_or("", Label::name).replace('\'', "’");
        let who = match (who.as_str(), missing) {
            ("", false) => String::new(),
            ("", true) => "missing: ".to_owned(),
            (who, false) => format!("{who}: "),
            (who, true) => format!("{who}, missing: "),
        };
        let who = if who.is_empty() { who } else { format!("<span class=\"who\">{who}</span>") };
        parts.push((*node, format!("{who}{}", ns.join(", "))));
    }
    parts.sort_by_key(|(node, _)| node.map_or(u8::MAX, |node| node as u8));
    parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join("<br>")
}

/// The events and reasons that runs without a failure show, by node.
fn usual(recordings: &Recordings) -> BTreeSet<(Label, String)> {
    let shown = UNTROUBLED.iter().filter_map(|name| recorded(recordings, name).ok());
    shown.flatten().collect()
}

/// The events of the scenes that a diagram draws; of an HTLC or a payment that failed, the reason.
fn recorded(recordings: &Recordings, argument: &str) -> Result<BTreeSet<(Label, String)>, String> {
    let (name, scenes) = diagram::scenes(argument)?;
    let recording = recordings.get(name)?;
    let mut found = BTreeSet::new();
    let shown = recording.moments.iter().filter(|moment| {
        !moment.background
            && !moment.again
            && (scenes.is_empty() || scenes.contains(&moment.scene.as_str()))
    });
    for moment in shown {
        let (What::Event { name, detail }, Some(node)) = (&moment.what, node_of(&moment.node))
        else {
            continue;
        };
        let reason = match name.as_str() {
            "HTLCHandlingFailed" => detail["failure_reason"].as_str(),
            "PaymentFailed" => detail["reason"].as_str(),
            _ => {
                found.insert((node, name.clone()));
                None
            }
        };
        // `Local { reason: UnknownNextPeer }`
        let reason = reason.and_then(|reason| {
            let word = |c: char| !c.is_alphanumeric();
            reason.rsplit(word).find(|word| !word.is_empty())
        });
        found.extend(reason.map(|reason| (node, reason.to_owned())));
    }
    Ok(found)
}

/// The role of a party of a recording.
fn node_of(id: &str) -> Option<Label> {
    let begins = |start: &str| {
        id.strip_prefix(start).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    if begins("payer-lsp") {
        Some(Label::PayersLsp)
    } else if begins("payer") {
        Some(Label::Payer)
    } else if begins("lsp") {
        Some(Label::Lsp)
    } else if begins("recipient") {
        Some(Label::Recipient)
    } else {
        None
    }
}

/// What of a text can be looked up, and whether the text says that it is missing.
fn words(text: &str, events: &BTreeSet<String>) -> Vec<(Key, bool)> {
    let text = plain(text);
    let mut found = Vec::new();
    for (n, part) in text.split('`').enumerate() {
        if n % 2 == 0 {
            let quoted = in_quotes(part);
            found.extend(quoted.map(|quoted| ((Kind::Text, format!("“{quoted}”")), false)));
            continue;
        }
        let before = text.split('`').nth(n - 1).unwrap_or_default();
        let missing = ["no ", "No ", "without ", "without an ", "without a ", "neither ", "nor "]
            .iter()
            .any(|word| before.ends_with(word));
        found.extend(keys(part, events).into_iter().map(|key| (key, missing)));
    }
    found
}

/// What stands in double quotes in a stretch without code: a program's text.
fn in_quotes(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').skip(1).step_by(2).filter(|quoted| quoted.len() > 3)
}

/// What of a text stands in double quotes.
pub(super) fn quoted(text: &str) -> Vec<String> {
    let text = plain(text);
    let prose = text.split('`').step_by(2);
    prose.flat_map(in_quotes).map(str::to_owned).collect()
}

/// What a piece of code is called in the index.
fn keys(code: &str, events: &BTreeSet<String>) -> Vec<Key> {
    let identifier = |c: char| c.is_alphanumeric() || c == '_';
    let name = code.trim_end_matches("()");
    let whole = name.chars().all(|c| identifier(c) || c == ':');
    if !whole && !code.contains('{') {
        return vec![(Kind::Text, format!("`{code}`"))];
    }
    let names: Vec<_> = match whole {
        true => name.rsplit("::").take(1).collect(),
        false => code.split(|c: char| !identifier(c)).collect(),
    };
    let of = |name: &&str| {
        let camel = name.starts_with(char::is_uppercase) && name.contains(char::is_lowercase);
        let kind = match () {
            () if events.contains(*name) => Kind::Event,
            () if camel && name.len() > 4 => Kind::Reason,
            () if name.contains('_') && whole => Kind::Name,
            () => return None,
        };
        Some((kind, format!("`{name}`")))
    };
    names.iter().filter_map(of).collect()
}

/// Without directives, and links as their text.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '[']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        if let Some((_, after)) = tail.strip_prefix("{{").and_then(|tail| tail.split_once("}}")) {
            rest = after;
            continue;
        }
        let link = tail.strip_prefix('[').and_then(|tail| tail.split_once("]("));
        if let Some((shown, target)) = link
            && let Some((_, after)) = target.split_once(')')
        {
            out.push_str(shown);
            rest = after;
            continue;
        }
        out.push_str(&tail[..1]);
        rest = &tail[1..];
    }
    out.push_str(rest);
    out
}

/// The first sentences, as far as a cell of a table holds them.
fn brief(text: &str) -> String {
    const ROOM: usize = 150;
    let mut end = 0;
    let mut code = false;
    for (at, c) in text.char_indices() {
        match c {
            '`' => code = !code,
            '.' if !code && text[at + 1..].starts_with([' ', '\n']) => {
                if end > 0 && at > ROOM {
                    break;
                }
                end = at + 1;
            }
            _ => {}
        }
    }
    match text.chars().count() <= ROOM || end == 0 {
        true => text.to_owned(),
        false => text[..end].to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> BTreeSet<String> {
        ["HTLCHandlingFailed", "HTLCIntercepted", "PaymentFailed"].map(str::to_owned).into()
    }

    fn keyed(text: &str) -> Vec<String> {
        let shown = |((kind, key), missing): (Key, bool)| {
            format!("{}{kind:?} {key}", if missing { "no " } else { "" })
        };
        words(text, &known()).into_iter().map(shown).collect()
    }

    #[test]
    fn code_and_quoted_texts_are_looked_up() {
        assert_eq!(
            keyed(
                "no `HTLCIntercepted`; `HTLCHandlingFailed { InvalidOnionBlinding }` or \"the lease ran out\""
            ),
            [
                "no Event `HTLCIntercepted`",
                "Event `HTLCHandlingFailed`",
                "Reason `InvalidOnionBlinding`",
                "Text “the lease ran out”",
            ]
        );
        assert_eq!(
            keyed(
                "`Ok(())`, `Err(\"Unknown scid\")`, [`lsps2.buy`](x.md), `static_invoice_persisted`{{#claim `a_b`}}"
            ),
            [
                "Text `Ok(())`",
                "Text `Err(\"Unknown scid\")`",
                "Text `lsps2.buy`",
                "Name `static_invoice_persisted`",
            ]
        );
        assert_eq!(keyed("`0`, `Err`, a word in \"it\""), [""; 0]);
    }

    #[test]
    fn a_cell_holds_whole_sentences() {
        let long = "x".repeat(140);
        assert_eq!(brief("One. Two."), "One. Two.");
        assert_eq!(brief(&format!("One `a. b`. {long} two. Three.")), "One `a. b`.");
        assert_eq!(brief(&long.repeat(2)), long.repeat(2));
    }

    #[test]
    fn what_a_recording_shows_beyond_an_untroubled_payment_is_indexed() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let recordings = Recordings::new(&root);
        let told = "## Dust\n\n- **Payer**: nothing.\n- **LSP**: no `HTLCIntercepted`.\n\n{{#diagram fail-dust folded}}\n";
        let entries =
            super::super::read("fail-x.md", told, &mut crate::problems::Problems::default());
        let stock =
            Stock { entries: &entries, titles: &[], recordings: &recordings, events: &known() };
        let table = index(&stock, "events").unwrap();
        let who = |who: &str| format!("<span class=\"who\">{who}: </span>[Dust](fail-x.md#dust)");
        for row in [
            format!("| `HTLCIntercepted` | {} |", who("LSP, missing")),
            format!("| `InvalidOnionBlinding` | {} |", who("LSP")),
            format!("| `RetriesExhausted` | {} |", who("Payer")),
        ] {
            assert!(table.contains(&row), "{row}: {table}");
        }
        for ordinary in ["Downstream", "PaymentPathFailed", "ConnectionNeeded"] {
            assert!(!table.contains(ordinary), "{ordinary}: {table}");
        }
        let nodes = index(&stock, "nodes").unwrap();
        assert!(!nodes.contains("What the payer sees"), "{nodes}");
        assert!(nodes.contains("### What the LSP sees"), "{nodes}");
        assert!(nodes.contains("| No `HTLCIntercepted`. | [Dust](fail-x.md#dust) |"), "{nodes}");
        let symptoms = index(&stock, "symptoms").unwrap();
        assert!(symptoms.contains("- [Dust](fail-x.md#dust)"), "{symptoms}");
    }

    #[test]
    fn an_index_that_cannot_be_made_is_an_error() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let recordings = Recordings::new(&root);
        let told = "## Dust\n\n{{#diagram fail-rust folded}}\n";
        let entries =
            super::super::read("fail-x.md", told, &mut crate::problems::Problems::default());
        let events = known();
        let of = |entries| Stock { entries, titles: &[], recordings: &recordings, events: &events };
        assert!(index(&of(&entries), "events").unwrap_err().contains("fail-rust"));
        assert!(index(&of(&entries), "places").unwrap_err().contains("not `places`"));
        assert!(index(&of(&[]), "nodes").unwrap_err().contains("no entry"));
    }

    #[test]
    fn parties_have_roles() {
        assert_eq!(node_of("payer-lsp"), Some(Label::PayersLsp));
        assert_eq!(node_of("payer-2"), Some(Label::Payer));
        assert_eq!(node_of("recipient"), Some(Label::Recipient));
        assert_eq!(node_of("director"), None);
    }
}
