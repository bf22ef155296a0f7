//! The head of a request: its line, its headers, and what they say of the body. Pure.
//!
//! httparse splits the head; what the parts mean is decided here, and whatever is ambiguous is refused (RFC 9112,
//! section 11.2: request smuggling lives on servers that guess).

use std::mem::MaybeUninit;
use std::net::SocketAddr;

use super::response::Refusal;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// Header lines that nearly every request makes do with.
const HEADERS_USUAL: usize = 16;

/// The methods that routes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the methods")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    /// Any other token: no route has it.
    Other,
}

impl Method {
    /// The method's name, with one name for all others.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Other => "OTHER",
        }
    }

    /// Whether carrying it out may change something: it is not safe in the sense of RFC 9110, section 9.2.1.
    pub const fn may_change(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Delete)
    }

    fn parse(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

/// How the end of the body is found (RFC 9112, section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; without a body, none.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// The parsed head of a request; all text points into the connection's buffer.
#[derive(Clone, Debug)]
pub struct Head<'b> {
    /// Bytes of the head, the empty line included.
    pub bytes: usize,
    /// The method.
    pub method: Method,
    /// The path, still percent-encoded, with its leading slash; `*` for `OPTIONS *`.
    pub path: &'b str,
    /// What follows the `?`, still encoded.
    pub query: Option<&'b str>,
    /// Whether the client speaks HTTP/1.1 (else 1.0).
    pub is_http11: bool,
    /// Whether the client lets the connection stay open.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// How the end of the body is found.
    pub framing: Framing,
    /// `Content-Type`, the first if there are several.
    pub content_type: Option<&'b [u8]>,
    /// `Accept`, the first if there are several.
    pub accept: Option<&'b [u8]>,
    /// `User-Agent`, the first if there are several.
    pub user_agent: Option<&'b [u8]>,
    /// `Referer`, the first if there are several.
    pub referrer: Option<&'b [u8]>,
    /// `X-Request-Id`, the first if there are several.
    pub x_request_id: Option<&'b [u8]>,
    /// `X-Real-IP`, the first if there are several.
    pub x_real_ip: Option<&'b [u8]>,
    /// `X-Forwarded-For`, the last if there are several: the nearest proxy adds at the end.
    pub x_forwarded_for: Option<&'b [u8]>,
}

/// A whole request, as a service gets it.
pub struct Request<'b> {
    /// Its head.
    pub head: &'b Head<'b>,
    /// Its body, decoded.
    pub body: &'b [u8],
    /// The address of the other end; `None` over a unix socket.
    pub peer: Option<SocketAddr>,
}

/// The outcome of looking at the first bytes of a request.
#[derive(Debug)]
pub enum Parsed<'b> {
    /// The head is not complete.
    Partial,
    /// The head.
    Complete(Head<'b>),
}

/// Reads the head that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Refusal> {
    // Room for all that a head may have would be two more kilobytes of each connection's stack that are in use, and at
    // hundreds of connections the processor's caches are what limits.
    match parse_with::<HEADERS_USUAL>(bytes) {
        Err(Refusal::HEADERS_TOO_LARGE) => parse_long(bytes),
        parsed => parsed,
    }
}

#[cold]
#[inline(never)]
fn parse_long(bytes: &[u8]) -> Result<Parsed<'_>, Refusal> {
    parse_with::<HEADERS_MAX>(bytes)
}

fn parse_with<const HEADERS: usize>(bytes: &[u8]) -> Result<Parsed<'_>, Refusal> {
    let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
    let mut request = httparse::Request::new(&mut []);
    match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(head_bytes)) => interpret(bytes, head_bytes, &request).map(Parsed::Complete),
        Ok(httparse::Status::Partial) => partial(bytes),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HEADERS_TOO_LARGE),
        Err(httparse::Error::Version) => version_refusal(bytes).map_or_else(|| partial(bytes), Err),
        Err(_) => Err(Refusal::BAD_REQUEST),
    }
}

/// What is incomplete may be too long already.
fn partial(bytes: &[u8]) -> Result<Parsed<'static>, Refusal> {
    let line_is_open = memchr::memchr(b'\n', bytes).is_none();
    if line_is_open && bytes.len() > TARGET_BYTES_MAX + "OPTIONS  HTTP/1.1\r\n".len() {
        return Err(Refusal::URI_TOO_LONG);
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return Err(Refusal::HEADERS_TOO_LARGE);
    }
    Ok(Parsed::Partial)
}

/// `HTTP/` and a number as the third word is a version, only not ours; anything else is bad syntax. A blank within the
/// target makes four words (RFC 9112, section 3.2). `None` while the line has no end: its rest may tell.
fn version_refusal(bytes: &[u8]) -> Option<Refusal> {
    let is_end = |b: &u8| matches!(b, b'\r' | b'\n');
    let start = bytes.iter().position(|b| !is_end(b))?;
    let line = &bytes[start..start + bytes[start..].iter().position(is_end)?];
    let mut words = line.split(|&b| b == b' ').skip(2);
    let (version, more) = (words.next().unwrap_or(b""), words.next());
    match version.strip_prefix(b"HTTP/") {
        Some([b'0'..=b'9', rest @ ..])
            if more.is_none() && rest.len() <= 2 && rest.iter().all(|&b| b == b'.' || b.is_ascii_digit()) =>
        {
            Some(Refusal::VERSION_NOT_SUPPORTED)
        }
        _ => Some(Refusal::BAD_REQUEST),
    }
}

fn interpret<'b>(input: &'b [u8], bytes: usize, request: &httparse::Request<'_, 'b>) -> Result<Head<'b>, Refusal> {
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::BAD_REQUEST);
    };
    if target.len() > TARGET_BYTES_MAX {
        return Err(Refusal::URI_TOO_LONG);
    }
    if bytes > HEAD_BYTES_MAX {
        return Err(Refusal::HEADERS_TOO_LARGE); // it came together with others, in a buffer that a body had made larger
    }
    refuse_bare_line_feeds(&input[..bytes], method, request.headers)?;
    let method = Method::parse(method);
    let (path, query) = split_target(method, target)?;
    let is_http11 = minor == 1;
    let mut head = Head {
        bytes,
        method,
        path,
        query,
        is_http11,
        keep_alive: is_http11,
        expects_continue: false,
        framing: Framing::Length(0),
        content_type: None,
        accept: None,
        user_agent: None,
        referrer: None,
        x_request_id: None,
        x_real_ip: None,
        x_forwarded_for: None,
    };
    let mut seen = Seen::default();
    for header in request.headers.iter() {
        seen.take(&mut head, header.name, header.value)?;
    }
    seen.conclude(&mut head)?;
    Ok(head)
}

/// httparse takes a lone LF for the end of a line, which a server may (RFC 9112, section 2.2). Whoever forwards a request
/// may take it for something else, so it is refused. What stands before a name is the end of the line before.
fn refuse_bare_line_feeds(head: &[u8], method: &str, headers: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let position = |text: &str| text.as_ptr().addr() - head.as_ptr().addr();
    let is_whole = |at: usize| at >= 2 && head[at - 2] == b'\r';
    let empty_lines = &head[..position(method)];
    let are_whole = matches!(head, [.., b'\r', b'\n', b'\r', b'\n'])
        && headers.iter().all(|header| is_whole(position(header.name)))
        && (empty_lines.is_empty() || empty_lines.chunks(2).all(|line| line == b"\r\n"));
    if are_whole { Ok(()) } else { Err(Refusal::BAD_REQUEST) }
}

/// Origin-form, absolute-form and, for OPTIONS, the asterisk (RFC 9112, section 3.2).
fn split_target(method: Method, target: &str) -> Result<(&str, Option<&str>), Refusal> {
    // A fragment is never sent, and a URI has ASCII characters only.
    if !target.bytes().all(|byte| byte.is_ascii() && byte != b'#') {
        return Err(Refusal::BAD_REQUEST);
    }
    let origin = if target.starts_with('/') {
        target
    } else if target == "*" && method == Method::Options {
        return Ok(("*", None));
    } else {
        let after_scheme = strip_scheme(target).ok_or(Refusal::BAD_REQUEST)?;
        let (authority, rest) = after_scheme.split_at(after_scheme.find(['/', '?']).unwrap_or(after_scheme.len()));
        if authority.is_empty() || !is_authority(authority.as_bytes()) {
            return Err(Refusal::BAD_REQUEST);
        }
        // An absolute-form without a path means "/".
        match rest.strip_prefix('?') {
            Some(query) => return Ok(("/", Some(query))),
            None if rest.is_empty() => return Ok(("/", None)),
            None => rest,
        }
    };
    match origin.bytes().position(|byte| byte == b'?') {
        Some(at) => Ok((&origin[..at], Some(&origin[at + 1..]))),
        None => Ok((origin, None)),
    }
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

/// Whether a field has this name, given in lower case. The length is known when this is compiled, so that there is no loop:
/// `make instructions` counts 2,875 for the head of a browser's request with `eq_ignore_ascii_case`, 2,642 with this.
fn is_named<const N: usize>(name: &str, lower: &[u8; N]) -> bool {
    // Of the bytes that a name may have, only capital letters become another such byte by this bit.
    let differs = |name: &[u8; N]| name.iter().zip(lower).fold(0, |differs, (a, b)| differs | ((a | 0x20) ^ b));
    <&[u8; N]>::try_from(name.as_bytes()).is_ok_and(|name| differs(name) == 0)
}

/// What the headers said so far, where a second one or a combination matters.
#[derive(Default)]
struct Seen {
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

impl Seen {
    /// One header. The length of the name sorts nearly all out that do not matter here.
    fn take<'b>(&mut self, head: &mut Head<'b>, name: &str, value: &'b [u8]) -> Result<(), Refusal> {
        match name.len() {
            4 if is_named(name, b"host") => self.host(value)?,
            6 if is_named(name, b"accept") => head.accept = head.accept.or(Some(value)),
            6 if is_named(name, b"expect") => expect(head, value)?,
            7 if is_named(name, b"referer") => head.referrer = head.referrer.or(Some(value)),
            9 if is_named(name, b"x-real-ip") => head.x_real_ip = head.x_real_ip.or(Some(value)),
            10 if is_named(name, b"connection") => self.connection(value),
            10 if is_named(name, b"user-agent") => head.user_agent = head.user_agent.or(Some(value)),
            12 if is_named(name, b"content-type") => head.content_type = head.content_type.or(Some(value)),
            12 if is_named(name, b"x-request-id") => head.x_request_id = head.x_request_id.or(Some(value)),
            14 if is_named(name, b"content-length") => self.content_length(value)?,
            15 if is_named(name, b"x-forwarded-for") => head.x_forwarded_for = Some(value),
            17 if is_named(name, b"transfer-encoding") => self.transfer_encoding(value)?,
            _ => {}
        }
        Ok(())
    }

    /// RFC 9112, section 3.2: exactly one, and no list.
    fn host(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.host || !is_authority(value) {
            return Err(Refusal::BAD_REQUEST);
        }
        self.host = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112, section 6.3, rule 5: digits only. A second one is refused even if it says the same.
    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.length.is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Refusal::BAD_REQUEST);
        }
        let digits = std::str::from_utf8(value).map_err(|_| Refusal::BAD_REQUEST)?;
        self.length = Some(digits.parse().map_err(|_| Refusal::BAD_REQUEST)?);
        Ok(())
    }

    /// RFC 9112, section 6.1: `chunked`, once and alone, is the only coding spoken here.
    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if self.chunked {
            return Err(Refusal::BAD_REQUEST);
        }
        if !value.eq_ignore_ascii_case(b"chunked") {
            let last = value.rsplit(|&b| b == b',').next().unwrap_or(b"").trim_ascii();
            let is_chunked_last = last.eq_ignore_ascii_case(b"chunked");
            // A coding that we don't know, alone or in front of chunked: 501. Chunked not last, mangled or empty: the
            // end of the body can't be known (section 6.3, rule 4).
            let is_unknown = is_chunked_last || (is_token(last) && !contains_ignore_case(value, b"chunked"));
            return Err(if is_unknown { Refusal::NOT_IMPLEMENTED } else { Refusal::BAD_REQUEST });
        }
        self.chunked = true;
        Ok(())
    }

    /// What holds for the head as a whole.
    fn conclude(self, head: &mut Head<'_>) -> Result<(), Refusal> {
        if head.is_http11 && !self.host {
            return Err(Refusal::BAD_REQUEST);
        }
        if self.chunked && (self.length.is_some() || !head.is_http11) {
            return Err(Refusal::BAD_REQUEST);
        }
        head.framing = if self.chunked { Framing::Chunked } else { Framing::Length(self.length.unwrap_or(0)) };
        head.keep_alive = !self.close && (head.is_http11 || self.keep_alive);
        // RFC 9110, section 10.1.1: a 1.0 client's expectation is ignored, and one without a body is none.
        head.expects_continue &= head.is_http11 && head.framing != Framing::Length(0);
        Ok(())
    }
}

/// The bytes that host names are made of. A table: looked up for each byte of each `Host`.
static NAME_BYTES: [bool; 256] = {
    let (mut table, signs, mut at) = ([false; 256], b"-._~%!$&'()*+;=", 0);
    while at < table.len() {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < signs.len() {
        table[signs[at] as usize] = true;
        at += 1;
    }
    table
};

/// `host[:port]` (RFC 9110, section 4.2.1), or nothing: a name, an IPv4 address, or an IPv6 address in brackets; no user, no
/// list. Commas, which a name might have, are refused: they are what a proxy joins two of these with.
fn is_authority(value: &[u8]) -> bool {
    let is_name_byte = |b: u8| NAME_BYTES[usize::from(b)];
    let host_bytes = match value {
        [b'[', rest @ ..] => {
            let inner = rest.iter().position(|&b| b == b']').unwrap_or(0);
            if inner == 0 || !rest[..inner].iter().all(|&b| b == b':' || is_name_byte(b)) {
                return false;
            }
            inner + 2
        }
        _ => value.iter().position(|&b| !is_name_byte(b)).unwrap_or(value.len()),
    };
    match &value[host_bytes..] {
        [] => true,
        [b':', port @ ..] => host_bytes > 0 && port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn expect(head: &mut Head<'_>, value: &[u8]) -> Result<(), Refusal> {
    if !value.eq_ignore_ascii_case(b"100-continue") {
        return Err(Refusal::EXPECTATION_FAILED);
    }
    head.expects_continue = true;
    Ok(())
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

/// What names are made of (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn contains_ignore_case(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

#[cfg(test)]
mod tests {
    use super::*;

    const H: &str = "Host: a\r\n";

    /// Parses whole and, first, cut at every byte: a cut head is partial or refused for the same reason.
    fn check(input: &str, expect: Result<(), Refusal>) -> Option<Head<'_>> {
        let bytes = input.as_bytes();
        for cut in 0..bytes.len() {
            match parse(&bytes[..cut]) {
                Ok(Parsed::Partial) => {}
                Ok(Parsed::Complete(head)) => panic!("{input:?} is complete at {cut}: {head:?}"),
                Err(refusal) => assert_eq!(Err(refusal), expect, "{input:?} cut at {cut}"),
            }
        }
        match (parse(bytes), expect) {
            (Ok(Parsed::Complete(head)), Ok(())) => {
                assert_eq!(head.bytes, bytes.len());
                Some(head)
            }
            (Err(refusal), Err(expect)) => {
                assert_eq!(refusal, expect, "{input:?}");
                None
            }
            (got, expect) => panic!("{input:?}: {got:?}, not {expect:?}"),
        }
    }

    fn good(line: &str, headers: &str) -> Head<'static> {
        check(String::leak(format!("{line}\r\n{headers}\r\n")), Ok(())).unwrap()
    }

    fn bad(line: &str, headers: &str, refusal: Refusal) {
        assert!(check(String::leak(format!("{line}\r\n{headers}\r\n")), Err(refusal)).is_none());
    }

    #[test]
    fn targets() {
        let check = |target: &str, path: &str, query: Option<&str>| {
            let head = good(&format!("GET {target} HTTP/1.1"), H);
            assert_eq!((head.path, head.query), (path, query), "{target}");
        };
        check("/", "/", None);
        check("/abc?x=1&y", "/abc", Some("x=1&y"));
        check("/a?", "/a", Some(""));
        check("http://h/p?q", "/p", Some("q"));
        check("HTTP://h:80", "/", None);
        check("http://h?q", "/", Some("q"));
        check("/a%2Fb", "/a%2Fb", None);
        assert_eq!(good("OPTIONS * HTTP/1.1", H).path, "*");
        for target in ["*", "abc", "h:80", "ftp://h/", "http:///p", "http://", "/a#b"] {
            bad(&format!("GET {target} HTTP/1.1"), H, Refusal::BAD_REQUEST);
        }
    }

    #[test]
    fn methods() {
        let check = |token: &str, method| assert_eq!(good(&format!("{token} / HTTP/1.1"), H).method, method);
        check("GET", Method::Get);
        check("HEAD", Method::Head);
        check("POST", Method::Post);
        check("PUT", Method::Put);
        check("DELETE", Method::Delete);
        check("OPTIONS", Method::Options);
        check("PATCH", Method::Other);
        check("get", Method::Other);
    }

    #[test]
    fn framing() {
        let check = |headers: &str, framing| {
            assert_eq!(good("POST / HTTP/1.1", &format!("{H}{headers}\r\n")).framing, framing, "{headers}");
        };
        check("X: y", Framing::Length(0));
        check("Content-Length: 0", Framing::Length(0));
        check("content-length:  12  ", Framing::Length(12));
        check("Transfer-Encoding: chunked", Framing::Chunked);
        check("transfer-encoding: CHUNKED", Framing::Chunked);
        let refuse = |headers: &str, refusal| bad("POST / HTTP/1.1", &format!("{H}{headers}\r\n"), refusal);
        for headers in [
            "Content-Length: ",
            "Content-Length: +1",
            "Content-Length: -1",
            "Content-Length: 1a",
            "Content-Length: 0x1",
            "Content-Length: 1, 1",
            "Content-Length: 99999999999999999999",
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nContent-Length: 2",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked, identity",
            "Transfer-Encoding: xchunked",
            "Transfer-Encoding: ",
            "Transfer-Encoding: \"chunked\"",
        ] {
            refuse(headers, Refusal::BAD_REQUEST);
        }
        for headers in ["Transfer-Encoding: gzip, chunked", "Transfer-Encoding: gzip", "Transfer-Encoding: identity"] {
            refuse(headers, Refusal::NOT_IMPLEMENTED);
        }
        bad("POST / HTTP/1.0", "Transfer-Encoding: chunked\r\n", Refusal::BAD_REQUEST);
    }

    #[test]
    fn hosts() {
        assert!(good("GET / HTTP/1.0", "").path == "/");
        for headers in
            ["", "Host: a\r\nHost: a\r\n", "Host: a, b\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: u@h\r\n"]
        {
            bad("GET / HTTP/1.1", headers, Refusal::BAD_REQUEST);
        }
        good("GET / HTTP/1.1", "Host:\r\n");
        good("GET / HTTP/1.1", "Host: [::1]:8080\r\n");
    }

    #[test]
    fn persistence() {
        let check = |version: &str, headers: &str, keep_alive| {
            let head = good(&format!("GET / {version}"), &format!("{H}{headers}"));
            assert_eq!(head.keep_alive, keep_alive, "{version} {headers}");
        };
        check("HTTP/1.1", "", true);
        check("HTTP/1.1", "Connection: close\r\n", false);
        check("HTTP/1.1", "Connection: foo, Close\r\n", false);
        check("HTTP/1.1", "Connection: keep-alive\r\n", true);
        check("HTTP/1.1", "Connection: keep-alive\r\nConnection: close\r\n", false);
        check("HTTP/1.0", "", false);
        check("HTTP/1.0", "Connection: Keep-Alive\r\n", true);
    }

    #[test]
    fn expectations() {
        let head = good("POST / HTTP/1.1", &format!("{H}Expect: 100-Continue\r\nContent-Length: 1\r\n"));
        assert!(head.expects_continue);
        assert!(!good("POST / HTTP/1.1", &format!("{H}Expect: 100-continue\r\n")).expects_continue);
        assert!(!good("POST / HTTP/1.0", "Expect: 100-continue\r\nContent-Length: 1\r\n").expects_continue);
        bad("POST / HTTP/1.1", &format!("{H}Expect: tea\r\n"), Refusal::EXPECTATION_FAILED);
    }

    #[test]
    fn bad_syntax() {
        for (line, headers) in [
            ("GET /", H),
            ("GET  / HTTP/1.1", H),
            ("G@T / HTTP/1.1", H),
            ("GET / HTTP/1.1 ", H),
            ("GET / HTTX/1.1", H),
            ("GET / http/1.1", H),
            ("GET /\u{1} HTTP/1.1", H),
            ("GET / HTTP/1.1", "Host : a\r\n"),
            ("GET / HTTP/1.1", "Host: a\r\n b\r\n"),
            ("GET / HTTP/1.1", "Host: a\r\nX: \0\r\n"),
            ("GET / HTTP/1.1", "Host: a\r\n: x\r\n"),
            ("GET / HTTP/1.1", "Host: a\r\nnocolon\r\n"),
        ] {
            bad(line, headers, Refusal::BAD_REQUEST);
        }
        bad("GET / HTTP/2.0", H, Refusal::VERSION_NOT_SUPPORTED);
        bad("GET /a b HTTP/1.1", H, Refusal::BAD_REQUEST);
        bad("GET / HTTP/1.2", H, Refusal::VERSION_NOT_SUPPORTED);
    }

    #[test]
    fn sizes() {
        let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(TARGET_BYTES_MAX));
        assert_eq!(parse(format!("{long}{H}\r\n").as_bytes()).unwrap_err(), Refusal::URI_TOO_LONG);
        assert_eq!(parse(&[b'a'; TARGET_BYTES_MAX + 30]).unwrap_err(), Refusal::URI_TOO_LONG);
        let headers = "X: y\r\n".repeat(HEADERS_MAX);
        let many = format!("GET / HTTP/1.1\r\n{H}{headers}\r\n");
        assert_eq!(parse(many.as_bytes()).unwrap_err(), Refusal::HEADERS_TOO_LARGE);
        let wide = format!("GET / HTTP/1.1\r\n{H}X: {}\r\n\r\n", "y".repeat(HEAD_BYTES_MAX));
        assert_eq!(parse(&wide.as_bytes()[..HEAD_BYTES_MAX]).unwrap_err(), Refusal::HEADERS_TOO_LARGE);
        assert_eq!(parse(wide.as_bytes()).unwrap_err(), Refusal::HEADERS_TOO_LARGE);
    }

    #[test]
    fn known_headers() {
        let head = good(
            "GET / HTTP/1.1",
            "Host: a\r\nUser-Agent: u\r\nReferer: r\r\nreferer: s\r\nX-Real-IP: 1\r\nX-Forwarded-For: 2\r\nx-forwarded-for: 3\r\nContent-Type: t\r\nAccept: a\r\n",
        );
        assert_eq!(head.user_agent, Some(&b"u"[..]));
        assert_eq!(head.referrer, Some(&b"r"[..]));
        assert_eq!(head.x_real_ip, Some(&b"1"[..]));
        assert_eq!(head.x_forwarded_for, Some(&b"3"[..]));
        assert_eq!(head.content_type, Some(&b"t"[..]));
        assert_eq!(head.accept, Some(&b"a"[..]));
    }
}
