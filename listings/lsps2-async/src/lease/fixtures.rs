//! Leases to test with.

use super::{Lease, LeaseId, LeaseRecord, LeaseState, OpeningFeeParams, TrustModel};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use core::time::Duration;
use lightning::types::payment::PaymentHash;
use proptest::prelude::*;

pub(crate) const VALID_UNTIL: Duration = Duration::from_secs(1_800_000_000);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn node(seed: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[seed; 32]).expect("seed is not 0 or 255");
    PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret)
}

pub(crate) fn hash(byte: u8) -> PaymentHash {
    PaymentHash([byte; 32])
}

pub(crate) fn terms() -> OpeningFeeParams {
    OpeningFeeParams {
        min_fee_msat: 2_000_000,
        proportional: 10_000,
        valid_until: VALID_UNTIL,
        min_lifetime: 1_008,
        max_client_to_self_delay: 2_016,
        min_payment_size_msat: 1_000,
        max_payment_size_msat: 1_000_000_000,
    }
}

/// A variable-size lease of LSP 1.
pub(crate) fn lease(intercept_scid: u64) -> Lease {
    Lease {
        id: LeaseId { lsp_node_id: node(1), intercept_scid },
        cltv_expiry_delta: 144,
        opening_fee_params: terms(),
        payment_size_msat: None,
        trust_model: TrustModel::LspTrustsClient,
    }
}

pub(crate) fn lease_until(intercept_scid: u64, valid_until: Duration) -> Lease {
    let mut lease = lease(intercept_scid);
    lease.opening_fee_params.valid_until = valid_until;
    lease
}

pub(crate) fn active(lease: Lease) -> LeaseRecord {
    LeaseRecord { lease, state: LeaseState::Active }
}

pub(crate) fn any_node() -> impl Strategy<Value = PublicKey> {
    (1u8..255).prop_map(node)
}
