//! Sequence diagrams: text into an inline SVG in `currentColor`, with the same moves as a list.

mod drawing;
mod list;
mod rules;
mod story;

use recording::Recording;
use std::fmt::Write;

use crate::chapter::joined;
use crate::html::escape;
use drawing::Layout;
use rules::Level;
use story::{Arrow, Choice, Power, Shape, Story};

/// The drawing's width, in its own units; a lane takes an equal share.
const WIDTH: f64 = 760.0;
/// The width of an average character of a label.
const CHARACTER: f64 = 6.5;
/// The height of a line of a label.
const LINE: f64 = 16.0;
/// The longest label, so that it fits a phone's list and a drawing's gap.
const LONGEST: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A message between nodes.
    Message,
    /// An onion message, which others relay.
    Onion,
    /// An HTLC, or another move of money.
    Htlc,
}

#[derive(Debug, PartialEq, Eq)]
enum Row {
    Step(String, String),
    Move { from: usize, to: usize, kind: Kind, text: String },
    Note { at: usize, text: String },
    Offline(usize),
    Online(usize),
}

#[derive(Debug, Default)]
struct Diagram {
    title: String,
    /// Id and label of each lane.
    lanes: Vec<(String, String)>,
    rows: Vec<Row>,
}

/// The figure.
///
/// # Errors
/// The line, counted from 1, that is no diagram, and what it should be.
pub(crate) fn render(text: &str) -> Result<String, (usize, String)> {
    let diagram = Diagram::parse(text)?;
    Ok(format!(
        "<figure class=\"sequence\"><figcaption>{}</figcaption><div class=\"drawing\" \
         tabindex=\"0\" role=\"group\" aria-label=\"Drawing\">{}</div>{}</figure>\n",
        escape(&diagram.title),
        diagram.svg(),
        diagram.list()
    ))
}

/// The figure of a recording, or of some of its scenes: `NAME [SCENE…] [brief|usual|full] [all]`.
///
/// # Errors
/// If there is no such recording or scene, or what it shows cannot have happened.
pub(crate) fn figure(
    recordings: &crate::recordings::Recordings,
    argument: &str,
) -> Result<String, String> {
    let (name, choice) = asked(argument)?;
    let recording = recordings.get(name)?;
    drawn(&recording, &choice)
}

fn asked(argument: &str) -> Result<(&str, Choice<'_>), String> {
    let mut words = argument.split_whitespace();
    let name = words.next().ok_or("which recording?")?;
    let mut choice = Choice::default();
    for word in words {
        let level = match word {
            "brief" => Level::Brief,
            "usual" => Level::Usual,
            "full" => Level::Full,
            "all" if !choice.all => {
                choice.all = true;
                continue;
            }
            scene => {
                choice.scenes.push(scene);
                continue;
            }
        };
        if choice.level.replace(level).is_some() {
            return Err("one level of detail, not two".to_owned());
        }
    }
    Ok((name, choice))
}

fn drawn(recording: &Recording, choice: &Choice<'_>) -> Result<String, String> {
    let steps = recording::view::steps(&recording.moments);
    let story = Story::new(recording, &steps, choice)?;
    let label = format!("Sequence diagram: {}. It is below as a list, too.", story.title);
    let mut lanes = String::new();
    for lane in &story.lanes {
        lanes.push_str(&format!("<span>{}</span>", escape(lane)));
    }
    Ok(format!(
        "<figure class=\"sequence\"><figcaption>{}</figcaption><div class=\"drawing\">\
         <div class=\"lanes\" aria-hidden=\"true\">{lanes}</div>{}{}</div>\
         <p class=\"legend\">{}</p><details class=\"moves\"><summary>As a list</summary>{}</details>\
         </figure>\n",
        escape(&story.title),
        Layout::new(&story, drawing::WIDE).svg(&label),
        Layout::new(&story, drawing::NARROW).svg(&label),
        escape(&legend(&story, &recording.header.ldk)),
        joined(&list::list(&story)),
    ))
}

/// What the lines mean, as far as they occur.
fn legend(story: &Story, ldk: &str) -> String {
    let arrow = |wanted: Arrow| {
        story.rows().any(|row| matches!(&row.shape, Shape::Move { kind, .. } if *kind == wanted))
    };
    let offline = story.groups.iter().any(|group| group.power.contains(&Power::Offline))
        || story.rows().any(|row| matches!(row.shape, Shape::Power { to: Power::Offline, .. }));
    let mut parts = Vec::new();
    for (occurs, words) in [
        (arrow(Arrow::Htlc), "Thick: an HTLC."),
        (arrow(Arrow::Onion), "Dashed: an onion message."),
        (arrow(Arrow::Both), "Double: commitment_signed and revoke_and_ack, both ways."),
        (offline, "Hatched: offline."),
    ] {
        if occurs {
            parts.push(words.to_owned());
        }
    }
    parts.push(format!("Recorded with LDK {ldk}."));
    parts.join(" ")
}

impl Diagram {
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut diagram = Self::default();
        let mut off: Vec<usize> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() {
                diagram.line(line, &mut off).map_err(|what| (at + 1, what))?;
            }
        }
        if diagram.title.is_empty() || diagram.lanes.len() < 2 || diagram.rows.is_empty() {
            return Err((1, "a diagram has a title, two lanes or more, and moves".into()));
        }
        Ok(diagram)
    }

    fn line(&mut self, line: &str, off: &mut Vec<usize>) -> Result<(), String> {
        if let Some(title) = line.strip_prefix("title:") {
            self.title = title.trim().to_owned();
        } else if let Some(lane) = line.strip_prefix("lane ") {
            let (id, label) = lane.split_once(' ').ok_or("lane ID \"Label\"")?;
            if self.lane(id).is_ok() {
                return Err(format!("lane `{id}` stands twice"));
            }
            self.lanes.push((id.to_owned(), label.trim().trim_matches('"').to_owned()));
        } else if let Some(step) = line.strip_prefix("step ") {
            let (number, title) = step.split_once(' ').ok_or("step N Title")?;
            self.rows.push(Row::Step(number.to_owned(), title.to_owned()));
        } else if let Some(note) = line.strip_prefix("note ") {
            let (lane, text) = note.split_once(':').ok_or("note LANE: text")?;
            self.rows.push(Row::Note { at: self.lane(lane.trim())?, text: label(text)? });
        } else if let Some(lane) = line.strip_prefix("offline ") {
            let lane = self.lane(lane.trim())?;
            if off.contains(&lane) {
                return Err("is offline already".into());
            }
            off.push(lane);
            self.rows.push(Row::Offline(lane));
        } else if let Some(lane) = line.strip_prefix("online ") {
            let lane = self.lane(lane.trim())?;
            if !off.contains(&lane) {
                return Err("is online already".into());
            }
            off.retain(|other| *other != lane);
            self.rows.push(Row::Online(lane));
        } else {
            let (ends, text) = line.split_once(':').ok_or("FROM -> TO: text")?;
            let kinds = [("-->", Kind::Onion), ("=>", Kind::Htlc), ("->", Kind::Message)];
            let (from, to, kind) = kinds
                .iter()
                .find_map(|(arrow, kind)| {
                    ends.split_once(arrow).map(|(from, to)| (from.trim(), to.trim(), *kind))
                })
                .ok_or("FROM -> TO: text, with ->, --> or =>")?;
            let (from, to) = (self.lane(from)?, self.lane(to)?);
            if from == to {
                return Err("a move goes to another lane; use a note".into());
            }
            // A diagram must not show somebody act who is away.
            if let Some(lane) = off.iter().find(|lane| **lane == from) {
                return Err(format!("`{}` is offline and sends", self.lanes[*lane].0));
            }
            if let Some(lane) = off.iter().find(|lane| **lane == to) {
                return Err(format!("`{}` is offline and receives", self.lanes[*lane].0));
            }
            self.rows.push(Row::Move { from, to, kind, text: label(text)? });
        }
        Ok(())
    }

    fn lane(&self, id: &str) -> Result<usize, String> {
        self.lanes
            .iter()
            .position(|(known, _)| known == id)
            .ok_or_else(|| format!("no lane `{id}`"))
    }

    fn x(&self, lane: usize) -> f64 {
        let share = WIDTH / self.lanes.len() as f64;
        share * (lane as f64 + 0.5)
    }

    fn svg(&self) -> String {
        let share = WIDTH / self.lanes.len() as f64;
        let mut body = String::new();
        let mut y = 12.0;
        let head = self.lanes.iter().map(|(_, label)| wrap(label, share - 24.0).len()).max();
        let head = head.unwrap_or(1) as f64 * LINE + 14.0;
        for (lane, (_, label)) in self.lanes.iter().enumerate() {
            let x = self.x(lane) - share / 2.0 + 6.0;
            let _ = write!(
                body,
                "<rect class=\"lane\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{head:.1}\" \
                 rx=\"6\" fill=\"none\" stroke=\"currentColor\"/>",
                share - 12.0
            );
            words(&mut body, "lane", self.x(lane), y + 7.0, &wrap(label, share - 24.0));
        }
        y += head;
        let mut since = vec![(y, true); self.lanes.len()];
        let mut lives = String::new();
        let mut rows = String::new();
        for row in &self.rows {
            match row {
                Row::Step(number, title) => {
                    y += 18.0;
                    let _ = write!(
                        rows,
                        "<line class=\"step\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
                         stroke=\"currentColor\" stroke-opacity=\"0.35\"/>\
                         <text class=\"step\" x=\"4\" y=\"{:.1}\" fill=\"currentColor\" \
                         {HALO}><tspan class=\"n\">{}</tspan> {}</text>",
                        y + 18.0,
                        escape(number),
                        escape(title)
                    );
                    y += 26.0;
                }
                Row::Move { from, to, kind, text } => {
                    let (a, b) = (self.x(*from), self.x(*to));
                    let lines = wrap(text, (a - b).abs() - 16.0);
                    y += 10.0;
                    words(&mut rows, "move", f64::midpoint(a, b), y, &lines);
                    y += lines.len() as f64 * LINE + 6.0;
                    arrow(&mut rows, *kind, a, b, y);
                    y += 8.0;
                }
                Row::Note { at, text } => {
                    let width = share - 12.0;
                    let lines = wrap(text, width - 12.0);
                    let height = lines.len() as f64 * LINE + 10.0;
                    y += 8.0;
                    let _ = write!(
                        rows,
                        "<rect class=\"note\" x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                         height=\"{height:.1}\" rx=\"4\" style=\"fill:var(--bg,Canvas)\" \
                         stroke=\"currentColor\" stroke-opacity=\"0.5\"/>",
                        self.x(*at) - width / 2.0
                    );
                    words(&mut rows, "note", self.x(*at), y + 5.0, &lines);
                    y += height + 4.0;
                }
                Row::Offline(lane) | Row::Online(lane) => {
                    let online = matches!(row, Row::Online(_));
                    y += 10.0;
                    let (from, was) = since[*lane];
                    life(&mut lives, self.x(*lane), from, y, was);
                    since[*lane] = (y, online);
                    let word = if online { "online" } else { "offline" };
                    words(&mut rows, "state", self.x(*lane), y, &[word.to_owned()]);
                    y += LINE + 4.0;
                }
            }
        }
        y += 14.0;
        for (lane, (from, was)) in since.into_iter().enumerate() {
            life(&mut lives, self.x(lane), from, y, was);
        }
        format!(
            "<svg viewBox=\"0 0 {WIDTH} {y:.0}\" width=\"{WIDTH}\" height=\"{y:.0}\" role=\"img\" \
             aria-label=\"{}. The list below the drawing has the same moves.\">{lives}{body}{rows}\
             </svg>",
            escape(&self.title)
        )
    }

    /// The same moves as an ordered list.
    fn list(&self) -> String {
        let mut out = String::from("<ol class=\"moves\">");
        let mut in_step = false;
        let label = |lane: usize| escape(&self.lanes[lane].1);
        for row in &self.rows {
            match row {
                Row::Step(number, title) => {
                    if in_step {
                        out.push_str("</ol></li>");
                    }
                    in_step = true;
                    let _ = write!(
                        out,
                        "<li class=\"step\"><strong>{} {}</strong><ol>",
                        escape(number),
                        escape(title)
                    );
                }
                Row::Move { from, to, kind, text } => {
                    let (class, word) = match kind {
                        Kind::Message => ("msg", ""),
                        Kind::Onion => ("onion", " (onion message)"),
                        Kind::Htlc => ("htlc", " (HTLC)"),
                    };
                    let _ = write!(
                        out,
                        "<li class=\"{class}\"><span class=\"who\">{} → {}{word}</span> {}</li>",
                        label(*from),
                        label(*to),
                        escape(text)
                    );
                }
                Row::Note { at, text } => {
                    let _ = write!(
                        out,
                        "<li class=\"note\"><span class=\"who\">{}</span> {}</li>",
                        label(*at),
                        escape(text)
                    );
                }
                Row::Offline(lane) | Row::Online(lane) => {
                    let word = if matches!(row, Row::Online(_)) { "online" } else { "offline" };
                    let _ = write!(
                        out,
                        "<li class=\"state\"><span class=\"who\">{}</span> goes {word}</li>",
                        label(*lane)
                    );
                }
            }
        }
        if in_step {
            out.push_str("</ol></li>");
        }
        out.push_str("</ol>");
        out
    }
}

/// Keeps a label readable where a life line passes behind it.
const HALO: &str =
    "style=\"paint-order:stroke;stroke:var(--bg,Canvas);stroke-width:5px;stroke-linejoin:round\"";

fn label(text: &str) -> Result<String, String> {
    let text = text.trim();
    match text.chars().count() {
        0 => Err("a move without a text".into()),
        length if length > LONGEST => Err(format!("{length} characters; {LONGEST} fit")),
        _ => Ok(text.to_owned()),
    }
}

fn wrap(text: &str, width: f64) -> Vec<String> {
    let fits = |line: &str| line.chars().count() as f64 * CHARACTER <= width;
    let mut lines: Vec<String> = Vec::new();
    let mut add = |between: &str, piece: &str| match lines.last_mut() {
        Some(line) if fits(&format!("{line}{between}{piece}")) => {
            line.push_str(between);
            line.push_str(piece);
        }
        _ => lines.push(piece.to_owned()),
    };
    for word in text.split_whitespace() {
        let mut between = " ";
        // The names of calls are longer than a lane is wide, and have no spaces.
        let pieces: Vec<_> =
            if fits(word) { vec![word] } else { word.split_inclusive('_').collect() };
        for piece in pieces {
            add(between, piece);
            between = "";
        }
    }
    lines
}

fn words(out: &mut String, class: &str, x: f64, y: f64, lines: &[String]) {
    let _ =
        write!(out, "<text class=\"{class}\" text-anchor=\"middle\" fill=\"currentColor\" {HALO}>");
    for (at, line) in lines.iter().enumerate() {
        let y = y + LINE * (at as f64 + 0.8);
        let _ = write!(out, "<tspan x=\"{x:.1}\" y=\"{y:.1}\">{}</tspan>", escape(line));
    }
    out.push_str("</text>");
}

fn arrow(out: &mut String, kind: Kind, from: f64, to: f64, y: f64) {
    let (class, dash, width) = match kind {
        Kind::Message => ("msg", "", 1.4),
        Kind::Onion => ("onion", " stroke-dasharray=\"5 4\"", 1.4),
        Kind::Htlc => ("htlc", "", 3.0),
    };
    let back = if to > from { -1.0 } else { 1.0 };
    let _ = write!(
        out,
        "<g class=\"{class}\"><line x1=\"{from:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" \
         stroke=\"currentColor\" stroke-width=\"{width}\"{dash}/>\
         <polygon fill=\"currentColor\" points=\"{to:.1},{y:.1} {:.1},{:.1} {:.1},{:.1}\"/></g>",
        to + back * 8.0,
        to + back * 10.0,
        y - 5.0,
        to + back * 10.0,
        y + 5.0,
    );
}

fn life(out: &mut String, x: f64, from: f64, to: f64, online: bool) {
    let (class, dash) =
        if online { ("life", "") } else { ("life off", " stroke-dasharray=\"1 6\"") };
    let _ = write!(
        out,
        "<line class=\"{class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{from:.1}\" y2=\"{to:.1}\" \
         stroke=\"currentColor\" stroke-opacity=\"0.45\" stroke-linecap=\"round\"{dash}/>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "title: Paid while away\nlane p \"Payer\"\nlane l \"LSP\"\nlane r \"Recipient\"\n\
        step 1 Buy\nr -> l: lsps2.buy <b>\nr --> l: serve_static_invoice\noffline r\n\
        step 2 Pay\np => l: update_add_htlc\nnote l: held\nonline r\nl => r: less the fee\n";

    #[test]
    fn the_list_has_every_move_of_the_drawing() {
        let html = render(FLOW).unwrap();
        let list = html.split("<ol").skip(1).collect::<String>();
        for text in ["lsps2.buy &lt;b&gt;", "held", "less the fee", "goes offline", "goes online"] {
            assert!(list.contains(text), "{text}");
        }
        assert!(!html.trim_end().contains("\n\n"));
        assert_eq!(html.matches("<ol").count(), html.matches("</ol>").count());
    }

    #[test]
    fn a_long_name_breaks_where_it_has_joints() {
        let lines = wrap("blinded_paths_for_async_recipient is called", 20.0 * CHARACTER);
        assert_eq!(lines, ["blinded_paths_for_", "async_recipient is", "called"]);
    }

    #[test]
    fn nobody_acts_while_away() {
        let away = format!("{FLOW}offline p\np -> l: hello\n");
        let (line, what) = render(&away).unwrap_err();
        assert_eq!((line, what.as_str()), (15, "`p` is offline and sends"));
        let away = format!("{FLOW}offline p\nl -> p: hello\n");
        assert!(render(&away).unwrap_err().1.contains("offline and receives"));
    }

    #[test]
    fn a_wrong_line_is_told() {
        for (line, expected) in [
            ("x -> l: a", "no lane `x`"),
            ("p l: a", "FROM -> TO"),
            ("p -> l:", "without a text"),
            ("p -> p: a", "another lane"),
            ("online r", "online already"),
            ("lane p \"Again\"", "twice"),
        ] {
            let (at, what) = render(&format!("{FLOW}{line}\n")).unwrap_err();
            assert_eq!(at, 14, "{line}");
            assert!(what.contains(expected), "{line}: {what}");
        }
        assert!(render("title: Nothing").is_err());
    }
}
