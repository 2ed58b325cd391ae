//! Messages that never reach a handler, found in what LDK's `PeerManager` logs of them.
//!
//! A log is text, and LDK may word it differently in its next release; a test of the whole system
//! looks for a `ping` in the transcript.

use lightning::util::logger::Record;
use std::fmt::{self, Write};

/// Where LDK logs the messages that arrive.
const MODULE: &str = "lightning::ln::peer_handler";
/// Before the message, as its `Debug` writes it.
const ARRIVED: &str = "Received message ";
/// The fields of `channel_id` and of the length of `data` (BOLT 1).
const WARNING_HEAD: usize = 32 + 2;

/// Name and size of the message that arrived, if it is one that reaches no handler.
pub(super) fn read(record: &Record) -> Option<(&'static str, usize)> {
    if record.module_path != MODULE {
        return None;
    }
    let mut text = Beginning(String::new());
    // It stops writing where the record is about something else: most are.
    record
        .args
        .as_str()
        .map_or_else(|| write!(text, "{}", record.args), |_| Err(fmt::Error))
        .ok()?;
    size(text.0.strip_prefix(ARRIVED)?)
}

/// The text of a record, as long as it may be of a message that is looked for.
struct Beginning(String);

impl Write for Beginning {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.push_str(text);
        let wanted = ["Ping(", "Pong(", "Warning("].iter().any(|name| {
            let message = self.0.strip_prefix(ARRIVED).unwrap_or_default();
            let arrives = self.0.starts_with(ARRIVED) || ARRIVED.starts_with(&self.0);
            arrives && (message.starts_with(name) || name.starts_with(message))
        });
        if wanted { Ok(()) } else { Err(fmt::Error) }
    }
}

fn size(message: &str) -> Option<(&'static str, usize)> {
    if message.starts_with("Ping(") {
        // `num_pong_bytes` and `byteslen`, then the padding.
        return Some(("ping", 4 + padding(message)?));
    }
    if message.starts_with("Pong(") {
        return Some(("pong", 2 + padding(message)?));
    }
    let (_, data) = message.strip_prefix("Warning(")?.split_once(" data: \"")?;
    let (data, _) = data.rsplit_once('"')?;
    Some(("warning", WARNING_HEAD + unescaped_len(data)))
}

fn padding(message: &str) -> Option<usize> {
    let (_, number) = message.split_once("byteslen: ")?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// How many bytes a string has that its `Debug` shows like this.
fn unescaped_len(debug: &str) -> usize {
    let (mut rest, mut len) = (debug.chars(), 0);
    while let Some(c) = rest.next() {
        len += match (c, (c == '\\').then(|| rest.next()).flatten()) {
            (_, Some('u')) => {
                let hex: String = rest.by_ref().take_while(|c| *c != '}').skip(1).collect();
                let code = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                code.map_or(0, char::len_utf8)
            }
            (_, Some(_)) => 1,
            (c, None) => c.len_utf8(),
        };
    }
    len
}

#[cfg(test)]
mod tests {
    use super::*;
    use lightning::ln::msgs::{Ping, Pong, WarningMessage};
    use lightning::ln::types::ChannelId;
    use lightning::util::ser::Writeable;

    /// As LDK's `Message` shows it, whose variants wrap the messages.
    fn shown(variant: &str, message: impl fmt::Debug) -> String {
        format!("{variant}({message:?})")
    }

    #[test]
    fn the_size_is_that_of_the_message() {
        let ping = Ping { ponglen: 7, byteslen: 64 };
        let pong = Pong { byteslen: 7 };
        assert_eq!(size(&shown("Ping", &ping)), Some(("ping", ping.serialized_length())));
        assert_eq!(size(&shown("Pong", &pong)), Some(("pong", pong.serialized_length())));
        for data in
            ["", "plain", "a \"quoted\"\n\tline \\ with \u{7f} \u{1f600} and ü, byteslen: 3"]
        {
            let warning =
                WarningMessage { channel_id: ChannelId::new_zero(), data: data.to_owned() };
            let expected = Some(("warning", warning.serialized_length()));
            assert_eq!(size(&shown("Warning", &warning)), expected, "{data}");
        }
    }

    #[test]
    fn other_records_are_not_written_out() {
        for other in ["Enqueueing message Ping(", "Received message Pin", "Received message Init("]
        {
            let mut text = Beginning(String::new());
            let found = write!(text, "{other}").is_ok() && size(&text.0[..]).is_some();
            assert!(!found, "{other}");
        }
        let mut text = Beginning(String::new());
        for piece in ["Received ", "message ", "Ping", "(Ping { ponglen: 0, byteslen: 64 })"] {
            text.write_str(piece).unwrap();
        }
        assert_eq!(size(text.0.strip_prefix(ARRIVED).unwrap()), Some(("ping", 68)));
    }
}
