//! A story as a drawing: first where everything stands, then SVG in `currentColor`.

use std::fmt::Write;

use super::story::{Arrow, Group, Power, Row, Shape, Story};
use crate::chapter::joined;
use crate::html::escape;

/// The width of a character of the code face, 13 units high.
const CHARACTER: f64 = 6.5;
/// The same for headings, in the text face; an estimate for the widest lines.
const LETTER: f64 = 7.6;
/// The height of a line of a label.
const LINE: f64 = 16.0;
/// What a line of text takes above its base line and below it.
const ABOVE: f64 = LINE * 0.78;
const BELOW: f64 = LINE * 0.22;
/// What keeps text from the drawing's edges.
const EDGE: f64 = 4.0;
/// What a note's text keeps from its life line, where a dot marks it.
const DOT: f64 = 12.0;

/// The measures of a drawing, in its own units: about a pixel each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sheet {
    /// Its CSS class.
    pub(super) name: &'static str,
    width: f64,
    /// How wide a label may be that is wider than its arrow.
    label: f64,
}

/// For a page of a desktop or a tablet.
pub(super) const WIDE: Sheet = Sheet { name: "wide", width: 720.0, label: 250.0 };
/// For a phone: 360 pixels less the page's margins.
pub(super) const NARROW: Sheet = Sheet { name: "narrow", width: 324.0, label: 316.0 };

/// Something at its place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// A stretch of a life line.
    Life {
        x: f64,
        from: f64,
        to: f64,
        offline: bool,
    },
    /// What a heading stands on.
    Band {
        y: f64,
        height: f64,
    },
    /// One line of text; `x` is its left end, `y` its base line. The width is exact where the face is.
    Text {
        class: &'static str,
        x: f64,
        y: f64,
        width: f64,
        exact: bool,
        words: String,
    },
    Arrow {
        kind: Arrow,
        from: f64,
        to: f64,
        y: f64,
    },
    /// The box of a note; `dot` is on the life line.
    Note {
        x: f64,
        y: f64,
        width: f64,
        height: f64,
        dot: (f64, f64),
        money: bool,
    },
}

/// A drawing, not yet painted.
#[derive(Debug)]
pub(super) struct Layout {
    sheet: Sheet,
    height: f64,
    pub(super) items: Vec<Item>,
}

impl Layout {
    pub(super) fn new(story: &Story, sheet: Sheet) -> Self {
        let mut pen = Pen {
            sheet,
            share: sheet.width / story.lanes.len() as f64,
            y: 0.0,
            items: Vec::new(),
            lives: Vec::new(),
        };
        for group in &story.groups {
            pen.group(group);
        }
        pen.y += 12.0;
        for lane in 0..story.lanes.len() {
            pen.end_life(lane);
        }
        Self { sheet, height: pen.y, items: pen.items }
    }

    #[cfg(test)]
    pub(super) fn width(&self) -> f64 {
        self.sheet.width
    }

    #[cfg(test)]
    pub(super) fn height(&self) -> f64 {
        self.height
    }

    /// The SVG.
    pub(super) fn svg(&self, label: &str) -> String {
        let Sheet { name, width, .. } = self.sheet;
        let mut out = format!(
            "<svg class=\"{name}\" viewBox=\"0 0 {width} {:.0}\" width=\"{width}\" \
             height=\"{:.0}\" role=\"img\" aria-label=\"{}\">",
            self.height,
            self.height,
            escape(label)
        );
        // Life lines run behind all else.
        let is_life = |item: &&Item| matches!(item, Item::Life { .. });
        for item in self.items.iter().filter(is_life) {
            self.paint(item, &mut out);
        }
        for item in self.items.iter().filter(|item| !is_life(item)) {
            self.paint(item, &mut out);
        }
        out.push_str("</svg>");
        out
    }

    /// The stretches of a life line where no text stands across it.
    fn around_text(&self, x: f64, from: f64, to: f64) -> Vec<(f64, f64)> {
        let across = |item: &Item| match item {
            Item::Text { x: left, y, width, .. }
                if (left - 4.0..left + width + 4.0).contains(&x) =>
            {
                Some((y - ABOVE, y + BELOW))
            }
            _ => None,
        };
        let mut stretches = Vec::new();
        let mut at = from;
        for (top, bottom) in self.items.iter().filter_map(across) {
            if bottom > at && top < to {
                if top > at {
                    stretches.push((at, top));
                }
                at = bottom;
            }
        }
        if at < to {
            stretches.push((at, to));
        }
        stretches
    }

    fn paint(&self, item: &Item, out: &mut String) {
        let _ = match item {
            Item::Life { x, from, to, offline } => {
                let stretches = self.around_text(*x, *from, *to);
                let class = if *offline { "life off" } else { "life" };
                // Hatching, if the stroke is wide.
                let dash = if *offline { " stroke-dasharray=\"1.5 4\"" } else { "" };
                let width = if *offline { 9.0 } else { 1.2 };
                let _ = write!(out, "<path class=\"{class}\" d=\"");
                for (from, to) in stretches {
                    let _ = write!(out, "M{x:.1} {from:.1}V{to:.1}");
                }
                write!(
                    out,
                    "\" stroke=\"currentColor\" stroke-opacity=\".5\" stroke-width=\"{width}\"{dash}/>"
                )
            }
            Item::Band { y, height } => write!(
                out,
                "<rect class=\"band\" y=\"{y:.1}\" width=\"{}\" height=\"{height:.1}\" rx=\"3\"/>",
                self.sheet.width
            ),
            Item::Text { class, x, y, width, exact, words } => {
                // Keeps its place if another face stands in for ours.
                let length = match exact {
                    true => {
                        format!(" textLength=\"{width:.1}\" lengthAdjust=\"spacingAndGlyphs\"")
                    }
                    false => String::new(),
                };
                write!(
                    out,
                    "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\"{length}>{}</text>",
                    escape(words)
                )
            }
            Item::Arrow { kind, from, to, y } => arrow(out, *kind, *from, *to, *y),
            Item::Note { x, y, width, height, dot, money } => {
                let class = if *money { "note money" } else { "note" };
                write!(
                    out,
                    "<g class=\"{class}\"><rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
                     height=\"{height:.1}\" rx=\"4\"/><circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/></g>",
                    dot.0, dot.1
                )
            }
        };
    }
}

fn arrow(out: &mut String, kind: Arrow, from: f64, to: f64, y: f64) -> std::fmt::Result {
    let (class, width, head) = match kind {
        Arrow::Message => ("msg", 1.4, 5.0),
        Arrow::Onion => ("onion", 1.4, 5.0),
        Arrow::Htlc => ("htlc", 4.0, 8.0),
        Arrow::Settle => ("settle", 1.4, 5.0),
        Arrow::Both => ("both", 1.0, 4.0),
    };
    let dash = if kind == Arrow::Onion { " stroke-dasharray=\"5 4\"" } else { "" };
    let back = if to > from { -1.0 } else { 1.0 };
    let both = kind == Arrow::Both;
    let tail = if both { from - back * head * 1.5 } else { from };
    write!(
        out,
        "<g class=\"{class}\"><path d=\"M{tail:.1} {y:.1}H{:.1}\" stroke=\"currentColor\" \
         stroke-width=\"{width}\"{dash}/><path fill=\"currentColor\" d=\"",
        to + back * head * 1.5,
    )?;
    let mut tip = |x: f64, back: f64| {
        let end = x + back * head * 2.0;
        let (up, down) = (y - head, y + head);
        write!(out, "M{x:.1} {y:.1}L{end:.1} {up:.1}V{down:.1}Z")
    };
    tip(to, back)?;
    if both {
        tip(from, -back)?;
    }
    out.push_str("\"/></g>");
    Ok(())
}

struct Pen {
    sheet: Sheet,
    /// The width of a lane.
    share: f64,
    /// Where the next row begins.
    y: f64,
    items: Vec<Item>,
    /// For each lane since when it is as it is.
    lives: Vec<(f64, Power)>,
}

impl Pen {
    fn x(&self, lane: usize) -> f64 {
        self.share * (lane as f64 + 0.5)
    }

    fn group(&mut self, group: &Group) {
        if self.lives.is_empty() {
            self.lives = group.power.iter().map(|power| (self.y, *power)).collect();
        }
        if let Some((number, title)) = &group.heading {
            let title = match number {
                Some(number) => format!("{number}  {title}"),
                None => title.clone(),
            };
            self.heading(&title);
        }
        // Scenes that are not drawn may lie between.
        for (lane, power) in group.power.iter().enumerate() {
            self.turn(lane, *power, self.y);
        }
        let away = group.power.iter().enumerate();
        let away: Vec<_> = away.filter(|(_, power)| **power == Power::Offline).collect();
        if !away.is_empty() {
            self.y += 8.0;
            for (lane, _) in away {
                self.centred("state", "offline", self.x(lane), self.y, self.share);
            }
            self.y += LINE + 2.0;
        }
        for row in &group.rows {
            self.row(row);
        }
    }

    fn heading(&mut self, title: &str) {
        if self.y > 0.0 {
            self.y += 14.0;
        }
        let lines = wrap(title, self.sheet.width - 20.0, LETTER);
        let height = lines.len() as f64 * 19.0 + 9.0;
        self.items.push(Item::Band { y: self.y, height });
        for (at, words) in lines.into_iter().enumerate() {
            let y = self.y + 18.0 + at as f64 * 19.0;
            let width = words.chars().count() as f64 * LETTER;
            self.items.push(Item::Text { class: "step", x: 10.0, y, width, exact: false, words });
        }
        self.y += height + 2.0;
    }

    fn row(&mut self, row: &Row) {
        match &row.shape {
            Shape::Move { from, to, kind, text, amount } => {
                let (a, b) = (self.x(*from), self.x(*to));
                let own = (a - b).abs() - 16.0;
                let width = own.max(self.sheet.label);
                let middle = f64::midpoint(a, b);
                self.y += 10.0;
                self.lines("move", text, middle, width);
                if let Some(amount) = amount {
                    self.lines("amount", amount, middle, width);
                }
                let head = if *kind == Arrow::Htlc { 8.0 } else { 5.0 };
                let y = self.y + head + 1.0;
                self.items.push(Item::Arrow { kind: *kind, from: a, to: b, y });
                self.y = y + head;
            }
            Shape::Mark { at, money, text, amount, more } => {
                let parts =
                    [("note", Some(text)), ("amount", amount.as_ref()), ("more", more.as_ref())];
                self.note(self.x(*at), *money, &parts);
            }
            Shape::Power { at, to } => {
                let word = match (self.lives[*at].1, to) {
                    (Power::Absent, _) => "starts",
                    (_, Power::Offline) => "goes offline",
                    _ => "online",
                };
                self.y += 8.0;
                self.turn(*at, *to, self.y + LINE / 2.0);
                self.centred("state", word, self.x(*at), self.y, self.sheet.width);
                self.y += LINE + 2.0;
            }
            Shape::Aside(text) => {
                self.y += 8.0;
                self.lines("aside", text, self.sheet.width / 2.0, self.sheet.width - 2.0 * EDGE);
                self.y += 4.0;
            }
        }
    }

    /// A note begins at its life line and runs to where there is more room.
    fn note(&mut self, x: f64, money: bool, parts: &[(&'static str, Option<&String>)]) {
        let right = x <= self.sheet.width / 2.0 + 1.0;
        let room = if right { self.sheet.width - x } else { x };
        let room = (room - DOT - EDGE - 8.0).min(self.sheet.label);
        let mut lines = Vec::new();
        for (class, text) in parts {
            let text = &*clipped(text.map_or("", |text| text.as_str()));
            let fits = wrap(text, room, CHARACTER).len() < 2;
            // Amounts stand below each other, or side by side.
            let parts =
                if *class == "amount" && !fits { text.split(", ").collect() } else { vec![text] };
            for part in parts {
                lines.extend(wrap(part, room, CHARACTER).into_iter().map(|words| (*class, words)));
            }
        }
        let measure = |words: &String| words.chars().count() as f64 * CHARACTER;
        let widest = lines.iter().map(|(_, words)| measure(words)).fold(0.0, f64::max);
        self.y += 9.0;
        let height = lines.len() as f64 * LINE + 8.0;
        let width = widest + DOT + 17.0;
        let left = if right { x - 9.0 } else { x + 9.0 - width };
        self.items.push(Item::Note {
            x: left,
            y: self.y,
            width,
            height,
            dot: (x, self.y + 4.0 + LINE / 2.0),
            money,
        });
        for (at, (class, words)) in lines.into_iter().enumerate() {
            let width = measure(&words);
            let x = if right { x + DOT } else { x - DOT - width };
            let y = self.y + 4.0 + ABOVE + LINE * at as f64;
            self.items.push(Item::Text { class, x, y, width, exact: true, words });
        }
        self.y += height + 1.0;
    }

    /// Lines of text about a middle, which give way to the edges.
    fn lines(&mut self, class: &'static str, text: &str, middle: f64, width: f64) {
        for words in wrap(text, width, CHARACTER) {
            self.centred(class, &words, middle, self.y, self.sheet.width);
            self.y += LINE;
        }
    }

    fn centred(&mut self, class: &'static str, words: &str, middle: f64, y: f64, within: f64) {
        let width = words.chars().count() as f64 * CHARACTER;
        let (least, most) = match within < self.sheet.width {
            true => (middle - within / 2.0, middle + within / 2.0 - width),
            false => (EDGE, self.sheet.width - EDGE - width),
        };
        let x = (middle - width / 2.0).min(most).max(least);
        let words = words.to_owned();
        let y = y + ABOVE;
        self.items.push(Item::Text { class, x, y, width, exact: true, words });
    }

    fn turn(&mut self, lane: usize, to: Power, y: f64) {
        if self.lives[lane].1 != to {
            let now = std::mem::replace(&mut self.y, y);
            self.end_life(lane);
            self.y = now;
            self.lives[lane] = (y, to);
        }
    }

    fn end_life(&mut self, lane: usize) {
        let (from, power) = self.lives[lane];
        let offline = power == Power::Offline;
        if power != Power::Absent && self.y > from {
            self.items.push(Item::Life { x: self.x(lane), from, to: self.y, offline });
        }
    }
}

/// The beginning of what is too long for a drawing; the list has all of it.
fn clipped(text: &str) -> String {
    const MOST: usize = 110;
    let Some((end, _)) = text.char_indices().nth(MOST) else { return text.to_owned() };
    let whole = text[..end].rfind(' ').unwrap_or(end);
    format!("{} …", &text[..whole])
}

/// Breaks a text into lines of at most `width`, if its words let it.
pub(super) fn wrap(text: &str, width: f64, character: f64) -> Vec<String> {
    let fits = |line: &str| line.chars().count() as f64 * character <= width;
    let mut lines: Vec<String> = Vec::new();
    let mut add = |between: &str, piece: &str| match lines.last_mut() {
        Some(line) if fits(&format!("{line}{between}{piece}")) => {
            line.push_str(between);
            line.push_str(piece);
        }
        _ => lines.push(piece.to_owned()),
    };
    // Not at other white space, which keeps the groups of a number together.
    for word in joined(text).split([' ', '\n']).filter(|word| !word.is_empty()) {
        let mut between = " ";
        // Names of calls may be longer than a lane is wide, and have no spaces.
        let joints = |c: char| matches!(c, '_' | '.' | ':' | '/' | '-');
        let pieces: Vec<_> =
            if fits(word) { vec![word] } else { word.split_inclusive(joints).collect() };
        for mut piece in pieces {
            while !fits(piece) {
                let most = (width / character).max(1.0) as usize;
                let Some((at, _)) = piece.char_indices().nth(most) else { break };
                add(between, &piece[..at]);
                (between, piece) = ("", &piece[at..]);
            }
            add(between, piece);
            between = "";
        }
    }
    lines
}
