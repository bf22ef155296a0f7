//! How long the parts of a request take: those that `instructions` counts, by the same names.
//!
//! `cargo bench --bench request [-- NAME]`; `-- --test` runs each part once. `whole.create` waits until SQLite has the link
//! on its disk, `whole.list` for SQLite's thread; all else is the calling thread's alone.
#![allow(missing_docs, reason = "the names say what is measured")]

mod support;

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BatchSize, Bencher, Criterion, criterion_group, criterion_main};
use support::{CREATE, KEY, LIST, PATH, REDIRECT, REPLY, Served};

/// Clicks laid down between two pauses: 100,000/s, so that the journal's thread keeps its pages present as it does at the
/// rate of a server, and the first ones after a pause, whose memory has left the processor's caches, do not count much.
/// The pauses are part of criterion's seconds: 400,000 clicks or so, which the journal has room for.
const CLICKS_TOGETHER: u64 = 1000;
const PAUSE: Duration = Duration::from_millis(10);

/// Times `part` without the pauses, [`CLICKS_TOGETHER`] calls at a time.
fn with_pauses(bencher: &mut Bencher<'_>, mut part: impl FnMut()) {
    let mut together = || {
        thread::sleep(PAUSE);
        let began = Instant::now();
        (0..CLICKS_TOGETHER).for_each(|_| part());
        began.elapsed()
    };
    bencher.iter_custom(|count| {
        let rounds = count.div_ceil(CLICKS_TOGETHER);
        let took: Duration = (0..rounds).map(|_| together()).sum();
        took.mul_f64(count as f64 / (rounds * CLICKS_TOGETHER) as f64)
    });
}

fn redirect(criterion: &mut Criterion) {
    criterion.bench_function("head.parse", |bencher| bencher.iter(|| support::parse_head(REDIRECT)));
    criterion.bench_function("route.code", |bencher| bencher.iter(|| support::route(PATH)));
    let (links, _folder) = support::links();
    criterion.bench_function("l1.hit", |bencher| bencher.iter(|| support::resolve(&links)));
    let mut out = support::buffer();
    criterion.bench_function("response.encode", |bencher| bencher.iter(|| support::encode(&mut out)));
    let metrics = support::metrics();
    criterion.bench_function("count.observe", |bencher| bencher.iter(|| support::observe(&metrics)));
}

fn clicks(criterion: &mut Criterion) {
    let (journal, _folder) = support::journal();
    criterion.bench_function("clicks.append", |bencher| with_pauses(bencher, || support::append(&journal)));
    let mut served = Served::warm(REDIRECT);
    let mut answer = || {
        black_box(served.answer(black_box(REDIRECT)));
    };
    criterion.bench_function("whole.redirect", |bencher| with_pauses(bencher, &mut answer));
}

fn whole(criterion: &mut Criterion) {
    for (name, request) in [("whole.create", CREATE), ("whole.list", LIST)] {
        let mut served = Served::warm(request);
        criterion.bench_function(name, |bencher| bencher.iter(|| served.answer(black_box(request)).len()));
    }
}

fn wire(criterion: &mut Criterion) {
    let mut out = support::messages();
    criterion.bench_function("pg.bind", |bencher| bencher.iter(|| support::bind(&mut out)));
    let decode = |bencher: &mut Bencher<'_>| {
        bencher.iter_batched_ref(support::row, |(rows, body)| support::decode(rows, body), BatchSize::SmallInput);
    };
    criterion.bench_function("pg_row.decode", decode);
    criterion.bench_function("redis.pack", |bencher| bencher.iter(|| support::pack(KEY)));
    criterion.bench_function("redis_reply.parse", |bencher| bencher.iter(|| support::parse_reply(REPLY)));
}

fn settings() -> Criterion {
    let (warm_up, measurement) = (Duration::from_secs(1), Duration::from_secs(3));
    Criterion::default().without_plots().warm_up_time(warm_up).measurement_time(measurement)
}

criterion_group!(name = request; config = settings(); targets = redirect, clicks, whole, wire);
criterion_main!(request);
