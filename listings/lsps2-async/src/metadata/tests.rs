use super::*;
use crate::lease::fixtures::{VALID_UNTIL, any_node, lease, node};
use bitcoin::secp256k1::Secp256k1;
use lightning::blinded_path::payment::{
    AsyncBolt12OfferContext, BlindedPaymentPath, Bolt12OfferContext, ForwardTlvs,
    PaymentConstraints, PaymentContext, PaymentForwardNode, PaymentRelay, ReceiveTlvs,
};
use lightning::offers::invoice_request::InvoiceRequestFields;
use lightning::offers::nonce::Nonce;
use lightning::offers::offer::OfferId;
use lightning::sign::{RandomBytes, ReceiveAuthKey};
use lightning::types::features::BlindedHopFeatures;
use lightning::types::payment::PaymentSecret;
use proptest::prelude::*;

const SCID: u64 = (29_451 << 40) | (4_815 << 16) | 1;

fn typical() -> LeaseMetadata {
    LeaseMetadata::for_lease(&lease(SCID)).expect("the fixture can be paid")
}

fn typical_fixed_size() -> LeaseMetadata {
    let mut lease = lease(SCID);
    lease.payment_size_msat = Some(100_000_000);
    LeaseMetadata::for_lease(&lease).expect("the fixture can be paid")
}

prop_compose! {
    fn any_metadata()(
        lsp_node_id in any_node(),
        intercept_scid in any::<u64>(),
        cltv_expiry_delta in 48u16..,
        min_fee_msat in any::<u64>(),
        proportional in any::<u32>(),
        valid_until in any::<u64>().prop_map(Duration::from_secs),
        min_htlc_msat in any::<u64>(),
        payment_size_msat in any::<Option<u64>>(),
    ) -> LeaseMetadata {
        LeaseMetadata {
            lsp_node_id, intercept_scid, cltv_expiry_delta, min_fee_msat, proportional,
            valid_until, min_htlc_msat, payment_size_msat,
        }
    }
}

/// Where the fuzz target `metadata` starts from too.
const SEEDS: [&[u8]; 3] = [
    include_bytes!("../../fuzz/corpus/metadata/variable_size"),
    include_bytes!("../../fuzz/corpus/metadata/fixed_size"),
    include_bytes!("../../fuzz/corpus/metadata/odd_tlvs"),
];

prop_compose! {
    /// A seed, or a random value, with a few bytes overwritten and a few added.
    fn mutated()(
        start in prop_oneof![
            proptest::sample::select(&SEEDS[..]).prop_map(<[u8]>::to_vec),
            any_metadata().prop_map(|metadata| metadata.encode()),
        ],
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..8),
    ) -> Vec<u8> {
        let mut bytes = start;
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(tail);
        bytes
    }
}

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..200), mutated()]
}

#[test]
fn the_seeds_are_values() {
    let seeds = SEEDS.map(LeaseMetadata::decode);
    assert_eq!(seeds, [Ok(typical()), Ok(typical_fixed_size()), Ok(typical_fixed_size())]);
}

proptest! {
    #[test]
    fn what_was_written_is_read(metadata in any_metadata()) {
        prop_assert_eq!(LeaseMetadata::decode(&metadata.encode()), Ok(metadata));
    }

    // The property of the fuzz target `metadata`, on the stable toolchain.
    #[test]
    fn foreign_bytes_are_refused_or_written_alike(bytes in any_bytes()) {
        if let Ok(metadata) = LeaseMetadata::decode(&bytes) {
            let again = metadata.encode();
            prop_assert_eq!(LeaseMetadata::decode(&again), Ok(metadata));
            // Only skipped TLVs are not written again.
            prop_assert!(again.len() < bytes.len() || again == bytes);
        }
    }
}

#[test]
fn a_lease_is_carried_over() {
    let metadata = typical();
    assert_eq!(metadata.lease_id(), lease(SCID).id);
    assert_eq!(metadata.min_htlc_msat, 2_000_001, "the fee, and 1 msat for the recipient");
    assert_eq!(metadata.valid_until, VALID_UNTIL);
    for gross in [1_000_000, 200_000_000, 200_000_100, u64::MAX] {
        assert_eq!(metadata.opening_fee_msat(gross), lease(SCID).opening_fee_msat(gross));
    }
}

#[test]
fn a_fixed_size_lease_lets_nothing_smaller_through() {
    assert_eq!(typical_fixed_size().min_htlc_msat, 100_000_000);
    assert_eq!(typical_fixed_size().opening_fee_msat(1), Some(2_000_000));
}

#[test]
fn a_lease_without_a_path_is_refused() {
    let mut unpayable = lease(SCID);
    unpayable.opening_fee_params.max_payment_size_msat = 2_000_000;
    assert_eq!(LeaseMetadata::for_lease(&unpayable), Err(MetadataError::NotPayable));

    let mut fixed = lease(SCID);
    for (size, payable) in [(2_000_000, false), (2_000_001, true), (1_000_000_001, false)] {
        fixed.payment_size_msat = Some(size);
        assert_eq!(LeaseMetadata::for_lease(&fixed).is_ok(), payable, "{size}");
    }

    let mut hasty = lease(SCID);
    hasty.cltv_expiry_delta = 47;
    assert_eq!(LeaseMetadata::for_lease(&hasty), Err(MetadataError::CltvExpiryDelta(47)));
}

#[test]
fn other_entries_are_left_alone() {
    let mut entries = Some(BTreeMap::from([(1, vec![7]), (PAYMENT_METADATA_KEY, vec![])]));
    typical().insert_into(&mut entries);
    assert_eq!(entries.as_ref().map(|e| e[&1].clone()), Some(vec![7]));
    assert_eq!(LeaseMetadata::read_from(entries.as_ref()), Ok(Some(typical())));

    assert_eq!(LeaseMetadata::read_from(None), Ok(None));
    assert_eq!(LeaseMetadata::read_from(Some(&BTreeMap::from([(1, vec![7])]))), Ok(None));
    let broken = BTreeMap::from([(PAYMENT_METADATA_KEY, vec![])]);
    assert_eq!(LeaseMetadata::read_from(Some(&broken)), Err(MetadataError::Truncated));
}

#[test]
fn every_truncation_is_refused() {
    // A fixed-size value cut before its TLV is a whole variable-size one: the only such cut.
    let tlv = typical_fixed_size().encode().len() - 7;
    for (value, whole_cut) in [(typical(), None), (typical_fixed_size(), Some(tlv))] {
        let bytes = value.encode();
        for len in (0..bytes.len()).filter(|len| Some(*len) != whole_cut) {
            assert_eq!(
                LeaseMetadata::decode(&bytes[..len]),
                Err(MetadataError::Truncated),
                "{len}"
            );
        }
    }
}

#[test]
fn a_flipped_bit_never_gives_the_same_value() {
    for value in [typical(), typical_fixed_size()] {
        let bytes = value.encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(LeaseMetadata::decode(&flipped), Ok(value.clone()), "bit {bit}");
        }
    }
}

fn with_tail(tail: &[u8]) -> Result<LeaseMetadata, MetadataError> {
    LeaseMetadata::decode(&[&typical().encode(), tail].concat())
}

#[test]
fn tlvs_follow_bolt_1() {
    use MetadataError::{Malformed, Truncated, UnknownRequiredType};
    let fixed = |size| Ok(LeaseMetadata { payment_size_msat: Some(size), ..typical() });
    assert_eq!(with_tail(&[2, 1, 7]), fixed(7));
    assert_eq!(with_tail(&[1, 2, 0xff, 0xff]), Ok(typical()), "odd: skipped");
    assert_eq!(with_tail(&[1, 0, 2, 1, 7, 3, 1, 9]), fixed(7));
    assert_eq!(with_tail(&[4, 0]), Err(UnknownRequiredType(4)));
    assert_eq!(with_tail(&[0, 0]), Err(UnknownRequiredType(0)));
    assert_eq!(with_tail(&[0]), Err(Truncated));
    assert_eq!(with_tail(&[1, 3, 0]), Err(Truncated), "length beyond the end");
    assert_eq!(
        with_tail(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
        Err(Truncated)
    );
    assert_eq!(with_tail(&[3, 0, 1, 0]), Err(Malformed("order of TLV types")));
    assert_eq!(with_tail(&[1, 0, 1, 0]), Err(Malformed("order of TLV types")), "twice");
    assert_eq!(with_tail(&[2, 1, 7, 2, 1, 7]), Err(Malformed("order of TLV types")));
    assert_eq!(with_tail(&[2, 2, 7, 7]), Err(Malformed("payment size")), "too long a value");
    assert_eq!(with_tail(&[2, 0]), Err(Truncated), "empty value");
    assert_eq!(with_tail(&[2, 3, 0xfd, 0, 7]), Err(Malformed("payment size")), "not canonical");
    assert_eq!(with_tail(&[0xfd, 0, 1, 0]), Err(Malformed("TLV type")), "not canonical");
    assert_eq!(with_tail(&[1, 0xfd, 0, 1, 0]), Err(Malformed("TLV length")), "not canonical");
}

#[test]
fn fields_out_of_range_are_refused() {
    let at_delta = 1 + 33 + 8;
    let mut bytes = typical().encode();
    assert_eq!(bytes[at_delta], 144);
    bytes[at_delta] = 47;
    assert_eq!(LeaseMetadata::decode(&bytes), Err(MetadataError::CltvExpiryDelta(47)));
    bytes.splice(at_delta..=at_delta, [0xfe, 0, 1, 0, 0]);
    assert_eq!(LeaseMetadata::decode(&bytes), Err(MetadataError::CltvExpiryDelta(65_536)));
    bytes.splice(at_delta..at_delta + 5, [0xfd, 0, 144]);
    assert_eq!(LeaseMetadata::decode(&bytes), Err(MetadataError::Malformed("CLTV delta")));

    let mut other_key = typical().encode();
    other_key[1] = 4;
    assert_eq!(LeaseMetadata::decode(&other_key), Err(MetadataError::Malformed("node id")));
    let mut other_version = typical().encode();
    other_version[0] = 2;
    assert_eq!(LeaseMetadata::decode(&other_version), Err(MetadataError::UnknownVersion(2)));

    let fee =
        [&typical().encode()[..at_delta], &[144, 0], &[0xff, 0, 0, 0, 1, 0, 0, 0, 0]].concat();
    assert_eq!(LeaseMetadata::decode(&fee), Err(MetadataError::Malformed("proportional fee")));
}

#[test]
fn the_length_is_bounded() {
    let room = MAX_LEN - typical().encode().len();
    let padding = |len: usize| {
        let value = u16::try_from(len - 4).expect("short");
        [&[1, 0xfd][..], &value.to_be_bytes(), &vec![0; len - 4]].concat()
    };
    assert_eq!(with_tail(&padding(room)), Ok(typical()));
    assert_eq!(with_tail(&padding(room + 1)), Err(MetadataError::TooLong(1025)));
}

/// The length of the recipient's hop in a path of one forwarding hop, as the router builds it.
fn recipient_hop_len(payment_context: PaymentContext) -> usize {
    let payment_constraints = PaymentConstraints { max_cltv_expiry: 900_000, htlc_minimum_msat: 1 };
    let lsp = PaymentForwardNode {
        tlvs: ForwardTlvs {
            short_channel_id: SCID,
            payment_relay: PaymentRelay {
                cltv_expiry_delta: 144,
                fee_proportional_millionths: 0,
                fee_base_msat: 0,
            },
            payment_constraints,
            features: BlindedHopFeatures::empty(),
            next_blinding_override: None,
        },
        node_id: node(1),
        htlc_maximum_msat: 1_000_000_000,
    };
    let payment_secret = PaymentSecret([3; 32]);
    let tlvs = ReceiveTlvs { payment_secret, payment_constraints, payment_context };
    let entropy = RandomBytes::new([4; 32]);
    let path = BlindedPaymentPath::new(
        &[lsp],
        node(2),
        ReceiveAuthKey([5; 32]),
        tlvs,
        u64::MAX,
        44,
        &entropy,
        &Secp256k1::new(),
    );
    path.expect("nothing overflows").blinded_hops()[1].encrypted_payload.len()
}

/// The context LDK gives the router for a static invoice.
fn async_offer(payment_metadata: Option<BTreeMap<u64, Vec<u8>>>) -> PaymentContext {
    let offer_nonce = Nonce::try_from(&[6; Nonce::LENGTH][..]).expect("the length fits");
    PaymentContext::AsyncBolt12Offer(AsyncBolt12OfferContext { offer_nonce, payment_metadata })
}

/// The context LDK gives the router for an invoice it answers while online.
fn offer(payment_metadata: Option<BTreeMap<u64, Vec<u8>>>) -> PaymentContext {
    let invoice_request = InvoiceRequestFields {
        payer_signing_pubkey: node(7),
        quantity: None,
        payer_note_truncated: None,
        human_readable_name: None,
    };
    let offer_id = OfferId([8; 32]);
    PaymentContext::Bolt12Offer(Bolt12OfferContext { offer_id, invoice_request, payment_metadata })
}

fn with_value(value: Vec<u8>) -> Option<BTreeMap<u64, Vec<u8>>> {
    Some(BTreeMap::from([(PAYMENT_METADATA_KEY, value)]))
}

/// LDK pads in steps of 30 bytes. One value just above each step slips back under it. (Beyond 190
/// bytes an inner length takes three bytes, and the steps shift.)
fn padded(len: usize, least: usize, last_of_first_step: usize) -> usize {
    let slips_back = len % 30 == last_of_first_step + 2;
    let above = (len + 29).saturating_sub(last_of_first_step) / 30;
    least + 30 * (above - usize::from(slips_back))
}

#[test]
fn the_hop_grows_in_steps_of_30_bytes() {
    assert_eq!(recipient_hop_len(async_offer(None)), 106);
    assert_eq!(recipient_hop_len(offer(None)), 166);
    for len in 0..=160 {
        let value = with_value(vec![9; len]);
        assert_eq!(recipient_hop_len(async_offer(value.clone())), padded(len, 106, 11), "{len}");
        assert_eq!(recipient_hop_len(offer(value)), padded(len, 166, 17), "{len}");
    }
}

// Up to 71 bytes cost the same: `cargo test a_typical_value -- --nocapture` prints the sizes.
#[test]
fn a_typical_value_takes_two_steps() {
    for (name, metadata, len) in
        [("variable", typical(), 61), ("fixed size", typical_fixed_size(), 68)]
    {
        let value = metadata.encode();
        let entry = with_value(value.clone());
        let hops = [async_offer(entry.clone()), offer(entry)].map(recipient_hop_len);
        println!(
            "{name}: value {} B, hop {} B (static), {} B (online)",
            value.len(),
            hops[0],
            hops[1]
        );
        assert_eq!((value.len(), hops), (len, [166, 226]));
    }
}
