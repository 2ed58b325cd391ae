//! Builds the book through mdBook's crates, in this process, and refuses what mdBook lets pass.

pub mod api;
pub mod links;
mod log;
mod serve;

pub use serve::{Options, Server, serve};

use anyhow::{Context, Result, bail};
use mdbook_driver::MDBook;
use mdbook_driver::config::Config;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where mdBook's page template connects to hear of a new build.
const LIVE_RELOAD: &str = "__livereload";

/// A book that was built without a complaint.
#[derive(Debug)]
pub struct Built {
    /// The folder of its pages.
    pub dest: PathBuf,
    /// What it took.
    pub took: Duration,
}

/// The repository's folder: the nearest one upwards that holds a `book.toml`, else that of the
/// package which cargo runs.
pub fn root() -> Result<PathBuf> {
    let here = std::env::current_dir()?;
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let mut folders = here.ancestors().chain(package.ancestors());
    let root = folders.find(|folder| folder.join("book.toml").is_file());
    Ok(root.context("no book.toml here or above: run this in the repository")?.to_owned())
}

/// Builds the book at `root` into `dest`.
///
/// # Errors
/// Whatever fails in mdBook or in our preprocessor, and everything that mdBook only logs as a
/// warning or an error before it exits with success.
pub fn build(root: &Path, dest: &Path) -> Result<Built> {
    build_for(root, dest, |_| Ok(()))
}

/// As [`build`], for pages that reload themselves from our [`Server`].
fn build_live(root: &Path, dest: &Path) -> Result<Built> {
    build_for(root, dest, |config| {
        config.set("output.html.live-reload-endpoint", LIVE_RELOAD)?;
        // The page for what is not found is shown at any depth: its links start here.
        config.set("output.html.site-url", "/")
    })
}

fn build_for(
    root: &Path,
    dest: &Path,
    configure: impl FnOnce(&mut Config) -> Result<()>,
) -> Result<Built> {
    let started = Instant::now();
    let dest = std::path::absolute(dest)?;
    refuse_to_empty(&dest)?;
    let (result, logged) = log::during(|| {
        let mut config = Config::from_disk(root.join("book.toml"))?;
        config.update_from_env()?;
        configure(&mut config)?;
        config.build.build_dir.clone_from(&dest);
        let mut book = MDBook::load_with_config(root, config)?;
        // In the place of the command of the same name, which the stock program runs.
        book.with_preprocessor(::book::Guide);
        book.build()
    });
    if !logged.is_empty() {
        let logged = format!("mdBook logged:\n{}", logged.join("\n"));
        return Err(match result {
            Ok(()) => anyhow::Error::msg(logged),
            Err(error) => error.context(logged),
        });
    }
    result?;
    Ok(Built { dest, took: started.elapsed() })
}

/// mdBook empties the folder it builds into.
fn refuse_to_empty(dest: &Path) -> Result<()> {
    let holds_something = std::fs::read_dir(dest).is_ok_and(|mut entries| entries.next().is_some());
    if holds_something && !dest.join("toc.html").exists() {
        bail!("{} holds something other than a book, and building would delete it", dest.display());
    }
    Ok(())
}

/// What a check of the built book found.
#[derive(Debug)]
pub struct Checked {
    /// The number of pages that were read.
    pub pages: usize,
    /// What is wrong, a line each.
    pub problems: Vec<String>,
}

/// Builds the book and follows its links. Links to API documentation are followed if `with_api`,
/// which builds that documentation.
pub fn check(root: &Path, with_api: bool) -> Result<Checked> {
    let folder = tempfile::tempdir()?;
    let built = build(root, folder.path())?;
    let site = links::Site::read(&built.dest)?;
    let mut problems = site.problems();
    let (api, external) = api::split(site.external());
    problems.extend(external_list_problems(root, &external)?);
    if with_api {
        problems.extend(api::problems(root, &api)?);
    }
    Ok(Checked { pages: site.pages(), problems })
}

/// Compares the external links of the book with `src/data/external-links.txt`, which is what the
/// online check fetches.
pub fn external_list_problems(root: &Path, used: &BTreeSet<String>) -> Result<Vec<String>> {
    let path = root.join("src/data/external-links.txt");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let listed: Vec<_> = text.lines().map(str::to_owned).collect();
    let mut problems = Vec::new();
    let mut say = |what: String| problems.push(format!("external-links.txt: {what}"));
    if !listed.is_sorted_by(|a, b| a < b) {
        say("is not sorted, or has a line twice".to_owned());
    }
    let listed: BTreeSet<_> = listed.into_iter().collect();
    used.difference(&listed).for_each(|link| say(format!("lacks {link}")));
    listed.difference(used).for_each(|link| say(format!("has {link}, which no page uses")));
    used.iter()
        .filter(|link| !link.starts_with("https://"))
        .for_each(|link| say(format!("{link} is not https")));
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_is_not_a_book_is_not_emptied() {
        let folder = tempfile::tempdir().unwrap();
        refuse_to_empty(folder.path()).unwrap();
        refuse_to_empty(&folder.path().join("absent")).unwrap();
        std::fs::write(folder.path().join("thesis.txt"), "years of work").unwrap();
        let error = refuse_to_empty(folder.path()).unwrap_err();
        assert!(error.to_string().contains("would delete it"), "{error}");
    }

    #[test]
    fn the_list_of_external_links_is_sorted_complete_and_not_longer() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("src/data")).unwrap();
        let problems = |list: &str, used: &[&str]| {
            std::fs::write(root.path().join("src/data/external-links.txt"), list).unwrap();
            let used = used.iter().map(|link| (*link).to_owned()).collect();
            external_list_problems(root.path(), &used).unwrap().join("\n")
        };
        assert_eq!(problems("https://a.b\nhttps://c.d\n", &["https://a.b", "https://c.d"]), "");
        assert!(problems("https://c.d\nhttps://a.b\n", &[]).contains("not sorted"));
        assert!(problems("", &["https://a.b"]).contains("lacks https://a.b"));
        assert!(problems("https://a.b\n", &[]).contains("which no page uses"));
        assert!(problems("http://a.b\n", &["http://a.b"]).contains("not https"));
    }
}
