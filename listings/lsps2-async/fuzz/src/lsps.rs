//! The JSON of bLIP-50 and bLIP-52, from an LSP and from a client.

pub(crate) mod client;
pub(crate) mod sale;

use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use serde_json::Value;

/// The terms in a menu that stand there in one form only: what LDK read of them is all there was.
fn whole(menu: &Value) -> bool {
    let entries = menu.as_array().into_iter().flatten();
    entries.filter_map(Value::as_object).all(|entry| {
        entry.keys().all(|name| {
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
        })
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
