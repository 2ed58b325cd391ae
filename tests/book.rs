//! The built book: it builds without a complaint, every reference in it leads somewhere, and the
//! stock `mdbook` builds the same.

use crate::skipped::skipped;
use guide::book::{self, Built, links::Site};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The book of this repository, built once for all tests, without live reload.
pub fn built() -> &'static Built {
    static BUILT: OnceLock<Built> = OnceLock::new();
    BUILT.get_or_init(|| {
        let dest = Path::new(env!("CARGO_TARGET_TMPDIR")).join("book");
        book::build(&root(), &dest).unwrap_or_else(|error| panic!("{error:#}"))
    })
}

fn site() -> &'static Site {
    static SITE: OnceLock<Site> = OnceLock::new();
    SITE.get_or_init(|| Site::read(&built().dest).unwrap())
}

fn assert_none(problems: &[String]) {
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

#[test]
fn the_book_builds_without_a_complaint_of_mdbook_or_ours() {
    let built = built();
    for page in ["index.html", "start.html", "step-5-open.html", "claims.html", "404.html"] {
        assert!(built.dest.join(page).is_file(), "no {page}");
    }
    // A debug build on a busy machine says little: `cargo run --release -- build` tells the time.
    println!("the book built in {:.2?}", built.took);
}

#[test]
fn every_reference_in_every_page_leads_somewhere() {
    assert_none(&site().problems());
    println!("{} pages", site().pages());
}

#[test]
fn every_api_link_leads_to_an_item_of_exactly_our_versions() {
    let (api, _) = book::api::split(site().external());
    assert!(!api.is_empty(), "a guide to an API that links to none of it");
    assert_none(&book::api::problems(&root(), &api).unwrap());
    println!("{} links to API documentation", api.len());
}

#[test]
fn the_list_of_external_links_is_what_the_pages_use() {
    let (_, external) = book::api::split(site().external());
    assert_none(&book::external_list_problems(&root(), &external).unwrap());
    let count = external.len();
    skipped(&format!("{count} external links are not fetched here; a workflow does it"));
}

/// The stock program, if there is one of the version that our crates are. One that is named must be.
fn stock() -> Option<OsString> {
    let named = std::env::var_os("MDBOOK_EXE");
    let exe = named.clone().unwrap_or_else(|| "mdbook".into());
    let version = Command::new(&exe).arg("--version").output();
    let fits = version
        .is_ok_and(|version| String::from_utf8_lossy(&version.stdout).starts_with("mdbook v0.5."));
    assert!(fits || named.is_none(), "MDBOOK_EXE={} is no mdbook 0.5", exe.display());
    fits.then_some(exe)
}

#[test]
fn the_stock_mdbook_builds_the_same_book() {
    let Some(mdbook) = stock() else {
        skipped("no mdbook 0.5 in PATH or MDBOOK_EXE to build the book with");
        return;
    };
    let theirs = tempfile::tempdir().unwrap();
    let output = Command::new(mdbook)
        .args(["build", "--dest-dir"])
        .args([theirs.path(), &root()])
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    let (ours, our_index) = without_index(contents(&built().dest));
    let (theirs, their_index) = without_index(contents(theirs.path()));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (name, content) in &ours {
        assert!(content == &theirs[name], "{name} differs");
    }
    assert!(our_index == their_index, "the search index differs");
}

/// Takes the search index out of a book: its keys stand in another order if some other crate turns
/// on a feature of `serde_json`, and its name, which every page has, depends on that order.
fn without_index(mut files: BTreeMap<String, Vec<u8>>) -> (BTreeMap<String, Vec<u8>>, Value) {
    let name = files.keys().find(|name| name.starts_with("searchindex")).unwrap().clone();
    let script = String::from_utf8(files.remove(&name).unwrap()).unwrap();
    let json = &script[script.find('\'').unwrap() + 1..script.rfind('\'').unwrap()];
    let json = json.replace("\\'", "'").replace("\\\\", "\\");
    let is_text = |file: &str| file.ends_with(".html") || file.ends_with(".js");
    for (_, page) in files.iter_mut().filter(|(file, _)| is_text(file)) {
        *page = String::from_utf8_lossy(page).replace(&name, "searchindex.js").into_bytes();
    }
    (files, serde_json::from_str(&json).unwrap())
}

fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(path).unwrap());
            }
        }
    }
    files
}

/// mdBook only warns of it.
const UNUSED_FOOTNOTE: &str = "# Small\n\n[^note]: Nothing refers to this.\n";

/// A book of one page, in the repository's theme.
pub struct Small(TempDir);

impl Small {
    pub fn new(page: &str) -> Self {
        let small = Self(tempfile::tempdir().unwrap());
        small.write("Cargo.toml", "[workspace.dependencies]\n");
        small.write("Cargo.lock", "");
        small.write("book.toml", "[output.html.print]\nenable = false\n");
        small.write("src/SUMMARY.md", "# Summary\n\n- [Page](page.md)\n");
        small.write("src/data/external-links.txt", "");
        small.write("src/page.md", page);
        for (name, content) in contents(&root().join("theme")) {
            small.write(&format!("theme/{name}"), content);
        }
        small
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// The names of all files in it.
    pub fn files(&self) -> Vec<String> {
        contents(self.root()).into_keys().collect()
    }

    fn build(&self) -> anyhow::Result<Built> {
        book::build(self.0.path(), &self.0.path().join("book"))
    }

    /// Why it does not build.
    fn refusal(page: &str) -> String {
        format!("{:#}", Self::new(page).build().unwrap_err())
    }
}

#[test]
fn a_small_book_builds_and_its_check_is_clean() {
    let small = Small::new("# Small\n\n[There](#there)\n\n## There\n\nText.\n");
    small.build().unwrap();
    assert_none(&book::check(small.0.path(), true).unwrap().problems);
}

/// The stock program logs these and exits with success.
#[test]
fn what_mdbook_only_logs_fails_the_build() {
    let error = Small::refusal("# Small\n\n{{#include absent.rs}}\n");
    assert!(error.contains("mdBook logged") && error.contains("ERROR"), "{error}");
    let error = Small::refusal(UNUSED_FOOTNOTE);
    assert!(error.contains("WARN footnote"), "{error}");
}

#[test]
fn what_the_preprocessor_refuses_fails_the_build() {
    let error = Small::refusal("# Small\n\n{{#slice absent.rs::Item}}\n");
    assert!(error.contains("src/page.md:3"), "{error}");
    let error = Small::refusal("# Small\n\nSaid{{#claim no-such-claim}}.\n");
    assert!(error.contains("no-such-claim"), "{error}");
}

#[test]
fn a_dead_link_in_a_page_is_found() {
    let found = |page: &str| {
        let small = Small::new(page);
        match book::check(small.0.path(), false) {
            Ok(checked) => checked.problems.join("\n"),
            Err(error) => format!("{error:#}"),
        }
    };
    for page in ["[x](page.md#absent)", "[x](absent.md)", "![x](absent.png)"] {
        let found = found(&format!("# Small\n\n{page}\n"));
        assert!(found.contains("absent"), "{page}: {found}");
    }
    let found = found("# Small\n\n[x](https://example.org/)\n");
    assert!(found.contains("lacks https://example.org/"), "{found}");
}

#[test]
fn an_api_link_to_what_does_not_exist_is_found() {
    let version = env!("CARGO_PKG_VERSION");
    let page = |page: &str| format!("https://docs.rs/lsps2-async/{version}/lsps2_async/{page}");
    let links = [page("index.html"), page("fn.absent.html"), page("index.html#absent")].into();
    let problems = book::api::problems(&root(), &links).unwrap();
    assert_eq!(problems.len(), 2, "{problems:?}");
    let other = ["https://docs.rs/lightning/0.0.1/lightning/index.html".to_owned()].into();
    let error = book::api::problems(&root(), &other).unwrap_err().to_string();
    assert!(error.contains("lightning@0.0.1"), "not the version of Cargo.lock: {error}");
}

/// `cargo run` on a book: it prints its address first.
pub struct Served {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    /// Where it listens.
    pub address: String,
}

impl Served {
    pub fn start(root: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_guide"))
            .args(["--no-open", "--port", "0"])
            .current_dir(root)
            // What a killed server leaves goes with the book.
            .env("TMPDIR", root)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = std::sync::mpsc::channel();
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for stream in streams {
            let sender = sender.clone();
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        let mut served = Self { child, lines, address: String::new() };
        let line = served.see("http://");
        let address = line.split("http://").nth(1).unwrap().split(' ').next().unwrap();
        served.address = address.to_owned();
        served
    }

    fn see(&self, what: &str) -> String {
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(Duration::from_secs(60)) {
                Ok(line) if line.contains(what) => return line,
                Ok(line) => seen.push(line),
                Err(_) => panic!("never said {what:?} but {seen:#?}"),
            }
        }
    }

    fn connect(&self, path: &str, headers: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", self.address).unwrap();
        BufReader::new(stream)
    }

    fn get(&self, path: &str) -> String {
        let mut answer = String::new();
        self.connect(path, "Connection: close\r\n").read_to_string(&mut answer).unwrap();
        answer
    }

    /// Ends it as Ctrl-C does, and waits for that.
    #[cfg(unix)]
    pub fn interrupt(&mut self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
        assert!(self.child.wait().unwrap().success());
    }

    /// Connects as the page does. Returns when the server listens to it.
    fn listen(&self) -> BufReader<TcpStream> {
        let mut stream = self.connect(
            "/__livereload",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        );
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        assert!(line.contains(" 101 "), "{line}");
        while line != "\r\n" {
            line.clear();
            stream.read_line(&mut line).unwrap();
        }
        stream
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_served_book_follows_its_sources_and_survives_a_mistake_in_them() {
    let small = Small::new("# Small\n\nBefore.\n");
    let served = Served::start(small.0.path());
    let page = served.get("/");
    assert!(page.starts_with("HTTP/1.1 200 OK") && page.contains("Before."), "{page}");
    assert!(page.contains("content-type: text/html"), "{page}");
    assert!(page.contains("__livereload"), "the theme does not listen: {page}");
    assert!(served.get("/toc.html").starts_with("HTTP/1.1 200 OK"));
    let absent = served.get("/deep/absent");
    assert!(absent.starts_with("HTTP/1.1 404") && absent.contains("</html>"), "{absent}");
    let outside = served.get("/../book.toml");
    assert!(outside.starts_with("HTTP/1.1 404"), "{outside}");

    let mut reader = served.listen();
    small.write("src/page.md", "# Small\n\nAfter.\n");
    // Final, text, six bytes.
    let mut frame = [0; 8];
    reader.read_exact(&mut frame).unwrap();
    assert_eq!(&frame, b"\x81\x06reload");
    served.see("built again");
    assert!(served.get("/").contains("After."));

    small.write("src/page.md", UNUSED_FOOTNOTE);
    served.see("the last good book stays");
    assert!(served.get("/page.html").contains("After."));
    small.write("src/page.md", "# Small\n\nMended.\n");
    served.see("built again");
    assert!(served.get("/page.html").contains("Mended."));
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_server_and_leaves_nothing_behind() {
    let small = Small::new("# Small\n\nText.\n");
    let before = small.files();
    let mut served = Served::start(small.root());
    assert_ne!(small.files(), before, "what it serves is there");
    served.interrupt();
    assert_eq!(small.files(), before);
}

#[test]
fn the_command_builds_into_the_folder_it_is_told_and_fails_on_a_problem() {
    let build = |small: &Small| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_guide"));
        command.args(["build", "--dest", "made"]).current_dir(small.0.path());
        command.output().unwrap()
    };
    let small = Small::new("# Small\n\nText.\n");
    assert!(build(&small).status.success());
    assert!(small.0.path().join("made/page.html").is_file());
    small.write("src/page.md", UNUSED_FOOTNOTE);
    let output = build(&small);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("footnote"), "{output:?}");
}
