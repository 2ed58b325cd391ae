//! Statements that were checked on a day are checked again within half a year.

use super::{Document, chapters, none};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// Half a year.
const DAYS: i32 = 183;

#[test]
fn what_was_checked_was_checked_within_half_a_year() {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let mut problems = Vec::new();
    let mut dated = 0;
    for Document { name, text } in chapters() {
        let dates = book::dates_in(&text);
        if dates.len() != text.matches("{{checked").count() {
            problems.push(format!("{name}: a `{{{{checked …}}}}` is no date"));
        }
        for date in dates {
            dated += 1;
            if let Some(what) = stale(date.day, today) {
                problems.push(format!("{name}:{}: checked on {}: {what}", date.line, date.day));
            }
        }
    }
    none(&problems);
    assert!(dated > 0, "no statement is dated");
}

fn stale(checked: Date, today: Date) -> Option<&'static str> {
    // Somewhere it is tomorrow already.
    if checked > today.saturating_add(1.day()) {
        return Some("that day is yet to come");
    }
    let past = checked.saturating_add(DAYS.days()) < today;
    past.then_some("more than half a year ago: check it again, then date it anew")
}

#[test]
fn a_date_expires_after_183_days() {
    let day = |text: &str| text.parse::<Date>().expect("a date");
    let checked = day("2026-11-22");
    assert_eq!(stale(checked, day("2026-11-22")), None);
    assert_eq!(stale(checked, day("2027-05-24")), None);
    assert!(stale(checked, day("2027-05-25")).is_some());
    assert_eq!(stale(checked, day("2026-11-21")), None);
    assert!(stale(checked, day("2026-11-20")).is_some());
}
