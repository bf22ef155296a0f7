//! Instructions of the parts of a request, counted by callgrind: nearly the same on every run, so that a rise of a few
//! percent shows. `make instructions` compares them with `benches/instructions.json`; `request` has their time.
//!
//! Only the calling thread is counted: what SQLite does for `create` and `list` happens on another, and is not ours here.
#![allow(missing_docs, reason = "the names say what is measured")]

mod support;

use std::hint::black_box;

use bytes::BytesMut;
use gungraun::prelude::*;
use snip::clicks::Journal;
use snip::links::Links;
use snip::metrics::Metrics;
use snip::pg::Rows;
use snip::redis::Value;
use support::{CREATE, KEY, LIST, PATH, REDIRECT, REPLY, Served};
use tempfile::TempDir;

// What a part needs is returned: to take it apart is not measured.

fn parse_once() -> &'static [u8] {
    assert!(support::parse_head(REDIRECT));
    REDIRECT
}

#[library_benchmark]
#[bench::parse(setup = parse_once)]
fn head(bytes: &'static [u8]) -> bool {
    support::parse_head(bytes)
}

#[library_benchmark]
#[bench::code(PATH)]
fn route(path: &str) -> bool {
    support::route(path)
}

#[library_benchmark]
#[bench::hit(setup = support::links)]
fn l1((links, folder): (Links, TempDir)) -> (bool, Links, TempDir) {
    (support::resolve(&links), links, folder)
}

#[library_benchmark]
#[bench::append(setup = support::journal)]
fn clicks((journal, folder): (Journal, TempDir)) -> (Journal, TempDir) {
    support::append(&journal);
    (journal, folder)
}

#[library_benchmark]
#[bench::encode(setup = support::buffer)]
fn response(mut out: Vec<u8>) -> Vec<u8> {
    support::encode(&mut out);
    out
}

#[library_benchmark]
#[bench::observe(setup = support::metrics)]
fn count(metrics: Metrics) -> Metrics {
    support::observe(&metrics);
    metrics
}

fn warm(request: &'static [u8]) -> (Served, &'static [u8]) {
    (Served::warm(request), request)
}

#[library_benchmark]
#[bench::redirect(args = (REDIRECT), setup = warm)]
#[bench::create(args = (CREATE), setup = warm)]
#[bench::list(args = (LIST), setup = warm)]
fn whole((mut served, request): (Served, &'static [u8])) -> (usize, Served) {
    let bytes = served.answer(black_box(request)).len();
    (bytes, served)
}

#[library_benchmark]
#[bench::bind(setup = support::messages)]
fn pg(mut out: BytesMut) -> BytesMut {
    support::bind(&mut out);
    out
}

#[library_benchmark]
#[bench::decode(setup = support::row)]
fn pg_row((mut rows, body): (Rows, Vec<u8>)) -> (i64, usize, Rows, Vec<u8>) {
    let (id, bytes) = support::decode(&mut rows, &body);
    (id, bytes, rows, body)
}

fn pack_once() -> &'static str {
    support::pack(KEY);
    KEY
}

#[library_benchmark]
#[bench::pack(setup = pack_once)]
fn redis(key: &'static str) -> Vec<u8> {
    support::pack(key)
}

fn reply_once() -> &'static [u8] {
    assert!(support::parse_reply(REPLY).is_some());
    REPLY
}

#[library_benchmark]
#[bench::parse(setup = reply_once)]
fn redis_reply(reply: &'static [u8]) -> Option<(Value, usize)> {
    support::parse_reply(reply)
}

library_benchmark_group!(name = request, benchmarks = [head, route, l1, clicks, response, count, whole]);
library_benchmark_group!(name = wire, benchmarks = [pg, pg_row, redis, redis_reply]);
main!(library_benchmark_groups = request, wire);
