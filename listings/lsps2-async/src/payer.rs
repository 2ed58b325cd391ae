//! Step 4: the payer pays over the imaginary SCID.
//!
//! Nothing in the offer, the static invoice or the route tells a payer that the channel does not
//! exist yet: the LSP is the introduction node of an ordinary blinded path. What the payer does
//! need is a way to wait for a recipient that is offline, and there are two.

use lightning::events::PaymentFailureReason;
use lightning::ln::channelmanager::{
    AChannelManager, OptionalOfferPaymentParams, PaymentId, RecentPaymentDetails,
};
use lightning::offers::offer::{Amount, Offer};
use lightning::offers::parse::Bolt12SemanticError;
use lightning::sign::EntropySource;
use lightning::types::payment::PaymentHash;
use lightning::util::config::UserConfig;

/// How a payer waits for a recipient that is offline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayerMode {
    /// The payer stays online and locks no HTLC before the recipient answers.
    AlwaysOnline,
    /// The payer locks an HTLC at its own LSP, which holds it, and may go offline.
    OftenOffline,
}

impl PayerMode {
    /// Sets what this mode needs on the payer's node.
    ///
    /// An announced node must stay [`PayerMode::AlwaysOnline`] (LDK,
    /// `UserConfig::hold_outbound_htlcs_at_next_hop`).
    pub fn configure(self, config: &mut UserConfig) {
        config.hold_outbound_htlcs_at_next_hop = self == PayerMode::OftenOffline;
    }
}

/// Sets what the payer's LSP needs to hold HTLCs for payers that are often offline.
///
/// The node must be online reliably (LDK, `UserConfig::enable_htlc_hold`). An announcing LSP also
/// has to take unannounced channels from its payers.
pub fn configure_payers_lsp(config: &mut UserConfig) {
    config.enable_htlc_hold = true;
    config.channel_handshake_limits.force_announced_channel_preference = false;
}

/// Why an offer was not paid. Nothing has been sent.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PayError {
    /// The offer names no amount and neither does the caller.
    #[error("the offer names no amount: say how many msat to pay")]
    AmountMissing,
    /// A payment of nothing.
    #[error("cannot pay 0 msat: name an amount of at least 1 msat")]
    NothingToPay,
    /// The channels cannot send that much at once.
    #[error(
        "cannot send {amount_msat} msat: the usable channels can send {sendable_msat} msat in all; \
         pay less, or open a larger channel"
    )]
    NotEnoughOutbound {
        /// What was to be paid, in msat.
        amount_msat: u64,
        /// What the usable channels can send together, in msat.
        sendable_msat: u64,
    },
    /// LDK refused the offer.
    #[error("the offer cannot be paid: {0:?}")]
    Offer(Bolt12SemanticError),
}

/// Requests the invoice behind `offer` and pays it when it arrives: LDK does the rest by itself.
///
/// `amount_msat` is required for an offer without an amount, as async receive offers are. Returns
/// the id under which LDK reports the payment.
///
/// ```
/// use lightning::ln::channelmanager::AChannelManager;
/// use lightning::{offers::offer::Offer, sign::EntropySource};
/// use lsps2_async::payer::{PayError, pay_offer};
///
/// fn tip<C: AChannelManager>(node: &C, keys: &impl EntropySource, offer: &Offer) {
///     match pay_offer(node, keys, offer, Some(50_000_000)) {
///         Ok(payment_id) => println!("paying as {payment_id}"),
///         Err(PayError::NotEnoughOutbound { sendable_msat, .. }) => println!("{sendable_msat}"),
///         Err(error) => println!("not paid: {error}"),
///     }
/// }
/// ```
pub fn pay_offer<C: AChannelManager + ?Sized, ES: EntropySource>(
    channel_manager: &C,
    entropy_source: &ES,
    offer: &Offer,
    amount_msat: Option<u64>,
) -> Result<PaymentId, PayError> {
    let channel_manager = channel_manager.get_cm();
    let channels = channel_manager.list_usable_channels();
    let sendable_msat = channels.iter().map(|c| c.next_outbound_htlc_limit_msat).sum();
    check_amount(offer, amount_msat, sendable_msat)?;
    let payment_id = PaymentId(entropy_source.get_secure_random_bytes());
    channel_manager
        .pay_for_offer(offer, amount_msat, payment_id, OptionalOfferPaymentParams::default())
        .map_err(PayError::Offer)?;
    Ok(payment_id)
}

fn check_amount(
    offer: &Offer,
    amount_msat: Option<u64>,
    sendable_msat: u64,
) -> Result<(), PayError> {
    let asked_msat = match offer.amount() {
        Some(Amount::Bitcoin { amount_msats }) => Some(amount_msats),
        Some(Amount::Currency { .. }) | None => None,
    };
    let amount_msat = amount_msat.or(asked_msat).ok_or(PayError::AmountMissing)?;
    if amount_msat == 0 {
        return Err(PayError::NothingToPay);
    }
    if amount_msat > sendable_msat {
        return Err(PayError::NotEnoughOutbound { amount_msat, sendable_msat });
    }
    Ok(())
}

/// What a payer can see of its payment. Of the lease, the opening fee and the JIT channel it sees
/// nothing; of the hold it sees only that the payment takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentStage {
    /// No HTLC is locked: the invoice, or the recipient of an always-online payer, is awaited.
    Waiting,
    /// An HTLC is locked, at the payer's LSP or further on.
    Locked {
        /// The payment's hash.
        payment_hash: PaymentHash,
        /// What is being paid, without routing fees, in msat.
        amount_msat: u64,
    },
    /// The recipient has claimed.
    Paid,
    /// Given up; the money is back, or on its way back.
    Abandoned,
}

/// The stage of the payment `payment_id`; `None` once LDK has forgotten it.
///
/// A payment that waits for release is listed by LDK as `AwaitingInvoice` although its static
/// invoice has arrived.
pub fn stage<C: AChannelManager + ?Sized>(
    channel_manager: &C,
    payment_id: PaymentId,
) -> Option<PaymentStage> {
    stage_of(&channel_manager.get_cm().list_recent_payments(), payment_id)
}

fn stage_of(payments: &[RecentPaymentDetails], payment_id: PaymentId) -> Option<PaymentStage> {
    payments.iter().find_map(|payment| match payment {
        RecentPaymentDetails::AwaitingInvoice { payment_id: id } if *id == payment_id => {
            Some(PaymentStage::Waiting)
        }
        RecentPaymentDetails::Pending { payment_id: id, payment_hash, total_msat, .. }
            if *id == payment_id =>
        {
            Some(PaymentStage::Locked { payment_hash: *payment_hash, amount_msat: *total_msat })
        }
        RecentPaymentDetails::Fulfilled { payment_id: id, .. } if *id == payment_id => {
            Some(PaymentStage::Paid)
        }
        RecentPaymentDetails::Abandoned { payment_id: id, .. } if *id == payment_id => {
            Some(PaymentStage::Abandoned)
        }
        RecentPaymentDetails::AwaitingInvoice { .. }
        | RecentPaymentDetails::Pending { .. }
        | RecentPaymentDetails::Fulfilled { .. }
        | RecentPaymentDetails::Abandoned { .. } => None,
    })
}

/// What to tell the payer when `Event::PaymentFailed` arrives. No money has left in any of these.
///
/// A payer cannot tell a dead lease from a dead channel: behind a blinded path both are reported
/// alike. With a single JIT path both end as [`PaymentFailureReason::RouteNotFound`], or as
/// [`PaymentFailureReason::RetriesExhausted`] if the HTLC was held.
pub fn explain_failure(reason: Option<PaymentFailureReason>) -> &'static str {
    match reason {
        // ANCHOR: what-to-tell-the-payer
        Some(PaymentFailureReason::RouteNotFound | PaymentFailureReason::RetriesExhausted) => {
            "no way to the recipient worked: the amount may be outside what its LSP takes, or the \
             offer is stale; try another amount, or ask for a new offer"
        }
        Some(PaymentFailureReason::PaymentExpired) => {
            "the recipient did not come online in time; pay again"
        }
        Some(PaymentFailureReason::InvoiceRequestExpired) => {
            "nobody answered for the offer: its LSP is unreachable, or no longer serves it"
        }
        Some(PaymentFailureReason::InvoiceRequestRejected) => {
            "the recipient's wallet refused to make an invoice: ask for a new offer"
        }
        // ANCHOR_END: what-to-tell-the-payer
        Some(PaymentFailureReason::RecipientRejected) => {
            "the recipient's wallet refused the payment"
        }
        Some(PaymentFailureReason::BlindedPathCreationFailed) => {
            "no way back to this node: connect to a peer that is announced, then pay again"
        }
        Some(PaymentFailureReason::UserAbandoned) => "abandoned by this node",
        Some(PaymentFailureReason::UnknownRequiredFeatures) => {
            "the invoice needs a newer wallet: update this one"
        }
        Some(PaymentFailureReason::UnexpectedError) | None => {
            "this node could not send the payment: see its log"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
    use lightning::offers::offer::OfferBuilder;

    fn offer(amount_msat: Option<u64>) -> Offer {
        let key = SecretKey::from_slice(&[1; 32]).expect("valid");
        let builder = OfferBuilder::new(PublicKey::from_secret_key(&Secp256k1::new(), &key));
        match amount_msat {
            Some(amount_msat) => builder.amount_msats(amount_msat).build(),
            None => builder.build(),
        }
        .expect("a valid offer")
    }

    /// In US dollars: a test vector of BOLT 12.
    fn in_dollars() -> Offer {
        "lno1qcp4256ypqpzwyq2p32x2um5ypmx2cm5dae8x93pqthvwfzadd7jejes8q9lhc4rvjxd022zv5l44g6qah82ru5rdpnpj"
            .parse()
            .expect("a valid offer")
    }

    #[test]
    fn an_amount_is_needed_from_the_offer_or_from_the_caller() {
        assert_eq!(check_amount(&offer(None), None, 10), Err(PayError::AmountMissing));
        assert_eq!(check_amount(&in_dollars(), None, u64::MAX), Err(PayError::AmountMissing));
        for (offer, amount_msat) in
            [(offer(None), Some(10)), (offer(Some(10)), None), (in_dollars(), Some(10))]
        {
            assert_eq!(check_amount(&offer, amount_msat, 10), Ok(()), "{amount_msat:?}");
            let too_much = PayError::NotEnoughOutbound { amount_msat: 10, sendable_msat: 9 };
            assert_eq!(check_amount(&offer, amount_msat, 9), Err(too_much), "{amount_msat:?}");
        }
    }

    #[test]
    fn the_callers_amount_counts_rather_than_the_offers() {
        let sendable_msat = 15;
        assert_eq!(check_amount(&offer(Some(20)), Some(10), sendable_msat), Ok(()));
        let too_much = PayError::NotEnoughOutbound { amount_msat: 20, sendable_msat };
        assert_eq!(check_amount(&offer(Some(10)), Some(20), sendable_msat), Err(too_much));
    }

    #[test]
    fn nothing_cannot_be_paid_even_without_channels() {
        assert_eq!(check_amount(&offer(None), Some(0), 0), Err(PayError::NothingToPay));
        assert_eq!(check_amount(&offer(Some(10)), Some(0), 10), Err(PayError::NothingToPay));
    }

    #[test]
    fn each_payment_is_found_at_its_own_stage() {
        let id = |byte| PaymentId([byte; 32]);
        let hash = PaymentHash([9; 32]);
        let payments = [
            RecentPaymentDetails::AwaitingInvoice { payment_id: id(1) },
            RecentPaymentDetails::Pending {
                payment_id: id(2),
                payment_hash: hash,
                total_msat: 5_000,
                pending_fee_msat: Some(7),
                is_probe: false,
            },
            RecentPaymentDetails::Fulfilled {
                payment_id: id(3),
                payment_hash: Some(hash),
                fee_paid_msat: Some(7),
            },
            RecentPaymentDetails::Abandoned {
                payment_id: id(4),
                payment_hash: hash,
                is_probe: false,
            },
        ];
        let stages = [1, 2, 3, 4, 5].map(|byte| stage_of(&payments, id(byte)));
        let expected = [
            Some(PaymentStage::Waiting),
            Some(PaymentStage::Locked { payment_hash: hash, amount_msat: 5_000 }),
            Some(PaymentStage::Paid),
            Some(PaymentStage::Abandoned),
            None,
        ];
        assert_eq!(stages, expected);
    }

    #[test]
    fn failures_a_payer_can_tell_apart_are_explained_apart() {
        use PaymentFailureReason as Reason;
        // Behind a blinded path these two look alike.
        let no_way = explain_failure(Some(Reason::RouteNotFound));
        assert_eq!(explain_failure(Some(Reason::RetriesExhausted)), no_way);
        let unknown = explain_failure(None);
        assert_eq!(explain_failure(Some(Reason::UnexpectedError)), unknown);
        let others = [
            Reason::PaymentExpired,
            Reason::InvoiceRequestExpired,
            Reason::InvoiceRequestRejected,
            Reason::RecipientRejected,
            Reason::BlindedPathCreationFailed,
            Reason::UserAbandoned,
            Reason::UnknownRequiredFeatures,
        ];
        let mut texts = vec![no_way, unknown];
        texts.extend(others.map(|reason| explain_failure(Some(reason))));
        let total = texts.len();
        texts.sort_unstable();
        texts.dedup();
        assert_eq!(texts.len(), total);
    }

    #[test]
    fn an_often_offline_payer_asks_for_the_hold_and_its_lsp_grants_it() {
        let mut payer = UserConfig::default();
        PayerMode::OftenOffline.configure(&mut payer);
        assert!(payer.hold_outbound_htlcs_at_next_hop && !payer.enable_htlc_hold);
        PayerMode::AlwaysOnline.configure(&mut payer);
        assert!(!payer.hold_outbound_htlcs_at_next_hop);

        let mut lsp = UserConfig::default();
        configure_payers_lsp(&mut lsp);
        assert!(lsp.enable_htlc_hold && !lsp.hold_outbound_htlcs_at_next_hop);
    }
}
