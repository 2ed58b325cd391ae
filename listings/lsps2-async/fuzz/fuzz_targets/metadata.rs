//! Bytes are refused, or written again as they were read.
//!
//! `cargo +nightly fuzz run --no-cfg-fuzzing metadata`. The flag is needed: under `cfg(fuzzing)` LDK
//! refuses to build with its default feature `grind_signatures`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lsps2_async::metadata::LeaseMetadata;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(metadata) = LeaseMetadata::decode(bytes) {
        let again = metadata.encode();
        assert_eq!(LeaseMetadata::decode(&again), Ok(metadata));
        // Only skipped TLVs are not written again.
        assert!(again.len() < bytes.len() || again == bytes);
    }
});
