//! A message's bytes, and the fields laid over them.

use bitcoin::hex::DisplayHex;
use lightning::util::ser::Writeable;
use recording::{Explained, Field};

/// Bytes are not what they were said to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The offset in the bytes.
    pub at: usize,
    /// What does not fit.
    pub what: String,
}

impl Mismatch {
    pub(super) fn new(at: usize, what: impl Into<String>) -> Self {
        Self { at, what: what.into() }
    }
}

impl std::error::Error for Mismatch {}

impl std::fmt::Display for Mismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, at byte {}", self.what, self.at)
    }
}

/// What is said of a field.
pub(super) struct Note {
    name: String,
    value: String,
    meaning: String,
    varies: bool,
}

/// A note on the field of this name.
pub(super) fn note(name: &str) -> Note {
    Note { name: name.to_owned(), value: String::new(), meaning: String::new(), varies: false }
}

impl Note {
    /// Its value, readable.
    pub(super) fn is(mut self, value: impl ToString) -> Self {
        self.value = value.to_string();
        self
    }

    /// What it is for.
    pub(super) fn means(mut self, meaning: &str) -> Self {
        self.meaning = meaning.to_owned();
        self
    }

    /// It is another one in every run.
    pub(super) fn varies(mut self) -> Self {
        self.varies = true;
        self
    }
}

/// Bytes that are explained from their beginning to their end.
pub(super) struct Sheet<'a> {
    bytes: &'a [u8],
    at: usize,
    depth: u8,
    fields: Vec<Field>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, depth: 0, fields: Vec::new() }
    }

    /// The next field: the bytes there must be those that LDK writes for `value`.
    pub(super) fn take(&mut self, value: &impl Writeable, note: Note) -> Result<(), Mismatch> {
        self.take_bytes(&value.encode(), note)
    }

    /// The next field, written by hand.
    pub(super) fn take_bytes(&mut self, expected: &[u8], note: Note) -> Result<(), Mismatch> {
        let found = self.bytes[self.at..].get(..expected.len());
        if found != Some(expected) {
            return Err(Mismatch::new(self.at, format!("this is no {}", note.name)));
        }
        self.push(expected.len(), note);
        self.at += expected.len();
        Ok(())
    }

    /// A field made of the fields that `parts` takes.
    pub(super) fn group(
        &mut self,
        note: Note,
        parts: impl FnOnce(&mut Self) -> Result<(), Mismatch>,
    ) -> Result<(), Mismatch> {
        let (place, began) = (self.fields.len(), self.at);
        self.push(0, note);
        self.depth += 1;
        parts(self)?;
        self.depth -= 1;
        self.fields[place].len = self.at - began;
        Ok(())
    }

    fn push(&mut self, len: usize, note: Note) {
        let Note { name, value, meaning, varies } = note;
        let (at, depth) = (self.at, self.depth);
        self.fields.push(Field { at, len, depth, name, value, meaning, varies });
    }

    /// Ends the sheet; all its bytes must have been explained.
    pub(super) fn end(self, title: &str) -> Result<Explained, Mismatch> {
        if self.at != self.bytes.len() {
            let rest = self.bytes.len() - self.at;
            return Err(Mismatch::new(self.at, format!("{rest} bytes of {title} are left over")));
        }
        Ok(Explained {
            title: title.to_owned(),
            bytes: self.bytes.to_lower_hex_string(),
            text: false,
            fields: self.fields,
        })
    }
}
