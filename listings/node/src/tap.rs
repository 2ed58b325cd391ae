//! Wrappers around LDK's message handlers that write every arriving message to the transcript.
//!
//! They change nothing. The one around the onion-message contents also pokes event processing:
//! LDK queues `PersistStaticInvoice` and `StaticInvoiceRequested` without waking anybody, and they
//! would wait for the background processor's next timer (10 s in release, 30 s in debug).

use bitcoin::constants::ChainHash;
use bitcoin::hex::DisplayHex;
use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::message::{AsyncPaymentsContext, OffersContext};
use lightning::ln::msgs::{
    self, BaseMessageHandler, ChannelMessageHandler, Init, LightningError, MessageSendEvent,
    OnionMessage, OnionMessageHandler, RoutingMessageHandler,
};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::ln::wire::CustomMessageReader;
use lightning::onion_message::async_payments::{
    AsyncPaymentsMessage, AsyncPaymentsMessageHandler, HeldHtlcAvailable, OfferPaths,
    OfferPathsRequest, ReleaseHeldHtlc, ServeStaticInvoice, StaticInvoicePersisted,
};
use lightning::onion_message::messenger::{
    MessageSendInstructions, Responder, ResponseInstruction,
};
use lightning::onion_message::offers::{OffersMessage, OffersMessageHandler};
use lightning::routing::gossip::NodeId;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::logger::Record;
use lightning::util::ser::{LengthLimitedRead, Writeable};
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use std::sync::Arc;
use tokio::sync::Notify;

mod unhandled;

use crate::balances::Purse;
use crate::explain;
use crate::transcript::{Transcript, What};

/// The type of `commitment_signed` (BOLT 2).
const COMMITMENT_SIGNED_TYPE: u16 = 132;

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
}

impl Pen {
    /// Writes what this node saw.
    pub fn write(&self, what: What) {
        self.transcript.record(&self.name, what);
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

/// Delegates each message to the wrapped handler, then writes down its name and size: whoever waits
/// for the message finds it handled.
macro_rules! tapped {
    ($($handle: ident($message: ty) $name: literal,)*) => { $(
        fn $handle(&self, peer: PublicKey, msg: $message) {
            let size = self.pen.size($name, &msg);
            let _handling = self.pen.purse.handling();
            self.inner.$handle(peer, msg);
            self.pen.wire(&peer, $name, size);
            self.pen.handled($name);
        }
    )* };
}

impl<H: ChannelMessageHandler> ChannelMessageHandler for Tap<H> {
    tapped! {
        handle_open_channel(&msgs::OpenChannel) "open_channel",
        handle_open_channel_v2(&msgs::OpenChannelV2) "open_channel2",
        handle_accept_channel(&msgs::AcceptChannel) "accept_channel",
        handle_accept_channel_v2(&msgs::AcceptChannelV2) "accept_channel2",
        handle_funding_created(&msgs::FundingCreated) "funding_created",
        handle_funding_signed(&msgs::FundingSigned) "funding_signed",
        handle_channel_ready(&msgs::ChannelReady) "channel_ready",
        handle_peer_storage(msgs::PeerStorage) "peer_storage",
        handle_peer_storage_retrieval(msgs::PeerStorageRetrieval) "peer_storage_retrieval",
        handle_shutdown(&msgs::Shutdown) "shutdown",
        handle_closing_signed(&msgs::ClosingSigned) "closing_signed",
        handle_stfu(&msgs::Stfu) "stfu",
        handle_splice_init(&msgs::SpliceInit) "splice_init",
        handle_splice_ack(&msgs::SpliceAck) "splice_ack",
        handle_splice_locked(&msgs::SpliceLocked) "splice_locked",
        handle_tx_add_input(&msgs::TxAddInput) "tx_add_input",
        handle_tx_add_output(&msgs::TxAddOutput) "tx_add_output",
        handle_tx_remove_input(&msgs::TxRemoveInput) "tx_remove_input",
        handle_tx_remove_output(&msgs::TxRemoveOutput) "tx_remove_output",
        handle_tx_complete(&msgs::TxComplete) "tx_complete",
        handle_tx_signatures(&msgs::TxSignatures) "tx_signatures",
        handle_tx_init_rbf(&msgs::TxInitRbf) "tx_init_rbf",
        handle_tx_ack_rbf(&msgs::TxAckRbf) "tx_ack_rbf",
        handle_tx_abort(&msgs::TxAbort) "tx_abort",
        handle_update_add_htlc(&msgs::UpdateAddHTLC) "update_add_htlc",
        handle_update_fulfill_htlc(msgs::UpdateFulfillHTLC) "update_fulfill_htlc",
        handle_update_fail_htlc(&msgs::UpdateFailHTLC) "update_fail_htlc",
        handle_update_fail_malformed_htlc(&msgs::UpdateFailMalformedHTLC)
            "update_fail_malformed_htlc",
        handle_commitment_signed(&msgs::CommitmentSigned) "commitment_signed",
        handle_revoke_and_ack(&msgs::RevokeAndACK) "revoke_and_ack",
        handle_update_fee(&msgs::UpdateFee) "update_fee",
        handle_announcement_signatures(&msgs::AnnouncementSignatures) "announcement_signatures",
        handle_channel_reestablish(&msgs::ChannelReestablish) "channel_reestablish",
        handle_error(&msgs::ErrorMessage) "error",
    }

    fn handle_commitment_signed_batch(
        &self,
        peer: PublicKey,
        channel_id: ChannelId,
        batch: Vec<msgs::CommitmentSigned>,
    ) {
        // LDK takes in `start_batch` itself.
        let start = msgs::StartBatch {
            channel_id,
            batch_size: u16::try_from(batch.len()).unwrap_or(u16::MAX),
            message_type: Some(COMMITMENT_SIGNED_TYPE),
        };
        self.pen.wire(&peer, "start_batch", self.pen.size("start_batch", &start));
        for msg in &batch {
            self.pen.wire(&peer, "commitment_signed", self.pen.size("commitment_signed", msg));
        }
        self.inner.handle_commitment_signed_batch(peer, channel_id, batch);
        self.pen.handled("commitment_signed");
    }
    // LDK hands it to the routing handler too, whose tap writes it down.
    fn handle_channel_update(&self, peer: PublicKey, msg: &msgs::ChannelUpdate) {
        self.inner.handle_channel_update(peer, msg)
    }
    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.inner.get_chain_hashes()
    }
    fn message_received(&self) {
        self.inner.message_received()
    }
}

impl<H: OnionMessageHandler> OnionMessageHandler for Tap<H> {
    fn handle_onion_message(&self, peer: PublicKey, msg: &OnionMessage) {
        self.pen.wire(&peer, "onion_message", self.pen.size("onion_message", msg));
        self.inner.handle_onion_message(peer, msg)
    }
    fn next_onion_message_for_peer(&self, peer: PublicKey) -> Option<OnionMessage> {
        self.inner.next_onion_message_for_peer(peer)
    }
    fn timer_tick_occurred(&self) {
        self.inner.timer_tick_occurred()
    }
}

impl<H: OffersMessageHandler> OffersMessageHandler for Tap<H> {
    fn handle_message(
        &self,
        message: OffersMessage,
        context: Option<OffersContext>,
        responder: Option<Responder>,
    ) -> Option<(OffersMessage, ResponseInstruction)> {
        let name = name_of_offers_message(&message);
        self.pen.onion(name, self.pen.size(name, &message));
        let response = self.inner.handle_message(message, context, responder);
        if let Some((message, _)) = &response {
            self.pen.onion_sent(name_of_offers_message(message), message);
        }
        self.pen.poke.notify_one();
        response
    }
    fn release_pending_messages(&self) -> Vec<(OffersMessage, MessageSendInstructions)> {
        let messages = self.inner.release_pending_messages();
        for (message, _) in &messages {
            self.pen.onion_sent(name_of_offers_message(message), message);
        }
        messages
    }
}

fn name_of_offers_message(message: &OffersMessage) -> &'static str {
    match message {
        OffersMessage::InvoiceRequest(_) => "invoice_request",
        OffersMessage::Invoice(_) => "invoice",
        OffersMessage::StaticInvoice(_) => "static_invoice",
        OffersMessage::InvoiceError(_) => "invoice_error",
    }
}

fn name_of_async_message(message: &AsyncPaymentsMessage) -> &'static str {
    match message {
        AsyncPaymentsMessage::OfferPathsRequest(_) => "offer_paths_request",
        AsyncPaymentsMessage::OfferPaths(_) => "offer_paths",
        AsyncPaymentsMessage::ServeStaticInvoice(_) => "serve_static_invoice",
        AsyncPaymentsMessage::StaticInvoicePersisted(_) => "static_invoice_persisted",
        AsyncPaymentsMessage::HeldHtlcAvailable(_) => "held_htlc_available",
        AsyncPaymentsMessage::ReleaseHeldHtlc(_) => "release_held_htlc",
    }
}

impl<H: AsyncPaymentsMessageHandler> AsyncPaymentsMessageHandler for Tap<H> {
    fn handle_offer_paths_request(
        &self,
        message: OfferPathsRequest,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(OfferPaths, ResponseInstruction)> {
        self.pen.onion("offer_paths_request", self.pen.size("offer_paths_request", &message));
        let response = self.inner.handle_offer_paths_request(message, context, responder);
        if let Some((message, _)) = &response {
            self.pen.onion_sent("offer_paths", message);
        }
        response
    }
    fn handle_offer_paths(
        &self,
        message: OfferPaths,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(ServeStaticInvoice, ResponseInstruction)> {
        self.pen.onion("offer_paths", self.pen.size("offer_paths", &message));
        let response = self.inner.handle_offer_paths(message, context, responder);
        if let Some((message, _)) = &response {
            self.pen.onion_sent("serve_static_invoice", message);
        }
        response
    }
    fn handle_serve_static_invoice(
        &self,
        message: ServeStaticInvoice,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) {
        self.pen.onion("serve_static_invoice", self.pen.size("serve_static_invoice", &message));
        self.inner.handle_serve_static_invoice(message, context, responder);
        self.pen.poke.notify_one();
    }
    fn handle_static_invoice_persisted(
        &self,
        message: StaticInvoicePersisted,
        context: AsyncPaymentsContext,
    ) {
        let size = self.pen.size("static_invoice_persisted", &message);
        self.inner.handle_static_invoice_persisted(message, context);
        // Written afterwards: whoever waits for this may ask for the offer at once.
        self.pen.onion("static_invoice_persisted", size);
    }
    fn handle_held_htlc_available(
        &self,
        message: HeldHtlcAvailable,
        context: AsyncPaymentsContext,
        responder: Option<Responder>,
    ) -> Option<(ReleaseHeldHtlc, ResponseInstruction)> {
        self.pen.onion("held_htlc_available", self.pen.size("held_htlc_available", &message));
        let response = self.inner.handle_held_htlc_available(message, context, responder);
        if let Some((message, _)) = &response {
            self.pen.onion_sent("release_held_htlc", message);
        }
        response
    }
    fn handle_release_held_htlc(&self, message: ReleaseHeldHtlc, context: AsyncPaymentsContext) {
        self.pen.onion("release_held_htlc", self.pen.size("release_held_htlc", &message));
        self.inner.handle_release_held_htlc(message, context);
        self.pen.poke.notify_one();
    }
    fn release_pending_messages(&self) -> Vec<(AsyncPaymentsMessage, MessageSendInstructions)> {
        let messages = self.inner.release_pending_messages();
        for (message, _) in &messages {
            self.pen.onion_sent(name_of_async_message(message), message);
        }
        messages
    }
}

impl<H: CustomMessageReader> CustomMessageReader for Tap<H> {
    type CustomMessage = H::CustomMessage;
    fn read<R: LengthLimitedRead>(
        &self,
        message_type: u16,
        buffer: &mut R,
    ) -> Result<Option<Self::CustomMessage>, msgs::DecodeError> {
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
        self.inner.get_and_clear_pending_msg()
    }
    fn peer_disconnected(&self, peer: PublicKey) {
        let name = self.pen.transcript.name_of(&peer);
        self.pen.write(What::Disconnected { peer: name });
        self.inner.peer_disconnected(peer)
    }
    fn peer_connected(&self, peer: PublicKey, msg: &Init, inbound: bool) -> Result<(), ()> {
        self.pen.wire(&peer, "init", self.pen.size("init", msg));
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

impl<H: RoutingMessageHandler> RoutingMessageHandler for Tap<H> {
    fn handle_node_announcement(
        &self,
        peer: Option<PublicKey>,
        msg: &msgs::NodeAnnouncement,
    ) -> Result<bool, LightningError> {
        let handled = self.inner.handle_node_announcement(peer, msg);
        self.gossip(peer, "node_announcement", msg);
        handled
    }
    fn handle_channel_announcement(
        &self,
        peer: Option<PublicKey>,
        msg: &msgs::ChannelAnnouncement,
    ) -> Result<bool, LightningError> {
        let handled = self.inner.handle_channel_announcement(peer, msg);
        self.pen.channel_announced.notify_one();
        self.gossip(peer, "channel_announcement", msg);
        handled
    }
    fn handle_channel_update(
        &self,
        peer: Option<PublicKey>,
        msg: &msgs::ChannelUpdate,
    ) -> Result<Option<(NodeId, NodeId)>, LightningError> {
        let handled = self.inner.handle_channel_update(peer, msg);
        self.gossip(peer, "channel_update", msg);
        handled
    }
    fn get_next_channel_announcement(
        &self,
        starting_point: u64,
    ) -> Option<(msgs::ChannelAnnouncement, Option<msgs::ChannelUpdate>, Option<msgs::ChannelUpdate>)>
    {
        self.inner.get_next_channel_announcement(starting_point)
    }
    fn get_next_node_announcement(
        &self,
        starting_point: Option<&NodeId>,
    ) -> Option<msgs::NodeAnnouncement> {
        self.inner.get_next_node_announcement(starting_point)
    }
    fn handle_reply_channel_range(
        &self,
        peer: PublicKey,
        msg: msgs::ReplyChannelRange,
    ) -> Result<(), LightningError> {
        self.pen.wire(&peer, "reply_channel_range", self.pen.size("reply_channel_range", &msg));
        self.inner.handle_reply_channel_range(peer, msg)
    }
    fn handle_reply_short_channel_ids_end(
        &self,
        peer: PublicKey,
        msg: msgs::ReplyShortChannelIdsEnd,
    ) -> Result<(), LightningError> {
        self.pen.wire(
            &peer,
            "reply_short_channel_ids_end",
            self.pen.size("reply_short_channel_ids_end", &msg),
        );
        self.inner.handle_reply_short_channel_ids_end(peer, msg)
    }
    fn handle_query_channel_range(
        &self,
        peer: PublicKey,
        msg: msgs::QueryChannelRange,
    ) -> Result<(), LightningError> {
        self.pen.wire(&peer, "query_channel_range", self.pen.size("query_channel_range", &msg));
        self.inner.handle_query_channel_range(peer, msg)
    }
    fn handle_query_short_channel_ids(
        &self,
        peer: PublicKey,
        msg: msgs::QueryShortChannelIds,
    ) -> Result<(), LightningError> {
        self.pen.wire(
            &peer,
            "query_short_channel_ids",
            self.pen.size("query_short_channel_ids", &msg),
        );
        self.inner.handle_query_short_channel_ids(peer, msg)
    }
    fn processing_queue_high(&self) -> bool {
        self.inner.processing_queue_high()
    }
}

impl<H> Tap<H> {
    /// Gossip is written down once the graph has it, so that whoever waits for it finds it there.
    /// What comes from no peer is this node's own and came over no wire.
    fn gossip(&self, peer: Option<PublicKey>, message: &str, msg: &impl Writeable) {
        if let Some(peer) = peer {
            self.pen.wire(&peer, message, self.pen.size(message, msg));
        }
    }
}
