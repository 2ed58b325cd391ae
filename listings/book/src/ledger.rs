//! Where every msat of a recording is, checkpoint by checkpoint.

use crate::recordings::Recordings;

pub(crate) fn figure(recordings: &Recordings, argument: &str) -> Result<String, String> {
    recordings.get(argument)?;
    Err("not drawn yet".to_owned())
}
