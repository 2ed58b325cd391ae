//! What every test of the failure lab ends with: the books balance, nothing hangs, and what is lost
//! is a fee that was agreed.

pub mod audit;
pub mod run;
pub mod steps;
pub mod town;

use anyhow::{Context, Result, ensure};
use lightning_liquidity::lsps2::utils::compute_opening_fee;
use node::transcript::{Entry, HtlcState, What};
use recording::ledger::Ledger;
use recording::normalise::Normaliser;
use serde_json::Value;
use std::collections::{HashMap, HashSet};

use crate::world::World;

/// Begins what is told: from here on money is followed. The world is at rest first.
///
/// # Errors
/// If it does not come to rest.
pub async fn begin(world: &World, id: &str, title: &str) -> Result<()> {
    world.rest().await?;
    world.transcript.scene(id, title);
    Ok(())
}

/// Ends it: waits until no HTLC is on its way between those who are online, and returns the ledger,
/// which balances to the msat and in which nothing waits.
///
/// # Errors
/// If something hangs, the books do not balance, or more was skimmed than was agreed.
pub async fn end(world: &World) -> Result<Ledger> {
    world.rest().await.context("an HTLC hangs")?;
    let ledger = ledger(world)?;
    nothing_lost(&ledger)?;
    only_agreed_fees(&world.transcript.since(0))?;
    Ok(ledger)
}

/// The ledger of what happened so far.
///
/// # Errors
/// If it does not balance.
pub fn ledger(world: &World) -> Result<Ledger> {
    let mut normaliser = Normaliser::new(Box::new(|_| Vec::new()));
    for (id, name) in world.transcript.introduced() {
        normaliser.introduce(&id, &name);
    }
    let entries = world.transcript.since(0);
    let moments: Vec<_> = entries.iter().filter_map(|entry| normaliser.push(entry)).collect();
    Ledger::of_moments(&moments)
}

/// All that was sent was received, but for the fees on the way, and nothing is on its way.
///
/// # Errors
/// If something else became of it.
pub fn nothing_lost(ledger: &Ledger) -> Result<()> {
    let end = ledger.checkpoints.last().context("nothing was followed: `begin` comes first")?;
    ensure!(end.htlcs_msat == 0, "{} msat hang in HTLCs", end.htlcs_msat);
    let payment = &end.payment;
    let arrived = payment.received_msat + payment.routing_fee_msat + payment.opening_fee_msat;
    ensure!(
        payment.sent_msat == arrived,
        "{} msat were sent, and {arrived} msat received or taken as fees",
        payment.sent_msat
    );
    Ok(())
}

/// Whoever let a fee be taken had bought a lease that says so, and each lease pays once.
///
/// # Errors
/// If a fee is larger than every lease of that node allows which nobody has used yet.
pub fn only_agreed_fees(entries: &[Entry]) -> Result<()> {
    let mut leases: HashMap<&str, Vec<Terms>> = HashMap::new();
    let mut claimed = HashSet::new();
    for Entry { node, what, .. } in entries {
        match what {
            What::Lease { state, detail, .. } if state == "bought" => {
                leases.entry(node).or_default().push(Terms::read(detail)?);
            }
            What::Htlc {
                state: HtlcState::Claimed,
                payment_hash,
                amount_msat,
                skimmed_fee_msat: skimmed @ 1..,
                ..
            } if claimed.insert((node, payment_hash)) => {
                let gross_msat = amount_msat + skimmed;
                let unused = leases.entry(node).or_default();
                let allows = |terms: &Terms| terms.fee_msat(gross_msat) >= Some(*skimmed);
                let lease = unused.iter().position(allows).with_context(|| {
                    format!("{node} let {skimmed} msat be taken of {gross_msat} without a lease")
                })?;
                unused.swap_remove(lease);
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a lease allows to be taken.
struct Terms {
    min_fee_msat: u64,
    proportional: u64,
}

impl Terms {
    fn read(detail: &Value) -> Result<Self> {
        let number = |name: &str| {
            detail[name].as_u64().with_context(|| format!("a lease without {name}: {detail}"))
        };
        Ok(Self { min_fee_msat: number("min_fee_msat")?, proportional: number("proportional")? })
    }

    fn fee_msat(&self, gross_msat: u64) -> Option<u64> {
        compute_opening_fee(gross_msat, self.min_fee_msat, self.proportional)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bought(node: &str) -> (String, What) {
        let detail = json!({ "min_fee_msat": 2_000, "proportional": 10_000 });
        let lease = What::Lease { state: "bought".into(), intercept_scid: None, detail };
        (node.to_owned(), lease)
    }

    fn claimed(node: &str, hash: &str, amount_msat: u64, skimmed_fee_msat: u64) -> (String, What) {
        let htlc = What::Htlc {
            state: HtlcState::Claimed,
            payment_hash: Some(hash.to_owned()),
            amount_msat,
            skimmed_fee_msat,
            reason: None,
        };
        (node.to_owned(), htlc)
    }

    fn checked(entries: &[(String, What)]) -> Result<(), String> {
        let entry = |(seq, (node, what)): (usize, &(String, What))| Entry {
            seq: seq as u64,
            at_ms: 0,
            node: node.clone(),
            what: what.clone(),
        };
        let entries: Vec<_> = entries.iter().enumerate().map(entry).collect();
        only_agreed_fees(&entries).map_err(|error| error.to_string())
    }

    #[test]
    fn a_lease_pays_for_one_fee_and_a_repeated_event_is_no_second() {
        let (lease, paid) = (bought("alice"), claimed("alice", "1", 990_000, 10_000));
        assert_eq!(checked(&[lease.clone(), paid.clone(), paid.clone()]), Ok(()));
        let again = claimed("alice", "2", 990_000, 10_000);
        let error = checked(&[lease.clone(), paid.clone(), again.clone()]).unwrap_err();
        assert_eq!(error, "alice let 10000 msat be taken of 1000000 without a lease");
        assert_eq!(checked(&[lease.clone(), paid.clone(), lease.clone(), again]), Ok(()));
        assert_eq!(checked(&[lease, paid, claimed("alice", "3", 5, 0)]), Ok(()));
    }

    #[test]
    fn another_nodes_lease_and_a_fee_too_large_by_1_msat_are_refused() {
        let lease = bought("alice");
        assert!(checked(&[lease.clone(), claimed("bob", "1", 990_000, 10_000)]).is_err());
        assert!(checked(&[lease, claimed("alice", "1", 989_999, 10_001)]).is_err());
    }
}
