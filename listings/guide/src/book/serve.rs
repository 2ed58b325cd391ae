//! Serves the book on loopback, builds it again when its sources change, reloads its readers, and
//! plays live runs for them.

use super::{LIVE_RELOAD, build_live};
use crate::live::{Live, Settings};
use ::book::Versions;
use anyhow::{Context, Result, anyhow};
use axum::Router;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use mdbook_driver::config::Config;
use notify::RecursiveMode;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use tower_http::services::{ServeDir, ServeFile};

/// The port of the stock `mdbook serve`.
const PORT: u16 = 3000;
/// An editor writes a file in several steps.
const SETTLED: Duration = Duration::from_millis(100);

/// How to serve.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The port, which must be free; by default the first free one from 3000.
    pub port: Option<u16>,
    /// Whether to show the book in a browser.
    pub open: bool,
}

/// Serves the book at `root` until Ctrl-C.
pub async fn serve(root: &Path, options: Options) -> Result<()> {
    tokio::select! {
        // Asked first, so that it is heard from the start and no build is left behind.
        biased;
        stopped = tokio::signal::ctrl_c() => Ok(stopped?),
        failed = serve_on(root, options) => failed,
    }
}

async fn serve_on(root: &Path, options: Options) -> Result<()> {
    println!("Building the book …");
    let server = Server::start(root, options.port).await?;
    let address = format!("http://{}", server.address());
    println!("The book is at {address} and follows its sources. Ctrl-C stops.");
    if options.open && has_browser() {
        // It is a convenience: the address stands above. On a thread, because some browsers come back
        // only when they are closed, and the runtime would wait for its own.
        std::thread::spawn(move || opener::open(address));
    }
    std::future::pending().await
}

/// Without a display, Linux would look for a browser that takes over the terminal.
fn has_browser() -> bool {
    let display = ["DISPLAY", "WAYLAND_DISPLAY", "BROWSER"];
    !cfg!(target_os = "linux") || display.iter().any(|name| std::env::var_os(name).is_some())
}

/// A build that is served. It is deleted when the last request for it is answered.
type Edition = Arc<TempDir>;

/// The book on a port. Dropping it stops it.
pub struct Server {
    address: SocketAddr,
    tasks: [JoinHandle<()>; 2],
    // Dropped last, with the run that may be under way.
    _live: Live,
}

impl Server {
    /// Builds the book at `root` and serves it.
    ///
    /// # Errors
    /// If the first build fails, or the port is taken.
    pub async fn start(root: &Path, port: Option<u16>) -> Result<Self> {
        let root = root.canonicalize()?;
        let listener = listen(port).await?;
        let address = listener.local_addr()?;
        let watched = Watched::new(&root)?;
        // Taken before the build: what changes during it is built again.
        let seen = watched.state();
        let (editions, _) = watch::channel(edition(&root).await?);
        let versions = Versions::read(&root).map_err(|problem| anyhow!("{problem}"))?;
        let live = Live::new(Settings::new(versions.of("lightning").unwrap_or_default()));
        let app = Router::new()
            .route(&format!("/{LIVE_RELOAD}"), get(reload))
            .fallback(get(page))
            .with_state(editions.subscribe())
            .merge(live.router(address.port()));
        let serving = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, app).await {
                eprintln!("error: the server stopped: {error}");
            }
        });
        let following = tokio::spawn(follow(root, watched, seen, editions));
        Ok(Self { address, tasks: [serving, following], _live: live })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn listen(port: Option<u16>) -> Result<TcpListener> {
    let on = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    if let Some(port) = port {
        return on(port).await.with_context(|| format!("cannot listen on port {port}"));
    }
    for port in PORT..PORT + 100 {
        if let Ok(listener) = on(port).await {
            return Ok(listener);
        }
    }
    on(0).await.context("no free port")
}

async fn edition(root: &Path) -> Result<Edition> {
    let root = root.to_owned();
    spawn_blocking(move || {
        let folder = tempfile::Builder::new().prefix("guide-").tempdir()?;
        build_live(&root, folder.path())?;
        Ok(Arc::new(folder))
    })
    .await?
}

async fn page(State(editions): State<watch::Receiver<Edition>>, request: Request) -> Response {
    let edition = editions.borrow().clone();
    let not_found = ServeFile::new(edition.path().join("404.html"));
    let mut files = ServeDir::new(edition.path()).not_found_service(not_found);
    match files.try_call(request).await {
        Ok(mut response) => {
            // Two builds within a second have the same date: a browser must not keep either.
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response.into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn reload(
    State(mut editions): State<watch::Receiver<Edition>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    editions.mark_unchanged();
    upgrade.on_upgrade(async move |mut socket: WebSocket| {
        tokio::select! {
            next = editions.changed() => if next.is_ok() {
                // If the reader has left, nobody misses it.
                let _ = socket.send(Message::text("reload")).await;
            },
            // The page closes the connection when it is left; it never says anything.
            _ = socket.recv() => {}
        }
    })
}

/// Builds again whenever a source has changed, for as long as the server lives.
async fn follow(
    root: PathBuf,
    mut watched: Watched,
    mut seen: BTreeMap<PathBuf, SystemTime>,
    editions: watch::Sender<Edition>,
) {
    loop {
        // A change during the last build has raised its event by now, and is waiting in the channel.
        let Some(()) = watched.events.recv().await else { return };
        let state = watched.state();
        // Reading a file raises an event too, and a build reads them all.
        if state == seen {
            continue;
        }
        for path in changed(&seen, &state) {
            println!("{} changed", path.strip_prefix(&root).unwrap_or(path).display());
        }
        seen = state;
        match edition(&root).await {
            Ok(edition) => {
                editions.send_replace(edition);
                println!("built again");
            }
            Err(error) => eprintln!("error: the last good book stays: {error:#}"),
        }
    }
}

fn changed<'a>(
    old: &'a BTreeMap<PathBuf, SystemTime>,
    new: &'a BTreeMap<PathBuf, SystemTime>,
) -> Vec<&'a Path> {
    let differs = |path: &&PathBuf| old.get(*path) != new.get(*path);
    let gone = old.keys().filter(|path| !new.contains_key(*path));
    new.keys().filter(differs).chain(gone).map(PathBuf::as_path).collect()
}

/// The files a book is made of.
struct Watched {
    folders: Vec<PathBuf>,
    config: PathBuf,
    events: mpsc::Receiver<()>,
    _debouncer: notify_debouncer_mini::Debouncer<notify::RecommendedWatcher>,
}

impl Watched {
    fn new(root: &Path) -> Result<Self> {
        let config_file = root.join("book.toml");
        let config = Config::from_disk(&config_file)?;
        let mut folders = vec![root.join(&config.book.src)];
        folders.extend(config.build.extra_watch_dirs.iter().map(|folder| root.join(folder)));
        folders.push(config.html_config().unwrap_or_default().theme_dir(root));
        folders.retain(|folder| folder.is_dir());
        folders.sort();
        folders.dedup();
        // One event is enough to look at everything, so what finds the channel full may go.
        let (sender, events) = mpsc::channel(1);
        let mut debouncer = notify_debouncer_mini::new_debouncer(SETTLED, move |_| {
            let _ = sender.try_send(());
        })?;
        for folder in &folders {
            debouncer.watcher().watch(folder, RecursiveMode::Recursive)?;
        }
        // The folder, because an editor that replaces the file would end a watch on the file.
        debouncer.watcher().watch(root, RecursiveMode::NonRecursive)?;
        Ok(Self { folders, config: config_file, events, _debouncer: debouncer })
    }

    fn state(&self) -> BTreeMap<PathBuf, SystemTime> {
        let mut state = BTreeMap::new();
        self.folders.iter().chain([&self.config]).for_each(|path| note(path, &mut state));
        state
    }
}

/// A file that vanishes meanwhile is as good as gone.
fn note(path: &Path, state: &mut BTreeMap<PathBuf, SystemTime>) {
    let Ok(metadata) = path.metadata() else { return };
    if metadata.is_file() {
        let modified = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        state.insert(path.to_owned(), modified);
    } else if path.file_name().is_some_and(|name| name != "target")
        && let Ok(entries) = path.read_dir()
    {
        entries.flatten().for_each(|entry| note(&entry.path(), state));
    }
}
