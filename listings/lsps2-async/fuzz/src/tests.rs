//! The corpus, through the same functions as the fuzzers', on any toolchain.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::seeds::corpus;
use crate::{TARGETS, Target};

/// Whatever is in a corpus is survived. What is not named `refused-…` or `found-…` is more than
/// refused: it gets past the reader, or it would be no use to start from.
fn replay(name: &str) {
    let (_, target): (_, Target) = *TARGETS.iter().find(|(one, _)| *one == name).expect(name);
    let mut files = 0;
    for entry in fs::read_dir(corpus(name)).expect("a corpus") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a seed");
        let file = path.file_name().expect("a name").to_string_lossy().into_owned();
        println!("{name}/{file}");
        let understood = target(&bytes);
        let may_be_refused = file.starts_with("refused-") || file.starts_with("found-");
        assert!(understood || may_be_refused, "{name}/{file} is only refused");
        // Cut short, and with something after it, it is survived too.
        target(&bytes[..bytes.len() / 2]);
        target(&[&bytes[..], &bytes[..]].concat());
        files += 1;
    }
    assert!(files > 0, "{name} has no seeds");
}

macro_rules! replays {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            replay(stringify!($name));
        }
    )* };
}

mod corpus_of {
    use super::replay;

    replays! {
        metadata lease_record lease_store claim mailbox static_invoices jit_table lsps_client
        lsps_sale explain
    }

    pub(super) const REPLAYED: usize = 10;
}

fn names(folder: &str) -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder).expect("a folder");
    let stem = |entry: fs::DirEntry| entry.path().file_stem().map(|s| s.to_string_lossy().into());
    entries.filter_map(|entry| stem(entry.expect("an entry"))).collect()
}

#[test]
fn every_target_has_a_program_and_a_corpus_that_is_replayed() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names("corpus"), targets);
    assert_eq!(names("fuzz_targets"), targets);
    assert_eq!(corpus_of::REPLAYED, targets.len());
    let manifest = include_str!("../Cargo.toml");
    assert_eq!(manifest.matches("[[bin]]").count(), targets.len());
}
