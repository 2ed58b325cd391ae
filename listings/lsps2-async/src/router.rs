//! Step 3: the lease is decoded and its intercept SCID is injected into the payment paths.
//!
//! LDK builds the static invoice by itself and offers one public hook on the way:
//! [`Router::create_blinded_payment_paths`]. [`JitRouter`] wraps any router and answers that call
//! for offers while the wallet has a lease and too little inbound liquidity. [`LspMessageRouter`]
//! lets a woken wallet answer through its LSP, so that it needs no other connection.

use bitcoin::secp256k1::{self, PublicKey, Secp256k1};
use core::ops::Deref;
use core::time::Duration;
use lightning::blinded_path::IntroductionNode;
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{
    AsyncBolt12OfferContext, BlindedPaymentPath, Bolt12OfferContext, ForwardTlvs,
    PaymentConstraints, PaymentContext, PaymentForwardNode, PaymentRelay, ReceiveTlvs,
};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{MIN_FINAL_CLTV_EXPIRY_DELTA, PaymentId};
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::router::{InFlightHtlcs, Route, RouteParameters, Router};
use lightning::sign::{EntropySource, ReceiveAuthKey};
use lightning::types::features::BlindedHopFeatures;
use lightning::types::payment::PaymentHash;
use lightning_liquidity::utils::time::TimeProvider;

use crate::claim::is_jit;
use crate::lease::{ActiveLeases, Lease};
use crate::metadata::LeaseMetadata;

/// bLIP-52 asks the client for a final CLTV delta two blocks above its usual minimum.
pub(crate) const BLIP52_EXTRA_FINAL_BLOCKS: u16 = 2;

/// All bitcoin, in msat: LDK builds no path for an HTLC that must be larger.
const ALL_BITCOIN_MSAT: u64 = 21_000_000 * 100_000_000 * 1_000;

/// Which paths a wallet puts into an invoice. An invoice never holds both kinds: a payer that split
/// a payment over both would leave the JIT part below what opens the channel.
///
/// ```
/// # use core::time::Duration;
/// use lsps2_async::router::{PathChoice, PathPolicy};
///
/// let (policy, now) = (PathPolicy::default(), Duration::from_secs(1_700_000_000));
/// let choose = |amount, inbound| policy.choose(amount, inbound, Vec::new(), now);
/// // No lease here: a static invoice over a channel that can receive, or none at all.
/// assert_eq!(choose(None, Some(9_000)), PathChoice::Ordinary);
/// assert_eq!(choose(None, None), PathChoice::Refuse);
/// // Too little inbound and no lease: the payer may still split its payment.
/// assert_eq!(choose(Some(10_000), Some(9_000)), PathChoice::Ordinary);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPolicy {
    /// Ordinary paths are used once one usable channel can receive this much, in msat. An invoice
    /// for a larger amount needs that amount.
    ///
    /// Above the default, a payment over a lease may fit into a channel there is. LDK then forwards it
    /// over that one, skimmed, and the fee is for the new one: name that to
    /// [`judge`](crate::claim::judge), which refuses it otherwise.
    pub enough_inbound_msat: u64,
    /// A lease is used only while at least this long remains until its `valid_until`.
    pub min_validity_left: Duration,
    /// Blocks added to the final CLTV delta. A payment held at the payer's LSP survives about as
    /// many blocks longer; its HTLC is also locked up for as many blocks more if it fails.
    pub extra_final_cltv_delta: u16,
    /// The most JIT paths in one invoice, one for each LSP. With more than one, a payer that splits a
    /// payment over two of them fails: the leases differ, and LDK fails a part whose metadata is not
    /// that of the parts it has. Each costs about 350 bytes of the 5 KiB a static invoice may have.
    pub max_jit_paths: usize,
}

impl Default for PathPolicy {
    fn default() -> Self {
        Self {
            enough_inbound_msat: 1,
            min_validity_left: Duration::ZERO,
            extra_final_cltv_delta: 0,
            max_jit_paths: 1,
        }
    }
}

/// What [`PathPolicy::choose`] decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathChoice {
    /// The wrapped router builds the paths, over existing channels.
    Ordinary,
    /// One path for each of these leases, over its intercept SCID.
    Jit(Vec<Lease>),
    /// No invoice: there is neither a usable channel nor an active lease. LDK asks again later.
    Refuse,
}

impl PathPolicy {
    /// Decides for an invoice over `amount_msat` (`None` for a static invoice).
    ///
    /// `largest_inbound_msat` is the inbound capacity of the best usable channel, `None` if there
    /// is no usable channel.
    pub fn choose(
        &self,
        amount_msat: Option<u64>,
        largest_inbound_msat: Option<u64>,
        leases: Vec<Lease>,
        now: Duration,
    ) -> PathChoice {
        let needed = self.enough_inbound_msat.max(amount_msat.unwrap_or(0));
        if largest_inbound_msat.is_some_and(|inbound| inbound >= needed) {
            return PathChoice::Ordinary;
        }
        let leases = self.usable(leases, amount_msat, now);
        match (leases.is_empty(), largest_inbound_msat) {
            (false, _) => PathChoice::Jit(leases),
            (true, Some(_)) => PathChoice::Ordinary,
            (true, None) => PathChoice::Refuse,
        }
    }

    /// One lease for each LSP, the first given, of those that can serve the amount.
    fn usable(&self, leases: Vec<Lease>, amount_msat: Option<u64>, now: Duration) -> Vec<Lease> {
        let mut usable: Vec<Lease> = Vec::new();
        for lease in leases {
            let new_lsp = usable.iter().all(|l| l.id.lsp_node_id != lease.id.lsp_node_id);
            if new_lsp && self.serves(&lease, amount_msat, now) {
                usable.push(lease);
            }
        }
        usable.truncate(self.max_jit_paths);
        usable
    }

    /// A lease that cannot become a path serves nothing: it must not keep an ordinary path out.
    fn serves(&self, lease: &Lease, amount_msat: Option<u64>, now: Duration) -> bool {
        let params = &lease.opening_fee_params;
        let lasts = params.valid_until > now.saturating_add(self.min_validity_left);
        let Ok(terms) = LeaseMetadata::for_lease(lease) else {
            return false;
        };
        let final_delta = self.final_cltv_delta();
        let has_delta = final_delta.and_then(|d| d.checked_add(terms.cltv_expiry_delta)).is_some();
        let htlcs = terms.min_htlc_msat..=params.max_payment_size_msat;
        let exists = terms.min_htlc_msat <= ALL_BITCOIN_MSAT;
        lasts && has_delta && exists && amount_msat.is_none_or(|amount| htlcs.contains(&amount))
    }

    /// The blocks between the HTLC's expiry at the recipient and the chain tip; `None` on overflow.
    fn final_cltv_delta(&self) -> Option<u16> {
        MIN_FINAL_CLTV_EXPIRY_DELTA
            .checked_add(BLIP52_EXTRA_FINAL_BLOCKS)?
            .checked_add(self.extra_final_cltv_delta)
    }
}

/// A [`Router`] that puts JIT paths into a wallet's offers and delegates everything else.
///
/// * `R` finds routes and builds ordinary paths, for example LDK's `DefaultRouter`;
/// * `L` knows the leases, usually an `Arc<LeaseStore<_>>`;
/// * `T` tells the time.
///
/// ```
/// use lightning::routing::router::Router;
/// use lightning::sign::KeysManager;
/// use lightning_liquidity::utils::time::TimeProvider;
/// use lsps2_async::lease::LeaseStore;
/// use lsps2_async::router::{JitRouter, PathPolicy};
/// # use lightning::util::persist::KVStore;
/// use std::sync::Arc;
///
/// /// The router to give to the wallet's `ChannelManager`.
/// fn wallet_router<R: Router, K: KVStore, T: TimeProvider>(
///     ordinary: R,
///     leases: Arc<LeaseStore<K>>,
///     keys: Arc<KeysManager>,
///     clock: Arc<T>,
/// ) -> impl Router {
///     // JIT paths until there is a channel that can receive.
///     let policy = PathPolicy::default();
///     JitRouter::new(ordinary, leases, keys, clock, policy)
/// }
/// ```
pub struct JitRouter<R: Router, L: ActiveLeases, ES: EntropySource, T: Deref>
where
    T::Target: TimeProvider,
{
    inner: R,
    leases: L,
    entropy_source: ES,
    time: T,
    policy: PathPolicy,
    tell: Option<Tell>,
}

/// Is told what an invoice of this context got: what was chosen, and the paths it led to.
type Tell =
    Box<dyn Fn(&PaymentContext, &PathChoice, &Result<Vec<BlindedPaymentPath>, ()>) + Send + Sync>;

impl<R: Router, L: ActiveLeases, ES: EntropySource, T: Deref> JitRouter<R, L, ES, T>
where
    T::Target: TimeProvider,
{
    /// Wraps `inner`.
    pub fn new(inner: R, leases: L, entropy_source: ES, time: T, policy: PathPolicy) -> Self {
        Self { inner, leases, entropy_source, time, policy, tell: None }
    }

    /// Tells `tell` of each answer, for a log: LDK asks again and again, and keeps quiet about it.
    pub fn telling(
        mut self,
        tell: impl Fn(&PaymentContext, &PathChoice, &Result<Vec<BlindedPaymentPath>, ()>)
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.tell = Some(Box::new(tell));
        self
    }

    fn choose(&self, amount_msat: Option<u64>, channels: &[ChannelDetails]) -> PathChoice {
        let now = self.time.duration_since_epoch();
        let inbound =
            channels.iter().filter(|c| c.is_usable).map(|c| c.inbound_capacity_msat).max();
        self.policy.choose(amount_msat, inbound, self.leases.active_leases(now), now)
    }

    /// Whether an invoice may lead over this channel.
    ///
    /// A JIT channel whose fee is still owed may have a funding transaction that its LSP withholds,
    /// and will withhold for as long as nobody pays the fee. An ordinary path over it carries no fee.
    /// That does not end with the lease: then there is nothing left that could pay it.
    fn is_funded_or_paid(&self, channel: &ChannelDetails) -> bool {
        let confirmed = channel.confirmations.is_some_and(|confirmations| confirmations > 0);
        let owes =
            is_jit(channel.user_channel_id) && !self.leases.was_paid_for(&channel.channel_id);
        let peer = channel.counterparty.node_id;
        let active = self.leases.active_leases(self.time.duration_since_epoch());
        let may_owe = active.iter().any(|lease| lease.id.lsp_node_id == peer);
        confirmed || !(owes || may_owe)
    }

    fn jit_path<S: secp256k1::Signing + secp256k1::Verification>(
        &self,
        lease: &Lease,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        mut tlvs: ReceiveTlvs,
        secp_ctx: &Secp256k1<S>,
    ) -> Result<BlindedPaymentPath, ()> {
        let terms = write_and_read_back(lease, &mut tlvs.payment_context)?;
        let lsp_hop = jit_hop(&terms, lease, tlvs.payment_constraints.max_cltv_expiry);
        BlindedPaymentPath::new(
            &[lsp_hop],
            recipient,
            key,
            tlvs,
            u64::MAX,
            self.policy.final_cltv_delta().ok_or(())?,
            &self.entropy_source,
            secp_ctx,
        )
    }
}

/// Step 2 and the first half of step 3: the lease goes into the metadata, and what the path is
/// built from is what comes out of it. What the recipient will read at the claim has been read
/// once already.
fn write_and_read_back(lease: &Lease, context: &mut PaymentContext) -> Result<LeaseMetadata, ()> {
    let metadata = match context {
        PaymentContext::AsyncBolt12Offer(AsyncBolt12OfferContext { payment_metadata, .. })
        | PaymentContext::Bolt12Offer(Bolt12OfferContext { payment_metadata, .. }) => {
            payment_metadata
        }
        PaymentContext::Bolt12Refund(_) => return Err(()),
    };
    LeaseMetadata::for_lease(lease).map_err(|_| ())?.insert_into(metadata);
    LeaseMetadata::read_from(metadata.as_ref()).ok().flatten().ok_or(())
}

/// The second half of step 3: the one forwarding hop of a JIT path is the LSP, and its next channel
/// is the intercept SCID.
fn jit_hop(terms: &LeaseMetadata, lease: &Lease, payee_max_cltv_expiry: u32) -> PaymentForwardNode {
    let delta = terms.cltv_expiry_delta;
    PaymentForwardNode {
        node_id: terms.lsp_node_id,
        htlc_maximum_msat: lease.opening_fee_params.max_payment_size_msat,
        tlvs: ForwardTlvs {
            short_channel_id: terms.intercept_scid,
            // The LSP earns the opening fee, which it skims; it charges no routing fee on top.
            payment_relay: PaymentRelay {
                cltv_expiry_delta: delta,
                fee_proportional_millionths: 0,
                fee_base_msat: 0,
            },
            payment_constraints: PaymentConstraints {
                max_cltv_expiry: payee_max_cltv_expiry.saturating_add(delta.into()),
                // LDK's LSP checks this before it intercepts. Without it, one HTLC too small to pay
                // the fee retires the lease for everybody.
                htlc_minimum_msat: terms.min_htlc_msat,
            },
            features: BlindedHopFeatures::empty(),
            next_blinding_override: None,
        },
    }
}

impl<R: Router, L: ActiveLeases, ES: EntropySource, T: Deref> Router for JitRouter<R, L, ES, T>
where
    T::Target: TimeProvider,
{
    fn create_blinded_payment_paths<S: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        mut channels: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        amount_msat: Option<u64>,
        secp: &Secp256k1<S>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        channels.retain(|channel| self.is_funded_or_paid(channel));
        // ANCHOR: which-contexts
        let for_an_offer = matches!(
            tlvs.payment_context,
            PaymentContext::AsyncBolt12Offer(_) | PaymentContext::Bolt12Offer(_)
        );
        let choice =
            if for_an_offer { self.choose(amount_msat, &channels) } else { PathChoice::Ordinary };
        // ANCHOR_END: which-contexts
        let context = tlvs.payment_context.clone();
        let paths = match &choice {
            PathChoice::Refuse => Err(()),
            PathChoice::Ordinary => self.inner.create_blinded_payment_paths(
                recipient,
                key,
                channels,
                tlvs,
                amount_msat,
                secp,
            ),
            PathChoice::Jit(leases) => {
                // One LSP's absurd terms must not cost the wallet the paths through the others.
                let paths = leases.iter().filter_map(|lease| {
                    self.jit_path(lease, recipient, key, tlvs.clone(), secp).ok()
                });
                let paths: Vec<_> = paths.collect();
                if paths.is_empty() { Err(()) } else { Ok(paths) }
            }
        };
        if let Some(tell) = &self.tell {
            tell(&context, &choice, &paths);
        }
        paths
    }

    fn find_route(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        inflight_htlcs: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        self.inner.find_route(payer, params, first_hops, inflight_htlcs)
    }

    fn find_route_with_id(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        inflight_htlcs: InFlightHtlcs,
        payment_hash: PaymentHash,
        payment_id: PaymentId,
    ) -> Result<Route, &'static str> {
        self.inner.find_route_with_id(
            payer,
            params,
            first_hops,
            inflight_htlcs,
            payment_hash,
            payment_id,
        )
    }
}

/// A [`MessageRouter`] that reaches everybody through the LSP.
///
/// LDK's `DefaultMessageRouter` only reaches direct peers: a woken wallet would be told to connect
/// to the payer, or to the payer's LSP, whose address it may not know. This one asks the wrapped
/// router first and puts the LSP in between wherever that would need a new connection.
///
/// ```
/// # use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
/// use lightning::onion_message::messenger::{Destination, MessageRouter, NullMessageRouter};
/// use lsps2_async::router::LspMessageRouter;
///
/// # let node = |seed| {
/// #     let key = SecretKey::from_slice(&[seed; 32]).unwrap();
/// #     PublicKey::from_secret_key(&Secp256k1::new(), &key)
/// # };
/// # let (wallet, lsp, payer) = (node(1), node(2), node(3));
/// // A router that knows nobody is enough while the LSP is connected.
/// let router = LspMessageRouter::new(NullMessageRouter {}, lsp);
/// let path = router.find_path(wallet, vec![lsp], Destination::Node(payer));
/// assert_eq!(path.map(|path| path.intermediate_nodes), Ok(vec![lsp]));
/// assert!(router.find_path(wallet, vec![], Destination::Node(payer)).is_err());
/// ```
pub struct LspMessageRouter<M: MessageRouter> {
    inner: M,
    lsp_node_id: PublicKey,
}

impl<M: MessageRouter> LspMessageRouter<M> {
    /// Wraps `inner`; messages go through `lsp_node_id` while it is connected.
    pub fn new(inner: M, lsp_node_id: PublicKey) -> Self {
        Self { inner, lsp_node_id }
    }

    fn through_lsp(&self, destination: Destination) -> OnionMessagePath {
        OnionMessagePath {
            intermediate_nodes: vec![self.lsp_node_id],
            destination,
            first_node_addresses: Vec::new(),
        }
    }
}

/// Whether the LSP can be told whom to pass the message to: an introduction node given as an SCID
/// has to be resolved by us, in a graph that a woken wallet may not have.
fn is_reachable(destination: &Destination) -> bool {
    match destination {
        Destination::Node(_) => true,
        Destination::BlindedPath(path) => match path.introduction_node() {
            IntroductionNode::NodeId(_) => true,
            IntroductionNode::DirectedShortChannelId(..) => false,
        },
    }
}

impl<M: MessageRouter> MessageRouter for LspMessageRouter<M> {
    fn find_path(
        &self,
        sender: PublicKey,
        peers: Vec<PublicKey>,
        destination: Destination,
    ) -> Result<OnionMessagePath, ()> {
        let lsp_connected = peers.contains(&self.lsp_node_id);
        let path = self.inner.find_path(sender, peers.clone(), destination.clone());
        let is_direct = |path: &OnionMessagePath| {
            path.first_node().is_some_and(|node| node == sender || peers.contains(&node))
        };
        match path {
            Ok(path) if is_direct(&path) || !lsp_connected => Ok(path),
            Ok(path) if !is_reachable(&path.destination) => Ok(path),
            Ok(path) => Ok(self.through_lsp(path.destination)),
            // Known, but without an address to connect to.
            Err(()) if lsp_connected && is_reachable(&destination) => {
                Ok(self.through_lsp(destination))
            }
            Err(()) => Err(()),
        }
    }

    fn create_blinded_paths<S: secp256k1::Signing + secp256k1::Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        context: MessageContext,
        peers: Vec<MessageForwardNode>,
        secp_ctx: &Secp256k1<S>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        self.inner.create_blinded_paths(recipient, key, context, peers, secp_ctx)
    }
}

#[cfg(test)]
mod tests;
