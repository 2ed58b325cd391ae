//! What is left of channels that are closed: followed from transaction to transaction, until it is in
//! a wallet or with the miners.
//!
//! LDK says what it will claim (`ChannelMonitor::get_claimable_balances`) and what it is spending to
//! the wallet (`OutputSweeper`), but not what that costs. The blocks do.
//!
//! Kept with the transcript, as the balances are: a node that starts again goes on with them.

use bitcoin::{OutPoint, Transaction, TxOut, Txid};
use lightning::chain::channelmonitor::{Balance, BalanceSource};
use lightning::ln::types::ChannelId;
use lightning::sign::SpendableOutputDescriptor as Descriptor;
use lightning::util::sweep::{OutputSpendStatus, TrackedSpendableOutput};
use std::collections::{BTreeMap, HashMap};

use crate::transcript::{ChannelBalance, Closing};

/// What an anchor holds, in sat.
const ANCHOR_SAT: u64 = 330;

/// The channels of one node, open and closed.
#[derive(Default)]
pub(crate) struct Closings {
    channels: BTreeMap<ChannelId, Followed>,
}

struct Followed {
    funding: OutPoint,
    /// As it was when it was open.
    last: ChannelBalance,
    is_outbound: bool,
    closing_tx: Option<Txid>,
    /// What is unspent of what came out of the channel, in sat, outside of any wallet.
    unspent: HashMap<OutPoint, u64>,
    fees_sat: BTreeMap<String, u64>,
    /// What each claim of an HTLC took in, and what it left to miners, in sat.
    claims: HashMap<Txid, (u64, u64)>,
}

impl Closings {
    /// A channel that is open.
    pub(super) fn note_open(
        &mut self,
        id: ChannelId,
        funding: OutPoint,
        is_outbound: bool,
        last: &ChannelBalance,
    ) {
        let followed = self.channels.entry(id).or_insert_with(|| Followed {
            funding,
            last: last.clone(),
            is_outbound,
            closing_tx: None,
            unspent: HashMap::new(),
            fees_sat: BTreeMap::new(),
            claims: HashMap::new(),
        });
        followed.last = last.clone();
    }

    /// A transaction in a block, or one of this node's own that spends to its wallet. `coin_sat` tells
    /// what a coin of this node's wallet is worth, `is_ours` whether an output is the wallet's.
    pub(super) fn note_transaction(
        &mut self,
        transaction: &Transaction,
        coin_sat: impl Fn(&OutPoint) -> Option<u64>,
        is_ours: impl Fn(&TxOut) -> bool,
    ) {
        for followed in self.channels.values_mut() {
            followed.note_transaction(transaction, &coin_sat, &is_ours);
        }
    }

    /// Channels that were open and are not listed any more.
    pub(super) fn closed(
        &self,
        is_open: impl Fn(&ChannelId) -> bool,
        on_chain: impl Fn(&ChannelId) -> Vec<Balance>,
        swept: &[TrackedSpendableOutput],
        in_wallet: impl Fn(&Txid) -> bool,
    ) -> Vec<Closing> {
        let closed = self.channels.iter().filter(|(id, _)| !is_open(id));
        let told = closed.filter_map(|(id, followed)| {
            let unswept_sat = unswept_sat(*id, swept, &in_wallet);
            followed.told(&on_chain(id), unswept_sat)
        });
        told.collect()
    }
}

impl Followed {
    fn note_transaction(
        &mut self,
        transaction: &Transaction,
        coin_sat: &impl Fn(&OutPoint) -> Option<u64>,
        is_ours: &impl Fn(&TxOut) -> bool,
    ) {
        let txid = transaction.compute_txid();
        let inputs = || transaction.input.iter().map(|input| input.previous_output);
        if self.fees_sat.contains_key(&txid.to_string()) {
            return;
        }
        let closes = inputs().any(|coin| coin == self.funding);
        if !closes && !inputs().any(|coin| self.unspent.contains_key(&coin)) {
            return;
        }
        let worth = |coin: OutPoint| match coin == self.funding {
            true => Some(self.last.capacity_sat),
            false => self.unspent.get(&coin).copied().or_else(|| coin_sat(&coin)),
        };
        let spent_sat: Option<u64> = inputs().map(worth).sum();
        let out_sat: u64 = transaction.output.iter().map(|output| output.value.to_sat()).sum();
        if let Some(spent_sat) = spent_sat {
            let fee_sat = spent_sat.saturating_sub(out_sat);
            self.fees_sat.insert(txid.to_string(), fee_sat);
            if inputs().all(|coin| self.unspent.contains_key(&coin)) {
                self.claims.insert(txid, (spent_sat, fee_sat));
            }
        }
        if closes {
            self.closing_tx = Some(txid);
        }
        for coin in inputs() {
            self.unspent.remove(&coin);
        }
        for (index, output) in transaction.output.iter().enumerate() {
            let coin = OutPoint::new(txid, index as u32);
            if !is_ours(output) {
                self.unspent.insert(coin, output.value.to_sat());
            }
        }
    }

    fn told(&self, on_chain: &[Balance], unswept_sat: u64) -> Option<Closing> {
        let ChannelBalance { id, peer, capacity_sat, pending_msat, .. } = self.last.clone();
        let closing = Closing { id, peer, capacity_sat, ..Closing::default() };
        let Some(closing_tx) = self.closing_tx else {
            // What was never broadcast is still in a wallet.
            let is_funded = self.last.confirmed || (self.is_outbound && !self.last.withheld);
            let own_msat = self.last.own_msat();
            return is_funded.then_some(Closing { own_msat, pending_msat, ..closing });
        };
        let (mut own_sat, mut towards_sat, mut away_sat) = (unswept_sat, 0, 0);
        let mut claims = self.claims.clone();
        for balance in on_chain {
            match balance {
                Balance::ClaimableAwaitingConfirmations { amount_satoshis, source, .. } => {
                    own_sat += amount_satoshis;
                    if *source == BalanceSource::Htlc {
                        // LDK counts what the claim took in, not what came out.
                        let spends = |(_, (taken_sat, _)): &(&Txid, &(u64, u64))| {
                            *taken_sat >= *amount_satoshis
                        };
                        let claim = claims.iter().filter(spends).min_by_key(|(_, c)| c.0);
                        let claim = claim.map(|(txid, (_, fee_sat))| (*txid, *fee_sat));
                        if let Some((txid, fee_sat)) = claim {
                            claims.remove(&txid);
                            own_sat = own_sat.saturating_sub(fee_sat);
                        }
                    }
                }
                Balance::ContentiousClaimable { amount_satoshis, .. }
                | Balance::CounterpartyRevokedOutputClaimable { amount_satoshis } => {
                    own_sat += amount_satoshis;
                }
                Balance::MaybeTimeoutClaimableHTLC { amount_satoshis, .. } => {
                    away_sat += amount_satoshis;
                }
                Balance::MaybePreimageClaimableHTLC { amount_satoshis, .. } => {
                    towards_sat += amount_satoshis;
                }
                // Not yet: the block is being handled.
                Balance::ClaimableOnChannelClose { .. } => return None,
            }
        }
        let is_anchor =
            |(coin, sat): &(&OutPoint, &u64)| coin.txid == closing_tx && **sat == ANCHOR_SAT;
        Some(Closing {
            own_msat: own_sat * 1_000,
            pending_msat: (towards_sat * 1_000, away_sat * 1_000),
            fees_sat: self.fees_sat.clone(),
            anchors_sat: self.unspent.iter().filter(is_anchor).map(|(_, sat)| sat).sum(),
            ..closing
        })
    }
}

/// What LDK's sweeper has of a channel and has not spent to the wallet, in sat.
fn unswept_sat(
    id: ChannelId,
    swept: &[TrackedSpendableOutput],
    in_wallet: impl Fn(&Txid) -> bool,
) -> u64 {
    let of_it = swept.iter().filter(|output| output.channel_id == Some(id));
    let unspent = of_it.filter(|output| match &output.status {
        OutputSpendStatus::PendingInitialBroadcast { .. } => true,
        OutputSpendStatus::PendingFirstConfirmation { latest_spending_tx, .. }
        | OutputSpendStatus::PendingThresholdConfirmations { latest_spending_tx, .. } => {
            !in_wallet(&latest_spending_tx.compute_txid())
        }
    });
    unspent.map(|output| worth_sat(&output.descriptor)).sum()
}

fn worth_sat(descriptor: &Descriptor) -> u64 {
    let output = match descriptor {
        Descriptor::StaticOutput { output, .. } => output,
        Descriptor::DelayedPaymentOutput(descriptor) => &descriptor.output,
        Descriptor::StaticPaymentOutput(descriptor) => &descriptor.output,
    };
    output.value.to_sat()
}
