use super::*;
use lightning::events::PaymentPurpose;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::types::payment::{PaymentPreimage, PaymentSecret};

fn payment() -> Claimable {
    let secret = PaymentSecret([3; 32]);
    Claimable {
        payment_hash: PaymentHash([1; 32]),
        amount_msat: 98_000_000,
        skimmed_fee_msat: 2_000_000,
        purpose: PaymentPurpose::Bolt11InvoicePayment {
            payment_preimage: Some(PaymentPreimage([2; 32])),
            payment_secret: secret,
        },
        channels: vec![(ChannelId([4; 32]), Some(5)), (ChannelId([6; 32]), None)],
        onion_fields: Some(RecipientOnionFields::secret_only(secret, 100_000_000)),
        claim_deadline: Some(144),
    }
}

#[test]
fn a_payment_that_waits_is_read_as_it_was_written() {
    let read = read_waiting(&write_waiting(&[payment()])).unwrap();
    assert_eq!(read.len(), 1);
    assert_eq!(read[0].to_event(), payment().to_event());
    assert!(read_waiting(b"[[1, 2, 3]]").is_err(), "nothing is lost without a word");
}

#[test]
fn patience_without_end_is_never_over() {
    assert!(is_overdue(100, 18, 118));
    assert!(!is_overdue(100, 18, 117));
    assert!(!is_overdue(100, u32::MAX, 1_000_000));
}
