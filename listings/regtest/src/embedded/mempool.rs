//! Transactions that wait for a block.

use std::collections::{HashMap, HashSet};

use bitcoin::policy::MAX_STANDARD_TX_SIGOPS_COST;
use bitcoin::{Amount, OutPoint, Transaction, Txid};

use super::ledger::Ledger;
use super::rules::{self, Coin, TxError};

/// A transaction with what the checks found out about it.
#[derive(Debug)]
pub(super) struct Entry {
    pub tx: Transaction,
    pub txid: Txid,
    /// Inputs minus outputs.
    pub fee: Amount,
    /// Its share of the signature operations that a block may hold.
    pub sigop_cost: usize,
}

/// A transaction that may be taken in, and which entries it would replace.
#[derive(Debug)]
pub(super) struct Checked {
    entry: Entry,
    replaced: HashSet<Txid>,
}

/// The mempool: all entries could be in the next block together.
#[derive(Debug, Default)]
pub(super) struct Mempool {
    /// In the order of arrival, which has parents before children.
    entries: Vec<Entry>,
    /// Which entry spends an output.
    spends: HashMap<OutPoint, Txid>,
}

impl Mempool {
    /// All entries, parents before children.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entry with this id.
    pub fn get(&self, txid: &Txid) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.txid == *txid)
    }

    /// Checks a transaction for the block after the tip and takes it in.
    ///
    /// It may spend outputs of other entries. It may replace entries (BIP 125 without the
    /// signalling, as Bitcoin Core does since version 28) if it pays more than all of them, and
    /// all their descendants, together.
    pub fn accept(&mut self, tx: &Transaction, ledger: &Ledger) -> Result<(), TxError> {
        if let Some(Checked { entry, replaced }) = self.check(tx, ledger)? {
            self.remove(&replaced);
            let txid = entry.txid;
            self.spends.extend(tx.input.iter().map(|input| (input.previous_output, txid)));
            self.entries.push(entry);
        }
        Ok(())
    }

    /// Whether [`Self::accept`] would take it; `None` if it is here, or in the chain, already.
    pub fn check(&self, tx: &Transaction, ledger: &Ledger) -> Result<Option<Checked>, TxError> {
        let txid = tx.compute_txid();
        if self.get(&txid).is_some() || ledger.transaction(&txid).is_some() {
            return Ok(None);
        }
        rules::check_form(tx)?;
        if tx.is_coinbase() {
            return Err(TxError::Malformed("coinbase"));
        }
        // Half of a rule of relay policy: with it, every entry fits into a block.
        if tx.weight() > Transaction::MAX_STANDARD_WEIGHT {
            return Err(TxError::Malformed("tx-size"));
        }
        let place = ledger.next_place();
        rules::check_lock_time(tx, place)?;

        let replaced = self.conflicts(tx);
        let mut coins = Vec::new();
        for input in &tx.input {
            coins.push(self.coin(input.previous_output, place.height, &replaced, ledger)?);
        }
        let fee = rules::check_values(tx, &coins, place)?;
        rules::check_relative_locks(tx, &coins, place, |height| ledger.median_time(height))?;
        let sigop_cost = rules::sigop_cost(tx, &coins);
        if sigop_cost > MAX_STANDARD_TX_SIGOPS_COST as usize {
            return Err(TxError::Malformed("bad-txns-too-many-sigops"));
        }
        self.check_replacement(tx, fee, &replaced)?;
        rules::check_scripts(tx, &coins)?;
        let entry = Entry { tx: tx.clone(), txid, fee, sigop_cost };
        Ok(Some(Checked { entry, replaced }))
    }

    /// Removes entries; the caller sees to it that no child stays without its parent.
    pub fn remove(&mut self, txids: &HashSet<Txid>) {
        self.spends.retain(|_, spender| !txids.contains(spender));
        self.entries.retain(|entry| !txids.contains(&entry.txid));
    }

    /// Takes all entries out, parents before children.
    pub fn drain(&mut self) -> Vec<Transaction> {
        self.spends.clear();
        self.entries.drain(..).map(|entry| entry.tx).collect()
    }

    /// The output which an input spends, in the chain or in the mempool.
    fn coin(
        &self,
        outpoint: OutPoint,
        next_height: u32,
        replaced: &HashSet<Txid>,
        ledger: &Ledger,
    ) -> Result<Coin, TxError> {
        if let Some(coin) = ledger.coin(&outpoint) {
            return Ok(coin.clone());
        }
        if replaced.contains(&outpoint.txid) {
            return Err(TxError::SpendsConflicting(outpoint));
        }
        let parent = self.get(&outpoint.txid).ok_or(TxError::MissingInput(outpoint))?;
        let output =
            parent.tx.output.get(outpoint.vout as usize).ok_or(TxError::MissingInput(outpoint))?;
        Ok(Coin { output: output.clone(), height: next_height, coinbase: false })
    }

    /// The entries that spend the same outputs as `tx`, and all their descendants.
    fn conflicts(&self, tx: &Transaction) -> HashSet<Txid> {
        let spender = |outpoint| self.spends.get(&outpoint).copied();
        let mut found: HashSet<Txid> =
            tx.input.iter().filter_map(|input| spender(input.previous_output)).collect();
        // One pass is enough, because children come after their parents.
        for entry in &self.entries {
            if entry.tx.input.iter().any(|input| found.contains(&input.previous_output.txid)) {
                found.insert(entry.txid);
            }
        }
        found
    }

    fn check_replacement(
        &self,
        tx: &Transaction,
        fee: Amount,
        replaced: &HashSet<Txid>,
    ) -> Result<(), TxError> {
        let mut spent = tx.input.iter().map(|input| input.previous_output);
        let Some(conflict) = spent.find(|outpoint| self.spends.contains_key(outpoint)) else {
            return Ok(());
        };
        let replaced = self.entries.iter().filter(|entry| replaced.contains(&entry.txid));
        let replaced: Amount = replaced.map(|entry| entry.fee).sum();
        if fee <= replaced {
            return Err(TxError::InsufficientFee { fee, replaced, conflict });
        }
        Ok(())
    }
}
