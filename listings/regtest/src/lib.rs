//! The blockchain under the Lightning nodes of this guide: a Bitcoin regtest chain.
//!
//! A node sees one type, [`Chain`], and cannot tell which of two implementations it was given:
//!
//! * [`EmbeddedChain`]: a chain inside this process, with real proof of work (at regtest
//!   difficulty), a UTXO set, a mempool, and every input script checked by the consensus code of
//!   Bitcoin Core. It needs no other program. [`serve`] offers it to other processes.
//! * [`RpcChain`]: Bitcoin Core (or a served embedded chain) over JSON-RPC.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> anyhow::Result<()> {
//! use bitcoin::ScriptBuf;
//! use regtest::Chain;
//!
//! let chain = Chain::embedded();
//! let miner = ScriptBuf::from_hex("51")?; // OP_TRUE: anyone can spend it
//! let blocks = chain.mine(101, &miner).await?;
//! assert_eq!(chain.height().await?, 101);
//! assert_eq!(chain.tip().await?, blocks[100]);
//! # Ok(()) }
//! ```
//!
//! What the embedded chain does not do: it is consensus only, plus the few mempool rules named in
//! [`embedded`]. Bitcoin Core also has a relay policy (minimum fee rate, dust, standard scripts,
//! TRUC), so a transaction that the embedded chain takes can still be refused by `bitcoind`.

pub mod bitcoind;
pub mod embedded;
mod error;
pub mod server;

use std::path::Path;

use anyhow::Result;
use bitcoin::{BlockHash, OutPoint, Script, Transaction, Txid};
use lightning_block_sync::gossip::UtxoSource;
use lightning_block_sync::{BlockData, BlockHeaderData, BlockSource, BlockSourceResult};

pub use bitcoind::{RpcAuth, RpcChain};
pub use embedded::EmbeddedChain;
pub use error::BroadcastError;
pub use server::serve;

/// A regtest chain. Clones share the same chain and cost one reference count.
#[derive(Clone, Debug)]
pub enum Chain {
    /// Inside this process.
    Embedded(EmbeddedChain),
    /// Behind a JSON-RPC server.
    Rpc(RpcChain),
}

impl Chain {
    /// A fresh chain inside this process which holds only the regtest genesis block.
    pub fn embedded() -> Chain {
        Chain::Embedded(EmbeddedChain::new())
    }

    /// Starts `exe`, a Bitcoin Core daemon, on a fresh regtest chain in a temporary folder.
    ///
    /// When the last clone is dropped, the daemon is killed and its folder removed.
    ///
    /// # Errors
    ///
    /// If the program does not start or does not answer within 60 seconds; the error then ends
    /// with what it logged.
    pub async fn bitcoind_temporary(exe: &Path) -> Result<Chain> {
        Ok(Chain::Rpc(RpcChain::start_temporary(exe).await?))
    }

    /// Connects to a running `bitcoind -regtest`, or to a [served](serve) embedded chain, at
    /// `addr`, given as `host:port`.
    ///
    /// # Errors
    ///
    /// If nothing answers, if the credentials are refused, and for any chain other than regtest.
    pub async fn rpc(addr: &str, auth: RpcAuth) -> Result<Chain> {
        Ok(Chain::Rpc(RpcChain::connect(addr, auth).await?))
    }

    /// Hands a package of transactions, parents before children, to the mempool.
    ///
    /// A transaction that is already in the mempool or in the chain counts as a success.
    ///
    /// # Errors
    ///
    /// The first refused transaction, with the reason. Those before it stay in the mempool.
    pub async fn broadcast(&self, txs: &[Transaction]) -> Result<(), BroadcastError> {
        match self {
            Chain::Embedded(chain) => chain.broadcast(txs),
            Chain::Rpc(chain) => chain.broadcast(txs).await,
        }
    }

    /// Whether the mempool would take this transaction, without handing it over. One that is there
    /// already, or in the chain, counts as taken.
    ///
    /// # Errors
    ///
    /// If it would be refused, with the reason.
    pub async fn would_take(&self, tx: &Transaction) -> Result<(), BroadcastError> {
        match self {
            Chain::Embedded(chain) => chain.would_take(tx),
            Chain::Rpc(chain) => chain.would_take(tx).await,
        }
    }

    /// Mines `blocks` blocks with what the mempool holds; each pays its subsidy (50 BTC, halved
    /// every 150 blocks) and fees to `pay_to`. Such a payment can be spent 100 blocks later.
    ///
    /// # Errors
    ///
    /// If the RPC server fails.
    pub async fn mine(&self, blocks: u32, pay_to: &Script) -> Result<Vec<BlockHash>> {
        match self {
            Chain::Embedded(chain) => chain.mine(blocks, pay_to).await,
            Chain::Rpc(chain) => chain.mine(blocks, pay_to).await,
        }
    }

    /// The transactions that wait for a block.
    ///
    /// # Errors
    ///
    /// If the RPC server fails.
    pub async fn mempool(&self) -> Result<Vec<Txid>> {
        match self {
            Chain::Embedded(chain) => Ok(chain.mempool()),
            Chain::Rpc(chain) => chain.mempool().await,
        }
    }

    /// Looks up a transaction in the mempool and in the chain.
    ///
    /// A `bitcoind` which was started without `-txindex=1` only finds those in its mempool.
    ///
    /// # Errors
    ///
    /// If the RPC server fails.
    pub async fn transaction(&self, txid: Txid) -> Result<Option<Transaction>> {
        match self {
            Chain::Embedded(chain) => Ok(chain.transaction(txid)),
            Chain::Rpc(chain) => chain.transaction(txid).await,
        }
    }

    /// The height of the tip in blocks. The genesis block has height 0.
    ///
    /// # Errors
    ///
    /// If the RPC server fails.
    pub async fn height(&self) -> Result<u32> {
        match self {
            Chain::Embedded(chain) => Ok(chain.height()),
            Chain::Rpc(chain) => chain.height().await,
        }
    }

    /// The hash of the last block of the best chain.
    ///
    /// # Errors
    ///
    /// If the RPC server fails.
    pub async fn tip(&self) -> Result<BlockHash> {
        match self {
            Chain::Embedded(chain) => Ok(chain.tip()),
            Chain::Rpc(chain) => chain.tip().await,
        }
    }

    /// Waits until the tip is not `known`; returns at once if it already differs.
    ///
    /// While an RPC server does not answer, this keeps waiting. It can be cancelled at any time.
    pub async fn wait_for_new_tip(&self, known: BlockHash) {
        match self {
            Chain::Embedded(chain) => chain.wait_for_new_tip(known).await,
            Chain::Rpc(chain) => chain.wait_for_new_tip(known).await,
        }
    }

    /// Drops the last `depth` blocks, for tests of reorganisations. Their transactions, except
    /// coinbases, return to the mempool if they are still valid.
    ///
    /// A node follows the chain with the most work, so it takes notice only once more than
    /// `depth` new blocks have been mined.
    ///
    /// # Errors
    ///
    /// If the chain has fewer than `depth` blocks above the genesis block, or if the RPC server
    /// fails.
    pub async fn invalidate_tip(&self, depth: u32) -> Result<()> {
        match self {
            Chain::Embedded(chain) => chain.invalidate_tip(depth),
            Chain::Rpc(chain) => chain.invalidate_tip(depth).await,
        }
    }

    /// Which implementation this is: `"embedded"` or `"bitcoind"` (which also stands for a served
    /// embedded chain).
    pub fn kind(&self) -> &'static str {
        match self {
            Chain::Embedded(_) => "embedded",
            Chain::Rpc(_) => "bitcoind",
        }
    }
}

impl BlockSource for Chain {
    async fn get_header<'a>(
        &'a self,
        header_hash: &'a BlockHash,
        height_hint: Option<u32>,
    ) -> BlockSourceResult<BlockHeaderData> {
        match self {
            Chain::Embedded(chain) => chain.get_header(header_hash, height_hint).await,
            Chain::Rpc(chain) => chain.get_header(header_hash, height_hint).await,
        }
    }

    async fn get_block<'a>(&'a self, header_hash: &'a BlockHash) -> BlockSourceResult<BlockData> {
        match self {
            Chain::Embedded(chain) => chain.get_block(header_hash).await,
            Chain::Rpc(chain) => chain.get_block(header_hash).await,
        }
    }

    async fn get_best_block(&self) -> BlockSourceResult<(BlockHash, Option<u32>)> {
        match self {
            Chain::Embedded(chain) => chain.get_best_block().await,
            Chain::Rpc(chain) => chain.get_best_block().await,
        }
    }
}

/// Lets a node check that the channels announced in gossip exist on this chain.
impl UtxoSource for Chain {
    async fn get_block_hash_by_height(&self, height: u32) -> BlockSourceResult<BlockHash> {
        match self {
            Chain::Embedded(chain) => chain.get_block_hash_by_height(height).await,
            Chain::Rpc(chain) => chain.get_block_hash_by_height(height).await,
        }
    }

    async fn is_output_unspent(&self, outpoint: OutPoint) -> BlockSourceResult<bool> {
        match self {
            Chain::Embedded(chain) => chain.is_output_unspent(outpoint).await,
            Chain::Rpc(chain) => chain.is_output_unspent(outpoint).await,
        }
    }
}
