//! RFC 9110 and RFC 9112 as a table: bytes sent, and what comes back. Each case names the section that it stands for.
//!
//! All cases run against the built binary: whole, cut in two, and through a real Nginx with kept upstream connections. Those
//! that the parsers decide are also cut at every byte, without a socket.

mod chunks;
mod connection;
mod fields;
mod framing;
mod nginx;
mod request_line;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use snip::http::body::Chunked;
use snip::http::head::{self, Framing, Parsed};
use snip::http::response::Refusal;

use support::client::{Address, Conn, Response};
use support::snip::Snip;
use support::wait::eventually;

/// One case.
struct Case {
    /// RFC and section.
    section: &'static str,
    /// What comes back: statuses in order, then `open` or `closed`. `H200` answers a HEAD; a `100 Continue` may come before
    /// `C201`, when its body came later; `400|501` may be either.
    expect: &'static str,
    /// Whether the client closes its side behind the bytes.
    half_close: bool,
    input: Vec<u8>,
}

fn case(section: &'static str, expect: &'static str, input: impl AsRef<[u8]>) -> Case {
    Case { section, expect, half_close: false, input: input.as_ref().to_vec() }
}

/// A JSON body that is good wherever one is wanted here.
const URL: &str = r#"{"url":"https://a.example/"}"#;

/// A request that no case asks for. It hides in bodies and behind refused requests; once it is carried out, the list of
/// users tells.
const SMUGGLED: &str = "POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n\
                        {\"username\":\"smuggled\",\"email\":\"a@b.co\"}";

fn table() -> Vec<Case> {
    let groups = [request_line::cases(), fields::cases(), framing::cases(), chunks::cases(), connection::cases()];
    groups.into_iter().flatten().collect()
}

/// One server for the table, and a link whose redirect nothing else can be taken for.
struct Server {
    snip: Snip,
    sentinel: String,
}

const SENTINEL_TARGET: &str = "https://sentinel.example/";

impl Server {
    fn start() -> Self {
        let snip = Snip::start();
        let (_, code) = snip.client().shorten(SENTINEL_TARGET);
        Self { snip, sentinel: format!("GET /{code} HTTP/1.1\r\nHost: x\r\n\r\n") }
    }

    /// Asks for the link: the next answer must be this request's own.
    fn expect_sentinel(&self, conn: &mut Conn, what: &str) {
        conn.try_send(&self.sentinel).unwrap_or_else(|e| panic!("{what}: closed before the next request: {e}"));
        let answer = conn.try_response_to("GET").unwrap_or_else(|e| panic!("{what}: the next request: {e}"));
        assert_eq!(answer.header("Location"), Some(SENTINEL_TARGET), "{what}: {answer:?}");
    }

    /// Requests that were answered, those for the metrics aside.
    fn requests(&self) -> u64 {
        let metrics = self.snip.client().get("/metrics").expect(200);
        let counts = metrics.text().lines().filter(|line| line.starts_with("http_requests_total{"));
        let counts = counts.filter(|line| !line.contains("endpoint=\"/metrics\""));
        counts.map(|line| line.rsplit(' ').next().expect("a count").parse::<u64>().expect("a number")).sum()
    }

    fn expect_nothing_smuggled(&self, what: &str) {
        assert_eq!(self.snip.client().get("/users").text(), "[]", "{what}");
    }
}

impl Case {
    /// The case as it is shown when it fails.
    fn what(&self) -> String {
        let input = String::from_utf8_lossy(&self.input).into_owned();
        let shown: String = input.chars().take(300).collect();
        format!("RFC {}: {shown:?}", self.section)
    }

    /// The expected answers, and whether the connection stays open behind them.
    fn expected(&self) -> (Vec<Expected>, bool) {
        let (answers, end) = self.expect.rsplit_once(' ').unwrap_or(("", self.expect));
        let is_open = match end {
            "open" => true,
            "closed" => false,
            other => panic!("{other:?} is neither open nor closed"),
        };
        (answers.split_whitespace().map(Expected::read).collect(), is_open)
    }
}

/// One answer.
struct Expected {
    to: &'static str,
    after_continue: bool,
    statuses: Vec<u16>,
}

impl Expected {
    fn read(text: &str) -> Self {
        let (to, text) = text.strip_prefix('H').map_or(("GET", text), |rest| ("HEAD", rest));
        let (after_continue, text) = text.strip_prefix('C').map_or((false, text), |rest| (true, rest));
        Self { to, after_continue, statuses: text.split('|').map(|status| status.parse().expect("a status")).collect() }
    }

    fn hold(&self, answer: &Response, is_cut: bool, what: &str) {
        assert!(self.statuses.contains(&answer.status), "{what}: {answer:?}");
        // Of a body that comes with its head nobody waits to be asked for; of a later one, whoever said so.
        let may_continue = self.after_continue && is_cut;
        assert!(answer.interim.is_empty() || (may_continue && answer.interim == [100]), "{what}: {answer:?}");
        assert!(answer.header("Date").is_some() && answer.header("Server") == Some("snip"), "{what}: {answer:?}");
    }
}

/// Reads what is expected, and looks whether the connection is as it should be.
fn check(server: &Server, conn: &mut Conn, case: &Case, is_cut: bool, what: &str) {
    let (answers, stays_open) = case.expected();
    for (at, expected) in answers.iter().enumerate() {
        let answer = conn.try_response_to(expected.to).unwrap_or_else(|e| panic!("{what}: answer {at}: {e}"));
        expected.hold(&answer, is_cut, what);
        let is_last = at + 1 == answers.len() && !stays_open && !case.half_close;
        assert_eq!(answer.closes(), is_last, "{what}: {answer:?}");
    }
    if stays_open {
        server.expect_sentinel(conn, what);
        conn.finish_sending();
    }
    let rest = conn.read_to_close();
    assert!(rest.is_empty(), "{what}: {:?} came behind", String::from_utf8_lossy(&rest));
}

fn send(conn: &mut Conn, case: &Case, from: usize) {
    let _ = conn.try_send(&case.input[from..]); // what is refused may be refused before its last byte is taken
    if case.half_close {
        conn.finish_sending();
    }
}

#[test]
fn the_table() {
    let server = Server::start();
    let table = table();
    assert!(table.len() >= 200, "only {} cases", table.len());
    for case in &table {
        let mut conn = server.snip.connect();
        send(&mut conn, case, 0);
        check(&server, &mut conn, case, false, &case.what());
    }
    server.expect_nothing_smuggled("the table");
    eprintln!("{} cases", table.len());
}

/// Each case on several connections at once, each of which sends it in two parts cut elsewhere.
#[test]
fn the_table_cut_in_two() {
    const CUTS: usize = 6;
    let server = Server::start();
    for (number, case) in table().iter().enumerate() {
        let length = case.input.len();
        // Other places for other cases, so that all kinds of places are met.
        let cuts = (1..=CUTS).map(|n| (length * n / (CUTS + 1) + number % 7).clamp(1, length - 1));
        let mut parts: Vec<_> = cuts.map(|cut| (server.snip.connect(), cut)).collect();
        for (conn, cut) in &mut parts {
            let _ = conn.try_send(&case.input[..*cut]);
        }
        for (conn, cut) in &mut parts {
            send(conn, case, *cut);
        }
        for (mut conn, cut) in parts {
            check(&server, &mut conn, case, true, &format!("cut at {cut}: {}", case.what()));
        }
    }
    server.expect_nothing_smuggled("the table");
}

/// Where the requests end that `bytes` hold in full, and why there are no more if that is known.
fn requests_in(bytes: &[u8]) -> (Vec<usize>, Option<Refusal>) {
    let (mut ends, mut at) = (Vec::new(), 0);
    loop {
        let head = match head::parse(&bytes[at..]) {
            Ok(Parsed::Complete(head)) => head,
            Ok(Parsed::Partial) => return (ends, None),
            Err(refusal) => return (ends, Some(refusal)),
        };
        let body = &bytes[at + head.bytes..];
        let body_bytes = match head.framing {
            Framing::Length(length) => Ok(usize::try_from(length).ok().filter(|&length| length <= body.len())),
            Framing::Chunked => chunked_end(body, body.len()),
        };
        match body_bytes {
            Ok(Some(length)) => at += head.bytes + length,
            Ok(None) => return (ends, None),
            Err(refusal) => return (ends, Some(refusal)),
        }
        ends.push(at);
    }
}

/// Where a chunked body ends; decoded in two parts.
fn chunked_end(body: &[u8], cut: usize) -> Result<Option<usize>, Refusal> {
    let (mut chunked, mut bytes) = (Chunked::new(1 << 20), body.to_vec());
    if chunked.decode(&mut bytes[..cut])? {
        return Ok(Some(chunked.looked_at()));
    }
    let dropped = chunked.looked_at() - chunked.decoded();
    bytes.drain(chunked.decoded()..chunked.looked_at());
    chunked.dropped_rest();
    Ok(chunked.decode(&mut bytes)?.then(|| chunked.looked_at() + dropped))
}

#[test]
fn the_parsers_cut_at_every_byte() {
    for case in table() {
        let what = case.what();
        let whole = requests_in(&case.input);
        let step = if case.input.len() > 3000 { 101 } else { 1 };
        for cut in (0..case.input.len()).step_by(step) {
            let (ends, refusal) = requests_in(&case.input[..cut]);
            let expected: Vec<_> = whole.0.iter().copied().filter(|&end| end <= cut).collect();
            assert_eq!(ends, expected, "{what} cut at {cut}");
            assert!(refusal.is_none() || refusal == whole.1, "{what} cut at {cut}: {refusal:?}, not {:?}", whole.1);
        }
        // A chunked body goes on where it stopped.
        let Ok(Parsed::Complete(head)) = head::parse(&case.input) else { continue };
        if head.framing == Framing::Chunked {
            let body = &case.input[head.bytes..];
            let whole = chunked_end(body, body.len());
            for cut in (0..body.len()).step_by(step) {
                assert_eq!(chunked_end(body, cut), whole, "{what}: its body cut at {cut}");
            }
        }
    }
}

/// What a proxy with kept connections makes of the table: its own refusal or our answer, and never one request's answer
/// to another. Nginx puts some requests right that we refuse, and then what is hidden behind them is honestly a request of
/// its own. What must not be is that the two count differently.
#[test]
fn the_table_through_nginx() {
    for buffering in ["on", "off"] {
        let server = Server::start();
        let nginx = nginx::Nginx::start(&server.snip, buffering);
        let before = server.requests();
        for case in table().iter().filter(|case| !case.half_close) {
            let what = format!("proxy_request_buffering {buffering}: {}", case.what());
            check_through(&server, nginx.address(), case, &what);
        }
        let mut counts = (0, 0);
        // Nginx writes its line after the answer.
        eventually("Nginx and the server to have counted the same", Duration::from_secs(10), || {
            counts = (nginx.forwarded(), server.requests() - before);
            counts.0 == counts.1
        });
        assert!(counts.0 > 500, "{counts:?}");
    }
}

fn check_through(server: &Server, address: &Address, case: &Case, what: &str) {
    let (answers, stays_open) = case.expected();
    let mut conn = Conn::open(address);
    let _ = conn.try_send(&case.input);
    // Behind an end that Nginx waits for, nothing would ever come.
    conn.finish_sending();
    let is_refused = |answer: &Response| answer.header("Server") != Some("snip") && answer.status >= 400;
    for expected in &answers {
        let Ok(answer) = conn.try_response_to(expected.to) else { break };
        if is_refused(&answer) {
            break;
        }
        // Nginx puts right what we refuse, a lone LF say; then what we get is another request.
        let is_expected = expected.statuses.contains(&answer.status);
        assert!(is_expected || (!stays_open && answer.status < 500), "{what}: {answer:?}");
    }
    // Those that come next, on the connections that Nginx keeps to the server, get what is theirs.
    for _ in 0..2 {
        server.expect_sentinel(&mut Conn::open(address), what);
    }
}
