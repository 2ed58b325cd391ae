//! What a recipient reads from its own disk: one lease, and all of them.

use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::Writeable;
use lsps2_async::lease::{
    Consumption, Lease, LeaseId, LeaseRecord, LeaseState, LeaseStore, LeaseStoreError,
};
use std::collections::BTreeSet;

use crate::feed::Feed;
use crate::store::Disk;
use crate::{check_fee, now};

const NAMESPACE: &str = "lsps2_leases";

/// Bytes are refused, or mean the same once written again; and the terms make sense or are said not
/// to.
pub fn lease_record(bytes: &[u8]) -> bool {
    let Ok(record) = LeaseRecord::decode(bytes) else { return false };
    assert_eq!(LeaseRecord::decode(&record.encode()), Ok(record.clone()));
    let lease = &record.lease;
    let terms = &lease.opening_fee_params;
    for gross_msat in [0, terms.min_payment_size_msat, terms.max_payment_size_msat, u64::MAX] {
        let size = lease.payment_size_msat.unwrap_or(gross_msat);
        let fee = lease.opening_fee_msat(gross_msat);
        check_fee(fee, size, terms.min_fee_msat, terms.proportional);
    }
    if let Some(smallest) = lease.smallest_htlc_msat() {
        assert!(terms.opening_fee_msat(smallest).is_some_and(|fee| fee < smallest));
        assert!(smallest >= terms.min_payment_size_msat);
        assert!(smallest <= terms.max_payment_size_msat);
        assert!(lease.payment_size_msat.is_none_or(|size| size == smallest));
    }
    true
}

/// A whole store is read, and then used: what cannot be read is named and left alone, what is read
/// goes only forward, and an error changes nothing.
pub fn lease_store(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let disk = Disk::default();
    let mut ids = stored(&mut feed, &disk);
    let before = disk.entries(NAMESPACE);
    let (store, unreadable) = now(LeaseStore::load(disk.clone())).expect("the disk works");
    assert_eq!(before, disk.entries(NAMESPACE), "reading changes nothing");
    assert_eq!(store.list().len() + unreadable.len(), before.len());
    let unreadable: BTreeSet<_> = unreadable.into_iter().map(|entry| entry.key).collect();
    for record in store.list() {
        let key = record.lease.id.to_string();
        assert!(!unreadable.contains(&key));
        let name = (NAMESPACE.to_owned(), String::new(), key);
        assert_eq!(LeaseRecord::decode(&before[&name]), Ok(record.clone()));
        assert_eq!(store.get(&record.lease.id), Some(record));
    }

    for _ in 0..16 {
        if feed.is_over() {
            break;
        }
        let before = (store.list(), disk.entries(NAMESPACE));
        if feed.byte() & 1 == 1 {
            disk.fails_after(0);
        }
        let result = use_it(&store, &mut ids, &mut feed);
        disk.is_repaired();
        let after = (store.list(), disk.entries(NAMESPACE));
        if result.is_err() {
            assert_eq!(before, after, "an error changes nothing");
        }
        for record in &before.0 {
            let id = record.lease.id;
            goes_forward(record, &store.get(&id).expect("no lease is forgotten"));
        }
        for key in &unreadable {
            let name = (NAMESPACE.to_owned(), String::new(), key.clone());
            assert_eq!(before.1.get(&name), after.1.get(&name), "{key} is left alone");
        }
    }
    let (again, _) = now(LeaseStore::load(disk)).expect("the disk works");
    assert_eq!(again.list(), store.list(), "a restart finds the same");
    !store.list().is_empty()
}

/// Entries under the key of the lease they hold, or under any other.
fn stored(feed: &mut Feed<'_>, disk: &Disk) -> Vec<LeaseId> {
    let mut ids = Vec::new();
    for _ in 0..feed.below(6) {
        let other_key = feed.byte() & 1 == 1;
        let value = feed.chunk();
        let id = LeaseRecord::decode(value).ok().map(|record| record.lease.id);
        ids.extend(id);
        let key = match id.filter(|_| !other_key) {
            Some(id) => id.to_string(),
            None => String::from_utf8_lossy(feed.chunk()).into_owned(),
        };
        disk.put(NAMESPACE, "", &key, value);
    }
    ids
}

fn use_it(
    store: &LeaseStore<Disk>,
    ids: &mut Vec<LeaseId>,
    feed: &mut Feed<'_>,
) -> Result<(), LeaseStoreError> {
    let at = usize::from(feed.byte()).checked_rem(ids.len());
    let id = at.map(|at| ids[at]);
    match (feed.below(5), id) {
        (0, _) => {
            let Ok(record) = LeaseRecord::decode(feed.chunk()) else { return Ok(()) };
            ids.push(record.lease.id);
            now(store.add(record.lease))
        }
        (1, Some(id)) => {
            let by = Consumption {
                payment_hash: PaymentHash([feed.below(4); 32]),
                channel_id: ChannelId([feed.below(4); 32]),
                skimmed_fee_msat: feed.number(),
                settled: feed.byte() & 1 == 1,
            };
            let was = store.get(&id);
            let consumed = now(store.consume(&id, by.clone()));
            if consumed.is_ok() {
                spent_once(was.as_ref(), &by);
                assert!(store.get(&id).is_some_and(|record| is_spent_by(&record, &by)));
            }
            consumed
        }
        (2, _) => now(store.settle(&PaymentHash([feed.below(4); 32]))),
        (3, _) => {
            let at = Duration::from_secs(feed.number());
            now(store.expire(at)).map(|_| {
                let stale = store.active(Duration::ZERO);
                assert!(stale.iter().all(|lease| at < lease.opening_fee_params.valid_until));
            })
        }
        _ => {
            let at = Duration::from_secs(feed.number());
            let active = store.active(at);
            let until = |lease: &Lease| lease.opening_fee_params.valid_until;
            assert!(active.iter().all(|lease| at < until(lease)));
            assert!(active.is_sorted_by(|one, other| until(one) >= until(other)));
            Ok(())
        }
    }
}

/// A lease may be spent if it was active, or by the same payment, for no more, once again.
fn spent_once(was: Option<&LeaseRecord>, by: &Consumption) {
    match was.map(|record| &record.state) {
        Some(LeaseState::Active) => (),
        Some(LeaseState::Consumed(earlier)) => {
            assert!(!earlier.settled && earlier.payment_hash == by.payment_hash);
            assert!(by.skimmed_fee_msat <= earlier.skimmed_fee_msat);
        }
        Some(LeaseState::Expired) | None => panic!("{was:?} was spent"),
    }
}

fn is_spent_by(record: &LeaseRecord, by: &Consumption) -> bool {
    match &record.state {
        LeaseState::Consumed(spent) => spent.payment_hash == by.payment_hash,
        LeaseState::Active | LeaseState::Expired => false,
    }
}

fn goes_forward(before: &LeaseRecord, after: &LeaseRecord) {
    assert_eq!(before.lease, after.lease);
    match (&before.state, &after.state) {
        (LeaseState::Active, _) | (LeaseState::Expired, LeaseState::Expired) => (),
        (LeaseState::Consumed(one), LeaseState::Consumed(other)) => {
            let other = Consumption { settled: one.settled, ..other.clone() };
            assert_eq!(*one, other, "who spent it does not change");
        }
        (one, other) => panic!("{one:?} became {other:?}"),
    }
}

/// The node id of an LSP that exists.
pub(crate) fn node_id(bytes: &[u8]) -> Option<PublicKey> {
    PublicKey::from_slice(bytes).ok()
}
