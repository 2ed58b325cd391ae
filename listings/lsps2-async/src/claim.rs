//! The guard at `Event::PaymentClaimable`: release the preimage only for a fee that was agreed,
//! once.
//!
//! A channel on which `accept_underpaying_htlcs` is set has no ceiling for what the peer may skim;
//! LDK leaves that to the application. [`judge`] is that ceiling. It is a pure function: the caller
//! looks things up, obeys the [`Verdict`], and fails the payment back on a [`Refusal`].
//!
//! ```
//! # use core::time::Duration;
//! # use lightning::util::persist::KVStore;
//! use lsps2_async::claim::{Arrival, ClaimPolicy, Refusal, Verdict, judge};
//! use lsps2_async::lease::{LeaseStore, LeaseStoreError};
//!
//! /// Whether to call `claim_funds` (`Ok(true)`) or `fail_htlc_backwards` (`Ok(false)`). After a
//! /// storage error, let LDK replay the event.
//! async fn may_claim<K: KVStore>(
//!     arrival: &Arrival<'_>,
//!     leases: &LeaseStore<K>,
//!     now: Duration,
//! ) -> Result<bool, LeaseStoreError> {
//!     let verdict = judge(arrival, |id| leases.get(id), &ClaimPolicy::default(), now);
//!     match verdict {
//!         Ok(Verdict::Claim) => Ok(true),
//!         Ok(Verdict::ConsumeThenClaim { lease, consumption }) => {
//!             leases.consume(&lease, consumption).await.map(|()| true)
//!         }
//!         Err(refusal) => {
//!             eprintln!("failed back: {refusal}");
//!             Ok(false)
//!         }
//!     }
//! }
//! ```

use crate::lease::{Consumption, Lease, LeaseId, LeaseRecord, LeaseState, TrustModel};
use crate::metadata::{LeaseMetadata, MetadataError};
use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::events::PaymentPurpose;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use std::collections::BTreeMap;
use thiserror::Error;

/// What the wallet tolerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// For how long after `valid_until` a payment may still arrive, in seconds. The LSP must have
    /// intercepted it in time, but then opens a channel before it forwards.
    pub validity_grace: Duration,
}

/// Ten minutes of grace.
impl Default for ClaimPolicy {
    fn default() -> Self {
        Self { validity_grace: Duration::from_secs(600) }
    }
}

impl ClaimPolicy {
    /// The time to hand to [`LeaseStore::expire`](crate::lease::LeaseStore::expire): a lease with
    /// `valid_until` after it may still be claimed.
    pub fn expiry_cutoff(&self, now: Duration) -> Duration {
        now.saturating_sub(self.validity_grace).saturating_sub(Duration::from_secs(1))
    }
}

/// A payment that waits to be claimed.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The payment's hash.
    pub payment_hash: PaymentHash,
    /// What would be claimed, in msat: net of the skimmed fee, as the event has it.
    pub amount_msat: u64,
    /// What the channel's counterparty kept, in msat, summed over the parts.
    pub skimmed_fee_msat: u64,
    /// What the payer says it pays in all, in msat, before any fee
    /// (`RecipientOnionFields::total_mpp_amount_msat`). What LDK says was skimmed is not enough: it
    /// adds up what the peer wrote into each HTLC, and in a release build that sum can wrap around.
    pub total_msat: Option<u64>,
    /// The metadata that came with the payment: see [`Arrival::metadata_of`].
    pub metadata: Option<&'a BTreeMap<u64, Vec<u8>>>,
    /// The counterparty of each channel the payment came over.
    pub channel_peers: &'a [PublicKey],
    /// The channel that a fee pays for: mostly the one that the payment came over. LDK forwards over
    /// whichever channel will do. If the payment, or a part of it, came over one that is paid for, this is
    /// another of the same peer that was accepted for a lease, that nothing was paid for yet, and that
    /// has room for the payment.
    pub channel_id: ChannelId,
    /// What the wallet knows of that channel, or of all of them.
    pub channel_use: ChannelUse,
    /// Whether any of those channels, or the one that the fee pays for, was accepted for a lease, is not
    /// confirmed, and nothing with a fee was claimed over it yet
    /// ([`LeaseStore::settled_over`](crate::lease::LeaseStore::settled_over)).
    pub unfunded: bool,
}

/// What a wallet knows of the channel a payment came over. An opening fee pays for one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelUse {
    /// It was accepted for a lease ([`jit_user_channel_id`]), and no fee was taken for it yet.
    Jit,
    /// The fee of this lease was taken for it ([`LeaseStore::paid_over`]).
    ///
    /// [`LeaseStore::paid_over`]: crate::lease::LeaseStore::paid_over
    Paid(LeaseId),
    /// It is another channel, or the payment came over channels of different uses.
    Other,
}

/// Marks the channels a wallet accepts for a lease: the upper half of their `user_channel_id`.
const JIT_MARK: u64 = u64::from_be_bytes(*b"lsps2jit");

/// The `user_channel_id` for a channel that is accepted for a lease. LDK keeps it with the channel,
/// so that after a restart the wallet still knows over which channels a fee may be skimmed.
pub fn jit_user_channel_id(random: u64) -> u128 {
    u128::from(JIT_MARK) << 64 | u128::from(random)
}

/// Whether [`jit_user_channel_id`] made this id.
pub fn is_jit(user_channel_id: u128) -> bool {
    (user_channel_id >> 64) as u64 == JIT_MARK
}

impl Arrival<'_> {
    /// The payment metadata of the path a BOLT 12 payment came over.
    ///
    /// An async payment arrives with this purpose too: LDK turns its `AsyncBolt12OfferContext` into
    /// a `Bolt12OfferContext` and keeps the metadata. No other purpose comes over a leased path.
    pub fn metadata_of(purpose: &PaymentPurpose) -> Option<&BTreeMap<u64, Vec<u8>>> {
        match purpose {
            PaymentPurpose::Bolt12OfferPayment { payment_context, .. } => {
                payment_context.payment_metadata.as_ref()
            }
            PaymentPurpose::Bolt11InvoicePayment { .. }
            | PaymentPurpose::Bolt12RefundPayment { .. }
            | PaymentPurpose::SpontaneousPayment(_) => None,
        }
    }
}

/// What to do with a payment that may be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was skimmed, over a channel that is paid for or confirmed: call `claim_funds`.
    Claim,
    /// The agreed fee was skimmed: [`consume`](crate::lease::LeaseStore::consume) the lease, and
    /// call `claim_funds` only after that has returned `Ok`.
    ConsumeThenClaim {
        /// The lease that is spent.
        lease: LeaseId,
        /// How it is spent.
        consumption: Consumption,
    },
}

/// Why a payment must be failed back (`ChannelManager::fail_htlc_backwards`).
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The parts do not add up to the payment.
    #[error("{gross_msat} msat came, skimmed fee included, of a payment of {total_msat} msat")]
    Incomplete {
        /// What came and what was skimmed, in msat.
        gross_msat: u64,
        /// What the payer sent, in msat.
        total_msat: u64,
    },
    /// Too little was skimmed, over a channel for which a fee is owed. The LSP may be withholding the
    /// funding until the fee is paid: a preimage would be given away for a channel that never comes.
    #[error("no fee, or not all of it, was taken over a channel that is not confirmed")]
    FeeNotTaken,
    /// The fee was taken from a payment that cannot open a channel under the lease.
    #[error("a fee was skimmed from {gross_msat} msat: the lease is for {smallest_msat} or more")]
    TooSmall {
        /// The payment before the fee, in msat.
        gross_msat: u64,
        /// The smallest payment under the lease, in msat.
        smallest_msat: u64,
    },
    /// The channel was opened, and paid for, under another lease, and none has come for this one.
    #[error("{skimmed_fee_msat} msat were skimmed over a channel that lease {by} has paid for")]
    ChannelPaid {
        /// What was skimmed, in msat.
        skimmed_fee_msat: u64,
        /// The lease that paid for the channel.
        by: LeaseId,
    },
    /// The channel was not opened for a lease.
    #[error("{skimmed_fee_msat} msat were skimmed over a channel that was opened for no lease")]
    NotOpenedForLease {
        /// What was skimmed, in msat.
        skimmed_fee_msat: u64,
    },
    /// A fee was skimmed from a payment that came over no leased path.
    #[error("{skimmed_fee_msat} msat were skimmed, and the payment names no lease")]
    NoLease {
        /// What was skimmed, in msat.
        skimmed_fee_msat: u64,
    },
    /// The metadata is there and is not a lease.
    #[error("a fee was skimmed, and the lease cannot be read: {0}")]
    Unreadable(#[from] MetadataError),
    /// Which channel the payment came over is not known.
    #[error("a fee was skimmed over a channel that is not known: it may have been closed")]
    UnknownChannel,
    /// A peer other than the LSP of the lease forwarded the payment, or a part of it.
    #[error("a fee was skimmed, and peer {0} did not sell the lease the payment names")]
    ForeignPeer(PublicKey),
    /// The store has no such lease.
    #[error("a fee was skimmed under lease {0}, which is not known here")]
    UnknownLease(LeaseId),
    /// The path was built for other terms than those of the stored lease.
    #[error("a fee was skimmed under other terms than those of lease {0}")]
    OtherTerms(LeaseId),
    /// The fee of this lease was paid before.
    #[error("{skimmed_fee_msat} msat were skimmed, and {} msat were paid already, by payment {}", .by.skimmed_fee_msat, .by.payment_hash)]
    AlreadyConsumed {
        /// What was skimmed, in msat.
        skimmed_fee_msat: u64,
        /// The payment that paid.
        by: Consumption,
    },
    /// The payment came too late.
    #[error("a fee was skimmed at {} s under a lease valid until {} s", .now.as_secs(), .valid_until.as_secs())]
    Expired {
        /// Until when the lease could be used, without the grace.
        valid_until: Duration,
        /// When the payment was judged.
        now: Duration,
    },
    /// The sum, or the fee on it, is more than 2^64 − 1 msat.
    #[error("{amount_msat} + {skimmed_fee_msat} msat is beyond any fee that can be computed")]
    Overflow {
        /// What would be claimed, in msat.
        amount_msat: u64,
        /// What was skimmed, in msat.
        skimmed_fee_msat: u64,
    },
    /// The LSP took more than was agreed.
    #[error(
        "{skimmed_fee_msat} msat were skimmed from {gross_msat} msat: {agreed_msat} were agreed"
    )]
    TooMuch {
        /// What was skimmed, in msat.
        skimmed_fee_msat: u64,
        /// The payment before the fee, in msat.
        gross_msat: u64,
        /// The most that may be skimmed from it, in msat.
        agreed_msat: u64,
    },
}

/// Judges a payment: may its preimage be released?
///
/// `now` is in seconds since the Unix epoch. `lookup` asks the lease store.
///
/// bLIP-52, "Channel Opening And Forwarding": the client MUST check that the sum of all `extra_fee`s
/// is at most the `opening_fee`. That the fee is taken *once* the bLIP leaves implicit; a static
/// invoice is paid many times over one path, so here it is checked.
///
/// # Errors
/// A [`Refusal`]: fail the payment back.
pub fn judge(
    arrival: &Arrival<'_>,
    lookup: impl Fn(&LeaseId) -> Option<LeaseRecord>,
    policy: &ClaimPolicy,
    now: Duration,
) -> Result<Verdict, Refusal> {
    let gross_msat = gross_msat(arrival)?;
    if arrival.skimmed_fee_msat == 0 {
        return match arrival.unfunded && !is_free(arrival, gross_msat, lookup) {
            true => Err(Refusal::FeeNotTaken),
            false => Ok(Verdict::Claim),
        };
    }
    let agreed = agreement(arrival)?;
    check_peers(arrival.channel_peers, &agreed)?;
    let LeaseRecord { lease, state } = find_lease(&agreed, lookup)?;
    match state {
        // Judged in time and written down, then this node went away: it may come back late.
        LeaseState::Consumed(by) => check_replay(arrival, by)?,
        LeaseState::Active => check_time(&lease, policy.validity_grace, now)?,
        LeaseState::Expired => return Err(expired(&lease, now)),
    }
    check_channel(arrival, &lease)?;
    check_fee(arrival, gross_msat, &lease)?;
    check_is_whole(arrival, &lease)?;
    let consumption = consumption(arrival);
    Ok(Verdict::ConsumeThenClaim { lease: lease.id, consumption })
}

fn agreement(arrival: &Arrival<'_>) -> Result<LeaseMetadata, Refusal> {
    let skimmed_fee_msat = arrival.skimmed_fee_msat;
    LeaseMetadata::read_from(arrival.metadata)?.ok_or(Refusal::NoLease { skimmed_fee_msat })
}

/// Only the LSP that sold the lease may take its fee.
fn check_peers(peers: &[PublicKey], agreed: &LeaseMetadata) -> Result<(), Refusal> {
    if peers.is_empty() {
        return Err(Refusal::UnknownChannel);
    }
    match peers.iter().find(|peer| **peer != agreed.lsp_node_id) {
        None => Ok(()),
        Some(stranger) => Err(Refusal::ForeignPeer(*stranger)),
    }
}

/// With several leases from one LSP, the second could be skimmed over the channel that the first
/// has paid for, and no channel be opened for it.
fn check_channel(arrival: &Arrival<'_>, lease: &Lease) -> Result<(), Refusal> {
    let skimmed_fee_msat = arrival.skimmed_fee_msat;
    match arrival.channel_use {
        ChannelUse::Jit => Ok(()),
        ChannelUse::Paid(by) if by == lease.id => Ok(()),
        ChannelUse::Paid(by) => Err(Refusal::ChannelPaid { skimmed_fee_msat, by }),
        ChannelUse::Other => Err(Refusal::NotOpenedForLease { skimmed_fee_msat }),
    }
}

fn find_lease(
    agreed: &LeaseMetadata,
    lookup: impl Fn(&LeaseId) -> Option<LeaseRecord>,
) -> Result<LeaseRecord, Refusal> {
    let id = agreed.lease_id();
    let record = lookup(&id).ok_or(Refusal::UnknownLease(id))?;
    if LeaseMetadata::for_lease(&record.lease).as_ref() == Ok(agreed) {
        Ok(record)
    } else {
        Err(Refusal::OtherTerms(id))
    }
}

fn check_replay(arrival: &Arrival<'_>, by: Consumption) -> Result<(), Refusal> {
    let skimmed_fee_msat = arrival.skimmed_fee_msat;
    if by.allows_replay(&arrival.payment_hash, skimmed_fee_msat) {
        Ok(())
    } else {
        Err(Refusal::AlreadyConsumed { skimmed_fee_msat, by })
    }
}

fn check_time(lease: &Lease, grace: Duration, now: Duration) -> Result<(), Refusal> {
    let deadline = lease.opening_fee_params.valid_until.saturating_add(grace);
    if now <= deadline { Ok(()) } else { Err(expired(lease, now)) }
}

fn expired(lease: &Lease, now: Duration) -> Refusal {
    let valid_until = lease.opening_fee_params.valid_until;
    Refusal::Expired { valid_until, now }
}

/// What the payer sent: the fee is a share of that, not of what is left of it.
fn gross_msat(arrival: &Arrival<'_>) -> Result<u64, Refusal> {
    let Arrival { amount_msat, skimmed_fee_msat, .. } = *arrival;
    let gross_msat = amount_msat
        .checked_add(skimmed_fee_msat)
        .ok_or(Refusal::Overflow { amount_msat, skimmed_fee_msat })?;
    match arrival.total_msat.filter(|total_msat| gross_msat < *total_msat) {
        Some(total_msat) => Err(Refusal::Incomplete { gross_msat, total_msat }),
        None => Ok(gross_msat),
    }
}

/// Whether the payment came under a lease that costs nothing.
fn is_free(
    arrival: &Arrival<'_>,
    gross_msat: u64,
    lookup: impl Fn(&LeaseId) -> Option<LeaseRecord>,
) -> bool {
    let lease = agreement(arrival).and_then(|agreed| find_lease(&agreed, lookup));
    lease.is_ok_and(|record| record.lease.opening_fee_msat(gross_msat) == Some(0))
}

fn check_fee(arrival: &Arrival<'_>, gross_msat: u64, lease: &Lease) -> Result<(), Refusal> {
    let Arrival { amount_msat, skimmed_fee_msat, .. } = *arrival;
    let overflow = Refusal::Overflow { amount_msat, skimmed_fee_msat };
    let agreed_msat = lease.opening_fee_msat(gross_msat).ok_or(overflow)?;
    if skimmed_fee_msat > agreed_msat {
        return Err(Refusal::TooMuch { skimmed_fee_msat, gross_msat, agreed_msat });
    }
    // The least fee of a lease may be nearly all of a payment that is smaller than it allows.
    match lease.smallest_htlc_msat().filter(|smallest_msat| gross_msat < *smallest_msat) {
        Some(smallest_msat) => Err(Refusal::TooSmall { gross_msat, smallest_msat }),
        None => Ok(()),
    }
}

/// An LSP that is trusted funds the channel once the *whole* fee is paid. A wallet cannot know what
/// the LSP asks for under a lease of variable size, only the least.
fn check_is_whole(arrival: &Arrival<'_>, lease: &Lease) -> Result<(), Refusal> {
    let least_msat = lease.smallest_htlc_msat().and_then(|size| lease.opening_fee_msat(size));
    let is_trusted = lease.trust_model == TrustModel::ClientTrustsLsp;
    let is_short = least_msat.is_some_and(|least_msat| arrival.skimmed_fee_msat < least_msat);
    match is_trusted && arrival.unfunded && is_short {
        true => Err(Refusal::FeeNotTaken),
        false => Ok(()),
    }
}

fn consumption(arrival: &Arrival<'_>) -> Consumption {
    Consumption {
        payment_hash: arrival.payment_hash,
        channel_id: arrival.channel_id,
        skimmed_fee_msat: arrival.skimmed_fee_msat,
        settled: false,
    }
}

#[cfg(test)]
mod sequences;
#[cfg(test)]
mod tests;
