//! What a diagram shows at which level of detail. What it does not show, its list counts.

use recording::entry::{HtlcState, What};

/// How much a diagram shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// The moves without which the story cannot be told; for several scenes.
    Brief,
    /// What a chapter talks about; for one scene.
    Usual,
    /// Everything but housekeeping and copies.
    Full,
}

use Level::{Brief, Full, Usual};

/// BOLT 1 and 2 messages by name; any other is for `Full`.
const MESSAGES: [(&str, Level); 13] = [
    ("update_add_htlc", Brief),
    ("update_fulfill_htlc", Brief),
    ("update_fail_htlc", Brief),
    ("update_fail_malformed_htlc", Brief),
    ("open_channel", Brief),
    ("error", Brief),
    ("accept_channel", Usual),
    ("funding_created", Usual),
    ("funding_signed", Usual),
    ("channel_ready", Usual),
    ("shutdown", Usual),
    ("closing_signed", Usual),
    ("closing_complete", Usual),
];

/// The messages that commit to an HTLC. `Usual` folds an exchange of them into one row.
const DANCE: [&str; 2] = ["commitment_signed", "revoke_and_ack"];

/// The size of a `revoke_and_ack` that carries nothing beside its secret and its point.
const PLAIN_REVOCATION: usize = 97;

/// Onion messages that are not for `Brief`.
const ONION: [(&str, Level); 2] = [("offer_paths_request", Usual), ("offer_paths", Usual)];

/// Onion messages, events and states by which an offer's invoice is made. Once an invoice is at its
/// server they come again, whenever LDK refreshes another; that is for `Full`.
const UPKEEP: [&str; 6] = [
    "offer_paths_request",
    "offer_paths",
    "serve_static_invoice",
    "static_invoice_persisted",
    "PersistStaticInvoice",
    "persisted",
];

/// LDK's events that a state does not tell; any other is for `Full`, or belongs to a state.
const EVENTS: [(&str, Level); 4] = [
    ("ConnectionNeeded", Usual),
    ("FundingTxBroadcastSafe", Usual),
    ("HTLCHandlingFailed", Usual),
    ("InvoiceReceived", Usual),
];

/// The states of leases, offers, mailboxes and channels; any other is for `Usual`.
const STATES: [(&str, &str, Level); 17] = [
    ("lease", "bought", Brief),
    ("lease", "consumed", Brief),
    ("lease", "refused", Brief),
    ("lease", "expired", Brief),
    ("offer", "persisted", Usual),
    ("offer", "ready", Brief),
    ("offer", "refused", Brief),
    // The arrow into the mailbox and the one out of it say so.
    ("mailbox", "delivered", Full),
    ("mailbox", "kept", Brief),
    // The messages say so, `open_channel` with the size.
    ("channel", "opening", Full),
    ("channel", "requested", Full),
    ("channel", "pending", Full),
    ("channel", "ready", Full),
    ("channel", "refused", Brief),
    ("channel", "open_failed", Brief),
    ("channel", "closed", Brief),
    ("paths", "refused", Brief),
];

/// Why an HTLC fails that failed at another node.
const DOWNSTREAM: &str = "Downstream";

fn listed(table: &[(&str, Level)], name: &str) -> Option<Level> {
    table.iter().find(|(listed, _)| *listed == name).map(|(_, level)| *level)
}

fn state(kind: &str, state: &str) -> Level {
    let row = STATES.iter().find(|row| (row.0, row.1) == (kind, state));
    row.map_or(Usual, |row| row.2)
}

/// The least level that shows it; `None` if no diagram does.
pub(super) fn level(what: &What) -> Option<Level> {
    Some(match what {
        What::Started { .. } | What::Stopped | What::Note { .. } | What::Lsps { .. } => Brief,
        What::Connected { .. } | What::Disconnected { .. } => Full,
        What::Wire { message, bytes, .. } => match is_dance(message) {
            // It carries the paths by which a held HTLC is released.
            true if message == "revoke_and_ack" && *bytes > PLAIN_REVOCATION => Usual,
            true => Full,
            false => listed(&MESSAGES, message).unwrap_or(Full),
        },
        What::Onion { message, .. } => listed(&ONION, message).unwrap_or(Brief),
        What::Event { name, detail } => match detail["failure_reason"].as_str() {
            Some(DOWNSTREAM) => Full,
            _ => listed(&EVENTS, name).unwrap_or(Full),
        },
        // The message that passes the failure on says so.
        What::Htlc { reason: Some(reason), .. } if reason == DOWNSTREAM => Full,
        What::Htlc { state, skimmed_fee_msat, .. } => match state {
            HtlcState::Requested | HtlcState::Claimable => Usual,
            HtlcState::Forwarded if *skimmed_fee_msat == 0 => Usual,
            _ => Brief,
        },
        What::Lease { state: to, .. } => state("lease", to),
        What::Offer { state: to, .. } => state("offer", to),
        What::Mailbox { state: to, .. } => state("mailbox", to),
        What::Channel { state: to, .. } => state("channel", to),
        What::Paths { paths, .. } if paths == "refused" => state("paths", paths),
        What::Paths { .. } => Brief,
        What::Broadcast { error, .. } => {
            if error.is_some() {
                Brief
            } else {
                Usual
            }
        }
        What::OnionSent { .. }
        | What::Block { .. }
        | What::Balances { .. }
        | What::Scene { .. } => return None,
    })
}

/// Whether it is part of the exchange that commits to an HTLC.
pub(super) fn is_dance(message: &str) -> bool {
    DANCE.contains(&message)
}

/// Whether it is about an HTLC that is held: one byte, whichever HTLC it is.
pub(super) fn is_of_held(message: &str) -> bool {
    matches!(message, "held_htlc_available" | "release_held_htlc")
}

/// Whether it is about making an offer's invoice.
pub(super) fn is_upkeep(what: &What) -> bool {
    let name = match what {
        What::Onion { message, .. } => message,
        What::Event { name, .. } => name,
        What::Offer { state, .. } => state,
        _ => return false,
    };
    UPKEEP.contains(&name.as_str())
}

/// The events of LDK that a state may follow from, which then need no row of their own.
pub(super) fn events_of(what: &What) -> &'static [&'static str] {
    match what {
        What::Htlc { state, .. } => match state {
            HtlcState::Intercepted => &["HTLCIntercepted"],
            HtlcState::Forwarded => &["PaymentForwarded"],
            HtlcState::Claimable | HtlcState::Refused => &["PaymentClaimable"],
            HtlcState::Claimed => &["PaymentClaimed"],
            HtlcState::Paid => &["PaymentSent"],
            HtlcState::Failed => &["PaymentFailed", "HTLCHandlingFailed"],
            HtlcState::Requested => &[],
        },
        What::Offer { state, .. } if state == "persisted" => &["PersistStaticInvoice"],
        What::Offer { state, .. } if state == "served" => &["StaticInvoiceRequested"],
        What::Offer { state, .. } if state == "refused" => &["PersistStaticInvoice"],
        What::Channel { state, .. } => match state.as_str() {
            "requested" | "refused" => &["OpenChannelRequest"],
            "pending" => &["ChannelPending"],
            "ready" => &["ChannelReady"],
            "closed" => &["ChannelClosed"],
            _ => &[],
        },
        _ => &[],
    }
}

/// Whether a reader asks why: then the reason stands in the drawing.
pub(super) fn asks_why(what: &What) -> bool {
    match what {
        What::Htlc { state, .. } => matches!(state, HtlcState::Refused | HtlcState::Failed),
        What::Lease { state, .. } | What::Offer { state, .. } => state == "refused",
        What::Paths { paths, .. } => paths == "refused",
        What::Mailbox { state, .. } => state == "dropped",
        What::Channel { state, .. } => {
            matches!(state.as_str(), "refused" | "open_failed" | "closed")
        }
        What::Broadcast { error, .. } => error.is_some(),
        What::Event { name, .. } => name == "HTLCHandlingFailed",
        _ => false,
    }
}
