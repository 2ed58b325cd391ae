//! Reads the built book as a browser does, and follows every reference in it.

use anyhow::{Context, Result};
use scraper::{ElementRef, Html};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

/// Attributes that hold one address.
const ADDRESSES: [&str; 7] = ["href", "xlink:href", "src", "poster", "data", "action", "cite"];
/// Attributes that hold ids of the same page.
const ID_LISTS: [&str; 7] = [
    "for",
    "headers",
    "aria-controls",
    "aria-describedby",
    "aria-details",
    "aria-labelledby",
    "aria-owns",
];
/// What a script loads by name.
const LOADED: [&str; 5] = [".js", ".css", ".json", ".wasm", ".woff2"];

/// A folder of pages.
#[derive(Debug)]
pub struct Site {
    /// Every file, with `/` between folders on every system.
    files: BTreeSet<String>,
    pages: BTreeMap<String, Page>,
    /// References that style sheets make, with the sheet.
    styles: Vec<(String, String)>,
}

#[derive(Debug, Default)]
struct Page {
    ids: HashSet<String>,
    references: BTreeSet<String>,
    /// What is wrong with the page by itself.
    problems: Vec<String>,
    /// The page says that its addresses start at the top of the site.
    from_top: bool,
}

impl Site {
    /// Reads every page and style sheet below `folder`.
    pub fn read(folder: &Path) -> Result<Self> {
        let mut files = BTreeSet::new();
        list(folder, "", &mut files)?;
        let text = |name: &str| {
            std::fs::read_to_string(folder.join(name))
                .with_context(|| format!("{name} is not text"))
        };
        let mut styles = Vec::new();
        for name in files.iter().filter(|name| name.ends_with(".css")) {
            styles.extend(in_css(&text(name)?).into_iter().map(|url| (name.clone(), url)));
        }
        let names: Vec<_> = files.iter().filter(|name| name.ends_with(".html")).cloned().collect();
        // Parsing is most of the work.
        let workers = std::thread::available_parallelism().map_or(1, usize::from);
        let texts = names.iter().map(|name| text(name)).collect::<Result<Vec<_>>>()?;
        let pages = std::thread::scope(|scope| {
            let work: Vec<_> = (0..workers)
                .map(|worker| {
                    let mine = names.iter().zip(&texts).skip(worker).step_by(workers);
                    scope.spawn(move || {
                        mine.map(|(name, text)| (name.clone(), Page::read(name, text)))
                            .collect::<Vec<_>>()
                    })
                })
                .collect();
            work.into_iter().flat_map(|pages| pages.join().expect("no panic in it")).collect()
        });
        Ok(Self { files, pages, styles })
    }

    /// The number of pages.
    pub fn pages(&self) -> usize {
        self.pages.len()
    }

    /// What is wrong with the pages and between them, a line each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, page) in &self.pages {
            problems.extend(page.problems.iter().map(|problem| format!("{name}: {problem}")));
            let from = if page.from_top { "" } else { name };
            for reference in &page.references {
                if let Err(why) = self.follow(name, from, reference) {
                    problems.push(format!("{name}: {reference} {why}"));
                }
            }
        }
        for (name, reference) in &self.styles {
            if let Err(why) = self.follow(name, name, reference) {
                problems.push(format!("{name}: {reference} {why}"));
            }
        }
        problems
    }

    /// The links that leave the book.
    pub fn external(&self) -> BTreeSet<String> {
        let references = self.pages.values().flat_map(|page| &page.references);
        let styles = self.styles.iter().map(|(_, reference)| reference);
        references.chain(styles).filter(|reference| is_external(reference)).cloned().collect()
    }

    /// Follows what stands on `page`, relative to `from`.
    fn follow(&self, page: &str, from: &str, reference: &str) -> Result<(), &'static str> {
        if is_external(reference) || reference.starts_with("data:") {
            return Ok(());
        }
        if reference.starts_with('/') {
            return Err("is absolute, and the book may be hosted in a folder");
        }
        let (address, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let path = decode(address.split('?').next().unwrap_or_default());
        if path.split('/').next().is_some_and(|first| first.contains(':')) {
            return Err("has a scheme that the book does not use");
        }
        let target = if path.is_empty() { page.to_owned() } else { join(from, &path)? };
        if !self.files.contains(&target) {
            return Err("leads to no file");
        }
        let fragment = decode(fragment);
        match self.pages.get(&target) {
            _ if fragment.is_empty() => Ok(()),
            Some(target) if target.ids.contains(&fragment) => Ok(()),
            Some(_) => Err("leads to a page without this id"),
            None => Err("has a fragment in what is not a page"),
        }
    }
}

impl Page {
    fn read(name: &str, text: &str) -> Self {
        let html = Html::parse_document(text);
        let mut page = Self::default();
        let mut headings = Vec::new();
        let mut wanted = Vec::new();
        let mut redirects = false;
        // `template` holds what is shown later, and is part of the tree here.
        for element in html.root_element().descendent_elements() {
            let tag = element.value().name();
            if let Some(id) = element.attr("id")
                && !page.ids.insert(id.to_owned())
            {
                page.problems.push(format!("two elements have the id {id:?}"));
            }
            match tag {
                "base" => {
                    page.from_top = true;
                    continue;
                }
                "meta" => redirects |= element.attr("http-equiv").is_some_and(|it| it == "refresh"),
                "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => headings.push(element),
                "style" => page.references.extend(in_css(&text_of(element))),
                "script" => page.references.extend(in_script(&text_of(element))),
                "a" if element.attr("name").is_some_and(|_| element.attr("id").is_none()) => {
                    page.problems.push("an anchor has a name and no id".to_owned());
                }
                _ => {}
            }
            for (attribute, value) in element.value().attrs() {
                if ADDRESSES.contains(&attribute) && !(attribute == "data" && tag != "object") {
                    page.references.insert(format!("{}{}", root_of(element), value.trim()));
                } else if attribute == "srcset" {
                    let addresses = value.split(',').filter_map(|it| it.split_whitespace().next());
                    page.references.extend(addresses.map(str::to_owned));
                } else if ID_LISTS.contains(&attribute) {
                    wanted.extend(value.split_whitespace().map(|id| (attribute, id.to_owned())));
                } else if value.contains("url(") {
                    page.references.extend(in_css(value));
                }
            }
        }
        for (attribute, id) in wanted {
            if !page.ids.contains(&id) {
                page.problems.push(format!("{attribute} names {id:?}, which is no id here"));
            }
        }
        // The table of contents is a frame in other pages.
        if !redirects && name != "toc.html" {
            page.problems.extend(outline_problems(&headings));
        }
        page
    }
}

/// mdBook's contents have addresses from the top of the site. The theme keeps the way there beside
/// them, and its script puts that before each.
fn root_of(element: ElementRef<'_>) -> &str {
    let mut above = element.ancestors().filter_map(ElementRef::wrap);
    above.find_map(|element| element.attr("data-root")).unwrap_or_default()
}

fn outline_problems(headings: &[ElementRef<'_>]) -> Vec<String> {
    let mut problems = Vec::new();
    let level = |heading: &ElementRef<'_>| heading.value().name().as_bytes()[1] - b'0';
    let top = headings.iter().filter(|heading| level(heading) == 1).count();
    if top != 1 {
        problems.push(format!("has {top} headings of level 1"));
    }
    let mut last = 0;
    for heading in headings {
        if level(heading) > last + 1 {
            let title = heading.text().collect::<String>();
            problems
                .push(format!("heading {title:?} skips from level {last} to {}", level(heading)));
        }
        last = level(heading);
    }
    problems
}

/// Every id in a page.
pub(super) fn ids(text: &str) -> HashSet<String> {
    Page::read("", text).ids
}

fn is_external(reference: &str) -> bool {
    ["http://", "https://", "//"].iter().any(|start| reference.starts_with(start))
}

fn text_of(element: ElementRef<'_>) -> String {
    element.text().collect()
}

/// The addresses in a style sheet.
fn in_css(css: &str) -> Vec<String> {
    let urls = css.split("url(").skip(1).filter_map(|rest| rest.split(')').next());
    let imports = css.split("@import").skip(1).filter_map(|rest| rest.split(';').next());
    let imports = imports.filter(|import| !import.contains("url("));
    let bare = |it: &str| it.trim().trim_matches(['"', '\'']).to_owned();
    urls.chain(imports).map(bare).collect()
}

/// What a script in a page names: a string that looks like a file to load.
fn in_script(script: &str) -> Vec<String> {
    let is_name = |it: &&str| {
        LOADED.iter().any(|end| it.ends_with(end) && it.len() > end.len())
            && it.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"./_-".contains(&byte))
    };
    script.split(['"', '\'', '`']).filter(is_name).map(str::to_owned).collect()
}

/// `%41` is `A`.
fn decode(text: &str) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(value) if *first == b'%' => {
                decoded.push(value);
                rest = &after[2..];
            }
            _ => {
                decoded.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

/// The file that `path` leads to from the page `from`.
fn join(from: &str, path: &str) -> Result<String, &'static str> {
    let mut parts: Vec<_> = from.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or("leaves the book")?;
            }
            part => parts.push(part),
        }
    }
    if parts.is_empty() || path.ends_with(['/', '.']) {
        parts.push("index.html");
    }
    Ok(parts.join("/"))
}

fn list(folder: &Path, prefix: &str, files: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().into_string().ok().context("a file name is not Unicode")?;
        let name = format!("{prefix}{name}");
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &format!("{name}/"), files)?;
        } else {
            files.insert(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A site of two pages: a sound one that is in order, and `body` beside it.
    fn problems(body: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("deep/there.html", "<h1 id='top one'>There</h1><a href='../page.html'>back</a>");
        write("style.css", "@import \"more.css\"; a { background: url('deep/dot.svg') }");
        write("more.css", "");
        write("deep/dot.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>");
        write(
            "page.html",
            &format!("<!DOCTYPE html><html><body><h1>Page</h1>{body}</body></html>"),
        );
        Site::read(folder.path()).unwrap().problems()
    }

    fn sound(body: &str) {
        assert_eq!(problems(body), [] as [&str; 0], "{body}");
    }

    fn broken(body: &str, why: &str) {
        let found = problems(body);
        assert!(matches!(&found[..], [only] if only.contains(why)), "{body}: {found:?}");
    }

    #[test]
    fn a_link_that_leads_somewhere_is_followed() {
        sound("<a href='deep/there.html'>it</a>");
        sound("<a href='deep/there.html#top%20one'>it</a>");
        sound("<a href='./deep/../deep/there.html?print'>it</a>");
        sound("<a href='#here' id=here>it</a><a href='#'>top</a>");
        sound("<img src='deep/dot.svg' alt=dot><link rel=stylesheet href=style.css>");
        sound("<a href='https://example.org/absent#x'>it</a>");
        sound("<nav data-root='deep/'><a href='there.html'>it</a></nav>");
    }

    #[test]
    fn a_dead_link_is_found() {
        broken("<a href='absent.html'>it</a>", "leads to no file");
        broken("<a href='deep/There.html'>it</a>", "leads to no file");
        broken("<a href='deep/there.html#absent'>it</a>", "without this id");
        broken("<a href='#absent'>it</a>", "without this id");
        broken("<a href='../page.html'>it</a>", "leaves the book");
        broken("<a href='/page.html'>it</a>", "is absolute");
        broken("<a href='javascript:alert(1)'>it</a>", "scheme");
        broken("<a href='style.css#x'>it</a>", "not a page");
    }

    #[test]
    fn a_dead_asset_is_found_wherever_it_is_named() {
        for body in [
            "<img src='absent.png' alt=x>",
            "<img srcset='deep/dot.svg 1x, absent.png 2x' alt=x>",
            "<script src='absent.js'></script>",
            "<script>window.path = \"absent.js\";</script>",
            "<style>a { background: url(absent.png) }</style>",
            "<p style='background: url(\"absent.png\")'>x</p>",
            "<template><img src='absent.png' alt=x></template>",
        ] {
            broken(body, "leads to no file");
        }
        for svg in [
            "<svg><use href='#absent'/></svg>",
            "<svg><use xlink:href='#absent'/></svg>",
            "<svg><path marker-end='url(#absent)'/></svg>",
        ] {
            broken(svg, "without this id");
        }
    }

    #[test]
    fn ids_are_unique_and_what_names_one_finds_it() {
        broken("<p id=a>x</p><p id=a>y</p>", "two elements have the id \"a\"");
        broken(
            "<svg aria-labelledby='t'><title id=u>x</title></svg>",
            "aria-labelledby names \"t\"",
        );
        sound("<svg aria-labelledby='t u'><title id=u>x</title><desc id=t>y</desc></svg>");
    }

    #[test]
    fn headings_start_once_and_go_down_step_by_step() {
        broken("<h1>Again</h1>", "has 2 headings of level 1");
        broken("<h3>Deep</h3>", "heading \"Deep\" skips from level 1 to 3");
        sound("<h2>A</h2><h3>B</h3><h2>C</h2>");
    }

    #[test]
    fn links_that_leave_are_told_once() {
        let folder = tempfile::tempdir().unwrap();
        let body = "<h1>x</h1><a href='https://a.b/#c'>x</a><a href='https://a.b/#c'>y</a>";
        std::fs::write(folder.path().join("a.html"), body).unwrap();
        let external = Site::read(folder.path()).unwrap().external();
        assert_eq!(external.into_iter().collect::<Vec<_>>(), ["https://a.b/#c"]);
    }
}
