//! What cargo says while it builds and tests.

use super::{cargo_program, relative};
use anyhow::{Result, bail};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A thing that cargo builds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The package.
    pub package: String,
    /// The target's name; a library's may be spelt with `_`.
    pub name: String,
    /// `lib`, `bin`, `test`, `bench`.
    pub kind: String,
    /// Its first source file, relative to the repository.
    pub file: PathBuf,
    /// Whether it holds tests that `cargo test` runs.
    pub tested: bool,
}

/// An error of the compiler.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CompileError {
    /// The file, relative to the repository; a dependency's file is left as the compiler names it.
    pub file: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
    /// `E0599`, or nothing.
    pub code: Option<String>,
    /// The first line of what the compiler says.
    pub message: String,
}

/// What `cargo check` got done.
#[derive(Debug, Clone, Default)]
pub struct Built {
    /// Every error once, in the order of files and lines.
    pub errors: Vec<CompileError>,
    /// The targets whose tests compile.
    pub tests: BTreeSet<Target>,
    /// The targets of which something compiles.
    pub any: BTreeSet<Target>,
    /// The targets that have errors of their own.
    pub broken: BTreeSet<Target>,
}

#[derive(Deserialize)]
struct Line {
    reason: String,
    target: Option<LineTarget>,
    profile: Option<Profile>,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct LineTarget {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
    #[serde(default)]
    test: bool,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    message: String,
    code: Option<Code>,
    spans: Vec<Span>,
}

#[derive(Deserialize)]
struct Code {
    code: String,
}

#[derive(Deserialize)]
struct Span {
    file_name: PathBuf,
    line_start: usize,
    is_primary: bool,
    expansion: Option<Box<Expansion>>,
}

#[derive(Deserialize)]
struct Expansion {
    span: Span,
}

impl Span {
    /// Where the code stands that a macro was called in, if it was one.
    fn written(&self) -> &Self {
        self.expansion.as_ref().map_or(self, |expansion| expansion.span.written())
    }
}

/// Reads `cargo check --message-format=json`, one object a line.
#[must_use]
pub fn parse_messages(stdout: &str, root: &Path, targets: &[Target]) -> Built {
    let mut built = Built::default();
    let mut errors = BTreeSet::new();
    for line in stdout.lines() {
        let Ok(line) = serde_json::from_str::<Line>(line) else { continue };
        let target = line.target.as_ref().and_then(|target| {
            let file = relative(&target.src_path, root);
            targets.iter().find(|known| known.file == file && known.name == target.name)
        });
        if line.reason == "compiler-artifact" {
            let Some(target) = target else { continue };
            built.any.insert(target.clone());
            if line.profile.is_some_and(|profile| profile.test) {
                built.tests.insert(target.clone());
            }
        } else if let Some(message) = line.message.filter(|message| message.level == "error") {
            built.broken.extend(target.cloned());
            // The last word, `aborting due to …`, points nowhere.
            let Some(span) = message.spans.iter().find(|span| span.is_primary) else { continue };
            let span = span.written();
            errors.insert(CompileError {
                file: relative(&span.file_name, root),
                line: span.line_start,
                code: message.code.map(|code| code.code),
                message: message.message.lines().next().unwrap_or_default().to_owned(),
            });
        }
    }
    built.errors = errors.into_iter().collect();
    built
}

/// The tests that `cargo test` calls failed, as `(target, path::of::test)`.
#[must_use]
pub fn parse_tests(output: &str) -> Vec<(String, String)> {
    with_verdict(output, "FAILED")
}

/// The tests that it calls passed.
pub(super) fn parse_passed(output: &str) -> Vec<(String, String)> {
    with_verdict(output, "ok")
}

fn with_verdict(output: &str, verdict: &str) -> Vec<(String, String)> {
    let mut target = String::new();
    let mut found = Vec::new();
    for line in output.lines() {
        let line = line.trim();
        if let Some(running) = line.strip_prefix("Running ") {
            // `unittests src/lib.rs (target/debug/deps/node-0123456789abcdef)`
            let program = running.rsplit(['/', '\\', '(']).next().unwrap_or_default();
            let program = program.trim_end_matches(')').trim_end_matches(".exe");
            let name = program.rsplit_once('-').map_or(program, |(name, _hash)| name);
            name.clone_into(&mut target);
        } else if let Some(of) = line.strip_prefix("Doc-tests ") {
            of.clone_into(&mut target);
        } else if let Some(test) = line.strip_prefix("test ").and_then(|line| named(line, verdict))
        {
            found.push((target.clone(), test.to_owned()));
        }
    }
    found
}

/// `name ... FAILED`, `name - should panic ... FAILED`.
fn named<'a>(line: &'a str, verdict: &str) -> Option<&'a str> {
    let (test, said) = line.split_once(" ... ")?;
    said.starts_with(verdict).then(|| test.split(" - ").next().unwrap_or(test))
}

/// Every target of the workspace but build scripts.
pub(super) fn targets(root: &Path) -> Result<Vec<Target>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        targets: Vec<LineTarget>,
    }
    let out = Command::new(cargo_program())
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()?;
    if !out.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    let metadata: Metadata = serde_json::from_slice(&out.stdout)?;
    let mut targets = Vec::new();
    for package in metadata.packages {
        for target in package.targets {
            let kind = target.kind.first().cloned().unwrap_or_default();
            if kind != "custom-build" {
                targets.push(Target {
                    package: package.name.clone(),
                    file: relative(&target.src_path, root),
                    tested: target.test && kind != "bench",
                    name: target.name,
                    kind,
                });
            }
        }
    }
    targets.sort();
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(package: &str, name: &str, kind: &str, file: &str) -> Target {
        let text = str::to_owned;
        Target {
            package: text(package),
            name: text(name),
            kind: text(kind),
            file: file.into(),
            tested: true,
        }
    }

    #[test]
    fn errors_are_found_once_and_where_they_are_written() {
        let lib = target("node", "node", "lib", "listings/node/src/lib.rs");
        let system = target("guide", "system", "test", "tests/main.rs");
        let known = [lib.clone(), system.clone()];
        let lib_json =
            r#""target":{"name":"node","kind":["lib"],"src_path":"/w/listings/node/src/lib.rs"}"#;
        let span = |file: &str, line: u32, more: &str| {
            format!(
                r#"{{"file_name":"{file}","line_start":{line},"is_primary":true,"expansion":{more}}}"#
            )
        };
        let error = |span: &str| {
            format!(
                r#"{{"reason":"compiler-message",{lib_json},"message":{{"level":"error","message":"no method `x`\nmore","code":{{"code":"E0599"}},"spans":[{span}]}}}}"#
            )
        };
        let here = span("listings/node/src/node.rs", 12, "null");
        let in_macro = format!(r#"{{"span":{}}}"#, span("listings/node/src/lsp.rs", 7, "null"));
        let in_macro = span("/registry/tokio/src/macros.rs", 99, &in_macro);
        let lines = [
            error(&here),
            error(&here),
            error(&in_macro),
            format!(
                r#"{{"reason":"compiler-message",{lib_json},"message":{{"level":"warning","message":"unused","code":null,"spans":[{here}]}}}}"#
            ),
            format!(
                r#"{{"reason":"compiler-message",{lib_json},"message":{{"level":"error","message":"aborting due to 2 previous errors","code":null,"spans":[]}}}}"#
            ),
            r#"{"reason":"compiler-artifact","target":{"name":"system","kind":["test"],"src_path":"/w/listings/guide/../../tests/main.rs"},"profile":{"test":true}}"#.to_owned(),
            r#"{"reason":"build-finished","success":false}"#.to_owned(),
            "not JSON".to_owned(),
        ];
        let built = parse_messages(&lines.join("\n"), Path::new("/w"), &known);
        let places: Vec<_> =
            built.errors.iter().map(|e| (e.file.to_str().unwrap(), e.line)).collect();
        assert_eq!(places, [("listings/node/src/lsp.rs", 7), ("listings/node/src/node.rs", 12)]);
        assert_eq!(built.errors[0].code.as_deref(), Some("E0599"));
        assert_eq!(built.errors[0].message, "no method `x`");
        assert!(built.broken.contains(&lib) && !built.broken.contains(&system));
        assert!(built.tests.contains(&system) && !built.tests.contains(&lib));
    }

    #[test]
    fn failed_tests_are_found_with_their_target() {
        let output = "\
     Running unittests src/lib.rs (target/debug/deps/lsps2_async-0123456789abcdef)
running 2 tests
test lease::tests::expires ... ok
test router::tests::picks ... FAILED
     Running ../../tests/main.rs (target/debug/deps/system-0123456789abcdef)
test money::pays - should panic ... FAILED
test money::waits ... ignored, needs a network
   Doc-tests book
test listings/book/src/lib.rs - it (line 3) ... FAILED
test result: FAILED. 1 passed; 2 failed";
        let failed = parse_tests(output);
        let failed: Vec<_> = failed.iter().map(|(t, n)| (t.as_str(), n.as_str())).collect();
        assert_eq!(
            failed,
            [
                ("lsps2_async", "router::tests::picks"),
                ("system", "money::pays"),
                ("book", "listings/book/src/lib.rs"),
            ]
        );
        assert_eq!(
            parse_passed(output),
            [("lsps2_async".to_owned(), "lease::tests::expires".to_owned())]
        );
    }
}
