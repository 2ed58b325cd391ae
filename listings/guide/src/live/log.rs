//! What a run has shown so far, for readers who come when they come.

use axum::response::sse::Event;
use bitcoin::secp256k1::rand;
use futures_util::stream::{self, Stream};
use recording::Header;
use recording::view::Step;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

use crate::money::Books;

/// How a run ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct End {
    /// `paid` or `failed`.
    pub outcome: String,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Where every msat went, if it was paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub books: Option<Books>,
}

impl End {
    /// The payment went all the way.
    pub fn paid(books: Books) -> Self {
        Self { outcome: "paid".to_owned(), error: None, books: Some(books) }
    }

    /// It did not.
    pub fn failed(error: String) -> Self {
        Self { outcome: "failed".to_owned(), error: Some(error), books: None }
    }
}

/// The run under way, or the last one.
pub(super) struct Log {
    /// Names this run among those of all servers that had this port.
    pub(super) id: String,
    header: String,
    lines: Mutex<Lines>,
    /// How many steps there are, and whether the end is there.
    so_far: watch::Sender<(usize, bool)>,
}

#[derive(Default)]
struct Lines {
    steps: Vec<Arc<str>>,
    end: Option<Arc<str>>,
}

impl Log {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            id: format!("{:016x}", rand::random::<u64>()),
            header: serde_json::to_string(header).expect("a header is JSON"),
            lines: Mutex::default(),
            so_far: watch::Sender::new((0, false)),
        }
    }

    /// Appends a step. Its `n` is the number of those before it.
    pub(super) fn step(&self, step: &Step) {
        let step = serde_json::to_string(step).expect("a step is JSON");
        self.change(|lines| lines.steps.push(step.into()));
    }

    /// Ends the run; the first end counts.
    pub(super) fn end(&self, end: &End) {
        let end = serde_json::to_string(end).expect("an end is JSON");
        self.change(|lines| {
            lines.end.get_or_insert(end.into());
        });
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lines);
        self.so_far.send_replace((lines.steps.len(), lines.end.is_some()));
    }

    /// Whether nothing more will come.
    pub(super) fn has_ended(&self) -> bool {
        self.so_far.borrow().1
    }

    /// Everything from the beginning, and what comes; for a reader who has step `last`, what comes
    /// after that.
    pub(super) fn events(
        self: Arc<Self>,
        last: Option<usize>,
    ) -> impl Stream<Item = Result<Event, Infallible>> {
        let next = match last {
            None => Some(Next::Header),
            Some(last) => Some(Next::Step(last.saturating_add(1))),
        };
        let so_far = self.so_far.subscribe();
        stream::unfold((self, so_far, next), async |(log, mut so_far, next)| {
            let (event, next) = log.event(&mut so_far, next?).await;
            Some((Ok(event), (log, so_far, next)))
        })
    }

    async fn event(
        &self,
        so_far: &mut watch::Receiver<(usize, bool)>,
        next: Next,
    ) -> (Event, Option<Next>) {
        let Next::Step(n) = next else {
            return (Event::default().event("header").data(&self.header), Some(Next::Step(0)));
        };
        // The sender lives as long as `self`.
        let _ = so_far.wait_for(|(steps, ended)| *steps > n || *ended).await;
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(step) = lines.steps.get(n) {
            let event = Event::default().event("step").id(n.to_string()).data(step);
            return (event, Some(Next::Step(n + 1)));
        }
        let end = lines.end.as_deref().unwrap_or_default();
        (Event::default().event("end").data(end), None)
    }
}

/// What a reader gets next.
enum Next {
    Header,
    Step(usize),
}
