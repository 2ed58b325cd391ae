//! The LSP's own table of sold leases: intercept SCID → [`JitRecord`].
//!
//! LDK keeps such a table too, but it cannot be asked, and an HTLC for an entry it has dropped is
//! answered with `Ok(())` and then nothing (`lsps2/service.rs`, `htlc_intercepted`). So the LSP
//! looks here first, and LSPS2 hears only of HTLCs it can act on.

#![expect(clippy::drop_non_drop, reason = "it is in the code of LDK's macros")]

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::impl_writeable_tlv_based;
use lightning::impl_writeable_tlv_based_enum;
use lightning::io;
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::persist::KVStore;
use lightning::util::ser::{Readable, Writeable};

use crate::lease::{OpeningFeeParams, TrustModel};

/// The primary namespace of the table in the [`KVStore`]; the secondary one is empty, the key is
/// the SCID in 16 hexadecimal digits.
pub const JIT_TABLE_NAMESPACE: &str = "lsps2_jit_table";

/// One sold lease and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JitRecord {
    /// The intercept SCID that was given out.
    pub scid: u64,
    /// The client that bought it.
    pub client_node_id: PublicKey,
    /// The id under which the channel will be created.
    pub user_channel_id: u128,
    /// The terms that were bought.
    pub opening_fee_params: OpeningFeeParams,
    /// The payment size named in `lsps2.buy`, in msat; `None` for a variable-size lease.
    pub payment_size_msat: Option<u64>,
    /// Which side trusts.
    pub trust_model: TrustModel,
    /// The CLTV delta, in blocks, that was asked of the client's path.
    pub cltv_expiry_delta: u16,
    /// How far the lease has come.
    pub state: JitState,
    /// The funding transaction, kept while the LSP withholds it (client trusts LSP).
    pub funding: Option<WithheldFunding>,
}

impl JitRecord {
    /// The opening fee, in msat, for a payment of `gross_msat`; `None` on overflow.
    ///
    /// A fixed-size lease is priced by its agreed size, as LDK does.
    pub fn opening_fee_msat(&self, gross_msat: u64) -> Option<u64> {
        self.opening_fee_params.opening_fee_msat(self.payment_size_msat.unwrap_or(gross_msat))
    }

    /// The channel, once it is open.
    pub fn open(&self) -> Option<&OpenChannel> {
        match &self.state {
            JitState::Open(open) => Some(open),
            JitState::Sold | JitState::Opening(_) | JitState::Retired(_) => None,
        }
    }
}

/// The life of a sold lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JitState {
    /// Sold, and no payment has come yet.
    Sold,
    /// A payment is held and a channel is being opened for it.
    Opening(Opening),
    /// The channel is there.
    Open(OpenChannel),
    /// Nothing is forwarded under this SCID any more.
    Retired(Retired),
}

/// The payment a channel is being opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// Its HTLCs, all of them in LSPS2's queue.
    pub intercept_ids: Vec<InterceptId>,
    /// What the client is to receive, in msat.
    pub amt_to_forward_msat: u64,
    /// What the LSP is to skim, in msat.
    pub opening_fee_msat: u64,
    /// When the payment was complete, in seconds since the Unix epoch.
    pub since: Duration,
}

/// A JIT channel and its fee account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenChannel {
    /// The channel.
    pub channel_id: ChannelId,
    /// The opening fee of the channel, in msat: fixed by the payment that opened it.
    pub opening_fee_msat: u64,
    /// What has been skimmed so far, in msat, over all parts that were claimed.
    pub skimmed_fee_msat: u64,
    /// The inbound HTLCs whose skim is in that sum: a replayed event is not counted twice.
    pub counted: Vec<InboundHtlc>,
    /// The payment that is being forwarded less the fee, if one is.
    pub fee_payment: Option<FeePayment>,
    /// HTLCs that carried the fee until another of the client's failed and nothing of their payment was
    /// on its way any more: the last few. LDK may tell only then that one of them was claimed.
    pub ended: Vec<InterceptId>,
    /// Whether the whole fee has been skimmed. From then on payments pass in full.
    pub fee_paid: bool,
}

impl OpenChannel {
    /// What is still to be skimmed, in msat.
    pub fn owed_msat(&self) -> u64 {
        match self.fee_paid {
            true => 0,
            false => self.opening_fee_msat.saturating_sub(self.skimmed_fee_msat),
        }
    }
}

/// The payment that carries the opening fee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeePayment {
    /// Its payment hash.
    pub payment_hash: PaymentHash,
    /// The HTLCs that were handed to LSPS2 to be forwarded less the fee.
    pub intercept_ids: Vec<InterceptId>,
}

/// An HTLC by the channel it came in on and its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InboundHtlc {
    /// The channel it was received on.
    pub channel_id: ChannelId,
    /// Its id in that channel.
    pub htlc_id: u64,
}

/// Why and when a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retired {
    /// Why.
    pub why: RetiredWhy,
    /// When, in seconds since the Unix epoch.
    pub since: Duration,
}

/// Why nothing is forwarded under an SCID any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetiredWhy {
    /// The JIT channel was closed.
    ChannelClosed,
    /// LDK's LSPS2 state has no such lease any more, so it could only let HTLCs hang.
    LostByLsps2,
    /// The channel could not be opened and LSPS2 could not be brought back to its first state.
    OpenAbandoned,
}

/// The funding transaction of a channel whose client trusts the LSP.
///
/// LDK holds it in memory until some other change of the same client's state is persisted
/// (`store_funding_transaction` sets no `needs_persist`), so it is kept here too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WithheldFunding {
    /// The signed transaction.
    pub transaction: Transaction,
    /// Whether `Event::FundingTxBroadcastSafe` has been seen.
    pub broadcast_safe: bool,
}

/// An entry of the store that could not be read. Its SCID is treated as unknown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnreadableEntry {
    /// The key in the store.
    pub key: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why the table could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum JitTableError {
    /// The store failed. Nothing was changed.
    #[error("the JIT table's store failed ({0}): repair it and handle the event again")]
    Store(#[from] io::Error),
    /// The SCID was sold before.
    #[error("intercept SCID {0:016x} is sold already: draw another and answer again")]
    ScidTaken(u64),
    /// The `user_channel_id` is in use.
    #[error("user_channel_id {0} is in use: draw another and answer again")]
    UserChannelIdTaken(u128),
}

/// The durable table. Every change is written before the method returns; on an error the table is
/// as it was.
pub struct JitTable<K: KVStore> {
    store: K,
    records: Mutex<HashMap<u64, JitRecord>>,
    unreadable: Vec<UnreadableEntry>,
}

impl<K: KVStore> JitTable<K> {
    /// Reads the table. Entries that cannot be read stay in the store and are reported by
    /// [`Self::unreadable`].
    ///
    /// Errors if the store itself fails.
    pub async fn load(store: K) -> Result<Self, JitTableError> {
        let mut records = HashMap::new();
        let mut unreadable = Vec::new();
        for key in store.list(JIT_TABLE_NAMESPACE, "").await? {
            let bytes = store.read(JIT_TABLE_NAMESPACE, "", &key).await?;
            match decode(&key, &bytes) {
                Ok(record) => drop(records.insert(record.scid, record)),
                Err(why) => unreadable.push(UnreadableEntry { key, why }),
            }
        }
        let records = Mutex::new(records);
        Ok(Self { store, records, unreadable })
    }

    /// The entries that could not be read. Show them to the operator.
    pub fn unreadable(&self) -> &[UnreadableEntry] {
        &self.unreadable
    }

    /// The record of an intercept SCID.
    pub fn get(&self, scid: u64) -> Option<JitRecord> {
        self.lock().get(&scid).cloned()
    }

    /// The record whose channel is, or will be, created under this id.
    pub fn by_user_channel_id(&self, user_channel_id: u128) -> Option<JitRecord> {
        self.find(|record| record.user_channel_id == user_channel_id)
    }

    /// The record of an open JIT channel.
    pub fn by_channel_id(&self, channel_id: ChannelId) -> Option<JitRecord> {
        self.find(|record| record.open().is_some_and(|open| open.channel_id == channel_id))
    }

    /// Every record, ordered by SCID.
    pub fn all(&self) -> Vec<JitRecord> {
        let mut all: Vec<_> = self.lock().values().cloned().collect();
        all.sort_unstable_by_key(|record| record.scid);
        all
    }

    /// Adds a record for a lease that is being sold.
    ///
    /// Errors if its SCID or `user_channel_id` is taken, or if the store fails.
    pub async fn insert(&self, record: JitRecord) -> Result<(), JitTableError> {
        if self.taken_scid(record.scid) {
            return Err(JitTableError::ScidTaken(record.scid));
        }
        if self.by_user_channel_id(record.user_channel_id).is_some() {
            return Err(JitTableError::UserChannelIdTaken(record.user_channel_id));
        }
        self.put(record).await
    }

    /// Replaces a record.
    pub async fn put(&self, record: JitRecord) -> Result<(), JitTableError> {
        let scid = record.scid;
        let (before, written) = {
            let mut records = self.lock();
            // The call, not the await, fixes the order of writes to one key.
            let written = self.store.write(JIT_TABLE_NAMESPACE, "", &key(scid), encode(&record));
            (records.insert(scid, record), written)
        };
        written.await.map_err(|e| self.undo(scid, before, e))
    }

    /// Forgets a record: an HTLC for its SCID is unknown from now on.
    pub async fn remove(&self, scid: u64) -> Result<(), JitTableError> {
        let (before, removed) = {
            let mut records = self.lock();
            let removed = self.store.remove(JIT_TABLE_NAMESPACE, "", &key(scid), false);
            (records.remove(&scid), removed)
        };
        removed.await.map_err(|e| self.undo(scid, before, e))
    }

    fn undo(&self, scid: u64, before: Option<JitRecord>, error: io::Error) -> JitTableError {
        let mut records = self.lock();
        match before {
            Some(record) => records.insert(scid, record),
            None => records.remove(&scid),
        };
        JitTableError::Store(error)
    }

    /// An unreadable entry keeps its SCID: the lease behind it may be in use.
    fn taken_scid(&self, scid: u64) -> bool {
        let key = key(scid);
        self.lock().contains_key(&scid) || self.unreadable.iter().any(|entry| entry.key == key)
    }

    fn find(&self, wanted: impl Fn(&JitRecord) -> bool) -> Option<JitRecord> {
        self.lock().values().find(|record| wanted(record)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, JitRecord>> {
        self.records.lock().expect("nothing panics while it holds the table")
    }
}

fn key(scid: u64) -> String {
    format!("{scid:016x}")
}

/// The record as it stands in the store.
struct StoredRecord {
    scid: u64,
    client_node_id: PublicKey,
    user_channel_id: u128,
    min_fee_msat: u64,
    proportional: u32,
    valid_until: Duration,
    min_lifetime: u32,
    max_client_to_self_delay: u32,
    min_payment_size_msat: u64,
    max_payment_size_msat: u64,
    payment_size_msat: Option<u64>,
    client_trusts_lsp: bool,
    cltv_expiry_delta: u16,
    state: JitState,
    funding: Option<WithheldFunding>,
}

impl_writeable_tlv_based!(StoredRecord, {
    (0, scid, required),
    (2, client_node_id, required),
    (4, user_channel_id, required),
    (6, min_fee_msat, required),
    (8, proportional, required),
    (10, valid_until, required),
    (12, min_lifetime, required),
    (14, max_client_to_self_delay, required),
    (16, min_payment_size_msat, required),
    (18, max_payment_size_msat, required),
    (19, payment_size_msat, option),
    (20, client_trusts_lsp, required),
    (22, cltv_expiry_delta, required),
    (24, state, required),
    (25, funding, option),
});

impl_writeable_tlv_based!(Opening, {
    (0, payment_hash, required),
    (2, intercept_ids, required_vec),
    (4, amt_to_forward_msat, required),
    (6, opening_fee_msat, required),
    (8, since, required),
});

impl_writeable_tlv_based!(OpenChannel, {
    (0, channel_id, required),
    (2, opening_fee_msat, required),
    (4, skimmed_fee_msat, required),
    (6, counted, required_vec),
    (7, fee_payment, option),
    (8, fee_paid, required),
    (9, ended, optional_vec),
});

impl_writeable_tlv_based!(FeePayment, {
    (0, payment_hash, required),
    (2, intercept_ids, required_vec),
});

impl_writeable_tlv_based!(InboundHtlc, {
    (0, channel_id, required),
    (2, htlc_id, required),
});

impl_writeable_tlv_based!(Retired, {
    (0, why, required),
    (2, since, required),
});

impl_writeable_tlv_based!(WithheldFunding, {
    (0, transaction, required),
    (2, broadcast_safe, required),
});

impl_writeable_tlv_based_enum!(RetiredWhy,
    (0, ChannelClosed) => {},
    (2, LostByLsps2) => {},
    (4, OpenAbandoned) => {},
);

impl_writeable_tlv_based_enum!(JitState,
    (0, Sold) => {},
    {2, Opening} => (),
    {4, Open} => (),
    {6, Retired} => (),
);

fn encode(record: &JitRecord) -> Vec<u8> {
    let terms = &record.opening_fee_params;
    let stored = StoredRecord {
        scid: record.scid,
        client_node_id: record.client_node_id,
        user_channel_id: record.user_channel_id,
        min_fee_msat: terms.min_fee_msat,
        proportional: terms.proportional,
        valid_until: terms.valid_until,
        min_lifetime: terms.min_lifetime,
        max_client_to_self_delay: terms.max_client_to_self_delay,
        min_payment_size_msat: terms.min_payment_size_msat,
        max_payment_size_msat: terms.max_payment_size_msat,
        payment_size_msat: record.payment_size_msat,
        client_trusts_lsp: record.trust_model == TrustModel::ClientTrustsLsp,
        cltv_expiry_delta: record.cltv_expiry_delta,
        state: record.state.clone(),
        funding: record.funding.clone(),
    };
    stored.encode()
}

fn decode(name: &str, bytes: &[u8]) -> Result<JitRecord, String> {
    let stored = StoredRecord::read(&mut &*bytes).map_err(|e| format!("{e:?}"))?;
    if key(stored.scid) != name {
        return Err(format!("it holds the record of {:016x}", stored.scid));
    }
    Ok(stored.into())
}

impl From<StoredRecord> for JitRecord {
    fn from(stored: StoredRecord) -> Self {
        Self {
            opening_fee_params: stored.terms(),
            scid: stored.scid,
            client_node_id: stored.client_node_id,
            user_channel_id: stored.user_channel_id,
            payment_size_msat: stored.payment_size_msat,
            trust_model: match stored.client_trusts_lsp {
                true => TrustModel::ClientTrustsLsp,
                false => TrustModel::LspTrustsClient,
            },
            cltv_expiry_delta: stored.cltv_expiry_delta,
            state: stored.state,
            funding: stored.funding,
        }
    }
}

impl StoredRecord {
    fn terms(&self) -> OpeningFeeParams {
        OpeningFeeParams {
            min_fee_msat: self.min_fee_msat,
            proportional: self.proportional,
            valid_until: self.valid_until,
            min_lifetime: self.min_lifetime,
            max_client_to_self_delay: self.max_client_to_self_delay,
            min_payment_size_msat: self.min_payment_size_msat,
            max_payment_size_msat: self.max_payment_size_msat,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsp::testing::*;

    fn states() -> Vec<JitState> {
        let open = OpenChannel {
            channel_id: CHANNEL,
            opening_fee_msat: FEE,
            skimmed_fee_msat: 5,
            counted: vec![InboundHtlc { channel_id: CHANNEL, htlc_id: 3 }],
            fee_payment: Some(FeePayment {
                payment_hash: PaymentHash([1; 32]),
                intercept_ids: vec![InterceptId([2; 32])],
            }),
            ended: vec![InterceptId([4; 32])],
            fee_paid: false,
        };
        let opening = Opening {
            payment_hash: PaymentHash([1; 32]),
            intercept_ids: vec![InterceptId([2; 32]), InterceptId([3; 32])],
            amt_to_forward_msat: 98,
            opening_fee_msat: 2,
            since: seconds(8),
        };
        let retired = |why| JitState::Retired(Retired { why, since: seconds(9) });
        vec![
            JitState::Sold,
            JitState::Opening(opening),
            JitState::Open(open.clone()),
            JitState::Open(OpenChannel {
                fee_payment: None,
                counted: vec![],
                ended: vec![],
                ..open
            }),
            retired(RetiredWhy::ChannelClosed),
            retired(RetiredWhy::LostByLsps2),
            retired(RetiredWhy::OpenAbandoned),
        ]
    }

    #[tokio::test]
    async fn every_state_survives_a_restart() {
        for state in states() {
            let store = MemoryStore::default();
            let record = JitRecord { state, payment_size_msat: Some(1), ..sold() };
            let table = JitTable::load(store.clone()).await.unwrap();
            table.insert(record.clone()).await.unwrap();
            let table = JitTable::load(store).await.unwrap();
            assert_eq!(table.all(), [record]);
            assert!(table.unreadable().is_empty());
        }
    }

    #[tokio::test]
    async fn names_are_not_given_out_twice() {
        let table = JitTable::load(MemoryStore::default()).await.unwrap();
        table.insert(sold()).await.unwrap();
        let again = table.insert(sold()).await;
        assert!(matches!(again, Err(JitTableError::ScidTaken(SCID))));
        let again = table.insert(JitRecord { scid: 43, ..sold() }).await;
        assert!(matches!(again, Err(JitTableError::UserChannelIdTaken(USER_ID))));
    }

    #[tokio::test]
    async fn an_unreadable_entry_is_reported_kept_and_its_scid_not_sold() {
        let store = MemoryStore::default();
        store.set(JIT_TABLE_NAMESPACE, "", &key(SCID), &[1, 2, 3]);
        store.set(JIT_TABLE_NAMESPACE, "", &key(1), &encode(&JitRecord { scid: 2, ..sold() }));
        let table = JitTable::load(store.clone()).await.unwrap();
        assert_eq!(table.unreadable().len(), 2);
        assert_eq!(store.keys().len(), 2);
        let taken = table.insert(sold()).await;
        assert!(matches!(taken, Err(JitTableError::ScidTaken(SCID))));
    }

    #[tokio::test]
    async fn a_failed_write_changes_nothing() {
        let store = MemoryStore::default();
        let table = JitTable::load(store.clone()).await.unwrap();
        store.set_broken(true);
        assert!(table.insert(sold()).await.is_err());
        assert!(table.get(SCID).is_none());
        store.set_broken(false);
        table.insert(sold()).await.unwrap();
        store.set_broken(true);
        let other = JitRecord { cltv_expiry_delta: 99, ..sold() };
        assert!(table.put(other).await.is_err());
        assert!(table.remove(SCID).await.is_err());
        assert_eq!(table.get(SCID), Some(sold()));
    }
}
