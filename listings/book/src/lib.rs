//! The book's one preprocessor: it fills chapters with slices of the compiled crates, claim marks,
//! diagrams, recorded output and tables, and refuses whatever leads nowhere.
//!
//! mdBook publishes a page with a missing include or an unclosed anchor and exits with success. Here
//! every such thing is a [`Problem`], all of them are reported at once, and any one fails the build.

mod chapter;
mod claims;
mod diagram;
mod entries;
mod events;
mod excerpt;
mod facts;
mod fees;
mod fences;
mod flags;
mod highlight;
mod hold;
mod html;
mod ledger;
mod listing;
mod numbers;
mod pages;
mod player;
mod problems;
mod recordings;
mod scenarios;
mod sources;
mod traps;

pub use claims::{Claim, Ledger, Naive, SourceLine, SpecClause, Status, lines_of_ldk};
pub use entries::quoted_texts;
pub use facts::{Dated, Versions, dates_in};
pub use problems::{Problem, Problems};
pub use scenarios::{Scenario, scenarios};
pub use sources::{Place, Sources};
pub use traps::{Trap, traps};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;
use entries::Entry;
use mdbook_preprocessor::book::{Book, Chapter};
use mdbook_preprocessor::{Preprocessor, PreprocessorContext};
use recordings::Recordings;

/// The preprocessor `guide` of `book.toml`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guide;

impl Preprocessor for Guide {
    fn name(&self) -> &str {
        "guide"
    }

    fn run(&self, ctx: &PreprocessorContext, mut book: Book) -> Result<Book> {
        let mut desk = Desk::open(&ctx.root);
        desk.expand(&mut book);
        desk.finish()?;
        Ok(book)
    }
}

/// Where a slice of the sources is shown.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// The chapter's file, relative to the book's `src`.
    pub chapter: String,
    /// The source file, relative to the repository.
    pub file: PathBuf,
    /// The item or anchor.
    pub what: String,
    /// First and last line in the file, counted from 1.
    pub lines: (usize, usize),
}

/// Reads the chapters below `root/src` without mdBook, and tells every problem and every slice shown.
///
/// # Errors
/// Only if the chapters cannot be listed; problems in them are in the answer.
pub fn check(root: &Path) -> Result<(Problems, Vec<Shown>)> {
    let mut desk = Desk::open(root);
    let mut book = Book::new();
    let mut files: Vec<_> = std::fs::read_dir(root.join("src"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .filter(|path| path.file_name().is_some_and(|name| name != "SUMMARY.md"))
        .collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&file)?;
        book.push_item(Chapter::new(&name, text, name.clone(), Vec::new()));
    }
    desk.expand(&mut book);
    desk.unused();
    Ok((desk.problems, desk.shown))
}

/// All that the chapters draw on, and what has been found so far.
struct Desk {
    root: PathBuf,
    sources: Sources,
    ledger: Ledger,
    versions: Versions,
    recordings: Recordings,
    problems: Problems,
    shown: Vec<Shown>,
    /// Each chapter's file and title, in reading order.
    titles: Vec<(String, String)>,
    /// Recording to the page that plays it.
    players: BTreeMap<String, String>,
    /// What can fail, in reading order.
    entries: Vec<Entry>,
    /// The ids of each chapter's headings.
    ids: BTreeMap<String, BTreeSet<String>>,
    /// Claim id to the chapters that make it, in reading order.
    made: BTreeMap<String, Vec<String>>,
}

impl Desk {
    fn open(root: &Path) -> Self {
        let mut problems = Problems::default();
        let versions = problems.take(Versions::read(root)).unwrap_or_default();
        let sources = Sources::new(root);
        let ledger = Ledger::read(root, &mut problems);
        Self {
            root: root.to_owned(),
            sources,
            ledger,
            versions,
            recordings: Recordings::new(root),
            problems,
            shown: Vec::new(),
            titles: Vec::new(),
            players: BTreeMap::new(),
            entries: Vec::new(),
            ids: BTreeMap::new(),
            made: BTreeMap::new(),
        }
    }

    fn expand(&mut self, book: &mut Book) {
        self.titles = book
            .chapters()
            .filter_map(|chapter| {
                let path = chapter.path.as_ref()?;
                Some((path.to_string_lossy().into_owned(), chapter.name.clone()))
            })
            .collect();
        for chapter in book.chapters() {
            let Some(path) = &chapter.path else { continue };
            let page = path.with_extension("html").to_string_lossy().into_owned();
            let played = chapter.content.lines().filter_map(|line| {
                line.trim().strip_prefix("{{#player ")?.strip_suffix("}}").map(str::trim)
            });
            self.players.extend(played.map(|name| (name.to_owned(), page.clone())));
            self.look_ahead(&path.to_string_lossy(), &chapter.content);
        }
        // The ledger's page tells where each claim is made, so it comes after all others.
        let mut late = Vec::new();
        book.for_each_chapter_mut(|chapter| {
            if claims::is_ledger_page(&chapter.content) {
                late.push(chapter.path.clone());
            } else {
                self.chapter(chapter);
            }
        });
        book.for_each_chapter_mut(|chapter| {
            if late.contains(&chapter.path) {
                self.chapter(chapter);
            }
        });
        self.ledger.check(&self.sources, &self.made, &mut self.problems);
        pages::append(book, &self.sources, &mut self.problems);
    }

    /// What other chapters have to know of a chapter.
    fn look_ahead(&mut self, page: &str, text: &str) {
        let ids = self.ids.entry(page.to_owned()).or_default();
        for part in fences::parts(page, text, &mut Problems::default()) {
            if let fences::Part::Prose { text, .. } = part
                && let Some((level, title)) = text.split_once(' ')
                && !level.is_empty()
                && level.bytes().all(|c| c == b'#')
            {
                ids.insert(entries::id_of(title));
            }
        }
        if entries::is_page(page) {
            let read = entries::read(page, text, &mut self.problems);
            for entry in &read {
                entry.check(&mut self.problems);
            }
            self.entries.extend(read);
        }
    }

    fn unused(&mut self) {
        self.sources.unused_anchors(&mut self.problems);
    }

    fn finish(mut self) -> Result<()> {
        self.unused();
        self.problems.into_result()
    }
}
