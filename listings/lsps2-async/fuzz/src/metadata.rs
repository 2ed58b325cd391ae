//! Step 2's value, which a payer's onion brings back.

use lsps2_async::metadata::{LeaseMetadata, PAYMENT_METADATA_KEY};
use std::collections::BTreeMap;

use crate::check_fee;

/// Bytes are refused, or written again as they were read.
pub fn metadata(bytes: &[u8]) -> bool {
    let entries = BTreeMap::from([(PAYMENT_METADATA_KEY, bytes.to_vec()), (7, vec![7])]);
    let read = LeaseMetadata::read_from(Some(&entries));
    let Ok(metadata) = LeaseMetadata::decode(bytes) else {
        assert!(read.is_err());
        return false;
    };
    assert_eq!(read, Ok(Some(metadata.clone())));
    let again = metadata.encode();
    assert_eq!(LeaseMetadata::decode(&again), Ok(metadata.clone()));
    // Only skipped TLVs are not written again.
    assert!(again.len() < bytes.len() || again == bytes);

    let mut map = Some(entries.clone());
    metadata.insert_into(&mut map);
    assert_eq!(map, Some(BTreeMap::from([(PAYMENT_METADATA_KEY, again), (7, vec![7])])));

    assert!(metadata.cltv_expiry_delta >= 48);
    for gross_msat in [0, metadata.min_htlc_msat, metadata.valid_until.as_secs(), u64::MAX] {
        let size = metadata.payment_size_msat.unwrap_or(gross_msat);
        let fee = metadata.opening_fee_msat(gross_msat);
        check_fee(fee, size, metadata.min_fee_msat, metadata.proportional);
    }
    true
}
