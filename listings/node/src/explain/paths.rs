//! Blinded paths, for messages and for payments (BOLT 4).

use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::blinded_path::payment::{BlindedPayInfo, BlindedPaymentPath};
use lightning::blinded_path::{BlindedHop, Direction, IntroductionNode};

use super::sheet::{Mismatch, Note, Sheet, note};
use super::values::{blocks, bytes, feature_bits, msat, party, ppm, scid};
use crate::transcript::Transcript;

pub(super) fn message_path(
    sheet: &mut Sheet,
    path: &BlindedMessagePath,
    about: Note,
    transcript: &Transcript,
) -> Result<(), Mismatch> {
    let (start, key) = (path.introduction_node(), path.blinding_point());
    blinded_path(sheet, start, key, path.blinded_hops(), about, transcript)
}

pub(super) fn payment_path(
    sheet: &mut Sheet,
    path: &BlindedPaymentPath,
    about: Note,
    transcript: &Transcript,
) -> Result<(), Mismatch> {
    let (start, key) = (path.introduction_node(), path.blinding_point());
    blinded_path(sheet, start, key, path.blinded_hops(), about, transcript)
}

fn blinded_path(
    sheet: &mut Sheet,
    introduction: &IntroductionNode,
    path_key: PublicKey,
    hops: &[BlindedHop],
    about: Note,
    transcript: &Transcript,
) -> Result<(), Mismatch> {
    sheet.group(about, |sheet| {
        introduction_node(sheet, introduction, transcript)?;
        let about = note("first_path_key").means("lets the introduction node open its part");
        sheet.take(&path_key, about.varies())?;
        let about = note("num_hops").is(hops.len()).means("how many hops follow, dummies included");
        sheet.take_bytes(&[hops.len() as u8], about)?;
        for (i, hop) in hops.iter().enumerate() {
            blinded_hop(sheet, hop, i + 1)?;
        }
        Ok(())
    })
}

fn introduction_node(
    sheet: &mut Sheet,
    node: &IntroductionNode,
    transcript: &Transcript,
) -> Result<(), Mismatch> {
    let about = note("first_node_id").means("the introduction node: whom a sender finds by itself");
    match node {
        IntroductionNode::NodeId(id) => sheet.take(id, about.is(party(transcript, id)).varies()),
        IntroductionNode::DirectedShortChannelId(direction, channel) => {
            let end = match direction {
                Direction::NodeOne => 0u8,
                Direction::NodeTwo => 1,
            };
            let expected = [&[end][..], &channel.to_be_bytes()].concat();
            let value = format!("node {} of channel {} (byte {end})", end + 1, scid(*channel));
            sheet.take_bytes(&expected, about.is(value).varies())
        }
    }
}

fn blinded_hop(sheet: &mut Sheet, hop: &BlindedHop, number: usize) -> Result<(), Mismatch> {
    sheet.group(note(&format!("hop {number}")), |sheet| {
        let about = note("blinded_node_id").means("stands for the hop's node id");
        sheet.take(&hop.blinded_node_id, about.varies())?;
        let len = hop.encrypted_payload.len();
        sheet.take(&(len as u16), note("enclen").is(bytes(len)))?;
        let about = note("encrypted_recipient_data")
            .is(bytes(len))
            .means("what the path's maker tells this hop; only the hop can open it");
        sheet.take_bytes(&hop.encrypted_payload, about.varies())
    })
}

pub(super) fn payinfo(
    sheet: &mut Sheet,
    payinfo: &BlindedPayInfo,
    about: Note,
) -> Result<(), Mismatch> {
    let flags = payinfo.features.le_flags();
    sheet.group(about, |sheet| {
        let fee = payinfo.fee_base_msat;
        let about = note("fee_base_msat").is(msat(fee.into()));
        sheet.take(&fee, about.means("what the whole path charges, whatever the amount"))?;
        let fee = payinfo.fee_proportional_millionths;
        let about = note("fee_proportional_millionths").is(ppm(fee));
        sheet.take(&fee, about.means("what it charges in proportion to the amount"))?;
        let delta = payinfo.cltv_expiry_delta;
        let about = note("cltv_expiry_delta").is(blocks(delta));
        sheet
            .take(&delta, about.means("of the whole path, the recipient's final delta included"))?;
        let least = payinfo.htlc_minimum_msat;
        let about = note("htlc_minimum_msat").is(msat(least));
        sheet.take(&least, about.means("the smallest HTLC that every hop lets through"))?;
        let most = payinfo.htlc_maximum_msat;
        let about = note("htlc_maximum_msat").is(msat(most));
        sheet.take(&most, about.means("the largest HTLC that every hop lets through"))?;
        let about = note("flen").is(bytes(flags.len())).means("the length of the features");
        sheet.take(&(flags.len() as u16), about)?;
        if flags.is_empty() {
            return Ok(());
        }
        let big_endian: Vec<u8> = flags.iter().rev().copied().collect();
        sheet.take_bytes(&big_endian, note("features").is(feature_bits(flags, &[])))
    })
}
