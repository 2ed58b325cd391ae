//! The onion messages of the three, and what their applications have to answer.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use lightning::blinded_path::message::BlindedMessagePath;
use lightning::events::{Event, EventsProvider};
use lightning::ln::channelmanager::PaymentId;
use lightning::ln::msgs::{BaseMessageHandler, Init, OnionMessageHandler};
use lightning::ln::peer_handler::IgnoringMessageHandler;
use lightning::offers::offer::Offer;
use lightning::offers::static_invoice::StaticInvoice;
use lightning::onion_message::messenger::OnionMessenger;
use lightning::sign::KeysManager;

use super::rig::{Manager, Party, Quiet, Rig, Ways};

pub(super) type Messenger = OnionMessenger<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Quiet>,
    Arc<Manager>,
    Arc<Ways>,
    Arc<Manager>,
    Arc<Manager>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;

/// A rig whose nodes write to each other, and whose LSP serves the client's static invoice.
pub(super) struct Post<'a> {
    pub(super) rig: &'a Rig,
    messengers: [Messenger; 3],
    pub(super) client_online: Cell<bool>,
    /// What came for the client while it was away, without what was forwarded to it as an invoice
    /// request. Nobody keeps it.
    pub(super) lost_mail: Cell<usize>,
    served: RefCell<Option<(StaticInvoice, BlindedMessagePath)>>,
    /// Whether LDK woke anybody for a static invoice, in the order of such events.
    pub(super) woken: RefCell<Vec<bool>>,
    /// Whether it woke anybody for any message.
    pub(super) ever_woken: Cell<bool>,
}

impl<'a> Post<'a> {
    /// With the SCID that the client's paths lead over.
    pub(super) fn new(rig: &'a Rig, scid: u64) -> Self {
        let parties = rig.parties();
        for party in parties {
            party.ways.hub.set((rig.lsp.id, scid)).expect("set once");
        }
        let messengers = parties.map(|party| {
            let (keys, manager) = (|| Arc::clone(&party.keys), || Arc::clone(&party.manager));
            OnionMessenger::new_with_offline_peer_interception(
                keys(),
                keys(),
                Arc::new(Quiet),
                manager(),
                Arc::clone(&party.ways),
                manager(),
                manager(),
                IgnoringMessageHandler {},
                IgnoringMessageHandler {},
                false,
            )
        });
        let post = Self {
            rig,
            messengers,
            client_online: Cell::new(true),
            lost_mail: Cell::default(),
            served: RefCell::default(),
            woken: RefCell::default(),
            ever_woken: Cell::default(),
        };
        post.connect(0, 1);
        post.connect(1, 2);
        post
    }

    fn connect(&self, one: usize, other: usize) {
        let parties = self.rig.parties();
        for (me, peer, inbound) in [(one, other, false), (other, one, true)] {
            let mut features = self.messengers[peer].provided_init_features(parties[me].id);
            features |= parties[peer].manager.provided_init_features(parties[me].id);
            let init = Init { features, networks: None, remote_network_address: None };
            self.messengers[me].peer_connected(parties[peer].id, &init, inbound).unwrap();
        }
    }

    /// The client goes away, and nobody keeps what comes for it.
    pub(super) fn client_leaves(&self) {
        let (lsp, client) = (self.rig.lsp.id, self.rig.client.id);
        self.messengers[1].peer_disconnected(client);
        self.messengers[2].peer_disconnected(lsp);
        self.client_online.set(false);
    }

    pub(super) fn client_returns(&self) {
        self.connect(1, 2);
        self.client_online.set(true);
    }

    /// The client's offer, once the server has its invoice.
    pub(super) fn offer(&self) -> Offer {
        let paths = self.rig.lsp.manager.blinded_paths_for_async_recipient(vec![1], None).unwrap();
        self.rig.client.manager.set_paths_to_static_invoice_server(paths).unwrap();
        self.talk();
        self.rig.client.manager.get_async_receive_offer().expect("the server has the invoice")
    }

    pub(super) fn pay(&self, offer: &Offer, amount_msat: u64) {
        self.pay_as(1, offer, amount_msat);
    }

    /// Pays under an id of its own.
    pub(super) fn pay_as(&self, id: u8, offer: &Offer, amount_msat: u64) {
        let (id, manager) = (PaymentId([id; 32]), &self.rig.payer.manager);
        manager.pay_for_offer(offer, Some(amount_msat), id, Default::default()).unwrap();
        self.talk();
    }

    /// Hands over messages of both kinds until nobody has more to say.
    pub(super) fn talk(&self) {
        loop {
            self.rig.talk();
            let mut quiet = true;
            for (from, to) in [(0, 1), (1, 0), (1, 2), (2, 1)] {
                quiet &= !self.carry(from, to);
            }
            quiet &= !self.serve();
            if quiet {
                return;
            }
        }
    }

    fn carry(&self, from: usize, to: usize) -> bool {
        let parties = self.rig.parties();
        if !self.client_online.get() && (from == 2 || to == 2) {
            return false;
        }
        let mut carried = false;
        while let Some(message) = self.messengers[from].next_onion_message_for_peer(parties[to].id)
        {
            carried = true;
            // What was to be woken for before is over.
            self.wakes(to);
            self.messengers[to].handle_onion_message(parties[from].id, &message);
            let woken = self.wakes(to);
            self.ever_woken.set(self.ever_woken.get() || woken);
            if self.asks(parties[to]) {
                self.woken.borrow_mut().push(woken);
                self.serve();
            }
            self.lose(to);
        }
        carried
    }

    /// Whether one of the futures that a background processor waits for is ready.
    fn wakes(&self, at: usize) -> bool {
        let manager = self.rig.parties()[at].manager.get_event_or_persistence_needed_future();
        [manager, self.messengers[at].get_update_future()].into_iter().any(|future| {
            let mut context = Context::from_waker(Waker::noop());
            pin!(future).poll(&mut context).is_ready()
        })
    }

    /// Whether this node has to do with a static invoice.
    fn asks(&self, party: &Party) -> bool {
        party.look(|event| {
            matches!(
                event,
                Event::PersistStaticInvoice { .. } | Event::StaticInvoiceRequested { .. }
            )
        })
    }

    fn lose(&self, at: usize) {
        self.messengers[at].process_pending_events(&|event| {
            if let Event::OnionMessageIntercepted { prev_hop: Some(_), .. } = event {
                self.lost_mail.set(self.lost_mail.get() + 1);
            }
            Ok(())
        });
    }

    /// What the server's application does.
    fn serve(&self) -> bool {
        let lsp = &self.rig.lsp;
        let kept = lsp.take(|event| match event {
            Event::PersistStaticInvoice {
                invoice,
                invoice_request_path,
                invoice_persisted_path,
                ..
            } => {
                let kept = (invoice.clone(), invoice_request_path.clone());
                Some((kept, invoice_persisted_path.clone()))
            }
            _ => None,
        });
        let asked = lsp.take(|event| match event {
            Event::StaticInvoiceRequested { reply_path, invoice_request, .. } => {
                Some((reply_path.clone(), invoice_request.clone()))
            }
            _ => None,
        });
        let any = !kept.is_empty() || !asked.is_empty();
        for (invoice, persisted) in kept {
            *self.served.borrow_mut() = Some(invoice);
            lsp.manager.static_invoice_persisted(persisted);
        }
        for (reply, request) in asked {
            let (invoice, path) = self.served.borrow().clone().expect("it serves one");
            lsp.manager.respond_to_static_invoice_request(invoice, reply, request, path).unwrap();
        }
        any
    }

    /// Why the payer was told that it failed.
    pub(super) fn failed(&self) -> Vec<String> {
        self.rig.payer.take(|event| match event {
            Event::PaymentFailed { reason, .. } => Some(format!("{reason:?}")),
            _ => None,
        })
    }
}
