//! The flag tables, from `src/data/flags.toml`, which a test compares with LDK and our nodes.

use std::fmt::Write;
use std::path::Path;

use serde::Deserialize;

use crate::html;

#[derive(Deserialize)]
struct FlagsFile {
    #[serde(default)]
    flag: Vec<Flag>,
}

#[derive(Deserialize)]
struct Flag {
    role: Vec<String>,
    name: String,
    default: String,
    needed: String,
    breaks: String,
    link: Option<String>,
    claim: Option<String>,
    test: Option<String>,
}

/// The table of a role, in Markdown.
pub(crate) fn table(root: &Path, role: &str) -> Result<String, String> {
    let path = "src/data/flags.toml";
    let text = std::fs::read_to_string(root.join(path)).map_err(|e| format!("{path}: {e}"))?;
    let file: FlagsFile = toml::from_str(&text).map_err(|e| format!("{path}: {e}"))?;
    let flags: Vec<_> =
        file.flag.iter().filter(|flag| flag.role.iter().any(|of| of == role)).collect();
    if flags.is_empty() {
        return Err(format!("{path} has no flag for `{role}`"));
    }
    // On a phone the theme puts the cells of a row below each other.
    let mut out = String::from(
        "<div class=\"flags\">\n\n| Flag | Default | Needed | Without it |\n|---|---|---|---|\n",
    );
    for flag in flags {
        let name = match &flag.link {
            Some(link) => format!("[{}]({link})", html::name(&flag.name)),
            None => html::name(&flag.name),
        };
        let claim = flag.claim.as_ref().map(|id| format!("{{{{#claim {id}}}}}"));
        let test = flag.test.as_ref().map(|test| format!(" {{{{#test {test}}}}}"));
        let _ = writeln!(
            out,
            "| {name} | {} | {} | {}{}{} |",
            flag.default,
            flag.needed,
            flag.breaks,
            claim.unwrap_or_default(),
            test.unwrap_or_default()
        );
    }
    out.push_str("\n</div>\n");
    Ok(out)
}
