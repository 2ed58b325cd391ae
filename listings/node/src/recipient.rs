//! The recipient: a wallet that is usually offline, has no channel, and is paid anyway.

mod fundings;

pub use fundings::{FundingPolicy, Funds};

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::bolt11_invoice::{
    Bolt11Invoice, CreationError, Currency, InvoiceBuilder, RawBolt11Invoice,
};
use lightning::events::{Event, PaymentPurpose, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::TrustedChannelFeatures;
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::ln::types::ChannelId;
use lightning::offers::offer::Offer;
use lightning::sign::{NodeSigner, Recipient as Signer};
use lightning::types::payment::{PaymentHash, PaymentPreimage, PaymentSecret};
use lightning::util::config::{ChannelConfigOverrides, ChannelConfigUpdate, UserConfig};
use lightning::util::persist::KVStoreSync;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps2::event::LSPS2ClientEvent;
use lsps2_async::bolt11::{InvoiceTerms, lease_metadata};
use lsps2_async::claim::{
    Arrival, ChannelUse, ClaimPolicy, Refusal, Verdict, is_jit, jit_user_channel_id, judge,
};
use lsps2_async::lease::{Consumption, Lease, LeaseId, LeaseRecord, LeaseState, LeaseStoreError};
use lsps2_async::metadata::LeaseMetadata;
use lsps2_async::negotiate::{Negotiation, NegotiationPolicy, Progress};
use lsps2_async::router::PathPolicy;
use serde_json::json;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

use crate::events::scid;
use crate::faults::points;
use crate::node::{Node, NodeConfig, Role, Setup};
use crate::transcript::{HtlcState, What};
use fundings::Fundings;

const NAMESPACE: &str = "recipient";
const LSP_KEY: &str = "lsp";

/// How a recipient behaves.
#[derive(Clone, Debug, Default)]
pub struct RecipientPolicy {
    /// Which paths its invoices get.
    pub paths: PathPolicy,
    /// What it tolerates at the claim.
    pub claim: ClaimPolicy,
    /// How much it relies on channels that are not confirmed.
    pub funding: FundingPolicy,
}

/// A running recipient.
pub struct Recipient {
    node: Arc<Node>,
    role: Arc<RecipientRole>,
}

struct RecipientRole {
    node: Arc<Node>,
    claim_policy: ClaimPolicy,
    funding_policy: FundingPolicy,
    fundings: Fundings,
    negotiations: Mutex<Vec<Purchase>>,
    /// Payments that wait to be judged, while a test holds them.
    held_claims: Mutex<Option<Vec<Claimable>>>,
    /// Channels that wait to be accepted, while a test holds them.
    held_channels: Mutex<Option<Vec<(ChannelId, PublicKey)>>>,
}

struct Purchase {
    negotiation: Negotiation,
    buyer: oneshot::Sender<Result<Lease>>,
}

impl std::ops::Deref for Recipient {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Recipient {
    /// Starts the recipient of a folder, or makes a new one there.
    pub async fn start(config: NodeConfig, policy: RecipientPolicy) -> Result<Self> {
        let setup = Setup {
            user_config: user_config(),
            mailbox: false,
            promise_secret: None,
            paths: policy.paths,
        };
        let node = Node::build(config, setup).await?;
        if let Ok(id) = node.store.read(NAMESPACE, "", LSP_KEY) {
            node.relay.set_lsp(PublicKey::from_slice(&id)?);
        }
        let role = Arc::new(RecipientRole {
            node: node.clone(),
            claim_policy: policy.claim,
            funding_policy: policy.funding,
            fundings: Fundings::load(&node.store)?,
            negotiations: Mutex::default(),
            held_claims: Mutex::default(),
            held_channels: Mutex::default(),
        });
        role.set_skimming();
        node.run(role.clone());
        Ok(Self { node, role })
    }

    /// Connects to the LSP, now and whenever the wallet wakes up. Messages go through it.
    pub async fn connect_lsp(&self, lsp: PublicKey, address: SocketAddr) -> Result<()> {
        self.node.store.write(NAMESPACE, "", LSP_KEY, lsp.serialize().to_vec())?;
        self.node.relay.set_lsp(lsp);
        self.node.connect(lsp, address).await
    }

    /// Step 1: buys a lease, and returns once it is on disk.
    ///
    /// If offers wait for one, they are built now: LDK would try again only at its next tick, up to
    /// a minute later. The tick that is called here for that also ages what LDK counts in ticks.
    pub async fn buy_lease(&self, lsp: PublicKey, policy: NegotiationPolicy) -> Result<Lease> {
        ensure!(self.node.is_connected(&lsp), "not connected to the LSP: `connect` first");
        let lease = self.role.negotiate(lsp, policy).await?;
        if self.offer().is_none() {
            self.node.channel_manager.timer_tick_occurred();
            self.node.peer_manager.process_events();
        }
        Ok(lease)
    }

    /// Plain LSPS2: a BOLT 11 invoice over a lease, for a payer that pays while this node is online.
    pub fn jit_invoice(&self, lease: &Lease, valid_for: Duration) -> Result<Bolt11Invoice> {
        let now = self.node.now();
        let terms = InvoiceTerms::for_lease(lease, now)?;
        let expiry = valid_for.min(terms.longest_expiry);
        let (hash, secret, metadata) = self
            .node
            .channel_manager
            .create_inbound_payment(
                // Compared with what the payer sends, before the fee.
                terms.amount_msat,
                u32::try_from(expiry.as_secs())?,
                // Not the invoice's delta: LDK would demand it although blocks have been mined.
                None,
                Some(terms.payment_metadata.clone()),
            )
            .map_err(|()| anyhow!("LDK takes no payment of this amount"))?;
        let metadata = metadata.context("LDK hands back what it encrypted")?;
        let invoice = unsigned(&terms, hash, secret, metadata, now, expiry);
        let invoice = invoice.map_err(|e| anyhow!("this makes no invoice: {e:?}"))?;
        let signature = self.node.keys.sign_invoice(&invoice, Signer::Node);
        let signed = invoice.sign(|_| signature).map_err(|()| anyhow!("the signer refuses"))?;
        Bolt11Invoice::from_signed(signed).map_err(|e| anyhow!("this is no invoice: {e:?}"))
    }

    /// Takes the paths the static invoice server handed out, and asks it for offer paths.
    pub fn use_paths(&self, paths: Vec<BlindedMessagePath>) -> Result<()> {
        ensure!(!paths.is_empty(), "no paths: ask the LSP for them with `paths`");
        self.node
            .channel_manager
            .set_paths_to_static_invoice_server(paths)
            .map_err(|()| anyhow!("the paths do not lead to the LSP: is it connected?"))?;
        self.node.peer_manager.process_events();
        Ok(())
    }

    /// An offer that can be paid while this node is offline, if the server holds its invoice.
    pub fn offer(&self) -> Option<Offer> {
        self.node.channel_manager.get_async_receive_offer().ok()
    }

    /// Waits for the offer. With neither a lease nor a channel it does not come.
    pub async fn wait_for_offer(&self, at_most: Duration) -> Result<Offer> {
        let transcript = &self.node.pen.transcript;
        let from = transcript.position();
        if let Some(offer) = self.offer() {
            return Ok(offer);
        }
        let ready = transcript.wait_for(from, at_most, |entry| {
            let persisted = matches!(&entry.what, What::Onion { message, .. }
                if message == "static_invoice_persisted" && entry.node == self.node.pen.name);
            persisted.then(|| self.offer()).flatten()
        });
        ready.await.map_err(|_| {
            anyhow!("no offer: buy a lease with `lease` and take the LSP's paths with `use-paths`")
        })
    }

    /// From now on, payments wait to be judged, as in a wallet that asks its user first. For tests of
    /// what may happen in between.
    pub fn hold_claims(&self) {
        *self.role.held_claims.lock().unwrap() = Some(Vec::new());
    }

    /// Judges what has waited, and from now on all else at once.
    ///
    /// # Errors
    /// If the disk does not take a lease that is spent.
    pub async fn judge_held_claims(&self) -> Result<()> {
        let held = self.role.held_claims.lock().unwrap().take();
        for payment in held.unwrap_or_default() {
            let judged = self.role.on_claimable(payment).await;
            judged.map_err(|_| anyhow!("the lease cannot be written"))?;
        }
        Ok(())
    }

    /// Fails back what has waited, as a user who declines, and from now on judges all else at once.
    /// Whether anything has waited; if not, nothing changes.
    pub fn decline_held_claims(&self) -> bool {
        let held = self.role.held_claims.lock().unwrap().take_if(|held| !held.is_empty());
        for payment in held.iter().flatten() {
            self.role.fail_back(payment, "the user declined it".to_owned());
        }
        held.is_some()
    }

    /// From now on, channels wait to be accepted. For tests of a wallet that answers otherwise.
    pub fn hold_channels(&self) {
        self.role.held_channels.lock().unwrap().get_or_insert_default();
    }

    /// Each channel that has waited since, with its peer. Whoever takes them answers them.
    pub fn take_held_channels(&self) -> Vec<(ChannelId, PublicKey)> {
        let mut held = self.role.held_channels.lock().unwrap();
        held.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// All leases ever bought.
    pub fn leases(&self) -> Vec<LeaseRecord> {
        self.node.leases.list()
    }
}

/// What bLIP-52 asks of the invoice, and nothing that it forbids.
fn unsigned(
    terms: &InvoiceTerms,
    hash: PaymentHash,
    secret: PaymentSecret,
    metadata: Vec<u8>,
    now: Duration,
    expiry: Duration,
) -> Result<RawBolt11Invoice, CreationError> {
    let invoice = InvoiceBuilder::new(Currency::Regtest)
        .description("paid over a channel that does not exist yet".to_owned())
        .payment_hash(hash)
        .payment_secret(secret)
        .payment_metadata(metadata)
        .duration_since_epoch(now)
        .expiry_time(expiry)
        .min_final_cltv_expiry_delta(terms.min_final_cltv_expiry_delta.into())
        .private_route(terms.route_hint.clone());
    match terms.amount_msat {
        Some(amount_msat) => invoice.amount_milli_satoshis(amount_msat).basic_mpp().build_raw(),
        // The first HTLC sets the fee and the size of the channel: no amount, and no parts.
        None => invoice.build_raw(),
    }
}

/// LDK's flags for a recipient: its defaults will do. The one thing an LSPS2 client must allow,
/// less than the onion says arriving, is set for each channel with the LSP when it is accepted.
pub fn user_config() -> UserConfig {
    UserConfig::default()
}

impl RecipientRole {
    async fn negotiate(&self, lsp: PublicKey, policy: NegotiationPolicy) -> Result<Lease> {
        let (buyer, bought) = oneshot::channel();
        let client = self.node.liquidity.lsps2_client_handler().expect("a recipient buys");
        {
            let mut negotiations = self.negotiations.lock().unwrap();
            let negotiation = Negotiation::begin(client, lsp, policy, self.node.now())
                .watched_by(self.node.observations.clone());
            negotiations.push(Purchase { negotiation, buyer });
        }
        bought.await?
    }

    async fn on_lsps2_event(&self, event: LSPS2ClientEvent) {
        let client = self.node.liquidity.lsps2_client_handler().expect("a recipient buys");
        let done = {
            let mut negotiations = self.negotiations.lock().unwrap();
            let now = self.node.now();
            let mut done = None;
            for (i, purchase) in negotiations.iter_mut().enumerate() {
                if let Progress::Done(outcome) = purchase.negotiation.on_event(client, &event, now)
                {
                    done = Some((i, outcome));
                    break;
                }
            }
            done.map(|(i, outcome)| (negotiations.swap_remove(i).buyer, outcome))
        };
        if let Some((buyer, outcome)) = done {
            let outcome = match outcome {
                Ok(lease) => self.keep(lease).await.map_err(anyhow::Error::from),
                Err(error) => Err(error.into()),
            };
            // The buyer may have gone; the lease is kept all the same.
            let _ = buyer.send(outcome);
        }
    }

    /// On disk first: the offer must not name a lease that a restart forgets.
    async fn keep(&self, lease: Lease) -> Result<Lease, LeaseStoreError> {
        let params = &lease.opening_fee_params;
        let detail = json!({
            "min_fee_msat": params.min_fee_msat,
            "proportional": params.proportional,
            "valid_until": params.valid_until.as_secs(),
            "min_payment_size_msat": params.min_payment_size_msat,
            "max_payment_size_msat": params.max_payment_size_msat,
            "cltv_expiry_delta": lease.cltv_expiry_delta,
            "trust_model": format!("{:?}", lease.trust_model),
        });
        self.node.leases.add(lease.clone()).await?;
        self.note_lease("bought", &lease.id, detail);
        self.set_skimming();
        Ok(lease)
    }

    /// Lets an LSP forward less than the onion says for as long as it is owed an opening fee. LDK
    /// then sets no limit, the guard does; without it LDK refuses any skim.
    ///
    /// LDK `0.3.0-rc3` does not write this setting (`LegacyChannelConfig`, util/config.rs): without
    /// this call, a wallet that restarts between the opening and the payment refuses the payment.
    fn set_skimming(&self) {
        let owed = self.node.leases.list();
        for channel in self.node.channel_manager.list_channels() {
            let peer = channel.counterparty.node_id;
            let owes = |record: &LeaseRecord| record.lease.id.lsp_node_id == peer && owes(record);
            let may_skim = is_jit(channel.user_channel_id) && owed.iter().any(owes);
            let update = ChannelConfigUpdate {
                accept_underpaying_htlcs: Some(may_skim),
                ..Default::default()
            };
            // Fails only for a channel that has gone.
            let id = [channel.channel_id];
            let _ = self.node.channel_manager.update_partial_channel_config(&peer, &id, &update);
        }
    }

    fn note_lease(&self, state: &str, id: &LeaseId, detail: serde_json::Value) {
        self.node.pen.write(What::Lease {
            state: state.to_owned(),
            intercept_scid: Some(scid(id.intercept_scid)),
            detail,
        });
    }

    /// Whether this is a channel that waits for a test.
    fn holds_channel(&self, event: &Event) -> bool {
        let Event::OpenChannelRequest {
            temporary_channel_id: id, counterparty_node_id: peer, ..
        } = event
        else {
            return false;
        };
        let mut held = self.held_channels.lock().unwrap();
        held.as_mut().map(|held| held.push((*id, *peer))).is_some()
    }

    /// Accepts the JIT channel: from an LSP with an active lease, and from nobody else.
    fn on_open_channel_request(&self, channel_id: ChannelId, peer: PublicKey, offered: Offered) {
        if let Err(reason) = self.is_expected(&offered, &peer) {
            return self.node.refuse_channel(channel_id, &peer, reason.to_owned());
        }
        let user_channel_id = jit_user_channel_id(self.node.random_channel_id() as u64);
        let accepted = self.node.channel_manager.accept_inbound_channel_from_trusted_peer(
            &channel_id,
            &peer,
            user_channel_id,
            // The HTLC cannot wait for confirmations. The LSP could double-spend the funding.
            TrustedChannelFeatures::ZeroConf,
            Some(take_less_than_the_onion_says()),
        );
        match accepted {
            Ok(()) => self.node.note_channel("requested", channel_id, &peer, None),
            Err(e) => self.node.note_channel("refused", channel_id, &peer, Some(format!("{e:?}"))),
        }
    }

    /// One channel for each lease, and none that is much larger than a payment under it: until it
    /// confirms, everything in it is the LSP's word.
    fn is_expected(&self, offered: &Offered, peer: &PublicKey) -> Result<(), &'static str> {
        const OVERSIZE: u64 = 10;
        // With the guard's grace: an HTLC that came in time may open its channel a little late.
        let leases = self.node.leases.active(self.claim_policy.expiry_cutoff(self.node.now()));
        let from_peer = || leases.iter().filter(|lease| lease.id.lsp_node_id == *peer);
        let largest = from_peer().map(|lease| lease.opening_fee_params.max_payment_size_msat).max();
        let Some(largest_msat) = largest else {
            return Err("no lease bought from this peer is outstanding");
        };
        if offered.is_announced {
            return Err("a channel for a lease is not announced");
        }
        if offered.funding_sat > (largest_msat / 1_000).saturating_mul(OVERSIZE) {
            return Err("the channel is far larger than any payment under the lease");
        }
        let channels = self.node.channel_manager.list_channels_with_counterparty(peer);
        if channels.iter().filter(|c| self.is_unpaid_jit(c)).count() >= from_peer().count() {
            return Err("every lease bought from this peer has its channel already");
        }
        Ok(())
    }

    fn is_unpaid_jit(&self, channel: &ChannelDetails) -> bool {
        let unpaid = self.node.leases.paid_over(&channel.channel_id).is_none();
        is_jit(channel.user_channel_id) && unpaid
    }

    /// The guard. Nothing is claimed that skims more than was agreed, or skims twice.
    async fn on_claimable(&self, payment: Claimable) -> Result<(), ReplayEvent> {
        if let Some(held) = &mut *self.held_claims.lock().unwrap() {
            held.push(payment);
            return Ok(());
        }
        let peers = self.peers_of(&payment.channels);
        let bolt11 = lease_metadata(&payment.purpose, payment.onion_fields.as_ref());
        let metadata = Arrival::metadata_of(&payment.purpose).or(bolt11.as_ref());
        let named = LeaseMetadata::read_from(metadata).ok().flatten();
        let named = named.map(|metadata| metadata.lease_id());
        let (channel_id, channel_use) = self.channel_for_fee(&payment, named);
        let arrival = Arrival {
            payment_hash: payment.payment_hash,
            amount_msat: payment.amount_msat,
            skimmed_fee_msat: payment.skimmed_fee_msat,
            metadata,
            channel_peers: &peers,
            channel_id,
            channel_use,
            total_msat: payment.onion_fields.as_ref().map(|fields| fields.total_mpp_amount_msat),
            unfunded: self.are_unfunded(&payment.channels)
                || channel_use == ChannelUse::Jit && !self.is_funded(&channel_id),
        };
        if payment.has_unknown_even_tlv() {
            // LDK would fail the HTLC in `claim_funds`, after the lease is spent.
            self.fail_back(&payment, "the payer demands something this wallet lacks".to_owned());
            return Ok(());
        }
        let leases = &self.node.leases;
        if let Some(why) = self.doubt(&payment) {
            self.fail_back(&payment, why);
            return Ok(());
        }
        match judge(&arrival, |id| leases.get(id), &self.claim_policy, self.node.now()) {
            Ok(verdict) if self.must_wait(&payment, &verdict, named) => {
                self.fundings.keep(&self.node.store, payment)?;
            }
            Ok(Verdict::Claim) => self.claim(&payment),
            Ok(Verdict::ConsumeThenClaim { lease, consumption }) => {
                self.consume_then_claim(&payment, lease, consumption).await?;
            }
            Err(refusal) => self.refuse(&payment, &refusal),
        }
        Ok(())
    }

    /// Consumed is on disk before the preimage leaves: a crash in between claims again, a replay
    /// by the LSP does not.
    async fn consume_then_claim(
        &self,
        payment: &Claimable,
        lease: LeaseId,
        consumption: Consumption,
    ) -> Result<(), ReplayEvent> {
        self.node.point(points::BEFORE_CONSUMED);
        match self.node.leases.consume(&lease, consumption).await {
            Ok(()) => {
                self.node.point(points::AFTER_CONSUMED);
                let detail = json!({ "skimmed_fee_msat": payment.skimmed_fee_msat });
                self.note_lease("consumed", &lease, detail);
                self.note_fundings();
                self.claim(payment);
                Ok(())
            }
            Err(error) => self.not_consumed(payment, error),
        }
    }

    fn not_consumed(&self, payment: &Claimable, error: LeaseStoreError) -> Result<(), ReplayEvent> {
        match error {
            // This may pass; LDK shows the event again.
            LeaseStoreError::Storage { .. } | LeaseStoreError::Busy(_) => Err(ReplayEvent()),
            LeaseStoreError::Unknown(_)
            | LeaseStoreError::Duplicate(_)
            | LeaseStoreError::Unreadable(_)
            | LeaseStoreError::AlreadyConsumed { .. }
            | LeaseStoreError::Expired(_) => {
                self.fail_back(payment, error.to_string());
                Ok(())
            }
        }
    }

    /// The channel that a fee pays for. Mostly that over which it came; but LDK forwards over whichever
    /// channel will do: the payment, or a part of it, may come over an older one that has room. Then the fee
    /// is for the new channel, if there is one that has room for the whole payment.
    fn channel_for_fee(
        &self,
        payment: &Claimable,
        named: Option<LeaseId>,
    ) -> (ChannelId, ChannelUse) {
        let first = payment.channels.first().map_or(ChannelId([0; 32]), |(id, _)| *id);
        let use_of_first = self.use_of(&payment.channels);
        let record = named.and_then(|named| self.node.leases.get(&named));
        let Some(record) = record.filter(|_| payment.skimmed_fee_msat > 0) else {
            return (first, use_of_first);
        };
        if let LeaseState::Consumed(by) = &record.state {
            // LDK shows the payment again, or another one comes, which is refused as such.
            return (by.channel_id, ChannelUse::Paid(record.lease.id));
        }
        let lsp = &record.lease.id.lsp_node_id;
        let mut unpaid = self.node.channel_manager.list_channels_with_counterparty(lsp);
        unpaid.retain(|channel| self.is_unpaid_jit(channel));
        let came = |channel: &&ChannelDetails| {
            payment.channels.iter().any(|(id, _)| *id == channel.channel_id)
        };
        let fits = |channel: &&ChannelDetails| {
            let value_msat = channel.channel_value_satoshis.saturating_mul(1_000);
            channel.is_channel_ready && value_msat >= payment.amount_msat
        };
        let elsewhere = |channel: &ChannelDetails| {
            payment.channels.iter().any(|(id, _)| *id != channel.channel_id)
        };
        match &unpaid.iter().filter(came).collect::<Vec<_>>()[..] {
            [] => {
                let new = unpaid.iter().find(fits);
                new.map_or((first, use_of_first), |new| (new.channel_id, ChannelUse::Jit))
            }
            [one] if fits(one) || !elsewhere(one) => (one.channel_id, ChannelUse::Jit),
            // A fee pays for one, and for all of the payment.
            _ => (first, ChannelUse::Other),
        }
    }

    /// What the wallet knows of the channels that a payment without a lease came over. Parts of a payment
    /// name one several times.
    fn use_of(&self, channels: &[(ChannelId, Option<u128>)]) -> ChannelUse {
        let Some((first, others)) = channels.split_first() else { return ChannelUse::Other };
        match first {
            (id, Some(user_channel_id))
                if is_jit(*user_channel_id) && others.iter().all(|other| other == first) =>
            {
                self.node.leases.paid_over(id).map_or(ChannelUse::Jit, ChannelUse::Paid)
            }
            _ => ChannelUse::Other,
        }
    }

    /// Whether the LSP of one of them may be withholding its funding until its fee is paid.
    fn are_unfunded(&self, channels: &[(ChannelId, Option<u128>)]) -> bool {
        channels.iter().any(|(id, user_channel_id)| {
            let is_paid = self.node.leases.settled_over(id);
            user_channel_id.is_some_and(is_jit) && !is_paid && !self.is_funded(id)
        })
    }

    fn is_funded(&self, id: &ChannelId) -> bool {
        let confirmed = |c: &ChannelDetails| c.confirmations.is_some_and(|blocks| blocks > 0);
        let known = self.node.channel_manager.list_channels();
        known.iter().any(|c| c.channel_id == *id && confirmed(c))
    }

    fn claim(&self, payment: &Claimable) {
        match payment.preimage() {
            Some(preimage) => {
                self.fundings.note_claim(payment.payment_hash);
                self.node.channel_manager.claim_funds(preimage);
                self.node.point(points::AFTER_CLAIM_FUNDS);
            }
            None => self.fail_back(payment, "LDK does not know the preimage".to_owned()),
        }
    }

    fn refuse(&self, payment: &Claimable, refusal: &Refusal) {
        self.fail_back(payment, refusal.to_string());
    }

    fn fail_back(&self, payment: &Claimable, reason: String) {
        let (hash, msat) = (payment.payment_hash, payment.amount_msat);
        self.node.channel_manager.fail_htlc_backwards(&hash);
        self.fundings.forget(&self.node.store, &hash);
        let skim = payment.skimmed_fee_msat;
        self.node.note_htlc(HtlcState::Refused, Some(hash), msat, skim, Some(reason));
    }

    /// The counterparty of each channel; none at all if one of them is not known.
    fn peers_of(&self, channels: &[(ChannelId, Option<u128>)]) -> Vec<PublicKey> {
        let known = self.node.channel_manager.list_channels();
        let peer_of =
            |id| known.iter().find(|c| c.channel_id == id).map(|c| c.counterparty.node_id);
        channels.iter().map(|(id, _)| peer_of(*id)).collect::<Option<_>>().unwrap_or_default()
    }
}

/// What an LSP offers in `Event::OpenChannelRequest`.
struct Offered {
    funding_sat: u64,
    is_announced: bool,
}

/// What `Event::PaymentClaimable` says.
#[derive(Clone)]
struct Claimable {
    payment_hash: PaymentHash,
    amount_msat: u64,
    skimmed_fee_msat: u64,
    purpose: PaymentPurpose,
    channels: Vec<(ChannelId, Option<u128>)>,
    onion_fields: Option<RecipientOnionFields>,
    claim_deadline: Option<u32>,
}

impl Claimable {
    /// As LDK can write it. What the guard does not need is left out.
    fn to_event(&self) -> Event {
        Event::PaymentClaimable {
            receiver_node_id: None,
            payment_hash: self.payment_hash,
            onion_fields: self.onion_fields.clone(),
            amount_msat: self.amount_msat,
            counterparty_skimmed_fee_msat: self.skimmed_fee_msat,
            purpose: self.purpose.clone(),
            receiving_channel_ids: self.channels.clone(),
            claim_deadline: self.claim_deadline,
            payment_id: None,
        }
    }

    fn from_event(event: Event) -> Option<Self> {
        let Event::PaymentClaimable {
            payment_hash,
            amount_msat,
            counterparty_skimmed_fee_msat: skimmed_fee_msat,
            purpose,
            receiving_channel_ids: channels,
            onion_fields,
            claim_deadline,
            ..
        } = event
        else {
            return None;
        };
        Some(Self {
            payment_hash,
            amount_msat,
            skimmed_fee_msat,
            purpose,
            channels,
            onion_fields,
            claim_deadline,
        })
    }

    fn preimage(&self) -> Option<PaymentPreimage> {
        self.purpose.preimage()
    }

    fn has_unknown_even_tlv(&self) -> bool {
        self.onion_fields.as_ref().is_some_and(|fields| {
            fields.custom_tlvs().iter().any(|(tlv_type, _)| tlv_type % 2 == 0)
        })
    }
}

/// Whether the opening fee of a lease may still arrive.
fn owes(record: &LeaseRecord) -> bool {
    match &record.state {
        LeaseState::Active => true,
        LeaseState::Consumed(consumption) => !consumption.settled,
        LeaseState::Expired => false,
    }
}

/// For a channel that is being accepted: see `set_skimming`.
pub fn take_less_than_the_onion_says() -> ChannelConfigOverrides {
    ChannelConfigOverrides {
        handshake_overrides: None,
        update_overrides: Some(ChannelConfigUpdate {
            accept_underpaying_htlcs: Some(true),
            ..Default::default()
        }),
    }
}

impl Role for RecipientRole {
    async fn on_event(&self, event: Event) -> Result<(), ReplayEvent> {
        let waits = self.holds_channel(&event);
        self.node.note(&event);
        if waits {
            return Ok(());
        }
        match event {
            // ANCHOR: recipient-open-arm
            // Accept it as a trusted, zero-conf channel if a lease bought from this peer is
            // outstanding; refuse everything else with `force_close_broadcasting_latest_txn`.
            Event::OpenChannelRequest {
                temporary_channel_id,
                counterparty_node_id,
                funding_satoshis: funding_sat,
                is_announced,
                ..
            } => {
                let offered = Offered { funding_sat, is_announced };
                self.on_open_channel_request(temporary_channel_id, counterparty_node_id, offered);
                Ok(())
            }
            // ANCHOR_END: recipient-open-arm
            // ANCHOR: recipient-claimable-arm
            // Judge the skimmed fee against the lease. Mark the lease consumed on disk, then call
            // `claim_funds`; or call `fail_htlc_backwards`.
            Event::PaymentClaimable {
                payment_hash,
                amount_msat,
                counterparty_skimmed_fee_msat: skimmed_fee_msat,
                purpose,
                receiving_channel_ids,
                onion_fields,
                claim_deadline,
                ..
            } => {
                let hash = Some(payment_hash);
                self.node.note_htlc(
                    HtlcState::Claimable,
                    hash,
                    amount_msat,
                    skimmed_fee_msat,
                    None,
                );
                self.on_claimable(Claimable {
                    payment_hash,
                    amount_msat,
                    skimmed_fee_msat,
                    purpose,
                    channels: receiving_channel_ids,
                    onion_fields,
                    claim_deadline,
                })
                .await
            }
            // ANCHOR_END: recipient-claimable-arm
            // ANCHOR: recipient-claimed-arm
            // Mark the lease settled with `settle`, and switch skimming off where no fee is owed any
            // more.
            Event::PaymentClaimed { payment_hash, amount_msat, htlcs, .. } => {
                // From here on nothing may be skimmed in this payment's name any more.
                self.node.leases.settle(&payment_hash).await.map_err(|_| ReplayEvent())?;
                self.fundings.forget(&self.node.store, &payment_hash);
                self.set_skimming();
                // What the peer has written: the sum may be beyond any amount.
                let skims = htlcs.iter().map(|h| h.counterparty_skimmed_fee_msat);
                let skimmed = skims.fold(0, u64::saturating_add);
                let hash = Some(payment_hash);
                self.node.note_htlc(HtlcState::Claimed, hash, amount_msat, skimmed, None);
                Ok(())
            }
            // ANCHOR_END: recipient-claimed-arm
            Event::FundingGenerationReady { .. }
            | Event::FundingTxBroadcastSafe { .. }
            | Event::ConnectionNeeded { .. }
            | Event::InvoiceReceived { .. }
            | Event::PaymentSent { .. }
            | Event::PaymentFailed { .. }
            | Event::PaymentPathSuccessful { .. }
            | Event::PaymentPathFailed { .. }
            | Event::ProbeSuccessful { .. }
            | Event::ProbeFailed { .. }
            | Event::HTLCIntercepted { .. }
            | Event::SpendableOutputs { .. }
            | Event::PaymentForwarded { .. }
            | Event::ChannelPending { .. }
            | Event::ChannelReady { .. }
            | Event::ChannelClosed { .. }
            | Event::SpliceNegotiated { .. }
            | Event::SpliceNegotiationFailed { .. }
            | Event::DiscardFunding { .. }
            | Event::HTLCHandlingFailed { .. }
            | Event::BumpTransaction(_)
            | Event::OnionMessageIntercepted { .. }
            | Event::OnionMessagePeerConnected { .. }
            | Event::PersistStaticInvoice { .. }
            | Event::StaticInvoiceRequested { .. }
            | Event::FundingTransactionReadyForSigning { .. } => {
                self.node.on_common_event(event).await
            }
        }
    }

    async fn on_liquidity_event(&self, event: LiquidityEvent) {
        match event {
            // Give it to the negotiation that waits for it.
            LiquidityEvent::LSPS2Client(event) => {
                self.node.note_bought(&event);
                self.on_lsps2_event(event).await;
            }
            // Protocols this wallet does not speak, and the other side of LSPS2.
            LiquidityEvent::LSPS0Client(_)
            | LiquidityEvent::LSPS1Client(_)
            | LiquidityEvent::LSPS1Service(_)
            | LiquidityEvent::LSPS2Service(_)
            | LiquidityEvent::LSPS5Client(_)
            | LiquidityEvent::LSPS5Service(_) => {}
        }
    }

    async fn on_tick(&self) {
        self.look_at_fundings().await;
        let now = self.node.now();
        {
            let mut negotiations = self.negotiations.lock().unwrap();
            let mut waiting = Vec::new();
            for mut purchase in negotiations.drain(..) {
                match purchase.negotiation.check_timeout(now) {
                    Some(error) => drop(purchase.buyer.send(Err(error.into()))),
                    None => waiting.push(purchase),
                }
            }
            *negotiations = waiting;
        }
        let cutoff = self.claim_policy.expiry_cutoff(now);
        for id in self.node.leases.expire(cutoff).await.unwrap_or_default() {
            self.note_lease("expired", &id, json!({}));
            self.set_skimming();
        }
    }
}
