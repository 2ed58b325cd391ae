//! Wrappers around LDK's message handlers that write every arriving message to the transcript.
//!
//! They change nothing. The one around the onion-message contents also pokes event processing:
//! LDK queues `PersistStaticInvoice` and `StaticInvoiceRequested` without waking anybody, and they
//! would wait for the background processor's next timer (10 s in release, 30 s in debug).

use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{
    BaseMessageHandler, DecodeError, Init, LightningError, MessageSendEvent,
};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::CustomMessageReader;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::Record;
use lightning::util::ser::{LengthLimitedRead, Writeable};
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use std::sync::Arc;
use tokio::sync::Notify;

mod channel;
mod onion;
mod routing;
mod unhandled;

use crate::balances::Purse;
use crate::explain;
use crate::faults::Life;
use crate::transcript::{Transcript, What};

/// Where a node's taps write to.
#[derive(Clone)]
pub struct Pen {
    /// The transcript of the run.
    pub transcript: Transcript,
    /// The node's name in it.
    pub name: String,
    /// Wakes the task that processes LDK's events.
    pub poke: Arc<Notify>,
    /// Wakes the tick: this node may have to be announced.
    pub channel_announced: Arc<Notify>,
    /// What the node owns.
    pub(crate) purse: Arc<Purse>,
    /// Whether the node is alive.
    pub(crate) life: Arc<Life>,
}

impl Pen {
    /// Writes what this node saw.
    pub fn write(&self, what: What) {
        if !self.life.is_over() {
            self.transcript.record(&self.name, what);
        }
    }

    /// Writes a message that has arrived and is handled next.
    fn arrived(&self, peer: &PublicKey, message: &str, content: &impl Writeable) {
        self.wire(peer, message, self.size(message, content));
    }

    fn wire(&self, peer: &PublicKey, message: &str, size: Size) {
        let peer = self.transcript.name_of(peer);
        let Size { bytes, content } = size;
        self.write(What::Wire { peer, message: message.to_owned(), bytes, content });
    }

    /// Writes a message for its receiver, when it is sent. There is one for which that is the only
    /// way: LDK's `PeerManager` takes in a `gossip_timestamp_filter` without a word, to handlers or
    /// to the log. Only for a receiver that writes to the same transcript.
    fn wire_at_peer(&self, receiver: &PublicKey, message: &str, size: Size) {
        if let Some(receiver) = self.transcript.known(receiver) {
            let (peer, message) = (self.name.clone(), message.to_owned());
            let Size { bytes, content } = size;
            self.transcript.record(&receiver, What::Wire { peer, message, bytes, content });
        }
    }

    /// Writes a message that LDK's `PeerManager` answers itself and only tells its log of: `ping`,
    /// `pong` and `warning` reach no handler.
    pub(crate) fn read_in_log(&self, record: &Record) {
        let Some(peer) = &record.peer_id else { return };
        if let Some((message, bytes)) = unhandled::read(record) {
            self.wire(peer, message, Size { bytes, content: None });
        }
    }

    /// What a message changes is only agreed upon with the next commitment.
    fn handled(&self, message: &str) {
        if !message.starts_with("update_") {
            self.purse.weigh();
        }
    }

    /// Writes an onion message that was for this node and is handled next.
    fn onion_arrived(&self, message: &str, content: &impl Writeable) {
        self.onion(message, self.size(message, content));
    }

    fn onion(&self, message: &str, size: Size) {
        let Size { bytes, content } = size;
        self.write(What::Onion { message: message.to_owned(), bytes, from: None, content });
    }

    fn onion_sent(&self, message: &str, content: &impl Writeable) {
        let bytes = content.serialized_length();
        self.write(What::OnionSent { message: message.to_owned(), bytes });
    }

    /// LDK hands over messages, not bytes. What it writes for a message that it has read are the
    /// bytes that came, as long as the peer set no field that LDK does not know; these nodes are all
    /// LDK's.
    fn size(&self, message: &str, content: &impl Writeable) -> Size {
        let kept = self.transcript.keeps_bytes() && explain::is_explained(message);
        Size {
            bytes: content.serialized_length(),
            content: kept.then(|| content.encode().to_lower_hex_string()),
        }
    }
}

/// How large a message is, and its bytes in hex where they are kept.
struct Size {
    bytes: usize,
    content: Option<String>,
}

/// A handler with a pen beside it.
pub struct Tap<H> {
    inner: H,
    pen: Pen,
}

impl<H> Tap<H> {
    /// Wraps `inner`.
    pub fn new(inner: H, pen: Pen) -> Self {
        Self { inner, pen }
    }
}

impl<H: BaseMessageHandler> BaseMessageHandler for Tap<H> {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let events = self.inner.get_and_clear_pending_msg_events();
        if self.pen.life.is_over() {
            return Vec::new();
        }
        for event in &events {
            if let MessageSendEvent::SendGossipTimestampFilter { node_id, msg } = event {
                let size = self.pen.size("gossip_timestamp_filter", msg);
                self.pen.wire_at_peer(node_id, "gossip_timestamp_filter", size);
            }
        }
        events
    }
    fn peer_disconnected(&self, peer: PublicKey) {
        self.inner.peer_disconnected(peer);
        self.pen.purse.weigh();
    }
    fn provided_node_features(&self) -> NodeFeatures {
        self.inner.provided_node_features()
    }
    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.inner.provided_init_features(peer)
    }
    fn peer_connected(&self, peer: PublicKey, msg: &Init, inbound: bool) -> Result<(), ()> {
        self.inner.peer_connected(peer, msg, inbound)
    }
}

impl<H: CustomMessageReader> CustomMessageReader for Tap<H> {
    type CustomMessage = H::CustomMessage;
    fn read<R: LengthLimitedRead>(
        &self,
        message_type: u16,
        buffer: &mut R,
    ) -> Result<Option<Self::CustomMessage>, DecodeError> {
        self.inner.read(message_type, buffer)
    }
}

impl<H: CustomMessageHandler<CustomMessage = RawLSPSMessage>> CustomMessageHandler for Tap<H> {
    fn handle_custom_message(
        &self,
        msg: RawLSPSMessage,
        peer: PublicKey,
    ) -> Result<(), LightningError> {
        self.pen.write(What::Lsps {
            peer: self.pen.transcript.name_of(&peer),
            json: serde_json::from_str(&msg.payload).unwrap_or_default(),
            bytes: msg.payload.len(),
            content: self.pen.transcript.keeps_bytes().then(|| msg.payload.clone()),
        });
        self.inner.handle_custom_message(msg, peer)
    }
    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, RawLSPSMessage)> {
        let messages = self.inner.get_and_clear_pending_msg();
        if self.pen.life.is_over() { Vec::new() } else { messages }
    }
    fn peer_disconnected(&self, peer: PublicKey) {
        let name = self.pen.transcript.name_of(&peer);
        self.pen.write(What::Disconnected { peer: name });
        self.inner.peer_disconnected(peer)
    }
    fn peer_connected(&self, peer: PublicKey, msg: &Init, inbound: bool) -> Result<(), ()> {
        self.pen.arrived(&peer, "init", msg);
        let connected = self.inner.peer_connected(peer, msg, inbound);
        let name = self.pen.transcript.name_of(&peer);
        self.pen.write(What::Connected { peer: name });
        connected
    }
    fn provided_node_features(&self) -> NodeFeatures {
        self.inner.provided_node_features()
    }
    fn provided_init_features(&self, peer: PublicKey) -> InitFeatures {
        self.inner.provided_init_features(peer)
    }
}
