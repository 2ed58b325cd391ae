//! The payer: pays an offer whose recipient is offline, and may go offline itself.

use anyhow::{Result, anyhow};
use lightning::bolt11_invoice::Bolt11Invoice;
use lightning::events::{Event, ReplayEvent};
use lightning::ln::channelmanager::{OptionalBolt11PaymentParams, PaymentId};
use lightning::offers::offer::Offer;
use lightning::sign::EntropySource;
use lightning::util::config::UserConfig;
use lightning_liquidity::events::LiquidityEvent;
use lsps2_async::payer::{PayerMode, PaymentStage, explain_failure, pay_offer, stage};
use lsps2_async::router::PathPolicy;
use std::sync::Arc;

use crate::node::{Node, NodeConfig, Role, Setup};
use crate::transcript::HtlcState;

/// A running payer.
pub struct Payer {
    node: Arc<Node>,
}

struct PayerRole {
    node: Arc<Node>,
}

impl std::ops::Deref for Payer {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Payer {
    /// Starts the payer of a folder, or makes a new one there.
    pub async fn start(config: NodeConfig, mode: PayerMode) -> Result<Self> {
        let setup = Setup {
            user_config: user_config(mode),
            mailbox: false,
            promise_secret: None,
            paths: PathPolicy::default(),
        };
        let node = Node::build(config, setup).await?;
        node.run(Arc::new(PayerRole { node: node.clone() }));
        Ok(Self { node })
    }

    /// Step 4: pays an offer. The outcome is an event, when the recipient has come online.
    pub fn pay(&self, offer: &Offer, amount_msat: u64) -> Result<PaymentId> {
        let node = &self.node;
        // Before LDK acts on it, which may need a connection first.
        node.note_htlc(HtlcState::Requested, None, amount_msat, 0, None);
        let id = pay_offer(&*node.channel_manager, &*node.keys, offer, Some(amount_msat))?;
        node.peer_manager.process_events();
        Ok(id)
    }

    /// Plain LSPS2: pays a BOLT 11 invoice. `amount_msat` is for an invoice that names no amount.
    pub fn pay_invoice(
        &self,
        invoice: &Bolt11Invoice,
        amount_msat: Option<u64>,
    ) -> Result<PaymentId> {
        let node = &self.node;
        let id = PaymentId(node.keys.get_secure_random_bytes());
        let msat = invoice.amount_milli_satoshis().or(amount_msat).unwrap_or(0);
        node.note_htlc(HtlcState::Requested, Some(invoice.payment_hash()), msat, 0, None);
        node.channel_manager
            .pay_for_bolt11_invoice(
                invoice,
                id,
                amount_msat,
                OptionalBolt11PaymentParams::default(),
            )
            .map_err(|error| anyhow!("LDK does not pay this invoice: {error:?}"))?;
        node.peer_manager.process_events();
        Ok(id)
    }

    /// What this payer can see of a payment.
    pub fn stage(&self, id: PaymentId) -> Option<PaymentStage> {
        stage(&*self.node.channel_manager, id)
    }
}

/// LDK's flags for a payer: its defaults, and the hold for one that goes offline.
pub fn user_config(mode: PayerMode) -> UserConfig {
    let mut config = UserConfig::default();
    mode.configure(&mut config);
    config
}

impl Role for PayerRole {
    async fn on_event(&self, event: Event) -> Result<(), ReplayEvent> {
        self.node.note(&event);
        match event {
            // The recipient has claimed: tell the payer.
            Event::PaymentSent { payment_hash, amount_msat, fee_paid_msat, .. } => {
                let sent = amount_msat.unwrap_or(0) + fee_paid_msat.unwrap_or(0);
                self.node.note_htlc(HtlcState::Paid, Some(payment_hash), sent, 0, None);
                Ok(())
            }
            // Tell the payer why: the money is back, or on its way back.
            Event::PaymentFailed { payment_hash, reason, .. } => {
                let reason = explain_failure(reason).to_owned();
                self.node.note_htlc(HtlcState::Failed, payment_hash, 0, 0, Some(reason));
                Ok(())
            }
            Event::FundingGenerationReady { .. }
            | Event::FundingTxBroadcastSafe { .. }
            | Event::PaymentClaimable { .. }
            | Event::PaymentClaimed { .. }
            | Event::ConnectionNeeded { .. }
            | Event::InvoiceReceived { .. }
            | Event::PaymentPathSuccessful { .. }
            | Event::PaymentPathFailed { .. }
            | Event::ProbeSuccessful { .. }
            | Event::ProbeFailed { .. }
            | Event::HTLCIntercepted { .. }
            | Event::SpendableOutputs { .. }
            | Event::PaymentForwarded { .. }
            | Event::ChannelPending { .. }
            | Event::ChannelReady { .. }
            | Event::ChannelClosed { .. }
            | Event::SpliceNegotiated { .. }
            | Event::SpliceNegotiationFailed { .. }
            | Event::DiscardFunding { .. }
            | Event::OpenChannelRequest { .. }
            | Event::HTLCHandlingFailed { .. }
            | Event::BumpTransaction(_)
            | Event::OnionMessageIntercepted { .. }
            | Event::OnionMessagePeerConnected { .. }
            | Event::PersistStaticInvoice { .. }
            | Event::StaticInvoiceRequested { .. }
            | Event::FundingTransactionReadyForSigning { .. } => {
                self.node.on_common_event(event).await
            }
        }
    }

    async fn on_liquidity_event(&self, _: LiquidityEvent) {}

    async fn on_tick(&self) {}
}
