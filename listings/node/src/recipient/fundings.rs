//! What a wallet makes of a channel whose funding it has not seen confirmed: until then, what it has
//! there is its LSP's word.

use anyhow::{Result, anyhow};
use bitcoin::io::ErrorKind;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channel_state::{ChannelDetails, InboundHTLCDetails};
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::persist::KVStoreSync;
use lightning::util::ser::{MaybeReadable, Writeable};
use lsps2_async::claim::{Verdict, is_jit};
use lsps2_async::lease::{LeaseId, TrustModel};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::{Claimable, NAMESPACE, Recipient, RecipientRole};
use crate::types::Store;

const KEY: &str = "fundings";
const WAITING_KEY: &str = "waiting";
/// A payment that waits is failed this many blocks before LDK would do it.
const BEFORE_DEADLINE: u32 = 2;

/// How much a wallet relies on fundings that are not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FundingPolicy {
    /// How many confirmations a new channel needs before the first payment over it is claimed, if the
    /// LSP trusts the client. If the client trusts the LSP there is nothing to wait for: the funding
    /// is broadcast after the claim.
    pub confirmations: u32,
    /// The most that is claimed into channels that are not confirmed, all together, in msat.
    pub most_unconfirmed_msat: u64,
    /// After how many blocks without a confirmation the wallet doubts a channel: it says so, and
    /// claims nothing more over it.
    pub patience: u32,
}

/// Waits for nothing, takes any amount, and doubts after 18 blocks, about three hours.
impl Default for FundingPolicy {
    fn default() -> Self {
        Self { confirmations: 0, most_unconfirmed_msat: u64::MAX, patience: 18 }
    }
}

/// What a wallet owns in channels, in msat: what to show to its user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Funds {
    /// In channels that are confirmed.
    pub confirmed_msat: u64,
    /// In channels that are not: the LSP's word.
    pub unconfirmed_msat: u64,
    /// In channels that should have confirmed by now. It may be lost.
    pub doubtful_msat: u64,
}

/// Since which height a channel has not been confirmed.
#[derive(Default)]
pub(super) struct Fundings {
    unconfirmed_since: Mutex<BTreeMap<String, u32>>,
    told: Mutex<BTreeSet<ChannelId>>,
    /// Payments that wait for a confirmation. They are on disk too: LDK does not show them again.
    waiting: Mutex<Vec<Claimable>>,
    /// Payments that are claimed, and may still be HTLCs: they are not in a channel's balance yet.
    claiming: Mutex<BTreeSet<PaymentHash>>,
}

impl Fundings {
    pub(super) fn load(store: &Store) -> Result<Self> {
        let known = match store.read(NAMESPACE, "", KEY) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => BTreeMap::new(),
        };
        let waiting = match store.read(NAMESPACE, "", WAITING_KEY) {
            Ok(bytes) => read_waiting(&bytes)?,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            // Not to be taken for an empty list: the next write would lose what waits.
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            unconfirmed_since: Mutex::new(known),
            waiting: Mutex::new(waiting),
            ..Default::default()
        })
    }

    /// Keeps a payment until it is claimed or failed. It is on disk when this returns `Ok`.
    pub(super) fn keep(&self, store: &Store, payment: Claimable) -> Result<(), ReplayEvent> {
        let mut waiting = self.waiting.lock().unwrap();
        if waiting.iter().any(|known| known.payment_hash == payment.payment_hash) {
            return Ok(());
        }
        waiting.push(payment);
        if store.write(NAMESPACE, "", WAITING_KEY, write_waiting(&waiting)).is_err() {
            waiting.pop();
            return Err(ReplayEvent());
        }
        Ok(())
    }

    pub(super) fn forget(&self, store: &Store, hash: &PaymentHash) {
        let mut waiting = self.waiting.lock().unwrap();
        let before = waiting.len();
        waiting.retain(|payment| payment.payment_hash != *hash);
        if waiting.len() < before {
            // If this fails, it is judged again after a restart: LDK then has nothing to claim or fail.
            let _ = store.write(NAMESPACE, "", WAITING_KEY, write_waiting(&waiting));
        }
    }

    pub(super) fn note_claim(&self, hash: PaymentHash) {
        self.claiming.lock().unwrap().insert(hash);
    }

    fn is_being_claimed(&self, hash: &PaymentHash) -> bool {
        self.claiming.lock().unwrap().contains(hash)
    }

    fn since(&self, id: ChannelId) -> Option<u32> {
        self.unconfirmed_since.lock().unwrap().get(&id.to_string()).copied()
    }

    /// Takes down the height at which a channel was paid for, or unconfirmed again after a
    /// reorganisation; forgets those that are confirmed, or gone.
    fn look_at(&self, store: &Store, channels: &[ChannelDetails], height: u32) {
        let waiting =
            channels.iter().filter(|c| !is_confirmed(c)).map(|c| c.channel_id.to_string());
        let mut known = self.unconfirmed_since.lock().unwrap();
        let now: BTreeMap<_, _> = waiting
            .map(|id| (known.get(&id).map_or(height, |since| *since), id))
            .map(flip)
            .collect();
        if *known != now {
            *known = now;
            // If this fails, a restart begins to count anew.
            let bytes = serde_json::to_vec(&*known).expect("texts and numbers");
            let _ = store.write(NAMESPACE, "", KEY, bytes);
        }
    }
}

fn write_waiting(waiting: &[Claimable]) -> Vec<u8> {
    let events: Vec<_> = waiting.iter().map(|payment| payment.to_event().encode()).collect();
    serde_json::to_vec(&events).expect("bytes")
}

fn read_waiting(bytes: &[u8]) -> Result<Vec<Claimable>> {
    let events: Vec<Vec<u8>> = serde_json::from_slice(bytes)?;
    let read = |event: &Vec<u8>| {
        let event = Event::read(&mut &event[..]).ok().flatten();
        event.and_then(Claimable::from_event).ok_or_else(|| anyhow!("no payment that waits"))
    };
    events.iter().map(read).collect()
}

/// What is claimed and is still an HTLC.
fn claimed_msat(htlcs: &[InboundHTLCDetails], claiming: &BTreeSet<PaymentHash>) -> u64 {
    let claimed = htlcs.iter().filter(|htlc| claiming.contains(&htlc.payment_hash));
    claimed.map(|htlc| htlc.amount_msat).fold(0, u64::saturating_add)
}

fn is_overdue(since: u32, patience: u32, height: u32) -> bool {
    since.saturating_add(patience) <= height
}

fn flip((since, id): (u32, String)) -> (String, u32) {
    (id, since)
}

fn is_confirmed(channel: &ChannelDetails) -> bool {
    channel.confirmations.is_some_and(|blocks| blocks > 0)
}

impl Recipient {
    /// What this wallet owns in channels, by how certain it is.
    pub fn funds(&self) -> Funds {
        self.role.note_fundings();
        let mut funds = Funds::default();
        for channel in self.channel_manager.list_channels() {
            let here_msat = self.role.owned_msat(&channel);
            let sum = match (is_confirmed(&channel), self.role.is_doubtful(&channel)) {
                (true, _) => &mut funds.confirmed_msat,
                (false, false) => &mut funds.unconfirmed_msat,
                (false, true) => &mut funds.doubtful_msat,
            };
            *sum += here_msat;
        }
        funds
    }
}

impl RecipientRole {
    fn height(&self) -> u32 {
        self.node.channel_manager.current_best_block().height
    }

    fn owned_msat(&self, channel: &ChannelDetails) -> u64 {
        let reserve_msat = channel.unspendable_punishment_reserve.unwrap_or(0) * 1_000;
        match channel.outbound_capacity_msat {
            // LDK says no more of what lies below the reserve.
            0 => 0,
            above => above + reserve_msat,
        }
    }

    fn is_doubtful(&self, channel: &ChannelDetails) -> bool {
        let since = self.fundings.since(channel.channel_id);
        let patience = self.funding_policy.patience;
        !is_confirmed(channel)
            && since.is_some_and(|since| is_overdue(since, patience, self.height()))
    }

    /// Why nothing may be claimed over these channels, if that is so.
    pub(super) fn doubt(&self, payment: &Claimable) -> Option<String> {
        let channels = self.node.channel_manager.list_channels();
        let over = |c: &&ChannelDetails| payment.channels.iter().any(|(id, _)| *id == c.channel_id);
        if channels.iter().filter(over).any(|channel| self.is_doubtful(channel)) {
            let patience = self.funding_policy.patience;
            return Some(format!(
                "the funding of its channel has not confirmed in {patience} blocks"
            ));
        }
        let unconfirmed = || channels.iter().filter(|c| !is_confirmed(c));
        let claiming = self.fundings.claiming.lock().unwrap();
        let here_msat = unconfirmed()
            .map(|channel| {
                let claimed_msat = claimed_msat(&channel.pending_inbound_htlcs, &claiming);
                self.owned_msat(channel).saturating_add(claimed_msat)
            })
            .fold(0, u64::saturating_add);
        let most_msat = self.funding_policy.most_unconfirmed_msat;
        let grows = unconfirmed().any(|c| over(&c));
        (grows && here_msat.saturating_add(payment.amount_msat) > most_msat).then(|| {
            format!(
                "with it, more than {most_msat} msat would lie in channels that are not confirmed"
            )
        })
    }

    /// Whether this payment waits for a confirmation of the channel it came over: any payment does,
    /// with a fee or without, over a channel that nothing was paid for yet.
    pub(super) fn must_wait(
        &self,
        payment: &Claimable,
        verdict: &Verdict,
        named: Option<LeaseId>,
    ) -> bool {
        let (lease, paid_for) = match verdict {
            Verdict::ConsumeThenClaim { lease, consumption } => {
                (Some(*lease), Some(consumption.channel_id))
            }
            Verdict::Claim if self.came_over_unpaid(payment) => (named, None),
            Verdict::Claim => return false,
        };
        let lease = lease.and_then(|id| self.node.leases.get(&id));
        // This LSP funds the channel after the claim.
        let is_trusted = lease.is_some_and(|r| r.lease.trust_model == TrustModel::ClientTrustsLsp);
        let came_over = payment.channels.iter().map(|(id, _)| *id);
        !is_trusted && !self.are_confirmed_enough(came_over.chain(paid_for))
    }

    fn came_over_unpaid(&self, payment: &Claimable) -> bool {
        payment.channels.iter().any(|(id, user_channel_id)| {
            user_channel_id.is_some_and(is_jit) && !self.node.leases.settled_over(id)
        })
    }

    fn are_confirmed_enough(&self, mut ids: impl Iterator<Item = ChannelId>) -> bool {
        let wanted = self.funding_policy.confirmations;
        let channels = self.node.channel_manager.list_channels();
        ids.all(|id| {
            let channel = channels.iter().find(|channel| channel.channel_id == id);
            channel.is_some_and(|channel| channel.confirmations.unwrap_or(0) >= wanted)
        })
    }

    /// The channels whose fee is paid. Before that, a funding may be withheld.
    fn paid_channels(&self) -> Vec<ChannelDetails> {
        let mut channels = self.node.channel_manager.list_channels();
        let is_paid = |c: &ChannelDetails| self.node.leases.paid_over(&c.channel_id).is_some();
        channels.retain(|channel| is_jit(channel.user_channel_id) && is_paid(channel));
        channels
    }

    /// Notes since when each is not confirmed.
    pub(super) fn note_fundings(&self) {
        self.fundings.look_at(&self.node.store, &self.paid_channels(), self.height());
        let mut claiming = self.fundings.claiming.lock().unwrap();
        let channels = self.node.channel_manager.list_channels();
        let pending: BTreeSet<_> = channels
            .iter()
            .flat_map(|c| &c.pending_inbound_htlcs)
            .map(|h| h.payment_hash)
            .collect();
        claiming.retain(|hash| pending.contains(hash));
    }

    /// About once a second: what has waited long enough, and what has waited too long.
    pub(super) async fn look_at_fundings(&self) {
        self.note_fundings();
        let (channels, height) = (self.paid_channels(), self.height());
        for channel in channels.iter().filter(|channel| self.is_doubtful(channel)) {
            if self.fundings.told.lock().unwrap().insert(channel.channel_id) {
                let patience = self.funding_policy.patience;
                let why = format!("its funding has not confirmed in {patience} blocks");
                let (id, peer) = (channel.channel_id, channel.counterparty.node_id);
                self.node.note_channel("doubtful", id, &peer, Some(why));
            }
        }
        if self.held_claims.lock().unwrap().is_some() {
            return;
        }
        let waiting = self.fundings.waiting.lock().unwrap().clone();
        for payment in waiting {
            let deadline = payment.claim_deadline.unwrap_or(u32::MAX);
            if self.fundings.is_being_claimed(&payment.payment_hash) {
                continue;
            }
            if height.saturating_add(BEFORE_DEADLINE) >= deadline {
                let why = "the funding of its channel has not confirmed in time".to_owned();
                self.fail_back(&payment, why);
            } else if self.are_confirmed_enough(payment.channels.iter().map(|(id, _)| *id)) {
                // What cannot be written now goes on waiting, and is judged again in a second.
                let _ = self.on_claimable(payment).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
