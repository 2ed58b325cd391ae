//! What a Lightning node relies on, over every kind of chain: embedded, embedded behind RPC, and
//! Bitcoin Core (if the variable `BITCOIND_EXE` names one).

use std::sync::Mutex;
use std::time::Duration;

use crate::common::{Backend, FEE, Spendable, Wallet, block, mature_coins};
use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::{Amount, BlockHash, Network, ScriptBuf, Sequence, Transaction, Txid, transaction};
use lightning::chain::transaction::TransactionData;
use lightning::chain::{BlockLocator, Listen};
use lightning_block_sync::gossip::UtxoSource;
use lightning_block_sync::init::validate_best_block_header;
use lightning_block_sync::poll::{ChainPoller, ChainTip};
use lightning_block_sync::{BlockSource, HeaderCache, SpvClient};
use regtest::{BroadcastError, Chain};
use tokio::time::timeout;

/// Longer than anything here takes; only a failure waits for it.
const TOO_LONG: Duration = Duration::from_secs(30);

macro_rules! on_every_chain {
    ($($test:ident)*) => {
        on_every_chain!(@chain embedded: $($test)*);
        on_every_chain!(@chain served: $($test)*);
        on_every_chain!(@chain bitcoind: $($test)*);
    };
    (@chain $backend:ident: $($test:ident)*) => {
        mod $backend {
            $(
                #[tokio::test]
                async fn $test() {
                    if let Some(backend) = super::Backend::$backend().await {
                        super::$test(backend.chain).await;
                    }
                }
            )*
        }
    };
}

on_every_chain! {
    starts_with_the_regtest_genesis_block
    mines_blocks_with_subsidy_and_fees
    a_coinbase_matures_after_100_blocks
    refuses_a_double_spend
    replaces_for_a_higher_fee
    refuses_a_bad_signature
    refuses_money_from_nothing
    a_lock_time_in_blocks_has_to_pass
    a_lock_time_in_seconds_has_to_pass
    a_relative_lock_time_has_to_pass
    a_child_pays_for_its_parent
    sending_again_is_no_error
    a_reorganisation_returns_transactions
    a_deep_reorganisation_returns_transactions
    mining_right_after_a_reorganisation_makes_new_blocks
    cannot_drop_the_genesis_block
    waiting_ends_with_a_new_tip
    many_can_wait
    many_can_ask_at_once
    a_node_follows_the_chain_through_a_reorganisation
    unspent_outputs_can_be_looked_up
    pays_any_script
}

/// The reason of a refusal of `txid`.
#[track_caller]
fn refusal(result: Result<(), BroadcastError>, tx: &Transaction) -> String {
    match result.expect_err("the transaction must be refused") {
        BroadcastError::Rejected { txid, reason } => {
            assert_eq!(txid, tx.compute_txid());
            reason
        }
        error @ BroadcastError::Unavailable { .. } => panic!("{error}"),
    }
}

#[track_caller]
fn assert_refused(result: Result<(), BroadcastError>, tx: &Transaction, word: &str) {
    let reason = refusal(result, tx);
    assert!(reason.contains(word), "the reason must contain {word:?}: {reason:?}");
}

async fn send(chain: &Chain, tx: &Transaction) -> Result<(), BroadcastError> {
    chain.broadcast(std::slice::from_ref(tx)).await
}

async fn mine(chain: &Chain, blocks: u32) -> Vec<BlockHash> {
    chain.mine(blocks, &Wallet::new().script()).await.expect("mining works")
}

/// The transactions of a block after its coinbase.
async fn txids(chain: &Chain, hash: &BlockHash) -> Vec<Txid> {
    block(chain, hash).await.txdata[1..].iter().map(Transaction::compute_txid).collect()
}

async fn starts_with_the_regtest_genesis_block(chain: Chain) {
    let genesis = genesis_block(Network::Regtest);
    assert_eq!(chain.height().await.unwrap(), 0);
    assert_eq!(chain.tip().await.unwrap(), genesis.block_hash());
    assert_eq!(block(&chain, &genesis.block_hash()).await, genesis);
    assert_eq!(chain.transaction(genesis.txdata[0].compute_txid()).await.unwrap(), None);
    assert!(chain.mempool().await.unwrap().is_empty());
}

async fn mines_blocks_with_subsidy_and_fees(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    assert_eq!(coin.value, Amount::from_int_btc(50));
    let tx = wallet.spend(&coin, |_| ());
    send(&chain, &tx).await.unwrap();
    assert_eq!(chain.mempool().await.unwrap(), [tx.compute_txid()]);
    assert_eq!(chain.transaction(tx.compute_txid()).await.unwrap(), Some(tx.clone()));

    let mined = mine(&chain, 1).await;
    assert_eq!(chain.height().await.unwrap(), 102);
    assert_eq!(chain.tip().await.unwrap(), mined[0]);
    assert!(chain.mempool().await.unwrap().is_empty());
    assert_eq!(chain.transaction(tx.compute_txid()).await.unwrap(), Some(tx.clone()));
    let holds_it = block(&chain, &mined[0]).await;
    assert_eq!(holds_it.txdata[1], tx);
    let with_fee = Amount::from_int_btc(50) + Amount::from_sat(FEE);
    assert_eq!(holds_it.txdata[0].output[0].value, with_fee);
    assert_eq!(holds_it.txdata[0].output[0].script_pubkey, wallet.script());

    // the subsidy halves with block 150
    let mined = mine(&chain, 48).await;
    let subsidy = |block: bitcoin::Block| block.txdata[0].output[0].value;
    assert_eq!(subsidy(block(&chain, &mined[46]).await), Amount::from_int_btc(50));
    assert_eq!(subsidy(block(&chain, &mined[47]).await), Amount::from_int_btc(25));
}

async fn a_coinbase_matures_after_100_blocks(chain: Chain) {
    let wallet = Wallet::new();
    let first = mine(&chain, 99).await[0];
    let coinbase = block(&chain, &first).await.txdata.remove(0);
    let tx = wallet.spend(&Spendable::of(&coinbase, 0), |_| ());
    assert_refused(send(&chain, &tx).await, &tx, "premature-spend-of-coinbase");
    mine(&chain, 1).await;
    send(&chain, &tx).await.unwrap();
    let mined = mine(&chain, 1).await;
    assert_eq!(txids(&chain, &mined[0]).await, [tx.compute_txid()]);
}

async fn refuses_a_double_spend(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let first = wallet.spend(&coin, |_| ());
    // the same fee, but other bytes
    let second = wallet.spend(&coin, |tx| tx.version = transaction::Version::ONE);
    chain.would_take(&first).await.unwrap();
    assert!(chain.mempool().await.unwrap().is_empty(), "asking hands nothing over");
    send(&chain, &first).await.unwrap();
    assert_refused(send(&chain, &second).await, &second, "insufficient fee");
    assert_refused(chain.would_take(&second).await, &second, "insufficient fee");
    assert_eq!(chain.mempool().await.unwrap(), [first.compute_txid()]);
    mine(&chain, 1).await;
    chain.would_take(&first).await.unwrap();
    assert_refused(send(&chain, &second).await, &second, "missingorspent");
    // Core has another word for it where it is only asked.
    assert_refused(chain.would_take(&second).await, &second, "missing");
}

async fn replaces_for_a_higher_fee(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let first = wallet.spend(&coin, |_| ());
    let child = wallet.spend(&Spendable::of(&first, 0), |_| ());
    chain.broadcast(&[first, child]).await.unwrap();
    // both together pay twice the fee
    let same = wallet.spend(&coin, |tx| tx.output[0].value -= Amount::from_sat(FEE));
    assert_refused(send(&chain, &same).await, &same, "insufficient fee");
    let more = wallet.spend(&coin, |tx| tx.output[0].value -= Amount::from_sat(2 * FEE));
    send(&chain, &more).await.unwrap();
    assert_eq!(chain.mempool().await.unwrap(), [more.compute_txid()]);
}

async fn refuses_a_bad_signature(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let mut tx = wallet.spend(&coin, |_| ());
    // the signature covers the output
    tx.output[0].value -= Amount::ONE_SAT;
    assert_refused(send(&chain, &tx).await, &tx, "script-verify-flag-failed");
    wallet.sign(&mut tx, &[coin]);
    send(&chain, &tx).await.unwrap();
}

async fn refuses_money_from_nothing(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let tx = wallet.spend(&coin, |tx| tx.output[0].value = coin.value + Amount::ONE_SAT);
    assert_refused(send(&chain, &tx).await, &tx, "bad-txns-in-belowout");
    let unknown = Spendable::of(&tx, 0);
    let tx = wallet.spend(&unknown, |_| ());
    assert_refused(send(&chain, &tx).await, &tx, "missingorspent");
}

async fn a_lock_time_in_blocks_has_to_pass(chain: Chain) {
    let wallet = Wallet::new();
    let coins = mature_coins(&chain, &wallet, 2).await;
    let tip = chain.height().await.unwrap();
    let locked = |coin, height| {
        wallet.spend(coin, |tx| tx.lock_time = LockTime::from_height(height).unwrap())
    };
    // A lock of n means: not before block n + 1.
    let open = locked(&coins[0], tip);
    send(&chain, &open).await.unwrap();
    let shut = locked(&coins[1], tip + 1);
    assert_refused(send(&chain, &shut).await, &shut, "non-final");
    mine(&chain, 1).await;
    send(&chain, &shut).await.unwrap();
    let mined = mine(&chain, 1).await;
    assert_eq!(txids(&chain, &mined[0]).await, [shut.compute_txid()]);
}

async fn a_lock_time_in_seconds_has_to_pass(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    // The clock is the median time past, which is behind the time of the tip by some blocks.
    let tip = chain.get_header(&chain.tip().await.unwrap(), None).await.unwrap();
    let time = LockTime::from_time(tip.header.time).unwrap();
    let tx = wallet.spend(&coin, |tx| tx.lock_time = time);
    assert_refused(send(&chain, &tx).await, &tx, "non-final");
    // each block is later than the median of the 11 before it
    mine(&chain, 12).await;
    send(&chain, &tx).await.unwrap();
}

async fn a_relative_lock_time_has_to_pass(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let parent = wallet.spend(&coin, |_| ());
    send(&chain, &parent).await.unwrap();
    let child = wallet.spend(&Spendable::of(&parent, 0), |tx| {
        tx.input[0].sequence = Sequence::from_height(3);
    });
    assert_refused(send(&chain, &child).await, &child, "non-BIP68-final");
    // confirm the parent in block n; the child may be in block n + 3, so not in n + 1 or n + 2
    for _ in 0..2 {
        mine(&chain, 1).await;
        assert_refused(send(&chain, &child).await, &child, "non-BIP68-final");
    }
    mine(&chain, 1).await;
    send(&chain, &child).await.unwrap();
    let mined = mine(&chain, 1).await;
    assert_eq!(txids(&chain, &mined[0]).await, [child.compute_txid()]);
}

async fn a_child_pays_for_its_parent(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    // version 3 (BIP 431), as in channels whose commitment transactions pay no fee
    let version = transaction::Version(3);
    let parent = wallet.spend(&coin, |tx| {
        tx.version = version;
        tx.output[0].value = coin.value;
    });
    let child = wallet.spend(&Spendable::of(&parent, 0), |tx| tx.version = version);
    chain.broadcast(&[parent.clone(), child.clone()]).await.unwrap();
    let mined = mine(&chain, 1).await;
    assert_eq!(txids(&chain, &mined[0]).await, [parent.compute_txid(), child.compute_txid()]);
}

async fn sending_again_is_no_error(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let parent = wallet.spend(&coin, |_| ());
    let child = wallet.spend(&Spendable::of(&parent, 0), |_| ());
    send(&chain, &parent).await.unwrap();
    send(&chain, &parent).await.unwrap();
    mine(&chain, 1).await;
    send(&chain, &parent).await.unwrap();
    send(&chain, &child).await.unwrap();
    mine(&chain, 1).await;
    // now all its outputs are spent
    send(&chain, &parent).await.unwrap();
    assert!(chain.mempool().await.unwrap().is_empty());
}

async fn a_reorganisation_returns_transactions(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let parent = wallet.spend(&coin, |_| ());
    send(&chain, &parent).await.unwrap();
    let old = mine(&chain, 2).await;
    let lost = block(&chain, &old[1]).await.txdata.remove(0);
    let child = wallet.spend(&Spendable::of(&parent, 0), |_| ());
    send(&chain, &child).await.unwrap();

    chain.invalidate_tip(2).await.unwrap();
    assert_eq!(chain.height().await.unwrap(), 101);
    let mut waiting = chain.mempool().await.unwrap();
    waiting.sort();
    let mut both = [parent.compute_txid(), child.compute_txid()];
    both.sort();
    assert_eq!(waiting, both);
    assert_eq!(chain.transaction(parent.compute_txid()).await.unwrap(), Some(parent.clone()));
    assert_eq!(chain.transaction(lost.compute_txid()).await.unwrap(), None);
    // a node still has to find where the branches part
    assert_eq!(chain.get_header(&old[1], None).await.unwrap().height, 103);

    let new = mine(&chain, 1).await;
    assert_eq!(txids(&chain, &new[0]).await, [parent.compute_txid(), child.compute_txid()]);
}

async fn a_deep_reorganisation_returns_transactions(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    let tx = wallet.spend(&coin, |_| ());
    send(&chain, &tx).await.unwrap();
    mine(&chain, 15).await;
    chain.invalidate_tip(15).await.unwrap();
    assert_eq!(chain.height().await.unwrap(), 101);
    assert_eq!(chain.mempool().await.unwrap(), [tx.compute_txid()]);

    // at height 99 the coinbase of block 1 is not mature any more
    chain.invalidate_tip(2).await.unwrap();
    assert!(chain.mempool().await.unwrap().is_empty());
    assert_eq!(chain.transaction(tx.compute_txid()).await.unwrap(), None);
}

async fn mining_right_after_a_reorganisation_makes_new_blocks(chain: Chain) {
    let mut seen = mine(&chain, 3).await;
    for _ in 0..3 {
        chain.invalidate_tip(2).await.unwrap();
        let new = mine(&chain, 2).await;
        assert!(new.iter().all(|hash| !seen.contains(hash)));
        assert_eq!(chain.height().await.unwrap(), 3);
        seen.extend(new);
    }
}

async fn cannot_drop_the_genesis_block(chain: Chain) {
    mine(&chain, 2).await;
    let error = chain.invalidate_tip(3).await.unwrap_err().to_string();
    assert!(error.contains("cannot drop 3 blocks"), "{error}");
    assert_eq!(chain.height().await.unwrap(), 2);
    chain.invalidate_tip(0).await.unwrap();
    assert_eq!(chain.height().await.unwrap(), 2);
    chain.invalidate_tip(2).await.unwrap();
    assert_eq!(chain.height().await.unwrap(), 0);
}

async fn waiting_ends_with_a_new_tip(chain: Chain) {
    let old = chain.tip().await.unwrap();
    mine(&chain, 1).await;
    timeout(TOO_LONG, chain.wait_for_new_tip(old)).await.expect("the tip differs already");

    for change in [mine_one as fn(Chain) -> _, drop_one] {
        let known = chain.tip().await.unwrap();
        let waiting = tokio::spawn({
            let chain = chain.clone();
            async move {
                chain.wait_for_new_tip(known).await;
                chain.tip().await.unwrap()
            }
        });
        // Lets the task start to wait. If it returned early, it would find the old tip.
        for _ in 0..5 {
            tokio::task::yield_now().await;
            assert_eq!(chain.tip().await.unwrap(), known);
            assert!(!waiting.is_finished());
        }
        change(chain.clone()).await;
        let found = timeout(TOO_LONG, waiting).await.expect("it wakes").unwrap();
        assert_ne!(found, known);
    }
}

type Change = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn mine_one(chain: Chain) -> Change {
    Box::pin(async move { drop(mine(&chain, 1).await) })
}

fn drop_one(chain: Chain) -> Change {
    Box::pin(async move { chain.invalidate_tip(1).await.unwrap() })
}

/// More tasks than `bitcoind` answers requests at the same time (16).
async fn many_can_wait(chain: Chain) {
    let known = chain.tip().await.unwrap();
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let chain = chain.clone();
        waiting.spawn(async move { chain.wait_for_new_tip(known).await });
    }
    // others can still ask
    for _ in 0..5 {
        assert_eq!(timeout(TOO_LONG, chain.tip()).await.unwrap().unwrap(), known);
    }
    mine(&chain, 1).await;
    timeout(TOO_LONG, waiting.join_all()).await.expect("all wake");
}

/// Four nodes that start together ask for 36 blocks each. `bitcoind` refuses what its work queue
/// cannot hold.
async fn many_can_ask_at_once(chain: Chain) {
    mine(&chain, 3).await;
    let tip = chain.tip().await.unwrap();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..400 {
        let chain = chain.clone();
        asking.spawn(
            async move { chain.get_block(&tip).await.map(|_| ()).map_err(|e| e.into_inner()) },
        );
    }
    for answer in timeout(TOO_LONG, asking.join_all()).await.expect("all are answered") {
        answer.unwrap();
    }
}

/// Writes down what a Lightning node would be told.
#[derive(Default)]
struct Listener {
    /// Hashes by height, from block 1 on.
    connected: Mutex<Vec<BlockHash>>,
    forks: Mutex<Vec<u32>>,
}

impl Listen for Listener {
    fn filtered_block_connected(
        &self,
        header: &bitcoin::block::Header,
        _txdata: &TransactionData<'_>,
        height: u32,
    ) {
        let mut connected = self.connected.lock().unwrap();
        connected.push(header.block_hash());
        assert_eq!(connected.len(), height as usize);
    }

    fn blocks_disconnected(&self, fork_point: BlockLocator) {
        let mut connected = self.connected.lock().unwrap();
        connected.truncate(fork_point.height as usize);
        assert_eq!(connected.last(), Some(&fork_point.block_hash));
        self.forks.lock().unwrap().push(fork_point.height);
    }
}

async fn a_node_follows_the_chain_through_a_reorganisation(chain: Chain) {
    let genesis = validate_best_block_header(&chain).await.unwrap();
    let listener = Listener::default();
    let poller = ChainPoller::new(&chain, Network::Regtest);
    let mut client = SpvClient::new(genesis, poller, HeaderCache::new(), &listener);

    // The client checks proof of work, chain work, merkle roots and witness commitments.
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    send(&chain, &wallet.spend(&coin, |_| ())).await.unwrap();
    mine(&chain, 49).await;
    let (tip, changed) = client.poll_best_tip().await.unwrap();
    assert!(matches!(tip, ChainTip::Better(header) if header.height == 150) && changed);
    let mut expected = listener.connected.lock().unwrap().clone();
    assert_eq!(expected.len(), 150);
    assert_eq!(expected.last(), Some(&chain.tip().await.unwrap()));
    assert!(matches!(client.poll_best_tip().await.unwrap(), (ChainTip::Common, false)));

    // less work: not followed
    chain.invalidate_tip(2).await.unwrap();
    let (tip, changed) = client.poll_best_tip().await.unwrap();
    assert!(matches!(tip, ChainTip::Worse(header) if header.height == 148) && !changed);
    assert!(listener.forks.lock().unwrap().is_empty());

    let new = mine(&chain, 3).await;
    let (tip, changed) = client.poll_best_tip().await.unwrap();
    assert!(matches!(tip, ChainTip::Better(header) if header.height == 151) && changed);
    assert_eq!(*listener.forks.lock().unwrap(), [148]);
    expected.truncate(148);
    expected.extend(new);
    assert_eq!(*listener.connected.lock().unwrap(), expected);
}

async fn unspent_outputs_can_be_looked_up(chain: Chain) {
    let wallet = Wallet::new();
    let coin = mature_coins(&chain, &wallet, 1).await.remove(0);
    assert!(chain.is_output_unspent(coin.outpoint).await.unwrap());
    send(&chain, &wallet.spend(&coin, |_| ())).await.unwrap();
    // only the chain counts
    assert!(chain.is_output_unspent(coin.outpoint).await.unwrap());
    let mined = mine(&chain, 1).await;
    assert!(!chain.is_output_unspent(coin.outpoint).await.unwrap());
    assert_eq!(chain.get_block_hash_by_height(102).await.unwrap(), mined[0]);
    assert!(chain.get_block_hash_by_height(103).await.is_err());
}

async fn pays_any_script(chain: Chain) {
    // OP_TRUE is no address
    let anyone = ScriptBuf::from_hex("51").unwrap();
    let mined = chain.mine(2, &anyone).await.unwrap();
    assert_eq!(mined.len(), 2);
    assert_eq!(block(&chain, &mined[1]).await.txdata[0].output[0].script_pubkey, anyone);
    assert!(chain.mine(0, &anyone).await.unwrap().is_empty());
    assert_eq!(chain.height().await.unwrap(), 2);
}
