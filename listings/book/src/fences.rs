//! Splits a chapter into prose, directives and fences.

use crate::problems::Problems;

/// A part of a chapter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// A line of prose.
    Prose { line: usize, text: &'a str },
    /// `{{#name argument}}` alone on its line.
    Directive { line: usize, name: &'a str, argument: &'a str },
    /// A fenced block: its language and its text.
    Fence { line: usize, language: &'a str, text: String },
}

/// What a directive alone on a line may be; others stand inside a line.
const BLOCKS: [&str; 17] = [
    "slice",
    "output",
    "events",
    "flags",
    "role",
    "endrole",
    "claims",
    "naive",
    "traps",
    "diagram",
    "ledger",
    "player",
    "fees",
    "hold",
    "excerpt",
    "index",
    "scenarios",
];

/// The parts of a chapter, and problems with its fences.
pub(crate) fn parts<'a>(file: &str, text: &'a str, problems: &mut Problems) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((at, line)) = lines.next() {
        let number = at + 1;
        let trimmed = line.trim_start();
        let ticks = trimmed.len() - trimmed.trim_start_matches('`').len();
        let tildes = trimmed.starts_with("~~~");
        if ticks >= 3 || tildes {
            if line != trimmed || tildes {
                problems.add(
                    file,
                    number,
                    "a fence starts at the margin with backticks, or the tests do not find it",
                );
            }
            let (mark, language) = trimmed.split_at(ticks.max(3));
            let mut body = String::new();
            let mut closed = false;
            for (_, line) in lines.by_ref() {
                if line.trim_end() == mark {
                    closed = true;
                    break;
                }
                body.push_str(line);
                body.push('\n');
            }
            if !closed {
                problems.add(file, number, "this fence is never closed");
            }
            parts.push(Part::Fence { line: number, language: language.trim(), text: body });
            continue;
        }
        if let Some(inner) =
            line.trim().strip_prefix("{{#").and_then(|rest| rest.strip_suffix("}}"))
            && !inner.contains("}}")
        {
            let (name, argument) = inner.split_once(' ').unwrap_or((inner, ""));
            if BLOCKS.contains(&name) {
                parts.push(Part::Directive { line: number, name, argument: argument.trim() });
                continue;
            }
        }
        parts.push(Part::Prose { line: number, text: line });
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_inside_fences_and_lines_are_not_blocks() {
        let text = "{{#slice a.rs::b}}\nSo it is.{{#claim x}}\n```text\n{{#slice no}}\n```\n";
        let mut problems = Problems::default();
        let parts = parts("src/x.md", text, &mut problems);
        assert!(problems.is_empty());
        assert_eq!(
            parts,
            [
                Part::Directive { line: 1, name: "slice", argument: "a.rs::b" },
                Part::Prose { line: 2, text: "So it is.{{#claim x}}" },
                Part::Fence { line: 3, language: "text", text: "{{#slice no}}\n".into() },
            ]
        );
    }

    #[test]
    fn fences_that_a_test_would_miss_are_problems() {
        for text in ["  ```rust\n  ```\n", "~~~rust\n~~~\n", "```rust\nfn a() {}\n"] {
            let mut problems = Problems::default();
            parts("src/x.md", text, &mut problems);
            assert!(!problems.is_empty(), "{text}");
        }
    }
}
