//! What breaks, from the compiler's words to the chapters, tests and claims.

use super::cargo::{Built, CompileError, Target};
use super::sources::{Crates, Standing};
use super::traps::{Ran, Traps};
use book::{Ledger, Shown, SourceLine, Sources, Trap};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};

/// All that was found out.
pub(super) struct Found {
    pub old: String,
    pub new: String,
    pub built: Built,
    pub failed: Vec<(String, String)>,
    pub passed: Vec<(String, String)>,
    /// What `cargo test` printed.
    pub output: String,
    pub traps: Vec<Trap>,
    pub targets: Vec<Target>,
    pub shown: Vec<Shown>,
    pub ledger: Ledger,
    pub crates: Crates,
    pub sources: Sources,
    pub tests: Vec<Test>,
}

/// A test function of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    pub file: PathBuf,
    pub name: String,
    pub target: Target,
}

/// What breaks.
#[derive(Debug, Clone, Default)]
pub struct Report {
    old: String,
    new: String,
    /// Each error, with the item that holds it.
    errors: Vec<(CompileError, Option<String>)>,
    /// Targets without errors of their own that need one with errors.
    unreached: Vec<String>,
    listings: Listings,
    /// Broken tests by file.
    tests: BTreeMap<PathBuf, Vec<String>>,
    /// The ids of claims that rest on a broken test, with these tests.
    claims: BTreeMap<String, Vec<String>>,
    /// Claims' source lines that are nowhere in their file any more.
    gone: Vec<Lost>,
    /// Claims' source lines that are elsewhere in their file.
    moved: Vec<Lost>,
    traps: Traps,
}

/// A line of LDK that is not where a claim says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lost {
    claim: String,
    line: String,
    now: String,
}

#[derive(Debug, Clone, Default)]
struct Listings {
    /// Slices that hold an error, with the chapter.
    hit: BTreeSet<(String, String)>,
    /// Other slices of files with errors.
    beside: BTreeSet<(String, String)>,
}

impl Report {
    pub(super) fn new(found: Found) -> Self {
        let errors: Vec<_> = found
            .built
            .errors
            .iter()
            .map(|error| (error.clone(), found.sources.item_at(&error.file, error.line)))
            .collect();
        let clean = errors.is_empty();
        let reached = |target: &&Target| {
            found.built.any.contains(target) || found.built.broken.contains(target)
        };
        let unreached = found.targets.iter().filter(|target| !clean && !reached(target));

        let breaks = |test: &Test| match clean {
            true => found.failed.iter().any(|failed| test.is(failed)),
            false => !found.built.tests.contains(&test.target),
        };
        let broken: Vec<&Test> = found.tests.iter().filter(|test| breaks(test)).collect();
        let mut tests = BTreeMap::<PathBuf, Vec<String>>::new();
        for test in &broken {
            tests.entry(test.file.clone()).or_default().push(test.name.clone());
        }
        let mut claims = BTreeMap::new();
        for claim in &found.ledger.claims {
            let rests = |name: &&String| broken.iter().any(|test| test.spec() == **name);
            let on: Vec<String> = claim.test.iter().filter(rests).cloned().collect();
            if !on.is_empty() {
                claims.insert(claim.id.clone(), on);
            }
        }
        let mut gone = Vec::new();
        let mut moved = Vec::new();
        for claim in &found.ledger.claims {
            let lines = claim.source_lines().unwrap_or_default();
            lost(&claim.id, &lines, &found.crates, &mut gone, &mut moved);
        }
        for trap in &found.traps {
            let lines = trap.source_lines().unwrap_or_default();
            lost(&format!("trap {}", trap.id), &lines, &found.crates, &mut gone, &mut moved);
        }
        let ran = Ran {
            tests: &found.tests,
            compiles: &|test| clean || found.built.tests.contains(&test.target),
            output: &found.output,
            passed: &found.passed,
            failed: &found.failed,
        };
        Self {
            traps: Traps::judge(found.traps, &ran),
            listings: listings(&found.built.errors, &found.shown),
            unreached: unreached.map(Target::to_string).collect(),
            gone,
            moved,
            old: found.old,
            new: found.new,
            errors,
            tests,
            claims,
        }
    }

    /// Whether anything breaks.
    #[must_use]
    pub fn breaks(&self) -> bool {
        !(self.errors.is_empty()
            && self.tests.is_empty()
            && self.gone.is_empty()
            && self.moved.is_empty())
    }
}

impl Test {
    /// As claims name it.
    pub(super) fn spec(&self) -> String {
        format!("{}::{}", self.file.display(), self.name)
    }

    /// Whether this is the test that failed as `(target, path::of::test)`.
    pub(super) fn is(&self, (target, path): &(String, String)) -> bool {
        if self.target.name.replace('-', "_") != target.replace('-', "_") {
            return false;
        }
        let folder = self.target.file.parent().unwrap_or(Path::new(""));
        let file = self.file.strip_prefix(folder).unwrap_or(&self.file).with_extension("");
        let module = file.components().map(|part| part.as_os_str().to_string_lossy());
        let module = module.filter(|part| !matches!(part.as_ref(), "mod" | "lib" | "main"));
        let mut path = path.split("::");
        // A macro may put the test into a module of its name: the name is some part of the rest.
        module.into_iter().all(|part| path.next() == Some(part.as_ref()))
            && path.any(|part| part == self.name)
    }
}

impl Display for Target {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.package, self.kind)?;
        if self.kind != "lib" && self.name != self.package {
            write!(f, " {}", self.name)?;
        }
        Ok(())
    }
}

fn listings(errors: &[CompileError], shown: &[Shown]) -> Listings {
    let mut listings = Listings::default();
    for slice in shown {
        let mut inside = errors.iter().filter(|error| error.file == slice.file).peekable();
        if inside.peek().is_none() {
            continue;
        }
        let (first, last) = slice.lines;
        let what = format!("{} {}", slice.file.display(), slice.what).trim().to_owned();
        let entry = (slice.chapter.clone(), what);
        if inside.any(|error| (first..=last).contains(&error.line)) {
            listings.beside.remove(&entry);
            listings.hit.insert(entry);
        } else if !listings.hit.contains(&entry) {
            listings.beside.insert(entry);
        }
    }
    listings
}

fn lost(
    of: &str,
    lines: &[SourceLine],
    crates: &Crates,
    gone: &mut Vec<Lost>,
    moved: &mut Vec<Lost>,
) {
    for line in lines {
        let (list, now) = match crates.standing(line) {
            Standing::There => continue,
            Standing::Moved(lines) => (&mut *moved, format!("now on line {}", lines[0])),
            Standing::Gone => (&mut *gone, "the file has no such text".to_owned()),
            Standing::NoFile => (&mut *gone, "there is no such file".to_owned()),
        };
        let place = format!("{}/{}:{} {}", line.package, line.path, line.line, line.text);
        list.push(Lost { claim: of.to_owned(), line: place, now });
    }
}

/// Every test function in the files of the workspace, with the target it is compiled into.
pub(super) fn tests_of(root: &Path, sources: &Sources, targets: &[Target]) -> Vec<Test> {
    let mut tests = Vec::new();
    for file in sources.rust_files() {
        let holds = |target: &&Target| {
            target.tested && target.file.parent().is_some_and(|folder| file.starts_with(folder))
        };
        // The nearest folder; of a library and a program in the same one, the library.
        let depth =
            |target: &&Target| (target.file.components().count(), target.file.ends_with("lib.rs"));
        let Some(target) = targets.iter().filter(holds).max_by_key(depth) else { continue };
        let Ok(text) = fs::read_to_string(root.join(&file)) else { continue };
        for name in functions(&text) {
            if sources.test(&format!("{}::{name}", file.display())).is_ok() {
                tests.push(Test { file: file.clone(), name, target: target.clone() });
            }
        }
    }
    tests
}

/// The names after `fn`, each once, and those that a macro for tests lists.
fn functions(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut listing = false;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("fn ") {
            names.insert(rest.chars().take_while(|c| word(*c)).collect());
        }
        listing = (listing && line != "}") || line.starts_with("on_every_chain!");
        if listing {
            names.extend(line.split(|c| !word(c)).map(str::to_owned));
        }
    }
    names.remove("");
    names
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "LDK {} in place of {}\n", self.new, self.old)?;
        write!(f, "{}", self.traps)?;
        if !self.breaks() {
            return writeln!(f, "Nothing breaks.");
        }
        if !self.errors.is_empty() {
            writeln!(f, "Compile errors")?;
            for (error, item) in &self.errors {
                let item = item.as_ref().map(|item| format!("  in {item}")).unwrap_or_default();
                writeln!(f, "  {}:{}{item}", error.file.display(), error.line)?;
                let code = error.code.as_ref().map(|code| format!("{code} ")).unwrap_or_default();
                writeln!(f, "    {code}{}", error.message)?;
            }
            writeln!(f)?;
        }
        if !self.unreached.is_empty() {
            writeln!(f, "Not compiled, because what it needs has errors")?;
            for target in &self.unreached {
                writeln!(f, "  {target}")?;
            }
            writeln!(f)?;
        }
        section(f, "Listings with an error in them", &self.listings.hit)?;
        section(f, "Other listings from the same files", &self.listings.beside)?;
        if !self.tests.is_empty() {
            let title = match self.errors.is_empty() {
                true => "Tests that fail",
                false => "Tests that do not compile",
            };
            writeln!(f, "{title}")?;
            for (file, names) in &self.tests {
                writeln!(f, "  {}: {}", file.display(), names.len())?;
                for name in names {
                    writeln!(f, "    {name}")?;
                }
            }
            writeln!(f)?;
        }
        if !self.claims.is_empty() {
            writeln!(f, "Claims that rest on these tests")?;
            for (id, tests) in &self.claims {
                writeln!(f, "  {id}")?;
                for test in tests {
                    writeln!(f, "    {test}")?;
                }
            }
            writeln!(f)?;
        }
        for (title, lines) in [
            ("Claims and traps whose line in LDK's sources is gone", &self.gone),
            ("Claims and traps whose line in LDK's sources moved", &self.moved),
        ] {
            if !lines.is_empty() {
                writeln!(f, "{title}")?;
                for Lost { claim, line, now } in lines {
                    writeln!(f, "  {claim}\n    {line}\n    {now}")?;
                }
                writeln!(f)?;
            }
        }
        let count = |n: usize, one: &str| format!("{n} {one}{}", if n == 1 { "" } else { "s" });
        writeln!(
            f,
            "In all: {}, {} with one and {} beside, {}, {} on these, {} gone and {} moved.",
            count(self.errors.len(), "compile error"),
            count(self.listings.hit.len(), "listing"),
            self.listings.beside.len(),
            count(self.tests.values().map(Vec::len).sum(), "test"),
            count(self.claims.len(), "claim"),
            count(self.gone.len(), "source line"),
            self.moved.len(),
        )
    }
}

fn section(
    f: &mut Formatter<'_>,
    title: &str,
    entries: &BTreeSet<(String, String)>,
) -> fmt::Result {
    if entries.is_empty() {
        return Ok(());
    }
    writeln!(f, "{title}")?;
    let mut chapter = "";
    for (of, what) in entries {
        if of != chapter {
            writeln!(f, "  src/{of}")?;
            chapter = of;
        }
        writeln!(f, "    {what}")?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(name: &str, file: &str) -> Target {
        Target {
            package: name.into(),
            name: name.into(),
            kind: "lib".into(),
            file: file.into(),
            tested: true,
        }
    }

    fn slice(chapter: &str, what: &str, lines: (usize, usize)) -> Shown {
        Shown { chapter: chapter.into(), file: "a.rs".into(), what: what.into(), lines }
    }

    #[test]
    fn a_failed_test_is_told_from_its_namesakes() {
        let test = |file: &str| Test {
            file: file.into(),
            name: "expires".into(),
            target: target("lsps2-async", "listings/lsps2-async/src/lib.rs"),
        };
        let failed = |path: &str| ("lsps2_async".to_owned(), path.to_owned());
        let nested = test("listings/lsps2-async/src/lease/tests.rs");
        assert!(nested.is(&failed("lease::tests::expires")));
        assert!(!nested.is(&failed("metadata::tests::expires")));
        assert!(!nested.is(&("node".to_owned(), "lease::tests::expires".to_owned())));
        let inline = test("listings/lsps2-async/src/lsp/sale.rs");
        assert!(inline.is(&failed("lsp::sale::tests::expires")));
        // `on_every_chain!` makes a module of the name.
        assert!(inline.is(&failed("lsp::sale::expires::embedded")));
    }

    #[test]
    fn listings_with_an_error_come_before_those_beside_it() {
        let errors =
            [CompileError { file: "a.rs".into(), line: 12, code: None, message: String::new() }];
        let shown = [
            slice("one.md", "hit", (10, 20)),
            slice("two.md", "beside", (30, 40)),
            Shown { file: "b.rs".into(), ..slice("two.md", "elsewhere", (10, 20)) },
        ];
        let listings = listings(&errors, &shown);
        let entry = |chapter: &str, what: &str| (chapter.to_owned(), what.to_owned());
        assert_eq!(listings.hit, [entry("one.md", "a.rs hit")].into());
        assert_eq!(listings.beside, [entry("two.md", "a.rs beside")].into());
    }

    #[test]
    fn a_report_says_what_breaks_or_that_nothing_does() {
        let mut report = Report { old: "1".into(), new: "2".into(), ..Report::default() };
        assert!(!report.breaks());
        assert!(report.to_string().contains("Nothing breaks."));
        let line = "lightning/src/a.rs:1 x".to_owned();
        report.gone.push(Lost { claim: "an-id".into(), line, now: "gone".into() });
        assert!(report.breaks());
        let text = report.to_string();
        assert!(text.contains("an-id\n    lightning/src/a.rs:1 x\n    gone"), "{text}");
        assert!(text.ends_with("1 source line gone and 0 moved.\n"), "{text}");
    }
}
