//! A burst as a running server sees it: a core that never rests, and clicks in numbers.

mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use support::client::Conn;
use support::snip::{Place, Snip, StoreKind};
use support::wait::eventually;

/// Requests that are sent before their answers are read.
const PIPELINE: usize = 250;
/// Less than the clicks of a burst wait (`limits::CLICKS_BURST_MAX`).
const SEEN_WITHIN: Duration = Duration::from_secs(14);
const LIMIT: Duration = Duration::from_secs(60);

/// One of the processors that this process may run on.
fn a_processor() -> CpuSet {
    let allowed = sched_getaffinity(None).expect("processors");
    let first = (0..CpuSet::MAX_CPU).find(|&processor| allowed.is_set(processor)).expect("a processor");
    let mut one = CpuSet::new();
    one.set(first);
    one
}

/// Has this thread, and what it starts, run there alone.
fn pin(processor: &CpuSet) {
    sched_setaffinity(None, processor).expect("pinned");
}

/// Keeps a processor from being idle, and leaves it to whoever else has something to do there.
fn spin(processor: &CpuSet, is_over: &AtomicBool) {
    pin(processor);
    rustix::process::nice(19).expect("a lower priority");
    while !is_over.load(Ordering::Relaxed) {
        std::hint::spin_loop();
    }
}

/// Ends the spinning, also where an assertion fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn redirects(conn: &mut Conn, code: &str) {
    conn.send(format!("GET /{code} HTTP/1.1\r\nHost: snip.test\r\n\r\n").repeat(PIPELINE));
    (0..PIPELINE).for_each(|_| assert_eq!(conn.response().status, 302));
}

fn stored(place: &Place) -> i64 {
    let db = Connection::open(place.data_dir().join("snip.db")).expect("the file");
    db.query_row("SELECT count(*) FROM events WHERE event_type = 'redirect'", [], |row| row.get(0)).expect("a count")
}

#[test]
fn clicks_wait_while_the_core_is_busy_unless_somebody_asks() {
    let (processor, is_over) = (a_processor(), AtomicBool::new(false));
    thread::scope(|scope| {
        let over = Over(&is_over);
        let start = || {
            pin(&processor);
            Snip::start_on(StoreKind::Sqlite)
        };
        let snip = scope.spawn(start).join().expect("a server");
        scope.spawn(|| spin(&processor, &is_over));
        let mut client = snip.client();
        let (id, code) = client.shorten("https://example.com/");
        let mut conn = snip.connect();
        let (began, mut answered) = (Instant::now(), 0);
        while client.metric("clicks_deferred") == 0.0 {
            assert!(began.elapsed() < SEEN_WITHIN, "{answered} redirects, and none of their clicks had to wait");
            redirects(&mut conn, &code);
            answered += PIPELINE;
        }
        let seen = client.get(&format!("/urls/{id}/stats")).expect(200).json()["redirect_count"].as_u64();
        assert_eq!(seen, Some(answered as u64), "who asks sees all");
        redirects(&mut conn, &code);
        answered += PIPELINE;
        // Nobody follows a link any more: that is the end of the burst, though the core is as busy as before.
        eventually("all clicks are stored", LIMIT, || client.metric("clicks_waiting") == 0.0);
        assert_eq!((client.metric("clicks_deferred"), stored(snip.place())), (0.0, answered as i64));
        drop(over);
    });
}
