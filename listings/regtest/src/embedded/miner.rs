//! Makes the next block.

use std::collections::HashSet;

use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::constants::MAX_BLOCK_SIGOPS_COST;
use bitcoin::hashes::Hash;
use bitcoin::opcodes::all::OP_RETURN;
use bitcoin::script::{Builder, PushBytesBuf};
use bitcoin::{
    Amount, Block, CompactTarget, OutPoint, Script, ScriptBuf, Sequence, Transaction, TxIn,
    TxMerkleNode, TxOut, Weight, Witness, transaction,
};

use super::ledger::{BITS, Ledger, subsidy};
use super::mempool::Mempool;

/// Marks the output of a coinbase which holds the witness commitment (BIP 141).
const COMMITMENT_MAGIC: [u8; 4] = [0xaa, 0x21, 0xa9, 0xed];
/// BIP 141 leaves this value of the coinbase to later rules; there are none yet.
const WITNESS_RESERVED: [u8; 32] = [0; 32];

/// A block on top of the tip, with its proof of work.
///
/// `now` is in seconds since 1970. `extra_nonce` must not repeat: without it, mining again after
/// a reorganisation could make the very block that was dropped.
pub(super) fn next_block(
    ledger: &Ledger,
    mempool: &Mempool,
    pay_to: &Script,
    now: u32,
    extra_nonce: u64,
) -> Block {
    let place = ledger.next_place();
    let coinbase = coinbase(place.height, extra_nonce, pay_to);
    // a block may not be older than the median, and here none is older than its parent
    let time = now.max(place.median_time + 1).max(ledger.tip_time());
    let header = Header {
        version: Version::NO_SOFT_FORK_SIGNALLING,
        prev_blockhash: ledger.tip(),
        merkle_root: TxMerkleNode::all_zeros(),
        time,
        bits: CompactTarget::from_consensus(BITS),
        nonce: 0,
    };
    let mut block = Block { header, txdata: vec![coinbase] };
    let fees = fill(&mut block, mempool);
    block.txdata[0].output[0].value = subsidy(place.height) + fees;
    commit_to_witnesses(&mut block);
    if let Some(root) = block.compute_merkle_root() {
        block.header.merkle_root = root;
    }
    let target = block.header.target();
    while !target.is_met_by(block.block_hash()) {
        // about every second nonce is good, so this never gets near its limit
        block.header.nonce += 1;
    }
    block
}

/// A coinbase with the amounts and the commitment still missing.
fn coinbase(height: u32, extra_nonce: u64, pay_to: &Script) -> Transaction {
    Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: OutPoint::null(),
            script_sig: Builder::new()
                .push_int(height.into())
                .push_slice(extra_nonce.to_le_bytes())
                .into_script(),
            sequence: Sequence::MAX,
            witness: Witness::from_slice(&[WITNESS_RESERVED]),
        }],
        output: vec![
            TxOut { value: Amount::ZERO, script_pubkey: pay_to.to_owned() },
            TxOut { value: Amount::ZERO, script_pubkey: commitment_script([0; 32]) },
        ],
    }
}

fn commitment_script(commitment: [u8; 32]) -> ScriptBuf {
    let mut data = PushBytesBuf::from(COMMITMENT_MAGIC);
    for byte in commitment {
        // 36 bytes are far below the limit of a push
        let _ = data.push(byte);
    }
    Builder::new().push_opcode(OP_RETURN).push_slice(data).into_script()
}

/// Adds what fits of the mempool, and returns the fees.
fn fill(block: &mut Block, mempool: &Mempool) -> Amount {
    // the number of transactions takes up to 9 bytes, which weigh 4 each
    let mut weight = block.weight() + Weight::from_wu(9 * 4);
    let mut sigops = super::rules::sigop_cost(&block.txdata[0], &[]);
    let mut fees = Amount::ZERO;
    let mut left_out = HashSet::new();
    for entry in mempool.entries() {
        let orphan = entry.tx.input.iter().any(|i| left_out.contains(&i.previous_output.txid));
        let full = weight + entry.tx.weight() > Weight::MAX_BLOCK
            || sigops + entry.sigop_cost > MAX_BLOCK_SIGOPS_COST as usize;
        if orphan || full {
            left_out.insert(entry.txid);
            continue;
        }
        weight += entry.tx.weight();
        sigops += entry.sigop_cost;
        fees += entry.fee;
        block.txdata.push(entry.tx.clone());
    }
    fees
}

/// Puts the root of the tree of witness ids into the coinbase (BIP 141).
fn commit_to_witnesses(block: &mut Block) {
    if let Some(root) = block.witness_root() {
        let commitment = Block::compute_witness_commitment(&root, &WITNESS_RESERVED);
        block.txdata[0].output[1].script_pubkey = commitment_script(commitment.to_byte_array());
    }
}
