//! What the client has in a channel whose funding this LSP withholds.

use bitcoin::Transaction;
use lightning::chain::channelmonitor::Balance;
use lightning::chain::transaction::OutPoint;
use lightning::ln::types::ChannelId;

use super::LspRole;

/// What one anchor takes. The funder pays for each, and a side has one if it has an output.
const ANCHOR_SAT: u64 = 330;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stake {
    /// All is the LSP's, but for what is too little for an output.
    Nothing,
    /// An HTLC is on its way, or LDK does not say.
    Perhaps,
    Something,
}

impl LspRole {
    /// By the channel's monitor, which stays when the channel is closed.
    pub(super) fn stake_in(&self, channel_id: ChannelId, value_sat: u64) -> Stake {
        match self.node.chain_monitor.get_monitor(channel_id) {
            Ok(monitor) => stake(value_sat, &monitor.get_claimable_balances()),
            // The client has not signed yet: nothing went over it.
            Err(()) => Stake::Nothing,
        }
    }

    /// The same for the channel of a transaction.
    pub(super) fn stake_of(&self, funding: &Transaction) -> Stake {
        let outputs = channels_of(funding).zip(&funding.output);
        let stakes = outputs.map(|(id, output)| self.stake_in(id, output.value.to_sat()));
        stakes.max().unwrap_or(Stake::Nothing)
    }
}

/// The ids of the channels that the outputs of a transaction would fund (BOLT 2).
pub(super) fn channels_of(transaction: &Transaction) -> impl Iterator<Item = ChannelId> {
    let txid = transaction.compute_txid();
    (0..transaction.output.len()).map(move |index| {
        ChannelId::v1_from_funding_outpoint(OutPoint { txid, index: index as u16 })
    })
}

/// The rule. `inbound_capacity_msat` does not tell: it is 0 for a client that has its reserve or less.
fn stake(value_sat: u64, balances: &[Balance]) -> Stake {
    let (mut ours, mut under_way, mut any_htlc) = (None, 0, false);
    for balance in balances {
        match balance {
            Balance::ClaimableOnChannelClose {
                balance_candidates,
                outbound_payment_htlc_rounded_msat,
                outbound_forwarded_htlc_rounded_msat,
                inbound_claiming_htlc_rounded_msat,
                inbound_htlc_rounded_msat,
                ..
            } => {
                let [close] = &balance_candidates[..] else { return Stake::Perhaps };
                ours = Some(close.amount_satoshis + close.transaction_fee_satoshis);
                // Those too small for an output, too.
                any_htlc |= *outbound_payment_htlc_rounded_msat > 0
                    || *outbound_forwarded_htlc_rounded_msat > 0
                    || *inbound_claiming_htlc_rounded_msat > 0
                    || *inbound_htlc_rounded_msat > 0;
            }
            Balance::MaybeTimeoutClaimableHTLC { amount_satoshis, .. }
            | Balance::MaybePreimageClaimableHTLC { amount_satoshis, .. } => {
                under_way += amount_satoshis;
                any_htlc = true;
            }
            // The chain has the funding after all.
            Balance::ClaimableAwaitingConfirmations { .. }
            | Balance::ContentiousClaimable { .. }
            | Balance::CounterpartyRevokedOutputClaimable { .. } => return Stake::Perhaps,
        }
    }
    let Some(ours) = ours else { return Stake::Perhaps };
    let rest = value_sat.saturating_sub(ours + under_way);
    if rest > 2 * ANCHOR_SAT {
        Stake::Something
    } else if any_htlc || rest > ANCHOR_SAT {
        Stake::Perhaps
    } else {
        Stake::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightning::chain::channelmonitor::HolderCommitmentTransactionBalance;
    use lightning::types::payment::PaymentHash;

    const VALUE_SAT: u64 = 200_000;
    const FEE_SAT: u64 = 300;

    /// The channel closed now, with this much for the LSP, and HTLCs that are dust.
    fn close(amount_satoshis: u64, dust_msat: u64) -> Balance {
        Balance::ClaimableOnChannelClose {
            balance_candidates: vec![HolderCommitmentTransactionBalance {
                amount_satoshis,
                transaction_fee_satoshis: FEE_SAT,
            }],
            confirmed_balance_candidate_index: 0,
            outbound_payment_htlc_rounded_msat: 0,
            outbound_forwarded_htlc_rounded_msat: dust_msat,
            inbound_claiming_htlc_rounded_msat: 0,
            inbound_htlc_rounded_msat: 0,
        }
    }

    fn htlc(amount_satoshis: u64) -> Balance {
        Balance::MaybeTimeoutClaimableHTLC {
            amount_satoshis,
            claimable_height: 1,
            payment_hash: PaymentHash([1; 32]),
            outbound_payment: false,
        }
    }

    #[test]
    fn a_channel_is_all_the_lsps_only_if_its_monitor_leaves_no_doubt() {
        let all = VALUE_SAT - FEE_SAT;
        let stake = |balances: &[Balance]| stake(VALUE_SAT, balances);
        assert_eq!(stake(&[close(all - ANCHOR_SAT, 0)]), Stake::Nothing);
        assert_eq!(stake(&[close(all, 0)]), Stake::Nothing, "a channel without anchors");
        // Less than the reserve of 1 000 sat or 1 %, down to the smallest output.
        for clients in [354, 999, 2_000, 50_000] {
            let ours = all - 2 * ANCHOR_SAT - clients;
            assert_eq!(stake(&[close(ours, 0)]), Stake::Something, "{clients}");
            assert_eq!(stake(&[close(ours - 9_000, 0), htlc(9_000)]), Stake::Something);
        }
        let with_htlc = all - 2 * ANCHOR_SAT - 9_000;
        assert_eq!(stake(&[close(with_htlc, 0), htlc(9_000)]), Stake::Perhaps);
        assert_eq!(stake(&[close(all - ANCHOR_SAT, 200_000)]), Stake::Perhaps);
        assert_eq!(stake(&[]), Stake::Perhaps);
    }
}
