//! A second reading of HTTP/1.1 requests, to compare the server's with. Written from RFC 9112 and 9110 in the order of
//! their text, with whole inputs and plenty of copies: no state, no speed, nothing in common with the code it judges.

pub mod by_httparse;

/// What is to become of the next bytes on a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A request, to be answered with 200.
    Request(Request),
    /// No request: one answer with 4xx or 5xx, and the end.
    Refused,
    /// A head or a chunked body that breaks off: the end, with or without a refusal for what is there of it.
    Unfinished,
    /// A body of known length that breaks off: the end, without an answer.
    BodyUnfinished,
    /// What the texts leave to the server, or what this reading does not go into: anything may come from here on.
    Open,
}

/// A request as it was meant.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The target in origin-form, or `*`.
    pub target: String,
    /// The body, decoded.
    pub body: Vec<u8>,
    /// Whether the connection goes on.
    pub keep_alive: bool,
    /// Whether the client would like a 100 (Continue).
    pub expects_continue: bool,
    /// Bytes that it took.
    pub bytes: usize,
}

/// Header lines that a head may have.
const HEADERS_MAX: usize = 64;
/// Bytes of a line of the chunked coding, or of all trailers, that a server must take; it may take more.
const LINE_BYTES_MAX: usize = 500;

/// Reads all that a client sent before it closed its side. `body_max` is the longest body that is taken.
pub fn connection(mut input: &[u8], body_max: usize) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    while !input.is_empty() {
        let outcome = next(input, body_max);
        let goes_on = match &outcome {
            Some(Outcome::Request(request)) if request.keep_alive => Some(request.bytes),
            _ => None,
        };
        outcomes.extend(outcome);
        match goes_on {
            Some(bytes) => input = &input[bytes..],
            None => break,
        }
    }
    outcomes
}

/// What the head of a request says, apart from the body.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub request: Request,
    /// `None`: chunked.
    pub length: Option<u64>,
}

/// The head at the beginning of `input`. `Ok(None)`: empty lines and nothing else.
pub fn head(input: &[u8]) -> Result<Option<Head>, Outcome> {
    // RFC 9112, section 2.2: empty lines before a request line are ignored, if they end in CRLF.
    let start = input.iter().take_while(|&&b| b == b'\r' || b == b'\n').count();
    let are_whole = start % 2 == 0 && input[..start].chunks(2).all(|line| line == b"\r\n");
    if start == input.len() && are_whole {
        return Ok(None);
    }
    let Some(end) = find(&input[start..], b"\r\n\r\n") else { return Err(Outcome::Unfinished) };
    if !are_whole {
        return Err(Outcome::Refused);
    }
    let lines = split(&input[start..start + end], b"\r\n");
    // A line ends in CRLF and holds neither CR nor LF alone.
    if lines.iter().any(|line| line.iter().any(|&b| b == b'\r' || b == b'\n')) {
        return Err(Outcome::Refused);
    }
    let (method, target, version) = request_line(lines[0])?;
    let is_http11 = version == "HTTP/1.1";
    let mut fields = Vec::new();
    for line in &lines[1..] {
        fields.push(field(line)?);
    }
    if fields.len() > HEADERS_MAX {
        return Err(Outcome::Refused);
    }
    let values = |name: &str| -> Vec<&[u8]> {
        fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_slice()).collect()
    };
    // Section 3.2: one Host, which HTTP/1.1 demands.
    let hosts = values("host");
    if hosts.len() > 1 || (is_http11 && hosts.is_empty()) {
        return Err(Outcome::Refused);
    }
    let mut is_open = hosts.iter().any(|host| !is_plain_authority(host));
    // Section 6.3.
    let (codings, lengths) = (values("transfer-encoding"), values("content-length"));
    let length = match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Some(0),
        ([], [digits]) => Some(number(digits)?),
        ([coding], []) if coding.eq_ignore_ascii_case(b"chunked") && is_http11 => None,
        _ => return Err(Outcome::Refused),
    };
    let expectations = values("expect");
    if expectations.iter().any(|value| !value.eq_ignore_ascii_case(b"100-continue")) {
        return Err(Outcome::Refused);
    }
    let options: Vec<String> = values("connection")
        .iter()
        .flat_map(|value| value.split(|&b| b == b','))
        .map(|option| String::from_utf8_lossy(option.trim_ascii()).to_ascii_lowercase())
        .collect();
    let asks = |option: &str| options.iter().any(|o| o == option);
    let target = match resolve(&method, &target)? {
        Some(target) => target,
        None => {
            is_open = true;
            target
        }
    };
    if is_open {
        return Err(Outcome::Open);
    }
    let request = Request {
        method,
        target,
        body: Vec::new(),
        keep_alive: !asks("close") && (is_http11 || asks("keep-alive")),
        expects_continue: !expectations.is_empty(),
        bytes: start + end + 4,
    };
    Ok(Some(Head { request, length }))
}

fn next(input: &[u8], body_max: usize) -> Option<Outcome> {
    let Head { mut request, length } = match head(input) {
        Ok(head) => head?,
        Err(outcome) => return Some(outcome),
    };
    let rest = &input[request.bytes..];
    let Some(length) = length else {
        return Some(match chunked(rest, body_max) {
            Ok((body, bytes)) => {
                request.body = body;
                request.bytes += bytes;
                Outcome::Request(request)
            }
            Err(outcome) => outcome,
        });
    };
    if length > body_max as u64 {
        return Some(Outcome::Refused);
    }
    let length = length as usize;
    if rest.len() < length {
        return Some(Outcome::BodyUnfinished);
    }
    request.body = rest[..length].to_vec();
    request.bytes += length;
    Some(Outcome::Request(request))
}

/// Section 7.1: the body, and the bytes that it took.
pub fn chunked(input: &[u8], body_max: usize) -> Result<(Vec<u8>, usize), Outcome> {
    let mut body = Vec::new();
    let mut at = 0;
    loop {
        let line = line(&input[at..])?;
        at += line.len() + 2;
        let size = chunk_size(line)?;
        if size > (body_max - body.len()) as u64 {
            return Err(Outcome::Refused);
        }
        if size == 0 {
            break;
        }
        let size = size as usize;
        let Some(data) = input.get(at..at + size) else { return Err(Outcome::Unfinished) };
        body.extend_from_slice(data);
        at += size;
        match &input[at..] {
            [b'\r', b'\n', ..] => at += 2,
            [] | [b'\r'] => return Err(Outcome::Unfinished),
            _ => return Err(Outcome::Refused),
        }
    }
    // The trailer section: fields, which are thrown away, up to an empty line. A long one is not judged.
    let trailers = at;
    loop {
        let line = line(&input[at..])?;
        at += line.len() + 2;
        if at - trailers > LINE_BYTES_MAX {
            return Err(Outcome::Open);
        }
        if line.is_empty() {
            return Ok((body, at));
        }
        field(line)?;
    }
}

/// A size line: hexadecimal digits, and extensions, of which only the simplest are judged.
fn chunk_size(line: &[u8]) -> Result<u64, Outcome> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 {
        return Err(Outcome::Refused);
    }
    match &line[digits..] {
        [] => {}
        [b';', extension @ ..] if !extension.is_empty() && extension.iter().all(|&b| is_token_byte(b)) => {}
        [b';' | b' ' | b'\t', ..] => return Err(Outcome::Open),
        _ => return Err(Outcome::Refused),
    }
    let digits = String::from_utf8_lossy(&line[..digits]);
    u64::from_str_radix(&digits, 16).map_err(|_| Outcome::Refused)
}

/// The bytes before the next CRLF. Long lines, which a server need not take, are not judged.
fn line(input: &[u8]) -> Result<&[u8], Outcome> {
    let end = find(input, b"\r\n");
    let line = &input[..end.unwrap_or(input.len())];
    if line.len() > LINE_BYTES_MAX {
        return Err(Outcome::Open);
    }
    match end {
        None => Err(Outcome::Unfinished),
        Some(_) if line.iter().any(|&b| b == b'\r' || b == b'\n') => Err(Outcome::Refused),
        Some(_) => Ok(line),
    }
}

/// Section 3: three words with one blank between them.
fn request_line(line: &[u8]) -> Result<(String, String, String), Outcome> {
    let words = split(line, b" ");
    let [method, target, version] = words.as_slice() else { return Err(Outcome::Refused) };
    let is_method = !method.is_empty() && method.iter().all(|&b| is_token_byte(b));
    let is_target = !target.is_empty() && target.iter().all(|&b| b > b' ' && b != 0x7f);
    let is_version = *version == b"HTTP/1.1" || *version == b"HTTP/1.0";
    if !is_method || !is_target || !is_version {
        return Err(Outcome::Refused);
    }
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| Outcome::Refused);
    Ok((text(method)?, text(target)?, text(version)?))
}

/// Section 3.2: origin-form, absolute-form, asterisk-form. `None` where it depends on what counts as an authority.
fn resolve(method: &str, target: &str) -> Result<Option<String>, Outcome> {
    if target.contains('#') || !target.is_ascii() {
        return Err(Outcome::Refused);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(Some(target.to_owned()));
    }
    let lower = target.to_ascii_lowercase();
    let scheme =
        ["http://", "https://"].into_iter().find(|scheme| lower.starts_with(scheme)).ok_or(Outcome::Refused)?;
    let rest = &target[scheme.len()..];
    let path = rest.find(['/', '?']).unwrap_or(rest.len());
    if path == 0 {
        return Err(Outcome::Refused);
    }
    if !is_plain_authority(rest[..path].as_bytes()) {
        return Ok(None);
    }
    let rest = &rest[path..];
    Ok(Some(if rest.starts_with('/') { rest.to_owned() } else { format!("/{rest}") }))
}

/// Section 5: a name, a colon behind it at once, a value. No line is folded.
fn field(line: &[u8]) -> Result<(String, Vec<u8>), Outcome> {
    let colon = find(line, b":").ok_or(Outcome::Refused)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_value_byte = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
    if name.is_empty() || !name.iter().all(|&b| is_token_byte(b)) || !value.iter().all(|&b| is_value_byte(b)) {
        return Err(Outcome::Refused);
    }
    let is_blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = value.iter().position(|b| !is_blank(b)).unwrap_or(value.len());
    let end = value.iter().rposition(|b| !is_blank(b)).map_or(start, |at| at + 1);
    Ok((String::from_utf8_lossy(name).into_owned(), value[start..end].to_vec()))
}

fn number(digits: &[u8]) -> Result<u64, Outcome> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Outcome::Refused);
    }
    String::from_utf8_lossy(digits).parse().map_err(|_| Outcome::Refused)
}

/// A host that nobody would refuse, with or without a port.
fn is_plain_authority(value: &[u8]) -> bool {
    let (host, port) = match find(value, b":") {
        Some(colon) => (&value[..colon], &value[colon + 1..]),
        None => (value, &b"80"[..]),
    };
    let is_host_byte = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    !host.is_empty() && host.iter().all(is_host_byte) && (1..=4).contains(&port.len()) && number(port).is_ok()
}

fn is_token_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn split<'a>(mut text: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(at) = find(text, separator) {
        parts.push(&text[..at]);
        text = &text[at + separator.len()..];
    }
    parts.push(text);
    parts
}
