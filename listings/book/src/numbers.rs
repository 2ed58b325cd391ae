//! Numbers in prose that come from a recording.

use recording::pick::Names;
use recording::view::grouped;

use crate::recordings::Recordings;

/// The number that `argument` names: a recording, a moment, and the field, as `recording::pick` reads
/// them. `flow static_invoice bytes` is `1 384`.
pub(crate) fn number(recordings: &Recordings, argument: &str) -> Result<String, String> {
    let mut words = argument.trim().splitn(3, ' ');
    let (Some(name), Some(spec), Some(field)) = (words.next(), words.next(), words.next()) else {
        let what = "a recorded number is `{{recorded NAME MOMENT FIELD}}`, for example \
                    `{{recorded flow static_invoice bytes}}`";
        return Err(what.to_owned());
    };
    let recording = recordings.get(name)?;
    Names::of(&recording).number(spec, field.trim()).map(grouped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_number_of_the_flow_is_grouped_and_one_that_is_not_there_an_error() {
        let recordings = Recordings::new(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."));
        let number = |argument| number(&recordings, argument);
        assert_eq!(number("flow setting amount_msat").unwrap(), "100 000 000");
        for (argument, told) in [
            ("flow static_invoice", "{{recorded NAME MOMENT FIELD}}"),
            ("flood static_invoice bytes", "no recording `flood`"),
            ("flow static_voice bytes", "nothing is called `static_voice`"),
            ("flow static_invoice kilobytes", "no number `kilobytes`"),
            ("flow revoke_and_ack bytes", "which `revoke_and_ack`?"),
        ] {
            let error = number(argument).unwrap_err();
            assert!(error.contains(told), "{argument}: {error}");
        }
    }
}
