//! LDK's generic types, with what these nodes put into them.

use bitcoin::Transaction;
use lightning::chain::Filter;
use lightning::chain::chaininterface::{
    BroadcasterInterface, ConfirmationTarget, FeeEstimator, TransactionType,
};
use lightning::chain::chainmonitor;
use lightning::ln::channelmanager;
use lightning::ln::peer_handler::{self, IgnoringMessageHandler};
use lightning::onion_message::messenger;
use lightning::routing::gossip;
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{ProbabilisticScorer, ProbabilisticScoringFeeParameters};
use lightning::routing::utxo::UtxoLookup;
use lightning::sign::{InMemorySigner, KeysManager};
use lightning::util::logger::{Level, Logger, Record};
use lightning::util::sweep;
use lightning_liquidity::lsps2::service::LSPS2ServiceHandler;
use lightning_liquidity::utils::time::TimeProvider;
use lightning_net_tokio::SocketDescriptor;
use lsps2_async::lease::LeaseStore;
use lsps2_async::negotiate::MenuWatch;
use lsps2_async::router::JitRouter;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;

use crate::disk::Disk;
use crate::faults::Life;
use crate::relay::Relay;
use crate::tap::{Pen, Tap};
use crate::wallet::Wallet;

pub(crate) type Store = Arc<Disk>;
pub(crate) type Leases = LeaseStore<Store>;
pub(crate) type Graph = gossip::NetworkGraph<Arc<Log>>;
pub(crate) type Scorer = RwLock<ProbabilisticScorer<Arc<Graph>, Arc<Log>>>;
// ANCHOR: node-router-types
pub(crate) type PlainRouter = DefaultRouter<
    Arc<Graph>,
    Arc<Log>,
    Arc<KeysManager>,
    Arc<Scorer>,
    ProbabilisticScoringFeeParameters,
    ProbabilisticScorer<Arc<Graph>, Arc<Log>>,
>;
pub(crate) type Router = JitRouter<PlainRouter, Arc<Leases>, Arc<KeysManager>, Arc<Clock>>;
// ANCHOR_END: node-router-types
pub(crate) type ChainMonitor = chainmonitor::ChainMonitor<
    InMemorySigner,
    Arc<dyn Filter + Send + Sync>,
    Arc<Broadcaster>,
    Arc<Fees>,
    Arc<Log>,
    Store,
    Arc<KeysManager>,
>;
/// The channel manager of these nodes.
// ANCHOR: node-manager-type
pub type ChannelManager = channelmanager::ChannelManager<
    Arc<ChainMonitor>,
    Arc<Broadcaster>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Fees>,
    Arc<Router>,
    Arc<Relay>,
    Arc<Log>,
>;
// ANCHOR_END: node-manager-type
// ANCHOR: node-messenger-type
pub(crate) type OnionMessenger = messenger::OnionMessenger<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<Log>,
    Arc<ChannelManager>,
    Arc<Relay>,
    Tap<Arc<ChannelManager>>,
    Tap<Arc<ChannelManager>>,
    IgnoringMessageHandler,
    IgnoringMessageHandler,
>;
// ANCHOR_END: node-messenger-type
/// The liquidity manager of these nodes.
// ANCHOR: node-liquidity-type
pub type LiquidityManager = lightning_liquidity::LiquidityManager<
    Arc<KeysManager>,
    Arc<KeysManager>,
    Arc<ChannelManager>,
    Store,
    Arc<Clock>,
    Arc<Broadcaster>,
>;
// ANCHOR_END: node-liquidity-type
pub(crate) type Lsps2Service = LSPS2ServiceHandler<Arc<ChannelManager>, Store, Arc<Broadcaster>>;
pub(crate) type GossipSync =
    gossip::P2PGossipSync<Arc<Graph>, Arc<dyn UtxoLookup + Send + Sync>, Arc<Log>>;
// ANCHOR: node-peer-manager-type
pub(crate) type PeerManager = peer_handler::PeerManager<
    SocketDescriptor,
    Tap<Arc<ChannelManager>>,
    Tap<Arc<GossipSync>>,
    Tap<Arc<OnionMessenger>>,
    Arc<Log>,
    MenuWatch<Tap<Arc<LiquidityManager>>>,
    Arc<KeysManager>,
    IgnoringMessageHandler,
>;
// ANCHOR_END: node-peer-manager-type
pub(crate) type Sweeper = sweep::OutputSweeper<
    Arc<Broadcaster>,
    Arc<Wallet>,
    Arc<Fees>,
    Arc<dyn Filter + Send + Sync>,
    Store,
    Arc<Log>,
    Arc<KeysManager>,
>;

/// The node's clock: the system's, which a test may set forward.
#[derive(Default)]
pub struct Clock {
    ahead: Mutex<Duration>,
}

impl Clock {
    /// A clock that is this far ahead of the system's.
    pub fn ahead(by: Duration) -> Self {
        Self { ahead: Mutex::new(by) }
    }

    /// Sets this clock forward.
    pub fn advance(&self, by: Duration) {
        *self.ahead.lock().unwrap() += by;
    }
}

impl TimeProvider for Clock {
    fn duration_since_epoch(&self) -> Duration {
        system_time() + *self.ahead.lock().unwrap()
    }
}

/// Seconds since the Unix epoch by the system's clock, which is the one LDK dates its gossip by.
pub(crate) fn system_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970")
}

/// Fee rates for a chain on which every fee is enough.
pub struct Fees;

impl FeeEstimator for Fees {
    fn get_est_sat_per_1000_weight(&self, _: ConfirmationTarget) -> u32 {
        500
    }
}

/// Hands LDK's transactions to the task that talks to the chain.
pub struct Broadcaster {
    pub(crate) queue: mpsc::UnboundedSender<(Vec<Transaction>, String)>,
    pub(crate) life: Arc<Life>,
}

impl BroadcasterInterface for Broadcaster {
    fn broadcast_transactions(&self, txs: &[(&Transaction, TransactionType)]) {
        if self.life.is_over() {
            return;
        }
        let purpose = txs.first().map(|(_, purpose)| name_of(purpose)).unwrap_or_default();
        let txs = txs.iter().map(|(tx, _)| (*tx).clone()).collect();
        // Fails only while the node stops; LDK broadcasts again after the restart.
        let _ = self.queue.send((txs, purpose));
    }
}

/// The variant's name, without its fields.
fn name_of(purpose: &TransactionType) -> String {
    let debug = format!("{purpose:?}");
    debug.split([' ', '{', '(']).next().unwrap_or_default().to_owned()
}

/// LDK's log, in the file `node.log` of the node's folder.
pub struct Log {
    file: Mutex<File>,
    level: Level,
    pen: Pen,
}

impl Log {
    pub(crate) fn new(file: File, level: Level, pen: Pen) -> Self {
        Self { file: Mutex::new(file), level, pen }
    }
}

impl Logger for Log {
    fn log(&self, record: Record) {
        self.pen.read_in_log(&record);
        if record.level >= self.level {
            let mut file = self.file.lock().unwrap();
            // A full disk must not stop the node for the sake of its log.
            let _ = writeln!(file, "{:<5} {} {}", record.level, record.module_path, record.args);
        }
    }
}
