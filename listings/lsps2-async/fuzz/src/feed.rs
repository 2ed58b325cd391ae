//! How several things are taken from the bytes of one input.

/// Takes an input apart. Past its end there are zeros.
#[derive(Clone, Copy, Debug)]
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// From an input's beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    /// This many bytes, or as many as there are.
    pub fn take(&mut self, len: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or_default()
    }

    /// Less than this.
    pub fn below(&mut self, bound: u8) -> u8 {
        self.byte().checked_rem(bound).unwrap_or_default()
    }

    /// Eight bytes, big endian.
    pub fn number(&mut self) -> u64 {
        self.take(8).iter().fold(0, |number, byte| (number << 8) | u64::from(*byte))
    }

    /// Two bytes of length, and as many as they say.
    pub fn chunk(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte()) << 8 | usize::from(self.byte());
        self.take(len)
    }
}

#[cfg(test)]
pub(crate) use meal::Meal;

#[cfg(test)]
mod meal {
    /// Puts an input together that a [`Feed`] takes apart: for the seeds.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Meal(Vec<u8>);

    impl Meal {
        /// One byte.
        #[must_use]
        pub(crate) fn byte(mut self, byte: u8) -> Self {
            self.0.push(byte);
            self
        }

        /// Eight bytes.
        #[must_use]
        pub(crate) fn number(self, number: u64) -> Self {
            self.raw(&number.to_be_bytes())
        }

        /// These bytes, behind their length.
        #[must_use]
        pub(crate) fn chunk(self, bytes: &[u8]) -> Self {
            let len = u16::try_from(bytes.len()).expect("a seed is short");
            self.raw(&len.to_be_bytes()).raw(bytes)
        }

        /// These bytes as they are.
        #[must_use]
        pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
            self.0.extend(bytes);
            self
        }

        /// The input.
        pub(crate) fn served(self) -> Vec<u8> {
            self.0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_is_taken_out() {
        let bytes = Meal::default().byte(7).number(1 << 40).chunk(b"abc").raw(b"de").served();
        let mut feed = Feed::new(&bytes);
        assert_eq!((feed.byte(), feed.number(), feed.chunk()), (7, 1 << 40, &b"abc"[..]));
        assert_eq!(feed.rest(), b"de");
        assert_eq!((feed.chunk(), feed.number(), feed.below(0)), (&b""[..], 0, 0));
        assert!(feed.is_over());
    }
}
