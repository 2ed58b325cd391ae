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

#[test]
fn claims_under_way_count_to_the_limit_and_what_is_not_judged_does_not() {
    let htlc = |byte: u8, amount_msat| InboundHTLCDetails {
        htlc_id: byte.into(),
        amount_msat,
        cltv_expiry: 100,
        payment_hash: PaymentHash([byte; 32]),
        state: None,
        is_dust: false,
    };
    let claiming = BTreeSet::from([PaymentHash([1; 32]), PaymentHash([3; 32])]);
    let htlcs = [htlc(1, 40), htlc(2, 1_000), htlc(3, 2), htlc(3, 3)];
    assert_eq!(claimed_msat(&htlcs, &claiming), 45);
    let endless = [htlc(1, u64::MAX), htlc(3, 1)];
    assert_eq!(claimed_msat(&endless, &claiming), u64::MAX);
}
