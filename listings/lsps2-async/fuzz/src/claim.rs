//! What a payer's onion, and the peer that forwards, say of a payment.

use core::time::Duration;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use lsps2_async::claim::{Arrival, ChannelUse, ClaimPolicy, Verdict, judge};
use lsps2_async::lease::{Lease, LeaseRecord, LeaseState};
use lsps2_async::metadata::{LeaseMetadata, PAYMENT_METADATA_KEY};
use std::collections::BTreeMap;

use crate::fee_msat;
use crate::feed::Feed;

/// A preimage is released only for what was agreed: no more is skimmed than the fee of an active
/// lease, by the LSP that sold it.
pub fn claim(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let record = LeaseRecord::decode(feed.chunk()).ok();
    let agreed = record.as_ref().and_then(|record| LeaseMetadata::for_lease(&record.lease).ok());
    let foreign = feed.chunk();
    // Mostly what was agreed, or nothing would get past it.
    let value = match (feed.below(4), agreed) {
        (1.., Some(agreed)) => agreed.encode(),
        _ => foreign.to_vec(),
    };
    let entries = BTreeMap::from([(PAYMENT_METADATA_KEY, value)]);
    let metadata = (feed.below(8) > 0).then_some(&entries);
    let read = LeaseMetadata::read_from(metadata).ok().flatten();
    let sellers = [&record.as_ref().map(|r| r.lease.id), &read.map(|m| m.lease_id())];
    let sellers: Vec<_> = sellers.into_iter().flatten().map(|id| id.lsp_node_id).collect();
    let peers = &sellers[..usize::from(feed.byte()).min(sellers.len())];
    let arrival = Arrival {
        payment_hash: PaymentHash([feed.below(3); 32]),
        amount_msat: feed.number(),
        skimmed_fee_msat: feed.number(),
        total_msat: (feed.byte() & 1 == 1).then(|| feed.number()),
        metadata,
        channel_peers: peers,
        channel_id: ChannelId([feed.below(3); 32]),
        channel_use: match (feed.below(4), &record) {
            (2, Some(record)) => ChannelUse::Paid(record.lease.id),
            (3, _) => ChannelUse::Other,
            _ => ChannelUse::Jit,
        },
        unfunded: feed.byte() & 1 == 1,
    };
    let policy = ClaimPolicy::default();
    let time = Duration::from_secs(feed.number());
    let lookup = |id: &_| record.clone().filter(|record| record.lease.id == *id);
    let verdict = judge(&arrival, lookup, &policy, time);
    match verdict {
        Err(refusal) => {
            // Foreign bytes stand in no message to a person.
            assert!(refusal.to_string().len() < 500);
            false
        }
        Ok(Verdict::Claim) => {
            assert_eq!(arrival.skimmed_fee_msat, 0);
            assert!(whole(&arrival));
            true
        }
        Ok(Verdict::ConsumeThenClaim { lease, consumption }) => {
            let record = record.expect("no other lease is known");
            assert_eq!(record.lease.id, lease);
            assert_eq!(consumption.skimmed_fee_msat, arrival.skimmed_fee_msat);
            assert_eq!(consumption.payment_hash, arrival.payment_hash);
            assert!(whole(&arrival));
            assert!(!peers.is_empty() && peers.iter().all(|peer| *peer == lease.lsp_node_id));
            let gross = arrival.amount_msat + arrival.skimmed_fee_msat;
            assert!(u128::from(arrival.skimmed_fee_msat) <= agreed_msat(&record.lease, gross));
            match &record.state {
                LeaseState::Active => {
                    let until = record.lease.opening_fee_params.valid_until;
                    assert!(time <= until.saturating_add(policy.validity_grace));
                }
                LeaseState::Consumed(by) => {
                    assert!(!by.settled && by.payment_hash == arrival.payment_hash);
                    assert!(arrival.skimmed_fee_msat <= by.skimmed_fee_msat);
                }
                LeaseState::Expired => panic!("an expired lease is not spent"),
            }
            true
        }
    }
}

fn agreed_msat(lease: &Lease, gross_msat: u64) -> u128 {
    let terms = &lease.opening_fee_params;
    let size = lease.payment_size_msat.unwrap_or(gross_msat);
    fee_msat(size, terms.min_fee_msat, terms.proportional)
}

fn whole(arrival: &Arrival<'_>) -> bool {
    let gross = u128::from(arrival.amount_msat) + u128::from(arrival.skimmed_fee_msat);
    gross <= u64::MAX.into() && arrival.total_msat.is_none_or(|total| gross >= total.into())
}
