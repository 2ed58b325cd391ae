//! Every program on a page is run as it is shown: skeptic's count is compared with two others.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use std::fs;
use std::path::{Path, PathBuf};

const GENERATED: &str = include_str!(concat!(env!("OUT_DIR"), "/skeptic-tests.rs"));

#[test]
fn every_rust_fence_is_run_as_it_is_shown() {
    let mut problems = Vec::new();
    let (mut parsed, mut scanned) = (0, 0);
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document can be read");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let found = check(&text);
        parsed += found.parsed;
        scanned += found.scanned;
        problems.extend(found.problems.into_iter().map(|problem| format!("{name}:{problem}")));
    }
    if GENERATED.contains("#[ignore]") || GENERATED.contains("compile_test(") {
        problems.push("skeptic leaves out a program, or builds it and does not run it".to_owned());
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));

    let run = GENERATED.matches("skeptic::rt::run_test(").count();
    println!("{run} programs on the pages");
    assert_eq!(run, parsed, "skeptic runs {run} programs; a CommonMark parser finds {parsed}");
    assert_eq!(run, scanned, "skeptic runs {run} programs; {scanned} lines open a Rust fence");
}

/// Each way in which a program could be passed over is noticed.
#[test]
fn a_fence_that_would_not_be_run_is_a_problem() {
    let good =
        "# Page\n\n```rust\nfn main() {}\n```\n\n- item\n\n  ```rust\n  fn main() {}\n  ```\n";
    let found = check(good);
    assert_eq!((found.parsed, found.scanned, found.problems), (2, 2, vec![]));

    for info in ["rust,ignore", "rust,no_run", "rust,should_panic", "rust no_run", "rs", "Rust"] {
        let text = format!("# Page\n\n```{info}\nfn main() {{}}\n```\n");
        assert_eq!(check(&text).problems.len(), 1, "{info}");
    }
    // Four spaces make the fence part of an indented code block: nothing is left for skeptic.
    let found = check("# Page\n\n    ```rust\n    fn main() {}\n    ```\n");
    assert_eq!((found.parsed, found.scanned), (0, 1));
    // Within HTML, Markdown does not look for fences either.
    let found = check("<div>\n```rust\nfn main() {}\n```\n</div>\n");
    assert_eq!((found.parsed, found.scanned), (0, 1));

    assert_eq!(check("```rust\n# use std::fs;\nfn main() {}\n```\n").problems.len(), 1);
    // Not closed: it would swallow the rest of the page.
    assert_eq!(check("```rust\nfn main() {}\n").problems.len(), 1);
}

#[derive(Default)]
struct Found {
    /// Fences a CommonMark parser takes for Rust.
    parsed: usize,
    /// Lines that open a fence and name Rust, whatever a parser makes of them.
    scanned: usize,
    problems: Vec<String>,
}

fn check(text: &str) -> Found {
    let mut found = Found::default();
    for (number, line) in text.lines().enumerate() {
        let open =
            line.trim_start_matches(|c: char| c.is_whitespace() || "->*+.0123456789".contains(c));
        let info = open.trim_start_matches(['`', '~']);
        if open.len() < info.len() + 3 || !names_rust(info) {
            continue;
        }
        found.scanned += 1;
        if info.trim() != "rust" {
            found.problems.push(format!("{}: the fence says `{}`, not `rust`", number + 1, info));
        }
    }
    let mut program: Option<(usize, String)> = None;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(info))) if names_rust(&info) => {
                found.parsed += 1;
                let line = text[..range.start].matches('\n').count() + 1;
                program = Some((line, String::new()));
                let last = text[range].trim_end().lines().next_back().unwrap_or_default();
                if !last.trim_start_matches([' ', '>']).starts_with(['`', '~']) {
                    found.problems.push(format!("{line}: the fence is not closed"));
                }
            }
            Event::Text(code) => {
                if let Some((_, program)) = &mut program {
                    program.push_str(&code);
                }
            }
            Event::End(TagEnd::CodeBlock) => {
                if let Some((line, _)) = program.take().filter(|(_, program)| hides(program)) {
                    let what = "a line begins with `# `, which skeptic leaves out";
                    found.problems.push(format!("{line}: {what}"));
                }
            }
            _ => {}
        }
    }
    found
}

fn names_rust(info: &str) -> bool {
    info.split(|c: char| !c.is_alphanumeric())
        .any(|word| word.eq_ignore_ascii_case("rust") || word.eq_ignore_ascii_case("rs"))
}

/// Skeptic leaves the `# ` of a line out, so what runs would not be what is shown.
fn hides(program: &str) -> bool {
    program.lines().any(|line| line.trim() == "#" || line.trim_start().starts_with("# "))
}

fn documents() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut documents = Vec::new();
    let mut folders = vec![root.join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.extend(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|name| root.join(name)));
    documents
}
