//! LDK's own traps, from `src/data/traps.toml`: what LDK does unguarded, and what guards against it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

use crate::claims::SourceLine;

/// Where they are listed.
const FILE: &str = "src/data/traps.toml";

/// A habit of LDK's that costs money or time where nobody guards against it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trap {
    /// Unique, in kebab case; a part of what its test says when it fails.
    pub id: String,
    /// The heading it stands under.
    pub group: String,
    /// Its own heading, which names no version.
    pub title: String,
    /// What LDK does, one sentence of Markdown.
    pub says: String,
    /// Lines of LDK, `crate/path.rs:line text`.
    pub source: Vec<String>,
    /// The line of LDK's documentation that says so, likewise.
    pub documented: Option<String>,
    /// The test that shows it without a guard, `path/to/file.rs::name`.
    pub unguarded: Option<String>,
    /// Why no test shows it.
    pub untestable: Option<String>,
    /// The test that shows our guard.
    pub ours: String,
    /// What is lost, or hangs.
    pub consequence: String,
    /// What guards against it, in Markdown.
    pub cure: String,
    /// What to ask of upstream.
    pub tell: String,
    /// Where upstream speaks of it.
    #[serde(default)]
    pub upstream: Vec<String>,
}

impl Trap {
    /// The lines of LDK that set it, and the one that documents it.
    ///
    /// # Errors
    /// If one is not `crate/path.rs:line text`.
    pub fn source_lines(&self) -> Result<Vec<SourceLine>, String> {
        self.source.iter().chain(&self.documented).map(|line| SourceLine::parse(line)).collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    trap: Vec<Trap>,
}

/// Every trap, in the order of the page.
///
/// # Errors
/// If the file cannot be read, or a trap lacks something.
pub fn traps(root: &Path) -> Result<Vec<Trap>, String> {
    let text = std::fs::read_to_string(root.join(FILE)).map_err(|e| format!("{FILE}: {e}"))?;
    read(&text)
}

fn read(text: &str) -> Result<Vec<Trap>, String> {
    let file: File = toml::from_str(text).map_err(|e| format!("{FILE}: {e}"))?;
    let mut seen = BTreeSet::new();
    for trap in &file.trap {
        let wrong = |what: &str| Err(format!("{FILE}: the trap `{}` {what}", trap.id));
        if !seen.insert(&trap.id) {
            return wrong("stands twice");
        }
        if trap.source.is_empty() {
            return wrong("names no line of LDK");
        }
        trap.source_lines().map_err(|what| format!("{FILE}: {what}"))?;
        match (&trap.unguarded, &trap.untestable) {
            (None, None) | (Some(_), Some(_)) => {
                return wrong("is shown by a test, or says why none can");
            }
            (Some(unguarded), None) if *unguarded == trap.ours => {
                return wrong("has one test for both sides");
            }
            (Some(unguarded), None) if !is_unguarded(unguarded) => {
                return wrong("is shown by a test whose name does not begin with `ldk_`");
            }
            _ => {}
        }
    }
    Ok(file.trap)
}

/// By their names it is clear that such tests want LDK as it is.
fn is_unguarded(test: &str) -> bool {
    test.rsplit("::").next().is_some_and(|name| name.starts_with("ldk_"))
}

/// The traps as sections, in Markdown.
///
/// # Errors
/// If the file cannot be read, or a trap lacks something.
pub(crate) fn sections(root: &Path) -> Result<String, String> {
    Ok(page(&traps(root)?))
}

fn page(traps: &[Trap]) -> String {
    let mut out = String::new();
    let mut group = "";
    for trap in traps {
        if trap.group != group {
            group = &trap.group;
            let _ = writeln!(out, "## {group}\n");
        }
        let _ = writeln!(out, "### {} {{#{}}}\n\n{}\n", trap.title, trap.id, trap.says);
        match (&trap.unguarded, &trap.untestable) {
            (Some(test), _) => {
                let _ = writeln!(out, "- **Shown by** {{{{#test {test}}}}}");
            }
            (None, why) => {
                let why = why.as_deref().unwrap_or_default();
                let _ = writeln!(out, "- **Shown by** no test: {why}");
            }
        }
        let lines = trap.source.iter().map(|line| format!("{{{{#at {line}}}}}"));
        let _ = writeln!(out, "- **In LDK**: {}", lines.collect::<Vec<_>>().join(", "));
        if let Some(line) = &trap.documented {
            let _ = writeln!(out, "- **Documented**: {{{{#at {line}}}}}");
        }
        let _ = writeln!(out, "- **Costs**: {}", trap.consequence);
        let _ = writeln!(out, "- **Our guard**: {} {{{{#test {}}}}}", trap.cure, trap.ours);
        let links = trap.upstream.iter().map(|url| format!(" [{}]({url})", short(url)));
        let _ =
            writeln!(out, "- **To ask of upstream**: {}{}\n", trap.tell, links.collect::<String>());
    }
    out
}

/// `rust-lightning#3468` of the address of an issue or a pull request.
fn short(url: &str) -> String {
    let mut parts = url.rsplit('/');
    let (number, _, repository) = (parts.next(), parts.next(), parts.next());
    match (repository, number) {
        (Some(repository), Some(number)) => format!("{repository}\\#{number}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trap(unguarded: &str, ours: &str) -> String {
        format!(
            "[[trap]]\nid = \"a\"\ngroup = \"Leases\"\ntitle = \"A lease goes\"\nsays = \"It goes.\"\n\
             source = [\"lightning/src/lib.rs:3 text\"]\n{unguarded}\nours = \"{ours}\"\n\
             consequence = \"Money.\"\ncure = \"A table.\"\ntell = \"Keep it.\"\n\
             upstream = [\"https://github.com/lightningdevkit/rust-lightning/issues/3468\"]\n"
        )
    }

    const UNGUARDED: &str = "unguarded = \"a/unguarded.rs::ldk_a\"";

    #[test]
    fn a_trap_is_shown_from_both_sides() {
        let page = page(&read(&trap(UNGUARDED, "a/tests.rs::b")).unwrap());
        for part in [
            "## Leases\n\n### A lease goes {#a}\n\nIt goes.\n",
            "- **Shown by** {{#test a/unguarded.rs::ldk_a}}\n",
            "- **In LDK**: {{#at lightning/src/lib.rs:3 text}}\n",
            "- **Our guard**: A table. {{#test a/tests.rs::b}}\n",
            "[rust-lightning\\#3468](https://github.com/lightningdevkit/rust-lightning/issues/3468)",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
    }

    #[test]
    fn what_ldk_documents_is_said_to_be_documented() {
        let plain = read(&trap(UNGUARDED, "a/tests.rs::b")).unwrap();
        assert!(!page(&plain).contains("**Documented**"));
        let line = format!("documented = \"lightning/src/lib.rs:4 so\"\n{UNGUARDED}");
        let documented = read(&trap(&line, "a/tests.rs::b")).unwrap();
        assert_eq!(documented[0].source_lines().unwrap().len(), 2);
        let shown = page(&documented);
        assert!(shown.contains("- **Documented**: {{#at lightning/src/lib.rs:4 so}}\n"), "{shown}");
        let bare = trap(&line.replace("lightning/src/lib.rs:4 ", ""), "a/tests.rs::b");
        assert!(read(&bare).unwrap_err().contains("is not `crate/path.rs"));
    }

    #[test]
    fn a_trap_that_lacks_something_is_an_error() {
        let wrong = |text: &str, what: &str| {
            let problem = read(text).unwrap_err();
            assert!(problem.contains(what), "{problem}");
        };
        wrong(&trap("", "a/tests.rs::b"), "or says why none can");
        wrong(&trap(UNGUARDED, "a/unguarded.rs::ldk_a"), "one test for both sides");
        wrong(&trap("unguarded = \"a.rs::shows\"", "a.rs::b"), "does not begin with `ldk_`");
        let one = trap(UNGUARDED, "a/tests.rs::b");
        wrong(&format!("{one}{one}"), "stands twice");
        wrong(&one.replace("lightning/src/lib.rs:3 text", "lib.rs"), "is not `crate/path.rs");
        let why = trap("untestable = \"It is a race.\"", "a/tests.rs::b");
        assert!(page(&read(&why).unwrap()).contains("no test: It is a race."));
    }
}
