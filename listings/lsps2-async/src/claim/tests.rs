use super::*;
use crate::lease::fixtures::{DAY, VALID_UNTIL, active, hash, lease, node};
use lightning::blinded_path::payment::{Bolt12OfferContext, Bolt12RefundContext};
use lightning::offers::invoice_request::InvoiceRequestFields;
use lightning::offers::offer::OfferId;
use lightning::types::payment::{PaymentPreimage, PaymentSecret};
use proptest::prelude::*;

const GROSS: u64 = 300_000_000;
/// One percent of [`GROSS`]: above the minimum of the fixture.
const FEE: u64 = 3_000_000;
const SECOND: Duration = Duration::from_secs(1);

/// A payment of [`GROSS`] by payer 7 under lease 1, with a skim, and what the node knows of it.
#[derive(Clone)]
struct Case {
    skim: u64,
    amount: u64,
    metadata: Option<BTreeMap<u64, Vec<u8>>>,
    peers: Vec<PublicKey>,
    record: Option<LeaseRecord>,
    channel_use: ChannelUse,
    total: Option<u64>,
    unfunded: bool,
    now: Duration,
}

fn metadata_of(lease: &Lease) -> Option<BTreeMap<u64, Vec<u8>>> {
    let mut entries = None;
    LeaseMetadata::for_lease(lease).expect("payable").insert_into(&mut entries);
    entries
}

fn skimming(skim: u64) -> Case {
    Case {
        skim,
        amount: GROSS - skim,
        metadata: metadata_of(&lease(1)),
        peers: vec![node(1)],
        record: Some(active(lease(1))),
        channel_use: ChannelUse::Jit,
        total: None,
        unfunded: false,
        now: VALID_UNTIL - DAY,
    }
}

fn in_state(state: LeaseState, skim: u64) -> Case {
    Case { record: Some(LeaseRecord { lease: lease(1), state }), ..skimming(skim) }
}

fn spent_by(payment: u8, skimmed_fee_msat: u64, settled: bool) -> Consumption {
    let (payment_hash, channel_id) = (hash(payment), ChannelId([4; 32]));
    Consumption { payment_hash, channel_id, skimmed_fee_msat, settled }
}

impl Case {
    fn judge(&self) -> Result<Verdict, Refusal> {
        let arrival = Arrival {
            payment_hash: hash(7),
            amount_msat: self.amount,
            skimmed_fee_msat: self.skim,
            metadata: self.metadata.as_ref(),
            channel_peers: &self.peers,
            channel_id: ChannelId([4; 32]),
            channel_use: self.channel_use,
            total_msat: self.total,
            unfunded: self.unfunded,
        };
        let lookup = |id: &LeaseId| self.record.clone().filter(|record| record.lease.id == *id);
        judge(&arrival, lookup, &ClaimPolicy::default(), self.now)
    }

    fn refusal(&self) -> Refusal {
        self.judge().expect_err("it must be refused")
    }

    fn is_accepted(&self) -> bool {
        let lease = lease(1).id;
        let consumption = spent_by(7, self.skim, false);
        self.judge() == Ok(Verdict::ConsumeThenClaim { lease, consumption })
    }
}

#[test]
fn without_a_skim_nothing_is_asked() {
    let funded = skimming(0);
    let stranger = Case { metadata: None, peers: vec![], record: None, ..funded.clone() };
    assert_eq!(stranger.judge(), Ok(Verdict::Claim));
    let expired = Some(LeaseRecord { lease: lease(1), state: LeaseState::Expired });
    assert_eq!(Case { record: expired, ..funded.clone() }.judge(), Ok(Verdict::Claim));
    let state = LeaseState::Consumed(spent_by(8, FEE, true));
    let consumed = Some(LeaseRecord { lease: lease(1), state });
    assert_eq!(Case { record: consumed, ..funded }.judge(), Ok(Verdict::Claim));
}

/// The LSP withholds the funding until the fee is paid. An invoice that leads around the intercept
/// SCID, or a part that slips through in full, must not get the preimage for an unfunded channel.
#[test]
fn over_an_unfunded_channel_somebody_has_to_pay_the_fee() {
    let nothing = || Case { unfunded: true, ..skimming(0) };
    assert_eq!(nothing().refusal(), Refusal::FeeNotTaken);
    assert_eq!(Case { metadata: None, ..nothing() }.refusal(), Refusal::FeeNotTaken);
    let mixed = Case { channel_use: ChannelUse::Other, ..nothing() };
    assert_eq!(mixed.refusal(), Refusal::FeeNotTaken);

    let mut free = lease(1);
    free.opening_fee_params.min_fee_msat = 0;
    free.opening_fee_params.proportional = 0;
    let record = Some(active(free.clone()));
    let free = Case { metadata: metadata_of(&free), record, ..nothing() };
    assert_eq!(free.judge(), Ok(Verdict::Claim));
    assert_eq!(Case { record: None, ..free }.refusal(), Refusal::FeeNotTaken);
}

/// A part of the fee is as good as none: it can have been on a part of the payment that was refused.
#[test]
fn an_lsp_that_is_trusted_must_take_its_whole_fee() {
    for (size, least) in [(Some(GROSS), FEE), (None, 2_000_000)] {
        let mut lease = lease(1);
        (lease.payment_size_msat, lease.trust_model) = (size, TrustModel::ClientTrustsLsp);
        let record = Some(active(lease.clone()));
        let paying = |skim| Case {
            metadata: metadata_of(&lease),
            record: record.clone(),
            unfunded: true,
            ..skimming(skim)
        };
        assert!(paying(least).is_accepted());
        assert_eq!(paying(least - 1).refusal(), Refusal::FeeNotTaken);
        assert!(Case { unfunded: false, ..paying(least - 1) }.is_accepted());
    }
}

/// LDK `0.3.0-rc3` adds up the skims that the peer wrote into the parts of a payment, without looking
/// for an overflow (`total_counterparty_skimmed_msat`, channelmanager.rs): two parts of 1 msat that
/// name 2^63 msat each arrive as 2 msat of which nothing was skimmed.
#[test]
fn skims_that_wrap_around_do_not_pass_for_none() {
    let skims = [1 << 63, 1 << 63];
    let wrapped = skims.into_iter().fold(0, u64::wrapping_add);
    for (skim, unfunded) in [(wrapped, true), (wrapped, false), (wrapped + 1, true)] {
        let case = Case { amount: 2, total: Some(GROSS), unfunded, ..skimming(skim) };
        let incomplete = Refusal::Incomplete { gross_msat: 2 + skim, total_msat: GROSS };
        assert_eq!(case.refusal(), incomplete);
    }
    assert!(Case { total: Some(GROSS), ..skimming(FEE) }.is_accepted());
    let one_short = Case { total: Some(GROSS + 1), ..skimming(FEE) };
    assert!(matches!(one_short.refusal(), Refusal::Incomplete { .. }));
}

/// A payment that may not open a channel may not pay for one either: of one msat more than the least
/// fee, one msat would be left.
#[test]
fn a_payment_smaller_than_the_lease_allows_pays_no_fee() {
    let mut variable = lease(1);
    variable.opening_fee_params.min_payment_size_msat = 10_000_000;
    let mut fixed = variable.clone();
    fixed.payment_size_msat = Some(GROSS);
    for (lease, smallest_msat, skim) in [(variable, 10_000_000, 2_000_000), (fixed, GROSS, FEE)] {
        let paying = |gross: u64| Case {
            amount: gross - skim,
            metadata: metadata_of(&lease),
            record: Some(active(lease.clone())),
            ..skimming(skim)
        };
        let gross_msat = smallest_msat - 1;
        let too_small = Refusal::TooSmall { gross_msat, smallest_msat };
        assert_eq!(paying(gross_msat).refusal(), too_small);
        assert!(paying(smallest_msat).is_accepted());
    }
}

#[test]
fn the_agreed_fee_is_paid_and_not_1_msat_more() {
    assert!(skimming(1).is_accepted());
    assert!(skimming(FEE).is_accepted());
    assert_eq!(
        skimming(FEE + 1).refusal(),
        Refusal::TooMuch { skimmed_fee_msat: FEE + 1, gross_msat: GROSS, agreed_msat: FEE }
    );
}

#[test]
fn the_minimum_fee_holds_for_small_payments() {
    let small = |skim| Case { amount: 2_000_001, ..skimming(skim) };
    assert!(small(2_000_000).is_accepted());
    assert!(matches!(small(2_000_001).refusal(), Refusal::TooMuch { agreed_msat: 2_000_000, .. }));
}

#[test]
fn a_fixed_size_lease_is_priced_by_its_size() {
    let mut fixed = lease(1);
    fixed.payment_size_msat = Some(GROSS);
    let paid = |amount, skim| Case {
        amount,
        metadata: metadata_of(&fixed),
        record: Some(active(fixed.clone())),
        ..skimming(skim)
    };
    assert!(paid(GROSS, FEE).is_accepted());
    assert!(matches!(paid(10 * GROSS, FEE + 1).refusal(), Refusal::TooMuch { .. }));
}

#[test]
fn a_skim_needs_a_lease_in_the_metadata() {
    let bare = Case { metadata: None, ..skimming(1) };
    assert_eq!(bare.refusal(), Refusal::NoLease { skimmed_fee_msat: 1 });
    let other = Case { metadata: Some(BTreeMap::from([(1, vec![])])), ..skimming(1) };
    assert_eq!(other.refusal(), Refusal::NoLease { skimmed_fee_msat: 1 });

    let broken = Case { metadata: Some(BTreeMap::from([(52, vec![1, 2])])), ..skimming(1) };
    assert_eq!(broken.refusal(), Refusal::Unreadable(MetadataError::Truncated));
}

#[test]
fn only_the_lsp_may_skim() {
    let nowhere = Case { peers: vec![], ..skimming(FEE) };
    assert_eq!(nowhere.refusal(), Refusal::UnknownChannel);
    assert!(Case { peers: vec![node(1), node(1)], ..skimming(FEE) }.is_accepted());
    for peers in [vec![node(2)], vec![node(1), node(2)], vec![node(2), node(1)]] {
        let foreign = Refusal::ForeignPeer(node(2));
        assert_eq!(Case { peers, ..skimming(FEE) }.refusal(), foreign);
    }
}

#[test]
fn the_lease_must_be_known_with_the_same_terms() {
    let unknown = Case { record: None, ..skimming(FEE) };
    let id = lease(1).id;
    assert_eq!(unknown.refusal(), Refusal::UnknownLease(id));

    let changes: [fn(&mut Lease); 5] = [
        |lease| lease.opening_fee_params.min_fee_msat += 1,
        |lease| lease.opening_fee_params.proportional += 1,
        |lease| lease.opening_fee_params.valid_until += SECOND,
        |lease| lease.payment_size_msat = Some(GROSS),
        |lease| lease.cltv_expiry_delta += 1,
    ];
    for change in changes {
        let mut in_path = lease(1);
        change(&mut in_path);
        let differs = Case { metadata: metadata_of(&in_path), ..skimming(1) };
        assert_eq!(differs.refusal(), Refusal::OtherTerms(id));
    }
}

#[test]
fn a_lease_is_paid_for_once() {
    let other = in_state(LeaseState::Consumed(spent_by(8, FEE, false)), 1);
    let by = spent_by(8, FEE, false);
    assert_eq!(other.refusal(), Refusal::AlreadyConsumed { skimmed_fee_msat: 1, by });

    let replay = in_state(LeaseState::Consumed(spent_by(7, 1_000, false)), 1_000);
    assert!(replay.is_accepted());
    assert!(Case { now: VALID_UNTIL + DAY, ..replay }.is_accepted(), "this node was away");
    for (recorded, settled, skim) in [(1_000, false, 1_001), (1_000, true, 1_000), (1_000, true, 1)]
    {
        let again = in_state(LeaseState::Consumed(spent_by(7, recorded, settled)), skim);
        assert!(matches!(again.refusal(), Refusal::AlreadyConsumed { .. }));
    }
}

#[test]
fn a_late_payment_has_ten_minutes() {
    let deadline = VALID_UNTIL + Duration::from_secs(600);
    for (now, accepted) in [
        (VALID_UNTIL, true),
        (deadline - SECOND, true),
        (deadline, true),
        (deadline + SECOND, false),
        (Duration::MAX, false),
    ] {
        let case = Case { now, ..skimming(FEE) };
        assert_eq!(case.is_accepted(), accepted, "{now:?}");
        // A sweep at the same moment must not take away what may still be claimed.
        let swept = VALID_UNTIL <= ClaimPolicy::default().expiry_cutoff(now);
        assert_eq!(swept, !accepted);
    }
    let expired = in_state(LeaseState::Expired, FEE);
    assert!(matches!(expired.refusal(), Refusal::Expired { .. }));
}

#[test]
fn sums_that_overflow_are_refused() {
    let sum = Case { amount: u64::MAX - FEE + 1, ..skimming(FEE) };
    assert!(matches!(sum.refusal(), Refusal::Overflow { .. }));
    let fee = Case { amount: u64::MAX - FEE, ..skimming(FEE) };
    assert!(matches!(fee.refusal(), Refusal::Overflow { .. }));
}

#[test]
fn refusals_speak_in_msat() {
    for (case, words) in [
        (skimming(FEE + 1), "3000001 msat were skimmed from 300000000 msat: 3000000 were agreed"),
        (
            Case { metadata: None, ..skimming(5) },
            "5 msat were skimmed, and the payment names no lease",
        ),
        (
            Case { now: VALID_UNTIL + DAY, ..skimming(5) },
            "at 1800086400 s under a lease valid until 1800000000 s",
        ),
    ] {
        let said = case.refusal().to_string();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn metadata_is_taken_from_bolt_12_offers_only() {
    let payment_metadata = metadata_of(&lease(1));
    let (payment_preimage, payment_secret) = (None, PaymentSecret([1; 32]));
    let invoice_request = InvoiceRequestFields {
        payer_signing_pubkey: node(3),
        quantity: None,
        payer_note_truncated: None,
        human_readable_name: None,
    };
    let offer = PaymentPurpose::Bolt12OfferPayment {
        payment_preimage,
        payment_secret,
        payment_context: Bolt12OfferContext {
            offer_id: OfferId([2; 32]),
            invoice_request,
            payment_metadata: payment_metadata.clone(),
        },
    };
    assert_eq!(Arrival::metadata_of(&offer), payment_metadata.as_ref());

    let payment_context = Bolt12RefundContext { payment_metadata };
    for other in [
        PaymentPurpose::Bolt12RefundPayment { payment_preimage, payment_secret, payment_context },
        PaymentPurpose::Bolt11InvoicePayment { payment_preimage, payment_secret },
        PaymentPurpose::SpontaneousPayment(PaymentPreimage([1; 32])),
    ] {
        assert_eq!(Arrival::metadata_of(&other), None);
    }
}

/// bLIP-52's fee, computed anew and without overflow.
fn fee_of_the_spec(lease: &Lease, gross: u128) -> u128 {
    let terms = &lease.opening_fee_params;
    let size = lease.payment_size_msat.map_or(gross, u128::from);
    let share = (size * u128::from(terms.proportional)).div_ceil(1_000_000);
    share.max(terms.min_fee_msat.into())
}

proptest! {
    #[test]
    fn no_accepted_skim_exceeds_the_fee_of_the_spec(
        amount in prop_oneof![0..10_000_000_000u64, any::<u64>()],
        min_fee_msat in 0..1_000_000_000u64,
        proportional in 0..1_000_000u32,
        fixed in proptest::option::of(1_000_000_000..10_000_000_000u64),
        slack in -3..4i128,
        noise in proptest::option::of(any::<u64>()),
    ) {
        let mut leased = lease(1);
        leased.payment_size_msat = fixed;
        leased.opening_fee_params.min_fee_msat = min_fee_msat;
        leased.opening_fee_params.proportional = proportional;
        leased.opening_fee_params.max_payment_size_msat = u64::MAX;
        prop_assume!(LeaseMetadata::for_lease(&leased).is_ok());

        // Near the boundary: net = gross - fee(gross), so gross is about net / (1 - share).
        let share = u128::from(1_000_000 - proportional);
        let gross = u128::from(amount) * 1_000_000 / share;
        let near = i128::try_from(fee_of_the_spec(&leased, gross)).unwrap() + slack;
        let skim = noise.unwrap_or(u64::try_from(near.max(1)).unwrap_or(u64::MAX)).max(1);
        let case = Case {
            amount,
            metadata: metadata_of(&leased),
            record: Some(active(leased.clone())),
            ..skimming(1)
        };
        let verdict = Case { skim, ..case }.judge();

        let gross = u128::from(amount) + u128::from(skim);
        let agreed = u128::from(skim) <= fee_of_the_spec(&leased, gross);
        match verdict {
            Ok(_) => prop_assert!(agreed),
            Err(Refusal::TooMuch { .. }) => prop_assert!(!agreed),
            Err(Refusal::TooSmall { smallest_msat, .. }) => {
                prop_assert!(gross < u128::from(smallest_msat));
            }
            Err(Refusal::Overflow { .. }) => prop_assert!(gross * 1_000_000 > u128::from(u64::MAX)),
            Err(other) => prop_assert!(false, "{}", other),
        }
    }
}

#[test]
fn a_fee_pays_for_one_channel() {
    let over = |channel_use| Case { channel_use, ..skimming(FEE) }.judge();
    assert!(over(ChannelUse::Jit).is_ok());
    assert!(over(ChannelUse::Paid(lease(1).id)).is_ok(), "a replay of the payment that paid");
    let by = lease(2).id;
    let refused = Refusal::ChannelPaid { skimmed_fee_msat: FEE, by };
    assert_eq!(over(ChannelUse::Paid(by)), Err(refused));
    let refused = Refusal::NotOpenedForLease { skimmed_fee_msat: FEE };
    assert_eq!(over(ChannelUse::Other), Err(refused));
}

#[test]
fn a_channel_accepted_for_a_lease_is_known_by_its_id() {
    assert!(is_jit(jit_user_channel_id(0)) && is_jit(jit_user_channel_id(u64::MAX)));
    assert!(!is_jit(0) && !is_jit(u128::MAX) && !is_jit(jit_user_channel_id(5) << 1));
    assert_ne!(jit_user_channel_id(1), jit_user_channel_id(2));
}
