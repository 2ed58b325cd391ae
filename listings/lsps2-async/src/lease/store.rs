//! The store: a map in memory in front of a [`KVStore`].

use super::{Consumption, Lease, LeaseId, LeaseRecord, LeaseState, RecordError};
use bitcoin::secp256k1::PublicKey;
use core::cmp::Reverse;
use core::time::Duration;
use lightning::io;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::persist::KVStore;
use lightning::util::ser::Writeable;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;

/// The primary namespace of the leases. The secondary one is empty.
const NAMESPACE: &str = "lsps2_leases";

/// An entry of the [`KVStore`] that is not a lease this version can read. It is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableLease {
    /// Its key in the namespace `lsps2_leases`.
    pub key: String,
    /// What is wrong with it.
    pub reason: RecordError,
}

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum LeaseStoreError {
    /// The storage failed: whether the change is on disk is not known, and it is not in effect.
    #[error("cannot {doing} ({source}): check the storage, then try again")]
    Storage {
        /// What was being done.
        doing: &'static str,
        /// What the [`KVStore`] answered.
        source: io::Error,
    },
    /// No such lease.
    #[error("no lease {0}: it was bought by another node, or its record was lost")]
    Unknown(LeaseId),
    /// The LSP gave one intercept SCID twice.
    #[error("lease {0} exists: the LSP reused an intercept SCID; do not use the new one")]
    Duplicate(LeaseId),
    /// The entry of this lease on disk cannot be read, and is not overwritten.
    #[error("the stored entry {0} is unreadable: repair it or move it away first")]
    Unreadable(LeaseId),
    /// Another payment has paid the opening fee of this lease, or this one asks for more.
    #[error("lease {id} was spent by payment {payment_hash}: fail this payment back")]
    AlreadyConsumed {
        /// The lease.
        id: LeaseId,
        /// The payment that spent it.
        payment_hash: PaymentHash,
    },
    /// The lease was not used in time.
    #[error("lease {0} has expired: fail this payment back and buy a new lease")]
    Expired(LeaseId),
    /// Another change of this lease is being written at this moment.
    #[error("lease {0} is being changed: try again, for instance by replaying the event")]
    Busy(LeaseId),
}

/// The leases of one recipient: in memory, and in a [`KVStore`] under `lsps2_leases`.
///
/// A change is written first, and shows in memory only once the storage has confirmed it. One
/// change of one lease runs at a time; a second is turned away with [`LeaseStoreError::Busy`].
/// A call that is cancelled (its future dropped) has no effect in memory; it may have one on disk,
/// where it can only mark a lease as more used than it is.
///
/// ```
/// # use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
/// # use core::time::Duration;
/// # use lightning::util::persist::KVStore;
/// use lsps2_async::lease::{Lease, LeaseId, LeaseStore, LeaseStoreError};
///
/// async fn keep<K: KVStore>(kv: K, lease: Lease, now: Duration) -> Result<Vec<Lease>, LeaseStoreError> {
///     let (leases, unreadable) = LeaseStore::load(kv).await?;
///     for entry in unreadable {
///         eprintln!("left alone: {}: {}", entry.key, entry.reason);
///     }
///     leases.add(lease).await?;
///     Ok(leases.active(now))
/// }
/// ```
pub struct LeaseStore<K: KVStore> {
    kv: K,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    records: HashMap<LeaseId, LeaseRecord>,
    /// Leases with a write under way.
    busy: HashSet<LeaseId>,
    /// Keys on disk that must not be overwritten.
    unreadable: HashSet<String>,
}

impl<K: KVStore> LeaseStore<K> {
    /// Reads every lease from `kv`.
    ///
    /// # Errors
    /// [`LeaseStoreError::Storage`]. An entry that cannot be decoded is no error: it is returned.
    pub async fn load(kv: K) -> Result<(Self, Vec<UnreadableLease>), LeaseStoreError> {
        let keys = kv.list(NAMESPACE, "").await.map_err(storage("list the leases"))?;
        let (mut state, mut unreadable) = (State::default(), Vec::new());
        for key in keys {
            let bytes = kv.read(NAMESPACE, "", &key).await;
            match decode_entry(&key, &bytes.map_err(storage("read a lease"))?) {
                Ok(record) => drop(state.records.insert(record.lease.id, record)),
                Err(reason) => unreadable.push(UnreadableLease { key, reason }),
            }
        }
        state.unreadable = unreadable.iter().map(|entry| entry.key.clone()).collect();
        let state = Mutex::new(state);
        Ok((Self { kv, state }, unreadable))
    }

    /// Keeps a lease that was just bought. It is on disk when this returns.
    ///
    /// # Errors
    /// [`LeaseStoreError::Duplicate`] if the LSP gave this SCID before; `Unreadable`, `Busy`,
    /// `Storage`.
    pub async fn add(&self, lease: Lease) -> Result<(), LeaseStoreError> {
        let id = lease.id;
        self.change(&id, |stored| match stored {
            Some(_) => Err(LeaseStoreError::Duplicate(id)),
            None => Ok(Some(LeaseRecord { lease, state: LeaseState::Active })),
        })
        .await
    }

    /// Spends a lease, for one payment. It is on disk when this returns, so call it *before*
    /// `claim_funds`.
    ///
    /// The same payment may consume its lease again, for no larger fee, until it is settled: LDK
    /// replays `PaymentClaimable` after a crash.
    ///
    /// # Errors
    /// [`LeaseStoreError::AlreadyConsumed`] and `Expired`: fail the payment back. `Unknown`,
    /// `Busy`, `Storage`.
    pub async fn consume(&self, id: &LeaseId, by: Consumption) -> Result<(), LeaseStoreError> {
        self.change(id, |stored| consumed(*id, stored, by)).await
    }

    /// Notes that the claim of `payment_hash` is complete: call it at `Event::PaymentClaimed`. From
    /// then on nothing more may be skimmed from that payment either.
    ///
    /// A payment that consumed no lease is no error.
    ///
    /// # Errors
    /// `Busy`, `Storage`.
    pub async fn settle(&self, payment_hash: &PaymentHash) -> Result<(), LeaseStoreError> {
        for id in self.unsettled(payment_hash) {
            self.change(&id, |stored| Ok(stored.map(settled))).await?;
        }
        Ok(())
    }

    /// Marks the active leases with `valid_until <= now` as expired, for good, and names them.
    ///
    /// A payment that the LSP intercepted in time may still arrive: pass
    /// [`ClaimPolicy::expiry_cutoff`](crate::claim::ClaimPolicy::expiry_cutoff) rather than the
    /// time itself. [`Self::active`] leaves out stale leases with or without this mark.
    ///
    /// # Errors
    /// `Busy`, `Storage`. The leases expired until then stay so.
    pub async fn expire(&self, now: Duration) -> Result<Vec<LeaseId>, LeaseStoreError> {
        let mut expired = self.stale(now);
        for id in &expired {
            self.change(id, |stored| Ok(stored.and_then(expire_active))).await?;
        }
        expired.retain(|id| self.get(id).is_some_and(|r| r.state == LeaseState::Expired));
        Ok(expired)
    }

    /// The record of a lease.
    pub fn get(&self, id: &LeaseId) -> Option<LeaseRecord> {
        self.lock().records.get(id).cloned()
    }

    /// The lease whose opening fee was taken for this channel, over whichever it came.
    pub fn paid_over(&self, channel_id: &ChannelId) -> Option<LeaseId> {
        let state = self.lock();
        let paid = state.records.values().find(|record| match &record.state {
            LeaseState::Consumed(by) => by.channel_id == *channel_id,
            LeaseState::Active | LeaseState::Expired => false,
        });
        paid.map(|record| record.lease.id)
    }

    /// Whether the payment whose opening fee was taken for this channel is claimed: see
    /// [`Self::settle`]. A lease is consumed before that, and its HTLC may run out in between: then
    /// nothing was paid.
    pub fn settled_over(&self, channel_id: &ChannelId) -> bool {
        let state = self.lock();
        state.records.values().any(|record| match &record.state {
            LeaseState::Consumed(by) => by.channel_id == *channel_id && by.settled,
            LeaseState::Active | LeaseState::Expired => false,
        })
    }

    /// Every record, newest validity first.
    pub fn list(&self) -> Vec<LeaseRecord> {
        let mut records: Vec<_> = self.lock().records.values().cloned().collect();
        records.sort_by_key(|record| newest_first(&record.lease));
        records
    }

    /// The leases that a new path may use at `now`, newest validity first.
    pub fn active(&self, now: Duration) -> Vec<Lease> {
        let records = self.list().into_iter();
        let active = records.filter(|record| record.state == LeaseState::Active);
        usable(active.map(|record| record.lease), now)
    }

    /// Runs one change: decide on what is stored, write, then show. `None` changes nothing.
    async fn change<F>(&self, id: &LeaseId, decide: F) -> Result<(), LeaseStoreError>
    where
        F: FnOnce(Option<LeaseRecord>) -> Result<Option<LeaseRecord>, LeaseStoreError>,
    {
        let turn = self.take_turn(id)?;
        let Some(record) = decide(self.get(id))? else {
            return Ok(());
        };
        let written = self.kv.write(NAMESPACE, "", &id.to_string(), record.encode());
        written.await.map_err(storage("write a lease"))?;
        self.lock().records.insert(*id, record);
        drop(turn);
        Ok(())
    }

    fn take_turn(&self, id: &LeaseId) -> Result<Turn<'_>, LeaseStoreError> {
        let mut state = self.lock();
        if state.unreadable.contains(&id.to_string()) {
            return Err(LeaseStoreError::Unreadable(*id));
        }
        if !state.busy.insert(*id) {
            return Err(LeaseStoreError::Busy(*id));
        }
        Ok(Turn { state: &self.state, id: *id })
    }

    fn unsettled(&self, payment_hash: &PaymentHash) -> Vec<LeaseId> {
        let state = self.lock();
        let unsettled = state.records.values().filter(|record| match &record.state {
            LeaseState::Consumed(by) => by.payment_hash == *payment_hash && !by.settled,
            LeaseState::Active | LeaseState::Expired => false,
        });
        unsettled.map(|record| record.lease.id).collect()
    }

    fn stale(&self, now: Duration) -> Vec<LeaseId> {
        let state = self.lock();
        let stale = state.records.values().filter(|record| {
            record.state == LeaseState::Active && record.lease.opening_fee_params.valid_until <= now
        });
        stale.map(|record| record.lease.id).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The right to change one lease, given back when it is dropped, also by a cancelled call.
struct Turn<'a> {
    state: &'a Mutex<State>,
    id: LeaseId,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(self.state).busy.remove(&self.id);
    }
}

// No code panics while it holds the lock, so a poisoned state is still a whole one.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn consumed(
    id: LeaseId,
    stored: Option<LeaseRecord>,
    by: Consumption,
) -> Result<Option<LeaseRecord>, LeaseStoreError> {
    let mut record = stored.ok_or(LeaseStoreError::Unknown(id))?;
    match record.state {
        LeaseState::Active => record.state = LeaseState::Consumed(by),
        LeaseState::Consumed(earlier) => {
            let payment_hash = earlier.payment_hash;
            let replay = earlier.allows_replay(&by.payment_hash, by.skimmed_fee_msat);
            let refusal = LeaseStoreError::AlreadyConsumed { id, payment_hash };
            return if replay { Ok(None) } else { Err(refusal) };
        }
        LeaseState::Expired => return Err(LeaseStoreError::Expired(id)),
    }
    Ok(Some(record))
}

fn settled(mut record: LeaseRecord) -> LeaseRecord {
    if let LeaseState::Consumed(by) = &mut record.state {
        by.settled = true;
    }
    record
}

/// A lease that was consumed in the meantime stays consumed.
fn expire_active(record: LeaseRecord) -> Option<LeaseRecord> {
    let LeaseRecord { lease, state } = record;
    let active = state == LeaseState::Active;
    active.then_some(LeaseRecord { lease, state: LeaseState::Expired })
}

fn decode_entry(key: &str, bytes: &[u8]) -> Result<LeaseRecord, RecordError> {
    let record = LeaseRecord::decode(bytes)?;
    // Two keys for one lease would let it be spent twice.
    match record.lease.id {
        id if id.to_string() == key => Ok(record),
        id => Err(RecordError::OtherLease(id)),
    }
}

fn storage(doing: &'static str) -> impl FnOnce(io::Error) -> LeaseStoreError {
    move |source| LeaseStoreError::Storage { doing, source }
}

/// The same after every restart: two LSPs may give the same SCID.
fn newest_first(lease: &Lease) -> (Reverse<Duration>, u64, PublicKey) {
    let LeaseId { lsp_node_id, intercept_scid } = lease.id;
    (Reverse(lease.opening_fee_params.valid_until), intercept_scid, lsp_node_id)
}

fn usable(leases: impl Iterator<Item = Lease>, now: Duration) -> Vec<Lease> {
    let mut leases: Vec<_> =
        leases.filter(|lease| now < lease.opening_fee_params.valid_until).collect();
    leases.sort_by_key(newest_first);
    leases
}

/// Where a router finds the leases a new path may use.
pub trait ActiveLeases {
    /// The usable leases at `now` (seconds since the Unix epoch), newest validity first.
    fn active_leases(&self, now: Duration) -> Vec<Lease>;

    /// Whether an opening fee was taken over this channel. `false` keeps an unconfirmed JIT channel out
    /// of every invoice.
    fn was_paid_for(&self, channel_id: &ChannelId) -> bool;
}

impl<K: KVStore> ActiveLeases for LeaseStore<K> {
    fn active_leases(&self, now: Duration) -> Vec<Lease> {
        self.active(now)
    }

    fn was_paid_for(&self, channel_id: &ChannelId) -> bool {
        self.paid_over(channel_id).is_some()
    }
}

/// For tests, and for leases that live elsewhere. It knows of no fee that was paid.
impl ActiveLeases for Vec<Lease> {
    fn active_leases(&self, now: Duration) -> Vec<Lease> {
        usable(self.iter().cloned(), now)
    }

    fn was_paid_for(&self, _: &ChannelId) -> bool {
        false
    }
}

impl<T: ActiveLeases + ?Sized> ActiveLeases for &T {
    fn active_leases(&self, now: Duration) -> Vec<Lease> {
        (**self).active_leases(now)
    }

    fn was_paid_for(&self, channel_id: &ChannelId) -> bool {
        (**self).was_paid_for(channel_id)
    }
}

impl<T: ActiveLeases + ?Sized> ActiveLeases for Arc<T> {
    fn active_leases(&self, now: Duration) -> Vec<Lease> {
        (**self).active_leases(now)
    }

    fn was_paid_for(&self, channel_id: &ChannelId) -> bool {
        (**self).was_paid_for(channel_id)
    }
}
