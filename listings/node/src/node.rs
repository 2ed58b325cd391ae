//! What every node has, whatever its role: LDK's parts, wired together and restored from a folder.

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::secp256k1::rand::RngCore;
use bitcoin::secp256k1::{PublicKey, rand};
use bitcoin::{Block, Network, ScriptBuf};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::events::{Event, ReplayEvent};
use lightning::io::{Cursor, ErrorKind};
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::{EntropySource, KeysManager, NodeSigner, Recipient};
use lightning::util::config::UserConfig;
use lightning::util::logger::Level;
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, KVStoreSync, NETWORK_GRAPH_PERSISTENCE_KEY,
    OUTPUT_SWEEPER_PERSISTENCE_KEY, SCORER_PERSISTENCE_KEY, read_channel_monitors,
};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning::util::wallet_utils::WalletSync;
use lightning_background_processor as background;
use lightning_block_sync::init::{synchronize_listeners, validate_best_block_header};
use lightning_block_sync::poll::{ChainPoller, ValidatedBlockHeader};
use lightning_block_sync::{HeaderCache, SpvClient};
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps2::client::LSPS2ClientConfig;
use lightning_liquidity::lsps2::service::LSPS2ServiceConfig;
use lightning_liquidity::utils::time::TimeProvider;
use lightning_liquidity::{LiquidityClientConfig, LiquidityServiceConfig};
use lightning_persister::fs_store::v1::FilesystemStore;
use lsps2_async::negotiate::{MenuWatch, Observations};
use lsps2_async::router::PathPolicy;
use regtest::Chain;
use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::relay::Relay;
use crate::tap::{Pen, Tap};
use crate::transcript::{Transcript, What};
use crate::types::*;
use crate::wallet::Wallet;

type BumpHandler = BumpTransactionEventHandlerSync<
    Arc<Broadcaster>,
    Arc<WalletSync<Arc<Wallet>, Arc<Log>>>,
    Arc<KeysManager>,
    Arc<Log>,
>;

/// Where a node lives and what it writes to.
#[derive(Clone)]
pub struct NodeConfig {
    /// Its name in the transcript.
    pub name: String,
    /// Its folder; made if it does not exist.
    pub data_dir: PathBuf,
    /// Where it takes connections. Port 0 takes any.
    pub listen: SocketAddr,
    /// The chain it follows.
    pub chain: Chain,
    /// Where it writes what happens.
    pub transcript: Transcript,
}

/// What a role asks of the node under it.
pub(crate) struct Setup {
    /// LDK's flags.
    pub user_config: UserConfig,
    /// Whether onion messages for offline peers are intercepted, for a mailbox.
    pub mailbox: bool,
    /// Whether leases are sold, and the secret behind the promises.
    pub promise_secret: Option<[u8; 32]>,
    /// Which paths invoices get.
    pub paths: PathPolicy,
}

/// How a role answers LDK.
pub(crate) trait Role: Send + Sync + 'static {
    fn on_event(&self, event: Event) -> impl Future<Output = Result<(), ReplayEvent>> + Send;
    fn on_liquidity_event(&self, event: LiquidityEvent) -> impl Future<Output = ()> + Send;
    /// About once a second.
    fn on_tick(&self) -> impl Future<Output = ()> + Send;
}

/// A running node.
pub struct Node {
    pub(crate) pen: Pen,
    pub(crate) clock: Arc<Clock>,
    pub(crate) chain: Chain,
    pub(crate) store: Store,
    pub(crate) keys: Arc<KeysManager>,
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) graph: Arc<Graph>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) relay: Arc<Relay>,
    pub(crate) broadcaster: Arc<Broadcaster>,
    pub(crate) chain_monitor: Arc<ChainMonitor>,
    pub(crate) channel_manager: Arc<ChannelManager>,
    pub(crate) onion_messenger: Arc<OnionMessenger>,
    pub(crate) liquidity: Arc<LiquidityManager>,
    pub(crate) observations: Observations,
    pub(crate) peer_manager: Arc<PeerManager>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) bump_handler: BumpHandler,
    pub(crate) user_config: UserConfig,
    /// Tells the tasks that bring in new work to end.
    pub(crate) stopping: watch::Sender<bool>,
    /// Tells LDK's loop to write the last state and end.
    closing: watch::Sender<bool>,
    gossip: Arc<GossipSync>,
    scorer: Arc<Scorer>,
    log: Arc<Log>,
    listen: SocketAddr,
    pub(crate) connecting: tokio::sync::Mutex<()>,
    runtime: Mutex<Runtime>,
}

/// What is used up when the node runs and stops.
#[derive(Default)]
struct Runtime {
    lock: Option<File>,
    listener: Option<TcpListener>,
    to_broadcast: Option<mpsc::UnboundedReceiver<(Vec<bitcoin::Transaction>, String)>>,
    sync: Option<(HeaderCache, ValidatedBlockHeader)>,
    tasks: JoinSet<()>,
    processor: Option<JoinHandle<()>>,
}

impl Node {
    /// Restores the node of a folder, or makes a new one there. It does nothing before `run`.
    pub(crate) async fn build(config: NodeConfig, setup: Setup) -> Result<Arc<Self>> {
        let NodeConfig { name, data_dir, listen, chain, transcript } = config;
        fs::create_dir_all(&data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let lock = lock(&data_dir)?;
        let seed = read_or_make_secret(&data_dir, "seed")?;
        let store = Arc::new(FilesystemStore::new(data_dir.join("store")));
        let log_file =
            OpenOptions::new().create(true).append(true).open(data_dir.join("node.log"))?;
        let log = Arc::new(Log::new(log_file, Level::Debug));
        let clock = Arc::new(Clock::default());
        let now = clock.duration_since_epoch();
        let keys = Arc::new(KeysManager::new(&seed, now.as_secs(), now.subsec_nanos(), true));
        let node_id = keys.get_node_id(Recipient::Node).map_err(|()| anyhow!("no node id"))?;
        let pen = Pen {
            transcript,
            name,
            poke: Arc::new(Notify::new()),
            channel_announced: Arc::new(Notify::new()),
        };
        pen.transcript.introduce(node_id, &pen.name);

        let wallet = Arc::new(Wallet::open(&seed, store.clone())?);
        let (to_broadcast_tx, to_broadcast) = mpsc::unbounded_channel();
        let broadcaster = Arc::new(Broadcaster(to_broadcast_tx));
        let fees = Arc::new(Fees);
        let chain_monitor = Arc::new(ChainMonitor::new(
            None,
            broadcaster.clone(),
            log.clone(),
            fees.clone(),
            store.clone(),
            keys.clone(),
            keys.get_peer_storage_key(),
            // Monitors are written only after the channel manager: a crash in between would leave
            // a stale manager, and LDK force-closes the channels of a stale manager.
            true,
        ));

        let graph = Arc::new(match read(&store, "", NETWORK_GRAPH_PERSISTENCE_KEY)? {
            Some(bytes) => Graph::read(&mut Cursor::new(bytes), log.clone())
                .map_err(|e| anyhow!("reading the network graph: {e}"))?,
            None => Graph::new(Network::Regtest, log.clone()),
        });
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = match read(&store, "", SCORER_PERSISTENCE_KEY)? {
            Some(bytes) => {
                let args = (decay, graph.clone(), log.clone());
                ProbabilisticScorer::read(&mut Cursor::new(bytes), args)
                    .map_err(|e| anyhow!("reading the scorer: {e}"))?
            }
            None => ProbabilisticScorer::new(decay, graph.clone(), log.clone()),
        };
        let scorer = Arc::new(RwLock::new(scorer));

        let (leases, unreadable) = Leases::load(store.clone()).await?;
        for lease in unreadable {
            pen.write(What::Lease {
                state: "unreadable".into(),
                intercept_scid: None,
                detail: serde_json::json!({ "error": format!("{}: {}", lease.key, lease.reason) }),
            });
        }
        let leases = Arc::new(leases);
        let plain_router = PlainRouter::new(
            graph.clone(),
            log.clone(),
            keys.clone(),
            scorer.clone(),
            ProbabilisticScoringFeeParameters::default(),
        );
        let router = Arc::new(Router::new(
            plain_router,
            leases.clone(),
            keys.clone(),
            clock.clone(),
            setup.paths,
        ));
        let relay = Arc::new(Relay::new(graph.clone(), keys.clone()));

        // Monitors first: the channel manager is read against them.
        let monitors = read_channel_monitors(&*store, keys.clone(), keys.clone())?;
        let best = validate_best_block_header(&chain).await.map_err(chain_error)?;
        let manager = read(&store, "", CHANNEL_MANAGER_PERSISTENCE_KEY)?;
        let restored = manager.is_some();
        let (manager_block, channel_manager) = match manager {
            Some(bytes) => {
                let args = ChannelManagerReadArgs::new(
                    keys.clone(),
                    keys.clone(),
                    keys.clone(),
                    fees.clone(),
                    chain_monitor.clone(),
                    broadcaster.clone(),
                    router,
                    relay.clone(),
                    log.clone(),
                    setup.user_config.clone(),
                    monitors.iter().map(|(_, monitor)| monitor).collect(),
                );
                <(BlockLocator, ChannelManager)>::read(&mut Cursor::new(bytes), args)
                    .map_err(|e| anyhow!("reading the channel manager: {e}"))?
            }
            None => {
                ensure!(monitors.is_empty(), "there are channel monitors but no channel manager");
                let best_block = best.to_block_locator();
                let manager = ChannelManager::new(
                    fees.clone(),
                    chain_monitor.clone(),
                    broadcaster.clone(),
                    router,
                    relay.clone(),
                    log.clone(),
                    keys.clone(),
                    keys.clone(),
                    keys.clone(),
                    setup.user_config.clone(),
                    ChainParameters { network: Network::Regtest, best_block },
                    best.header.time,
                );
                (best_block, manager)
            }
        };
        let channel_manager = Arc::new(channel_manager);

        let sweeper_args = (
            broadcaster.clone(),
            fees.clone(),
            None,
            keys.clone(),
            wallet.clone(),
            store.clone(),
            log.clone(),
        );
        let (sweeper_block, sweeper) = match read(&store, "", OUTPUT_SWEEPER_PERSISTENCE_KEY)? {
            Some(bytes) => <(BlockLocator, Sweeper)>::read(&mut Cursor::new(bytes), sweeper_args)
                .map_err(|e| anyhow!("reading the sweeper: {e}"))?,
            None => {
                let (broadcaster, fees, filter, keys, wallet, store, log) = sweeper_args;
                let best = best.to_block_locator();
                (best, Sweeper::new(best, broadcaster, fees, filter, keys, wallet, store, log))
            }
        };
        let sweeper = Arc::new(sweeper);

        // Everything is brought to the same block before it runs.
        let monitors: Vec<_> = monitors
            .into_iter()
            .map(|(block, m)| (block, (m, broadcaster.clone(), fees.clone(), log.clone())))
            .collect();
        let mut listeners: Vec<(BlockLocator, &(dyn Listen + Send + Sync))> = vec![
            (manager_block, &*channel_manager),
            (sweeper_block, &*sweeper),
            (wallet.best_block(), &*wallet),
        ];
        listeners.extend(monitors.iter().map(|(b, m)| (*b, m as &(dyn Listen + Send + Sync))));
        let sync = synchronize_listeners(&chain, Network::Regtest, listeners)
            .await
            .map_err(chain_error)?;
        for (_, (monitor, ..)) in monitors {
            let channel_id = monitor.channel_id();
            chain_monitor
                .load_existing_monitor(channel_id, monitor)
                .map_err(|()| anyhow!("two monitors for channel {channel_id}"))?;
        }

        let messenger = if setup.mailbox {
            |keys: Arc<KeysManager>, log, cm: Arc<ChannelManager>, relay, pen: Pen| {
                OnionMessenger::new_with_offline_peer_interception(
                    keys.clone(),
                    keys,
                    log,
                    cm.clone(),
                    relay,
                    Tap::new(cm.clone(), pen.clone()),
                    Tap::new(cm, pen),
                    IgnoringMessageHandler {},
                    IgnoringMessageHandler {},
                    // Messages name their next hop by node id here, never by an SCID unknown to us.
                    false,
                )
            }
        } else {
            |keys: Arc<KeysManager>, log, cm: Arc<ChannelManager>, relay, pen: Pen| {
                OnionMessenger::new(
                    keys.clone(),
                    keys,
                    log,
                    cm.clone(),
                    relay,
                    Tap::new(cm.clone(), pen.clone()),
                    Tap::new(cm, pen),
                    IgnoringMessageHandler {},
                    IgnoringMessageHandler {},
                )
            }
        };
        let onion_messenger = Arc::new(messenger(
            keys.clone(),
            log.clone(),
            channel_manager.clone(),
            relay.clone(),
            pen.clone(),
        ));

        let service = setup.promise_secret.map(|promise_secret| LiquidityServiceConfig {
            lsps1_service_config: None,
            lsps2_service_config: Some(LSPS2ServiceConfig { promise_secret }),
            lsps5_service_config: None,
            advertise_service: true,
        });
        let client = service.is_none().then(|| LiquidityClientConfig {
            lsps1_client_config: None,
            lsps2_client_config: Some(LSPS2ClientConfig::default()),
            lsps5_client_config: None,
        });
        let liquidity = LiquidityManager::new_with_custom_time_provider(
            keys.clone(),
            keys.clone(),
            channel_manager.clone(),
            broadcaster.clone(),
            store.clone(),
            service,
            client,
            clock.clone(),
        )
        .await
        .context("reading the liquidity manager")?;
        let liquidity = Arc::new(liquidity);

        let gossip = Arc::new(GossipSync::new(graph.clone(), None, log.clone()));
        let watch = MenuWatch::new(Tap::new(liquidity.clone(), pen.clone()));
        let observations = watch.observations();
        let handlers = MessageHandler {
            chan_handler: Tap::new(channel_manager.clone(), pen.clone()),
            route_handler: Tap::new(gossip.clone(), pen.clone()),
            onion_message_handler: Tap::new(onion_messenger.clone(), pen.clone()),
            custom_message_handler: watch,
            send_only_message_handler: IgnoringMessageHandler {},
        };
        let peer_manager = Arc::new(PeerManager::new(
            handlers,
            now.as_secs() as u32,
            &keys.get_secure_random_bytes(),
            log.clone(),
            keys.clone(),
        ));
        let coins = Arc::new(WalletSync::new(wallet.clone(), log.clone()));
        let bump_handler = BumpHandler::new(broadcaster.clone(), coins, keys.clone(), log.clone());

        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listening on {listen}: choose another --listen address"))?;
        let listen = listener.local_addr()?;
        pen.write(What::Started { restored });
        Ok(Arc::new(Self {
            pen,
            clock,
            chain,
            store,
            keys,
            wallet,
            graph,
            leases,
            relay,
            broadcaster,
            chain_monitor,
            channel_manager,
            onion_messenger,
            liquidity,
            observations,
            peer_manager,
            sweeper,
            bump_handler,
            user_config: setup.user_config,
            stopping: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            gossip,
            scorer,
            log,
            listen,
            connecting: tokio::sync::Mutex::new(()),
            runtime: Mutex::new(Runtime {
                lock: Some(lock),
                listener: Some(listener),
                to_broadcast: Some(to_broadcast),
                sync: Some(sync),
                tasks: JoinSet::new(),
                processor: None,
            }),
        }))
    }

    /// Starts everything that goes on by itself.
    pub(crate) fn run<R: Role>(self: &Arc<Self>, role: Arc<R>) {
        let mut runtime = self.runtime.lock().unwrap();
        let listener = runtime.listener.take().expect("a node runs once");
        let to_broadcast = runtime.to_broadcast.take().expect("a node runs once");
        let sync = runtime.sync.take().expect("a node runs once");
        let processor = tokio::spawn(self.clone().process_events(role.clone()));
        runtime.processor = Some(processor);
        let tasks = &mut runtime.tasks;
        tasks.spawn(self.clone().accept_peers(listener));
        tasks.spawn(self.clone().broadcast(to_broadcast));
        tasks.spawn(self.clone().follow_chain(sync));
        tasks.spawn(self.clone().process_poked_events(role.clone()));
        tasks.spawn(self.clone().process_liquidity_events(role.clone()));
        tasks.spawn(self.clone().tick(role));
    }

    /// LDK's loop: events, forwards, timers and persistence.
    async fn process_events<R: Role>(self: Arc<Self>, role: Arc<R>) {
        let closing = self.closing.subscribe();
        let sleeper = move |duration| {
            let mut closing = closing.clone();
            Box::pin(async move {
                tokio::select! {
                    () = tokio::time::sleep(duration) => false,
                    _ = closing.wait_for(|close| *close) => true,
                }
            })
        };
        let clock = self.clock.clone();
        background::process_events_async(
            self.store.clone(),
            |event| role.on_event(event),
            self.chain_monitor.clone(),
            self.channel_manager.clone(),
            Some(self.onion_messenger.clone()),
            background::GossipSync::p2p(self.gossip.clone()),
            self.peer_manager.clone(),
            Some(self.liquidity.clone()),
            Some(self.sweeper.clone()),
            self.log.clone(),
            Some(self.scorer.clone()),
            sleeper,
            false,
            || Some(clock.duration_since_epoch()),
        )
        .await
        .expect("the disk takes the node's state");
    }

    /// Events that a static invoice server's LDK queues without waking its loop.
    ///
    /// Do not wait for LDK's own futures beside its loop to do this: they are made for one waiter,
    /// and the loop would miss what wakes this task.
    async fn process_poked_events<R: Role>(self: Arc<Self>, role: Arc<R>) {
        let handler = |event| role.on_event(event);
        self.until_stopped(async {
            loop {
                self.pen.poke.notified().await;
                self.channel_manager.process_pending_events_async(handler).await;
                self.peer_manager.process_events();
            }
        })
        .await;
    }

    async fn process_liquidity_events<R: Role>(self: Arc<Self>, role: Arc<R>) {
        self.until_stopped(async {
            loop {
                role.on_liquidity_event(self.liquidity.next_event_async().await).await;
            }
        })
        .await;
    }

    async fn tick<R: Role>(self: Arc<Self>, role: Arc<R>) {
        self.until_stopped(async {
            let mut every_second = tokio::time::interval(Duration::from_secs(1));
            loop {
                tokio::select! {
                    _ = every_second.tick() => {},
                    () = self.pen.channel_announced.notified() => {},
                }
                self.reconnect().await;
                role.on_tick().await;
            }
        })
        .await;
    }

    async fn broadcast(
        self: Arc<Self>,
        mut queue: mpsc::UnboundedReceiver<(Vec<bitcoin::Transaction>, String)>,
    ) {
        self.until_stopped(async {
            while let Some((txs, purpose)) = queue.recv().await {
                let error = self.chain.broadcast(&txs).await.err().map(|e| e.to_string());
                for tx in &txs {
                    self.pen.write(What::Broadcast {
                        txid: tx.compute_txid().to_string(),
                        purpose: purpose.clone(),
                        error: error.clone(),
                    });
                }
            }
        })
        .await;
    }

    async fn follow_chain(self: Arc<Self>, (cache, tip): (HeaderCache, ValidatedBlockHeader)) {
        let mut known = tip.to_block_locator().block_hash;
        let poller = ChainPoller::new(Arc::new(self.chain.clone()), Network::Regtest);
        let mut client = SpvClient::new(tip, poller, cache, self.clone());
        self.until_stopped(async {
            loop {
                self.chain.wait_for_new_tip(known).await;
                // An unreachable chain is asked again: it may come back.
                let Ok(tip) = self.chain.tip().await else {
                    continue;
                };
                if client.poll_best_tip().await.is_ok() {
                    known = tip;
                    // LDK queues what a block calls for, such as announcement signatures.
                    self.peer_manager.process_events();
                    let height = self.channel_manager.current_best_block().height;
                    self.pen.write(What::Block { height });
                }
            }
        })
        .await;
    }

    async fn until_stopped(&self, work: impl Future<Output = ()>) {
        let mut stopping = self.stopping.subscribe();
        tokio::select! {
            () = work => {},
            _ = stopping.wait_for(|stop| *stop) => {},
        }
    }

    /// Stops the node and writes its last state. Its folder may then be started again.
    pub async fn stop(&self) {
        self.stopping.send_replace(true);
        let mut tasks = std::mem::take(&mut self.runtime.lock().unwrap().tasks);
        while let Some(task) = tasks.join_next().await {
            task.expect("a node's tasks end by themselves");
        }
        // Nothing may change a channel after the manager is written for the last time.
        self.peer_manager.disconnect_all_peers();
        self.closing.send_replace(true);
        let processor = self.runtime.lock().unwrap().processor.take();
        if let Some(processor) = processor {
            processor.await.expect("LDK's loop ends by itself");
        }
        self.pen.write(What::Stopped);
        self.runtime.lock().unwrap().lock.take();
    }

    /// This node's id.
    pub fn id(&self) -> PublicKey {
        self.channel_manager.get_our_node_id()
    }

    /// Where this node takes connections.
    pub fn address(&self) -> SocketAddr {
        self.listen
    }

    /// Seconds since the Unix epoch, by this node's clock.
    pub fn now(&self) -> Duration {
        self.clock.duration_since_epoch()
    }

    /// This node's clock, for tests that set it forward.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The name in the transcript of the node with this id.
    pub(crate) fn name_of(&self, node_id: &PublicKey) -> String {
        self.pen.transcript.name_of(node_id)
    }

    /// LDK's channel manager, for what this crate does not wrap.
    pub fn channel_manager(&self) -> &ChannelManager {
        &self.channel_manager
    }

    /// A new id for a channel, by which this node recognises it in events.
    pub(crate) fn random_channel_id(&self) -> u128 {
        let bytes = self.keys.get_secure_random_bytes();
        u128::from_be_bytes(bytes[..16].try_into().expect("16 of 32 bytes"))
    }

    /// Writes the network graph, which LDK's loop does only every hour.
    pub(crate) fn save_graph(&self) -> Result<()> {
        Ok(self.store.write("", "", NETWORK_GRAPH_PERSISTENCE_KEY, self.graph.encode())?)
    }
}

/// Each block goes to everything that has to know it.
impl Listen for Node {
    fn block_connected(&self, block: &Block, height: u32) {
        self.channel_manager.block_connected(block, height);
        self.chain_monitor.block_connected(block, height);
        self.sweeper.block_connected(block, height);
        self.wallet.block_connected(block, height);
    }

    fn filtered_block_connected(&self, _: &bitcoin::block::Header, _: &TransactionData, _: u32) {
        unreachable!("the block source serves full blocks");
    }

    fn blocks_disconnected(&self, fork_point: BlockLocator) {
        self.channel_manager.blocks_disconnected(fork_point);
        self.chain_monitor.blocks_disconnected(fork_point);
        self.sweeper.blocks_disconnected(fork_point);
        self.wallet.blocks_disconnected(fork_point);
    }
}

/// A script of the wallet in `data_dir`, for funding a node before it starts.
pub fn wallet_script(data_dir: &Path) -> Result<ScriptBuf> {
    fs::create_dir_all(data_dir)?;
    let seed = read_or_make_secret(data_dir, "seed")?;
    Wallet::open(&seed, Arc::new(FilesystemStore::new(data_dir.join("store"))))?.script()
}

/// 32 secret bytes that stay the same for the life of the folder.
pub(crate) fn read_or_make_secret(data_dir: &Path, name: &str) -> Result<[u8; 32]> {
    let path = data_dir.join(name);
    if path.exists() {
        let bytes = fs::read(&path)?;
        return bytes.try_into().map_err(|_| anyhow!("{} is not 32 bytes", path.display()));
    }
    let mut secret = [0; 32];
    rand::thread_rng().fill_bytes(&mut secret);
    fs::write(&path, secret).with_context(|| format!("writing {}", path.display()))?;
    Ok(secret)
}

fn lock(data_dir: &Path) -> Result<File> {
    let file = File::create(data_dir.join("lock"))?;
    file.try_lock().map_err(|_| {
        anyhow!("{} is in use by another node: give this one its own --data", data_dir.display())
    })?;
    Ok(file)
}

fn read(store: &Store, primary: &str, key: &str) -> Result<Option<Vec<u8>>> {
    match store.read(primary, "", key) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading {key}")),
    }
}

fn chain_error(error: lightning_block_sync::BlockSourceError) -> anyhow::Error {
    anyhow!("the chain does not answer: {}", error.into_inner())
}
