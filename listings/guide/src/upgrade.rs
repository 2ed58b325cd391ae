//! Builds the workspace against another LDK version and says what breaks: listings, tests, claims.
//!
//! All of it happens in a copy under `target/upgrade-check`; the checkout is left as it is.

mod cargo;
mod report;
mod sources;
mod traps;

pub use cargo::{CompileError, Target, parse_messages, parse_tests};
pub use report::Report;
pub use sources::{Crates, Standing};

use anyhow::{Context, Result, bail};
use book::{Ledger, Problems, Shown, Sources};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Builds a copy of the checkout at `root` against LDK `version`, tests it if it compiles, and tells
/// what breaks. Progress goes to standard error.
///
/// # Errors
/// If it could not be tried: no such version, no copy, no cargo.
pub fn check(root: &Path, version: &str) -> Result<Report> {
    let place = root.join("target/upgrade-check");
    let work = place.join("work");
    let files = copy(root, &work)?;
    let pinned = pin(&work, version)?;
    eprintln!("{files} files copied to {}; LDK {} becomes {version}", work.display(), pinned.old);

    let cargo = |args: &[&str]| {
        let mut command = Command::new(cargo_program());
        command.args(args).current_dir(&work).env("CARGO_TARGET_DIR", place.join("target"));
        command
    };
    // Resolving is what fails when a crate has no such version.
    let resolved = cargo(&["update", "--workspace"]).output()?;
    if !resolved.status.success() {
        let missing = missing(&pinned.crates, version);
        let why = String::from_utf8_lossy(&resolved.stderr);
        match missing.is_empty() {
            true => bail!("cargo cannot resolve LDK {version}: {}", why.trim()),
            false => bail!("no version {version} of {}", missing.join(", ")),
        }
    }
    let crates = Crates::find(&work)?;
    let targets = cargo::targets(&work)?;

    eprintln!("cargo check --workspace --all-targets");
    let mut command =
        cargo(&["check", "--workspace", "--all-targets", "--keep-going", "--message-format=json"]);
    let checked = command.stderr(Stdio::inherit()).output()?;
    let built = parse_messages(&String::from_utf8_lossy(&checked.stdout), &work, &targets);
    if !checked.status.success() && built.errors.is_empty() {
        bail!("cargo check failed, and not because of a compile error (see above)");
    }

    let mut output = String::new();
    if built.errors.is_empty() {
        eprintln!("cargo test --no-fail-fast");
        let log = place.join("tests.log");
        let both = fs::File::create(&log)?;
        let mut command = cargo(&["test", "--no-fail-fast"]);
        command.stdin(Stdio::null()).stdout(both.try_clone()?).stderr(both);
        let passed = command.status()?.success();
        output = fs::read_to_string(&log)?;
        if !passed && parse_tests(&output).is_empty() {
            bail!("cargo test failed without a failing test: see {}", log.display());
        }
    }

    let shown = shown(&work)?;
    let ledger = Ledger::read(&work, &mut Problems::default());
    let sources = Sources::new(&work);
    let tests = report::tests_of(&work, &sources, &targets);
    Ok(Report::new(report::Found {
        old: pinned.old,
        new: version.to_owned(),
        built,
        failed: parse_tests(&output),
        passed: cargo::parse_passed(&output),
        output,
        traps: book::traps(&work).map_err(anyhow::Error::msg)?,
        targets,
        shown,
        ledger,
        crates,
        sources,
        tests,
    }))
}

/// The cargo that runs this program, or the one on the path.
pub(crate) fn cargo_program() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn shown(root: &Path) -> Result<Vec<Shown>> {
    // What else is wrong in the book is not asked here.
    Ok(book::check(root)?.1)
}

/// Copies the files that git knows, as they are in the checkout.
fn copy(root: &Path, to: &Path) -> Result<usize> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git, which lists the files to copy")?;
    if !listed.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let mut copied = 0;
    for name in String::from_utf8(listed.stdout)?.split_terminator('\0') {
        let (from, to) = (root.join(name), to.join(name));
        // A file may be listed and deleted.
        if from.is_file() {
            fs::create_dir_all(to.parent().context("a file has a folder")?)?;
            fs::copy(&from, &to).with_context(|| format!("copy {name}"))?;
            copied += 1;
        }
    }
    Ok(copied)
}

struct Pinned {
    old: String,
    crates: Vec<String>,
}

/// Puts `=version` wherever the copy's manifests pin the LDK release.
fn pin(work: &Path, version: &str) -> Result<Pinned> {
    let manifest = work.join("Cargo.toml");
    let text = fs::read_to_string(&manifest)?;
    let (changed, pinned) = pinned(&text, version)?;
    fs::write(&manifest, changed)?;
    let fuzz = work.join("listings/lsps2-async/fuzz/Cargo.toml");
    if let Ok(text) = fs::read_to_string(&fuzz) {
        let (old, new) = (format!("\"={}\"", pinned.old), format!("\"={version}\""));
        fs::write(&fuzz, text.replace(&old, &new))?;
    }
    Ok(pinned)
}

fn pinned(manifest: &str, version: &str) -> Result<(String, Pinned)> {
    let parsed: toml::Table = manifest.parse()?;
    let dependencies = parsed
        .get("workspace")
        .and_then(|workspace| workspace.get("dependencies"))
        .and_then(toml::Value::as_table)
        .context("Cargo.toml has no [workspace.dependencies]")?;
    let exact = |value: &toml::Value| {
        let version = value.as_str().or_else(|| value.get("version")?.as_str())?;
        version.strip_prefix('=').map(str::to_owned)
    };
    let old = dependencies
        .get("lightning")
        .and_then(exact)
        .context("Cargo.toml does not pin lightning exactly")?;
    let crates = dependencies
        .iter()
        .filter(|(_, value)| exact(value).as_ref() == Some(&old))
        .map(|(name, _)| name.clone())
        .collect();
    let changed = manifest.replace(&format!("\"={old}\""), &format!("\"={version}\""));
    Ok((changed, Pinned { old, crates }))
}

/// The crates that the registry does not have at this version.
fn missing(crates: &[String], version: &str) -> Vec<String> {
    let has = |name: &String| {
        let mut command = Command::new(cargo_program());
        // Away from any workspace: `cargo info` asks the registry then.
        command.args(["info", "--quiet", &format!("{name}@{version}")]);
        command.current_dir(std::env::temp_dir()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    crates.iter().filter(|name| !has(name)).cloned().collect()
}

/// A path as it stands in the repository: without `.`, `..` and the root.
pub(crate) fn relative(path: &Path, root: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.strip_prefix(root).unwrap_or(path).components() {
        match part {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_pinned_to_the_release_changes() {
        let manifest = r#"
[workspace.dependencies]
lightning = "=0.3.0-rc3"
lightning-persister = { version = "=0.3.0-rc3", features = ["tokio"] }
lightning-macros = "0.2.1"
other = "=1.2.3"
"#;
        let (changed, pinned) = pinned(manifest, "0.3.0").unwrap();
        assert_eq!(pinned.old, "0.3.0-rc3");
        assert_eq!(pinned.crates, ["lightning", "lightning-persister"]);
        assert!(changed.contains("lightning = \"=0.3.0\""));
        assert!(changed.contains("{ version = \"=0.3.0\", features"));
        assert!(changed.contains("\"0.2.1\"") && changed.contains("\"=1.2.3\""));
        assert!(super::pinned("[workspace.dependencies]\nlightning = \"0.3\"", "1").is_err());
    }

    #[test]
    fn paths_begin_at_the_repository() {
        let root = Path::new("/copy");
        let path = Path::new("/copy/listings/guide/../../tests/main.rs");
        assert_eq!(relative(path, root), Path::new("tests/main.rs"));
    }
}
