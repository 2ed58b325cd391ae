//! One hop of a payment's onion: its payload, and the recipient's words to it (BOLT 4).

use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::payment::{PaymentConstraints, PaymentContext, PaymentRelay};
use lightning::util::ser::{BigSize, Readable, Writeable};
use lsps2_async::metadata::PAYMENT_METADATA_KEY;
use recording::Explained;

use super::onion::Opened;
use super::sheet::{Mismatch, Note, Sheet, note};
use super::values::{Tu, blocks, bytes, feature_bits, height, msat, ppm, scid};

/// What was found in the hop, to be compared with what LDK finds.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) amount_msat: Option<u64>,
    pub(super) cltv_expiry: Option<u32>,
    pub(super) scid: Option<u64>,
    pub(super) total_msat: Option<u64>,
    pub(super) secret: Option<[u8; 32]>,
    pub(super) preimage: Option<[u8; 32]>,
    pub(super) invoice_request: Option<Vec<u8>>,
    pub(super) encrypted: Option<Vec<u8>>,
    pub(super) path_key: Option<PublicKey>,
    pub(super) context: Option<Vec<u8>>,
    /// The metadata of a BOLT 11 invoice, encrypted.
    pub(super) metadata: Option<Vec<u8>>,
    /// The lease in the payment metadata of a blinded path.
    pub(super) lease: Option<Vec<u8>>,
    /// Whether the recipient has put this hop there only to look longer.
    pub(super) is_dummy: bool,
}

/// Reads a value that must be all of `value`, and be written like this.
fn typed<T: Readable + Writeable>(sheet: &Sheet, mut value: &[u8]) -> Result<T, Mismatch> {
    let whole = value;
    let read = T::read(&mut value).ok().filter(|read| read.encode() == whole);
    read.ok_or_else(|| Mismatch::new(sheet.at(), "the record's value is malformed"))
}

fn number(sheet: &Sheet, value: &[u8]) -> Result<u64, Mismatch> {
    Tu::read(value).ok_or_else(|| Mismatch::new(sheet.at(), "the number is malformed"))
}

fn small(sheet: &Sheet, value: &[u8]) -> Result<u32, Mismatch> {
    let number = number(sheet, value)?;
    u32::try_from(number).map_err(|_| Mismatch::new(sheet.at(), "the number is too large"))
}

fn said(name: &str, value: impl ToString, meaning: &str) -> Note {
    note(name).is(value).means(meaning)
}

/// Explains a hop: its length, its payload, the HMAC for the next.
pub(super) fn payload(opened: &Opened, seen: &mut Seen) -> Result<Explained, Mismatch> {
    let mut sheet = Sheet::new(&opened.bytes);
    let len = length(&mut sheet, "of the payload that follows")?;
    (seen.encrypted, seen.path_key) = (None, None);
    sheet.exactly(len, |sheet| {
        while let Some((kind, value)) = sheet.peek()? {
            match kind {
                2 | 4 | 18 => amount_or_expiry(sheet, kind, value, seen)?,
                _ => payload_record(sheet, kind, value, seen)?,
            }
        }
        Ok(())
    })?;
    let about = note("hmac").means("of the onion for the next hop; zero if this is the last");
    sheet.take_bytes(&opened.hmac(), about.varies())?;
    sheet.end("this hop of the onion, decrypted")
}

fn length(sheet: &mut Sheet, meaning: &str) -> Result<usize, Mismatch> {
    let cut = Mismatch::new(sheet.at(), "the length is cut off");
    let BigSize(len) = BigSize::read(&mut sheet.rest()).map_err(|_| cut)?;
    let about = note("length").is(bytes(len as usize));
    sheet.take(&BigSize(len), about.means(meaning))?;
    Ok(len as usize)
}

/// The records whose meaning depends on whether the hop forwards or receives.
fn amount_or_expiry(
    sheet: &mut Sheet,
    kind: u64,
    value: &[u8],
    seen: &mut Seen,
) -> Result<(), Mismatch> {
    let forwards = sheet.types().contains(&6) || seen.scid.is_some();
    match kind {
        2 => {
            let amount = number(sheet, value)?;
            seen.amount_msat = Some(amount);
            let meaning = match forwards {
                true => "how much to forward",
                false => "what the payer means this node to get, before an LSP skims",
            };
            sheet.tlv(2, &Tu(amount).encode(), said("amt_to_forward", msat(amount), meaning))
        }
        4 => {
            let expiry = small(sheet, value)?;
            seen.cltv_expiry = Some(expiry);
            let meaning = match forwards {
                true => "when the forwarded HTLC is to expire",
                false => "this HTLC must not expire before it",
            };
            let about = said("outgoing_cltv_value", height(expiry), meaning).varies();
            sheet.tlv(4, &Tu(expiry.into()).encode(), about)
        }
        _ => {
            let total = number(sheet, value)?;
            seen.total_msat = Some(total);
            let meaning = "what all parts of the payment come to";
            sheet.tlv(18, &Tu(total).encode(), said("total_amount_msat", msat(total), meaning))
        }
    }
}

fn payload_record(
    sheet: &mut Sheet,
    kind: u64,
    value: &[u8],
    seen: &mut Seen,
) -> Result<(), Mismatch> {
    match kind {
        6 => {
            let channel: u64 = typed(sheet, value)?;
            seen.scid = Some(channel);
            let about = said("short_channel_id", scid(channel), "the channel to forward over");
            sheet.tlv(6, &channel.encode(), about.varies())
        }
        8 => payment_data(sheet, value, seen),
        10 => {
            seen.encrypted = Some(value.to_vec());
            let meaning = "the recipient's words to this hop, decrypted below";
            let about = said("encrypted_recipient_data", bytes(value.len()), meaning);
            sheet.tlv(10, value, about.varies())
        }
        12 => {
            let key: PublicKey = typed(sheet, value)?;
            seen.path_key = Some(key);
            let meaning = "with it the introduction node opens them";
            sheet.tlv(12, &key.encode(), note("current_path_key").means(meaning).varies())
        }
        16 => {
            seen.metadata = Some(value.to_vec());
            let meaning = "what the invoice holds for its maker, encrypted; explained below";
            let about = said("payment_metadata", bytes(value.len()), meaning);
            sheet.tlv(16, value, about.varies())
        }
        INVOICE_REQUEST => {
            seen.invoice_request = Some(value.to_vec());
            let meaning =
                "what the payer asked for the invoice with; LDK's number, the draft's is 1";
            let about = said("invoice_request", bytes(value.len()), meaning);
            sheet.tlv(kind, value, about.varies())
        }
        KEYSEND_PREIMAGE => {
            let preimage: [u8; 32] = typed(sheet, value)?;
            seen.preimage = Some(preimage);
            let meaning = "the payer made it: a static invoice has no payment_hash";
            sheet.tlv(kind, &preimage, note("keysend_preimage").means(meaning).varies())
        }
        other => Err(Mismatch::new(sheet.at(), format!("record {other} is not explained"))),
    }
}

/// What a hop without a blinded path is told of the invoice.
fn payment_data(sheet: &mut Sheet, value: &[u8], seen: &mut Seen) -> Result<(), Mismatch> {
    let cut = || Mismatch::new(sheet.at(), "the payment data is cut off");
    let (secret, total) = value.split_first_chunk::<32>().ok_or_else(cut)?;
    let total = number(sheet, total)?;
    (seen.secret, seen.total_msat) = (Some(*secret), Some(total));
    let about = note("payment_data").means("from the invoice: only who has seen it can pay");
    sheet.record(8, about, |sheet| {
        let about = note("payment_secret").means("shows that the payer has the invoice");
        sheet.take_bytes(secret, about.varies())?;
        if total > 0 {
            let meaning = "what all parts of the payment come to";
            sheet.take(&Tu(total), said("total_msat", msat(total), meaning))?;
        }
        Ok(())
    })
}

/// LDK's number; the draft of async payments has 1.
const INVOICE_REQUEST: u64 = 77_777;
/// bLIP-3.
const KEYSEND_PREIMAGE: u64 = 5_482_373_484;

/// Explains the decrypted `encrypted_recipient_data` of a hop.
pub(super) fn recipient_data(data: &[u8], seen: &mut Seen) -> Result<Explained, Mismatch> {
    let mut sheet = Sheet::new(data);
    while let Some((kind, value)) = sheet.peek()? {
        data_record(&mut sheet, kind, value, seen)?;
    }
    sheet.end("its encrypted_recipient_data, decrypted")
}

fn data_record(
    sheet: &mut Sheet,
    kind: u64,
    value: &[u8],
    seen: &mut Seen,
) -> Result<(), Mismatch> {
    match kind {
        1 => {
            let meaning = "zeros, up to the next step of 30 bytes, so that the length tells little";
            let about = said("padding", bytes(value.len()), meaning);
            sheet.tlv(1, &vec![0; value.len()], about)
        }
        2 => {
            let channel: u64 = typed(sheet, value)?;
            seen.scid = Some(channel);
            let meaning = "the channel to forward over; on a JIT path the intercept SCID";
            let about = said("short_channel_id", scid(channel), meaning);
            sheet.tlv(2, &channel.encode(), about.varies())
        }
        10 => payment_relay(sheet, value),
        12 => payment_constraints(sheet, value),
        14 => {
            let flags: Vec<u8> = value.iter().rev().copied().collect();
            let about = said(
                "allowed_features",
                feature_bits(&flags, &[]),
                "the only ones the payment may use",
            );
            sheet.tlv(14, value, about)
        }
        PAYMENT_SECRET => {
            let secret: [u8; 32] = typed(sheet, value)?;
            seen.secret = Some(secret);
            let meaning = "the recipient's own: commits to amount, expiry and kind of the payment; \
                           LDK's record";
            sheet.tlv(kind, &secret, note("payment_secret").means(meaning).varies())
        }
        PAYMENT_CONTEXT => {
            seen.context = Some(value.to_vec());
            let meaning = "what the recipient wants to be reminded of; LDK's record";
            sheet.record(kind, note("payment_context").means(meaning), |sheet| {
                payment_context(sheet, value, seen)
            })
        }
        DUMMY => {
            seen.is_dummy = true;
            let meaning = "this hop is only there to make the path longer; LDK's record";
            sheet.tlv(kind, &[], note("dummy").means(meaning))
        }
        other => Err(Mismatch::new(sheet.at(), format!("record {other} is not explained"))),
    }
}

/// LDK's numbers: only the node that wrote them reads them.
const PAYMENT_SECRET: u64 = 65_536;
const PAYMENT_CONTEXT: u64 = 65_537;
const DUMMY: u64 = 65_539;

fn payment_relay(sheet: &mut Sheet, value: &[u8]) -> Result<(), Mismatch> {
    let relay: PaymentRelay = typed(sheet, value)?;
    let meaning = match relay.fee_base_msat {
        0 => "what this hop takes for forwarding; base fee 0, which is written as no bytes",
        _ => "what this hop takes for forwarding",
    };
    let about = note("payment_relay").means(meaning);
    sheet.record(10, about, |sheet| {
        let delta = relay.cltv_expiry_delta;
        let meaning = "how much sooner the forwarded HTLC expires";
        sheet.take(&delta, said("cltv_expiry_delta", blocks(delta), meaning))?;
        let fee = relay.fee_proportional_millionths;
        let meaning = "its fee in proportion to the amount";
        sheet.take(&fee, said("fee_proportional_millionths", ppm(fee), meaning))?;
        let fee = u64::from(relay.fee_base_msat);
        if fee > 0 {
            let about = said("fee_base_msat", msat(fee), "its fee whatever the amount");
            sheet.take(&Tu(fee), about)?;
        }
        Ok(())
    })
}

fn payment_constraints(sheet: &mut Sheet, value: &[u8]) -> Result<(), Mismatch> {
    let constraints: PaymentConstraints = typed(sheet, value)?;
    let about = note("payment_constraints").means("which HTLCs the hop lets through");
    sheet.record(12, about, |sheet| {
        let latest = constraints.max_cltv_expiry;
        let about =
            said("max_cltv_expiry", height(latest), "the latest expiry of one that arrives");
        sheet.take(&latest, about.varies())?;
        let least = constraints.htlc_minimum_msat;
        if least > 0 {
            let about = said("htlc_minimum_msat", msat(least), "the least that may arrive");
            sheet.take(&Tu(least), about)?;
        }
        Ok(())
    })
}

fn payment_context(sheet: &mut Sheet, value: &[u8], seen: &mut Seen) -> Result<(), Mismatch> {
    let context: PaymentContext = typed(sheet, value)?;
    let (kind, name) = match &context {
        PaymentContext::Bolt12Offer(_) => (1u8, "a BOLT 12 invoice"),
        PaymentContext::Bolt12Refund(_) => (2, "a refund"),
        PaymentContext::AsyncBolt12Offer(_) => (3, "a static invoice"),
    };
    sheet.take(&kind, said("kind", format!("{kind}, {name}"), "what is being paid"))?;
    let len = length(sheet, "of the records that follow")?;
    sheet.exactly(len, |sheet| {
        while let Some((kind, _)) = sheet.peek()? {
            context_record(sheet, kind, &context, seen)?;
        }
        Ok(())
    })
}

fn context_record(
    sheet: &mut Sheet,
    kind: u64,
    context: &PaymentContext,
    seen: &mut Seen,
) -> Result<(), Mismatch> {
    let metadata = match (kind, context) {
        (0, PaymentContext::AsyncBolt12Offer(context)) => {
            let about = note("offer_nonce").means("by which the recipient knows its offer again");
            return sheet.tlv(0, &context.offer_nonce.encode(), about.varies());
        }
        (0, PaymentContext::Bolt12Offer(context)) => {
            let about = note("offer_id").means("the recipient's offer");
            return sheet.tlv(0, &context.offer_id.encode(), about.varies());
        }
        (2, PaymentContext::Bolt12Offer(context)) => {
            let about = note("invoice_request").means("what the recipient keeps of the request");
            return sheet.tlv(2, &context.invoice_request.encode(), about.varies());
        }
        (1, PaymentContext::AsyncBolt12Offer(context)) => &context.payment_metadata,
        (1, PaymentContext::Bolt12Offer(context)) => &context.payment_metadata,
        (1, PaymentContext::Bolt12Refund(context)) => &context.payment_metadata,
        _ => return Err(Mismatch::new(sheet.at(), format!("record {kind} is not explained"))),
    };
    let entries = metadata.clone().unwrap_or_default();
    seen.lease = entries.get(&PAYMENT_METADATA_KEY).cloned();
    let meaning = "the application's entries, by their keys";
    sheet.record(1, note("payment_metadata").means(meaning), |sheet| {
        let count = BigSize(entries.len() as u64);
        sheet.take(&count, said("entries", entries.len(), "how many follow"))?;
        entries.iter().try_for_each(|(key, value)| metadata_entry(sheet, *key, value))
    })
}

fn metadata_entry(sheet: &mut Sheet, key: u64, value: &[u8]) -> Result<(), Mismatch> {
    let is_lease = key == PAYMENT_METADATA_KEY;
    let meaning = if is_lease { "the lease: this crate's key" } else { "another entry" };
    sheet.take(&BigSize(key), said("key", key, meaning))?;
    sheet.take(&(value.len() as u16), note("length").is(bytes(value.len())))?;
    let meaning = if is_lease { "the lease, explained below" } else { "" };
    sheet.take_bytes(value, said("value", bytes(value.len()), meaning).varies())
}
