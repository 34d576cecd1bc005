#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    unibus_fuzz::census(bytes);
});
