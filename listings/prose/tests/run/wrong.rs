//! Wrong code that the pages show is wrong in the way they say: each file in `wrong/` gets the one
//! error its test names. It is compiled as the programs on the pages are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Interception is chosen by a byte of flags; the switch of earlier releases is not there.
#[test]
fn accept_intercept_htlcs_is_no_field() {
    assert_eq!(errors(&wrong("accept_intercept_htlcs")), ["E0609"]);
}

/// Every inbound channel asks first, so there is nothing to switch on.
#[test]
fn manually_accept_inbound_channels_is_no_field() {
    assert_eq!(errors(&wrong("manually_accept_inbound_channels")), ["E0609"]);
}

/// A snippet nobody tests would be wrong in any way it likes.
#[test]
fn every_wrong_snippet_has_its_test() {
    let tested = include_str!("wrong.rs");
    for entry in fs::read_dir(folder()).expect("the folder of wrong snippets") {
        let name = entry.expect("an entry").path().file_stem().expect("a name").to_owned();
        let call = format!("wrong(\"{}\")", name.display());
        assert!(tested.contains(&call), "no test compiles wrong/{}.rs", name.display());
    }
}

#[test]
fn right_code_and_nonsense_are_told_apart_from_wrong_code() {
    assert_eq!(errors("fn main() {}"), [""; 0]);
    assert_eq!(errors("fn main() { let x: u8 = 'a'; }"), ["E0308"]);
    // The parser's errors have no code.
    assert_eq!(errors("this is not Rust"), ["none"]);
}

/// The codes of the errors, each once; `none` for an error that has no code.
fn errors(program: &str) -> Vec<String> {
    // Skeptic writes the compiler's words to the standard error of the process and panics: run it
    // in a process of its own, which is this test's executable once more.
    let child = Command::new(env::current_exe().expect("this test's executable"))
        .args(["--exact", "wrong::compile", "--ignored", "--nocapture"])
        .env("PROGRAM", program)
        .output()
        .expect("the test's executable runs");
    let stdout = String::from_utf8_lossy(&child.stdout);
    assert!(stdout.contains("running 1 test"), "nothing was compiled: {stdout}");
    let stderr = String::from_utf8_lossy(&child.stderr);
    let codes: BTreeSet<&str> = stderr
        .lines()
        .filter(|line| !line.starts_with("error: aborting"))
        .filter_map(|line| line.strip_prefix("error"))
        .filter_map(|rest| match rest.strip_prefix('[') {
            Some(code) => code.split(']').next(),
            None => rest.starts_with(':').then_some("none"),
        })
        .collect();
    assert_eq!(child.status.success(), codes.is_empty(), "{stdout}{stderr}");
    codes.into_iter().map(str::to_owned).collect()
}

/// Not a test: what [`errors`] starts.
#[test]
#[ignore = "run by the other tests, in a process of its own"]
fn compile() {
    if let Ok(program) = env::var("PROGRAM") {
        let (root, out) = (env!("CARGO_MANIFEST_DIR"), env!("OUT_DIR"));
        skeptic::rt::compile_test(root, out, env!("SNIPPET_TARGET"), &program);
    }
}

fn wrong(name: &str) -> String {
    fs::read_to_string(folder().join(name).with_extension("rs")).expect("a wrong snippet")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("wrong")
}
