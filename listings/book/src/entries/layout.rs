//! The points of an entry as a table of two columns: who, and what.

use super::{Label, capital, is_tests, point};

/// Turns the lines of an entry page into those that are rendered. A list of points becomes a
/// description list, with the tests, which stand above it, as its last row.
#[derive(Debug, Default)]
pub(crate) struct Layout {
    inside: bool,
    tests: Vec<(usize, String)>,
}

impl Layout {
    /// What stands for a line of prose: lines of Markdown, each with the number of the one it came
    /// from.
    pub(crate) fn line(&mut self, line: usize, text: &str) -> Vec<(usize, String)> {
        let mut out = Vec::new();
        if !self.inside && is_tests(text) {
            self.tests.push((line, text.trim().to_owned()));
        } else if let Some((label, said)) = point(text) {
            out.push(match self.inside {
                true => (line, "\n</dd></div>".to_owned()),
                false => (line, "\n<dl class=\"entry\">".to_owned()),
            });
            self.inside = true;
            out.push((line, opening(label)));
            out.push((line, capital(said)));
        } else if self.inside && text.starts_with("  ") {
            out.push((line, text[2..].to_owned()));
        } else if text.starts_with('#') {
            self.end(&mut out);
            out.push((line, text.to_owned()));
        } else {
            self.close(&mut out);
            out.push((line, text.to_owned()));
        }
        out
    }

    /// What has to stand before something that is no prose, and at the end of the page.
    pub(crate) fn pause(&mut self) -> Vec<(usize, String)> {
        let mut out = Vec::new();
        self.end(&mut out);
        out
    }

    /// Closes the list, if one is open.
    fn close(&mut self, out: &mut Vec<(usize, String)>) {
        if !std::mem::take(&mut self.inside) {
            return;
        }
        out.push((0, "\n</dd></div>".to_owned()));
        if !self.tests.is_empty() {
            out.push((0, "<div class=\"tests\"><dt>Provoked by</dt><dd>\n".to_owned()));
            out.append(&mut self.tests);
            out.push((0, "\n</dd></div>".to_owned()));
        }
        out.push((0, "</dl>\n".to_owned()));
    }

    /// Closes the list; tests without one stand for themselves.
    fn end(&mut self, out: &mut Vec<(usize, String)>) {
        self.close(out);
        if !self.tests.is_empty() {
            out.append(&mut self.tests);
            out.push((0, String::new()));
        }
    }
}

/// The beginning of a row. A label that is none has been told of.
fn opening(label: &str) -> String {
    let labels = Label::several(label).unwrap_or_default();
    let class = match labels.first() {
        Some(label) if label.is_node() => "node",
        Some(Label::Also) => "also",
        Some(Label::Tell) => "tell",
        Some(Label::Cause) => "cause",
        Some(Label::Cure) => "cure",
        _ => "not-recorded",
    };
    let label = label.replace('\'', "’");
    format!("<div class=\"{class}\"><dt>{label}</dt><dd>\n")
}
