//! The head of a request: read as the reference reads it, as by httparse, and no differently when it comes in pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reference::{Outcome, by_httparse};
use snip::http::head::{Framing, Parsed, parse};

/// Longer inputs are not cut at every byte: that would be quadratic.
const CUT_BYTES_MAX: usize = 300;

fuzz_target!(|data: &[u8]| {
    let parsed = parse(data);
    assert_eq!(parsed, by_httparse::parse(data));
    match (&parsed, reference::head(data)) {
        (Ok(Parsed::Complete(head)), Ok(Some(expected))) => {
            assert_eq!(head.bytes, expected.request.bytes);
            assert_eq!(head.keep_alive, expected.request.keep_alive);
            let target = head.query.map_or(head.path.to_owned(), |query| format!("{}?{query}", head.path));
            assert_eq!(target, expected.request.target);
            let length = match head.framing {
                Framing::Length(length) => Some(length),
                Framing::Chunked => None,
            };
            assert_eq!(length, expected.length);
        }
        (Err(_), Err(Outcome::Refused | Outcome::Unfinished)) => {}
        (Ok(Parsed::Partial), Ok(None) | Err(Outcome::Unfinished)) => {}
        (_, Err(Outcome::Open)) => {}
        (parsed, expected) => panic!("{parsed:?}, expected {expected:?}"),
    }
    if let Ok(Parsed::Complete(head)) = &parsed
        && head.bytes <= CUT_BYTES_MAX
    {
        for cut in 0..head.bytes {
            assert!(matches!(parse(&data[..cut]), Ok(Parsed::Partial)), "cut at {cut}");
        }
    } else if data.len() <= CUT_BYTES_MAX {
        // What is refused is refused as early as by httparse.
        for cut in 0..data.len() {
            assert_eq!(parse(&data[..cut]), by_httparse::parse(&data[..cut]), "cut at {cut}");
        }
    }
});
