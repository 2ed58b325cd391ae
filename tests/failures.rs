//! What fails: the scenarios that must be there, and the addresses that must stay.

use crate::book::{built, root};
use book::{Sources, quoted_texts, scenarios};
use guide::upgrade::Crates;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every way to break the flow that this guide promises to play.
const PROMISED: [&str; 45] = [
    "lease-expired-before-payment",
    "lease-expired-while-held",
    "scid-unknown",
    "scid-pruned",
    "scid-retired",
    "dust",
    "under-minimum",
    "over-maximum",
    "fee-not-below-payment",
    "two-payers-at-once",
    "second-payment-larger-than-channel",
    "mpp-variable",
    "mpp-fixed-client-trusts",
    "mpp-fixed-lsp-trusts",
    "over-skim",
    "second-skim",
    "skim-without-lease",
    "metadata-stripped",
    "metadata-foreign",
    "probe-random-hash",
    "stale-invoice",
    "server-refuses",
    "mailbox-flood",
    "slot-flood",
    "ten-unpaid-leases",
    "channelless-peer-251",
    "wrong-promise-secret",
    "lsps-malformed",
    "lsps-hostile",
    "clock-skew",
    "lsp-crash-every-step",
    "recipient-crash-before-consumed",
    "recipient-crash-after-consumed",
    "payer-lsp-restart",
    "funding-fails",
    "funding-runs-out",
    "recipient-refuses-channel",
    "recipient-vanishes-before",
    "recipient-vanishes-during",
    "recipient-vanishes-after",
    "force-close-during-forward",
    "funding-double-spent",
    "funding-reorg",
    "held-beyond-window",
    "window-extra-delta",
];

/// That their entries exist, the build demands.
#[test]
fn every_promised_scenario_is_listed_and_its_tests_exist() {
    let listed = scenarios(&root()).unwrap();
    let ids: BTreeSet<_> = listed.iter().map(|scenario| scenario.id.as_str()).collect();
    let missing: Vec<_> = PROMISED.iter().filter(|id| !ids.contains(*id)).collect();
    assert!(missing.is_empty(), "src/data/lab lists no {missing:?}");
    let sources = Sources::new(&root());
    for scenario in &listed {
        assert!(!scenario.tests.is_empty(), "{} is played by no test", scenario.id);
        for test in &scenario.tests {
            sources.test(test).unwrap_or_else(|error| panic!("{}: {error}", scenario.id));
        }
    }
    let shown = fs::read_to_string(root().join("src/failures.md")).unwrap();
    assert!(shown.contains("{{#scenarios}}"), "no page lists the scenarios");
}

/// What once stood on one page has its old address.
#[test]
fn every_fragment_that_moved_leads_to_what_is_there() {
    let config: toml::Table =
        fs::read_to_string(root().join("book.toml")).unwrap().parse().unwrap();
    let moved = config["output"]["html"]["redirect"].as_table().unwrap();
    assert!(moved.len() > 50, "{}", moved.len());
    for (from, to) in moved {
        let to = to.as_str().unwrap();
        let (page, id) = to.split_once('#').unwrap_or((to, ""));
        let html = fs::read_to_string(built().dest.join(page))
            .unwrap_or_else(|error| panic!("{from} leads to {to}: {error}"));
        assert!(id.is_empty() || html.contains(&format!("id=\"{id}\"")), "{from} leads to {to}");
        let (page, id) = from.trim_start_matches('/').split_once('#').unwrap();
        let html = fs::read_to_string(built().dest.join(page)).unwrap();
        assert!(!html.contains(&format!("id=\"{id}\"")), "{from} is there, and leads away");
        assert!(html.contains(&format!("\"#{id}\":\"{to}\"")), "{page} does not lead on to {to}");
    }
}

/// Somebody who searches for an error's text searches for what a program wrote.
#[test]
fn the_texts_that_entries_quote_are_a_programs() {
    let mut written = String::new();
    let crates = Crates::find(&root()).unwrap();
    for folder in crates.folders() {
        add(&folder.join("src"), &mut written);
    }
    for ours in ["listings", "tests/recorded"] {
        add(&root().join(ours), &mut written);
    }
    let mut quoted = 0;
    let mut unknown = Vec::new();
    for entry in fs::read_dir(root().join("src")).unwrap() {
        let path = entry.unwrap().path();
        let page = path.file_name().unwrap().to_string_lossy().into_owned();
        if !page.starts_with("fail-") {
            continue;
        }
        for (line, text) in quoted_texts(&page, &fs::read_to_string(&path).unwrap()) {
            let mut parts = text.split('…').map(str::trim).filter(|part| !part.is_empty());
            quoted += 1;
            if !parts.all(|part| written.contains(part)) {
                unknown.push(format!("src/{page}:{line}: \"{text}\""));
            }
        }
    }
    assert!(quoted > 30, "{quoted}");
    assert!(unknown.is_empty(), "no program writes this:\n{}", unknown.join("\n"));
}

/// The sources and recordings below a folder, each text of a program on one line.
fn add(folder: &Path, out: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let ending = path.extension().unwrap_or_default();
        if path.is_dir() && !path.ends_with("target") {
            add(&path, out);
        } else if ending == "rs" || ending == "jsonl" {
            let text = fs::read_to_string(&path).unwrap();
            // A literal goes on after a backslash; another may follow in the next line.
            for line in text.lines() {
                match line.trim_start().strip_suffix('\\') {
                    Some(begun) => out.push_str(begun),
                    None => {
                        out.push_str(line.trim_start());
                        out.push('\n');
                    }
                }
            }
        }
    }
}
