//! The head of a request: its line, its headers, and what they say of the body. Pure.
//!
//! One pass over the bytes: each header is understood as soon as its line is split, and kept nowhere else. Whatever is
//! ambiguous is refused (RFC 9112, section 11.2: request smuggling lives on servers that guess). Bad syntax is refused where
//! it is met. A bad meaning is noted, and refused when the head is whole: bad syntax behind it goes first, and so do bounds.

use std::net::SocketAddr;

use super::response::Refusal;
use crate::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

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

    fn parse(token: &[u8]) -> Self {
        match token {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"OPTIONS" => Self::Options,
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'b> {
    /// The head is not complete.
    Partial,
    /// The head.
    Complete(Head<'b>),
}

/// Why a head is not read to its end.
enum Stop {
    /// The bytes end before it does.
    Open,
    /// Its syntax is bad.
    Syntax,
    /// The version is none of ours; why, the rest of its line tells.
    Version,
    /// It has too many headers.
    Headers,
}

/// Reads the head that `bytes` begin with.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Refusal> {
    let mut seen = Seen::default();
    let mut head = Head {
        bytes: 0,
        method: Method::Other,
        path: "",
        query: None,
        is_http11: false,
        keep_alive: false,
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
    match read(bytes, &mut head, &mut seen) {
        Ok(()) => seen.conclude(&mut head).map(|()| Parsed::Complete(head)),
        Err(Stop::Open) => partial(bytes),
        Err(Stop::Syntax) => Err(Refusal::BAD_REQUEST),
        Err(Stop::Version) => version_refusal(bytes).map_or_else(|| partial(bytes), Err),
        Err(Stop::Headers) => Err(Refusal::HEADERS_TOO_LARGE),
    }
}

/// Fills `head` and `seen` line by line. Inlined, so that the two lie in one place, and nothing is copied but the result.
#[inline(always)]
fn read<'b>(bytes: &'b [u8], head: &mut Head<'b>, seen: &mut Seen) -> Result<(), Stop> {
    let mut rest = bytes;
    // Empty lines before a request are ignored (RFC 9112, section 2.2).
    while let [b'\r' | b'\n', ..] = rest {
        rest = seen.line_end(rest)?;
    }
    let target;
    (head.method, rest) = method(rest)?;
    (target, rest) = Target::read(rest)?;
    (head.is_http11, rest) = version(rest)?;
    rest = seen.line_end(rest)?;
    seen.target_bytes = target.text.len();
    match target.split(head.method) {
        Ok(parts) => (head.path, head.query) = parts,
        Err(refusal) => seen.refuse(refusal),
    }
    // A line that begins with a control character is the empty one, or none at all.
    while !matches!(rest, [..b' ', ..]) {
        let (field, next) = Field::read(rest, seen)?;
        if seen.headers == HEADERS_MAX {
            return Err(Stop::Headers);
        }
        rest = next;
        seen.headers += 1;
        seen.take(head, field.name, field.value);
    }
    rest = seen.line_end(rest)?;
    head.bytes = bytes.len() - rest.len();
    Ok(())
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

/// The method, and what follows its blank.
fn method(line: &[u8]) -> Result<(Method, &[u8]), Stop> {
    // Nearly all requests.
    if let [b'G', b'E', b'T', b' ', rest @ ..] = line {
        return Ok((Method::Get, rest));
    }
    let (token, rest) = line.split_at(count(line, &TOKEN_BYTES));
    match rest {
        [b' ', rest @ ..] if !token.is_empty() => Ok((Method::parse(token), rest)),
        [] => Err(Stop::Open),
        _ => Err(Stop::Syntax),
    }
}

/// A target as it stands in the line; what it means, [`Target::split`] tells.
struct Target<'b> {
    text: &'b str,
    /// Where its first `?` is.
    query_at: Option<usize>,
    /// Whether all its bytes are a URI's: ASCII characters, and no fragment, which is never sent.
    is_uri: bool,
}

impl<'b> Target<'b> {
    /// The target, and what follows its blank.
    fn read(line: &'b [u8]) -> Result<(Self, &'b [u8]), Stop> {
        let (mut at, mut query_at, mut is_uri) = (0, None, true);
        let rest = loop {
            at += count(&line[at..], &TARGET_BYTES);
            match &line[at..] {
                [b' ', rest @ ..] if at > 0 => break rest,
                [b'?', ..] => query_at = query_at.or(Some(at)),
                [b'#' | 0x80.., ..] => is_uri = false,
                [] => return Err(Stop::Open),
                _ => return Err(Stop::Syntax),
            }
            at += 1;
        };
        let text =
            if is_uri { ascii(&line[..at]) } else { std::str::from_utf8(&line[..at]).map_err(|_| Stop::Syntax)? };
        Ok((Self { text, query_at, is_uri }, rest))
    }

    /// Path and query of origin-form, absolute-form and, for OPTIONS, the asterisk (RFC 9112, section 3.2).
    fn split(&self, method: Method) -> Result<(&'b str, Option<&'b str>), Refusal> {
        if !self.is_uri {
            return Err(Refusal::BAD_REQUEST);
        }
        match self.query_at {
            _ if !self.text.starts_with('/') => split_other(method, self.text),
            Some(at) => Ok((&self.text[..at], Some(&self.text[at + 1..]))),
            None => Ok((self.text, None)),
        }
    }
}

/// The text of bytes that are all in [`TARGET_BYTES`], or a `?`. To look for UTF-8 in them would be to look at each a second time
/// (109 instructions of `head.parse`, `make instructions`).
#[allow(unsafe_code, reason = "there is no safe way to say that bytes are ASCII")]
fn ascii(bytes: &[u8]) -> &str {
    debug_assert!(bytes.is_ascii());
    // SAFETY: whoever makes such a table asserts that its bytes are ASCII, and `?` is, too. ASCII is UTF-8.
    unsafe { std::str::from_utf8_unchecked(bytes) }
}

/// Path and query of a target that is not in origin-form.
fn split_other(method: Method, target: &str) -> Result<(&str, Option<&str>), Refusal> {
    if target == "*" && method == Method::Options {
        return Ok(("*", None));
    }
    let after_scheme = strip_scheme(target).ok_or(Refusal::BAD_REQUEST)?;
    let (authority, rest) = after_scheme.split_at(after_scheme.find(['/', '?']).unwrap_or(after_scheme.len()));
    if authority.is_empty() || !is_authority(authority.as_bytes()) {
        return Err(Refusal::BAD_REQUEST);
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    // An absolute-form without a path means "/".
    Ok((if path.is_empty() { "/" } else { path }, query))
}

fn strip_scheme(target: &str) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    (scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")).then_some(rest)
}

/// Whether it is HTTP/1.1 (else 1.0), and what follows. No patterns: these are compared byte by byte.
fn version(line: &[u8]) -> Result<(bool, &[u8]), Stop> {
    let Some((version, rest)) = line.split_first_chunk::<8>() else {
        return Err(if b"HTTP/1.".starts_with(line) { Stop::Open } else { Stop::Version });
    };
    if version == b"HTTP/1.1" {
        Ok((true, rest))
    } else if version == b"HTTP/1.0" {
        Ok((false, rest))
    } else {
        Err(Stop::Version)
    }
}

/// A header (RFC 9112, section 5); its value is without the blanks around it.
struct Field<'b> {
    name: &'b [u8],
    value: &'b [u8],
}

impl<'b> Field<'b> {
    /// The header, and the next line.
    #[inline(always)]
    fn read(line: &'b [u8], seen: &mut Seen) -> Result<(Self, &'b [u8]), Stop> {
        let (name, rest) = line.split_at(count(line, &TOKEN_BYTES));
        let rest = match rest {
            [b':', b' ', rest @ ..] | [b':', rest @ ..] if !name.is_empty() => rest,
            [] => return Err(Stop::Open),
            _ => return Err(Stop::Syntax),
        };
        let mut value_bytes = printable_bytes(rest);
        let next = loop {
            match &rest[value_bytes..] {
                [b'\r', b'\n', next @ ..] => break next,
                // HTAB, and what is beyond ASCII: part of a value, but rare.
                [b'\t' | 0x80.., more @ ..] => value_bytes += 1 + printable_bytes(more),
                end => break seen.line_end(end)?,
            }
        };
        let value = match &rest[..value_bytes] {
            value @ ([..=b' ', ..] | [.., ..=b' ']) => trim(value),
            value => value,
        };
        Ok((Self { name, value }, next))
    }
}

/// Without the blanks around it, of which one was left out already.
#[cold]
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether a field has this name, given in lower case. Its two ends are compared, each as one number; they overlap. The
/// length is known when this is compiled, so that no loop is left: `make instructions` counts a hundred fewer for the head of
/// a browser's request than with one over the bytes.
fn is_named<const N: usize>(name: &[u8], lower: &[u8; N]) -> bool {
    name.len() == N
        && match N {
            4..8 => ends_are::<4>(name, lower),
            8..=16 => ends_are::<8>(name, lower),
            _ => ends_are::<16>(name, lower),
        }
}

fn ends_are<const BYTES: usize>(name: &[u8], lower: &[u8]) -> bool {
    let number = |bytes: &[u8]| {
        let mut number = [0; 16];
        number[..BYTES].copy_from_slice(&bytes[..BYTES]);
        u128::from_le_bytes(number)
    };
    // Of the bytes that a name may have, only capital letters become another such byte by this bit.
    let small = number(&[0x20; BYTES]);
    let end = name.len() - BYTES;
    (number(name) | small == number(lower)) & (number(&name[end..]) | small == number(&lower[end..]))
}

/// What the lines said so far, where a second one or a combination matters.
#[derive(Default)]
struct Seen {
    /// The first bad meaning; a lone LF goes before all others.
    refusal: Option<Refusal>,
    target_bytes: usize,
    headers: usize,
    host: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
    keep_alive: bool,
}

// What is called for single headers is not inlined, and neither is `take`: else registers are saved for each header, and the
// fields above moved about (`make instructions` counts a hundred more for the head of a browser's request).
impl Seen {
    fn refuse(&mut self, refusal: Refusal) {
        self.refusal.get_or_insert(refusal);
    }

    /// What follows the end of a line. A server may take a lone LF for one (RFC 9112, section 2.2). Whoever forwards the
    /// request may take it for something else, so it is refused.
    fn line_end<'b>(&mut self, rest: &'b [u8]) -> Result<&'b [u8], Stop> {
        match rest {
            [b'\r', b'\n', rest @ ..] => Ok(rest),
            [b'\n', rest @ ..] => {
                self.refusal = Some(Refusal::BAD_REQUEST);
                Ok(rest)
            }
            [] | [b'\r'] => Err(Stop::Open),
            _ => Err(Stop::Syntax),
        }
    }

    /// One header. The length of the name sorts nearly all out that do not matter here.
    #[inline(never)]
    fn take<'b>(&mut self, head: &mut Head<'b>, name: &[u8], value: &'b [u8]) {
        match name.len() {
            4 if is_named(name, b"host") => self.host(value),
            6 if is_named(name, b"accept") => head.accept = head.accept.or(Some(value)),
            6 if is_named(name, b"expect") => self.expect(head, value),
            7 if is_named(name, b"referer") => head.referrer = head.referrer.or(Some(value)),
            9 if is_named(name, b"x-real-ip") => head.x_real_ip = head.x_real_ip.or(Some(value)),
            10 if is_named(name, b"connection") => self.connection(value),
            10 if is_named(name, b"user-agent") => head.user_agent = head.user_agent.or(Some(value)),
            12 if is_named(name, b"content-type") => head.content_type = head.content_type.or(Some(value)),
            12 if is_named(name, b"x-request-id") => head.x_request_id = head.x_request_id.or(Some(value)),
            14 if is_named(name, b"content-length") => self.content_length(value),
            15 if is_named(name, b"x-forwarded-for") => head.x_forwarded_for = Some(value),
            17 if is_named(name, b"transfer-encoding") => self.transfer_encoding(value),
            _ => {}
        }
    }

    /// RFC 9112, section 3.2: exactly one, and no list.
    #[inline(never)]
    fn host(&mut self, value: &[u8]) {
        if self.host || !is_authority(value) {
            self.refuse(Refusal::BAD_REQUEST);
        }
        self.host = true;
    }

    #[inline(never)]
    fn expect(&mut self, head: &mut Head<'_>, value: &[u8]) {
        if !value.eq_ignore_ascii_case(b"100-continue") {
            self.refuse(Refusal::EXPECTATION_FAILED);
        }
        head.expects_continue = true;
    }

    #[inline(never)]
    fn connection(&mut self, value: &[u8]) {
        for option in value.split(|&b| b == b',').map(<[u8]>::trim_ascii) {
            self.close |= option.eq_ignore_ascii_case(b"close");
            self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }

    /// RFC 9112, section 6.3, rule 5: digits only. A second one is refused even if it says the same.
    #[inline(never)]
    fn content_length(&mut self, value: &[u8]) {
        match digits(value) {
            Some(length) if self.length.is_none() => self.length = Some(length),
            _ => self.refuse(Refusal::BAD_REQUEST),
        }
    }

    /// RFC 9112, section 6.1: `chunked`, once and alone, is the only coding spoken here.
    #[inline(never)]
    fn transfer_encoding(&mut self, value: &[u8]) {
        if self.chunked {
            self.refuse(Refusal::BAD_REQUEST);
        } else if !value.eq_ignore_ascii_case(b"chunked") {
            let last = value.rsplit(|&b| b == b',').next().unwrap_or(b"").trim_ascii();
            let is_chunked_last = last.eq_ignore_ascii_case(b"chunked");
            // A coding that we don't know, alone or in front of chunked: 501. Chunked not last, mangled or empty: the
            // end of the body can't be known (section 6.3, rule 4).
            let is_unknown = is_chunked_last || (is_token(last) && !contains_ignore_case(value, b"chunked"));
            self.refuse(if is_unknown { Refusal::NOT_IMPLEMENTED } else { Refusal::BAD_REQUEST });
        }
        self.chunked = true;
    }

    /// What holds for the head as a whole.
    fn conclude(self, head: &mut Head<'_>) -> Result<(), Refusal> {
        if self.target_bytes > TARGET_BYTES_MAX {
            return Err(Refusal::URI_TOO_LONG);
        }
        if head.bytes > HEAD_BYTES_MAX {
            return Err(Refusal::HEADERS_TOO_LARGE); // it came together with others, in a buffer that a body had made larger
        }
        if let Some(refusal) = self.refusal {
            return Err(refusal);
        }
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

/// `host[:port]` (RFC 9110, section 4.2.1), or nothing: a name, an IPv4 address, or an IPv6 address in brackets; no user, no
/// list. Commas, which a name might have, are refused: they are what a proxy joins two of these with.
fn is_authority(value: &[u8]) -> bool {
    let host_bytes = match value {
        [b'[', rest @ ..] => {
            let inner = rest.iter().position(|&b| b == b']').unwrap_or(0);
            if inner == 0 || !rest[..inner].iter().all(|&b| b == b':' || NAME_BYTES[usize::from(b)]) {
                return false;
            }
            inner + 2
        }
        _ => count(value, &NAME_BYTES),
    };
    match &value[host_bytes..] {
        [] => true,
        [b':', port @ ..] => host_bytes > 0 && port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}

fn digits(value: &[u8]) -> Option<u64> {
    let are_digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    are_digits.then(|| std::str::from_utf8(value).ok()?.parse().ok())?
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_token_byte(b))
}

/// Whether names are made of it (RFC 9110, section 5.6.2).
pub(super) fn is_token_byte(byte: u8) -> bool {
    TOKEN_BYTES[usize::from(byte)]
}

// Tables: looked up for each byte of methods, targets, names and hosts.

/// The bytes that names are made of.
static TOKEN_BYTES: [bool; 256] = alphanumeric_and(b"!#$%&'*+-.^_`|~");

/// The bytes that host names are made of.
static NAME_BYTES: [bool; 256] = alphanumeric_and(b"-._~%!$&'()*+;=");

/// The printable ASCII characters but `?` and `#`, which divide a target.
static TARGET_BYTES: [bool; 256] = alphanumeric_and(b"!\"$%&'()*+,-./:;<=>@[\\]^_`{|}~");

const fn alphanumeric_and(signs: &[u8]) -> [bool; 256] {
    let (mut table, mut at) = ([false; 256], 0);
    while at < table.len() {
        table[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < signs.len() {
        assert!(signs[at].is_ascii()); // at compile time
        table[signs[at] as usize] = true;
        at += 1;
    }
    table
}

fn contains_ignore_case(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window.eq_ignore_ascii_case(needle))
}

/// How many bytes go before the first that is not in the table. By eights, which the compiler unrolls: three instructions a
/// byte, in place of six.
#[inline(never)] // one for all that is looked up
fn count(bytes: &[u8], table: &[bool; 256]) -> usize {
    let is_other = |&byte: &u8| !table[usize::from(byte)];
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<8>() {
        if let Some(at) = block.iter().position(is_other) {
            return bytes.len() - rest.len() + at;
        }
        rest = after;
    }
    bytes.len() - rest.len() + rest.iter().position(is_other).unwrap_or(rest.len())
}

/// How many bytes go before the first that is no printable ASCII character. Values are most of a head: of a long one sixteen
/// bytes are looked at together, in twelve instructions, and then eight, which also tell the place.
#[inline(never)]
fn printable_bytes(bytes: &[u8]) -> usize {
    let is_printable = |byte: &u8| matches!(byte, b' '..=b'~');
    let mut rest = bytes;
    // Not `all`, which would look at one after the other.
    while let Some((block, after)) = rest.split_first_chunk::<16>()
        && block.iter().fold(true, |are, byte| are & is_printable(byte))
    {
        rest = after;
    }
    while let Some((word, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        // The high bit of each byte that is none. The first is right, and the others are not needed: only such a byte
        // carries or borrows.
        let others = (word | word.wrapping_add(each(1)) | word.wrapping_sub(each(b' '))) & each(0x80);
        if others != 0 {
            return bytes.len() - rest.len() + others.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    bytes.len() - rest.len() + rest.iter().position(|byte| !is_printable(byte)).unwrap_or(rest.len())
}

/// A word of eight times this byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
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

    /// Whether httparse finds nothing wrong, be it complete or not. `None`: a version that is none, which we call so only when
    /// its line is complete.
    fn is_syntax(bytes: &[u8]) -> Option<bool> {
        match httparse::Request::new(&mut [httparse::EMPTY_HEADER; HEADERS_MAX]).parse(bytes) {
            Err(httparse::Error::Version) => None,
            parsed => Some(parsed.is_ok()),
        }
    }

    /// `make` puts a word into a head; each byte is tried at each of the places that words and blocks of bytes have.
    fn check_bytes(make: impl Fn(&[u8]) -> Vec<u8>, is_allowed: impl Fn(u8) -> bool) {
        for (byte, before) in
            (0..=u8::MAX).flat_map(|byte| [0, 1, 6, 7, 8, 14, 15, 16, 33].map(|before| (byte, before)))
        {
            let word = [&b"a".repeat(before)[..], &[byte], b"zz"].concat();
            let input = make(&word);
            let what = String::from_utf8_lossy(&input);
            if byte == b'\n' {
                assert_eq!(parse(&input), Err(Refusal::BAD_REQUEST), "{what:?}"); // httparse takes it for the end of a line
                continue;
            }
            for cut in 0..input.len() {
                let parsed = parse(&input[..cut]);
                assert!(!matches!(parsed, Ok(Parsed::Complete(_))), "{what:?} cut at {cut}");
                assert_eq!(parsed.is_ok(), is_syntax(&input[..cut]).unwrap_or(parsed.is_ok()), "{what:?} cut at {cut}");
            }
            assert_eq!(parse(&input).is_ok(), is_syntax(&input) == Some(true) && is_allowed(byte), "{what:?}");
        }
    }

    #[test]
    fn every_byte_in_a_method() {
        check_bytes(|word| [word, b" / HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), |_| true);
    }

    #[test]
    fn every_byte_in_a_target() {
        check_bytes(|word| [b"GET /", word, b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat(), |byte| byte != b'#');
    }

    #[test]
    fn every_byte_in_a_name() {
        check_bytes(|word| [b"GET / HTTP/1.1\r\nHost: a\r\n", word, b": y\r\n\r\n"].concat(), |_| true);
    }

    #[test]
    fn every_byte_in_a_value() {
        check_bytes(|word| [b"GET / HTTP/1.1\r\nHost: a\r\nX:", word, b"\r\n\r\n"].concat(), |_| true);
    }

    #[test]
    fn values_without_the_blanks_around_them() {
        for (field, value) in [
            ("Accept:", ""),
            ("Accept: ", ""),
            ("Accept: \t  ", ""),
            ("Accept:a", "a"),
            ("Accept:\ta\t", "a"),
            ("Accept:  \t a b\tc \t ", "a b\tc"),
            ("Accept: a, ü, and more than one block of bytes, öäü ", "a, ü, and more than one block of bytes, öäü"),
        ] {
            let head = good("GET / HTTP/1.1", &format!("{H}{field}\r\n"));
            assert_eq!(head.accept, Some(value.as_bytes()), "{field:?}");
        }
    }

    #[test]
    fn names_in_any_case() {
        for name in ["content-type", "Content-Type", "CONTENT-TYPE", "cONTENT-tYPE"] {
            assert!(good("GET / HTTP/1.1", &format!("{H}{name}: t\r\n")).content_type.is_some(), "{name}");
        }
        for name in ["content_type", "content-typ", "content-typo", "xontent-type", "contentxtype", "content-typ3"] {
            assert!(good("GET / HTTP/1.1", &format!("{H}{name}: t\r\n")).content_type.is_none(), "{name}");
        }
        for name in ["transfer-encoding", "Transfer-Encoding", "TRANSFER-ENCODING"] {
            bad("GET / HTTP/1.1", &format!("{H}{name}: gzip\r\n"), Refusal::NOT_IMPLEMENTED);
        }
        // The byte in the middle is in neither of the ends that are compared, if these do not overlap.
        for (at, _) in "transfer-encoding".char_indices() {
            let mut other = "transfer-encoding".to_owned();
            other.replace_range(at..=at, "0");
            good("GET / HTTP/1.1", &format!("{H}{other}: gzip\r\n"));
        }
    }

    #[test]
    fn lone_line_feeds() {
        let whole = "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n";
        check(whole, Ok(()));
        for (at, _) in whole.match_indices('\r') {
            let mut input = whole.to_owned();
            input.remove(at);
            assert!(check(&input, Err(Refusal::BAD_REQUEST)).is_none());
        }
    }

    /// Syntax goes before bounds, these before lone LFs, these before the target, this before what a header means.
    #[test]
    fn which_refusal_of_several() {
        let long = format!("GET /{} HTTP/1.1", "a".repeat(TARGET_BYTES_MAX));
        let wide = format!("X: {}\r\n", "y".repeat(HEAD_BYTES_MAX));
        let tea = "Expect: tea\r\n";
        let refuse = |head: String, refusal| assert_eq!(parse(head.as_bytes()), Err(refusal), "{head}");
        refuse(format!("{long}\r\n{H}{tea}bad\r\n\r\n"), Refusal::BAD_REQUEST);
        refuse(format!("{long}\n{H}{tea}{wide}\r\n"), Refusal::URI_TOO_LONG);
        refuse(format!("GET # HTTP/1.1\n{H}{tea}{wide}\r\n"), Refusal::HEADERS_TOO_LARGE);
        refuse(format!("GET / HTTP/1.1\r\n{tea}X: y\n\r\n"), Refusal::BAD_REQUEST);
        refuse(format!("GET # HTTP/1.1\r\n{tea}\r\n"), Refusal::BAD_REQUEST);
        refuse(format!("GET / HTTP/1.1\r\n{tea}Host: a b\r\n\r\n"), Refusal::EXPECTATION_FAILED);
        refuse(format!("GET / HTTP/1.1\r\nHost: a b\r\n{tea}\r\n"), Refusal::BAD_REQUEST);
        refuse(format!("GET / HTTP/2.0\r\n{}", "X: y\r\n".repeat(HEADERS_MAX + 1)), Refusal::VERSION_NOT_SUPPORTED);
    }

    #[test]
    fn refused_at_once() {
        for (start, refusal) in [
            ("\u{16}", Refusal::BAD_REQUEST), // what TLS begins with
            ("G\u{0}", Refusal::BAD_REQUEST),
            (" ", Refusal::BAD_REQUEST),
            ("\rG", Refusal::BAD_REQUEST),
            ("GET  ", Refusal::BAD_REQUEST),
            ("GET / HTTP/1.1x", Refusal::BAD_REQUEST),
            ("GET / HTTP/2.0\r", Refusal::VERSION_NOT_SUPPORTED),
            ("GET / HTTP/1.1\r\nHost ", Refusal::BAD_REQUEST),
            ("GET / HTTP/1.1\r\nHost: a\r\n ", Refusal::BAD_REQUEST),
        ] {
            assert_eq!(parse(start.as_bytes()), Err(refusal), "{start:?}");
            assert_eq!(parse(&start.as_bytes()[..start.len() - 1]), Ok(Parsed::Partial), "{start:?}");
        }
    }

    #[test]
    fn as_many_headers_as_allowed() {
        let headers = |count| format!("{H}{}", "X: y\r\n".repeat(count - 1));
        good("GET / HTTP/1.1", &headers(HEADERS_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}", headers(HEADERS_MAX + 1));
        assert_eq!(parse(&many.as_bytes()[..many.len() - 1]), Ok(Parsed::Partial));
        assert_eq!(parse(many.as_bytes()), Err(Refusal::HEADERS_TOO_LARGE));
    }
}
