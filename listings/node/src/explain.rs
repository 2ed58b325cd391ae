//! What the bytes of a message mean.
//!
//! A decoder that is wrong would make a convincing picture. So nothing here is told from the bytes
//! alone: what LDK decoded is written again, field by field, and compared with the bytes where the
//! field is said to stand.

mod bolt11;
mod channel;
mod hop;
mod htlc;
mod json;
mod metadata;
mod offers;
mod onion;
mod paths;
mod server;
mod sheet;
mod values;

use bitcoin::hex::FromHex;
use recording::Explained;
use recording::normalise::Explain;

use crate::transcript::{Entry, Transcript, What};

pub use sheet::Mismatch;

/// The messages that the book explains, beside LSPS.
const EXPLAINED: [&str; 13] = [
    "offer_paths_request",
    "offer_paths",
    "serve_static_invoice",
    "static_invoice_persisted",
    "invoice_request",
    "static_invoice",
    "held_htlc_available",
    "release_held_htlc",
    "open_channel",
    "accept_channel",
    "update_add_htlc",
    "update_fulfill_htlc",
    "revoke_and_ack",
];

/// Whether the book explains messages of this name.
pub(crate) fn is_explained(message: &str) -> bool {
    EXPLAINED.contains(&message)
}

/// Explains the bytes of an entry: one [`Explained`] for each layer that the node that received them
/// could open; none if the entry has no bytes, or the book does not explain them.
///
/// # Errors
/// If the bytes are not what they are said to be.
pub fn explain(entry: &Entry, transcript: &Transcript) -> Result<Vec<Explained>, Mismatch> {
    let mut layers = Vec::new();
    layers_of(entry, transcript, &mut layers)?;
    Ok(layers)
}

/// Adds the layers from the outside to the inside, until one is not what it is said to be.
fn layers_of(
    entry: &Entry,
    transcript: &Transcript,
    layers: &mut Vec<Explained>,
) -> Result<(), Mismatch> {
    if let What::Lsps { json, content: Some(text), .. } = &entry.what {
        layers.push(json::explain(text, json)?);
    }
    if let What::Wire { message, content: Some(content), .. }
    | What::Onion { message, content: Some(content), .. } = &entry.what
    {
        message_of(entry, message, &from_hex(content)?, transcript, layers)?;
    }
    if let What::Paths { detail, .. } = &entry.what
        && let Some(metadata) = detail["metadata"].as_str()
    {
        layers.push(metadata::explain(&from_hex(metadata)?, metadata::Place::Path, transcript)?);
    }
    Ok(())
}

fn from_hex(hex: &str) -> Result<Vec<u8>, Mismatch> {
    Vec::from_hex(hex).map_err(|error| Mismatch::new(0, format!("this is no hex: {error}")))
}

fn message_of(
    entry: &Entry,
    name: &str,
    content: &[u8],
    transcript: &Transcript,
    layers: &mut Vec<Explained>,
) -> Result<(), Mismatch> {
    let explained = match name {
        "update_add_htlc" => {
            let keys = transcript.keys_of(&entry.node);
            return htlc::explain(content, keys.as_deref(), transcript, layers);
        }
        "open_channel" => channel::open_channel(content),
        "accept_channel" => channel::accept_channel(content),
        "update_fulfill_htlc" => channel::update_fulfill_htlc(content),
        "revoke_and_ack" => channel::revoke_and_ack(content, transcript),
        "invoice_request" => offers::invoice_request(content, transcript),
        "static_invoice" => offers::static_invoice(content, transcript),
        "offer_paths_request" => server::offer_paths_request(content),
        "offer_paths" => server::offer_paths(content, transcript),
        "serve_static_invoice" => server::serve_static_invoice(content, transcript),
        "static_invoice_persisted" | "held_htlc_available" | "release_held_htlc" => {
            server::empty(name, content)
        }
        _ => return Ok(()),
    };
    layers.push(explained?);
    Ok(())
}

/// [`explain`] for a [`recording::normalise::Normaliser`]. It takes the keys from the transcript,
/// where the nodes left them, so it explains what a node received that has stopped since.
///
/// Bytes that are not what they are said to be become a layer without fields that says so, after the
/// layers around it.
pub fn explainer(transcript: &Transcript) -> Explain {
    let transcript = transcript.clone();
    Box::new(move |entry| {
        let mut layers = Vec::new();
        if let Err(mismatch) = layers_of(entry, &transcript, &mut layers) {
            let title = format!("not explained: {mismatch}");
            layers.push(Explained { title, bytes: String::new(), text: true, fields: Vec::new() });
        }
        layers
    })
}

#[cfg(test)]
mod tests;
