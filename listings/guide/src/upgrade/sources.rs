//! The lines of LDK's sources that claims rest on.

use super::cargo_program;
use anyhow::{Context, Result, bail};
use book::SourceLine;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where cargo keeps the sources of each dependency, at the version the lock file names.
#[derive(Debug, Clone, Default)]
pub struct Crates {
    folders: BTreeMap<String, PathBuf>,
}

/// Whether a line stands where a claim says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// It does.
    There,
    /// The text stands on these lines of the same file, nearest first.
    Moved(Vec<usize>),
    /// The file has no such text.
    Gone,
    /// There is no such file, or no such crate.
    NoFile,
}

impl Crates {
    /// Asks cargo, without a network if the sources are here.
    ///
    /// # Errors
    /// If cargo cannot tell.
    pub fn find(root: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        struct Metadata {
            packages: Vec<Package>,
        }
        #[derive(Deserialize)]
        struct Package {
            name: String,
            manifest_path: PathBuf,
            source: Option<String>,
        }
        let host = host()?;
        let ask = |more: &[&str]| {
            Command::new(cargo_program())
                .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", &host])
                .args(more)
                .current_dir(root)
                .output()
        };
        let mut out = ask(&["--offline"])?;
        if !out.status.success() {
            out = ask(&[])?;
        }
        if !out.status.success() {
            bail!("cargo metadata: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        let metadata: Metadata = serde_json::from_slice(&out.stdout)?;
        let folder = |package: Package| {
            package.source.as_ref()?;
            Some((package.name, package.manifest_path.parent()?.to_owned()))
        };
        let folders: BTreeMap<_, _> = metadata
            .packages
            .into_iter()
            .filter(|package| package.name.starts_with("lightning"))
            .filter_map(folder)
            .collect();
        Ok(Self { folders })
    }

    /// The folder of each crate of LDK.
    pub fn folders(&self) -> impl Iterator<Item = &Path> {
        self.folders.values().map(PathBuf::as_path)
    }

    /// Where a line that a claim rests on stands now.
    #[must_use]
    pub fn standing(&self, line: &SourceLine) -> Standing {
        let text = self.folders.get(&line.package).map(|folder| folder.join(&line.path));
        match text.and_then(|file| fs::read_to_string(file).ok()) {
            Some(text) => standing(&text, line.line, &line.text),
            None => Standing::NoFile,
        }
    }
}

fn standing(file: &str, line: usize, text: &str) -> Standing {
    let holding: Vec<usize> = file
        .lines()
        .enumerate()
        .filter(|(_, found)| found.contains(text))
        .map(|(at, _)| at + 1)
        .collect();
    if holding.contains(&line) {
        return Standing::There;
    }
    let mut nearest = holding;
    nearest.sort_by_key(|found| found.abs_diff(line));
    if nearest.is_empty() { Standing::Gone } else { Standing::Moved(nearest) }
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let out =
        Command::new(rustc).arg("-vV").output().context("rustc, which names this platform")?;
    let text = String::from_utf8(out.stdout)?;
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stands_moves_or_goes() {
        let file = "one\ntwo\nlet x = None;\nfour\nlet x = None;\n";
        assert_eq!(standing(file, 3, "x = None"), Standing::There);
        assert_eq!(standing(file, 4, "two"), Standing::Moved(vec![2]));
        assert_eq!(standing(file, 4, "x = None"), Standing::Moved(vec![3, 5]));
        assert_eq!(standing(file, 9, "x = None"), Standing::Moved(vec![5, 3]));
        assert_eq!(standing(file, 3, "x = Some"), Standing::Gone);
    }
}
