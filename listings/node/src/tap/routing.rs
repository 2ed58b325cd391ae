//! The messages of BOLT 7.

use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{self, LightningError, RoutingMessageHandler};
use lightning::routing::gossip::NodeId;
use lightning::util::ser::Writeable;

use super::Tap;

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
        self.pen.arrived(&peer, "reply_channel_range", &msg);
        self.inner.handle_reply_channel_range(peer, msg)
    }
    fn handle_reply_short_channel_ids_end(
        &self,
        peer: PublicKey,
        msg: msgs::ReplyShortChannelIdsEnd,
    ) -> Result<(), LightningError> {
        self.pen.arrived(&peer, "reply_short_channel_ids_end", &msg);
        self.inner.handle_reply_short_channel_ids_end(peer, msg)
    }
    fn handle_query_channel_range(
        &self,
        peer: PublicKey,
        msg: msgs::QueryChannelRange,
    ) -> Result<(), LightningError> {
        self.pen.arrived(&peer, "query_channel_range", &msg);
        self.inner.handle_query_channel_range(peer, msg)
    }
    fn handle_query_short_channel_ids(
        &self,
        peer: PublicKey,
        msg: msgs::QueryShortChannelIds,
    ) -> Result<(), LightningError> {
        self.pen.arrived(&peer, "query_short_channel_ids", &msg);
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
            self.pen.arrived(&peer, message, msg);
        }
    }
}
