//! The messages of BOLT 2.

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::msgs::{self, ChannelMessageHandler};
use lightning::ln::types::ChannelId;

use super::Tap;

/// The type of `commitment_signed` (BOLT 2).
const COMMITMENT_SIGNED_TYPE: u16 = 132;

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
        self.pen.arrived(&peer, "start_batch", &start);
        for msg in &batch {
            self.pen.arrived(&peer, "commitment_signed", msg);
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
