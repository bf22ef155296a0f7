//! A whole connection to a running server, over a unix socket: what is answered, in which order, and when it ends. The
//! first byte says where the input is cut in two; the second part is sent when the server has read the first.
#![no_main]

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use reference::{Outcome, Request};
use snip::http::head::Head;
use snip::http::{Bound, ListenAddress, Options, Refusal, Response, Server, Service, Sharing};

const BODY_MAX: usize = 1000;
/// A connection that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each request with what it was.
struct Mirror;

impl Service for Mirror {
    fn is_probe(&self, _: &Head<'_>) -> bool {
        false
    }

    fn body_limit(&self, _: &Head<'_>) -> (usize, Refusal) {
        (BODY_MAX, Refusal::BODY_TOO_LARGE)
    }

    fn call(&self, request: &snip::http::Request<'_>, response: &mut Response<'_>) {
        let head = &request.head;
        let target = head.query.map_or(head.path.to_owned(), |query| format!("{}?{query}", head.path));
        response.head("HTTP/1.1 200 OK\r\nServer: mirror\r\n");
        response.body("text/plain", |out| out.extend(mirrored(&target, request.body)));
    }

    fn refused(&self, _: Refusal) {}

    fn panicked(&self, _: &snip::http::Request<'_>, what: &str) {
        panic!("{what}");
    }
}

fn mirrored(target: &str, body: &[u8]) -> Vec<u8> {
    [target.as_bytes(), b"\n", body].concat()
}

/// The path of the one server of this process.
fn server() -> &'static PathBuf {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let path = folder.join("s");
        let bound = Bound::bind(&ListenAddress::Unix(path.clone()), Sharing::Alone).expect("bind");
        let server = Server::start(vec![bound], Arc::new(Mirror), Options::default(), Arc::default());
        std::mem::forget(server.unwrap_or_else(|error| panic!("{error}")));
        path
    })
}

/// Waits until the other end has read everything, as far as that can be told.
fn wait_until_read(stream: &UnixStream) {
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(5) {
        let mut unread: libc::c_int = 0;
        // SAFETY: the descriptor is open, and SIOCOUTQ (TIOCOUTQ) writes one int.
        let outcome = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut unread) };
        if outcome != 0 || unread == 0 {
            return;
        }
        std::thread::yield_now();
    }
}

fn exchange(input: &[u8], cut: usize) -> Vec<u8> {
    let mut stream = UnixStream::connect(server()).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("a limit");
    let (first, second) = input.split_at(cut.min(input.len()));
    // The server may have refused and closed by then: what it answered is there to be read.
    let _ = stream.write_all(first);
    if cut > 0 {
        wait_until_read(&stream);
    }
    let _ = stream.write_all(second);
    let _ = stream.shutdown(Shutdown::Write);
    let mut output = Vec::new();
    match stream.read_to_end(&mut output) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server neither answers nor closes: {error}"),
    }
    output
}

struct Answer {
    status: u16,
    closes: bool,
    body: Vec<u8>,
}

/// Takes one answer off the front.
fn answer(output: &mut &[u8], method: &str) -> Option<Answer> {
    if output.is_empty() {
        return None;
    }
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").expect("an answer's head ends") + 4;
    let head = std::str::from_utf8(&output[..end]).expect("an answer's head is text").to_ascii_lowercase();
    let status = head.strip_prefix("http/1.1 ").and_then(|rest| rest[..3].parse().ok()).expect("a status");
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or(0, |value| value.trim().parse().expect("a length"));
    let length = if method == "HEAD" || status == 100 { 0 } else { length };
    let body = output[end..end + length].to_vec();
    *output = &output[end + length..];
    Some(Answer { status, closes: head.contains("\r\nconnection: close\r\n"), body })
}

/// The final answer: interim ones before it are for who asked for them.
fn final_answer(output: &mut &[u8], method: &str, may_continue: bool) -> Option<Answer> {
    let first = answer(output, method)?;
    if first.status != 100 {
        return Some(first);
    }
    assert!(may_continue, "100 for nobody who asked");
    answer(output, method)
}

fn check(mut output: &[u8], expected: &[Outcome]) {
    let output = &mut output;
    for outcome in expected {
        match outcome {
            Outcome::Request(request) => check_answer(output, request),
            Outcome::Refused => check_refusal(&final_answer(output, "", true).expect("a refusal")),
            Outcome::Unfinished => {
                if let Some(answer) = final_answer(output, "", true) {
                    check_refusal(&answer);
                }
            }
            Outcome::BodyUnfinished => assert!(final_answer(output, "", true).is_none(), "an answer to half a request"),
            Outcome::Open => return,
        }
    }
    assert!(output.is_empty(), "more than was asked for: {:?}", String::from_utf8_lossy(output));
}

fn check_answer(output: &mut &[u8], request: &Request) {
    let Request { method, target, body, keep_alive, expects_continue, .. } = request;
    let answer = final_answer(output, method, *expects_continue).expect("an answer");
    assert_eq!(answer.status, 200, "{request:?}");
    assert_eq!(answer.closes, !keep_alive, "{request:?}");
    let expected = if method == "HEAD" { Vec::new() } else { mirrored(target, body) };
    assert_eq!(String::from_utf8_lossy(&answer.body), String::from_utf8_lossy(&expected));
}

fn check_refusal(answer: &Answer) {
    assert!((400..600).contains(&answer.status), "{}", answer.status);
    assert!(answer.closes, "a refusal leaves the connection open");
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, input)) = data.split_first() else { return };
    let output = exchange(input, usize::from(cut));
    let expected = reference::connection(input, BODY_MAX);
    let outcome = std::panic::catch_unwind(|| check(&output, &expected));
    if outcome.is_err() {
        panic!("expected {expected:#?}\ngot {}", String::from_utf8_lossy(&output));
    }
});
