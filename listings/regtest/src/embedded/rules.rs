//! The rules that a single transaction must follow.

use std::collections::HashSet;
use std::fmt;

use bitcoin::absolute::LOCK_TIME_THRESHOLD;
use bitcoin::constants::COINBASE_MATURITY;
use bitcoin::{Amount, OutPoint, Sequence, Transaction, TxIn, TxOut, Weight, consensus};
use bitcoinconsensus::{Utxo, VERIFY_ALL_PRE_TAPROOT, VERIFY_TAPROOT, verify_with_flags};

/// Bits of `nSequence` which BIP 68 gives a meaning.
const SEQUENCE_DISABLED: u32 = 1 << 31;
const SEQUENCE_IN_TIME: u32 = 1 << 22;
const SEQUENCE_VALUE: u32 = 0xffff;

/// An unspent output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Coin {
    /// Value and script.
    pub output: TxOut,
    /// Height of the block that holds it. For an output in the mempool: of the next block.
    pub height: u32,
    /// Whether a coinbase transaction made it; such coins have to mature.
    pub coinbase: bool,
}

/// The block that a transaction is checked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Height of that block.
    pub height: u32,
    /// Median time past of its parent, in seconds since 1970: the clock of all time locks
    /// (BIP 113).
    pub median_time: u32,
}

/// Why a transaction is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TxError {
    /// Breaks a rule which needs no look at the chain; the name is that of Bitcoin Core.
    Malformed(&'static str),
    /// Spends an output that does not exist, or not any more.
    MissingInput(OutPoint),
    /// Spends a coinbase too early.
    ImmatureCoinbase { spendable_at: u32 },
    /// Makes money.
    BelowOutputs { inputs: Amount, outputs: Amount },
    /// `nLockTime` has not passed.
    NonFinal { lock_time: u32, place: Place },
    /// The relative lock time of an input has not passed.
    NonBip68Final { input: usize },
    /// An input's script or signature fails.
    Script { input: usize },
    /// Replaces mempool transactions without paying more than they do.
    InsufficientFee { fee: Amount, replaced: Amount, conflict: OutPoint },
    /// Replaces a transaction that it spends from.
    SpendsConflicting(OutPoint),
}

impl fmt::Display for TxError {
    /// Starts with the words of Bitcoin Core, so that callers can search for one text.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TxError::Malformed(rule) => f.write_str(rule),
            TxError::MissingInput(outpoint) => write!(
                f,
                "bad-txns-inputs-missingorspent: no unspent output {outpoint} in the chain or the \
                 mempool"
            ),
            TxError::ImmatureCoinbase { spendable_at } => write!(
                f,
                "bad-txns-premature-spend-of-coinbase: can be spent in block {spendable_at}"
            ),
            TxError::BelowOutputs { inputs, outputs } => write!(
                f,
                "bad-txns-in-belowout: inputs of {} sat, outputs of {} sat",
                inputs.to_sat(),
                outputs.to_sat()
            ),
            TxError::NonFinal { lock_time, place } => write!(
                f,
                "non-final: nLockTime {lock_time}, next block {}, median time past {}",
                place.height, place.median_time
            ),
            TxError::NonBip68Final { input } => {
                write!(f, "non-BIP68-final: the relative lock time of input {input}")
            }
            TxError::Script { input } => write!(
                f,
                "mempool-script-verify-flag-failed: the script or signature of input {input}"
            ),
            TxError::InsufficientFee { fee, replaced, conflict } => write!(
                f,
                "insufficient fee: {conflict} is already spent in the mempool, and a replacement \
                 must pay more than {} sat (it pays {} sat)",
                replaced.to_sat(),
                fee.to_sat()
            ),
            TxError::SpendsConflicting(outpoint) => write!(
                f,
                "bad-txns-spends-conflicting-tx: {outpoint} belongs to a transaction that this \
                 one replaces"
            ),
        }
    }
}

/// What can be checked without a chain (`CheckTransaction` in Bitcoin Core).
pub(super) fn check_form(tx: &Transaction) -> Result<(), TxError> {
    let fail = |rule| Err(TxError::Malformed(rule));
    if tx.input.is_empty() {
        return fail("bad-txns-vin-empty");
    }
    if tx.output.is_empty() {
        return fail("bad-txns-vout-empty");
    }
    if Weight::from_non_witness_data_size(tx.base_size() as u64) > Weight::MAX_BLOCK {
        return fail("bad-txns-oversize");
    }
    let mut total = Amount::ZERO;
    for output in &tx.output {
        if output.value > Amount::MAX_MONEY {
            return fail("bad-txns-vout-toolarge");
        }
        // cannot overflow: both are at most 21 million BTC here
        total += output.value;
        if total > Amount::MAX_MONEY {
            return fail("bad-txns-txouttotal-toolarge");
        }
    }
    let mut seen = HashSet::new();
    if !tx.input.iter().all(|input| seen.insert(input.previous_output)) {
        return fail("bad-txns-inputs-duplicate");
    }
    if tx.is_coinbase() {
        if !(2..=100).contains(&tx.input[0].script_sig.len()) {
            return fail("bad-cb-length");
        }
    } else if tx.input.iter().any(|input| input.previous_output.is_null()) {
        return fail("bad-txns-prevout-null");
    }
    Ok(())
}

/// Checks `nLockTime` (`IsFinalTx` in Bitcoin Core).
pub(super) fn check_lock_time(tx: &Transaction, place: Place) -> Result<(), TxError> {
    let lock_time = tx.lock_time.to_consensus_u32();
    let now = if lock_time < LOCK_TIME_THRESHOLD { place.height } else { place.median_time };
    // The lock names the last block (or second) which may not contain the transaction.
    let passed = lock_time == 0 || lock_time < now;
    if passed || tx.input.iter().all(|input| input.sequence == Sequence::MAX) {
        return Ok(());
    }
    Err(TxError::NonFinal { lock_time, place })
}

/// Checks the relative lock times of all inputs (BIP 68).
///
/// `coins` are the outputs spent by the inputs, in the same order; `median_time` gives the median
/// time past of the block at a height.
pub(super) fn check_relative_locks(
    tx: &Transaction,
    coins: &[Coin],
    place: Place,
    median_time: impl Fn(u32) -> u32,
) -> Result<(), TxError> {
    // Bitcoin Core reads the version as unsigned here.
    if (tx.version.0 as u32) < 2 {
        return Ok(());
    }
    for (index, (input, coin)) in tx.input.iter().zip(coins).enumerate() {
        let sequence = input.sequence.to_consensus_u32();
        if sequence & SEQUENCE_DISABLED != 0 {
            continue;
        }
        let value = sequence & SEQUENCE_VALUE;
        let passed = if sequence & SEQUENCE_IN_TIME != 0 {
            // In units of 512 seconds, from the moment in which the coin's block became possible.
            let start = median_time(coin.height.saturating_sub(1));
            u64::from(start) + u64::from(value) * 512 <= u64::from(place.median_time)
        } else {
            coin.height + value <= place.height
        };
        if !passed {
            return Err(TxError::NonBip68Final { input: index });
        }
    }
    Ok(())
}

/// Checks maturity and values, and returns the fee.
pub(super) fn check_values(
    tx: &Transaction,
    coins: &[Coin],
    place: Place,
) -> Result<Amount, TxError> {
    for coin in coins.iter().filter(|coin| coin.coinbase) {
        let spendable_at = coin.height + COINBASE_MATURITY;
        if place.height < spendable_at {
            return Err(TxError::ImmatureCoinbase { spendable_at });
        }
    }
    // Neither sum overflows: no more than 21 million BTC exist, and `check_form` bounds outputs.
    let inputs: Amount = coins.iter().map(|coin| coin.output.value).sum();
    let outputs: Amount = tx.output.iter().map(|output| output.value).sum();
    inputs.checked_sub(outputs).ok_or(TxError::BelowOutputs { inputs, outputs })
}

/// Runs the script of every input with the consensus code of Bitcoin Core.
pub(super) fn check_scripts(tx: &Transaction, coins: &[Coin]) -> Result<(), TxError> {
    let bytes = consensus::serialize(tx);
    // A taproot signature commits to all spent outputs (BIP 341), so each input is given all.
    let spent: Vec<Utxo> = coins
        .iter()
        .map(|coin| Utxo {
            script_pubkey: coin.output.script_pubkey.as_bytes().as_ptr(),
            script_pubkey_len: coin.output.script_pubkey.len() as u32,
            value: coin.output.value.to_sat() as i64,
        })
        .collect();
    for (input, coin) in coins.iter().enumerate() {
        verify_with_flags(
            coin.output.script_pubkey.as_bytes(),
            coin.output.value.to_sat(),
            &bytes,
            Some(&spent),
            input,
            VERIFY_ALL_PRE_TAPROOT | VERIFY_TAPROOT,
        )
        // The library gives no more detail than "the script failed".
        .map_err(|_| TxError::Script { input })?;
    }
    Ok(())
}

/// Signature operations, in the weighted count that a block limits to 80 000.
pub(super) fn sigop_cost(tx: &Transaction, coins: &[Coin]) -> usize {
    tx.total_sigop_cost(|outpoint| {
        let spends = |input: &TxIn| input.previous_output == *outpoint;
        let index = tx.input.iter().position(spends)?;
        coins.get(index).map(|coin| coin.output.clone())
    })
}
