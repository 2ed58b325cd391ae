//! What claims rest on: lines of LDK, and the list of what must be put right.

use super::{Document, chapters, none, root};
use book::{Ledger, Problems, SourceLine, lines_of_ldk};
use guide::upgrade::{Crates, Standing};
use std::collections::BTreeSet;

fn ledger() -> Ledger {
    let mut problems = Problems::default();
    let ledger = Ledger::read(root(), &mut problems);
    assert!(problems.is_empty(), "{problems}");
    assert!(!ledger.claims.is_empty(), "no claims");
    ledger
}

/// Each line of LDK that a claim names contains what the claim says, in the sources of the pinned
/// version.
#[test]
fn the_lines_of_ldk_that_claims_rest_on_are_there() {
    let crates = Crates::find(root()).expect("cargo knows where the dependencies are");
    let mut problems = Vec::new();
    for claim in ledger().claims {
        for line in claim.source_lines().unwrap_or_else(|problem| panic!("{problem}")) {
            if let Some(what) = lost(&crates, &line) {
                let SourceLine { package, path, line, text } = line;
                problems.push(format!(
                    "{}: `{}`: {package}/{path}:{line} `{text}`: {what}",
                    claim.file, claim.id
                ));
            }
        }
    }
    none(&problems);
}

/// The same of the lines that a page leads to.
#[test]
fn the_lines_of_ldk_that_pages_lead_to_are_there() {
    let crates = Crates::find(root()).expect("cargo knows where the dependencies are");
    let mut problems = Vec::new();
    for Document { name, text } in chapters() {
        for (at, line) in lines_of_ldk(&text) {
            let what = match &line {
                Ok(line) => lost(&crates, line),
                Err(what) => Some(what.clone()),
            };
            problems.extend(what.map(|what| format!("{name}:{at}: {line:?}: {what}")));
        }
    }
    none(&problems);
}

fn lost(crates: &Crates, line: &SourceLine) -> Option<String> {
    match crates.standing(line) {
        Standing::There => None,
        Standing::Moved(lines) => Some(format!("it is on line {}", lines[0])),
        Standing::Gone => Some("the file has no such text".to_owned()),
        Standing::NoFile => Some("no such file in LDK's pinned version".to_owned()),
    }
}

/// The 48 statements a guide easily gets wrong and the nine that upstream's guide does: each is put
/// right by a claim that a page makes.
#[test]
fn everything_that_is_to_be_put_right_is() {
    let ledger = ledger();
    let pages = chapters();
    let made = |id: &str| {
        let mark = format!("{{{{#claim {id}}}}}");
        pages.iter().any(|Document { text, .. }| text.contains(&mark))
    };
    let mut naive = BTreeSet::new();
    let mut corrects = BTreeSet::new();
    for claim in ledger.claims.iter().filter(|claim| made(&claim.id)) {
        naive.extend(&claim.naive);
        corrects.extend(&claim.corrects);
    }
    let missing = |found: &BTreeSet<u32>, all: u32| -> Vec<u32> {
        (1..=all).filter(|n| !found.contains(n)).collect()
    };
    let (naive, corrects) = (missing(&naive, 48), missing(&corrects, 9));
    assert!(
        naive.is_empty() && corrects.is_empty(),
        "no claim on a page puts right: naive {naive:?}, upstream's guide {corrects:?}"
    );
    let listed: Vec<u32> = ledger.naive.iter().map(|naive| naive.n).collect();
    assert_eq!(listed, (1..=48).collect::<Vec<_>>(), "src/claims/naive.toml lists each, once");
}

#[test]
fn a_line_that_is_not_there_is_noticed() {
    let crates = Crates::find(root()).expect("cargo knows where the dependencies are");
    let line = |path: &str, line, text: &str| SourceLine {
        package: "lightning".into(),
        path: path.into(),
        line,
        text: text.into(),
    };
    let module = "src/lib.rs";
    assert_eq!(
        lost(&crates, &line(module, 1, "This file is Copyright its original authors")),
        None
    );
    let moved = lost(&crates, &line(module, 9, "This file is Copyright its original authors"));
    assert_eq!(moved.as_deref(), Some("it is on line 1"));
    assert!(lost(&crates, &line(module, 1, "no such words")).is_some());
    assert!(lost(&crates, &line("src/none.rs", 1, "This")).is_some());
}
