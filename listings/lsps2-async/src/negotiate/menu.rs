//! Reading the LSP's menu: what bLIP-52 asks of it, and which entry to take.

use super::{NegotiateError, NegotiationPolicy};
use crate::lease::OpeningFeeParams;
use core::cmp::Reverse;
use core::fmt;
use core::time::Duration;
use lightning_liquidity::lsps0::ser::LSPSDateTime;
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use thiserror::Error;

/// bLIP-52, "API Information": the client MUST abort if a promise exceeds this many bytes.
const MAX_PROMISE_LEN: usize = 512;

/// Keeps what the recipient needs later. The promise is of use to the LSP only.
impl From<&LSPS2OpeningFeeParams> for OpeningFeeParams {
    fn from(params: &LSPS2OpeningFeeParams) -> Self {
        Self {
            min_fee_msat: params.min_fee_msat,
            proportional: params.proportional,
            valid_until: since_epoch(&params.valid_until),
            min_lifetime: params.min_lifetime,
            max_client_to_self_delay: params.max_client_to_self_delay,
            min_payment_size_msat: params.min_payment_size_msat,
            max_payment_size_msat: params.max_payment_size_msat,
        }
    }
}

/// Whole seconds since the Unix epoch, rounded down; a date before it is the epoch itself.
fn since_epoch(date: &LSPSDateTime) -> Duration {
    let epoch = LSPSDateTime::new_from_duration_since_epoch(Duration::ZERO);
    Duration::from_secs(date.duration_since(&epoch).as_secs())
}

/// Why one entry of the menu does not suit the wallet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unsuitable {
    /// Its `valid_until` is past, or too near.
    #[error("valid for {left_secs} s, {wanted_secs} s are wanted")]
    ValidityTooShort {
        /// For how long it is still valid, in seconds.
        left_secs: u64,
        /// [`NegotiationPolicy::min_validity`], in seconds.
        wanted_secs: u64,
    },
    /// The wallet asks for a longer `to_self_delay` than the LSP allows.
    #[error("it allows a to_self_delay of {allowed} blocks, the wallet uses {ours}")]
    ToSelfDelay {
        /// The entry's `max_client_to_self_delay`, in blocks.
        allowed: u32,
        /// [`NegotiationPolicy::our_to_self_delay`], in blocks.
        ours: u16,
    },
    /// The payment is not within the limits of the entry.
    #[error("it takes payments of {min_msat} to {max_msat} msat")]
    PaymentSize {
        /// The entry's `min_payment_size_msat`.
        min_msat: u64,
        /// The entry's `max_payment_size_msat`.
        max_msat: u64,
    },
    /// The fee cannot be computed in 64 bits: bLIP-52 demands to abort.
    #[error("its fee overflows")]
    FeeOverflow,
    /// The fee is more than the wallet pays, or leaves nothing of the payment.
    #[error("its fee is {fee_msat} msat, at most {max_fee_msat} msat are accepted")]
    FeeTooHigh {
        /// The fee for [`NegotiationPolicy::payment_size_msat`], in msat.
        fee_msat: u64,
        /// The most that is accepted, in msat.
        max_fee_msat: u64,
    },
}

/// Why each entry of a menu was passed over, in the order of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedOver(pub Vec<Unsuitable>);

/// The first few reasons, so that a log line stays a line.
impl fmt::Display for PassedOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 4;
        for (index, reason) in self.0.iter().take(SHOWN).enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}entry {index}: {reason}")?;
        }
        match self.0.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

/// Checks a menu as a whole against bLIP-52, "API Information".
///
/// Unknown fields cannot be seen here: LDK has dropped them. See [`MenuWatch`](super::MenuWatch).
///
/// # Errors
/// [`NegotiateError::EmptyMenu`], `MenuExpired` (every entry is past `now`), `PromiseTooLong`,
/// `MenuNotOrdered`.
pub fn check_menu(menu: &[LSPS2OpeningFeeParams], now: Duration) -> Result<(), NegotiateError> {
    if menu.is_empty() {
        return Err(NegotiateError::EmptyMenu);
    }
    let promises = menu.iter().map(|params| params.promise.as_str());
    if let Some(entry) = promises.map(json_len).position(|len| len > MAX_PROMISE_LEN) {
        return Err(NegotiateError::PromiseTooLong { entry });
    }
    let mut pairs = menu.windows(2);
    if let Some(before) = pairs.position(|pair| !in_order(&pair[0], &pair[1])) {
        return Err(NegotiateError::MenuNotOrdered { entry: before + 1 });
    }
    let expired = |params: &LSPS2OpeningFeeParams| since_epoch(&params.valid_until) <= now;
    if menu.iter().all(expired) {
        return Err(NegotiateError::MenuExpired);
    }
    Ok(())
}

/// The length in bytes of a JSON string, without its quotes: escapes count in full.
fn json_len(text: &str) -> usize {
    serde_json::Value::from(text).to_string().len().saturating_sub(2)
}

/// Neither fee falls from one entry to the next, and one of them rises.
fn in_order(earlier: &LSPS2OpeningFeeParams, later: &LSPS2OpeningFeeParams) -> bool {
    let earlier = (earlier.min_fee_msat, earlier.proportional);
    let later = (later.min_fee_msat, later.proportional);
    earlier.0 <= later.0 && earlier.1 <= later.1 && earlier != later
}

/// Picks the entry with the lowest fee for the policy's payment, and of several the longest valid.
///
/// # Errors
/// [`NegotiateError::NothingSuitable`], with a reason for each entry.
pub fn choose<'a>(
    menu: &'a [LSPS2OpeningFeeParams],
    policy: &NegotiationPolicy,
    now: Duration,
) -> Result<&'a LSPS2OpeningFeeParams, NegotiateError> {
    let (mut suitable, mut passed_over) = (Vec::new(), Vec::new());
    for params in menu {
        match fee_if_suitable(&params.into(), policy, now) {
            Ok(fee_msat) => suitable.push((fee_msat, params)),
            Err(reason) => passed_over.push(reason),
        }
    }
    let best = suitable
        .into_iter()
        .min_by_key(|(fee_msat, params)| (*fee_msat, Reverse(since_epoch(&params.valid_until))));
    match best {
        Some((_, params)) => Ok(params),
        None => Err(NegotiateError::NothingSuitable(PassedOver(passed_over))),
    }
}

fn fee_if_suitable(
    terms: &OpeningFeeParams,
    policy: &NegotiationPolicy,
    now: Duration,
) -> Result<u64, Unsuitable> {
    check_validity(terms, policy, now)?;
    let (allowed, ours) = (terms.max_client_to_self_delay, policy.our_to_self_delay);
    if u32::from(ours) > allowed {
        return Err(Unsuitable::ToSelfDelay { allowed, ours });
    }
    let (min_msat, max_msat) = (terms.min_payment_size_msat, terms.max_payment_size_msat);
    if !(min_msat..=max_msat).contains(&policy.payment_size_msat) {
        return Err(Unsuitable::PaymentSize { min_msat, max_msat });
    }
    acceptable_fee(terms, policy.payment_size_msat, policy.max_fee_msat)
}

fn acceptable_fee(terms: &OpeningFeeParams, size: u64, limit: u64) -> Result<u64, Unsuitable> {
    let fee_msat = terms.opening_fee_msat(size);
    let fee_msat = fee_msat.ok_or(Unsuitable::FeeOverflow)?;
    // bLIP-52, "Request JIT Channel": the fee is strictly less than the payment.
    let max_fee_msat = limit.min(size.saturating_sub(1));
    if fee_msat <= max_fee_msat {
        return Ok(fee_msat);
    }
    Err(Unsuitable::FeeTooHigh { fee_msat, max_fee_msat })
}

fn check_validity(
    terms: &OpeningFeeParams,
    policy: &NegotiationPolicy,
    now: Duration,
) -> Result<(), Unsuitable> {
    let left = terms.valid_until.saturating_sub(now);
    // A lease with no time left is of no use even to a wallet that asks for none.
    if left < policy.min_validity || left.is_zero() {
        let (left_secs, wanted_secs) = (left.as_secs(), policy.min_validity.as_secs());
        return Err(Unsuitable::ValidityTooShort { left_secs, wanted_secs });
    }
    Ok(())
}
