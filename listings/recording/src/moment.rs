//! A recording: a header and moments, one JSON object a line.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::entry::What;

/// One party.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lane {
    /// Its name in the transcript, for example `payer-lsp`.
    pub id: String,
    /// What a reader calls it, for example `Payer's LSP`.
    pub label: String,
}

/// The first line of a recording.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// The scenario's name, and the file's.
    pub name: String,
    /// One line for a caption.
    pub title: String,
    /// What happens, in a sentence or two.
    pub about: String,
    /// The version of LDK that played it.
    pub ldk: String,
    /// The choices of this run: amount in msat, trust model, who goes offline.
    pub setting: BTreeMap<String, Value>,
    /// The parties, from the payer to the recipient.
    pub lanes: Vec<Lane>,
}

/// A part of the story.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Its name, for example `step-4`.
    pub id: String,
    /// Its heading.
    pub title: String,
    /// Positions of its moments in the recording.
    pub moments: std::ops::Range<usize>,
}

/// One thing that happened, without what differs from run to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// Position in the recording, from 0.
    pub n: usize,
    /// The scene it belongs to.
    pub scene: String,
    /// The party that saw it.
    pub node: String,
    /// What it saw; keys, ids and times replaced by names.
    #[serde(flatten)]
    pub what: What,
    /// Whether it belongs to the nodes' housekeeping (gossip, pings) and not to the story.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub background: bool,
    /// Whether it repeats an earlier moment of its scene: a copy of a message that took another
    /// path, or an event that LDK shows again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The message's bytes, explained; one entry for each layer that the node could open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub explained: Vec<Explained>,
}

/// Bytes and what each of them means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// What the bytes are, for example `static_invoice` or `the LSP's hop, decrypted`.
    pub title: String,
    /// The bytes in hex; for JSON the text itself.
    pub bytes: String,
    /// Whether `bytes` is text, not hex.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub text: bool,
    /// Its fields, in order. Those of depth 0 cover all bytes without a gap; deeper ones lie within
    /// the one before them.
    pub fields: Vec<Field>,
}

/// A range of bytes with a meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Where it begins, in bytes.
    pub at: usize,
    /// How long it is, in bytes.
    pub len: usize,
    /// How deep it lies: 0 is the message itself.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: u8,
    /// Its name in the specification.
    pub name: String,
    /// Its value, readable; empty where the bytes are all there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub meaning: String,
    /// Whether its value (not its place) differs from run to run: a key, a signature, a time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub varies: bool,
}

fn is_zero(depth: &u8) -> bool {
    *depth == 0
}

/// A run, as it is kept under version control.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// What was played.
    pub header: Header,
    /// What happened.
    pub moments: Vec<Moment>,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// If the file cannot be read, or a line of it is not what it should be.
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{}", file.display()))
    }

    /// Reads a recording from its text.
    ///
    /// # Errors
    /// If a line of it is not what it should be.
    pub fn parse(text: &str) -> Result<Self> {
        let mut lines = text.lines();
        let header = serde_json::from_str(lines.next().context("no header")?).context("line 1")?;
        let moments: Vec<Moment> = lines
            .enumerate()
            .map(|(at, line)| {
                serde_json::from_str(line).with_context(|| format!("line {}", at + 2))
            })
            .collect::<Result<_>>()?;
        for (at, moment) in moments.iter().enumerate() {
            ensure!(moment.n == at, "line {} is moment {}, not {at}", at + 2, moment.n);
        }
        Ok(Self { header, moments })
    }

    /// The recording as text, which [`Self::parse`] reads.
    pub fn text(&self) -> String {
        let mut out = serde_json::to_string(&self.header).expect("a header is JSON");
        for moment in &self.moments {
            let _ = write!(out, "\n{}", serde_json::to_string(moment).expect("a moment is JSON"));
        }
        out + "\n"
    }

    /// The scenes in their order.
    pub fn scenes(&self) -> Vec<Scene> {
        let mut scenes: Vec<Scene> = Vec::new();
        for moment in &self.moments {
            if let What::Scene { id, title } = &moment.what {
                scenes.push(Scene {
                    id: id.clone(),
                    title: title.clone(),
                    moments: moment.n..moment.n,
                });
            }
            if let Some(scene) = scenes.last_mut() {
                scene.moments.end = moment.n + 1;
            }
        }
        scenes
    }

    /// The label of a party; its name if it has no lane.
    pub fn label<'a>(&'a self, id: &'a str) -> &'a str {
        self.header.lanes.iter().find(|lane| lane.id == id).map_or(id, |lane| &lane.label)
    }
}
