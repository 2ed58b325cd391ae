//! Plain LSPS2: what a BOLT 11 invoice over a lease has to say.
//!
//! The flow is shorter than with an offer: the recipient is online, hands out an invoice, and the
//! payer reads the intercept SCID in a route hint. The lease, the [`claim`](crate::claim) guard and
//! the whole [LSP side](crate::lsp) are the same.
//!
//! LDK's `ChannelManager::create_bolt11_invoice` takes no route hint of ours, so a wallet builds
//! the invoice itself, from [`InvoiceTerms`]:
//!
//! ```
//! # use core::time::Duration;
//! use lightning::bolt11_invoice::{Currency, InvoiceBuilder, RawBolt11Invoice};
//! use lightning::types::payment::{PaymentHash, PaymentSecret};
//! use lsps2_async::bolt11::InvoiceTerms;
//!
//! /// `hash`, `secret` and `metadata` are what `ChannelManager::create_inbound_payment` made of
//! /// the amount, the expiry and the metadata of these terms.
//! fn unsigned(
//!     terms: &InvoiceTerms,
//!     (hash, secret, metadata): (PaymentHash, PaymentSecret, Vec<u8>),
//!     now: Duration,
//! ) -> RawBolt11Invoice {
//!     let invoice = InvoiceBuilder::new(Currency::Regtest)
//!         .description("coffee".to_owned())
//!         .payment_hash(hash)
//!         .payment_secret(secret)
//!         .payment_metadata(metadata)
//!         .duration_since_epoch(now)
//!         .expiry_time(terms.longest_expiry)
//!         .min_final_cltv_expiry_delta(terms.min_final_cltv_expiry_delta.into())
//!         .private_route(terms.route_hint.clone());
//!     let invoice = match terms.amount_msat {
//!         Some(amount_msat) => invoice.amount_milli_satoshis(amount_msat).basic_mpp(),
//!         None => invoice,
//!     };
//!     invoice.build_raw().expect("an amount of whole msat")
//! }
//! ```

use core::time::Duration;
use lightning::events::PaymentPurpose;
use lightning::ln::channelmanager::MIN_FINAL_CLTV_EXPIRY_DELTA;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::routing::router::{RouteHint, RouteHintHop};
use lightning::types::routing::RoutingFees;
use std::collections::BTreeMap;
use thiserror::Error;

use crate::lease::Lease;
use crate::metadata::{LeaseMetadata, MetadataError, PAYMENT_METADATA_KEY};

/// bLIP-52 asks the client for a final CLTV delta two blocks above its usual minimum.
const BLIP52_EXTRA_FINAL_BLOCKS: u16 = 2;

/// What an invoice over a lease says, and may not leave out (bLIP-52, "Invoice Generation").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvoiceTerms {
    /// The only route hint: one hop from the LSP over the intercept SCID, free of routing fees.
    pub route_hint: RouteHint,
    /// The amount, in msat, if the lease is of a fixed size; then the invoice sets `basic_mpp`.
    /// `None` for a variable-size lease: no amount and no `basic_mpp`.
    pub amount_msat: Option<u64>,
    /// The `c` field, in blocks. Do not demand it of the payment that arrives: what exceeds LDK's
    /// minimum is there for the blocks that are mined while the channel opens.
    pub min_final_cltv_expiry_delta: u16,
    /// The largest `expiry` for an invoice with the timestamp these terms were made for: whole
    /// seconds.
    pub longest_expiry: Duration,
    /// The lease, for the guard at the claim ([`lease_metadata`]). LDK encrypts it and derives the
    /// payment hash from it; a payer that leaves it out or changes it is refused.
    pub payment_metadata: Vec<u8>,
}

/// Why there can be no invoice over a lease.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvoiceTermsError {
    /// The lease cannot be paid, or not over any path.
    #[error("this lease can be used in no invoice: {0}")]
    Unusable(#[from] MetadataError),
    /// `valid_until` has passed.
    #[error("this lease has run out: buy another one")]
    Expired,
}

impl InvoiceTerms {
    /// The terms for an invoice with the timestamp `now`, in seconds since the Unix epoch.
    ///
    /// # Errors
    /// [`InvoiceTermsError`]: buy another lease.
    pub fn for_lease(lease: &Lease, now: Duration) -> Result<Self, InvoiceTermsError> {
        let metadata = LeaseMetadata::for_lease(lease)?;
        // In whole seconds, as an invoice has them.
        let left = metadata.valid_until.as_secs().saturating_sub(now.as_secs());
        if left == 0 {
            return Err(InvoiceTermsError::Expired);
        }
        Ok(Self {
            route_hint: route_hint(&metadata),
            amount_msat: lease.payment_size_msat,
            min_final_cltv_expiry_delta: MIN_FINAL_CLTV_EXPIRY_DELTA + BLIP52_EXTRA_FINAL_BLOCKS,
            longest_expiry: Duration::from_secs(left),
            payment_metadata: metadata.encode(),
        })
    }
}

/// A BOLT 11 hint has no place for the smallest or the largest HTLC: they never reach the payer.
fn route_hint(lease: &LeaseMetadata) -> RouteHint {
    RouteHint(vec![RouteHintHop {
        src_node_id: lease.lsp_node_id,
        short_channel_id: lease.intercept_scid,
        // The LSP earns the opening fee, which it skims.
        fees: RoutingFees { base_msat: 0, proportional_millionths: 0 },
        cltv_expiry_delta: lease.cltv_expiry_delta,
        htlc_minimum_msat: None,
        htlc_maximum_msat: None,
    }])
}

/// The lease of a BOLT 11 payment, in the form in which
/// [`Arrival::metadata`](crate::claim::Arrival::metadata) has it. `None` for every other payment:
/// without a secret of ours, metadata is whatever the payer says.
pub fn lease_metadata(
    purpose: &PaymentPurpose,
    onion_fields: Option<&RecipientOnionFields>,
) -> Option<BTreeMap<u64, Vec<u8>>> {
    match purpose {
        PaymentPurpose::Bolt11InvoicePayment { .. } => {
            let value = onion_fields?.payment_metadata.clone()?;
            Some(BTreeMap::from([(PAYMENT_METADATA_KEY, value)]))
        }
        PaymentPurpose::Bolt12OfferPayment { .. }
        | PaymentPurpose::Bolt12RefundPayment { .. }
        | PaymentPurpose::SpontaneousPayment(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Arrival;
    use crate::lease::fixtures::{DAY, VALID_UNTIL, lease, node};
    use lightning::bolt11_invoice::{Bolt11Invoice, Currency, InvoiceBuilder};
    use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};

    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    const NOW: Duration = Duration::from_secs(VALID_UNTIL.as_secs() - DAY.as_secs());
    const SCID: u64 = (29_451 << 40) | (4_815 << 16) | 1;

    fn fixed_size(size_msat: u64) -> Lease {
        Lease { payment_size_msat: Some(size_msat), ..lease(SCID) }
    }

    #[test]
    fn the_hint_is_one_free_hop_over_the_intercept_scid() {
        let terms = InvoiceTerms::for_lease(&lease(SCID), NOW).unwrap();
        let [hop] = &terms.route_hint.0[..] else { panic!("{terms:?}") };
        assert_eq!((hop.src_node_id, hop.short_channel_id), (node(1), SCID));
        assert_eq!((hop.fees.base_msat, hop.fees.proportional_millionths), (0, 0));
        assert_eq!(hop.cltv_expiry_delta, 144);
        assert_eq!(terms.min_final_cltv_expiry_delta, 44);
    }

    #[test]
    fn only_a_fixed_size_names_an_amount() {
        assert_eq!(InvoiceTerms::for_lease(&lease(SCID), NOW).unwrap().amount_msat, None);
        let fixed = InvoiceTerms::for_lease(&fixed_size(5_000_000), NOW).unwrap();
        assert_eq!(fixed.amount_msat, Some(5_000_000));
    }

    #[test]
    fn an_invoice_ends_with_its_lease_at_the_latest() {
        let at = |now| InvoiceTerms::for_lease(&lease(SCID), now).map(|t| t.longest_expiry);
        assert_eq!(at(NOW), Ok(DAY));
        // 999 ms are no second: the timestamp of an invoice is rounded down.
        let now = VALID_UNTIL - Duration::from_millis(1);
        assert_eq!(at(now), Ok(Duration::from_secs(1)));
        assert_eq!(at(VALID_UNTIL), Err(InvoiceTermsError::Expired));
        assert_eq!(at(VALID_UNTIL + DAY), Err(InvoiceTermsError::Expired));
    }

    #[test]
    fn a_lease_that_nobody_can_pay_makes_no_invoice() {
        let too_large = fixed_size(1_000_000_001);
        let not_payable = InvoiceTermsError::Unusable(MetadataError::NotPayable);
        assert_eq!(InvoiceTerms::for_lease(&too_large, NOW), Err(not_payable));
        let delta = Lease { cltv_expiry_delta: 47, ..lease(SCID) };
        let unusable = InvoiceTermsError::Unusable(MetadataError::CltvExpiryDelta(47));
        assert_eq!(InvoiceTerms::for_lease(&delta, NOW), Err(unusable));
    }

    #[test]
    fn the_guard_finds_the_lease_in_a_bolt11_payment_and_nowhere_else() {
        let lease = fixed_size(5_000_000);
        let terms = InvoiceTerms::for_lease(&lease, NOW).unwrap();
        let secret = PaymentSecret([2; 32]);
        let mut fields = RecipientOnionFields::secret_only(secret, 5_000_000);
        let bolt11 =
            PaymentPurpose::Bolt11InvoicePayment { payment_preimage: None, payment_secret: secret };
        assert_eq!(lease_metadata(&bolt11, None), None);
        assert_eq!(lease_metadata(&bolt11, Some(&fields)), None);

        fields.payment_metadata = Some(terms.payment_metadata);
        let found = lease_metadata(&bolt11, Some(&fields));
        let read = LeaseMetadata::read_from(found.as_ref()).unwrap();
        assert_eq!(read, Some(LeaseMetadata::for_lease(&lease).unwrap()));
        // A keysend payer writes what it likes.
        let keysend = PaymentPurpose::SpontaneousPayment(PaymentPreimage([3; 32]));
        assert_eq!(lease_metadata(&keysend, Some(&fields)), None);
        assert_eq!(Arrival::metadata_of(&bolt11), None);
    }

    /// What the hint does not say: read back from its letters, an invoice has no limits.
    #[test]
    fn a_bolt11_hint_carries_no_smallest_or_largest_htlc() {
        let mut terms = InvoiceTerms::for_lease(&lease(SCID), NOW).unwrap();
        terms.route_hint.0[0].htlc_minimum_msat = Some(2_000_001);
        terms.route_hint.0[0].htlc_maximum_msat = Some(1_000_000_000);
        let (secp, key) = (Secp256k1::new(), SecretKey::from_slice(&[7; 32]).unwrap());
        let invoice = InvoiceBuilder::new(Currency::Regtest)
            .description(String::new())
            .payment_hash(PaymentHash([1; 32]))
            .payment_secret(PaymentSecret([2; 32]))
            .duration_since_epoch(NOW)
            .min_final_cltv_expiry_delta(terms.min_final_cltv_expiry_delta.into())
            .private_route(terms.route_hint)
            .build_signed(|hash| secp.sign_ecdsa_recoverable(hash, &key))
            .unwrap();
        let read: Bolt11Invoice = invoice.to_string().parse().unwrap();
        let hop = &read.route_hints()[0].0[0];
        assert_eq!(hop.short_channel_id, SCID);
        assert_eq!((hop.htlc_minimum_msat, hop.htlc_maximum_msat), (None, None));
    }
}
