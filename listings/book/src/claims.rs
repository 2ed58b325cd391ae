//! The claim ledger: what this book states, and what each statement rests on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

use crate::facts::Versions;
use crate::html::{escape_markdown, literal};
use crate::problems::Problems;
use crate::sources::Sources;

/// One statement.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// Unique in the book, in kebab case.
    pub id: String,
    /// The statement, one sentence of Markdown.
    pub says: String,
    /// The numbers of the naive claims that it puts right.
    #[serde(default)]
    pub naive: Vec<u32>,
    /// The numbers of the statements in upstream's guide that it puts right.
    #[serde(default)]
    pub corrects: Vec<u32>,
    /// Tests of ours, `path/to/file.rs::name`.
    #[serde(default)]
    pub test: Vec<String>,
    /// Lines of LDK, `crate/path.rs:line text`.
    #[serde(default)]
    pub source: Vec<String>,
    /// Clauses of a specification, `URL | section | what it says`.
    #[serde(default)]
    pub spec: Vec<String>,
    /// The file of the ledger, relative to the repository.
    #[serde(skip)]
    pub file: String,
}

/// What a claim rests on, the strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// A test of ours fails if it is wrong.
    Tested,
    /// It was read in the sources of the pinned version; a test holds the line.
    Source,
    /// A specification says so.
    Spec,
}

/// A line of LDK's sources that a claim rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLine {
    /// The package, `lightning-liquidity`.
    pub package: String,
    /// The file in the package's folder, `src/lsps2/service.rs`.
    pub path: String,
    /// The line, counted from 1.
    pub line: usize,
    /// Text that this line contains.
    pub text: String,
}

/// A clause of a specification that a claim rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpecClause {
    /// Where it stands.
    pub url: String,
    /// The section.
    pub section: String,
    /// What it says, in our words.
    pub says: String,
}

/// A statement that a guide easily gets wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Naive {
    /// Its number.
    pub n: u32,
    /// The wrong statement.
    pub says: String,
}

/// Every claim of the book.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The claims in the order of their files.
    pub claims: Vec<Claim>,
    /// The naive claims by number.
    pub naive: Vec<Naive>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerFile {
    #[serde(default)]
    claim: Vec<Claim>,
    #[serde(default)]
    naive: Vec<Naive>,
}

impl Claim {
    /// What it rests on.
    #[must_use]
    pub fn status(&self) -> Status {
        if !self.test.is_empty() {
            Status::Tested
        } else if !self.source.is_empty() {
            Status::Source
        } else {
            Status::Spec
        }
    }

    /// The lines of LDK that it rests on.
    ///
    /// # Errors
    /// If one is not `crate/path.rs:line text`.
    pub fn source_lines(&self) -> Result<Vec<SourceLine>, String> {
        self.source.iter().map(|line| SourceLine::parse(line)).collect()
    }

    /// The clauses that it rests on.
    ///
    /// # Errors
    /// If one is not `URL | section | what it says`.
    pub fn spec_clauses(&self) -> Result<Vec<SpecClause>, String> {
        self.spec
            .iter()
            .map(|clause| {
                let parts: Vec<_> = clause.splitn(3, '|').map(str::trim).collect();
                match parts.as_slice() {
                    [url, section, says] if url.starts_with("https://") && !says.is_empty() => {
                        Ok(SpecClause {
                            url: (*url).to_owned(),
                            section: (*section).to_owned(),
                            says: (*says).to_owned(),
                        })
                    }
                    _ => Err(format!("`{clause}` is not `URL | section | what it says`")),
                }
            })
            .collect()
    }
}

/// Every `{{#at …}}` of a chapter, with its line there.
#[must_use]
pub fn lines_of_ldk(chapter: &str) -> Vec<(usize, Result<SourceLine, String>)> {
    chapter
        .lines()
        .enumerate()
        .flat_map(|(at, text)| {
            let marked = text.split(AT).skip(1);
            let inside =
                marked.map(|rest| rest.split_once("}}").map_or(rest, |(inside, _)| inside));
            inside.map(move |inside| (at + 1, SourceLine::parse(inside)))
        })
        .collect()
}

/// How the directive begins that leads to a line of LDK.
pub(crate) const AT: &str = "{{#at ";

impl SourceLine {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not `crate/path.rs:line text of that line`");
        let (place, text) = text.split_once(' ').ok_or_else(wrong)?;
        let (path, line) = place.rsplit_once(':').ok_or_else(wrong)?;
        let (package, path) = path.split_once('/').ok_or_else(wrong)?;
        let line = line.parse().map_err(|_| wrong())?;
        if text.trim().is_empty() || line == 0 {
            return Err(wrong());
        }
        Ok(Self {
            package: package.to_owned(),
            path: path.to_owned(),
            line,
            text: text.trim().to_owned(),
        })
    }

    /// The link to the line.
    ///
    /// # Errors
    /// If docs.rs has no page for it.
    pub(crate) fn mark(&self, versions: &Versions) -> Result<String, String> {
        let Self { package, path, line, text } = self;
        let href = self.href(versions).ok_or_else(|| {
            format!("docs.rs has no page for {package}/{path} of the version that is pinned")
        })?;
        let shown = format!("{}:{line}", path.trim_start_matches("src/"));
        Ok(format!(
            "<a class=\"at\" href=\"{href}\" title=\"{}\">{}</a>",
            literal(&format!("{package}: {text}")),
            crate::html::name(&shown)
        ))
    }

    /// Where rustdoc shows the line, if the package is among the dependencies.
    fn href(&self, versions: &Versions) -> Option<String> {
        let name = self.package.replace('-', "_");
        let (package, version) = versions.of_crate(&name)?;
        // Rustdoc has pages for what is compiled; tests and manifests are shown without a link.
        let path = self.path.strip_prefix("src/").filter(|path| path.ends_with(".rs"))?;
        // Test modules are not compiled for documentation.
        if path.rsplit('/').next().is_some_and(|file| file.contains("test")) {
            return None;
        }
        Some(format!("https://docs.rs/{package}/{version}/src/{name}/{path}.html#{}", self.line))
    }
}

impl Ledger {
    /// Reads `src/claims/*.toml`.
    pub fn read(root: &Path, problems: &mut Problems) -> Self {
        let mut ledger = Self::default();
        let Ok(entries) = std::fs::read_dir(root.join("src/claims")) else { return ledger };
        let mut names: Vec<_> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        for name in names {
            let file = format!("src/claims/{name}");
            let read = std::fs::read_to_string(root.join(&file))
                .map_err(|e| e.to_string())
                .and_then(|text| toml::from_str(&text).map_err(|e| e.to_string()));
            match read {
                Ok(LedgerFile { claim, naive }) => {
                    ledger.naive.extend(naive);
                    ledger
                        .claims
                        .extend(claim.into_iter().map(|c| Claim { file: file.clone(), ..c }));
                }
                Err(what) => problems.add(file, 0, what),
            }
        }
        ledger.naive.sort_by_key(|naive| naive.n);
        ledger
    }

    /// The claim of an id.
    ///
    /// # Errors
    /// If there is none.
    pub fn get(&self, id: &str) -> Result<&Claim, String> {
        self.claims
            .iter()
            .find(|claim| claim.id == id)
            .ok_or_else(|| format!("no claim `{id}` in src/claims"))
    }

    /// Ids are unique and made somewhere, and what they rest on exists.
    pub(crate) fn check(
        &self,
        sources: &Sources,
        made: &BTreeMap<String, Vec<String>>,
        problems: &mut Problems,
    ) {
        let mut seen = BTreeSet::new();
        for claim in &self.claims {
            let mut add = |what: String| {
                problems.add(&claim.file, 0, format!("claim `{}` {what}", claim.id));
            };
            let kebab = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            if claim.id.is_empty() || !claim.id.chars().all(kebab) {
                add("has an id that is not kebab-case".into());
            }
            if !seen.insert(&claim.id) {
                add("stands twice in the ledger".into());
            }
            if claim.test.is_empty() && claim.source.is_empty() && claim.spec.is_empty() {
                add("rests on nothing: no test, no source line, no clause".into());
            }
            if !made.contains_key(&claim.id) {
                add("is made on no page".into());
            }
            for test in &claim.test {
                if let Err(what) = sources.test(test) {
                    add(format!("leads nowhere: {what}"));
                }
            }
            if let Err(what) = claim.source_lines() {
                add(format!("leads nowhere: {what}"));
            }
            if let Err(what) = claim.spec_clauses() {
                add(format!("leads nowhere: {what}"));
            }
            for n in &claim.naive {
                if !self.naive.iter().any(|naive| naive.n == *n) {
                    add(format!("corrects the naive claim {n}, which is not listed"));
                }
            }
        }
    }

    fn correcting(&self, n: u32) -> impl Iterator<Item = &Claim> {
        self.claims.iter().filter(move |claim| claim.naive.contains(&n))
    }
}

/// Whether a chapter shows the ledger, and so must come last.
pub(crate) fn is_ledger_page(content: &str) -> bool {
    content.lines().any(|line| matches!(line.trim(), "{{#claims}}" | "{{#naive}}"))
}

fn word(status: Status) -> (&'static str, &'static str, &'static str) {
    match status {
        Status::Tested => ("tested", "✓", "tested"),
        Status::Source => ("source", "≡", "read in the source"),
        Status::Spec => ("spec", "§", "by specification"),
    }
}

/// The mark after a sentence.
pub(crate) fn mark(claim: &Claim, page: &str, made: &mut BTreeMap<String, Vec<String>>) -> String {
    let pages = made.entry(claim.id.clone()).or_default();
    // The ledger leads back to the first mark on each page.
    let id = match pages.iter().any(|known| known == page) {
        true => String::new(),
        false => {
            pages.push(page.to_owned());
            format!(" id=\"c-{}\"", claim.id)
        }
    };
    let (class, sign, says) = word(claim.status());
    format!(
        "<a class=\"claim {class}\"{id} href=\"claims.html#{}\" title=\"{says}\" \
         aria-label=\"claim, {says}\">{sign}</a>",
        claim.id
    )
}

/// The ledger itself, grouped by the chapter that makes a claim first.
pub(crate) fn page(
    ledger: &Ledger,
    made: &BTreeMap<String, Vec<String>>,
    titles: &[(String, String)],
    versions: &Versions,
) -> String {
    let count = |status| ledger.claims.iter().filter(|claim| claim.status() == status).count();
    let mut out = format!(
        "This book makes {} claims: {} are held by a test of ours, {} were read in the sources of \
         the pinned version, {} follow from a specification.\n\n",
        ledger.claims.len(),
        count(Status::Tested),
        count(Status::Source),
        count(Status::Spec),
    );
    for (page, title) in titles {
        let here: Vec<_> = ledger
            .claims
            .iter()
            .filter(|claim| made.get(&claim.id).and_then(|pages| pages.first()) == Some(page))
            .collect();
        if here.is_empty() {
            continue;
        }
        let _ = write!(out, "\n### {}\n\n", escape_markdown(title));
        for claim in here {
            entry(claim, made, titles, versions, &mut out);
        }
    }
    out
}

fn entry(
    claim: &Claim,
    made: &BTreeMap<String, Vec<String>>,
    titles: &[(String, String)],
    versions: &Versions,
    out: &mut String,
) {
    let (class, sign, says) = word(claim.status());
    let _ = write!(
        out,
        "<section class=\"claim-entry {class}\" id=\"{id}\">\n\n\
         <span class=\"status\" title=\"{says}\">{sign} {says}</span> {} \
         <a class=\"id\" href=\"#{id}\"><code>{id}</code></a>\n\n",
        claim.says,
        id = claim.id,
    );
    for test in &claim.test {
        let _ = writeln!(out, "- test {{{{#test {test}}}}}");
    }
    for line in claim.source_lines().unwrap_or_default() {
        let shown = format!("{}/{}:{}", line.package, line.path, line.line);
        let shown = match line.href(versions) {
            Some(href) => format!("[`{shown}`]({href})"),
            None => format!("`{shown}`"),
        };
        let _ = writeln!(out, "- source {shown}: <code>{}</code>", literal(&line.text));
    }
    for clause in claim.spec_clauses().unwrap_or_default() {
        let section = escape_markdown(&clause.section);
        let _ = writeln!(out, "- [{section}]({}): {}", clause.url, clause.says);
    }
    let pages = made.get(&claim.id).map(Vec::as_slice).unwrap_or_default();
    let links: Vec<_> = pages
        .iter()
        .map(|page| {
            let title = titles.iter().find(|(path, _)| path == page).map(|(_, title)| title);
            let title = escape_markdown(title.unwrap_or(page));
            format!("[{title}]({}#c-{})", page.replace(".md", ".html"), claim.id)
        })
        .collect();
    let _ = write!(out, "- stated in {}\n\n</section>\n\n", links.join(", "));
}

/// What a naive guide says, and what is so.
pub(crate) fn naive_table(ledger: &Ledger) -> String {
    let mut out = String::from("| No. | A naive guide says | On this version |\n|--:|---|---|\n");
    for naive in &ledger.naive {
        let right: Vec<_> = ledger
            .correcting(naive.n)
            .map(|claim| {
                let (class, sign, says) = word(claim.status());
                format!(
                    "{} <a class=\"claim {class}\" href=\"#{}\" title=\"{says}\" \
                     aria-label=\"claim, {says}\">{sign}</a>",
                    claim.says, claim.id
                )
            })
            .collect();
        let _ = writeln!(out, "| {} | {} | {} |", naive.n, naive.says, right.join(" "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(text: &str) -> Claim {
        let file: LedgerFile = toml::from_str(&format!("[[claim]]\n{text}")).unwrap();
        file.claim.into_iter().next().unwrap()
    }

    fn problems_of(claims: Vec<Claim>) -> String {
        let made = claims.iter().map(|c| (c.id.clone(), vec!["a.md".into()])).collect();
        let mut problems = Problems::default();
        let ledger = Ledger { claims, naive: Vec::new() };
        ledger.check(&Sources::new(Path::new("/nowhere")), &made, &mut problems);
        problems.to_string()
    }

    #[test]
    fn a_claim_rests_on_something_that_exists() {
        let nothing = claim("id = \"a\"\nsays = \"x\"");
        assert!(problems_of(vec![nothing]).contains("rests on nothing"));
        let no_test = claim("id = \"a\"\nsays = \"x\"\ntest = [\"tests/none.rs::gone\"]");
        assert!(problems_of(vec![no_test]).contains("leads nowhere"));
        let no_line = claim("id = \"a\"\nsays = \"x\"\nsource = [\"lightning/src/lib.rs: x\"]");
        assert!(problems_of(vec![no_line]).contains("leads nowhere"));
        let no_clause = claim("id = \"a\"\nsays = \"x\"\nspec = [\"bLIP-52\"]");
        assert!(problems_of(vec![no_clause]).contains("leads nowhere"));
    }

    #[test]
    fn a_claim_is_made_once_in_the_ledger_and_somewhere_in_the_book() {
        let twice = claim("id = \"a\"\nsays = \"x\"\nspec = [\"https://a.b | c | d\"]");
        assert!(problems_of(vec![twice.clone(), twice.clone()]).contains("twice"));
        let mut problems = Problems::default();
        let ledger = Ledger { claims: vec![twice], naive: Vec::new() };
        ledger.check(&Sources::new(Path::new("/nowhere")), &BTreeMap::new(), &mut problems);
        assert!(problems.to_string().contains("made on no page"));
    }

    #[test]
    fn a_line_of_ldk_leads_to_the_pinned_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let versions = Versions::read(&root).unwrap();
        let pinned = versions.of("lightning").unwrap();
        let mark = |text: &str| SourceLine::parse(text)?.mark(&versions);
        let html = mark("lightning/src/offers/flow.rs:1653 payment_metadata: None").unwrap();
        let href =
            format!("https://docs.rs/lightning/{pinned}/src/lightning/offers/flow.rs.html#1653");
        assert!(html.contains(&href) && html.contains("offers/flow.<wbr>rs:<wbr>1653"), "{html}");
        for (text, told) in [
            ("lightning/src/offers/flow.rs payment_metadata", "is not `crate/path.rs:line"),
            ("lightning/src/offers/flow.rs:1653", "is not `crate/path.rs:line"),
            ("lightning/src/ln/async_payments_tests.rs:7 use", "docs.rs has no page"),
            ("no-such-crate/src/lib.rs:1 use", "docs.rs has no page"),
        ] {
            let error = mark(text).unwrap_err();
            assert!(error.contains(told), "{text}: {error}");
        }
        let page = "So.\n\nIt says so ({{#at lightning/src/lib.rs:3 text}}), and {{#at none}}.\n";
        let lines = lines_of_ldk(page);
        assert_eq!(lines.len(), 2);
        assert!(lines[0].1.as_ref().is_ok_and(|line| line.text == "text" && lines[0].0 == 3));
        assert!(lines[1].1.is_err());
    }

    #[test]
    fn a_source_line_is_read_whole() {
        let claim = claim(
            "id = \"a\"\nsays = \"x\"\n\
             source = [\"lightning/src/offers/flow.rs:1653 payment_metadata: None\"]",
        );
        assert_eq!(
            claim.source_lines().unwrap(),
            [SourceLine {
                package: "lightning".into(),
                path: "src/offers/flow.rs".into(),
                line: 1653,
                text: "payment_metadata: None".into(),
            }]
        );
        assert_eq!(claim.status(), Status::Source);
    }
}
