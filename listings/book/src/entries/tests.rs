use super::*;

/// An entry that lacks nothing.
const WHOLE: &str = "## Nothing comes, and `Ok(())`

{{#test tests/a.rs::b}}
{{#test tests/c.rs::d}}

- **Also seen as**: `X`
- **LSP, recipient**: silence, and
  nothing else.
- **Cause**: LDK waits.{{#claim c}}
- **Cure**: do not.
- **Tell the user**: Your money is safe.

{{#slice a.rs::B}}

{{#diagram flow folded}}
";

fn of(text: &str) -> (Vec<Entry>, String) {
    let mut problems = Problems::default();
    let entries = read("fail-x.md", &format!("# X\n\nAbout.\n\n{text}"), &mut problems);
    entries.iter().for_each(|entry| entry.check(&mut problems));
    let told = problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    (entries, told)
}

#[test]
fn an_entry_is_read_whole() {
    let (entries, problems) = of(WHOLE);
    assert_eq!(problems, "");
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!(entry.link(), "[Nothing comes, and `Ok(())`](fail-x.md#nothing-comes-and-ok)");
    assert_eq!((entry.line, entry.tests, entry.slices), (5, 2, 1));
    assert_eq!(entry.diagrams, ["flow folded"]);
    let sees = &entry.points[1];
    assert_eq!(sees.labels, [Label::Lsp, Label::Recipient]);
    assert_eq!((sees.line, sees.text.as_str()), (11, "silence, and nothing else."));
}

#[test]
fn what_an_entry_lacks_is_told() {
    for (without, instead, told) in [
        ("{{#test tests/a.rs::b}}\n{{#test tests/c.rs::d}}\n", "", "a test that provokes it"),
        ("- **LSP, recipient**: silence, and\n  nothing else.\n", "", "what a node sees"),
        ("- **Cause**: LDK waits.{{#claim c}}\n", "", "its **Cause**"),
        ("{{#claim c}}", "", "a source of its **Cause**"),
        ("- **Cure**: do not.\n", "", "its **Cure**"),
        ("- **Cure**: do not.", "- **Cure**:", "its **Cure**"),
        ("{{#slice a.rs::B}}\n", "", "the code that cures it"),
        ("- **Tell the user**: Your money is safe.\n", "", "**Tell the user**"),
        ("{{#diagram flow folded}}\n", "", "**Not recorded**"),
        ("- **Cure**", "- **Not recorded**: why\n- **Cure**", "says that it has none"),
        ("**Also seen as**", "**Seen as**", "not `Seen as`"),
        ("**LSP, recipient**", "**LSP, cause**", "only nodes share a point"),
    ] {
        assert!(WHOLE.contains(without), "{without}");
        let (_, problems) = of(&WHOLE.replace(without, instead));
        assert!(
            problems.contains(told) && problems.contains("src/fail-x.md"),
            "{told}: {problems}"
        );
    }
    let (_, problems) = of(&format!("{WHOLE}\n{WHOLE}"));
    assert!(problems.contains("a second entry"), "{problems}");
}

#[test]
fn another_entry_or_an_item_may_show_the_cure() {
    for cure in ["as [there](#other)", "as [there](fail-y.md#z)", "[`B`](item:a.rs::B)"] {
        let text = WHOLE.replace("{{#slice a.rs::B}}\n", "").replace("do not", cure);
        assert_eq!(of(&text).1, "", "{cure}");
    }
    let text = WHOLE.replace("{{#slice a.rs::B}}\n", "").replace("do not", "see [it](start.md)");
    assert!(of(&text).1.contains("the code that cures it"));
}

#[test]
fn a_cause_rests_on_a_line_a_claim_an_item_or_a_specification() {
    for source in
        ["{{#at lightning/src/lib.rs:1 x}}", "[x](item:a.rs::B)", "[x](https://example.org/)"]
    {
        assert_eq!(of(&WHOLE.replace("{{#claim c}}", source)).1, "", "{source}");
    }
}

#[test]
fn a_reason_stands_in_for_a_recording() {
    let text = WHOLE.replace("{{#diagram flow folded}}\n", "");
    let text = text.replace("- **Cure**", "- **Not recorded**: a process is killed.\n- **Cure**");
    assert_eq!(of(&text).1, "");
}

#[test]
fn points_become_rows_and_tests_the_last_of_them() {
    let mut layout = Layout::default();
    let mut lines = Vec::new();
    for (at, text) in WHOLE.lines().enumerate() {
        lines.extend(match text.starts_with("{{#slice") || text.starts_with("{{#diagram") {
            true => layout.pause(),
            false => layout.line(at + 1, text),
        });
    }
    lines.extend(layout.pause());
    let html: Vec<_> = lines.iter().map(|(_, line)| line.as_str()).collect();
    let html = html.join("\n");
    assert!(html.starts_with("## Nothing comes, and `Ok(())`\n"), "{html}");
    assert!(
        html.contains(
            "<div class=\"node\"><dt>LSP, recipient</dt><dd>\n\nSilence, and\nnothing else.\n"
        ),
        "{html}"
    );
    let (rows, tests) = html.split_once("<dt>Provoked by</dt>").unwrap();
    assert!(!rows.contains("{{#test") && tests.matches("{{#test").count() == 2, "{html}");
    assert_eq!(html.matches("<dl").count(), html.matches("</dl>").count());
    assert_eq!(html.matches("<div").count(), html.matches("</div>").count());
    assert!(lines.contains(&(7, "Silence, and".to_owned())), "{lines:?}");
}

#[test]
fn tests_without_points_stand_for_themselves() {
    let mut layout = Layout::default();
    assert_eq!(layout.line(1, "{{#test a.rs::b}} {{#test a.rs::c}}"), []);
    let lines = layout.line(2, "## Next");
    assert_eq!(lines[0].1, "{{#test a.rs::b}} {{#test a.rs::c}}");
    assert_eq!(lines.last().unwrap().1, "## Next");
    assert_eq!(layout.line(3, "Said in {{#test a.rs::b}} too").len(), 1);
}

#[test]
fn ids_are_those_of_mdbook() {
    for (title, id) in [
        ("\"… were skimmed … were agreed\"", "-were-skimmed--were-agreed"),
        ("`get_async_receive_offer` gives `Err`", "get_async_receive_offer-gives-err"),
        (
            "The wallet asks for the invoice's delta (BOLT 11)",
            "the-wallet-asks-for-the-invoices-delta-bolt-11",
        ),
    ] {
        assert_eq!(id_of(title), id);
    }
}

/// What the check says of a book with these files.
fn checked(files: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write("Cargo.toml", "[workspace.dependencies]\n");
    write("Cargo.lock", "");
    write("tests/a.rs", "#[test]\nfn b() {}\n");
    for (name, text) in files {
        write(name, text);
    }
    crate::check(folder.path()).unwrap().0.to_string()
}

#[test]
fn a_page_of_entries_is_checked_with_the_book() {
    let told = "## X\n\n{{#test tests/a.rs::b}}\n\n- **LSP**: silence.\n- **Payee**: x\n";
    let page = format!("# Fail\n\n{told}");
    let scenario = "[[scenario]]\nid = \"x\"\nsays = \"X\"\ntests = [\"tests/a.rs::b\"]\n";
    let problems = checked(&[
        ("src/fail-x.md", &page),
        ("src/failures.md", "# Failures\n\n{{#index symptoms}}\n\n{{#scenarios}}\n"),
        ("src/data/lab/a.toml", &format!("{scenario}entry = \"fail-x.md#x\"\n")),
    ]);
    assert!(problems.contains("src/fail-x.md:8: a point of an entry is one of"), "{problems}");
    assert!(problems.contains("src/fail-x.md:3: the entry `X` lacks its **Cause**"), "{problems}");
    assert!(!problems.contains("failures.md"), "{problems}");
    let problems = checked(&[
        ("src/failures.md", "# Failures\n\n{{#index symptoms}}\n\n{{#scenarios}}\n"),
        ("src/data/lab/a.toml", &format!("{scenario}entry = \"fail-x.md#x\"\n")),
        (
            "src/start.md",
            "# Start\n\nSee {{#at lightning/src/lib.rs}}.\nSee {{#at a/src/b.rs:1 [`x.\n",
        ),
    ]);
    for told in [
        "src/failures.md:3: there is no entry to list",
        "src/failures.md:5: the scenario `x` leads to `fail-x.md#x`, which is not there",
        "src/start.md:4: `{{#at a/src/b.rs:1 [`x.` is not closed on its line",
        "src/start.md:3: `lightning/src/lib.rs` is not `crate/path.rs:line text of that line`",
    ] {
        assert!(problems.contains(told), "{told}: {problems}");
    }
}
