//! Says out loud that a test is skipped.

use std::io::Write as _;

/// Tells which test does not run here and what it lacks, past the harness, which would swallow it.
pub fn skipped(what_to_do: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {what_to_do}");
}
