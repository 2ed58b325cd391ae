//! The messages of BOLT 2 that the book explains.

use lightning::ln::msgs::{AcceptChannel, OpenChannel, RevokeAndACK, UpdateFulfillHTLC};
use lightning::types::features::ChannelTypeFeatures;
use lightning::util::ser::Writeable;
use recording::Explained;

use super::paths::message_path;
use super::sheet::{Mismatch, Note, Sheet, decoded, note};
use super::values::{blocks, bytes, chain, feature_bits, msat, sat};
use crate::transcript::Transcript;

fn said(name: &str, value: impl ToString, meaning: &str) -> Note {
    note(name).is(value).means(meaning)
}

/// A key, an id or a secret: another one in every run.
fn opaque(name: &str, meaning: &str) -> Note {
    note(name).means(meaning).varies()
}

pub(super) fn open_channel(content: &[u8]) -> Result<Explained, Mismatch> {
    let msg: OpenChannel = decoded(content, "open_channel")?;
    let common = &msg.common_fields;
    let mut sheet = Sheet::new(content);
    sheet.take(
        &common.chain_hash,
        said("chain_hash", chain(common.chain_hash), "the chain, by its genesis block"),
    )?;
    sheet.take(
        &common.temporary_channel_id,
        opaque("temporary_channel_id", "names the channel until its funding is known"),
    )?;
    sheet.take(
        &common.funding_satoshis,
        said("funding_satoshis", sat(common.funding_satoshis), "the channel's capacity"),
    )?;
    sheet.take(
        &msg.push_msat,
        said("push_msat", msat(msg.push_msat), "what the opener gives away at once"),
    )?;
    limits(
        &mut sheet,
        common.dust_limit_satoshis,
        common.max_htlc_value_in_flight_msat,
        msg.channel_reserve_satoshis,
        common.htlc_minimum_msat,
    )?;
    let rate = common.commitment_feerate_sat_per_1000_weight;
    let value = format!("{rate} sat");
    sheet.take(
        &rate,
        said("feerate_per_kw", value, "fee rate of the commitment, per 1 000 weight units"),
    )?;
    delay_and_count(&mut sheet, common.to_self_delay, common.max_accepted_htlcs)?;
    for (key, about) in [
        (&common.funding_pubkey, FUNDING),
        (&common.revocation_basepoint, REVOCATION),
        (&common.payment_basepoint, PAYMENT),
        (&common.delayed_payment_basepoint, DELAYED),
        (&common.htlc_basepoint, HTLC),
        (&common.first_per_commitment_point, FIRST_POINT),
    ] {
        sheet.take(key, opaque(about.0, about.1))?;
    }
    let announce = if common.channel_flags & 1 == 1 { "to be announced" } else { "unannounced" };
    sheet.take(
        &common.channel_flags,
        said("channel_flags", announce, "bit 0: whether the channel is to be announced"),
    )?;
    tlvs(&mut sheet, common.shutdown_scriptpubkey.as_ref(), common.channel_type.as_ref())?;
    sheet.end("open_channel")
}

pub(super) fn accept_channel(content: &[u8]) -> Result<Explained, Mismatch> {
    let msg: AcceptChannel = decoded(content, "accept_channel")?;
    let common = &msg.common_fields;
    let mut sheet = Sheet::new(content);
    sheet.take(
        &common.temporary_channel_id,
        opaque("temporary_channel_id", "that of the open_channel it answers"),
    )?;
    limits(
        &mut sheet,
        common.dust_limit_satoshis,
        common.max_htlc_value_in_flight_msat,
        msg.channel_reserve_satoshis,
        common.htlc_minimum_msat,
    )?;
    let depth = common.minimum_depth;
    let meaning = "confirmations the accepter waits for; 0 lets the channel be used at once";
    sheet.take(&depth, said("minimum_depth", blocks(depth), meaning))?;
    delay_and_count(&mut sheet, common.to_self_delay, common.max_accepted_htlcs)?;
    for (key, about) in [
        (&common.funding_pubkey, FUNDING),
        (&common.revocation_basepoint, REVOCATION),
        (&common.payment_basepoint, PAYMENT),
        (&common.delayed_payment_basepoint, DELAYED),
        (&common.htlc_basepoint, HTLC),
        (&common.first_per_commitment_point, FIRST_POINT),
    ] {
        sheet.take(key, opaque(about.0, about.1))?;
    }
    tlvs(&mut sheet, common.shutdown_scriptpubkey.as_ref(), common.channel_type.as_ref())?;
    sheet.end("accept_channel")
}

type Key = (&'static str, &'static str);
const FUNDING: Key = ("funding_pubkey", "the sender's key in the 2-of-2 of the funding output");
const REVOCATION: Key = ("revocation_basepoint", "from it come the keys that punish an old state");
const PAYMENT: Key = ("payment_basepoint", "the key of the sender's output if the peer closes");
const DELAYED: Key =
    ("delayed_payment_basepoint", "from it come the keys of the sender's own delayed output");
const HTLC: Key = ("htlc_basepoint", "from it come the sender's keys in HTLC outputs");
const FIRST_POINT: Key =
    ("first_per_commitment_point", "makes this commitment's keys from the basepoints");

const TYPES: [(usize, &str); 5] = [
    (12, "option_static_remotekey"),
    (22, "option_anchors"),
    (40, "zero_fee_commitments"),
    (46, "option_scid_alias"),
    (50, "option_zeroconf"),
];

/// What the sender asks of the peer's side of the channel.
fn limits(
    sheet: &mut Sheet,
    dust_sat: u64,
    in_flight_msat: u64,
    reserve_sat: u64,
    least_msat: u64,
) -> Result<(), Mismatch> {
    sheet.take(
        &dust_sat,
        said("dust_limit_satoshis", sat(dust_sat), "below this, its own commitment has no output"),
    )?;
    sheet.take(
        &in_flight_msat,
        said(
            "max_htlc_value_in_flight_msat",
            msat(in_flight_msat),
            "the most that HTLCs towards the sender may hold",
        ),
    )?;
    sheet.take(
        &reserve_sat,
        said("channel_reserve_satoshis", sat(reserve_sat), "what the peer must keep as its own"),
    )?;
    sheet.take(
        &least_msat,
        said("htlc_minimum_msat", msat(least_msat), "the smallest HTLC the sender takes"),
    )
}

fn delay_and_count(sheet: &mut Sheet, delay: u16, count: u16) -> Result<(), Mismatch> {
    let meaning = "how long the peer waits for its own money if it closes alone";
    sheet.take(&delay, said("to_self_delay", blocks(delay), meaning))?;
    let meaning = "the most HTLCs towards the sender at a time";
    sheet.take(&count, said("max_accepted_htlcs", count, meaning))
}

fn tlvs(
    sheet: &mut Sheet,
    shutdown_script: Option<&bitcoin::ScriptBuf>,
    channel_type: Option<&ChannelTypeFeatures>,
) -> Result<(), Mismatch> {
    if let Some(script) = shutdown_script {
        let (value, meaning) = match script.is_empty() {
            true => {
                ("none".to_owned(), "where the sender's money goes is for a mutual close to say")
            }
            false => (
                bytes(script.len()),
                "where the sender's money goes in a mutual close, and nowhere else",
            ),
        };
        let about = said("upfront_shutdown_script", value, meaning);
        sheet.tlv(0, script.as_bytes(), about.varies())?;
    }
    if let Some(features) = channel_type {
        let flags = features.le_flags();
        let big_endian: Vec<u8> = flags.iter().rev().copied().collect();
        let meaning = "the features that this channel is to have";
        sheet.tlv(1, &big_endian, said("channel_type", feature_bits(flags, &TYPES), meaning))?;
    }
    Ok(())
}

pub(super) fn update_fulfill_htlc(content: &[u8]) -> Result<Explained, Mismatch> {
    let msg: UpdateFulfillHTLC = decoded(content, "update_fulfill_htlc")?;
    let mut sheet = Sheet::new(content);
    sheet.take(&msg.channel_id, opaque("channel_id", "the channel that the HTLC is in"))?;
    sheet.take(&msg.htlc_id, said("id", msg.htlc_id, "the HTLC, counted by who offered it"))?;
    sheet.take(
        &msg.payment_preimage,
        opaque("payment_preimage", "the secret that the HTLC pays for"),
    )?;
    if let Some(attribution) = &msg.attribution_data {
        let content = attribution.encode();
        let (times, hmacs) = content.split_at(HOLD_TIMES.min(content.len()));
        let meaning = "how long each hop held the HTLC, for the payer";
        sheet.record(1, note("attribution_data").means(meaning), |sheet| {
            let meaning = "20 numbers of 4 bytes, encrypted to the payer";
            sheet.take_bytes(times, opaque("htlc_hold_times", meaning))?;
            let meaning = "210 codes of 4 bytes by which the payer checks them";
            sheet.take_bytes(hmacs, opaque("truncated_hmacs", meaning))
        })?;
    }
    sheet.end("update_fulfill_htlc")
}

/// Twenty hold times of four bytes each (BOLT 2).
const HOLD_TIMES: usize = 20 * 4;
/// LDK's number; the draft of async payments has 0.
const RELEASE_PATHS: u64 = 75_537;

pub(super) fn revoke_and_ack(
    content: &[u8],
    transcript: &Transcript,
) -> Result<Explained, Mismatch> {
    let msg: RevokeAndACK = decoded(content, "revoke_and_ack")?;
    let mut sheet = Sheet::new(content);
    sheet.take(&msg.channel_id, opaque("channel_id", "the channel"))?;
    sheet.take(
        &msg.per_commitment_secret,
        opaque(
            "per_commitment_secret",
            "revokes the sender's last state: with it the peer may punish",
        ),
    )?;
    sheet.take(
        &msg.next_per_commitment_point,
        opaque("next_per_commitment_point", "for the keys of the sender's next commitment"),
    )?;
    if !msg.release_htlc_message_paths.is_empty() {
        let meaning = "for each held HTLC, a path back to the node that holds it; LDK's number, \
                       the draft's is 0";
        let about = note("release_htlc_message_paths").means(meaning);
        sheet.record(RELEASE_PATHS, about, |sheet| {
            for (id, path) in &msg.release_htlc_message_paths {
                sheet.take(id, said("htlc_id", id, "the held HTLC"))?;
                let meaning = "what the payer puts into held_htlc_available as the reply path";
                let about = note("blinded_path").means(meaning);
                message_path(sheet, path, about, transcript)?;
            }
            Ok(())
        })?;
    }
    sheet.end("revoke_and_ack")
}
