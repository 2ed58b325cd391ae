//! What a reader may choose for a run, and why a choice is refused.

use lsps2_async::lease::TrustModel;
use lsps2_async::lsp::sale::{FeeOption, FeePolicy};
use lsps2_async::payer::PayerMode;
use node::lsp::LspPolicy;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use crate::money::msat;
use crate::payable;
use crate::story::Setting;
use crate::world::{Story, wallets_terms};

const AMOUNT: &str = "amount_msat";
const MIN_FEE: &str = "min_fee_msat";
const PROPORTIONAL: &str = "proportional";
const TRUST: &str = "trust";
const PAYER: &str = "payer";
const RECIPIENT: &str = "recipient";

/// Everything there is to choose.
const FIELDS: [&str; 6] = [AMOUNT, MIN_FEE, PROPORTIONAL, TRUST, PAYER, RECIPIENT];
const TRUSTS: [(&str, TrustModel); 2] =
    [("client", TrustModel::ClientTrustsLsp), ("lsp", TrustModel::LspTrustsClient)];
const OFFLINE_OR_NOT: [(&str, bool); 2] = [("offline", true), ("online", false)];
/// The whole, where a share is counted in parts per million.
const MILLION: u64 = 1_000_000;

/// Why a choice was refused; nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The reason, and what to choose instead.
    pub error: String,
    /// The choice that it is about.
    pub field: String,
}

impl Refusal {
    fn new(field: &str, error: String) -> Self {
        Self { error, field: field.to_owned() }
    }
}

/// The choices of one run, good to be played.
#[derive(Clone, Debug)]
pub struct Choices {
    /// How the flow is told.
    pub setting: Setting,
    /// The world it is told in: who sells on which terms.
    pub story: Story,
}

/// A number to choose.
#[derive(Clone, Copy, Debug, Serialize)]
struct Range {
    min: u64,
    max: u64,
    default: u64,
}

/// The terms of the LSP before a reader chooses others.
fn usual_fees() -> FeeOption {
    LspPolicy::new(Setting::default().trust).fees
}

impl Range {
    fn amount() -> Self {
        let FeeOption { min_payment_size_msat: min, max_payment_size_msat: max, .. } = usual_fees();
        Self { min, max, default: Setting::default().amount_msat }
    }

    /// Up to what the wallet accepts: see [`wallets_terms`].
    fn min_fee() -> Self {
        let max = wallets_terms().max_fee_msat;
        Self { min: 0, max, default: usual_fees().min_fee_msat }
    }

    fn proportional() -> Self {
        let wallet = wallets_terms();
        // A share rounded up to whole msat is within a whole limit if it is without the rounding.
        let max = wallet.max_fee_msat * MILLION / wallet.payment_size_msat;
        Self { min: 0, max, default: usual_fees().proportional.into() }
    }
}

/// What can be chosen, for the page.
pub fn offered() -> Value {
    let names = |of: [(&str, bool); 2]| of.map(|(name, _)| name.to_owned());
    json!({
        AMOUNT: Range::amount(),
        MIN_FEE: Range::min_fee(),
        PROPORTIONAL: Range::proportional(),
        TRUST: TRUSTS.map(|(name, _)| name),
        PAYER: names(OFFLINE_OR_NOT),
        RECIPIENT: names(OFFLINE_OR_NOT),
    })
}

impl Choices {
    /// Reads and judges what a reader has chosen.
    ///
    /// # Errors
    /// With the first choice that cannot be played, why, and what to choose instead.
    pub fn read(chosen: &Map<String, Value>) -> Result<Self, Refusal> {
        if let Some(unknown) = chosen.keys().find(|name| !FIELDS.contains(&name.as_str())) {
            let error = format!("there is no such choice: leave it out. {}", all_of_them());
            return Err(Refusal::new(unknown, error));
        }
        let amount_msat = number(chosen, AMOUNT)?;
        let min_fee_msat = number(chosen, MIN_FEE)?;
        let proportional = number(chosen, PROPORTIONAL)?;
        let trust = one_of(chosen, TRUST, &TRUSTS)?;
        let payer = match one_of(chosen, PAYER, &OFFLINE_OR_NOT)? {
            true => PayerMode::OftenOffline,
            false => PayerMode::AlwaysOnline,
        };
        let recipient_stays = !one_of(chosen, RECIPIENT, &OFFLINE_OR_NOT)?;

        let mut story = Story::new(payer, trust);
        story.lsp.fees.min_fee_msat = accepted_min_fee(min_fee_msat)?;
        story.lsp.fees.proportional = accepted_share(proportional)?;
        check_sale(&story)?;
        check_amount(&story, amount_msat)?;
        Ok(Self { setting: Setting { payer, trust, amount_msat, recipient_stays }, story })
    }

    /// The same for a recording's header.
    pub fn told(&self) -> BTreeMap<String, Value> {
        let Setting { payer, trust, amount_msat, recipient_stays } = self.setting;
        let fees = &self.story.lsp.fees;
        let offline = |is: bool| if is { "offline" } else { "online" };
        let trust = TRUSTS.iter().find(|(_, model)| *model == trust).map(|(name, _)| *name);
        let told = [
            (AMOUNT, json!(amount_msat)),
            (MIN_FEE, json!(fees.min_fee_msat)),
            (PROPORTIONAL, json!(fees.proportional)),
            (TRUST, json!(trust)),
            (PAYER, json!(offline(payer == PayerMode::OftenOffline))),
            (RECIPIENT, json!(offline(!recipient_stays))),
        ];
        told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

fn all_of_them() -> String {
    format!("The choices are {}", FIELDS.join(", "))
}

fn value<'a>(chosen: &'a Map<String, Value>, field: &str) -> Result<&'a Value, Refusal> {
    let missing = || Refusal::new(field, format!("{field} is missing. {}", all_of_them()));
    chosen.get(field).ok_or_else(missing)
}

/// A whole number; also as decimal digits in a string, since a page's numbers end at 2⁵³.
fn number(chosen: &Map<String, Value>, field: &str) -> Result<u64, Refusal> {
    let value = value(chosen, field)?;
    let refused = |error: String| Err(Refusal::new(field, error));
    let (unit, range) = match field {
        AMOUNT => ("msat", Range::amount()),
        MIN_FEE => ("msat", Range::min_fee()),
        _ => ("parts per million", Range::proportional()),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = match value.as_str() {
        Some("") => return refused(format!("type a number of {unit}")),
        Some(text) if digits(text) => match text.parse() {
            Ok(number) => Some(number),
            // As it was typed: it is more than 64 bits hold.
            Err(_) => {
                let most = msat(range.max);
                return refused(format!("{text} is too large: choose {most} {unit} or less"));
            }
        },
        _ => value.as_u64(),
    };
    // The page takes spaces between groups of digits away.
    let wrong = format!(
        "{value} is no whole number of {unit} that is not negative: give digits only, without a sign \
         or a point"
    );
    number.map_or_else(|| refused(wrong), Ok)
}

fn one_of<T: Copy>(
    chosen: &Map<String, Value>,
    field: &str,
    values: &[(&str, T)],
) -> Result<T, Refusal> {
    let value = value(chosen, field)?;
    let found = values.iter().find(|(name, _)| value.as_str() == Some(name));
    let names: Vec<_> = values.iter().map(|(name, _)| format!("\"{name}\"")).collect();
    let wrong = || format!("{value} is not among them: choose {}", names.join(" or "));
    found.map(|(_, it)| *it).ok_or_else(|| Refusal::new(field, wrong()))
}

/// The wallet buys no lease whose fee is above its limit. It cannot know what will be paid, so it
/// judges the fee for a usual payment.
fn wallet_refuses(field: &str, fee_msat: u128, instead: &str) -> Refusal {
    let wallet = wallets_terms();
    let error = format!(
        "the recipient's wallet would buy no such lease: for a payment of {} msat the fee would be {} \
         msat, and it accepts {} msat. Choose {instead} or less",
        msat(wallet.payment_size_msat),
        grouped(fee_msat),
        msat(wallet.max_fee_msat),
    );
    Refusal::new(field, error)
}

fn accepted_min_fee(min_fee_msat: u64) -> Result<u64, Refusal> {
    let most = Range::min_fee().max;
    if min_fee_msat <= most {
        return Ok(min_fee_msat);
    }
    Err(wallet_refuses(MIN_FEE, min_fee_msat.into(), &format!("{} msat", msat(most))))
}

fn accepted_share(proportional: u64) -> Result<u32, Refusal> {
    let most = Range::proportional().max;
    match u32::try_from(proportional) {
        Ok(share) if proportional <= most => Ok(share),
        _ => {
            let size = u128::from(wallets_terms().payment_size_msat);
            let fee = (size * u128::from(proportional)).div_ceil(MILLION.into());
            Err(wallet_refuses(PROPORTIONAL, fee, &format!("{} parts per million", msat(most))))
        }
    }
}

/// What the LSP would refuse to sell. The limits above are narrower; this asks the seller itself.
fn check_sale(story: &Story) -> Result<(), Refusal> {
    let lsp = &story.lsp;
    FeePolicy::new(vec![lsp.fees.clone()], None, lsp.cltv_expiry_delta, lsp.trust_model)
        .map(|_| ())
        .map_err(|error| Refusal::new(MIN_FEE, error.to_string()))
}

fn check_amount(story: &Story, amount_msat: u64) -> Result<(), Refusal> {
    payable::check(&story.lsp, amount_msat).map_err(|error| {
        let (instead, which) = error.instead();
        Refusal::new(AMOUNT, format!("{error}: choose {} msat {which}", msat(instead)))
    })
}

fn grouped(number: u128) -> String {
    u64::try_from(number).map_or_else(|_| number.to_string(), msat)
}
