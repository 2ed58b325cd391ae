//! A regtest chain inside this process.
//!
//! Blocks and transactions follow the consensus rules of Bitcoin: proof of work, median time past
//! (BIP 113), coinbase height (BIP 34), witness commitment (BIP 141), coinbase maturity, absolute
//! and relative lock times (BIP 65, 68, 112), values, and scripts up to taproot (BIP 341), which
//! run in the consensus code of Bitcoin Core. Soft forks are active from the first block.
//!
//! The mempool adds three rules of its own: no transaction above 400 000 weight units or 16 000
//! signature operations, and a replacement must pay more than all it replaces. There is no minimum
//! fee. Not checked: that block times stay within two hours of the clock, because mining thousands
//! of blocks at once leaves it behind.

mod ledger;
mod mempool;
mod miner;
mod rules;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow, ensure};
use bitcoin::{BlockHash, OutPoint, Script, Transaction, TxOut, Txid};
use lightning_block_sync::gossip::UtxoSource;
use lightning_block_sync::{
    BlockData, BlockHeaderData, BlockSource, BlockSourceError, BlockSourceResult,
};
use tokio::sync::watch;

use crate::BroadcastError;
use ledger::Ledger;
use mempool::Mempool;

/// A regtest chain inside this process. Clones share the chain.
#[derive(Clone)]
pub struct EmbeddedChain {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held only within plain functions, never across an `await`.
    state: Mutex<State>,
    /// Always the tip of `state`; wakes those who wait for a new one.
    tip: watch::Sender<BlockHash>,
}

struct State {
    ledger: Ledger,
    mempool: Mempool,
    /// Blocks mined so far, also those which were dropped later.
    mined: u64,
}

/// A transaction, and the block that holds it unless it is in the mempool.
pub(crate) struct FoundTransaction {
    pub tx: Transaction,
    pub block: Option<(BlockHash, u32)>,
}

impl EmbeddedChain {
    /// A chain that holds only the regtest genesis block.
    pub fn new() -> EmbeddedChain {
        let ledger = Ledger::new();
        let (tip, _) = watch::channel(ledger.tip());
        let state = Mutex::new(State { ledger, mempool: Mempool::default(), mined: 0 });
        EmbeddedChain { shared: Arc::new(Shared { state, tip }) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held is a bug here; what the chain holds then is unknown.
        self.shared.state.lock().expect("no thread panics while it changes the chain")
    }

    /// See [`Chain::broadcast`](crate::Chain::broadcast).
    ///
    /// # Errors
    ///
    /// The first refused transaction, with the reason. Those before it stay in the mempool.
    pub fn broadcast(&self, txs: &[Transaction]) -> Result<(), BroadcastError> {
        let State { ledger, mempool, .. } = &mut *self.state();
        for tx in txs {
            mempool.accept(tx, ledger).map_err(|error| BroadcastError::Rejected {
                txid: tx.compute_txid(),
                reason: error.to_string(),
            })?;
        }
        Ok(())
    }

    /// See [`Chain::would_take`](crate::Chain::would_take).
    ///
    /// # Errors
    ///
    /// If it would be refused, with the reason.
    pub fn would_take(&self, tx: &Transaction) -> Result<(), BroadcastError> {
        let State { ledger, mempool, .. } = &*self.state();
        mempool.check(tx, ledger).map(|_| ()).map_err(|error| BroadcastError::Rejected {
            txid: tx.compute_txid(),
            reason: error.to_string(),
        })
    }

    /// See [`Chain::mine`](crate::Chain::mine). Other tasks run between two blocks.
    ///
    /// # Errors
    ///
    /// None, unless there is a bug in this crate.
    pub async fn mine(&self, blocks: u32, pay_to: &Script) -> Result<Vec<BlockHash>> {
        let mut hashes = Vec::new();
        for _ in 0..blocks {
            hashes.push(self.mine_at(pay_to, unix_time())?);
            tokio::task::yield_now().await;
        }
        Ok(hashes)
    }

    /// Mines one block when the clock says `now`, in seconds since 1970.
    fn mine_at(&self, pay_to: &Script, now: u32) -> Result<BlockHash> {
        let state = &mut *self.state();
        let block = miner::next_block(&state.ledger, &state.mempool, pay_to, now, state.mined);
        state.mined += 1;
        let txids = block.txdata.iter().map(Transaction::compute_txid).collect();
        state.ledger.connect(block)?;
        state.mempool.remove(&txids);
        let tip = state.ledger.tip();
        self.shared.tip.send_replace(tip);
        Ok(tip)
    }

    /// The transactions that wait for a block, parents before children.
    pub fn mempool(&self) -> Vec<Txid> {
        self.state().mempool.entries().iter().map(|entry| entry.txid).collect()
    }

    /// Looks up a transaction in the mempool and in the active chain.
    pub fn transaction(&self, txid: Txid) -> Option<Transaction> {
        self.find_transaction(txid).map(|found| found.tx)
    }

    pub(crate) fn find_transaction(&self, txid: Txid) -> Option<FoundTransaction> {
        let State { ledger, mempool, .. } = &*self.state();
        if let Some(entry) = mempool.get(&txid) {
            return Some(FoundTransaction { tx: entry.tx.clone(), block: None });
        }
        let (tx, height) = ledger.transaction(&txid)?;
        let hash = ledger.hash_at(height)?;
        Some(FoundTransaction { tx: tx.clone(), block: Some((hash, height)) })
    }

    /// An output in the UTXO set of the active chain, which knows nothing of the mempool.
    pub(crate) fn unspent_output(&self, outpoint: OutPoint) -> Option<TxOut> {
        self.state().ledger.coin(&outpoint).map(|coin| coin.output.clone())
    }

    /// The height of the tip in blocks. The genesis block has height 0.
    pub fn height(&self) -> u32 {
        self.state().ledger.height()
    }

    /// The hash of the last block.
    pub fn tip(&self) -> BlockHash {
        self.state().ledger.tip()
    }

    /// Hash and height of the last block, and its median time past in seconds since 1970.
    pub(crate) fn best_block(&self) -> (BlockHash, u32, u32) {
        let ledger = &self.state().ledger;
        (ledger.tip(), ledger.height(), ledger.median_time(ledger.height()))
    }

    /// The hash of the block of the active chain at `height`.
    pub(crate) fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.state().ledger.hash_at(height)
    }

    /// Waits until the tip is not `known`; returns at once if it already differs.
    pub async fn wait_for_new_tip(&self, known: BlockHash) {
        // Fails only if the sender is gone, and `self` keeps it.
        let _ = self.shared.tip.subscribe().wait_for(|tip| *tip != known).await;
    }

    /// See [`Chain::invalidate_tip`](crate::Chain::invalidate_tip).
    ///
    /// # Errors
    ///
    /// If the chain has fewer than `depth` blocks above the genesis block.
    pub fn invalidate_tip(&self, depth: u32) -> Result<()> {
        let state = &mut *self.state();
        let height = state.ledger.height();
        ensure!(depth <= height, "cannot drop {depth} blocks from a chain of height {height}");
        self.drop_blocks(state, depth);
        Ok(())
    }

    fn drop_blocks(&self, state: &mut State, depth: u32) {
        let State { ledger, mempool, .. } = state;
        let mut dropped: Vec<_> = (0..depth).filter_map(|_| ledger.disconnect()).collect();
        // What was in a block may be the parent of what waited in the mempool, so it goes first,
        // and the oldest block before the others.
        dropped.reverse();
        let waiting = mempool.drain();
        let returned = dropped.into_iter().flat_map(|block| block.txdata.into_iter().skip(1));
        for tx in returned.chain(waiting) {
            // Some are not valid any more, such as a spend of a dropped coinbase: they are lost.
            let _ = mempool.accept(&tx, ledger);
        }
        self.shared.tip.send_replace(ledger.tip());
    }

    /// Drops the block `hash` and all after it; a block outside the active chain is left alone.
    ///
    /// # Errors
    ///
    /// If there is no such block, and for the genesis block.
    pub(crate) fn invalidate(&self, hash: BlockHash) -> Result<()> {
        let state = &mut *self.state();
        let stored = state.ledger.block(&hash).ok_or_else(|| anyhow!("Block not found"))?;
        let height = stored.height;
        if state.ledger.hash_at(height) != Some(hash) {
            return Ok(());
        }
        ensure!(height > 0, "the genesis block cannot be dropped");
        let depth = state.ledger.height() + 1 - height;
        self.drop_blocks(state, depth);
        Ok(())
    }

    /// A header of the active chain or of a dropped branch.
    pub(crate) fn header(&self, hash: &BlockHash) -> Option<BlockHeaderData> {
        self.state().ledger.block(hash).map(|stored| BlockHeaderData {
            header: stored.block.header,
            height: stored.height,
            chainwork: stored.chainwork,
        })
    }

    /// A block of the active chain or of a dropped branch.
    pub(crate) fn block(&self, hash: &BlockHash) -> Option<bitcoin::Block> {
        self.state().ledger.block(hash).map(|stored| stored.block.clone())
    }
}

impl Default for EmbeddedChain {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for EmbeddedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tip, height, _) = self.best_block();
        f.debug_struct("EmbeddedChain").field("tip", &tip).field("height", &height).finish()
    }
}

impl BlockSource for EmbeddedChain {
    async fn get_header<'a>(
        &'a self,
        header_hash: &'a BlockHash,
        _height_hint: Option<u32>,
    ) -> BlockSourceResult<BlockHeaderData> {
        self.header(header_hash).ok_or_else(|| not_found(header_hash))
    }

    async fn get_block<'a>(&'a self, header_hash: &'a BlockHash) -> BlockSourceResult<BlockData> {
        let block = self.block(header_hash).ok_or_else(|| not_found(header_hash))?;
        Ok(BlockData::FullBlock(block))
    }

    async fn get_best_block(&self) -> BlockSourceResult<(BlockHash, Option<u32>)> {
        let (hash, height, _) = self.best_block();
        Ok((hash, Some(height)))
    }
}

impl UtxoSource for EmbeddedChain {
    async fn get_block_hash_by_height(&self, height: u32) -> BlockSourceResult<BlockHash> {
        self.hash_at(height)
            .ok_or_else(|| BlockSourceError::transient(format!("no block at height {height}")))
    }

    async fn is_output_unspent(&self, outpoint: OutPoint) -> BlockSourceResult<bool> {
        Ok(self.unspent_output(outpoint).is_some())
    }
}

/// Transient, like the answer of Bitcoin Core: the block may still come.
fn not_found(hash: &BlockHash) -> BlockSourceError {
    BlockSourceError::transient(format!("no block {hash}"))
}

/// Seconds since 1970, by the clock of this machine.
fn unix_time() -> u32 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u32::try_from(since_1970.as_secs()).unwrap_or(u32::MAX)
}
