//! The lease in the payment metadata.

use lightning::util::ser::BigSize;
use lsps2_async::metadata::LeaseMetadata;
use recording::Explained;

use super::sheet::{Mismatch, Sheet, note};
use super::values::{blocks, msat, party, ppm, scid, seconds};
use crate::transcript::Transcript;

/// The layout and the TLV type that `lsps2_async::metadata` writes.
const VERSION: u64 = 1;
const PAYMENT_SIZE_TYPE: u64 = 2;

/// Where a payer has it from.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// A blinded path.
    Path,
    /// A BOLT 11 invoice.
    Invoice,
}

/// Explains the lease, without what is around it.
pub(super) fn explain(
    bytes: &[u8],
    place: Place,
    transcript: &Transcript,
) -> Result<Explained, Mismatch> {
    let (seller, least) = match place {
        Place::Path => {
            ("who sold the lease: the introduction node of the path", "that the path lets through")
        }
        Place::Invoice => (
            "who sold the lease: the hop in the invoice's route hint",
            "that a path over the lease would let through",
        ),
    };
    let lease = LeaseMetadata::decode(bytes)
        .map_err(|error| Mismatch::new(0, format!("this is no lease: {error}")))?;
    let mut sheet = Sheet::new(bytes);
    let named = |name, value: String, meaning| note(name).is(value).means(meaning);
    sheet.take(
        &BigSize(VERSION),
        named("version", VERSION.to_string(), "the layout of what follows"),
    )?;
    let lsp = party(transcript, &lease.lsp_node_id);
    sheet.take(&lease.lsp_node_id, named("LSP node id", lsp, seller).varies())?;
    sheet.take(
        &lease.intercept_scid,
        named("intercept SCID", scid(lease.intercept_scid), "the channel that the LSP intercepts")
            .varies(),
    )?;
    sheet.take(
        &BigSize(lease.cltv_expiry_delta.into()),
        named("CLTV delta", blocks(lease.cltv_expiry_delta), "of the hop at the LSP"),
    )?;
    sheet.take(
        &BigSize(lease.min_fee_msat),
        named("minimum fee", msat(lease.min_fee_msat), "the least the LSP may skim off"),
    )?;
    sheet.take(
        &BigSize(lease.proportional.into()),
        named("proportional fee", ppm(lease.proportional), "its share of the gross payment size"),
    )?;
    sheet.take(
        &BigSize(lease.valid_until.as_secs()),
        named("valid until", seconds(lease.valid_until), "since the Unix epoch").varies(),
    )?;
    sheet.take(
        &BigSize(lease.min_htlc_msat),
        named("smallest HTLC", msat(lease.min_htlc_msat), least),
    )?;
    if let Some(size) = lease.payment_size_msat {
        let about = named("payment size", msat(size), "agreed when the lease was bought");
        sheet.record(PAYMENT_SIZE_TYPE, about, |sheet| {
            sheet.take(&BigSize(size), note("value").is(msat(size)))
        })?;
    }
    sheet.end("lease metadata")
}
