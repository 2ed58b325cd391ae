//! More messages, and more slots, than anybody needs.

use super::{disk, lsps_store, story};
use guide::lab;
use guide::stranger::{Heard, Stranger};
use guide::world::World;
use lightning::blinded_path::message::{AsyncPaymentsContext, MessageContext};
use lightning::onion_message::async_payments::{
    AsyncPaymentsMessage, OfferPathsRequest, ServeStaticInvoice,
};
use lightning::onion_message::messenger::{Destination, PeeledOnion};
use lightning::onion_message::packet::OnionMessageContents;
use lightning::util::ser::{Writeable, Writer};
use lsps2_async::lsp::mailbox::{MAILBOX_NAMESPACE, MailboxLimits};
use lsps2_async::lsp::static_invoices::STATIC_INVOICES_NAMESPACE;
use node::transcript::What;
use regtest::Chain;
use std::time::Duration;

/// Contents that nobody understands.
#[derive(Debug)]
struct Noise(u32);

impl Writeable for Noise {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), lightning::io::Error> {
        self.0.write(writer)
    }
}

impl OnionMessageContents for Noise {
    fn tlv_type(&self) -> u64 {
        100_001
    }
    fn msg_type(&self) -> &'static str {
        "noise"
    }
}

/// Posts this many letters to the recipient, and waits until its LSP has decided on all of them.
async fn flood(world: &World, stranger: &Stranger, to: bitcoin::secp256k1::PublicKey, first: u32) {
    const LETTERS: u32 = 150;
    let (from, lsp) = (world.transcript.position(), world.lsp().id());
    let letter = |n| stranger.letter(&[lsp], Destination::Node(to), Noise(n), None).unwrap();
    stranger.post((first..first + LETTERS).map(letter));
    let decided = || {
        let entries = world.transcript.since(from);
        let letters = entries.iter().filter(|e| match &e.what {
            What::Mailbox { state, .. } => state == "kept",
            _ => false,
        });
        letters.count() >= LETTERS as usize
    };
    world.see(from, |e| matches!(e.what, What::Mailbox { .. }) && decided()).await.unwrap();
}

/// A stranger writes 300 letters to a wallet that is away, before and after the one that matters. What
/// the LSP keeps of them is bounded, and the wallet gets the one that matters.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_letters_is_bounded_and_pushes_out_only_its_own() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    let recipient = world.recipient().id();
    world.stop_recipient().await;
    lab::begin(&world, "flood", "A flood of letters").await.unwrap();
    let stranger = Stranger::new(0);
    stranger.connect(world.lsp().id(), world.lsp().address()).await.unwrap();

    flood(&world, &stranger, recipient, 0).await;
    let from = world.transcript.position();
    world.pay_while_recipient_is_offline(&offer, 100_000_000).await.unwrap();
    world.stop_payer().await;
    flood(&world, &stranger, recipient, 1_000).await;

    let limits = MailboxLimits::default();
    let (letters, bytes) = disk(&lsps_store(&world, MAILBOX_NAMESPACE));
    assert_eq!(letters, limits.messages_per_peer);
    assert!(bytes < (limits.bytes_per_peer + 100 * letters) as u64, "{bytes}");

    let books = world.wake_recipient_and_settle(from).await.unwrap();
    assert_eq!(books.recipient_received_msat, 98_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}

/// A registered client may name any of 65 536 slots. The server stores ten of them, for whoever asks
/// in whatever order, and goes on serving the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_names_every_slot_fills_ten() {
    let mut world = World::new(Chain::embedded(), story()).await.unwrap();
    let (_, offer) = world.prepare_recipient().await.unwrap();
    // A static invoice that can be shown around: whose it is the server does not know.
    let invoice = world.lsp().static_invoice(b"alice", 0).await.unwrap();
    let (before, _) = disk(&lsps_store(&world, STATIC_INVOICES_NAMESPACE));
    world.stop_recipient().await;
    lab::begin(&world, "slots", "A client that names every slot").await.unwrap();

    let mallory = Stranger::new(0);
    mallory.connect(world.lsp().id(), world.lsp().address()).await.unwrap();
    let path = world.lsp().paths_for(b"mallory").await.unwrap().pop().unwrap();
    let slots = (0..12).chain((16..u16::MAX).step_by(0x3000)).chain([u16::MAX]);
    let way_back = || {
        let path_absolute_expiry = Duration::from_secs(u32::MAX.into());
        let context = AsyncPaymentsContext::OfferPaths { invoice_slot: 0, path_absolute_expiry };
        mallory.reply_path(MessageContext::AsyncPayments(context))
    };
    let from = world.transcript.position();
    let (mut asked, mut served) = (0, 0);
    for invoice_slot in slots {
        let request = OfferPathsRequest { invoice_slot };
        let request = AsyncPaymentsMessage::OfferPathsRequest(request);
        let to_server = Destination::BlindedPath(path.clone());
        mallory.post([mallory.letter(&[], to_server, request, Some(way_back())).unwrap()]);
        asked += 1;
        let to_slot = loop {
            let Heard::Onion(answer) = mallory.hear().await.unwrap() else { panic!("no answer") };
            // Those without a way back confirm what was stored.
            if let PeeledOnion::AsyncPayments(_, _, Some(way)) = mallory.read(&answer).unwrap() {
                break way;
            }
        };
        let serve = AsyncPaymentsMessage::ServeStaticInvoice(ServeStaticInvoice {
            invoice: invoice.clone(),
            forward_invoice_request_path: path.clone(),
        });
        let to_slot = Destination::BlindedPath(to_slot);
        // LDK drops it without a way to confirm.
        mallory.post([mallory.letter(&[], to_slot, serve, Some(way_back())).unwrap()]);
        served += 1;
    }
    assert_eq!((asked, served), (19, 19));
    let decided = |wanted: &str| {
        let entries = world.transcript.since(from);
        let is_it = |what: &What| matches!(what, What::Offer { state, .. } if state == wanted);
        entries.iter().filter(|e| e.node == "lsp" && is_it(&e.what)).count()
    };
    world.see(from, |_| decided("persisted") + decided("refused") >= served).await.unwrap();
    let (after, bytes) = disk(&lsps_store(&world, STATIC_INVOICES_NAMESPACE));
    assert_eq!(after - before, 10, "files for ten slots");
    assert!(bytes < 20 * 8 * 1024, "{bytes} bytes on disk");

    let books = world.pay_offline_recipient(&offer, 100_000_000).await.unwrap();
    assert_eq!(books.recipient_received_msat, 98_000_000);
    lab::end(&world).await.unwrap();
    world.stop().await;
}
