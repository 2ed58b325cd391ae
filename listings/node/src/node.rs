//! What every node has, whatever its role: LDK's parts, wired together and restored from a folder.

use anyhow::{Context, Result};
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Block, Network, Transaction};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning::events::{Event, ReplayEvent};
use lightning::sign::{EntropySource, KeysManager};
use lightning::util::config::UserConfig;
use lightning::util::persist::{KVStoreSync, NETWORK_GRAPH_PERSISTENCE_KEY};
use lightning::util::ser::Writeable;
use lightning_background_processor as background;
use lightning_block_sync::SpvClient;
use lightning_block_sync::poll::ChainPoller;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::utils::time::TimeProvider;
use lsps2_async::negotiate::Observations;
use lsps2_async::router::PathPolicy;
use regtest::{BroadcastError, Chain};
use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use crate::assemble::{BumpHandler, Ground, Synced, ToBroadcast};
use crate::faults::Faults;
use crate::relay::Relay;
use crate::tap::Pen;
use crate::transcript::{Transcript, What};
use crate::types::*;
use crate::wallet::Wallet;

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
    /// Where it dies on purpose; none by default.
    pub faults: Faults,
    /// How far its clock is ahead of the system's when it starts.
    pub ahead: Duration,
    /// Flags of LDK that this node has beside its role's.
    pub flags: fn(&mut UserConfig),
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
    pub(crate) connecting: Mutex<HashMap<PublicKey, Arc<tokio::sync::Mutex<()>>>>,
    /// How many nodes named by strangers are being connected at a time.
    pub(crate) strangers: Arc<Semaphore>,
    /// How often this node has announced itself since it started.
    pub(crate) announced: AtomicU32,
    runtime: Mutex<Runtime>,
}

/// What is used up when the node runs and stops.
#[derive(Default)]
struct Runtime {
    lock: Option<File>,
    listener: Option<TcpListener>,
    to_broadcast: Option<ToBroadcast>,
    sync: Option<Synced>,
    tasks: JoinSet<()>,
    processor: Option<JoinHandle<()>>,
    /// Cuts LDK's loop off where it stands.
    cut: Option<AbortHandle>,
}

impl Node {
    /// Restores the node of a folder, or makes a new one there. It does nothing before `run`.
    pub(crate) async fn build(config: NodeConfig, setup: Setup) -> Result<Arc<Self>> {
        let Setup { mut user_config, mailbox, promise_secret, paths } = setup;
        (config.flags)(&mut user_config);
        let (ground, lock, to_broadcast) = Ground::open(&config)?;
        // ANCHOR: node-build-order
        let (graph, leases) = (ground.graph()?, ground.leases().await?);
        let scorer = ground.scorer(&graph)?;
        let router = ground.router(&graph, &scorer, &leases, paths);
        let relay = Arc::new(Relay::new(graph.clone(), ground.keys.clone()));

        // The channel manager is read against the monitors, and all of them meet at one block.
        let (monitors, chain_monitor) = (ground.monitors()?, ground.chain_monitor());
        let best = ground.best_block().await?;
        let stored =
            ground.stored_manager(&chain_monitor, &router, &relay, &user_config, &monitors)?;
        let restored = stored.is_some();
        let (manager_at, manager) = stored.unwrap_or_else(|| {
            ground.new_manager(&chain_monitor, &router, &relay, &user_config, &best)
        });
        let channel_manager = Arc::new(manager);
        ground.pen.purse.fill(&channel_manager, &chain_monitor, &ground.wallet);
        // ANCHOR_END: node-build-order
        let (sweeper_at, sweeper) = ground.sweeper(&best)?;
        let followers: Vec<(_, &(dyn Listen + Send + Sync))> = vec![
            (manager_at, &*channel_manager),
            (sweeper_at, &sweeper),
            (ground.wallet.best_block(), &*ground.wallet),
            (ground.wallet.best_block(), &*ground.pen.purse),
        ];
        let sync = ground.synchronize(followers, monitors, &chain_monitor).await?;

        // ANCHOR: node-build-handlers
        let onion_messenger = ground.onion_messenger(&channel_manager, &relay, mailbox);
        let liquidity = ground.liquidity(&channel_manager, promise_secret).await?;
        let gossip = ground.gossip(&graph);
        let (peer_manager, observations) =
            ground.peer_manager(&channel_manager, &gossip, &onion_messenger, &liquidity);
        // ANCHOR_END: node-build-handlers
        let listener = listen(config.listen).await?;
        let sweeper = Arc::new(sweeper);
        ground.pen.purse.watch(&sweeper);
        ground.pen.write(What::Started { restored });
        ground.pen.purse.weigh();
        Ok(Arc::new(Self {
            bump_handler: ground.bump_handler(),
            pen: ground.pen,
            clock: ground.clock,
            chain: ground.chain,
            store: ground.store,
            keys: ground.keys,
            wallet: ground.wallet,
            broadcaster: ground.broadcaster,
            log: ground.log,
            graph,
            leases,
            relay,
            chain_monitor,
            channel_manager,
            onion_messenger,
            liquidity,
            observations,
            peer_manager,
            sweeper,
            user_config,
            stopping: watch::Sender::new(false),
            closing: watch::Sender::new(false),
            gossip,
            scorer,
            listen: listener.local_addr()?,
            connecting: Mutex::default(),
            strangers: Arc::new(Semaphore::new(4)),
            announced: AtomicU32::new(0),
            runtime: Mutex::new(Runtime {
                lock: Some(lock),
                listener: Some(listener),
                to_broadcast: Some(to_broadcast),
                sync: Some(sync),
                tasks: JoinSet::new(),
                processor: None,
                cut: None,
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
        runtime.cut = Some(processor.abort_handle());
        let processor = tokio::spawn(self.clone().watch_over(processor));
        runtime.processor = Some(processor);
        let tasks = &mut runtime.tasks;
        tasks.spawn(self.clone().accept_peers(listener));
        tasks.spawn(self.clone().keep_connected());
        tasks.spawn(self.clone().broadcast(to_broadcast));
        tasks.spawn(self.clone().follow_chain(sync));
        tasks.spawn(self.clone().process_poked_events(role.clone()));
        tasks.spawn(self.clone().process_liquidity_events(role.clone()));
        tasks.spawn(self.clone().tick(role));
    }

    /// A node whose loop has died looks alive and keeps nothing: it goes off line instead.
    async fn watch_over(self: Arc<Self>, processor: JoinHandle<()>) {
        let ended = processor.await;
        if !*self.closing.borrow() && !self.pen.life.is_over() {
            eprintln!("{}: LDK's loop has ended, so this node stops: {ended:?}", self.pen.name);
            self.stopping.send_replace(true);
            self.peer_manager.disconnect_all_peers();
            self.pen.write(What::Stopped);
        }
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
        // ANCHOR: node-background-loop
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
            // By this, stale gossip goes: by a clock that is set ahead, all of it would.
            || Some(system_time()),
        )
        .await
        // ANCHOR_END: node-background-loop
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
                role.on_tick().await;
            }
        })
        .await;
    }

    async fn broadcast(self: Arc<Self>, mut queue: ToBroadcast) {
        self.until_stopped(async {
            while let Some((transactions, purpose)) = queue.recv().await {
                self.broadcast_package(transactions, purpose).await;
            }
        })
        .await;
        // What was handed over is not lost because the node stops.
        while let Ok((transactions, purpose)) = queue.try_recv() {
            self.broadcast_package(transactions, purpose).await;
        }
    }

    async fn broadcast_package(&self, transactions: Vec<Transaction>, purpose: String) {
        if self.pen.life.is_over() {
            return;
        }
        let error = self.chain.broadcast(&transactions).await.err();
        // A chain that was away is asked again at the next block; what it refused is not ours.
        let sent = !matches!(error, Some(BroadcastError::Rejected { .. }));
        let error = error.map(|e| e.to_string());
        for transaction in &transactions {
            if sent {
                self.wallet.note_broadcast(transaction);
            }
            if sent && purpose == "Sweep" {
                self.pen.purse.note_transaction(transaction);
            }
            self.pen.purse.weigh();
            let txid = transaction.compute_txid().to_string();
            let (purpose, error) = (purpose.clone(), error.clone());
            self.pen.write(What::Broadcast { txid, purpose, error });
        }
    }

    async fn follow_chain(self: Arc<Self>, (cache, tip): Synced) {
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
                    self.pen.purse.weigh();
                    let height = self.channel_manager.current_best_block().height;
                    self.pen.write(What::Block { height });
                    self.broadcast_again();
                }
            }
        })
        .await;
    }

    /// Once is not enough: the chain may have been away, or have dropped it.
    fn broadcast_again(&self) {
        for transaction in self.wallet.unconfirmed() {
            self.broadcast_now(transaction);
        }
    }

    pub(crate) async fn until_stopped(&self, work: impl Future<Output = ()>) {
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
        self.pen.purse.weigh();
        self.pen.write(What::Stopped);
        self.runtime.lock().unwrap().lock.take();
    }

    /// Ends the node as a crash does, as nearly as it can among others in one process: from now on
    /// nothing of it reaches the disk, a peer, the chain or the transcript, and no last state is
    /// written. When this returns, its folder may be started again.
    pub async fn crash(&self) {
        self.pen.life.end();
        let (mut tasks, processor) = {
            let mut runtime = self.runtime.lock().unwrap();
            if let Some(cut) = runtime.cut.take() {
                cut.abort();
            }
            (std::mem::take(&mut runtime.tasks), runtime.processor.take())
        };
        // Those that are no task of this node's own end with it, too.
        self.stopping.send_replace(true);
        tasks.shutdown().await;
        if let Some(processor) = processor {
            let _ = processor.await;
        }
        self.peer_manager.disconnect_all_peers();
        self.pen.life.settled().await;
        self.pen.transcript.record(&self.pen.name, What::Stopped);
        self.runtime.lock().unwrap().lock.take();
    }

    /// The faults this node was started with: they may be armed at any time.
    pub fn faults(&self) -> &Faults {
        self.pen.life.faults()
    }

    /// Whether a fault has ended this node: nothing of it leaves it any more, and it is to be crashed.
    /// Unlike [`Faults::fired`], this does not change when another fault is armed.
    pub fn has_died(&self) -> bool {
        self.pen.life.is_over()
    }

    /// The node passes one of the points at which a test may have it die.
    pub(crate) fn point(&self, point: &str) {
        self.pen.life.point(point);
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

    /// The liquidity manager, for what this crate does not wrap.
    pub fn liquidity(&self) -> &LiquidityManager {
        &self.liquidity
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
        self.pen.purse.block_connected(block, height);
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

async fn listen(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}: choose another --listen address"))
}
