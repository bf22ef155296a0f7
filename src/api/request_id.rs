//! The name that a request has in the log, and by which a client can ask about it.

use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::limits::REQUEST_ID_BYTES_MAX;

/// Bytes that need no escape in a header, in JSON or in a shell, at most [`REQUEST_ID_BYTES_MAX`].
#[derive(Clone, Copy)]
pub(super) struct RequestId {
    bytes: [u8; REQUEST_ID_BYTES_MAX],
    length: usize,
}

impl RequestId {
    /// The id that somebody else has given; `None` unless it is harmless.
    pub fn given(text: &[u8]) -> Option<Self> {
        let is_harmless = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        let fits = (1..=REQUEST_ID_BYTES_MAX).contains(&text.len());
        (fits && text.iter().all(is_harmless)).then(|| {
            let mut bytes = [0; REQUEST_ID_BYTES_MAX];
            bytes[..text.len()].copy_from_slice(text);
            Self { bytes, length: text.len() }
        })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Harmless bytes are ASCII.
        f.write_str(std::str::from_utf8(self.as_bytes()).unwrap_or_default())
    }
}

/// Makes ids: of this process, and each a number.
pub(super) struct RequestIds {
    process: u64,
    last: AtomicU64,
}

impl Default for RequestIds {
    fn default() -> Self {
        Self { process: rand::random(), last: AtomicU64::new(0) }
    }
}

impl RequestIds {
    /// A new one, such as `5a1f3c0de9b87264-17`.
    pub fn next(&self) -> RequestId {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut bytes = [0; REQUEST_ID_BYTES_MAX];
        let mut rest = &mut bytes[..];
        // Sixteen digits, a dash, and at most twenty digits fit.
        let _ = write!(rest, "{:016x}-{number}", self.process);
        let length = REQUEST_ID_BYTES_MAX - rest.len();
        RequestId { bytes, length }
    }
}

const _: () = assert!(REQUEST_ID_BYTES_MAX >= 16 + 1 + 20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn harmless_ids_are_taken_and_others_are_not() {
        let check = |text: &[u8], taken: bool| {
            let id = RequestId::given(text);
            assert_eq!(id.is_some(), taken, "{text:?}");
            assert!(id.is_none_or(|id| id.as_bytes() == text && id.to_string().as_bytes() == text));
        };
        check(b"a", true);
        check(b"0af7651916cd43dd8448eb211c80319c", true);
        check(b"Root=1", false);
        check(b"1-67891233:abc_d.e", true);
        check(&[b'x'; REQUEST_ID_BYTES_MAX], true);
        check(&[b'x'; REQUEST_ID_BYTES_MAX + 1], false);
        check(b"", false);
        check(b"a b", false);
        check(b"a\"b", false);
        check(b"a\r\nSet-Cookie: x", false);
        check("\u{e4}".as_bytes(), false);
    }

    #[test]
    fn made_ids_differ_and_are_harmless() {
        let (one, other) = (RequestIds::default(), RequestIds::default());
        let ids = [one.next(), one.next(), other.next()].map(|id| id.to_string());
        assert!(ids[0] != ids[1] && ids[0] != ids[2], "{ids:?}");
        assert!(ids.iter().all(|id| RequestId::given(id.as_bytes()).is_some()), "{ids:?}");
    }
}
