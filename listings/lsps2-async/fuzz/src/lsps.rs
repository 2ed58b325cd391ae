//! The JSON of bLIP-50 and bLIP-52, from an LSP and from a client.

pub(crate) mod client;
pub(crate) mod sale;

use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use serde_json::Value;

/// A menu that LDK can have read in one way only, and wholly.
fn whole(menu: &Value) -> bool {
    let known = |name: &String| {
        matches!(
            name.as_str(),
            "min_fee_msat"
                | "proportional"
                | "valid_until"
                | "min_lifetime"
                | "max_client_to_self_delay"
                | "min_payment_size_msat"
                | "max_payment_size_msat"
                | "promise"
        )
    };
    menu.as_array().is_some_and(|entries| {
        entries.iter().all(|entry| entry.as_object().is_some_and(|entry| entry.keys().all(known)))
    })
}

/// In the order bLIP-52 demands, so that a client may take any of it.
fn in_order(menu: &[LSPS2OpeningFeeParams]) -> bool {
    menu.is_sorted_by(|one, other| {
        one.min_fee_msat <= other.min_fee_msat
            && one.proportional <= other.proportional
            && (one.min_fee_msat, one.proportional) != (other.min_fee_msat, other.proportional)
    })
}
