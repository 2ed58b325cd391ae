//! What the router says of blinded payment paths, in the transcript.

use bitcoin::hex::DisplayHex;
use lightning::blinded_path::IntroductionNode;
use lightning::blinded_path::payment::{BlindedPaymentPath, PaymentContext};
use lsps2_async::lease::Lease;
use lsps2_async::metadata::LeaseMetadata;
use lsps2_async::router::PathChoice;
use serde_json::{Value, json};

use crate::events::scid;
use crate::tap::Pen;
use crate::transcript::What;
use crate::types::Router;

/// The router, with each of its answers written down.
pub(crate) fn written_down(router: Router, pen: Pen) -> Router {
    router.telling(move |context, choice, paths| write(&pen, context, choice, paths))
}

/// Writes one entry for each path, or one for the refusal.
fn write(
    pen: &Pen,
    context: &PaymentContext,
    choice: &PathChoice,
    paths: &Result<Vec<BlindedPaymentPath>, ()>,
) {
    let context = match context {
        PaymentContext::AsyncBolt12Offer(_) => "static_invoice",
        PaymentContext::Bolt12Offer(_) => "invoice",
        PaymentContext::Bolt12Refund(_) => "refund",
    };
    let tell = |paths: &str, detail| {
        let (context, paths) = (context.to_owned(), paths.to_owned());
        pen.write(What::Paths { context, paths, detail });
    };
    match (choice, paths) {
        (PathChoice::Jit(leases), Ok(paths)) => {
            for path in paths {
                tell("jit", jit(path, leases));
            }
        }
        (_, Ok(paths)) => {
            for path in paths {
                tell("ordinary", limits(path));
            }
        }
        (choice, Err(())) => tell("refused", json!({ "reason": reason(choice) })),
    }
}

fn reason(choice: &PathChoice) -> &'static str {
    match choice {
        PathChoice::Refuse => "there is neither a usable channel nor an active lease",
        PathChoice::Ordinary => "no path leads over a channel",
        PathChoice::Jit(_) => "the lease makes no path",
    }
}

/// What everybody can read of a path.
fn limits(path: &BlindedPaymentPath) -> Value {
    json!({
        "hops": path.blinded_hops().len(),
        "cltv_expiry_delta": path.payinfo.cltv_expiry_delta,
        "htlc_minimum_msat": path.payinfo.htlc_minimum_msat,
        "htlc_maximum_msat": path.payinfo.htlc_maximum_msat,
    })
}

/// The same, with what only the LSP and the recipient will read: which lease the path belongs to.
fn jit(path: &BlindedPaymentPath, leases: &[Lease]) -> Value {
    let mut detail = limits(path);
    let lease = leases.iter().find(|lease| is_over(path, lease));
    let terms = lease.and_then(|lease| LeaseMetadata::for_lease(lease).ok());
    if let Some(terms) = terms {
        let metadata = terms.encode();
        detail["intercept_scid"] = json!(scid(terms.intercept_scid));
        detail["lsp_cltv_expiry_delta"] = json!(terms.cltv_expiry_delta);
        detail["metadata_bytes"] = json!(metadata.len());
        detail["metadata"] = json!(metadata.to_lower_hex_string());
    }
    detail
}

/// A router builds one path for each LSP.
fn is_over(path: &BlindedPaymentPath, lease: &Lease) -> bool {
    *path.introduction_node() == IntroductionNode::NodeId(lease.id.lsp_node_id)
}
