use super::fixtures::*;
use super::*;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use lightning::io;
use lightning::ln::msgs::DecodeError;
use lightning::util::persist::{
    KVSTORE_NAMESPACE_KEY_ALPHABET, KVSTORE_NAMESPACE_KEY_MAX_LEN, KVStore,
};
use lightning::util::ser::Writeable;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

type Files = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A store in memory that outlives its user, and can be made slow or broken.
#[derive(Clone, Default)]
struct Disk {
    files: Files,
    broken: Arc<AtomicBool>,
    slow: Arc<AtomicBool>,
}

impl Disk {
    fn put(&self, key: &str, bytes: Vec<u8>) {
        self.files.lock().unwrap().insert(key.to_owned(), bytes);
    }

    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.files.lock().unwrap().get(key).cloned()
    }

    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn set_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::SeqCst);
    }
}

impl KVStore for Disk {
    fn read(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
    ) -> impl Future<Output = Result<Vec<u8>, io::Error>> + 'static + Send {
        assert_eq!((primary, secondary), ("lsps2_leases", ""));
        let found = self.get(key).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound));
        async move { found }
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        buf: Vec<u8>,
    ) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
        assert_eq!((primary, secondary), ("lsps2_leases", ""));
        assert!(key.len() <= KVSTORE_NAMESPACE_KEY_MAX_LEN);
        assert!(key.chars().all(|c| KVSTORE_NAMESPACE_KEY_ALPHABET.contains(c)), "{key}");
        let (disk, key) = (self.clone(), key.to_owned());
        async move {
            while disk.slow.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            if disk.broken.load(Ordering::SeqCst) {
                return Err(io::Error::new(io::ErrorKind::Other, "disk full"));
            }
            disk.put(&key, buf);
            Ok(())
        }
    }

    fn remove(
        &self,
        _: &str,
        _: &str,
        _: &str,
        _: bool,
    ) -> impl Future<Output = Result<(), io::Error>> + 'static + Send {
        std::future::ready(Err(io::Error::from(io::ErrorKind::Other)))
    }

    fn list(
        &self,
        primary: &str,
        secondary: &str,
    ) -> impl Future<Output = Result<Vec<String>, io::Error>> + 'static + Send {
        assert_eq!((primary, secondary), ("lsps2_leases", ""));
        let keys = self.files.lock().unwrap().keys().cloned().collect();
        async move { Ok(keys) }
    }
}

fn spent(payment: u8, skimmed_fee_msat: u64) -> Consumption {
    Consumption {
        payment_hash: hash(payment),
        channel_id: ChannelId([9; 32]),
        skimmed_fee_msat,
        settled: false,
    }
}

async fn open(disk: &Disk) -> LeaseStore<Disk> {
    let (store, unreadable) = LeaseStore::load(disk.clone()).await.unwrap();
    assert_eq!(unreadable, []);
    store
}

async fn with_lease(disk: &Disk) -> (LeaseStore<Disk>, LeaseId) {
    let store = open(disk).await;
    store.add(lease(1)).await.unwrap();
    (store, lease(1).id)
}

fn is_already_consumed(result: Result<(), LeaseStoreError>) -> bool {
    matches!(result, Err(LeaseStoreError::AlreadyConsumed { .. }))
}

#[test]
fn smallest_payments_leave_something_after_the_fee() {
    let mut terms = terms();
    for (min_fee_msat, proportional) in
        [(0, 0), (0, 1), (0, 999_999), (5, 500_000), (2_000, 10_000)]
    {
        terms = OpeningFeeParams { min_fee_msat, proportional, min_payment_size_msat: 0, ..terms };
        let smallest = terms.smallest_payment_msat().unwrap();
        assert!(terms.opening_fee_msat(smallest).unwrap() < smallest);
        let fee_below = terms.opening_fee_msat(smallest - 1).unwrap();
        assert!(fee_below >= smallest - 1, "{smallest} is the smallest");
    }
    terms.proportional = 1_000_000;
    assert_eq!(terms.smallest_payment_msat(), None);
}

#[test]
fn a_fee_that_overflows_is_the_fee_of_no_payment() {
    let (largest, proportional) = (u64::MAX / 10_000, 10_000);
    let terms = OpeningFeeParams {
        min_fee_msat: largest - 1,
        proportional,
        max_payment_size_msat: u64::MAX,
        ..terms()
    };
    assert_eq!(terms.smallest_payment_msat(), Some(largest));
    assert!(terms.opening_fee_msat(largest).is_some());
    assert_eq!(terms.opening_fee_msat(largest + 1), None);
    let dearer = OpeningFeeParams { min_fee_msat: largest, ..terms };
    assert_eq!(dearer.smallest_payment_msat(), None);
}

#[tokio::test]
async fn a_life_survives_restarts() {
    let disk = Disk::default();
    let (store, id) = with_lease(&disk).await;
    assert_eq!(open(&disk).await.list(), [active(lease(1))]);

    store.consume(&id, spent(7, 100)).await.unwrap();
    let store = open(&disk).await;
    assert_eq!(store.get(&id).unwrap().state, LeaseState::Consumed(spent(7, 100)));
    assert_eq!(store.active(Duration::ZERO), []);

    store.settle(&hash(7)).await.unwrap();
    let settled = Consumption { settled: true, ..spent(7, 100) };
    assert_eq!(open(&disk).await.get(&id).unwrap().state, LeaseState::Consumed(settled));
}

#[tokio::test]
async fn a_scid_given_twice_is_refused() {
    let (store, id) = with_lease(&Disk::default()).await;
    let again = lease_until(1, VALID_UNTIL + DAY);
    assert!(matches!(store.add(again).await, Err(LeaseStoreError::Duplicate(i)) if i == id));
    assert_eq!(store.list(), [active(lease(1))]);

    let mut other_lsp = lease(1);
    other_lsp.id.lsp_node_id = node(2);
    store.add(other_lsp).await.unwrap();
}

#[tokio::test]
async fn one_payment_consumes_and_may_replay() {
    let (store, id) = with_lease(&Disk::default()).await;
    store.consume(&id, spent(7, 100)).await.unwrap();
    store.consume(&id, spent(7, 100)).await.unwrap();
    store.consume(&id, spent(7, 99)).await.unwrap();
    assert!(is_already_consumed(store.consume(&id, spent(7, 101)).await));
    assert!(is_already_consumed(store.consume(&id, spent(8, 1)).await));
    assert_eq!(store.get(&id).unwrap().state, LeaseState::Consumed(spent(7, 100)));

    store.settle(&hash(7)).await.unwrap();
    store.settle(&hash(7)).await.unwrap();
    store.settle(&hash(8)).await.unwrap();
    assert!(is_already_consumed(store.consume(&id, spent(7, 100)).await));
    let unknown = store.consume(&lease(2).id, spent(7, 100)).await;
    assert!(matches!(unknown, Err(LeaseStoreError::Unknown(_))));
}

#[tokio::test]
async fn of_two_payments_at_once_one_wins() {
    let disk = Disk::default();
    let (store, id) = with_lease(&disk).await;
    disk.set_slow(true);
    let first = store.consume(&id, spent(7, 100));
    let second = async {
        tokio::task::yield_now().await;
        let second = store.consume(&id, spent(8, 100)).await;
        assert!(matches!(second, Err(LeaseStoreError::Busy(_))));
        assert_eq!(store.get(&id), Some(active(lease(1))), "written before it shows");
        disk.set_slow(false);
    };
    let (first, ()) = tokio::join!(first, second);
    first.unwrap();
    assert!(is_already_consumed(store.consume(&id, spent(8, 100)).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_payments_on_many_threads_one_wins() {
    let disk = Disk::default();
    let store = Arc::new(open(&disk).await);
    for scid in 1..=50 {
        store.add(lease(scid)).await.unwrap();
        let tasks = (1..=8).map(|payment| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.consume(&lease(scid).id, spent(payment, 1)).await })
        });
        let mut winners = 0;
        for task in tasks.collect::<Vec<_>>() {
            winners += u8::from(task.await.unwrap().is_ok());
        }
        assert_eq!(winners, 1);
    }
    assert_eq!(open(&disk).await.list(), store.list());
}

#[tokio::test]
async fn a_failed_write_changes_nothing() {
    let disk = Disk::default();
    let (store, id) = with_lease(&disk).await;
    disk.set_broken(true);
    let failed = store.consume(&id, spent(7, 100)).await.unwrap_err();
    assert!(failed.to_string().contains("disk full"), "{failed}");
    assert_eq!(store.list(), [active(lease(1))]);
    assert!(store.add(lease(2)).await.is_err());
    assert_eq!(store.get(&lease(2).id), None);

    disk.set_broken(false);
    store.consume(&id, spent(8, 100)).await.unwrap();
    store.add(lease(2)).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_write_gives_its_turn_back() {
    let disk = Disk::default();
    let (store, id) = with_lease(&disk).await;
    disk.set_slow(true);
    {
        let cancelled = pin!(store.consume(&id, spent(7, 100)));
        let polled = cancelled.poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
    }
    disk.set_slow(false);
    store.consume(&id, spent(8, 100)).await.unwrap();
}

#[tokio::test]
async fn unreadable_entries_are_named_and_left_alone() {
    let disk = Disk::default();
    let key = |scid| lease(scid).id.to_string();
    let mut long = active(lease(2)).encode();
    long.push(0);
    let entries = [
        (key(1), active(lease(3)).encode()),
        (key(2), long),
        (key(4), vec![]),
        ("readme".to_owned(), b"hello".to_vec()),
    ];
    for (key, bytes) in &entries {
        disk.put(key, bytes.clone());
    }
    let (store, mut unreadable) = LeaseStore::load(disk.clone()).await.unwrap();
    assert_eq!(store.list(), []);
    unreadable.sort_by(|a, b| a.key.cmp(&b.key));
    let entry = |key: &str, reason| UnreadableLease { key: key.to_owned(), reason };
    let expected = [
        entry(&key(1), RecordError::OtherLease(lease(3).id)),
        entry(&key(2), RecordError::TrailingBytes(1)),
        entry(&key(4), RecordError::Malformed(DecodeError::ShortRead)),
        entry("readme", RecordError::Malformed(DecodeError::InvalidValue)),
    ];
    assert_eq!(unreadable, expected);

    assert!(matches!(store.add(lease(1)).await, Err(LeaseStoreError::Unreadable(_))));
    assert_eq!(disk.get(&key(1)), Some(entries[0].1.clone()));
}

#[tokio::test]
async fn leases_expire_once_and_only_if_unused() {
    let disk = Disk::default();
    let store = open(&disk).await;
    for (scid, valid_until) in [(1, VALID_UNTIL), (2, VALID_UNTIL + DAY), (3, VALID_UNTIL)] {
        store.add(lease_until(scid, valid_until)).await.unwrap();
    }
    store.consume(&lease(3).id, spent(7, 100)).await.unwrap();
    let second = Duration::from_secs(1);
    assert_eq!(store.expire(VALID_UNTIL - second).await.unwrap(), []);
    assert_eq!(store.expire(VALID_UNTIL).await.unwrap(), [lease(1).id]);
    assert_eq!(store.expire(VALID_UNTIL).await.unwrap(), []);

    let late = store.consume(&lease(1).id, spent(8, 100)).await;
    assert!(matches!(late, Err(LeaseStoreError::Expired(_))));
    assert_eq!(open(&disk).await.get(&lease(1).id).unwrap().state, LeaseState::Expired);
}

#[tokio::test]
async fn the_router_sees_the_newest_first() {
    let store = Arc::new(open(&Disk::default()).await);
    let leases = [lease(1), lease_until(2, VALID_UNTIL + DAY), lease_until(3, VALID_UNTIL - DAY)];
    for lease in &leases {
        store.add(lease.clone()).await.unwrap();
    }
    let scids = |leases: Vec<Lease>| -> Vec<_> {
        leases.into_iter().map(|lease| lease.id.intercept_scid).collect()
    };
    let second = Duration::from_secs(1);
    let in_memory = leases.to_vec();
    for (now, expected) in [
        (Duration::ZERO, vec![2, 1, 3]),
        (VALID_UNTIL - second, vec![2, 1]),
        (VALID_UNTIL, vec![2]),
        (VALID_UNTIL + DAY, vec![]),
    ] {
        assert_eq!(scids(store.active_leases(now)), expected);
        assert_eq!(scids((&&*store).active_leases(now)), expected);
        assert_eq!(scids(in_memory.active_leases(now)), expected);
    }
}

/// Found by fuzzing: with one SCID from several LSPs, a restart could put another lease into the next
/// invoice.
#[tokio::test]
async fn leases_of_several_lsps_keep_their_order_over_a_restart() {
    let disk = Disk::default();
    let store = open(&disk).await;
    for lsp in 1..=20 {
        let mut lease = lease(1);
        lease.id.lsp_node_id = node(lsp);
        store.add(lease).await.unwrap();
    }
    for _ in 0..5 {
        let again = open(&disk).await;
        assert_eq!(again.list(), store.list());
        assert_eq!(again.active(Duration::ZERO), store.active(Duration::ZERO));
    }
}

prop_compose! {
    fn any_record()(
        lsp_node_id in any_node(),
        numbers in any::<[u64; 5]>(),
        small in any::<[u32; 3]>(),
        cltv_expiry_delta in any::<u16>(),
        payment_size_msat in any::<Option<u64>>(),
        trusts in any::<bool>(),
        state in 0..3u8,
        bytes in any::<[u8; 32]>(),
        settled in any::<bool>(),
    ) -> LeaseRecord {
        let consumption = Consumption {
            payment_hash: PaymentHash(bytes),
            channel_id: ChannelId(bytes),
            skimmed_fee_msat: numbers[4],
            settled,
        };
        let opening_fee_params = OpeningFeeParams {
            min_fee_msat: numbers[0],
            proportional: small[0],
            valid_until: Duration::from_millis(numbers[1]),
            min_lifetime: small[1],
            max_client_to_self_delay: small[2],
            min_payment_size_msat: numbers[2],
            max_payment_size_msat: numbers[3],
        };
        let trust_model =
            if trusts { TrustModel::ClientTrustsLsp } else { TrustModel::LspTrustsClient };
        let id = LeaseId { lsp_node_id, intercept_scid: numbers[0] };
        LeaseRecord {
            lease: Lease { id, cltv_expiry_delta, opening_fee_params, payment_size_msat, trust_model },
            state: match state {
                0 => LeaseState::Active,
                1 => LeaseState::Expired,
                _ => LeaseState::Consumed(consumption),
            },
        }
    }
}

/// Where the fuzz target `lease_record` starts from too.
const SEEDS: [&[u8]; 3] = [
    include_bytes!("../../fuzz/corpus/lease_record/active"),
    include_bytes!("../../fuzz/corpus/lease_record/consumed"),
    include_bytes!("../../fuzz/corpus/lease_record/expired"),
];

#[test]
fn the_seeds_are_records() {
    for seed in SEEDS {
        let record = LeaseRecord::decode(seed).unwrap();
        assert_eq!(record.encode(), seed, "the format on disk has not changed");
    }
}

proptest! {
    #[test]
    fn what_was_stored_is_read(record in any_record()) {
        prop_assert_eq!(LeaseRecord::decode(&record.encode()), Ok(record));
    }

    // The property of the fuzz target `lease_record`, on the stable toolchain.
    #[test]
    fn foreign_bytes_are_refused_or_understood(
        mut mutated in prop_oneof![
            proptest::sample::select(&SEEDS[..]).prop_map(<[u8]>::to_vec),
            any_record().prop_map(|record| record.encode()),
        ],
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..5),
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        for (at, byte) in edits {
            let at = at.index(mutated.len());
            mutated[at] = byte;
        }
        for bytes in [mutated, noise] {
            if let Ok(record) = LeaseRecord::decode(&bytes) {
                prop_assert_eq!(LeaseRecord::decode(&record.encode()), Ok(record));
            }
        }
    }
}
