//! A run as lines that a person can follow: what the demo prints, and the book shows of a recording.

use crate::entry::{HtlcState, What};
use crate::ledger::Payment;
use crate::moment::Moment;
use crate::view::grouped;
use crate::words;

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// The lease, the invoice, the mail, the channel, the money; who is there.
    Story,
    /// Which message came, who is connected.
    Traffic,
}

/// The heading of a scene: `Step 4: Pay over an imaginary SCID`.
pub fn heading(id: &str, title: &str) -> String {
    match id.strip_prefix("step-") {
        Some(number) => format!("Step {number}: {title}"),
        None => title.to_owned(),
    }
}

/// A line, without its time: who, and what happened.
pub fn line(node: &str, text: &str) -> String {
    format!("{node:<10} {text}")
}

/// What a person wants to know of a moment at this party; most messages are left to the player.
pub fn text(node: &str, what: &What) -> Option<(About, String)> {
    use About::{Story, Traffic};
    Some(match what {
        What::Started { restored: false } => (Story, "starts for the first time".to_owned()),
        What::Started { restored: true } => (Story, "starts from its folder".to_owned()),
        What::Stopped => (Story, "goes offline".to_owned()),
        What::Htlc { state, amount_msat, skimmed_fee_msat, reason, .. } => {
            let name = words::of_htlc(node, *state);
            let sum = words::sum(*state, *amount_msat, *skimmed_fee_msat);
            let between = if *state == HtlcState::Requested { " " } else { ": " };
            let sum = sum.map(|sum| format!("{between}{sum}")).unwrap_or_default();
            (Story, format!("{name}{sum}{}", because(reason.as_deref())))
        }
        What::Lease { state, intercept_scid, .. } => {
            let scid = intercept_scid.as_deref().unwrap_or("?");
            (Story, format!("lease {state}: intercept SCID {scid}"))
        }
        What::Offer { state, detail } => {
            let bytes = detail["bytes"].as_u64().map(|n| format!(", {}", words::bytes(n)));
            (Story, format!("static invoice {state}{}", bytes.unwrap_or_default()))
        }
        What::Mailbox { state, messages, peer, .. } => {
            let unit = if *messages == 1 { "message" } else { "messages" };
            (Story, format!("mailbox: {messages} {unit} for {peer} {state}"))
        }
        What::Paths { context, paths, .. } => {
            (Story, format!("router: {paths} path for the {}", context.replace('_', " ")))
        }
        What::Channel { state, peer, capacity_sat, reason, .. } => {
            let size = capacity_sat.map(|sat| format!(" of {} sat", grouped(sat)));
            let (size, reason) = (size.unwrap_or_default(), because(reason.as_deref()));
            (Story, format!("channel{size} with {peer} {state}{reason}"))
        }
        What::Broadcast { purpose, error, .. } => match error {
            None => (Story, format!("broadcasts a transaction ({purpose})")),
            Some(error) => (Story, format!("the chain refuses a transaction ({purpose}): {error}")),
        },
        What::Note { text } => (Story, text.clone()),
        What::Onion { message, .. } if message == "held_htlc_available" => {
            (Story, format!("learns that a payment waits ({message})"))
        }
        What::Onion { message, .. } if message == "release_held_htlc" => {
            (Story, format!("releases the payment ({message})"))
        }
        What::Onion { message, bytes, .. } => {
            (Traffic, format!("gets {message} ({})", words::bytes(*bytes as u64)))
        }
        What::Lsps { json, peer, .. } => match (json["method"].as_str(), json.get("error")) {
            (Some(method), _) => (Traffic, format!("is asked {method} by {peer}")),
            (None, None) => (Traffic, format!("gets the answer of {peer}")),
            (None, Some(error)) => (Traffic, format!("gets error {} of {peer}", error["code"])),
        },
        What::Connected { peer } => (Traffic, format!("connected to {peer}")),
        What::Disconnected { .. }
        | What::Wire { .. }
        | What::OnionSent { .. }
        | What::Event { .. }
        | What::Balances { .. }
        | What::Scene { .. }
        | What::Block { .. } => return None,
    })
}

fn because(reason: Option<&str>) -> String {
    reason.map(|reason| format!(": {}", words::plain(reason))).unwrap_or_default()
}

/// What became of the money, as a table.
pub fn books(payment: &Payment) -> String {
    let rows = [
        ("payer sent", i128::from(payment.sent_msat)),
        ("  routing fees, to the payer's LSP", i128::from(payment.routing_fee_msat)),
        ("  opening fee, to the recipient's LSP", i128::from(payment.opening_fee_msat)),
        ("  recipient received", i128::from(payment.received_msat)),
        ("difference", payment.missing_msat()),
    ];
    let mut table = String::from("Where every msat went\n");
    for (what, amount) in rows {
        let sign = if amount < 0 { "−" } else { "" };
        let amount = grouped(u64::try_from(amount.unsigned_abs()).unwrap_or(u64::MAX));
        table += &format!("  {what:<40} {:>16} msat\n", format!("{sign}{amount}"));
    }
    table
}

/// The lines of these moments about the story, or about all, those of a scene under its heading.
pub fn timeline(moments: &[Moment], all: bool) -> String {
    let mut out = String::new();
    for moment in moments.iter().filter(|moment| !moment.background && !moment.again) {
        if let What::Scene { id, title } = &moment.what {
            let gap = if out.is_empty() { "" } else { "\n" };
            out += &format!("{gap}{}\n", heading(id, title));
        } else if let Some((about, text)) = text(&moment.node, &moment.what)
            && (all || about == About::Story)
        {
            out += &format!("  {}\n", line(&moment.node, &text));
        }
    }
    out
}
