//! What a node owns, to the msat, written to the transcript whenever it has changed.
//!
//! LDK does not say what a node owns in a channel. It says what either side can still send
//! (`outbound_capacity_msat`, `inbound_capacity_msat`), and that is 0 below the reserve, however
//! much is there. The side that funded the channel is always above its reserve: it has to pay for
//! the commitment transaction too. So one side is known exactly, and the other has the rest, less
//! what is under way.

mod closings;

use bitcoin::block::Header;
use bitcoin::{Block, Transaction};
use lightning::chain::channelmonitor::Balance;
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning::ln::channel_state::{
    ChannelDetails, InboundHTLCStateDetails as Inbound, OutboundHTLCStateDetails as Outbound,
};
use std::sync::{Arc, Mutex, OnceLock, RwLock, RwLockReadGuard, Weak};

use crate::faults::Life;
use crate::transcript::{ChannelBalance, Entry, Transcript, What};
use crate::types::{ChainMonitor, ChannelManager, Sweeper};
use crate::wallet::Wallet;
pub(crate) use closings::Closings;

/// Two anchors, in msat, which the funder of a channel pays for.
const ANCHORS_MSAT: u64 = 2 * 330 * 1_000;
/// By how much a monitor's balance may be too small, in msat: it leaves out dust, and parts of sat.
const LEFT_OUT_MSAT: u64 = 2_000 * 1_000;

/// What one node owns, and what it wrote of it last.
pub struct Purse {
    name: String,
    transcript: Transcript,
    parts: OnceLock<Parts>,
    last: Mutex<Option<What>>,
    closings: Arc<Mutex<Closings>>,
    sweeper: OnceLock<Weak<Sweeper>>,
    /// Held by whoever handles a message, until the message and what it changed are written down.
    handling: RwLock<()>,
    life: Arc<Life>,
}

struct Parts {
    channel_manager: Weak<ChannelManager>,
    chain_monitor: Weak<ChainMonitor>,
    wallet: Arc<Wallet>,
}

impl Purse {
    /// The purse of this node. A node that starts again goes on where it stopped.
    pub(crate) fn new(name: &str, transcript: &Transcript, life: Arc<Life>) -> Arc<Self> {
        let from = transcript.first_scene();
        let balances = |entry: &Entry| {
            let says = matches!(entry.what, What::Balances { .. });
            (says && entry.node == name && entry.seq >= from).then(|| entry.what.clone())
        };
        let purse = Arc::new(Self {
            name: name.to_owned(),
            transcript: transcript.clone(),
            parts: OnceLock::new(),
            last: Mutex::new(transcript.last(balances)),
            closings: transcript.closings_of(name),
            sweeper: OnceLock::new(),
            handling: RwLock::new(()),
            life,
        });
        transcript.weigh_with_first_scene(&purse);
        purse
    }

    /// Tells where the money is.
    pub(crate) fn fill(
        &self,
        channel_manager: &Arc<ChannelManager>,
        chain_monitor: &Arc<ChainMonitor>,
        wallet: &Arc<Wallet>,
    ) {
        let (channel_manager, chain_monitor) =
            (Arc::downgrade(channel_manager), Arc::downgrade(chain_monitor));
        let _ = self.parts.set(Parts { channel_manager, chain_monitor, wallet: wallet.clone() });
    }

    /// Writes what the node owns, if that has changed.
    pub(crate) fn weigh(&self) {
        self.write(false);
    }

    /// Writes what the node owns, changed or not.
    pub(crate) fn weigh_again(&self) {
        self.write(true);
    }

    fn write(&self, unchanged_too: bool) {
        // Locked while it is weighed: an older weight must not be written after a newer one.
        let mut last = self.last.lock().unwrap();
        if self.life.is_over() {
            return;
        }
        let Some(now) = self.parts.get().and_then(|parts| self.weight(parts, last.as_ref())) else {
            return;
        };
        if !self.life.is_over() && (unchanged_too || last.as_ref() != Some(&now)) {
            self.transcript.record(&self.name, now.clone());
            *last = Some(now);
        }
    }

    /// `None` while a message is being handled that will change a channel.
    fn weight(&self, parts: &Parts, last: Option<&What>) -> Option<What> {
        let manager = parts.channel_manager.upgrade()?;
        let monitors = parts.chain_monitor.upgrade()?;
        let mut channels = Vec::new();
        let mut closings = self.closings.lock().unwrap();
        let listed = manager.list_channels();
        for channel in &listed {
            // Without a funding there is nothing in it.
            let Some(funding) = channel.funding_txo else { continue };
            let mut balance = balance(channel, || at_most_msat(&monitors, channel))?;
            balance.peer = self.transcript.name_of(&channel.counterparty.node_id);
            balance.withheld = channel.is_outbound && !parts.wallet.knows(&funding.txid);
            let funding = funding.into_bitcoin_outpoint();
            closings.note_open(channel.channel_id, funding, channel.is_outbound, &balance);
            channels.push(balance);
        }
        let sweeper = self.sweeper.get().and_then(Weak::upgrade);
        let swept = sweeper.map(|sweeper| sweeper.tracked_spendable_outputs()).unwrap_or_default();
        let closed = closings.closed(
            |id| listed.iter().any(|channel| channel.channel_id == *id),
            |id| monitors.get_monitor(*id).map(|m| m.get_claimable_balances()).unwrap_or_default(),
            &swept,
            |txid| parts.wallet.knows(txid),
        );
        let known = match last {
            Some(What::Balances { channels, .. }) => channels.as_slice(),
            _ => &[],
        };
        let rank = |id: &str| known.iter().position(|other| other.id == id).unwrap_or(known.len());
        channels.sort_by_cached_key(|c| (c.peer.clone(), rank(&c.id), c.capacity_sat));
        let (spendable_sat, pending_sat) = parts.wallet.balance();
        Some(What::Balances {
            onchain_sat: spendable_sat + pending_sat,
            fees_sat: parts.wallet.fees_paid_sat(),
            channels,
            closed,
        })
    }

    /// Tells what spends to the wallet.
    pub(crate) fn watch(&self, sweeper: &Arc<Sweeper>) {
        let _ = self.sweeper.set(Arc::downgrade(sweeper));
    }

    /// A transaction is in a block, or spends to this node's wallet and is on its way there.
    pub(crate) fn note_transaction(&self, transaction: &Transaction) {
        let Some(Parts { wallet, .. }) = self.parts.get() else { return };
        if self.life.is_over() {
            return;
        }
        let (worth, ours) = (|coin: &_| wallet.worth_sat(coin), |coin: &_| wallet.pays_us(coin));
        self.closings.lock().unwrap().note_transaction(transaction, worth, ours);
    }

    /// To be held while a message is handled and written down.
    pub(crate) fn handling(&self) -> RwLockReadGuard<'_, ()> {
        self.handling.read().unwrap()
    }

    /// Looks at the node between two messages: what the last one changed is written down.
    pub(crate) fn between_messages<T>(&self, look: impl FnOnce() -> T) -> T {
        let _nobody_handles = self.handling.write().unwrap();
        look()
    }
}

/// After the wallet has: what its coins are worth is asked.
impl Listen for Purse {
    fn block_connected(&self, block: &Block, _: u32) {
        for transaction in &block.txdata {
            self.note_transaction(transaction);
        }
    }

    fn filtered_block_connected(&self, _: &Header, _: &TransactionData, _: u32) {
        unreachable!("the block source serves full blocks");
    }

    fn blocks_disconnected(&self, _: BlockLocator) {}
}

/// Most of what the node may have in a channel, in msat, by its monitor.
///
/// An HTLC that a peer has just announced is not listed yet, and would pass for money that the node
/// has. The monitor does not count it.
fn at_most_msat(monitors: &ChainMonitor, channel: &ChannelDetails) -> u64 {
    let Ok(monitor) = monitors.get_monitor(channel.channel_id) else { return u64::MAX };
    let on_close = monitor.get_claimable_balances().into_iter().find_map(|balance| {
        let Balance::ClaimableOnChannelClose { balance_candidates, .. } = balance else {
            return None;
        };
        balance_candidates.last().cloned()
    });
    on_close.map_or(u64::MAX, |close| {
        (close.amount_satoshis + close.transaction_fee_satoshis) * 1_000 + LEFT_OUT_MSAT
    })
}

/// What a channel holds for its owner; `None` while that is not certain. `at_most` is asked if LDK
/// does not tell what the owner has.
fn balance(channel: &ChannelDetails, at_most: impl FnOnce() -> u64) -> Option<ChannelBalance> {
    let capacity = channel.channel_value_satoshis * 1_000;
    let with_anchors = channel.channel_type.as_ref();
    let with_anchors = with_anchors.is_some_and(|kind| kind.supports_anchors_zero_fee_htlc_tx());
    let anchors = if with_anchors { ANCHORS_MSAT } else { 0 };
    let (our_anchors, their_anchors) =
        if channel.is_outbound { (anchors, 0) } else { (0, anchors) };
    let our_floor = channel.unspendable_punishment_reserve.unwrap_or(0) * 1_000 + our_anchors;
    let their_floor = channel.counterparty.unspendable_punishment_reserve * 1_000 + their_anchors;
    // At 0, a side has its floor or less.
    let known = |above: u64, floor: u64| (above > 0).then_some(above + floor);
    let ours = known(channel.outbound_capacity_msat, our_floor);
    let theirs = known(channel.inbound_capacity_msat, their_floor);

    let away = outbound(channel, |state| {
        matches!(state, Some(Outbound::AwaitingRemoteRevokeToAdd | Outbound::Committed))
    });
    let towards = inbound(channel, |state| {
        matches!(state, Some(Inbound::AwaitingRemoteRevokeToAdd | Inbound::Committed))
    });
    let claimed = inbound(channel, |state| {
        matches!(state, Some(Inbound::AwaitingRemoteRevokeToRemoveFulfill))
    });
    let failed =
        inbound(channel, |state| matches!(state, Some(Inbound::AwaitingRemoteRevokeToRemoveFail)));
    let (own, towards) = match (ours, theirs) {
        (Some(ours), Some(theirs)) if claimed + failed == 0 => {
            (ours, capacity.checked_sub(ours + theirs + away)?)
        }
        (_, Some(theirs)) => {
            // What was claimed is the owner's, also while the claim waits for a peer that is away.
            // What was failed goes back; while that waits, LDK does not count it as the peer's.
            let ours_and_failed = capacity.checked_sub(theirs + away + towards)?;
            let waiting = if ours_and_failed >= claimed + failed { failed } else { 0 };
            (ours_and_failed - waiting, towards + waiting)
        }
        (Some(ours), None) if claimed + failed == 0 => (ours, towards),
        _ => return None,
    };
    if ours.is_none() && own > at_most().saturating_add(claimed) {
        return None;
    }
    let spendable_msat = own.saturating_sub(our_floor);
    let peers = capacity.checked_sub(own + towards + away)?;
    Some(ChannelBalance {
        id: channel.channel_id.to_string(),
        peer: String::new(),
        capacity_sat: channel.channel_value_satoshis,
        spendable_msat,
        reserve_msat: own - spendable_msat,
        receivable_msat: peers.saturating_sub(their_floor),
        pending_msat: (towards, away),
        usable: channel.is_usable,
        confirmed: channel.confirmations.is_some_and(|blocks| blocks > 0),
        withheld: false,
    })
}

fn inbound(channel: &ChannelDetails, is_it: impl Fn(&Option<Inbound>) -> bool) -> u64 {
    let htlcs = channel.pending_inbound_htlcs.iter();
    htlcs.filter(|htlc| is_it(&htlc.state)).map(|htlc| htlc.amount_msat).sum()
}

fn outbound(channel: &ChannelDetails, is_it: impl Fn(&Option<Outbound>) -> bool) -> u64 {
    let htlcs = channel.pending_outbound_htlcs.iter();
    htlcs.filter(|htlc| is_it(&htlc.state)).map(|htlc| htlc.amount_msat).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
    use lightning::ln::channel_state::{
        ChannelCounterparty, InboundHTLCDetails, OutboundHTLCDetails,
    };
    use lightning::ln::types::ChannelId;
    use lightning::types::features::{ChannelTypeFeatures, InitFeatures};
    use lightning::types::payment::PaymentHash;

    const CAPACITY_MSAT: u64 = 1_000_000_000;
    const RESERVE_MSAT: u64 = 10_000_000;

    /// What LDK says of a channel in which the peer, who funded it, has `theirs` and the owner
    /// `ours`: nothing of what is below the reserve. The owner's claims and what it failed are in
    /// `inbound`, and counted by LDK as the caller says.
    fn channel(ours: u64, theirs: u64, inbound: &[(u64, Inbound)], away: u64) -> ChannelDetails {
        let key = SecretKey::from_slice(&[7; 32]).unwrap();
        let htlc = |(amount_msat, state): &(u64, Inbound)| InboundHTLCDetails {
            htlc_id: 0,
            amount_msat: *amount_msat,
            cltv_expiry: 0,
            payment_hash: PaymentHash([0; 32]),
            state: Some(state.clone()),
            is_dust: false,
        };
        let sent = OutboundHTLCDetails {
            htlc_id: Some(0),
            amount_msat: away,
            cltv_expiry: 0,
            payment_hash: PaymentHash([0; 32]),
            state: Some(Outbound::Committed),
            skimmed_fee_msat: None,
            is_dust: false,
        };
        ChannelDetails {
            channel_id: ChannelId([1; 32]),
            counterparty: ChannelCounterparty {
                node_id: PublicKey::from_secret_key(&Secp256k1::new(), &key),
                features: InitFeatures::empty(),
                unspendable_punishment_reserve: RESERVE_MSAT / 1_000,
                forwarding_info: None,
                outbound_htlc_minimum_msat: None,
                outbound_htlc_maximum_msat: None,
            },
            funding_txo: None,
            channel_type: Some(ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies()),
            short_channel_id: None,
            outbound_scid_alias: None,
            inbound_scid_alias: None,
            channel_value_satoshis: CAPACITY_MSAT / 1_000,
            unspendable_punishment_reserve: Some(RESERVE_MSAT / 1_000),
            user_channel_id: 0,
            feerate_sat_per_1000_weight: None,
            outbound_capacity_msat: ours.saturating_sub(RESERVE_MSAT),
            next_outbound_htlc_limit_msat: 0,
            next_outbound_htlc_minimum_msat: 0,
            next_splice_out_maximum_sat: 0,
            inbound_capacity_msat: theirs.saturating_sub(RESERVE_MSAT + ANCHORS_MSAT),
            confirmations_required: None,
            confirmations: Some(1),
            force_close_spend_delay: None,
            is_outbound: false,
            is_channel_ready: true,
            channel_shutdown_state: None,
            is_usable: true,
            is_announced: false,
            inbound_htlc_minimum_msat: None,
            inbound_htlc_maximum_msat: None,
            config: None,
            pending_inbound_htlcs: inbound.iter().map(htlc).collect(),
            pending_outbound_htlcs: Vec::from_iter((away > 0).then_some(sent)),
            funding_redeem_script: None,
            current_dust_exposure_msat: None,
            splice_details: None,
        }
    }

    /// What the owner has, and what is under way.
    fn seen(channel: &ChannelDetails, at_most: u64) -> Option<(u64, (u64, u64))> {
        let balance = balance(channel, || at_most)?;
        let (towards, away) = balance.pending_msat;
        let peers = CAPACITY_MSAT - balance.own_msat() - towards - away;
        assert_eq!(balance.receivable_msat, peers.saturating_sub(RESERVE_MSAT + ANCHORS_MSAT));
        assert!(balance.spendable_msat >= channel.outbound_capacity_msat);
        Some((balance.own_msat(), balance.pending_msat))
    }

    #[test]
    fn a_side_below_its_reserve_has_what_the_other_leaves() {
        for ours in [0, 1, 9_999_999, RESERVE_MSAT, RESERVE_MSAT + 1, 123_456_789] {
            let channel = channel(ours, CAPACITY_MSAT - ours, &[], 0);
            assert_eq!(seen(&channel, u64::MAX), Some((ours, (0, 0))), "{ours}");
        }
    }

    #[test]
    fn what_is_under_way_belongs_to_nobody() {
        let committed = [(5_000_001, Inbound::Committed)];
        for ours in [0, 7, 50_000_000] {
            let theirs = CAPACITY_MSAT - ours - 5_000_001 - 20;
            let channel = channel(ours, theirs, &committed, 20);
            assert_eq!(seen(&channel, u64::MAX), Some((ours, (5_000_001, 20))), "{ours}");
        }
    }

    #[test]
    fn a_claim_is_the_owners_although_the_peer_is_away_and_a_failed_htlc_is_not() {
        let claimed = [(5_000_000, Inbound::AwaitingRemoteRevokeToRemoveFulfill)];
        let failed = [(5_000_000, Inbound::AwaitingRemoteRevokeToRemoveFail)];
        for ours in [0, 50_000_000] {
            let theirs = CAPACITY_MSAT - ours - 5_000_000;
            // LDK counts a claim as the owner's once it is sent, and before as pending.
            for counted in [ours, ours + 5_000_000] {
                let channel = channel(counted, theirs, &claimed, 0);
                assert_eq!(seen(&channel, u64::MAX), Some((ours + 5_000_000, (0, 0))));
            }
            // It counts what was failed as the peer's once that is sent.
            let waits = channel(ours, theirs, &failed, 0);
            assert_eq!(seen(&waits, u64::MAX), Some((ours, (5_000_000, 0))));
        }
        let sent = channel(0, CAPACITY_MSAT, &failed, 0);
        assert_eq!(seen(&sent, u64::MAX), Some((0, (0, 0))));
    }

    /// LDK does not list an HTLC that the peer announces and has not signed for.
    #[test]
    fn an_htlc_that_is_not_listed_yet_is_not_taken_for_money() {
        let known = channel(50_000_000, CAPACITY_MSAT - 55_000_000, &[], 0);
        assert_eq!(seen(&known, u64::MAX), Some((50_000_000, (5_000_000, 0))));
        let unknown = channel(0, CAPACITY_MSAT - 5_000_000, &[], 0);
        assert_eq!(seen(&unknown, LEFT_OUT_MSAT), None);
    }
}
