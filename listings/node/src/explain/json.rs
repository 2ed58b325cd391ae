//! LSPS messages: JSON-RPC, whose members are ranges of the text.

use lightning_liquidity::lsps2::msgs::{
    LSPS2BuyRequest, LSPS2BuyResponse, LSPS2GetInfoRequest, LSPS2GetInfoResponse,
};
use recording::view::grouped;
use recording::{Explained, Field};
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::ops::Range;

use super::sheet::Mismatch;

/// Explains a JSON-RPC message of bLIP-50 and bLIP-52. `json` is what the node made of it.
pub(super) fn explain(text: &str, json: &Value) -> Result<Explained, Mismatch> {
    if !is_ldks(json) {
        return Err(Mismatch::new(0, "LDK writes this message differently"));
    }
    let mut fields = Vec::new();
    let (title, meaning) = title(json);
    fields.push(Field {
        at: 0,
        len: text.len(),
        depth: 0,
        name: title.to_owned(),
        value: String::new(),
        meaning: meaning.to_owned(),
        varies: false,
    });
    lay_members(text, text.trim(), json, 1, &mut fields)?;
    Ok(Explained { title: title.to_owned(), bytes: text.to_owned(), text: true, fields })
}

fn title(json: &Value) -> (&str, &'static str) {
    let result = &json["result"];
    match json["method"].as_str() {
        Some(method) => (method, "a request, as the payload of message type 37913"),
        None if json.get("error").is_some() => ("error", "the answer to a request that failed"),
        None if result.get("opening_fee_params_menu").is_some() => {
            ("answer to lsps2.get_info", "the LSP's menu, as the payload of message type 37913")
        }
        None if result.get("jit_channel_scid").is_some() => {
            ("answer to lsps2.buy", "what was bought, as the payload of message type 37913")
        }
        None => ("answer", "the answer to a request"),
    }
}

/// The members of one object, as they stand in the text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

/// Lays a field over each member of `object`, which is a part of `text`, and over those in it. What
/// stands in the range must be what the node read.
fn lay_members(
    text: &str,
    object: &str,
    json: &Value,
    depth: u8,
    fields: &mut Vec<Field>,
) -> Result<(), Mismatch> {
    let mut end = start_in(text, object);
    let members = read::<Members<'_>>(text, object)?.0;
    if json.as_object().map(serde_json::Map::len) != Some(members.len()) {
        return Err(Mismatch::new(end, "a member stands there twice"));
    }
    for (name, raw) in members {
        let value_at = start_in(text, raw.get());
        // Before the quote that opens the name, there is none behind the last member.
        let at = end + text[end..value_at].find('"').unwrap_or_default();
        end = value_at + raw.get().len();
        let found: Value = read(text, raw.get())?;
        let value = json.get(&name).filter(|value| **value == found);
        let value = value.ok_or_else(|| Mismatch::new(value_at, format!("this is no {name}")))?;
        fields.push(member(at..end, depth, &name, value));
        inside(text, raw.get(), value, depth + 1, fields)?;
    }
    Ok(())
}

/// The same for what stands in a member.
fn inside(
    text: &str,
    raw: &str,
    json: &Value,
    depth: u8,
    fields: &mut Vec<Field>,
) -> Result<(), Mismatch> {
    match json {
        Value::Object(_) => lay_members(text, raw, json, depth, fields),
        Value::Array(values) => {
            let elements: Vec<&RawValue> = read(text, raw)?;
            for ((i, raw), value) in elements.iter().enumerate().zip(values) {
                let at = start_in(text, raw.get());
                let name = format!("[{i}]");
                fields.push(member(at..at + raw.get().len(), depth, &name, value));
                inside(text, raw.get(), value, depth + 1, fields)?;
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn read<'a, T: Deserialize<'a>>(text: &str, part: &'a str) -> Result<T, Mismatch> {
    serde_json::from_str(part)
        .map_err(|error| Mismatch::new(start_in(text, part), format!("not as expected: {error}")))
}

/// Where a part of a text begins in it.
fn start_in(text: &str, part: &str) -> usize {
    part.as_ptr() as usize - text.as_ptr() as usize
}

fn member(range: Range<usize>, depth: u8, name: &str, value: &Value) -> Field {
    let (unit, meaning, varies) = about(name);
    let shown = match value {
        Value::String(text) => text.clone(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Null => "none".to_owned(),
        Value::Array(_) | Value::Object(_) => String::new(),
    };
    let shown = match shown.parse() {
        Ok(number) if !unit.is_empty() => format!("{} {unit}", grouped(number)),
        _ => shown,
    };
    Field {
        at: range.start,
        len: range.len(),
        depth,
        name: name.to_owned(),
        value: shown,
        meaning: meaning.to_owned(),
        varies,
    }
}

/// Unit and meaning of a member (bLIP-50, bLIP-52), and whether it is another one in every run.
fn about(name: &str) -> (&'static str, &'static str, bool) {
    match name {
        "jsonrpc" => ("", "the version of JSON-RPC", false),
        "id" => ("", "a random string; the answer repeats it", true),
        "method" => ("", "what the client asks for", false),
        "params" => ("", "what the client sends with it", false),
        "result" => ("", "what the LSP answers", false),
        "error" => ("", "why the LSP refuses", false),
        "code" => ("", "which error it is", false),
        "message" => ("", "the error in words", false),
        "data" => ("", "more about the error", false),
        "token" => ("", "a discount code or API key the LSP may ask for", false),
        "opening_fee_params_menu" => ("", "the terms to choose from, cheapest first", false),
        "opening_fee_params" => ("", "the chosen terms, copied verbatim from the menu", false),
        "[0]" => ("", "one set of terms", false),
        "min_fee_msat" => ("msat", "the least the LSP takes for opening the channel", false),
        "proportional" => ("ppm", "its share of the payment size, in parts per million", false),
        "valid_until" => ("", "when the terms and the JIT flow end, as an ISO 8601 time", true),
        "min_lifetime" => {
            ("blocks", "how long the LSP keeps a paid channel open once it has confirmed", false)
        }
        "max_client_to_self_delay" => {
            ("blocks", "the largest to_self_delay the client may ask of the LSP", false)
        }
        "min_payment_size_msat" => ("msat", "the smallest payment that opens the channel", false),
        "max_payment_size_msat" => ("msat", "the largest payment that opens the channel", false),
        "promise" => ("", "by which the LSP knows these terms again; opaque to the client", true),
        "payment_size_msat" => ("msat", "the agreed size; without it, the payer chooses", false),
        "jit_channel_scid" => ("", "the intercept SCID: stands for the channel to come", true),
        "lsp_cltv_expiry_delta" => ("blocks", "the CLTV delta of the hop at the LSP", false),
        "client_trusts_lsp" => {
            ("", "whether the preimage is due before the funding is broadcast", false)
        }
        _ => ("", "", false),
    }
}

/// LDK's own types read and write the same JSON.
fn is_ldks(json: &Value) -> bool {
    let (params, result) = (&json["params"], &json["result"]);
    match json["method"].as_str() {
        Some("lsps2.get_info") => same::<LSPS2GetInfoRequest>(params),
        Some("lsps2.buy") => same::<LSPS2BuyRequest>(params),
        Some(_) => true,
        None if result.get("opening_fee_params_menu").is_some() => {
            same::<LSPS2GetInfoResponse>(result)
        }
        None if result.get("jit_channel_scid").is_some() => same::<LSPS2BuyResponse>(result),
        None => true,
    }
}

fn same<T: DeserializeOwned + Serialize>(json: &Value) -> bool {
    let read = serde_json::from_value::<T>(json.clone());
    read.and_then(serde_json::to_value).is_ok_and(|written| written == *json)
}
