//! What every test of the failure lab ends with: the books balance, nothing hangs, and what is lost
//! is a fee that was agreed.

use anyhow::{Context, Result, ensure};
use recording::ledger::Ledger;
use recording::normalise::Normaliser;

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
