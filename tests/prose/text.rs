//! What of a Markdown page is prose.

use pulldown_cmark::{BlockQuoteKind, Event, Options, Parser, Tag, TagEnd};

/// A stretch of prose: a paragraph, a heading, a cell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prose {
    /// The line it begins on, counted from 1.
    pub line: usize,
    pub text: String,
}

/// The prose of a page: not code, addresses, directives, nor what is quoted from elsewhere (in double
/// quotes, or as a quotation of Markdown's that is no alert).
pub fn prose(page: &str) -> Vec<Prose> {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_FOOTNOTES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_GFM
        | Options::ENABLE_TASKLISTS;
    let mut found: Vec<Prose> = Vec::new();
    let mut text = String::new();
    let mut first = 0;
    let mut quotes: Vec<Option<BlockQuoteKind>> = Vec::new();
    let mut code = false;
    for (event, range) in Parser::new_ext(page, options).into_offset_iter() {
        let line = page[..range.start].matches('\n').count() + 1;
        match event {
            Event::Start(Tag::BlockQuote(kind)) => quotes.push(kind),
            Event::End(TagEnd::BlockQuote(_)) => {
                quotes.pop();
            }
            Event::Start(Tag::CodeBlock(_)) => code = true,
            Event::End(TagEnd::CodeBlock) => code = false,
            _ if quotes.iter().any(Option::is_none) => {}
            Event::Text(words) if !code => {
                if text.is_empty() {
                    first = line;
                }
                text.push_str(&words);
            }
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            // Code within a sentence is no word of it.
            Event::Code(_) => text.push('`'),
            Event::End(
                TagEnd::Paragraph | TagEnd::Heading(_) | TagEnd::Item | TagEnd::TableCell,
            ) if !text.is_empty() => {
                let text = std::mem::take(&mut text);
                found.push(Prose { line: first, text: unquoted(&text) });
            }
            _ => {}
        }
    }
    found
}

/// Without `{{directives}}` and what stands in double quotes.
pub fn unquoted(text: &str) -> String {
    let text = without_directives(text);
    let text = between(&text, "“", "”");
    between(&text, "\"", "\"")
}

/// What stands within `{{` and `}}`.
pub fn directives(text: &str) -> Vec<&str> {
    let inside = text.split("{{").skip(1);
    inside.filter_map(|rest| Some(rest.split_once("}}")?.0)).collect()
}

/// Without `{{directives}}`.
pub fn without_directives(text: &str) -> String {
    between(text, "{{", "}}")
}

fn between(text: &str, open: &str, close: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(open) {
        let Some((_, after)) = inside.split_once(close) else { break };
        out.push_str(before);
        rest = after;
    }
    out + rest
}

/// Where `phrase` stands in `text` as whole words, whatever the case; a hyphen joins words.
pub fn find_words(text: &str, phrase: &str) -> Vec<usize> {
    let text = text.to_lowercase();
    let phrase = phrase.to_lowercase();
    let joins = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '-' || c == '_');
    let whole = |at: &usize| {
        !joins(text[..*at].chars().next_back()) && !joins(text[at + phrase.len()..].chars().next())
    };
    text.match_indices(&phrase).map(|(at, _)| at).filter(whole).collect()
}

#[test]
fn only_prose_is_read() {
    let page = "# A heading\n\nSome `code` and [a link](https://very.example)\nin two lines \
                {{#claim very-odd}} said \"very odd\".\n\n```text\nvery\n```\n\n> very\n\n\
                > [!NOTE]\n> An alert.\n\n| a | b |\n|---|---|\n| cell | `very` |\n";
    let read = prose(page);
    let lines: Vec<_> = read.iter().map(|prose| (prose.line, prose.text.as_str())).collect();
    assert_eq!(
        lines,
        [
            (1, "A heading"),
            (3, "Some ` and a link in two lines  said ."),
            (13, "An alert."),
            (15, "a"),
            (15, "b"),
            (17, "cell"),
            (17, "`"),
        ]
    );
}

#[test]
fn words_are_whole() {
    assert_eq!(find_words("Just a just-in-time adjust just", "just"), [0, 27]);
    assert_eq!(find_words("It Now Requires it", "now requires"), [3]);
}
