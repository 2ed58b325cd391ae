//! LDK's own traps: each is shown without a guard, and guarded.

use ::book::{Sources, traps};
use guide::upgrade::{Crates, Standing};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

#[test]
fn every_trap_has_two_tests_and_a_line_of_ldk_that_is_there() {
    let (root, traps) = (root(), traps(&root()).unwrap());
    let (sources, crates) = (Sources::new(&root), Crates::find(&root).unwrap());
    let mut wrong = Vec::new();
    for trap in &traps {
        for test in trap.unguarded.iter().chain([&trap.ours]) {
            if let Err(what) = sources.test(test) {
                wrong.push(format!("{}: {what}", trap.id));
            }
        }
        // `upgrade-check` looks for the id in what a failing test says.
        if let Some((file, _)) = trap.unguarded.as_ref().and_then(|test| test.split_once("::"))
            && !read(file).contains(&format!("\"{}\"", trap.id))
        {
            wrong.push(format!("{}: {file} does not name it", trap.id));
        }
        for line in trap.source_lines().unwrap() {
            let standing = crates.standing(&line);
            if standing != Standing::There {
                wrong.push(format!("{}: {}:{} {standing:?}", trap.id, line.path, line.line));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(traps.len() >= 30, "{}", traps.len());
}

/// A trap that a test knows and nobody lists would not be on the page.
#[test]
fn every_test_of_a_trap_is_listed() {
    let listed: BTreeSet<_> =
        traps(&root()).unwrap().into_iter().filter_map(|trap| trap.unguarded).collect();
    for file in ["listings/lsps2-async/src/lsp/unguarded.rs", "tests/lab/traps.rs"] {
        for line in read(file).lines() {
            let named = line.trim_start().trim_start_matches("async ").strip_prefix("fn ldk_");
            let Some(name) = named.and_then(|rest| rest.split_once('(')) else { continue };
            let test = format!("{file}::ldk_{}", name.0);
            assert!(listed.contains(&test), "{test} is not in src/data/traps.toml");
        }
    }
}

#[test]
fn what_upstream_says_of_a_trap_is_linked_like_all_that_is_elsewhere() {
    let known = read("src/data/external-links.txt");
    for trap in traps(&root()).unwrap() {
        for url in &trap.upstream {
            assert!(known.lines().any(|line| line == url), "{}: {url}", trap.id);
        }
    }
}

/// The other side of a race that no test can hold: what asserts is not built.
#[test]
fn the_lsps2_of_ldk_is_built_without_the_assertions_that_race() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let package = &manifest["profile"]["dev"]["package"]["lightning-liquidity"];
    assert_eq!(package["debug-assertions"].as_bool(), Some(false));
}
