//! What a wallet makes of a channel whose funding it has not seen confirmed: until then, what it has
//! there is its LSP's word.

use anyhow::Result;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning::util::persist::KVStoreSync;
use lsps2_async::claim::{Verdict, is_jit};
use lsps2_async::lease::TrustModel;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::{Claimable, NAMESPACE, Recipient, RecipientRole};
use crate::types::Store;

const KEY: &str = "fundings";
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
    /// Payments that wait for a confirmation.
    pub(super) waiting: Mutex<Vec<Claimable>>,
}

impl Fundings {
    pub(super) fn load(store: &Store) -> Result<Self> {
        let known = match store.read(NAMESPACE, "", KEY) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => BTreeMap::new(),
        };
        Ok(Self { unconfirmed_since: Mutex::new(known), ..Default::default() })
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

fn flip((since, id): (u32, String)) -> (String, u32) {
    (id, since)
}

fn is_confirmed(channel: &ChannelDetails) -> bool {
    channel.confirmations.is_some_and(|blocks| blocks > 0)
}

impl Recipient {
    /// What this wallet owns in channels, by how certain it is.
    pub fn funds(&self) -> Funds {
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
        !is_confirmed(channel) && since.is_some_and(|since| since + patience <= self.height())
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
        let here_msat: u64 = unconfirmed().map(|channel| self.owned_msat(channel)).sum();
        let most_msat = self.funding_policy.most_unconfirmed_msat;
        let grows = unconfirmed().any(|c| over(&c));
        (grows && here_msat.saturating_add(payment.amount_msat) > most_msat).then(|| {
            format!(
                "with it, more than {most_msat} msat would lie in channels that are not confirmed"
            )
        })
    }

    /// Whether this payment waits for a confirmation of the channel it came over.
    pub(super) fn must_wait(&self, payment: &Claimable, verdict: &Verdict) -> bool {
        let Verdict::ConsumeThenClaim { lease, .. } = verdict else { return false };
        let lease = self.node.leases.get(lease);
        let lsp_trusts = lease.is_some_and(|r| r.lease.trust_model == TrustModel::LspTrustsClient);
        lsp_trusts && !self.is_confirmed_enough(payment)
    }

    fn is_confirmed_enough(&self, payment: &Claimable) -> bool {
        let wanted = self.funding_policy.confirmations;
        let channels = self.node.channel_manager.list_channels();
        payment.channels.iter().all(|(id, _)| {
            let channel = channels.iter().find(|channel| channel.channel_id == *id);
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
        let waiting = std::mem::take(&mut *self.fundings.waiting.lock().unwrap());
        for payment in waiting {
            let deadline = payment.claim_deadline.unwrap_or(u32::MAX);
            if height + BEFORE_DEADLINE >= deadline {
                let why = "the funding of its channel has not confirmed in time".to_owned();
                self.fail_back(&payment, why);
            } else if self.is_confirmed_enough(&payment) {
                // What cannot be written now is shown again after a restart.
                let _ = self.on_claimable(payment).await;
            } else {
                self.fundings.waiting.lock().unwrap().push(payment);
            }
        }
    }
}
