//! Whose fee a `PaymentForwarded` event paid.

use lightning::ln::types::ChannelId;

use crate::lsp::jit_table::{InboundHtlc, OpenChannel};

/// Divides the skim of one event among the JIT channels it went out on, in msat.
///
/// `owed` holds each channel once, with the fee it still owes. LDK `0.3.0-rc3` reports one outgoing
/// HTLC per event; with several, the fee fills the channels in order. What no channel owes belongs
/// to none: never more than `skimmed_fee_msat` is handed out, and to no channel more than it owes.
pub fn attribute_skim(skimmed_fee_msat: u64, owed: &[(ChannelId, u64)]) -> Vec<(ChannelId, u64)> {
    let mut left = skimmed_fee_msat;
    let mut share = |(channel_id, owed_msat): &(ChannelId, u64)| {
        let share = left.min(*owed_msat);
        left -= share;
        (*channel_id, share)
    };
    owed.iter().map(&mut share).collect()
}

/// Adds one part's skim to the channel's account and says whether the fee is now paid.
///
/// LDK compares the skim of each event alone with the whole fee (`lsps2/service.rs`,
/// `payment_forwarded`), which a payment in parts never reaches; so the sum is kept here. A part
/// that was counted before a crash is known by its inbound HTLC and not counted again.
pub fn book_skim(open: &mut OpenChannel, from: &[InboundHtlc], skimmed_fee_msat: u64) -> bool {
    let seen = from.iter().any(|htlc| open.counted.contains(htlc));
    // A lease may cost nothing: then the first payment has paid for it.
    if open.fee_paid || seen || (skimmed_fee_msat == 0 && open.opening_fee_msat > 0) {
        return open.fee_paid;
    }
    open.counted.extend_from_slice(from);
    open.skimmed_fee_msat = open.skimmed_fee_msat.saturating_add(skimmed_fee_msat);
    open.fee_paid = open.skimmed_fee_msat >= open.opening_fee_msat;
    open.fee_paid
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel(byte: u8) -> ChannelId {
        ChannelId([byte; 32])
    }

    fn account(opening_fee_msat: u64) -> OpenChannel {
        OpenChannel {
            channel_id: channel(1),
            opening_fee_msat,
            skimmed_fee_msat: 0,
            counted: Vec::new(),
            fee_payment: None,
            ended: Vec::new(),
            fee_paid: false,
        }
    }

    #[test]
    fn a_channel_that_costs_nothing_is_paid_with_its_first_payment() {
        let from = InboundHtlc { channel_id: channel(9), htlc_id: 1 };
        assert!(book_skim(&mut account(0), &[from], 0));
        assert!(!book_skim(&mut account(1), &[from], 0));
    }

    proptest! {
        #[test]
        fn no_more_is_handed_out_than_was_skimmed_or_is_owed(
            skim in any::<u64>(),
            owed in proptest::collection::vec(any::<u64>(), 0..5),
        ) {
            let owed: Vec<_> =
                owed.into_iter().enumerate().map(|(i, owes)| (channel(i as u8), owes)).collect();
            let shares = attribute_skim(skim, &owed);
            prop_assert_eq!(shares.len(), owed.len());
            let sum: u128 = shares.iter().map(|(_, share)| u128::from(*share)).sum();
            let all: u128 = owed.iter().map(|(_, owes)| u128::from(*owes)).sum();
            prop_assert_eq!(sum, all.min(skim.into()));
            for (share, owes) in shares.iter().zip(&owed) {
                prop_assert!(share.0 == owes.0 && share.1 <= owes.1);
            }
        }

        /// However the fee is split over the parts, and however often an event comes: the account
        /// ends at the fee exactly, and is paid with the last part and not before.
        #[test]
        fn the_parts_add_up_to_the_fee(
            cuts in proptest::collection::vec(1..1_000_000u64, 1..20),
            replays in proptest::collection::vec(any::<proptest::sample::Index>(), 0..20),
        ) {
            let fee: u64 = cuts.iter().sum();
            let mut open = account(fee);
            for (htlc_id, skim) in cuts.iter().enumerate() {
                let channel_id = channel(2);
                let from = [InboundHtlc { channel_id, htlc_id: htlc_id as u64 }];
                let owed = [(open.channel_id, open.owed_msat())];
                let share = attribute_skim(*skim, &owed)[0].1;
                let paid = book_skim(&mut open, &from, share);
                prop_assert_eq!(paid, htlc_id + 1 == cuts.len());
                for replay in &replays {
                    let earlier = replay.index(htlc_id + 1) as u64;
                    let again = InboundHtlc { htlc_id: earlier, ..from[0] };
                    book_skim(&mut open, &[again], 1);
                }
                prop_assert!(open.skimmed_fee_msat <= fee);
            }
            prop_assert_eq!(open.skimmed_fee_msat, fee);
        }
    }
}
