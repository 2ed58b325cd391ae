//! Versions and dates: one source for each, and dates that can be told to expire.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::civil::Date;

use crate::problems::Problem;

/// The versions that the workspace pins.
#[derive(Debug, Clone, Default)]
pub struct Versions(BTreeMap<String, String>);

impl Versions {
    /// Reads `[workspace.dependencies]` of `root/Cargo.toml`, and `root/Cargo.lock`.
    ///
    /// # Errors
    /// If a file cannot be read or is not a workspace's.
    pub fn read(root: &Path) -> Result<Self, Problem> {
        let problem = |what: String| Problem { file: "Cargo.toml".into(), line: 0, what };
        let text =
            std::fs::read_to_string(root.join("Cargo.toml")).map_err(|e| problem(e.to_string()))?;
        let manifest: toml::Table = text.parse().map_err(|e| problem(format!("{e}")))?;
        let dependencies = manifest
            .get("workspace")
            .and_then(|workspace| workspace.get("dependencies"))
            .and_then(toml::Value::as_table)
            .ok_or_else(|| problem("has no [workspace.dependencies]".into()))?;
        let pinned = dependencies.iter().filter_map(|(name, value)| {
            let version = value.as_str().or_else(|| value.get("version")?.as_str())?;
            Some((name.clone(), version.trim_start_matches('=').to_owned()))
        });
        let mut versions: BTreeMap<_, _> = pinned.collect();
        // The lock file has what a range resolved to, and LDK's own dependencies.
        let text =
            std::fs::read_to_string(root.join("Cargo.lock")).map_err(|e| problem(e.to_string()))?;
        let lock: toml::Table = text.parse().map_err(|e| problem(format!("{e}")))?;
        let packages = lock.get("package").and_then(toml::Value::as_array);
        for package in packages.into_iter().flatten() {
            let text = |key| package.get(key).and_then(toml::Value::as_str);
            let (Some(name), Some(locked)) = (text("name"), text("version")) else { continue };
            let entry = versions.entry(name.to_owned()).or_insert_with(|| locked.to_owned());
            if locked.starts_with(entry.as_str()) {
                locked.clone_into(entry);
            }
        }
        Ok(Self(versions))
    }

    /// The version pinned for a package, without `=`.
    #[must_use]
    pub fn of(&self, package: &str) -> Option<&str> {
        self.0.get(package).map(String::as_str)
    }

    /// The version of the package that holds a crate (`lightning_liquidity`), by its folder in
    /// rustdoc.
    #[must_use]
    pub fn of_crate(&self, name: &str) -> Option<(&str, &str)> {
        self.0
            .iter()
            .find(|(package, _)| package.replace('-', "_") == name)
            .map(|(package, version)| (package.as_str(), version.as_str()))
    }
}

/// A date on a perishable statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dated {
    /// The line it stands on, counted from 1.
    pub line: usize,
    /// The day on which it was checked.
    pub day: Date,
}

/// Every `{{checked …}}` of a chapter.
#[must_use]
pub fn dates_in(chapter: &str) -> Vec<Dated> {
    chapter
        .lines()
        .enumerate()
        .flat_map(|(at, text)| {
            text.match_indices("{{checked ").filter_map(move |(from, opening)| {
                let rest = &text[from + opening.len()..];
                let day = rest.get(..rest.find("}}")?)?.trim().parse().ok()?;
                Some(Dated { line: at + 1, day })
            })
        })
        .collect()
}

/// "22 November 2026".
pub(crate) fn written_out(day: Date) -> String {
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let month = MONTHS[usize::try_from(day.month() - 1).unwrap_or_default()];
    format!("{} {month} {}", day.day(), day.year())
}
