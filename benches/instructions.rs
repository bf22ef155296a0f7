//! Instructions of the parts of a request, counted by callgrind: the same on every run, so that a rise of a few percent
//! shows. `make instructions` compares them with `benches/instructions.json`.
//!
//! Only the calling thread is counted: what SQLite does for `create` and `list` happens on another, and is not ours here.
#![allow(missing_docs, reason = "the names say what is measured")]

mod support;

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gungraun::prelude::*;
use snip::api::router;
use snip::clicks::{ClickRef, Journal, Options};
use snip::http::head as heads;
use snip::http::response::Connection;
use snip::http::{Method, Response};
use snip::links::Links;
use snip::metrics::{Endpoint, Metrics};
use snip::model::{NewUrl, Timestamp};
use snip::pg::wire::write_bind;
use snip::pg::{Call, Column, Rows, Statement, Type};
use snip::redis::{Cmd, Value, wire::next_value};
use snip::store::Store;
use snip::store::sqlite::SqliteStore;
use support::{CREATE, LIST, REDIRECT, Served, TARGET};

// Each setup does once what is then counted: the first call of a function of libc is looked up, which is dear.

fn parse_once() -> &'static [u8] {
    assert!(heads::parse(REDIRECT).is_ok());
    REDIRECT
}

#[library_benchmark]
#[bench::parse(setup = parse_once)]
fn head(bytes: &'static [u8]) -> bool {
    black_box(heads::parse(black_box(bytes))).is_ok()
}

#[library_benchmark]
#[bench::code("/bEnch1")]
fn route(path: &str) -> bool {
    black_box(router::route(black_box(path))) == router::Route::NotFound
}

fn cached() -> (Links, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("snip.db")).expect("a store");
    let link = NewUrl { user_id: None, short_code: "bEnch1".into(), original_url: TARGET.into(), title: None };
    store.create_url(link).expect("a link");
    let links = Links::new(Arc::new(store), snip::limits::LINKS_LOCAL_BYTES);
    links.resolve("bEnch1", Instant::now()).expect("an answer");
    (links, folder)
}

#[library_benchmark]
#[bench::hit(setup = cached)]
fn l1((links, folder): (Links, tempfile::TempDir)) -> (bool, Links, tempfile::TempDir) {
    let resolved = links.resolve(black_box("bEnch1"), Instant::now()).expect("an answer");
    (resolved.is_hit, links, folder)
}

fn journal() -> (Journal, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = Journal::open(Options::new(folder.path(), "bench")).expect("a journal");
    journal.append(click());
    (journal, folder)
}

fn click() -> ClickRef<'static> {
    ClickRef {
        url_id: 1,
        user_id: None,
        at: Timestamp::from_micros(1_700_000_000_000_000),
        client: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0"),
        referrer: None,
    }
}

#[library_benchmark]
#[bench::append(setup = journal)]
fn clicks((journal, folder): (Journal, tempfile::TempDir)) -> (Journal, tempfile::TempDir) {
    journal.append(black_box(click()));
    (journal, folder)
}

fn write_answer(out: &mut Vec<u8>) {
    let mut response = Response::new(out, Method::Get, Connection::Persistent);
    response.head("HTTP/1.1 302 Found\r\nServer: snip\r\n");
    assert!(response.header("Location", black_box(TARGET.as_bytes())));
    response.empty();
}

fn write_once() -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    write_answer(&mut out);
    out.clear();
    out
}

#[library_benchmark]
#[bench::encode(setup = write_once)]
fn response(mut out: Vec<u8>) -> Vec<u8> {
    write_answer(&mut out);
    out
}

fn metrics() -> Metrics {
    let metrics = Metrics::default();
    metrics.observe(Endpoint::Redirect, Method::Get, 302, Duration::from_micros(3));
    metrics
}

#[library_benchmark]
#[bench::observe(setup = metrics)]
fn count(metrics: Metrics) -> Metrics {
    metrics.observe(Endpoint::Redirect, Method::Get, black_box(302), black_box(Duration::from_micros(3)));
    metrics
}

/// An API that has answered the request before: caches and pools are filled.
fn warm(request: &'static [u8]) -> (Served, &'static [u8]) {
    let mut served = Served::start();
    for _ in 0..3 {
        served.answer(request);
    }
    (served, request)
}

#[library_benchmark]
#[bench::redirect(args = (REDIRECT), setup = warm)]
#[bench::create(args = (CREATE), setup = warm)]
#[bench::list(args = (LIST), setup = warm)]
fn whole((mut served, request): (Served, &'static [u8])) -> (usize, Served) {
    let bytes = served.answer(black_box(request)).len();
    (bytes, served)
}

static RESOLVE: Statement = Statement::new("resolve", "SELECT 1", &[Type::TEXT]);

fn bind_once() -> BytesMut {
    let mut out = bind(BytesMut::with_capacity(1024));
    out.clear();
    out
}

fn bind(mut out: BytesMut) -> BytesMut {
    write_bind("s1", &Call::new(&RESOLVE, &[black_box(&"bEnch1")]), &mut out).expect("a message");
    out
}

#[library_benchmark]
#[bench::bind(setup = bind_once)]
fn pg(out: BytesMut) -> BytesMut {
    bind(out)
}

/// A row as PostgreSQL sends it: id, user, version, target.
fn row() -> (Rows, Vec<u8>) {
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
    (Rows::new(columns.into()), body)
}

#[library_benchmark]
#[bench::decode(setup = row)]
fn pg_row((mut rows, body): (Rows, Vec<u8>)) -> (i64, usize, Rows) {
    rows.push(black_box(&body));
    let row = rows.first().expect("a row");
    let (id, target): (i64, &str) = (row.get(0).expect("an id"), row.get(3).expect("a text"));
    (id, target.len(), rows)
}

fn pack(key: &str) -> Vec<u8> {
    let mut cmd = Cmd::new();
    cmd.arg("GET").arg(key);
    cmd.get_packed_command()
}

fn pack_once() -> &'static str {
    pack("url:bEnch1");
    "url:bEnch1"
}

const REPLY: &[u8] =
    b"$94\r\n{\"original_url\":\"https://www.example.com/a/page/that/is/linked?from=here\",\"url_id\":1,\"v\":1111}\r\n";

fn reply_once() -> &'static [u8] {
    assert!(next_value(REPLY).is_ok());
    REPLY
}

#[library_benchmark]
#[bench::pack(setup = pack_once)]
fn redis(key: &'static str) -> Vec<u8> {
    pack(black_box(key))
}

#[library_benchmark]
#[bench::parse(setup = reply_once)]
fn redis_reply(reply: &'static [u8]) -> Option<(Value, usize)> {
    next_value(black_box(reply)).expect("a reply")
}

library_benchmark_group!(name = request, benchmarks = [head, route, l1, clicks, response, count, whole]);
library_benchmark_group!(name = wire, benchmarks = [pg, pg_row, redis, redis_reply]);
main!(library_benchmark_groups = request, wire);
