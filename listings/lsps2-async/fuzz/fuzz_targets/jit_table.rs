//! The fuzz target of this name: what it asserts is in the library.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    lsps2_async_fuzz::jit_table(bytes);
});
