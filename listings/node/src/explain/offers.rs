//! `invoice_request` and `static_invoice` (BOLT 12).
//!
//! Both are TLV streams. Their records are taken in the order of their types, each written from what
//! LDK decoded; one that is not known here is left over, and that is an error.

use lightning::bitcoin::constants::ChainHash;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::offers::invoice_request::InvoiceRequest;
use lightning::offers::offer::{Amount, Quantity};
use lightning::offers::static_invoice::StaticInvoice;
use lightning::util::ser::Writeable;
use recording::Explained;

use super::paths::{message_path, payinfo, payment_path};
use super::sheet::{Mismatch, Sheet, decoded, note};
use super::values::{Tu, bytes, chain, feature_bits, msat, seconds};
use crate::transcript::Transcript;

/// The `offer_*` records, which an invoice request and an invoice repeat.
struct Offer<'a> {
    chains: Vec<ChainHash>,
    metadata: Option<&'a Vec<u8>>,
    amount: Option<Amount>,
    description: Option<String>,
    features: &'a [u8],
    absolute_expiry: Option<std::time::Duration>,
    paths: &'a [BlindedMessagePath],
    issuer: Option<String>,
    quantity: Quantity,
    issuer_id: Option<bitcoin::secp256k1::PublicKey>,
}

pub(super) fn invoice_request(
    content: &[u8],
    transcript: &Transcript,
) -> Result<Explained, Mismatch> {
    let msg: InvoiceRequest = decoded(content, "invoice_request")?;
    let mut sheet = Sheet::new(content);
    let meaning = "from it the payer makes invreq_payer_id again";
    let about = note("invreq_metadata").is(bytes(msg.payer_metadata().len())).means(meaning);
    sheet.tlv(0, msg.payer_metadata(), about.varies())?;
    let offer = Offer {
        chains: msg.chains(),
        metadata: msg.metadata(),
        amount: msg.amount(),
        description: msg.description().map(|text| text.0.to_owned()),
        features: msg.offer_features().le_flags(),
        absolute_expiry: msg.absolute_expiry(),
        paths: msg.paths(),
        issuer: msg.issuer().map(|text| text.0.to_owned()),
        quantity: msg.supported_quantity(),
        issuer_id: msg.issuer_signing_pubkey(),
    };
    offer_fields(&mut sheet, &offer, transcript)?;
    if sheet.next_type() == Some(80) {
        let about = note("invreq_chain").is(chain(msg.chain())).means("the chain to pay on");
        sheet.tlv(80, &msg.chain().encode(), about)?;
    }
    if let Some(amount) = msg.amount_msats().filter(|_| msg.has_amount_msats()) {
        let about = note("invreq_amount").is(msat(amount)).means("what the payer will pay");
        sheet.tlv(82, &Tu(amount).encode(), about)?;
    }
    features(&mut sheet, 84, "invreq_features", msg.invoice_request_features().le_flags())?;
    if let Some(quantity) = msg.quantity() {
        let about = note("invreq_quantity").is(quantity).means("how many items");
        sheet.tlv(86, &Tu(quantity).encode(), about)?;
    }
    let meaning = "a key of the payer for this request alone";
    let about = note("invreq_payer_id").means(meaning).varies();
    sheet.tlv(88, &msg.payer_signing_pubkey().encode(), about)?;
    if let Some(text) = msg.payer_note() {
        let about = note("invreq_payer_note").is(text.0).means("a word from the payer");
        sheet.tlv(89, text.0.as_bytes(), about)?;
    }
    signature(&mut sheet, &msg.signature(), "by the payer's key, over all that is above")?;
    sheet.end("invoice_request")
}

pub(super) fn static_invoice(
    content: &[u8],
    transcript: &Transcript,
) -> Result<Explained, Mismatch> {
    let msg: StaticInvoice = decoded(content, "static_invoice")?;
    let mut sheet = Sheet::new(content);
    static_invoice_fields(&mut sheet, &msg, transcript)?;
    sheet.end("static_invoice")
}

pub(super) fn static_invoice_fields(
    sheet: &mut Sheet,
    msg: &StaticInvoice,
    transcript: &Transcript,
) -> Result<(), Mismatch> {
    let offer = Offer {
        chains: vec![msg.chain()],
        metadata: msg.metadata(),
        amount: msg.amount(),
        description: msg.description().map(|text| text.0.to_owned()),
        features: msg.offer_features().le_flags(),
        absolute_expiry: msg.absolute_expiry(),
        paths: msg.offer_message_paths(),
        issuer: msg.issuer().map(|text| text.0.to_owned()),
        quantity: msg.supported_quantity(),
        issuer_id: msg.issuer_signing_pubkey(),
    };
    offer_fields(sheet, &offer, transcript)?;
    let about = note("invoice_paths").means("blinded paths over which to pay");
    sheet.record(160, about, |sheet| {
        for path in msg.payment_paths() {
            payment_path(sheet, path, note("blinded_path"), transcript)?;
        }
        Ok(())
    })?;
    let about = note("invoice_blindedpay").means("for each path, what it charges and lets through");
    sheet.record(162, about, |sheet| {
        for path in msg.payment_paths() {
            payinfo(sheet, &path.payinfo, note("blinded_payinfo"))?;
        }
        Ok(())
    })?;
    let created = msg.created_at();
    let about = note("invoice_created_at").is(seconds(created)).means("since the Unix epoch");
    sheet.tlv(164, &Tu(created.as_secs()).encode(), about.varies())?;
    if sheet.next_type() == Some(166) {
        let expiry = msg.relative_expiry();
        let meaning = "how long after that it may be paid";
        let about = note("invoice_relative_expiry").is(seconds(expiry)).means(meaning);
        // To the offer's end, in seconds from a time that is none of ours.
        sheet.tlv(166, &Tu(expiry.as_secs()).encode(), about.varies())?;
    }
    features(sheet, 174, "invoice_features", msg.invoice_features().le_flags())?;
    let about = note("invoice_node_id").means("the key that signs: that of the offer");
    sheet.tlv(176, &msg.signing_pubkey().encode(), about.varies())?;
    let meaning = "paths to the recipient, for held_htlc_available; LDK's record";
    sheet.record(236, note("held_htlc_available_paths").means(meaning), |sheet| {
        for path in msg.held_htlc_available_paths() {
            message_path(sheet, path, note("blinded_path"), transcript)?;
        }
        Ok(())
    })?;
    signature(sheet, &msg.signature(), "by the key of the offer, over all that is above")
}

fn offer_fields(
    sheet: &mut Sheet,
    offer: &Offer<'_>,
    transcript: &Transcript,
) -> Result<(), Mismatch> {
    if sheet.next_type() == Some(2) {
        let names: Vec<_> = offer.chains.iter().map(|hash| chain(*hash)).collect();
        let about = note("offer_chains").is(names.join(", ")).means("by their genesis blocks");
        let hashes: Vec<u8> = offer.chains.iter().flat_map(Writeable::encode).collect();
        sheet.tlv(2, &hashes, about)?;
    }
    if let Some(metadata) = offer.metadata {
        let about = note("offer_metadata").is(bytes(metadata.len())).means("for its maker alone");
        sheet.tlv(4, metadata, about.varies())?;
    }
    match offer.amount {
        Some(Amount::Bitcoin { amount_msats }) => {
            let about = note("offer_amount").is(msat(amount_msats)).means("the least to be paid");
            sheet.tlv(8, &Tu(amount_msats).encode(), about)?;
        }
        // These nodes ask for bitcoin; what another asks for is left over.
        Some(Amount::Currency { .. }) | None => {}
    }
    if let Some(text) = &offer.description {
        let about = note("offer_description").is(text).means("what the payment is for");
        sheet.tlv(10, text.as_bytes(), about)?;
    }
    features(sheet, 12, "offer_features", offer.features)?;
    if let Some(expiry) = offer.absolute_expiry {
        let meaning = "when the offer ends, since the Unix epoch";
        let about = note("offer_absolute_expiry").is(seconds(expiry)).means(meaning);
        sheet.tlv(14, &Tu(expiry.as_secs()).encode(), about.varies())?;
    }
    if !offer.paths.is_empty() {
        let about = note("offer_paths").means("where to send the invoice_request");
        sheet.record(16, about, |sheet| {
            for path in offer.paths {
                message_path(sheet, path, note("blinded_path"), transcript)?;
            }
            Ok(())
        })?;
    }
    if let Some(text) = &offer.issuer {
        sheet.tlv(18, text.as_bytes(), note("offer_issuer").is(text).means("who offers"))?;
    }
    quantity_max(sheet, offer.quantity)?;
    if let Some(id) = offer.issuer_id {
        let about = note("offer_issuer_id").means("the key that will sign the invoice").varies();
        sheet.tlv(22, &id.encode(), about)?;
    }
    Ok(())
}

fn quantity_max(sheet: &mut Sheet, quantity: Quantity) -> Result<(), Mismatch> {
    let most = match quantity {
        Quantity::One => return Ok(()),
        Quantity::Unbounded => 0,
        Quantity::Bounded(most) => most.get(),
    };
    let about = note("offer_quantity_max").is(most).means("the most items; 0 for any number");
    sheet.tlv(20, &Tu(most).encode(), about)
}

fn features(sheet: &mut Sheet, kind: u64, name: &str, flags: &[u8]) -> Result<(), Mismatch> {
    if flags.is_empty() {
        return Ok(());
    }
    let big_endian: Vec<u8> = flags.iter().rev().copied().collect();
    sheet.tlv(kind, &big_endian, note(name).is(feature_bits(flags, &MPP)))
}

/// That a payment may come in parts.
const MPP: [(usize, &str); 2] = [(16, "MPP"), (17, "MPP")];

fn signature(sheet: &mut Sheet, signature: &impl Writeable, meaning: &str) -> Result<(), Mismatch> {
    sheet.tlv(240, &signature.encode(), note("signature").means(meaning).varies())
}
