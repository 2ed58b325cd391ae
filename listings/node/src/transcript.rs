//! One typed record of what every node saw, for the command to print and for tests to wait on.

use bitcoin::secp256k1::PublicKey;
use lightning::sign::KeysManager;
pub use recording::entry::{ChannelBalance, Closing, DIRECTOR, Entry, HtlcState, What};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};
use tokio::sync::watch;

use crate::balances::{Closings, Purse};

/// How many entries are kept. A node that runs for long forgets the oldest: peers cause most of
/// them, and must not fill its memory.
const MOST_ENTRIES: usize = 200_000;

/// The transcript: append-only, shared by all nodes of a run.
#[derive(Clone)]
pub struct Transcript {
    inner: Arc<Inner>,
}

struct Inner {
    began: Instant,
    entries: Mutex<VecDeque<Entry>>,
    names: Mutex<HashMap<PublicKey, String>>,
    /// The nodes' keys by their names, if the bytes of messages are kept: what a node received is
    /// explained when it may have stopped.
    keys: Option<Mutex<HashMap<String, Arc<KeysManager>>>>,
    length: watch::Sender<u64>,
    cues: Mutex<Vec<Cue>>,
    first_scene: Mutex<FirstScene>,
    /// What became of the channels of each node.
    closings: Mutex<HashMap<String, Arc<Mutex<Closings>>>>,
}

/// A scene that begins with a certain entry.
struct Cue {
    is_it: Box<dyn Fn(&Entry) -> bool + Send>,
    scene: What,
}

/// Where the recording begins.
enum FirstScene {
    /// Not yet; then these say what they own.
    Ahead(Vec<Weak<Purse>>),
    /// At this position.
    From(u64),
}

impl Default for Transcript {
    fn default() -> Self {
        Self::new()
    }
}

impl Transcript {
    /// An empty transcript whose clock starts now.
    pub fn new() -> Self {
        Self::with(None)
    }

    /// The same, but one that keeps the bytes of the messages that [`crate::explain`] explains, and
    /// the keys that open them. Not for nodes with real money in them.
    pub fn keeping_bytes() -> Self {
        Self::with(Some(Mutex::default()))
    }

    fn with(keys: Option<Mutex<HashMap<String, Arc<KeysManager>>>>) -> Self {
        let inner = Inner {
            began: Instant::now(),
            entries: Mutex::default(),
            names: Mutex::default(),
            keys,
            length: watch::Sender::new(0),
            cues: Mutex::default(),
            first_scene: Mutex::new(FirstScene::Ahead(Vec::new())),
            closings: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whether the bytes of messages are kept.
    pub fn keeps_bytes(&self) -> bool {
        self.inner.keys.is_some()
    }

    /// Hands over the keys of a node that starts.
    pub fn lend_keys(&self, name: &str, keys: &Arc<KeysManager>) {
        if let Some(all) = &self.inner.keys {
            all.lock().unwrap().insert(name.to_owned(), keys.clone());
        }
    }

    /// The keys of a node, running or not, if bytes are kept.
    pub(crate) fn keys_of(&self, name: &str) -> Option<Arc<KeysManager>> {
        self.inner.keys.as_ref()?.lock().unwrap().get(name).cloned()
    }

    /// Tells under which name a node appears.
    pub fn introduce(&self, node_id: PublicKey, name: &str) {
        self.inner.names.lock().unwrap().insert(node_id, name.to_owned());
    }

    /// The name of a node, or its id where nobody introduced it.
    pub fn name_of(&self, node_id: &PublicKey) -> String {
        self.known(node_id).unwrap_or_else(|| node_id.to_string())
    }

    /// The name of a node that was introduced.
    pub(crate) fn known(&self, node_id: &PublicKey) -> Option<String> {
        self.inner.names.lock().unwrap().get(node_id).cloned()
    }

    /// Every node that was introduced: its id in hex, and its name.
    pub fn introduced(&self) -> Vec<(String, String)> {
        let names = self.inner.names.lock().unwrap();
        names.iter().map(|(id, name)| (id.to_string(), name.clone())).collect()
    }

    /// Appends what `node` saw.
    pub fn record(&self, node: &str, what: What) {
        let mut entries = self.inner.entries.lock().unwrap();
        let mut entry = self.entry(&entries, node, what);
        if let Some(scene) = self.cued(&entry) {
            let scene = self.entry(&entries, DIRECTOR, scene);
            entry.seq += 1;
            push(&mut entries, scene);
        }
        let length = entry.seq + 1;
        push(&mut entries, entry);
        // Sent under the lock, so that nobody sees a length without its entries.
        self.inner.length.send_replace(length);
    }

    /// Begins a scene now. With the first, every node says what it owns: a recording begins there.
    pub fn scene(&self, id: &str, title: &str) {
        let from = self.position();
        self.record(DIRECTOR, What::Scene { id: id.to_owned(), title: title.to_owned() });
        let mut first = self.inner.first_scene.lock().unwrap();
        let FirstScene::Ahead(purses) = &mut *first else { return };
        let purses = std::mem::take(purses);
        *first = FirstScene::From(from);
        drop(first);
        for purse in purses.iter().filter_map(Weak::upgrade) {
            purse.weigh_again();
        }
    }

    pub(crate) fn closings_of(&self, node: &str) -> Arc<Mutex<Closings>> {
        let mut closings = self.inner.closings.lock().unwrap();
        closings.entry(node.to_owned()).or_default().clone()
    }

    pub(crate) fn weigh_with_first_scene(&self, purse: &Arc<Purse>) {
        if let FirstScene::Ahead(purses) = &mut *self.inner.first_scene.lock().unwrap() {
            purses.push(Arc::downgrade(purse));
        }
    }

    /// Where the first scene began, or 0: what was said before is not in the recording.
    pub(crate) fn first_scene(&self) -> u64 {
        match *self.inner.first_scene.lock().unwrap() {
            FirstScene::Ahead(_) => 0,
            FirstScene::From(at) => at,
        }
    }

    /// What `pick` returns for the last entry for which it returns something.
    pub fn last<T>(&self, pick: impl FnMut(&Entry) -> Option<T>) -> Option<T> {
        self.inner.entries.lock().unwrap().iter().rev().find_map(pick)
    }

    /// Begins a scene right before the next entry for which `is_it` holds: where the story turns
    /// within a node, and whoever waits for it comes too late.
    pub fn cue(&self, id: &str, title: &str, is_it: impl Fn(&Entry) -> bool + Send + 'static) {
        let scene = What::Scene { id: id.to_owned(), title: title.to_owned() };
        self.inner.cues.lock().unwrap().push(Cue { is_it: Box::new(is_it), scene });
    }

    fn cued(&self, entry: &Entry) -> Option<What> {
        let mut cues = self.inner.cues.lock().unwrap();
        let at = cues.iter().position(|cue| (cue.is_it)(entry))?;
        Some(cues.remove(at).scene)
    }

    fn entry(&self, entries: &VecDeque<Entry>, node: &str, what: What) -> Entry {
        let seq = entries.back().map_or(0, |last| last.seq + 1);
        let at_ms = self.inner.began.elapsed().as_millis() as u64;
        Entry { seq, at_ms, node: node.to_owned(), what }
    }

    /// All entries from position `from` on, as far as they are kept.
    pub fn since(&self, from: u64) -> Vec<Entry> {
        let entries = self.inner.entries.lock().unwrap();
        let first = entries.front().map_or(0, |entry| entry.seq);
        entries.iter().skip(from.saturating_sub(first) as usize).cloned().collect()
    }

    /// How many entries there are: a position to wait from.
    pub fn position(&self) -> u64 {
        *self.inner.length.borrow()
    }

    /// Milliseconds since the transcript began.
    pub fn elapsed_ms(&self) -> u64 {
        self.inner.began.elapsed().as_millis() as u64
    }

    /// Waits until there are entries at `from` or later, and returns them.
    pub async fn next(&self, from: u64) -> Vec<Entry> {
        let mut length = self.inner.length.subscribe();
        // The sender lives as long as `self`.
        let _ = length.wait_for(|length| *length > from).await;
        self.since(from)
    }

    /// Waits for the first entry at `from` or later for which `pick` returns something.
    ///
    /// Fails after `at_most` with the last entries, so that a test shows what happened instead.
    pub async fn wait_for<T>(
        &self,
        from: u64,
        at_most: Duration,
        mut pick: impl FnMut(&Entry) -> Option<T>,
    ) -> Result<T, NotSeen> {
        let found = async {
            let mut from = from;
            loop {
                let entries = self.next(from).await;
                if let Some(found) = entries.iter().find_map(&mut pick) {
                    return found;
                }
                from = entries.last().map_or(from, |last| last.seq + 1);
            }
        };
        match tokio::time::timeout(at_most, found).await {
            Ok(found) => Ok(found),
            Err(_) => Err(NotSeen { at_most, since: self.since(from) }),
        }
    }
}

fn push(entries: &mut VecDeque<Entry>, entry: Entry) {
    if entries.len() == MOST_ENTRIES {
        entries.pop_front();
    }
    entries.push_back(entry);
}

/// What was waited for did not happen in time.
pub struct NotSeen {
    at_most: Duration,
    since: Vec<Entry>,
}

impl std::error::Error for NotSeen {}

impl std::fmt::Display for NotSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "not seen within {:?}; what happened instead:", self.at_most)?;
        let shown = self.since.len().saturating_sub(80);
        for entry in &self.since[shown..] {
            writeln!(f, "{}", serde_json::to_string(entry).unwrap_or_default())?;
        }
        Ok(())
    }
}

impl std::fmt::Debug for NotSeen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(height: u32) -> What {
        What::Block { height }
    }

    #[tokio::test]
    async fn waiting_ends_with_the_entry_and_a_failure_shows_what_happened_instead() {
        let transcript = Transcript::new();
        transcript.record("a", block(1));
        let waiting = {
            let transcript = transcript.clone();
            tokio::spawn(async move {
                let is_it = |e: &Entry| (e.what == block(2)).then_some(e.seq);
                transcript.wait_for(0, Duration::from_secs(30), is_it).await
            })
        };
        transcript.record("b", block(2));
        assert_eq!(waiting.await.unwrap().unwrap(), 1);

        let never = transcript.wait_for(1, Duration::ZERO, |_| None::<()>).await.unwrap_err();
        let shown = never.to_string();
        assert!(shown.contains(r#""node":"b""#) && !shown.contains(r#""node":"a""#), "{shown}");
    }

    #[test]
    fn a_cued_scene_begins_right_before_its_entry_and_once() {
        let transcript = Transcript::new();
        transcript.cue("b", "Later", |entry| entry.what == block(2));
        for height in [1, 2, 2] {
            transcript.record("a", block(height));
        }
        let entries = transcript.since(0);
        assert!(entries.iter().enumerate().all(|(at, entry)| entry.seq == at as u64));
        let scene = What::Scene { id: "b".to_owned(), title: "Later".to_owned() };
        let whats: Vec<_> = entries.into_iter().map(|entry| entry.what).collect();
        assert_eq!(whats, [block(1), scene, block(2), block(2)]);
        assert_eq!(transcript.position(), 4);
    }

    #[test]
    fn a_long_run_forgets_its_oldest_entries_and_keeps_their_positions() {
        let transcript = Transcript::new();
        for height in 0..MOST_ENTRIES as u32 + 5 {
            transcript.record("a", block(height));
        }
        let kept = transcript.since(0);
        assert_eq!(kept.len(), MOST_ENTRIES);
        assert_eq!((kept[0].seq, &kept[0].what), (5, &block(5)));
        let last = transcript.position() - 1;
        assert_eq!(transcript.since(last)[0].what, block(last as u32));
    }
}
