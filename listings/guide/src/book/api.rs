//! Links to API documentation: the page and the id must exist in rustdoc of exactly our versions.

use super::links;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where documentation of published crates is.
const DOCS: &str = "https://docs.rs/";
/// That site on itself.
const ABOUT: &str = "https://docs.rs/about";

/// Parts the links to API documentation from the others.
pub fn split(links: BTreeSet<String>) -> (BTreeSet<String>, BTreeSet<String>) {
    links.into_iter().partition(|link| link.starts_with(DOCS) && !link.starts_with(ABOUT))
}

/// A link to a page of one crate at one version.
#[derive(Debug, PartialEq, Eq)]
struct ApiLink<'a> {
    /// As cargo names it: `name@version`.
    package: String,
    page: &'a str,
    fragment: &'a str,
}

impl<'a> ApiLink<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (path, fragment) = url.split_once('#').unwrap_or((url, ""));
        let (name, rest) = path.strip_prefix(DOCS)?.split_once('/')?;
        let (version, page) = rest.split_once('/')?;
        let is_exact = version.split('.').count() >= 3 && page.ends_with(".html");
        is_exact.then(|| Self { package: format!("{name}@{version}"), page, fragment })
    }
}

/// Builds the documentation of the crates that `links` lead to, and follows every link in it.
///
/// # Errors
/// If the documentation cannot be built: cargo says so too when a link names a version that is not
/// the one in `Cargo.lock`.
pub fn problems(root: &Path, links: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    let mut by_package = BTreeMap::<String, Vec<(&str, ApiLink<'_>)>>::new();
    for url in links {
        match ApiLink::parse(url) {
            Some(link) => by_package.entry(link.package.clone()).or_default().push((url, link)),
            None => problems.push(format!("{url} names no exact version, or no page")),
        }
    }
    let pages = documentation(root, by_package.keys())?;
    problems.extend(dead(&pages, by_package.values().flatten()));
    Ok(problems)
}

fn dead<'a>(docs: &Path, links: impl Iterator<Item = &'a (&'a str, ApiLink<'a>)>) -> Vec<String> {
    let mut problems = Vec::new();
    // Some pages are a megabyte, and many links lead to them.
    let mut ids = BTreeMap::new();
    for (url, link) in links {
        let ids = ids.entry(link.page).or_insert_with(|| {
            std::fs::read_to_string(docs.join(link.page)).ok().map(|text| links::ids(&text))
        });
        match ids {
            None => problems.push(format!("{url} leads to no page of the documentation")),
            Some(ids) if !link.fragment.is_empty() && !ids.contains(link.fragment) => {
                problems.push(format!("{url} leads to a page without this id"));
            }
            Some(_) => {}
        }
    }
    problems
}

/// Builds the documentation of these packages alone, and tells its folder.
///
/// It goes beside what else cargo builds here: the crates below them are then already checked if
/// clippy ran, and a second call has nothing to do.
fn documentation<'a>(root: &Path, packages: impl Iterator<Item = &'a String>) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["doc", "--locked", "--offline", "--no-deps", "--quiet"]);
    command.args(["--message-format", "json"]).current_dir(root);
    let mut any = false;
    for package in packages {
        command.args(["--package", package]);
        any = true;
    }
    if !any {
        return Ok(PathBuf::new());
    }
    let output = command.output().context("cargo does not start")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("the API documentation of the linked crates does not build: {command:?}: {why}");
    }
    // Only cargo knows where: the folder may be set in several ways.
    let text = String::from_utf8(output.stdout)?;
    let index = text.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let file = message["filenames"][0].as_str()?;
        file.ends_with("index.html").then(|| PathBuf::from(file))
    });
    let folder = index.as_deref().and_then(|index| index.parent()?.parent());
    Ok(folder.context("cargo names no documentation")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_exact_or_is_none() {
        let link = ApiLink::parse("https://docs.rs/a-b/1.2.3-rc1/a_b/struct.C.html#method.d");
        let package = "a-b@1.2.3-rc1".to_owned();
        assert_eq!(
            link,
            Some(ApiLink { package, page: "a_b/struct.C.html", fragment: "method.d" })
        );
        for loose in ["https://docs.rs/a/latest/a/index.html", "https://docs.rs/a/1.2.3/a/"] {
            assert_eq!(ApiLink::parse(loose), None);
        }
    }

    #[test]
    fn a_dead_page_and_a_dead_id_are_found() {
        let docs = tempfile::tempdir().unwrap();
        std::fs::create_dir(docs.path().join("a")).unwrap();
        std::fs::write(docs.path().join("a/fn.b.html"), "<h1 id=main>b</h1>").unwrap();
        let dead = |page: &str| {
            let url = format!("https://docs.rs/a/1.0.0/a/{page}");
            dead(docs.path(), [(url.as_str(), ApiLink::parse(&url).unwrap())].iter())
        };
        assert_eq!(dead("fn.b.html"), [] as [&str; 0]);
        assert_eq!(dead("fn.b.html#main"), [] as [&str; 0]);
        assert!(dead("fn.b.html#absent")[0].contains("without this id"));
        assert!(dead("fn.c.html")[0].contains("no page"));
    }
}
