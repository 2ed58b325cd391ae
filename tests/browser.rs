//! The pages in a real Chromium, as a reader meets them: phone and desktop, light and dark.
//!
//! Needs `chromium`, `chromedriver` (`CHROMIUM` and `CHROMEDRIVER` name others) and axe-core, which
//! `npm ci` in `tests/browser` installs. Without them the tests say that they are skipped;
//! `DEMAND_BROWSER=1` makes that a failure.

use crate::book::built;
use crate::skipped::skipped;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, key::Key};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A width to read at.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    pub(crate) name: &'static str,
    width: u32,
    height: u32,
    pub(crate) mobile: bool,
}

pub(crate) const PHONE: Screen = Screen { name: "phone", width: 360, height: 740, mobile: true };
pub(crate) const DESKTOP: Screen =
    Screen { name: "desktop", width: 1440, height: 900, mobile: false };

/// The most that a page may move over the network, compressed, fonts included.
const HEAVIEST: u64 = 200_000;

/// What a browser is started with: nothing that reaches out, and no sandbox, which containers lack.
const ARGUMENTS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars=false",
    "--force-color-profile=srgb",
];

/// A program by its variable, or by one of its names in the path.
fn program(variable: &str, names: &[&str]) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<_> = std::env::split_paths(&path).collect();
    names.iter().flat_map(|name| folders.iter().map(move |f| f.join(name))).find(|p| p.is_file())
}

/// The checks that run in each page.
pub(crate) fn axe() -> Option<&'static str> {
    static AXE: OnceLock<Option<String>> = OnceLock::new();
    let path = guide::book::root().unwrap().join("tests/browser/node_modules/axe-core/axe.min.js");
    AXE.get_or_init(|| std::fs::read_to_string(path).ok()).as_deref()
}

/// A session of a browser of its own, at a served copy of the book.
pub(crate) struct Browser {
    pub(crate) client: Client,
    pub(crate) base: String,
    _driver: Child,
    _profile: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// A command that WebDriver itself does not have.
#[derive(Debug)]
struct Vendor(&'static str, Value);

impl WebDriverCompatibleCommand for Vendor {
    fn endpoint(
        &self,
        base: &url::Url,
        session: Option<&str>,
    ) -> Result<url::Url, url::ParseError> {
        base.join(&format!("session/{}/{}", session.unwrap_or_default(), self.0))
    }

    fn method_and_body(&self, _: &url::Url) -> (http::Method, Option<String>) {
        (http::Method::POST, Some(self.1.to_string()))
    }
}

impl Browser {
    /// A browser at the book, or none and a word about it.
    pub(crate) async fn open() -> Option<Self> {
        let chromium = program("CHROMIUM", &["chromium", "chromium-browser", "google-chrome"]);
        let driver = program("CHROMEDRIVER", &["chromedriver"]);
        let (Some(chromium), Some(driver), Some(_)) = (&chromium, &driver, axe()) else {
            let missing = [
                (chromium.is_none(), "chromium"),
                (driver.is_none(), "chromedriver"),
                (axe().is_none(), "axe-core (npm ci in tests/browser)"),
            ];
            let missing: Vec<_> = missing.iter().filter(|m| m.0).map(|m| m.1).collect();
            let missing = missing.join(", ");
            assert!(std::env::var_os("DEMAND_BROWSER").is_none(), "missing: {missing}");
            skipped(&format!("install {missing} to run it"));
            return None;
        };
        let (base, server) = serve(&built().dest).await;
        let (child, port) = start(driver).await;
        let profile = tempfile::tempdir().unwrap();
        let mut arguments: Vec<_> = ARGUMENTS.iter().map(|&a| a.to_owned()).collect();
        arguments.push(format!("--user-data-dir={}", profile.path().display()));
        let capabilities = json!({
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        });
        let Value::Object(capabilities) = capabilities else { unreachable!("an object above") };
        let client = ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .unwrap();
        Some(Self { client, base, _driver: child, _profile: profile, server })
    }

    pub(crate) async fn cdp(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.client.issue_cmd(Vendor("goog/cdp/execute", body)).await.unwrap()
    }

    pub(crate) async fn at(&self, screen: Screen) {
        let size = json!({
            "width": screen.width, "height": screen.height,
            "deviceScaleFactor": 1, "mobile": screen.mobile,
        });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
    }

    pub(crate) async fn in_colours(&self, scheme: &str) {
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.cdp("Emulation.setEmulatedMedia", media).await;
    }

    pub(crate) async fn go(&self, page: &str) {
        self.client.goto(&format!("{}/{page}", self.base)).await.unwrap();
    }

    pub(crate) async fn eval(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.unwrap()
    }

    /// Waits until a condition holds in the page.
    pub(crate) async fn until(&self, condition: &str) {
        let script = format!(
            "const done = arguments[0], end = performance.now() + 20000;
             (function look() {{
                 let holds = false;
                 try {{ holds = {condition}; }} catch {{}}
                 if (holds) done('yes');
                 else if (performance.now() > end) done('no');
                 else setTimeout(look, 20);
             }})();"
        );
        let answer = self.client.execute_async(&script, Vec::new()).await.unwrap();
        assert_eq!(answer, "yes", "never true: {condition}");
    }

    pub(crate) async fn press(&self, keys: &str) {
        let focused = self.client.active_element().await.unwrap();
        focused.send_keys(keys).await.unwrap();
    }

    /// What the console and the network complained of since the last call.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        let log = self.client.issue_cmd(Vendor("se/log", json!({ "type": "browser" }))).await;
        let log = log.unwrap();
        let entries = log.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("console: {}", entry["message"])).collect()
    }

    pub(crate) async fn close(self) {
        self.client.clone().close().await.unwrap();
    }
}

/// Serves a folder as a host of pages does: compressed.
async fn serve(folder: &Path) -> (String, tokio::task::JoinHandle<()>) {
    let files = tower_http::services::ServeDir::new(folder);
    let app = axum::Router::new()
        .fallback_service(files)
        .layer(tower_http::compression::CompressionLayer::new());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    (base, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
}

/// Starts the driver on a port of its choice. It takes one for IPv4, and gives up if somebody has the same
/// one for IPv6.
async fn start(driver: &Path) -> (Child, u16) {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        if let Some(started) = try_start(driver).await {
            return started;
        }
    }
    panic!("{} says no port", driver.display());
}

async fn try_start(driver: &Path) -> Option<(Child, u16)> {
    let mut child = Command::new(driver)
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    while let Some(line) = lines.next_line().await.unwrap() {
        if let Some((_, port)) = line.split_once("started successfully on port ") {
            let port = port.trim_end_matches('.').trim().parse().unwrap();
            // Read on, or the driver stops at a full pipe.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Some((child, port));
        }
    }
    None
}

/// The pages, chapters before source files; `toc.html` is a page too.
fn pages() -> Vec<String> {
    let built = &built().dest;
    let mut pages = Vec::new();
    let mut open = vec![built.clone()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|extension| extension == "html") {
                let page = path.strip_prefix(built).unwrap().to_string_lossy().replace('\\', "/");
                pages.push(page);
            }
        }
    }
    pages.sort_by_key(|page| (page.contains('/'), page.clone()));
    assert!(pages.len() > 20, "{pages:?}");
    pages
}

/// Everything wider than the screen, unless it scrolls in a box of its own.
pub(crate) const OVERFLOW: &str = "
    const width = document.documentElement.clientWidth, wide = [];
    if (document.documentElement.scrollWidth > width) wide.push('the page is ' + document.documentElement.scrollWidth + ' wide');
    const scrolls = (e) => { for (; e && e !== document.body; e = e.parentElement) if (/auto|scroll|hidden|clip/.test(getComputedStyle(e).overflowX)) return true; return false; };
    for (const e of document.querySelectorAll('main *')) {
        const box = e.getBoundingClientRect();
        if (box.width && box.height && box.right > width + 1 && !scrolls(e)) { wide.push(e.tagName + '.' + e.className + ' ends at ' + Math.round(box.right) + ': ' + e.textContent.slice(0, 60)); if (wide.length > 3) break; }
    }
    return wide;";

/// axe-core's serious and critical findings; with an argument, those of that rule.
pub(crate) const ACCESSIBLE: &str = "
    const done = arguments[arguments.length - 1];
    const rules = arguments.length > 1 ? { runOnly: [arguments[0]] } : {};
    axe.run(document, { resultTypes: ['violations'], ...rules }).then(
        (found) => done(found.violations.filter((v) => v.impact === 'serious' || v.impact === 'critical')
            .map((v) => v.id + ': ' + v.nodes.length + ' × ' + v.nodes[0].target + ' ' + v.nodes[0].failureSummary.slice(0, 300))),
        (error) => done(['axe: ' + error]));";

/// Every page at one width and in one scheme. In the dark one only colours are other, so only what
/// depends on them is looked at again.
async fn every_page(screen: Screen, scheme: &str) {
    let Some(browser) = Browser::open().await else { return };
    browser.at(screen).await;
    browser.in_colours(scheme).await;
    let mut wrong = Vec::new();
    for page in pages() {
        browser.go(&page).await;
        let mut found = browser.complaints().await;
        let overflow = browser.eval(OVERFLOW).await;
        found.extend(texts(&overflow));
        browser.eval(axe().unwrap()).await;
        let rules = if scheme == "dark" { vec![json!("color-contrast")] } else { Vec::new() };
        let violations = browser.client.execute_async(ACCESSIBLE, rules).await.unwrap();
        found.extend(texts(&violations));
        wrong.extend(found.into_iter().map(|what| format!("{page}: {what}")));
    }
    browser.close().await;
    assert!(wrong.is_empty(), "{}, {scheme}:\n{}", screen.name, wrong.join("\n"));
}

pub(crate) fn texts(value: &Value) -> Vec<String> {
    let items = value.as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item.as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn every_page_on_a_phone_in_light() {
    every_page(PHONE, "light").await;
}

#[tokio::test]
async fn every_page_on_a_phone_in_dark() {
    every_page(PHONE, "dark").await;
}

#[tokio::test]
async fn every_page_on_a_desktop_in_light() {
    every_page(DESKTOP, "light").await;
}

#[tokio::test]
async fn every_page_on_a_desktop_in_dark() {
    every_page(DESKTOP, "dark").await;
}

/// How heavy a page is, how far its text moves, and when it is painted first.
async fn measure(browser: &Browser, page: &str) -> Value {
    browser.go(page).await;
    browser.until("document.fonts.status === 'loaded' && document.readyState === 'complete'").await;
    browser
        .client
        .execute_async(
            "const done = arguments[0];
             const entries = performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'));
             const bytes = entries.reduce((sum, e) => sum + e.transferSize, 0);
             let shift = 0;
             new PerformanceObserver((list) => { for (const e of list.getEntries()) if (!e.hadRecentInput) shift += e.value; })
                 .observe({ type: 'layout-shift', buffered: true });
             const paint = performance.getEntriesByName('first-contentful-paint')[0];
             requestAnimationFrame(() => setTimeout(() => done({ bytes, shift, paint: paint ? paint.startTime : null }), 0));",
            Vec::new(),
        )
        .await
        .unwrap()
}

/// A first visit to a page: nothing in the cache.
#[tokio::test]
async fn a_page_is_light_and_its_text_stands_still() {
    let Some(browser) = Browser::open().await else { return };
    browser.cdp("Network.enable", json!({})).await;
    browser.cdp("Network.setCacheDisabled", json!({ "cacheDisabled": true })).await;
    let mut wrong = Vec::new();
    let mut heaviest = (0, String::new());
    let mut slowest = (0.0, String::new());
    for screen in [PHONE, DESKTOP] {
        browser.at(screen).await;
        for page in pages() {
            let mut measured = measure(&browser, &page).await;
            // A machine that is busy may paint before the fonts are there, or measure nothing; a page
            // that is at fault is so each time.
            if measured["bytes"] == 0 || measured["shift"] != 0 {
                println!("{page}, {}: measured again, was {measured}", screen.name);
                measured = measure(&browser, &page).await;
            }
            let bytes = measured["bytes"].as_u64().unwrap();
            assert!(bytes > 1000, "{page}: nothing was measured: {measured}");
            if bytes > heaviest.0 {
                heaviest = (bytes, page.clone());
            }
            if let Some(paint) = measured["paint"].as_f64()
                && paint > slowest.0
            {
                slowest = (paint, page.clone());
            }
            if bytes > HEAVIEST {
                wrong.push(format!("{page}, {}: {bytes} bytes", screen.name));
            }
            let shift = measured["shift"].as_f64().unwrap();
            if shift > 0.0 {
                wrong.push(format!("{page}, {}: layout shift {shift}", screen.name));
            }
        }
    }
    browser.close().await;
    println!("heaviest: {} bytes, {}", heaviest.0, heaviest.1);
    // A time is told, not judged: the machine may be busy.
    println!("slowest first contentful paint: {:.0} ms, {}", slowest.0, slowest.1);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with the diagrams of a page: small text, text over text or outside, two layouts or
/// none, names out of sight.
const DRAWN: &str = "
    const wrong = [];
    for (const details of document.querySelectorAll('details')) details.open = true;
    for (const figure of document.querySelectorAll('figure.sequence')) {
        const shown = [...figure.querySelectorAll('svg')].filter((e) => e.getBoundingClientRect().width);
        if (shown.length !== 1) { wrong.push(shown.length + ' layouts'); continue; }
        const box = shown[0].getBoundingClientRect();
        const scale = box.width / shown[0].viewBox.baseVal.width;
        const texts = [...shown[0].querySelectorAll('text')].map((e) => [e, e.getBoundingClientRect()]);
        for (const [e, a] of texts) {
            const size = parseFloat(getComputedStyle(e).fontSize) * scale;
            if (size < 11.5) wrong.push(e.textContent + ' is ' + size + ' px high');
            if (a.left < box.left - 1 || a.right > box.right + 1) wrong.push(e.textContent + ' is cut off');
            // The boxes of lines hold the face's leading, too.
            for (const [f, b] of texts)
                if (e !== f && a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 4 && b.top < a.bottom - 4)
                    wrong.push(e.textContent + ' is over ' + f.textContent);
        }
        scrollTo(0, scrollY + shown[0].getBoundingClientRect().bottom - 300);
        const lanes = figure.querySelector('.lanes').getBoundingClientRect();
        if (box.height > 600 && (lanes.top < 0 || lanes.top > innerHeight / 2)) wrong.push('no names at ' + lanes.top);
        const list = figure.querySelector('details.moves');
        if (list.querySelectorAll('li').length < 2) wrong.push('no list');
    }
    return wrong;";

#[tokio::test]
async fn diagrams_are_legible_at_every_width() {
    const TABLET: Screen = Screen { name: "tablet", width: 768, height: 1024, mobile: true };
    let Some(browser) = Browser::open().await else { return };
    let mut wrong = Vec::new();
    let with = pages().into_iter().filter(|page| {
        let text = std::fs::read_to_string(built().dest.join(page)).unwrap();
        text.contains("<figure class=\"sequence\">")
    });
    let with: Vec<_> = with.collect();
    assert!(with.len() > 6, "{with:?}");
    for screen in [PHONE, TABLET, DESKTOP] {
        browser.at(screen).await;
        for page in &with {
            browser.go(page).await;
            browser.until("document.fonts.status === 'loaded'").await;
            let found = texts(&browser.eval(DRAWN).await);
            wrong.extend(found.into_iter().map(|what| format!("{page}, {}: {what}", screen.name)));
        }
    }
    browser.close().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The page on which roles differ most; it has blocks for several.
const WITH_ROLES: &str = "step-5-open.html";

/// How many role blocks a reader sees, and how many there are.
const ROLE_BLOCKS: &str = "
    const all = [...document.querySelectorAll('.role[data-roles]')];
    return [all.filter((e) => e.offsetHeight > 0).length, all.length,
        all.filter((e) => e.offsetHeight > 0 && !e.dataset.roles.split(' ').includes('recipient')).length];";

#[tokio::test]
async fn the_role_lens_shows_a_role_and_keeps_the_choice() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    browser.go(WITH_ROLES).await;
    let before = browser.eval(ROLE_BLOCKS).await;
    assert_eq!(before[0], before[1], "all show at first");
    assert!(before[2].as_u64().unwrap() > 0, "the page has blocks for other roles: {before}");
    let choose = |role: &str| {
        format!(
            "const lens = document.getElementById('lens'); lens.value = '{role}';
             lens.dispatchEvent(new Event('change'));"
        )
    };
    browser.eval(&choose("recipient")).await;
    browser.until("document.documentElement.dataset.lens === 'recipient'").await;
    let after = browser.eval(ROLE_BLOCKS).await;
    assert_eq!(after[2], 0, "only the recipient's show");
    assert!(after[0].as_u64() < before[0].as_u64());
    let note = browser.eval("return document.getElementById('lens-note').innerText;").await;
    assert!(note.as_str().unwrap().contains("hidden"), "{note}");

    // Kept on the next page and after a reload, and undone by one button.
    browser.go("step-1-negotiate.html").await;
    assert_eq!(browser.eval("return document.documentElement.dataset.lens;").await, "recipient");
    browser.go(WITH_ROLES).await;
    assert_eq!(browser.eval(ROLE_BLOCKS).await[2], 0);
    browser.eval("document.getElementById('lens-all').click();").await;
    assert_eq!(browser.eval(ROLE_BLOCKS).await, before);

    // A link into a hidden part shows it.
    let id = browser
        .eval(
            "const e = [...document.querySelectorAll('.role')].find((e) => !e.dataset.roles.split(' ').includes('recipient') && e.querySelector('[id]'));
             return e ? e.querySelector('[id]').id : null;",
        )
        .await;
    browser.eval(&choose("recipient")).await;
    let id = id.as_str().expect("a part for others has something to link to").to_owned();
    browser.go(&format!("{WITH_ROLES}#{id}")).await;
    browser.until(&format!("document.getElementById('{id}').offsetHeight > 0")).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn search_works_from_the_keyboard() {
    let Some(browser) = Browser::open().await else { return };
    for screen in [PHONE, DESKTOP] {
        browser.at(screen).await;
        browser.go("index.html").await;
        browser.press("/").await;
        browser.until("document.getElementById('search').open && document.activeElement.id === 'search-input'").await;
        browser.press("intercept SCID").await;
        browser.until("document.querySelectorAll('#search-results a').length > 2").await;
        let status =
            browser.eval("return document.getElementById('search-status').textContent;").await;
        assert!(status.as_str().unwrap().chars().any(|c| c.is_ascii_digit()), "{status}");
        browser.press(&String::from(char::from(Key::Down))).await;
        browser.until("document.activeElement.closest('#search-results')").await;
        let before = browser.client.current_url().await.unwrap();
        browser.press(&String::from(char::from(Key::Enter))).await;
        browser.until(&format!("location.href !== '{before}'")).await;
        browser.until("document.readyState === 'complete'").await;
        browser.press("s").await;
        browser.until("document.getElementById('search').open").await;
        browser.press(&String::from(char::from(Key::Escape))).await;
        browser.until("!document.getElementById('search').open").await;
    }
    // What nobody wrote is found nowhere, and the reader is told.
    browser.press("/").await;
    browser.until("document.activeElement.id === 'search-input'").await;
    browser.press("zzyzx").await;
    browser.until("document.getElementById('search-status').textContent.length > 0 && document.querySelectorAll('#search-results a').length === 0").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn the_theme_follows_the_system_until_the_reader_chooses() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    // The text has the colour that goes with the background, whichever element paints that.
    let colour = "return getComputedStyle(document.body).color;";
    browser.in_colours("light").await;
    browser.go("index.html").await;
    let light = browser.eval(colour).await;
    browser.in_colours("dark").await;
    browser.go("index.html").await;
    let dark = browser.eval(colour).await;
    assert_ne!(light, dark);
    let choose = |choice: &str| {
        format!(
            "const t = document.getElementById('theme-toggle');
             for (let i = 0; i < 3 && t.dataset.choice !== '{choice}'; i++) t.click();
             return t.dataset.choice;"
        )
    };
    assert_eq!(browser.eval(&choose("light")).await, "light");
    assert_eq!(browser.eval(colour).await, light, "chosen against the system");
    browser.go("pieces.html").await;
    assert_eq!(browser.eval(colour).await, light, "kept on the next page");
    assert_eq!(browser.eval(&choose("auto")).await, "auto");
    assert_eq!(browser.eval(colour).await, dark);
    browser.close().await;
}

#[tokio::test]
async fn the_keyboard_reaches_the_text_the_contents_and_the_next_page() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(DESKTOP).await;
    browser.go("step-1-negotiate.html").await;
    let tab = String::from(char::from(Key::Tab));
    browser.press(&tab).await;
    assert_eq!(browser.eval("return document.activeElement.className;").await, "skip");
    browser.press(&String::from(char::from(Key::Enter))).await;
    browser.until("location.hash === '#content'").await;
    browser.press(&String::from(char::from(Key::Right))).await;
    browser.until("location.pathname.endsWith('step-2-metadata.html')").await;
    browser.press(&String::from(char::from(Key::Left))).await;
    browser.until("location.pathname.endsWith('step-1-negotiate.html')").await;

    // On a phone the contents are a drawer, which opens, keeps the focus and closes.
    browser.at(PHONE).await;
    browser.go("step-1-negotiate.html").await;
    browser.eval("document.getElementById('sidebar-toggle').focus();").await;
    browser.press(&String::from(char::from(Key::Enter))).await;
    browser.until("document.activeElement.closest('#sidebar')").await;
    browser.press(&String::from(char::from(Key::Escape))).await;
    browser.until("document.activeElement.id === 'sidebar-toggle'").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn without_javascript_everything_can_be_read() {
    let Some(browser) = Browser::open().await else { return };
    browser.at(PHONE).await;
    // Chosen before scripts were switched off: it must not hide anything now.
    browser.go(WITH_ROLES).await;
    browser.eval("localStorage.setItem('guide-lens', 'payer');").await;
    browser.cdp("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    browser.go(WITH_ROLES).await;
    // WebDriver's own scripts still run.
    let blocks = browser.eval(ROLE_BLOCKS).await;
    assert_eq!(blocks[0], blocks[1]);
    let controls = browser
        .eval("return [...document.querySelectorAll('.scripted')].filter((e) => e.offsetHeight > 0).length;")
        .await;
    assert_eq!(controls, 0, "no control that does nothing");
    let contents = browser.eval("return document.querySelectorAll('#sidebar a').length;").await;
    assert!(contents.as_u64().unwrap() > 20, "{contents}");
    assert_eq!(browser.eval(OVERFLOW).await, json!([]));
    browser.close().await;
}
