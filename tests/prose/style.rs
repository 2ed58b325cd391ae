//! Words that do not belong in the guide, the shape of a page, and versions written by hand.

use super::text::{find_words, prose, unquoted};
use super::{Document, chapters, data, files, none, read, root, top};
use book::Versions;
use serde::Deserialize;
use std::collections::BTreeSet;

/// `src/data/style.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Style {
    avoid: Vec<Avoid>,
    #[serde(default)]
    except: Vec<Except>,
}

/// Words to leave out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Avoid {
    words: Vec<String>,
    because: String,
    /// Phrases in which these words are right.
    #[serde(default)]
    unless: Vec<String>,
    /// Files where these words are right.
    #[serde(default)]
    not_in: Vec<String>,
}

/// A line that may say what others may not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Except {
    file: String,
    /// The word or version that is right here.
    word: String,
    /// What the paragraph or line contains too.
    text: String,
    reason: String,
}

/// The exceptions that were needed, by index.
#[derive(Default)]
struct Needed(BTreeSet<usize>);

impl Needed {
    fn excepted(&mut self, style: &Style, file: &str, word: &str, text: &str) -> bool {
        let fits = |except: &Except| {
            except.file == file && except.word == word && text.contains(&except.text)
        };
        let fitting = style.except.iter().position(fits);
        self.0.extend(fitting);
        fitting.is_some()
    }
}

#[test]
fn words_of_no_use_and_versions_by_hand_are_left_out() {
    let style: Style = data("src/data/style.toml");
    let versions = Versions::read(root()).unwrap_or_else(|problem| panic!("{problem}"));
    let mut needed = Needed::default();
    let mut problems = Vec::new();
    for document in chapters().into_iter().chain(top()) {
        for prose in prose(&document.text) {
            for (word, because) in avoided(&style, &document.name, &prose.text) {
                if !needed.excepted(&style, &document.name, word, &prose.text) {
                    let Document { name, .. } = &document;
                    problems.push(format!("{name}:{}: `{word}`: {because}", prose.line));
                }
            }
        }
        versions_by_hand(&document, &versions, &style, &mut needed, &mut problems);
    }
    for document in files("src/claims", &["toml"]) {
        // What a naive guide says is quoted there.
        let naive = document.name == "src/claims/naive.toml";
        for (at, line) in document.text.lines().enumerate().filter(|_| !naive) {
            let says = line.trim().strip_prefix("says = \"").unwrap_or_default();
            for (word, because) in avoided(&style, &document.name, &unquoted(says)) {
                if !needed.excepted(&style, &document.name, word, line) {
                    problems.push(format!("{}:{}: `{word}`: {because}", document.name, at + 1));
                }
            }
        }
        versions_by_hand(&document, &versions, &style, &mut needed, &mut problems);
    }
    // The one manifest that is not of the workspace pins LDK too.
    let fuzz = read("listings/lsps2-async/fuzz/Cargo.toml".into());
    versions_by_hand(&fuzz, &versions, &style, &mut needed, &mut problems);
    for (at, except) in style.except.iter().enumerate() {
        if !needed.0.contains(&at) || except.reason.is_empty() {
            problems.push(format!(
                "src/data/style.toml: the exception for `{}` in {} is not needed, or has no reason",
                except.word, except.file
            ));
        }
    }
    none(&problems);
}

/// The words in a text that are to be left out, with the reason.
fn avoided<'a>(style: &'a Style, file: &str, text: &str) -> Vec<(&'a str, &'a str)> {
    let mut found = Vec::new();
    for avoid in style.avoid.iter().filter(|avoid| avoid.not_in.iter().all(|not| not != file)) {
        let right: Vec<_> = avoid
            .unless
            .iter()
            .flat_map(|phrase| find_words(text, phrase).into_iter().map(|at| at..at + phrase.len()))
            .collect();
        for word in &avoid.words {
            let wrong = |at: &usize| !right.iter().any(|range| range.contains(at));
            let times = find_words(text, word).iter().filter(|at| wrong(at)).count();
            found.extend((0..times).map(|_| (word.as_str(), avoid.because.as_str())));
        }
    }
    found
}

fn versions_by_hand(
    document: &Document,
    versions: &Versions,
    style: &Style,
    needed: &mut Needed,
    problems: &mut Vec<String>,
) {
    let pinned = versions.of("lightning").expect("lightning is pinned");
    for (at, line) in document.text.lines().enumerate() {
        for found in ldk_versions(line, pinned) {
            let known = LDK.iter().any(|name| versions.of(name) == Some(found));
            if !known && !needed.excepted(style, &document.name, found, line) {
                let Document { name, .. } = document;
                problems.push(format!("{name}:{}: {found}, but LDK here is {pinned}", at + 1));
            }
        }
    }
}

/// LDK's crates; some have version numbers of their own.
const LDK: [&str; 5] = [
    "lightning",
    "lightning-liquidity",
    "lightning-types",
    "lightning-invoice",
    "lightning-macros",
];

/// What in a line looks like a release of LDK: a candidate, or three numbers that begin as the
/// pinned version does.
fn ldk_versions<'a>(line: &'a str, pinned: &str) -> Vec<&'a str> {
    let series = pinned.rsplit_once('.').map_or(pinned, |(series, _)| series);
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'))
        .map(|word| word.trim_matches(['.', '-']))
        .map(|word| word.strip_prefix('v').unwrap_or(word))
        .filter(|word| {
            let numbers = word.split('-').next().unwrap_or(word);
            let mut parts = numbers.split('.');
            let three = parts.clone().count() == 3
                && parts.all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
            three && (word.contains("-rc") || word.starts_with(&format!("{series}.")))
        })
        .collect()
}

#[test]
fn a_page_has_one_title_and_nothing_left_to_do() {
    let mut problems = Vec::new();
    for Document { name, text } in chapters().into_iter().chain(top()) {
        problems.extend(misshapen(&text).into_iter().map(|problem| format!("{name}:{problem}")));
    }
    none(&problems);
}

fn misshapen(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let mut fence: Option<&str> = None;
    let mut titles = 0;
    for (at, line) in text.lines().enumerate() {
        let mut problem = |what: &str| problems.push(format!("{}: {what}", at + 1));
        for word in ["TODO", "FIXME", "XXX", "TBD"] {
            if line.split(|c: char| !c.is_alphanumeric()).any(|found| found == word) {
                problem("something is left to do");
            }
        }
        let start = line.trim_start();
        let marks = &start[..start.len() - start.trim_start_matches('`').len()];
        match fence {
            None if marks.len() >= 3 => fence = Some(marks),
            Some(open) if start.trim_end() == open => fence = None,
            _ => {}
        }
        if fence.is_some() {
            continue;
        }
        if line.starts_with("# ") {
            titles += 1;
            if titles > 1 {
                problem("a second title");
            }
        }
        let bars = line.replace("\\|", "").matches('|').count();
        if line.starts_with('|') && bars > 5 {
            problem("more than four columns do not fit a phone");
        }
    }
    if titles == 0 || !text.starts_with("# ") {
        problems.push("1: a page begins with its title".to_owned());
    }
    problems
}

#[test]
fn the_style_checks_find_what_they_look_for() {
    let style: Style = toml::from_str(
        "[[avoid]]\nwords = [\"just\", \"of course\"]\nbecause = \"weasel\"\n\
         unless = [\"just in time\"]\nnot_in = [\"b.md\"]\n",
    )
    .expect("a style");
    let count = |file, text| avoided(&style, file, text).len();
    assert_eq!(count("a.md", "Of course it is just, just-in-time and just in time."), 2);
    assert_eq!(count("b.md", "Of course it is."), 0);

    let found = ldk_versions("`=0.3.0-rc3`, v0.3.1, 0.2.2, 0.32.7, 0.4.0-rc3.", "0.3.0-rc3");
    assert_eq!(found, ["0.3.0-rc3", "0.3.1", "0.4.0-rc3"]);

    assert_eq!(misshapen("# Title\n\n```text\n# no title\n```\n"), [""; 0]);
    assert_eq!(misshapen("# Title\n\n# Another\n").len(), 1);
    assert_eq!(misshapen("Text\n").len(), 1);
    assert_eq!(misshapen("# Title\n\nTODO: more\n").len(), 1);
    assert_eq!(misshapen("# Title\n\n| a | b | c | d | e |\n").len(), 1);
}
