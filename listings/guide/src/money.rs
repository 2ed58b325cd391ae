//! Where every msat of a payment went, from what each node saw of it on its own.

use anyhow::{Context, Result, ensure};
use node::transcript::{Entry, HtlcState, What};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// The books of one payment, in msat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Books {
    /// What left the payer, fees included (payer).
    pub payer_sent_msat: u64,
    /// What the nodes on the way earned by forwarding (payer's LSP and recipient's LSP).
    pub routing_fee_msat: u64,
    /// What the recipient's LSP skimmed for opening the channel (recipient's LSP).
    pub opening_fee_msat: u64,
    /// What the recipient was credited with (recipient).
    pub recipient_received_msat: u64,
}

impl Books {
    /// Reads the books of the one payment that the payer completed in these entries. Fails unless
    /// they balance, and unless the recipient and its LSP agree on the opening fee.
    ///
    /// LDK shows an event again after a restart if its end was not yet on disk; what was seen
    /// twice is counted once.
    pub fn of_one_payment(entries: &[Entry]) -> Result<Self> {
        let (hash, payer_sent_msat) = paid(entries)?;
        let (recipient_received_msat, skim_seen) = claimed(entries, &hash)?;
        let (earned, opening_fee_msat) = forwarding(entries);
        let books = Self {
            payer_sent_msat,
            routing_fee_msat: earned - opening_fee_msat,
            opening_fee_msat,
            recipient_received_msat,
        };
        ensure!(
            skim_seen == opening_fee_msat,
            "the LSP says it skimmed {opening_fee_msat} msat, the recipient saw {skim_seen}"
        );
        ensure!(books.difference() == 0, "{} msat are missing: {books:?}", books.difference());
        Ok(books)
    }

    /// What was sent and neither earned nor received, in msat: 0 if the books balance.
    pub fn difference(&self) -> i128 {
        let out = [self.routing_fee_msat, self.opening_fee_msat, self.recipient_received_msat];
        i128::from(self.payer_sent_msat) - out.into_iter().map(i128::from).sum::<i128>()
    }
}

/// The hash of the one payment the payer completed, and what it sent, in msat.
fn paid(entries: &[Entry]) -> Result<(String, u64)> {
    let mut payments = BTreeMap::new();
    for entry in entries {
        let What::Htlc { state: HtlcState::Paid, payment_hash, amount_msat, .. } = &entry.what
        else {
            continue;
        };
        payments.insert(payment_hash.clone().context("a payment without a hash")?, *amount_msat);
    }
    ensure!(payments.len() == 1, "{} payments were completed, not one", payments.len());
    payments.pop_first().context("no payment was completed")
}

/// What the recipient claimed of a payment and what was skimmed from it, in msat.
fn claimed(entries: &[Entry], hash: &str) -> Result<(u64, u64)> {
    let claim = entries.iter().find_map(|e| match &e.what {
        What::Htlc { state, payment_hash, amount_msat, skimmed_fee_msat, .. }
            if *state == HtlcState::Claimed && payment_hash.as_deref() == Some(hash) =>
        {
            Some((*amount_msat, *skimmed_fee_msat))
        }
        _ => None,
    });
    claim.with_context(|| format!("nobody claimed payment {hash}"))
}

/// What forwarding earned in all, and how much of it was skimmed, in msat.
fn forwarding(entries: &[Entry]) -> (u64, u64) {
    let mut seen = HashSet::new();
    let mut sums = (0, 0);
    for entry in entries {
        let What::Event { name, detail } = &entry.what else { continue };
        if name == "PaymentForwarded" && seen.insert((&entry.node, detail.to_string())) {
            sums.0 += detail["total_fee_earned_msat"].as_u64().unwrap_or(0);
            sums.1 += detail["skimmed_fee_msat"].as_u64().unwrap_or(0);
        }
    }
    sums
}

/// A number of msat that a person can read.
pub fn msat(amount: u64) -> String {
    let digits = amount.to_string();
    let mut grouped = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_grouped_in_threes() {
        assert_eq!(msat(0), "0");
        assert_eq!(msat(999), "999");
        assert_eq!(msat(1_000), "1 000");
        assert_eq!(msat(123_456_789), "123 456 789");
    }

    #[test]
    fn books_that_do_not_balance_say_by_how_much() {
        let books = Books {
            payer_sent_msat: 10,
            routing_fee_msat: 1,
            opening_fee_msat: 2,
            recipient_received_msat: 6,
        };
        assert_eq!(books.difference(), 1);
    }
}
