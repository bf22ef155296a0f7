//! The parts of a request that `instructions` counts and `request` times: for each its input, its set-up and what is
//! measured. The set-ups do once what is then measured: the first call of a function of libc is looked up, which is dear.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use quanta::Instant;
use snip::api::{Api, TrustedProxies, router};
use snip::clicks::{ClickRef, Clicks, Journal, Options};
use snip::http::head::{self, Parsed, Request};
use snip::http::response::Connection;
use snip::http::{Method, Response, Service};
use snip::limits::LINKS_LOCAL_BYTES;
use snip::links::Links;
use snip::metrics::{Endpoint, Metrics};
use snip::model::{Id, NewUrl, Timestamp};
use snip::pg::wire::write_bind;
use snip::pg::{Call, Column, Rows, Statement, Type};
use snip::redis::{Cmd, Value, wire::next_value};
use snip::store::Store;
use snip::store::sqlite::SqliteStore;
use tempfile::TempDir;

/// Begins where a cache line does. Many a loop over bytes takes a step more or less by where they begin; without this the
/// linker would decide on that anew in every build, and the counts with it.
#[repr(align(64))]
struct Aligned<T>(T);

macro_rules! aligned {
    ($bytes:literal) => {{
        const BYTES: &[u8] = &Aligned(*$bytes).0;
        BYTES
    }};
}

const fn text(bytes: &'static [u8]) -> &'static str {
    match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => panic!("not UTF-8"),
    }
}

/// None is slow: a write that the disk takes its time for would get a line in the log, and the count with it.
const SLOW_REQUEST: Duration = Duration::from_secs(3600);

const CODE: &str = "bEnch1";
/// The path of [`REDIRECT`].
pub const PATH: &str = text(aligned!(b"/bEnch1"));

/// Where the link of [`REDIRECT`] leads.
const TARGET: &str = text(aligned!(b"https://www.example.com/a/page/that/is/linked?from=here"));

const USER_AGENT: &[u8] =
    aligned!(b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0");

/// What Nginx passes on of a browser's request.
pub const REDIRECT: &[u8] = aligned!(
    b"GET /bEnch1 HTTP/1.1\r\nHost: snip.example\r\nX-Real-IP: 203.0.113.7\r\n\
    X-Forwarded-For: 203.0.113.7\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) \
    Chrome/129.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml\r\nAccept-Encoding: gzip, br\r\n\r\n"
);

/// A link to be made.
pub const CREATE: &[u8] = aligned!(
    b"POST /urls HTTP/1.1\r\nHost: snip.example\r\nContent-Type: application/json\r\nContent-Length: 93\r\n\r\n\
    {\"url\": \"https://www.example.com/a/page/that/is/linked?from=here\", \"title\": \"A page of ours\"}"
);

/// A page of links.
pub const LIST: &[u8] = aligned!(b"GET /urls?per_page=25 HTTP/1.1\r\nHost: snip.example\r\n\r\n");

// ---- Parts of a redirect -----------------------------------------------------------------------------------------

pub fn parse_head(bytes: &[u8]) -> bool {
    black_box(head::parse(black_box(bytes))).is_ok()
}

/// Whether the path is none of ours.
pub fn route(path: &str) -> bool {
    black_box(router::route(black_box(path))) == router::Route::NotFound
}

/// Links with one in this process's memory.
pub fn links() -> (Links, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(folder.path());
    store.create_url(link(1)).expect("a link");
    let links = Links::new(Arc::new(store), LINKS_LOCAL_BYTES);
    resolve(&links);
    (links, folder)
}

/// Whether the link was in this process's memory.
pub fn resolve(links: &Links) -> bool {
    links.resolve(black_box(CODE), Instant::now()).expect("an answer").is_hit
}

/// A journal that nobody ships.
pub fn journal() -> (Journal, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(Options::new(folder.path(), "bench")).expect("a journal");
    append(&journal);
    (journal, folder)
}

pub fn append(journal: &Journal) {
    journal.append(black_box(ClickRef {
        url_id: 1,
        user_id: None,
        at: Timestamp::from_micros(1_700_000_000_000_000),
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        user_agent: Some(black_box(USER_AGENT)),
        referrer: None,
    }));
}

/// A buffer to encode into, in place of the one that a connection keeps.
pub fn buffer() -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    encode(&mut out);
    out
}

/// A redirect's answer, in place of what was in `out`.
pub fn encode(out: &mut Vec<u8>) {
    out.clear();
    let mut response = Response::new(out, Method::Get, Connection::Persistent);
    response.head("HTTP/1.1 302 Found\r\nServer: snip\r\n");
    assert!(response.header("Location", black_box(TARGET.as_bytes())));
    response.empty();
}

pub fn metrics() -> Metrics {
    let metrics = Metrics::default();
    observe(&metrics);
    metrics
}

pub fn observe(metrics: &Metrics) {
    metrics.observe(Endpoint::Redirect, Method::Get, black_box(302), black_box(Duration::from_micros(3)));
}

// ---- PostgreSQL and Redis ----------------------------------------------------------------------------------------

static RESOLVE: Statement = Statement::new("resolve", "SELECT 1", &[Type::TEXT]);

/// A buffer for [`bind`].
pub fn messages() -> BytesMut {
    let mut out = BytesMut::with_capacity(1024);
    bind(&mut out);
    out
}

/// The question for a link, in place of what was in `out`.
pub fn bind(out: &mut BytesMut) {
    out.clear();
    write_bind("s1", &Call::new(&RESOLVE, &[black_box(&CODE)]), out).expect("a message");
}

/// An answer without rows, and a row as PostgreSQL sends it: id, user, version, target.
pub fn row() -> (Rows, Vec<u8>) {
    let column = |name: &str, ty| Column { name: name.into(), ty };
    let columns = [("id", Type::INT8), ("user_id", Type::INT8), ("version", Type::INT8), ("original_url", Type::TEXT)];
    let columns: Vec<_> = columns.into_iter().map(|(name, ty)| column(name, ty)).collect();
    let mut body = 4u16.to_be_bytes().to_vec();
    for number in [1i64, 2, 3] {
        body.extend_from_slice(&8u32.to_be_bytes());
        body.extend_from_slice(&number.to_be_bytes());
    }
    body.extend_from_slice(&(TARGET.len() as u32).to_be_bytes());
    body.extend_from_slice(TARGET.as_bytes());
    let rows = || Rows::new(columns.clone().into());
    decode(&mut rows(), &body); // so that the allocator has memory of this size at hand
    (rows(), body)
}

pub fn decode(rows: &mut Rows, body: &[u8]) -> (i64, usize) {
    rows.push(black_box(body));
    let row = rows.first().expect("a row");
    let (id, target): (i64, &str) = (row.get(0).expect("an id"), row.get(3).expect("a text"));
    (id, target.len())
}

/// What a link is called in Redis.
pub const KEY: &str = text(aligned!(b"url:bEnch1"));

pub fn pack(key: &str) -> Vec<u8> {
    let mut cmd = Cmd::new();
    cmd.arg("GET").arg(black_box(key));
    cmd.get_packed_command()
}

/// What Redis answers for [`KEY`].
pub const REPLY: &[u8] = aligned!(
    b"$94\r\n{\"original_url\":\"https://www.example.com/a/page/that/is/linked?from=here\",\"url_id\":1,\"v\":1111}\r\n"
);

pub fn parse_reply(bytes: &[u8]) -> Option<(Value, usize)> {
    next_value(black_box(bytes)).expect("a reply")
}

// ---- Whole requests ----------------------------------------------------------------------------------------------

/// The product without its sockets.
pub struct Served {
    api: Api,
    output: Vec<u8>,
    /// Holds the store and the journal; goes last.
    _folder: TempDir,
}

impl Served {
    /// An API over an embedded store with 25 links that has answered `request` before: caches and pools are filled.
    pub fn warm(request: &[u8]) -> Self {
        let mut served = Self::start();
        for _ in 0..3 {
            served.answer(request);
        }
        served
    }

    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn Store> = Arc::new(store(folder.path()));
        for number in 1..=25 {
            store.create_url(link(number)).expect("a link");
        }
        let journal = Options::new(&folder.path().join("journal"), "bench");
        let clicks = Clicks::start(Arc::clone(&store) as _, journal).expect("a journal");
        let links = Links::new(Arc::clone(&store), LINKS_LOCAL_BYTES);
        let api = Api::new(store, links, clicks, Arc::default(), TrustedProxies::default(), SLOW_REQUEST);
        let api = api.expect("a thread");
        Self { api, output: Vec::with_capacity(64 * 1024), _folder: folder }
    }

    /// Answers one whole request, as a connection does once its bytes are there; returns the answer.
    pub fn answer(&mut self, bytes: &[u8]) -> &[u8] {
        let Ok(Parsed::Complete(head)) = head::parse(bytes) else { panic!("a whole request") };
        let body = &bytes[head.bytes..];
        let method = head.method;
        self.output.clear();
        let request = Request { head: &head, body, peer: None };
        self.api.call(&request, &mut Response::new(&mut self.output, method, Connection::Persistent));
        &self.output
    }
}

fn store(folder: &Path) -> SqliteStore {
    SqliteStore::open(&folder.join("snip.db")).expect("a store")
}

fn link(number: Id) -> NewUrl {
    let short_code = format!("bEnch{number}");
    NewUrl { user_id: None, short_code, original_url: TARGET.to_owned(), title: None }
}
