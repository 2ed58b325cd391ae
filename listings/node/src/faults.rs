//! Faults that are made on purpose, at points with a name: a node that dies at a certain write, or at
//! a certain place in its code.
//!
//! In a process of its own the node kills that process (`kill -9`). Among others in one process it
//! crashes as nearly as it can: from that moment nothing of it reaches the disk, a peer, the chain or
//! the transcript, and [`Node::crash`](crate::Node::crash) clears away what is left of it.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use tokio::sync::watch;

/// The places in the nodes' code that have a name.
pub mod points {
    /// At the LSP: an HTLC for an intercept SCID has arrived, and nothing was done about it yet.
    pub const HTLC_INTERCEPTED: &str = "htlc-intercepted";
    /// At the LSP: `create_channel` is called next.
    pub const BEFORE_OPEN: &str = "before-open";
    /// At the LSP: `create_channel` has returned.
    pub const AFTER_CREATE_CHANNEL: &str = "after-create-channel";
    /// At the LSP: the funding transaction is signed and was shown to nobody.
    pub const BEFORE_FUNDING: &str = "before-funding";
    /// At the LSP: LDK has the funding transaction.
    pub const AFTER_FUNDING: &str = "after-funding";
    /// At the LSP: the channel is ready, and nothing was done about it yet.
    pub const BEFORE_FORWARD: &str = "before-forward";
    /// At the LSP: the HTLC was handed to the channel.
    pub const AFTER_FORWARD: &str = "after-forward";
    /// At the LSP: the fee is paid, and nothing was done about it yet.
    pub const BEFORE_FEE_BOOKED: &str = "before-fee-booked";
    /// At the recipient: the payment may be claimed, and the lease is not marked yet.
    pub const BEFORE_CONSUMED: &str = "before-consumed";
    /// At the recipient: the lease is marked consumed on disk, and `claim_funds` was not called yet.
    pub const AFTER_CONSUMED: &str = "after-consumed";
    /// At the recipient: `claim_funds` has returned.
    pub const AFTER_CLAIM_FUNDS: &str = "after-claim-funds";

    /// All of them.
    pub const ALL: [&str; 11] = [
        HTLC_INTERCEPTED,
        BEFORE_OPEN,
        AFTER_CREATE_CHANNEL,
        BEFORE_FUNDING,
        AFTER_FUNDING,
        BEFORE_FORWARD,
        AFTER_FORWARD,
        BEFORE_FEE_BOOKED,
        BEFORE_CONSUMED,
        AFTER_CONSUMED,
        AFTER_CLAIM_FUNDS,
    ];
}

/// What the nodes do about LDK's own traps, and a test may leave out to show the trap.
pub mod guards {
    /// That LDK is told of each monitor that is read at its first state.
    pub const FIRST_MONITOR: &str = "first-monitor";
}

/// Where a node dies.
///
/// Written as a command line has it: `before write 7`, `after write 7`, `before lsps2_jit_table 2`,
/// `after monitors`, `at before-open`, each also as `since htlc-intercepted after write 7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Counting begins when the node passes this point; `None`: at once.
    since: Option<String>,
    at: At,
    /// At which time, from 1.
    nth: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum At {
    /// Before a write of a key that begins like this.
    Before(String),
    After(String),
    Point(String),
}

impl Fault {
    /// Before the `nth` write, from 1: it does not happen.
    pub fn before_write(nth: u32) -> Self {
        Self::before_key("", nth)
    }

    /// After the `nth` write, from 1: it is on disk, and the node does not know.
    pub fn after_write(nth: u32) -> Self {
        Self::after_key("", nth)
    }

    /// Before the `nth` write of a key that begins with `key`, as in `monitors` or
    /// `lsps2_jit_table`. A key is `primary/secondary/name` without the empty parts.
    pub fn before_key(key: &str, nth: u32) -> Self {
        Self { since: None, at: At::Before(key.to_owned()), nth }
    }

    /// After the `nth` write of such a key.
    pub fn after_key(key: &str, nth: u32) -> Self {
        Self { since: None, at: At::After(key.to_owned()), nth }
    }

    /// The first time the node passes one of the [`points`].
    pub fn at(point: &str) -> Self {
        Self { since: None, at: At::Point(point.to_owned()), nth: 1 }
    }

    /// Counts only from this point on.
    pub fn since(self, point: &str) -> Self {
        Self { since: Some(point.to_owned()), ..self }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(since) = &self.since {
            write!(f, "since {since} ")?;
        }
        let (when, what) = match &self.at {
            At::Before(key) => ("before", key),
            At::After(key) => ("after", key),
            At::Point(point) => ("at", point),
        };
        let what = if what.is_empty() { ANY_WRITE } else { what };
        write!(f, "{when} {what} {}", self.nth)
    }
}

const ANY_WRITE: &str = "write";

impl FromStr for Fault {
    type Err = anyhow::Error;
    fn from_str(text: &str) -> Result<Self> {
        let words: Vec<_> = text.split_whitespace().collect();
        let (since, words) = match &words[..] {
            ["since", point, rest @ ..] => (Some(known_point(point)?), rest),
            all => (None, all),
        };
        let (when, what, nth) = match words {
            [when, what] => (*when, *what, 1),
            [when, what, nth] => (*when, *what, nth.parse().context("how many times")?),
            _ => bail!("a fault is `[since POINT] before|after|at WHAT [TIMES]`"),
        };
        ensure!(nth > 0, "the first time is 1");
        let key = if what == ANY_WRITE { String::new() } else { what.to_owned() };
        let at = match when {
            "before" => At::Before(key),
            "after" => At::After(key),
            "at" => At::Point(known_point(what)?),
            _ => bail!("`{when}`: say before, after or at"),
        };
        Ok(Self { since, at, nth })
    }
}

fn known_point(point: &str) -> Result<String> {
    ensure!(points::ALL.contains(&point), "no such point; there are {}", points::ALL.join(", "));
    Ok(point.to_owned())
}

/// Something a node did that a fault may stand at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It passes a point.
    Point(String),
    /// It is about to write or remove a key.
    Before(Write),
    /// It has written or removed it.
    After(Write),
}

/// What is written or removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Write {
    /// `primary/secondary/name` without the empty parts.
    pub key: String,
    /// How much is written; `None` if the key is removed.
    pub bytes: Option<usize>,
}

/// The faults of a node. None by default; they may be armed while the node runs.
#[derive(Clone, Default)]
pub struct Faults {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    /// What has happened, as [`Faults::fired`] says it.
    fired: watch::Sender<Option<Fault>>,
}

impl Default for Inner {
    fn default() -> Self {
        Self { state: Mutex::default(), fired: watch::Sender::new(None) }
    }
}

type Observer = Box<dyn Fn(&Step) + Send>;

#[derive(Default)]
struct State {
    armed: Option<Armed>,
    kills: bool,
    journal: Option<Vec<Step>>,
    observer: Option<Observer>,
    left_out: Vec<&'static str>,
}

struct Armed {
    fault: Fault,
    counting: bool,
    seen: u32,
}

impl Armed {
    fn passes(&mut self, step: &Step) -> bool {
        if !self.counting {
            let since = self.fault.since.as_deref();
            self.counting = matches!(step, Step::Point(point) if Some(point.as_str()) == since);
            return false;
        }
        let is_it = match (&self.fault.at, step) {
            (At::Before(key), Step::Before(write)) | (At::After(key), Step::After(write)) => {
                write.key.starts_with(key)
            }
            (At::Point(wanted), Step::Point(point)) => wanted == point,
            (At::Before(_) | At::After(_) | At::Point(_), _) => false,
        };
        self.seen += u32::from(is_it);
        is_it && self.seen == self.fault.nth
    }
}

impl Faults {
    /// Faults of a node that has its process to itself: it kills it, as `kill -9` does.
    pub fn killing() -> Self {
        let faults = Self::default();
        faults.lock().kills = true;
        faults
    }

    /// Arms a fault, instead of one that has not come yet. It happens once.
    pub fn arm(&self, fault: Fault) {
        let counting = fault.since.is_none();
        self.inner.fired.send_replace(None);
        self.lock().armed = Some(Armed { fault, counting, seen: 0 });
    }

    /// Whatever was armed and has not come yet does not come.
    pub fn disarm(&self) {
        self.lock().armed = None;
    }

    /// The fault that happened last since one was armed.
    pub fn fired(&self) -> Option<Fault> {
        self.inner.fired.borrow().clone()
    }

    /// Waits until the armed fault has happened. Then call [`Node::crash`](crate::Node::crash).
    pub async fn wait(&self) -> Fault {
        let mut fired = self.inner.fired.subscribe();
        // The sender lives as long as `self`.
        let fired = fired.wait_for(Option::is_some).await.expect("the sender is here");
        fired.clone().expect("it was waited for")
    }

    /// Keeps what the node does from now on, and returns what was kept so far.
    pub fn journal(&self) -> Vec<Step> {
        self.lock().journal.replace(Vec::new()).unwrap_or_default()
    }

    /// Tells somebody of each step, before what is armed happens there.
    pub fn observe(&self, observer: impl Fn(&Step) + Send + 'static) {
        self.lock().observer = Some(Box::new(observer));
    }

    /// Leaves one of the [`guards`] out from the node's next start on.
    pub fn leave_out(&self, guard: &'static str) {
        self.lock().left_out.push(guard);
    }

    pub(crate) fn leaves_out(&self, guard: &str) -> bool {
        self.lock().left_out.contains(&guard)
    }

    /// Whether the node dies here.
    fn pass(&self, step: &Step) -> bool {
        let mut state = self.lock();
        if let Some(journal) = &mut state.journal {
            journal.push(step.clone());
        }
        if let Some(observer) = &state.observer {
            observer(step);
        }
        if !state.armed.as_mut().is_some_and(|armed| armed.passes(step)) {
            return false;
        }
        let fault = state.armed.take().map(|armed| armed.fault);
        if state.kills {
            kill_this_process();
        }
        drop(state);
        self.inner.fired.send_replace(fault);
        true
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.inner.state.lock().expect("nothing panics while it holds the faults")
    }
}

/// `kill -9`: no destructor runs, no buffer is written.
#[cfg(unix)]
fn kill_this_process() -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    let _ = kill_process(getpid(), Signal::KILL);
    std::process::abort()
}

#[cfg(not(unix))]
fn kill_this_process() -> ! {
    std::process::abort()
}

/// Whether a node is alive: once it is dead, nothing of it leaves it any more. A node that starts
/// again has a new life, and its faults go on.
pub(crate) struct Life {
    faults: Faults,
    vital: Mutex<Vital>,
    /// How many writes are going on.
    writing: watch::Sender<usize>,
}

struct Vital {
    dead: bool,
}

impl Life {
    pub(crate) fn new(faults: Faults) -> Arc<Self> {
        let vital = Mutex::new(Vital { dead: false });
        Arc::new(Self { faults, vital, writing: watch::Sender::new(0) })
    }

    pub(crate) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The node passes a point, and may die of it.
    pub(crate) fn point(&self, point: &str) {
        self.step(Step::Point(point.to_owned()));
    }

    /// Ends it. A write that has begun may still reach the disk: see [`Self::settled`].
    pub(crate) fn end(&self) {
        self.vital().dead = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.vital().dead
    }

    /// Waits for the writes that had begun.
    pub(crate) async fn settled(&self) {
        let mut writing = self.writing.subscribe();
        let _ = writing.wait_for(|writing| *writing == 0).await;
    }

    /// A write begins; `None`: the node is dead, or dies before it.
    pub(crate) fn begin(self: &Arc<Self>, write: &Write) -> Option<Turn> {
        self.step(Step::Before(write.clone()));
        // Whoever ends this life afterwards finds the write counted.
        let vital = self.vital();
        (!vital.dead).then(|| {
            self.writing.send_modify(|writing| *writing += 1);
            Turn(self.clone())
        })
    }

    /// A write has reached the disk. Whether the node has lived to see it.
    pub(crate) fn done(&self, write: Write) -> bool {
        self.step(Step::After(write));
        !self.is_over()
    }

    fn step(&self, step: Step) {
        if !self.is_over() && self.faults.pass(&step) {
            self.end();
        }
    }

    fn vital(&self) -> std::sync::MutexGuard<'_, Vital> {
        self.vital.lock().expect("nothing panics while it holds a life")
    }
}

/// A write that is going on.
pub(crate) struct Turn(Arc<Life>);

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.writing.send_modify(|writing| *writing -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(key: &str) -> Write {
        Write { key: key.to_owned(), bytes: Some(1) }
    }

    /// Writes these keys and says which of them reached the disk.
    fn written(life: &Arc<Life>, keys: &[&str]) -> Vec<String> {
        let write_one = |key: &&str| {
            let turn = life.begin(&write(key))?;
            drop(turn);
            life.done(write(key));
            Some((*key).to_owned())
        };
        keys.iter().filter_map(write_one).collect()
    }

    #[test]
    fn a_fault_reads_as_it_is_written() {
        let faults = [
            Fault::before_write(7),
            Fault::after_key("lsps2_jit_table", 2).since(points::HTLC_INTERCEPTED),
            Fault::at(points::BEFORE_OPEN),
        ];
        for fault in faults {
            assert_eq!(fault.to_string().parse::<Fault>().unwrap(), fault, "{fault}");
        }
        assert_eq!("after monitors".parse::<Fault>().unwrap(), Fault::after_key("monitors", 1));
        for wrong in ["", "after", "after write 0", "at nowhere", "since nowhere after write 1"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_fault_before_a_write_keeps_it_from_the_disk_and_one_after_it_does_not() {
        let keys = ["manager", "monitors/1", "manager", "monitors/1"];
        let cases = [
            (Fault::before_write(3), 2),
            (Fault::after_write(3), 3),
            (Fault::before_key("manager", 2), 2),
            (Fault::after_key("monitors", 1), 2),
            (Fault::after_key("monitors", 2), 4),
            (Fault::after_write(1).since(points::BEFORE_OPEN), 4),
        ];
        for (fault, reach_the_disk) in cases {
            let life = Life::new(Faults::default());
            life.faults().arm(fault.clone());
            assert_eq!(written(&life, &keys), keys[..reach_the_disk], "{fault}");
            assert_eq!(life.is_over(), life.faults().fired().is_some(), "{fault}");
            assert!(written(&life, &keys).is_empty() == life.is_over(), "{fault}");
        }
    }

    #[test]
    fn counting_begins_at_a_point() {
        let life = Life::new(Faults::default());
        life.faults().arm(Fault::after_write(2).since(points::BEFORE_OPEN));
        assert_eq!(written(&life, &["a", "b", "c"]).len(), 3);
        life.point(points::AFTER_CREATE_CHANNEL);
        life.point(points::BEFORE_OPEN);
        assert_eq!(written(&life, &["d", "e", "f"]), ["d", "e"]);
    }

    #[test]
    fn a_fault_comes_once_and_a_new_life_is_not_touched_by_it() {
        let faults = Faults::default();
        faults.arm(Fault::at(points::BEFORE_OPEN));
        let first = Life::new(faults.clone());
        first.point(points::BEFORE_OPEN);
        assert!(first.is_over());
        let second = Life::new(faults.clone());
        second.point(points::BEFORE_OPEN);
        assert!(!second.is_over());
        faults.arm(Fault::at(points::BEFORE_OPEN));
        faults.disarm();
        second.point(points::BEFORE_OPEN);
        assert!(!second.is_over());
    }

    #[test]
    fn who_is_dead_stays_dead_whatever_is_armed_next() {
        let faults = Faults::default();
        let life = Life::new(faults.clone());
        faults.arm(Fault::at(points::BEFORE_OPEN));
        life.point(points::BEFORE_OPEN);
        faults.arm(Fault::at(points::BEFORE_OPEN));
        assert!(life.is_over() && faults.fired().is_none());
    }

    #[test]
    fn the_journal_has_what_a_dying_node_did_last() {
        let faults = Faults::default();
        assert!(faults.journal().is_empty());
        let life = Life::new(faults.clone());
        faults.arm(Fault::before_write(2));
        written(&life, &["a", "b", "c"]);
        let steps = [Step::Before(write("a")), Step::After(write("a")), Step::Before(write("b"))];
        assert_eq!(faults.journal(), steps);
    }

    #[tokio::test]
    async fn a_life_is_settled_when_its_last_write_is_done() {
        let life = Life::new(Faults::default());
        let turn = life.begin(&write("a")).unwrap();
        life.end();
        let waiting = tokio::spawn({
            let life = life.clone();
            async move { life.settled().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(turn);
        waiting.await.unwrap();
    }
}
