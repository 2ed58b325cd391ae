//! A payer, an LSP and a client of it: three `ChannelManager`s and LDK's own LSPS2 service, without a
//! wire, a chain or a clock. What a node says is handed to its peer, until nobody has more to say.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use bitcoin::absolute::LockTime;
use bitcoin::secp256k1::{PublicKey, Secp256k1, Signing, Verification};
use bitcoin::transaction::Version;
use bitcoin::{Amount, Network, OutPoint, Sequence, Transaction, TxIn, TxOut, Witness};
use lightning::blinded_path::IntroductionNode;
use lightning::blinded_path::message::{BlindedMessagePath, MessageContext, MessageForwardNode};
use lightning::blinded_path::payment::{
    BlindedPaymentPath, ForwardTlvs, PaymentConstraints, PaymentContext, PaymentForwardNode,
    PaymentRelay, ReceiveTlvs,
};
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FeeEstimator, TransactionType,
};
use lightning::chain::chainmonitor::{ChainMonitor, Persist};
use lightning::chain::channelmonitor::{ChannelMonitor, ChannelMonitorUpdate};
use lightning::chain::{BlockLocator, ChannelMonitorUpdateStatus, Filter};
use lightning::events::{Event, EventsProvider};
use lightning::io;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::channelmanager::{
    ChainParameters, ChannelManager, ChannelManagerReadArgs, MIN_FINAL_CLTV_EXPIRY_DELTA,
    PaymentId, TrustedChannelFeatures,
};
use lightning::ln::msgs::{BaseMessageHandler, ChannelMessageHandler, Init, MessageSendEvent};
use lightning::ln::outbound_payment::RecipientOnionFields;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::{Destination, MessageRouter, OnionMessagePath};
use lightning::routing::gossip::NetworkGraph;
use lightning::routing::router::{
    InFlightHtlcs, Path, PaymentParameters, Route, RouteHop, RouteParameters, Router, find_route,
};
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::sign::RandomBytes;
use lightning::sign::{InMemorySigner, KeysManager, NodeSigner, ReceiveAuthKey};
use lightning::types::features::BlindedHopFeatures;
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentSecret};
use lightning::util::config::{
    ChannelConfigOverrides, ChannelConfigUpdate, HTLCInterceptionFlags, UserConfig,
};
use lightning::util::logger::{Logger, Record};
use lightning::util::persist::{KVStore, MonitorName};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::{LSPSDateTime, LSPSRequestId, RawLSPSMessage};
use lightning_liquidity::lsps2::client::LSPS2ClientConfig;
use lightning_liquidity::lsps2::event::LSPS2ServiceEvent;
use lightning_liquidity::lsps2::msgs::LSPS2RawOpeningFeeParams;
use lightning_liquidity::lsps2::service::{LSPS2ServiceConfig, LSPS2ServiceHandler};
use lightning_liquidity::utils::time::TimeProvider;
use lightning_liquidity::{LiquidityClientConfig, LiquidityManager, LiquidityServiceConfig};
use serde_json::{Value, json};

use crate::lsp::held::InterceptedHtlc;
use crate::lsp::testing::{FEE, MemoryStore, USER_ID};

/// A disk that is never slow and never read.
pub(super) struct NoDisk;

impl Persist<InMemorySigner> for NoDisk {
    fn persist_new_channel(
        &self,
        _: MonitorName,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn update_persisted_channel(
        &self,
        _: MonitorName,
        _: Option<&ChannelMonitorUpdate>,
        _: &ChannelMonitor<InMemorySigner>,
    ) -> ChannelMonitorUpdateStatus {
        ChannelMonitorUpdateStatus::Completed
    }

    fn archive_persisted_channel(&self, _: MonitorName) {}
}

/// What was broadcast.
#[derive(Default)]
pub(super) struct Sent(pub(super) Mutex<Vec<Transaction>>);

impl BroadcasterInterface for Sent {
    fn broadcast_transactions(&self, transactions: &[(&Transaction, TransactionType)]) {
        let transactions = transactions.iter().map(|(transaction, _)| (*transaction).clone());
        self.0.lock().unwrap().extend(transactions);
    }
}

pub(super) struct FlatFee;

impl FeeEstimator for FlatFee {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        253
    }
}

/// Everybody reaches everybody through one LSP, once it is named.
pub(super) struct Ways {
    /// The LSP, and the SCID over which it reaches the client.
    pub(super) hub: OnceLock<(PublicKey, u64)>,
    random: RandomBytes,
}

impl Ways {
    fn new(seed: u8) -> Self {
        Self { hub: OnceLock::new(), random: RandomBytes::new([seed; 32]) }
    }

    fn lsp(&self) -> Result<PublicKey, ()> {
        self.hub.get().map(|(lsp, _)| *lsp).ok_or(())
    }
}

impl Router for Ways {
    fn find_route(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: Option<&[&ChannelDetails]>,
        _: InFlightHtlcs,
    ) -> Result<Route, &'static str> {
        let graph = NetworkGraph::new(Network::Regtest, Quiet);
        let scorer = FixedPenaltyScorer::with_penalty(0);
        find_route(payer, params, &graph, first_hops, Quiet, &scorer, &(), &[7; 32])
    }

    /// As a router without this crate builds them: for static invoices, and for no other.
    fn create_blinded_payment_paths<T: Signing + Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        _: Vec<ChannelDetails>,
        tlvs: ReceiveTlvs,
        _: Option<u64>,
        secp_ctx: &Secp256k1<T>,
    ) -> Result<Vec<BlindedPaymentPath>, ()> {
        let (node_id, short_channel_id) = *self.hub.get().ok_or(())?;
        if !matches!(tlvs.payment_context, PaymentContext::AsyncBolt12Offer(_)) {
            return Err(());
        }
        let delta = 72;
        let max_cltv_expiry = tlvs.payment_constraints.max_cltv_expiry + u32::from(delta);
        let hop = ForwardTlvs {
            short_channel_id,
            payment_relay: PaymentRelay {
                cltv_expiry_delta: delta,
                fee_proportional_millionths: 0,
                fee_base_msat: 0,
            },
            payment_constraints: PaymentConstraints { max_cltv_expiry, htlc_minimum_msat: 1 },
            features: BlindedHopFeatures::empty(),
            next_blinding_override: None,
        };
        let hop = PaymentForwardNode { tlvs: hop, node_id, htlc_maximum_msat: u64::MAX };
        let last = MIN_FINAL_CLTV_EXPIRY_DELTA + 2;
        let path = BlindedPaymentPath::new(
            &[hop],
            recipient,
            key,
            tlvs,
            u64::MAX,
            last,
            &self.random,
            secp_ctx,
        );
        path.map(|path| vec![path])
    }
}

impl MessageRouter for Ways {
    fn find_path(
        &self,
        sender: PublicKey,
        peers: Vec<PublicKey>,
        destination: Destination,
    ) -> Result<OnionMessagePath, ()> {
        let lsp = self.lsp()?;
        let first = match &destination {
            Destination::Node(id) => *id,
            Destination::BlindedPath(path) => match path.introduction_node() {
                IntroductionNode::NodeId(id) => *id,
                IntroductionNode::DirectedShortChannelId(..) => return Err(()),
            },
        };
        let direct = sender == lsp || peers.contains(&first);
        let intermediate_nodes = if direct { vec![] } else { vec![lsp] };
        Ok(OnionMessagePath { intermediate_nodes, destination, first_node_addresses: vec![] })
    }

    fn create_blinded_paths<T: Signing + Verification>(
        &self,
        recipient: PublicKey,
        key: ReceiveAuthKey,
        context: MessageContext,
        _: Vec<MessageForwardNode>,
        secp_ctx: &Secp256k1<T>,
    ) -> Result<Vec<BlindedMessagePath>, ()> {
        let lsp = MessageForwardNode { node_id: self.lsp()?, short_channel_id: None };
        let hops = if lsp.node_id == recipient { vec![] } else { vec![lsp] };
        let random = &self.random;
        Ok(vec![BlindedMessagePath::new(&hops, recipient, key, context, false, random, secp_ctx)])
    }
}

pub(super) struct Quiet;

impl Logger for Quiet {
    fn log(&self, _: Record) {}
}

pub(super) struct Still;

impl TimeProvider for Still {
    fn duration_since_epoch(&self) -> core::time::Duration {
        core::time::Duration::from_secs(1_800_000_000)
    }
}

pub(super) type Monitors = ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Sent>,
    Arc<FlatFee>,
    Arc<Quiet>,
    Arc<NoDisk>,
    Arc<KeysManager>,
>;
pub(super) type Manager = ChannelManager<
    Arc<Monitors>,
    Arc<Sent>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<FlatFee>,
    Arc<Ways>,
    Arc<Ways>,
    Arc<Quiet>,
>;
pub(super) type Liquidity = LiquidityManager<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Manager>,
    MemoryStore,
    Arc<Still>,
    Arc<Sent>,
>;
pub(super) type Service = LSPS2ServiceHandler<Arc<Manager>, MemoryStore, Arc<Sent>>;

/// One node.
pub(super) struct Party {
    pub(super) id: PublicKey,
    pub(super) manager: Arc<Manager>,
    pub(super) sent: Arc<Sent>,
    pub(super) ways: Arc<Ways>,
    pub(super) keys: Arc<KeysManager>,
    monitors: Arc<Monitors>,
    events: Mutex<Vec<Event>>,
}

impl Party {
    pub(super) fn new(seed: u8, config: UserConfig) -> Self {
        let keys = Arc::new(KeysManager::new(&[seed; 32], 1, 1, true));
        let sent = Arc::new(Sent::default());
        let ways = Arc::new(Ways::new(seed));
        let best_block = BlockLocator::from_network(Network::Regtest);
        let monitors = Arc::new(ChainMonitor::new(
            None,
            Arc::clone(&sent),
            Arc::new(Quiet),
            Arc::new(FlatFee),
            Arc::new(NoDisk),
            Arc::clone(&keys),
            keys.get_peer_storage_key(),
            false,
        ));
        let manager = ChannelManager::new(
            Arc::new(FlatFee),
            Arc::clone(&monitors),
            Arc::clone(&sent),
            Arc::clone(&ways),
            Arc::clone(&ways),
            Arc::new(Quiet),
            Arc::clone(&keys),
            Arc::clone(&keys),
            Arc::clone(&keys),
            config,
            ChainParameters { network: Network::Regtest, best_block },
            1,
        );
        let manager = Arc::new(manager);
        let id = manager.get_our_node_id();
        Self { id, manager, sent, ways, keys, monitors, events: Mutex::default() }
    }

    /// The liquidity manager, as of what is in the store.
    pub(super) async fn liquidity(&self, store: &MemoryStore, sells: bool) -> Liquidity {
        let service = LiquidityServiceConfig {
            lsps1_service_config: None,
            lsps2_service_config: Some(LSPS2ServiceConfig { promise_secret: [7; 32] }),
            lsps5_service_config: None,
            advertise_service: true,
        };
        let client = LiquidityClientConfig {
            lsps1_client_config: None,
            lsps2_client_config: Some(LSPS2ClientConfig::default()),
            lsps5_client_config: None,
        };
        let (keys, sent) = (|| Arc::clone(&self.keys), Arc::clone(&self.sent));
        let (manager, store) = (Arc::clone(&self.manager), store.clone());
        let roles = if sells { (Some(service), None) } else { (None, Some(client)) };
        LiquidityManager::new_with_custom_time_provider(
            keys(),
            keys(),
            manager,
            sent,
            store,
            roles.0,
            roles.1,
            Arc::new(Still),
        )
        .await
        .unwrap()
    }

    /// The channel manager that a restart would read, with its monitors.
    pub(super) fn read_again(&self) -> Manager {
        let monitors: Vec<_> = self
            .monitors
            .list_monitors()
            .into_iter()
            .map(|id| self.monitors.get_monitor(id).unwrap().encode())
            .map(|bytes| {
                let keys = (&*self.keys, &*self.keys);
                let mut bytes = io::Cursor::new(bytes);
                let read = <(BlockLocator, ChannelMonitor<InMemorySigner>)>::read(&mut bytes, keys);
                read.unwrap().1
            })
            .collect();
        let args = ChannelManagerReadArgs::new(
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::clone(&self.keys),
            Arc::new(FlatFee),
            Arc::clone(&self.monitors),
            Arc::clone(&self.sent),
            Arc::clone(&self.ways),
            Arc::clone(&self.ways),
            Arc::new(Quiet),
            UserConfig::default(),
            monitors.iter().collect(),
        );
        let mut bytes = io::Cursor::new(self.manager.encode());
        <(BlockLocator, Manager)>::read(&mut bytes, args).unwrap().1
    }

    /// Takes the events of a kind, in their order.
    pub(super) fn take<T>(&self, mut wanted: impl FnMut(&Event) -> Option<T>) -> Vec<T> {
        let mut events = self.events.lock().unwrap();
        let (mut taken, mut rest) = (Vec::new(), Vec::new());
        for event in events.drain(..) {
            match wanted(&event) {
                Some(found) => taken.push(found),
                None => rest.push(event),
            }
        }
        *events = rest;
        taken
    }

    /// Whether an event of a kind waits.
    pub(super) fn look(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        let gathered = self.gather();
        let mut events = self.events.lock().unwrap();
        events.extend(gathered);
        events.iter().any(wanted)
    }

    fn gather(&self) -> Vec<Event> {
        gather(&self.manager)
    }

    pub(super) fn channel_with(&self, peer: &Party) -> ChannelDetails {
        self.manager.list_channels_with_counterparty(&peer.id).pop().expect("a channel")
    }

    /// What LDK adds by chance to the expiry of any payment. The rig throws the same each time, and no
    /// node of its ways is public.
    pub(super) fn random_offset_to(&self, peer: &Self) -> u32 {
        let params = PaymentParameters::from_node_id(peer.id, 0);
        let params = RouteParameters::from_payment_params_and_value(params, 1_000_000);
        let (first, none) = (self.channel_with(peer), InFlightHtlcs::new());
        let route = self.ways.find_route(&self.id, &params, Some(&[&first]), none).expect("a way");
        route.paths[0].hops[0].cltv_expiry_delta
    }
}

/// What a channel manager has to tell.
pub(super) fn gather(manager: &Manager) -> Vec<Event> {
    let gathered = Mutex::new(Vec::new());
    manager.process_pending_events(&|event| {
        gathered.lock().unwrap().push(event);
        Ok(())
    });
    gathered.into_inner().unwrap()
}

/// Three nodes, the payer's channel with the LSP, and LSPS2.
pub(super) struct Rig {
    pub(super) payer: Party,
    pub(super) lsp: Party,
    pub(super) client: Party,
    pub(super) store: MemoryStore,
    pub(super) liquidity: Liquidity,
    /// What a lying LSP says that it skimmed from the HTLCs it forwards to the client, one after the
    /// other.
    pub(super) lies: Mutex<Vec<u64>>,
    fundings: Mutex<u32>,
    requests: Mutex<u32>,
}

/// Far enough away that no test sees it pass, and as long as [`PAST`].
const VALID_UNTIL: &str = "2999-01-01T00:00:00+00:00";
const PAST: &str = "2001-01-01T00:00:00+00:00";
const PAYERS_CHANNEL_SAT: u64 = 10_000_000;

/// A menu entry: [`FEE`] for any size, for payments from 10 000 sat to 1 000 000 sat.
pub(super) fn entry() -> LSPS2RawOpeningFeeParams {
    LSPS2RawOpeningFeeParams {
        min_fee_msat: FEE,
        proportional: 0,
        valid_until: VALID_UNTIL.parse::<LSPSDateTime>().unwrap(),
        min_lifetime: 4_320,
        max_client_to_self_delay: 432,
        min_payment_size_msat: 10_000_000,
        max_payment_size_msat: 1_000_000_000,
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        let config = UserConfig {
            htlc_interception_flags: HTLCInterceptionFlags::ToInterceptSCIDs as u8,
            enable_htlc_hold: true,
            ..UserConfig::default()
        };
        let (payer, lsp) = (Party::new(1, UserConfig::default()), Party::new(2, config));
        let client = Party::new(3, UserConfig::default());
        let store = MemoryStore::default();
        let liquidity = lsp.liquidity(&store, true).await;
        let (lies, fundings, requests) = (Mutex::default(), Mutex::default(), Mutex::default());
        let rig = Self { payer, lsp, client, store, liquidity, lies, fundings, requests };
        rig.connect(&rig.payer, &rig.lsp);
        rig.connect(&rig.lsp, &rig.client);
        let to = rig.lsp.id;
        rig.payer.manager.create_channel(to, PAYERS_CHANNEL_SAT, 0, 1, None, None).unwrap();
        rig.talk();
        assert!(rig.payer.channel_with(&rig.lsp).is_usable);
        rig
    }

    pub(super) fn parties(&self) -> [&Party; 3] {
        [&self.payer, &self.lsp, &self.client]
    }

    fn connect(&self, one: &Party, other: &Party) {
        for (me, peer, inbound) in [(one, other, false), (other, one, true)] {
            let mut features = peer.manager.provided_init_features(me.id);
            features.set_onion_messages_optional();
            let init = Init { features, networks: None, remote_network_address: None };
            me.manager.peer_connected(peer.id, &init, inbound).unwrap();
        }
    }

    /// The client goes away.
    pub(super) fn disconnect_client(&self) {
        self.lsp.manager.peer_disconnected(self.client.id);
        self.client.manager.peer_disconnected(self.lsp.id);
        self.liquidity.peer_disconnected(self.client.id);
    }

    pub(super) fn service(&self) -> &Service {
        self.liquidity.lsps2_service_handler().expect("it sells")
    }

    /// LSPS2 after a restart: what is in the store, and no more.
    pub(super) async fn restart_lsps2(&mut self) {
        self.liquidity = self.lsp.liquidity(&self.store, true).await;
    }

    /// A restart after the leases ran out.
    pub(super) async fn restart_lsps2_too_late(&mut self) {
        let mut expired = 0;
        for (primary, secondary, key) in self.store.keys() {
            let mut bytes = self.store.read(&primary, &secondary, &key).await.unwrap();
            let is_date = |at: &usize| bytes[*at..].starts_with(VALID_UNTIL.as_bytes());
            let dates: Vec<_> = (0..bytes.len()).filter(is_date).collect();
            expired += dates.len();
            for at in dates {
                bytes[at..at + PAST.len()].copy_from_slice(PAST.as_bytes());
            }
            self.store.set(&primary, &secondary, &key, &bytes);
        }
        assert!(expired > 0, "no lease is in the store");
        self.restart_lsps2().await;
    }

    /// Asks the LSP something, as this peer, and returns its answers.
    pub(super) fn ask(&self, from: PublicKey, method: &str, params: &Value) -> Vec<Value> {
        let id = {
            let mut requests = self.requests.lock().unwrap();
            *requests += 1;
            requests.to_string()
        };
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.hand_over(from, &request.to_string());
        self.answers(from)
    }

    /// Whatever this peer sends. LDK tells of what it does not take in an error, which only logs.
    pub(super) fn hand_over(&self, from: PublicKey, payload: &str) {
        let message = RawLSPSMessage { payload: payload.to_owned() };
        let _ = self.liquidity.handle_custom_message(message, from);
    }

    pub(super) fn answers(&self, to: PublicKey) -> Vec<Value> {
        let messages = self.liquidity.get_and_clear_pending_msg().into_iter();
        let to_it = messages.filter(|(peer, _)| *peer == to);
        to_it.map(|(_, message)| serde_json::from_str(&message.payload).unwrap()).collect()
    }

    /// What the service asks of its application.
    pub(super) fn asked(&self) -> Vec<LSPS2ServiceEvent> {
        let events = self.liquidity.get_and_clear_pending_events().into_iter();
        let of_lsps2 = |event| match event {
            LiquidityEvent::LSPS2Service(event) => Some(event),
            _ => None,
        };
        events.filter_map(of_lsps2).collect()
    }

    pub(super) fn opens(&self) -> Vec<(u64, u64)> {
        let open = |event| match event {
            LSPS2ServiceEvent::OpenChannel { amt_to_forward_msat, opening_fee_msat, .. } => {
                Some((amt_to_forward_msat, opening_fee_msat))
            }
            _ => None,
        };
        self.asked().into_iter().filter_map(open).collect()
    }

    /// The menu that a peer gets.
    pub(super) fn menu(&self, to: PublicKey, entries: Vec<LSPS2RawOpeningFeeParams>) -> Vec<Value> {
        assert_eq!(self.ask(to, "lsps2.get_info", &json!({ "token": null })), Vec::<Value>::new());
        let id = self.asked().into_iter().find_map(|event| match event {
            LSPS2ServiceEvent::GetInfo { request_id, .. } => Some(request_id),
            _ => None,
        });
        let id = id.expect("the request arrived");
        self.service().opening_fee_params_generated(&to, id, entries).unwrap();
        let mut answers = self.answers(to);
        let answer = answers.pop().expect("an answer");
        answer["result"]["opening_fee_params_menu"].as_array().expect("a menu").clone()
    }

    /// Sells a lease to the client and returns its intercept SCID.
    pub(super) async fn sell(&self, size_msat: Option<u64>, client_trusts_lsp: bool) -> u64 {
        self.sell_as(USER_ID, size_msat, client_trusts_lsp).await
    }

    pub(super) async fn sell_as(
        &self,
        user_channel_id: u128,
        size_msat: Option<u64>,
        client_trusts_lsp: bool,
    ) -> u64 {
        let client = self.client.id;
        let terms = self.menu(client, vec![entry()]).remove(0);
        let mut params = json!({ "opening_fee_params": terms });
        if let Some(size_msat) = size_msat {
            params["payment_size_msat"] = json!(size_msat.to_string());
        }
        assert_eq!(self.ask(client, "lsps2.buy", &params), Vec::<Value>::new());
        let id = self.asked().into_iter().find_map(|event| match event {
            LSPS2ServiceEvent::BuyRequest { request_id, .. } => Some(request_id),
            _ => None,
        });
        let id: LSPSRequestId = id.expect("the request arrived");
        let scid = self.lsp.manager.get_intercept_scid();
        let sold = self.service().invoice_parameters_generated(
            &client,
            id,
            scid,
            72,
            client_trusts_lsp,
            user_channel_id,
        );
        sold.await.unwrap();
        assert_eq!(self.answers(client).len(), 1);
        scid
    }

    /// What a payment is sent to.
    pub(super) fn invoice(&self) -> (PaymentHash, PaymentSecret) {
        let made = self.client.manager.create_inbound_payment(None, 7_200, None, None).unwrap();
        (made.0, made.1)
    }

    /// Sends parts of a payment over an SCID of the LSP, and returns what the LSP intercepts.
    pub(super) fn pay(
        &self,
        scid: u64,
        (hash, secret): (PaymentHash, PaymentSecret),
        parts_msat: &[u64],
    ) -> Vec<InterceptedHtlc> {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&u64::from(*self.requests.lock().unwrap()).to_be_bytes());
        id[8..].copy_from_slice(&hash.0[8..]);
        *self.requests.lock().unwrap() += 1;
        let hop = |pubkey, short_channel_id, fee_msat, cltv_expiry_delta| RouteHop {
            pubkey,
            node_features: NodeFeatures::empty(),
            short_channel_id,
            channel_features: ChannelFeatures::empty(),
            fee_msat,
            cltv_expiry_delta,
            maybe_announced_channel: false,
        };
        let first = self.payer.channel_with(&self.lsp).get_outbound_payment_scid().unwrap();
        let last = u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA) + 10;
        let path = |msat: &u64| Path {
            hops: vec![hop(self.lsp.id, first, 0, 72), hop(self.client.id, scid, *msat, last)],
            blinded_tail: None,
        };
        let route = Route { paths: parts_msat.iter().map(path).collect(), route_params: None };
        let total_msat = parts_msat.iter().sum();
        let onion = RecipientOnionFields::secret_only(secret, total_msat);
        let manager = &self.payer.manager;
        manager.send_payment_with_route(route, hash, onion, PaymentId(id)).unwrap();
        self.talk();
        self.intercepted()
    }

    pub(super) fn intercepted(&self) -> Vec<InterceptedHtlc> {
        self.lsp.take(|event| match event {
            Event::HTLCIntercepted {
                intercept_id,
                requested_next_hop_scid,
                payment_hash,
                inbound_amount_msat,
                expected_outbound_amount_msat,
                outgoing_htlc_expiry_block_height,
            } => Some(InterceptedHtlc {
                intercept_id: *intercept_id,
                requested_next_hop_scid: *requested_next_hop_scid,
                payment_hash: *payment_hash,
                inbound_amount_msat: *inbound_amount_msat,
                expected_outbound_amount_msat: *expected_outbound_amount_msat,
                client_expiry: *outgoing_htlc_expiry_block_height,
            }),
            _ => None,
        })
    }

    /// Whether LDK at the LSP still holds the HTLC. Asking fails it, so it is asked last.
    pub(super) fn was_held(&self, htlc: &InterceptedHtlc) -> bool {
        self.lsp.manager.fail_intercepted_htlc(htlc.intercept_id).is_ok()
    }

    /// Opens the JIT channel, as asked for.
    pub(super) fn open(&self, user_channel_id: u128, capacity_sat: u64) -> ChannelId {
        let to = self.client.id;
        self.lsp.manager.create_channel(to, capacity_sat, 0, user_channel_id, None, None).unwrap();
        self.talk();
        let channels = self.lsp.manager.list_channels_with_counterparty(&to).into_iter();
        let mut new = channels.filter(|channel| channel.user_channel_id == user_channel_id);
        let new = new.next().expect("it was asked for");
        assert!(new.is_usable);
        new.channel_id
    }

    /// Opens the channel, and LSPS2 forwards over it.
    pub(super) async fn open_and_forward(&self, capacity_sat: u64) -> ChannelId {
        let channel = self.open(USER_ID, capacity_sat);
        self.service().channel_ready(USER_ID, &channel, &self.client.id).await.unwrap();
        self.talk();
        channel
    }

    /// The client claims whatever has arrived.
    pub(super) fn claim(&self) -> u64 {
        let arrived = self.client.take(|event| match event {
            Event::PaymentClaimable { purpose, amount_msat, .. } => {
                Some((purpose.preimage().expect("it made the hash"), *amount_msat))
            }
            _ => None,
        });
        for (preimage, _) in &arrived {
            self.client.manager.claim_funds(*preimage);
        }
        self.talk();
        arrived.iter().map(|(_, msat)| msat).sum()
    }

    /// The skim that each `PaymentForwarded` of the LSP tells of, in msat.
    pub(super) fn skims(&self) -> Vec<u64> {
        self.lsp.take(|event| match event {
            Event::PaymentForwarded { skimmed_fee_msat, .. } => {
                Some(skimmed_fee_msat.unwrap_or_default())
            }
            _ => None,
        })
    }

    /// Hands messages over, and answers what every application answers, until all is quiet.
    pub(super) fn talk(&self) {
        let parties = self.parties();
        loop {
            let mut quiet = true;
            for party in parties {
                party.manager.process_pending_htlc_forwards();
                for event in party.gather() {
                    quiet = false;
                    self.answer(party, event);
                }
                for message in party.manager.get_and_clear_pending_msg_events() {
                    quiet &= !self.deliver(party, message);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn answer(&self, party: &Party, event: Event) {
        match event {
            Event::OpenChannelRequest { temporary_channel_id, counterparty_node_id, .. } => {
                let update = ChannelConfigUpdate {
                    accept_underpaying_htlcs: Some(true),
                    ..ChannelConfigUpdate::default()
                };
                let overrides = ChannelConfigOverrides {
                    handshake_overrides: None,
                    update_overrides: Some(update),
                };
                let manager = &party.manager;
                manager
                    .accept_inbound_channel_from_trusted_peer(
                        &temporary_channel_id,
                        &counterparty_node_id,
                        1,
                        TrustedChannelFeatures::ZeroConf,
                        Some(overrides),
                    )
                    .unwrap();
            }
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            } => {
                let value = Amount::from_sat(channel_value_satoshis);
                let output = TxOut { value, script_pubkey: output_script };
                let transaction = self.transaction(output);
                let (id, peer) = (temporary_channel_id, counterparty_node_id);
                let withheld =
                    self.service().channel_needs_manual_broadcast(user_channel_id, &peer);
                if party.id == self.lsp.id && withheld == Ok(true) {
                    let stored = transaction.clone();
                    self.service()
                        .store_funding_transaction(user_channel_id, &peer, stored)
                        .unwrap();
                    let manager = &party.manager;
                    manager
                        .funding_transaction_generated_manual_broadcast(id, peer, transaction)
                        .unwrap();
                } else {
                    party.manager.funding_transaction_generated(id, peer, transaction).unwrap();
                }
            }
            Event::FundingTxBroadcastSafe { user_channel_id, counterparty_node_id, .. } => {
                let service = self.service();
                service
                    .set_funding_tx_broadcast_safe(user_channel_id, &counterparty_node_id)
                    .unwrap();
            }
            other => party.events.lock().unwrap().push(other),
        }
    }

    /// A funding transaction of its own for each channel. Nobody looks at what it spends.
    fn transaction(&self, output: TxOut) -> Transaction {
        let mut fundings = self.fundings.lock().unwrap();
        *fundings += 1;
        let input = TxIn {
            previous_output: OutPoint { vout: *fundings, ..OutPoint::default() },
            script_sig: bitcoin::ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[[1_u8; 1]]),
        };
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input],
            output: vec![output],
        }
    }

    /// Whether it was a message for a peer.
    fn deliver(&self, from: &Party, message: MessageSendEvent) -> bool {
        let party = |id: PublicKey| {
            self.parties().into_iter().find(|party| party.id == id).expect("one of three")
        };
        let me = from.id;
        match message {
            MessageSendEvent::SendOpenChannel { node_id, msg } => {
                party(node_id).manager.handle_open_channel(me, &msg);
            }
            MessageSendEvent::SendAcceptChannel { node_id, msg } => {
                party(node_id).manager.handle_accept_channel(me, &msg);
            }
            MessageSendEvent::SendFundingCreated { node_id, msg } => {
                party(node_id).manager.handle_funding_created(me, &msg);
            }
            MessageSendEvent::SendFundingSigned { node_id, msg } => {
                party(node_id).manager.handle_funding_signed(me, &msg);
            }
            MessageSendEvent::SendChannelReady { node_id, msg } => {
                party(node_id).manager.handle_channel_ready(me, &msg);
            }
            MessageSendEvent::SendRevokeAndACK { node_id, msg } => {
                party(node_id).manager.handle_revoke_and_ack(me, &msg);
            }
            MessageSendEvent::SendChannelReestablish { node_id, msg } => {
                party(node_id).manager.handle_channel_reestablish(me, &msg);
            }
            MessageSendEvent::UpdateHTLCs { node_id, updates, .. } => {
                let to = &party(node_id).manager;
                for mut msg in updates.update_add_htlcs {
                    let mut lies = self.lies.lock().unwrap();
                    if node_id == self.client.id && !lies.is_empty() {
                        msg.skimmed_fee_msat = Some(lies.remove(0));
                    }
                    to.handle_update_add_htlc(me, &msg);
                }
                for msg in updates.update_fulfill_htlcs {
                    to.handle_update_fulfill_htlc(me, msg);
                }
                updates
                    .update_fail_htlcs
                    .iter()
                    .for_each(|msg| to.handle_update_fail_htlc(me, msg));
                for msg in &updates.update_fail_malformed_htlcs {
                    to.handle_update_fail_malformed_htlc(me, msg);
                }
                updates.update_fee.iter().for_each(|msg| to.handle_update_fee(me, msg));
                for msg in &updates.commitment_signed {
                    to.handle_commitment_signed(me, msg);
                }
            }
            // Gossip, and errors, which are for logs.
            _ => return false,
        }
        true
    }

    /// The bytes of LSPS2's state in the store.
    pub(super) async fn written(&self) -> BTreeMap<String, Vec<u8>> {
        let mut all = BTreeMap::new();
        for (primary, secondary, key) in self.store.keys() {
            let bytes = self.store.read(&primary, &secondary, &key).await.unwrap();
            all.insert(format!("{secondary}/{key}"), bytes);
        }
        all
    }
}
