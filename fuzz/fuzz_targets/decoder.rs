//! Fuzzes the decoder that this program is named after.
#![no_main]

#[path = "../../tests/it/decoders/decode.rs"]
mod decode;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decode::by_name(env!("CARGO_BIN_NAME"), bytes));
