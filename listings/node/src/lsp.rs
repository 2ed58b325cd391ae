//! The recipient's LSP: sells leases, serves static invoices, keeps mail, and opens JIT channels.

mod coins;
mod fundings;
mod stake;
mod visitors;

use anyhow::{Context, Result, anyhow};
use bitcoin::Amount;
use bitcoin::secp256k1::PublicKey;
use lightning::blinded_path::message::BlindedMessagePath;
use lightning::events::{Event, FundingInfo, HTLCHandlingFailureType, ReplayEvent};
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::types::ChannelId;
use lightning::offers::static_invoice::StaticInvoice;
use lightning::onion_message::messenger::Responder;
use lightning::types::payment::PaymentHash;
use lightning::util::config::{HTLCInterceptionFlags, UserConfig};
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps2::event::LSPS2ServiceEvent;
use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::held::InterceptedHtlc;
use lsps2_async::lsp::intercept::{
    ChannelOutcome, DeskSettings, FeeOutcome, Intercepted, JitDesk, OpenDecision, Swept,
};
use lsps2_async::lsp::jit_table::{JitRecord, JitState, JitTable, JitTableError};
use lsps2_async::lsp::mailbox::{Mailbox, MailboxLimits, Posted};
use lsps2_async::lsp::open_plan::OpenPlan;
use lsps2_async::lsp::sale::{
    BuyRequest, ChannelNames, FeeOption, FeePolicy, answer_buy, answer_get_info,
    random_user_channel_id,
};
use lsps2_async::lsp::static_invoices::{ServerLimits, StaticInvoices};
use lsps2_async::router::PathPolicy;
use serde_json::json;
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};

use crate::assemble::read_or_make_secret;
use crate::events::scid;
use crate::faults::points;
use crate::node::{Node, NodeConfig, Role, Setup};
use crate::transcript::{HtlcState, What};
use crate::types::{ChannelManager, Lsps2Service, Store};
use fundings::unpaid_and_withheld;
use visitors::{MOST_STRANGERS, Visitors, keeps_a_place};

/// How the LSP sells and what it bounds.
#[derive(Clone, Debug)]
pub struct LspPolicy {
    /// The terms of its one menu entry.
    pub fees: FeeOption,
    /// The CLTV delta, in blocks, it asks for on its hop.
    pub cltv_expiry_delta: u16,
    /// Who trusts.
    pub trust_model: TrustModel,
    /// Time limits and channel sizes.
    pub desk: DeskSettings,
    /// Bounds of the static invoice server.
    pub server: ServerLimits,
    /// Bounds of the mailbox.
    pub mailbox: MailboxLimits,
    /// Whether it keeps to what it sold.
    pub conduct: Conduct,
    /// How many peers may stay that have neither a lease nor a channel.
    pub most_strangers: usize,
}

/// What a recipient must be able to withstand. LDK's LSPS2 service is always honest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// Skims the opening fee, once.
    Honest,
    /// Skims this much more, in msat.
    SkimsMore(u64),
    /// Skims the opening fee again from later payments.
    SkimsAgain,
    /// Skims this much, in msat, from payments over the channel itself, which name no lease. LDK must
    /// intercept them: `HTLCInterceptionFlags::ToOnlinePrivateChannels`.
    SkimsWithoutLease(u64),
    /// Takes the fee of a new lease over a channel that the client has already, and opens none.
    OpensNothing,
}

impl LspPolicy {
    /// 1 %, at least 2 000 sat, for payments from 10 000 to 2 000 000 sat, valid for four weeks.
    pub fn new(trust_model: TrustModel) -> Self {
        Self {
            fees: FeeOption {
                min_fee_msat: 2_000_000,
                proportional: 10_000,
                validity: Duration::from_secs(28 * 24 * 60 * 60),
                min_lifetime: 6 * 24 * 30,
                max_client_to_self_delay: 2016,
                min_payment_size_msat: 10_000_000,
                max_payment_size_msat: 2_000_000_000,
            },
            cltv_expiry_delta: 72,
            trust_model,
            desk: DeskSettings::default(),
            server: ServerLimits::default(),
            mailbox: MailboxLimits::default(),
            conduct: Conduct::Honest,
            most_strangers: MOST_STRANGERS,
        }
    }

    /// The smallest and the largest payment that can open a channel, in msat.
    pub fn payable_msat(&self) -> (u64, u64) {
        let terms = self.fees.terms(Duration::ZERO);
        let largest = terms.max_payment_size_msat;
        (terms.smallest_payment_msat().unwrap_or(largest), largest)
    }
}

/// A running LSP.
pub struct Lsp {
    node: Arc<Node>,
    role: Arc<LspRole>,
}

type Desk = JitDesk<Arc<ChannelManager>, Store>;

struct LspRole {
    node: Arc<Node>,
    fees: FeePolicy,
    conduct: Conduct,
    table: Arc<JitTable<Store>>,
    desk: Mutex<Desk>,
    invoices: StaticInvoices<Store>,
    mailbox: Mutex<Mailbox<Store>>,
    opens_held: AtomicBool,
    forwards_held: AtomicBool,
    events_held: watch::Sender<bool>,
    visitors: std::sync::Mutex<Visitors>,
    most_strangers: usize,
}

impl std::ops::Deref for Lsp {
    type Target = Node;
    fn deref(&self) -> &Node {
        &self.node
    }
}

impl Lsp {
    /// Starts the LSP of a folder, or makes a new one there.
    pub async fn start(config: NodeConfig, policy: LspPolicy) -> Result<Self> {
        std::fs::create_dir_all(&config.data_dir)?;
        // Constant for the life of the LSP: under another secret, what was sold is void.
        let promise_secret = read_or_make_secret(&config.data_dir, "promise_secret")?;
        let setup = Setup {
            user_config: user_config(),
            mailbox: true,
            promise_secret: Some(promise_secret),
            paths: PathPolicy::default(),
        };
        let node = Node::build(config, setup).await?;
        // ANCHOR: lsp-loads
        let store = node.store.clone();
        let table = Arc::new(JitTable::load(store.clone()).await?);
        let delta = policy.cltv_expiry_delta;
        let role = Arc::new(LspRole {
            fees: FeePolicy::new(vec![policy.fees], None, delta, policy.trust_model)?,
            conduct: policy.conduct,
            desk: Mutex::new(Desk::new(node.channel_manager.clone(), table.clone(), policy.desk)),
            table,
            invoices: StaticInvoices::load(store.clone(), policy.server).await?,
            mailbox: Mutex::new(Mailbox::load(store, policy.mailbox).await?),
            opens_held: AtomicBool::new(false),
            forwards_held: AtomicBool::new(false),
            events_held: watch::Sender::new(false),
            visitors: Default::default(),
            most_strangers: policy.most_strangers,
            node: node.clone(),
        });
        role.report_unreadable().await;
        role.keep_broadcasting();
        role.release_forgotten_coins().await;
        role.resume().await?;
        // ANCHOR_END: lsp-loads
        node.run(role.clone());
        Ok(Self { node, role })
    }

    /// The paths by which a recipient asks this server for offer paths. Hand them to the recipient
    /// over a channel you trust: they make whoever holds them that recipient.
    pub async fn paths_for(&self, recipient_id: &[u8]) -> Result<Vec<BlindedMessagePath>> {
        self.role.invoices.register_recipient(recipient_id).await?;
        self.node
            .channel_manager
            .blinded_paths_for_async_recipient(recipient_id.to_vec(), None)
            .map_err(|()| anyhow!("this node is not announced yet: open an announced channel"))
    }

    /// Everything that was sold, and what became of it.
    pub fn sold(&self) -> Vec<JitRecord> {
        self.role.table.all()
    }

    /// The static invoice in a recipient's slot.
    pub async fn static_invoice(&self, recipient_id: &[u8], slot: u16) -> Result<StaticInvoice> {
        let found = self.role.invoices.get(recipient_id, slot, self.node.now()).await?;
        Ok(found.context("no invoice in that slot")?.0)
    }

    /// From now on, no channel is opened until the LSP restarts. For tests of that restart.
    pub fn hold_opens(&self) {
        self.role.opens_held.store(true, Ordering::Release);
    }

    /// Whether a JIT channel that is ready waits, as if its client had just gone. For tests of what
    /// may happen between the opening and the forward.
    pub fn hold_forwards(&self, hold: bool) {
        self.role.forwards_held.store(hold, Ordering::Release);
    }

    /// Whether LDK's events wait, as at an LSP whose disk is slow; messages do not. For tests of what
    /// may happen before an event is handled.
    pub fn hold_events(&self, hold: bool) {
        self.role.events_held.send_replace(hold);
    }
}

/// LDK's flags for the recipient's LSP.
pub fn user_config() -> UserConfig {
    let mut config = UserConfig {
        htlc_interception_flags: HTLCInterceptionFlags::ToInterceptSCIDs as u8,
        // For payments after the first: they go over the real channel, which is not announced.
        accept_forwards_to_priv_channels: true,
        ..Default::default()
    };
    config.channel_handshake_config.announce_for_forwarding = true;
    config
}

impl LspRole {
    fn lsps2(&self) -> &Lsps2Service {
        self.node.liquidity.lsps2_service_handler().expect("an LSP sells")
    }

    fn is_connected(&self) -> impl Fn(&PublicKey) -> bool + '_ {
        |peer| self.node.is_connected(peer)
    }

    async fn report_unreadable(&self) {
        for entry in self.table.unreadable() {
            self.note_lease("unreadable", None, json!({ "key": entry.key }));
        }
        for key in self.mailbox.lock().await.unreadable() {
            self.node.pen.write(What::Mailbox {
                state: "unreadable".to_owned(),
                peer: key.clone(),
                messages: 1,
                reason: None,
            });
        }
    }

    async fn resume(&self) -> Result<()> {
        let now = self.node.now();
        let resumed = self.desk.lock().await.resume(self.lsps2(), now).await;
        for (id, outcome) in resumed.context("reading what was sold")? {
            self.note_outcome(id, &outcome);
        }
        Ok(())
    }

    // Step 5: an HTLC arrives for an intercept SCID.

    async fn on_intercepted(&self, htlc: InterceptedHtlc) -> Result<(), ReplayEvent> {
        self.node.point(points::HTLC_INTERCEPTED);
        let (hash, msat) = (Some(htlc.payment_hash), htlc.expected_outbound_amount_msat);
        if self.skims_again(&htlc) || self.skims_elsewhere(&htlc) || self.opens_nothing(&htlc) {
            return Ok(());
        }
        let now = self.node.now();
        let mut desk = self.desk.lock().await;
        let done = desk.htlc_intercepted(self.lsps2(), htlc, self.is_connected(), now).await;
        let done = done.map_err(replay)?;
        self.node.note_htlc(HtlcState::Intercepted, hash, msat, 0, None);
        self.note_intercepted(hash, msat, &done);
        Ok(())
    }

    fn note_intercepted(&self, hash: Option<PaymentHash>, msat: u64, done: &Intercepted) {
        match done {
            Intercepted::Refused(why) => {
                self.node.note_htlc(HtlcState::Failed, hash, msat, 0, Some(why.to_string()));
            }
            Intercepted::ForwardedForFee { .. } | Intercepted::ForwardedInFull { .. } => {
                self.forward_now();
            }
            Intercepted::Held(_)
            | Intercepted::OpeningChannel { .. }
            | Intercepted::HandedOverAgain
            | Intercepted::OnItsWay => {}
        }
    }

    /// LDK waits some 50 ms before it forwards, to batch HTLCs and to blur their timing. A JIT
    /// payment has waited once already, to be intercepted; this skips the second wait. The price:
    /// somebody who watches the LSP's connections may tell which HTLC came out of which.
    ///
    /// Called while the desk is locked: the desk sees an HTLC on its way only once LDK has put it into
    /// the channel.
    fn forward_now(&self) {
        self.node.channel_manager.process_pending_htlc_forwards();
        self.node.peer_manager.process_events();
    }

    async fn on_open_channel(&self, user_channel_id: u128) {
        if self.opens_held.load(Ordering::Acquire) {
            return;
        }
        let now = self.node.now();
        let mut desk = self.desk.lock().await;
        let connected = self.is_connected();
        let decision = desk.open_channel(self.lsps2(), user_channel_id, connected, now).await;
        drop(desk);
        match decision {
            Ok(OpenDecision::Open(plan)) => self.open(plan).await,
            // The tick asks again.
            Ok(OpenDecision::WaitForClient | OpenDecision::WaitForAnother) => {}
            Ok(OpenDecision::AlreadyOpen | OpenDecision::Stale) => {}
            // The record stands at "opening": the sweep, or a restart, takes it from there.
            Err(error) => self.note_trouble(&error),
        }
    }

    async fn open(&self, plan: OpenPlan) {
        self.node.point(points::BEFORE_OPEN);
        let created = plan.create(&*self.node.channel_manager, &self.node.user_config);
        self.node.point(points::AFTER_CREATE_CHANNEL);
        match created {
            Ok(id) => self.node.note_channel("opening", id, &plan.counterparty, None),
            Err(error) => {
                let reason = format!("{error:?}");
                self.give_up_open(plan.user_channel_id, plan.counterparty, reason).await;
            }
        }
        self.node.peer_manager.process_events();
    }

    async fn give_up_open(&self, user_channel_id: u128, peer: PublicKey, reason: String) {
        let id = ChannelId([0; 32]);
        self.node.note_channel("open_failed", id, &peer, Some(reason));
        let now = self.node.now();
        let mut desk = self.desk.lock().await;
        if let Err(error) = desk.open_failed(self.lsps2(), user_channel_id, now).await {
            self.note_trouble(&error);
        }
    }

    async fn on_funding_generation_ready(
        &self,
        channel_id: ChannelId,
        peer: PublicKey,
        user_channel_id: u128,
        value: Amount,
        script: bitcoin::ScriptBuf,
    ) {
        self.release_earlier(user_channel_id);
        let funded = match self.node.wallet.pay(&script, value) {
            Ok(tx) => {
                self.node.point(points::BEFORE_FUNDING);
                let mut desk = self.desk.lock().await;
                let funded =
                    desk.fund(self.lsps2(), user_channel_id, channel_id, peer, tx.clone()).await;
                funded.map(drop).map_err(|error| {
                    self.node.wallet.release(&tx);
                    error.to_string()
                })
            }
            Err(error) => Err(format!("{error:#}")),
        };
        self.node.point(points::AFTER_FUNDING);
        if let Err(reason) = funded {
            self.give_up_open(user_channel_id, peer, reason.clone()).await;
            self.node.refuse_channel(channel_id, &peer, reason);
        }
        self.node.peer_manager.process_events();
    }

    async fn on_channel_ready(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
        peer: PublicKey,
    ) -> Result<(), ReplayEvent> {
        self.node.note_channel("ready", channel_id, &peer, None);
        if !self.usable_channels().contains(&(user_channel_id, channel_id, peer)) {
            // The client has just gone away; the tick goes on when it is back.
            return Ok(());
        }
        self.forward_over(user_channel_id, channel_id, peer).await
    }

    /// Each channel that can carry an HTLC now, with its peer.
    fn usable_channels(&self) -> Vec<(u128, ChannelId, PublicKey)> {
        if self.forwards_held.load(Ordering::Acquire) {
            return Vec::new();
        }
        let usable = self.node.channel_manager.list_usable_channels();
        let names = |c: &ChannelDetails| (c.user_channel_id, c.channel_id, c.counterparty.node_id);
        usable.iter().map(names).collect()
    }

    /// Channels that became ready while their client was away, or before this LSP restarted.
    async fn forward_over_waiting(&self) {
        // Also where the record says "open" and a crash kept LSPS2 from hearing of it. If it has heard,
        // it says so, and nothing happens.
        let is_opening = |record: &JitRecord| match &record.state {
            JitState::Opening(_) => true,
            JitState::Open(open) => !open.fee_paid,
            JitState::Sold | JitState::Retired(_) => false,
        };
        let opening: Vec<_> = self.table.all().into_iter().filter(is_opening).collect();
        if opening.is_empty() {
            return;
        }
        for (id, channel_id, peer) in self.usable_channels() {
            if opening.iter().any(|record| record.user_channel_id == id) {
                // A table that cannot be written is tried again at the next tick.
                let _ = self.forward_over(id, channel_id, peer).await;
            }
        }
    }

    async fn forward_over(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
        peer: PublicKey,
    ) -> Result<(), ReplayEvent> {
        if self.skims_more(user_channel_id, channel_id, peer).await {
            return Ok(());
        }
        if !self.funding_stands(user_channel_id, channel_id, &peer).await {
            return Ok(());
        }
        let now = self.node.now();
        let mut desk = self.desk.lock().await;
        self.node.point(points::BEFORE_FORWARD);
        let outcome =
            desk.channel_ready(self.lsps2(), user_channel_id, channel_id, &peer, now).await;
        let outcome = outcome.map_err(replay)?;
        if let ChannelOutcome::Open(_) = &outcome {
            self.forward_now();
            self.node.point(points::AFTER_FORWARD);
        }
        if let Some(record) = self.table.by_user_channel_id(user_channel_id) {
            self.note_outcome(record.scid, &outcome);
        }
        Ok(())
    }

    async fn on_channel_closed(
        &self,
        user_channel_id: u128,
        channel_id: ChannelId,
    ) -> Result<(), ReplayEvent> {
        let now = self.node.now();
        let mut desk = self.desk.lock().await;
        let record = self.table.by_user_channel_id(user_channel_id);
        // First, while the record still says whether the client may be owed the funding: after a crash
        // in between, the event comes again.
        if let Some(record) = &record {
            self.settle_closed(&mut desk, record, channel_id).await;
        }
        let outcome = desk.channel_closed(self.lsps2(), user_channel_id, channel_id, now).await;
        let outcome = outcome.map_err(replay)?;
        if let Some(record) = record {
            self.note_outcome(record.scid, &outcome);
        }
        Ok(())
    }

    /// A funding transaction that was withheld and is not wanted any more gives its coins back.
    fn release_withheld(&self, record: &JitRecord) {
        let fee_paid = record.open().is_some_and(|open| open.fee_paid);
        if let Some(funding) = record.funding.as_ref().filter(|_| !fee_paid) {
            self.node.wallet.release(&funding.transaction);
        }
    }

    /// A channel whose funding is withheld, and which nobody paid for because the payment that opened
    /// it failed, does not keep the LSP's coins for ever, nor the client's next channel from being
    /// opened. One that is funded stays, and so does one over which something is on its way, or in
    /// which the client has something.
    fn close_unpaid(&self) {
        const GRACE: Duration = Duration::from_secs(60 * 60);
        for record in self.table.all() {
            let reason = if record.opening_fee_params.valid_until + GRACE <= self.node.now() {
                "the lease ran out and nobody paid for the channel"
            } else if self.another_waits(&record) {
                "nobody paid for the channel, and a payment under another lease needs one"
            } else {
                continue;
            };
            let Some(open) = unpaid_and_withheld(&record) else { continue };
            let client = &record.client_node_id;
            let channels = self.node.channel_manager.list_channels_with_counterparty(client);
            let idle = channels
                .iter()
                .any(|channel| channel.channel_id == open.channel_id && self.is_all_ours(channel));
            if idle {
                self.node.close_unopened(open.channel_id, client, reason.to_owned());
            }
        }
    }

    /// Whether a payment under another lease of this client waits for a channel. Two that nobody has paid
    /// for may not be open at once.
    fn another_waits(&self, record: &JitRecord) -> bool {
        let mut others = self.table.all();
        others.retain(|other| other.client_node_id == record.client_node_id);
        others.iter().any(|other| matches!(other.state, JitState::Opening(_)))
    }

    /// LDK has given up a channel whose funding this LSP keeps.
    fn on_discarded(&self, funding_info: &FundingInfo) {
        let FundingInfo::OutPoint { outpoint } = funding_info else { return };
        for record in self.table.all() {
            let funding = record.funding.as_ref().map(|f| f.transaction.compute_txid());
            if funding == Some(outpoint.txid) {
                self.release_withheld(&record);
            }
        }
    }

    fn on_fee_outcome(&self, outcome: FeeOutcome) {
        match outcome {
            FeeOutcome::PaidUnnoticed(Some(funding)) => self.node.broadcast_now(funding),
            FeeOutcome::Paid(released) | FeeOutcome::FeePaymentFailed(released) => {
                if !released.is_empty() {
                    self.forward_now();
                }
            }
            FeeOutcome::PaidUnnoticed(None) | FeeOutcome::NotJit | FeeOutcome::Owed { .. } => {}
        }
    }

    fn note_outcome(&self, intercept_scid: u64, outcome: &ChannelOutcome) {
        match outcome {
            ChannelOutcome::Retired(why) => {
                let detail = json!({ "why": format!("{why:?}") });
                self.note_lease("retired", Some(intercept_scid), detail);
            }
            ChannelOutcome::Reusable => {
                let detail = json!({ "why": "no channel was opened; its HTLCs were failed" });
                self.note_lease("reusable", Some(intercept_scid), detail);
            }
            ChannelOutcome::Open(_) | ChannelOutcome::NotJit | ChannelOutcome::NothingToDo => {}
        }
    }

    fn note_lease(&self, state: &str, intercept_scid: Option<u64>, detail: serde_json::Value) {
        let intercept_scid = intercept_scid.map(scid);
        self.node.pen.write(What::Lease { state: state.to_owned(), intercept_scid, detail });
    }

    fn note_trouble(&self, error: &dyn std::error::Error) {
        self.note_lease("trouble", None, json!({ "error": error.to_string() }));
    }

    // Dishonest conduct, for tests of the recipient.

    async fn skims_more(&self, user_channel_id: u128, id: ChannelId, peer: PublicKey) -> bool {
        let Conduct::SkimsMore(extra) = self.conduct else {
            return false;
        };
        let Some(record) = self.table.by_user_channel_id(user_channel_id) else {
            return false;
        };
        for held in self.desk.lock().await.held().of_scid(record.scid) {
            let gross = held.htlc.expected_outbound_amount_msat;
            let less = gross - record.opening_fee_msat(gross).unwrap_or(0) - extra;
            let intercept_id = held.htlc.intercept_id;
            let _ =
                self.node.channel_manager.forward_intercepted_htlc(intercept_id, &id, peer, less);
        }
        self.forward_now();
        true
    }

    fn skims_again(&self, htlc: &InterceptedHtlc) -> bool {
        if self.conduct != Conduct::SkimsAgain {
            return false;
        }
        let Some(record) = self.table.get(htlc.requested_next_hop_scid) else {
            return false;
        };
        let Some(open) = record.open().filter(|open| open.fee_paid) else {
            return false;
        };
        let gross = htlc.expected_outbound_amount_msat;
        let less = gross - record.opening_fee_msat(gross).unwrap_or(0);
        let (id, peer) = (&open.channel_id, record.client_node_id);
        let _ =
            self.node.channel_manager.forward_intercepted_htlc(htlc.intercept_id, id, peer, less);
        self.forward_now();
        true
    }

    fn skims_elsewhere(&self, htlc: &InterceptedHtlc) -> bool {
        let Conduct::SkimsWithoutLease(fee) = self.conduct else {
            return false;
        };
        let scid = Some(htlc.requested_next_hop_scid);
        let leads_there =
            |c: &&ChannelDetails| [c.short_channel_id, c.outbound_scid_alias].contains(&scid);
        let usable = self.node.channel_manager.list_usable_channels();
        let Some(channel) = usable.iter().find(leads_there) else {
            return false;
        };
        let (id, peer) = (&channel.channel_id, channel.counterparty.node_id);
        let less = htlc.expected_outbound_amount_msat - fee;
        let _ =
            self.node.channel_manager.forward_intercepted_htlc(htlc.intercept_id, id, peer, less);
        self.forward_now();
        true
    }

    fn opens_nothing(&self, htlc: &InterceptedHtlc) -> bool {
        if self.conduct != Conduct::OpensNothing {
            return false;
        }
        let record = self.table.get(htlc.requested_next_hop_scid);
        let Some(record) = record.filter(|record| matches!(record.state, JitState::Sold)) else {
            return false;
        };
        let usable = self.node.channel_manager.list_usable_channels();
        let client = record.client_node_id;
        let Some(channel) = usable.iter().find(|c| c.counterparty.node_id == client) else {
            return false;
        };
        let gross = htlc.expected_outbound_amount_msat;
        let less = gross - record.opening_fee_msat(gross).unwrap_or(0);
        let (id, htlc_id) = (&channel.channel_id, htlc.intercept_id);
        let _ = self.node.channel_manager.forward_intercepted_htlc(htlc_id, id, client, less);
        self.forward_now();
        true
    }

    // The static invoice server.

    async fn on_persist_static_invoice(&self, request: PersistRequest) {
        let PersistRequest { recipient_id, slot, invoice, path, persisted_path } = request;
        let now = self.node.now();
        match self.invoices.persist(&recipient_id, slot, &invoice, &path, now).await {
            Ok(()) => {
                self.node.channel_manager.static_invoice_persisted(persisted_path);
                let bytes = lightning::util::ser::Writeable::serialized_length(&invoice);
                self.note_offer("persisted", json!({ "slot": slot, "bytes": bytes }));
            }
            // Not confirmed, so the recipient sends it again.
            Err(error) => self.note_offer("refused", json!({ "error": error.to_string() })),
        }
    }

    async fn on_static_invoice_requested(
        &self,
        recipient_id: &[u8],
        slot: u16,
        reply_path: Responder,
        invoice_request: lightning::offers::invoice_request::InvoiceRequest,
    ) {
        let found = self.invoices.get(recipient_id, slot, self.node.now()).await;
        let served = match found {
            Ok(Some((invoice, path))) => self
                .node
                .channel_manager
                .respond_to_static_invoice_request(invoice, reply_path, invoice_request, path)
                .map_err(|e| format!("{e:?}")),
            Ok(None) => Err("no such invoice, or it has expired".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        match served {
            Ok(()) => self.note_offer("served", json!({ "slot": slot })),
            Err(error) => self.note_offer("refused", json!({ "error": error })),
        }
    }

    fn note_offer(&self, state: &str, detail: serde_json::Value) {
        self.node.pen.write(What::Offer { state: state.to_owned(), detail });
    }

    // The mailbox.

    async fn on_mail(
        &self,
        prev_hop: Option<PublicKey>,
        next_hop: lightning::blinded_path::message::NextMessageHop,
        message: lightning::ln::msgs::OnionMessage,
    ) -> Result<(), ReplayEvent> {
        let now = self.node.now();
        let is_client = |peer: &PublicKey| self.is_client(peer);
        let mut mailbox = self.mailbox.lock().await;
        let posted = mailbox.post(prev_hop, &next_hop, &message, is_client, now).await;
        drop(mailbox);
        let (state, reason) = match posted {
            Ok(Posted::Kept { .. } | Posted::Duplicate) => ("kept", None),
            Ok(Posted::Dropped(why)) => ("dropped", Some(why.to_string())),
            // Replaying would hold up every other event; the sender's message is lost instead.
            Err(error) => ("dropped", Some(error.to_string())),
        };
        let peer = match next_hop {
            lightning::blinded_path::message::NextMessageHop::NodeId(id) => self.node.name_of(&id),
            lightning::blinded_path::message::NextMessageHop::ShortChannelId(id) => scid(id),
        };
        self.note_mail(state, peer, 1, reason);
        Ok(())
    }

    async fn on_peer_connected(&self, peer: PublicKey) {
        let mail = self.mailbox.lock().await.take_for(&peer, self.node.now()).await;
        let mail = mail.unwrap_or_default();
        if mail.is_empty() {
            return;
        }
        let messages = mail.len();
        for message in mail {
            // The buffer may be full; what is left over is delivered at the next connect.
            let _ = self.node.onion_messenger.forward_onion_message(message, &peer);
        }
        self.node.peer_manager.process_events();
        self.note_mail("delivered", self.node.name_of(&peer), messages, None);
    }

    fn note_mail(&self, state: &str, peer: String, messages: usize, reason: Option<String>) {
        self.node.pen.write(What::Mailbox { state: state.to_owned(), peer, messages, reason });
    }

    /// Mail is kept for those who bought here, or have a channel.
    fn is_client(&self, peer: &PublicKey) -> bool {
        let bought = self.table.all().iter().any(|record| record.client_node_id == *peer);
        bought || !self.node.channel_manager.list_channels_with_counterparty(peer).is_empty()
    }

    fn make_room(&self) {
        let mut channels = self.node.channel_manager.list_channels();
        channels.retain(|c| keeps_a_place(c.is_outbound, c.confirmations));
        let mut clients: HashSet<_> = channels.iter().map(|c| c.counterparty.node_id).collect();
        clients.extend(self.table.all().iter().map(|record| record.client_node_id));
        let peers = self.node.peer_manager.list_peers();
        let peers: HashSet<_> = peers.iter().map(|peer| peer.counterparty_node_id).collect();
        let strangers = peers.difference(&clients).copied().collect();
        let mut visitors = self.visitors.lock().unwrap();
        for stranger in visitors.leaving(&strangers, self.most_strangers) {
            self.node.peer_manager.disconnect_by_node_id(stranger);
        }
    }

    // Step 1, the LSP's side.

    async fn on_lsps2_event(&self, event: LSPS2ServiceEvent) {
        match event {
            // Answer with the menu, `opening_fee_params_generated`, or with
            // `invalid_token_provided`.
            LSPS2ServiceEvent::GetInfo { request_id, counterparty_node_id: client, token } => {
                let (token, now) = (token.as_deref(), self.node.now());
                let answered =
                    answer_get_info(&self.fees, self.lsps2(), &client, request_id, token, now);
                if let Err(error) = answered {
                    self.note_trouble(&error);
                }
            }
            // Write down what is sold, then hand out the SCID and the delta with
            // `invoice_parameters_generated`.
            LSPS2ServiceEvent::BuyRequest {
                request_id,
                counterparty_node_id,
                opening_fee_params,
                payment_size_msat,
            } => {
                self.on_buy_request(BuyRequest {
                    request_id,
                    counterparty_node_id,
                    opening_fee_params,
                    payment_size_msat,
                })
                .await;
            }
            // Open the channel once, if the client is connected; call `channel_open_failed` if it cannot
            // be opened.
            LSPS2ServiceEvent::OpenChannel { user_channel_id, .. } => {
                self.on_open_channel(user_channel_id).await;
            }
        }
    }

    /// LDK does not know what was sold, and may give an SCID twice: on a short chain it has a few
    /// thousand. One that was taken in the meantime all the same, the table refuses.
    fn unsold_scid(&self) -> u64 {
        const DRAWS: usize = 100;
        let mut drawn = (0..DRAWS).map(|_| self.node.channel_manager.get_intercept_scid());
        let unsold = drawn.find(|scid| self.table.get(*scid).is_none());
        unsold.unwrap_or_else(|| self.node.channel_manager.get_intercept_scid())
    }

    async fn on_buy_request(&self, request: BuyRequest) {
        let names = ChannelNames {
            intercept_scid: self.unsold_scid(),
            user_channel_id: random_user_channel_id(&*self.node.keys),
        };
        match answer_buy(&self.fees, &self.table, self.lsps2(), request, names).await {
            Ok(record) => {
                let client = self.node.name_of(&record.client_node_id);
                self.note_lease("sold", Some(record.scid), json!({ "client": client }));
            }
            Err(error) => self.note_trouble(&error),
        }
    }

    async fn sweep(&self) {
        let now = self.node.now();
        let mut desk = self.desk.lock().await;
        let swept = desk.sweep(self.lsps2(), now).await.unwrap_or_default();
        let plans = match self.opens_held.load(Ordering::Acquire) {
            true => Vec::new(),
            false => desk.pending_opens(self.is_connected()),
        };
        self.end_given_up(&mut desk, &swept).await;
        drop(desk);
        for done in swept {
            match done {
                Swept::Failed(_, why) => {
                    self.node.note_htlc(HtlcState::Failed, None, 0, 0, Some(why.to_string()));
                }
                Swept::OpenGivenUp { scid, outcome } => self.note_outcome(scid, &outcome),
                Swept::LetThrough(_) => self.forward_now(),
                Swept::Removed(id) => self.note_lease("removed", Some(id), json!({})),
            }
        }
        for plan in plans {
            self.open(plan).await;
        }
    }
}

struct PersistRequest {
    recipient_id: Vec<u8>,
    slot: u16,
    invoice: StaticInvoice,
    path: BlindedMessagePath,
    persisted_path: Responder,
}

/// The table could not be written: LDK shows the event again.
fn replay(_: JitTableError) -> ReplayEvent {
    ReplayEvent()
}

impl Role for LspRole {
    async fn on_event(&self, event: Event) -> Result<(), ReplayEvent> {
        let _ = self.events_held.subscribe().wait_for(|held| !*held).await;
        self.node.note(&event);
        match event {
            // Look the SCID up in the table of what was sold. Then `htlc_intercepted`, which opens a
            // channel or forwards; or `fail_intercepted_htlc`.
            Event::HTLCIntercepted { .. } => match InterceptedHtlc::from_event(&event) {
                Some(htlc) => self.on_intercepted(htlc).await,
                None => Ok(()),
            },
            // Write the invoice and its path into the recipient's slot, then call
            // `static_invoice_persisted`.
            Event::PersistStaticInvoice {
                invoice,
                invoice_request_path: path,
                invoice_slot: slot,
                recipient_id,
                invoice_persisted_path: persisted_path,
            } => {
                self.on_persist_static_invoice(PersistRequest {
                    recipient_id,
                    slot,
                    invoice,
                    path,
                    persisted_path,
                })
                .await;
                Ok(())
            }
            // Look the invoice up and call `respond_to_static_invoice_request`.
            Event::StaticInvoiceRequested {
                recipient_id,
                invoice_slot,
                reply_path,
                invoice_request,
            } => {
                let (id, slot) = (&recipient_id, invoice_slot);
                self.on_static_invoice_requested(id, slot, reply_path, invoice_request).await;
                Ok(())
            }
            // Keep the message for the client that is offline, within bounds.
            Event::OnionMessageIntercepted { prev_hop, next_hop, message } => {
                self.on_mail(prev_hop, next_hop, message).await
            }
            // Deliver what was kept with `forward_onion_message`.
            Event::OnionMessagePeerConnected { peer_node_id } => {
                self.on_peer_connected(peer_node_id).await;
                Ok(())
            }
            // For a JIT channel, make the funding transaction and hand it over as the trust model asks;
            // another channel is funded as usual.
            Event::FundingGenerationReady {
                temporary_channel_id: channel_id,
                counterparty_node_id: peer,
                channel_value_satoshis,
                ref output_script,
                user_channel_id: id,
            } => {
                if self.table.by_user_channel_id(id).is_none() {
                    return self.node.on_common_event(event).await;
                }
                let (value, script) = (Amount::from_sat(channel_value_satoshis), output_script);
                self.on_funding_generation_ready(channel_id, peer, id, value, script.clone()).await;
                Ok(())
            }
            // Call `set_funding_tx_broadcast_safe`: a withheld funding may now be released.
            Event::FundingTxBroadcastSafe { user_channel_id, .. } => {
                let mut desk = self.desk.lock().await;
                desk.funding_safe(self.lsps2(), user_channel_id).await.map_err(replay)?;
                Ok(())
            }
            // Once the channel is usable, call `channel_ready`: LSPS2 forwards what waits, less the fee.
            Event::ChannelReady { channel_id, user_channel_id, counterparty_node_id, .. } => {
                self.on_channel_ready(user_channel_id, channel_id, counterparty_node_id).await
            }
            // Call `channel_open_failed` while the channel was opening, else `channel_closed`; free the
            // coins of a withheld funding.
            Event::ChannelClosed { channel_id, user_channel_id, .. } => {
                self.on_channel_closed(user_channel_id, channel_id).await?;
                self.node.on_common_event(event).await
            }
            // Add the skimmed fee to what this channel has paid, and call `payment_forwarded` with the
            // sum.
            Event::PaymentForwarded {
                prev_htlcs,
                next_htlcs,
                skimmed_fee_msat,
                outbound_amount_forwarded_msat: msat,
                ..
            } => {
                let now = self.node.now();
                let mut desk = self.desk.lock().await;
                self.node.point(points::BEFORE_FEE_BOOKED);
                let outcome = desk
                    .payment_forwarded(
                        self.lsps2(),
                        &prev_htlcs,
                        &next_htlcs,
                        skimmed_fee_msat,
                        now,
                    )
                    .await;
                self.on_fee_outcome(outcome.map_err(replay)?);
                self.keep_broadcasting();
                self.pay_out_closed(&mut desk, &next_htlcs).await;
                let skim = skimmed_fee_msat.unwrap_or(0);
                self.node.note_htlc(HtlcState::Forwarded, None, msat, skim, None);
                Ok(())
            }
            // Call `htlc_handling_failed`: the next payment then carries the fee.
            Event::HTLCHandlingFailed { ref failure_type, ref failure_reason, .. } => {
                let now = self.node.now();
                let mut desk = self.desk.lock().await;
                let outcome = desk.htlc_handling_failed(self.lsps2(), failure_type, now).await;
                self.on_fee_outcome(outcome.map_err(replay)?);
                if let HTLCHandlingFailureType::Forward { channel_id, .. } = failure_type {
                    self.release_after_failure(&mut desk, *channel_id).await;
                }
                let reason = failure_reason.as_ref().map(|reason| format!("{reason:?}"));
                self.node.note_htlc(HtlcState::Failed, None, 0, 0, reason);
                Ok(())
            }
            // Free the coins of a funding transaction that will not be used, withheld or not.
            Event::DiscardFunding { ref funding_info, .. } => {
                self.on_discarded(funding_info);
                self.node.on_common_event(event).await
            }
            // Accept it, after the usual confirmations: an LSP takes ordinary channels.
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                self.node.accept_channel(temporary_channel_id, counterparty_node_id);
                Ok(())
            }
            Event::PaymentClaimable { .. }
            | Event::PaymentClaimed { .. }
            | Event::ConnectionNeeded { .. }
            | Event::InvoiceReceived { .. }
            | Event::PaymentSent { .. }
            | Event::PaymentFailed { .. }
            | Event::PaymentPathSuccessful { .. }
            | Event::PaymentPathFailed { .. }
            | Event::ProbeSuccessful { .. }
            | Event::ProbeFailed { .. }
            | Event::SpendableOutputs { .. }
            | Event::ChannelPending { .. }
            | Event::SpliceNegotiated { .. }
            | Event::SpliceNegotiationFailed { .. }
            | Event::BumpTransaction(_)
            | Event::FundingTransactionReadyForSigning { .. } => {
                self.node.on_common_event(event).await
            }
        }
    }

    async fn on_liquidity_event(&self, event: LiquidityEvent) {
        match event {
            // Sell, and open.
            LiquidityEvent::LSPS2Service(event) => {
                self.node.note_sold(&event);
                self.on_lsps2_event(event).await;
            }
            // Protocols this LSP does not speak, and the other side of LSPS2.
            LiquidityEvent::LSPS0Client(_)
            | LiquidityEvent::LSPS1Client(_)
            | LiquidityEvent::LSPS1Service(_)
            | LiquidityEvent::LSPS2Client(_)
            | LiquidityEvent::LSPS5Client(_)
            | LiquidityEvent::LSPS5Service(_) => {}
        }
    }

    async fn on_tick(&self) {
        // First what ends in time whatever the chain answers.
        self.sweep().await;
        self.forward_over_waiting().await;
        self.close_unpaid();
        self.make_room();
        self.node.announce();
        let now = self.node.now();
        if now.as_secs().is_multiple_of(60) {
            // What is past its time may stay a minute longer if the disk fails.
            let _ = self.mailbox.lock().await.expire(now).await;
        }
    }
}
