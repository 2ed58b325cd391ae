//! Numbers of a run: they come out of its recording, and are not typed a second time.

use super::text::{directives, without_directives};
use super::{Document, chapters, data, none, root};
use recording::Recording;
use recording::pick::Names;
use recording::view::grouped;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// `src/data/numbers.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    #[serde(default)]
    except: Vec<Except>,
}

/// A line that has such a number from elsewhere.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Except {
    file: String,
    number: String,
    /// What the line contains too.
    text: String,
    reason: String,
}

/// Whether a number says by itself that it is of a run: more than a digit and zeros.
fn is_telling(number: u64) -> bool {
    let digits = number.to_string();
    digits.len() >= 3 && digits.trim_end_matches('0').len() >= 2
}

/// The numbers that the chapters take from recordings, and a directive for each.
fn recorded(chapters: &[Document]) -> BTreeMap<String, String> {
    let mut recordings = BTreeMap::new();
    let mut numbers = BTreeMap::new();
    for directive in chapters.iter().flat_map(|chapter| directives(&chapter.text)) {
        let Some(argument) = directive.strip_prefix("recorded ") else { continue };
        let words: Vec<_> = argument.splitn(3, ' ').collect();
        let [name, moment, field] = words[..] else { panic!("{directive}") };
        let file = root().join("tests/recorded").join(name).with_extension("jsonl");
        let read = || Recording::read(&file).unwrap_or_else(|error| panic!("{error:#}"));
        let recording = recordings.entry(name).or_insert_with(read);
        let number = Names::of(recording).number(moment, field);
        let number = number.unwrap_or_else(|problem| panic!("{directive}: {problem}"));
        if is_telling(number) {
            numbers.insert(grouped(number), format!("{{{{{directive}}}}}"));
        }
    }
    numbers
}

/// Whether `number` stands in `line` as a whole: no digit, with or without a space, beside it.
fn has_number(line: &str, number: &str) -> bool {
    let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_digit());
    line.match_indices(number).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + number.len()..]);
        let grouped_before = before.ends_with(' ') && digit(before.trim_end().chars().next_back());
        let mut rest = after.chars();
        let next = rest.next();
        let grouped_after =
            next == Some(' ') && rest.take(3).filter(char::is_ascii_digit).count() == 3;
        let joined =
            |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || "_.-#/".contains(c));
        !grouped_before
            && !grouped_after
            && !joined(before.chars().next_back())
            && !next.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

/// The lines of a page that are not in a fence, without directives.
fn lines(page: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (at, line) in page.lines().enumerate() {
        if line.starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            lines.push((at + 1, without_directives(line)));
        }
    }
    lines
}

#[test]
fn numbers_of_a_run_are_typed_nowhere() {
    let chapters = chapters();
    let typed: Typed = data("src/data/numbers.toml");
    let numbers = recorded(&chapters);
    assert!(numbers.len() > 5, "{numbers:?}");
    let mut needed = BTreeSet::new();
    let mut problems = Vec::new();
    for chapter in &chapters {
        for (at, line) in lines(&chapter.text) {
            for (number, directive) in
                numbers.iter().filter(|(number, _)| has_number(&line, number))
            {
                let fits = |except: &Except| {
                    except.file == chapter.name
                        && except.number == *number
                        && line.contains(&except.text)
                };
                match typed.except.iter().position(fits) {
                    Some(at) => drop(needed.insert(at)),
                    None => problems.push(format!(
                        "{}:{at}: {number} is a number of a run; {directive} fills it in",
                        chapter.name
                    )),
                }
            }
        }
    }
    for (at, except) in typed.except.iter().enumerate() {
        if !needed.contains(&at) || except.reason.is_empty() {
            problems.push(format!(
                "src/data/numbers.toml: the exception for {} in {} is not needed, or has no reason",
                except.number, except.file
            ));
        }
    }
    none(&problems);
}

#[test]
fn numbers_count_whole() {
    assert!(has_number("a channel of 213 011 sat", "213 011"));
    assert!(has_number("(784)", "784"));
    for line in ["1 213 011 sat", "213 011 000 msat", "1213 011", "step-784", "784th", "6.784"] {
        assert!(!has_number(line, "213 011") && !has_number(line, "784"), "{line}");
    }
    assert!(is_telling(98_000_000) && is_telling(784));
    assert!(!is_telling(100_000_000) && !is_telling(72));
}
