//! The metadata of a BOLT 11 invoice. On the way it is encrypted: only the node that made the invoice
//! reads it.
//!
//! LDK's cipher undoes itself, so LDK decrypts the metadata when it is asked to make the invoice's
//! payment again. What comes out is told only if, given that, it makes the same payment.

use lightning::ln::inbound_payment;
use lightning::ln::msgs::UpdateAddHTLC;
use lightning::sign::{EntropySource, KeysManager, NodeSigner};

use super::sheet::Mismatch;

/// LDK lets payments come two hours later than asked for.
const GRACE: u64 = 7_200;
/// The kinds of payments for which LDK makes the hash: without and with a final CLTV delta.
const WITHOUT_DELTA: u8 = 0;
const WITH_DELTA: u8 = 2;

/// In place of chance: a secret begins with the random bytes that LDK encrypted with.
struct Given([u8; 32]);

impl EntropySource for Given {
    fn get_secure_random_bytes(&self) -> [u8; 32] {
        self.0
    }
}

/// What an invoice asks for, besides its metadata.
struct Terms {
    least_msat: u64,
    until: u64,
    delta: Option<u16>,
}

impl Terms {
    /// Reads what LDK writes into the second half of a secret.
    fn read(info: u128) -> Option<Self> {
        let [kind, ..] = info.to_be_bytes();
        let (amount, rest) = ((info >> 64) as u64, info as u64);
        let least_msat = amount & (u64::MAX >> 3);
        match kind >> 5 {
            WITHOUT_DELTA => Some(Self { least_msat, until: rest, delta: None }),
            WITH_DELTA => {
                let delta = Some((rest >> 48) as u16);
                Some(Self { least_msat, until: rest & (u64::MAX >> 16), delta })
            }
            _ => None,
        }
    }
}

/// Whether the cipher gets through so many bytes. It counts blocks from the secret's first four bytes
/// on, which a payer chooses, in 32 bits: in a debug build it would panic.
fn can_decrypt(secret: &[u8; 32], bytes: usize) -> bool {
    let first = u32::from_le_bytes(*secret.first_chunk().expect("a secret is longer"));
    u32::try_from(bytes / 64 + 1).is_ok_and(|blocks| first.checked_add(blocks).is_some())
}

/// Decrypts the metadata in the onion of `msg`, whose secret is this one.
pub(super) fn decrypted(
    msg: &UpdateAddHTLC,
    secret: &[u8; 32],
    encrypted: &[u8],
    keys: &KeysManager,
) -> Result<Vec<u8>, Mismatch> {
    let keys = keys.get_expanded_key();
    let given = Given(*secret);
    let make = |terms: &Terms, metadata: &[u8]| {
        let from = terms.until.checked_sub(GRACE)?;
        let (least, metadata) = (Some(terms.least_msat), Some(metadata.to_vec()));
        inbound_payment::create(&keys, least, 0, &given, from, terms.delta, metadata).ok()
    };
    if !can_decrypt(secret, encrypted.len()) {
        return Err(Mismatch::new(0, "the cipher does not count so far"));
    }
    let nothing = Terms { least_msat: 0, until: GRACE, delta: None };
    let read = make(&nothing, encrypted).and_then(|(_, other, metadata)| {
        let info = half(secret) ^ half(&other.0) ^ u128::from(nothing.until);
        let (terms, metadata) = (Terms::read(info)?, metadata?);
        let (hash, again, sealed) = make(&terms, &metadata)?;
        let same = hash == msg.payment_hash && again.0 == *secret;
        (same && sealed.as_deref() == Some(encrypted)).then_some(metadata)
    });
    read.ok_or_else(|| Mismatch::new(0, "no invoice of this node has this metadata"))
}

/// The encrypted half of a secret.
fn half(secret: &[u8; 32]) -> u128 {
    u128::from_be_bytes(*secret.last_chunk().expect("a secret is twice as long"))
}
