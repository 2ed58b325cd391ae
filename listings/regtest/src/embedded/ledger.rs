//! The chain of blocks and its UTXO set.

use std::collections::HashMap;
use std::fmt;

use bitcoin::block::Header;
use bitcoin::consensus::params::REGTEST;
use bitcoin::constants::{MAX_BLOCK_SIGOPS_COST, genesis_block};
use bitcoin::script::Builder;
use bitcoin::{Amount, Block, BlockHash, CompactTarget, OutPoint, Transaction, Txid, Weight, Work};

use super::rules::{self, Coin, Place, TxError};

/// The difficulty of regtest: about every second hash meets it. It never changes.
pub(super) const BITS: u32 = 0x207f_ffff;
/// On regtest the subsidy halves every 150 blocks, so that tests can see it.
const HALVING_INTERVAL: u32 = 150;
/// How many block times the median time past looks at (BIP 113).
const MEDIAN_TIME_SPAN: u32 = 11;
/// Larger scripts cannot run, so their outputs are unspendable.
const MAX_SCRIPT_SIZE: usize = 10_000;

/// A block with its place in the tree of blocks.
#[derive(Debug)]
pub(super) struct StoredBlock {
    pub block: Block,
    pub height: u32,
    /// Work of this block and all before it.
    pub chainwork: Work,
}

/// Why a block is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BlockError {
    /// Breaks a rule about the block as a whole; the name is that of Bitcoin Core.
    Block(&'static str),
    /// Holds a transaction which breaks a rule.
    Transaction(Txid, TxError),
}

impl fmt::Display for BlockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BlockError::Block(rule) => write!(f, "block refused: {rule}"),
            BlockError::Transaction(txid, error) => {
                write!(f, "block refused: transaction {txid}: {error}")
            }
        }
    }
}

impl std::error::Error for BlockError {}

/// What a block did to the UTXO set.
#[derive(Debug, Default)]
struct Changes {
    spent: Vec<(OutPoint, Coin)>,
    created: Vec<OutPoint>,
}

/// All blocks ever connected, the active chain, and its unspent outputs.
#[derive(Debug)]
pub(super) struct Ledger {
    /// Dropped blocks stay here: a node needs their headers to find where a new branch starts.
    blocks: HashMap<BlockHash, StoredBlock>,
    /// The active chain; the index is the height.
    active: Vec<BlockHash>,
    /// What each block of the active chain did to the coins, to take it back.
    changes: Vec<Changes>,
    coins: HashMap<OutPoint, Coin>,
    /// Where each transaction of the active chain is: height and position in the block.
    transactions: HashMap<Txid, (u32, usize)>,
}

impl Ledger {
    /// The regtest genesis block. Its coinbase can never be spent, so there is no coin yet.
    pub fn new() -> Ledger {
        let block = genesis_block(&REGTEST);
        let hash = block.block_hash();
        let chainwork = block.header.work();
        Ledger {
            blocks: HashMap::from([(hash, StoredBlock { block, height: 0, chainwork })]),
            active: vec![hash],
            changes: vec![Changes::default()],
            coins: HashMap::new(),
            transactions: HashMap::new(),
        }
    }

    pub fn height(&self) -> u32 {
        self.active.len() as u32 - 1
    }

    pub fn tip(&self) -> BlockHash {
        self.active[self.active.len() - 1]
    }

    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.active.get(height as usize).copied()
    }

    /// A block of the active chain or of a dropped branch.
    pub fn block(&self, hash: &BlockHash) -> Option<&StoredBlock> {
        self.blocks.get(hash)
    }

    pub fn coin(&self, outpoint: &OutPoint) -> Option<&Coin> {
        self.coins.get(outpoint)
    }

    /// A transaction of the active chain, with the height of its block.
    pub fn transaction(&self, txid: &Txid) -> Option<(&Transaction, u32)> {
        let (height, position) = *self.transactions.get(txid)?;
        let block = &self.blocks[&self.active[height as usize]].block;
        Some((&block.txdata[position], height))
    }

    fn header_at(&self, height: u32) -> &Header {
        &self.blocks[&self.active[height as usize]].block.header
    }

    /// Whether there is nothing above the genesis block, and no coin.
    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.active.len() == 1 && self.coins.is_empty() && self.transactions.is_empty()
    }

    /// The time of the tip, in seconds since 1970.
    pub fn tip_time(&self) -> u32 {
        self.header_at(self.height()).time
    }

    /// The median time of the block at `height` and up to ten before it, in seconds since 1970.
    pub fn median_time(&self, height: u32) -> u32 {
        let first = (height + 1).saturating_sub(MEDIAN_TIME_SPAN);
        let mut times: Vec<u32> = (first..=height).map(|h| self.header_at(h).time).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }

    /// The place of the next block.
    pub fn next_place(&self) -> Place {
        Place { height: self.height() + 1, median_time: self.median_time(self.height()) }
    }

    /// Checks `block` as a node would check one from a stranger, and makes it the tip.
    pub fn connect(&mut self, block: Block) -> Result<(), BlockError> {
        let place = self.next_place();
        self.check_block(&block, place)?;

        let mut changes = Changes::default();
        if let Err(error) = self.apply(&block, place, &mut changes) {
            self.revert(changes);
            return Err(error);
        }

        let hash = block.block_hash();
        let chainwork = self.blocks[&self.tip()].chainwork + block.header.work();
        for (position, tx) in block.txdata.iter().enumerate() {
            self.transactions.insert(tx.compute_txid(), (place.height, position));
        }
        self.blocks.insert(hash, StoredBlock { block, height: place.height, chainwork });
        self.active.push(hash);
        self.changes.push(changes);
        Ok(())
    }

    /// Takes the tip back and returns it. The genesis block stays (`None`).
    pub fn disconnect(&mut self) -> Option<Block> {
        if self.height() == 0 {
            return None;
        }
        let hash = self.active.pop()?;
        let changes = self.changes.pop()?;
        self.revert(changes);
        let block = self.blocks[&hash].block.clone();
        for tx in &block.txdata {
            self.transactions.remove(&tx.compute_txid());
        }
        Some(block)
    }

    /// The rules about a block as a whole.
    fn check_block(&self, block: &Block, place: Place) -> Result<(), BlockError> {
        let require = |ok: bool, rule| {
            if ok { Ok(()) } else { Err(BlockError::Block(rule)) }
        };
        let header = &block.header;
        require(header.prev_blockhash == self.tip(), "prev-blk-not-tip")?;
        require(header.bits == CompactTarget::from_consensus(BITS), "bad-diffbits")?;
        require(header.validate_pow(header.target()).is_ok(), "high-hash")?;
        require(header.time > place.median_time, "time-too-old")?;
        require(block.check_merkle_root(), "bad-txnmrklroot")?;
        require(block.check_witness_commitment(), "bad-witness-merkle-match")?;
        require(block.weight() <= Weight::MAX_BLOCK, "bad-blk-weight")?;

        let (coinbase, others) =
            block.txdata.split_first().ok_or(BlockError::Block("bad-blk-length"))?;
        require(coinbase.is_coinbase(), "bad-cb-missing")?;
        require(!others.iter().any(Transaction::is_coinbase), "bad-cb-multiple")?;
        // BIP 34: the height comes first, so that no two coinbases have the same id.
        let height = Builder::new().push_int(place.height.into()).into_script();
        let script = coinbase.input[0].script_sig.as_bytes();
        require(script.starts_with(height.as_bytes()), "bad-cb-height")
    }

    /// Checks the transactions one after the other, and moves the coins.
    fn apply(
        &mut self,
        block: &Block,
        place: Place,
        changes: &mut Changes,
    ) -> Result<(), BlockError> {
        let mut allowed = subsidy(place.height);
        let mut sigops = 0;
        for tx in &block.txdata {
            let txid = tx.compute_txid();
            let refused = |error| BlockError::Transaction(txid, error);
            rules::check_form(tx).map_err(refused)?;
            rules::check_lock_time(tx, place).map_err(refused)?;
            let mut coins = Vec::new();
            if !tx.is_coinbase() {
                for input in &tx.input {
                    let outpoint = input.previous_output;
                    let coin = self
                        .coins
                        .remove(&outpoint)
                        .ok_or(refused(TxError::MissingInput(outpoint)))?;
                    changes.spent.push((outpoint, coin.clone()));
                    coins.push(coin);
                }
                let fee = rules::check_values(tx, &coins, place).map_err(refused)?;
                rules::check_relative_locks(tx, &coins, place, |h| self.median_time(h))
                    .map_err(refused)?;
                rules::check_scripts(tx, &coins).map_err(refused)?;
                allowed += fee;
            }
            sigops += rules::sigop_cost(tx, &coins);
            if sigops > MAX_BLOCK_SIGOPS_COST as usize {
                return Err(BlockError::Block("bad-blk-sigops"));
            }
            for (vout, output) in tx.output.iter().enumerate() {
                let script = &output.script_pubkey;
                if script.is_op_return() || script.len() > MAX_SCRIPT_SIZE {
                    continue;
                }
                let coin = Coin {
                    output: output.clone(),
                    height: place.height,
                    coinbase: tx.is_coinbase(),
                };
                let outpoint = OutPoint::new(txid, vout as u32);
                self.coins.insert(outpoint, coin);
                changes.created.push(outpoint);
            }
        }
        let claimed: Amount = block.txdata[0].output.iter().map(|output| output.value).sum();
        if claimed > allowed {
            return Err(BlockError::Block("bad-cb-amount"));
        }
        Ok(())
    }

    /// Undoes [`Self::apply`], even if it stopped halfway.
    fn revert(&mut self, changes: Changes) {
        // First give back, then remove: a coin made and spent in this block must end up removed.
        self.coins.extend(changes.spent);
        for outpoint in changes.created {
            self.coins.remove(&outpoint);
        }
    }
}

/// What the miner of the block at `height` may create.
pub(super) fn subsidy(height: u32) -> Amount {
    let halvings = height / HALVING_INTERVAL;
    Amount::from_sat((50 * Amount::ONE_BTC.to_sat()).checked_shr(halvings).unwrap_or(0))
}
