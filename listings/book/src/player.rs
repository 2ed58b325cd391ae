//! The player: a recording that a reader steps through.
//!
//! The page holds the whole story as a list, which is all there is without JavaScript, and the steps
//! as JSON, from which `theme/player.js` shows messages, bytes and states.

use recording::view::{Kind, Step, Viewer, grouped};
use recording::{Explained, Header, Lane, Recording};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::chapter::joined;
use crate::html::{escape, name};
use crate::recordings::Recordings;

/// How many lanes the drawing beside the list has room for on a phone.
const LANES: usize = 4;

/// The player of a recording, or for `run` the form that starts a live one; `titles` are the book's chapters, by file, to which scenes lead.
pub(crate) fn figure(
    recordings: &Recordings,
    titles: &[(String, String)],
    argument: &str,
) -> Result<String, String> {
    if argument == "run" {
        return Ok(form());
    }
    let recording = recordings.get(argument)?;
    if recording.header.lanes.len() != LANES {
        return Err(format!(
            "the player draws {LANES} lanes, not {}",
            recording.header.lanes.len()
        ));
    }
    Ok(Player::new(&recording, titles).html())
}

struct Player<'a> {
    recording: &'a Recording,
    steps: Vec<Step>,
    /// For each step, who is offline then, as classes of a row.
    off: Vec<String>,
    /// Scene to chapter.
    chapters: BTreeMap<&'a str, String>,
}

impl<'a> Player<'a> {
    fn new(recording: &'a Recording, titles: &[(String, String)]) -> Self {
        let mut viewer = Viewer::new();
        let (mut steps, mut off) = (Vec::new(), Vec::new());
        for moment in &recording.moments {
            steps.push(viewer.step(moment));
            let is_off = |lane: &Lane| {
                let state = viewer.states().get(&lane.id).and_then(|state| state.get("power"));
                state.is_some_and(|power| power == "offline")
            };
            let lanes = recording.header.lanes.iter().enumerate();
            let off_now: Vec<_> =
                lanes.filter(|(_, lane)| is_off(lane)).map(|(at, _)| format!(" o{at}")).collect();
            off.push(off_now.concat());
        }
        let mut chapters = BTreeMap::new();
        for moment in &recording.moments {
            let scene = moment.scene.as_str();
            let belongs = |(file, _): &&(String, String)| {
                file.strip_prefix(scene).is_some_and(|rest| rest.starts_with(['-', '.']))
            };
            if let Some((file, _)) = titles.iter().find(belongs) {
                chapters.insert(scene, file.replace(".md", ".html"));
            }
        }
        Self { recording, steps, off, chapters }
    }

    fn lane(&self, id: &str) -> Option<usize> {
        self.recording.header.lanes.iter().position(|lane| lane.id == id)
    }

    fn html(&self) -> String {
        let header = &self.recording.header;
        let mut lanes = String::new();
        for lane in &header.lanes {
            let _ = write!(lanes, "<li>{}</li>", escape(&self.label(&lane.id)));
        }
        // No empty line may stand in it: that would end it for Markdown.
        format!(
            "<section class=\"player\" id=\"player\" tabindex=\"-1\" aria-label=\"Player: {title}\">\n\
             <p class=\"about\">Recorded with LDK {ldk}: {setting}.</p>\n\
             {SIGN}\n\
             {OPTIONS}\n\
             <div class=\"panes\">\n\
             <div class=\"story\"><ul class=\"lanes\" aria-hidden=\"true\">{lanes}</ul>\n\
             <ol class=\"acts\">{list}</ol></div>\n\
             {LEGEND}\n\
             <div class=\"now scripted\" role=\"group\" aria-label=\"The step\"></div>\n\
             <div class=\"state scripted\" role=\"group\" aria-label=\"The nodes after it\"></div>\n\
             </div>\n\
             {TRANSPORT}\n\
             <script type=\"application/json\" class=\"recording\">{data}</script>\n\
             </section>\n",
            title = escape(&header.title),
            ldk = escape(&header.ldk),
            setting = escape(&setting(header)),
            list = self.list(),
            data = self.data(),
        )
    }

    /// The story, scene by scene.
    fn list(&self) -> String {
        let mut out = String::new();
        let mut open = false;
        let mut ids = BTreeSet::new();
        for (step, off) in self.steps.iter().zip(&self.off).filter(|(step, _)| !step.background) {
            let n = step.n;
            if step.kind == Kind::Scene {
                out.push_str(if open { "</ol></li>\n" } else { "" });
                open = true;
                let _ = write!(
                    out,
                    "<li class=\"act\" id=\"{scene}\"><a class=\"row scene{off}\" id=\"moment-{n}\" \
                     href=\"#{scene}\">{text}</a><ol>",
                    scene = escape(&step.scene),
                    text = escape(&heading(&step.scene, &step.text)),
                );
                continue;
            }
            let _ = write!(
                out,
                "\n<li id=\"{id}\"><a class=\"row {kind}{off}{way}\" id=\"moment-{n}\" \
                 href=\"#moment-{n}\"{place}><span class=\"who\">{who}</span> \
                 <span class=\"what\">{what}</span>{much}{more}</a></li>",
                id = lasting(step, &mut ids),
                kind = kind(step.kind),
                way = self.way(step),
                place = self.place(step),
                who = self.who(step),
                what = if is_code(&step.text) {
                    code(&step.text)
                } else {
                    escape(&joined(&step.text))
                },
                much = match step.msat {
                    Some(msat) =>
                        format!(" <span class=\"much\">{}\u{a0}msat</span>", joined(&grouped(msat))),
                    None => String::new(),
                },
                more = match self.more(step).as_str() {
                    "" => String::new(),
                    detail => format!(" <span class=\"more\">{}</span>", escape(&joined(detail))),
                },
            );
        }
        out.push_str(if open { "</ol></li>" } else { "" });
        out
    }

    /// A party's name as the book writes it.
    fn label(&self, id: &str) -> String {
        self.recording.label(id).replace('\'', "’")
    }

    /// What the amount beside it does not say, with the parties by their names.
    fn more(&self, step: &Step) -> String {
        let sum = step.msat.map(|msat| format!("{} msat", grouped(msat))).unwrap_or_default();
        let detail = step.detail.strip_prefix(&sum).unwrap_or(&step.detail);
        let mut out = String::new();
        for word in detail.trim_start_matches([',', ':', ' ']).split_inclusive(' ') {
            let id = word.trim_end_matches([' ', ',', ':', ';']);
            let before = ["with ", "to ", "for ", "from ", "id ", "client "];
            match before.iter().any(|before| out.ends_with(before)) && self.lane(id).is_some() {
                true => out.push_str(&word.replacen(id, &self.label(id), 1)),
                false => out.push_str(word),
            }
        }
        out
    }

    /// From whom to whom, or where, in words.
    fn who(&self, step: &Step) -> String {
        let label = |id: &str| escape(&self.label(id));
        match &step.from {
            Some(from) if step.kind == Kind::Link => {
                format!("{} – {}", label(from), label(&step.at))
            }
            Some(from) => format!("{} → {}", label(from), label(&step.at)),
            None if self.lane(&step.at).is_none() => String::new(),
            None => label(&step.at),
        }
    }

    /// Which way an arrow points, as a class.
    fn way(&self, step: &Step) -> &'static str {
        match (step.from.as_ref().and_then(|from| self.lane(from)), self.lane(&step.at)) {
            (Some(from), Some(to)) if from < to => " right",
            (Some(from), Some(to)) if from > to => " left",
            (None, Some(_)) => " here",
            _ => "",
        }
    }

    /// Where a row's drawing begins, and how many lanes it crosses.
    fn place(&self, step: &Step) -> String {
        let Some(to) = self.lane(&step.at) else { return String::new() };
        let from = step.from.as_ref().and_then(|from| self.lane(from)).unwrap_or(to);
        format!(" style=\"--f:{};--w:{}\"", from.min(to), from.abs_diff(to))
    }

    /// What the script needs, safe within a script element.
    fn data(&self) -> String {
        let header = &self.recording.header;
        // A message that is seen at both ends, or sent again, has its bytes in the page once.
        let mut layers: Vec<&Explained> = Vec::new();
        let mut steps = Vec::new();
        for step in &self.steps {
            let mut of_step = Vec::new();
            for layer in &step.explained {
                let known = layers.iter().position(|known| *known == layer);
                of_step.push(known.unwrap_or(layers.len()));
                if known.is_none() {
                    layers.push(layer);
                }
            }
            let mut value = serde_json::to_value(step).expect("a step is JSON");
            if !of_step.is_empty() {
                value["explained"] = of_step.into();
            }
            steps.push(value);
        }
        let data = serde_json::json!({
            "lanes": header.lanes,
            "chapters": self.chapters,
            "layers": layers,
            "steps": steps,
        });
        data.to_string().replace('<', "\\u003c")
    }
}

/// The choices of the run, in words.
fn setting(header: &Header) -> String {
    let told = |(choice, value): (&String, &serde_json::Value)| {
        let value = match value.as_u64() {
            Some(number) => grouped(number),
            None => value.as_str().map_or_else(|| value.to_string(), str::to_owned),
        };
        match choice.strip_suffix("_msat") {
            Some(choice) => joined(&format!("{choice} {value} msat")),
            None if header.lanes.iter().any(|lane| lane.id == *choice) => {
                format!(
                    "{} {value}",
                    header
                        .lanes
                        .iter()
                        .find(|lane| lane.id == *choice)
                        .map_or(choice.as_str(), |lane| &lane.label)
                        .to_lowercase()
                )
            }
            None if choice == "trust" => value,
            None => format!("{choice} {value}"),
        }
    };
    header.setting.iter().map(told).collect::<Vec<_>>().join(", ")
}

fn heading(scene: &str, title: &str) -> String {
    match scene.strip_prefix("step-") {
        Some(number) => format!("{number}. {title}"),
        None => title.to_owned(),
    }
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::Scene => "scene",
        Kind::Message => "message",
        Kind::Onion => "onion",
        Kind::Htlc => "htlc",
        Kind::Event => "event",
        Kind::Note => "note",
        Kind::Money => "money",
        Kind::Offline => "offline",
        Kind::Online => "online",
        Kind::Link => "link",
        Kind::Block => "block",
    }
}

/// Whether a label is the name of a message or an event.
fn is_code(text: &str) -> bool {
    !text.contains(' ') && text.contains(|c: char| c == '_' || c == '.' || c.is_ascii_uppercase())
}

/// The name of a step that outlasts a new recording: what it is in its scene, not how many came
/// before it.
fn lasting(step: &Step, taken: &mut BTreeSet<String>) -> String {
    let mut id = format!("{}-", step.scene);
    for c in step.text.chars() {
        match c {
            c if c.is_ascii_alphanumeric() => id.push(c.to_ascii_lowercase()),
            _ if !id.ends_with('-') => id.push('-'),
            _ => {}
        }
    }
    let id = id.trim_end_matches('-');
    let numbered = (2..).map(|count| format!("{id}-{count}"));
    let free = std::iter::once(id.to_owned()).chain(numbered).find(|id| !taken.contains(id));
    let free = free.expect("there are more numbers than steps");
    taken.insert(free.clone());
    free
}

/// The name of a message or an event, which may break at its joints.
fn code(text: &str) -> String {
    let mut out = name(text);
    let humps: Vec<_> = out
        .char_indices()
        .zip(out.chars().skip(1))
        .filter(|((_, c), next)| c.is_ascii_lowercase() && next.is_ascii_uppercase())
        .map(|((at, _), _)| at + 1)
        .collect();
    humps.into_iter().rev().for_each(|at| out.insert_str(at, "<wbr>"));
    out
}

/// The choices of a live run. What they may be is the server's to say.
fn form() -> String {
    let numbers = [
        ("amount_msat", "Amount, in msat", "100000000"),
        ("min_fee_msat", "Opening fee at least, in msat", "2000000"),
        ("proportional", "Opening fee, in ppm", "10000"),
    ];
    let choices = [
        (
            "trust",
            "Trust",
            [("client", "the client trusts the LSP"), ("lsp", "the LSP trusts the client")],
        ),
        (
            "payer",
            "The payer",
            [("offline", "goes offline after paying"), ("online", "stays online")],
        ),
        (
            "recipient",
            "The recipient",
            [("offline", "is offline when it is paid"), ("online", "stays online")],
        ),
    ];
    let mut out = String::from("<form class=\"run scripted\" novalidate autocomplete=\"off\">");
    for (id, label, value) in numbers {
        let _ = write!(
            out,
            "<p class=\"choice\"><label for=\"run-{id}\">{label}</label>\
             <input id=\"run-{id}\" name=\"{id}\" inputmode=\"numeric\" value=\"{value}\" \
             aria-describedby=\"run-{id}-wrong run-{id}-hint\">\
             <span class=\"hint\" id=\"run-{id}-hint\"></span>\
             <span class=\"wrong\" id=\"run-{id}-wrong\"></span></p>",
        );
    }
    for (id, legend, options) in choices {
        let _ =
            write!(out, "<fieldset aria-describedby=\"run-{id}-wrong\"><legend>{legend}</legend>");
        for (at, (value, label)) in options.into_iter().enumerate() {
            let checked = if at == 0 { " checked" } else { "" };
            let _ = write!(
                out,
                "<label><input type=\"radio\" name=\"{id}\" value=\"{value}\"{checked}> {label}</label>",
            );
        }
        let _ = write!(out, "<span class=\"wrong\" id=\"run-{id}-wrong\"></span></fieldset>");
    }
    out.push_str(
        "<p class=\"do\"><button type=\"submit\">Run it now</button> \
         <span class=\"answer\" role=\"status\"></span></p></form>\n\
         <p class=\"hosted\">This copy of the book is served without nodes. In its repository, \
         <code>cargo run</code> serves the same page with them.</p>\n",
    );
    out
}

const SIGN: &str = "\
<div class=\"live scripted\" hidden><p><strong class=\"saying\" role=\"status\"></strong> \
<span class=\"told\"></span></p><ul class=\"books\"></ul>\
<p class=\"ways\"><button type=\"button\" class=\"follow\">Follow live</button> \
<button type=\"button\" class=\"leave\">Back to the recording</button></p></div>";

const OPTIONS: &str = "\
<div class=\"options scripted\" role=\"group\" aria-label=\"What the player shows\">\
<label>Go to <select class=\"goto\" autocomplete=\"off\"></select></label>\
<button type=\"button\" class=\"link\">Copy link</button>\
<span class=\"pace\"><label>Speed <select class=\"speed\" autocomplete=\"off\"><option value=\"3200\">half</option>\
<option value=\"1600\" selected>normal</option><option value=\"800\">double</option>\
<option value=\"300\">fast</option></select></label>\
<label class=\"check\"><input type=\"checkbox\" class=\"every\" autocomplete=\"off\"> Every message</label></span>\
</div>";

const LEGEND: &str = "\
<ul class=\"legend\" aria-label=\"What the marks mean\">\
<li class=\"row message right\" style=\"--f:0;--w:1\">a message between two nodes</li>\
<li class=\"row onion right\" style=\"--f:0;--w:1\">an onion message, from its maker to its reader</li>\
<li class=\"row htlc right\" style=\"--f:0;--w:1\">a message that adds or settles an HTLC</li>\
<li class=\"row link\" style=\"--f:0;--w:1\">a connection, made or lost</li>\
<li class=\"row event here\" style=\"--f:0\">an LDK event</li>\
<li class=\"row note here\" style=\"--f:0\">what a node did</li>\
<li class=\"row money here\" style=\"--f:0\">the state of a payment</li>\
<li class=\"row offline here o0\" style=\"--f:0\">a node goes offline; filled: it comes online</li>\
</ul>";

const TRANSPORT: &str = "\
<div class=\"transport scripted\" role=\"group\" aria-label=\"Player controls\">\
<p class=\"brief\" aria-hidden=\"true\"></p>\
<button type=\"button\" class=\"back\" aria-label=\"Step back\" aria-keyshortcuts=\"ArrowLeft\">\
<svg viewBox=\"0 0 20 20\" aria-hidden=\"true\"><path d=\"M5 4v12M15 4.5v11L7.5 10z\"/></svg></button>\
<button type=\"button\" class=\"play\" aria-label=\"Play\" aria-keyshortcuts=\"Space K\">\
<svg viewBox=\"0 0 20 20\" aria-hidden=\"true\"><path class=\"go\" d=\"M6 3.5v13L16.5 10z\"/>\
<path class=\"stop\" d=\"M6.5 4v12M13.5 4v12\"/></svg></button>\
<button type=\"button\" class=\"forward\" aria-label=\"Step forward\" aria-keyshortcuts=\"ArrowRight\">\
<svg viewBox=\"0 0 20 20\" aria-hidden=\"true\"><path d=\"M15 4v12M5 4.5v11l7.5-5.5z\"/></svg></button>\
<div class=\"track\"><input type=\"range\" class=\"scrub\" min=\"0\" value=\"0\" step=\"1\" \
autocomplete=\"off\" aria-label=\"Step\"></div>\
<span class=\"count\"></span>\
</div>";

#[cfg(test)]
mod tests {
    use super::*;

    fn recording(texts: &[&str]) -> Recording {
        let lanes = ["payer", "payer-lsp", "lsp", "recipient"]
            .map(|id| serde_json::json!({ "id": id, "label": format!("The {id}'s") }));
        let header = serde_json::json!({
            "name": "test", "title": "A & B", "about": "", "ldk": "0",
            "setting": { "amount_msat": 100_000_000, "payer": "offline", "trust": "of one" },
            "lanes": lanes,
        });
        let mut lines = vec![header.to_string()];
        let mut moment = |mut value: serde_json::Value| {
            value["n"] = (lines.len() - 1).into();
            value["scene"] = "step-4".into();
            lines.push(value.to_string());
        };
        moment(
            serde_json::json!({ "node": "director", "kind": "scene", "id": "step-4", "title": "Pay" }),
        );
        moment(serde_json::json!({ "node": "lsp", "kind": "stopped" }));
        for text in texts {
            moment(serde_json::json!({
                "node": "payer", "kind": "wire", "peer": "payer-lsp", "message": text, "bytes": 1,
                "explained": [{ "title": "</script>", "bytes": "00", "fields": [] }],
            }));
        }
        moment(serde_json::json!({
            "node": "payer", "kind": "htlc", "state": "paid", "payment_hash": null,
            "amount_msat": 1_000, "skimmed_fee_msat": 20, "reason": null,
        }));
        Recording::parse(&lines.join("\n")).unwrap()
    }

    fn html(texts: &[&str]) -> String {
        let chapters = [("step-4-pay.md".to_owned(), "4. Pay".to_owned())];
        Player::new(&recording(texts), &chapters).html()
    }

    #[test]
    fn nothing_ends_the_block_or_the_script_early() {
        let html = html(&["</script><b>", "open_channel"]);
        assert!(!html.contains("\n\n"), "an empty line ends HTML in Markdown");
        assert_eq!(html.matches("</script").count(), 1);
        assert_eq!(html.matches("<ol").count(), html.matches("</ol>").count());
        assert!(
            html.contains("100\u{a0}000\u{a0}000\u{a0}msat, the payer's offline, of one"),
            "{html}"
        );
        assert!(html.contains("\"step-4\":\"step-4-pay.html\""));
    }

    #[test]
    fn a_step_has_a_name_that_does_not_count_what_comes_before_it() {
        let html = html(&["open_channel", "open_channel", "b"]);
        for id in ["step-4-open-channel", "step-4-open-channel-2", "step-4-b", "step-4"] {
            assert_eq!(html.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }

    #[test]
    fn rows_say_who_and_how_much_and_who_is_away() {
        let html = html(&["update_add_htlc"]);
        let row =
            "class=\"row htlc o2 left\" id=\"moment-2\" href=\"#moment-2\" style=\"--f:0;--w:1\"";
        assert!(html.contains(row), "{html}");
        assert!(html.contains("The payer-lsp’s → The payer’s"));
        assert!(
            html.contains("1\u{a0}000\u{a0}msat</span> <span class=\"more\">20\u{a0}msat skimmed"),
            "{html}"
        );
    }

    #[test]
    fn the_same_bytes_stand_in_the_page_once() {
        assert_eq!(html(&["a", "b"]).matches("\"bytes\":\"00\"").count(), 1);
    }
}
