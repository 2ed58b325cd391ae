//! Sequence diagrams of recordings: inline SVG in `currentColor`, with the same moves as a list. None
//! is drawn by hand.

mod drawing;
mod list;
mod rules;
mod story;
#[cfg(test)]
mod tests;

use recording::Recording;

use crate::chapter::joined;
use crate::html::escape;
use drawing::Layout;
use rules::Level;
use story::{Arrow, Choice, Power, Shape, Story};

/// The figure of a recording, or of some of its scenes:
/// `NAME [SCENE…] [brief|usual|full] [all] [folded] ["Caption"]`.
///
/// # Errors
/// If there is no such recording or scene, or what it shows cannot have happened.
pub(crate) fn figure(
    recordings: &crate::recordings::Recordings,
    argument: &str,
) -> Result<String, String> {
    let (name, choice) = asked(argument)?;
    let recording = recordings.get(name)?;
    drawn(&recording, &choice)
}

/// The recording and the scenes that a diagram draws; no scene means all of them.
///
/// # Errors
/// If the argument is not what [`figure`] takes.
pub(crate) fn scenes(argument: &str) -> Result<(&str, Vec<&str>), String> {
    asked(argument).map(|(name, choice)| (name, choice.scenes))
}

fn asked(argument: &str) -> Result<(&str, Choice<'_>), String> {
    let mut choice = Choice::default();
    let argument = match argument.split_once('"') {
        Some((argument, caption)) => {
            let caption = caption.strip_suffix('"').filter(|caption| !caption.contains('"'));
            choice.caption = Some(caption.ok_or("the caption comes last, in one pair of quotes")?);
            argument
        }
        None => argument,
    };
    let mut words = argument.split_whitespace();
    let name = words.next().ok_or("which recording?")?;
    for word in words {
        let level = match word {
            "brief" => Level::Brief,
            "usual" => Level::Usual,
            "full" => Level::Full,
            "all" | "folded" => {
                let wish = if word == "all" { &mut choice.all } else { &mut choice.folded };
                if std::mem::replace(wish, true) {
                    return Err(format!("`{word}` stands twice"));
                }
                continue;
            }
            scene => {
                choice.scenes.push(scene);
                continue;
            }
        };
        if choice.level.replace(level).is_some() {
            return Err("one level of detail, not two".to_owned());
        }
    }
    Ok((name, choice))
}

fn drawn(recording: &Recording, choice: &Choice<'_>) -> Result<String, String> {
    let steps = recording::view::steps(&recording.moments);
    let story = Story::new(recording, &steps, choice)?;
    let label = format!("Sequence diagram: {}. It is below as a list, too.", story.title);
    let mut lanes = String::new();
    for lane in &story.lanes {
        lanes.push_str(&format!("<span>{}</span>", escape(lane)));
    }
    let figure = format!(
        "<figure class=\"sequence\"><figcaption>{}</figcaption><div class=\"drawing\">\
         <div class=\"lanes\" aria-hidden=\"true\">{lanes}</div>{}{}</div>\
         <p class=\"legend\">{}</p><details class=\"moves\"><summary>As a list</summary>{}</details>\
         </figure>",
        escape(&story.title),
        Layout::new(&story, drawing::WIDE).svg(&label),
        Layout::new(&story, drawing::NARROW).svg(&label),
        escape(&legend(&story, &recording.header.ldk)),
        joined(&list::list(&story)),
    );
    Ok(match choice.folded {
        true => {
            let title = escape(&story.title);
            let summary = format!("<summary>Recorded: {title}</summary>");
            format!("<details class=\"recorded\">{summary}{figure}</details>\n")
        }
        false => figure + "\n",
    })
}

/// What the lines mean, as far as they occur.
fn legend(story: &Story, ldk: &str) -> String {
    let arrow = |wanted: Arrow| {
        story.rows().any(|row| matches!(&row.shape, Shape::Move { kind, .. } if *kind == wanted))
    };
    let offline = story.groups.iter().any(|group| group.power.contains(&Power::Offline))
        || story.rows().any(|row| matches!(row.shape, Shape::Power { to: Power::Offline, .. }));
    let mut parts = Vec::new();
    for (occurs, words) in [
        (arrow(Arrow::Htlc), "Thick: an HTLC."),
        (arrow(Arrow::Onion), "Dashed: an onion message."),
        (arrow(Arrow::Both), "Double: commitment_signed and revoke_and_ack, both ways."),
        (offline, "Hatched: offline."),
    ] {
        if occurs {
            parts.push(words.to_owned());
        }
    }
    parts.push(format!("Recorded with LDK {ldk}."));
    parts.join(" ")
}
