//! A node's on-chain wallet: BDK, kept in LDK's store, fed by LDK's block source.

use anyhow::{Context, Result, anyhow, ensure};
use bdk_wallet::chain::Merge;
use bdk_wallet::signer::SignersContainer;
use bdk_wallet::template::{Bip84, DescriptorTemplate};
use bdk_wallet::{
    ChangeSet, KeychainKind, LocalOutput, PersistedWallet, SignOptions, Wallet as BdkWallet,
    WalletPersister,
};
use bitcoin::bip32::Xpriv;
use bitcoin::block::Header;
use bitcoin::consensus;
use bitcoin::hashes::Hash;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::Secp256k1;
use bitcoin::{
    Amount, Block, FeeRate, Network, NetworkKind, OutPoint, Script, ScriptBuf, Transaction, TxOut,
    Txid, WPubkeyHash,
};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning::io::{self, ErrorKind};
use lightning::sign::ChangeDestinationSource;
use lightning::util::persist::KVStoreSync;
use lightning::util::wallet_utils::{Utxo, WalletSourceSync};
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use crate::types::Store;

/// The fee rate of every on-chain transaction here: a little above the relay minimum.
const FEE_RATE: FeeRate = FeeRate::from_sat_per_kwu(500);

/// Keeps BDK's change set as one value.
struct WalletStore(Store);

const NAMESPACE: &str = "wallet";
const KEY: &str = "change_set";
const UNSENT: &str = "unsent";

impl WalletStore {
    fn read_unsent(&self) -> Result<Vec<Transaction>> {
        match self.0.read(NAMESPACE, "", UNSENT) {
            Ok(bytes) => consensus::deserialize(&bytes).context("what was signed and not sent"),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(e.into()),
        }
    }
}

impl WalletPersister for WalletStore {
    type Error = io::Error;

    fn initialize(store: &mut Self) -> Result<ChangeSet, io::Error> {
        match store.0.read(NAMESPACE, "", KEY) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| io::Error::new(ErrorKind::InvalidData, e)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(ChangeSet::default()),
            Err(e) => Err(e),
        }
    }

    fn persist(store: &mut Self, change_set: &ChangeSet) -> Result<(), io::Error> {
        let mut whole = Self::initialize(store)?;
        whole.merge(change_set.clone());
        let bytes =
            serde_json::to_vec(&whole).map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
        store.0.write(NAMESPACE, "", KEY, bytes)
    }
}

/// The wallet. Everything it hands out is P2WPKH.
pub struct Wallet {
    state: Mutex<State>,
}

struct State {
    wallet: PersistedWallet<WalletStore>,
    store: WalletStore,
    signers: [SignersContainer; 2],
    /// What was signed, and is neither broadcast nor given up. LDK hands out no funding it was given, and
    /// a process may die before it is broadcast.
    unsent: HashMap<Txid, Transaction>,
}

impl State {
    fn build(&mut self, script: &Script, amount: Amount, confirmed: bool) -> Result<Psbt> {
        let mut builder = self.wallet.build_tx();
        builder.add_recipient(script.to_owned(), amount).fee_rate(FEE_RATE);
        if confirmed {
            builder.exclude_unconfirmed();
        }
        Ok(builder.finish()?)
    }

    /// Signs the inputs that are this wallet's. Says whether no others are left.
    fn sign(&self, psbt: &mut Psbt) -> Result<bool> {
        let options = SignOptions { trust_witness_utxo: true, ..Default::default() };
        let signers = [&self.signers[0], &self.signers[1]];
        Ok(self.wallet.sign_with_signers(psbt, &signers, options)?)
    }

    fn save(&mut self) -> Result<()> {
        self.wallet.persist(&mut self.store).context("writing the wallet")?;
        Ok(())
    }

    fn save_unsent(&mut self) -> Result<()> {
        let unsent: Vec<_> = self.unsent.values().cloned().collect();
        let written = self.store.0.write(NAMESPACE, "", UNSENT, consensus::serialize(&unsent));
        written.context("writing what was signed and not sent")
    }

    fn forget_unsent(&mut self, txid: &Txid) -> Result<()> {
        match self.unsent.remove(txid) {
            Some(_) => self.save_unsent(),
            None => Ok(()),
        }
    }
}

impl Wallet {
    /// Opens the wallet of `seed`, or makes it.
    pub fn open(seed: &[u8; 32], store: Store) -> Result<Self> {
        let key = Xpriv::new_master(Network::Regtest, seed)?;
        let (external, internal) =
            (Bip84(key, KeychainKind::External), Bip84(key, KeychainKind::Internal));
        let mut store = WalletStore(store);
        let loaded = BdkWallet::load()
            .descriptor(KeychainKind::External, Some(external.clone()))
            .descriptor(KeychainKind::Internal, Some(internal.clone()))
            .check_network(Network::Regtest)
            .load_wallet(&mut store)
            .map_err(|e| anyhow!("opening the wallet: {e}"))?;
        let signers = [signers(&external)?, signers(&internal)?];
        let wallet = match loaded {
            Some(wallet) => wallet,
            None => BdkWallet::create(external, internal)
                .network(Network::Regtest)
                .create_wallet(&mut store)
                .map_err(|e| anyhow!("making the wallet: {e}"))?,
        };
        let unsent = store.read_unsent()?.into_iter().map(|tx| (tx.compute_txid(), tx)).collect();
        Ok(Self { state: Mutex::new(State { wallet, store, signers, unsent }) })
    }

    /// A script that pays this wallet.
    pub fn script(&self) -> Result<ScriptBuf> {
        self.reveal(KeychainKind::External)
    }

    fn reveal(&self, keychain: KeychainKind) -> Result<ScriptBuf> {
        let mut state = self.state.lock().unwrap();
        let address = state.wallet.next_unused_address(keychain).address;
        state.save()?;
        Ok(address.script_pubkey())
    }

    /// What can be spent, and what is still unripe or unconfirmed, in sat.
    pub fn balance(&self) -> (u64, u64) {
        let balance = self.state.lock().unwrap().wallet.balance();
        let spendable = balance.trusted_spendable();
        (spendable.to_sat(), (balance.total() - spendable).to_sat())
    }

    /// What this wallet has paid to miners so far, in sat.
    pub fn fees_paid_sat(&self) -> u64 {
        let state = self.state.lock().unwrap();
        let wallet = &state.wallet;
        // The fee of a transaction with other inputs than ours is not known here.
        let fees = wallet.transactions().filter_map(|tx| wallet.calculate_fee(&tx.tx_node.tx).ok());
        fees.map(Amount::to_sat).sum()
    }

    /// Whether a transaction of this wallet is on its way to the chain, or there.
    pub fn knows(&self, txid: &Txid) -> bool {
        self.state.lock().unwrap().wallet.get_tx(*txid).is_some()
    }

    /// A transaction of this wallet, broadcast or not.
    pub(crate) fn transaction(&self, txid: &Txid) -> Option<Transaction> {
        let state = self.state.lock().unwrap();
        let known = state.wallet.get_tx(*txid).map(|tx| tx.tx_node.tx.as_ref().clone());
        known.or_else(|| state.unsent.get(txid).cloned())
    }

    /// What was signed, and is neither broadcast, as far as this wallet knows, nor given up.
    pub(crate) fn unsent(&self) -> Vec<Transaction> {
        let state = self.state.lock().unwrap();
        let unsent = state.unsent.iter().filter(|(txid, _)| state.wallet.get_tx(**txid).is_none());
        unsent.map(|(_, transaction)| transaction.clone()).collect()
    }

    /// A signed transaction that pays `amount` to `script`. Its coins are kept from other payments
    /// until it is broadcast ([`Self::note_broadcast`]) or given up ([`Self::release`]); its change
    /// is no coin before: nobody may ever see the transaction.
    pub fn pay(&self, script: &Script, amount: Amount) -> Result<Transaction> {
        let mut state = self.state.lock().unwrap();
        // The chain may still refuse what is not confirmed: its change is spent last.
        let built =
            state.build(script, amount, true).or_else(|_| state.build(script, amount, false));
        let mut psbt = built.with_context(|| format!("paying {amount} on chain"))?;
        ensure!(state.sign(&mut psbt)?, "the wallet cannot sign its own coins");
        let transaction = psbt.extract_tx()?;
        for coin in coins_of(&transaction) {
            state.wallet.lock_outpoint(coin);
        }
        state.unsent.insert(transaction.compute_txid(), transaction.clone());
        if let Err(error) = state.save().and_then(|()| state.save_unsent()) {
            // Nobody gets it, so nobody would give its coins back.
            state.unsent.remove(&transaction.compute_txid());
            for coin in coins_of(&transaction) {
                state.wallet.unlock_outpoint(coin);
            }
            return Err(error);
        }
        Ok(transaction)
    }

    /// Frees the coins of a transaction that will not be broadcast. LDK may say so twice, so coins
    /// that another transaction has taken since stay taken.
    pub fn release(&self, transaction: &Transaction) {
        let mut state = self.state.lock().unwrap();
        let txid = transaction.compute_txid();
        let others = state.unsent.iter().filter(|(other, _)| **other != txid);
        let taken: HashSet<_> = others.flat_map(|(_, other)| coins_of(other)).collect();
        for coin in coins_of(transaction).filter(|coin| !taken.contains(coin)) {
            state.wallet.unlock_outpoint(coin);
        }
        state.save().expect("the disk takes the wallet");
        state.forget_unsent(&txid).expect("the disk takes the wallet");
    }

    /// Frees the coins that were taken for transactions of which nothing is left. Those that are to be
    /// kept stay taken, and those of transactions that the wallet knows. Returns how many are free again.
    pub fn release_all_but(&self, kept: &HashSet<OutPoint>) -> usize {
        let mut state = self.state.lock().unwrap();
        let known = state.wallet.transactions();
        let spent: HashSet<_> =
            known.flat_map(|tx| coins_of(&tx.tx_node.tx).collect::<Vec<_>>()).collect();
        let locked: Vec<_> = state.wallet.list_locked_outpoints().collect();
        let forgotten =
            locked.into_iter().filter(|coin| !kept.contains(coin) && !spent.contains(coin));
        let forgotten: Vec<_> = forgotten.collect();
        for coin in &forgotten {
            state.wallet.unlock_outpoint(*coin);
        }
        state.save().expect("the disk takes the wallet");
        state
            .unsent
            .retain(|_, transaction| coins_of(transaction).all(|coin| kept.contains(&coin)));
        state.save_unsent().expect("the disk takes the wallet");
        forgotten.len()
    }

    /// A transaction that spends these coins of this wallet back to it, for a high fee, and of which
    /// the wallet takes no note: what somebody else with the same keys, or a dishonest owner, may do.
    pub(crate) fn spend_elsewhere(&self, coins: &[OutPoint]) -> Result<Transaction> {
        let script = self.script()?;
        let state = self.state.lock().unwrap();
        let output = |coin: &OutPoint| {
            let transaction = state.wallet.get_tx(coin.txid)?.tx_node.tx;
            transaction.output.get(coin.vout as usize).cloned()
        };
        let spent: Option<Vec<TxOut>> = coins.iter().map(output).collect();
        let spent = spent.context("not all of these are coins of this wallet")?;
        let worth: Amount = spent.iter().map(|output| output.value).sum();
        let left = worth.checked_sub(Amount::from_sat(100_000)).context("too little")?;
        let mut psbt = Psbt::from_unsigned_tx(Transaction {
            version: bitcoin::transaction::Version::TWO,
            lock_time: bitcoin::absolute::LockTime::ZERO,
            input: coins
                .iter()
                .map(|coin| bitcoin::TxIn { previous_output: *coin, ..Default::default() })
                .collect(),
            output: vec![TxOut { value: left, script_pubkey: script }],
        })?;
        for (input, output) in psbt.inputs.iter_mut().zip(spent) {
            input.witness_utxo = Some(output);
        }
        ensure!(state.sign(&mut psbt)?, "these are not all coins of this wallet");
        Ok(psbt.extract_tx_unchecked_fee_rate())
    }

    /// What an output that is, or was, this wallet's holds, in sat.
    pub(crate) fn worth_sat(&self, coin: &OutPoint) -> Option<u64> {
        let state = self.state.lock().unwrap();
        let transaction = state.wallet.get_tx(coin.txid)?.tx_node.tx;
        let output = transaction.output.get(coin.vout as usize)?;
        state.wallet.is_mine(output.script_pubkey.clone()).then(|| output.value.to_sat())
    }

    /// Whether an output pays this wallet.
    pub(crate) fn pays_us(&self, output: &TxOut) -> bool {
        self.state.lock().unwrap().wallet.is_mine(output.script_pubkey.clone())
    }

    /// The confirmed coins of this wallet, taken or not.
    pub(crate) fn coins(&self) -> Vec<OutPoint> {
        let state = self.state.lock().unwrap();
        let unspent = state.wallet.list_unspent();
        unspent.filter(|o| o.chain_position.is_confirmed()).map(|o| o.outpoint).collect()
    }

    /// Notes that a transaction is on its way to the chain: its change can be spent.
    pub fn note_broadcast(&self, transaction: &Transaction) {
        let mut state = self.state.lock().unwrap();
        if state.wallet.get_tx(transaction.compute_txid()).is_none() {
            state.wallet.apply_unconfirmed_txs([(transaction.clone(), 0)]);
            state.save().expect("the disk takes the wallet");
        }
        state.forget_unsent(&transaction.compute_txid()).expect("the disk takes the wallet");
    }

    /// What was broadcast and is not confirmed: the chain may have lost it.
    pub fn unconfirmed(&self) -> Vec<Transaction> {
        let state = self.state.lock().unwrap();
        let ours = state.wallet.transactions().filter(|tx| !tx.chain_position.is_confirmed());
        ours.map(|tx| tx.tx_node.tx.as_ref().clone()).collect()
    }

    /// The block this wallet has seen last.
    pub fn best_block(&self) -> BlockLocator {
        let tip = self.state.lock().unwrap().wallet.latest_checkpoint();
        let mut locator = BlockLocator::new(tip.hash(), tip.height());
        for (slot, block) in locator.previous_blocks.iter_mut().zip(tip.iter().skip(1)) {
            *slot = Some(block.hash());
        }
        locator
    }
}

impl Listen for Wallet {
    fn block_connected(&self, block: &Block, height: u32) {
        let mut state = self.state.lock().unwrap();
        state.wallet.apply_block(block, height).expect("blocks come in order");
        // Blocks that are not ours are fetched again after a restart.
        if state.wallet.staged().is_some_and(|changes| !changes.tx_graph.is_empty()) {
            state.save().expect("the disk takes the wallet");
        }
    }

    fn filtered_block_connected(&self, _: &Header, _: &TransactionData, _: u32) {
        unreachable!("the block source serves full blocks");
    }

    /// BDK replaces the stale blocks when the first block of the new branch is connected.
    fn blocks_disconnected(&self, _: BlockLocator) {}
}

impl ChangeDestinationSource for Wallet {
    async fn get_change_destination_script(&self) -> Result<ScriptBuf, ()> {
        self.reveal(KeychainKind::Internal).map_err(|_| ())
    }
}

/// What LDK needs to bump the fee of an anchor channel's transactions.
impl WalletSourceSync for Wallet {
    fn list_confirmed_utxos(&self) -> Result<Vec<Utxo>, ()> {
        let state = self.state.lock().unwrap();
        // A coin that a withheld funding needs is no coin for a fee: spending it would undo a channel
        // whose client may have paid for it.
        let free = |o: &LocalOutput| !state.wallet.is_outpoint_locked(o.outpoint);
        let unspent = state.wallet.list_unspent().filter(free);
        let confirmed = unspent.filter(|o| o.chain_position.is_confirmed());
        Ok(confirmed.filter_map(|o| utxo(o.outpoint, o.txout)).collect())
    }

    fn get_prevtx(&self, outpoint: OutPoint) -> Result<Transaction, ()> {
        let state = self.state.lock().unwrap();
        let transaction = state.wallet.get_tx(outpoint.txid).ok_or(())?;
        Ok(transaction.tx_node.tx.as_ref().clone())
    }

    fn get_change_script(&self) -> Result<ScriptBuf, ()> {
        self.reveal(KeychainKind::Internal).map_err(|_| ())
    }

    fn sign_psbt(&self, mut psbt: Psbt) -> Result<Transaction, ()> {
        // LDK's own inputs stay unsigned here; LDK signs them afterwards.
        self.state.lock().unwrap().sign(&mut psbt).map_err(|_| ())?;
        Ok(psbt.extract_tx_unchecked_fee_rate())
    }
}

fn coins_of(transaction: &Transaction) -> impl Iterator<Item = OutPoint> {
    transaction.input.iter().map(|input| input.previous_output)
}

fn utxo(outpoint: OutPoint, output: TxOut) -> Option<Utxo> {
    let program = output.script_pubkey.as_bytes().get(2..22)?;
    let key_hash = WPubkeyHash::from_slice(program).ok()?;
    Some(Utxo::new_v0_p2wpkh(outpoint, output.value, &key_hash))
}

fn signers(template: &Bip84<Xpriv>) -> Result<SignersContainer> {
    let (descriptor, keys, _) = template.clone().build(NetworkKind::Test)?;
    Ok(SignersContainer::build(keys, &descriptor, &Secp256k1::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Disk;
    use lightning_block_sync::{BlockData, BlockSource};
    use regtest::Chain;
    use std::sync::Arc;

    async fn mine(chain: &Chain, wallet: &Wallet, blocks: u32, script: &Script) {
        let before = chain.height().await.unwrap();
        for (i, hash) in chain.mine(blocks, script).await.unwrap().iter().enumerate() {
            match chain.get_block(hash).await.unwrap() {
                BlockData::FullBlock(block) => {
                    wallet.block_connected(&block, before + 1 + i as u32)
                }
                BlockData::HeaderOnly(_) => unreachable!("the chain serves full blocks"),
            }
        }
    }

    /// A wallet with one coin of 50 bitcoin.
    async fn one_coin(folder: &tempfile::TempDir) -> (Chain, Wallet) {
        let store = Arc::new(Disk::plain(folder.path()));
        let (chain, wallet) = (Chain::embedded(), Wallet::open(&[7; 32], store).unwrap());
        let script = wallet.script().unwrap();
        mine(&chain, &wallet, 1, &script).await;
        mine(&chain, &wallet, 100, Script::from_bytes(&[0x51])).await;
        (chain, wallet)
    }

    /// If a funding transaction that is withheld lent its change to the next one, the next one
    /// could never confirm.
    #[tokio::test]
    async fn coins_and_change_of_a_withheld_transaction_are_not_spent_again() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, wallet) = one_coin(&folder).await;
        let script = wallet.script().unwrap();
        let withheld = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        assert!(wallet.pay(&script, Amount::from_sat(100_000)).is_err(), "its coin is taken");
        assert!(wallet.unconfirmed().is_empty(), "it must not be broadcast by itself");

        wallet.release(&withheld);
        let next = wallet.pay(&script, Amount::from_sat(200_000)).unwrap();
        wallet.release(&withheld);
        assert!(wallet.pay(&script, Amount::from_sat(1_000)).is_err(), "its coin is taken again");
        chain.broadcast(std::slice::from_ref(&next)).await.unwrap();
        wallet.note_broadcast(&next);
        assert_eq!(wallet.unconfirmed(), std::slice::from_ref(&next));
        let child = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        assert_eq!(child.input[0].previous_output.txid, next.compute_txid());
        chain.broadcast(&[child]).await.unwrap();
    }

    /// What was broadcast may be refused after all, and with it whatever spends its change.
    #[tokio::test]
    async fn change_that_is_not_confirmed_is_spent_last() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, wallet) = one_coin(&folder).await;
        let script = wallet.script().unwrap();
        mine(&chain, &wallet, 1, &script).await;
        mine(&chain, &wallet, 100, Script::from_bytes(&[0x51])).await;
        let first = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        wallet.note_broadcast(&first);
        let second = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        assert!(coins_of(&second).all(|coin| coin.txid != first.compute_txid()));
        let third = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        assert!(coins_of(&third).any(|coin| coin.txid == first.compute_txid()));
    }

    #[tokio::test]
    async fn a_disk_that_does_not_take_a_payment_takes_no_coins() {
        let folder = tempfile::tempdir().unwrap();
        let (_, wallet) = one_coin(&folder).await;
        let (script, amount) = (wallet.script().unwrap(), Amount::from_sat(100_000));
        let in_the_way = folder.path().join("store").join(NAMESPACE).join(UNSENT);
        std::fs::create_dir_all(&in_the_way).unwrap();
        assert!(wallet.pay(&script, amount).is_err());
        assert!(wallet.unsent().is_empty());
        std::fs::remove_dir(&in_the_way).unwrap();
        wallet.pay(&script, amount).unwrap();
    }

    #[tokio::test]
    async fn coins_of_blocks_that_are_dropped_go_with_them() {
        let folder = tempfile::tempdir().unwrap();
        let (chain, wallet) = one_coin(&folder).await;
        let (script, before) = (wallet.script().unwrap(), wallet.balance());
        mine(&chain, &wallet, 1, &script).await;
        let total = |(spendable, pending): (u64, u64)| spendable + pending;
        assert!(total(wallet.balance()) > total(before));
        chain.invalidate_tip(1).await.unwrap();
        mine(&chain, &wallet, 2, Script::from_bytes(&[0x51])).await;
        assert_eq!(total(wallet.balance()), total(before));
        assert_eq!(wallet.best_block().block_hash, chain.tip().await.unwrap());
    }

    /// LDK takes what is listed for the fees of a channel that closes.
    #[tokio::test]
    async fn what_a_withheld_funding_needs_is_no_coin_for_fees() {
        let folder = tempfile::tempdir().unwrap();
        let (_, wallet) = one_coin(&folder).await;
        assert_eq!(wallet.list_confirmed_utxos().unwrap().len(), 1);
        let withheld = wallet.pay(&wallet.script().unwrap(), Amount::from_sat(100_000)).unwrap();
        assert!(wallet.list_confirmed_utxos().unwrap().is_empty());
        wallet.release(&withheld);
        assert_eq!(wallet.list_confirmed_utxos().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn coins_of_a_transaction_that_nobody_knows_any_more_are_free_again() {
        let folder = tempfile::tempdir().unwrap();
        let (_, wallet) = one_coin(&folder).await;
        let script = wallet.script().unwrap();
        let made = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        drop(wallet);
        let wallet = Wallet::open(&[7; 32], Arc::new(Disk::plain(folder.path()))).unwrap();
        let coins: HashSet<_> = coins_of(&made).collect();
        assert_eq!(wallet.release_all_but(&coins), 0, "somebody knows it");
        assert_eq!(wallet.unsent(), std::slice::from_ref(&made));
        assert_eq!(wallet.release_all_but(&HashSet::new()), 1);
        assert!(wallet.unsent().is_empty());
        assert!(wallet.pay(&script, Amount::from_sat(100_000)).is_ok());

        let (_, wallet) = one_coin(&tempfile::tempdir().unwrap()).await;
        let sent = wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        wallet.note_broadcast(&sent);
        assert!(wallet.unsent().is_empty());
        assert_eq!(wallet.transaction(&sent.compute_txid()), Some(sent));
        assert_eq!(wallet.release_all_but(&HashSet::new()), 0, "it is on its way");
    }

    #[tokio::test]
    async fn a_wallet_opened_again_knows_its_coins_and_what_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let (_, wallet) = one_coin(&folder).await;
        let (script, balance) = (wallet.script().unwrap(), wallet.balance());
        wallet.pay(&script, Amount::from_sat(100_000)).unwrap();
        drop(wallet);
        let store = Arc::new(Disk::plain(folder.path()));
        let wallet = Wallet::open(&[7; 32], store).unwrap();
        assert_eq!(wallet.best_block().height, 101);
        assert!(balance.0 > 0);
        assert!(wallet.pay(&script, Amount::from_sat(100_000)).is_err());
    }
}
