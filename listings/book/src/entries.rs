//! The entries of what can fail: one for each `##` of a page `fail-….md`, all of one form.
//!
//! An entry says which test provokes it, what each node sees, the cause with its source, the cure with
//! its code, and what a wallet tells its user. What an entry lacks fails the build.

mod index;
mod layout;

pub(crate) use index::{Stock, index};
pub(crate) use layout::Layout;

use crate::fences::{Part, parts};
use crate::problems::Problems;

/// What a page's file is called that holds entries.
const PAGES: &str = "fail-";

/// Whether a chapter holds entries.
pub(crate) fn is_page(page: &str) -> bool {
    page.starts_with(PAGES)
}

/// One way in which things fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The chapter's file, relative to the book's `src`.
    pub(crate) page: String,
    /// The line of its heading.
    pub(crate) line: usize,
    /// Its heading, in Markdown.
    pub(crate) title: String,
    /// The id of its heading.
    pub(crate) id: String,
    /// What it says, point by point.
    pub(crate) points: Vec<Point>,
    /// The tests that provoke it.
    tests: usize,
    /// The slices it shows.
    slices: usize,
    /// What its diagrams draw: the arguments of the directives.
    pub(crate) diagrams: Vec<String>,
}

/// `- **Label**: text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Point {
    /// Its line.
    pub(crate) line: usize,
    /// What it is about; several nodes may see the same.
    pub(crate) labels: Vec<Label>,
    /// What it says, on one line.
    pub(crate) text: String,
}

/// What a point is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Label {
    /// Words that a search finds.
    Also,
    /// What a node sees.
    Payer,
    /// What a node sees.
    PayersLsp,
    /// What a node sees.
    Lsp,
    /// What a node sees.
    Recipient,
    /// What all nodes see.
    All,
    Cause,
    /// What it costs, if anything.
    Lost,
    Cure,
    /// What the wallet shows.
    Tell,
    /// Why there is no recording.
    NotRecorded,
}

impl Label {
    /// The nodes, in the order of the way of a payment.
    pub(crate) const NODES: [Self; 4] = [Self::Payer, Self::PayersLsp, Self::Lsp, Self::Recipient];

    const EVERY: [Self; 11] = [
        Self::Also,
        Self::Payer,
        Self::PayersLsp,
        Self::Lsp,
        Self::Recipient,
        Self::All,
        Self::Cause,
        Self::Lost,
        Self::Cure,
        Self::Tell,
        Self::NotRecorded,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Also => "Also seen as",
            Self::Payer => "Payer",
            Self::PayersLsp => "Payer's LSP",
            Self::Lsp => "LSP",
            Self::Recipient => "Recipient",
            Self::All => "All",
            Self::Cause => "Cause",
            Self::Lost => "Lost",
            Self::Cure => "Cure",
            Self::Tell => "Tell the user",
            Self::NotRecorded => "Not recorded",
        }
    }

    pub(crate) fn is_node(self) -> bool {
        self == Self::All || Self::NODES.contains(&self)
    }

    /// Of `Payer`, or of `LSP, recipient`.
    fn several(text: &str) -> Result<Vec<Self>, String> {
        let one = |word: &str| {
            let named = |label: &Self| label.name().eq_ignore_ascii_case(word.trim());
            Self::EVERY.into_iter().find(named).ok_or_else(|| {
                let known: Vec<_> = Self::EVERY.iter().map(|label| label.name()).collect();
                format!("a point of an entry is one of {}, not `{word}`", known.join(", "))
            })
        };
        let labels = text.split(',').map(one).collect::<Result<Vec<_>, _>>()?;
        match labels.as_slice() {
            [_] => Ok(labels),
            several if several.iter().all(|label| label.is_node()) => Ok(labels),
            _ => Err(format!("`{text}`: only nodes share a point")),
        }
    }
}

/// The label and the text of a line that begins a point.
fn point(line: &str) -> Option<(&str, &str)> {
    let (label, text) = line.strip_prefix("- **")?.split_once("**:")?;
    Some((label, text.trim()))
}

/// With a capital letter, unless it begins with code.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// Whether a line is nothing but tests.
fn is_tests(line: &str) -> bool {
    let mut rest = line.trim();
    if rest.is_empty() {
        return false;
    }
    while let Some(inside) = rest.strip_prefix("{{#test ") {
        let Some((_, after)) = inside.split_once("}}") else { return false };
        rest = after.trim_start();
    }
    rest.is_empty()
}

/// The id that mdBook gives a heading.
pub(crate) fn id_of(title: &str) -> String {
    let kept = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' || c == '-' => Some(c),
        c if c.is_whitespace() => Some('-'),
        _ => None,
    };
    title.trim().to_lowercase().chars().filter_map(kept).collect()
}

/// The texts in double quotes that the entries of a chapter give as a program's, with their lines: in a
/// heading, as search words, and where they say what a node sees. `…` stands for what differs.
#[must_use]
pub fn quoted_texts(page: &str, chapter: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for entry in read(page, chapter, &mut Problems::default()) {
        let points = entry.points.iter().filter(|point| {
            point.labels.iter().any(|label| label.is_node() || *label == Label::Also)
        });
        let points = points.map(|point| (point.line, point.text.as_str()));
        for (line, text) in std::iter::once((entry.line, entry.title.as_str())).chain(points) {
            found.extend(index::quoted(text).into_iter().map(|quoted| (line, quoted)));
        }
    }
    found
}

/// The entries of a chapter. What cannot be read as one is a problem.
pub(crate) fn read(page: &str, text: &str, problems: &mut Problems) -> Vec<Entry> {
    let file = format!("src/{page}");
    let mut entries: Vec<Entry> = Vec::new();
    let mut open = false;
    // What is wrong with fences is told where the chapter is expanded.
    for part in parts(&file, text, &mut Problems::default()) {
        match part {
            Part::Prose { line, text } if text.starts_with("## ") => {
                let title = text[3..].trim().to_owned();
                let id = id_of(&title);
                if entries.iter().any(|entry| entry.id == id) {
                    problems.add(&file, line, format!("a second entry `{title}` on this page"));
                }
                let page = page.to_owned();
                let (points, diagrams) = (Vec::new(), Vec::new());
                entries.push(Entry {
                    page,
                    line,
                    title,
                    id,
                    points,
                    tests: 0,
                    slices: 0,
                    diagrams,
                });
                open = false;
            }
            Part::Prose { line, text } => {
                let Some(entry) = entries.last_mut() else { continue };
                entry.tests += text.matches("{{#test ").count();
                if let Some((label, said)) = point(text) {
                    match Label::several(label) {
                        Ok(labels) => {
                            let text = said.to_owned();
                            entry.points.push(Point { line, labels, text });
                            open = true;
                        }
                        Err(what) => {
                            problems.add(&file, line, what);
                            open = false;
                        }
                    }
                } else if open && text.starts_with("  ") {
                    let point = entry.points.last_mut().expect("a point is open");
                    point.text.push(' ');
                    point.text.push_str(text.trim());
                } else {
                    open = false;
                }
            }
            Part::Directive { name, argument, .. } => {
                let Some(entry) = entries.last_mut() else { continue };
                open = false;
                match name {
                    "slice" => entry.slices += 1,
                    "diagram" => entry.diagrams.push(argument.to_owned()),
                    _ => {}
                }
            }
            Part::Fence { .. } => open = false,
        }
    }
    entries
}

impl Entry {
    /// The link to it from another page.
    pub(crate) fn link(&self) -> String {
        format!("[{}]({}#{})", self.title, self.page, self.id)
    }

    /// The texts under a label.
    pub(crate) fn said(&self, label: Label) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(move |point| point.labels.contains(&label))
    }

    /// Tells what it lacks.
    pub(crate) fn check(&self, problems: &mut Problems) {
        let mut lacks = Vec::new();
        let has = |label| self.said(label).any(|point| !point.text.is_empty());
        if self.tests == 0 {
            lacks.push("a test that provokes it, `{{#test …}}`");
        }
        if !self.points.iter().any(|point| point.labels[0].is_node()) {
            lacks.push(
                "what a node sees, **Payer**, **Payer's LSP**, **LSP**, **Recipient** or **All**",
            );
        }
        if !has(Label::Cause) {
            lacks.push("its **Cause**");
        } else if !self.said(Label::Cause).any(|point| sourced(&point.text)) {
            lacks.push("a source of its **Cause**, `{{#at …}}`, `{{#claim …}}` or a link to an item or to a specification");
        }
        if !has(Label::Cure) {
            lacks.push("its **Cure**");
        }
        let shown = |text: &str| text.contains("](item:") || leads_to_entry(text);
        if self.slices == 0 && !self.said(Label::Cure).any(|point| shown(&point.text)) {
            lacks.push("the code that cures it, a slice or in **Cure** a link to an item or to the entry that shows it");
        }
        if !has(Label::Tell) {
            lacks.push("what to **Tell the user**");
        }
        if self.diagrams.is_empty() && !has(Label::NotRecorded) {
            lacks.push("a diagram, or why it is **Not recorded**");
        }
        let file = format!("src/{}", self.page);
        if !lacks.is_empty() {
            let what = format!("the entry `{}` lacks {}", self.title, lacks.join("; "));
            problems.add(&file, self.line, what);
        }
        if !self.diagrams.is_empty() && has(Label::NotRecorded) {
            let what =
                format!("the entry `{}` has a recording and says that it has none", self.title);
            problems.add(&file, self.line, what);
        }
    }
}

/// Whether a cause says where it can be read.
fn sourced(text: &str) -> bool {
    ["{{#at ", "{{#claim ", "](item:", "](api:", "](https://"]
        .iter()
        .any(|mark| text.contains(mark))
}

/// Whether a text links to an entry, on this page or on another.
fn leads_to_entry(text: &str) -> bool {
    text.split("](").skip(1).any(|target| target.starts_with('#') || target.starts_with(PAGES))
}

#[cfg(test)]
mod tests;
