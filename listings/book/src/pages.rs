//! A page for each source file that some chapter leads to.

use mdbook_preprocessor::book::{Book, Chapter, SectionNumber};

use crate::html::escape_markdown;
use crate::listing::{page_of, shown_path, whole_file};
use crate::problems::Problems;
use crate::sources::Sources;

/// Appends the part "Sources" to the book.
pub(crate) fn append(book: &mut Book, sources: &Sources, problems: &mut Problems) {
    let title = "Sources";
    let mut list = String::from(
        "# Sources\n\nEvery file that a page of this book shows or leads to, whole, as it was \
         compiled and tested.\n\n",
    );
    let mut pages = Vec::new();
    let mut folder = String::new();
    for (at, path) in sources.linked().into_iter().enumerate() {
        let shown = shown_path(&path);
        let (in_folder, name) = shown.rsplit_once('/').unwrap_or(("", &shown));
        if in_folder != folder {
            folder = in_folder.to_owned();
            list.push_str(&format!("\n## {}\n\n", escape_markdown(&folder)));
        }
        let href = page_of(&path);
        let href = href.strip_prefix("sources/").unwrap_or(&href);
        list.push_str(&format!("- [`{name}`]({href})\n"));
        match sources.file(&path) {
            Ok(file) => {
                let content =
                    format!("# {}\n\n{}", escape_markdown(&shown), whole_file(&file.lines));
                let mut page = Chapter::new(
                    &shown,
                    content,
                    format!("sources/{shown}.md"),
                    vec![title.to_owned()],
                );
                page.number = Some(number(&[at]));
                pages.push(page.into());
            }
            Err(what) => problems.add(path.display().to_string(), 0, what),
        }
    }
    let mut part = Chapter::new(title, list, "sources/index.md", Vec::new());
    // mdBook nests its contents by the dots of section numbers.
    part.number = Some(number(&[]));
    part.sub_items = pages;
    book.push_item(part);
}

fn number(below: &[usize]) -> SectionNumber {
    let below = below.iter().filter_map(|at| u32::try_from(at + 1).ok());
    SectionNumber::new(std::iter::once(1000).chain(below).collect::<Vec<_>>())
}
