//! The recordings in `tests/recorded`, read when a page asks for one.

use recording::Recording;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The recordings by name.
pub(crate) struct Recordings {
    folder: PathBuf,
    read: RefCell<BTreeMap<String, Rc<Recording>>>,
}

impl Recordings {
    pub(crate) fn new(root: &Path) -> Self {
        Self { folder: root.join("tests/recorded"), read: RefCell::default() }
    }

    /// The recording of this name.
    ///
    /// # Errors
    /// If there is none, or it cannot be read.
    pub(crate) fn get(&self, name: &str) -> Result<Rc<Recording>, String> {
        if let Some(recording) = self.read.borrow().get(name) {
            return Ok(recording.clone());
        }
        let file = self.folder.join(name).with_extension("jsonl");
        let recording = Recording::read(&file).map_err(|e| {
            format!("no recording `{name}` (`cargo run -- record` makes them): {e:#}")
        })?;
        let recording = Rc::new(recording);
        self.read.borrow_mut().insert(name.to_owned(), recording.clone());
        Ok(recording)
    }
}
