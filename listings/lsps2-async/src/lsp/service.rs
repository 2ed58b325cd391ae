//! The few calls of LDK that the desk needs, as traits.
//!
//! [`Lsps2Service`] is LDK's [`LSPS2ServiceHandler`], [`Switch`] its `ChannelManager`. The traits
//! let the desk be tested without a node, and stand where a later LDK may answer differently.

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use core::future::Future;
use core::ops::Deref;
use lightning::chain::chaininterface::BroadcasterInterface;
use lightning::events::HTLCHandlingFailureType;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{AChannelManager, InterceptId};
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::errors::APIError;
use lightning::util::persist::KVStore;
use lightning_liquidity::lsps0::ser::LSPSRequestId;
use lightning_liquidity::lsps2::msgs::LSPS2RawOpeningFeeParams;
use lightning_liquidity::lsps2::service::LSPS2ServiceHandler;

use crate::lsp::held::InterceptedHtlc;

/// What LDK's answer to an LSPS2 call means, when it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lsps2Failure {
    /// LSPS2 acted, but could not write its state. It writes again by itself: do not undo.
    NotPersisted(String),
    /// An HTLC it meant to forward or fail is no longer held. Its queue has moved on.
    HtlcGone(String),
    /// It did not act.
    Refused(String),
}

impl From<APIError> for Lsps2Failure {
    /// LDK has one error variant for all three, so only its text tells them apart
    /// (`lsps2/service.rs`, `persist_peer_state`; `channelmanager.rs`, `forward_intercepted_htlc`).
    fn from(error: APIError) -> Self {
        let text = match &error {
            APIError::APIMisuseError { err } => err.clone(),
            APIError::FeeRateTooHigh { .. }
            | APIError::InvalidRoute { .. }
            | APIError::ChannelUnavailable { .. }
            | APIError::MonitorUpdateInProgress
            | APIError::IncompatibleShutdownScript { .. } => {
                return Self::Refused(format!("{error:?}"));
            }
        };
        if text.starts_with("Failed to persist peer state") {
            Self::NotPersisted(text)
        } else if text.starts_with("Payment with intercept id") {
            Self::HtlcGone(text)
        } else {
            Self::Refused(text)
        }
    }
}

/// The LSPS2 state machine.
pub trait Lsps2Service {
    /// Whether LSPS2 still has the lease. If not, it would answer an HTLC with `Ok(())` and let it
    /// hang.
    fn knows(&self, client: &PublicKey, user_channel_id: u128) -> bool;

    /// Answers `lsps2.get_info` with a menu.
    fn offer_menu(
        &self,
        client: &PublicKey,
        request_id: LSPSRequestId,
        menu: Vec<LSPS2RawOpeningFeeParams>,
    ) -> Result<(), APIError>;

    /// Answers `lsps2.get_info` with error 200.
    fn refuse_token(&self, client: &PublicKey, request_id: LSPSRequestId) -> Result<(), APIError>;

    /// Answers `lsps2.buy`.
    fn deliver(
        &self,
        client: &PublicKey,
        request_id: LSPSRequestId,
        parameters: InvoiceParameters,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// Hands over one HTLC.
    fn htlc_intercepted(
        &self,
        htlc: &InterceptedHtlc,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// The channel can carry HTLCs.
    fn channel_ready(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
        client: &PublicKey,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// The channel was not opened: its HTLCs are failed and the lease may be used again.
    fn channel_open_failed(
        &self,
        client: &PublicKey,
        user_channel_id: u128,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// The channel will not be opened: its HTLCs are failed and the lease is dropped.
    fn channel_open_abandoned(
        &self,
        client: &PublicKey,
        user_channel_id: u128,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// The channel is gone.
    fn channel_closed(
        &self,
        channel_id: ChannelId,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// `skimmed_fee_msat` is what the channel has earned *in all*.
    fn payment_forwarded(
        &self,
        channel_id: ChannelId,
        skimmed_fee_msat: u64,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// The payment that carried the fee failed on this channel.
    fn fee_payment_failed(
        &self,
        channel_id: ChannelId,
        client: PublicKey,
    ) -> impl Future<Output = Result<(), APIError>> + Send;

    /// Gives LSPS2 the transaction it will broadcast once the fee is paid.
    fn store_funding(
        &self,
        client: &PublicKey,
        user_channel_id: u128,
        transaction: Transaction,
    ) -> Result<(), APIError>;

    /// The stored transaction may be broadcast.
    fn funding_is_safe(&self, client: &PublicKey, user_channel_id: u128) -> Result<(), APIError>;
}

/// What the client is told in answer to `lsps2.buy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvoiceParameters {
    /// The SCID of the channel to come.
    pub intercept_scid: u64,
    /// The CLTV delta, in blocks, of the LSP's hop.
    pub cltv_expiry_delta: u16,
    /// Which side trusts.
    pub client_trusts_lsp: bool,
    /// The LSP's own id of the channel to come; not sent.
    pub user_channel_id: u128,
}

impl<CM, K, T> Lsps2Service for LSPS2ServiceHandler<CM, K, T>
where
    CM: Deref + Send + Sync,
    CM::Target: AChannelManager,
    K: KVStore + Clone + Send + Sync,
    T: BroadcasterInterface + Clone + Send + Sync,
{
    fn knows(&self, client: &PublicKey, user_channel_id: u128) -> bool {
        // The one question about a lease that LDK answers without a side effect.
        self.channel_needs_manual_broadcast(user_channel_id, client).is_ok()
    }

    fn offer_menu(
        &self,
        client: &PublicKey,
        request_id: LSPSRequestId,
        menu: Vec<LSPS2RawOpeningFeeParams>,
    ) -> Result<(), APIError> {
        self.opening_fee_params_generated(client, request_id, menu)
    }

    fn refuse_token(&self, client: &PublicKey, request_id: LSPSRequestId) -> Result<(), APIError> {
        self.invalid_token_provided(client, request_id)
    }

    async fn deliver(
        &self,
        client: &PublicKey,
        request_id: LSPSRequestId,
        parameters: InvoiceParameters,
    ) -> Result<(), APIError> {
        self.invoice_parameters_generated(
            client,
            request_id,
            parameters.intercept_scid,
            parameters.cltv_expiry_delta.into(),
            parameters.client_trusts_lsp,
            parameters.user_channel_id,
        )
        .await
    }

    async fn htlc_intercepted(&self, htlc: &InterceptedHtlc) -> Result<(), APIError> {
        LSPS2ServiceHandler::htlc_intercepted(
            self,
            htlc.requested_next_hop_scid,
            htlc.intercept_id,
            htlc.expected_outbound_amount_msat,
            htlc.payment_hash,
            htlc.inbound_amount_msat,
        )
        .await
    }

    async fn channel_ready(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
        client: &PublicKey,
    ) -> Result<(), APIError> {
        LSPS2ServiceHandler::channel_ready(self, user_channel_id, &channel_id, client).await
    }

    async fn channel_open_failed(
        &self,
        client: &PublicKey,
        user_channel_id: u128,
    ) -> Result<(), APIError> {
        LSPS2ServiceHandler::channel_open_failed(self, client, user_channel_id).await
    }

    async fn channel_open_abandoned(
        &self,
        client: &PublicKey,
        user_channel_id: u128,
    ) -> Result<(), APIError> {
        LSPS2ServiceHandler::channel_open_abandoned(self, client, user_channel_id).await
    }

    async fn channel_closed(&self, channel_id: ChannelId) -> Result<(), APIError> {
        LSPS2ServiceHandler::channel_closed(self, channel_id).await
    }

    async fn payment_forwarded(
        &self,
        channel_id: ChannelId,
        skimmed_fee_msat: u64,
    ) -> Result<(), APIError> {
        LSPS2ServiceHandler::payment_forwarded(self, channel_id, skimmed_fee_msat).await
    }

    async fn fee_payment_failed(
        &self,
        channel_id: ChannelId,
        client: PublicKey,
    ) -> Result<(), APIError> {
        let node_id = Some(client);
        self.htlc_handling_failed(HTLCHandlingFailureType::Forward { node_id, channel_id }).await
    }

    fn store_funding(
        &self,
        client: &PublicKey,
        user_channel_id: u128,
        transaction: Transaction,
    ) -> Result<(), APIError> {
        self.store_funding_transaction(user_channel_id, client, transaction)
    }

    fn funding_is_safe(&self, client: &PublicKey, user_channel_id: u128) -> Result<(), APIError> {
        self.set_funding_tx_broadcast_safe(user_channel_id, client)
    }
}

/// What the desk must know of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelView {
    /// The channel.
    pub channel_id: ChannelId,
    /// The id it was created under.
    pub user_channel_id: u128,
    /// The peer.
    pub counterparty: PublicKey,
    /// Whether `channel_ready` was exchanged.
    pub is_ready: bool,
    /// The payment of each HTLC that is on its way to the client and from which something was skimmed.
    pub skimmed: Vec<PaymentHash>,
}

impl From<&ChannelDetails> for ChannelView {
    fn from(details: &ChannelDetails) -> Self {
        let in_flight = details.pending_outbound_htlcs.iter();
        Self {
            channel_id: details.channel_id,
            user_channel_id: details.user_channel_id,
            counterparty: details.counterparty.node_id,
            is_ready: details.is_channel_ready,
            skimmed: in_flight
                .filter(|htlc| htlc.skimmed_fee_msat.is_some_and(|skim_msat| skim_msat > 0))
                .map(|htlc| htlc.payment_hash)
                .collect(),
        }
    }
}

/// The part of the `ChannelManager` that moves HTLCs and funds channels.
pub trait Switch {
    /// Forwards a held HTLC. Errors if it is no longer held, or the channel cannot carry it.
    fn forward(
        &self,
        intercept_id: InterceptId,
        channel_id: ChannelId,
        client: PublicKey,
        amt_to_forward_msat: u64,
    ) -> Result<(), APIError>;

    /// Fails a held HTLC. Errors, and does nothing, if it was forwarded or failed before.
    fn fail(&self, intercept_id: InterceptId) -> Result<(), APIError>;

    /// The height of the best block.
    fn height(&self) -> u32;

    /// The channels with `client`, whoever opened them.
    fn channels_with(&self, client: &PublicKey) -> Vec<ChannelView>;

    /// Hands over a funding transaction. With `manual_broadcast`, LDK does not broadcast it.
    fn fund(
        &self,
        temporary_channel_id: ChannelId,
        counterparty: PublicKey,
        transaction: Transaction,
        manual_broadcast: bool,
    ) -> Result<(), APIError>;
}

impl<M: AChannelManager> Switch for M {
    fn forward(
        &self,
        intercept_id: InterceptId,
        channel_id: ChannelId,
        client: PublicKey,
        amt_to_forward_msat: u64,
    ) -> Result<(), APIError> {
        let manager = self.get_cm();
        manager.forward_intercepted_htlc(intercept_id, &channel_id, client, amt_to_forward_msat)
    }

    fn fail(&self, intercept_id: InterceptId) -> Result<(), APIError> {
        self.get_cm().fail_intercepted_htlc(intercept_id)
    }

    fn height(&self) -> u32 {
        self.get_cm().current_best_block().height
    }

    fn channels_with(&self, client: &PublicKey) -> Vec<ChannelView> {
        let channels = self.get_cm().list_channels_with_counterparty(client);
        channels.iter().map(ChannelView::from).collect()
    }

    fn fund(
        &self,
        temporary_channel_id: ChannelId,
        counterparty: PublicKey,
        transaction: Transaction,
        manual_broadcast: bool,
    ) -> Result<(), APIError> {
        let manager = self.get_cm();
        match manual_broadcast {
            true => manager.funding_transaction_generated_manual_broadcast(
                temporary_channel_id,
                counterparty,
                transaction,
            ),
            false => manager.funding_transaction_generated(
                temporary_channel_id,
                counterparty,
                transaction,
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsp::testing::misuse;

    #[test]
    fn the_three_kinds_of_error_are_told_apart() {
        let kind = |text: &str| Lsps2Failure::from(misuse(text));
        let unwritten = kind("Failed to persist peer state for 02ab: disk full");
        assert!(matches!(unwritten, Lsps2Failure::NotPersisted(_)));
        let gone = kind("Payment with intercept id 0101 not found");
        assert!(matches!(gone, Lsps2Failure::HtlcGone(_)));
        assert!(matches!(kind("Unknown scid provided: 3"), Lsps2Failure::Refused(_)));
        let unusable = APIError::ChannelUnavailable { err: "Failed to persist peer state".into() };
        assert!(matches!(Lsps2Failure::from(unusable), Lsps2Failure::Refused(_)));
    }
}
