/// A token counts only if it is signed by the key and says what the rules ask for.
#![no_main]

#[allow(dead_code, reason = "each target takes one")]
#[path = "../properties.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|data: &[u8]| properties::credentials::token(data));
