//! Tests of what the other implementation, Bitcoin Core, would not let a test do: blocks with
//! mistakes, a clock that jumps, and scripts as data.

use bitcoin::absolute::LockTime;
use bitcoin::constants::genesis_block;
use bitcoin::hashes::Hash;
use bitcoin::key::{Keypair, Secp256k1, TapTweak};
use bitcoin::secp256k1::{Message, SecretKey};
use bitcoin::sighash::{Prevouts, SighashCache, TapSighashType};
use bitcoin::{
    Amount, Block, Network, OutPoint, ScriptBuf, Sequence, Transaction, TxIn, TxMerkleNode, TxOut,
    Witness, transaction,
};

use super::EmbeddedChain;
use super::ledger::{BlockError, subsidy};
use super::miner::next_block;
use super::rules::{self, TxError};

/// OP_TRUE: an output that needs no signature.
fn anyone() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn input(outpoint: OutPoint) -> TxIn {
    TxIn {
        previous_output: outpoint,
        script_sig: ScriptBuf::new(),
        sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
        witness: Witness::new(),
    }
}

fn spend(outpoint: OutPoint, value: Amount) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![input(outpoint)],
        output: vec![TxOut { value, script_pubkey: anyone() }],
    }
}

/// A chain on which the coinbases of the first `coins` blocks are mature, and those coinbases.
async fn chain_with_coins(coins: usize) -> (EmbeddedChain, Vec<OutPoint>) {
    let chain = EmbeddedChain::new();
    let blocks = chain.mine(100 + coins as u32, &anyone()).await.unwrap();
    let coinbases = blocks[..coins]
        .iter()
        .map(|hash| OutPoint::new(chain.block(hash).unwrap().txdata[0].compute_txid(), 0));
    let coinbases = coinbases.collect();
    (chain, coinbases)
}

fn send(chain: &EmbeddedChain, tx: &Transaction) -> Result<(), TxError> {
    let state = &mut *chain.state();
    state.mempool.accept(tx, &state.ledger)
}

const COIN: Amount = Amount::from_sat(5_000_000_000);

#[tokio::test]
async fn values_must_add_up() {
    let (chain, coins) = chain_with_coins(2).await;
    let tx = spend(coins[0], COIN + Amount::ONE_SAT);
    let outputs = COIN + Amount::ONE_SAT;
    assert_eq!(send(&chain, &tx), Err(TxError::BelowOutputs { inputs: COIN, outputs }));
    // an output above all money in the world, which could make a sum overflow
    let mut tx = spend(coins[0], Amount::from_sat(u64::MAX));
    tx.output.push(tx.output[0].clone());
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("bad-txns-vout-toolarge")));
    let mut tx = spend(coins[0], Amount::MAX_MONEY);
    tx.output.push(tx.output[0].clone());
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("bad-txns-txouttotal-toolarge")));
    // two inputs count together
    let mut tx = spend(coins[0], COIN + COIN);
    tx.input.push(input(coins[1]));
    assert_eq!(send(&chain, &tx), Ok(()));
}

#[tokio::test]
async fn inputs_must_exist_and_differ() {
    let (chain, coins) = chain_with_coins(1).await;
    let parent = spend(coins[0], COIN);
    let child = spend(OutPoint::new(parent.compute_txid(), 0), COIN);
    let missing = Err(TxError::MissingInput(child.input[0].previous_output));
    assert_eq!(send(&chain, &child), missing);
    assert_eq!(send(&chain, &parent), Ok(()));
    assert_eq!(send(&chain, &child), Ok(()));
    // an output which its transaction, here in the mempool, does not have
    let beyond = OutPoint::new(parent.compute_txid(), 1);
    assert_eq!(send(&chain, &spend(beyond, COIN)), Err(TxError::MissingInput(beyond)));

    let mut tx = spend(coins[0], COIN);
    tx.input.push(tx.input[0].clone());
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("bad-txns-inputs-duplicate")));
    tx.input.clear();
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("bad-txns-vin-empty")));
    let mut tx = spend(coins[0], COIN);
    tx.output.clear();
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("bad-txns-vout-empty")));
    let mut tx = spend(coins[0], COIN);
    tx.input.push(input(OutPoint::null()));
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("bad-txns-prevout-null")));
    let coinbase = genesis_block(Network::Regtest).txdata.remove(0);
    assert_eq!(send(&chain, &coinbase), Err(TxError::Malformed("coinbase")));
    // the coinbase of the genesis block never became a coin
    let genesis = OutPoint::new(coinbase.compute_txid(), 0);
    assert_eq!(send(&chain, &spend(genesis, COIN)), Err(TxError::MissingInput(genesis)));
}

#[tokio::test]
async fn a_replacement_cannot_spend_what_it_replaces() {
    let (chain, coins) = chain_with_coins(1).await;
    let parent = spend(coins[0], COIN);
    send(&chain, &parent).unwrap();
    let child = OutPoint::new(parent.compute_txid(), 0);
    let mut tx = spend(coins[0], Amount::ZERO);
    tx.input.push(input(child));
    assert_eq!(send(&chain, &tx), Err(TxError::SpendsConflicting(child)));
    assert_eq!(chain.mempool(), [parent.compute_txid()]);
}

#[tokio::test]
async fn a_taproot_signature_is_checked() {
    let (chain, coins) = chain_with_coins(2).await;
    let secp = Secp256k1::new();
    let secret = SecretKey::from_slice(&[9; 32]).unwrap();
    let pair = Keypair::from_secret_key(&secp, &secret).tap_tweak(&secp, None);
    let script = ScriptBuf::new_p2tr_tweaked(pair.public_parts().0);
    let mut fund = spend(coins[0], COIN);
    fund.output[0].script_pubkey = script.clone();
    send(&chain, &fund).unwrap();

    // The signature commits to the values and scripts of all spent outputs, also the other one.
    let mut tx = spend(OutPoint::new(fund.compute_txid(), 0), COIN);
    tx.input.push(input(coins[1]));
    let other = TxOut { value: COIN, script_pubkey: anyone() };
    let sign = |tx: &mut Transaction, other: TxOut| {
        let prevouts = [fund.output[0].clone(), other];
        let sighash = SighashCache::new(&*tx)
            .taproot_key_spend_signature_hash(0, &Prevouts::All(&prevouts), TapSighashType::Default)
            .unwrap();
        let signature = secp.sign_schnorr_no_aux_rand(&Message::from(sighash), pair.as_keypair());
        tx.input[0].witness = Witness::from_slice(&[signature.serialize()]);
    };
    assert_eq!(send(&chain, &tx), Err(TxError::Script { input: 0 }));
    sign(&mut tx, TxOut { value: COIN - Amount::ONE_SAT, ..other.clone() });
    assert_eq!(send(&chain, &tx), Err(TxError::Script { input: 0 }));
    sign(&mut tx, other);
    assert_eq!(send(&chain, &tx), Ok(()));
}

#[tokio::test]
async fn scripts_see_lock_times() {
    let (chain, coins) = chain_with_coins(1).await;
    // <3> OP_CHECKSEQUENCEVERIFY: BIP 112
    let script = ScriptBuf::from_bytes(vec![0x53, 0xb2]);
    let mut fund = spend(coins[0], COIN);
    fund.output[0].script_pubkey = script;
    send(&chain, &fund).unwrap();
    chain.mine(10, &anyone()).await.unwrap();
    let mut tx = spend(OutPoint::new(fund.compute_txid(), 0), COIN);
    tx.input[0].sequence = Sequence::from_height(2);
    assert_eq!(send(&chain, &tx), Err(TxError::Script { input: 0 }));
    tx.input[0].sequence = Sequence::from_height(3);
    assert_eq!(send(&chain, &tx), Ok(()));
}

#[tokio::test]
async fn a_relative_lock_in_seconds_has_to_pass() {
    let (chain, coins) = chain_with_coins(1).await;
    let start = chain.best_block().2;
    let mut tx = spend(coins[0], COIN);
    // 2 units of 512 seconds after the median time of the parent of the coin's block
    tx.input[0].sequence = Sequence::from_512_second_intervals(2);
    let coin_time = chain.state().ledger.median_time(0);
    assert!(start > coin_time + 1024, "the genesis block is from 2011");
    send(&chain, &tx).unwrap();
    let end = chain.mine_at(&anyone(), start + 100).unwrap();
    let height = chain.header(&end).unwrap().height;

    let coin_time = chain.state().ledger.median_time(height - 1);
    let mut child = spend(OutPoint::new(tx.compute_txid(), 0), COIN);
    child.input[0].sequence = Sequence::from_512_second_intervals(2);
    let locked = Err(TxError::NonBip68Final { input: 0 });
    // Six of eleven blocks have to be late before their median is.
    for _ in 0..5 {
        assert_eq!(send(&chain, &child), locked);
        chain.mine_at(&anyone(), coin_time + 1023).unwrap();
    }
    for _ in 0..6 {
        assert_eq!(send(&chain, &child), locked);
        chain.mine_at(&anyone(), coin_time + 1024).unwrap();
    }
    assert_eq!(chain.best_block().2, coin_time + 1024);
    assert_eq!(send(&chain, &child), Ok(()));
    // the same with version 1, in which BIP 68 does not count
    child.version = transaction::Version::ONE;
    let coin = chain.state().ledger.coin(&child.input[0].previous_output).cloned().unwrap();
    let place = rules::Place { height: height + 1, median_time: coin_time };
    let check = |tx: &Transaction| {
        rules::check_relative_locks(tx, std::slice::from_ref(&coin), place, |_| coin_time)
    };
    assert_eq!(check(&child), Ok(()));
    child.version = transaction::Version::TWO;
    assert_eq!(check(&child), locked);
}

#[tokio::test]
async fn block_times_never_go_back() {
    let chain = EmbeddedChain::new();
    let now = chain.best_block().2 + 1_000_000;
    let time_of = |hash| chain.header(&hash).unwrap().header.time;
    for block in 0..11 {
        let time = now + 600 * block;
        assert_eq!(time_of(chain.mine_at(&anyone(), time).unwrap()), time);
    }
    // The clock is set back. Blocks repeat the last time until it is the median, and then step.
    let last = now + 6_000;
    let mut times = (0..12).map(|_| time_of(chain.mine_at(&anyone(), now).unwrap()));
    assert!(times.by_ref().take(5).all(|time| time == last));
    assert!(times.by_ref().take(6).all(|time| time == last + 1));
    assert_eq!(times.next(), Some(last + 2));
}

/// A good next block, spoiled by `change`. The proof of work is made afterwards.
fn spoiled(chain: &EmbeddedChain, change: impl FnOnce(&mut Block)) -> Result<(), BlockError> {
    let state = &mut *chain.state();
    let time = state.ledger.tip_time();
    let mut block = next_block(&state.ledger, &state.mempool, &anyone(), time, u64::MAX);
    change(&mut block);
    while block.header.validate_pow(block.header.target()).is_err() {
        block.header.nonce += 1;
    }
    state.ledger.connect(block)
}

fn fix_merkle_root(block: &mut Block) {
    block.header.merkle_root = block.compute_merkle_root().unwrap();
}

#[tokio::test]
async fn bad_blocks_are_refused() {
    let (chain, coins) = chain_with_coins(2).await;
    let tx = spend(coins[0], COIN - Amount::from_sat(1000));
    send(&chain, &tx).unwrap();
    let tip = chain.tip();

    let refused = |rule| Err(BlockError::Block(rule));
    let genesis = genesis_block(Network::Regtest).block_hash();
    let median = chain.best_block().2;
    assert_eq!(spoiled(&chain, |b| b.header.prev_blockhash = genesis), refused("prev-blk-not-tip"));
    assert_eq!(spoiled(&chain, |b| b.header.time = median), refused("time-too-old"));
    let zeros = TxMerkleNode::all_zeros();
    assert_eq!(spoiled(&chain, |b| b.header.merkle_root = zeros), refused("bad-txnmrklroot"));
    let no_coinbase = |b: &mut Block| {
        b.txdata.remove(0);
        fix_merkle_root(b);
    };
    assert_eq!(spoiled(&chain, no_coinbase), refused("bad-cb-missing"));
    let two_coinbases = |b: &mut Block| {
        b.txdata[0].input[0].witness.clear();
        b.txdata.push(b.txdata[0].clone());
        fix_merkle_root(b);
    };
    assert_eq!(spoiled(&chain, two_coinbases), refused("bad-cb-multiple"));
    let greedy = |b: &mut Block| {
        b.txdata[0].output[0].value += Amount::ONE_SAT;
        fix_merkle_root(b);
    };
    assert_eq!(spoiled(&chain, greedy), refused("bad-cb-amount"));
    let other_height = |b: &mut Block| {
        b.txdata[0].input[0].script_sig = ScriptBuf::from_bytes(vec![0x01, 0x07]);
        fix_merkle_root(b);
    };
    assert_eq!(spoiled(&chain, other_height), refused("bad-cb-height"));
    // a transaction twice: the second time its input is gone
    let txid = tx.compute_txid();
    let twice = |b: &mut Block| {
        b.txdata[0].input[0].witness.clear();
        b.txdata.push(spend(coins[1], COIN));
        b.txdata.push(spend(coins[1], COIN));
        b.txdata[3].lock_time = LockTime::from_consensus(1);
        fix_merkle_root(b);
    };
    assert!(matches!(
        spoiled(&chain, twice),
        Err(BlockError::Transaction(_, TxError::MissingInput(input))) if input == coins[1]
    ));

    // none of them left a trace
    assert_eq!(chain.tip(), tip);
    assert_eq!(chain.mempool(), [txid]);
    let state = &mut *chain.state();
    assert!(state.ledger.coin(&coins[0]).is_some() && state.ledger.coin(&coins[1]).is_some());
    assert!(state.ledger.coin(&OutPoint::new(txid, 0)).is_none());
    assert!(state.ledger.transaction(&txid).is_none());
}

#[tokio::test]
async fn a_changed_witness_breaks_the_commitment() {
    let (chain, coins) = chain_with_coins(1).await;
    // P2WSH of OP_TRUE: any witness that ends with this script is good
    let mut fund = spend(coins[0], COIN);
    fund.output[0].script_pubkey = ScriptBuf::new_p2wsh(&anyone().wscript_hash());
    send(&chain, &fund).unwrap();
    let mut tx = spend(OutPoint::new(fund.compute_txid(), 0), COIN);
    tx.input[0].witness = Witness::from_slice(&[anyone().as_bytes()]);
    send(&chain, &tx).unwrap();
    let strip = |b: &mut Block| b.txdata[2].input[0].witness = Witness::from_slice(&[[0x61]]);
    let refused = Err(BlockError::Block("bad-witness-merkle-match"));
    assert_eq!(spoiled(&chain, strip), refused);
    assert_eq!(spoiled(&chain, |_| ()), Ok(()));
}

#[tokio::test]
async fn a_full_block_leaves_the_rest_for_the_next() {
    let (chain, coins) = chain_with_coins(12).await;
    // 12 transactions of nearly 400 000 weight units; a block has room for ten of them
    let large = ScriptBuf::from_bytes([vec![0x6a], vec![0x51; 9_000]].concat());
    let mut sent = Vec::new();
    for coin in &coins {
        let mut tx = spend(*coin, COIN);
        tx.output.extend(vec![TxOut { value: Amount::ZERO, script_pubkey: large.clone() }; 11]);
        send(&chain, &tx).unwrap();
        sent.push(tx.compute_txid());
    }
    // a child of one that stays out, which alone would fit
    let child = spend(OutPoint::new(sent[11], 0), COIN);
    send(&chain, &child).unwrap();
    sent.push(child.compute_txid());

    let first = chain.mine(1, &anyone()).await.unwrap()[0];
    let block = chain.block(&first).unwrap();
    assert!(block.weight() <= bitcoin::Weight::MAX_BLOCK);
    assert_eq!(block.txdata.len(), 1 + 10);
    assert_eq!(chain.mempool(), sent[10..]);
    let second = chain.mine(1, &anyone()).await.unwrap()[0];
    assert_eq!(chain.block(&second).unwrap().txdata.len(), 1 + 3);

    let mut tx = spend(OutPoint::new(sent[0], 0), COIN);
    tx.output.extend(vec![TxOut { value: Amount::ZERO, script_pubkey: large }; 12]);
    assert_eq!(send(&chain, &tx), Err(TxError::Malformed("tx-size")));
}

#[tokio::test]
async fn dropping_all_blocks_restores_the_first_state() {
    let (chain, coins) = chain_with_coins(3).await;
    for coin in &coins {
        let tx = spend(*coin, COIN);
        let child = spend(OutPoint::new(tx.compute_txid(), 0), COIN);
        chain.broadcast(&[tx, child]).unwrap();
        chain.mine(1, &anyone()).await.unwrap();
    }
    let all = chain.height();
    chain.invalidate_tip(all).unwrap();
    let state = &mut *chain.state();
    let fresh = super::Ledger::new();
    assert_eq!(state.ledger.tip(), fresh.tip());
    assert!(state.ledger.is_empty());
    assert!(state.mempool.entries().is_empty());
}

#[tokio::test]
async fn a_reorganisation_returns_parents_before_children() {
    let (chain, coins) = chain_with_coins(1).await;
    let mut sent = Vec::new();
    let mut coin = coins[0];
    // one per block, and the last one waits
    for _ in 0..4 {
        chain.mine(1, &anyone()).await.unwrap();
        let tx = spend(coin, COIN);
        coin = OutPoint::new(tx.compute_txid(), 0);
        sent.push(tx.compute_txid());
        send(&chain, &tx).unwrap();
    }
    chain.invalidate_tip(3).unwrap();
    assert_eq!(chain.mempool(), sent);
}

#[test]
fn the_subsidy_ends() {
    assert_eq!(subsidy(149), Amount::from_int_btc(50));
    assert_eq!(subsidy(150), Amount::from_int_btc(25));
    assert_eq!(subsidy(150 * 33), Amount::ZERO);
    assert_eq!(subsidy(u32::MAX), Amount::ZERO);
}
