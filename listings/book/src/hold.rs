//! How long a recipient may be away, computed by the crate that says so: a table, the settings for an
//! absence, and the form that `theme/hold.js` brings to life.

use core::time::Duration;
use lsps2_async::hold::{Absence, Ends, Hold, Payer, Settings};
use recording::view::grouped;
use std::fmt::Write;

use crate::chapter::joined;

/// A height to count from.
const HEIGHT: u32 = 880_000;
const WEEKS: u64 = 28 * 24;

/// What stands in the form.
#[derive(Clone, Copy)]
struct Point {
    online: bool,
    extra: u16,
    lease_delta: u16,
    payer_delta: u16,
    shadow: u32,
    left_hours: u64,
}

/// The guide's nodes, and what is certain of a payer's route.
const USUAL: Point = Point {
    online: false,
    extra: 0,
    lease_delta: 72,
    payer_delta: 72,
    shadow: 0,
    left_hours: WEEKS,
};

/// Points that differ in one thing.
struct Group {
    name: &'static str,
    about: &'static str,
    varies: &'static str,
    points: Vec<(String, Point)>,
}

fn groups() -> Vec<Group> {
    let blocks = |n: u32| grouped(n.into());
    let hours = |n: u64| format!("{} h", grouped(n));
    let extra = |extra: u16| (blocks(extra.into()), Point { extra, ..USUAL });
    let shadow = |shadow: u32| (blocks(shadow), Point { shadow, ..USUAL });
    let left = |left_hours| (hours(left_hours), Point { extra: 740, left_hours, ..USUAL });
    let long = |extra: u16| (blocks(extra.into()), Point { extra, lease_delta: 144, ..USUAL });
    let online = |left_hours| (hours(left_hours), Point { online: true, left_hours, ..USUAL });
    let steep = |lease_delta: u16| (blocks(lease_delta.into()), Point { lease_delta, ..USUAL });
    vec![
        Group {
            name: "What the recipient’s path adds",
            about: "Deltas of 72, no offset, a lease for 28 days.",
            varies: "extra_final_cltv_delta",
            points: [0, 1, 144, 288, 740, 741].map(extra).into(),
        },
        Group {
            name: "The payer’s random offset",
            about: "A path that adds nothing. Nobody can count on an offset.",
            varies: "Offset, blocks",
            points: [0, 40, 120, 432].map(shadow).into(),
        },
        Group {
            name: "A lease that runs out",
            about: "A path that adds 740 blocks.",
            varies: "Lease valid for",
            points: [0, 1, 123, 124, WEEKS].map(left).into(),
        },
        Group {
            name: "A lease of a larger delta",
            about: "The LSP asks for 144 blocks, so less is left for the path.",
            varies: "extra_final_cltv_delta",
            points: [0, 144, 668, 669].map(long).into(),
        },
        Group {
            name: "A lease no route fits",
            about: "The deltas alone are too much.",
            varies: "Delta of the lease",
            points: [812, 813].map(steep).into(),
        },
        Group {
            name: "A payer that waits online",
            about: "No HTLC waits, so no block counts.",
            varies: "Lease valid for",
            points: [0, 24, 168, 169, WEEKS].map(online).into(),
        },
    ]
}

/// What comes out of the form.
struct Answer {
    away: String,
    ends: &'static str,
    window: String,
    back: String,
    given: String,
    most: String,
}

/// The words are those of `theme/hold.js`; a test compares them point by point.
fn answer(point: &Point) -> Answer {
    let hold = Hold {
        height: HEIGHT,
        extra_final_cltv_delta: point.extra,
        lease_delta: point.lease_delta,
        payer_lsp_delta: point.payer_delta,
        shadow_offset: point.shadow,
    };
    let payer = if point.online { Payer::WaitsOnline } else { Payer::HeldByItsLsp(hold) };
    let lease_left = Duration::from_secs(point.left_hours * 3_600);
    let longest = Absence { payer, lease_left }.longest();
    let (ends, away) = match longest.ends {
        Ends::Lease => ("the lease", told(longest.time)),
        Ends::Hold => ("the expiry of the held HTLC", told(longest.time)),
        Ends::Payer => ("the payer, after seven days", told(longest.time)),
        Ends::NoRoute => ("no route: more than 1 008 blocks", "not at all".to_owned()),
    };
    let is_held = !point.online && longest.ends != Ends::NoRoute;
    let of_hold = |block: u32| match is_held {
        true => grouped(block.into()),
        false => "—".to_owned(),
    };
    Answer {
        away,
        ends,
        window: of_hold(hold.window_blocks()),
        back: of_hold(hold.last_to_open()),
        given: of_hold(hold.given_back_at()),
        most: hold.most_extra_blocks().map_or("none".to_owned(), |most| grouped(most.into())),
    }
}

/// Days, hours and minutes, without those that are none.
fn told(time: Duration) -> String {
    let minutes = time.as_secs() / 60;
    let parts = [(minutes / 1_440, "d"), (minutes / 60 % 24, "h"), (minutes % 60, "min")];
    let parts = parts.iter().filter(|(number, _)| *number > 0);
    let parts: Vec<_> = parts.map(|(number, unit)| format!("{number}\u{a0}{unit}")).collect();
    if parts.is_empty() { "0\u{a0}min".to_owned() } else { parts.join(" ") }
}

/// `form`, `table`, or `settings`.
///
/// # Errors
/// If it is something else.
pub(crate) fn table(argument: &str) -> Result<String, String> {
    match argument.trim() {
        "table" => Ok(joined(&tables())),
        "form" => Ok(joined(&form())),
        "settings" => Ok(joined(&settings())),
        other => Err(format!("`{other}` is neither `form`, `table` nor `settings`")),
    }
}

fn tables() -> String {
    let mut out = String::from("<div class=\"hold\">");
    for Group { name, about, varies, points } in groups() {
        let _ = write!(
            out,
            "<table><caption><b>{name}</b> <button class=\"scripted\" type=\"button\">Try it</button>\
             <br>{about}</caption><thead><tr><th scope=\"col\">{varies}</th>\
             <th scope=\"col\">May be away</th><th scope=\"col\">What ends it</th></tr></thead><tbody>",
        );
        for (label, point) in points {
            let Point { online, extra, lease_delta, payer_delta, shadow, left_hours } = point;
            let payer = if online { "online" } else { "held" };
            let Answer { away, ends, window, back, given, most } = answer(&point);
            let _ = write!(
                out,
                "<tr data-payer=\"{payer}\" data-height=\"{HEIGHT}\" data-extra=\"{extra}\" \
                 data-lease=\"{lease_delta}\" data-hop=\"{payer_delta}\" data-shadow=\"{shadow}\" \
                 data-left=\"{left_hours}\" data-window=\"{window}\" data-back=\"{back}\" \
                 data-given=\"{given}\" data-most=\"{most}\">\
                 <th scope=\"row\" data-label=\"{varies}\">{label}</th><td>{away}</td><td>{ends}</td></tr>",
            );
        }
        out.push_str("</tbody></table>");
    }
    out.push_str("</div>\n");
    out
}

/// What a wallet sets for an absence, whatever the payer's route.
fn settings() -> String {
    const HOUR: u64 = 3_600;
    let mut out = String::from(
        "<div class=\"hold\"><table class=\"settings\"><thead><tr>\
         <th scope=\"col\">To be away for</th><th scope=\"col\">extra_final_cltv_delta, at least</th>\
         <th scope=\"col\">min_validity, at least</th></tr></thead><tbody>",
    );
    for hours in [0, 1, 8, 24, 48, 72, 120, 123, 124, 168] {
        let away = Duration::from_secs(hours * HOUR);
        let (extra, validity) = match Settings::to_be_away(away, &Hold::locked_at(HEIGHT)) {
            Some(set) => (grouped(set.extra_final_cltv_delta.into()), told(set.min_validity)),
            None => ("no route is as long".to_owned(), "—".to_owned()),
        };
        let away = told(away);
        let _ = write!(
            out,
            "<tr><th scope=\"row\" data-label=\"To be away for\">{away}</th><td>{extra}</td>\
             <td>{validity}</td></tr>"
        );
    }
    out.push_str("</tbody></table></div>\n");
    out
}

/// A field of the form: its name, its label, its unit, and what it holds at first.
fn field(out: &mut String, name: &str, label: &str, unit: &str, value: u64) {
    let _ = write!(
        out,
        "<div class=\"field\"><label for=\"hold-{name}\">{label}</label>\
         <span class=\"entry\"><input id=\"hold-{name}\" name=\"{name}\" type=\"text\" \
         inputmode=\"numeric\" autocomplete=\"off\" spellcheck=\"false\" value=\"{}\" \
         aria-describedby=\"hold-{name}-unit hold-{name}-wrong\">\
         <span id=\"hold-{name}-unit\">{unit}</span></span>\
         <p class=\"wrong\" id=\"hold-{name}-wrong\"></p></div>",
        grouped(value)
    );
}

/// The form with the answer to what it holds at first, so that nothing moves when the script comes.
fn form() -> String {
    let point = Point { extra: 144, ..USUAL };
    let answer = answer(&point);
    let mut out = String::from(
        "<p class=\"unscripted\">The form that stands here computes with JavaScript, which is off. \
         The table below has the same numbers.</p>\
         <form class=\"fees scripted\" id=\"hold\" novalidate>\
         <fieldset><legend>The payer</legend>\
         <div class=\"field\"><label for=\"hold-payer\">How it waits</label>\
         <span class=\"entry\"><select id=\"hold-payer\" name=\"payer\" autocomplete=\"off\">\
         <option value=\"held\" selected>its LSP holds the payment</option>\
         <option value=\"online\">it stays online</option></select></span></div>",
    );
    field(&mut out, "height", "Height at which it pays", "block", HEIGHT.into());
    field(&mut out, "hop", "Delta of its LSP", "blocks", point.payer_delta.into());
    field(&mut out, "shadow", "Random offset of its route", "blocks", point.shadow.into());
    out.push_str("</fieldset><fieldset><legend>The recipient</legend>");
    field(&mut out, "extra", "extra_final_cltv_delta", "blocks", point.extra.into());
    field(&mut out, "lease", "Delta of its lease", "blocks", point.lease_delta.into());
    field(&mut out, "left", "Until valid_until", "hours", point.left_hours);
    out.push_str("</fieldset><div class=\"answer\" role=\"status\"><dl>");
    for (id, label, value) in [
        ("away", "The recipient may be away for", answer.away.as_str()),
        ("ends", "What ends it", answer.ends),
        ("back", "Back at this block, at the latest", &answer.back),
        ("window", "Window of the hold, blocks", &answer.window),
        ("given", "Given back by the payer’s LSP at block", &answer.given),
        ("most", "Most that its path may add, blocks", &answer.most),
    ] {
        let _ = write!(out, "<div><dt>{label}</dt><dd id=\"hold-{id}\">{value}</dd></div>");
    }
    out.push_str("</dl></div></form>\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(point: &Point) -> (String, &'static str, String) {
        let Answer { away, ends, back, .. } = answer(point);
        (away, ends, back)
    }

    fn is(away: &str, ends: &'static str, back: &str) -> (String, &'static str, String) {
        (away.replace('_', "\u{a0}"), ends, back.replace('_', " "))
    }

    #[test]
    fn the_table_holds_the_edges() {
        let hold = "the expiry of the held HTLC";
        assert_eq!(told_of(&USUAL), is("30_min", hold, "880_003"));
        let extra = |extra| Point { extra, ..USUAL };
        assert_eq!(told_of(&extra(144)), is("1_d 30_min", hold, "880_147"));
        assert_eq!(told_of(&extra(740)), is("5_d 3_h 50_min", hold, "880_743"));
        let none = "no route: more than 1 008 blocks";
        assert_eq!(told_of(&extra(741)), is("not at all", none, "—"));
        let left = |left_hours| Point { left_hours, ..extra(740) };
        assert_eq!(told_of(&left(0)), is("0_min", "the lease", "880_743"));
        assert_eq!(told_of(&left(123)), is("5_d 3_h", "the lease", "880_743"));
        assert_eq!(told_of(&left(124)).1, hold);
        let online = Point { online: true, ..USUAL };
        assert_eq!(told_of(&online), is("7_d", "the payer, after seven days", "—"));
        assert_eq!(told_of(&Point { left_hours: 24, ..online }), is("1_d", "the lease", "—"));
    }

    #[test]
    fn every_end_is_in_the_table() {
        let groups = groups();
        let points = groups.iter().flat_map(|group| &group.points);
        let ends: std::collections::BTreeSet<_> =
            points.map(|(_, point)| answer(point).ends).collect();
        assert_eq!(ends.len(), 4, "{ends:?}");
    }

    #[test]
    fn there_is_a_form_a_table_and_the_settings() {
        assert!(table("form").unwrap().contains("id=\"hold-extra\""));
        assert!(!table("table").unwrap().trim_end().contains("\n\n"));
        assert!(table("settings").unwrap().contains("<td>141</td><td>1\u{a0}d 2\u{a0}h</td>"));
        assert!(table("chair").unwrap_err().contains("`chair`"));
    }
}
