//! Why a broadcast failed.

use std::fmt;

use bitcoin::Txid;

/// A transaction did not reach the mempool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BroadcastError {
    /// The chain looked at the transaction and refused it. Sending it again changes nothing until
    /// the chain moves on (a lock time passes, a parent arrives).
    Rejected {
        /// The refused transaction.
        txid: Txid,
        /// The reason; it contains the words which Bitcoin Core uses, such as `non-final`.
        reason: String,
    },
    /// The chain could not be asked, so nothing is known about the transaction.
    Unavailable {
        /// The transaction which was being sent.
        txid: Txid,
        /// What went wrong on the way.
        reason: String,
    },
}

impl BroadcastError {
    /// The transaction that this error is about.
    pub fn txid(&self) -> Txid {
        match self {
            BroadcastError::Rejected { txid, .. } | BroadcastError::Unavailable { txid, .. } => {
                *txid
            }
        }
    }

    /// The reason, for people.
    pub fn reason(&self) -> &str {
        match self {
            BroadcastError::Rejected { reason, .. }
            | BroadcastError::Unavailable { reason, .. } => reason,
        }
    }
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BroadcastError::Rejected { txid, reason } => {
                write!(f, "transaction {txid} was refused: {reason}")
            }
            BroadcastError::Unavailable { txid, reason } => {
                write!(f, "transaction {txid} could not be sent: {reason}")
            }
        }
    }
}

impl std::error::Error for BroadcastError {}
