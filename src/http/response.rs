//! Answers, written straight into the connection's output buffer.
//!
//! ```text
//! head(prefix) → header(…)* → body(…) | no_body() | empty()
//! ```

use super::buffer;
use super::date;
use super::head::Method;
use crate::limits::REQUEST_ID_BYTES_MAX;

/// An answer that the server gives on its own, before a service sees the request. The connection is closed after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status code.
    pub status: u16,
    /// Status line and fixed headers, each with its CRLF.
    prefix: &'static str,
    /// The text of the error object.
    pub message: &'static str,
}

/// The fixed start of a JSON error: status line, server, type.
macro_rules! refusals {
    ($($(#[$doc:meta])* $name:ident = $status:literal $reason:literal, $message:literal $(, $extra:literal)?;)*) => {
        impl Refusal {
            $($(#[$doc])* pub const $name: Self = Self {
                status: $status,
                prefix: concat!("HTTP/1.1 ", $status, " ", $reason, "\r\nServer: snip\r\nCache-Control: no-store\r\n" $(, $extra, "\r\n")?),
                message: $message,
            };)*
        }
    };
}

refusals! {
    /// Bad syntax or ambiguous framing.
    BAD_REQUEST = 400 "Bad Request", "Bad request";
    /// A deadline passed before the request was complete.
    TIMEOUT = 408 "Request Timeout", "Request timed out";
    /// The body is larger than the route takes.
    BODY_TOO_LARGE = 413 "Content Too Large", "Request body too large";
    /// The target is longer than the server takes.
    URI_TOO_LONG = 414 "URI Too Long", "URI too long";
    /// An expectation other than 100-continue.
    EXPECTATION_FAILED = 417 "Expectation Failed", "Expectation failed";
    /// The head is larger than the server takes.
    HEADERS_TOO_LARGE = 431 "Request Header Fields Too Large", "Request header fields too large";
    /// A transfer coding that is not spoken here.
    NOT_IMPLEMENTED = 501 "Not Implemented", "Transfer coding not implemented";
    /// A version other than 1.0 and 1.1.
    VERSION_NOT_SUPPORTED = 505 "HTTP Version Not Supported", "HTTP version not supported";
    /// A bound of the server is reached: connections, or memory for bodies.
    OVERLOADED = 503 "Service Unavailable", "Service unavailable", "Retry-After: 1";
    /// A handler failed in a way that nobody foresaw.
    INTERNAL = 500 "Internal Server Error", "Internal server error";
}

impl Refusal {
    /// The same refusal with another text.
    pub const fn with_message(self, message: &'static str) -> Self {
        Self { message, ..self }
    }

    /// Appends the whole answer; it announces that the connection closes.
    pub(super) fn write(self, out: &mut Vec<u8>, method: Method) {
        let mut response = Response::new(out, method, Connection::Close);
        response.head(self.prefix);
        let message = self.message;
        response.body("application/json", |out| {
            // The messages are constants of ours and need no escape.
            out.extend_from_slice(b"{\"error\":\"");
            out.extend_from_slice(message.as_bytes());
            out.extend_from_slice(b"\"}");
        });
    }
}

/// What the answer says about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// HTTP/1.1: stays open, which needs no word.
    Persistent,
    /// HTTP/1.0: stays open, which does.
    KeepAlive,
    /// Closes after this answer.
    Close,
}

/// An answer in the making.
pub struct Response<'o> {
    out: &'o mut Vec<u8>,
    /// Where this answer begins in `out`.
    start: usize,
    method: Method,
    connection: Connection,
    /// The request's id, and how long it is.
    id: Option<([u8; REQUEST_ID_BYTES_MAX], usize)>,
    is_finished: bool,
}

/// Digits kept free for a `Content-Length` that is known only after the body; blanks in front of them are allowed
/// (RFC 9110, section 5.6.3).
const LENGTH_DIGITS: usize = 10;

impl<'o> Response<'o> {
    /// An answer to a request with this method, to be appended to `out`.
    pub fn new(out: &'o mut Vec<u8>, method: Method, connection: Connection) -> Self {
        let start = out.len();
        Self { out, start, method, connection, id: None, is_finished: false }
    }

    /// Has the head say `X-Request-Id`. To be called before [`Response::head`]; an id that is too long, or would break the
    /// line, is left out.
    pub fn identify(&mut self, id: Option<&[u8]>) {
        self.id = id.filter(|id| id.len() <= REQUEST_ID_BYTES_MAX).map(|id| {
            let mut bytes = [0; REQUEST_ID_BYTES_MAX];
            bytes[..id.len()].copy_from_slice(id);
            (bytes, id.len())
        });
    }

    /// Starts the answer with a status line and fixed headers, each ending in CRLF, and adds the date.
    pub fn head(&mut self, prefix: &'static str) {
        debug_assert!(prefix.starts_with("HTTP/1.1 ") && prefix.ends_with("\r\n"));
        buffer::ensure_write(self.out);
        self.out.extend_from_slice(prefix.as_bytes());
        self.out.extend_from_slice(b"Date: ");
        self.out.extend_from_slice(&date::now());
        self.out.extend_from_slice(match self.connection {
            Connection::Persistent => b"\r\n".as_slice(),
            Connection::KeepAlive => b"\r\nConnection: keep-alive\r\n",
            Connection::Close => b"\r\nConnection: close\r\n",
        });
        if let Some((bytes, length)) = self.id {
            let _ = self.header("X-Request-Id", &bytes[..length]);
        }
    }

    /// Adds a header whose value is data. A CR, LF or NUL in it would let the data write headers of its own: then
    /// nothing is added and false comes back.
    #[must_use]
    pub fn header(&mut self, name: &'static str, value: &[u8]) -> bool {
        if memchr::memchr3(b'\r', b'\n', 0, value).is_some() {
            return false;
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        true
    }

    /// Ends the answer without a body and without a length, as 204 must (RFC 9110, section 8.6).
    pub fn no_body(&mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.is_finished = true;
    }

    /// Ends the answer with an empty body.
    pub fn empty(&mut self) {
        self.out.extend_from_slice(b"Content-Length: 0\r\n\r\n");
        self.is_finished = true;
    }

    /// Ends the answer with the body that `write` appends; for HEAD with its length only.
    pub fn body(&mut self, content_type: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
        // What is said to be JSON is not to be tried as a page.
        self.out.extend_from_slice(b"X-Content-Type-Options: nosniff\r\nContent-Type: ");
        self.out.extend_from_slice(content_type.as_bytes());
        self.out.extend_from_slice(b"\r\nContent-Length: ");
        let digits_end = self.out.len() + LENGTH_DIGITS;
        self.out.extend_from_slice(&[b' '; LENGTH_DIGITS]);
        self.out.extend_from_slice(b"\r\n\r\n");
        let body_start = self.out.len();
        write(self.out);
        let mut length = self.out.len() - body_start;
        let mut at = digits_end;
        loop {
            at -= 1;
            self.out[at] = b'0' + (length % 10) as u8;
            length /= 10;
            if length == 0 {
                break;
            }
        }
        if self.method == Method::Head {
            self.out.truncate(body_start);
        }
        self.is_finished = true;
    }

    /// Drops what was written of this answer, to begin another.
    pub fn restart(&mut self) {
        self.out.truncate(self.start);
        self.is_finished = false;
    }

    /// The status code, once the head is written; 0 before.
    pub fn status(&self) -> u16 {
        let digits = self.out.get(self.start + 9..self.start + 12).unwrap_or(b"");
        digits.iter().fold(0, |status, digit| status * 10 + u16::from(digit.wrapping_sub(b'0')))
    }

    pub(super) fn is_finished(&self) -> bool {
        self.is_finished
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(method: Method, connection: Connection, write: impl FnOnce(&mut Response<'_>)) -> String {
        let mut out = b"before".to_vec();
        let mut response = Response::new(&mut out, method, connection);
        write(&mut response);
        assert!(response.is_finished());
        let text = String::from_utf8(out).unwrap();
        let date = std::str::from_utf8(&date::now()).unwrap().to_owned();
        text.strip_prefix("before").unwrap().replace(&date, "NOW")
    }

    const OK: &str = "HTTP/1.1 200 OK\r\nServer: snip\r\n";

    #[test]
    fn bodies_have_their_length() {
        let check = |method, body: &'static str, expect: &str| {
            let text = written(method, Connection::Persistent, |response| {
                response.head(OK);
                response.body("text/plain", |out| out.extend_from_slice(body.as_bytes()));
                assert_eq!(response.status(), 200);
            });
            assert_eq!(
                text,
                format!(
                    "{OK}Date: NOW\r\nX-Content-Type-Options: nosniff\r\nContent-Type: text/plain\r\nContent-Length: {expect}"
                )
            );
        };
        check(Method::Get, "", "         0\r\n\r\n");
        check(Method::Get, "hello", "         5\r\n\r\nhello");
        check(Method::Head, "hello", "         5\r\n\r\n");
        check(Method::Get, "0123456789ab", "        12\r\n\r\n0123456789ab");
    }

    #[test]
    fn the_connection_is_named_when_it_must_be() {
        let check = |connection, expect: &str| {
            let text = written(Method::Get, connection, |response| {
                response.head(OK);
                response.empty();
            });
            assert_eq!(text, format!("{OK}Date: NOW\r\n{expect}Content-Length: 0\r\n\r\n"));
        };
        check(Connection::Persistent, "");
        check(Connection::KeepAlive, "Connection: keep-alive\r\n");
        check(Connection::Close, "Connection: close\r\n");
    }

    #[test]
    fn no_value_splits_a_header() {
        for value in [&b"a\r\nSet-Cookie: b"[..], b"a\nb", b"a\rb", b"a\0b"] {
            let text = written(Method::Get, Connection::Persistent, |response| {
                response.head(OK);
                assert!(!response.header("Location", value));
                assert!(response.header("X", b"\xc3\xbc"));
                response.no_body();
            });
            assert_eq!(text, format!("{OK}Date: NOW\r\nX: ü\r\n\r\n"));
        }
    }

    #[test]
    fn refusals_are_json_and_close() {
        let mut out = Vec::new();
        Refusal::OVERLOADED.with_message("Try later").write(&mut out, Method::Get);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(
            "HTTP/1.1 503 Service Unavailable\r\nServer: snip\r\nCache-Control: no-store\r\nRetry-After: 1\r\nDate: "
        ));
        assert!(text.contains("\r\nConnection: close\r\n"));
        assert!(text.contains("\r\nContent-Type: application/json\r\n"));
        assert!(text.ends_with("\r\n\r\n{\"error\":\"Try later\"}"));
    }
}
