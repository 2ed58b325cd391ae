//! How a lease is written to disk: as LDK writes its own structs.
#![expect(clippy::drop_non_drop, reason = "it is in the code of LDK's macros")]

use super::*;
use lightning::ln::msgs::DecodeError;
use lightning::util::ser::Readable;
use lightning::{impl_writeable_tlv_based, impl_writeable_tlv_based_enum};
use thiserror::Error;

// Even types must be understood, odd ones may be skipped (BOLT 1): add new fields accordingly.
impl_writeable_tlv_based!(OpeningFeeParams, {
    (0, min_fee_msat, required),
    (2, proportional, required),
    (4, valid_until, required),
    (6, min_lifetime, required),
    (8, max_client_to_self_delay, required),
    (10, min_payment_size_msat, required),
    (12, max_payment_size_msat, required),
});
impl_writeable_tlv_based_enum!(TrustModel,
    (0, LspTrustsClient) => {},
    (2, ClientTrustsLsp) => {},
);
impl_writeable_tlv_based!(LeaseId, {
    (0, lsp_node_id, required),
    (2, intercept_scid, required),
});
impl_writeable_tlv_based!(Lease, {
    (0, id, required),
    (2, cltv_expiry_delta, required),
    (4, opening_fee_params, required),
    (6, payment_size_msat, option),
    (8, trust_model, required),
});
impl_writeable_tlv_based!(Consumption, {
    (0, payment_hash, required),
    (2, channel_id, required),
    (4, skimmed_fee_msat, required),
    (6, settled, required),
});
impl_writeable_tlv_based_enum!(LeaseState,
    (0, Active) => {},
    (4, Expired) => {},
    {2, Consumed} => (),
);
impl_writeable_tlv_based!(LeaseRecord, {
    (0, lease, required),
    (2, state, required),
});

/// Why bytes are not the record of a lease.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// They cannot be decoded.
    #[error("it cannot be decoded ({0:?}): restore it from a backup, or update this software")]
    Malformed(DecodeError),
    /// More follows.
    #[error("{0} bytes follow the record: restore it from a backup")]
    TrailingBytes(usize),
    /// It is the record of another lease than its key says.
    #[error("it holds lease {0}: restore it from a backup")]
    OtherLease(LeaseId),
}

impl LeaseRecord {
    /// Reads what [`Writeable::encode`](lightning::util::ser::Writeable::encode) wrote, and nothing
    /// after it.
    ///
    /// # Errors
    /// [`RecordError::Malformed`] and `TrailingBytes`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let record = Self::read(&mut bytes).map_err(RecordError::Malformed)?;
        match bytes.len() {
            0 => Ok(record),
            more => Err(RecordError::TrailingBytes(more)),
        }
    }
}
