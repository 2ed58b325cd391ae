//! LDK's events: what the transcript says of each, and what every role does alike.

use bitcoin::Amount;
use lightning::events::{Event, FundingInfo, ReplayEvent};
use lightning::ln::types::ChannelId;
use lightning::offers::payer_proof::PaidBolt12Invoice;
use lightning_liquidity::lsps2::event::{LSPS2ClientEvent, LSPS2ServiceEvent};
use serde_json::{Value, json};
use std::sync::Arc;

use crate::node::Node;
use crate::transcript::{HtlcState, What};

impl Node {
    /// Writes an event to the transcript, before it is handled.
    pub(crate) fn note(&self, event: &Event) {
        let (name, detail) = describe(event);
        self.pen.write(What::Event { name: name.to_owned(), detail });
        self.pen.purse.weigh();
    }

    /// Writes an event of LSPS2 at the client, before it is handled.
    pub(crate) fn note_bought(&self, event: &LSPS2ClientEvent) {
        let (name, detail) = bought(event);
        self.pen.write(What::Event { name: name.to_owned(), detail });
    }

    /// Writes an event of LSPS2 at the LSP, before it is handled.
    pub(crate) fn note_sold(&self, event: &LSPS2ServiceEvent) {
        let (name, detail) = sold(event);
        self.pen.write(What::Event { name: name.to_owned(), detail });
    }

    /// What every role does alike. Roles hand over here what they have nothing of their own to do
    /// with; the match has no wildcard, so that a new kind of event breaks the build.
    pub(crate) async fn on_common_event(self: &Arc<Self>, event: Event) -> Result<(), ReplayEvent> {
        match event {
            // Fund the channel from the wallet with `funding_transaction_generated`; if that fails,
            // give the channel up.
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                ..
            } => {
                let paid =
                    self.wallet.pay(&output_script, Amount::from_sat(channel_value_satoshis));
                let funded = paid.map_err(|e| e.to_string()).and_then(|transaction| {
                    self.channel_manager
                        .funding_transaction_generated(
                            temporary_channel_id,
                            counterparty_node_id,
                            transaction,
                        )
                        .map_err(|e| format!("{e:?}"))
                });
                if let Err(reason) = funded {
                    self.give_up_channel(temporary_channel_id, &counterparty_node_id, reason);
                }
            }
            // Connect to one of the addresses, in the background: an onion message waits for it, and
            // a stranger chose them.
            Event::ConnectionNeeded { node_id, addresses } => {
                self.clone().connect_in_background(node_id, addresses);
            }
            // Nothing to answer.
            Event::ChannelPending { channel_id, counterparty_node_id, .. } => {
                self.note_channel("pending", channel_id, &counterparty_node_id, None);
            }
            // Nothing to answer.
            Event::ChannelReady { channel_id, counterparty_node_id, .. } => {
                self.note_channel("ready", channel_id, &counterparty_node_id, None);
            }
            // Nothing to answer.
            Event::ChannelClosed { channel_id, counterparty_node_id, reason, .. } => {
                if let Some(peer) = counterparty_node_id {
                    self.note_channel("closed", channel_id, &peer, Some(reason.to_string()));
                }
            }
            // Hand the outputs to the sweeper, which keeps them on disk and spends them to the wallet; if
            // it cannot, ask for the event again.
            Event::SpendableOutputs { outputs, channel_id, counterparty_node_id } => {
                self.sweeper
                    .track_spendable_outputs(outputs, channel_id, counterparty_node_id, false, None)
                    .await
                    .map_err(|()| ReplayEvent())?;
                // Now, and not when LDK's loop looks at them next; it tries again if this fails.
                let _ = self.sweeper.regenerate_and_broadcast_spend_if_necessary().await;
            }
            // Hand it to LDK's bump handler, which pays for the confirmation of a force close.
            Event::BumpTransaction(event) => self.bump_handler.handle_event(&event),
            // Refuse with `force_close_broadcasting_latest_txn`: nobody opens channels to this node
            // unasked.
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                self.refuse_channel(
                    temporary_channel_id,
                    &counterparty_node_id,
                    "this node takes no channel from this peer".to_owned(),
                );
            }
            // Fail it back with `fail_intercepted_htlc`: only an LSP has something to intercept.
            Event::HTLCIntercepted { intercept_id, .. } => {
                let _ = self.channel_manager.fail_intercepted_htlc(intercept_id);
            }
            // Fail it back with `fail_htlc_backwards`: this node has asked for no payment.
            Event::PaymentClaimable { payment_hash, .. } => {
                self.channel_manager.fail_htlc_backwards(&payment_hash);
            }
            // Free the coins of a funding transaction that will not be used.
            Event::DiscardFunding { funding_info, .. } => match funding_info {
                FundingInfo::Tx { transaction } => self.wallet.release(&transaction),
                // A funding that an LSP withheld: it knows the transaction itself. The other comes of
                // splices and dual funding, which are off.
                FundingInfo::OutPoint { .. } | FundingInfo::Contribution { .. } => {}
            },
            // Nothing to answer.
            Event::PaymentClaimed { .. }
            | Event::PaymentSent { .. }
            | Event::PaymentFailed { .. }
            | Event::PaymentPathSuccessful { .. }
            | Event::PaymentPathFailed { .. }
            | Event::PaymentForwarded { .. }
            | Event::HTLCHandlingFailed { .. }
            | Event::ProbeSuccessful { .. }
            | Event::ProbeFailed { .. }
            | Event::FundingTxBroadcastSafe { .. } => {}
            // Not raised here: the node does not switch on what raises it.
            Event::InvoiceReceived { .. }
            | Event::SpliceNegotiated { .. }
            | Event::SpliceNegotiationFailed { .. }
            | Event::FundingTransactionReadyForSigning { .. }
            | Event::OnionMessageIntercepted { .. }
            | Event::OnionMessagePeerConnected { .. }
            | Event::PersistStaticInvoice { .. }
            | Event::StaticInvoiceRequested { .. } => {}
        }
        Ok(())
    }

    pub(crate) fn note_channel(
        &self,
        state: &str,
        channel_id: ChannelId,
        peer: &bitcoin::secp256k1::PublicKey,
        reason: Option<String>,
    ) {
        let channels = self.channel_manager.list_channels_with_counterparty(peer);
        let channel = channels.iter().find(|c| c.channel_id == channel_id);
        self.pen.write(What::Channel {
            state: state.to_owned(),
            peer: self.name_of(peer),
            channel_id: channel_id.to_string(),
            capacity_sat: channel.map(|c| c.channel_value_satoshis),
            reason,
        });
    }

    /// Writes that an HTLC, or its payment, changed its state.
    pub(crate) fn note_htlc(
        &self,
        state: HtlcState,
        payment_hash: Option<lightning::types::payment::PaymentHash>,
        amount_msat: u64,
        skimmed_fee_msat: u64,
        reason: Option<String>,
    ) {
        self.pen.write(What::Htlc {
            state,
            payment_hash: payment_hash.map(|hash| hash.to_string()),
            amount_msat,
            skimmed_fee_msat,
            reason,
        });
    }

    pub(crate) fn refuse_channel(
        &self,
        channel_id: ChannelId,
        peer: &bitcoin::secp256k1::PublicKey,
        reason: String,
    ) {
        self.note_channel("refused", channel_id, peer, Some(reason.clone()));
        self.close_unopened(channel_id, peer, reason);
    }

    fn give_up_channel(
        &self,
        channel_id: ChannelId,
        peer: &bitcoin::secp256k1::PublicKey,
        reason: String,
    ) {
        self.note_channel("open_failed", channel_id, peer, Some(reason.clone()));
        self.close_unopened(channel_id, peer, reason);
    }

    /// An unfunded channel has no transaction: "force-closing" it only forgets it.
    pub(crate) fn close_unopened(
        &self,
        channel_id: ChannelId,
        peer: &bitcoin::secp256k1::PublicKey,
        reason: String,
    ) {
        let _ = self.channel_manager.force_close_broadcasting_latest_txn(&channel_id, peer, reason);
    }
}

/// An event's name and the fields that matter for this flow.
pub(crate) fn describe(event: &Event) -> (&'static str, Value) {
    match event {
        Event::FundingGenerationReady { channel_value_satoshis, .. } => {
            ("FundingGenerationReady", json!({ "channel_value_sat": channel_value_satoshis }))
        }
        Event::FundingTxBroadcastSafe { channel_id, funding_txo, .. } => (
            "FundingTxBroadcastSafe",
            json!({ "channel_id": channel_id.to_string(), "funding": funding_txo.to_string() }),
        ),
        Event::PaymentClaimable {
            payment_hash,
            amount_msat,
            counterparty_skimmed_fee_msat,
            claim_deadline,
            ..
        } => (
            "PaymentClaimable",
            json!({
                "payment_hash": payment_hash.to_string(),
                "amount_msat": amount_msat,
                "counterparty_skimmed_fee_msat": counterparty_skimmed_fee_msat,
                "claim_deadline": claim_deadline,
            }),
        ),
        Event::PaymentClaimed { payment_hash, amount_msat, htlcs, .. } => (
            "PaymentClaimed",
            json!({
                "payment_hash": payment_hash.to_string(),
                "amount_msat": amount_msat,
                "counterparty_skimmed_fee_msat":
                    // What the peer has written: the sum may be beyond any amount.
                    htlcs
                        .iter()
                        .map(|h| h.counterparty_skimmed_fee_msat)
                        .fold(0, u64::saturating_add),
                "htlcs": htlcs.len(),
            }),
        ),
        Event::ConnectionNeeded { node_id, addresses } => (
            "ConnectionNeeded",
            json!({ "node_id": node_id.to_string(), "addresses": addresses.len() }),
        ),
        Event::InvoiceReceived { .. } => ("InvoiceReceived", Value::Null),
        Event::PaymentSent { payment_hash, amount_msat, fee_paid_msat, bolt12_invoice, .. } => (
            "PaymentSent",
            json!({
                "payment_hash": payment_hash.to_string(),
                "amount_msat": amount_msat,
                "fee_paid_msat": fee_paid_msat,
                // A payment of a static invoice proves nothing: the payer chose the preimage.
                "bolt12_invoice": bolt12_invoice.as_ref().map(|paid| match paid {
                    PaidBolt12Invoice::Bolt12Invoice(_) => "invoice",
                    PaidBolt12Invoice::StaticInvoice(_) => "static_invoice",
                }),
            }),
        ),
        Event::PaymentFailed { payment_hash, reason, .. } => (
            "PaymentFailed",
            json!({
                "payment_hash": payment_hash.map(|hash| hash.to_string()),
                "reason": reason.map(|reason| format!("{reason:?}")),
            }),
        ),
        Event::PaymentPathSuccessful { .. } => ("PaymentPathSuccessful", Value::Null),
        Event::PaymentPathFailed { payment_hash, short_channel_id, failure, .. } => (
            "PaymentPathFailed",
            json!({
                "payment_hash": payment_hash.to_string(),
                "short_channel_id": short_channel_id,
                "failure": format!("{failure:?}"),
            }),
        ),
        Event::ProbeSuccessful { .. } => ("ProbeSuccessful", Value::Null),
        Event::ProbeFailed { .. } => ("ProbeFailed", Value::Null),
        Event::HTLCIntercepted {
            requested_next_hop_scid,
            payment_hash,
            inbound_amount_msat,
            expected_outbound_amount_msat,
            outgoing_htlc_expiry_block_height,
            ..
        } => (
            "HTLCIntercepted",
            json!({
                "requested_next_hop_scid": scid(*requested_next_hop_scid),
                "payment_hash": payment_hash.to_string(),
                "inbound_amount_msat": inbound_amount_msat,
                "expected_outbound_amount_msat": expected_outbound_amount_msat,
                "outgoing_htlc_expiry_block_height": outgoing_htlc_expiry_block_height,
            }),
        ),
        Event::SpendableOutputs { outputs, .. } => {
            ("SpendableOutputs", json!({ "outputs": outputs.len() }))
        }
        Event::PaymentForwarded {
            prev_htlcs,
            total_fee_earned_msat,
            skimmed_fee_msat,
            outbound_amount_forwarded_msat,
            claim_from_onchain_tx,
            ..
        } => (
            "PaymentForwarded",
            json!({
                "outbound_amount_forwarded_msat": outbound_amount_forwarded_msat,
                "total_fee_earned_msat": total_fee_earned_msat,
                "skimmed_fee_msat": skimmed_fee_msat,
                "claim_from_onchain_tx": claim_from_onchain_tx,
                // Which HTLC it was: an event may come again after a restart.
                "prev_htlcs": prev_htlcs
                    .iter()
                    .map(|htlc| format!("{} {:?}", htlc.channel_id, htlc.htlc_id))
                    .collect::<Vec<_>>(),
            }),
        ),
        Event::ChannelPending { channel_id, funding_txo, .. } => (
            "ChannelPending",
            json!({ "channel_id": channel_id.to_string(), "funding": funding_txo.to_string() }),
        ),
        Event::ChannelReady { channel_id, .. } => {
            ("ChannelReady", json!({ "channel_id": channel_id.to_string() }))
        }
        Event::ChannelClosed { channel_id, reason, .. } => (
            "ChannelClosed",
            json!({ "channel_id": channel_id.to_string(), "reason": reason.to_string() }),
        ),
        Event::SpliceNegotiated { .. } => ("SpliceNegotiated", Value::Null),
        Event::SpliceNegotiationFailed { .. } => ("SpliceNegotiationFailed", Value::Null),
        Event::DiscardFunding { channel_id, .. } => {
            ("DiscardFunding", json!({ "channel_id": channel_id.to_string() }))
        }
        Event::OpenChannelRequest { funding_satoshis, is_announced, .. } => (
            "OpenChannelRequest",
            json!({ "funding_sat": funding_satoshis, "is_announced": is_announced }),
        ),
        Event::HTLCHandlingFailed { failure_type, failure_reason, .. } => (
            "HTLCHandlingFailed",
            json!({
                "failure_type": format!("{failure_type:?}"),
                "failure_reason": failure_reason.as_ref().map(|reason| format!("{reason:?}")),
            }),
        ),
        Event::BumpTransaction(_) => ("BumpTransaction", Value::Null),
        Event::OnionMessageIntercepted { prev_hop, .. } => {
            ("OnionMessageIntercepted", json!({ "forwarded_by_us": prev_hop.is_none() }))
        }
        Event::OnionMessagePeerConnected { .. } => ("OnionMessagePeerConnected", Value::Null),
        Event::PersistStaticInvoice { invoice_slot, .. } => {
            ("PersistStaticInvoice", json!({ "invoice_slot": invoice_slot }))
        }
        Event::StaticInvoiceRequested { invoice_slot, .. } => {
            ("StaticInvoiceRequested", json!({ "invoice_slot": invoice_slot }))
        }
        Event::FundingTransactionReadyForSigning { .. } => {
            ("FundingTransactionReadyForSigning", Value::Null)
        }
    }
}

fn bought(event: &LSPS2ClientEvent) -> (&'static str, Value) {
    match event {
        LSPS2ClientEvent::OpeningParametersReady {
            counterparty_node_id,
            opening_fee_params_menu,
            ..
        } => (
            "OpeningParametersReady",
            json!({
                "counterparty_node_id": counterparty_node_id.to_string(),
                "opening_fee_params_menu": opening_fee_params_menu.len(),
            }),
        ),
        LSPS2ClientEvent::InvoiceParametersReady {
            counterparty_node_id,
            intercept_scid,
            cltv_expiry_delta,
            payment_size_msat,
            ..
        } => (
            "InvoiceParametersReady",
            json!({
                "counterparty_node_id": counterparty_node_id.to_string(),
                "intercept_scid": scid(*intercept_scid),
                "cltv_expiry_delta": cltv_expiry_delta,
                "payment_size_msat": payment_size_msat,
            }),
        ),
        LSPS2ClientEvent::GetInfoFailed { counterparty_node_id, error, .. } => (
            "GetInfoFailed",
            json!({
                "counterparty_node_id": counterparty_node_id.to_string(),
                "code": error.code,
                "error": error.message,
            }),
        ),
        LSPS2ClientEvent::BuyRequestFailed { counterparty_node_id, error, .. } => (
            "BuyRequestFailed",
            json!({
                "counterparty_node_id": counterparty_node_id.to_string(),
                "code": error.code,
                "error": error.message,
            }),
        ),
    }
}

fn sold(event: &LSPS2ServiceEvent) -> (&'static str, Value) {
    match event {
        LSPS2ServiceEvent::GetInfo { counterparty_node_id, token, .. } => (
            "GetInfo",
            json!({ "counterparty_node_id": counterparty_node_id.to_string(), "token": token }),
        ),
        LSPS2ServiceEvent::BuyRequest {
            counterparty_node_id,
            opening_fee_params,
            payment_size_msat,
            ..
        } => (
            "BuyRequest",
            json!({
                "counterparty_node_id": counterparty_node_id.to_string(),
                "min_fee_msat": opening_fee_params.min_fee_msat,
                "proportional": opening_fee_params.proportional,
                "payment_size_msat": payment_size_msat,
            }),
        ),
        LSPS2ServiceEvent::OpenChannel {
            their_network_key,
            amt_to_forward_msat,
            opening_fee_msat,
            intercept_scid,
            ..
        } => (
            "OpenChannel",
            json!({
                "their_network_key": their_network_key.to_string(),
                "amt_to_forward_msat": amt_to_forward_msat,
                "opening_fee_msat": opening_fee_msat,
                "intercept_scid": scid(*intercept_scid),
            }),
        ),
    }
}

/// An SCID the way people read it: block x transaction x output.
pub(crate) fn scid(scid: u64) -> String {
    format!("{}x{}x{}", scid >> 40, (scid >> 16) & 0xff_ffff, scid & 0xffff)
}
