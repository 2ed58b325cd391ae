//! Shown output that is a part of a recording.
//!
//! | Directive | What it shows |
//! |---|---|
//! | `{{#excerpt flow demo}}` | what the demo prints of the story, and the books |
//! | `{{#excerpt flow transcript@lsp/step-5}}` | the same lines, and the messages, of one party in one scene |
//! | `{{#excerpt flow events@lsp/step-5}}` | LDK's events there, with their fields |
//! | `{{#excerpt flow lsps2.buy lsps2.buy.answer}}` | JSON-RPC messages; an event, if it is one |
//! | `{{#excerpt flow update_add_htlc@lsp bytes}}` | a message's bytes and what they mean |
//! | `{{#excerpt flow update_add_htlc@lsp bytes "lease metadata"}}` | of one layer or field; with `deep`, and all that lies within |
//!
//! How a moment is named is told in `recording::pick`.

use recording::entry::What;
use recording::ledger::Ledger;
use recording::pick::{Names, Spec};
use recording::view::grouped;
use recording::{Explained, Field, Moment, Recording, told};
use serde_json::Value;
use std::fmt::Write;

use crate::html::{escape, name};
use crate::listing;
use crate::recordings::Recordings;

/// Longer byte strings are shortened in the middle.
const BYTES_SHOWN: usize = 10;
/// What is left of them at either end.
const BYTES_KEPT: usize = 4;
/// Hex digits in a JSON text that are an id or a promise, and how many of them are shown.
const HEX: (usize, usize) = (24, 8);

/// The excerpt, and the moment it shows, if it is one.
pub(crate) struct Excerpt {
    pub(crate) recording: String,
    pub(crate) moment: Option<usize>,
    body: Body,
    caption: String,
}

enum Body {
    Text { language: &'static str, text: String },
    Table(String),
}

impl Excerpt {
    /// Its HTML; `player` is the page that plays the recording.
    pub(crate) fn html(&self, player: Option<&str>) -> String {
        let what = match self.recording.as_str() {
            "flow" => "recorded".to_owned(),
            other => format!("recorded, {}", escape(other)),
        };
        let mut caption = format!(
            "<span class=\"what\">{what}</span> <span class=\"file\">{}</span>",
            escape(&self.caption)
        );
        if let (Some(page), Some(moment)) = (player, self.moment) {
            let _ = write!(
                caption,
                " <a class=\"whole\" href=\"{page}#moment-{moment}\">in the whole run</a>"
            );
        }
        match &self.body {
            Body::Text { language, text } => listing::recorded(&caption, language, text),
            Body::Table(rows) => format!(
                "<figure class=\"listing output bytes\"><figcaption>{caption}</figcaption>\
                 <table><thead><tr><th>Offset</th><th>Bytes</th><th>Field</th><th>Meaning</th></tr>\
                 </thead><tbody>{rows}</tbody></table></figure>\n"
            ),
        }
    }
}

/// The part of a recording that `argument` names.
pub(crate) fn block(recordings: &Recordings, argument: &str) -> Result<Excerpt, String> {
    let words = words(argument)?;
    let [name, wanted @ ..] = &words[..] else {
        return Err("an excerpt names a recording, and what of it to show".to_owned());
    };
    let recording = recordings.get(name)?;
    let (body, caption, moment) = match wanted {
        [] => return Err(format!("an excerpt names what to show of `{name}`: {KINDS}")),
        [demo] if demo == "demo" => (demo_text(&recording)?, "cargo run -- demo".to_owned(), None),
        [place] if begins(place, "events") => events(&recording, place)?,
        [place] if begins(place, "transcript") => transcript(&recording, place)?,
        [spec, bytes, rest @ ..] if bytes == "bytes" => table(&recording, spec, rest)?,
        specs => messages(&recording, specs)?,
    };
    Ok(Excerpt { recording: name.clone(), moment, body, caption })
}

const KINDS: &str =
    "`demo`, `events@PARTY/SCENE`, `transcript@PARTY/SCENE`, a message, or a message and `bytes`";

type Shown = (Body, String, Option<usize>);

/// The words of an argument; quotation marks keep some together.
fn words(argument: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    for (at, part) in argument.split('"').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    match argument.matches('"').count().is_multiple_of(2) {
        true => Ok(words),
        false => Err("a quotation mark without its other".to_owned()),
    }
}

fn begins(place: &str, kind: &str) -> bool {
    place.strip_prefix(kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(['@', '/']))
}

fn plain(text: String) -> Body {
    Body::Text { language: "text", text }
}

fn demo_text(recording: &Recording) -> Result<Body, String> {
    let ledger = Ledger::of(recording).map_err(|error| format!("its books: {error:#}"))?;
    let last = ledger.checkpoints.last().ok_or("it has no scene")?;
    let timeline = told::timeline(&recording.moments, false);
    Ok(plain(format!("{timeline}\n{}", told::books(&last.payment))))
}

/// The moments of the story at a place.
fn at<'a>(recording: &'a Recording, place: &str) -> Result<(Vec<&'a Moment>, String), String> {
    let spec = Spec::read(recording, place)?;
    if spec.party.is_none() && spec.scene.is_none() {
        return Err(format!("`{place}` of which party and scene? `{place}@lsp/step-5`"));
    }
    let is_shown =
        |moment: &&Moment| !moment.background && !moment.again && spec.is_place_of(moment);
    let moments = recording.moments.iter().filter(is_shown).collect();
    let who = spec.party.map(|party| format!(" at the {}", recording.label(party)));
    let when = spec.scene.map(|id| match id.strip_prefix("step-") {
        Some(step) => format!(", step {step}"),
        None => {
            let scene = recording.scenes().into_iter().find(|scene| scene.id == id);
            scene.map_or_else(String::new, |scene| format!(", {}", scene.title.to_lowercase()))
        }
    });
    Ok((moments, who.unwrap_or_default() + &when.unwrap_or_default()))
}

fn events(recording: &Recording, place: &str) -> Result<Shown, String> {
    let (moments, wherever) = at(recording, place)?;
    let events: Vec<_> = moments.into_iter().filter_map(event).collect();
    if events.is_empty() {
        return Err(format!("no LDK events{wherever}"));
    }
    Ok((plain(events.join("\n")), format!("LDK events{wherever}"), None))
}

fn transcript(recording: &Recording, place: &str) -> Result<Shown, String> {
    let (moments, wherever) = at(recording, place)?;
    let lines: Vec<_> = moments
        .into_iter()
        .filter_map(|moment| {
            told::text(&moment.node, &moment.what).map(|(_, text)| told::line(&moment.node, &text))
        })
        .collect();
    if lines.is_empty() {
        return Err(format!("nothing to tell{wherever}"));
    }
    Ok((plain(lines.join("\n")), format!("transcript{wherever}"), None))
}

/// An event as a text: its name, and below it its fields.
fn event(moment: &Moment) -> Option<String> {
    let What::Event { name, detail } = &moment.what else { return None };
    let mut out = name.clone();
    for (field, value) in detail.as_object().into_iter().flatten() {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Number(number) => number.as_u64().map_or_else(|| number.to_string(), grouped),
            Value::Array(values) => {
                let text =
                    |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                values.iter().map(text).collect::<Vec<_>>().join(", ")
            }
            other => other.to_string(),
        };
        let _ = write!(out, "\n  {field}: {value}");
    }
    Some(out)
}

/// Messages or events, below each other.
fn messages(recording: &Recording, specs: &[String]) -> Result<Shown, String> {
    let names = Names::of(recording);
    let (mut texts, mut captions, mut languages) = (Vec::new(), Vec::new(), Vec::new());
    let mut only = None;
    for spec in specs {
        let moment = names.one(&Spec::read(recording, spec)?)?;
        only = Some(moment.n);
        let name = names.name(moment).unwrap_or_default();
        captions.push(match specs.len() {
            1 => told_of(recording, moment, name, None),
            _ => name.to_owned(),
        });
        let text = match &moment.what {
            What::Lsps { json, .. } => {
                languages.push("json");
                // The text that came, if it was kept: its fields stand in their own order.
                let text = moment.explained.iter().find(|explained| explained.text);
                indented(&text.map_or_else(|| json.to_string(), |text| text.bytes.clone()))
            }
            What::Event { .. } => {
                languages.push("text");
                event(moment).unwrap_or_default()
            }
            What::Wire { .. } | What::Onion { .. } => {
                return Err(format!("`{spec}` is bytes: `{spec} bytes` shows them"));
            }
            _ => return Err(format!("`{spec}` is neither a message nor an event: {KINDS}")),
        };
        texts.push(text);
    }
    let language = languages[0];
    if languages.iter().any(|other| *other != language) {
        return Err("messages and events do not go into one excerpt".to_owned());
    }
    let moment = only.filter(|_| specs.len() == 1);
    Ok((Body::Text { language, text: texts.join("\n\n") }, captions.join(", "), moment))
}

/// A JSON text, a field a line, in its own order; ids are shortened.
fn indented(json: &str) -> String {
    let mut out = String::new();
    let mut depth = 0;
    let mut rest = json;
    let line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.push_str(&"  ".repeat(depth));
    };
    while let Some(c) = rest.chars().next() {
        let mut len = c.len_utf8();
        match c {
            '"' => {
                let mut escaped = false;
                let end = rest[1..].find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                });
                len = end.map_or(rest.len(), |end| end + 2);
                out.push_str(&shortened(&rest[..len]));
            }
            '{' | '[' if rest[1..].trim_start().starts_with(['}', ']']) => out.push(c),
            '{' | '[' => {
                out.push(c);
                depth += 1;
                line(&mut out, depth);
            }
            '}' | ']' => {
                if !out.ends_with(['{', '[']) {
                    depth -= 1;
                    line(&mut out, depth);
                }
                out.push(c);
            }
            ',' => {
                out.push(c);
                line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
        rest = &rest[len..];
    }
    out
}

/// Long hex within a string shortened, as elsewhere in the recording.
fn shortened(text: &str) -> String {
    let (most, kept) = HEX;
    let inner = text.trim_matches('"');
    match inner.len() >= most && inner.bytes().all(|c| c.is_ascii_hexdigit()) {
        true => format!("\"{}…\"", &inner[..kept]),
        false => text.to_owned(),
    }
}

/// The fields of a message, or of a layer or a field of it.
fn table(recording: &Recording, spec: &str, rest: &[String]) -> Result<Shown, String> {
    let names = Names::of(recording);
    let moment = names.one(&Spec::read(recording, spec)?)?;
    let (part, deep) = match rest {
        [] => (None, false),
        [deep] if deep == "deep" => (None, true),
        [part] => (Some(part.as_str()), false),
        [part, deep] if deep == "deep" => (Some(part.as_str()), true),
        _ => return Err("after `bytes` come a layer or a field, and `deep`".to_owned()),
    };
    let Some(first) = moment.explained.first() else {
        return Err(format!("the bytes of `{spec}` are not explained in the recording"));
    };
    let (layer, within) = match part {
        None => (first, None),
        Some(part) => find(&moment.explained, part)?,
    };
    if layer.text {
        return Err(format!("`{spec}` is JSON: without `bytes` it is shown as that"));
    }
    let (depth, fields) = match within {
        None => (0, &layer.fields[..]),
        Some(at) => {
            let outer = layer.fields[at].depth;
            let inside = &layer.fields[at + 1..];
            let end = inside.iter().position(|field| field.depth <= outer);
            (outer + 1, &inside[..end.unwrap_or(inside.len())])
        }
    };
    if fields.is_empty() {
        return Err(format!("`{}` has no fields within", part.unwrap_or(spec)));
    }
    let mut rows = String::new();
    for field in fields.iter().filter(|field| deep || field.depth == depth) {
        rows.push_str(&row(layer, field, field.depth - depth)?);
    }
    let caption = told_of(recording, moment, names.name(moment).unwrap_or_default(), part);
    Ok((Body::Table(rows), caption, Some(moment.n).filter(|_| !moment.background)))
}

/// `Payer's LSP → Recipient's LSP: update_add_htlc, 1 457 bytes`; or, for its size, a part of it.
fn told_of(recording: &Recording, moment: &Moment, name: &str, part: Option<&str>) -> String {
    let to = recording.label(&moment.node);
    let told = |from: Option<&str>, bytes: usize| {
        let from = from.map_or("?", |from| recording.label(from));
        let size = || format!("{} bytes", grouped(bytes as u64));
        format!("{from} → {to}: {name}, {}", part.map_or_else(size, str::to_owned))
    };
    match &moment.what {
        What::Wire { peer, bytes, .. } | What::Lsps { peer, bytes, .. } => told(Some(peer), *bytes),
        What::Onion { from, bytes, .. } => told(from.as_deref(), *bytes),
        What::Event { .. } => format!("LDK event at the {to}"),
        _ => match part {
            Some(part) => format!("{to}: {part}"),
            None => format!("{to}: {name}"),
        },
    }
}

/// The layer of this title or, in some layer, the one field of this name that has fields.
fn find<'a>(layers: &'a [Explained], part: &str) -> Result<(&'a Explained, Option<usize>), String> {
    if let Some(layer) = layers.iter().find(|layer| layer.title == part) {
        return Ok((layer, None));
    }
    let fields = layers.iter().flat_map(|layer| {
        let named = layer.fields.iter().enumerate().filter(|(_, field)| field.name == part);
        named.map(move |(at, _)| (layer, Some(at)))
    });
    let found: Vec<_> = fields.collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let titles: Vec<_> = layers.iter().map(|layer| format!("`{}`", layer.title)).collect();
            let names = layers.iter().flat_map(|layer| &layer.fields);
            let mut names: Vec<_> = names.map(|field| format!("`{}`", field.name)).collect();
            names.sort();
            names.dedup();
            let (titles, names) = (titles.join(", "), names.join(", "));
            Err(format!("no layer or field `{part}`; there are the layers {titles}, and {names}"))
        }
        _ => Err(format!("`{part}` is there {} times", found.len())),
    }
}

fn row(layer: &Explained, field: &Field, depth: u8) -> Result<String, String> {
    let bytes = layer.bytes.get(field.at * 2..(field.at + field.len) * 2);
    let bytes = bytes.ok_or_else(|| format!("`{}` is not within `{}`", field.name, layer.title))?;
    let bytes = match field.len > BYTES_SHOWN {
        true => format!(
            "<code>{}…{}</code> <span class=\"len\">{}\u{a0}bytes</span>",
            &bytes[..BYTES_KEPT * 2],
            &bytes[bytes.len() - BYTES_KEPT * 2..],
            html_number(field.len)
        ),
        false => format!("<code>{bytes}</code>"),
    };
    let value = match field.value.is_empty() {
        true => String::new(),
        false => {
            format!(
                " <span class=\"value\">{}</span>",
                escape(&crate::chapter::joined(&field.value))
            )
        }
    };
    Ok(format!(
        "<tr data-depth=\"{depth}\" style=\"--d:{depth}\"><td>{}</td><td>{bytes}</td><td>{}{value}</td><td>{}</td></tr>",
        html_number(field.at),
        name(&field.name),
        escape(&crate::chapter::joined(&field.meaning)),
    ))
}

fn html_number(number: usize) -> String {
    grouped(number as u64).replace(' ', "\u{a0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn recordings() -> Recordings {
        Recordings::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
    }

    fn shown(argument: &str) -> String {
        block(&recordings(), argument).unwrap_or_else(|e| panic!("{argument}: {e}")).html(None)
    }

    #[test]
    fn json_keeps_its_order_and_loses_its_ids() {
        let json = r#"{"b":"0123456789abcdef01234567","a":[{"c":"1:2, \"x\"","d":[]}],"e":{}}"#;
        let text = "{\n  \"b\": \"01234567…\",\n  \"a\": [\n    {\n      \"c\": \"1:2, \\\"x\\\"\",\
                    \n      \"d\": []\n    }\n  ],\n  \"e\": {}\n}";
        assert_eq!(indented(json), text);
    }

    #[test]
    fn words_in_quotation_marks_stay_together() {
        assert_eq!(words("flow a \"b c\" d").unwrap(), ["flow", "a", "b c", "d"]);
        assert!(words("flow \"b c").is_err());
    }

    #[test]
    fn every_kind_of_excerpt_of_the_flow_is_shown() {
        for (argument, has) in [
            ("flow demo", "Where every msat went"),
            ("flow transcript@recipient/step-1", "lease bought"),
            ("flow events@lsp/step-5", "HTLCIntercepted"),
            ("flow PaymentSent", "fee_paid_msat: 1 000"),
            ("flow lsps2.buy lsps2.buy.answer", "jit_channel_scid"),
            ("flow paths.jit bytes \"lease metadata\"", "2\u{a0}000\u{a0}000\u{a0}msat"),
        ] {
            let html = shown(argument);
            assert!(html.contains(has), "{argument}: {html}");
            assert!(!html.trim_end().contains("\n\n"), "{argument}");
        }
        let shallow = shown("flow serve_static_invoice bytes invoice");
        let deep = shown("flow serve_static_invoice bytes invoice deep");
        assert!(shallow.contains("<code>invoice_<wbr>paths</code>"), "{shallow}");
        assert!(!shallow.contains("enclen") && deep.contains("enclen"));
    }

    #[test]
    fn what_contributing_shows_works() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let text = std::fs::read_to_string(root.join("CONTRIBUTING.md")).unwrap();
        let directives =
            text.split("`{{").skip(1).filter_map(|rest| Some(rest.split_once("}}")?.0));
        let (mut excerpts, mut numbers) = (0, 0);
        for directive in directives.filter(|directive| !directive.contains(" NAME ")) {
            if let Some(argument) = directive.strip_prefix("#excerpt ") {
                shown(argument);
                excerpts += 1;
            } else if let Some(argument) = directive.strip_prefix("recorded ") {
                let number = crate::numbers::number(&recordings(), argument);
                number.unwrap_or_else(|e| panic!("{directive}: {e}"));
                numbers += 1;
            }
        }
        assert!(excerpts >= 7 && numbers >= 6, "{excerpts} excerpts, {numbers} numbers");
    }

    #[test]
    fn what_is_not_in_the_recording_fails_and_says_what_is() {
        for (argument, told) in [
            ("flood demo", "no recording `flood`"),
            ("flow", "names what to show of `flow`"),
            ("flow lsps2.sell", "lsps2.buy, lsps2.buy.answer"),
            ("flow events@lsp/step-9", "there are step-1, step-2"),
            ("flow events@bank", "there are payer, payer-lsp, lsp, recipient"),
            ("flow events", "of which party and scene"),
            ("flow update_add_htlc bytes", "which `update_add_htlc`?"),
            ("flow update_add_htlc@recipient", "is bytes"),
            ("flow update_add_htlc@recipient bytes id2", "there are the layers `update_add_htlc`"),
            ("flow update_add_htlc@recipient bytes id", "has no fields within"),
            ("flow lsps2.buy bytes", "is JSON"),
            ("flow lsps2.buy PaymentSent", "do not go into one"),
            ("flow lease.bought", "neither a message nor an event"),
        ] {
            let error =
                block(&recordings(), argument).err().unwrap_or_else(|| panic!("{argument}"));
            assert!(error.contains(told), "{argument}: {error}");
        }
    }
}
