//! The scenarios of the failure lab, from `src/data/lab`: which tests play them, and which entry tells
//! of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

/// Where they are listed.
const FOLDER: &str = "src/data/lab";

/// One way to break the flow on purpose.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Unique, in kebab case.
    pub id: String,
    /// What is done to the nodes, in Markdown.
    pub says: String,
    /// The tests that play it, `path/to/file.rs::name`.
    pub tests: Vec<String>,
    /// The entry that tells of it, `fail-payer.md#the-lease-has-run-out`.
    pub entry: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    scenario: Vec<Scenario>,
}

/// Every scenario, by file and in the order in which a file lists them.
///
/// # Errors
/// If a file cannot be read, or one id stands twice.
pub fn scenarios(root: &Path) -> Result<Vec<Scenario>, String> {
    let folder = root.join(FOLDER);
    let entries = std::fs::read_dir(&folder).map_err(|e| format!("{FOLDER}: {e}"))?;
    let mut names: Vec<_> = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    let mut all: Vec<Scenario> = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(folder.join(&name))
            .map_err(|e| format!("{FOLDER}/{name}: {e}"))?;
        let file: File = toml::from_str(&text).map_err(|e| format!("{FOLDER}/{name}: {e}"))?;
        for scenario in file.scenario {
            if all.iter().any(|known| known.id == scenario.id) {
                return Err(format!("{FOLDER}/{name}: a second scenario `{}`", scenario.id));
            }
            all.push(scenario);
        }
    }
    Ok(all)
}

/// The table of all scenarios, in Markdown. `ids` are the headings of each page.
///
/// # Errors
/// If a scenario has no test, or leads to no heading.
pub(crate) fn table(
    scenarios: &[Scenario],
    ids: &BTreeMap<String, BTreeSet<String>>,
) -> Result<String, String> {
    if scenarios.is_empty() {
        return Err(format!("{FOLDER} lists no scenario"));
    }
    let mut out = String::from("| Scenario | Played by |\n|---|---|\n");
    for Scenario { id, says, tests, entry } in scenarios {
        if tests.is_empty() {
            return Err(format!("the scenario `{id}` is played by no test"));
        }
        let (page, heading) = entry.split_once('#').unwrap_or((entry, ""));
        let there = ids.get(page).is_some_and(|ids| heading.is_empty() || ids.contains(heading));
        if !there {
            return Err(format!("the scenario `{id}` leads to `{entry}`, which is not there"));
        }
        let tests: Vec<_> = tests.iter().map(|test| format!("{{{{#test {test}}}}}")).collect();
        let says = says.replace('|', "\\|");
        let _ = writeln!(out, "| [{says}]({entry}) | {} |", tests.join("<br>"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> Result<Vec<Scenario>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(FOLDER)).unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(FOLDER).join(name), text).unwrap();
        }
        scenarios(folder.path())
    }

    fn one(tests: &str, entry: &str) -> String {
        format!(
            "[[scenario]]\nid = \"dust\"\nsays = \"Dust\"\ntests = [{tests}]\nentry = \"{entry}\"\n"
        )
    }

    fn shown(tests: &str, entry: &str) -> Result<String, String> {
        let ids =
            BTreeMap::from([("fail-hang.md".to_owned(), BTreeSet::from(["dust".to_owned()]))]);
        table(&read(&[("a.toml", &one(tests, entry))])?, &ids)
    }

    #[test]
    fn a_scenario_leads_to_its_entry_and_its_tests() {
        let table = shown("\"tests/a.rs::b\"", "fail-hang.md#dust").unwrap();
        assert!(
            table.contains("| [Dust](fail-hang.md#dust) | {{#test tests/a.rs::b}} |"),
            "{table}"
        );
    }

    #[test]
    fn what_a_scenario_lacks_is_told() {
        let error = |tests, entry| shown(tests, entry).unwrap_err();
        assert!(error("", "fail-hang.md#dust").contains("played by no test"));
        assert!(error("\"a.rs::b\"", "fail-hang.md#rust").contains("is not there"));
        assert!(error("\"a.rs::b\"", "hold.md").contains("is not there"));
        assert!(table(&[], &BTreeMap::new()).unwrap_err().contains("no scenario"));
        let twice = one("", "x");
        assert!(read(&[("a.toml", &twice), ("b.toml", &twice)]).unwrap_err().contains("b.toml"));
        assert!(read(&[("a.toml", "[[scenario]]\nid = \"a\"\n")]).unwrap_err().contains("a.toml"));
        assert!(read(&[("a.toml", "[[scene]]\n")]).unwrap_err().contains("scene"));
    }
}
