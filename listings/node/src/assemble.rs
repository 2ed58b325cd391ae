//! A node's parts, one function each, in the order in which they are built: what is on disk is
//! restored, what is not is made.

use anyhow::{Context, Result, anyhow, ensure};
use bitcoin::secp256k1::rand::{self, RngCore};
use bitcoin::{Network, ScriptBuf, Transaction};
use lightning::chain::{BlockLocator, Listen};
use lightning::events::bump_transaction::sync::BumpTransactionEventHandlerSync;
use lightning::io::{Cursor, ErrorKind};
use lightning::ln::channelmanager::{ChainParameters, ChannelManagerReadArgs};
use lightning::ln::peer_handler::{IgnoringMessageHandler, MessageHandler};
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
};
use lightning::sign::{EntropySource, InMemorySigner, KeysManager, NodeSigner, Recipient};
use lightning::util::config::UserConfig;
use lightning::util::logger::Level;
use lightning::util::persist::{
    CHANNEL_MANAGER_PERSISTENCE_KEY, KVStoreSync, NETWORK_GRAPH_PERSISTENCE_KEY,
    OUTPUT_SWEEPER_PERSISTENCE_KEY, SCORER_PERSISTENCE_KEY, read_channel_monitors,
};
use lightning::util::ser::ReadableArgs;
use lightning::util::wallet_utils::WalletSync;
use lightning_block_sync::HeaderCache;
use lightning_block_sync::init::{synchronize_listeners, validate_best_block_header};
use lightning_block_sync::poll::ValidatedBlockHeader;
use lightning_liquidity::lsps2::client::LSPS2ClientConfig;
use lightning_liquidity::lsps2::service::LSPS2ServiceConfig;
use lightning_liquidity::utils::time::TimeProvider;
use lightning_liquidity::{LiquidityClientConfig, LiquidityServiceConfig};
use lsps2_async::negotiate::{MenuWatch, Observations};
use lsps2_async::router::PathPolicy;
use regtest::Chain;
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::sync::{Arc, RwLock};
use tokio::sync::{Notify, mpsc};

use crate::balances::Purse;
use crate::disk::Disk;
use crate::faults::{Life, guards};
use crate::node::NodeConfig;
use crate::paths::written_down;
use crate::relay::Relay;
use crate::tap::{Pen, Tap};
use crate::transcript::What;
use crate::types::*;
use crate::wallet::Wallet;

pub(crate) type BumpHandler = BumpTransactionEventHandlerSync<
    Arc<Broadcaster>,
    Arc<WalletSync<Arc<Wallet>, Arc<Log>>>,
    Arc<KeysManager>,
    Arc<Log>,
>;
/// Transactions on their way to the chain, with their purpose.
pub(crate) type ToBroadcast = mpsc::UnboundedReceiver<(Vec<Transaction>, String)>;
pub(crate) type Synced = (HeaderCache, ValidatedBlockHeader);
type Monitor = lightning::chain::channelmonitor::ChannelMonitor<InMemorySigner>;

/// What everything else stands on: keys, disk, clock, wallet and the way to the chain.
pub(crate) struct Ground {
    pub(crate) chain: Chain,
    pub(crate) store: Store,
    pub(crate) log: Arc<Log>,
    pub(crate) clock: Arc<Clock>,
    pub(crate) keys: Arc<KeysManager>,
    pub(crate) broadcaster: Arc<Broadcaster>,
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) pen: Pen,
    fees: Arc<Fees>,
}

impl Ground {
    pub(crate) fn open(config: &NodeConfig) -> Result<(Self, File, ToBroadcast)> {
        let data_dir = &config.data_dir;
        fs::create_dir_all(data_dir).with_context(|| format!("making {}", data_dir.display()))?;
        let lock = lock(data_dir)?;
        let seed = read_or_make_secret(data_dir, "seed")?;
        let clock = Arc::new(Clock::ahead(config.ahead));
        let now = clock.duration_since_epoch();
        let keys = KeysManager::new(&seed, now.as_secs(), now.subsec_nanos(), true);
        let keys = Arc::new(keys);
        let life = Life::new(config.faults.clone());
        let pen = pen(config, &keys, life.clone())?;
        config.transcript.lend_keys(&config.name, &keys);
        let store = Arc::new(Disk::new(data_dir, life.clone()));
        let (queue, to_broadcast) = mpsc::unbounded_channel();
        let ground = Self {
            chain: config.chain.clone(),
            log: Arc::new(log(data_dir, pen.clone())?),
            clock,
            pen,
            keys,
            broadcaster: Arc::new(Broadcaster { queue, life }),
            wallet: Arc::new(Wallet::open(&seed, store.clone())?),
            store,
            fees: Arc::new(Fees),
        };
        Ok((ground, lock, to_broadcast))
    }

    pub(crate) fn chain_monitor(&self) -> Arc<ChainMonitor> {
        Arc::new(ChainMonitor::new(
            None,
            self.broadcaster.clone(),
            self.log.clone(),
            self.fees.clone(),
            self.store.clone(),
            self.keys.clone(),
            self.keys.get_peer_storage_key(),
            // Monitors are written only after the channel manager: a crash in between would leave
            // a stale manager, and LDK force-closes the channels of a stale manager.
            true,
        ))
    }

    pub(crate) fn graph(&self) -> Result<Arc<Graph>> {
        Ok(Arc::new(match self.read(NETWORK_GRAPH_PERSISTENCE_KEY)? {
            Some(bytes) => Graph::read(&mut Cursor::new(bytes), self.log.clone())
                .map_err(|e| anyhow!("reading the network graph: {e}"))?,
            None => Graph::new(Network::Regtest, self.log.clone()),
        }))
    }

    pub(crate) fn scorer(&self, graph: &Arc<Graph>) -> Result<Arc<Scorer>> {
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = match self.read(SCORER_PERSISTENCE_KEY)? {
            Some(bytes) => {
                let args = (decay, graph.clone(), self.log.clone());
                ProbabilisticScorer::read(&mut Cursor::new(bytes), args)
                    .map_err(|e| anyhow!("reading the scorer: {e}"))?
            }
            None => ProbabilisticScorer::new(decay, graph.clone(), self.log.clone()),
        };
        Ok(Arc::new(RwLock::new(scorer)))
    }

    pub(crate) async fn leases(&self) -> Result<Arc<Leases>> {
        let (leases, unreadable) = Leases::load(self.store.clone()).await?;
        for lease in unreadable {
            self.pen.write(What::Lease {
                state: "unreadable".to_owned(),
                intercept_scid: None,
                detail: json!({ "error": format!("{}: {}", lease.key, lease.reason) }),
            });
        }
        Ok(Arc::new(leases))
    }

    /// LDK's router, wrapped: step 3 of the flow happens in here.
    pub(crate) fn router(
        &self,
        graph: &Arc<Graph>,
        scorer: &Arc<Scorer>,
        leases: &Arc<Leases>,
        paths: PathPolicy,
    ) -> Arc<Router> {
        let fees = ProbabilisticScoringFeeParameters::default();
        let (keys, log) = (self.keys.clone(), self.log.clone());
        let plain = PlainRouter::new(graph.clone(), log, keys.clone(), scorer.clone(), fees);
        let router = Router::new(plain, leases.clone(), keys, self.clock.clone(), paths);
        Arc::new(written_down(router, self.pen.clone()))
    }

    pub(crate) fn monitors(&self) -> Result<Vec<(BlockLocator, Monitor)>> {
        Ok(read_channel_monitors(&*self.store, self.keys.clone(), self.keys.clone())?)
    }

    pub(crate) async fn best_block(&self) -> Result<ValidatedBlockHeader> {
        validate_best_block_header(&self.chain).await.map_err(chain_error)
    }

    /// The channel manager as of the block it saw last; `None` if the folder has none.
    pub(crate) fn stored_manager(
        &self,
        chain_monitor: &Arc<ChainMonitor>,
        router: &Arc<Router>,
        relay: &Arc<Relay>,
        config: &UserConfig,
        monitors: &[(BlockLocator, Monitor)],
    ) -> Result<Option<(BlockLocator, ChannelManager)>> {
        let Some(bytes) = self.read(CHANNEL_MANAGER_PERSISTENCE_KEY)? else {
            ensure!(monitors.is_empty(), "there are channel monitors but no channel manager");
            return Ok(None);
        };
        let args = ChannelManagerReadArgs::new(
            self.keys.clone(),
            self.keys.clone(),
            self.keys.clone(),
            self.fees.clone(),
            chain_monitor.clone(),
            self.broadcaster.clone(),
            router.clone(),
            relay.clone(),
            self.log.clone(),
            config.clone(),
            monitors.iter().map(|(_, monitor)| monitor).collect(),
        );
        let manager = <(BlockLocator, ChannelManager)>::read(&mut Cursor::new(bytes), args);
        Ok(Some(manager.map_err(|e| anyhow!("reading the channel manager: {e}"))?))
    }

    pub(crate) fn new_manager(
        &self,
        chain_monitor: &Arc<ChainMonitor>,
        router: &Arc<Router>,
        relay: &Arc<Relay>,
        config: &UserConfig,
        best: &ValidatedBlockHeader,
    ) -> (BlockLocator, ChannelManager) {
        let best_block = best.to_block_locator();
        let manager = ChannelManager::new(
            self.fees.clone(),
            chain_monitor.clone(),
            self.broadcaster.clone(),
            router.clone(),
            relay.clone(),
            self.log.clone(),
            self.keys.clone(),
            self.keys.clone(),
            self.keys.clone(),
            config.clone(),
            ChainParameters { network: Network::Regtest, best_block },
            best.header.time,
        );
        (best_block, manager)
    }

    pub(crate) fn sweeper(&self, best: &ValidatedBlockHeader) -> Result<(BlockLocator, Sweeper)> {
        let (broadcaster, fees, keys) =
            (self.broadcaster.clone(), self.fees.clone(), self.keys.clone());
        let (wallet, store, log) = (self.wallet.clone(), self.store.clone(), self.log.clone());
        match self.read(OUTPUT_SWEEPER_PERSISTENCE_KEY)? {
            Some(bytes) => {
                let args = (broadcaster, fees, None, keys, wallet, store, log);
                <(BlockLocator, Sweeper)>::read(&mut Cursor::new(bytes), args)
                    .map_err(|e| anyhow!("reading the sweeper: {e}"))
            }
            None => {
                let best = best.to_block_locator();
                let sweeper = Sweeper::new(best, broadcaster, fees, None, keys, wallet, store, log);
                Ok((best, sweeper))
            }
        }
    }

    /// Brings everything that follows the chain to the same block, and hands the monitors over.
    pub(crate) async fn synchronize(
        &self,
        others: Vec<(BlockLocator, &(dyn Listen + Send + Sync))>,
        monitors: Vec<(BlockLocator, Monitor)>,
        chain_monitor: &ChainMonitor,
    ) -> Result<Synced> {
        let (broadcaster, fees, log) = (&self.broadcaster, &self.fees, &self.log);
        let monitors: Vec<_> = monitors
            .into_iter()
            .map(|(block, m)| (block, (m, broadcaster.clone(), fees.clone(), log.clone())))
            .collect();
        let mut listeners = others;
        listeners.extend(monitors.iter().map(|(b, m)| (*b, m as &(dyn Listen + Send + Sync))));
        let synced = synchronize_listeners(&self.chain, Network::Regtest, listeners);
        let synced = synced.await.map_err(chain_error)?;
        for (_, (monitor, ..)) in monitors {
            if self.pen.life.faults().leaves_out(guards::FIRST_MONITOR) {
                let _ = chain_monitor.load_existing_monitor(monitor.channel_id(), monitor);
            } else {
                hand_over(chain_monitor, monitor)?;
            }
        }
        Ok(synced)
    }

    pub(crate) fn onion_messenger(
        &self,
        manager: &Arc<ChannelManager>,
        relay: &Arc<Relay>,
        mailbox: bool,
    ) -> Arc<OnionMessenger> {
        let (keys, log, relay) = (self.keys.clone(), self.log.clone(), relay.clone());
        // ANCHOR: node-messenger-handlers
        let offers = Tap::new(manager.clone(), self.pen.clone());
        let async_payments = Tap::new(manager.clone(), self.pen.clone());
        let (lookup, none) = (manager.clone(), || IgnoringMessageHandler {});
        let (signer, dns, custom) = (keys.clone(), none(), none());
        // ANCHOR_END: node-messenger-handlers
        Arc::new(match mailbox {
            // Next hops are named by node id here, never by an SCID that is unknown to us: `false`.
            // ANCHOR: node-mailbox-messenger
            true => OnionMessenger::new_with_offline_peer_interception(
                keys,
                signer,
                log,
                lookup,
                relay,
                offers,
                async_payments,
                dns,
                custom,
                false,
            ),
            // ANCHOR_END: node-mailbox-messenger
            // ANCHOR: node-plain-messenger
            false => OnionMessenger::new(
                keys,
                signer,
                log,
                lookup,
                relay,
                offers,
                async_payments,
                dns,
                custom,
            ),
            // ANCHOR_END: node-plain-messenger
        })
    }

    /// With a promise secret, the node sells leases; without, it buys them.
    pub(crate) async fn liquidity(
        &self,
        manager: &Arc<ChannelManager>,
        promise_secret: Option<[u8; 32]>,
    ) -> Result<Arc<LiquidityManager>> {
        // ANCHOR: node-service-config
        let service = promise_secret.map(|promise_secret| LiquidityServiceConfig {
            lsps1_service_config: None,
            lsps2_service_config: Some(LSPS2ServiceConfig { promise_secret }),
            lsps5_service_config: None,
            advertise_service: true,
        });
        // ANCHOR_END: node-service-config
        // ANCHOR: node-client-config
        let client = service.is_none().then(|| LiquidityClientConfig {
            lsps1_client_config: None,
            lsps2_client_config: Some(LSPS2ClientConfig::default()),
            lsps5_client_config: None,
        });
        // ANCHOR_END: node-client-config
        // ANCHOR: node-liquidity-manager
        let liquidity = LiquidityManager::new_with_custom_time_provider(
            self.keys.clone(),
            self.keys.clone(),
            manager.clone(),
            self.broadcaster.clone(),
            self.store.clone(),
            service,
            client,
            self.clock.clone(),
        );
        Ok(Arc::new(liquidity.await.context("reading the liquidity manager")?))
        // ANCHOR_END: node-liquidity-manager
    }

    pub(crate) fn gossip(&self, graph: &Arc<Graph>) -> Arc<GossipSync> {
        Arc::new(GossipSync::new(graph.clone(), None, self.log.clone()))
    }

    /// Every handler with a tap around it. The observations are what LDK drops from an LSP's
    /// answers.
    pub(crate) fn peer_manager(
        &self,
        manager: &Arc<ChannelManager>,
        gossip: &Arc<GossipSync>,
        onion_messenger: &Arc<OnionMessenger>,
        liquidity: &Arc<LiquidityManager>,
    ) -> (Arc<PeerManager>, Observations) {
        // ANCHOR: node-peer-handlers
        let watch = MenuWatch::new(Tap::new(liquidity.clone(), self.pen.clone()));
        let observations = watch.observations();
        let handlers = MessageHandler {
            chan_handler: Tap::new(manager.clone(), self.pen.clone()),
            route_handler: Tap::new(gossip.clone(), self.pen.clone()),
            onion_message_handler: Tap::new(onion_messenger.clone(), self.pen.clone()),
            custom_message_handler: watch,
            send_only_message_handler: IgnoringMessageHandler {},
        };
        // ANCHOR_END: node-peer-handlers
        let now = self.clock.duration_since_epoch().as_secs() as u32;
        let random = self.keys.get_secure_random_bytes();
        let (log, keys) = (self.log.clone(), self.keys.clone());
        (Arc::new(PeerManager::new(handlers, now, &random, log, keys)), observations)
    }

    pub(crate) fn bump_handler(&self) -> BumpHandler {
        let coins = Arc::new(WalletSync::new(self.wallet.clone(), self.log.clone()));
        BumpHandler::new(self.broadcaster.clone(), coins, self.keys.clone(), self.log.clone())
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>> {
        match self.store.read("", "", key) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("reading {key}")),
        }
    }
}

/// A script of the wallet in `data_dir`, for funding a node before it starts.
pub fn wallet_script(data_dir: &Path) -> Result<ScriptBuf> {
    fs::create_dir_all(data_dir)?;
    let seed = read_or_make_secret(data_dir, "seed")?;
    Wallet::open(&seed, Arc::new(Disk::plain(data_dir)))?.script()
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

fn log(data_dir: &Path, pen: Pen) -> Result<Log> {
    let file = OpenOptions::new().create(true).append(true).open(data_dir.join("node.log"))?;
    Ok(Log::new(file, Level::Debug, pen))
}

fn pen(config: &NodeConfig, keys: &KeysManager, life: Arc<Life>) -> Result<Pen> {
    let node_id = keys.get_node_id(Recipient::Node).map_err(|()| anyhow!("no node id"))?;
    config.transcript.introduce(node_id, &config.name);
    Ok(Pen {
        transcript: config.transcript.clone(),
        name: config.name.clone(),
        poke: Arc::new(Notify::new()),
        channel_announced: Arc::new(Notify::new()),
        purse: Purse::new(&config.name, &config.transcript, life.clone()),
        life,
    })
}

/// Hands a monitor over as it was read from the disk.
///
/// At its first state, the node may have died before the channel manager was written again. Of later
/// states LDK then notices that they are on disk. Of the first it does not: without the second call
/// the channel would wait for that write for ever.
fn hand_over(chain_monitor: &ChainMonitor, monitor: Monitor) -> Result<()> {
    let (channel_id, state) = (monitor.channel_id(), monitor.get_latest_update_id());
    chain_monitor
        .load_existing_monitor(channel_id, monitor)
        .map_err(|()| anyhow!("two monitors for channel {channel_id}"))?;
    if state == 0 {
        // Of a channel that waits for nothing LDK takes no note of it.
        chain_monitor
            .channel_monitor_updated(channel_id, state)
            .map_err(|e| anyhow!("channel {channel_id} cannot go on: {e:?}"))?;
    }
    Ok(())
}

fn chain_error(error: lightning_block_sync::BlockSourceError) -> anyhow::Error {
    anyhow!("the chain does not answer: {}", error.into_inner())
}
