//! Where every msat of a recording is, checkpoint by checkpoint: drawn, and in numbers beside it.

use recording::Recording;
use recording::ledger::{Checkpoint, Holding, Ledger, Payment};
use recording::view::grouped;
use std::fmt::Write;

use crate::chapter::joined;
use crate::html::escape;
use crate::recordings::Recordings;

/// How wide a bar is, in its own units.
const WIDTH: u64 = 1_000;
/// How wide a part is at least: one that is not 0 is seen.
const THINNEST: u64 = 5;

/// The figure of a recording, or of some of its scenes: `NAME [SCENE…]`.
///
/// # Errors
/// If there is no such recording or scene, or its ledger does not balance.
pub(crate) fn figure(recordings: &Recordings, argument: &str) -> Result<String, String> {
    let mut words = argument.split_whitespace();
    let name = words.next().ok_or("which recording?")?;
    let recording = recordings.get(name)?;
    drawn(&recording, &words.collect::<Vec<_>>())
}

fn drawn(recording: &Recording, scenes: &[&str]) -> Result<String, String> {
    let ledger = Ledger::of(recording).map_err(|e| format!("{}: {e:#}", recording.header.name))?;
    for scene in scenes {
        if !ledger.checkpoints.iter().any(|checkpoint| checkpoint.scene == *scene) {
            return Err(format!("{} has no scene `{scene}`", recording.header.name));
        }
    }
    let most = ledger.checkpoints.iter().map(|checkpoint| checkpoint.payment.sent_msat).max();
    let most = most.filter(|most| *most > 0).ok_or("nobody is paid in it")?;
    let mut out = format!(
        "<figure class=\"ledger\"><figcaption>Where every msat is: {}</figcaption>",
        text(&recording.header.title)
    );
    let moved = |checkpoint: &Checkpoint| {
        checkpoint.payment != Payment::default() || checkpoint.miners_msat > 0
    };
    let still = ledger.checkpoints.iter().take_while(|checkpoint| !moved(checkpoint));
    let still: Vec<_> = still.collect();
    if !still.is_empty() && scenes.is_empty() {
        let _ = write!(out, "<p class=\"still\">No money moves in {}.</p>", when(&still));
    }
    for same in groups(&ledger.checkpoints[still.len()..], scenes) {
        let heading = match &*ledger.checkpoints {
            [_] => "In the end".to_owned(),
            _ => format!("After {}", when(&same)),
        };
        one(&mut out, recording, &ledger.opening, (&heading, same[0]), most);
    }
    let _ = writeln!(
        out,
        "<p class=\"legend\">Recorded with LDK {}. What is too small to be seen is drawn as a line. \
         The build fails if a sum is not 0.</p></figure>",
        text(&recording.header.ldk)
    );
    Ok(joined(&out))
}

/// The checkpoints that are asked for, those that are alike together.
fn groups<'a>(checkpoints: &'a [Checkpoint], scenes: &[&str]) -> Vec<Vec<&'a Checkpoint>> {
    let mut groups: Vec<Vec<&Checkpoint>> = Vec::new();
    let asked = |c: &&Checkpoint| scenes.is_empty() || scenes.contains(&&*c.scene);
    for checkpoint in checkpoints.iter().filter(asked) {
        match groups.last_mut() {
            Some(group) if alike(group[0], checkpoint) => group.push(checkpoint),
            _ => groups.push(vec![checkpoint]),
        }
    }
    groups
}

fn alike(one: &Checkpoint, other: &Checkpoint) -> bool {
    let worth = |checkpoint: &Checkpoint| -> Vec<_> {
        let parties = checkpoint.parties.iter();
        parties.map(|(name, holding)| (name.clone(), holding.worth_msat())).collect()
    };
    one.payment == other.payment && worth(one) == worth(other)
}

/// A part of what was sent.
struct Part {
    class: &'static str,
    label: String,
    msat: u64,
}

fn parts(recording: &Recording, checkpoint: &Checkpoint) -> Vec<Part> {
    let payment = &checkpoint.payment;
    let part = |class, label: &str, msat| Part { class, label: label.to_owned(), msat };
    let kept = |msat: i64| u64::try_from(msat).unwrap_or(0);
    let mut parts = vec![
        part("flight", &format!("Under way{}", holders(recording, checkpoint)), {
            payment.in_flight_msat
        }),
        part("routing", "Routing fees", payment.routing_fee_msat),
        part("opening", "Opening fee, skimmed", payment.opening_fee_msat),
    ];
    // A recipient that was paid before may have to keep less than it did.
    match payment.reserve_msat {
        0.. => parts.extend([
            part("reserve", "Received, kept as reserve", kept(payment.reserve_msat)),
            part("spendable", "Received, free to spend", kept(payment.spendable_msat)),
        ]),
        _ => parts.push(part("spendable", "Received", payment.received_msat)),
    }
    parts.retain(|part| part.msat > 0);
    parts
}

/// Who has the HTLC and has not sent it on.
fn holders(recording: &Recording, checkpoint: &Checkpoint) -> String {
    let waits =
        |holding: &Holding| holding.towards_msat > holding.lent_msat + holding.lent_msat / 2;
    let holders: Vec<_> = checkpoint
        .parties
        .iter()
        .filter(|(_, holding)| waits(holding))
        .map(|(name, _)| within(recording.label(name)))
        .collect();
    match holders.is_empty() {
        true => String::new(),
        false => format!(", as far as the {}", listed(&holders)),
    }
}

fn one(
    out: &mut String,
    recording: &Recording,
    opening: &Checkpoint,
    (heading, checkpoint): (&str, &Checkpoint),
    most: u64,
) {
    let parts = parts(recording, checkpoint);
    let _ = write!(
        out,
        "<div class=\"checkpoint\"><p class=\"when\">{heading}</p>{}<div class=\"sums\">",
        bar(&parts, checkpoint, most)
    );
    payment_table(out, checkpoint, &parts);
    party_table(out, recording, opening, checkpoint);
    out.push_str("</div></div>");
}

/// The bar that is what was sent, in its parts; below it, to the same scale, what miners got.
fn bar(parts: &[Part], checkpoint: &Checkpoint, most: u64) -> String {
    let scaled = |msat: u64| {
        let width = u128::from(msat) * u128::from(WIDTH) / u128::from(most);
        u64::try_from(width).unwrap_or(WIDTH).max(THINNEST)
    };
    let mut widths: Vec<u64> = parts.iter().map(|part| scaled(part.msat)).collect();
    // The widest gives what the thinnest were given.
    let all = scaled(checkpoint.payment.sent_msat).min(WIDTH);
    let given = widths.iter().sum::<u64>();
    if let Some(widest) = widths.iter_mut().max() {
        *widest = (*widest + all).saturating_sub(given);
    }
    let miners = checkpoint.miners_msat;
    let height = if miners > 0 { 40 } else { 28 };
    let words: Vec<_> =
        parts.iter().map(|part| format!("{} {} msat", part.label, grouped(part.msat))).collect();
    let mut out = format!(
        "<svg class=\"stack\" style=\"height:{height}px\" viewBox=\"0 0 {WIDTH} {height}\" \
         preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{} msat sent: {}\">",
        grouped(checkpoint.payment.sent_msat),
        text(&words.join("; "))
    );
    let mut at = 0;
    for (part, width) in parts.iter().zip(widths) {
        let _ = write!(
            out,
            "<rect class=\"{}\" x=\"{at}\" y=\"1\" width=\"{width}\" height=\"26\"/>",
            part.class
        );
        at += width;
    }
    if miners > 0 {
        let width = scaled(miners);
        let _ =
            write!(out, "<rect class=\"miners\" x=\"0\" y=\"32\" width=\"{width}\" height=\"7\"/>");
    }
    out.push_str("</svg>");
    out
}

fn payment_table(out: &mut String, checkpoint: &Checkpoint, parts: &[Part]) {
    let payment = &checkpoint.payment;
    head(out, "What was sent", "msat");
    row(out, "", "Sent by the payer", &grouped(payment.sent_msat));
    for part in parts {
        row(out, part.class, &part.label, &format!("−{}", grouped(part.msat)));
    }
    foot(out, "Missing", payment.missing_msat());
}

fn party_table(
    out: &mut String,
    recording: &Recording,
    opening: &Checkpoint,
    checkpoint: &Checkpoint,
) {
    head(out, "What each one has gained or lost", "msat");
    let mut sum: i128 = 0;
    let mut line = |class: &str, label: &str, change: i128| {
        sum += change;
        row(out, class, label, &signed(change));
    };
    let worth = |checkpoint: &Checkpoint, id: &str| {
        i128::from(checkpoint.parties.get(id).map_or(0, Holding::worth_msat))
    };
    for lane in &recording.header.lanes {
        let change = worth(checkpoint, &lane.id) - worth(opening, &lane.id);
        line("", &lane.label, change);
    }
    let others = checkpoint.parties.keys();
    for id in others.filter(|id| !recording.header.lanes.iter().any(|lane| lane.id == **id)) {
        line("", id, worth(checkpoint, id) - worth(opening, id));
    }
    let under_way = |checkpoint: &Checkpoint| i128::from(checkpoint.payment.in_flight_msat);
    let change = under_way(checkpoint) - under_way(opening);
    if change != 0 {
        line("flight", "Under way", change);
    }
    if checkpoint.miners_msat > 0 {
        line("miners", "Miners, for the funding", i128::from(checkpoint.miners_msat));
    }
    foot(out, "Sum", sum);
}

fn head(out: &mut String, caption: &str, unit: &str) {
    let _ = write!(
        out,
        "<table><thead><tr><th scope=\"col\">{caption}</th><th scope=\"col\">{unit}</th></tr>\
         </thead><tbody>"
    );
}

fn row(out: &mut String, class: &str, label: &str, amount: &str) {
    let swatch = match class {
        "" => String::new(),
        class => format!(
            "<svg class=\"swatch\" viewBox=\"0 0 12 12\" aria-hidden=\"true\">\
             <rect class=\"{class}\" x=\"1\" y=\"1\" width=\"10\" height=\"10\"/></svg>"
        ),
    };
    let _ = write!(out, "<tr><th scope=\"row\">{swatch}{}</th><td>{amount}</td></tr>", text(label));
}

fn foot(out: &mut String, label: &str, sum: i128) {
    let _ = write!(
        out,
        "</tbody><tfoot><tr><th scope=\"row\">{label}</th><td>{}</td></tr></tfoot></table>",
        signed(sum)
    );
}

fn signed(change: i128) -> String {
    let amount = grouped(u64::try_from(change.unsigned_abs()).unwrap_or(u64::MAX));
    match change {
        0 => "0".to_owned(),
        1.. => format!("+{amount}"),
        _ => format!("−{amount}"),
    }
}

/// What a reader calls these scenes within a sentence.
fn when(checkpoints: &[&Checkpoint]) -> String {
    let number = |checkpoint: &&&Checkpoint| checkpoint.scene.strip_prefix("step-").is_some();
    let steps = checkpoints.iter().take_while(number);
    let steps: Vec<_> = steps.map(|c| c.scene["step-".len()..].to_owned()).collect();
    let others = checkpoints[steps.len()..].iter();
    let mut names: Vec<_> = others.map(|c| format!("“{}”", text(&c.title))).collect();
    match &*steps {
        [] => {}
        [step] => names.insert(0, format!("step {step}")),
        steps => names.insert(0, format!("steps {}", listed(steps))),
    }
    listed(&names)
}

/// A label within a sentence.
fn within(label: &str) -> String {
    let mut letters = label.chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

/// `a, b and c`.
fn listed(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// Text as the pages set it.
fn text(text: &str) -> String {
    escape(text).replace('\'', "’")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn recordings() -> Recordings {
        Recordings::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."))
    }

    #[test]
    fn the_flow_is_drawn_with_the_numbers_beside_it() {
        let html = figure(&recordings(), "flow").unwrap();
        for told in [
            "No money moves in steps 1, 2 and 3.",
            "After step 4<",
            "aria-label=\"100\u{a0}001\u{a0}000\u{a0}msat sent: Under way, as far as the recipient’s LSP",
            "After step 5 and “The payer comes back”<",
            "Opening fee, skimmed</th><td>−2\u{a0}000\u{a0}000</td>",
            "Missing</th><td>0</td>",
            "Sum</th><td>0</td>",
        ] {
            assert!(html.contains(told), "{told}: {html}");
        }
        assert!(!html.trim_end().contains("\n\n"), "an empty line ends the block in Markdown");
    }

    #[test]
    fn a_part_too_small_to_be_seen_takes_from_the_widest() {
        let part = |msat| Part { class: "routing", label: "Part".to_owned(), msat };
        let payment = Payment { sent_msat: 100_000, ..Payment::default() };
        let checkpoint = Checkpoint { payment, ..Checkpoint::default() };
        let svg = bar(&[part(1), part(99_999)], &checkpoint, 100_000);
        assert!(svg.contains("x=\"0\" y=\"1\" width=\"5\""), "{svg}");
        assert!(svg.contains("x=\"5\" y=\"1\" width=\"995\""), "{svg}");
    }

    #[test]
    fn only_what_there_is_can_be_shown() {
        let html = figure(&recordings(), "flow step-4").unwrap();
        assert!(html.contains("After step 4<") && !html.contains("step 5"), "{html}");
        let error = figure(&recordings(), "flow step-9").unwrap_err();
        assert_eq!(error, "flow has no scene `step-9`");
        assert!(figure(&recordings(), "flood").unwrap_err().contains("no recording `flood`"));
        assert!(figure(&recordings(), "").is_err());
    }
}
