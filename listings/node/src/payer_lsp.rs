//! The payer's LSP: forwards, and holds HTLCs for payers that are often offline.

use anyhow::Result;
use lightning::events::{Event, ReplayEvent};
use lightning::util::config::UserConfig;
use lightning_liquidity::events::LiquidityEvent;
use lsps2_async::payer::configure_payers_lsp;
use lsps2_async::router::PathPolicy;
use std::sync::Arc;

use crate::node::{Node, NodeConfig, Role, Setup};
use crate::transcript::HtlcState;

/// A running payer's LSP.
pub struct PayerLsp {
    node: Arc<Node>,
}

struct PayerLspRole {
    node: Arc<Node>,
}

impl std::ops::Deref for PayerLsp {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl PayerLsp {
    /// Starts the payer's LSP of a folder, or makes a new one there.
    pub async fn start(config: NodeConfig) -> Result<Self> {
        let setup = Setup {
            user_config: user_config(),
            mailbox: false,
            promise_secret: None,
            paths: PathPolicy::default(),
        };
        let node = Node::build(config, setup).await?;
        node.run(Arc::new(PayerLspRole { node: node.clone() }));
        Ok(Self { node })
    }
}

/// LDK's flags for a payer's LSP.
pub fn user_config() -> UserConfig {
    let mut config = UserConfig::default();
    configure_payers_lsp(&mut config);
    config.channel_handshake_config.announce_for_forwarding = true;
    config
}

/// LDK parks a held HTLC without an event, and releases it on the recipient's word.
impl Role for PayerLspRole {
    async fn on_event(&self, event: Event) -> Result<(), ReplayEvent> {
        self.node.note(&event);
        match event {
            // Accept it, after the usual confirmations: payers open unannounced channels to their LSP.
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                self.node.accept_channel(temporary_channel_id, counterparty_node_id);
                Ok(())
            }
            // Leave it alone. After a restart LDK raises it for each HTLC it holds for a payer, and
            // `fail_intercepted_htlc` would fail the payment; nothing else is intercepted here.
            Event::HTLCIntercepted { .. } => Ok(()),
            // Nothing to answer.
            Event::PaymentForwarded {
                outbound_amount_forwarded_msat, skimmed_fee_msat, ..
            } => {
                let (msat, skim) = (outbound_amount_forwarded_msat, skimmed_fee_msat.unwrap_or(0));
                self.node.note_htlc(HtlcState::Forwarded, None, msat, skim, None);
                Ok(())
            }
            Event::FundingGenerationReady { .. }
            | Event::FundingTxBroadcastSafe { .. }
            | Event::PaymentClaimable { .. }
            | Event::PaymentClaimed { .. }
            | Event::ConnectionNeeded { .. }
            | Event::InvoiceReceived { .. }
            | Event::PaymentSent { .. }
            | Event::PaymentFailed { .. }
            | Event::PaymentPathSuccessful { .. }
            | Event::PaymentPathFailed { .. }
            | Event::ProbeSuccessful { .. }
            | Event::ProbeFailed { .. }
            | Event::SpendableOutputs { .. }
            | Event::ChannelPending { .. }
            | Event::ChannelReady { .. }
            | Event::ChannelClosed { .. }
            | Event::SpliceNegotiated { .. }
            | Event::SpliceNegotiationFailed { .. }
            | Event::DiscardFunding { .. }
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

    async fn on_tick(&self) {
        self.node.announce();
    }
}
