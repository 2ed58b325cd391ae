//! What an LSP reads of the leases it sold, and how it judges the payments that name them.

use core::time::Duration;
use lightning::ln::channelmanager::InterceptId;
use lightning::types::payment::PaymentHash;
use lsps2_async::lsp::decision::{Circumstances, LEAST_BLOCKS_TO_OPEN, Verdict, judge};
use lsps2_async::lsp::held::InterceptedHtlc;
use lsps2_async::lsp::jit_table::{
    JIT_TABLE_NAMESPACE, JitRecord, JitState, JitTable, JitTableError, OpenChannel,
};

use crate::feed::Feed;
use crate::store::Disk;
use crate::{check_fee, fee_msat, now};

/// What cannot be read is named and left alone, and its SCID not sold; what is read is written as it
/// was; a channel is opened only for a payment that leaves something after its fee.
pub fn jit_table(bytes: &[u8]) -> bool {
    let mut feed = Feed::new(bytes);
    let disk = Disk::default();
    for _ in 0..feed.below(4) {
        let scid = feed.number();
        disk.put(JIT_TABLE_NAMESPACE, "", &key(scid), feed.chunk());
    }
    let before = disk.entries(JIT_TABLE_NAMESPACE);
    let table = now(JitTable::load(disk.clone())).expect("the disk works");
    assert_eq!(before, disk.entries(JIT_TABLE_NAMESPACE), "reading changes nothing");
    assert_eq!(table.all().len() + table.unreadable().len(), before.len());

    let records = table.all();
    for record in &records {
        assert_eq!(table.get(record.scid).as_ref(), Some(record));
        terms(record);
        payment(record, &mut feed);
        // Sold twice is not sold again, in memory or on disk.
        let sold = now(table.insert(record.clone()));
        assert!(matches!(sold, Err(JitTableError::ScidTaken(scid)) if scid == record.scid));
        disk.fails_after(0);
        assert!(now(table.put(changed(record))).is_err());
        assert!(now(table.remove(record.scid)).is_err());
        disk.is_repaired();
        assert_eq!(table.get(record.scid).as_ref(), Some(record), "an error changes nothing");
        now(table.put(record.clone())).expect("the disk works");
    }
    for entry in table.unreadable() {
        let name = (JIT_TABLE_NAMESPACE.to_owned(), String::new(), entry.key.clone());
        assert_eq!(disk.entries(JIT_TABLE_NAMESPACE).get(&name), before.get(&name));
        if let (Ok(scid), Some(record)) = (u64::from_str_radix(&entry.key, 16), records.first()) {
            let sold = now(table.insert(JitRecord { scid, ..record.clone() }));
            assert!(matches!(sold, Err(JitTableError::ScidTaken(taken)) if taken == scid));
        }
    }
    let again = now(JitTable::load(disk)).expect("the disk works");
    assert_eq!(again.all(), records, "a restart finds the same");
    !records.is_empty()
}

fn key(scid: u64) -> String {
    format!("{scid:016x}")
}

fn changed(record: &JitRecord) -> JitRecord {
    JitRecord { state: JitState::Sold, cltv_expiry_delta: 1, ..record.clone() }
}

fn terms(record: &JitRecord) {
    let terms = &record.opening_fee_params;
    for gross_msat in [0, terms.min_payment_size_msat, terms.max_payment_size_msat, u64::MAX] {
        let size = record.payment_size_msat.unwrap_or(gross_msat);
        let fee = record.opening_fee_msat(gross_msat);
        check_fee(fee, size, terms.min_fee_msat, terms.proportional);
    }
    if let Some(open) = record.open() {
        assert!(open.owed_msat() <= open.opening_fee_msat);
    }
}

fn payment(record: &JitRecord, feed: &mut Feed<'_>) {
    let amount = feed.number();
    let htlc = InterceptedHtlc {
        intercept_id: InterceptId([feed.below(4); 32]),
        requested_next_hop_scid: record.scid,
        payment_hash: PaymentHash([feed.below(4); 32]),
        inbound_amount_msat: amount,
        expected_outbound_amount_msat: match feed.below(8) {
            0 => feed.number(),
            _ => amount,
        },
        client_expiry: None,
    };
    let known = Circumstances {
        gross_msat: htlc.expected_outbound_amount_msat.saturating_add(feed.byte().into()),
        client_connected: feed.below(8) > 0,
        blocks_left: (feed.below(8) > 0).then(|| feed.byte().into()),
        now: Duration::from_secs(feed.number()),
    };
    let verdict = judge(record, &htlc, known);
    let fits = htlc.expected_outbound_amount_msat <= htlc.inbound_amount_msat;
    match verdict {
        Verdict::Refuse(refusal) => assert!(refusal.to_string().len() < 200),
        Verdict::Hold(_) | Verdict::HandOverAgain => assert!(fits),
        Verdict::OpenChannel(quote) => {
            let terms = &record.opening_fee_params;
            let size = record.payment_size_msat.unwrap_or(known.gross_msat);
            let fee = fee_msat(size, terms.min_fee_msat, terms.proportional);
            assert_eq!(u128::from(quote.opening_fee_msat), fee);
            assert!(quote.amt_to_forward_msat > 0);
            assert_eq!(
                quote.opening_fee_msat.checked_add(quote.amt_to_forward_msat),
                Some(known.gross_msat)
            );
            assert!((terms.min_payment_size_msat..=terms.max_payment_size_msat).contains(&size));
            assert!(fits && record.state == JitState::Sold && known.client_connected);
            assert!(known.now < terms.valid_until);
            assert!(known.blocks_left.is_none_or(|left| left >= LEAST_BLOCKS_TO_OPEN));
        }
        Verdict::PayFee(channel) => {
            let open = on(record);
            assert!(fits && channel == open.channel_id && !open.fee_paid);
            assert!(htlc.expected_outbound_amount_msat > open.opening_fee_msat);
        }
        Verdict::FeePaymentLost(channel) | Verdict::ForwardInFull(channel) => {
            assert!(fits && channel == on(record).channel_id);
        }
    }
}

fn on(record: &JitRecord) -> &OpenChannel {
    record.open().expect("it is forwarded over a channel")
}
