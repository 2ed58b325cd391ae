//! The compiled sources, by file, item and anchor.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use proc_macro2::Span;
use syn::spanned::Spanned;

use crate::problems::Problems;

/// Lines of a source file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, relative to the repository.
    pub file: PathBuf,
    /// The item's or anchor's name; empty for a whole file.
    pub what: String,
    /// First and last line, counted from 1.
    pub lines: (usize, usize),
}

/// A named stretch of a file.
#[derive(Debug, Clone)]
struct Item {
    name: String,
    /// With its documentation and attributes, and without.
    full: (usize, usize),
    bare: (usize, usize),
}

/// One parsed file.
#[derive(Debug, Default)]
pub(crate) struct File {
    pub(crate) lines: Vec<String>,
    items: Vec<Item>,
    anchors: BTreeMap<String, (usize, usize)>,
}

/// The repository's Rust files, read and parsed when first asked for.
#[derive(Debug)]
pub struct Sources {
    root: PathBuf,
    files: RefCell<BTreeMap<PathBuf, Rc<File>>>,
    anchors_used: RefCell<BTreeSet<String>>,
    /// The files that a page leads to, which the book therefore holds.
    linked: RefCell<BTreeSet<PathBuf>>,
}

impl Sources {
    /// The sources below a repository's root.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            files: RefCell::default(),
            anchors_used: RefCell::default(),
            linked: RefCell::default(),
        }
    }

    /// A file of the repository, parsed.
    pub(crate) fn file(&self, path: &Path) -> Result<Rc<File>, String> {
        if let Some(file) = self.files.borrow().get(path) {
            return Ok(Rc::clone(file));
        }
        let text = std::fs::read_to_string(self.root.join(path))
            .map_err(|e| format!("{}: {e}", path.display()))?;
        let file = Rc::new(File::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?);
        self.files.borrow_mut().insert(path.to_owned(), Rc::clone(&file));
        Ok(file)
    }

    /// The files that some page leads to.
    pub(crate) fn linked(&self) -> Vec<PathBuf> {
        self.linked.borrow().iter().cloned().collect()
    }

    /// Where `path/to/file.rs::Item::method`, `….rs#anchor` or a whole `….rs` stands.
    ///
    /// # Errors
    /// If the file, item or anchor does not exist, is ambiguous or is empty.
    pub fn place(&self, spec: &str) -> Result<Place, String> {
        self.find(spec, false)
    }

    pub(crate) fn find(&self, spec: &str, with_docs: bool) -> Result<Place, String> {
        let end = spec
            .find(".rs")
            .map(|at| at + 3)
            .ok_or_else(|| format!("`{spec}` names no .rs file"))?;
        let (path, rest) = spec.split_at(end);
        let path = PathBuf::from(path);
        let file = self.file(&path)?;
        let (what, lines) = if rest.is_empty() {
            (String::new(), (1, file.lines.len()))
        } else if let Some(anchor) = rest.strip_prefix('#') {
            let lines = file.anchors.get(anchor).copied();
            self.anchors_used.borrow_mut().insert(anchor.to_owned());
            let lines =
                lines.ok_or_else(|| format!("{} has no anchor `{anchor}`", path.display()))?;
            (anchor.to_owned(), lines)
        } else if let Some(name) = rest.strip_prefix("::") {
            let found: Vec<_> = file.items.iter().filter(|item| item.name == name).collect();
            match found.as_slice() {
                [item] => (name.to_owned(), if with_docs { item.full } else { item.bare }),
                [] => return Err(file.nearest(&path, name)),
                several => {
                    return Err(format!(
                        "{} has {} items `{name}`: use an anchor",
                        path.display(),
                        several.len()
                    ));
                }
            }
        } else {
            return Err(format!("`{spec}`: after the file comes `::item` or `#anchor`"));
        };
        self.linked.borrow_mut().insert(path.clone());
        Ok(Place { file: path, what, lines })
    }

    /// The text of a place: anchors left out, indented no more than needed.
    ///
    /// # Errors
    /// If nothing is left.
    pub(crate) fn text(&self, place: &Place) -> Result<String, String> {
        let file = self.file(&place.file)?;
        let (first, last) = place.lines;
        let lines: Vec<&str> = file.lines[first - 1..last]
            .iter()
            .map(String::as_str)
            .filter(|line| anchor(line).is_none())
            .collect();
        let indent = lines
            .iter()
            .filter(|line| !line.trim().is_empty())
            .map(|line| line.len() - line.trim_start().len())
            .min()
            .ok_or_else(|| format!("the slice `{}` is empty", place.what))?;
        let text = lines.iter().map(|line| line.get(indent..).unwrap_or_default());
        Ok(text.collect::<Vec<_>>().join("\n").trim_matches('\n').to_owned())
    }

    /// Where a test function stands, `path/to/file.rs::name`.
    ///
    /// # Errors
    /// If there is no such function, or nothing makes it a test.
    pub fn test(&self, spec: &str) -> Result<Place, String> {
        let (path, name) = spec
            .split_once(".rs::")
            .map(|(path, name)| (PathBuf::from(format!("{path}.rs")), name))
            .ok_or_else(|| format!("`{spec}` is no `path/to/file.rs::test_name`"))?;
        let file = self.file(&path)?;
        if let Some(at) = file.listed_in_a_test_macro(name) {
            self.linked.borrow_mut().insert(path.clone());
            return Ok(Place { file: path, what: name.to_owned(), lines: (at + 1, at + 1) });
        }
        let at = file
            .lines
            .iter()
            .position(|line| declares(line, name))
            .ok_or_else(|| format!("{} has no test `{name}`", path.display()))?;
        let above = file.lines[..at].iter().rev().take_while(|line| {
            let line = line.trim();
            line.starts_with("#[") || line.starts_with("//")
        });
        let attribute = above.into_iter().any(|line| {
            let line = line.trim();
            line.starts_with("#[test]") || line.starts_with("#[tokio::test")
        });
        if !attribute && !file.named_in_a_test_macro(name) {
            return Err(format!("{}::{name} is a function, but no test", path.display()));
        }
        self.linked.borrow_mut().insert(path.clone());
        Ok(Place { file: path, what: name.to_owned(), lines: (at + 1, at + 1) })
    }

    /// Reads every source below `listings` and `tests`: each anchor is closed, unique and shown.
    pub(crate) fn unused_anchors(&self, problems: &mut Problems) {
        let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
        for path in self.rust_files() {
            let Ok(text) = std::fs::read_to_string(self.root.join(&path)) else { continue };
            if !text.contains("// ANCHOR") {
                continue;
            }
            let shown = path.display().to_string();
            match File::parse(&text) {
                Err(e) => problems.add(shown, 0, e),
                Ok(file) => {
                    for (name, (first, _)) in &file.anchors {
                        if let Some(other) = seen.insert(name.clone(), path.clone()) {
                            let other = other.display();
                            problems.add(
                                &shown,
                                *first,
                                format!("anchor `{name}` also stands in {other}"),
                            );
                        }
                        if !self.anchors_used.borrow().contains(name) {
                            problems.add(
                                &shown,
                                *first,
                                format!("no page shows the anchor `{name}`"),
                            );
                        }
                    }
                }
            }
        }
    }

    /// Every Rust file below `listings` and `tests`, relative to the repository.
    #[must_use]
    pub fn rust_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![PathBuf::from("listings"), PathBuf::from("tests")];
        while let Some(folder) = open.pop() {
            let Ok(entries) = std::fs::read_dir(self.root.join(&folder)) else { continue };
            for entry in entries.flatten() {
                let path = folder.join(entry.file_name());
                let hidden = matches!(
                    entry.file_name().to_str(),
                    None | Some("target" | "artifacts" | "node_modules")
                );
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() && !hidden => open.push(path),
                    Ok(_) if path.extension().is_some_and(|extension| extension == "rs") => {
                        found.push(path);
                    }
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    /// The item or function that holds a line, for reports about that line.
    #[must_use]
    pub fn item_at(&self, path: &Path, line: usize) -> Option<String> {
        let file = self.file(path).ok()?;
        let holding = file.items.iter().filter(|item| (item.full.0..=item.full.1).contains(&line));
        holding.min_by_key(|item| item.full.1 - item.full.0).map(|item| item.name.clone())
    }
}

/// `fn name(` or `fn name<`.
fn declares(line: &str, name: &str) -> bool {
    line.split_once("fn ").is_some_and(|(_, rest)| {
        rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', '<']))
    })
}

/// The name of an anchor's line and whether it opens.
fn anchor(line: &str) -> Option<(&str, bool)> {
    let line = line.trim();
    if let Some(name) = line.strip_prefix("// ANCHOR:") {
        Some((name.trim(), true))
    } else {
        line.strip_prefix("// ANCHOR_END:").map(|name| (name.trim(), false))
    }
}

impl File {
    fn parse(text: &str) -> Result<Self, String> {
        let mut file = Self {
            lines: text.lines().map(str::to_owned).collect(),
            anchors: anchors(text)?,
            items: Vec::new(),
        };
        let parsed = syn::parse_file(text).map_err(|e| {
            format!("line {}: not Rust this parser reads: {e}", e.span().start().line)
        })?;
        file.collect("", &parsed.items);
        Ok(file)
    }

    fn collect(&mut self, prefix: &str, items: &[syn::Item]) {
        for item in items {
            match item {
                syn::Item::Fn(i) => self.add(prefix, &i.sig.ident, &i.attrs, i.span()),
                syn::Item::Struct(i) => self.add(prefix, &i.ident, &i.attrs, i.span()),
                syn::Item::Enum(i) => self.add(prefix, &i.ident, &i.attrs, i.span()),
                syn::Item::Const(i) => self.add(prefix, &i.ident, &i.attrs, i.span()),
                syn::Item::Static(i) => self.add(prefix, &i.ident, &i.attrs, i.span()),
                syn::Item::Type(i) => self.add(prefix, &i.ident, &i.attrs, i.span()),
                syn::Item::Trait(i) => {
                    self.add(prefix, &i.ident, &i.attrs, i.span());
                    for item in &i.items {
                        if let syn::TraitItem::Fn(f) = item {
                            self.add(
                                prefix,
                                &format!("{}::{}", i.ident, f.sig.ident),
                                &f.attrs,
                                f.span(),
                            );
                        }
                    }
                }
                syn::Item::Impl(i) => self.collect_impl(prefix, i),
                syn::Item::Macro(i) => {
                    let name = match &i.ident {
                        Some(ident) => ident.to_string(),
                        None => format!("{}!", path_end(&i.mac.path)),
                    };
                    self.add(prefix, &name, &i.attrs, i.span());
                }
                syn::Item::Mod(i) => {
                    if let Some((_, items)) = &i.content {
                        self.add(prefix, &i.ident, &i.attrs, i.span());
                        self.collect(&format!("{prefix}{}::", i.ident), items);
                    }
                }
                _ => {}
            }
        }
    }

    fn collect_impl(&mut self, prefix: &str, block: &syn::ItemImpl) {
        let of = match block.self_ty.as_ref() {
            syn::Type::Path(path) => path_end(&path.path),
            syn::Type::Reference(reference) => match reference.elem.as_ref() {
                syn::Type::Path(path) => format!("&{}", path_end(&path.path)),
                _ => return,
            },
            _ => return,
        };
        let name = match &block.trait_ {
            Some((_, path, _)) => format!("{} for {of}", path_end(path)),
            None => of.clone(),
        };
        let whole = if block.trait_.is_some() { name.clone() } else { format!("impl {of}") };
        self.add(prefix, &whole, &block.attrs, block.span());
        for item in &block.items {
            match item {
                syn::ImplItem::Fn(f) => {
                    self.add(prefix, &format!("{name}::{}", f.sig.ident), &f.attrs, f.span());
                }
                syn::ImplItem::Const(c) => {
                    self.add(prefix, &format!("{name}::{}", c.ident), &c.attrs, c.span());
                }
                _ => {}
            }
        }
    }

    fn add(
        &mut self,
        prefix: &str,
        name: &impl ToString,
        attributes: &[syn::Attribute],
        span: Span,
    ) {
        let full = (span.start().line, span.end().line);
        // Documentation and attributes stand on lines of their own, as rustfmt leaves them.
        let after = attributes.iter().map(|attribute| attribute.span().end().line + 1).max();
        let bare = (after.unwrap_or(full.0).min(full.1), full.1);
        self.items.push(Item { name: format!("{prefix}{}", name.to_string()), full, bare });
    }

    /// Whether `on_every_chain!` or `proptest!` makes a test of this name.
    /// The line of `recordings! { … }` that makes a test of this name.
    fn listed_in_a_test_macro(&self, name: &str) -> Option<usize> {
        let begin = self.lines.iter().position(|line| line.starts_with("recordings! {"))?;
        let listed = self.lines.iter().enumerate().skip(begin + 1);
        let mut listed = listed.take_while(|(_, line)| *line != "}");
        let (at, _) = listed.find(|(_, line)| {
            line.trim().strip_prefix(name).is_some_and(|rest| rest.starts_with(" \""))
        })?;
        Some(at)
    }

    fn named_in_a_test_macro(&self, name: &str) -> bool {
        let mut inside = false;
        self.lines.iter().any(|line| {
            if line == "}" {
                inside = false;
            }
            if line.starts_with("on_every_chain!") || line.trim().starts_with("proptest!") {
                inside = true;
            }
            inside
                && line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == name)
        })
    }

    fn nearest(&self, path: &Path, name: &str) -> String {
        let last = name.rsplit("::").next().unwrap_or(name);
        let like: Vec<_> = self
            .items
            .iter()
            .filter(|item| item.name.rsplit("::").next() == Some(last))
            .map(|item| format!("`{}`", item.name))
            .collect();
        let hint = match like.is_empty() {
            true => String::new(),
            false => format!(" (there is {})", like.join(", ")),
        };
        format!("{} has no item `{name}`{hint}", path.display())
    }
}

fn path_end(path: &syn::Path) -> String {
    path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
}

fn anchors(text: &str) -> Result<BTreeMap<String, (usize, usize)>, String> {
    let mut open: BTreeMap<&str, usize> = BTreeMap::new();
    let mut closed = BTreeMap::new();
    for (at, line) in text.lines().enumerate() {
        let number = at + 1;
        match anchor(line) {
            Some((name, true)) => {
                let twice = closed.contains_key(name) || open.insert(name, number).is_some();
                if twice {
                    return Err(format!("line {number}: anchor `{name}` opens twice"));
                }
            }
            Some((name, false)) => {
                let first = open
                    .remove(name)
                    .ok_or_else(|| format!("line {number}: anchor `{name}` ends unopened"))?;
                if first + 1 == number {
                    return Err(format!("line {number}: anchor `{name}` is empty"));
                }
                closed.insert(name.to_owned(), (first + 1, number - 1));
            }
            None => {}
        }
    }
    match open.into_iter().next() {
        Some((name, line)) => Err(format!("line {line}: anchor `{name}` is never closed")),
        None => Ok(closed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
/// Pays.
///
/// Twice.
#[derive(Debug)]
pub struct Payer {
    id: u8,
}

impl Payer {
    /// Does it.
    pub fn pay(&self) -> u8 {
        // MARK: sum
        let sum = self.id;
        // MARK_END: sum
        sum
    }
}

impl Drop for Payer {
    fn drop(&mut self) {}
}

#[cfg(test)]
mod tests {
    #[test]
    fn pays() {}

    fn helper() {}
}

on_every_chain! {
    flows
}
async fn flows() {}

recordings! {
    fail_dust \"fail-dust\"
}
fn fail_other() {}
";

    fn sources() -> (tempfile::TempDir, Sources) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("listings")).unwrap();
        // Spelt otherwise here, or these would be anchors of this repository.
        let text = TEXT.replace("MARK", "ANCHOR");
        std::fs::write(folder.path().join("listings/a.rs"), text).unwrap();
        let sources = Sources::new(folder.path());
        (folder, sources)
    }

    fn text(spec: &str) -> Result<String, String> {
        let (_folder, sources) = sources();
        sources.text(&sources.place(spec)?)
    }

    #[test]
    fn items_come_without_their_documentation_and_anchors() {
        assert_eq!(text("listings/a.rs::Payer").unwrap(), "pub struct Payer {\n    id: u8,\n}");
        assert_eq!(
            text("listings/a.rs::Payer::pay").unwrap(),
            "pub fn pay(&self) -> u8 {\n    let sum = self.id;\n    sum\n}"
        );
        assert_eq!(text("listings/a.rs::Drop for Payer::drop").unwrap(), "fn drop(&mut self) {}");
        assert_eq!(text("listings/a.rs#sum").unwrap(), "let sum = self.id;");
        let (_folder, sources) = sources();
        let place = sources.find("listings/a.rs::Payer", true).unwrap();
        assert!(sources.text(&place).unwrap().starts_with("/// Pays."));
    }

    #[test]
    fn what_does_not_exist_is_told_with_what_does() {
        assert!(text("listings/b.rs::X").unwrap_err().contains("listings/b.rs"));
        assert!(text("listings/a.rs::Peer::pay").unwrap_err().contains("`Payer::pay`"));
        assert!(text("listings/a.rs#none").unwrap_err().contains("no anchor"));
        assert!(text("listings/a").unwrap_err().contains("names no .rs"));
    }

    #[test]
    fn only_tests_are_tests() {
        let (_folder, sources) = sources();
        assert_eq!(sources.test("listings/a.rs::pays").unwrap().lines.0, 26);
        assert!(sources.test("listings/a.rs::flows").is_ok());
        assert_eq!(sources.test("listings/a.rs::fail_dust").unwrap().lines.0, 37);
        assert!(sources.test("listings/a.rs::fail").unwrap_err().contains("has no test"));
        assert!(sources.test("listings/a.rs::fail_other").unwrap_err().contains("but no test"));
        assert!(sources.test("listings/a.rs::helper").unwrap_err().contains("no test"));
        assert!(sources.test("listings/a.rs::nothing").unwrap_err().contains("has no test"));
    }

    #[test]
    fn anchors_are_closed_unique_and_full() {
        let error = |text: &str| anchors(text).unwrap_err();
        assert!(error("// ANCHOR: a\nx\n").contains("never closed"));
        assert!(error("// ANCHOR_END: a\n").contains("unopened"));
        assert!(error("// ANCHOR: a\n// ANCHOR_END: a\n").contains("empty"));
        let twice = "// ANCHOR: a\nx\n// ANCHOR_END: a\n// ANCHOR: a\nx\n// ANCHOR_END: a\n";
        assert!(error(twice).contains("twice"));
    }

    #[test]
    fn an_anchor_that_no_page_shows_is_a_problem() {
        let (_folder, sources) = sources();
        let mut problems = Problems::default();
        sources.unused_anchors(&mut problems);
        assert!(problems.to_string().contains("no page shows the anchor `sum`"));
        sources.place("listings/a.rs#sum").unwrap();
        let mut problems = Problems::default();
        sources.unused_anchors(&mut problems);
        assert!(problems.is_empty(), "{problems}");
    }

    #[test]
    fn a_line_is_told_by_its_item() {
        let (_folder, sources) = sources();
        let at = |line| sources.item_at(Path::new("listings/a.rs"), line);
        assert_eq!(at(13).as_deref(), Some("Payer::pay"));
        assert_eq!(at(5).as_deref(), Some("Payer"));
    }
}
