//! Hands the pages and the documents at the root to skeptic, which makes a test of each program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::{env, io};

/// What skeptic puts a program into that has no `fn main()`.
const TEMPLATE: &str = "```rust,skt-main\nfn main() {{\n{}\n}}\n```\n";

fn main() -> io::Result<()> {
    // A folder named here is watched with all that is in it, so a new page counts as a change.
    println!("cargo:rerun-if-changed=../../src");
    println!("cargo:rerun-if-changed=build.rs");
    // The root is not watched as a whole: it holds the target folder. These are the documents.
    let mut pages = skeptic::markdown_files_of_directory("../../src");
    for name in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        println!("cargo:rerun-if-changed=../../{name}");
        pages.push(PathBuf::from("../..").join(name));
    }

    let folder = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names it")).join("pages");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let copies: io::Result<Vec<_>> = pages.iter().map(|page| copy(page, &folder)).collect();
    skeptic::generate_doc_tests(&copies?);

    let target = env::var("TARGET").expect("cargo names the target");
    println!("cargo:rustc-env=SNIPPET_TARGET={target}");
    Ok(())
}

/// A copy in which a program without `fn main()` names the template that gives it one, as rustdoc
/// does. It has the same lines.
fn copy(page: &Path, folder: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string(page)?;
    let copy = folder.join(page.strip_prefix("../..").unwrap_or(page));
    let template = copy.with_extension("md.skt.md");
    fs::create_dir_all(copy.parent().expect("a file has a folder"))?;
    fs::write(&copy, with_templates(&text))?;
    fs::write(&template, TEMPLATE)?;
    // Skeptic has cargo watch the copies: as old as the page, they are not news.
    let modified = fs::metadata(page)?.modified()?;
    for path in [&copy, &template] {
        File::options().write(true).open(path)?.set_modified(modified)?;
    }
    Ok(copy)
}

fn with_templates(text: &str) -> String {
    let mut lines: Vec<String> = text.lines().map(|line| format!("{line}\n")).collect();
    let bare = |line: &String| line.trim_start_matches(['>', ' ']).trim_end().to_owned();
    for at in 0..lines.len() {
        if bare(&lines[at]) == "```rust" {
            let program = lines[at + 1..].iter().take_while(|line| bare(line) != "```");
            if !program.into_iter().any(|line| line.contains("fn main()")) {
                lines[at] = lines[at].replace("```rust", "```rust,skt-main");
            }
        }
    }
    lines.concat()
}
