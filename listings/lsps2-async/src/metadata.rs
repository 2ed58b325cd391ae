//! Step 2: the lease, encoded in the payment metadata of the blinded path.
//!
//! Only the recipient reads it: it stands in the part of the path that is encrypted to itself. The
//! router decodes it to build the path, and the [`claim`](crate::claim) guard to know what was
//! agreed.
//!
//! ```
//! # use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
//! # use core::time::Duration;
//! # use std::collections::BTreeMap;
//! # let key = SecretKey::from_slice(&[42; 32])?;
//! use lsps2_async::metadata::LeaseMetadata;
//!
//! let agreed = LeaseMetadata {
//!     lsp_node_id: PublicKey::from_secret_key(&Secp256k1::new(), &key),
//!     intercept_scid: 29_451 << 40 | 4_815 << 16 | 1,
//!     cltv_expiry_delta: 144,
//!     min_fee_msat: 2_000_000,
//!     proportional: 10_000,
//!     valid_until: Duration::from_secs(1_800_000_000),
//!     min_htlc_msat: 2_000_001,
//!     payment_size_msat: None,
//! };
//! let mut payment_metadata: Option<BTreeMap<u64, Vec<u8>>> = None;
//! agreed.insert_into(&mut payment_metadata);
//! assert_eq!(LeaseMetadata::read_from(payment_metadata.as_ref())?, Some(agreed));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use crate::lease::{Lease, LeaseId};
use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::ln::channelmanager::MIN_CLTV_EXPIRY_DELTA;
use lightning::ln::msgs::DecodeError;
use lightning::util::ser::{BigSize, Readable, Writeable};
use lightning_liquidity::lsps2::utils::compute_opening_fee;
use std::collections::BTreeMap;
use thiserror::Error;

/// The key of the lease in the payment metadata: bLIP **52**.
///
/// Below 128, because LDK keeps 128–256 for itself, and below 253, because a larger key would take
/// more than one byte.
pub const PAYMENT_METADATA_KEY: u64 = 52;

/// The longest value that is looked at, in bytes. An onion has no room for more than that.
const MAX_LEN: usize = 1024;
const VERSION: u64 = 1;
/// Even: who does not know it would expect another fee, and must not go on.
const PAYMENT_SIZE_TYPE: u64 = 2;

/// What the recipient must know of a lease to build its path and to judge its payment.
///
/// On the wire: `BigSize` version (1); the node id (33 bytes) and the SCID (8 bytes, big endian);
/// `BigSize` delta, minimum fee, proportional fee, validity and minimum HTLC; then a TLV stream as
/// in BOLT 1, with the payment size under type 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseMetadata {
    /// The LSP's node id: the introduction node of the path.
    pub lsp_node_id: PublicKey,
    /// The SCID the LSP intercepts.
    pub intercept_scid: u64,
    /// The CLTV delta of the LSP's hop, in blocks.
    pub cltv_expiry_delta: u16,
    /// The least the LSP takes, in msat.
    pub min_fee_msat: u64,
    /// The share it takes, in parts per million of the gross payment.
    pub proportional: u32,
    /// Until when the terms hold, in whole seconds since the Unix epoch.
    pub valid_until: Duration,
    /// The smallest HTLC the path lets through, in msat.
    pub min_htlc_msat: u64,
    /// The agreed payment size, in msat; `None` for a variable-size lease.
    pub payment_size_msat: Option<u64>,
}

/// Why bytes are not the metadata of a lease, or a lease cannot be put into metadata.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MetadataError {
    /// The LSP accepts no payment that leaves something after its fee.
    #[error("no payment fits the terms of this lease: buy another one")]
    NotPayable,
    /// The delta is below LDK's `MIN_CLTV_EXPIRY_DELTA`, or not a `u16`.
    #[error("a CLTV delta of {0} blocks cannot be used: it must be 48 to 65535")]
    CltvExpiryDelta(u64),
    /// The value is longer than any value written by this module.
    #[error("{0} bytes of lease metadata: more than 1024 are not read")]
    TooLong(usize),
    /// Another layout.
    #[error("lease metadata of version {0}: only version 1 is known here")]
    UnknownVersion(u64),
    /// The value ends too early.
    #[error("the lease metadata is cut off")]
    Truncated,
    /// A field is not in its one valid form, or out of range.
    #[error("the {0} in the lease metadata is malformed")]
    Malformed(&'static str),
    /// A field of an even type that is not known here: it may change what the others mean.
    #[error("the lease metadata needs a reader that knows TLV type {0}: update this software")]
    UnknownRequiredType(u64),
}

impl LeaseMetadata {
    /// Takes from a lease what a path and a claim need of it.
    ///
    /// # Errors
    /// [`MetadataError::NotPayable`] and [`MetadataError::CltvExpiryDelta`].
    pub fn for_lease(lease: &Lease) -> Result<Self, MetadataError> {
        let terms = &lease.opening_fee_params;
        Ok(Self {
            lsp_node_id: lease.id.lsp_node_id,
            intercept_scid: lease.id.intercept_scid,
            cltv_expiry_delta: usable_delta(lease.cltv_expiry_delta.into())?,
            min_fee_msat: terms.min_fee_msat,
            proportional: terms.proportional,
            valid_until: Duration::from_secs(terms.valid_until.as_secs()),
            min_htlc_msat: lease.smallest_htlc_msat().ok_or(MetadataError::NotPayable)?,
            payment_size_msat: lease.payment_size_msat,
        })
    }

    /// The lease this speaks of.
    pub fn lease_id(&self) -> LeaseId {
        LeaseId { lsp_node_id: self.lsp_node_id, intercept_scid: self.intercept_scid }
    }

    /// The opening fee for a payment of `gross_msat`, in msat; `None` on overflow.
    pub fn opening_fee_msat(&self, gross_msat: u64) -> Option<u64> {
        let size = self.payment_size_msat.unwrap_or(gross_msat);
        compute_opening_fee(size, self.min_fee_msat, self.proportional.into())
    }

    /// Writes the value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = BigSize(VERSION).encode();
        out.extend(self.lsp_node_id.serialize());
        out.extend(self.intercept_scid.to_be_bytes());
        out.extend(BigSize(self.cltv_expiry_delta.into()).encode());
        out.extend(BigSize(self.min_fee_msat).encode());
        out.extend(BigSize(self.proportional.into()).encode());
        out.extend(BigSize(self.valid_until.as_secs()).encode());
        out.extend(BigSize(self.min_htlc_msat).encode());
        if let Some(size) = self.payment_size_msat {
            write_tlv(&mut out, PAYMENT_SIZE_TYPE, &BigSize(size).encode());
        }
        out
    }

    /// Reads a value. There is one way to write each value, and only that one is accepted, save
    /// for TLVs of an odd, unknown type, which are skipped.
    ///
    /// # Errors
    /// Anything that is not such a value.
    pub fn decode(bytes: &[u8]) -> Result<Self, MetadataError> {
        if bytes.len() > MAX_LEN {
            return Err(MetadataError::TooLong(bytes.len()));
        }
        let mut rest = bytes;
        match big_size(&mut rest, "version")? {
            VERSION => (),
            other => return Err(MetadataError::UnknownVersion(other)),
        }
        let mut metadata = Self::read_fixed(&mut rest)?;
        metadata.payment_size_msat = read_payment_size(rest)?;
        Ok(metadata)
    }

    /// Puts the lease among the payment metadata, and leaves the other entries alone.
    pub fn insert_into(&self, payment_metadata: &mut Option<BTreeMap<u64, Vec<u8>>>) {
        let entries = payment_metadata.get_or_insert_default();
        entries.insert(PAYMENT_METADATA_KEY, self.encode());
    }

    /// Finds the lease among the payment metadata; `None` if there is none.
    ///
    /// # Errors
    /// As [`Self::decode`].
    pub fn read_from(
        payment_metadata: Option<&BTreeMap<u64, Vec<u8>>>,
    ) -> Result<Option<Self>, MetadataError> {
        let value = payment_metadata.and_then(|entries| entries.get(&PAYMENT_METADATA_KEY));
        value.map(|bytes| Self::decode(bytes)).transpose()
    }

    // The fields are read in the order in which they are written here.
    fn read_fixed(rest: &mut &[u8]) -> Result<Self, MetadataError> {
        Ok(Self {
            lsp_node_id: read(rest, "node id")?,
            intercept_scid: read(rest, "SCID")?,
            cltv_expiry_delta: usable_delta(big_size(rest, "CLTV delta")?)?,
            min_fee_msat: big_size(rest, "minimum fee")?,
            proportional: u32::try_from(big_size(rest, "proportional fee")?)
                .map_err(|_| MetadataError::Malformed("proportional fee"))?,
            valid_until: Duration::from_secs(big_size(rest, "validity")?),
            min_htlc_msat: big_size(rest, "minimum HTLC")?,
            payment_size_msat: None,
        })
    }
}

fn usable_delta(blocks: u64) -> Result<u16, MetadataError> {
    match u16::try_from(blocks) {
        Ok(delta) if delta >= MIN_CLTV_EXPIRY_DELTA => Ok(delta),
        Ok(_) | Err(_) => Err(MetadataError::CltvExpiryDelta(blocks)),
    }
}

fn write_tlv(out: &mut Vec<u8>, kind: u64, value: &[u8]) {
    out.extend(BigSize(kind).encode());
    out.extend(BigSize(value.len() as u64).encode());
    out.extend(value);
}

/// Walks the TLV stream to its end and picks the payment size from it.
fn read_payment_size(mut rest: &[u8]) -> Result<Option<u64>, MetadataError> {
    let (mut size, mut last) = (None, None);
    while !rest.is_empty() {
        let (kind, mut value) = read_tlv(&mut rest)?;
        // BOLT 1: types strictly increase, so none comes twice.
        if last.is_some_and(|last| kind <= last) {
            return Err(MetadataError::Malformed("order of TLV types"));
        }
        last = Some(kind);
        if kind == PAYMENT_SIZE_TYPE {
            size = Some(big_size(&mut value, "payment size")?);
            ensure_read(value, "payment size")?;
        } else if kind % 2 == 0 {
            return Err(MetadataError::UnknownRequiredType(kind));
        }
    }
    Ok(size)
}

/// Takes one TLV from the front: nothing is copied, whatever length it claims.
fn read_tlv<'a>(rest: &mut &'a [u8]) -> Result<(u64, &'a [u8]), MetadataError> {
    let kind = big_size(rest, "TLV type")?;
    let len = big_size(rest, "TLV length")?;
    let len = usize::try_from(len).map_err(|_| MetadataError::Truncated)?;
    let (value, after) = rest.split_at_checked(len).ok_or(MetadataError::Truncated)?;
    *rest = after;
    Ok((kind, value))
}

fn ensure_read(rest: &[u8], field: &'static str) -> Result<(), MetadataError> {
    if rest.is_empty() { Ok(()) } else { Err(MetadataError::Malformed(field)) }
}

fn big_size(rest: &mut &[u8], field: &'static str) -> Result<u64, MetadataError> {
    read::<BigSize>(rest, field).map(|value| value.0)
}

fn read<T: Readable>(rest: &mut &[u8], field: &'static str) -> Result<T, MetadataError> {
    T::read(rest).map_err(|error| match error {
        DecodeError::ShortRead => MetadataError::Truncated,
        DecodeError::UnknownVersion
        | DecodeError::UnknownRequiredFeature
        | DecodeError::InvalidValue
        | DecodeError::BadLengthDescriptor
        | DecodeError::Io(_)
        | DecodeError::UnsupportedCompression
        | DecodeError::DangerousValue => MetadataError::Malformed(field),
    })
}

#[cfg(test)]
mod tests;
