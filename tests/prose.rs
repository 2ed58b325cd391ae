//! The prose: spelling, style, dates, versions, and what claims rest on.
//!
//! What a check may pass over stands in `src/data/spelling.toml` and `src/data/style.toml`, each
//! entry with its reason; an entry that is not needed any more fails.

mod claims;
mod dates;
mod numbers;
mod spelling;
mod style;
mod text;

use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};

/// The repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// A file of the repository.
struct Document {
    /// Relative to the repository.
    name: String,
    text: String,
}

/// The chapters: what a reader of the book gets to see.
fn chapters() -> Vec<Document> {
    let mut chapters = files("src", &["md"]);
    chapters.retain(|chapter| chapter.name != "src/SUMMARY.md");
    assert!(chapters.len() > 20, "the chapters are elsewhere: {}", chapters.len());
    chapters
}

/// The documents at the top of the repository.
fn top() -> Vec<Document> {
    ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| read(name.into())).into()
}

/// The files directly in a folder that end in one of these.
fn files(folder: &str, endings: &[&str]) -> Vec<Document> {
    let mut names: Vec<PathBuf> = fs::read_dir(root().join(folder))
        .expect("a folder of the repository")
        .map(|entry| Path::new(folder).join(entry.expect("an entry").file_name()))
        .filter(|name| endings.iter().any(|ending| name.extension() == Some(ending.as_ref())))
        .collect();
    names.sort();
    names.into_iter().map(read).collect()
}

fn read(name: PathBuf) -> Document {
    let text = fs::read_to_string(root().join(&name));
    let text = text.unwrap_or_else(|error| panic!("{}: {error}", name.display()));
    Document { name: name.display().to_string(), text }
}

fn data<T: DeserializeOwned>(name: &str) -> T {
    let file = read(name.into());
    toml::from_str(&file.text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails with all problems at once.
fn none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problem(s):\n{}", problems.len(), problems.join("\n"));
}
