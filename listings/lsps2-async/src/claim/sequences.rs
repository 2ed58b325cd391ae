//! The guard and the lease store over long sequences: whatever an LSP does, and whenever the wallet
//! crashes, a lease pays one fee, for one channel.

use super::*;
use crate::lease::fixtures::{VALID_UNTIL, hash, lease};
use crate::lease::{LeaseStore, LeaseStoreError};
use crate::lsp::testing::MemoryStore;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;

/// Keys are dear to make.
static LEASES: LazyLock<Vec<Lease>> = LazyLock::new(|| (0..4).map(lease).collect());

/// What may happen to a wallet.
#[derive(Clone, Debug)]
enum Step {
    Buy(u64),
    /// A payment may be claimed, under a lease if one is named, over a channel that is for leases.
    Claimable {
        payment: u8,
        lease: Option<u64>,
        channel: u8,
        skim: u64,
        gross: u64,
    },
    /// LDK has claimed what was judged in this payment's name.
    Claimed(u8),
    Wait(u64),
    Disk(bool),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let terms = LEASES[1].opening_fee_params.clone();
    let skim = prop_oneof![
        3 => Just(terms.min_fee_msat),
        1 => Just(0),
        1 => Just(terms.min_fee_msat + 1),
        1 => 0..terms.min_fee_msat * 2,
    ];
    let gross = prop_oneof![Just(100_000_000u64), terms.min_fee_msat + 1..1_000_000_000];
    prop_oneof![
        2 => (0..4u64).prop_map(Step::Buy),
        8 => (0..5u8, proptest::option::weighted(0.9, 0..4u64), 0..3u8, skim, gross).prop_map(
            |(payment, lease, channel, skim, gross)| Step::Claimable {
                payment, lease, channel, skim, gross
            }
        ),
        4 => (0..5u8).prop_map(Step::Claimed),
        1 => (1..1_000u64).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Disk),
        2 => Just(Step::Restart),
    ]
}

/// A skim that was let pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Passed {
    payment: u8,
    channel: u8,
    skim: u64,
    settled: bool,
}

struct Wallet {
    disk: MemoryStore,
    store: LeaseStore<MemoryStore>,
    now: Duration,
    /// What the model knows: under which lease which skim was let pass.
    passed: HashMap<u64, Passed>,
}

impl Wallet {
    fn new() -> Self {
        let disk = MemoryStore::default();
        let store = now(LeaseStore::load(disk.clone())).unwrap().0;
        Self { disk, store, now: VALID_UNTIL - Duration::from_secs(3_000), passed: HashMap::new() }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Buy(scid) => drop(now(self.store.add(LEASES[scid as usize].clone()))),
            Step::Claimable { payment, lease, channel, skim, gross } => {
                self.claimable(payment, lease, channel, skim, gross);
            }
            Step::Claimed(payment) => {
                if now(self.store.settle(&hash(payment))).is_ok() {
                    let of = self.passed.values_mut().filter(|passed| passed.payment == payment);
                    of.for_each(|passed| passed.settled = true);
                }
            }
            Step::Wait(time) => {
                self.now += Duration::from_secs(time);
                let _ = now(self.store.expire(ClaimPolicy::default().expiry_cutoff(self.now)));
            }
            Step::Disk(broken) => self.disk.set_broken(broken),
            Step::Restart => {
                if let Ok((store, unreadable)) = now(LeaseStore::load(self.disk.clone())) {
                    assert!(unreadable.is_empty());
                    self.store = store;
                }
            }
        }
    }

    fn claimable(&mut self, payment: u8, scid: Option<u64>, channel: u8, skim: u64, gross: u64) {
        let metadata = scid.and_then(|scid| {
            let mut entries = None;
            LeaseMetadata::for_lease(&LEASES[scid as usize]).unwrap().insert_into(&mut entries);
            entries
        });
        let channel_id = ChannelId([channel; 32]);
        let by = self.store.paid_over(&channel_id);
        let peers = [LEASES[1].id.lsp_node_id];
        let arrival = Arrival {
            payment_hash: hash(payment),
            amount_msat: gross.saturating_sub(skim),
            skimmed_fee_msat: skim,
            metadata: metadata.as_ref(),
            channel_peers: &peers,
            channel_id,
            channel_use: by.map_or(ChannelUse::Jit, ChannelUse::Paid),
            total_msat: None,
            unfunded: false,
        };
        let lookup = |id: &LeaseId| self.store.get(id);
        match judge(&arrival, lookup, &ClaimPolicy::default(), self.now) {
            Ok(Verdict::Claim) => assert_eq!(skim, 0, "what was skimmed was let pass unseen"),
            Ok(Verdict::ConsumeThenClaim { lease: id, consumption }) => {
                match now(self.store.consume(&id, consumption)) {
                    Ok(()) => self.passes(id, payment, channel, skim, gross),
                    Err(error) => assert!(
                        matches!(error, LeaseStoreError::Storage { .. }),
                        "judged and stored otherwise: {error}"
                    ),
                }
            }
            Err(_) => {}
        }
    }

    fn passes(&mut self, id: LeaseId, payment: u8, channel: u8, skim: u64, gross: u64) {
        let agreed = LEASES[id.intercept_scid as usize].opening_fee_msat(gross).unwrap();
        assert!(skim <= agreed, "{skim} of {gross}: {agreed} were agreed");
        let other = self
            .passed
            .iter()
            .find(|(scid, passed)| **scid != id.intercept_scid && passed.channel == channel);
        assert_eq!(other, None, "two leases paid for channel {channel}");
        let new = Passed { payment, channel, skim, settled: false };
        // A replay may bring less; what counts is what was written down first.
        let earlier = *self.passed.entry(id.intercept_scid).or_insert(new);
        let replay = earlier.payment == payment && skim <= earlier.skim && !earlier.settled;
        assert!(replay, "lease {} paid twice: {earlier:?}, {new:?}", id.intercept_scid);
    }
}

/// The store in memory is never slow.
fn now<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        if let Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_lease_pays_one_fee_for_one_channel_whatever_happens(
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        let mut wallet = Wallet::new();
        for step in &steps {
            wallet.step(step);
        }
    }
}
