//! Waiting for a new tip of a chain behind JSON-RPC.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bitcoin::BlockHash;
use serde_json::json;
use tokio::sync::watch;

use super::{Endpoint, parse_hash};

/// How long the server may hold one request for a new block, in milliseconds.
const LONG_POLL_MS: u64 = 10_000;
/// Pause between two questions to a server which cannot hold a request.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Tells all waiting tasks of a chain about new tips.
///
/// Only one task asks the server, however many wait: `bitcoind` answers a limited number of
/// requests at the same time, and one that waits for a block counts as such.
pub(super) struct TipWatch {
    endpoint: Endpoint,
    /// Set by the first who waits. The task ends when all receivers are gone.
    seen: Mutex<Option<watch::Receiver<Option<BlockHash>>>>,
}

impl TipWatch {
    pub fn new(endpoint: Endpoint) -> TipWatch {
        TipWatch { endpoint, seen: Mutex::new(None) }
    }

    /// Returns once the tip is not `known`.
    pub async fn wait_for_new(&self, known: BlockHash) {
        let mut seen = self.subscribe();
        loop {
            // From here on `changed` reports what happens, so nothing is missed between the
            // question and the wait. What the task saw earlier may be out of date: ask.
            seen.mark_unchanged();
            match self.endpoint.call("getbestblockhash", &[]).await {
                Ok(tip) if parse_hash(&tip).is_ok_and(|tip| tip != known) => return,
                Ok(_) => {
                    if seen.changed().await.is_err() {
                        // the task died with the runtime that it ran on
                        seen = self.subscribe();
                    }
                }
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// The tips that the task sees; starts it if it does not run.
    fn subscribe(&self) -> watch::Receiver<Option<BlockHash>> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match &*seen {
            Some(receiver) if receiver.has_changed().is_ok() => receiver.clone(),
            _ => {
                let (sender, receiver) = watch::channel(None);
                tokio::spawn(follow(self.endpoint.clone(), sender));
                seen.insert(receiver).clone()
            }
        }
    }
}

/// Sends each new tip until nobody can listen any more.
async fn follow(endpoint: Endpoint, sender: watch::Sender<Option<BlockHash>>) {
    loop {
        let known = *sender.borrow();
        let tip = tokio::select! {
            tip = next_tip(&endpoint, known) => tip,
            () = sender.closed() => return,
        };
        sender.send_if_modified(|current| {
            let new = tip.is_some() && *current != tip;
            if new {
                *current = tip;
            }
            new
        });
    }
}

/// Asks for a tip other than `known`, and returns what the server answers: maybe the same.
async fn next_tip(endpoint: &Endpoint, known: Option<BlockHash>) -> Option<BlockHash> {
    if let Some(known) = known {
        // The second parameter came with Bitcoin Core 30. Without it a block could be missed
        // between two calls, so older servers are polled.
        let params = [json!(LONG_POLL_MS), json!(known.to_string())];
        if let Ok(answer) = endpoint.call("waitfornewblock", &params).await {
            return parse_hash(&answer["hash"]).ok();
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    match endpoint.call("getbestblockhash", &[]).await {
        Ok(tip) => parse_hash(&tip).ok(),
        Err(_) => {
            tokio::time::sleep(POLL_INTERVAL).await;
            None
        }
    }
}
