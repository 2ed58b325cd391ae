//! The layer of an onion that is for the node that received it, opened by hand (BOLT 4).
//!
//! LDK opens it too, but keeps the bytes to itself. What is found here is compared with what LDK finds.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1, VerifyOnly};
use chacha20_poly1305::chacha20::ChaCha20;
use chacha20_poly1305::{Key, Nonce};
use lightning::ln::channelmanager::PendingHTLCRouting;
use lightning::ln::msgs::UpdateAddHTLC;
use lightning::ln::onion_payment::peel_payment_onion;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::{BigSize, Readable, Writeable};
use std::sync::OnceLock;

use super::hop::Seen;
use super::sheet::Mismatch;

/// The length of `hop_payloads`.
const PAYLOADS: usize = 1300;
const HMAC: usize = 32;
/// What Poly1305 appends.
const TAG: usize = 16;
/// LDK refuses HTLCs that expire later than this: two weeks of blocks.
const TOO_FAR: u32 = 14 * 24 * 6;

/// An onion, as it came or after hops to the same node.
pub(super) struct Onion {
    public_key: PublicKey,
    payloads: Vec<u8>,
    hmac: [u8; HMAC],
    payment_hash: [u8; 32],
    /// From the message, within a blinded path.
    path_key: Option<PublicKey>,
}

/// An onion whose outermost layer has been opened.
pub(super) struct Opened {
    /// Length, payload and next HMAC.
    pub(super) bytes: Vec<u8>,
    onion: Onion,
    secret: [u8; 32],
    /// What is left for the next hop.
    rest: Vec<u8>,
}

impl Onion {
    pub(super) fn of(msg: &UpdateAddHTLC) -> Result<Self, Mismatch> {
        let packet = &msg.onion_routing_packet;
        Ok(Self {
            public_key: packet.public_key.map_err(|_| Mismatch::new(0, "the onion has no key"))?,
            payloads: packet.hop_data.to_vec(),
            hmac: packet.hmac,
            payment_hash: msg.payment_hash.0,
            path_key: msg.blinding_point,
        })
    }

    pub(super) fn open(self, keys: &KeysManager) -> Result<Opened, Mismatch> {
        let tweak = match &self.path_key {
            Some(path_key) => Some(blinding(&shared(keys, path_key, None)?)?),
            None => None,
        };
        let secret = shared(keys, &self.public_key, tweak.as_ref())?;
        let signed = [&self.payloads[..], &self.payment_hash].concat();
        if hmac(&hmac(b"mu", &secret), &signed) != self.hmac {
            return Err(Mismatch::new(0, "the onion's HMAC is not that of its bytes"));
        }
        // The hop's payload goes, and as many bytes of the stream come in at the end.
        let mut clear = self.payloads.clone();
        clear.resize(2 * PAYLOADS, 0);
        decrypt(&hmac(b"rho", &secret), 0, &mut clear);
        let len = hop_len(&clear).filter(|len| *len <= PAYLOADS);
        let len = len.ok_or_else(|| Mismatch::new(0, "the hop's payload is too long"))?;
        let rest = clear[len..len + PAYLOADS].to_vec();
        clear.truncate(len);
        Ok(Opened { bytes: clear, onion: self, secret, rest })
    }
}

impl Opened {
    /// The HMAC for the next hop.
    pub(super) fn hmac(&self) -> [u8; HMAC] {
        *self.bytes.last_chunk().expect("a hop ends with its HMAC")
    }

    /// The `encrypted_recipient_data` of the hop, if it has some, decrypted and without its tag.
    ///
    /// LDK checks the tag: see [`agrees_with_ldk`].
    pub(super) fn recipient_data(
        &self,
        keys: &KeysManager,
        seen: &Seen,
    ) -> Result<Option<Vec<u8>>, Mismatch> {
        let Some(encrypted) = &seen.encrypted else { return Ok(None) };
        let path_key = seen.path_key.or(self.onion.path_key);
        let path_key = path_key.ok_or_else(|| Mismatch::new(0, "no path key opens this hop"))?;
        let rho = hmac(b"rho", &shared(keys, &path_key, None)?);
        let len = encrypted.len().checked_sub(TAG);
        let mut data = encrypted[..len.ok_or_else(|| Mismatch::new(0, "no tag"))?].to_vec();
        // The first block of the stream is Poly1305's key.
        decrypt(&rho, 1, &mut data);
        Ok(Some(data))
    }

    /// The onion after this hop, if the next one is this node again.
    pub(super) fn next(self, keys: &KeysManager, seen: &mut Seen) -> Result<Onion, Mismatch> {
        let path_key = seen.path_key.take().or(self.onion.path_key);
        let path_key = path_key.ok_or_else(|| Mismatch::new(0, "no path key leads on"))?;
        let of_path = shared(keys, &path_key, None)?;
        Ok(Onion {
            public_key: next_key(self.onion.public_key, &self.secret)?,
            hmac: self.hmac(),
            payloads: self.rest,
            payment_hash: self.onion.payment_hash,
            path_key: Some(next_key(path_key, &of_path)?),
        })
    }
}

/// The length of the first hop: its length field, its payload and the HMAC for the next.
fn hop_len(mut bytes: &[u8]) -> Option<usize> {
    let before = bytes.len();
    let BigSize(len) = BigSize::read(&mut bytes).ok()?;
    usize::try_from(len).ok()?.checked_add(before - bytes.len() + HMAC)
}

fn shared(
    keys: &KeysManager,
    other: &PublicKey,
    tweak: Option<&Scalar>,
) -> Result<[u8; 32], Mismatch> {
    let secret = keys.ecdh(Recipient::Node, other, tweak);
    Ok(secret.map_err(|()| Mismatch::new(0, "the signer shares no secret"))?.secret_bytes())
}

/// Made once, since that is slow.
fn secp() -> &'static Secp256k1<VerifyOnly> {
    static SECP: OnceLock<Secp256k1<VerifyOnly>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::verification_only)
}

/// By which a node's key is blinded within a path.
fn blinding(secret: &[u8; 32]) -> Result<Scalar, Mismatch> {
    Scalar::from_be_bytes(hmac(b"blinded_node_id", secret))
        .map_err(|_| Mismatch::new(0, "the path blinds with no number"))
}

fn next_key(key: PublicKey, secret: &[u8; 32]) -> Result<PublicKey, Mismatch> {
    let factor = sha256::Hash::hash(&[&key.serialize()[..], secret].concat()).to_byte_array();
    let factor = Scalar::from_be_bytes(factor).ok();
    let next = factor.and_then(|factor| key.mul_tweak(secp(), &factor).ok());
    next.ok_or_else(|| Mismatch::new(0, "there is no next key"))
}

fn hmac(key: &[u8], bytes: &[u8]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(bytes);
    Hmac::from_engine(engine).to_byte_array()
}

fn decrypt(key: &[u8; 32], block: u32, bytes: &mut [u8]) {
    ChaCha20::new_from_block(Key::new(*key), Nonce::new([0; 12]), block).apply_keystream(bytes);
}

struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

/// LDK opens the same onion, checks all tags, and must find the same: all of it, if it is `all` that
/// there is to see.
pub(super) fn agrees_with_ldk(
    msg: &UpdateAddHTLC,
    keys: &KeysManager,
    seen: &Seen,
    all: bool,
) -> Result<(), Mismatch> {
    // A height at which the HTLC neither expires too soon nor too late.
    let at_height = msg.cltv_expiry.saturating_sub(TOO_FAR);
    let found = peel_payment_onion(msg, keys, Silent, secp(), at_height, true);
    let found = found.map_err(|error| {
        Mismatch::new(0, format!("LDK does not open this onion: {} {:?}", error.msg, error.reason))
    })?;
    let amount = seen.amount_msat.is_none_or(|amount| amount == found.outgoing_amt_msat);
    let expiry = seen.cltv_expiry.is_none_or(|height| height == found.outgoing_cltv_value);
    let same = match found.routing {
        PendingHTLCRouting::Forward { short_channel_id, .. } => {
            fits(&seen.scid, Some(short_channel_id), all)
        }
        PendingHTLCRouting::Receive { payment_data, payment_context, payment_metadata, .. } => {
            fits(&seen.secret, Some(payment_data.payment_secret.0), all)
                && fits(&seen.total_msat, Some(payment_data.total_msat), all)
                && fits(&seen.context, payment_context.map(|context| context.encode()), all)
                && fits(&seen.metadata, payment_metadata, all)
        }
        PendingHTLCRouting::ReceiveKeysend {
            payment_data,
            payment_preimage,
            payment_context,
            payment_metadata,
            invoice_request,
            ..
        } => {
            let secret = payment_data.as_ref().map(|data| data.payment_secret.0);
            fits(&seen.secret, secret, all)
                && fits(&seen.total_msat, payment_data.map(|data| data.total_msat), all)
                && fits(&seen.preimage, Some(payment_preimage.0), all)
                && fits(&seen.context, payment_context.map(|context| context.encode()), all)
                && fits(&seen.metadata, payment_metadata, all)
                && fits(&seen.invoice_request, invoice_request.map(|r| r.encode()), all)
        }
        PendingHTLCRouting::TrampolineForward { .. } => false,
    };
    match same && amount && expiry {
        true => Ok(()),
        false => Err(Mismatch::new(0, "LDK finds something else in this onion")),
    }
}

/// Whether LDK's `found` is what was `seen`; unless `all` was, it may not have been seen.
fn fits<T: PartialEq>(seen: &Option<T>, found: Option<T>, all: bool) -> bool {
    *seen == found || (!all && seen.is_none())
}
