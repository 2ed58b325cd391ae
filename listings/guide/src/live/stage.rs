//! One run, on a thread and in a runtime of its own: when these end, so does everything in it,
//! however far it was.

use anyhow::{Error, Result};
use node::transcript::{Entry, HtlcState, NotSeen, Transcript, What};
use recording::normalise::Normaliser;
use recording::view::Viewer;
use regtest::Chain;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::choices::Choices;
use super::log::{End, Log};
use super::{Settings, Tell};
use crate::world::World;

/// How long nodes may take to stop before they are dropped as they are.
const STOPPING: Duration = Duration::from_secs(10);

/// A run that was started.
pub(super) struct Stage {
    pub(super) log: Arc<Log>,
    stop: watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Stage {
    /// Starts a run.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(super) fn start(
        log: Arc<Log>,
        choices: Choices,
        settings: Settings,
    ) -> std::io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let play = Play { log: log.clone(), choices, settings, stopped };
        let thread = std::thread::Builder::new().name("live run".to_owned());
        let thread = Some(thread.spawn(move || play.run_to_its_end())?);
        Ok(Self { log, stop, thread })
    }
}

/// A run does not outlive who started it.
impl Drop for Stage {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // It ends its log in any case, and says there what went wrong.
            let _ = thread.join();
        }
    }
}

/// What the thread of a run has.
struct Play {
    log: Arc<Log>,
    choices: Choices,
    settings: Settings,
    stopped: watch::Receiver<bool>,
}

/// Whatever happens to the thread, readers hear of an end, and the next run may start.
impl Drop for Play {
    fn drop(&mut self) {
        self.log.end(&End::failed("the run broke off: the terminal says where".to_owned()));
    }
}

impl Play {
    fn run_to_its_end(self) {
        let end = self.in_its_own_runtime();
        // Only now: whoever hears of it may start the next run at once.
        self.log.end(&end.unwrap_or_else(|error| End::failed(format!("{error:#}"))));
    }

    fn in_its_own_runtime(&self) -> Result<End> {
        let folder =
            tempfile::Builder::new().prefix("guide-live-").tempdir_in(&self.settings.folder)?;
        let runtime =
            runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let performed = runtime.block_on(async {
            let performance = Performance {
                log: self.log.clone(),
                transcript: Transcript::keeping_bytes(),
                folder: folder.path().to_owned(),
                limit: self.settings.limit,
                tell: self.settings.tell.clone(),
                stopped: self.stopped.clone(),
            };
            // A task, so that a panic in it is an error here.
            tokio::spawn(performance.of(self.choices.clone())).await
        });
        runtime.shutdown_timeout(STOPPING);
        folder.close()?;
        Ok(match performed {
            Ok(Ok(end)) => end,
            Ok(Err(error)) => End::failed(in_short(&error)),
            Err(_) => End::failed("the run panicked: the terminal says where".to_owned()),
        })
    }
}

/// A story that is told, within its limits.
struct Performance {
    log: Arc<Log>,
    transcript: Transcript,
    folder: PathBuf,
    limit: Duration,
    tell: Tell,
    stopped: watch::Receiver<bool>,
}

impl Performance {
    async fn of(self, choices: Choices) -> Result<End> {
        let mut teller = Teller::new(self.log.clone(), self.transcript.clone());
        let mut cut = pin!(self.cut());
        let setting_up = build(choices.story, self.transcript.clone(), &self.folder);
        let mut world = tokio::select! {
            biased;
            why = &mut cut => return Err(why),
            world = setting_up => world?,
        };
        let played = {
            let mut playing = (self.tell)(&mut world, &choices.setting);
            loop {
                tokio::select! {
                    biased;
                    why = &mut cut => break Err(why),
                    played = &mut playing => break played,
                    () = teller.tell_next() => {}
                }
            }
        };
        teller.tell();
        // Not part of the story any more. The runtime stops what does not stop by itself.
        let _ = timeout(STOPPING, world.stop()).await;
        Ok(End::paid(played?))
    }

    /// What ends a run early, and why.
    async fn cut(&self) -> Error {
        let mut stopped = self.stopped.clone();
        tokio::select! {
            () = sleep(self.limit) => {
                let seconds = self.limit.as_secs();
                Error::msg(format!("it was not paid within {seconds} s, so the nodes were stopped"))
            }
            _ = stopped.wait_for(|stop| *stop) => Error::msg("the server has stopped"),
            why = payment_failure(&self.transcript) => why,
        }
    }
}

async fn build(story: crate::world::Story, transcript: Transcript, folder: &Path) -> Result<World> {
    World::within(folder, Chain::embedded(), story, transcript).await
}

/// Waits until the payer gives the payment up: nothing comes after that.
async fn payment_failure(transcript: &Transcript) -> Error {
    let failed = |entry: &Entry| match &entry.what {
        What::Htlc { state: HtlcState::Failed, reason, .. } if entry.node == "payer" => {
            Some(reason.clone().unwrap_or_default())
        }
        _ => None,
    };
    match transcript.wait_for(0, Duration::MAX, failed).await {
        Ok(reason) => Error::msg(format!("the payment failed: {reason}")),
        Err(error) => error.into(),
    }
}

/// An error that fits on a page. What was seen instead, the page shows already.
fn in_short(error: &Error) -> String {
    match error.downcast_ref::<NotSeen>() {
        Some(_) => {
            eprintln!("error: live run: {error:#}");
            "the next step did not come; the terminal says what came instead".to_owned()
        }
        None => format!("{error:#}"),
    }
}

/// Turns what the nodes write into steps.
struct Teller {
    log: Arc<Log>,
    transcript: Transcript,
    from: u64,
    normaliser: Normaliser,
    viewer: Viewer,
}

impl Teller {
    fn new(log: Arc<Log>, transcript: Transcript) -> Self {
        let normaliser = Normaliser::new(node::explain::explainer(&transcript));
        Self { log, transcript, from: 0, normaliser, viewer: Viewer::new() }
    }

    /// Waits for something to tell, and tells it.
    async fn tell_next(&mut self) {
        self.transcript.next(self.from).await;
        self.tell();
    }

    /// Tells what there is to tell.
    fn tell(&mut self) {
        for (id, name) in self.transcript.introduced() {
            self.normaliser.introduce(&id, &name);
        }
        for entry in self.transcript.since(self.from) {
            self.from = entry.seq + 1;
            if let Some(moment) = self.normaliser.push(&entry) {
                self.log.step(&self.viewer.step(&moment));
            }
        }
    }
}
