//! The player: a recording that a reader steps through.

use crate::recordings::Recordings;

pub(crate) fn figure(recordings: &Recordings, argument: &str) -> Result<String, String> {
    recordings.get(argument)?;
    Err("not drawn yet".to_owned())
}
