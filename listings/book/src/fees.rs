//! Opening fees, computed by the crate that charges them: a table, and the form that
//! `theme/fees.js` brings to life.

use core::time::Duration;
use lsps2_async::lease::OpeningFeeParams;
use recording::view::grouped;
use std::fmt::Write;

use crate::chapter::joined;
use crate::html::escape;

/// An entry of a menu, and payments to try on it.
struct Menu {
    name: &'static str,
    min_fee_msat: u64,
    proportional: u32,
    min_payment_size_msat: u64,
    max_payment_size_msat: u64,
    sizes: &'static [u64],
}

/// The first is what the guide's LSP sells; the form begins with it.
const MENUS: [Menu; 6] = [
    Menu {
        name: "The LSP of this guide",
        min_fee_msat: 2_000_000,
        proportional: 10_000,
        min_payment_size_msat: 10_000_000,
        max_payment_size_msat: 2_000_000_000,
        sizes: &[
            9_999_999,
            10_000_000,
            100_000_000,
            200_000_000,
            200_000_001,
            2_000_000_000,
            2_000_000_001,
        ],
    },
    Menu {
        name: "One fee for every size",
        min_fee_msat: 546_000,
        proportional: 0,
        min_payment_size_msat: 1,
        max_payment_size_msat: 4_000_000_000,
        sizes: &[1, 546_000, 546_001, 4_000_000_000],
    },
    Menu {
        name: "A share, and no minimum",
        min_fee_msat: 0,
        proportional: 5_000,
        min_payment_size_msat: 1,
        max_payment_size_msat: 100_000_000,
        sizes: &[1, 2, 200, 201, 100_000_000],
    },
    Menu {
        name: "Half of the payment",
        min_fee_msat: 1_000,
        proportional: 500_000,
        min_payment_size_msat: 1_000,
        max_payment_size_msat: 1_000_000,
        sizes: &[1_000, 1_001, 1_999, 2_000, 2_001],
    },
    Menu {
        name: "All of the payment",
        min_fee_msat: 1_000,
        proportional: 1_000_000,
        min_payment_size_msat: 1_000,
        max_payment_size_msat: 1_000_000,
        sizes: &[1_000, 1_000_000],
    },
    Menu {
        name: "More than 64 bits hold",
        min_fee_msat: 1_000,
        proportional: 10_000,
        min_payment_size_msat: 1_000,
        max_payment_size_msat: u64::MAX,
        sizes: &[1_844_674_407_370_955, 1_844_674_407_370_956, u64::MAX],
    },
];

impl Menu {
    fn terms(&self) -> OpeningFeeParams {
        OpeningFeeParams {
            min_fee_msat: self.min_fee_msat,
            proportional: self.proportional,
            valid_until: Duration::ZERO,
            min_lifetime: 0,
            max_client_to_self_delay: 0,
            min_payment_size_msat: self.min_payment_size_msat,
            max_payment_size_msat: self.max_payment_size_msat,
        }
    }
}

/// What a payment of some size comes to.
struct Answer {
    fee: String,
    gets: String,
    applies: &'static str,
}

/// The words are those of `theme/fees.js`; a test compares them point by point.
fn answer(terms: &OpeningFeeParams, size_msat: u64) -> Answer {
    let none = |gets: &str, applies| Answer { fee: "—".into(), gets: gets.into(), applies };
    if size_msat < terms.min_payment_size_msat {
        return none("nothing: below the menu’s smallest payment", "not for sale");
    }
    if size_msat > terms.max_payment_size_msat {
        return none("nothing: above the menu’s largest payment", "not for sale");
    }
    let Some(fee_msat) = terms.opening_fee_msat(size_msat) else {
        return none("nothing: 64 bits do not hold the product", "no answer");
    };
    let share = u128::from(size_msat) * u128::from(terms.proportional);
    let applies = match share {
        _ if share <= u128::from(terms.min_fee_msat) * 1_000_000 => "the minimum",
        _ if share.is_multiple_of(1_000_000) => "the share",
        _ => "the share, rounded up",
    };
    let gets = match size_msat.checked_sub(fee_msat) {
        Some(gets_msat @ 1..) => grouped(gets_msat),
        _ => "nothing: the fee takes all of it".to_owned(),
    };
    Answer { fee: grouped(fee_msat), gets, applies }
}

fn smallest(terms: &OpeningFeeParams) -> String {
    terms
        .smallest_payment_msat()
        .map_or("none".to_owned(), |msat| format!("{} msat", grouped(msat)))
}

/// `form`, or `table`.
///
/// # Errors
/// If it is something else.
pub(crate) fn table(argument: &str) -> Result<String, String> {
    match argument.trim() {
        "table" => Ok(joined(&tables())),
        "form" => Ok(joined(&form())),
        other => Err(format!("`{other}` is neither `form` nor `table`")),
    }
}

fn tables() -> String {
    let mut out = String::from("<div class=\"fees\">");
    for menu in &MENUS {
        let terms = menu.terms();
        let _ = write!(
            out,
            "<table data-min-fee=\"{}\" data-share=\"{}\" data-smallest=\"{}\" data-largest=\"{}\">\
             <caption><b>{}</b> <button class=\"scripted\" type=\"button\">Try it</button><br>\
             At least {} msat, {} ppm, for {} to {} msat. Smallest payment that works: \
             <span class=\"works\">{}</span>.</caption>\
             <thead><tr><th scope=\"col\">Payment, msat</th><th scope=\"col\">Opening fee, msat</th>\
             <th scope=\"col\">Recipient gets, msat</th></tr></thead><tbody>",
            menu.min_fee_msat,
            menu.proportional,
            menu.min_payment_size_msat,
            menu.max_payment_size_msat,
            escape(menu.name),
            grouped(menu.min_fee_msat),
            grouped(menu.proportional.into()),
            grouped(menu.min_payment_size_msat),
            grouped(menu.max_payment_size_msat),
            smallest(&terms),
        );
        for size in menu.sizes {
            let answer = answer(&terms, *size);
            let _ = write!(
                out,
                "<tr data-size=\"{size}\" data-applies=\"{}\"><th scope=\"row\">{}</th>\
                 <td>{}</td><td>{}</td></tr>",
                answer.applies,
                grouped(*size),
                answer.fee,
                answer.gets
            );
        }
        out.push_str("</tbody></table>");
    }
    out.push_str("</div>\n");
    out
}

/// A field of the form: its name, its label, its unit, and what it holds at first.
fn field(out: &mut String, name: &str, label: &str, unit: &str, value: u64) {
    let _ = write!(
        out,
        "<div class=\"field\"><label for=\"fees-{name}\">{label}</label>\
         <span class=\"entry\"><input id=\"fees-{name}\" name=\"{name}\" type=\"text\" \
         inputmode=\"numeric\" autocomplete=\"off\" spellcheck=\"false\" value=\"{}\" \
         aria-describedby=\"fees-{name}-unit fees-{name}-wrong\">\
         <span id=\"fees-{name}-unit\">{unit}</span></span>\
         <p class=\"wrong\" id=\"fees-{name}-wrong\"></p></div>",
        grouped(value)
    );
}

/// The form with the answer to what it holds at first, so that nothing moves when the script comes.
fn form() -> String {
    let menu = &MENUS[0];
    let (terms, size_msat) = (menu.terms(), 100_000_000);
    let answer = answer(&terms, size_msat);
    let mut out = String::from(
        "<p class=\"unscripted\">The form that stands here computes with JavaScript, which is off. \
         The table below has the same numbers.</p>\
         <form class=\"fees scripted\" id=\"fees\" novalidate>\
         <fieldset><legend>The menu’s entry</legend>",
    );
    field(&mut out, "min-fee", "Minimum fee", "msat", menu.min_fee_msat);
    field(&mut out, "share", "Share of the payment", "ppm", menu.proportional.into());
    field(&mut out, "smallest", "Smallest payment", "msat", menu.min_payment_size_msat);
    field(&mut out, "largest", "Largest payment", "msat", menu.max_payment_size_msat);
    out.push_str("</fieldset><fieldset><legend>The payment</legend>");
    field(&mut out, "size", "What the payer’s onion asks to forward", "msat", size_msat);
    out.push_str("</fieldset><div class=\"answer\" role=\"status\"><dl>");
    for (id, label, value) in [
        ("fee", "Opening fee, msat", &answer.fee),
        ("applies", "What applies", &answer.applies.to_owned()),
        ("gets", "Recipient gets, msat", &answer.gets),
        ("works", "Smallest payment that works", &smallest(&terms)),
    ] {
        let _ = write!(out, "<div><dt>{label}</dt><dd id=\"fees-{id}\">{value}</dd></div>");
    }
    out.push_str("</dl></div></form>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(menu: usize, size_msat: u64) -> (String, String, &'static str) {
        let answer = answer(&MENUS[menu].terms(), size_msat);
        (answer.fee, answer.gets, answer.applies)
    }

    fn is(fee: &str, gets: &str, applies: &'static str) -> (String, String, &'static str) {
        (fee.to_owned(), gets.to_owned(), applies)
    }

    #[test]
    fn the_table_holds_the_edges() {
        let below = is("—", "nothing: below the menu’s smallest payment", "not for sale");
        assert_eq!(told(0, 9_999_999), below);
        assert_eq!(told(0, 200_000_000), is("2 000 000", "198 000 000", "the minimum"));
        assert_eq!(told(0, 200_000_001), is("2 000 001", "198 000 000", "the share, rounded up"));
        assert_eq!(told(0, 2_000_000_000), is("20 000 000", "1 980 000 000", "the share"));
        let above = is("—", "nothing: above the menu’s largest payment", "not for sale");
        assert_eq!(told(0, 2_000_000_001), above);
        let all = "nothing: the fee takes all of it";
        assert_eq!(told(1, 546_000), is("546 000", all, "the minimum"));
        assert_eq!(told(1, 546_001), is("546 000", "1", "the minimum"));
        assert_eq!(told(2, 1), is("1", all, "the share, rounded up"));
        assert_eq!(told(2, 201), is("2", "199", "the share, rounded up"));
        assert_eq!(told(4, 1_000_000), is("1 000 000", all, "the share"));
        let overflow = is("—", "nothing: 64 bits do not hold the product", "no answer");
        assert_eq!(told(5, 1_844_674_407_370_956), overflow);
        assert_eq!(told(5, 1_844_674_407_370_955).0, "18 446 744 073 710");
    }

    #[test]
    fn the_smallest_payments_are_the_crates() {
        let works: Vec<_> = MENUS.iter().map(|menu| smallest(&menu.terms())).collect();
        let msat = |number: &str| format!("{number} msat");
        assert_eq!(
            works,
            [
                msat("10 000 000"),
                msat("546 001"),
                msat("2"),
                msat("1 001"),
                "none".to_owned(),
                msat("1 001"),
            ]
        );
    }

    #[test]
    fn there_is_a_form_and_a_table() {
        assert!(table("form").unwrap().contains("id=\"fees-size\""));
        assert!(!table("table").unwrap().trim_end().contains("\n\n"));
        assert!(table("chair").unwrap_err().contains("`chair`"));
    }
}
