//! The books of a run, kept while it goes on.

use anyhow::{Context, Result, ensure};
use node::transcript::{Entry, HtlcState, Transcript, What};
use recording::Moment;
use recording::ledger::Ledger;
use recording::normalise::Normaliser;
use std::collections::BTreeMap;

use super::only_agreed_fees;

/// Reads a transcript as it grows, and keeps of it what money is about.
pub struct Audit {
    transcript: Transcript,
    normaliser: Normaliser,
    moments: Vec<Moment>,
    entries: Vec<Entry>,
    read: u64,
}

impl Audit {
    /// Of a transcript whose first scene is about to begin.
    pub fn new(transcript: &Transcript) -> Self {
        let mut normaliser = Normaliser::new(Box::new(|_| Vec::new()));
        for (id, name) in transcript.introduced() {
            normaliser.introduce(&id, &name);
        }
        Self {
            transcript: transcript.clone(),
            normaliser,
            moments: Vec::new(),
            entries: Vec::new(),
            read: 0,
        }
    }

    fn read(&mut self) {
        for entry in self.transcript.since(self.read) {
            self.read = entry.seq + 1;
            let counts = match &entry.what {
                What::Scene { .. } | What::Balances { .. } => true,
                What::Htlc { state, .. } => {
                    matches!(state, HtlcState::Claimed | HtlcState::Paid)
                }
                What::Event { name, .. } => name == "PaymentForwarded",
                What::Lease { state, .. } => state == "bought",
                _ => false,
            };
            if !counts {
                continue;
            }
            self.moments.extend(self.normaliser.push(&entry));
            if matches!(entry.what, What::Htlc { .. } | What::Lease { .. }) {
                self.entries.push(entry);
            }
        }
    }

    /// What holds at any time: each party owns what the events say, and only agreed fees were taken.
    ///
    /// # Errors
    /// If it does not hold, or not yet.
    pub fn owners(&mut self) -> Result<()> {
        self.read();
        Ledger::of_owners(&self.moments)?;
        only_agreed_fees(&self.entries)
    }

    /// What holds once nothing is under way: all that was sent was received, but for the fees, and
    /// payer and recipient agree on each payment.
    ///
    /// # Errors
    /// If it does not hold.
    pub fn all(&mut self) -> Result<()> {
        self.read();
        let ledger = Ledger::of_moments(&self.moments)?;
        super::nothing_lost(&ledger)?;
        only_agreed_fees(&self.entries)?;
        let (paid, claimed) = (self.ends(HtlcState::Paid), self.ends(HtlcState::Claimed));
        for (hash, (sent, _)) in &paid {
            let arrived = claimed.get(hash);
            let (amount, skim) = arrived.with_context(|| format!("{hash}: paid, not claimed"))?;
            ensure!(sent >= &(amount + skim), "{hash}: {sent} sent, {amount} + {skim} arrived");
        }
        for hash in claimed.keys() {
            ensure!(paid.contains_key(hash), "{hash}: claimed, and the payer was not told");
        }
        Ok(())
    }

    /// How many payments were completed.
    pub fn paid(&mut self) -> usize {
        self.read();
        self.ends(HtlcState::Paid).len()
    }

    /// The payments that came to this end: their amounts and skims.
    fn ends(&self, wanted: HtlcState) -> BTreeMap<&str, (u64, u64)> {
        let ends = self.entries.iter().filter_map(|entry| match &entry.what {
            What::Htlc {
                state, payment_hash: Some(hash), amount_msat, skimmed_fee_msat, ..
            } if *state == wanted => Some((hash.as_str(), (*amount_msat, *skimmed_fee_msat))),
            _ => None,
        });
        ends.collect()
    }
}
