//! `record`: plays the named scenarios and writes what the nodes did to `tests/recorded`.

mod bolt11;
mod failures;
mod scenarios;

use anyhow::{Context, Result, bail};
use book::Versions;
use node::transcript::Transcript;
use recording::normalise::Normaliser;
use recording::{Header, Lane, Moment, Recording, compare};
use regtest::Chain;
use serde_json::Value;
use std::path::{Path, PathBuf};

use crate::lab;
use crate::world::{Story, World};
pub use scenarios::scenarios;

/// Something that can be played again and again.
pub struct Scenario {
    /// Its name, and that of its file.
    pub name: &'static str,
    /// One line, for captions.
    pub title: &'static str,
    /// What happens, in a sentence or two.
    pub about: &'static str,
    /// The world it is played in.
    pub story: fn() -> Story,
    /// The choices that a reader should know, by name.
    pub setting: fn() -> Vec<(&'static str, Value)>,
    /// Plays it.
    pub play: for<'a> fn(&'a mut World) -> Playing<'a>,
}

/// A scenario under way.
pub type Playing<'a> = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send + 'a>>;

/// The parties a recording knows, from the payer to the recipient.
pub const LANES: [(&str, &str); 4] = [
    ("payer", "Payer"),
    ("payer-lsp", "Payer's LSP"),
    ("lsp", "Recipient's LSP"),
    ("recipient", "Recipient"),
];

/// Who else pays, where two do; the next lane after the payer's.
const SECOND_PAYER: (&str, &str) = ("payer-2", "Second payer");

/// What recording a scenario came to.
#[derive(Debug)]
pub enum Outcome {
    /// There was no such recording.
    New,
    /// The run was the recorded one.
    Same,
    /// It was not; this is the difference.
    Changed(String),
}

/// The file of a recording.
pub fn file(root: &Path, name: &str) -> PathBuf {
    root.join("tests/recorded").join(name).with_extension("jsonl")
}

/// Finds a scenario by its name.
///
/// # Errors
/// If there is none; the error lists those there are.
pub fn find(name: &str) -> Result<Scenario> {
    let mut all = scenarios();
    let names: Vec<_> = all.iter().map(|scenario| scenario.name).collect();
    match names.iter().position(|other| *other == name) {
        Some(at) => Ok(all.swap_remove(at)),
        None => bail!("no scenario `{name}`; there are: {}", names.join(", ")),
    }
}

/// Plays a scenario on this chain.
///
/// # Errors
/// If it cannot be played to its end.
pub async fn play(root: &Path, scenario: &Scenario, chain: Chain) -> Result<Recording> {
    let versions = Versions::read(root).map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let mut world = World::recorded(chain, (scenario.story)()).await?;
    let played = (scenario.play)(&mut world).await;
    let transcript = world.transcript.clone();
    let moments = moments(&transcript);
    world.stop().await;
    played
        .and_then(|()| lab::only_agreed_fees(&transcript.since(0)))
        .with_context(|| format!("playing `{}`", scenario.name))?;
    let setting = (scenario.setting)().into_iter();
    Ok(Recording {
        header: Header {
            name: scenario.name.to_owned(),
            title: scenario.title.to_owned(),
            about: scenario.about.to_owned(),
            ldk: versions.of("lightning").unwrap_or_default().to_owned(),
            setting: setting.map(|(name, value)| (name.to_owned(), value)).collect(),
            lanes: lanes(&moments),
        },
        moments,
    })
}

/// Plays a scenario and keeps the recording, unless the kept one says the same.
///
/// # Errors
/// If it cannot be played to its end, or not be written.
pub async fn record(root: &Path, scenario: &Scenario, chain: Chain) -> Result<Outcome> {
    let fresh = play(root, scenario, chain).await?;
    let file = file(root, scenario.name);
    let outcome = match file.exists() {
        false => Outcome::New,
        true => match compare::difference(&Recording::read(&file)?, &fresh) {
            same if same.is_empty() => return Ok(Outcome::Same),
            difference => Outcome::Changed(difference),
        },
    };
    std::fs::write(&file, fresh.text()).with_context(|| format!("{}", file.display()))?;
    Ok(outcome)
}

/// How a fresh run differs from the recording that is kept; empty if it does not.
///
/// # Errors
/// If there is no recording, or the scenario cannot be played to its end.
pub async fn check(root: &Path, scenario: &Scenario, chain: Chain) -> Result<String> {
    let kept = Recording::read(&file(root, scenario.name))?;
    Ok(compare::difference(&kept, &play(root, scenario, chain).await?))
}

/// All that a transcript holds so far, as moments.
fn moments(transcript: &Transcript) -> Vec<Moment> {
    let mut normaliser = Normaliser::new(node::explain::explainer(transcript));
    for (id, name) in transcript.introduced() {
        normaliser.introduce(&id, &name);
    }
    transcript.since(0).iter().filter_map(|entry| normaliser.push(entry)).collect()
}

/// Those of the known parties that do something, in their order.
fn lanes(moments: &[Moment]) -> Vec<Lane> {
    let acts = |id: &str| moments.iter().any(|moment| moment.node == id);
    let lane = |(id, label): (&str, &str)| Lane { id: id.to_owned(), label: label.to_owned() };
    let (first, rest) = LANES.split_at(1);
    let known = first.iter().chain([&SECOND_PAYER]).chain(rest).copied();
    known.filter(|(id, _)| acts(id)).map(lane).collect()
}
