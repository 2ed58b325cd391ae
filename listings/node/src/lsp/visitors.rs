//! Peers that are nobody's client. LDK takes 250 peers without a channel, and then hangs up on the
//! next, be it a wallet with a lease or a payer with an invoice request.

use bitcoin::secp256k1::PublicKey;
use std::collections::{HashSet, VecDeque};

/// How many strangers may stay: room is left for those who come.
pub const MOST_STRANGERS: usize = 200;

/// Whether a peer with such a channel is a client. LDK counts the same way, but for zero-conf
/// channels that a peer opens, which this LSP does not accept: what a peer funds itself has
/// cost it nothing before it has a confirmation, and a peer with no other channel takes one of the 250
/// places.
pub(super) fn keeps_a_place(is_outbound: bool, confirmations: Option<u32>) -> bool {
    is_outbound || confirmations.is_some_and(|confirmations| confirmations > 0)
}

/// Strangers, in the order in which they came.
#[derive(Default)]
pub(super) struct Visitors(VecDeque<PublicKey>);

impl Visitors {
    /// Which of these strangers have to go so that no more than `most` stay: those that have been
    /// there for longest. Whoever wants to buy or to pay has had the time; who is new here stays, however
    /// many come at once.
    pub(super) fn leaving(
        &mut self,
        strangers: &HashSet<PublicKey>,
        most: usize,
    ) -> Vec<PublicKey> {
        self.0.retain(|known| strangers.contains(known));
        let known: HashSet<_> = self.0.iter().copied().collect();
        self.0.extend(strangers.difference(&known));
        let surplus = self.0.len().saturating_sub(most).min(known.len());
        self.0.drain(..surplus).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    fn peers(numbers: impl IntoIterator<Item = u8>) -> HashSet<PublicKey> {
        let secp = Secp256k1::new();
        let peer = |n| SecretKey::from_slice(&[n; 32]).unwrap().public_key(&secp);
        numbers.into_iter().map(peer).collect()
    }

    #[test]
    fn who_has_been_there_for_longest_goes_first() {
        let mut visitors = Visitors::default();
        assert!(visitors.leaving(&peers([1]), 2).is_empty());
        assert!(visitors.leaving(&peers([1, 2]), 2).is_empty());
        let left: HashSet<_> = visitors.leaving(&peers([1, 2, 3]), 2).into_iter().collect();
        assert_eq!(left, peers([1]));
        // Who went and came again is new.
        assert!(visitors.leaving(&peers([3]), 2).is_empty());
        let left: HashSet<_> = visitors.leaving(&peers([1, 2, 3]), 2).into_iter().collect();
        assert_eq!(left, peers([3]));
    }

    #[test]
    fn a_channel_keeps_a_place_if_it_is_ours_or_confirmed() {
        assert!(keeps_a_place(true, None));
        assert!(keeps_a_place(true, Some(0)));
        assert!(keeps_a_place(false, Some(1)));
        assert!(!keeps_a_place(false, Some(0)));
        assert!(!keeps_a_place(false, None));
    }

    #[test]
    fn nobody_goes_before_the_next_look() {
        let mut visitors = Visitors::default();
        assert!(visitors.leaving(&peers(1..=5), 2).is_empty());
        assert_eq!(visitors.leaving(&peers(1..=5), 2).len(), 3);
    }
}
