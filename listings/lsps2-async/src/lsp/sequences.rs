//! The mailbox over long sequences, next to a model of what it has to keep.

use bitcoin::secp256k1::PublicKey;
use core::time::Duration;
use lightning::blinded_path::message::NextMessageHop;
use lightning::ln::msgs::OnionMessage;
use lightning::onion_message::packet::Packet;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::LazyLock;

use super::mailbox::{Mailbox, MailboxLimits, Posted};
use super::testing::{MemoryStore, seconds};

/// Keys are dear to make.
static NODES: LazyLock<Vec<PublicKey>> =
    LazyLock::new(|| (1..9).map(super::testing::node).collect());

fn node(at: u8) -> PublicKey {
    NODES[usize::from(at)]
}

/// What may happen to a mailbox.
#[derive(Clone, Debug)]
enum Step {
    Post { from: u8, to: u8, what: u8, bytes: usize },
    Take(u8),
    Wait(u64),
    Restart,
    Disk(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let post = (5..8u8, 1..5u8, any::<u8>(), 0..3_000usize)
        .prop_map(|(from, to, what, bytes)| Step::Post { from, to, what, bytes });
    prop_oneof![
        8 => post,
        3 => (1..5u8).prop_map(Step::Take),
        1 => (1..200u64).prop_map(Step::Wait),
        2 => Just(Step::Restart),
        1 => any::<bool>().prop_map(Step::Disk),
    ]
}

const LIMITS: MailboxLimits = MailboxLimits {
    messages_per_peer: 4,
    bytes_per_peer: 6_000,
    peers: 3,
    bytes: 12_000,
    deliveries: 2,
    time_to_live: Duration::from_secs(500),
};

fn message(what: u8, bytes: usize) -> OnionMessage {
    let (version, public_key, hmac) = (0, node(2), [what; 32]);
    let onion_routing_packet = Packet { version, public_key, hop_data: vec![what; bytes], hmac };
    OnionMessage { blinding_point: node(3), onion_routing_packet }
}

struct Office {
    store: MemoryStore,
    mailbox: Mailbox<MemoryStore>,
    now: u64,
    broken: bool,
    /// Every message that was kept for a recipient: when, and how often it was delivered since.
    kept: HashMap<PublicKey, Vec<(OnionMessage, u64, u32)>>,
}

impl Office {
    async fn step(&mut self, step: &Step) {
        match *step {
            Step::Post { from, to, what, bytes } => self.post(from, to, message(what, bytes)).await,
            Step::Take(peer) => self.take(node(peer)).await,
            Step::Wait(time) => self.now += time,
            Step::Restart if self.broken => {}
            Step::Restart => {
                self.mailbox = Mailbox::load(self.store.clone(), LIMITS).await.unwrap();
                assert!(self.mailbox.unreadable().is_empty());
            }
            Step::Disk(broken) => {
                self.broken = broken;
                self.store.set_broken(broken);
            }
        }
        assert!(self.mailbox.bytes() <= LIMITS.bytes);
        let waiting = (1..5).map(|peer| self.mailbox.waiting(&node(peer)));
        assert!(waiting.clone().all(|letters| letters <= LIMITS.messages_per_peer));
        assert!(waiting.filter(|letters| *letters > 0).count() <= LIMITS.peers);
    }

    async fn post(&mut self, from: u8, to: u8, message: OnionMessage) {
        let (to, now) = (node(to), seconds(self.now));
        let hop = NextMessageHop::NodeId(to);
        let before = self.mailbox.waiting(&to);
        let posted = self.mailbox.post(Some(node(from)), &hop, &message, |_| true, now).await;
        match posted {
            Ok(Posted::Kept { dropped }) => {
                assert!(self.mailbox.waiting(&to) <= before - dropped + 1);
                self.kept.entry(to).or_default().push((message, self.now, 0));
            }
            Ok(Posted::Duplicate | Posted::Dropped(_)) => {}
            Err(_) => assert!(self.broken),
        }
    }

    /// What is delivered was posted for this recipient, is not too old, and comes at most as often as
    /// the limits say.
    async fn take(&mut self, peer: PublicKey) {
        let Ok(mail) = self.mailbox.take_for(&peer, seconds(self.now)).await else {
            return assert!(self.broken);
        };
        let kept = self.kept.entry(peer).or_default();
        for message in mail {
            let lives = |posted: u64| self.now - posted < LIMITS.time_to_live.as_secs();
            let letter = kept.iter_mut().rev().find(|(known, posted, deliveries)| {
                *known == message && lives(*posted) && *deliveries < LIMITS.deliveries
            });
            letter.expect("only what was kept is delivered, and not too often").2 += 1;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_mailbox_keeps_its_bounds_and_makes_nothing_up(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let store = MemoryStore::default();
            let mailbox = Mailbox::load(store.clone(), LIMITS).await.unwrap();
            let (now, broken, kept) = (1_000, false, HashMap::new());
            let mut office = Office { store, mailbox, now, broken, kept };
            for step in &steps {
                office.step(step).await;
            }
        });
    }
}
