//! What a running node writes down.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One thing that happened on one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Position in the transcript, from 0.
    pub seq: u64,
    /// Milliseconds since the transcript began.
    pub at_ms: u64,
    /// The name of the node that saw it.
    pub node: String,
    /// What it saw.
    #[serde(flatten)]
    pub what: What,
}

/// What a node saw or did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum What {
    /// The node started, with a new or an existing folder.
    Started {
        /// Whether its folder held a node already.
        restored: bool,
    },
    /// The node stopped.
    Stopped,
    /// A peer connected.
    Connected {
        /// Its name.
        peer: String,
    },
    /// A peer went away.
    Disconnected {
        /// Its name.
        peer: String,
    },
    /// A message arrived from a peer.
    Wire {
        /// Who sent it.
        peer: String,
        /// Its name in the BOLTs.
        message: String,
        /// Its size in bytes, without the two of its type.
        bytes: usize,
        /// Its bytes in hex, without the two of its type, where the transcript keeps them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
    },
    /// This node made an onion message.
    OnionSent {
        /// Its name, for example `held_htlc_available`.
        message: String,
        /// The size of its content in bytes.
        bytes: usize,
    },
    /// An onion message reached its destination, this node.
    Onion {
        /// Its name, for example `held_htlc_available`.
        message: String,
        /// The size of its content in bytes.
        bytes: usize,
        /// Which node made it. The destination cannot know; a recording tells it from what the other
        /// nodes sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// Its content in hex, where the transcript keeps it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
    },
    /// An LSPS message arrived from a peer.
    Lsps {
        /// Who sent it.
        peer: String,
        /// Its JSON-RPC payload.
        json: serde_json::Value,
        /// Its size in bytes.
        bytes: usize,
        /// Its payload as it came, where the transcript keeps it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        content: Option<String>,
    },
    /// LDK raised an event.
    Event {
        /// Its name, for example `PaymentClaimable`.
        name: String,
        /// Its fields that matter here.
        detail: serde_json::Value,
    },
    /// An HTLC, or the payment it belongs to, changed its state on this node.
    Htlc {
        /// The new state.
        state: HtlcState,
        /// The payment hash, in hex, where the node knows it.
        payment_hash: Option<String>,
        /// The amount in msat: what arrived, was forwarded, claimed or paid.
        amount_msat: u64,
        /// The skimmed fee in msat, where there is one.
        skimmed_fee_msat: u64,
        /// Why, where there is a reason.
        reason: Option<String>,
    },
    /// A lease changed its state.
    Lease {
        /// `bought`, `sold`, `consumed`, `expired`, `refused` or `retired`.
        state: String,
        /// The intercept SCID, as block x transaction x output.
        intercept_scid: Option<String>,
        /// Details: the terms, or why it was refused.
        detail: serde_json::Value,
    },
    /// A static invoice was stored by its server, or an offer became ready at the recipient.
    Offer {
        /// `persisted`, `served`, `ready` or `refused`.
        state: String,
        /// Details: slot, size in bytes, or why it was refused.
        detail: serde_json::Value,
    },
    /// An onion message for an offline peer entered or left the mailbox.
    Mailbox {
        /// `kept`, `dropped` or `delivered`.
        state: String,
        /// For whom.
        peer: String,
        /// How many messages.
        messages: usize,
        /// Why it was dropped.
        reason: Option<String>,
    },
    /// The router was asked for blinded payment paths, and answered.
    Paths {
        /// For what: `static_invoice` or `invoice`.
        context: String,
        /// `jit` if they lead over an intercept SCID, `ordinary` if over channels, `refused`.
        paths: String,
        /// The path's hop at the LSP and its limits, or why it was refused.
        detail: serde_json::Value,
    },
    /// A channel changed its state.
    Channel {
        /// `requested`, `refused`, `opening`, `pending`, `ready`, `open_failed` or `closed`.
        state: String,
        /// With whom.
        peer: String,
        /// Its id in hex.
        channel_id: String,
        /// Its capacity in sat, where known.
        capacity_sat: Option<u64>,
        /// Why, where there is a reason.
        reason: Option<String>,
    },
    /// A transaction was handed to the chain.
    Broadcast {
        /// Its txid.
        txid: String,
        /// What it is for, in LDK's words.
        purpose: String,
        /// Why the chain refused it, if it did.
        error: Option<String>,
    },
    /// A block was connected.
    Block {
        /// The new height.
        height: u32,
    },
    /// What the node owns, when that has changed.
    Balances {
        /// Its wallet on the chain, in sat, unconfirmed change included.
        onchain_sat: u64,
        /// What its wallet has paid to miners so far, in sat.
        #[serde(default)]
        fees_sat: u64,
        /// Its channels by peer, and those with one peer in the order in which they came.
        channels: Vec<ChannelBalance>,
        /// What became of its channels that are closed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        closed: Vec<Closing>,
    },
    /// The story goes on with the next scene. The director writes this, no node.
    Scene {
        /// Its name, for example `step-4`.
        id: String,
        /// Its heading.
        title: String,
    },
    /// Something the director says or does: a wait for a deadline, a fault that is injected.
    Note {
        /// What.
        text: String,
    },
}

/// One channel, as its owner sees it. What the owner has in it is `spendable_msat + reserve_msat`;
/// what the peer has is the rest of the capacity, less what is pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelBalance {
    /// Its id in hex, by which both ends know it.
    #[serde(default)]
    pub id: String,
    /// With whom.
    pub peer: String,
    /// Its capacity in sat.
    pub capacity_sat: u64,
    /// What the owner can send, in msat, fees for the commitment aside.
    pub spendable_msat: u64,
    /// What the owner has to keep in it, in msat: what the peer demands and, if the owner funded it,
    /// two anchors; or all it has, if that is less.
    pub reserve_msat: u64,
    /// What the peer can send, in msat.
    pub receivable_msat: u64,
    /// HTLCs under way in it, in msat: towards the owner until the owner claims or fails them, and
    /// away from it until the peer has done so.
    pub pending_msat: (u64, u64),
    /// Whether it can carry HTLCs.
    pub usable: bool,
    /// Whether its funding has confirmed.
    pub confirmed: bool,
    /// Whether the owner funds it and has not broadcast the funding: what is in the channel is still
    /// in the wallet too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withheld: bool,
}

/// A channel that is closed, as the chain has it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closing {
    /// Its id in hex, by which both ends know it.
    pub id: String,
    /// With whom.
    pub peer: String,
    /// What its capacity was, in sat.
    pub capacity_sat: u64,
    /// What is the owner's, in msat, and not in its wallet yet. Once the closing transaction has
    /// confirmed these are whole sat: what the outputs hold.
    pub own_msat: u64,
    /// HTLCs whose end is open, in msat: towards the owner, and away from it.
    pub pending_msat: (u64, u64),
    /// What miners got of it, in sat, by the txid of what paid them. Parts of a sat, and HTLCs too small
    /// for an output, are in the fee of the closing transaction.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fees_sat: BTreeMap<String, u64>,
    /// Anchors that nobody has spent, in sat.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub anchors_sat: u64,
}

fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

impl ChannelBalance {
    /// What the owner has in it, in msat.
    pub fn own_msat(&self) -> u64 {
        self.spendable_msat + self.reserve_msat
    }
}

/// The name under which the director writes.
pub const DIRECTOR: &str = "director";

/// The states of an HTLC a node can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HtlcState {
    /// The payer asked for the invoice.
    Requested,
    /// The LSP intercepted it on its way to an intercept SCID.
    Intercepted,
    /// The LSP forwarded it, and the next node claimed it.
    Forwarded,
    /// The recipient may claim it.
    Claimable,
    /// The recipient refused it; it goes back to the payer.
    Refused,
    /// The recipient has claimed it.
    Claimed,
    /// The payer holds the preimage.
    Paid,
    /// It failed and went back.
    Failed,
}
