//! The HTLCs that LDK holds for this desk, in order of arrival.
//!
//! Only memory: after a restart LDK raises `HTLCIntercepted` again for each HTLC it still holds
//! (`channelmanager.rs`, "pending intercept HTLC present but no corresponding event").

use std::collections::HashSet;

use core::time::Duration;
use lightning::events::Event;
use lightning::ln::channelmanager::InterceptId;
use lightning::types::payment::PaymentHash;

/// The fields of `Event::HTLCIntercepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterceptedHtlc {
    /// LDK's name for the HTLC.
    pub intercept_id: InterceptId,
    /// The SCID it asked for.
    pub requested_next_hop_scid: u64,
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// What it brought, in msat.
    pub inbound_amount_msat: u64,
    /// What the payer wants forwarded, in msat. It is the gross payment size of LSPS2.
    pub expected_outbound_amount_msat: u64,
    /// The height at which it expires at the client. `None` in an event that LDK before 0.3 wrote.
    pub client_expiry: Option<u32>,
}

impl InterceptedHtlc {
    /// Takes the fields from the event; `None` for any other event.
    pub fn from_event(event: &Event) -> Option<Self> {
        let Event::HTLCIntercepted {
            intercept_id,
            requested_next_hop_scid,
            payment_hash,
            inbound_amount_msat,
            expected_outbound_amount_msat,
            outgoing_htlc_expiry_block_height: client_expiry,
        } = event
        else {
            return None;
        };
        Some(Self {
            intercept_id: *intercept_id,
            requested_next_hop_scid: *requested_next_hop_scid,
            payment_hash: *payment_hash,
            inbound_amount_msat: *inbound_amount_msat,
            expected_outbound_amount_msat: *expected_outbound_amount_msat,
            client_expiry: *client_expiry,
        })
    }
}

/// One HTLC that LDK holds, or held until a moment ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldHtlc {
    /// The HTLC.
    pub htlc: InterceptedHtlc,
    /// When it was seen first, in seconds since the Unix epoch.
    pub since: Duration,
    /// Whether LSPS2 has it. It then forwards or fails it by itself, without telling anyone.
    pub handed_to_lsps2: bool,
}

/// The registry.
#[derive(Debug, Default)]
pub struct HeldHtlcs {
    by_arrival: Vec<HeldHtlc>,
    on_their_way: HashSet<InterceptId>,
}

impl HeldHtlcs {
    /// Notes an HTLC. A replayed event changes nothing.
    pub fn note(&mut self, htlc: InterceptedHtlc, now: Duration) {
        if self.get(htlc.intercept_id).is_none() {
            self.by_arrival.push(HeldHtlc { htlc, since: now, handed_to_lsps2: false });
        }
    }

    /// An HTLC by its id.
    pub fn get(&self, intercept_id: InterceptId) -> Option<&HeldHtlc> {
        self.by_arrival.iter().find(|held| held.htlc.intercept_id == intercept_id)
    }

    /// Marks an HTLC as handed to LSPS2.
    pub fn hand_over(&mut self, intercept_id: InterceptId) {
        let wanted = |held: &&mut HeldHtlc| held.htlc.intercept_id == intercept_id;
        if let Some(held) = self.by_arrival.iter_mut().find(wanted) {
            held.handed_to_lsps2 = true;
        }
    }

    /// Notes that LSPS2 has forwarded these, since this process started. An event for one of them
    /// is a replay.
    pub fn sent(&mut self, intercept_ids: &[InterceptId]) {
        self.on_their_way.extend(intercept_ids);
    }

    /// Whether LSPS2 has forwarded it since this process started.
    pub fn is_sent(&self, intercept_id: InterceptId) -> bool {
        self.on_their_way.contains(&intercept_id)
    }

    /// Forgets an HTLC that was forwarded or failed.
    pub fn forget(&mut self, intercept_id: InterceptId) {
        self.by_arrival.retain(|held| held.htlc.intercept_id != intercept_id);
    }

    /// Everything, in order of arrival.
    pub fn all(&self) -> Vec<HeldHtlc> {
        self.by_arrival.clone()
    }

    /// Everything for one SCID.
    pub fn of_scid(&self, scid: u64) -> Vec<HeldHtlc> {
        let of_scid = |held: &&HeldHtlc| held.htlc.requested_next_hop_scid == scid;
        self.by_arrival.iter().filter(of_scid).copied().collect()
    }

    /// The parts of one payment that wait at this desk.
    pub fn parts(&self, scid: u64, payment_hash: PaymentHash) -> Vec<InterceptedHtlc> {
        let mut parts = self.of_scid(scid);
        parts.retain(|held| !held.handed_to_lsps2 && held.htlc.payment_hash == payment_hash);
        parts.into_iter().map(|held| held.htlc).collect()
    }
}

/// The sum of what the parts ask to have forwarded, in msat; saturates, which no Bitcoin amount can
/// reach.
pub fn gross_msat(parts: &[InterceptedHtlc]) -> u64 {
    let amounts = parts.iter().map(|htlc| htlc.expected_outbound_amount_msat);
    amounts.fold(0, u64::saturating_add)
}

/// The parts that a fixed-size lease opens its channel for: none of them can be left out. Anybody who
/// knows the hash can add a part that the client will refuse, and with it a share of the fee.
pub fn needed(mut parts: Vec<InterceptedHtlc>, size_msat: u64) -> Vec<InterceptedHtlc> {
    let mut left_msat = gross_msat(&parts);
    parts.retain(|part| {
        let rest_msat = left_msat.saturating_sub(part.expected_outbound_amount_msat);
        let is_needed = rest_msat < size_msat;
        left_msat = if is_needed { left_msat } else { rest_msat };
        is_needed
    });
    parts
}

/// How many blocks the first of these HTLCs has left until it expires at the client. `None` if LDK
/// did not say of any.
pub fn blocks_left(htlcs: &[InterceptedHtlc], height: u32) -> Option<u32> {
    let first = htlcs.iter().filter_map(|htlc| htlc.client_expiry).min()?;
    Some(first.saturating_sub(height))
}
