use super::*;
use crate::claim::jit_user_channel_id;
use crate::lease::fixtures::{DAY, VALID_UNTIL, lease, lease_until, node};
use crate::lease::{LeaseId, TrustModel};
use crate::metadata::PAYMENT_METADATA_KEY;
use bitcoin::secp256k1::{All, SecretKey};
use lightning::blinded_path::message::OffersContext;
use lightning::blinded_path::payment::{BlindedPayInfo, Bolt12RefundContext};
use lightning::blinded_path::{BlindedHop, NodeIdLookUp};
use lightning::ln::channel_state::{ChannelCounterparty, CounterpartyForwardingInfo};
use lightning::ln::channelmanager::{PendingHTLCInfo, PendingHTLCRouting};
use lightning::ln::msgs::{OnionPacket, UpdateAddHTLC};
use lightning::ln::onion_payment::{InboundHTLCErr, peel_payment_onion};
use lightning::ln::onion_utils::create_payment_onion;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::ln::types::ChannelId;
use lightning::offers::invoice_request::InvoiceRequestFields;
use lightning::offers::nonce::Nonce;
use lightning::offers::offer::OfferId;
use lightning::routing::router::{BlindedTail, Path, PaymentParameters, RouteHop};
use lightning::sign::{KeysManager, NodeSigner, RandomBytes, Recipient};
use lightning::types::features::{ChannelFeatures, InitFeatures, NodeFeatures};
use lightning::types::payment::PaymentSecret;
use lightning::util::logger::{Logger, Record};
use lightning::util::ser::{Readable, Writeable};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

const NOW: Duration = Duration::from_secs(VALID_UNTIL.as_secs() - DAY.as_secs());
const SECOND: Duration = Duration::from_secs(1);
const SCID: u64 = (29_451 << 40) | (4_815 << 16) | 1;
/// The smallest payment that the terms of the fixture leave something of.
const SMALLEST: u64 = 2_000_001;
/// The largest payment they allow.
const LARGEST: u64 = 1_000_000_000;

fn three_paths() -> PathPolicy {
    PathPolicy { max_jit_paths: 3, ..PathPolicy::default() }
}

fn with_terms(intercept_scid: u64, change: impl FnOnce(&mut Lease)) -> Lease {
    let mut lease = lease(intercept_scid);
    change(&mut lease);
    lease
}

fn of_lsp(seed: u8, intercept_scid: u64) -> Lease {
    with_terms(intercept_scid, |lease| lease.id.lsp_node_id = node(seed))
}

fn fixed_size(size_msat: u64) -> Lease {
    with_terms(SCID, |lease| lease.payment_size_msat = Some(size_msat))
}

/// Leases no payment can satisfy, or no path can be built from.
fn useless() -> [Lease; 5] {
    [
        with_terms(1, |l| l.opening_fee_params.proportional = 1_000_000),
        with_terms(2, |l| l.opening_fee_params.max_payment_size_msat = SMALLEST - 1),
        with_terms(3, |l| l.payment_size_msat = Some(LARGEST + 1)),
        with_terms(4, |l| l.cltv_expiry_delta = 47),
        // 44 blocks more do not fit into the two bytes BOLT 12 has for a path's delta.
        with_terms(5, |l| l.cltv_expiry_delta = u16::MAX - 43),
    ]
}

/// What the default policy chooses for a wallet without channels.
fn without_channels(amount_msat: Option<u64>, leases: &[Lease]) -> PathChoice {
    three_paths().choose(amount_msat, None, leases.to_vec(), NOW)
}

fn jit(leases: &[Lease]) -> PathChoice {
    PathChoice::Jit(leases.to_vec())
}

#[test]
fn enough_inbound_liquidity_keeps_the_lease_out() {
    let policy = PathPolicy { enough_inbound_msat: 1_000, ..PathPolicy::default() };
    let choose = |amount, inbound| policy.choose(amount, inbound, vec![lease(SCID)], NOW);
    let table = [
        (None, Some(1_000), PathChoice::Ordinary),
        (None, Some(999), jit(&[lease(SCID)])),
        (None, Some(0), jit(&[lease(SCID)])),
        (None, None, jit(&[lease(SCID)])),
        // The larger of the two thresholds counts.
        (Some(1), Some(1_000), PathChoice::Ordinary),
        (Some(SMALLEST), Some(SMALLEST), PathChoice::Ordinary),
        (Some(SMALLEST), Some(SMALLEST - 1), jit(&[lease(SCID)])),
    ];
    for (amount, inbound, expected) in table {
        assert_eq!(choose(amount, inbound), expected, "{amount:?} over {inbound:?}");
    }
}

#[test]
fn an_empty_channel_needs_the_lease_by_default() {
    let policy = PathPolicy::default();
    assert_eq!(policy.choose(None, Some(0), vec![lease(SCID)], NOW), jit(&[lease(SCID)]));
    assert_eq!(policy.choose(None, Some(1), vec![lease(SCID)], NOW), PathChoice::Ordinary);
}

#[test]
fn without_a_lease_a_channel_is_used_however_small_and_none_is_a_refusal() {
    let policy = PathPolicy::default();
    assert_eq!(policy.choose(Some(5), Some(0), vec![], NOW), PathChoice::Ordinary);
    assert_eq!(policy.choose(Some(5), None, vec![], NOW), PathChoice::Refuse);
    assert_eq!(policy.choose(None, None, vec![], NOW), PathChoice::Refuse);
}

#[test]
fn a_lease_serves_the_amounts_its_terms_allow_and_no_others() {
    let lease = [lease(SCID)];
    for (amount, serves) in
        [(SMALLEST - 1, false), (SMALLEST, true), (LARGEST, true), (LARGEST + 1, false)]
    {
        let expected = if serves { jit(&lease) } else { PathChoice::Refuse };
        assert_eq!(without_channels(Some(amount), &lease), expected, "{amount}");
    }
}

#[test]
fn a_fixed_size_lease_serves_no_less_than_its_size() {
    let size = 100_000_000;
    let lease = [fixed_size(size)];
    assert_eq!(without_channels(None, &lease), jit(&lease));
    assert_eq!(without_channels(Some(size), &lease), jit(&lease));
    assert_eq!(without_channels(Some(size - 1), &lease), PathChoice::Refuse);
}

#[test]
fn a_lease_that_cannot_become_a_path_is_as_good_as_none() {
    for lease in useless() {
        let lease = [lease];
        assert_eq!(without_channels(None, &lease), PathChoice::Refuse, "{lease:?}");
        let with_channel = PathPolicy::default().choose(None, Some(0), lease.to_vec(), NOW);
        assert_eq!(with_channel, PathChoice::Ordinary, "{lease:?}");
    }
    let last = [with_terms(5, |l| l.cltv_expiry_delta = u16::MAX - 44)];
    assert_eq!(without_channels(None, &last), jit(&last));
    let policy = PathPolicy { extra_final_cltv_delta: 1, ..PathPolicy::default() };
    assert_eq!(policy.choose(None, None, last.to_vec(), NOW), PathChoice::Refuse);
}

#[test]
fn a_lease_is_used_only_while_enough_of_its_validity_is_left() {
    let policy = PathPolicy { min_validity_left: DAY, ..PathPolicy::default() };
    for (valid_until, used) in [(NOW + DAY, false), (NOW + DAY + SECOND, true)] {
        let lease = [lease_until(SCID, valid_until)];
        let expected = if used { jit(&lease) } else { PathChoice::Refuse };
        assert_eq!(policy.choose(None, None, lease.to_vec(), NOW), expected);
    }
    let forever = PathPolicy { min_validity_left: Duration::MAX, ..PathPolicy::default() };
    assert_eq!(forever.choose(None, None, vec![lease(SCID)], NOW), PathChoice::Refuse);
}

#[test]
fn each_lsp_serves_with_its_first_lease_that_can() {
    let small = with_terms(1, |lease| lease.opening_fee_params.max_payment_size_msat = SMALLEST);
    let leases = [small.clone(), lease(2), lease(3), of_lsp(2, 4)];
    assert_eq!(without_channels(None, &leases), jit(&[small, of_lsp(2, 4)]));
    assert_eq!(without_channels(Some(LARGEST), &leases), jit(&[lease(2), of_lsp(2, 4)]));
}

#[test]
fn there_are_no_more_jit_paths_than_the_policy_allows() {
    // The useless one does not take a place.
    let mut leases = vec![useless()[0].clone()];
    leases.extend((2..8).map(|lsp| of_lsp(lsp, lsp.into())));
    for max_jit_paths in [1, 3] {
        let policy = PathPolicy { max_jit_paths, ..PathPolicy::default() };
        let expected = jit(&leases[1..=max_jit_paths]);
        assert_eq!(policy.choose(None, None, leases.clone(), NOW), expected);
    }
    let one = PathPolicy::default().choose(None, None, leases.clone(), NOW);
    assert_eq!(one, jit(&leases[1..2]), "a payment cannot span two leases");
    let none = PathPolicy { max_jit_paths: 0, ..PathPolicy::default() };
    assert_eq!(none.choose(None, None, leases.clone(), NOW), PathChoice::Refuse);
    assert_eq!(none.choose(None, Some(0), leases, NOW), PathChoice::Ordinary);
}

struct At(Duration);

impl TimeProvider for At {
    fn duration_since_epoch(&self) -> Duration {
        self.0
    }
}

/// Stands for the wallet's ordinary router: writes down what it is asked and answers with a path
/// that is none of ours.
#[derive(Default)]
struct Inner {
    calls: RefCell<Vec<Call>>,
}

#[derive(Clone, Debug, PartialEq)]
enum Call {
    Paths { recipient: PublicKey, channels: usize, context: PaymentContext, amount: Option<u64> },
    Route { payer: PublicKey, params: RouteParameters, first_hops: usize },
    RouteWithId { payer: PublicKey, params: RouteParameters, hash: PaymentHash, id: PaymentId },
}

fn ordinary_path() -> BlindedPaymentPath {
    let payinfo = BlindedPayInfo {
        fee_base_msat: 1,
        fee_proportional_millionths: 1,
        cltv_expiry_delta: 1,
        htlc_minimum_msat: 1,
        htlc_maximum_msat: 1,
        features: BlindedHopFeatures::empty(),
    };
    let hop = BlindedHop { blinded_node_id: node(251), encrypted_payload: Vec::new() };
    BlindedPaymentPath::from_blinded_path_and_payinfo(node(250), node(252), vec![hop], payinfo)
}

impl Router for Inner {
    fn find_route(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let first_hops = first_hops.map_or(0, <[_]>::len);
        let call = Call::Route { payer: *payer, params: params.clone(), first_hops };
        self.calls.borrow_mut().push(call);
        Err("asked without an id")
    }

    fn find_route_with_id(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        _: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
        hash: PaymentHash,
        id: PaymentId,
    ) -> Result<Route, &'static str> {
        let call = Call::RouteWithId { payer: *payer, params: params.clone(), hash, id };
        self.calls.borrow_mut().push(call);
        Err("asked with an id")
    }

    fn create_blinded_payment_paths<S: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        _: ReceiveAuthKey,
        channels: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        amount: Option<u64>,
        _: &Secp256k1<S>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        let (channels, context) = (channels.len(), tlvs.payment_context);
        self.calls.borrow_mut().push(Call::Paths { recipient, channels, context, amount });
        Ok(vec![ordinary_path()])
    }
}

/// A channel with `inbound_capacity_msat` to receive, as `list_channels` describes it.
fn channel(inbound_capacity_msat: u64, is_usable: bool) -> ChannelDetails {
    let mut features = InitFeatures::empty();
    features.set_route_blinding_optional();
    ChannelDetails {
        channel_id: ChannelId([3; 32]),
        counterparty: ChannelCounterparty {
            node_id: node(1),
            features,
            unspendable_punishment_reserve: 1_000,
            forwarding_info: Some(CounterpartyForwardingInfo {
                fee_base_msat: 0,
                fee_proportional_millionths: 0,
                cltv_expiry_delta: 72,
            }),
            outbound_htlc_minimum_msat: Some(1),
            outbound_htlc_maximum_msat: Some(inbound_capacity_msat),
        },
        funding_txo: None,
        channel_type: None,
        short_channel_id: Some(700 << 40),
        outbound_scid_alias: None,
        inbound_scid_alias: Some(701 << 40),
        channel_value_satoshis: inbound_capacity_msat / 1_000,
        unspendable_punishment_reserve: Some(0),
        user_channel_id: 0,
        feerate_sat_per_1000_weight: None,
        outbound_capacity_msat: 0,
        next_outbound_htlc_limit_msat: 0,
        next_outbound_htlc_minimum_msat: 0,
        next_splice_out_maximum_sat: 0,
        inbound_capacity_msat,
        confirmations_required: Some(0),
        confirmations: Some(1),
        force_close_spend_delay: Some(144),
        is_outbound: false,
        is_channel_ready: true,
        channel_shutdown_state: None,
        is_usable,
        is_announced: false,
        inbound_htlc_minimum_msat: Some(1),
        inbound_htlc_maximum_msat: Some(inbound_capacity_msat),
        config: None,
        pending_inbound_htlcs: Vec::new(),
        pending_outbound_htlcs: Vec::new(),
        funding_redeem_script: None,
        current_dust_exposure_msat: None,
        splice_details: None,
    }
}

fn nonce() -> Nonce {
    Nonce::from_entropy_source(RandomBytes::new([5; 32]))
}

type Entries = Option<BTreeMap<u64, Vec<u8>>>;

fn async_offer(payment_metadata: Entries) -> PaymentContext {
    PaymentContext::AsyncBolt12Offer(AsyncBolt12OfferContext {
        offer_nonce: nonce(),
        payment_metadata,
    })
}

fn offer(payment_metadata: Entries) -> PaymentContext {
    let invoice_request = InvoiceRequestFields {
        payer_signing_pubkey: node(8),
        quantity: None,
        payer_note_truncated: None,
        human_readable_name: None,
    };
    let offer_id = OfferId([6; 32]);
    PaymentContext::Bolt12Offer(Bolt12OfferContext { offer_id, invoice_request, payment_metadata })
}

fn refund() -> PaymentContext {
    PaymentContext::Bolt12Refund(Bolt12RefundContext { payment_metadata: None })
}

fn keys(seed: u8) -> KeysManager {
    KeysManager::new(&[seed; 32], 1, 1, true)
}

fn id_of(keys: &KeysManager) -> PublicKey {
    keys.get_node_id(Recipient::Node).expect("a local signer")
}

const BEST_BLOCK: u32 = 800_000;
/// Below the 2016 blocks after which LDK refuses an HTLC in any case.
const MAX_CLTV_EXPIRY: u32 = BEST_BLOCK + 1_000;

/// A wallet with its leases, which asks its router as LDK does.
struct Wallet {
    keys: KeysManager,
    inner: Inner,
    leases: Vec<Lease>,
    policy: PathPolicy,
    secp: Secp256k1<All>,
}

impl Wallet {
    fn with(leases: &[Lease]) -> Self {
        let (keys, inner, policy) = (keys(40), Inner::default(), three_paths());
        Self { keys, inner, leases: leases.to_vec(), policy, secp: Secp256k1::new() }
    }

    fn router(&self) -> JitRouter<&Inner, &Vec<Lease>, RandomBytes, &At> {
        let entropy = RandomBytes::new([7; 32]);
        JitRouter::new(&self.inner, &self.leases, entropy, &At(NOW), self.policy.clone())
    }

    fn paths(
        &self,
        context: PaymentContext,
        channels: &[ChannelDetails],
        amount_msat: Option<u64>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        self.ask(&self.router(), context, channels, amount_msat)
    }

    fn ask(
        &self,
        router: &impl Router,
        context: PaymentContext,
        channels: &[ChannelDetails],
        amount_msat: Option<u64>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        let tlvs = ReceiveTlvs {
            payment_secret: PaymentSecret([1; 32]),
            payment_constraints: PaymentConstraints {
                max_cltv_expiry: MAX_CLTV_EXPIRY,
                htlc_minimum_msat: 1,
            },
            payment_context: context,
        };
        router.create_blinded_payment_paths(
            id_of(&self.keys),
            self.keys.get_receive_auth_key(),
            channels.to_vec(),
            tlvs,
            amount_msat,
            &self.secp,
        )
    }

    /// The paths of a static invoice while there is no channel.
    fn jit_paths(&self) -> Vec<BlindedPaymentPath> {
        let paths = self.paths(async_offer(None), &[], None).expect("there are leases");
        assert_eq!(self.calls(), []);
        paths
    }

    fn calls(&self) -> Vec<Call> {
        self.inner.calls.borrow().clone()
    }
}

#[test]
fn routes_are_found_by_the_wrapped_router() {
    let wallet = Wallet::with(&[lease(SCID)]);
    let (payer, hash, id) = (node(9), PaymentHash([1; 32]), PaymentId([2; 32]));
    let payee = PaymentParameters::from_node_id(node(10), 42);
    let params = RouteParameters::from_payment_params_and_value(payee, 5_000);
    let channel = channel(1, true);
    let (router, none) = (wallet.router(), InFlightHtlcs::new);

    let answer = router.find_route(&payer, &params, Some(&[&channel]), none());
    assert_eq!(answer, Err("asked without an id"));
    let answer = router.find_route_with_id(&payer, &params, None, none(), hash, id);
    assert_eq!(answer, Err("asked with an id"));
    let expected = [
        Call::Route { payer, params: params.clone(), first_hops: 1 },
        Call::RouteWithId { payer, params, hash, id },
    ];
    assert_eq!(wallet.calls(), expected);
}

#[test]
fn a_refund_is_left_to_the_wrapped_router() {
    let wallet = Wallet::with(&[lease(SCID)]);
    let amount = Some(SMALLEST);
    assert_eq!(wallet.paths(refund(), &[], amount), Ok(vec![ordinary_path()]));
    let (recipient, context) = (id_of(&wallet.keys), refund());
    assert_eq!(wallet.calls(), [Call::Paths { recipient, channels: 0, context, amount }]);
}

#[test]
fn ordinary_paths_are_built_by_the_wrapped_router_without_the_lease() {
    let channels = [channel(0, true), channel(5_000_000, true)];
    for context in [async_offer(None), offer(Some(BTreeMap::from([(7, vec![1])])))] {
        let wallet = Wallet::with(&[lease(SCID)]);
        let amount = Some(5_000_000);
        assert_eq!(wallet.paths(context.clone(), &channels, amount), Ok(vec![ordinary_path()]));
        let recipient = id_of(&wallet.keys);
        assert_eq!(wallet.calls(), [Call::Paths { recipient, channels: 2, context, amount }]);
    }
}

#[test]
fn a_channel_that_is_not_usable_does_not_count() {
    let wallet = Wallet::with(&[lease(SCID)]);
    let paths = wallet.paths(async_offer(None), &[channel(5_000_000, false)], None);
    assert_eq!(introductions(&paths.unwrap()), [node(1)]);
    assert_eq!(wallet.calls(), []);
    let paths = Wallet::with(&[]).paths(async_offer(None), &[channel(5_000_000, false)], None);
    assert_eq!(paths, Err(()));
}

/// A store in which the fee for [`channel`] was paid.
struct Paid;

impl ActiveLeases for Paid {
    fn active_leases(&self, _: Duration) -> Vec<Lease> {
        Vec::new()
    }

    fn was_paid_for(&self, channel_id: &ChannelId) -> bool {
        *channel_id == channel(0, true).channel_id
    }
}

/// A withheld funding stays withheld when the lease has run out.
#[test]
fn an_unconfirmed_jit_channel_counts_only_after_its_fee_was_paid() {
    let unconfirmed = |user_channel_id| ChannelDetails {
        confirmations: Some(0),
        user_channel_id,
        ..channel(5_000_000, true)
    };
    let (jit, other) = (unconfirmed(jit_user_channel_id(1)), unconfirmed(1));
    let confirmed = ChannelDetails { confirmations: Some(1), ..jit.clone() };
    let counts = |leases: &dyn ActiveLeases, channel: &ChannelDetails| {
        let (inner, entropy) = (Inner::default(), RandomBytes::new([7; 32]));
        let router = JitRouter::new(&inner, leases, entropy, &At(NOW), PathPolicy::default());
        router.is_funded_or_paid(channel)
    };
    let (outstanding, run_out) = (vec![lease(SCID)], vec![lease_until(SCID, NOW)]);
    for (leases, of_jit, of_other) in [
        (&outstanding as &dyn ActiveLeases, false, false),
        (&run_out, false, true),
        (&Paid, true, true),
    ] {
        assert_eq!((counts(leases, &jit), counts(leases, &other)), (of_jit, of_other));
        assert!(counts(leases, &confirmed));
    }
}

#[test]
fn a_refund_leads_over_no_channel_that_is_not_paid_for() {
    let unpaid = ChannelDetails {
        confirmations: None,
        user_channel_id: jit_user_channel_id(1),
        ..channel(5_000_000, true)
    };
    let (wallet, amount) = (Wallet::with(&[]), Some(SMALLEST));
    assert_eq!(wallet.paths(refund(), &[unpaid], amount), Ok(vec![ordinary_path()]));
    let (recipient, context) = (id_of(&wallet.keys), refund());
    assert_eq!(wallet.calls(), [Call::Paths { recipient, channels: 0, context, amount }]);
}

#[test]
fn without_channel_and_lease_there_are_no_paths_and_nobody_is_asked() {
    for leases in [vec![], vec![lease_until(SCID, NOW)], useless().to_vec()] {
        for context in [async_offer(None), offer(None)] {
            let wallet = Wallet::with(&leases);
            assert_eq!(wallet.paths(context, &[], None), Err(()));
            assert_eq!(wallet.calls(), []);
        }
    }
}

#[test]
fn each_answer_is_told_as_it_was_given() {
    let channels = [channel(5_000_000, true)];
    for (leases, channels, choice) in [
        (vec![lease(SCID)], &[][..], jit(&[lease(SCID)])),
        (vec![lease(SCID)], &channels[..], PathChoice::Ordinary),
        (vec![], &[][..], PathChoice::Refuse),
    ] {
        let wallet = Wallet::with(&leases);
        let told = Arc::new(Mutex::new(Vec::new()));
        let hear = told.clone();
        let router = wallet.router().telling(move |context, choice, paths| {
            hear.lock().unwrap().push((context.clone(), choice.clone(), paths.clone()));
        });
        let paths = wallet.ask(&router, async_offer(None), channels, None);
        assert_eq!(*told.lock().unwrap(), [(async_offer(None), choice, paths)]);
    }
}

fn introductions(paths: &[BlindedPaymentPath]) -> Vec<PublicKey> {
    let node_id = |path: &BlindedPaymentPath| match path.introduction_node() {
        IntroductionNode::NodeId(id) => *id,
        IntroductionNode::DirectedShortChannelId(..) => panic!("we name nodes"),
    };
    paths.iter().map(node_id).collect()
}

#[test]
fn a_jit_path_is_two_hops_from_the_lsp_on_the_terms_of_the_lease() {
    for (lease, extra, smallest, delta) in [
        (lease(SCID), 0, SMALLEST, 144 + 42 + 2),
        (lease(SCID), 100, SMALLEST, 144 + 42 + 2 + 100),
        (fixed_size(70_000_000), 0, 70_000_000, 144 + 42 + 2),
    ] {
        let mut wallet = Wallet::with(&[lease]);
        wallet.policy.extra_final_cltv_delta = extra;
        let paths = wallet.jit_paths();
        assert_eq!(introductions(&paths), [node(1)]);
        assert_eq!(paths[0].blinded_hops().len(), 2);
        let payinfo = BlindedPayInfo {
            fee_base_msat: 0,
            fee_proportional_millionths: 0,
            cltv_expiry_delta: delta,
            htlc_minimum_msat: smallest,
            htlc_maximum_msat: LARGEST,
            features: BlindedHopFeatures::empty(),
        };
        assert_eq!(paths[0].payinfo, payinfo);
    }
}

#[test]
fn absurd_terms_of_one_lsp_leave_the_paths_of_the_others() {
    // More than all bitcoin: LDK builds no path for it.
    let absurd = |scid| {
        with_terms(scid, |lease| {
            lease.opening_fee_params.min_payment_size_msat = u64::MAX;
            lease.opening_fee_params.max_payment_size_msat = u64::MAX;
        })
    };
    let one_path = PathPolicy::default();
    let choice = one_path.choose(None, None, vec![absurd(1), of_lsp(2, 2)], NOW);
    assert_eq!(choice, jit(&[of_lsp(2, 2)]), "it takes no place");
    let wallet = Wallet::with(&[absurd(1), of_lsp(2, 2)]);
    assert_eq!(introductions(&wallet.jit_paths()), [node(2)]);
    assert_eq!(Wallet::with(&[absurd(1)]).paths(async_offer(None), &[], None), Err(()));
}

/// An LSP's table of channels in which every SCID is a channel of the wallet. Writes down which
/// SCIDs are looked up.
struct Channels {
    wallet: PublicKey,
    asked: RefCell<Vec<u64>>,
}

impl NodeIdLookUp for Channels {
    fn next_node_id(&self, short_channel_id: u64) -> Option<PublicKey> {
        self.asked.borrow_mut().push(short_channel_id);
        Some(self.wallet)
    }
}

struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

const PAYMENT: PaymentHash = PaymentHash([2; 32]);

/// The payer's onion over a path, and the HTLC the LSP receives with it.
fn payment_over(path: &BlindedPaymentPath, amount_msat: u64) -> UpdateAddHTLC {
    let lsp = RouteHop {
        pubkey: introductions(std::slice::from_ref(path))[0],
        node_features: NodeFeatures::empty(),
        short_channel_id: 1,
        channel_features: ChannelFeatures::empty(),
        fee_msat: 0,
        cltv_expiry_delta: path.payinfo.cltv_expiry_delta.into(),
        maybe_announced_channel: true,
    };
    let tail = BlindedTail {
        trampoline_hops: Vec::new(),
        hops: path.blinded_hops().to_vec(),
        blinding_point: path.blinding_point(),
        excess_final_cltv_expiry_delta: 0,
        final_value_msat: amount_msat,
    };
    let path = Path { hops: vec![lsp], blinded_tail: Some(tail) };
    let (onion, amount_msat, cltv_expiry) = create_payment_onion(
        &Secp256k1::new(),
        &path,
        &SecretKey::from_slice(&[13; 32]).expect("valid"),
        &RecipientOnionFields::spontaneous_empty(amount_msat),
        BEST_BLOCK,
        &PAYMENT,
        &None,
        None,
        [14; 32],
    )
    .expect("the path can be paid");
    htlc(onion, amount_msat, cltv_expiry, None)
}

fn htlc(
    onion_routing_packet: OnionPacket,
    amount_msat: u64,
    cltv_expiry: u32,
    blinding_point: Option<PublicKey>,
) -> UpdateAddHTLC {
    UpdateAddHTLC {
        channel_id: ChannelId([0; 32]),
        htlc_id: 0,
        amount_msat,
        payment_hash: PAYMENT,
        cltv_expiry,
        skimmed_fee_msat: None,
        onion_routing_packet,
        blinding_point,
        hold_htlc: None,
        accountable: None,
    }
}

fn peel(htlc: &UpdateAddHTLC, keys: &KeysManager) -> Result<PendingHTLCInfo, InboundHTLCErr> {
    peel_payment_onion(htlc, keys, &Silent, &Secp256k1::new(), BEST_BLOCK, false)
}

/// What both hops of a JIT path read in a payment.
struct Reading {
    forwarded_over: u64,
    final_cltv_delta: u32,
    context: PaymentContext,
}

/// Lets the LSP and then the wallet open a payment with their keys, as LDK does.
fn read(
    wallet: &Wallet,
    lsp: &KeysManager,
    path: &BlindedPaymentPath,
) -> Result<Reading, InboundHTLCErr> {
    let at_lsp = payment_over(path, SMALLEST);
    let forward = peel(&at_lsp, lsp)?;
    let PendingHTLCRouting::Forward { onion_packet, short_channel_id, blinded, .. } =
        forward.routing
    else {
        panic!("the LSP is no recipient");
    };
    assert!(blinded.is_some());
    assert_eq!(forward.outgoing_amt_msat, SMALLEST);

    let channels = Channels { wallet: id_of(&wallet.keys), asked: RefCell::default() };
    let mut rest = path.clone();
    rest.advance_path_by_one(lsp, &channels, &wallet.secp).expect("it is the LSP's path");
    assert_eq!(*channels.asked.borrow(), [short_channel_id]);

    let cltv_expiry = forward.outgoing_cltv_value;
    let at_wallet = htlc(onion_packet, SMALLEST, cltv_expiry, Some(rest.blinding_point()));
    let PendingHTLCRouting::Receive { payment_context: Some(context), .. } =
        peel(&at_wallet, &wallet.keys)?.routing
    else {
        panic!("the wallet is the recipient of a blinded path");
    };
    let final_cltv_delta = cltv_expiry - BEST_BLOCK;
    Ok(Reading { forwarded_over: short_channel_id, final_cltv_delta, context })
}

fn lease_of(lsp: &KeysManager, intercept_scid: u64) -> Lease {
    with_terms(intercept_scid, |lease| lease.id.lsp_node_id = id_of(lsp))
}

fn agreed(lease: &Lease) -> LeaseMetadata {
    LeaseMetadata::for_lease(lease).expect("payable")
}

#[test]
fn the_lsp_reads_the_intercept_scid_and_the_wallet_its_lease_and_its_own_entries() {
    let lsp = keys(41);
    let lease = lease_of(&lsp, SCID);
    let own = BTreeMap::from([(7, vec![1, 2]), (600, vec![])]);
    for context in [async_offer, offer] {
        let mut wallet = Wallet::with(std::slice::from_ref(&lease));
        wallet.policy.extra_final_cltv_delta = 30;
        let paths = wallet.paths(context(Some(own.clone())), &[], None).unwrap();
        let reading = read(&wallet, &lsp, &paths[0]).unwrap();
        assert_eq!(reading.forwarded_over, SCID);
        assert_eq!(reading.final_cltv_delta, 42 + 2 + 30);
        let mut entries = own.clone();
        entries.insert(PAYMENT_METADATA_KEY, agreed(&lease).encode());
        assert_eq!(reading.context, context(Some(entries)));
    }
}

#[test]
fn the_lsp_refuses_an_htlc_that_cannot_pay_the_fee() {
    let lsp = keys(41);
    let paths = Wallet::with(&[lease_of(&lsp, SCID)]).jit_paths();
    assert!(peel(&payment_over(&paths[0], SMALLEST), &lsp).is_ok());
    assert!(peel(&payment_over(&paths[0], SMALLEST - 1), &lsp).is_err());
}

#[test]
fn the_lsp_lets_a_payment_expire_later_than_the_wallet_by_its_own_delta() {
    let lsp = keys(41);
    let paths = Wallet::with(&[lease_of(&lsp, SCID)]).jit_paths();
    let mut at_lsp = payment_over(&paths[0], SMALLEST);
    at_lsp.cltv_expiry = MAX_CLTV_EXPIRY + 144;
    assert!(peel(&at_lsp, &lsp).is_ok());
    at_lsp.cltv_expiry += 1;
    assert!(peel(&at_lsp, &lsp).is_err());
}

#[test]
fn several_leases_become_several_paths_each_with_its_own_metadata() {
    let lsps = [keys(41), keys(42), keys(43)];
    let leases: Vec<Lease> = lsps.iter().zip(SCID..).map(|(l, scid)| lease_of(l, scid)).collect();
    let wallet = Wallet::with(&leases);
    let paths = wallet.jit_paths();
    assert_eq!(introductions(&paths), lsps.each_ref().map(id_of));
    for ((path, lsp), lease) in paths.iter().zip(&lsps).zip(&leases) {
        let reading = read(&wallet, lsp, path).unwrap();
        let metadata = LeaseMetadata::read_from(reading.context.payment_metadata()).unwrap();
        assert_eq!(
            (reading.forwarded_over, metadata),
            (lease.id.intercept_scid, agreed(lease).into())
        );
    }
}

prop_compose! {
    /// Leases of a few LSPs, good and bad.
    fn any_lease()(
        lsp in 1u8..6,
        intercept_scid in any::<u64>(),
        cltv_expiry_delta in prop_oneof![Just(144u16), any::<u16>()],
        valid in 0u32..4,
        proportional in prop_oneof![Just(10_000u32), 0u32..1_100_000],
        max_payment_size_msat in prop_oneof![Just(LARGEST), any::<u64>()],
        payment_size_msat in prop_oneof![Just(None), (0..2 * LARGEST).prop_map(Some)],
    ) -> Lease {
        let mut lease = lease_until(intercept_scid, NOW + valid * SECOND);
        lease.id = LeaseId { lsp_node_id: node(lsp), intercept_scid };
        lease.trust_model = TrustModel::ClientTrustsLsp;
        (lease.cltv_expiry_delta, lease.payment_size_msat) = (cltv_expiry_delta, payment_size_msat);
        let terms = &mut lease.opening_fee_params;
        (terms.proportional, terms.max_payment_size_msat) = (proportional, max_payment_size_msat);
        lease
    }
}

proptest! {
    // Each case builds up to three paths, slowly without optimisation.
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_invoice_never_holds_both_kinds_of_paths(
        leases in proptest::collection::vec(any_lease(), 0..6),
        channels in proptest::collection::vec((0..2 * SMALLEST, any::<bool>()), 0..3),
        amount in proptest::option::of(0..2 * LARGEST),
        enough_inbound_msat in 0..2 * SMALLEST,
    ) {
        let mut wallet = Wallet::with(&leases);
        wallet.policy.enough_inbound_msat = enough_inbound_msat;
        let channels: Vec<_> = channels.into_iter().map(|(msat, up)| channel(msat, up)).collect();
        match wallet.paths(async_offer(None), &channels, amount) {
            Ok(paths) if wallet.calls().is_empty() => {
                let lsps = introductions(&paths);
                prop_assert!((1..=3).contains(&lsps.len()));
                for (at, lsp) in lsps.iter().enumerate() {
                    prop_assert!(leases.iter().any(|lease| lease.id.lsp_node_id == *lsp));
                    prop_assert!(!lsps[..at].contains(lsp));
                }
            }
            Ok(paths) => {
                prop_assert_eq!(paths, vec![ordinary_path()]);
                prop_assert_eq!(wallet.calls().len(), 1);
                prop_assert!(channels.iter().any(|channel| channel.is_usable));
            }
            Err(()) => {
                prop_assert!(wallet.calls().is_empty());
                prop_assert!(!channels.iter().any(|channel| channel.is_usable));
            }
        }
    }
}

const WALLET: u8 = 20;
const LSP: u8 = 21;
const FRIEND: u8 = 22;
const STRANGER: u8 = 23;

/// A message router with one answer.
struct Answer(Result<OnionMessagePath, ()>);

impl MessageRouter for Answer {
    fn find_path(
        &self,
        _: PublicKey,
        _: Vec<PublicKey>,
        _: Destination,
    ) -> Result<OnionMessagePath, ()> {
        self.0.clone()
    }

    fn create_blinded_paths<S: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        _: ReceiveAuthKey,
        _: MessageContext,
        peers: Vec<MessageForwardNode>,
        _: &Secp256k1<S>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        let hop = BlindedHop { blinded_node_id: recipient, encrypted_payload: Vec::new() };
        let path = |peer: MessageForwardNode| {
            BlindedMessagePath::from_blinded_path(peer.node_id, node(30), vec![hop.clone()])
        };
        Ok(peers.into_iter().map(path).collect())
    }
}

fn path_to(destination: Destination) -> OnionMessagePath {
    OnionMessagePath { intermediate_nodes: vec![], destination, first_node_addresses: vec![] }
}

fn reply_path(introduction: PublicKey) -> BlindedMessagePath {
    let hop = BlindedHop { blinded_node_id: node(31), encrypted_payload: vec![1] };
    BlindedMessagePath::from_blinded_path(introduction, node(30), vec![hop])
}

/// The same with the introduction node given as a channel, as BOLT 12 writes it.
fn compact_reply_path() -> BlindedMessagePath {
    let by_node = reply_path(node(STRANGER)).encode();
    let mut by_scid = vec![0];
    by_scid.extend(SCID.to_be_bytes());
    by_scid.extend(&by_node[33..]);
    let path = BlindedMessagePath::read(&mut &by_scid[..]).expect("a valid path");
    assert!(matches!(path.introduction_node(), IntroductionNode::DirectedShortChannelId(..)));
    path
}

/// A path as (intermediate nodes, destination, number of addresses): LDK's cannot be compared.
type Found = Result<(Vec<PublicKey>, Destination, usize), ()>;

fn parts(path: Result<OnionMessagePath, ()>) -> Found {
    path.map(|p| (p.intermediate_nodes, p.destination, p.first_node_addresses.len()))
}

fn find(inner: Result<OnionMessagePath, ()>, peers: &[u8], to: &Destination) -> Found {
    let router = LspMessageRouter::new(Answer(inner), node(LSP));
    let peers = peers.iter().copied().map(node).collect();
    parts(router.find_path(node(WALLET), peers, to.clone()))
}

fn via_lsp(destination: &Destination) -> Found {
    Ok((vec![node(LSP)], destination.clone(), 0))
}

#[test]
fn what_the_wallet_reaches_directly_is_not_sent_through_the_lsp() {
    for direct in [FRIEND, LSP, WALLET] {
        for to in
            [Destination::Node(node(direct)), Destination::BlindedPath(reply_path(node(direct)))]
        {
            let found = find(Ok(path_to(to.clone())), &[LSP, FRIEND], &to);
            assert_eq!(found, Ok((vec![], to, 0)));
        }
    }
}

#[test]
fn a_path_that_starts_at_a_peer_is_kept_as_it_is() {
    let to = Destination::Node(node(STRANGER));
    let mut path = path_to(to.clone());
    path.intermediate_nodes = vec![node(FRIEND)];
    assert_eq!(find(Ok(path), &[LSP, FRIEND], &to), Ok((vec![node(FRIEND)], to, 0)));
}

#[test]
fn an_unknown_node_is_reached_through_the_lsp() {
    let stranger = node(STRANGER);
    for to in [Destination::Node(stranger), Destination::BlindedPath(reply_path(stranger))] {
        let mut path = path_to(to.clone());
        assert_eq!(find(Ok(path.clone()), &[LSP, FRIEND], &to), via_lsp(&to));
        // No connection is asked for either.
        path.first_node_addresses = vec!["127.0.0.1:9735".parse().unwrap()];
        assert_eq!(find(Ok(path), &[LSP, FRIEND], &to), via_lsp(&to));
        // What the wrapped router cannot reach, the LSP may.
        assert_eq!(find(Err(()), &[LSP, FRIEND], &to), via_lsp(&to));
    }
}

#[test]
fn what_the_wrapped_router_resolved_is_what_the_lsp_is_told() {
    let asked = Destination::BlindedPath(compact_reply_path());
    let resolved = Destination::BlindedPath(reply_path(node(STRANGER)));
    assert_eq!(find(Ok(path_to(resolved.clone())), &[LSP], &asked), via_lsp(&resolved));
}

#[test]
fn without_the_lsp_the_wrapped_router_decides() {
    let to = Destination::Node(node(STRANGER));
    let found = find(Ok(path_to(to.clone())), &[FRIEND], &to);
    assert_eq!(found, Ok((vec![], to.clone(), 0)));
    assert_eq!(find(Err(()), &[FRIEND], &to), Err(()));
}

#[test]
fn an_unresolved_introduction_channel_is_not_passed_to_the_lsp() {
    let to = Destination::BlindedPath(compact_reply_path());
    assert_eq!(find(Err(()), &[LSP], &to), Err(()));
    assert_eq!(find(Ok(path_to(to.clone())), &[LSP], &to), Ok((vec![], to, 0)));
}

#[test]
fn reply_paths_are_the_wrapped_routers() {
    let router = LspMessageRouter::new(Answer(Err(())), node(LSP));
    let peers = vec![MessageForwardNode { node_id: node(FRIEND), short_channel_id: None }];
    let context = MessageContext::Offers(OffersContext::InboundPayment {
        payment_hash: PaymentHash([1; 32]),
    });
    let key = ReceiveAuthKey([1; 32]);
    let paths =
        router.create_blinded_paths(node(WALLET), key, context, peers, &Secp256k1::new()).unwrap();
    assert_eq!(paths.len(), 1);
    assert_eq!(paths[0].introduction_node(), &IntroductionNode::NodeId(node(FRIEND)));
    assert_eq!(paths[0].blinded_hops()[0].blinded_node_id, node(WALLET));
}
