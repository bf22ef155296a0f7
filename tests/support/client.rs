//! A raw HTTP/1.1 client: sends the bytes it is told, reads answers by their framing, hides nothing.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long any one answer may take; far above what a loaded machine needs, so that only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// `host:port`
    Tcp(SocketAddr),
    /// Path of a unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn open(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, PATIENCE)?;
                stream.set_nodelay(true)?; // a write is to be a segment: the tests choose where requests are split
                stream.set_write_timeout(Some(PATIENCE))?;
                Self::Tcp(stream)
            }
            Address::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Self::Unix(stream)
            }
        })
    }

    fn wait_at_most(&self, limit: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(limit)),
            Self::Unix(stream) => stream.set_read_timeout(Some(limit)),
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes),
            Self::Unix(stream) => stream.write_all(bytes),
        }
    }

    fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

/// One answer, as it came.
#[derive(Clone, Debug)]
pub struct Response {
    /// Statuses of the interim answers before it (100 Continue).
    pub interim: Vec<u16>,
    /// `HTTP/1.1` or what else it said.
    pub version: String,
    /// Status code.
    pub status: u16,
    /// Names as they came; values without the white space around them.
    pub headers: Vec<(String, String)>,
    /// The body, its coding undone.
    pub body: Vec<u8>,
}

impl Response {
    /// The value of a header that may come once at the most.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
        let first = found.next();
        assert!(found.next().is_none(), "{name} came twice: {self:?}");
        first
    }

    /// Whether the server says that it closes the connection.
    pub fn closes(&self) -> bool {
        self.header("Connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap_or_else(|e| panic!("the body is not UTF-8 ({e}): {self:?}"))
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("the body is not JSON ({e}): {:?}", self.text()))
    }

    /// The text of `{"error": …}`.
    pub fn error(&self) -> String {
        self.json()["error"].as_str().unwrap_or_else(|| panic!("no error in {}", self.text())).to_owned()
    }

    /// Asserts the status; the body is shown when it is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// A connection.
pub struct Conn {
    socket: Socket,
    pending: Vec<u8>,
}

impl Conn {
    /// Connects or fails the test.
    pub fn open(address: &Address) -> Self {
        Self::try_open(address).unwrap_or_else(|e| panic!("can't connect to {address}: {e}"))
    }

    /// Connects.
    pub fn try_open(address: &Address) -> io::Result<Self> {
        Ok(Self { socket: Socket::open(address)?, pending: Vec::new() })
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.try_send(bytes).expect("the server takes the bytes");
        self
    }

    /// Sends bytes; the server may have closed already, as it does after it refused a request.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket.write_all(bytes.as_ref())
    }

    /// Closes the sending side: the server sees the end of input, and can still answer.
    pub fn finish_sending(&mut self) -> &mut Self {
        self.socket.shutdown_write().expect("half-close");
        self
    }

    /// Reads the answer to a request that was not HEAD.
    #[track_caller]
    pub fn response(&mut self) -> Response {
        self.response_to("GET")
    }

    /// Reads the answer to a request by this method.
    #[track_caller]
    pub fn response_to(&mut self, method: &str) -> Response {
        match self.try_response_to(method) {
            Ok(response) => response,
            Err(e) => panic!("no full answer: {e}; so far {:?}", String::from_utf8_lossy(&self.pending)),
        }
    }

    /// Reads the answer to a request by this method, if there is one.
    pub fn try_response_to(&mut self, method: &str) -> io::Result<Response> {
        let deadline = Instant::now() + PATIENCE;
        let mut interim = Vec::new();
        loop {
            let mut response = self.head(deadline)?;
            // RFC 9112, section 6.3: no body for 1xx, 204, 304 and HEAD, whatever the header fields say.
            if (100..200).contains(&response.status) {
                interim.push(response.status);
                continue;
            }
            // RFC 9110, section 8.6; a client that took it at its word would wait for a body.
            assert!(response.status != 204 || response.header("Content-Length").is_none(), "{response:?}");
            if method != "HEAD" && response.status != 204 && response.status != 304 {
                response.body = self.body(&response, deadline)?;
            }
            response.interim = interim;
            return Ok(response);
        }
    }

    fn head(&mut self, deadline: Instant) -> io::Result<Response> {
        let end = loop {
            if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                break at;
            }
            self.more(deadline)?;
        };
        let head: Vec<u8> = self.pending.drain(..end + 4).collect();
        parse_head(&head[..end])
    }

    fn body(&mut self, head: &Response, deadline: Instant) -> io::Result<Vec<u8>> {
        if head.header("Transfer-Encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return self.chunks(deadline);
        }
        match head.header("Content-Length") {
            Some(length) => self.exactly(length.parse().map_err(invalid)?, deadline),
            None => self.rest(deadline),
        }
    }

    fn exactly(&mut self, length: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.pending.len() < length {
            self.more(deadline)?;
        }
        Ok(self.pending.drain(..length).collect())
    }

    fn chunks(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let end = loop {
                if let Some(at) = find(&self.pending, b"\r\n") {
                    break at;
                }
                self.more(deadline)?;
            };
            let line = String::from_utf8(self.exactly(end + 2, deadline)?).map_err(invalid)?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(invalid)?;
            body.extend(self.exactly(size, deadline)?);
            self.exactly(2, deadline)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    /// Reads until the server closes; what came before it stays in `pending` when it does not.
    fn rest(&mut self, deadline: Instant) -> io::Result<Vec<u8>> {
        loop {
            match self.more(deadline) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::UnexpectedEof || e.kind() == ErrorKind::ConnectionReset => {
                    return Ok(std::mem::take(&mut self.pending));
                }
                Err(e) => return Err(e),
            }
        }
    }

    /// All bytes until the server closes the connection; fails when it leaves it open.
    #[track_caller]
    pub fn read_to_close(&mut self) -> Vec<u8> {
        match self.rest(Instant::now() + PATIENCE) {
            Ok(bytes) => bytes,
            Err(e) => panic!("not closed: {e}; so far {:?}", String::from_utf8_lossy(&self.pending)),
        }
    }

    /// The next so many bytes, whatever they mean.
    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        match self.exactly(length, Instant::now() + PATIENCE) {
            Ok(bytes) => bytes,
            Err(e) => panic!("not {length} bytes: {e}; so far {:?}", String::from_utf8_lossy(&self.pending)),
        }
    }

    /// Asserts that the server closes without another byte.
    #[track_caller]
    pub fn expect_close(&mut self) {
        let rest = self.read_to_close();
        assert!(rest.is_empty(), "expected the end, got {:?}", String::from_utf8_lossy(&rest));
    }

    /// Asserts that nothing comes for a while: no answer, no close.
    #[track_caller]
    pub fn expect_silence(&mut self, span: Duration) {
        assert!(self.pending.is_empty(), "bytes were left: {:?}", String::from_utf8_lossy(&self.pending));
        match self.more(Instant::now() + span) {
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => panic!("expected silence, got {e}"),
            Ok(()) => panic!("expected silence, got {:?}", String::from_utf8_lossy(&self.pending)),
        }
    }

    fn more(&mut self, deadline: Instant) -> io::Result<()> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        self.socket.wait_at_most(left)?;
        let mut buffer = [0; 16 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(io::Error::new(ErrorKind::UnexpectedEof, "the server closed the connection")),
            Ok(n) => {
                self.pending.extend_from_slice(&buffer[..n]);
                Ok(())
            }
            // A read with a time-out, in a process that was stopped and runs on (signal(7)).
            Err(e) if e.kind() == ErrorKind::Interrupted => self.more(deadline),
            Err(e) => Err(e),
        }
    }
}

fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, error)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

fn parse_head(head: &[u8]) -> io::Result<Response> {
    let wrong = |what: &str| io::Error::new(ErrorKind::InvalidData, format!("{what} in the head of an answer"));
    let text = std::str::from_utf8(head).map_err(invalid)?;
    let mut lines = text.split("\r\n");
    let mut status_line = lines.next().unwrap_or("").splitn(3, ' ');
    let version = status_line.next().unwrap_or("").to_owned();
    let status = status_line.next().unwrap_or("").parse().map_err(invalid)?;
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(|| wrong("a line without colon"))?;
        if name.is_empty() || name.contains(char::is_whitespace) || value.contains(['\r', '\n']) {
            return Err(wrong("a bad field"));
        }
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    Ok(Response { interim: Vec::new(), version, status, headers, body: Vec::new() })
}

/// The bytes of a request with these header fields; Host and, with a body, Content-Length are added.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: snip.test\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = body {
        bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body.unwrap_or_default());
    bytes
}

/// A client that keeps its connection alive for as long as the server does.
pub struct Client {
    address: Address,
    conn: Option<Conn>,
}

impl Client {
    /// Connects at the first request.
    pub fn new(address: Address) -> Self {
        Self { address, conn: None }
    }

    /// Sends a request and reads its answer.
    #[track_caller]
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Response {
        let bytes = request(method, path, headers, body);
        let conn = self.conn.get_or_insert_with(|| Conn::open(&self.address));
        // An answer may come before the whole body was taken (413): then it is the answer that counts.
        let sent = conn.try_send(&bytes);
        match conn.try_response_to(method) {
            Ok(response) => {
                if response.closes() || sent.is_err() {
                    self.conn = None;
                }
                response
            }
            Err(e) => panic!("{method} {path}: no full answer ({e}); sending: {sent:?}"),
        }
    }

    /// GET
    #[track_caller]
    pub fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, &[], None)
    }

    /// DELETE
    #[track_caller]
    pub fn delete(&mut self, path: &str) -> Response {
        self.send("DELETE", path, &[], None)
    }

    /// POST of a JSON text.
    #[track_caller]
    pub fn post_json(&mut self, path: &str, json: &str) -> Response {
        self.send("POST", path, &[("Content-Type", "application/json")], Some(json.as_bytes()))
    }

    /// PUT of a JSON text.
    #[track_caller]
    pub fn put_json(&mut self, path: &str, json: &str) -> Response {
        self.send("PUT", path, &[("Content-Type", "application/json")], Some(json.as_bytes()))
    }

    /// A figure of `/metrics`, by its name and labels as they stand there.
    #[track_caller]
    pub fn metric(&mut self, name: &str) -> f64 {
        let text = self.get("/metrics").expect(200).text().to_owned();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        found.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().expect("a number")
    }

    /// Makes a short URL and returns its id and code.
    #[track_caller]
    pub fn shorten(&mut self, url: &str) -> (i64, String) {
        let body = serde_json::json!({ "url": url }).to_string();
        let made = self.post_json("/urls", &body).expect(201).json();
        (made["id"].as_i64().expect("an id"), made["short_code"].as_str().expect("a code").to_owned())
    }
}
