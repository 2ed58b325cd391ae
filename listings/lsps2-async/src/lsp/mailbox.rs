//! Onion messages for recipients that are away.
//!
//! `held_htlc_available` is sent once (`channelmanager.rs`), and if the recipient's reply is lost
//! the payment stays pending for up to seven days. So a message is delivered on several connects
//! and not only on the first: a replay after settlement is harmless.

#![expect(clippy::drop_non_drop, reason = "it is in the code of LDK's macros")]

use std::collections::{HashMap, VecDeque};

use bitcoin::secp256k1::PublicKey;
use core::cmp::Reverse;
use core::str::FromStr;
use core::time::Duration;
use lightning::blinded_path::message::NextMessageHop;
use lightning::impl_writeable_tlv_based;
use lightning::io;
use lightning::ln::msgs::OnionMessage;
use lightning::util::persist::KVStore;
use lightning::util::ser::{LengthReadable, Readable, Writeable};

/// The primary namespace of the mailbox; the secondary one is empty, the key is the recipient's
/// node id, an underscore and the number of the message in 16 hexadecimal digits.
pub const MAILBOX_NAMESPACE: &str = "onion_message_mailbox";

/// How much the mailbox holds, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MailboxLimits {
    /// Messages per recipient.
    pub messages_per_peer: usize,
    /// Bytes per recipient. A message of 1300 bytes takes 1401, one of 32 768 bytes 32 869.
    pub bytes_per_peer: usize,
    /// Recipients.
    pub peers: usize,
    /// Bytes in all.
    pub bytes: usize,
    /// On how many connects a message is delivered.
    pub deliveries: u32,
    /// How long a message is kept. LDK gives up an async payment after 7 days.
    pub time_to_live: Duration,
}

impl Default for MailboxLimits {
    fn default() -> Self {
        Self {
            messages_per_peer: 30,
            bytes_per_peer: 256 * 1024,
            peers: 10_000,
            bytes: 256 * 1024 * 1024,
            deliveries: 3,
            time_to_live: Duration::from_secs(7 * 24 * 60 * 60),
        }
    }
}

/// What was done with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It is kept, and this many older ones of the same recipient had to go.
    Kept {
        /// How many were dropped.
        dropped: usize,
    },
    /// It is there already.
    Duplicate,
    /// It was dropped.
    Dropped(DropReason),
}

/// Why a message was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// It was sent by this node, so it is an invoice request that the static invoice server
    /// forwarded. A recipient without a channel would answer it with `InvoiceError`, and the payer
    /// would abandon the async payment.
    #[error("it is a forwarded invoice request")]
    ForwardedInvoiceRequest,
    /// It names its next hop by an SCID, which is of no one's mailbox.
    #[error("its next hop is SCID {0:016x}")]
    NextHopIsScid(u64),
    /// Its recipient is no client.
    #[error("its recipient is no client")]
    NotAClient,
    /// It alone is larger than a recipient's share.
    #[error("it has {0} bytes, more than a recipient's share")]
    TooLarge(usize),
    /// There are too many recipients, or too many bytes in all.
    #[error("the mailbox is full")]
    Full,
}

/// The store failed. What was not written is not in effect: the mailbox holds what its store holds.
#[derive(Debug, thiserror::Error)]
#[error("the mailbox's store failed ({0}): repair it and handle the event again")]
pub struct MailboxError(#[from] io::Error);

#[derive(Clone)]
struct Letter {
    number: u64,
    received: Duration,
    deliveries: u32,
    /// The peer that brought it; not known of mail that an earlier version kept.
    sender: Option<PublicKey>,
    message: Vec<u8>,
}

struct StoredLetter {
    received: Duration,
    deliveries: u32,
    sender: Option<PublicKey>,
    message: Vec<u8>,
}

impl_writeable_tlv_based!(StoredLetter, {
    (0, received, required),
    (2, deliveries, required),
    (3, sender, option),
    (4, message, required),
});

/// The mailbox. Put it behind an asynchronous mutex of its own.
pub struct Mailbox<K: KVStore> {
    store: K,
    limits: MailboxLimits,
    letters: HashMap<PublicKey, VecDeque<Letter>>,
    next_number: u64,
    unreadable: Vec<String>,
}

impl<K: KVStore> Mailbox<K> {
    /// Reads the mailbox. Entries that cannot be read stay in the store; see [`Self::unreadable`].
    ///
    /// Errors if the store fails.
    pub async fn load(store: K, limits: MailboxLimits) -> Result<Self, MailboxError> {
        let mut keys = store.list(MAILBOX_NAMESPACE, "").await?;
        keys.sort_unstable();
        let (letters, unreadable) = (HashMap::new(), Vec::new());
        let mut mailbox = Self { store, limits, letters, next_number: 0, unreadable };
        for key in keys {
            let bytes = mailbox.store.read(MAILBOX_NAMESPACE, "", &key).await?;
            match decode(&key, &bytes) {
                Some((peer, letter)) => mailbox.shelve(peer, letter),
                None => {
                    // Nothing is written over it.
                    if let Some((_, number)) = names(&key) {
                        mailbox.next_number = mailbox.next_number.max(number.saturating_add(1));
                    }
                    mailbox.unreadable.push(key);
                }
            }
        }
        Ok(mailbox)
    }

    fn shelve(&mut self, peer: PublicKey, letter: Letter) {
        self.next_number = self.next_number.max(letter.number.saturating_add(1));
        self.letters.entry(peer).or_default().push_back(letter);
    }

    /// The keys of entries that could not be read. Remove them from the store.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }

    /// Handles `Event::OnionMessageIntercepted`.
    ///
    /// `is_client` says for whom mail is kept. On an error the message was not kept.
    pub async fn post(
        &mut self,
        prev_hop: Option<PublicKey>,
        next_hop: &NextMessageHop,
        message: &OnionMessage,
        is_client: impl Fn(&PublicKey) -> bool,
        now: Duration,
    ) -> Result<Posted, MailboxError> {
        let peer = match addressee(prev_hop, next_hop) {
            Ok(peer) if !is_client(&peer) => return Ok(Posted::Dropped(DropReason::NotAClient)),
            Ok(peer) => peer,
            Err(why) => return Ok(Posted::Dropped(why)),
        };
        self.expire_peer(&peer, now).await?;
        let message = message.encode();
        if self.of(&peer).iter().any(|letter| letter.message == message) {
            return Ok(Posted::Duplicate);
        }
        match self.room_for(&peer, prev_hop, message.len()) {
            Ok(dropped) => {
                let number = self.next_number;
                let sender = prev_hop;
                let letter = Letter { number, received: now, deliveries: 0, sender, message };
                self.keep(peer, letter, dropped).await
            }
            Err(why) => Ok(Posted::Dropped(why)),
        }
    }

    async fn keep(
        &mut self,
        peer: PublicKey,
        letter: Letter,
        dropped: Vec<u64>,
    ) -> Result<Posted, MailboxError> {
        // First the old ones: if the store fails half-way, the limits hold and the message was not kept.
        for number in &dropped {
            self.remove(&peer, *number).await?;
        }
        self.write(&peer, &letter).await?;
        self.shelve(peer, letter);
        Ok(Posted::Kept { dropped: dropped.len() })
    }

    /// Which of the recipient's letters must go for one more. Those of other recipients never do:
    /// nobody can push their mail out.
    fn room_for(
        &self,
        peer: &PublicKey,
        sender: Option<PublicKey>,
        bytes: usize,
    ) -> Result<Vec<u64>, DropReason> {
        if bytes > self.limits.bytes_per_peer {
            return Err(DropReason::TooLarge(bytes));
        }
        let mut left = self.of(peer);
        let is_new = left.is_empty() && self.letters.len() >= self.limits.peers;
        // No letter after the last number could be told from another.
        if is_new || self.next_number == u64::MAX {
            return Err(DropReason::Full);
        }
        let others = self.bytes().saturating_sub(size(&left));
        let mut dropped = Vec::new();
        loop {
            let fits = left.len() < self.limits.messages_per_peer
                && size(&left) + bytes <= self.limits.bytes_per_peer
                && others + size(&left) + bytes <= self.limits.bytes;
            if fits {
                return Ok(dropped);
            }
            let goes = self.goes_first(&left, sender, bytes).ok_or(DropReason::Full)?;
            left.retain(|letter| letter.number != goes);
            dropped.push(goes);
        }
    }

    /// The oldest letter of the sender that takes the most of a recipient's share, with what it is
    /// sending now: a peer that floods pushes its own letters out.
    fn goes_first(&self, left: &[Letter], sender: Option<PublicKey>, bytes: usize) -> Option<u64> {
        let share = |of: Option<PublicKey>| {
            let letters = left.iter().filter(|letter| letter.sender == of);
            let lengths = letters.map(|letter| letter.message.len());
            let lengths = lengths.chain((of == sender).then_some(bytes));
            let (count, sum) =
                lengths.fold((0_usize, 0_usize), |(n, sum), length| (n + 1, sum + length));
            count
                .saturating_mul(self.limits.bytes_per_peer)
                .max(sum.saturating_mul(self.limits.messages_per_peer))
        };
        // Of equal ones the first, which is the oldest.
        left.iter().min_by_key(|letter| Reverse(share(letter.sender))).map(|letter| letter.number)
    }

    /// Handles `Event::OnionMessagePeerConnected`: the messages for
    /// `OnionMessenger::forward_onion_message`, oldest first. Each is counted as delivered once,
    /// and goes after the last delivery.
    pub async fn take_for(
        &mut self,
        peer: &PublicKey,
        now: Duration,
    ) -> Result<Vec<OnionMessage>, MailboxError> {
        self.expire_peer(peer, now).await?;
        let mut messages = Vec::new();
        for mut letter in self.of(peer) {
            letter.deliveries = letter.deliveries.saturating_add(1);
            messages.extend(parse(&letter.message));
            if letter.deliveries >= self.limits.deliveries {
                self.remove(peer, letter.number).await?;
            } else {
                self.write(peer, &letter).await?;
                self.replace(peer, letter);
            }
        }
        Ok(messages)
    }

    /// Removes what is past its time. Call it now and then: mail of a recipient that never returns
    /// goes no other way.
    pub async fn expire(&mut self, now: Duration) -> Result<(), MailboxError> {
        for peer in self.letters.keys().copied().collect::<Vec<_>>() {
            self.expire_peer(&peer, now).await?;
        }
        Ok(())
    }

    /// How many messages wait for a recipient.
    pub fn waiting(&self, peer: &PublicKey) -> usize {
        self.letters.get(peer).map_or(0, VecDeque::len)
    }

    /// How many bytes the mailbox holds.
    pub fn bytes(&self) -> usize {
        self.letters.values().flatten().map(|letter| letter.message.len()).sum()
    }

    async fn expire_peer(&mut self, peer: &PublicKey, now: Duration) -> Result<(), MailboxError> {
        for letter in self.of(peer) {
            if now.saturating_sub(letter.received) >= self.limits.time_to_live {
                self.remove(peer, letter.number).await?;
            }
        }
        Ok(())
    }

    async fn remove(&mut self, peer: &PublicKey, number: u64) -> Result<(), MailboxError> {
        self.store.remove(MAILBOX_NAMESPACE, "", &key(peer, number), false).await?;
        if let Some(own) = self.letters.get_mut(peer) {
            own.retain(|letter| letter.number != number);
            if own.is_empty() {
                self.letters.remove(peer);
            }
        }
        Ok(())
    }

    async fn write(&self, peer: &PublicKey, letter: &Letter) -> Result<(), MailboxError> {
        let stored = StoredLetter {
            received: letter.received,
            deliveries: letter.deliveries,
            sender: letter.sender,
            message: letter.message.clone(),
        };
        let key = key(peer, letter.number);
        self.store.write(MAILBOX_NAMESPACE, "", &key, stored.encode()).await?;
        Ok(())
    }

    fn replace(&mut self, peer: &PublicKey, letter: Letter) {
        let own = self.letters.get_mut(peer).into_iter().flatten();
        for kept in own.filter(|kept| kept.number == letter.number) {
            kept.deliveries = letter.deliveries;
        }
    }

    fn of(&self, peer: &PublicKey) -> Vec<Letter> {
        self.letters.get(peer).into_iter().flatten().cloned().collect()
    }
}

fn addressee(
    prev_hop: Option<PublicKey>,
    next_hop: &NextMessageHop,
) -> Result<PublicKey, DropReason> {
    if prev_hop.is_none() {
        return Err(DropReason::ForwardedInvoiceRequest);
    }
    match next_hop {
        NextMessageHop::NodeId(peer) => Ok(*peer),
        NextMessageHop::ShortChannelId(scid) => Err(DropReason::NextHopIsScid(*scid)),
    }
}

fn size(letters: &[Letter]) -> usize {
    letters.iter().map(|letter| letter.message.len()).sum()
}

fn key(peer: &PublicKey, number: u64) -> String {
    format!("{peer}_{number:016x}")
}

/// The recipient and the number in a key. Another way to write them is none: under it a letter would
/// be removed in memory only.
fn names(name: &str) -> Option<(PublicKey, u64)> {
    let (peer, number) = name.split_once('_')?;
    let (peer, number) = (PublicKey::from_str(peer).ok()?, u64::from_str_radix(number, 16).ok()?);
    (key(&peer, number) == name && number < u64::MAX).then_some((peer, number))
}

fn decode(name: &str, bytes: &[u8]) -> Option<(PublicKey, Letter)> {
    let (peer, number) = names(name)?;
    let stored = StoredLetter::read(&mut &*bytes).ok()?;
    let StoredLetter { received, deliveries, sender, message } = stored;
    parse(&message)?;
    Some((peer, Letter { number, received, deliveries, sender, message }))
}

fn parse(message: &[u8]) -> Option<OnionMessage> {
    OnionMessage::read_from_fixed_length_buffer(&mut &*message).ok()
}

#[cfg(test)]
mod tests {
    use lightning::onion_message::packet::Packet;

    use super::*;
    use crate::lsp::testing::*;

    fn message(byte: u8, bytes: usize) -> OnionMessage {
        let (version, public_key, hmac) = (0, node(2), [byte; 32]);
        let hop_data = vec![byte; bytes];
        let onion_routing_packet = Packet { version, public_key, hop_data, hmac };
        OnionMessage { blinding_point: node(3), onion_routing_packet }
    }

    struct Post {
        store: MemoryStore,
        limits: MailboxLimits,
        mailbox: Mailbox<MemoryStore>,
    }

    impl Post {
        async fn new(limits: MailboxLimits) -> Self {
            let store = MemoryStore::default();
            let mailbox = Mailbox::load(store.clone(), limits).await.unwrap();
            Self { store, limits, mailbox }
        }

        async fn post(&mut self, to: u8, message: &OnionMessage) -> Posted {
            self.post_from(9, to, message).await
        }

        async fn post_from(&mut self, from: u8, to: u8, message: &OnionMessage) -> Posted {
            let to = NextMessageHop::NodeId(node(to));
            let posted = self.mailbox.post(Some(node(from)), &to, message, |_| true, seconds(10));
            posted.await.unwrap()
        }

        async fn take(&mut self, peer: u8, now: u64) -> Vec<OnionMessage> {
            self.mailbox.take_for(&node(peer), seconds(now)).await.unwrap()
        }

        async fn restart(&mut self) {
            self.mailbox = Mailbox::load(self.store.clone(), self.limits).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_message_is_delivered_thrice_even_over_a_restart() {
        let mut post = Post::new(MailboxLimits::default()).await;
        let (one, two) = (message(1, 1_300), message(2, 32_768));
        assert_eq!(post.post(1, &one).await, Posted::Kept { dropped: 0 });
        assert_eq!(post.post(1, &two).await, Posted::Kept { dropped: 0 });
        assert_eq!(post.post(1, &one).await, Posted::Duplicate);
        for _ in 0..3 {
            assert_eq!(post.take(1, 20).await, [one.clone(), two.clone()]);
            post.restart().await;
        }
        assert!(post.take(1, 20).await.is_empty());
        assert!(post.store.keys().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_for_a_client_is_dropped() {
        let mut post = Post::new(MailboxLimits::default()).await;
        let (to, mail) = (NextMessageHop::NodeId(node(1)), message(1, 1_300));
        let posted = post.mailbox.post(None, &to, &mail, |_| true, seconds(1)).await;
        assert_eq!(posted.unwrap(), Posted::Dropped(DropReason::ForwardedInvoiceRequest));
        let posted = post.mailbox.post(Some(node(9)), &to, &mail, |_| false, seconds(1)).await;
        assert_eq!(posted.unwrap(), Posted::Dropped(DropReason::NotAClient));
        let to = NextMessageHop::ShortChannelId(5);
        let posted = post.mailbox.post(Some(node(9)), &to, &mail, |_| true, seconds(1)).await;
        assert_eq!(posted.unwrap(), Posted::Dropped(DropReason::NextHopIsScid(5)));
        assert!(post.store.keys().is_empty());
    }

    #[tokio::test]
    async fn the_oldest_goes_when_a_recipients_share_is_full() {
        let limits = MailboxLimits { messages_per_peer: 2, ..MailboxLimits::default() };
        let mut post = Post::new(limits).await;
        for byte in 1..=2 {
            post.post(1, &message(byte, 10)).await;
        }
        assert_eq!(post.post(1, &message(3, 10)).await, Posted::Kept { dropped: 1 });
        post.restart().await;
        assert_eq!(post.take(1, 20).await, [message(2, 10), message(3, 10)]);
    }

    /// A flood of small letters, or of large ones, over one connection: the letters of others stay.
    #[tokio::test]
    async fn a_sender_that_floods_pushes_its_own_letters_out() {
        for (bytes, kept) in [(10, 30), (32_768, 9)] {
            let mut post = Post::new(MailboxLimits::default()).await;
            let honest = message(0, 1_300);
            post.post_from(8, 1, &honest).await;
            for byte in 1..=200 {
                let posted = post.post_from(9, 1, &message(byte, bytes)).await;
                assert!(matches!(posted, Posted::Kept { .. }));
            }
            post.restart().await;
            let late = message(201, 1_300);
            post.post_from(8, 1, &late).await;
            let mail = post.take(1, 20).await;
            assert_eq!((mail.first(), mail.last()), (Some(&honest), Some(&late)));
            assert_eq!(mail.len(), kept);
        }
    }

    /// As many connections as there are letters, one letter over each: then the oldest goes.
    #[tokio::test]
    async fn of_many_senders_the_oldest_letter_goes() {
        let limits = MailboxLimits { messages_per_peer: 3, ..MailboxLimits::default() };
        let mut post = Post::new(limits).await;
        for sender in 1..=3 {
            post.post_from(sender, 1, &message(sender, 10)).await;
        }
        assert_eq!(post.post_from(4, 1, &message(4, 10)).await, Posted::Kept { dropped: 1 });
        let left = [2, 3, 4].map(|byte| message(byte, 10));
        assert_eq!(post.take(1, 20).await, left);
    }

    #[tokio::test]
    async fn a_full_mailbox_keeps_what_it_has() {
        let share = message(1, 100).encode().len();
        let limits = MailboxLimits {
            bytes: 2 * share,
            bytes_per_peer: 2 * share,
            ..MailboxLimits::default()
        };
        let mut post = Post::new(limits).await;
        post.post(1, &message(1, 100)).await;
        post.post(2, &message(2, 100)).await;
        let full = Posted::Dropped(DropReason::Full);
        assert_eq!(post.post(3, &message(3, 100)).await, full);
        assert_eq!(post.post(1, &message(4, 100)).await, Posted::Kept { dropped: 1 });
        let large = message(5, 400);
        let too_large = Posted::Dropped(DropReason::TooLarge(large.encode().len()));
        assert_eq!(post.post(1, &large).await, too_large);
        assert_eq!(post.mailbox.bytes(), 2 * share);
    }

    #[tokio::test]
    async fn the_number_of_recipients_is_bounded() {
        let limits = MailboxLimits { peers: 1, ..MailboxLimits::default() };
        let mut post = Post::new(limits).await;
        post.post(1, &message(1, 1)).await;
        assert_eq!(post.post(2, &message(1, 1)).await, Posted::Dropped(DropReason::Full));
        assert_eq!(post.post(1, &message(2, 1)).await, Posted::Kept { dropped: 0 });
    }

    #[tokio::test]
    async fn old_mail_goes() {
        let mut post = Post::new(MailboxLimits::default()).await;
        post.post(1, &message(1, 1)).await;
        let week = 7 * 24 * 60 * 60;
        post.mailbox.expire(seconds(week + 9)).await.unwrap();
        assert_eq!(post.mailbox.waiting(&node(1)), 1);
        assert!(post.take(1, week + 10).await.is_empty());
        assert!(post.store.keys().is_empty());
    }

    #[tokio::test]
    async fn a_broken_store_and_unreadable_mail_are_reported() {
        let mut post = Post::new(MailboxLimits::default()).await;
        post.post(1, &message(1, 1)).await;
        post.store.set(MAILBOX_NAMESPACE, "", &key(&node(2), 5), &[1]);
        post.restart().await;
        assert_eq!(post.mailbox.unreadable(), [key(&node(2), 5)]);
        post.store.set_broken(true);
        let to = NextMessageHop::NodeId(node(1));
        let mail = message(2, 1);
        let posted = post.mailbox.post(Some(node(9)), &to, &mail, |_| true, seconds(1)).await;
        assert!(posted.is_err());
        assert_eq!(post.mailbox.waiting(&node(1)), 1);
    }

    /// Found by fuzzing: the next letter got its number.
    #[tokio::test]
    async fn nothing_is_written_over_a_letter_that_cannot_be_read() {
        let mut post = Post::new(MailboxLimits::default()).await;
        let foreign = key(&node(1), 0);
        post.store.set(MAILBOX_NAMESPACE, "", &foreign, &[1]);
        post.restart().await;
        assert_eq!(post.post(1, &message(1, 1)).await, Posted::Kept { dropped: 0 });
        assert_eq!(post.store.get(MAILBOX_NAMESPACE, "", &foreign), [1]);
        assert_eq!(post.store.keys().len(), 2);

        // There is a last number.
        post.store.set(MAILBOX_NAMESPACE, "", &key(&node(1), u64::MAX - 1), &[1]);
        post.restart().await;
        assert_eq!(post.post(1, &message(2, 1)).await, Posted::Dropped(DropReason::Full));
    }

    /// Found by fuzzing: such a letter was taken out of memory, and lay in the store again after the
    /// next restart.
    #[tokio::test]
    async fn a_letter_under_another_name_than_its_own_is_unreadable() {
        let mut post = Post::new(MailboxLimits::default()).await;
        post.post(1, &message(1, 1)).await;
        let (_, _, name) = post.store.keys().remove(0);
        let letter = post.store.get(MAILBOX_NAMESPACE, "", &name);
        let (short, upper) = (format!("{}_0", node(1)), name.to_uppercase());
        // There is no number after this one.
        let last = key(&node(1), u64::MAX);
        for foreign in [&short, &upper, &last] {
            post.store.set(MAILBOX_NAMESPACE, "", foreign, &letter);
        }
        post.restart().await;
        let mut expected = [short, upper, last];
        expected.sort();
        assert_eq!(post.mailbox.unreadable(), expected);
        assert_eq!(post.mailbox.waiting(&node(1)), 1);
    }
}
