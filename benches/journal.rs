//! The journal of clicks: what an append costs, and how many clicks a second get into each store.
//!
//! `taskset -c 0 cargo bench --bench journal` puts everything on one core, the database included; with `append`, `sqlite`
//! or `postgresql` behind it, after `--`, that part alone runs.
#![allow(clippy::print_stdout, reason = "a bench tells its figures")]

#[allow(dead_code, reason = "the bench uses a part")]
#[path = "../tests/support"]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
    pub mod wait;
}

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use snip::clicks::{self, ClickRef, Journal, Options};
use snip::model::{Id, NewUser, Timestamp};
use snip::pg::Config;
use snip::store::Store;
use snip::store::postgres::{PostgresStore, Tables};
use snip::store::sqlite::SqliteStore;
use support::postgres;

const USER_AGENT: &[u8] =
    b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36";
const REFERRER: &[u8] = b"https://news.example.com/item?id=41200000";
/// Appends that are timed together; the clock costs more than one.
const TOGETHER: usize = 1000;
const APPENDS: usize = 1_000_000;
const URLS: Id = 5000;
const USERS: Id = 500;
const PATIENCE: Duration = Duration::from_secs(600);

fn click(number: usize) -> ClickRef<'static> {
    // Some URLs are popular: the square of an even draw.
    let draw = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    let url_id = 1 + ((draw * draw) as Id >> 24) * URLS / (1 << 24);
    ClickRef {
        url_id,
        user_id: (url_id % 4 != 0).then_some(1 + url_id % USERS),
        at: Timestamp::now(),
        client: Some(IpAddr::V4(Ipv4Addr::from(number as u32))),
        user_agent: Some(USER_AGENT),
        referrer: Some(REFERRER),
    }
}

/// Appends as fast as can be, or with `pause` after each [`TOGETHER`]. Returns the nanoseconds of one, in order.
fn fill(folder: &Path, count: usize, pause: Duration) -> Vec<f64> {
    let options = Options { bytes_max: 2 << 30, ..Options::new(folder, "bench") };
    let journal = Journal::open(options).expect("a journal");
    let clicks: Vec<_> = (0..TOGETHER).map(click).collect();
    let mut nanoseconds: Vec<_> = (0..count / TOGETHER)
        .map(|_| {
            let began = Instant::now();
            clicks.iter().for_each(|click| journal.append(*click));
            let took = began.elapsed();
            std::thread::sleep(pause);
            took.as_nanos() as f64 / TOGETHER as f64
        })
        .collect();
    nanoseconds.sort_by(f64::total_cmp);
    nanoseconds
}

/// CPU time of this process, in seconds (proc(5): user and system time, in ticks).
fn cpu_seconds() -> f64 {
    postgres::cpu_ticks(std::process::id()) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Ships a journal of `count` clicks; `server_ticks` tells the CPU time of a store that is not in this process.
fn ship(name: &str, store: &dyn Store, count: usize, server_ticks: impl Fn() -> u64) {
    for number in 0..USERS {
        let (username, email) = (format!("user{number}"), format!("user{number}@example.com"));
        store.create_user(NewUser { username, email, created_at: None }).expect("a user");
    }
    let folder = tempfile::tempdir().expect("a folder");
    fill(folder.path(), count, Duration::ZERO);
    let server_seconds = || server_ticks() as f64 / rustix::param::clock_ticks_per_second() as f64;
    let (own_before, server_before) = (cpu_seconds(), server_seconds());
    let began = Instant::now();
    let shipped = clicks::ship(folder.path(), store, PATIENCE).expect("a journal").expect("in time");
    let took = began.elapsed().as_secs_f64();
    let each = |seconds: f64| seconds * 1e6 / shipped.stored as f64;
    let (own, server) = (each(cpu_seconds() - own_before), each(server_seconds() - server_before));
    println!(
        "{name}: {} clicks in {took:.2} s, {:.0} clicks/s; CPU of a click: {own:.2} µs here, {server:.2} µs in the server",
        shipped.stored,
        shipped.stored as f64 / took
    );
}

fn append(name: &str, count: usize, pause: Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let appended = fill(folder.path(), count, pause);
    let at = |share: f64| appended[((appended.len() - 1) as f64 * share) as usize];
    println!("append, {name}: median {:.0} ns, 99 % {:.0} ns, worst {:.0} ns", at(0.5), at(0.99), at(1.0));
}

fn appends() {
    // At the rate of the product's bar, and at more than a core can serve, the thread beside the writer keeps the pages
    // present; at full speed it cannot.
    append("30,000/s", APPENDS / 4, Duration::from_millis(33));
    append("150,000/s", APPENDS / 2, Duration::from_micros(6600));
    append("as fast as can be", APPENDS, Duration::ZERO);
    let began = Instant::now();
    let reads: usize = (0..APPENDS).map(|number| usize::from(click(number).client.is_some())).sum();
    println!("of a click, making it (the clock): {:.0} ns", began.elapsed().as_nanos() as f64 / reads as f64);
}

fn sqlite() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = SqliteStore::open(&folder.path().join("snip.db")).expect("a store");
    ship("SQLite", &store, 200_000, || 0);
}

fn postgresql() {
    // PostgreSQL's own defaults, where the tests' server has others.
    let conf = "shared_buffers = 128MB\nfsync = on\nfull_page_writes = on\nmax_wal_size = 1GB\n".to_owned();
    let server = postgres::Postgres::start_with(&postgres::Setup { conf, ..postgres::Setup::default() });
    let config = Config::parse(&server.url_unix()).expect("a connection string");
    let store = PostgresStore::open(config, Tables::Migrate).expect("a store");
    ship("PostgreSQL", &store, 500_000, || server.cpu_ticks());
}

fn main() {
    let parts: [(&str, fn()); 3] = [("append", appends), ("sqlite", sqlite), ("postgresql", postgresql)];
    // Cargo adds arguments of its own, which begin with dashes.
    let wanted: Vec<String> = std::env::args().skip(1).filter(|name| !name.starts_with('-')).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    parts.into_iter().filter(|(name, _)| is_wanted(name)).for_each(|(_, run)| run());
}
