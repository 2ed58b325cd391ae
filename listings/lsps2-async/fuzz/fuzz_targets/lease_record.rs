//! Bytes are refused, or mean the same once written again.
//!
//! `cargo +nightly fuzz run --no-cfg-fuzzing lease_record`. The flag is needed: under `cfg(fuzzing)` LDK
//! refuses to build with its default feature `grind_signatures`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lightning::util::ser::Writeable;
use lsps2_async::lease::LeaseRecord;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = LeaseRecord::decode(bytes) {
        assert_eq!(LeaseRecord::decode(&record.encode()), Ok(record));
    }
});
