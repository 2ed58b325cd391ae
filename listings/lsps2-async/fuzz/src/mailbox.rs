//! What an LSP keeps for recipients that are away: whatever strangers post, and what its disk says.

use bitcoin::secp256k1::PublicKey;
use core::str::FromStr;
use core::time::Duration;
use lightning::blinded_path::message::NextMessageHop;
use lightning::ln::msgs::OnionMessage;
use lightning::util::ser::{LengthReadable, Writeable};
use lsps2_async::lsp::mailbox::{MAILBOX_NAMESPACE, Mailbox, MailboxLimits, Posted};
use std::collections::BTreeSet;
use std::sync::OnceLock;

use crate::feed::Feed;
use crate::lease::node_id;
use crate::now;
use crate::store::Disk;

const LIMITS: MailboxLimits = MailboxLimits {
    messages_per_peer: 3,
    bytes_per_peer: 600,
    peers: 2,
    bytes: 1_000,
    deliveries: 2,
    time_to_live: Duration::from_secs(100),
};

/// The mailbox holds what its disk holds, never more than its limits allow once something is posted,
/// and nobody's post pushes another's out.
pub fn mailbox(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let disk = Disk::default();
    let mut peers = stored(&mut feed, &disk);
    let before = disk.entries(MAILBOX_NAMESPACE);
    let mut mailbox = now(Mailbox::load(disk.clone(), LIMITS)).expect("the disk works");
    assert_eq!(before, disk.entries(MAILBOX_NAMESPACE), "reading changes nothing");
    for seed in 1..4 {
        know(&mut peers, client(seed));
    }
    let unreadable = unreadable(&mailbox);
    same_as_disk(&mailbox, &disk, &peers, &unreadable);
    let mut understood = before.len() > unreadable.len();

    let mut time = Duration::ZERO;
    for _ in 0..24 {
        if feed.is_over() {
            break;
        }
        time = time.saturating_add(Duration::from_secs(feed.byte().into()));
        let kept_before = waiting(&mailbox, &peers);
        let bytes_before = mailbox.bytes();
        // 0 to 2 calls succeed; mostly all of them.
        let broken = feed.byte();
        if broken < 3 {
            disk.fails_after(broken);
        }
        let at = usize::from(feed.byte()) % peers.len();
        let peer = peers[at].0;
        let ok = match feed.below(4) {
            0 | 1 => {
                let Some(message) = letter(feed.chunk()) else { break };
                understood = true;
                post(&mut mailbox, peer, &message, feed.byte(), time)
            }
            2 => take(&mut mailbox, peer, time),
            _ => now(mailbox.expire(time)).is_ok(),
        };
        disk.is_repaired();
        same_as_disk(&mailbox, &disk, &peers, &unreadable);
        assert!(mailbox.bytes() <= bytes_before.max(LIMITS.bytes));
        for ((other, _), waited) in peers.iter().zip(&kept_before) {
            let waits = mailbox.waiting(other);
            assert!(*other == peer || waits <= *waited, "only its own mail grows");
            assert!(waits <= (*waited).max(LIMITS.messages_per_peer));
        }
        if !ok {
            assert!(mailbox.waiting(&peer) <= kept_before[at], "on an error nothing is kept");
        }
    }
    disk.is_repaired();
    let again = now(Mailbox::load(disk, LIMITS)).expect("the disk works");
    assert_eq!(waiting(&mailbox, &peers), waiting(&again, &peers), "a restart finds the same");
    assert_eq!(mailbox.bytes(), again.bytes());
    understood
}

/// The first point on the curve whose coordinate begins so.
fn client(seed: u8) -> PublicKey {
    static CLIENTS: OnceLock<Vec<PublicKey>> = OnceLock::new();
    let make = |seed: u8| {
        let mut bytes = [seed; 33];
        bytes[0] = 2;
        let point = |last| {
            bytes[32] = last;
            node_id(&bytes)
        };
        (0..=u8::MAX).find_map(point).expect("half of all numbers are coordinates")
    };
    CLIENTS.get_or_init(|| (0..8).map(make).collect())[usize::from(seed)]
}

/// A recipient, and how its keys in the store begin.
type Peers = Vec<(PublicKey, String)>;

fn know(peers: &mut Peers, peer: PublicKey) {
    if peers.iter().all(|(known, _)| *known != peer) {
        peers.push((peer, format!("{peer}_")));
    }
}

fn stored(feed: &mut Feed<'_>, disk: &Disk) -> Peers {
    let mut peers = Peers::new();
    for _ in 0..feed.below(5) {
        let key = String::from_utf8_lossy(feed.chunk()).into_owned();
        let peer = key.split_once('_').and_then(|(peer, _)| PublicKey::from_str(peer).ok());
        if let Some(peer) = peer {
            know(&mut peers, peer);
        }
        disk.put(MAILBOX_NAMESPACE, "", &key, feed.chunk());
    }
    peers
}

fn letter(bytes: &[u8]) -> Option<OnionMessage> {
    let message = OnionMessage::read_from_fixed_length_buffer(&mut &*bytes).ok()?;
    let again = message.encode();
    let reread = OnionMessage::read_from_fixed_length_buffer(&mut &*again);
    assert!(reread.is_ok_and(|reread| reread == message));
    Some(message)
}

fn post(
    mailbox: &mut Mailbox<Disk>,
    peer: PublicKey,
    message: &OnionMessage,
    how: u8,
    time: Duration,
) -> bool {
    let next_hop = match how & 3 {
        0 => NextMessageHop::ShortChannelId(how.into()),
        _ => NextMessageHop::NodeId(peer),
    };
    let prev_hop = (how & 12 != 0).then(|| client(4 + (how >> 6)));
    let is_client = |asked: &PublicKey| *asked == peer && how & 48 != 0;
    let before = (mailbox.waiting(&peer), mailbox.bytes());
    match now(mailbox.post(prev_hop, &next_hop, message, is_client, time)) {
        Ok(Posted::Kept { .. }) => {
            assert!(how & 3 != 0 && how & 12 != 0 && how & 48 != 0, "it is for a client");
            assert!(mailbox.waiting(&peer) <= LIMITS.messages_per_peer);
            assert!(mailbox.bytes() <= LIMITS.bytes);
            assert!(mailbox.waiting(&peer) > 0);
            true
        }
        Ok(Posted::Duplicate | Posted::Dropped(_)) => {
            assert!(mailbox.waiting(&peer) <= before.0 && mailbox.bytes() <= before.1);
            true
        }
        Err(_) => false,
    }
}

fn take(mailbox: &mut Mailbox<Disk>, peer: PublicKey, time: Duration) -> bool {
    let waited = mailbox.waiting(&peer);
    match now(mailbox.take_for(&peer, time)) {
        Ok(messages) => {
            assert!(messages.len() <= waited);
            assert!(mailbox.waiting(&peer) <= messages.len(), "what stays was delivered");
            true
        }
        Err(_) => false,
    }
}

fn unreadable(mailbox: &Mailbox<Disk>) -> BTreeSet<String> {
    mailbox.unreadable().iter().cloned().collect()
}

fn waiting(mailbox: &Mailbox<Disk>, peers: &Peers) -> Vec<usize> {
    peers.iter().map(|(peer, _)| mailbox.waiting(peer)).collect()
}

/// As many letters as entries, for each recipient, and none for anybody else.
fn same_as_disk(
    mailbox: &Mailbox<Disk>,
    disk: &Disk,
    peers: &Peers,
    unreadable: &BTreeSet<String>,
) {
    let mut keys = disk.keys(MAILBOX_NAMESPACE);
    keys.retain(|key| !unreadable.contains(key));
    let of = |prefix: &str| keys.iter().filter(|key| key.starts_with(prefix)).count();
    let on_disk: Vec<_> = peers.iter().map(|(_, prefix)| of(prefix)).collect();
    assert_eq!(on_disk, waiting(mailbox, peers));
    assert_eq!(on_disk.iter().sum::<usize>(), keys.len());
}
