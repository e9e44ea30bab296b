/// Fields about signatures are read or refused; what one key vouches for no other does, and only once.
#![no_main]

#[allow(dead_code, reason = "each target takes one")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::credentials::signature(data));
