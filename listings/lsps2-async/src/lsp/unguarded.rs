//! What LDK does where this crate's desk does not stand in between: its traps, on its own code.
//!
//! Each test shows one on the pinned version. The day it fails LDK has changed, and what it guards
//! against may go: `src/data/traps.toml` says which code that is.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test names what it looks for")]

mod answers;
mod post;
mod rig;

use bitcoin::Network;
use bitcoin::consensus::encode::serialize;
use lightning::events::{Event, HTLCHandlingFailureReason, HTLCHandlingFailureType};
use lightning::ln::channelmanager::MIN_FINAL_CLTV_EXPIRY_DELTA;
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::types::ChannelId;
use lightning::onion_message::messenger::{DefaultMessageRouter, Destination, MessageRouter};
use lightning::routing::gossip::NetworkGraph;
use lightning::sign::RandomBytes;
use lightning::types::payment::PaymentHash;
use lightning::util::config::UserConfig;
use lightning_liquidity::events::LiquidityEvent;
use lightning_liquidity::lsps0::ser::RawLSPSMessage;
use lightning_liquidity::lsps2::event::LSPS2ClientEvent;
use lightning_liquidity::lsps2::msgs::LSPS2OpeningFeeParams;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

use self::post::Post;
use self::rig::{Rig, entry};
use crate::lsp::held::InterceptedHtlc;
use crate::lsp::mailbox::MailboxLimits;
use crate::lsp::service::Lsps2Service;
use crate::lsp::testing::{FEE, MemoryStore, USER_ID, node};
use crate::negotiate::check_menu;

const PAYMENT: u64 = 100_000_000;

/// What a failing test says of its trap.
fn shows(shown: bool, id: &str, guard: &str) {
    assert!(shown, "LDK has changed: trap {id} no longer shows; the guard can go: {guard}");
}

/// Hands an HTLC to LSPS2, as LDK's documentation has it.
async fn hand_over(rig: &Rig, htlc: &InterceptedHtlc) -> Result<(), String> {
    let done = Lsps2Service::htlc_intercepted(rig.service(), htlc).await;
    done.map_err(|error| format!("{error:?}"))
}

/// Pays with one HTLC, and hands it over.
async fn pay(rig: &Rig, scid: u64, amount_msat: u64) -> (InterceptedHtlc, Result<(), String>) {
    let [htlc] = rig.pay(scid, rig.invoice(), &[amount_msat])[..] else { panic!("one HTLC") };
    let answer = hand_over(rig, &htlc).await;
    (htlc, answer)
}

/// A channel whose fee is owed: its first payment was failed by the client.
async fn owing(rig: &Rig, client_trusts_lsp: bool) -> (u64, ChannelId) {
    let scid = rig.sell(None, client_trusts_lsp).await;
    pay(rig, scid, PAYMENT).await.1.unwrap();
    let channel_id = rig.open_and_forward(300_000).await;
    for hash in arrived(rig) {
        rig.client.manager.fail_htlc_backwards(&hash);
    }
    rig.talk();
    let node_id = Some(rig.client.id);
    let failure = HTLCHandlingFailureType::Forward { node_id, channel_id };
    rig.service().htlc_handling_failed(failure).await.unwrap();
    (scid, channel_id)
}

fn arrived(rig: &Rig) -> Vec<PaymentHash> {
    rig.client.take(|event| match event {
        Event::PaymentClaimable { payment_hash, .. } => Some(*payment_hash),
        _ => None,
    })
}

/// Without this the others would prove nothing.
#[tokio::test]
async fn a_payment_opens_a_channel_and_pays_for_it() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    pay(&rig, scid, PAYMENT).await.1.unwrap();
    assert_eq!(rig.opens(), [(PAYMENT - FEE, FEE)]);
    let channel = rig.open_and_forward(200_000).await;
    assert_eq!(rig.claim(), PAYMENT - FEE);
    assert_eq!(rig.skims(), [FEE]);
    rig.service().payment_forwarded(channel, FEE).await.unwrap();
    pay(&rig, scid, 1_000_000).await.1.unwrap();
    rig.talk();
    assert_eq!(rig.claim(), 1_000_000);
}

// Leases that are gone.

#[tokio::test]
async fn ldk_retires_a_lease_for_one_htlc_outside_its_limits() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    let (dust, answer) = pay(&rig, scid, 9_999_999).await;
    assert!(answer.is_err() && !rig.was_held(&dust), "{answer:?}");
    let (honest, answer) = pay(&rig, scid, PAYMENT).await;
    let silent = answer == Ok(()) && rig.opens().is_empty() && rig.was_held(&honest);
    shows(silent, "one-bad-htlc-retires-the-lease", "the path's minimum, `judge` before LSPS2");
}

/// The error leaves the state unwritten: what is retired now is not after a restart.
#[tokio::test]
async fn ldk_does_not_write_down_that_it_retired_a_lease() {
    let mut rig = Rig::new().await;
    // With its last lease the client itself would go, and that is written.
    rig.sell_as(1, None, false).await;
    let scid = rig.sell_as(2, None, false).await;
    pay(&rig, scid, 9_999_999).await.1.unwrap_err();
    rig.liquidity.persist().await.unwrap();
    rig.restart_lsps2().await;
    let (_, answer) = pay(&rig, scid, PAYMENT).await;
    let again = answer == Ok(()) && !rig.opens().is_empty();
    shows(again, "retirement-is-not-written", "the desk's own record of a lease that ended");
}

#[tokio::test]
async fn ldk_says_ok_to_an_htlc_of_a_pruned_lease_and_lets_it_hang() {
    let mut rig = Rig::new().await;
    let busy = rig.sell_as(1, None, false).await;
    let scid = rig.sell_as(2, None, false).await;
    // A lease that is opening is not pruned, and keeps the client known.
    pay(&rig, busy, PAYMENT).await.1.unwrap();
    rig.opens();
    rig.restart_lsps2_too_late().await;
    rig.liquidity.persist().await.unwrap();
    let (htlc, answer) = pay(&rig, scid, PAYMENT).await;
    let silent = answer == Ok(()) && rig.opens().is_empty() && rig.was_held(&htlc);
    shows(silent, "pruned-lease-is-silent", "the desk's table, asked before LSPS2");
}

#[tokio::test]
async fn ldk_errs_for_an_unknown_scid_and_does_not_fail_the_htlc() {
    let mut rig = Rig::new().await;
    let unsold = rig.lsp.manager.get_intercept_scid();
    let (htlc, answer) = pay(&rig, unsold, PAYMENT).await;
    let error = answer.unwrap_err();
    assert!(error.contains("Unknown scid"), "{error}");
    let guard = "`fail_intercepted_htlc` on every refusal of the desk";
    shows(rig.was_held(&htlc), "an-error-leaves-the-htlc-held", guard);

    let scid = rig.sell(None, false).await;
    rig.restart_lsps2_too_late().await;
    rig.liquidity.persist().await.unwrap();
    let (htlc, answer) = pay(&rig, scid, PAYMENT).await;
    let error = answer.unwrap_err();
    assert!(error.contains("No counterparty found"), "{error}");
    shows(rig.was_held(&htlc), "an-error-leaves-the-htlc-held", guard);
}

#[tokio::test]
async fn ldk_opens_a_channel_for_a_lease_that_ran_out() {
    let mut rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    rig.restart_lsps2_too_late().await;
    let (_, answer) = pay(&rig, scid, PAYMENT).await;
    let opens = answer == Ok(()) && !rig.opens().is_empty();
    shows(opens, "no-expiry-check-at-interception", "`judge` looks at valid_until");
}

#[tokio::test]
async fn ldk_asks_for_a_channel_with_a_client_that_is_away() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    rig.disconnect_client();
    let (_, answer) = pay(&rig, scid, PAYMENT).await;
    let opens = answer == Ok(()) && !rig.opens().is_empty();
    shows(opens, "no-connection-check", "`judge` is told whether the client is connected");
}

// Parts.

#[tokio::test]
async fn ldk_compares_the_skim_of_each_part_with_the_whole_fee() {
    let rig = Rig::new().await;
    let scid = rig.sell(Some(PAYMENT), true).await;
    let parts = rig.pay(scid, rig.invoice(), &[PAYMENT / 2, PAYMENT / 2]);
    for part in &parts {
        hand_over(&rig, part).await.unwrap();
    }
    assert_eq!(rig.opens(), [(PAYMENT - FEE, FEE)]);
    let channel = rig.open_and_forward(200_000).await;
    assert_eq!(rig.claim(), PAYMENT - FEE, "the client has claimed");
    let skims = rig.skims();
    assert_eq!(skims, [FEE / 2, FEE / 2]);
    for skim in skims {
        rig.service().payment_forwarded(channel, skim).await.unwrap();
    }
    let (id, guard) = ("fee-is-compared-per-event", "the desk's sum of a channel's skims");
    shows(rig.lsp.sent.0.lock().unwrap().is_empty(), id, guard);
    let (next, answer) = pay(&rig, scid, 1_000_000).await;
    shows(answer == Ok(()) && rig.was_held(&next), id, guard);
}

#[tokio::test]
async fn ldk_waits_for_a_missing_part_and_forgets_the_others() {
    let mut rig = Rig::new().await;
    let scid = rig.sell(Some(PAYMENT), false).await;
    let (part, answer) = pay(&rig, scid, PAYMENT / 2).await;
    assert_eq!((answer, rig.opens().len()), (Ok(()), 0));
    // Even when the lease has run out, and is pruned with what waits under it.
    rig.restart_lsps2_too_late().await;
    rig.liquidity.persist().await.unwrap();
    assert!(!rig.service().knows(&rig.client.id, USER_ID), "the lease is not pruned");
    let guard = "the desk holds parts itself, and fails them after 90 s";
    shows(rig.was_held(&part), "a-missing-part-is-waited-for", guard);
}

#[tokio::test]
async fn ldk_sizes_and_prices_a_channel_by_the_first_part() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    let parts = rig.pay(scid, rig.invoice(), &[PAYMENT, 2 * PAYMENT]);
    for part in &parts {
        hand_over(&rig, part).await.unwrap();
    }
    let first = parts[0].expected_outbound_amount_msat;
    let by_first = rig.opens() == [(first - FEE, FEE)];
    shows(by_first, "priced-by-the-first-part", "the headroom of `ChannelSizing`");
}

#[tokio::test]
async fn ldk_forwards_nothing_of_a_payment_that_is_all_fee() {
    let rig = Rig::new().await;
    let (scid, _) = owing(&rig, false).await;
    let (htlc, answer) = pay(&rig, scid, FEE).await;
    rig.talk();
    let taken = answer == Ok(()) && !rig.was_held(&htlc);
    shows(
        taken && arrived(&rig).is_empty(),
        "all-fee-forwards-nothing",
        "`judge` wants more than the fee",
    );
}

// Channels that do not come, or go.

/// Written down is that `OpenChannel` was taken, and not that anything came of it.
#[tokio::test]
async fn ldk_does_not_ask_again_for_a_channel_it_asked_for() {
    let mut rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    let (htlc, answer) = pay(&rig, scid, PAYMENT).await;
    assert_eq!((answer, rig.opens().len()), (Ok(()), 1));
    rig.liquidity.persist().await.unwrap();
    rig.restart_lsps2().await;
    // LDK raises `HTLCIntercepted` again after a restart.
    let answer = hand_over(&rig, &htlc).await;
    let silent = answer == Ok(()) && rig.opens().is_empty() && rig.was_held(&htlc);
    shows(silent, "open-channel-is-raised-once", "`pending_opens`, from the desk's own record");
}

#[tokio::test]
async fn ldk_waits_for_a_channel_that_closed_before_it_was_ready() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    let (first, _) = pay(&rig, scid, PAYMENT).await;
    assert_eq!(rig.opens().len(), 1);
    let to = rig.client.id;
    let channel = rig.lsp.manager.create_channel(to, 200_000, 0, USER_ID, None, None).unwrap();
    let close = rig.lsp.manager.force_close_broadcasting_latest_txn(&channel, &to, String::new());
    close.unwrap();
    rig.service().channel_closed(channel).await.unwrap();
    let (second, answer) = pay(&rig, scid, PAYMENT).await;
    let silent = answer == Ok(()) && rig.opens().is_empty();
    let silent = silent && rig.was_held(&first) && rig.was_held(&second);
    shows(silent, "a-failed-open-is-nobodys", "the desk calls `channel_open_failed`");
}

#[tokio::test]
async fn ldk_keeps_the_state_of_a_closed_channel_whose_fee_is_owed() {
    let rig = Rig::new().await;
    let (scid, channel) = owing(&rig, false).await;
    let client = rig.client.id;
    let close =
        rig.lsp.manager.force_close_broadcasting_latest_txn(&channel, &client, String::new());
    close.unwrap();
    rig.talk();
    rig.service().channel_closed(channel).await.unwrap();
    let (id, guard) =
        ("closed-channel-keeps-its-state", "the desk retires the lease of a closed channel");
    shows(rig.service().knows(&client, USER_ID), id, guard);
    let (htlc, answer) = pay(&rig, scid, PAYMENT).await;
    let error = answer.unwrap_err();
    assert!(error.contains("No such channel_id"), "{error}");
    shows(rig.was_held(&htlc), id, guard);
}

// The funding of a client that trusts.

/// The payment is made, and the channel it was made over never exists.
#[tokio::test]
async fn ldk_loses_the_funding_it_was_given_if_it_restarts_before_it_writes_again() {
    let mut rig = Rig::new().await;
    let scid = rig.sell(None, true).await;
    pay(&rig, scid, PAYMENT).await.1.unwrap();
    rig.liquidity.persist().await.unwrap();
    let before = rig.written().await;
    let channel = rig.open(USER_ID, 200_000);
    rig.liquidity.persist().await.unwrap();
    let (id, guard) = (
        "funding-setters-do-not-persist",
        "the desk keeps the transaction, and `resume` supplies it",
    );
    rig.opens();
    assert!(!before.is_empty());
    let peers = |written: &std::collections::BTreeMap<String, Vec<u8>>| {
        written
            .iter()
            .filter(|(key, _)| key.starts_with("lsps2"))
            .map(|(_, v)| v.clone())
            .collect::<Vec<_>>()
    };
    shows(peers(&rig.written().await) == peers(&before), id, guard);

    rig.restart_lsps2().await;
    rig.service().channel_ready(USER_ID, &channel, &rig.client.id).await.unwrap();
    rig.talk();
    assert_eq!(rig.claim(), PAYMENT - FEE);
    rig.service().payment_forwarded(channel, FEE).await.unwrap();
    shows(rig.lsp.sent.0.lock().unwrap().is_empty(), id, guard);
}

#[tokio::test]
async fn ldk_broadcasts_the_funding_again_at_each_forward() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, true).await;
    pay(&rig, scid, PAYMENT).await.1.unwrap();
    let channel = rig.open_and_forward(300_000).await;
    assert_eq!(rig.lsp.sent.0.lock().unwrap().len(), 0, "nobody has paid");
    for amount_msat in [PAYMENT - FEE, 5_000_000, 6_000_000] {
        if amount_msat != PAYMENT - FEE {
            pay(&rig, scid, amount_msat).await.1.unwrap();
            rig.talk();
        }
        assert_eq!(rig.claim(), amount_msat);
        let [skim] = rig.skims()[..] else { panic!("one forward") };
        rig.service().payment_forwarded(channel, skim).await.unwrap();
    }
    let sent = rig.lsp.sent.0.lock().unwrap();
    let one: HashSet<_> = sent.iter().map(serialize).collect();
    let guard = "none is needed: who broadcasts takes the answer that it is known";
    shows((sent.len(), one.len()) == (3, 1), "funding-is-broadcast-at-each-forward", guard);
}

/// The channel of the first lease has less room than that of the second, and enough. What LSPS2 hears of,
/// as its documentation has it, is the channel that the payment went over.
#[tokio::test]
async fn ldk_counts_a_fee_for_the_channel_it_went_over() {
    let rig = Rig::new().await;
    let mut channels = Vec::new();
    for (user_channel_id, capacity_sat) in [(USER_ID, 300_000), (USER_ID + 1, 500_000)] {
        let scid = rig.sell_as(user_channel_id, None, true).await;
        pay(&rig, scid, PAYMENT).await.1.unwrap();
        let channel = rig.open(user_channel_id, capacity_sat);
        channels.push((scid, channel));
        rig.service().channel_ready(user_channel_id, &channel, &rig.client.id).await.unwrap();
        rig.talk();
        assert_eq!(rig.claim(), PAYMENT - FEE);
        let forwarded = rig.lsp.take(|event| match event {
            Event::PaymentForwarded { next_htlcs, skimmed_fee_msat, .. } => {
                Some((next_htlcs[0].channel_id, skimmed_fee_msat.unwrap_or_default()))
            }
            _ => None,
        });
        let [(over, skim)] = forwarded[..] else { panic!("one forward") };
        assert_eq!(skim, FEE);
        rig.service().payment_forwarded(over, skim).await.unwrap();
        assert_eq!(over, channels[0].1, "LDK forwards over the channel with the least room");
    }
    let broadcasts = rig.lsp.sent.0.lock().unwrap().iter().map(serialize).collect::<HashSet<_>>();
    let (htlc, answer) = pay(&rig, channels[1].0, PAYMENT).await;
    rig.talk();
    let waits = answer.is_ok() && rig.claim() == 0 && rig.was_held(&htlc);
    let guard = "the desk books a fee for the lease whose HTLC it was";
    shows(broadcasts.len() == 1 && waits, "a-fee-counts-where-it-went", guard);
}

/// A funding that was withheld and never seen: nothing is broadcast, whatever the reason says.
#[tokio::test]
async fn ldk_gives_a_broadcast_as_the_reason_where_there_was_none() {
    let rig = Rig::new().await;
    let (_, channel) = owing(&rig, true).await;
    let client = rig.client.id;
    let close =
        rig.lsp.manager.force_close_broadcasting_latest_txn(&channel, &client, String::new());
    close.unwrap();
    rig.talk();
    let reasons = rig.lsp.take(|event| match event {
        Event::ChannelClosed { reason, .. } => Some(reason.to_string()),
        _ => None,
    });
    let [reason] = &reasons[..] else { panic!("{reasons:?}") };
    assert!(rig.lsp.sent.0.lock().unwrap().is_empty(), "something was broadcast");
    let guard = "the page that says not to believe it";
    let says_so = reason.contains("broadcasted") && !reason.contains("not broadcasted");
    shows(says_so, "close-reason-claims-a-broadcast", guard);
}

// What the channel manager says, and keeps.

#[tokio::test]
async fn ldk_tells_of_an_unknown_peer_whatever_the_application_refused() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    rig.disconnect_client();
    let htlcs = rig.pay(scid, rig.invoice(), &[PAYMENT]);
    rig.lsp.manager.fail_intercepted_htlc(htlcs[0].intercept_id).unwrap();
    rig.talk();
    let reasons = rig.lsp.take(|event| match event {
        Event::HTLCHandlingFailed { failure_reason, .. } => failure_reason.clone(),
        _ => None,
    });
    let unknown =
        |reason: &HTLCHandlingFailureReason| format!("{reason:?}").contains("UnknownNextPeer");
    let guard = "the desk's own reason, written where it refuses";
    shows(reasons.iter().all(unknown) && reasons.len() == 1, "given-up-is-an-unknown-peer", guard);
}

#[tokio::test]
async fn ldk_forgets_over_a_restart_that_a_channel_takes_less_than_the_onion_says() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    pay(&rig, scid, PAYMENT).await.1.unwrap();
    rig.open(USER_ID, 200_000);
    let takes_less = |manager: &rig::Manager| {
        let channels = manager.list_channels();
        channels[0].config.unwrap().accept_underpaying_htlcs
    };
    assert!(takes_less(&rig.client.manager));
    let guard = "the wallet sets it again at each start";
    shows(!takes_less(&rig.client.read_again()), "underpaying-is-not-written", guard);
}

/// All but one msat is skimmed, and the wallet is asked to claim the rest.
#[tokio::test]
async fn ldk_lets_an_lsp_skim_as_much_as_it_likes() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    let channel = rig.open(1, 200_000);
    let htlcs = rig.pay(scid, rig.invoice(), &[PAYMENT]);
    let client = rig.client.id;
    rig.lsp
        .manager
        .forward_intercepted_htlc(htlcs[0].intercept_id, &channel, client, 1_000)
        .unwrap();
    rig.talk();
    let offered = rig.client.take(|event| match event {
        Event::PaymentClaimable { amount_msat, counterparty_skimmed_fee_msat, .. } => {
            Some((*amount_msat, *counterparty_skimmed_fee_msat))
        }
        _ => None,
    });
    let guard = "the claim guard";
    shows(offered == [(1_000, PAYMENT - 1_000)], "underpaying-has-no-limit", guard);
}

/// On a chain of fewer blocks than a month has, all intercept SCIDs have one height and one output:
/// what is left are 2 500 transaction indices.
#[tokio::test]
async fn ldk_gives_out_an_intercept_scid_twice() {
    let rig = Rig::new().await;
    let mut seen = HashSet::new();
    let repeats = (0..2_501).any(|_| !seen.insert(rig.lsp.manager.get_intercept_scid()));
    shows(repeats, "intercept-scids-repeat", "the LSP draws until the SCID is new");
}

// LSPS2 over the wire.

#[tokio::test]
async fn ldk_refuses_even_the_menu_to_a_client_with_ten_unpaid_leases() {
    let rig = Rig::new().await;
    for user_channel_id in 0..10 {
        rig.sell_as(user_channel_id, None, false).await;
    }
    let answers = rig.ask(rig.client.id, "lsps2.get_info", &json!({ "token": null }));
    let refused = matches!(&answers[..], [answer] if answer["error"]["code"] == 1);
    shows(refused, "ten-unpaid-leases-block-the-menu", "one variable lease for all offers");
}

#[tokio::test]
async fn ldk_sends_a_menu_that_every_client_must_refuse() {
    let rig = Rig::new().await;
    let mut cheap_minimum = entry();
    cheap_minimum.min_fee_msat = 1;
    cheap_minimum.proportional = 9;
    let menu = rig.menu(rig.client.id, vec![entry(), cheap_minimum]);
    let menu: Vec<LSPS2OpeningFeeParams> =
        menu.into_iter().map(|entry| serde_json::from_value(entry).unwrap()).collect();
    let refused = check_menu(&menu, core::time::Duration::ZERO).is_err();
    shows(refused, "menu-to-be-refused", "`FeePolicy::new` errs for such a menu");
}

/// An answer to a message that LDK could not read has no id, and LDK's client knows none without.
#[tokio::test]
async fn ldk_answers_without_an_id_what_it_cannot_read() {
    let rig = Rig::new().await;
    let client = rig.client.liquidity(&MemoryStore::default(), false).await;
    let handler = client.lsps2_client_handler().unwrap();
    handler.request_opening_params(rig.lsp.id, None);
    assert_eq!(client.get_and_clear_pending_msg().len(), 1);
    rig.hand_over(rig.client.id, "{\"jsonrpc\":\"2.0\"}");
    let answers = rig.answers(rig.client.id);
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    let (id, guard) = ("errors-without-an-id", "a time limit for each request");
    shows(answer["id"] == Value::Null, id, guard);
    let message = RawLSPSMessage { payload: answer.to_string() };
    let _ = client.handle_custom_message(message, rig.lsp.id);
    shows(client.get_and_clear_pending_events().is_empty(), id, guard);
    // From now on the service hears nothing of this peer.
    let deaf = rig.ask(rig.client.id, "lsps2.get_info", &json!({ "token": null })).is_empty();
    shows(deaf && rig.asked().is_empty(), id, guard);
}

/// LDK's own client of this LSP, a request of it that was answered, and what it told its application.
async fn answered(rig: &Rig, buys: bool, result: Value) -> (rig::Liquidity, Vec<LSPS2ClientEvent>) {
    let client = rig.client.liquidity(&MemoryStore::default(), false).await;
    let handler = client.lsps2_client_handler().unwrap();
    if buys {
        let terms = rig.menu(rig.client.id, vec![entry()]).remove(0);
        let terms = serde_json::from_value(terms).unwrap();
        handler.select_opening_params(rig.lsp.id, None, terms).unwrap();
    } else {
        handler.request_opening_params(rig.lsp.id, None);
    }
    let (_, request) = client.get_and_clear_pending_msg().remove(0);
    let id = serde_json::from_str::<Value>(&request.payload).unwrap()["id"].clone();
    let payload = json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
    client.handle_custom_message(RawLSPSMessage { payload }, rig.lsp.id).unwrap();
    let told = client.get_and_clear_pending_events().into_iter().filter_map(|event| match event {
        LiquidityEvent::LSPS2Client(event) => Some(event),
        _ => None,
    });
    let told = told.collect();
    (client, told)
}

#[tokio::test]
async fn ldk_leaves_out_terms_that_it_does_not_know() {
    let rig = Rig::new().await;
    let mut terms = rig.menu(rig.client.id, vec![entry()]).remove(0);
    terms["ongoing_fee_ppm"] = json!(1_000);
    let (client, told) = answered(&rig, false, json!({ "opening_fee_params_menu": [terms] })).await;
    let [LSPS2ClientEvent::OpeningParametersReady { opening_fee_params_menu: menu, .. }] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    let handler = client.lsps2_client_handler().unwrap();
    handler.select_opening_params(rig.lsp.id, None, menu[0].clone()).unwrap();
    let (_, bought) = client.get_and_clear_pending_msg().remove(0);
    let unseen = !bought.payload.contains("ongoing_fee_ppm");
    shows(unseen, "unknown-terms-are-dropped", "`MenuWatch`, which reads the answers first");
}

#[tokio::test]
async fn ldk_does_not_say_who_trusts_whom() {
    let rig = Rig::new().await;
    let mut events = Vec::new();
    for client_trusts_lsp in [true, false] {
        let result = json!({
            "jit_channel_scid": "1x2x3",
            "lsp_cltv_expiry_delta": 70_000,
            "client_trusts_lsp": client_trusts_lsp,
        });
        let (_, told) = answered(&rig, true, result).await;
        let [LSPS2ClientEvent::InvoiceParametersReady { request_id, cltv_expiry_delta, .. }] =
            &told[..]
        else {
            panic!("{told:?}")
        };
        let guard = "the negotiation refuses what is no delta";
        shows(*cltv_expiry_delta == 70_000, "a-delta-may-not-fit-a-path", guard);
        events.push(format!("{told:?}").replace(&request_id.0, ""));
    }
    let guard = "`MenuWatch`, which reads the answers first";
    shows(events[0] == events[1], "trust-flag-is-dropped", guard);
}

/// Whether what the LSP says is so nobody asks; and the sum of such words wraps around, or, built
/// with overflow checks, stops the wallet.
#[tokio::test]
async fn ldk_adds_up_skims_that_nobody_checked() {
    let rig = Rig::new().await;
    let scid = rig.sell(None, false).await;
    let channel = rig.open(1, 400_000);
    let (id, guard) = ("skims-are-the-lsps-word", "the claim guard computes with the gross amount");
    let offered = |rig: &Rig| {
        rig.client.take(|event| match event {
            Event::PaymentClaimable { counterparty_skimmed_fee_msat, .. } => {
                Some(*counterparty_skimmed_fee_msat)
            }
            _ => None,
        })
    };
    let forward = |parts_msat: &[u64], lies: &[u64]| {
        let htlcs = rig.pay(scid, rig.invoice(), parts_msat);
        rig.lies.lock().unwrap().extend(lies);
        for htlc in htlcs {
            let amount_msat = htlc.expected_outbound_amount_msat;
            let (manager, client) = (&rig.lsp.manager, rig.client.id);
            manager
                .forward_intercepted_htlc(htlc.intercept_id, &channel, client, amount_msat)
                .unwrap();
        }
        rig.talk();
    };
    forward(&[PAYMENT], &[u64::MAX]);
    shows(offered(&rig) == [u64::MAX], id, guard);

    let both = std::panic::AssertUnwindSafe(|| forward(&[5_000_000, 5_000_000], &[u64::MAX, 1]));
    let stopped = std::panic::catch_unwind(both).is_err();
    shows(stopped || offered(&rig) == [0], id, guard);
}

/// It hopes for a direct connection, with or without an address.
#[test]
fn ldk_reaches_strangers_by_connecting_to_them() {
    let graph = NetworkGraph::new(Network::Regtest, Arc::new(rig::Quiet));
    let random = RandomBytes::new([5; 32]);
    let router = DefaultMessageRouter::new(&graph, &random);
    let (wallet, lsp, payers_lsp) = (node(1), node(2), node(3));
    let path = router.find_path(wallet, vec![lsp], Destination::Node(payers_lsp)).unwrap();
    let direct = path.intermediate_nodes.is_empty() && path.first_node_addresses.is_empty();
    shows(direct, "messages-go-to-strangers-directly", "`LspMessageRouter`");
}

// Async payments.

/// Both events are pushed without a word to whoever waits for events.
#[tokio::test]
async fn ldk_wakes_nobody_for_a_static_invoice() {
    let rig = Rig::new().await;
    let post = Post::new(&rig, rig.lsp.manager.get_intercept_scid());
    let offer = post.offer();
    post.client_leaves();
    post.pay(&offer, PAYMENT);
    let woken = post.woken.borrow();
    assert!(woken.len() >= 2 && post.ever_woken.get(), "{woken:?}");
    let guard = "the tap around the message handlers, which wakes event processing";
    shows(woken.iter().all(|woken| !woken), "static-invoice-wakes-nobody", guard);
}

/// The server forwards the invoice request, too, and a client that cannot answer it says so.
#[tokio::test]
async fn ldk_abandons_an_async_payment_for_the_error_of_an_online_recipient() {
    let rig = Rig::new().await;
    let post = Post::new(&rig, rig.lsp.manager.get_intercept_scid());
    let offer = post.offer();
    post.pay(&offer, PAYMENT);
    let failed = post.failed();
    let rejected = matches!(&failed[..], [why] if why.contains("InvoiceRequestRejected"));
    let guard = "JIT paths for `Bolt12Offer`, too, and no mail for forwarded invoice requests";
    shows(rejected, "invoice-error-ends-the-payment", guard);
}

/// The message is lost, and nothing makes the payer send it again.
#[tokio::test]
async fn ldk_says_once_that_a_payment_waits() {
    let rig = Rig::new().await;
    let post = Post::new(&rig, rig.lsp.manager.get_intercept_scid());
    let offer = post.offer();
    post.client_leaves();
    post.pay(&offer, PAYMENT);
    let said = post.lost_mail.replace(0);
    assert!(said > 0, "it said nothing");
    post.client_returns();
    rig.payer.manager.timer_tick_occurred();
    post.talk();
    let again = post.lost_mail.get() > 0 || !rig.intercepted().is_empty();
    assert!(post.failed().is_empty(), "the payment is over");
    shows(!again, "held-htlc-is-announced-once", "a mailbox on disk, which delivers thrice");
}

#[tokio::test]
async fn ldk_announces_what_it_holds_as_intercepted_after_a_restart() {
    let rig = Rig::new().await;
    let set = |party: &rig::Party, change: fn(&mut UserConfig)| {
        let mut config = party.manager.get_current_config();
        change(&mut config);
        party.manager.set_current_config(config);
    };
    set(&rig.payer, |config| config.hold_outbound_htlcs_at_next_hop = true);
    set(&rig.lsp, |config| config.htlc_interception_flags = 0);
    set(&rig.lsp, |config| config.accept_forwards_to_priv_channels = true);
    set(&rig.lsp, |config| config.channel_config.forwarding_fee_base_msat = 0);
    rig.open(1, 300_000);
    let over_channel = rig.client.channel_with(&rig.lsp).get_inbound_payment_scid().unwrap();
    let post = Post::new(&rig, over_channel);
    let offer = post.offer();
    post.client_leaves();
    post.pay(&offer, PAYMENT);
    let channel = rig.lsp.channel_with(&rig.payer);
    assert_eq!(channel.pending_inbound_htlcs.len(), 1, "nothing is held");
    assert!(rig.intercepted().is_empty(), "nothing is to be intercepted");
    let raised = rig::gather(&rig.lsp.read_again());
    let raised = raised.iter().any(|event| matches!(event, Event::HTLCIntercepted { .. }));
    let guard = "a payer's LSP leaves such HTLCs alone";
    shows(raised, "held-htlc-is-intercepted-after-a-restart", guard);
}

/// What the payer locks lasts for the deltas of the way and a random offset, which is that of any other
/// payment.
#[tokio::test]
async fn ldk_adds_no_blocks_for_the_time_that_a_payment_is_held() {
    let rig = Rig::new().await;
    let mut holds = rig.payer.manager.get_current_config();
    holds.hold_outbound_htlcs_at_next_hop = true;
    rig.payer.manager.set_current_config(holds);
    let offset = rig.payer.random_offset_to(&rig.lsp);
    let post = Post::new(&rig, rig.lsp.manager.get_intercept_scid());
    let offer = post.offer();
    post.client_leaves();
    post.pay(&offer, PAYMENT);
    let channel = rig.payer.channel_with(&rig.lsp);
    let [held] = &channel.pending_outbound_htlcs[..] else { panic!("nothing is held") };
    let deltas = 72 + u32::from(MIN_FINAL_CLTV_EXPIRY_DELTA) + 2;
    let height = rig.payer.manager.current_best_block().height;
    let added = held.cltv_expiry - height - deltas;
    assert!(added >= offset, "{added} blocks, and {offset} by chance");
    let guard = "`extra_final_cltv_delta` of the recipient's paths";
    shows(added <= 3 + offset, "a-hold-adds-no-blocks", guard);
}

/// More than any mailbox of ours keeps for a client, from one payer.
#[tokio::test]
async fn ldk_hands_over_as_much_mail_as_anybody_sends() {
    let rig = Rig::new().await;
    let post = Post::new(&rig, rig.lsp.manager.get_intercept_scid());
    let offer = post.offer();
    post.client_leaves();
    for id in 0..=MailboxLimits::default().messages_per_peer {
        post.pay_as(id.try_into().unwrap(), &offer, PAYMENT);
    }
    let more = post.lost_mail.get() > MailboxLimits::default().messages_per_peer;
    shows(more, "mail-is-not-limited", "`MailboxLimits`");
}
