//! Onion messages: the hops over which they come, and what they hold for this node.

use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::message::{AsyncPaymentsContext, OffersContext};
use lightning::ln::msgs::{OnionMessage, OnionMessageHandler};
use lightning::onion_message::async_payments::{
    AsyncPaymentsMessage, AsyncPaymentsMessageHandler, HeldHtlcAvailable, OfferPaths,
    OfferPathsRequest, ReleaseHeldHtlc, ServeStaticInvoice, StaticInvoicePersisted,
};
use lightning::onion_message::messenger::{
    MessageSendInstructions, Responder, ResponseInstruction,
};
use lightning::onion_message::offers::{OffersMessage, OffersMessageHandler};

use super::Tap;

impl<H: OnionMessageHandler> OnionMessageHandler for Tap<H> {
    fn handle_onion_message(&self, peer: PublicKey, msg: &OnionMessage) {
        self.pen.arrived(&peer, "onion_message", msg);
        self.inner.handle_onion_message(peer, msg)
    }
    fn next_onion_message_for_peer(&self, peer: PublicKey) -> Option<OnionMessage> {
        let message = self.inner.next_onion_message_for_peer(peer);
        message.filter(|_| !self.pen.life.is_over())
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
        self.pen.onion_arrived(name, &message);
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
        self.pen.onion_arrived("offer_paths_request", &message);
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
        self.pen.onion_arrived("offer_paths", &message);
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
        self.pen.onion_arrived("serve_static_invoice", &message);
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
        self.pen.onion_arrived("held_htlc_available", &message);
        let response = self.inner.handle_held_htlc_available(message, context, responder);
        if let Some((message, _)) = &response {
            self.pen.onion_sent("release_held_htlc", message);
        }
        response
    }
    fn handle_release_held_htlc(&self, message: ReleaseHeldHtlc, context: AsyncPaymentsContext) {
        self.pen.onion_arrived("release_held_htlc", &message);
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
