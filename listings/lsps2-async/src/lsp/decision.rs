//! What to do with an intercepted HTLC, as a pure function of the table's record.
//!
//! LSPS2 is told only of payments that are complete and payable. It retires a lease for good on
//! one HTLC it dislikes (`lsps2/service.rs`, the `Err` arm of `htlc_intercepted`), and it keeps
//! HTLCs in its queue that somebody else has failed.

use core::time::Duration;
use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;

use crate::lsp::held::InterceptedHtlc;
use crate::lsp::jit_table::{JitRecord, JitState, OpenChannel, Opening, RetiredWhy};

/// How many HTLCs may wait at the desk for one SCID: as many as an LDK channel accepts
/// (`ChannelHandshakeConfig::our_max_accepted_htlcs`).
pub const MAX_HELD_PER_SCID: usize = 50;

/// The fewest blocks an HTLC may have left when it reaches an LDK client: it refuses one that expires
/// within `HTLC_FAIL_BACK_BUFFER + 1` blocks (`ln/onion_payment.rs`, `PaymentClaimBuffer`).
pub const CLIENT_NEEDS_BLOCKS: u32 = HTLC_FAIL_BACK_BUFFER + 2;

/// The fewest blocks an HTLC must have left for a channel to be opened for it: one may be mined
/// before the channel carries it.
pub const LEAST_BLOCKS_TO_OPEN: u32 = CLIENT_NEEDS_BLOCKS + 1;

/// Why an HTLC was failed back. The lease is as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No lease was sold under this SCID.
    #[error("no lease was sold under SCID {}x{}x{}", .0 >> 40, .0 >> 16 & 0xff_ffff, .0 & 0xffff)]
    UnknownScid(u64),
    /// The lease has ended.
    #[error("the lease has ended: {0:?}")]
    Retired(RetiredWhy),
    /// `valid_until` has passed and no channel was opened before.
    #[error("the lease ran out {0:?} after the Unix epoch")]
    Expired(Duration),
    /// The payer wants more forwarded than it sent.
    #[error("{wanted_msat} msat are to be forwarded and {delivered_msat} msat came")]
    WantsMoreThanItBrings {
        /// What should go out, in msat.
        wanted_msat: u64,
        /// What came in, in msat.
        delivered_msat: u64,
    },
    /// The payment is below the smallest that the terms accept and that survives the fee.
    #[error("{gross_msat} msat is less than the {smallest_msat} msat this lease needs")]
    TooSmall {
        /// The payment, in msat.
        gross_msat: u64,
        /// The least, in msat.
        smallest_msat: u64,
    },
    /// The payment is above `max_payment_size_msat`.
    #[error("{gross_msat} msat is more than the {largest_msat} msat this lease allows")]
    TooLarge {
        /// The payment, in msat.
        gross_msat: u64,
        /// The most, in msat.
        largest_msat: u64,
    },
    /// No amount can be paid under these terms.
    #[error("no payment can satisfy the terms of this lease")]
    Unpayable,
    /// The channel the payment needs is larger than the LSP opens.
    #[error("the channel for {0} msat would be too large")]
    ChannelTooLarge(u64),
    /// The client is not connected, so no channel can be opened.
    #[error("the client is not connected")]
    ClientOffline,
    /// The client would have to refuse it, and the channel be opened for nothing.
    #[error(
        "{blocks_left} blocks are left, and {LEAST_BLOCKS_TO_OPEN} are needed to open a channel"
    )]
    TooLate {
        /// The blocks until the HTLC expires at the client.
        blocks_left: u32,
    },
    /// Too many HTLCs wait for this SCID.
    #[error("{MAX_HELD_PER_SCID} HTLCs wait for this SCID already")]
    TooManyHeld,
    /// A part of the payment that carries the fee came back with a restart, while another part is
    /// on its way: they no longer add up.
    #[error("a restart tore the payment that carries the fee apart")]
    TornByRestart,
    /// LSPS2 did not take the payment.
    #[error("LSPS2 did not take it")]
    NotTaken,
    /// The channel cannot carry it.
    #[error("the JIT channel cannot carry it")]
    NotForwardable,
    /// It was held for too long.
    #[error("it was held for too long")]
    HeldTooLong,
    /// The channel it waited for was not opened, or is gone.
    #[error("the channel it waited for did not come, or is gone")]
    NoChannel,
}

/// What an HTLC waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// The other parts of its payment.
    MoreParts,
    /// The channel.
    Channel,
    /// The end of the payment that carries the fee.
    FeePayment,
}

/// How the payment that opens a channel is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quote {
    /// The fee, in msat.
    pub opening_fee_msat: u64,
    /// What is left for the client, in msat.
    pub amt_to_forward_msat: u64,
}

/// What to do with an HTLC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Fail it back.
    Refuse(Refusal),
    /// Keep it at the desk.
    Hold(WaitsFor),
    /// Its payment is complete: have LSPS2 ask for a channel.
    OpenChannel(Quote),
    /// LSPS2 has it in its queue: hand it over again, in case a crash lost that.
    HandOverAgain,
    /// The channel is open and the fee owed: have LSPS2 forward this HTLC less the fee.
    PayFee(ChannelId),
    /// LSPS2 believes this HTLC is on its way, and it is not: start over with the fee.
    FeePaymentLost(ChannelId),
    /// Forward it in full over the open channel.
    ForwardInFull(ChannelId),
}

/// What is known when an HTLC is judged.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances {
    /// What the parts of its payment that wait here ask to have forwarded, this one included, msat.
    pub gross_msat: u64,
    /// Whether the client is connected.
    pub client_connected: bool,
    /// The blocks until the first of those parts expires at the client. `None` if LDK did not say,
    /// as in an event of an older version: then nothing is refused for it, since the payment may
    /// well have the time, and if not the client fails it.
    pub blocks_left: Option<u32>,
    /// The time, in seconds since the Unix epoch.
    pub now: Duration,
}

/// Judges one HTLC by the record of its SCID. Changes nothing.
pub fn judge(record: &JitRecord, htlc: &InterceptedHtlc, known: Circumstances) -> Verdict {
    if htlc.expected_outbound_amount_msat > htlc.inbound_amount_msat {
        return Verdict::Refuse(Refusal::WantsMoreThanItBrings {
            wanted_msat: htlc.expected_outbound_amount_msat,
            delivered_msat: htlc.inbound_amount_msat,
        });
    }
    match &record.state {
        JitState::Sold => first_payment(record, known).unwrap_or_else(Verdict::Refuse),
        JitState::Opening(opening) => while_opening(opening, htlc.intercept_id),
        JitState::Open(open) => over_channel(open, htlc),
        JitState::Retired(retired) => Verdict::Refuse(Refusal::Retired(retired.why)),
    }
}

/// bLIP-52, "Payment": the LSP checks the time, the client's connection and the size. That
/// the payment has enough blocks left is not in the bLIP.
fn first_payment(record: &JitRecord, known: Circumstances) -> Result<Verdict, Refusal> {
    let terms = &record.opening_fee_params;
    if known.now >= terms.valid_until {
        return Err(Refusal::Expired(terms.valid_until));
    }
    if !known.client_connected {
        return Err(Refusal::ClientOffline);
    }
    if let Some(blocks_left) = known.blocks_left.filter(|left| *left < LEAST_BLOCKS_TO_OPEN) {
        return Err(Refusal::TooLate { blocks_left });
    }
    if record.payment_size_msat.is_some_and(|size| known.gross_msat < size) {
        return Ok(Verdict::Hold(WaitsFor::MoreParts));
    }
    check_size(record, record.payment_size_msat.unwrap_or(known.gross_msat))?;
    let quote = quote(record, known.gross_msat).ok_or(Refusal::Unpayable)?;
    Ok(Verdict::OpenChannel(quote))
}

/// `None` if nothing would be left for the client.
fn quote(record: &JitRecord, gross_msat: u64) -> Option<Quote> {
    let opening_fee_msat = record.opening_fee_msat(gross_msat)?;
    let amt_to_forward_msat = gross_msat.checked_sub(opening_fee_msat).filter(|left| *left > 0)?;
    Some(Quote { opening_fee_msat, amt_to_forward_msat })
}

fn check_size(record: &JitRecord, size_msat: u64) -> Result<(), Refusal> {
    let terms = &record.opening_fee_params;
    let largest_msat = terms.max_payment_size_msat;
    if size_msat > largest_msat {
        return Err(Refusal::TooLarge { gross_msat: size_msat, largest_msat });
    }
    let smallest_msat = terms.smallest_payment_msat().ok_or(Refusal::Unpayable)?;
    if size_msat < smallest_msat {
        return Err(Refusal::TooSmall { gross_msat: size_msat, smallest_msat });
    }
    Ok(())
}

fn while_opening(opening: &Opening, intercept_id: InterceptId) -> Verdict {
    match opening.intercept_ids.contains(&intercept_id) {
        true => Verdict::HandOverAgain,
        false => Verdict::Hold(WaitsFor::Channel),
    }
}

/// While the payment that carries the fee is on its way, its later parts pass in full: LSPS2 would
/// queue them until that payment ends, which it cannot do without them.
fn over_channel(open: &OpenChannel, htlc: &InterceptedHtlc) -> Verdict {
    if open.fee_paid {
        return Verdict::ForwardInFull(open.channel_id);
    }
    match &open.fee_payment {
        Some(fee) if fee.intercept_ids.contains(&htlc.intercept_id) => {
            Verdict::FeePaymentLost(open.channel_id)
        }
        // Shared by several parts, the fee is whole only if the client claims all of these: one more
        // in full could stand in for one that the client refuses, with a share of the fee.
        Some(fee) if fee.payment_hash == htlc.payment_hash && fee.intercept_ids.len() == 1 => {
            Verdict::ForwardInFull(open.channel_id)
        }
        Some(_) => Verdict::Hold(WaitsFor::FeePayment),
        // One part pays it all, the others pass in full. Equal is not enough: LDK would forward
        // 0 msat.
        None if htlc.expected_outbound_amount_msat > open.opening_fee_msat => {
            Verdict::PayFee(open.channel_id)
        }
        None => Verdict::Hold(WaitsFor::MoreParts),
    }
}
