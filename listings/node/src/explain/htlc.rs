//! `update_add_htlc`, and what the node that receives it can open of it.

use lightning::ln::msgs::UpdateAddHTLC;
use lightning::sign::KeysManager;
use lightning::util::ser::Writeable;
use recording::Explained;

use super::hop::Seen;
use super::sheet::{Mismatch, Sheet, decoded, note};
use super::values::{bytes, height, msat};
use super::{bolt11, hop, metadata, onion};
use crate::transcript::Transcript;

/// bLIP-25.
const SKIMMED_FEE: u64 = 65_537;
/// LDK's number; the draft of async payments has 2.
const HOLD_HTLC: u64 = 75_537;
/// bLIP-4.
const ACCOUNTABLE: u64 = 106_823;

/// The message, and below it each layer of its onion that the holder of `keys` can open: all that
/// come before what does not fit.
pub(super) fn explain(
    content: &[u8],
    keys: Option<&KeysManager>,
    transcript: &Transcript,
    layers: &mut Vec<Explained>,
) -> Result<(), Mismatch> {
    let msg: UpdateAddHTLC = decoded(content, "update_add_htlc")?;
    layers.push(message(content, &msg)?);
    let Some(keys) = keys else { return Ok(()) };
    let (mut inner, mut seen) = (Vec::new(), Seen::default());
    let opened = open(&msg, keys, &mut seen, &mut inner);
    // An onion that LDK does not open, or opens otherwise, is not told of.
    onion::agrees_with_ldk(&msg, keys, &seen, opened.is_ok())?;
    layers.append(&mut inner);
    opened?;
    if let Some(lease) = &seen.lease {
        layers.push(metadata::explain(lease, metadata::Place::Path, transcript)?);
    }
    if let (Some(encrypted), Some(secret)) = (&seen.metadata, &seen.secret) {
        let lease = bolt11::decrypted(&msg, secret, encrypted, keys)?;
        layers.push(metadata::explain(&lease, metadata::Place::Invoice, transcript)?);
    }
    Ok(())
}

fn open(
    msg: &UpdateAddHTLC,
    keys: &KeysManager,
    seen: &mut Seen,
    layers: &mut Vec<Explained>,
) -> Result<(), Mismatch> {
    let mut next = Some(onion::Onion::of(msg)?);
    // A recipient may have put hops to itself before its own.
    while let Some(packet) = next {
        let opened = packet.open(keys)?;
        layers.push(hop::payload(&opened, seen)?);
        next = None;
        if let Some(data) = opened.recipient_data(keys, seen)? {
            layers.push(hop::recipient_data(&data, seen)?);
            if std::mem::take(&mut seen.is_dummy) {
                next = Some(opened.next(keys, seen)?);
            }
        }
    }
    Ok(())
}

fn message(content: &[u8], msg: &UpdateAddHTLC) -> Result<Explained, Mismatch> {
    let mut sheet = Sheet::new(content);
    sheet.take(&msg.channel_id, note("channel_id").means("the channel").varies())?;
    let about = note("id").is(msg.htlc_id).means("counts the HTLCs that the sender offers in it");
    sheet.take(&msg.htlc_id, about)?;
    let about = note("amount_msat").is(msat(msg.amount_msat));
    sheet.take(&msg.amount_msat, about.means("what the HTLC holds"))?;
    let about = note("payment_hash").means("whoever knows its preimage gets the HTLC");
    sheet.take(&msg.payment_hash, about.varies())?;
    let about = note("cltv_expiry").is(height(msg.cltv_expiry));
    sheet.take(&msg.cltv_expiry, about.means("after it, the sender may take it back").varies())?;
    packet(&mut sheet, msg)?;
    if let Some(path_key) = &msg.blinding_point {
        let meaning = "path_key: lets a hop within a blinded path open its part";
        sheet.tlv(0, &path_key.encode(), note("blinded_path").means(meaning).varies())?;
    }
    if let Some(fee) = msg.skimmed_fee_msat {
        let meaning = "bLIP-25's extra_fee, which LDK calls skimmed_fee_msat: what the LSP took from \
                       the final value";
        let about = note("skimmed_fee_msat").is(msat(fee)).means(meaning);
        sheet.tlv(SKIMMED_FEE, &fee.encode(), about)?;
    }
    if msg.hold_htlc.is_some() {
        let meaning = "hold this HTLC until release_held_htlc comes; empty; LDK's number, the \
                       draft's is 2";
        sheet.tlv(HOLD_HTLC, &[], note("hold_htlc").means(meaning))?;
    }
    if sheet.next_type() == Some(ACCOUNTABLE) {
        let accountable = msg.accountable.unwrap_or_default();
        // As LDK writes it: 7 for yes.
        let value = if accountable { 7 } else { 0 };
        let meaning = "whether the receiver answers for delays; experimental";
        let about = note("accountable").is(accountable).means(meaning);
        sheet.tlv(ACCOUNTABLE, &[value], about)?;
    }
    sheet.end("update_add_htlc")
}

fn packet(sheet: &mut Sheet, msg: &UpdateAddHTLC) -> Result<(), Mismatch> {
    let packet = &msg.onion_routing_packet;
    let len = packet.serialized_length();
    let about = note("onion_routing_packet").is(bytes(len));
    sheet.group(about.means("what each hop is to do, one layer for each"), |sheet| {
        let about = note("version").is(packet.version);
        sheet.take(&packet.version, about)?;
        let key = packet.public_key.map(|key| key.serialize()).unwrap_or([0; 33]);
        let about = note("public_key").means("the payer's key for this hop");
        sheet.take_bytes(&key, about.varies())?;
        let about = note("hop_payloads").is(bytes(packet.hop_data.len()));
        sheet.take_bytes(&packet.hop_data, about.means("encrypted").varies())?;
        let about = note("hmac").means("that nobody has changed the onion or its payment_hash");
        sheet.take_bytes(&packet.hmac, about.varies())
    })
}
