//! The static invoice server: what is handed to payers while the recipient is offline.
//!
//! LDK verifies what a recipient sends (`offers/flow.rs`, `verify_serve_static_invoice_message`)
//! but stores nothing and bounds neither the slots nor the recipients.

#![expect(clippy::drop_non_drop, reason = "it is in the code of LDK's macros")]

use std::collections::HashSet;
use std::sync::Mutex;

use bitcoin::hashes::{Hash, sha256};
use core::time::Duration;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::impl_writeable_tlv_based;
use lightning::io;
use lightning::offers::static_invoice::StaticInvoice;
use lightning::util::persist::KVStore;
use lightning::util::ser::{Readable, Writeable};

/// The primary namespace of the invoices; the secondary one is the SHA-256 of the recipient id in
/// hexadecimal digits, the key is the slot in five decimal digits.
pub const STATIC_INVOICES_NAMESPACE: &str = "static_invoices";
/// The primary namespace of the recipients that may store invoices.
pub const RECIPIENTS_NAMESPACE: &str = "static_invoice_recipients";
/// The largest static invoice, in bytes. LDK's own limit is private
/// (`offers/flow.rs`, `MAX_STATIC_INVOICE_SIZE_BYTES`).
pub const MAX_STATIC_INVOICE_BYTES: usize = 5 * 1024;
/// The largest path for forwarded invoice requests, in bytes. LDK does not bound it.
pub const MAX_INVOICE_REQUEST_PATH_BYTES: usize = 2 * 1024;

/// How much the server stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Slots 0 up to this number, less one. LDK's recipients use 0 to 9; the wire allows 65 536.
    pub slots: u16,
    /// The number of recipients.
    pub recipients: usize,
    /// The longest recipient id, in bytes. LDK allows 1024, but the id travels in every offer path
    /// and so in the payment onion.
    pub recipient_id_bytes: usize,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self { slots: 10, recipients: 100_000, recipient_id_bytes: 64 }
    }
}

/// Why an invoice was not stored or not found. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StaticInvoiceError {
    /// The store failed.
    #[error("the static invoice store failed ({0}): repair it; the recipient will try again")]
    Store(#[from] io::Error),
    /// The id was never registered: drop the message.
    #[error("no such recipient is registered: drop the message")]
    UnknownRecipient,
    /// The id is empty or too long.
    #[error("a recipient id has 1 to {most} bytes, not {got}: give the client a shorter one")]
    RecipientIdSize {
        /// The length, in bytes.
        got: usize,
        /// The most, in bytes.
        most: usize,
    },
    /// The server is full.
    #[error("there are {0} recipients already: raise the limit or remove some")]
    TooManyRecipients(usize),
    /// The slot is beyond the limit: drop the message.
    #[error("slot {slot} is not below {slots}: drop the message")]
    NoSuchSlot {
        /// The slot.
        slot: u16,
        /// How many there are.
        slots: u16,
    },
    /// The invoice or its path is too large: drop the message.
    #[error("{got} bytes are more than the {most} allowed: drop the message")]
    TooLarge {
        /// The size, in bytes.
        got: usize,
        /// The most, in bytes.
        most: usize,
    },
    /// The invoice has expired: drop the message.
    #[error("the invoice has expired: drop the message")]
    Expired,
    /// The stored invoice cannot be read.
    #[error(
        "slot {slot} of {recipient} cannot be read: remove it; the recipient will send another"
    )]
    Unreadable {
        /// The recipient, as in the store.
        recipient: String,
        /// The slot.
        slot: u16,
    },
}

/// Stores static invoices and finds them again.
pub struct StaticInvoices<K: KVStore> {
    store: K,
    limits: ServerLimits,
    recipients: Mutex<HashSet<String>>,
}

struct StoredInvoice {
    invoice: Vec<u8>,
    invoice_request_path: BlindedMessagePath,
}

impl_writeable_tlv_based!(StoredInvoice, {
    (0, invoice, required),
    (2, invoice_request_path, required),
});

impl<K: KVStore> StaticInvoices<K> {
    /// Reads which recipients are registered. Errors if the store fails.
    pub async fn load(store: K, limits: ServerLimits) -> Result<Self, StaticInvoiceError> {
        let known = store.list(RECIPIENTS_NAMESPACE, "").await?;
        let recipients = Mutex::new(known.into_iter().collect());
        Ok(Self { store, limits, recipients })
    }

    /// Allows a recipient to store invoices. Call it before
    /// `ChannelManager::blinded_paths_for_async_recipient` gives out its paths.
    ///
    /// Errors if the id is too long, the server is full or the store fails.
    pub async fn register_recipient(&self, recipient_id: &[u8]) -> Result<(), StaticInvoiceError> {
        let (got, most) = (recipient_id.len(), self.limits.recipient_id_bytes);
        if got == 0 || got > most {
            return Err(StaticInvoiceError::RecipientIdSize { got, most });
        }
        let name = name(recipient_id);
        let written = {
            let mut recipients = self.recipients.lock().expect("no panic with the set locked");
            if recipients.contains(&name) {
                return Ok(());
            }
            if recipients.len() >= self.limits.recipients {
                return Err(StaticInvoiceError::TooManyRecipients(recipients.len()));
            }
            recipients.insert(name.clone());
            self.store.write(RECIPIENTS_NAMESPACE, "", &name, recipient_id.to_vec())
        };
        written.await.map_err(|e| self.forget(&name, e))
    }

    fn forget(&self, name: &str, error: io::Error) -> StaticInvoiceError {
        self.recipients.lock().expect("no panic with the set locked").remove(name);
        StaticInvoiceError::Store(error)
    }

    /// Handles `Event::PersistStaticInvoice`: stores the invoice, in place of the slot's last one.
    ///
    /// Call `ChannelManager::static_invoice_persisted` only after it returned `Ok`.
    pub async fn persist(
        &self,
        recipient_id: &[u8],
        slot: u16,
        invoice: &StaticInvoice,
        invoice_request_path: &BlindedMessagePath,
        now: Duration,
    ) -> Result<(), StaticInvoiceError> {
        let name = self.registered(recipient_id, slot)?;
        at_most(invoice.serialized_length(), MAX_STATIC_INVOICE_BYTES)?;
        at_most(invoice_request_path.serialized_length(), MAX_INVOICE_REQUEST_PATH_BYTES)?;
        if is_expired(invoice, now) {
            return Err(StaticInvoiceError::Expired);
        }
        let invoice_request_path = invoice_request_path.clone();
        let stored = StoredInvoice { invoice: invoice.encode(), invoice_request_path };
        let bytes = stored.encode();
        self.store.write(STATIC_INVOICES_NAMESPACE, &name, &key(slot), bytes).await?;
        Ok(())
    }

    /// Handles `Event::StaticInvoiceRequested`: the invoice, and the path over which its request is
    /// forwarded, for `ChannelManager::respond_to_static_invoice_request`.
    ///
    /// `None` if there is no unexpired one.
    pub async fn get(
        &self,
        recipient_id: &[u8],
        slot: u16,
        now: Duration,
    ) -> Result<Option<(StaticInvoice, BlindedMessagePath)>, StaticInvoiceError> {
        let recipient = self.registered(recipient_id, slot)?;
        let read = self.store.read(STATIC_INVOICES_NAMESPACE, &recipient, &key(slot)).await;
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let Some(found) = decode(&bytes) else {
            return Err(StaticInvoiceError::Unreadable { recipient, slot });
        };
        Ok(Some(found).filter(|(invoice, _)| !is_expired(invoice, now)))
    }

    fn registered(&self, recipient_id: &[u8], slot: u16) -> Result<String, StaticInvoiceError> {
        let slots = self.limits.slots;
        if slot >= slots {
            return Err(StaticInvoiceError::NoSuchSlot { slot, slots });
        }
        let name = name(recipient_id);
        let recipients = self.recipients.lock().expect("no panic with the set locked");
        match recipients.contains(&name) {
            true => Ok(name),
            false => Err(StaticInvoiceError::UnknownRecipient),
        }
    }
}

/// The id is the client's; its hash is a safe name in any store.
fn name(recipient_id: &[u8]) -> String {
    sha256::Hash::hash(recipient_id).to_string()
}

fn key(slot: u16) -> String {
    format!("{slot:05}")
}

fn at_most(got: usize, most: usize) -> Result<(), StaticInvoiceError> {
    match got <= most {
        true => Ok(()),
        false => Err(StaticInvoiceError::TooLarge { got, most }),
    }
}

fn is_expired(invoice: &StaticInvoice, now: Duration) -> bool {
    invoice.created_at().saturating_add(invoice.relative_expiry()) <= now
}

fn decode(bytes: &[u8]) -> Option<(StaticInvoice, BlindedMessagePath)> {
    let stored = StoredInvoice::read(&mut &*bytes).ok()?;
    let invoice = StaticInvoice::try_from(stored.invoice).ok()?;
    Some((invoice, stored.invoice_request_path))
}

#[cfg(test)]
mod tests {
    use bitcoin::secp256k1::Secp256k1;
    use lightning::blinded_path::BlindedHop;
    use lightning::blinded_path::payment::{BlindedPayInfo, BlindedPaymentPath};
    use lightning::ln::inbound_payment::ExpandedKey;
    use lightning::offers::nonce::Nonce;
    use lightning::offers::offer::OfferBuilder;
    use lightning::offers::static_invoice::StaticInvoiceBuilder;
    use lightning::sign::EntropySource;
    use lightning::types::features::BlindedHopFeatures;

    use super::*;
    use crate::lsp::testing::*;

    struct Seven;

    impl EntropySource for Seven {
        fn get_secure_random_bytes(&self) -> [u8; 32] {
            [7; 32]
        }
    }

    fn hops() -> Vec<BlindedHop> {
        let hop =
            |seed| BlindedHop { blinded_node_id: node(seed), encrypted_payload: vec![seed; 44] };
        vec![hop(4), hop(5)]
    }

    fn path() -> BlindedMessagePath {
        BlindedMessagePath::from_blinded_path(node(2), node(3), hops())
    }

    fn payment_path() -> BlindedPaymentPath {
        let payinfo = BlindedPayInfo {
            fee_base_msat: 0,
            fee_proportional_millionths: 0,
            cltv_expiry_delta: 72,
            htlc_minimum_msat: 1,
            htlc_maximum_msat: 1_000_000_000,
            features: BlindedHopFeatures::empty(),
        };
        BlindedPaymentPath::from_blinded_path_and_payinfo(node(2), node(3), hops(), payinfo)
    }

    /// Created at second 100, and valid for 100.
    fn invoice(payment_paths: usize) -> StaticInvoice {
        let (secp, key) = (Secp256k1::new(), ExpandedKey::new([6; 32]));
        let nonce = Nonce::from_entropy_source(Seven);
        let offer = OfferBuilder::deriving_signing_pubkey(node(1), &key, nonce, &secp)
            .path(path())
            .build()
            .unwrap();
        let paths = vec![payment_path(); payment_paths];
        let messages = vec![path()];
        StaticInvoiceBuilder::for_offer_using_derived_keys(
            &offer,
            paths,
            messages,
            seconds(100),
            &key,
            nonce,
            &secp,
        )
        .unwrap()
        .relative_expiry(100)
        .build_and_sign(&secp)
        .unwrap()
    }

    async fn server(limits: ServerLimits) -> (MemoryStore, StaticInvoices<MemoryStore>) {
        let store = MemoryStore::default();
        let server = StaticInvoices::load(store.clone(), limits).await.unwrap();
        server.register_recipient(b"alice").await.unwrap();
        (store, server)
    }

    #[tokio::test]
    async fn an_invoice_is_found_after_a_restart_and_replaced_by_the_next() {
        let (store, server) = server(ServerLimits::default()).await;
        server.persist(b"alice", 9, &invoice(1), &path(), seconds(150)).await.unwrap();
        let server = StaticInvoices::load(store, ServerLimits::default()).await.unwrap();
        let found = server.get(b"alice", 9, seconds(199)).await.unwrap();
        assert_eq!(found, Some((invoice(1), path())));
        server.persist(b"alice", 9, &invoice(2), &path(), seconds(150)).await.unwrap();
        let found = server.get(b"alice", 9, seconds(199)).await.unwrap();
        assert_eq!(found, Some((invoice(2), path())));
        assert_eq!(server.get(b"alice", 8, seconds(150)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn an_expired_invoice_is_neither_taken_nor_served() {
        let (_, server) = server(ServerLimits::default()).await;
        let late = server.persist(b"alice", 0, &invoice(1), &path(), seconds(200)).await;
        assert!(matches!(late, Err(StaticInvoiceError::Expired)));
        server.persist(b"alice", 0, &invoice(1), &path(), seconds(199)).await.unwrap();
        assert_eq!(server.get(b"alice", 0, seconds(200)).await.unwrap(), None);
    }

    #[tokio::test]
    async fn strangers_slots_and_sizes_are_bounded() {
        let (store, server) = server(ServerLimits { recipients: 2, ..Default::default() }).await;
        let before = store.keys();
        let stranger = server.persist(b"bob", 0, &invoice(1), &path(), seconds(150)).await;
        assert!(matches!(stranger, Err(StaticInvoiceError::UnknownRecipient)));
        let slot = server.persist(b"alice", 10, &invoice(1), &path(), seconds(150)).await;
        assert!(matches!(slot, Err(StaticInvoiceError::NoSuchSlot { slot: 10, slots: 10 })));
        let large = server.persist(b"alice", 0, &invoice(30), &path(), seconds(150)).await;
        assert!(matches!(large, Err(StaticInvoiceError::TooLarge { .. })));
        assert_eq!(store.keys(), before);
        let long = server.register_recipient(&[1; 65]).await;
        assert!(matches!(long, Err(StaticInvoiceError::RecipientIdSize { got: 65, most: 64 })));
        server.register_recipient(b"bob").await.unwrap();
        let full = server.register_recipient(b"carol").await;
        assert!(matches!(full, Err(StaticInvoiceError::TooManyRecipients(2))));
        server.register_recipient(b"alice").await.unwrap();
    }

    #[tokio::test]
    async fn a_broken_store_and_an_unreadable_invoice_are_errors() {
        let (store, server) = server(ServerLimits::default()).await;
        store.set(STATIC_INVOICES_NAMESPACE, &name(b"alice"), "00003", &[1, 2]);
        let unreadable = server.get(b"alice", 3, seconds(1)).await;
        assert!(matches!(unreadable, Err(StaticInvoiceError::Unreadable { slot: 3, .. })));
        store.set_broken(true);
        let broken = server.get(b"alice", 3, seconds(1)).await;
        assert!(matches!(broken, Err(StaticInvoiceError::Store(_))));
        assert!(server.register_recipient(b"bob").await.is_err());
        store.set_broken(false);
        let stranger = server.get(b"bob", 0, seconds(1)).await;
        assert!(matches!(stranger, Err(StaticInvoiceError::UnknownRecipient)));
    }
}
