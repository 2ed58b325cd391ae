//! What LDK and the nodes write, in words for a reader.

use crate::entry::HtlcState;
use crate::view::grouped;
use serde_json::Value;

/// Whether this party pays; what it knows of is a payment, not an HTLC.
pub fn is_payer(node: &str) -> bool {
    let rest = node.strip_prefix("payer");
    rest.is_some_and(|rest| rest.trim_start_matches('-').chars().all(|c| c.is_ascii_digit()))
}

/// What became of an HTLC, or of the payment it belongs to, at this party.
pub fn of_htlc(node: &str, state: HtlcState) -> &'static str {
    match state {
        HtlcState::Requested => "asks to pay",
        HtlcState::Intercepted => "HTLC intercepted",
        // LDK says so once the next node's preimage is there, not when the HTLC leaves.
        HtlcState::Forwarded => "forward settled",
        HtlcState::Claimable => "HTLC claimable",
        HtlcState::Refused => "HTLC refused",
        HtlcState::Claimed => "HTLC claimed",
        HtlcState::Paid => "payment sent",
        HtlcState::Failed if is_payer(node) => "payment failed",
        HtlcState::Failed => "HTLC failed",
    }
}

/// The amount that a node names with it, if it knows one.
pub fn sum(state: HtlcState, amount_msat: u64, skimmed_fee_msat: u64) -> Option<String> {
    let skim = match (state, skimmed_fee_msat) {
        (HtlcState::Paid, 0) => ", fees included".to_owned(),
        (_, 0) => String::new(),
        (_, skim) => format!(", {} msat skimmed", grouped(skim)),
    };
    (amount_msat > 0).then(|| format!("{} msat{skim}", grouped(amount_msat)))
}

/// `1 byte`, `1 384 bytes`.
pub fn bytes(count: u64) -> String {
    let unit = if count == 1 { "byte" } else { "bytes" };
    format!("{} {unit}", grouped(count))
}

/// A text with what LDK writes for programmers put into words, and its amounts in groups of three
/// digits.
pub fn plain(text: &str) -> String {
    regrouped(&without_debug(text))
}

/// The fields of what a node wrote down, in words.
pub fn value(name: &str, value: &Value) -> Option<String> {
    let named = |value: String| format!("{} {value}", name.replace('_', " "));
    Some(match value {
        Value::Null => return None,
        Value::String(text) => named(plain(text)),
        Value::Number(number) => named(number.as_u64().map_or_else(|| number.to_string(), grouped)),
        Value::Array(values) if name == "prev_htlcs" => {
            let each = values.iter().map(|value| match value.as_str() {
                Some(text) => htlc(text),
                None => value.to_string(),
            });
            format!("came over {}", each.collect::<Vec<_>>().join("; "))
        }
        other => named(other.to_string()),
    })
}

/// `d0a8a444… Some(0)`: the channel and the number of an HTLC in it.
fn htlc(text: &str) -> String {
    let number = |number: &str| {
        let number = number.trim_start_matches("Some(").trim_end_matches(')');
        number.parse::<u64>().ok()
    };
    match text.split_once(' ').map(|(channel, rest)| (channel, number(rest))) {
        Some((channel, Some(number))) => format!("channel {channel}, HTLC {number}"),
        Some((channel, None)) if text.ends_with(" None") => format!("channel {channel}"),
        _ => text.to_owned(),
    }
}

/// `Forward { channel_id: … }` and the like in words. A public key in this form is in the order of
/// its library, by which nobody would find it.
fn without_debug(text: &str) -> String {
    let mut text = text.to_owned();
    while let Some((at, end)) = between(&text, "node_id: Some(PublicKey(", "))") {
        let end = if text[end..].starts_with(", ") { end + 2 } else { end };
        text.replace_range(at..end, "");
    }
    while let Some((at, end)) = between(&text, "requested_forward_scid: ", " ") {
        let scid: Result<u64, _> = text[at + "requested_forward_scid: ".len()..end - 1].parse();
        let hop =
            scid.map_or_else(|_| "next hop".to_owned(), |scid| format!("next hop {}", short(scid)));
        text.replace_range(at..end - 1, &hop);
    }
    while let Some((at, end)) = between(&text, "Local { reason: ", " }") {
        let why = text[at + "Local { reason: ".len()..end - 2].to_owned();
        text.replace_range(at..end, &why);
    }
    // The number of seconds differs from run to run, and says nothing.
    while let Some(end) = text.find("s after the Unix epoch") {
        let number = text[..end].trim_end_matches(|c: char| c.is_ascii_digit()).trim_end().len();
        text.replace_range(number..end + "s after the Unix epoch".len(), "");
    }
    let text = text.replace(" { }", "").replace(" {  }", "");
    match text.split_once(" { ") {
        Some((kind, fields)) if kind.chars().all(|c| c.is_ascii_alphanumeric()) => {
            let fields = fields.strip_suffix(" }").unwrap_or(fields);
            let fields = fields.replace("channel_id: ", "channel ");
            let fields = fields.replace("payment_hash: ", "payment hash ");
            format!("{kind}, {fields}")
        }
        _ => text,
    }
}

/// Where the first part of the text lies that begins and ends so.
fn between(text: &str, begin: &str, end: &str) -> Option<(usize, usize)> {
    let at = text.find(begin)?;
    let inner = at + begin.len();
    Some((at, inner + text[inner..].find(end)? + end.len()))
}

/// Block x transaction x output.
fn short(scid: u64) -> String {
    format!("{}x{}x{}", scid >> 40, (scid >> 16) & 0xff_ffff, scid & 0xffff)
}

/// With amounts in groups of three digits. Only whole numbers are grouped, no parts of one that is
/// grouped already.
fn regrouped(text: &str) -> String {
    let words: Vec<_> = text.split(' ').collect();
    let is_number = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    let word = |(at, word): (usize, &&str)| {
        let digits = word.trim_end_matches([',', '.', ':', ';']);
        let of_money = words
            .get(at + 1)
            .is_some_and(|unit| unit.starts_with("msat") || unit.starts_with("sat"));
        // An SCID in LDK's words is longer, a height shorter.
        let is_long = (7..=10).contains(&digits.len());
        let is_part = digits.len() <= 3;
        match digits.parse::<u64>() {
            Ok(number) if is_number(digits) && !is_part && (of_money || is_long) => {
                format!("{}{}", grouped(number), &word[digits.len()..])
            }
            _ => (*word).to_owned(),
        }
    };
    words.iter().enumerate().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_numbers_are_grouped_once() {
        for (text, shown) in [
            ("10 000 000 msat", "10 000 000 msat"),
            ("100000000 msat: 2000000 were agreed", "100 000 000 msat: 2 000 000 were agreed"),
            ("1000 sat, at height 1234", "1 000 sat, at height 1234"),
            ("paid already, 2000000, by 7", "paid already, 2 000 000, by 7"),
        ] {
            assert_eq!(plain(text), shown);
            assert_eq!(plain(shown), shown, "again");
        }
    }

    #[test]
    fn nothing_is_shown_as_a_program_writes_it() {
        for (text, shown) in [
            (
                "InvalidForward { requested_forward_scid: 281474976776193 }",
                "InvalidForward, next hop 256x1x1",
            ),
            (
                "Forward { node_id: Some(PublicKey(c421da75…)), channel_id: 78de3030… }",
                "Forward, channel 78de3030…",
            ),
            ("Receive { payment_hash: 343db532… }", "Receive, payment hash 343db532…"),
            ("Local { reason: UnknownNextPeer }", "UnknownNextPeer"),
            ("Downstream", "Downstream"),
            ("the lease ran out 1795387114s after the Unix epoch", "the lease ran out"),
        ] {
            assert_eq!(plain(text), shown);
        }
        let came = json!(["d0a8a444… Some(0)"]);
        let shown = value("prev_htlcs", &came);
        assert_eq!(shown.as_deref(), Some("came over channel d0a8a444…, HTLC 0"));
    }

    #[test]
    fn payers_are_no_lsps() {
        assert!(is_payer("payer") && is_payer("payer-2"));
        assert!(!is_payer("payer-lsp") && !is_payer("lsp") && !is_payer("recipient"));
    }

    #[test]
    fn a_payment_is_named_for_what_the_party_knows() {
        assert_eq!(of_htlc("payer", HtlcState::Failed), "payment failed");
        assert_eq!(of_htlc("lsp", HtlcState::Failed), "HTLC failed");
        let sent = sum(HtlcState::Paid, 100_001_000, 0);
        assert_eq!(sent.as_deref(), Some("100 001 000 msat, fees included"));
        let settled = sum(HtlcState::Forwarded, 98_000_000, 2_000_000);
        assert_eq!(settled.as_deref(), Some("98 000 000 msat, 2 000 000 msat skimmed"));
        assert_eq!(sum(HtlcState::Failed, 0, 0), None);
        assert_eq!((bytes(1), bytes(1384)), ("1 byte".to_owned(), "1 384 bytes".to_owned()));
    }
}
