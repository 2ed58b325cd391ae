//! Values as a reader sees them, and those that LDK does not write publicly.

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::util::ser::{Writeable, Writer};
use recording::view::grouped;
use std::time::Duration;

use crate::transcript::Transcript;

pub(super) use crate::events::scid;

/// A number without its leading zero bytes: `tu64` and `tu32` of BOLT 1.
pub(super) struct Tu(pub(super) u64);

impl Writeable for Tu {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), lightning::io::Error> {
        let zeros = self.0.leading_zeros() as usize / 8;
        writer.write_all(&self.0.to_be_bytes()[zeros..])
    }
}

impl Tu {
    /// Reads bytes that are such a number and nothing else.
    pub(super) fn read(bytes: &[u8]) -> Option<u64> {
        if bytes.len() > 8 || bytes.first() == Some(&0) {
            return None;
        }
        Some(bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
    }
}

pub(super) fn bytes(len: usize) -> String {
    match len {
        1 => "1 byte".to_owned(),
        len => format!("{} bytes", grouped(len as u64)),
    }
}

pub(super) fn msat(amount: u64) -> String {
    format!("{} msat", grouped(amount))
}

pub(super) fn sat(amount: u64) -> String {
    format!("{} sat", grouped(amount))
}

pub(super) fn blocks(number: impl Into<u64>) -> String {
    match number.into() {
        1 => "1 block".to_owned(),
        number => format!("{} blocks", grouped(number)),
    }
}

pub(super) fn height(height: u32) -> String {
    format!("block {}", grouped(height.into()))
}

pub(super) fn ppm(share: u32) -> String {
    format!("{} ppm", grouped(share.into()))
}

pub(super) fn seconds(time: Duration) -> String {
    format!("{} s", grouped(time.as_secs()))
}

/// The party that a node id belongs to; empty for a key that nobody has introduced.
pub(super) fn party(transcript: &Transcript, node_id: &PublicKey) -> String {
    transcript.known(node_id).unwrap_or_default()
}

pub(super) fn chain(hash: ChainHash) -> String {
    let network = Network::try_from(hash).map(|network| network.to_string());
    network.unwrap_or_else(|_| hash.to_string())
}

/// The feature bits that are set, with the names that BOLT 9 has for them where they may be.
pub(super) fn feature_bits(flags: &[u8], names: &[(usize, &str)]) -> String {
    // As LDK keeps them: the lowest bits first.
    let bits = (0..flags.len() * 8).filter(|bit| flags[bit / 8] & (1 << (bit % 8)) != 0);
    let named = bits.map(|bit| match names.iter().find(|(known, _)| *known == bit) {
        Some((_, name)) => format!("{bit} {name}"),
        None => bit.to_string(),
    });
    match named.collect::<Vec<_>>().join(", ") {
        bits if bits.is_empty() => "none".to_owned(),
        bits => format!("bits {bits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_numbers_are_read_as_they_are_written() {
        for number in [0, 1, 0xff, 0x100, 98_000_000, u64::from(u32::MAX), u64::MAX] {
            let bytes = Tu(number).encode();
            assert_eq!(Tu::read(&bytes), Some(number));
            assert_eq!(Tu::read(&[&[0], &bytes[..]].concat()), None, "too long");
        }
        assert_eq!(Tu(0x100).encode(), [1, 0]);
    }
}
