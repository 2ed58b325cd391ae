//! What a recipient and its static invoice server say to each other, and what releases a held HTLC:
//! LDK's onion messages, not specified yet.
//!
//! Each content is a TLV stream after its own length.

use lightning::onion_message::async_payments::{
    HeldHtlcAvailable, OfferPaths, OfferPathsRequest, ReleaseHeldHtlc, ServeStaticInvoice,
    StaticInvoicePersisted,
};
use lightning::util::ser::{BigSize, Readable, Writeable};
use recording::Explained;
use std::time::Duration;

use super::offers;
use super::paths::message_path;
use super::sheet::{Mismatch, Sheet, decoded, note};
use super::values::{bytes, seconds};
use crate::transcript::Transcript;

/// The length before the TLV stream, which is all the rest.
fn length(sheet: &mut Sheet) -> Result<(), Mismatch> {
    let mut stream = sheet.rest();
    BigSize::read(&mut stream).map_err(|_| Mismatch::new(0, "the length is cut off"))?;
    let about = note("length").is(bytes(stream.len())).means("of the TLV stream that follows");
    sheet.take(&BigSize(stream.len() as u64), about)
}

pub(super) fn offer_paths_request(content: &[u8]) -> Result<Explained, Mismatch> {
    let msg: OfferPathsRequest = decoded(content, "offer_paths_request")?;
    let mut sheet = Sheet::new(content);
    length(&mut sheet)?;
    let meaning = "the place at the server that the invoice will take";
    let about = note("invoice_slot").is(msg.invoice_slot).means(meaning);
    sheet.tlv(0, &msg.invoice_slot.encode(), about)?;
    sheet.end("offer_paths_request")
}

pub(super) fn offer_paths(content: &[u8], transcript: &Transcript) -> Result<Explained, Mismatch> {
    let msg: OfferPaths = decoded(content, "offer_paths")?;
    let mut sheet = Sheet::new(content);
    length(&mut sheet)?;
    let about = note("paths").means("paths to the server, which the recipient puts into its offer");
    sheet.record(0, about, |sheet| {
        for path in &msg.paths {
            message_path(sheet, path, note("blinded_path"), transcript)?;
        }
        Ok(())
    })?;
    if let Some(expiry) = msg.paths_absolute_expiry {
        let meaning = "when the paths end, since the Unix epoch";
        let about = note("paths_absolute_expiry").is(seconds(Duration::from_secs(expiry)));
        sheet.tlv(2, &expiry.encode(), about.means(meaning).varies())?;
    }
    sheet.end("offer_paths")
}

pub(super) fn serve_static_invoice(
    content: &[u8],
    transcript: &Transcript,
) -> Result<Explained, Mismatch> {
    let msg: ServeStaticInvoice = decoded(content, "serve_static_invoice")?;
    let mut sheet = Sheet::new(content);
    length(&mut sheet)?;
    let about = note("invoice").means("the static invoice that the server is to hand out");
    sheet
        .record(0, about, |sheet| offers::static_invoice_fields(sheet, &msg.invoice, transcript))?;
    let meaning = "where the server forwards each invoice_request, should the recipient be online";
    let about = note("forward_invoice_request_path").means(meaning);
    sheet.record(2, about, |sheet| {
        message_path(sheet, &msg.forward_invoice_request_path, note("blinded_path"), transcript)
    })?;
    sheet.end("serve_static_invoice")
}

/// A message without fields.
pub(super) fn empty(message: &str, content: &[u8]) -> Result<Explained, Mismatch> {
    match message {
        "static_invoice_persisted" => {
            decoded::<StaticInvoicePersisted>(content, message)?;
        }
        "held_htlc_available" => {
            decoded::<HeldHtlcAvailable>(content, message)?;
        }
        _ => {
            decoded::<ReleaseHeldHtlc>(content, message)?;
        }
    }
    let mut sheet = Sheet::new(content);
    let meaning = match message {
        "held_htlc_available" => {
            "no fields of its own: the path it came over says which offer, and its reply path, \
             outside these bytes, says whom to answer"
        }
        _ => "no fields follow: the message, and the path it came over, say it all",
    };
    sheet.take(&BigSize(0), note("length").is(bytes(0)).means(meaning))?;
    sheet.end(message)
}
