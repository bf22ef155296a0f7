//! The load: one thread, one epoll, edge-triggered, one read and one write a request, so that the server has more to do than
//! its load generator. wrk asks the kernel four times a request; a lean server waits for it, and is measured waiting.

use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::time::Timespec;
use socket2::{Domain, Socket, Type};

use super::{HEADERS_MAX, INPUT_BYTES};

const EVENTS: usize = 512;
/// For what is under way when the time is up.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
/// How long one wait for the kernel may be; then the clock is looked at.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// The longest latency that is told apart, in microseconds.
const LATENCY_MAX_MICROS: u64 = 60_000_000;

/// What is sent.
pub struct Plan {
    pub to: SocketAddr,
    pub path: String,
    pub connections: usize,
    pub seconds: f64,
    /// Requests that are sent together; the next ones follow when all are answered.
    pub depth: usize,
    /// Requests on a connection, the last of which asks to close it; 0: it stays open.
    pub each: usize,
}

/// What connections are made of.
struct Wire {
    poll: OwnedFd,
    to: SocketAddr,
    depth: usize,
    each: usize,
    keep: Vec<u8>,
    close: Vec<u8>,
}

struct Connection {
    socket: Socket,
    /// The beginning of an answer whose rest has not arrived.
    rest: Vec<u8>,
    sent_at: Instant,
    /// Requests without an answer.
    waiting: usize,
    /// Requests sent on this socket.
    sent: usize,
}

struct Answer {
    bytes: usize,
    /// The connection ends with it.
    closes: bool,
}

/// The last answer. The next one is the same as a rule, until the date changes, and need not be parsed.
#[derive(Default)]
struct Usual {
    bytes: Vec<u8>,
    closes: bool,
}

struct Load {
    wire: Wire,
    usual: Usual,
    connections: Vec<Connection>,
    input: Vec<u8>,
    latency: Histogram<u32>,
    answered: u64,
    is_over: bool,
}

/// Puts the load on and prints what came of it, as JSON: requests, requests a second, the 99th percentile in milliseconds.
pub fn run(plan: &Plan) -> io::Result<()> {
    let time = Duration::from_secs_f64(plan.seconds);
    let mut load = Load::new(plan)?;
    let began = Instant::now();
    for key in 0..plan.connections {
        load.connections.push(load.wire.connect(key)?);
    }
    let mut events = Vec::with_capacity(EVENTS);
    while !load.is_over || load.connections.iter().any(|one| one.waiting > 0) {
        let elapsed = began.elapsed();
        load.is_over = elapsed >= time;
        if elapsed > time + LAST_ANSWERS {
            return Err(io::Error::other("requests stayed without an answer"));
        }
        events.clear();
        match epoll::wait(&load.wire.poll, spare_capacity(&mut events), Some(&WAIT)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            load.turn(event.data.u64() as usize)?;
        }
    }
    let rate = load.answered as f64 / began.elapsed().as_secs_f64();
    let p99_ms = load.latency.value_at_quantile(0.99) as f64 / 1000.0;
    println!("{{\"requests\": {}, \"rate\": {rate:.1}, \"p99_ms\": {p99_ms:.3}}}", load.answered);
    Ok(())
}

impl Wire {
    /// A new connection with its first requests on the way.
    fn connect(&self, key: usize) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(self.to), Type::STREAM, None)?;
        socket.set_tcp_nodelay(true)?;
        socket.connect(&self.to.into())?;
        socket.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(&self.poll, &socket, EventData::new_u64(key as u64), flags)?;
        let mut connection = Connection { socket, rest: Vec::new(), sent_at: Instant::now(), waiting: 0, sent: 0 };
        self.send(&mut connection)?;
        Ok(connection)
    }

    fn send(&self, connection: &mut Connection) -> io::Result<()> {
        connection.sent += self.depth;
        connection.waiting = self.depth;
        let bytes = if connection.sent == self.each { &self.close } else { &self.keep };
        match connection.socket.send(bytes)? {
            sent if sent == bytes.len() => Ok(()),
            _ => Err(io::Error::other("a request did not fit into the socket's buffer")),
        }
    }
}

impl Load {
    fn new(plan: &Plan) -> io::Result<Self> {
        let request = |more| format!("GET {} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", plan.path, plan.to).into_bytes();
        let wire = Wire {
            poll: epoll::create(CreateFlags::CLOEXEC)?,
            to: plan.to,
            depth: plan.depth,
            each: plan.each,
            keep: request("").repeat(plan.depth),
            close: request("Connection: close\r\n"),
        };
        Ok(Self {
            wire,
            usual: Usual::default(),
            connections: Vec::with_capacity(plan.connections),
            input: vec![0; INPUT_BYTES],
            latency: Histogram::new_with_max(LATENCY_MAX_MICROS, 2).map_err(io::Error::other)?,
            answered: 0,
            is_over: false,
        })
    }

    /// Takes what has arrived on a connection, and sends the next requests once all are answered.
    fn turn(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        let held = connection.rest.len();
        self.input[..held].copy_from_slice(&connection.rest);
        let filled = match (&mut &connection.socket).read(&mut self.input[held..]) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Ok(0) if connection.waiting == 0 => return Ok(()),
            Ok(0) => return Err(io::Error::other("the server closed a connection")),
            count => held + count?,
        };
        let (mut taken, mut closes) = (0, false);
        while let Some(answer) = self.usual.read(&self.input[taken..filled])? {
            taken += answer.bytes;
            connection.waiting = connection.waiting.saturating_sub(1);
            self.answered += 1;
            closes |= answer.closes;
        }
        connection.rest.clear();
        connection.rest.extend_from_slice(&self.input[taken..filled]);
        if connection.waiting > 0 {
            return Ok(());
        }
        let now = Instant::now();
        let micros = now.duration_since(connection.sent_at).as_micros() as u64;
        self.latency.record(micros.min(LATENCY_MAX_MICROS)).map_err(io::Error::other)?;
        if self.is_over {
            return Ok(());
        }
        if closes {
            *connection = self.wire.connect(key)?;
            return Ok(());
        }
        connection.sent_at = now;
        self.wire.send(connection)
    }
}

impl Usual {
    /// Reads an answer.
    fn read(&mut self, input: &[u8]) -> io::Result<Option<Answer>> {
        if !self.bytes.is_empty() && input.starts_with(&self.bytes) {
            return Ok(Some(Answer { bytes: self.bytes.len(), closes: self.closes }));
        }
        let answer = parse(input)?;
        if let Some(answer) = &answer {
            self.bytes.clear();
            self.bytes.extend_from_slice(&input[..answer.bytes]);
            self.closes = answer.closes;
        }
        Ok(answer)
    }
}

/// Reads an answer; anything but a redirect is an error.
fn parse(input: &[u8]) -> io::Result<Option<Answer>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(input).map_err(io::Error::other)? {
        httparse::Status::Complete(bytes) => bytes,
        httparse::Status::Partial => return Ok(None),
    };
    if response.code != Some(302) {
        return Err(io::Error::other(format!("an answer is no redirect: {:?}", response.code)));
    }
    let (mut body, mut closes) = (0, false);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("Content-Length") {
            body = std::str::from_utf8(header.value).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        } else if header.name.eq_ignore_ascii_case("Connection") {
            closes = header.value.eq_ignore_ascii_case(b"close");
        }
    }
    let bytes = head + body;
    Ok((input.len() >= bytes).then_some(Answer { bytes, closes }))
}
