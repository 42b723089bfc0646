//! Sizes as text: never a panic; with and without UTF-8 alike; what is read and shown compactly reads back alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mempool::bytes::{Compact, parse_bytes, parse_bytes_ascii};

fuzz_target!(|data: &[u8]| {
    let parsed = parse_bytes_ascii(data);
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(parse_bytes(text), parsed);
    } else {
        assert!(parsed.is_err());
    }
    if let Ok(bytes) = parsed {
        assert_eq!(parse_bytes(&Compact(bytes).to_string()), Ok(bytes));
    }
    let _ = mempool::config::parse_duration(data);
});
