//! A message's bytes, and the fields laid over them.

use bitcoin::hex::DisplayHex;
use lightning::util::ser::{BigSize, LengthReadable, Readable, Writeable};
use recording::{Explained, Field};

use super::values::bytes;

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

/// What LDK reads from a message, if what it would write for that is the message again.
pub(super) fn decoded<T: LengthReadable + Writeable>(
    mut content: &[u8],
    name: &str,
) -> Result<T, Mismatch> {
    let whole = content;
    let message = T::read_from_fixed_length_buffer(&mut content)
        .map_err(|error| Mismatch::new(0, format!("this is no {name}: {error}")))?;
    let written = message.encode();
    if written == whole {
        return Ok(message);
    }
    let same = written.iter().zip(whole).take_while(|(one, other)| one == other).count();
    Err(Mismatch::new(same, format!("LDK writes this {name} differently")))
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
    /// Where what is being explained ends: a record, a message.
    end: usize,
    depth: u8,
    fields: Vec<Field>,
}

impl<'a> Sheet<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0, end: bytes.len(), depth: 0, fields: Vec::new() }
    }

    /// The next field: the bytes there must be those that LDK writes for `value`.
    pub(super) fn take(&mut self, value: &impl Writeable, note: Note) -> Result<(), Mismatch> {
        self.take_bytes(&value.encode(), note)
    }

    /// The next field, written by hand.
    pub(super) fn take_bytes(&mut self, expected: &[u8], note: Note) -> Result<(), Mismatch> {
        if !self.rest().starts_with(expected) {
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

    /// The next record of a TLV stream, which must be of this type and hold these bytes.
    pub(super) fn tlv(&mut self, kind: u64, value: &[u8], about: Note) -> Result<(), Mismatch> {
        self.record(kind, about, |sheet| match value {
            [] => Ok(()),
            value => sheet.take_bytes(value, note("value")),
        })
    }

    /// The same, its value made of the fields that `parts` takes.
    pub(super) fn record(
        &mut self,
        kind: u64,
        about: Note,
        parts: impl FnOnce(&mut Self) -> Result<(), Mismatch>,
    ) -> Result<(), Mismatch> {
        let len = match self.peek()? {
            Some((found, value)) if found == kind => value.len(),
            _ => return Err(Mismatch::new(self.at, format!("this is no {}", about.name))),
        };
        self.group(about, |sheet| {
            sheet.take(&BigSize(kind), note("type").is(kind))?;
            sheet.take(&BigSize(len as u64), note("length").is(bytes(len)))?;
            sheet.exactly(len, parts)
        })
    }

    /// Fields that must take this many bytes, no less and no more.
    pub(super) fn exactly(
        &mut self,
        len: usize,
        parts: impl FnOnce(&mut Self) -> Result<(), Mismatch>,
    ) -> Result<(), Mismatch> {
        let outer = self.end;
        if self.rest().len() < len {
            return Err(Mismatch::new(self.at, format!("{len} bytes are to follow")));
        }
        self.end = self.at + len;
        parts(self)?;
        if self.at != self.end {
            return Err(Mismatch::new(self.at, format!("the fields do not take {len} bytes")));
        }
        self.end = outer;
        Ok(())
    }

    /// Type and value of the next TLV record; `None` at the end.
    pub(super) fn peek(&self) -> Result<Option<(u64, &'a [u8])>, Mismatch> {
        let cut = || Mismatch::new(self.at, "a TLV record is cut off");
        let mut rest = self.rest();
        if rest.is_empty() {
            return Ok(None);
        }
        let BigSize(kind) = BigSize::read(&mut rest).map_err(|_| cut())?;
        let BigSize(len) = BigSize::read(&mut rest).map_err(|_| cut())?;
        let value = usize::try_from(len).ok().and_then(|len| rest.get(..len)).ok_or_else(cut)?;
        Ok(Some((kind, value)))
    }

    /// The types of the TLV records that follow.
    pub(super) fn types(&self) -> Vec<u64> {
        let mut rest = Sheet::new(self.rest());
        let mut types = Vec::new();
        while let Ok(Some((kind, value))) = rest.peek() {
            types.push(kind);
            let head = BigSize(kind).serialized_length();
            rest.at += head + BigSize(value.len() as u64).serialized_length() + value.len();
        }
        types
    }

    /// The type of the next TLV record, if there is one.
    pub(super) fn next_type(&self) -> Option<u64> {
        self.peek().ok().flatten().map(|(kind, _)| kind)
    }

    /// Where the next field begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// What has not been explained yet of what is being explained.
    pub(super) fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..self.end]
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
