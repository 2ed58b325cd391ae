//! Shown output that is a part of a recording.

use crate::recordings::Recordings;

pub(crate) fn block(recordings: &Recordings, argument: &str) -> Result<String, String> {
    recordings.get(argument)?;
    Err("not shown yet".to_owned())
}
