//! What fails: the scenarios that must be there, and the addresses that must stay.

use crate::book::{built, root};
use book::{Sources, scenarios};
use std::collections::BTreeSet;
use std::fs;

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
