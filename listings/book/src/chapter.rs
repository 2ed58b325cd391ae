//! Expands one chapter: directives, links of our own schemes, fences.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt::Write;

use mdbook_preprocessor::book::Chapter;
use pulldown_cmark::{BrokenLink, CowStr, Event, Options, Parser};

use crate::fences::{Part, parts};
use crate::listing;
use crate::{
    Desk, Shown, claims, diagram, entries, events, excerpt, facts, fees, flags, hold, html, ledger,
    numbers, player, scenarios, traps,
};

/// The languages a fence may have.
const LANGUAGES: [&str; 3] = ["rust", "toml", "console"];

/// How the directive begins that fills in a number of a recording.
const NUMBER: &str = "{{recorded ";

impl Desk {
    pub(crate) fn chapter(&mut self, chapter: &mut Chapter) {
        let Some(path) = &chapter.path else { return };
        let page = path.to_string_lossy().into_owned();
        let file = format!("src/{page}");
        self.markdown(&file, &chapter.content);
        let mut out = String::with_capacity(chapter.content.len() * 2);
        let mut role = None;
        let mut layout = entries::is_page(&page).then(entries::Layout::default);
        for part in parts(&file, &chapter.content, &mut self.problems) {
            if let Some(layout) = &mut layout {
                let lines = match part {
                    Part::Prose { line, text } => layout.line(line, text),
                    _ => layout.pause(),
                };
                self.several(&page, &lines, &mut out);
            }
            match part {
                Part::Prose { .. } if layout.is_some() => {}
                Part::Prose { line, text } => {
                    let text = self.inline(&page, line, text);
                    out.push_str(&text);
                    out.push('\n');
                }
                Part::Fence { line, language, text } => {
                    self.fence(&file, line, language, &text, &mut out);
                }
                Part::Directive { line, name, argument } => {
                    match (name, role) {
                        ("role", None) => role = Some(line),
                        ("role", Some(_)) => self.problems.add(&file, line, "role within a role"),
                        ("endrole", None) => self.problems.add(&file, line, "no role to end"),
                        ("endrole", Some(_)) => role = None,
                        _ => {}
                    }
                    match self.directive(&page, name, argument, line) {
                        Ok(text) => {
                            // Apart from what stands above and below, as HTML blocks must be.
                            out.push('\n');
                            out.push_str(&text);
                            out.push('\n');
                        }
                        Err(what) => self.problems.add(&file, line, what),
                    }
                }
            }
        }
        if let Some(layout) = &mut layout {
            self.several(&page, &layout.pause(), &mut out);
        }
        if let Some(line) = role {
            self.problems.add(&file, line, "this role block is never ended");
        }
        chapter.content = out;
    }

    /// What mdBook would publish without a word: undefined references, raw HTML.
    fn markdown(&mut self, file: &str, text: &str) {
        let line_at = |offset: usize| text[..offset].matches('\n').count() + 1;
        let mut broken = Vec::new();
        let options = Options::ENABLE_TABLES
            | Options::ENABLE_FOOTNOTES
            | Options::ENABLE_STRIKETHROUGH
            | Options::ENABLE_TASKLISTS
            | Options::ENABLE_HEADING_ATTRIBUTES
            | Options::ENABLE_DEFINITION_LIST
            | Options::ENABLE_GFM;
        let note = |link: BrokenLink<'_>| -> Option<(CowStr<'_>, CowStr<'_>)> {
            broken.push((line_at(link.span.start), link.reference.to_string()));
            None
        };
        let mut raw = Vec::new();
        for (event, range) in
            Parser::new_with_broken_link_callback(text, options, Some(note)).into_offset_iter()
        {
            if matches!(event, Event::Html(_) | Event::InlineHtml(_)) {
                raw.push(line_at(range.start));
            }
        }
        for (line, reference) in broken {
            let what = format!("`[{reference}]` refers to nothing (escape a literal bracket)");
            self.problems.add(file, line, what);
        }
        for line in raw {
            self.problems.add(file, line, "raw HTML: use a directive, or escape the `<`");
        }
    }

    fn fence(&mut self, file: &str, line: usize, language: &str, text: &str, out: &mut String) {
        if !LANGUAGES.contains(&language) {
            let what = match language {
                "" => "a fence without a language".to_owned(),
                "sequence" => {
                    "no diagram is drawn by hand: `{{#diagram NAME}}` draws a recording".to_owned()
                }
                "text" | "json" => {
                    "what a program wrote is not pasted: `{{#excerpt …}}` shows a part of a \
                     recording, `{{#output NAME}}` what a test recorded"
                        .to_owned()
                }
                other => format!("a fence is one of {LANGUAGES:?} and nothing more, not `{other}`"),
            };
            self.problems.add(file, line, what);
            return;
        }
        if text.trim().is_empty() {
            self.problems.add(file, line, "an empty fence");
        }
        if language == "console"
            && let Some(below) = output_line(text)
        {
            let what = "a `console` fence holds what a reader types, `$ …`, and comments, `# …`; \
                        output is not pasted";
            self.problems.add(file, line + below, what);
        }
        out.push('\n');
        out.push_str(&listing::fence(language, text));
        out.push('\n');
    }

    fn directive(
        &mut self,
        page: &str,
        name: &str,
        argument: &str,
        line: usize,
    ) -> Result<String, String> {
        match name {
            "slice" => self.slice(page, argument),
            "output" => self.output(argument),
            "flags" => {
                let table = flags::table(&self.root, argument)?;
                Ok(self.lines(page, line, &table))
            }
            "events" => {
                let table = events::table(&self.sources, argument)?;
                Ok(self.lines(page, line, &table))
            }
            "diagram" => diagram::figure(&self.recordings, argument),
            "ledger" => ledger::figure(&self.recordings, argument),
            "player" => player::figure(&self.recordings, &self.titles, argument),
            "fees" => fees::table(argument),
            "hold" => hold::table(argument),
            "excerpt" => {
                let excerpt = excerpt::block(&self.recordings, argument)?;
                let player = self.players.get(&excerpt.recording);
                Ok(excerpt.html(player.map(String::as_str)))
            }
            "index" => {
                let events = match argument {
                    "events" => events::names(&self.sources)?,
                    _ => BTreeSet::new(),
                };
                let stock = entries::Stock {
                    entries: &self.entries,
                    titles: &self.titles,
                    recordings: &self.recordings,
                    events: &events,
                };
                let index = entries::index(&stock, argument)?;
                Ok(self.lines(page, line, &index))
            }
            "scenarios" => {
                let table = scenarios::table(&scenarios::scenarios(&self.root)?, &self.ids)?;
                Ok(self.lines(page, line, &table))
            }
            "role" => role(argument),
            "endrole" => Ok("</div>\n".to_owned()),
            "claims" => {
                let text = claims::page(&self.ledger, &self.made, &self.titles, &self.versions);
                Ok(self.lines(page, line, &text))
            }
            "traps" => {
                let text = traps::sections(&self.root)?;
                Ok(self.lines(page, line, &text))
            }
            "naive" => {
                let text = claims::naive_table(&self.ledger);
                Ok(self.lines(page, line, &text))
            }
            other => Err(format!("no directive `{other}`")),
        }
    }

    fn slice(&mut self, page: &str, argument: &str) -> Result<String, String> {
        let (spec, with_docs) = match argument.strip_suffix(" docs") {
            Some(spec) => (spec, true),
            None => (argument, false),
        };
        let place = self.sources.find(spec, with_docs)?;
        if place.what.is_empty() {
            return Err("a slice is an item or an anchor; a whole file has its own page".into());
        }
        let text = self.sources.text(&place)?;
        self.shown.push(Shown {
            chapter: page.to_owned(),
            file: place.file.clone(),
            what: place.what.clone(),
            lines: place.lines,
        });
        Ok(listing::slice(&place, &text))
    }

    fn output(&self, name: &str) -> Result<String, String> {
        let path = format!("tests/recorded/{name}.txt");
        let text = std::fs::read_to_string(self.root.join(&path))
            .map_err(|e| format!("{path}: {e}: no test has recorded it"))?;
        let (language, text) = match text.strip_prefix("#lang: ").and_then(|t| t.split_once('\n')) {
            Some((language, rest)) => (language.trim(), rest),
            None => ("text", text.as_str()),
        };
        if text.trim().is_empty() {
            return Err(format!("{path} is empty"));
        }
        Ok(listing::output(name, language, text.trim_end()))
    }

    /// Several lines of Markdown, each with its number.
    fn several(&mut self, page: &str, lines: &[(usize, String)], out: &mut String) {
        for (line, text) in lines {
            out.push_str(&self.inline(page, *line, text));
            out.push('\n');
        }
    }

    /// Several lines of Markdown that a directive made.
    fn lines(&mut self, page: &str, line: usize, text: &str) -> String {
        let mut out = String::new();
        for text in text.lines() {
            out.push_str(&self.inline(page, line, text));
            out.push('\n');
        }
        out
    }

    /// Replaces what stands within a line, outside code.
    fn inline(&mut self, page: &str, line: usize, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let text = self.lines_of_ldk(page, line, text);
        let mut rest = &*text;
        while !rest.is_empty() {
            let code = rest.find('`').unwrap_or(rest.len());
            let (prose, tail) = rest.split_at(code);
            let prose = self.numbers(page, line, prose);
            self.prose(page, line, &joined(&prose), &mut out);
            let ticks = tail.len() - tail.trim_start_matches('`').len();
            let mark = &tail[..ticks];
            let end = match tail[ticks..].find(mark) {
                Some(at) if ticks > 0 => ticks + at + ticks,
                _ => ticks,
            };
            out.push_str(&tail[..end]);
            rest = &tail[end..];
        }
        out
    }

    /// Fills in links to lines of LDK, whose text may hold a backtick that begins no code here.
    fn lines_of_ldk<'a>(&mut self, page: &str, line: usize, text: &'a str) -> Cow<'a, str> {
        if !text.contains(claims::AT) {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once(claims::AT) {
            out.push_str(before);
            let Some((argument, after)) = inside.split_once("}}") else {
                let what = format!("`{}{inside}` is not closed on its line", claims::AT);
                self.problems.add(format!("src/{page}"), line, what);
                return Cow::Owned(out);
            };
            match claims::SourceLine::parse(argument).and_then(|line| line.mark(&self.versions)) {
                Ok(link) => out.push_str(&link),
                Err(what) => self.problems.add(format!("src/{page}"), line, what),
            }
            rest = after;
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    /// Fills in the numbers of recordings, before numbers and their units are joined.
    fn numbers<'a>(&mut self, page: &str, line: usize, text: &'a str) -> Cow<'a, str> {
        if !text.contains(NUMBER) {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once(NUMBER) {
            out.push_str(before);
            // One that is not closed is told of with the other directives.
            let Some((argument, after)) = inside.split_once("}}") else {
                rest = &rest[before.len()..];
                break;
            };
            match numbers::number(&self.recordings, argument) {
                Ok(number) => out.push_str(&number),
                Err(what) => self.problems.add(format!("src/{page}"), line, what),
            }
            rest = after;
        }
        out.push_str(rest);
        Cow::Owned(out)
    }

    fn prose(&mut self, page: &str, line: usize, text: &str, out: &mut String) {
        let mut rest = text;
        loop {
            let directive = rest.find("{{");
            let link = ["](api:", "](item:"].iter().filter_map(|mark| rest.find(mark)).min();
            let (at, close) = match (directive, link) {
                (Some(directive), link) if link.is_none_or(|link| directive < link) => {
                    (directive, "}}")
                }
                (_, Some(link)) => (link, ")"),
                _ => break,
            };
            out.push_str(&rest[..at]);
            let Some(end) = rest[at..].find(close).map(|end| at + end) else {
                let what = format!("`{}` is not closed on its line", &rest[at..]);
                self.problems.add(format!("src/{page}"), line, what);
                return;
            };
            let replaced = match close {
                "}}" => self.inline_directive(page, &rest[at + 2..end]),
                _ => self.link(&rest[at + 2..end]).map(|href| format!("]({href})")),
            };
            match replaced {
                Ok(text) if text.starts_with("<a class=\"claim") => keep(out, &text),
                Ok(text) => out.push_str(&text),
                Err(what) => self.problems.add(format!("src/{page}"), line, what),
            }
            rest = &rest[end + close.len()..];
        }
        out.push_str(rest);
    }

    fn inline_directive(&mut self, page: &str, inner: &str) -> Result<String, String> {
        let (name, argument) = inner.split_once(' ').unwrap_or((inner, ""));
        match name {
            "#claim" => {
                let claim = self.ledger.get(argument)?;
                let mark = claims::mark(claim, page, &mut self.made);
                Ok(mark)
            }
            "#test" => {
                let place = self.sources.test(argument)?;
                Ok(format!(
                    "<a class=\"test\" href=\"{}\">{}</a>",
                    listing::link_to(&place),
                    html::name(&place.what)
                ))
            }
            "version" => self
                .versions
                .of(argument)
                .map(str::to_owned)
                .ok_or_else(|| format!("the workspace pins no `{argument}`")),
            "checked" => {
                let day = argument.parse().map_err(|e| format!("`{argument}`: {e}"))?;
                Ok(format!("checked on {}", facts::written_out(day)))
            }
            other => Err(format!("no directive `{{{{{other}}}}}` stands inside a line")),
        }
    }

    /// `api:` leads to docs.rs at exactly the version used, `item:` to a page of this book.
    fn link(&self, target: &str) -> Result<String, String> {
        if let Some(spec) = target.strip_prefix("item:") {
            return self.sources.place(spec).map(|place| listing::link_to(&place));
        }
        let path = target.strip_prefix("api:").unwrap_or(target);
        let name = path.split('/').next().unwrap_or_default();
        let (package, version) = self
            .versions
            .of_crate(name)
            .ok_or_else(|| format!("`{target}`: no crate `{name}` is among the dependencies"))?;
        if !path.split('#').next().unwrap_or_default().ends_with(".html") {
            return Err(format!("`{target}` is no page of rustdoc (….html)"));
        }
        Ok(format!("https://docs.rs/{package}/{version}/{path}"))
    }
}

/// The first line of a `console` fence that nobody types, counted from 1.
fn output_line(text: &str) -> Option<usize> {
    let mut continued = false;
    let typed = |line: &str| {
        let typed = continued || line.starts_with("$ ") || line.starts_with('#');
        continued = typed && line.ends_with('\\');
        typed
    };
    text.lines().map(typed).position(|typed| !typed).map(|at| at + 1)
}

/// Puts a claim's mark behind the word it follows, on the same line.
fn keep(out: &mut String, mark: &str) {
    const END: &str = "</span>";
    if out.ends_with("</a></span>") {
        // Marks that follow each other stay together.
        out.truncate(out.len() - END.len());
        out.push_str(mark);
        out.push_str(END);
        return;
    }
    let at = out
        .rfind([' ', '\n', '|', '\u{a0}'])
        .map_or(0, |at| at + out[at..].chars().next().map_or(0, char::len_utf8));
    let word = &out[at..];
    // Not across the edge of a link or of emphasis, and nothing longer than a phone is wide.
    let plain = |c: char| c.is_alphanumeric() || " .,;:()`'\"’%/-–".contains(c);
    let fits = (1..=24).contains(&word.chars().count());
    if fits && word.chars().all(plain) && word.matches('`').count().is_multiple_of(2) {
        let kept = format!("<span class=\"kept\">{word}{mark}{END}");
        out.truncate(at);
        out.push_str(&kept);
    } else {
        out.push_str(mark);
    }
}

/// Keeps the groups of a number, and a number and its unit, on one line.
pub(crate) fn joined(text: &str) -> String {
    const UNITS: [&str; 7] = ["msat", "sat", "block", "byte", "second", "day", "ms"];
    let mut out = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        let after_digit = out.ends_with(|c: char| c.is_ascii_digit());
        let rest = &text[at + c.len_utf8()..];
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        out.push(match c {
            ' ' if after_digit && digits == 3 => '\u{a0}',
            ' ' if after_digit && UNITS.iter().any(|unit| rest.starts_with(unit)) => '\u{a0}',
            c => c,
        });
    }
    out
}

/// Opens a block that the role lens shows.
fn role(argument: &str) -> Result<String, String> {
    let mut names = Vec::new();
    for role in argument.split_whitespace() {
        names.push(match role {
            "recipient" => "the recipient",
            "lsp" => "the recipient’s LSP",
            "payer" => "the payer",
            "payer_lsp" => "the payer’s LSP",
            other => return Err(format!("no role `{other}`")),
        });
    }
    let mut who = String::new();
    for (at, name) in names.iter().enumerate() {
        let between = match at {
            0 => "",
            at if at + 1 == names.len() => " and ",
            _ => ", ",
        };
        let _ = write!(who, "{between}{name}");
    }
    if who.is_empty() {
        return Err("a role block names its roles".into());
    }
    Ok(format!("<div class=\"role\" data-roles=\"{argument}\"><p class=\"for\">For {who}</p>\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_stays_on_its_line() {
        assert_eq!(
            joined("98 000 000 msat of 213 011 sat in 72 blocks, 5 and 10"),
            "98\u{a0}000\u{a0}000\u{a0}msat of 213\u{a0}011\u{a0}sat in 72\u{a0}blocks, 5 and 10"
        );
        assert_eq!(joined("| 1 | 2 |"), "| 1 | 2 |");
    }

    #[test]
    fn a_mark_does_not_stand_alone_on_a_line() {
        let kept = |text: &str| {
            let mut out = text.to_owned();
            keep(&mut out, "<a>✓</a>");
            keep(&mut out, "<a>§</a>");
            out
        };
        assert_eq!(kept("that is so."), "that is <span class=\"kept\">so.<a>✓</a><a>§</a></span>");
        assert_eq!(kept("in `x`."), "in <span class=\"kept\">`x`.<a>✓</a><a>§</a></span>");
        // Half of a link or of a phrase in italics cannot be kept together with what follows it.
        assert_eq!(kept("a [long way](b.md)."), "a [long way](b.md).<a>✓</a><a>§</a>");
        assert_eq!(kept("*just in time*."), "*just in time*.<a>✓</a><a>§</a>");
    }

    #[test]
    fn a_console_fence_holds_what_is_typed() {
        assert_eq!(output_line("# Once:\n$ cargo run \\\n    -- demo\n$ ls\n"), None);
        assert_eq!(output_line("$ ls\nCargo.toml\n"), Some(2));
        assert_eq!(output_line("$ ls\n\n$ ls\n"), Some(2));
    }

    #[test]
    fn a_role_block_names_its_roles() {
        assert!(role("recipient payer_lsp").unwrap().contains("the recipient and the payer’s LSP"));
        assert!(role("somebody").is_err());
        assert!(role("").is_err());
    }
}
