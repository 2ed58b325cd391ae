//! What the paths of a static invoice cost through [`JitRouter`], against the router it wraps.
//!
//! `cargo bench -p lsps2-async --bench router`. It only prints: a slow machine breaks no build.

use bitcoin::Network;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use core::time::Duration;
use lightning::blinded_path::payment::{
    AsyncBolt12OfferContext, PaymentConstraints, PaymentContext, ReceiveTlvs,
};
use lightning::ln::channel_state::{
    ChannelCounterparty, ChannelDetails, CounterpartyForwardingInfo,
};
use lightning::ln::msgs::UnsignedNodeAnnouncement;
use lightning::ln::types::ChannelId;
use lightning::offers::nonce::Nonce;
use lightning::routing::gossip::{NetworkGraph, NodeAlias, NodeId};
use lightning::routing::router::{DefaultRouter, Router};
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::{KeysManager, NodeSigner, Recipient};
use lightning::types::features::{ChannelFeatures, InitFeatures, NodeFeatures};
use lightning::types::payment::PaymentSecret;
use lightning::util::logger::{Logger, Record};
use lightning_liquidity::utils::time::TimeProvider;
use lsps2_async::lease::{Lease, LeaseId, OpeningFeeParams, TrustModel};
use lsps2_async::router::{JitRouter, PathPolicy};
use std::hint::black_box;
use std::sync::Mutex;
use std::time::Instant;

/// The requirement: at most this many times the wrapped router's own time.
const LIMIT: f64 = 1.1;
const ROUNDS: usize = 300;
const WARM_UP: usize = 20;
const NOW: Duration = Duration::from_secs(1_700_000_000);
const INBOUND_MSAT: u64 = 1_000_000_000;

struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record) {}
}

struct Stopped;

impl TimeProvider for Stopped {
    fn duration_since_epoch(&self) -> Duration {
        NOW
    }
}

fn node(seed: u8) -> PublicKey {
    let secret = SecretKey::from_slice(&[seed; 32]).expect("seed is not 0 or 255");
    PublicKey::from_secret_key(&Secp256k1::signing_only(), &secret)
}

/// A graph in which the first LSPs are announced: the wrapped router builds paths through no others.
fn graph_with_lsps(count: u8) -> NetworkGraph<Silent> {
    let graph = NetworkGraph::new(Network::Regtest, Silent);
    let other = NodeId::from_pubkey(&node(100));
    for lsp in 1..=count {
        let node_id = NodeId::from_pubkey(&node(lsp));
        graph
            .add_channel_from_partial_announcement(
                lsp.into(),
                Some(1_000_000),
                NOW.as_secs(),
                ChannelFeatures::empty(),
                node_id,
                other,
            )
            .expect("a new channel");
        graph
            .update_node_from_unsigned_announcement(&UnsignedNodeAnnouncement {
                features: NodeFeatures::empty(),
                timestamp: 1,
                node_id,
                rgb: [0; 3],
                alias: NodeAlias([0; 32]),
                addresses: Vec::new(),
                excess_address_data: Vec::new(),
                excess_data: Vec::new(),
            })
            .expect("it has a channel");
    }
    graph
}

/// A usable channel with an LSP, large enough for an ordinary path.
fn channel(lsp: u8) -> ChannelDetails {
    let mut features = InitFeatures::empty();
    features.set_route_blinding_optional();
    ChannelDetails {
        channel_id: ChannelId([lsp; 32]),
        counterparty: ChannelCounterparty {
            node_id: node(lsp),
            features,
            unspendable_punishment_reserve: 1_000,
            forwarding_info: Some(CounterpartyForwardingInfo {
                fee_base_msat: 0,
                fee_proportional_millionths: 0,
                cltv_expiry_delta: 72,
            }),
            outbound_htlc_minimum_msat: Some(1),
            outbound_htlc_maximum_msat: Some(INBOUND_MSAT),
        },
        funding_txo: None,
        channel_type: None,
        short_channel_id: Some(lsp.into()),
        outbound_scid_alias: None,
        inbound_scid_alias: None,
        channel_value_satoshis: INBOUND_MSAT / 1_000,
        unspendable_punishment_reserve: Some(0),
        user_channel_id: 0,
        feerate_sat_per_1000_weight: None,
        outbound_capacity_msat: 0,
        next_outbound_htlc_limit_msat: 0,
        next_outbound_htlc_minimum_msat: 0,
        next_splice_out_maximum_sat: 0,
        inbound_capacity_msat: INBOUND_MSAT,
        confirmations_required: Some(0),
        confirmations: Some(1),
        force_close_spend_delay: Some(144),
        is_outbound: false,
        is_channel_ready: true,
        channel_shutdown_state: None,
        is_usable: true,
        is_announced: false,
        inbound_htlc_minimum_msat: Some(1),
        inbound_htlc_maximum_msat: Some(INBOUND_MSAT),
        config: None,
        pending_inbound_htlcs: Vec::new(),
        pending_outbound_htlcs: Vec::new(),
        funding_redeem_script: None,
        current_dust_exposure_msat: None,
        splice_details: None,
    }
}

fn lease(lsp: u8) -> Lease {
    Lease {
        id: LeaseId { lsp_node_id: node(lsp), intercept_scid: lsp.into() },
        cltv_expiry_delta: 144,
        opening_fee_params: OpeningFeeParams {
            min_fee_msat: 2_000_000,
            proportional: 10_000,
            valid_until: NOW + Duration::from_secs(86_400),
            min_lifetime: 1_008,
            max_client_to_self_delay: 2_016,
            min_payment_size_msat: 1_000,
            max_payment_size_msat: 1_000_000_000,
        },
        payment_size_msat: None,
        trust_model: TrustModel::LspTrustsClient,
    }
}

/// What LDK hands to the router for each static invoice.
struct Request<'a> {
    keys: &'a KeysManager,
    channels: Vec<ChannelDetails>,
    secp: Secp256k1<All>,
}

impl Request<'_> {
    /// The time one call takes, in microseconds, and the number of paths it gave. What LDK prepares
    /// for the call is left out.
    fn time(&self, router: &impl Router) -> (f64, usize) {
        let recipient = self.keys.get_node_id(Recipient::Node).expect("a local signer");
        let key = self.keys.get_receive_auth_key();
        let channels = self.channels.clone();
        let tlvs = ReceiveTlvs {
            payment_secret: PaymentSecret([1; 32]),
            payment_constraints: PaymentConstraints {
                max_cltv_expiry: 802_016,
                htlc_minimum_msat: 1,
            },
            payment_context: PaymentContext::AsyncBolt12Offer(AsyncBolt12OfferContext {
                offer_nonce: Nonce::from_entropy_source(self.keys),
                payment_metadata: None,
            }),
        };
        let start = Instant::now();
        let paths =
            router.create_blinded_payment_paths(recipient, key, channels, tlvs, None, &self.secp);
        let took = start.elapsed();
        let paths = black_box(paths).expect("there is a channel and a lease for each LSP");
        (took.as_secs_f64() * 1e6, paths.len())
    }
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

/// One channel and one lease with each of `lsps` LSPs, hence as many paths from each variant.
fn compare(lsps: u8, rounds: usize) {
    let keys = KeysManager::new(&[42; 32], 1, 1, true);
    let graph = graph_with_lsps(lsps);
    let scorer = Mutex::new(FixedPenaltyScorer::with_penalty(0));
    let own = DefaultRouter::new(&graph, Silent, &keys, &scorer, ());
    let leases: Vec<Lease> = (1..=lsps).map(lease).collect();
    let wrapper = |enough_inbound_msat| {
        let policy = PathPolicy { enough_inbound_msat, ..PathPolicy::default() };
        JitRouter::new(&own, &leases, &keys, &Stopped, policy)
    };
    // The same channels either way: what differs is whether they are enough.
    let (delegating, jit) = (wrapper(1), wrapper(u64::MAX));
    let channels = (1..=lsps).map(channel).collect();
    let request = Request { keys: &keys, channels, secp: Secp256k1::new() };

    let mut samples = [const { Vec::new() }; 3];
    for round in 0..WARM_UP.min(rounds) + rounds {
        for turn in 0..3 {
            // Each variant goes first in every third round, for what the one before leaves behind.
            let variant = (round + turn) % 3;
            let (micros, paths) = match variant {
                0 => request.time(&own),
                1 => request.time(&delegating),
                _ => request.time(&jit),
            };
            assert_eq!(paths, usize::from(lsps), "the variants must do comparable work");
            if round >= WARM_UP.min(rounds) {
                samples[variant].push(micros);
            }
        }
    }
    let [own, delegating, jit] = samples.each_mut().map(|samples| median(samples));
    println!("{lsps} path(s), median of {rounds} rounds:");
    println!("  wrapped router alone        {own:>7.1} us");
    for (name, micros) in [("delegating", delegating), ("building JIT paths", jit)] {
        let ratio = micros / own;
        let verdict = if ratio <= LIMIT { "within" } else { "ABOVE" };
        println!("  wrapper, {name:<18} {micros:>7.1} us  x {ratio:.3}  ({verdict} {LIMIT})");
    }
}

fn main() {
    // `cargo test --all-targets` runs this too, without the argument: a few rounds show it works.
    let rounds = if std::env::args().any(|arg| arg == "--bench") { ROUNDS } else { 2 };
    compare(1, rounds);
    compare(3, rounds);
}
