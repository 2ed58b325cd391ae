//! Whether a payment can open a channel on an LSP's terms: asked before anything starts.

use node::lsp::LspPolicy;
use std::time::Duration;
use thiserror::Error;

use crate::money::msat;

/// Why a payment opens no channel. Amounts are in msat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotPayable {
    /// The lease serves no payment so small.
    #[error(
        "{} msat is below the {} msat that pay for a channel here", msat(*.amount), msat(*.smallest)
    )]
    TooSmall {
        /// What was to be paid.
        amount: u64,
        /// The least that can be.
        smallest: u64,
    },
    /// The opening fee takes all of it.
    #[error("the opening fee of {} msat would leave nothing of {} msat", msat(*.fee), msat(*.amount))]
    NothingLeft {
        /// What was to be paid.
        amount: u64,
        /// The opening fee for that.
        fee: u64,
        /// The least that can be paid.
        smallest: u64,
    },
    /// The lease serves no payment so large.
    #[error(
        "{} msat is above the {} msat a lease of this LSP allows", msat(*.amount), msat(*.largest)
    )]
    TooLarge {
        /// What was to be paid.
        amount: u64,
        /// The most that can be.
        largest: u64,
    },
}

impl NotPayable {
    /// The nearest amount that can be paid, in msat, and on which side of it the others are:
    /// `or more`, `or less`.
    pub fn instead(&self) -> (u64, &'static str) {
        match self {
            Self::TooSmall { smallest, .. } | Self::NothingLeft { smallest, .. } => {
                (*smallest, "or more")
            }
            Self::TooLarge { largest, .. } => (*largest, "or less"),
        }
    }
}

/// Checks an amount, in msat, against the terms on which this LSP sells.
///
/// # Errors
/// If no lease of this LSP can serve it.
pub fn check(lsp: &LspPolicy, amount: u64) -> Result<(), NotPayable> {
    let (smallest, largest) = lsp.payable_msat();
    if amount > largest {
        return Err(NotPayable::TooLarge { amount, largest });
    }
    if amount >= smallest {
        return Ok(());
    }
    let terms = lsp.fees.terms(Duration::ZERO);
    match terms.opening_fee_msat(amount) {
        Some(fee) if amount >= terms.min_payment_size_msat => {
            Err(NotPayable::NothingLeft { amount, fee, smallest })
        }
        _ => Err(NotPayable::TooSmall { amount, smallest }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{LSP_CHANNEL_SAT, PAYER_CHANNEL_SAT};
    use lsps2_async::lease::TrustModel;

    fn lsp(min_fee_msat: u64, proportional: u32) -> LspPolicy {
        let mut lsp = LspPolicy::new(TrustModel::ClientTrustsLsp);
        lsp.fees.min_fee_msat = min_fee_msat;
        lsp.fees.proportional = proportional;
        lsp
    }

    #[test]
    fn what_a_lease_serves_and_leaves_something_of_is_payable() {
        let usual = lsp(2_000_000, 10_000);
        assert_eq!(check(&usual, 10_000_000), Ok(()));
        assert_eq!(check(&usual, 2_000_000_000), Ok(()));
        let error = check(&usual, 9_999_999).unwrap_err();
        assert_eq!(error.instead(), (10_000_000, "or more"));
        assert_eq!(
            error.to_string(),
            "9 999 999 msat is below the 10 000 000 msat that pay for a channel here"
        );
        assert_eq!(check(&usual, 2_000_000_001).unwrap_err().instead().0, 2_000_000_000);
        let error = check(&lsp(30_000_000, 0), 30_000_000).unwrap_err();
        assert_eq!(error.instead(), (30_000_001, "or more"));
        let told = "the opening fee of 30 000 000 msat would leave nothing of 30 000 000 msat";
        assert_eq!(error.to_string(), told);
    }

    /// What a lease allows is less than what the channels of this world carry, so only the lease
    /// is asked.
    #[test]
    fn the_channels_of_the_world_carry_what_a_lease_allows() {
        let (_, largest) = lsp(2_000_000, 10_000).payable_msat();
        // 1 % is the reserve; another 1 % is far more than commitment and routing fees.
        assert!(largest < PAYER_CHANNEL_SAT * 1_000 / 100 * 98);
        // LDK lets a quarter of an announced channel be on its way.
        assert!(largest < LSP_CHANNEL_SAT * 1_000 / 4 / 100 * 98);
    }
}
