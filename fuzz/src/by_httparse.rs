//! Heads by another parser, httparse, and the rules of `snip::http::head` on top of it, one after the other: slow, and without
//! a thought to how many bytes are there. Unlike the reference it leaves nothing open, so that all must be equal: each field,
//! each refusal, and when a head is refused that is not complete.

use snip::http::head::{Framing, Head, Method, Parsed};
use snip::http::response::Refusal;
use snip::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TARGET_BYTES_MAX};

/// What `snip::http::head::parse` must say of `bytes`.
pub fn parse(bytes: &[u8]) -> Result<Parsed<'_>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(head_bytes)) => {
            let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
                return Err(Refusal::BAD_REQUEST);
            };
            if target.len() > TARGET_BYTES_MAX {
                return Err(Refusal::URI_TOO_LONG);
            }
            if head_bytes > HEAD_BYTES_MAX {
                return Err(Refusal::HEADERS_TOO_LARGE);
            }
            if has_bare_line_feed(&bytes[..head_bytes]) {
                return Err(Refusal::BAD_REQUEST);
            }
            interpret(head_bytes, method, target, minor == 1, request.headers).map(Parsed::Complete)
        }
        Ok(httparse::Status::Partial) => partial(bytes),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::HEADERS_TOO_LARGE),
        Err(httparse::Error::Version) => version(bytes).map_or_else(|| partial(bytes), Err),
        Err(_) => Err(Refusal::BAD_REQUEST),
    }
}

/// httparse takes a lone LF for the end of a line.
fn has_bare_line_feed(head: &[u8]) -> bool {
    (0..head.len()).any(|at| head[at] == b'\n' && (at == 0 || head[at - 1] != b'\r'))
}

fn partial(bytes: &[u8]) -> Result<Parsed<'static>, Refusal> {
    if !bytes.contains(&b'\n') && bytes.len() > TARGET_BYTES_MAX + "OPTIONS  HTTP/1.1\r\n".len() {
        return Err(Refusal::URI_TOO_LONG);
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return Err(Refusal::HEADERS_TOO_LARGE);
    }
    Ok(Parsed::Partial)
}

/// Another version than ours, or no version; `None` while its line is open.
fn version(bytes: &[u8]) -> Option<Refusal> {
    let start = bytes.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
    let length = bytes[start..].iter().position(|&b| b == b'\r' || b == b'\n')?;
    let words: Vec<_> = bytes[start..start + length].split(|&b| b == b' ').collect();
    let number = match words.as_slice() {
        [_, _, version] => version.strip_prefix(b"HTTP/").unwrap_or(b""),
        _ => b"",
    };
    let is_number = (1..=3).contains(&number.len())
        && number[0].is_ascii_digit()
        && number.iter().all(|&b| b == b'.' || b.is_ascii_digit());
    Some(if is_number { Refusal::VERSION_NOT_SUPPORTED } else { Refusal::BAD_REQUEST })
}

fn interpret<'b>(
    bytes: usize,
    method: &str,
    target: &'b str,
    is_http11: bool,
    headers: &[httparse::Header<'b>],
) -> Result<Head<'b>, Refusal> {
    let (path, query) = split_target(method, target).ok_or(Refusal::BAD_REQUEST)?;
    for (at, header) in headers.iter().enumerate() {
        let is_first = !headers[..at].iter().any(|other| other.name.eq_ignore_ascii_case(header.name));
        judge(header.name, header.value, is_first)?;
    }
    let values = |name: &str| -> Vec<&'b [u8]> {
        headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value).collect()
    };
    let first = |name| values(name).first().copied();
    let (coding, length) = (first("transfer-encoding"), first("content-length"));
    if is_http11 && values("host").is_empty() || coding.is_some() && (length.is_some() || !is_http11) {
        return Err(Refusal::BAD_REQUEST);
    }
    let framing = match (coding, length) {
        (Some(_), _) => Framing::Chunked,
        (None, digits) => Framing::Length(digits.map_or(Some(0), number).ok_or(Refusal::BAD_REQUEST)?),
    };
    let connection = values("connection").join(&b","[..]);
    let asks =
        |what: &str| connection.split(|&b| b == b',').any(|o| o.trim_ascii().eq_ignore_ascii_case(what.as_bytes()));
    Ok(Head {
        bytes,
        method: match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "POST" => Method::Post,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "OPTIONS" => Method::Options,
            _ => Method::Other,
        },
        path,
        query,
        is_http11,
        keep_alive: !asks("close") && (is_http11 || asks("keep-alive")),
        expects_continue: is_http11 && framing != Framing::Length(0) && first("expect").is_some(),
        framing,
        content_type: first("content-type"),
        accept: first("accept"),
        user_agent: first("user-agent"),
        referrer: first("referer"),
        x_request_id: first("x-request-id"),
        x_real_ip: first("x-real-ip"),
        x_forwarded_for: values("x-forwarded-for").last().copied(),
    })
}

/// What is wrong with one header, first of its name or not.
fn judge(name: &str, value: &[u8], is_first: bool) -> Result<(), Refusal> {
    let is_sound = match name.to_ascii_lowercase().as_str() {
        "host" => is_first && is_authority(value),
        "content-length" => is_first && number(value).is_some(),
        "expect" if !value.eq_ignore_ascii_case(b"100-continue") => return Err(Refusal::EXPECTATION_FAILED),
        "transfer-encoding" if is_first && !value.eq_ignore_ascii_case(b"chunked") => {
            return Err(coding_refusal(value));
        }
        "transfer-encoding" => is_first,
        _ => true,
    };
    if is_sound { Ok(()) } else { Err(Refusal::BAD_REQUEST) }
}

/// A coding that is not known, or one behind which the end of the body can't be known.
fn coding_refusal(value: &[u8]) -> Refusal {
    let lower = value.to_ascii_lowercase();
    let last = lower.split(|&b| b == b',').next_back().unwrap_or(b"").trim_ascii();
    let mentions_chunked = lower.windows(7).any(|window| window == b"chunked");
    let is_token =
        !last.is_empty() && last.iter().all(|&b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    if last == b"chunked" || is_token && !mentions_chunked { Refusal::NOT_IMPLEMENTED } else { Refusal::BAD_REQUEST }
}

fn number(digits: &[u8]) -> Option<u64> {
    let are_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if are_digits { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

fn split_target<'b>(method: &str, target: &'b str) -> Option<(&'b str, Option<&'b str>)> {
    if !target.is_ascii() || target.contains('#') {
        return None;
    }
    if target == "*" && method == "OPTIONS" {
        return Some(("*", None));
    }
    let origin = if target.starts_with('/') {
        target
    } else {
        let (scheme, rest) = target.split_once("://")?;
        let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let is_http = ["http", "https"].contains(&scheme.to_ascii_lowercase().as_str());
        if !is_http || authority.is_empty() || !is_authority(authority.as_bytes()) {
            return None;
        }
        rest
    };
    let (path, query) = match origin.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (origin, None),
    };
    Some((if path.is_empty() { "/" } else { path }, query))
}

/// `host[:port]`, or nothing.
fn is_authority(value: &[u8]) -> bool {
    let is_name_byte = |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b);
    let (is_host, rest) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = rest.iter().position(|&b| b == b']') else { return false };
            (end > 0 && rest[..end].iter().all(|&b| b == b':' || is_name_byte(b)), &rest[end + 1..])
        }
        _ => {
            let end = value.iter().position(|&b| b == b':').unwrap_or(value.len());
            (value[..end].iter().all(|&b| is_name_byte(b)) && (end > 0 || value.is_empty()), &value[end..])
        }
    };
    match rest {
        [] => is_host,
        [b':', port @ ..] => is_host && port.len() <= 5 && port.iter().all(u8::is_ascii_digit),
        _ => false,
    }
}
