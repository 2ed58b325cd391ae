//! Runs of the lab: one sequence, or as many as the time allows.

use anyhow::{Context, Result, anyhow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

use super::steps::Sequence;
use super::town::{Counts, Town};

/// What a long run is given.
#[derive(Clone, Debug)]
pub struct Options {
    /// The seed of the first world; the next world has the next one.
    pub seed: u64,
    /// How many steps a world has.
    pub length: usize,
    /// Worlds are begun until this time has passed.
    pub time: Option<Duration>,
    /// Worlds are begun until this many steps were taken.
    pub steps: Option<usize>,
    /// How many worlds are played at a time.
    pub jobs: usize,
    /// Where the transcript and the logs of a world that broke are kept.
    pub keep: Option<PathBuf>,
}

/// An invariant does not hold.
#[derive(Clone, Debug)]
pub struct Broken {
    /// How many steps were taken, the last of which broke it; more than there are: the end did.
    pub steps: usize,
    /// Which one, and how.
    pub error: String,
}

/// Plays one sequence, in folders within this one.
///
/// # Errors
/// If an invariant does not hold.
pub async fn play(
    folder: &Path,
    keep: Option<&Path>,
    sequence: &Sequence,
) -> Result<Counts, Broken> {
    /// Longer than any step may take.
    const HANGS: Duration = Duration::from_secs(300);
    let broken = |steps: usize, error: anyhow::Error| Broken { steps, error: format!("{error:#}") };
    let mut town = Town::new(folder, sequence.trust).await.map_err(|error| broken(0, error))?;
    for (at, step) in sequence.steps.iter().enumerate() {
        town.say(format!("step {}: {step}", at + 1));
        let taken = tokio::time::timeout(HANGS, town.step(step)).await;
        let taken = taken.unwrap_or_else(|_| Err(anyhow!("the step does not end")));
        if let Err(error) = taken {
            town.keep(keep);
            return Err(broken(at + 1, error));
        }
    }
    town.say("the end".to_owned());
    if let Err(error) = town.end().await {
        town.keep(keep);
        return Err(broken(sequence.steps.len() + 1, error));
    }
    let counts = town.counts;
    town.keep(keep);
    town.stop().await;
    Ok(counts)
}

/// Plays sequences until the time is over, or one breaks an invariant. Returns what was done.
///
/// # Errors
/// If an invariant does not hold; the error is the shortest sequence that was found to break it.
pub async fn run(options: &Options) -> Result<Counts> {
    let began = Instant::now();
    let shared = Arc::new(Shared {
        next: AtomicU64::new(options.seed),
        over: AtomicBool::new(false),
        counts: Mutex::default(),
        begun: AtomicU64::new(0),
    });
    let mut players = tokio::task::JoinSet::new();
    for _ in 0..options.jobs.max(1) {
        players.spawn(play_on(shared.clone(), options.clone(), began));
    }
    let mut failed = None;
    while let Some(player) = players.join_next().await {
        if let Some(found) = player.context("a world panicked")? {
            shared.over.store(true, Ordering::Relaxed);
            failed = failed.or(Some(found));
        }
    }
    let counts = *shared.counts.lock().await;
    println!("{} in {:.0?}", counts, began.elapsed());
    match failed {
        None => Ok(counts),
        Some((seed, sequence, broken)) => Err(report(options, seed, sequence, broken).await),
    }
}

struct Shared {
    next: AtomicU64,
    over: AtomicBool,
    counts: Mutex<Counts>,
    /// Steps of worlds that were begun.
    begun: AtomicU64,
}

type Failed = (u64, Sequence, Broken);

async fn play_on(shared: Arc<Shared>, options: Options, began: Instant) -> Option<Failed> {
    loop {
        let begun = shared.begun.fetch_add(options.length as u64, Ordering::Relaxed) as usize;
        let late = options.time.is_some_and(|time| began.elapsed() >= time);
        let enough = options.steps.is_some_and(|steps| begun >= steps);
        if late || enough || shared.over.load(Ordering::Relaxed) {
            return None;
        }
        let seed = shared.next.fetch_add(1, Ordering::Relaxed);
        let sequence = Sequence::drawn(seed, options.length);
        let keep = options.keep.as_ref().map(|keep| keep.join(seed.to_string()));
        match play(&std::env::temp_dir(), keep.as_deref(), &sequence).await {
            Ok(counts) => {
                // What broke nothing is only kept if it was asked for by name.
                let _ = keep.map(std::fs::remove_dir_all);
                let mut all = shared.counts.lock().await;
                *all = all.and(counts);
                println!("{:>6.0?} seed {seed}: {}", began.elapsed(), all);
            }
            Err(broken) => {
                shared.over.store(true, Ordering::Relaxed);
                println!("seed {seed}, step {}: {}", broken.steps, broken.error);
                return Some((seed, sequence, broken));
            }
        }
    }
}

/// Looks for a shorter sequence that breaks an invariant too, and tells of it.
async fn report(options: &Options, seed: u64, sequence: Sequence, broken: Broken) -> anyhow::Error {
    println!("looking for a shorter sequence than that of seed {seed}");
    let (shortest, broken) = shortest(sequence, broken, options.jobs.max(1)).await;
    anyhow!(
        "an invariant is broken: {}\n\nThe shortest sequence that was found, for `lab --replay \
         FILE`:\n\n# seed {seed}\n{shortest}",
        broken.error
    )
}

/// Leaves out as much as it can: first what comes after the break, then ever smaller parts.
async fn shortest(mut sequence: Sequence, mut broken: Broken, jobs: usize) -> (Sequence, Broken) {
    const REPLAYS: usize = 60;
    let mut replays = 0;
    sequence.steps.truncate(broken.steps);
    let mut part = sequence.steps.len().div_ceil(2);
    while part > 0 && sequence.steps.len() > 1 {
        let mut at = 0;
        while at < sequence.steps.len() {
            if replays >= REPLAYS {
                return (sequence, broken);
            }
            // Several at a time: one that stands for the next parts is tried with it.
            let mut tries = tokio::task::JoinSet::new();
            for ahead in 0..jobs {
                let from = at + ahead * part;
                if from >= sequence.steps.len() {
                    break;
                }
                let to = (from + part).min(sequence.steps.len());
                let mut shorter = sequence.clone();
                shorter.steps.drain(from..to);
                replays += 1;
                tries.spawn(async move {
                    let played = play(&std::env::temp_dir(), None, &shorter).await;
                    (from, shorter, played.err())
                });
            }
            let mut results: Vec<_> = tries.join_all().await;
            results.sort_by_key(|(from, ..)| *from);
            let last = results.last().map_or(at, |(from, ..)| *from);
            let found = results.into_iter().find(|(.., error)| error.is_some());
            match found {
                Some((from, shorter, Some(error))) => {
                    println!("{} steps: {}", shorter.steps.len(), error.error);
                    at = from;
                    sequence = shorter;
                    broken = error;
                    sequence.steps.truncate(broken.steps);
                }
                _ => at = last + part,
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
    (sequence, broken)
}
