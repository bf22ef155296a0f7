//! The bulk upload. An odd first byte: the rest is a content type, a line feed and a body, any bytes at all. An even one:
//! the rest is a file, which must come through a proper form with the rows it has.
#![no_main]

use libfuzzer_sys::fuzz_target;
use snip::fuzzing::{boundary, users};

fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    if kind % 2 == 1 {
        let line = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        if let Ok(boundary) = boundary(Some(&rest[..line])) {
            let _ = users(&boundary, rest[line..].to_vec());
        }
        return;
    }
    let mark = "------------------------9a8b7c";
    let Ok(text) = std::str::from_utf8(rest) else { return };
    if text.contains(mark) {
        return;
    }
    let form = |name: &str, text: &str| {
        format!("--{mark}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{text}\r\n")
    };
    let rows = |body: String| users(mark, body.into_bytes()).expect("a proper form");
    let alone = rows(form("file", text) + &format!("--{mark}--\r\n"));
    // Neither another part before it nor one after changes the file.
    let among = rows(form("other", "x") + &form("file", text) + &form("file", "y") + &format!("--{mark}--\r\n"));
    assert_eq!(alone.len(), among.len());
    for (alone, among) in alone.iter().zip(&among) {
        assert_eq!((&alone.username, &alone.email), (&among.username, &among.email));
        assert!(!alone.username.is_empty() && alone.username.chars().count() <= snip::limits::NAME_CHARS_MAX);
        assert!(alone.email.contains('@') && alone.email.chars().count() <= snip::limits::NAME_CHARS_MAX);
    }
    assert!(alone.len() <= text.matches(['\n', '\r']).count() + 1, "more rows than lines");
});
