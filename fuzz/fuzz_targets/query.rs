//! Query strings: parameters as a second decoder reads them, pages within their bounds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snip::fuzzing::Query;
use snip::limits::PER_PAGE_MAX;

/// `application/x-www-form-urlencoded` (URL standard, section 5.1), step by step.
fn parameters(query: &str) -> Vec<(String, String)> {
    let decode = |part: &[u8]| {
        let hex = |b: u8| (b as char).to_digit(16);
        let mut bytes = Vec::new();
        let mut at = 0;
        while at < part.len() {
            let pair = part.get(at + 1).copied().and_then(hex).zip(part.get(at + 2).copied().and_then(hex));
            match (part[at], pair) {
                (b'%', Some((high, low))) => {
                    bytes.push((high * 16 + low) as u8);
                    at += 2;
                }
                (b'+', _) => bytes.push(b' '),
                (byte, _) => bytes.push(byte),
            }
            at += 1;
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(n, v)| (decode(n.as_bytes()), decode(v.as_bytes())))
        .collect()
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let query = Query::new(Some(text));
    let parameters = parameters(text);
    for name in parameters.iter().map(|(name, _)| name.as_str()).chain(["page", "user_id"]) {
        let first = parameters.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(query.get(name).as_deref(), first);
        // Digits with a sign or none, blanks around them, are integers; nothing else is.
        let integer = first.map(|value| value.trim()).map(|value| {
            let digits = value.strip_prefix(['-', '+']).unwrap_or(value);
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
        });
        match query.integer(name, "message") {
            Ok(value) => assert_eq!(integer.unwrap_or(false), value.is_some()),
            Err(_) => assert_eq!(integer, Some(false)),
        }
        assert_eq!(query.boolean(name).is_some(), first.is_some());
    }
    assert!((1..=PER_PAGE_MAX).contains(&query.page().limit));
});
