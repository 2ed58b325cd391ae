//! What the recipient bought: a lease on an intercept SCID, and the store that keeps it.

mod codec;
#[cfg(test)]
pub(crate) mod fixtures;
mod store;
#[cfg(test)]
mod tests;

pub use codec::RecordError;
pub use store::{ActiveLeases, LeaseStore, LeaseStoreError, UnreadableLease};

use bitcoin::secp256k1::PublicKey;
use core::fmt;
use core::time::Duration;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning_liquidity::lsps2::utils::compute_opening_fee;

/// The terms of one entry of an LSP's menu (bLIP-52 `opening_fee_params`, without its promise).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpeningFeeParams {
    /// The least the LSP takes for opening the channel, in msat.
    pub min_fee_msat: u64,
    /// The share of the payment it takes, in parts per million of the *gross* payment size.
    pub proportional: u32,
    /// Until when the terms hold, in seconds since the Unix epoch.
    pub valid_until: Duration,
    /// For how many blocks after confirmation the LSP promises to keep the channel.
    pub min_lifetime: u32,
    /// The largest `to_self_delay` the client may set, in blocks.
    pub max_client_to_self_delay: u32,
    /// The smallest payment that opens the channel, in msat.
    pub min_payment_size_msat: u64,
    /// The largest payment that opens the channel, in msat.
    pub max_payment_size_msat: u64,
}

impl OpeningFeeParams {
    /// The opening fee for a payment of `payment_size_msat` (gross), in msat; `None` on overflow.
    ///
    /// bLIP-52, "Computing the `opening_fee`": `max(min_fee, ceil(size * proportional / 1e6))`.
    pub fn opening_fee_msat(&self, payment_size_msat: u64) -> Option<u64> {
        compute_opening_fee(payment_size_msat, self.min_fee_msat, self.proportional.into())
    }

    /// The smallest gross payment, in msat, that these terms accept and that leaves at least
    /// 1 msat after the fee. `None` if there is no such payment, or its fee cannot be computed.
    pub fn smallest_payment_msat(&self) -> Option<u64> {
        const MILLION: u64 = 1_000_000;
        // ceil(x * p / 1e6) < x  <=>  x * (1e6 - p) >= 1e6
        let kept_per_million = MILLION.checked_sub(self.proportional.into()).filter(|k| *k > 0)?;
        let smallest = self
            .min_payment_size_msat
            .max(self.min_fee_msat.checked_add(1)?)
            .max(MILLION.div_ceil(kept_per_million));
        // What overflows here overflows for every larger payment.
        self.opening_fee_msat(smallest)?;
        (smallest <= self.max_payment_size_msat).then_some(smallest)
    }
}

/// Who carries the risk between the opening of the channel and the confirmation of its funding
/// (bLIP-52, "Trust Models").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustModel {
    /// The LSP broadcasts the funding transaction at once and may be left unpaid (the default).
    LspTrustsClient,
    /// The LSP broadcasts only after the client has revealed the preimage.
    ClientTrustsLsp,
}

/// What names a lease: the LSP that sold it and the intercept SCID it gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseId {
    /// The LSP's node id.
    pub lsp_node_id: PublicKey,
    /// The SCID, in the LSP's intercept namespace, that stands for the channel to be opened.
    pub intercept_scid: u64,
}

/// `<node id>_<scid>`: also the key under which a [`LeaseStore`] keeps the lease.
impl fmt::Display for LeaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.lsp_node_id, self.intercept_scid)
    }
}

/// Parameters bought with `lsps2.buy`: everything the recipient must know to be paid over a channel
/// that does not exist yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The LSP and its intercept SCID.
    pub id: LeaseId,
    /// The CLTV delta, in blocks, the LSP wants on its hop.
    pub cltv_expiry_delta: u16,
    /// The terms that were bought.
    pub opening_fee_params: OpeningFeeParams,
    /// The payment size named in `lsps2.buy`, in msat; `None` for a variable-size lease.
    pub payment_size_msat: Option<u64>,
    /// Which side trusts.
    pub trust_model: TrustModel,
}

impl Lease {
    /// The most the LSP may skim, in msat, once, from a payment of `gross_msat`; `None` on overflow.
    ///
    /// A fixed-size lease is priced by its agreed size, a variable one by the payment.
    pub fn opening_fee_msat(&self, gross_msat: u64) -> Option<u64> {
        self.opening_fee_params.opening_fee_msat(self.payment_size_msat.unwrap_or(gross_msat))
    }

    /// The smallest HTLC, in msat, the path of this lease may let through; `None` if the lease
    /// cannot be paid at all.
    ///
    /// A fixed-size lease takes its agreed size and no less: the LSP holds a smaller HTLC until
    /// the rest arrives, and a payer who chose the amount has no rest to send.
    pub fn smallest_htlc_msat(&self) -> Option<u64> {
        let Some(size) = self.payment_size_msat else {
            return self.opening_fee_params.smallest_payment_msat();
        };
        let terms = &self.opening_fee_params;
        let allowed = terms.min_payment_size_msat..=terms.max_payment_size_msat;
        (allowed.contains(&size) && terms.opening_fee_msat(size)? < size).then_some(size)
    }
}

/// How a lease was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumption {
    /// The payment whose claim paid the opening fee.
    pub payment_hash: PaymentHash,
    /// The channel that was opened for it.
    pub channel_id: ChannelId,
    /// The fee that was skimmed, in msat.
    pub skimmed_fee_msat: u64,
    /// Whether the claim has completed. Until then a replay of the same payment may be claimed.
    pub settled: bool,
}

impl Consumption {
    /// Whether a payment is this one once more, after a crash between the consumption and the
    /// claim, and not a second payment or a larger fee.
    pub fn allows_replay(&self, payment_hash: &PaymentHash, skimmed_fee_msat: u64) -> bool {
        !self.settled
            && self.payment_hash == *payment_hash
            && skimmed_fee_msat <= self.skimmed_fee_msat
    }
}

/// The life of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// Bought, and not used yet.
    Active,
    /// Its opening fee has been paid: nothing more may be skimmed under it.
    Consumed(Consumption),
    /// `valid_until` passed before it was used.
    Expired,
}

/// A lease and how far its life has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// What was bought.
    pub lease: Lease,
    /// Whether it may still be used.
    pub state: LeaseState,
}
