//! Ordinary channels: opening them, taking them, and telling the network about them.

use anyhow::{Result, anyhow, ensure};
use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::{InboundHTLCStateDetails, OutboundHTLCStateDetails};
use lightning::ln::msgs::SocketAddress;
use lightning::ln::types::ChannelId;
use lightning::routing::gossip::NodeId;
use serde::Serialize;
use std::sync::atomic::Ordering;

use crate::node::Node;

/// What a node can send, receive and spend.
#[derive(Clone, Debug, Serialize)]
pub struct Balances {
    /// Coins on chain that can be spent now, in sat.
    pub onchain_spendable_sat: u64,
    /// Coins on chain that are unconfirmed or unripe, in sat.
    pub onchain_pending_sat: u64,
    /// One entry a channel.
    pub channels: Vec<ChannelBalance>,
}

/// What one channel can send and receive.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelBalance {
    /// The peer's name or node id.
    pub peer: String,
    /// The channel's capacity, in sat.
    pub capacity_sat: u64,
    /// What can be sent, in msat, above the reserve.
    pub outbound_msat: u64,
    /// What can be received, in msat, above the peer's reserve.
    pub inbound_msat: u64,
    /// What must stay on this side, in sat.
    pub reserve_sat: u64,
    /// Whether payments can be sent over it now.
    pub is_usable: bool,
    /// Whether the network knows it.
    pub is_announced: bool,
}

impl Node {
    /// Opens a channel of `capacity_sat` from the wallet, unannounced unless `announced`.
    pub fn open_channel(&self, peer: PublicKey, capacity_sat: u64, announced: bool) -> Result<()> {
        ensure!(self.is_connected(&peer), "not connected to {peer}: `connect` first");
        let mut config = self.user_config.clone();
        config.channel_handshake_config.announce_for_forwarding = announced;
        let id = self.random_channel_id();
        self.channel_manager
            .create_channel(peer, capacity_sat, 0, id, None, Some(config))
            .map_err(|e| anyhow!("the channel cannot be opened: {e:?}"))?;
        self.peer_manager.process_events();
        Ok(())
    }

    /// Takes a channel from anybody, with the usual confirmations.
    pub(crate) fn accept_channel(&self, channel_id: ChannelId, peer: PublicKey) {
        let id = self.random_channel_id();
        match self.channel_manager.accept_inbound_channel(&channel_id, &peer, id, None) {
            Ok(()) => self.note_channel("requested", channel_id, &peer, None),
            Err(e) => self.note_channel("refused", channel_id, &peer, Some(format!("{e:?}"))),
        }
    }

    /// Announces this node once one of its channels is announced; called about once a second.
    ///
    /// A peer drops the announcement of a node of which it knows no channel yet, so it is repeated
    /// a few times. The network forgets a node that is silent for two weeks; one that runs that
    /// long has to announce itself again, each day, say.
    pub(crate) fn announce(&self) {
        const REPETITIONS: u32 = 10;
        let me = NodeId::from_pubkey(&self.id());
        let has_announced_channel = self.graph.read_only().node(&me).is_some();
        let announced = self.announced.load(Ordering::Relaxed);
        if !has_announced_channel || announced >= REPETITIONS {
            return;
        }
        self.announced.store(announced + 1, Ordering::Relaxed);
        let mut alias = [0; 32];
        let name = self.pen.name.as_bytes();
        let length = name.len().min(alias.len());
        alias[..length].copy_from_slice(&name[..length]);
        let address = SocketAddress::from(self.address());
        self.peer_manager.broadcast_node_announcement([0; 3], alias, vec![address]);
        self.peer_manager.process_events();
        // LDK writes the graph every hour; without it the node builds no offer paths after a
        // restart.
        let _ = self.save_graph();
    }

    /// Hands a transaction of our own to the chain.
    pub(crate) fn broadcast_now(&self, transaction: Transaction) {
        let _ = self.broadcaster.queue.send((vec![transaction], "Funding".to_owned()));
    }

    /// A transaction that takes the coins away from another one of this node's, or all coins it has,
    /// and of which its wallet takes no note. For tests of a dishonest LSP, and of one whose coins
    /// another program spends.
    pub fn spend_elsewhere(&self, instead_of: Option<&Transaction>) -> Result<Transaction> {
        let coins = match instead_of {
            Some(transaction) => transaction.input.iter().map(|i| i.previous_output).collect(),
            None => self.wallet.coins(),
        };
        self.wallet.spend_elsewhere(&coins)
    }

    /// Whether this node's router may use a channel between these two: LDK's looks at none before it
    /// has the updates of both ends (`ChannelInfo::as_directed_to`).
    pub fn can_route(&self, from: &PublicKey, to: &PublicKey) -> bool {
        let (from, to) = (NodeId::from_pubkey(from), NodeId::from_pubkey(to));
        let graph = self.graph.read_only();
        graph.channels().unordered_iter().any(|(_, channel)| {
            channel.as_directed_to(&to).is_some_and(|(_, source)| *source == from)
        })
    }

    /// Whether this node's graph knows that node's announcement.
    pub fn knows_node(&self, node_id: &PublicKey) -> bool {
        let graph = self.graph.read_only();
        let node = graph.node(&NodeId::from_pubkey(node_id));
        node.is_some_and(|node| node.announcement_info.is_some())
    }

    /// Whether this node's graph has an announced channel of that node, which may be its own.
    pub fn knows_of(&self, node_id: &PublicKey) -> bool {
        self.graph.read_only().node(&NodeId::from_pubkey(node_id)).is_some()
    }

    /// How many nodes are announced, as far as this one knows.
    pub fn announced_nodes(&self) -> usize {
        let graph = self.graph.read_only();
        graph.nodes().unordered_iter().filter(|(_, node)| node.announcement_info.is_some()).count()
    }

    /// A script that pays this node's wallet.
    pub fn wallet_script(&self) -> Result<bitcoin::ScriptBuf> {
        self.wallet.script()
    }

    /// The names or ids of the peers that are connected.
    pub fn peers(&self) -> Vec<String> {
        self.peer_manager
            .list_peers()
            .iter()
            .map(|p| self.name_of(&p.counterparty_node_id))
            .collect()
    }

    /// How many HTLCs from this peer are locked: neither side can take them back.
    pub fn locked_htlcs_from(&self, peer: &PublicKey) -> usize {
        let channels = self.channel_manager.list_channels_with_counterparty(peer);
        let htlcs = channels.iter().flat_map(|channel| &channel.pending_inbound_htlcs);
        htlcs.filter(|htlc| htlc.state == Some(InboundHTLCStateDetails::Committed)).count()
    }

    /// Whether no HTLC of this node is on its way into a channel or out of one: each is committed on
    /// both sides, or gone. With a peer that is away, nothing is on its way.
    pub fn htlcs_rest(&self) -> bool {
        let channels =
            self.pen.purse.between_messages(|| self.channel_manager.list_usable_channels());
        channels.iter().all(|channel| {
            let mut inbound = channel.pending_inbound_htlcs.iter();
            let mut outbound = channel.pending_outbound_htlcs.iter();
            inbound.all(|htlc| htlc.state == Some(InboundHTLCStateDetails::Committed))
                && outbound.all(|htlc| htlc.state == Some(OutboundHTLCStateDetails::Committed))
        })
    }

    /// What this node can send, receive and spend.
    pub fn balances(&self) -> Balances {
        let (onchain_spendable_sat, onchain_pending_sat) = self.wallet.balance();
        let channels = self.channel_manager.list_channels();
        let channels = channels.iter().map(|channel| ChannelBalance {
            peer: self.name_of(&channel.counterparty.node_id),
            capacity_sat: channel.channel_value_satoshis,
            outbound_msat: channel.outbound_capacity_msat,
            inbound_msat: channel.inbound_capacity_msat,
            reserve_sat: channel.unspendable_punishment_reserve.unwrap_or(0),
            is_usable: channel.is_usable,
            is_announced: channel.is_announced,
        });
        Balances { onchain_spendable_sat, onchain_pending_sat, channels: channels.collect() }
    }
}
