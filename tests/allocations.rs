//! A redirect from memory allocates nothing: bytes of the request in, bytes of the answer out, the click in the journal, the
//! metrics counted. The server runs in this process, whose allocator counts what the server's worker asks of it.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use snip::api::{Api, TrustedProxies};
use snip::clicks::{Clicks, Options};
use snip::http::{self, Bound, ListenAddress, Server, Sharing};
use snip::limits::{LINK_TTL, LINKS_LOCAL_BYTES};
use snip::links::Links;
use snip::model::NewUrl;
use snip::store::Store;
use snip::store::sqlite::SqliteStore;

/// As many at least.
const REDIRECTS: usize = 2000;
const PATIENCE: Duration = Duration::from_secs(60);
/// Links to follow; see [`measure_in_time`].
const CODES: [&str; 3] = ["first1", "second", "third3"];

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Where the first of them was.
static FIRST: OnceLock<Backtrace> = OnceLock::new();

thread_local! {
    /// Whether this thread's allocations count.
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, which counts.
struct Counting;

fn count() {
    // A thread that ends has no such variable any more, and is not the worker.
    if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // What looks for the place allocates itself.
        IS_COUNTED.set(false);
        FIRST.get_or_init(Backtrace::force_capture);
        IS_COUNTED.set(true);
    }
}

#[allow(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: each call goes to the system's allocator as it is; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above; the memory came from the system's allocator.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Marks the one worker of the runtime, by a coroutine that runs on it.
fn count_worker(is_counted: bool) {
    may::go!(move || IS_COUNTED.set(is_counted)).join().expect("a coroutine");
}

/// Asks for a link and reads the answer, which has no body and fits one read. Returns its `Date`.
fn follow(stream: &mut TcpStream, request: &[u8]) -> String {
    stream.write_all(request).expect("the request is sent");
    let mut answer = [0; 4096];
    let mut length = 0;
    while !answer[..length].ends_with(b"\r\n\r\n") {
        let more = stream.read(&mut answer[length..]).expect("an answer");
        assert!(more > 0, "the server closed the connection");
        length += more;
    }
    let answer = str::from_utf8(&answer[..length]).expect("text");
    assert!(answer.starts_with("HTTP/1.1 302 "), "{answer}");
    answer.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date").to_owned()
}

/// Follows a link; returns how many redirects were counted, and their allocations.
fn measure(stream: &mut TcpStream, code: &str) -> (usize, u64) {
    let request = format!(
        "GET /{code} HTTP/1.1\r\nHost: snip.test\r\nUser-Agent: a browser\r\nReferer: https://example.com/\r\n\
        X-Forwarded-For: 203.0.113.9\r\nAccept: */*\r\n\r\n"
    );
    let request = request.as_bytes();
    // The first ones fill the cache and make what is made once.
    let first_date = (0..100).map(|_| follow(stream, request)).last().expect("an answer");
    count_worker(true);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let mut redirects = 0;
    // The redirect that finds a new second writes the date anew, once for all that follow: one is to be among these.
    let mut is_date_new = false;
    while redirects < REDIRECTS || !is_date_new {
        is_date_new |= follow(stream, request) != first_date;
        redirects += 1;
    }
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    count_worker(false);
    (redirects, allocations)
}

/// [`measure`], again with another link when the machine took so long that the one was asked for anew, which allocates.
fn measure_in_time(stream: &mut TcpStream) -> (usize, u64) {
    let measured = CODES.iter().find_map(|code| {
        let began = Instant::now();
        let (redirects, allocations) = measure(stream, code);
        (allocations == 0 || began.elapsed() < LINK_TTL).then_some((redirects, allocations))
    });
    measured.expect("links are in memory while they are followed")
}

/// Asserts that the worker's allocations are counted.
fn assert_counting() {
    count_worker(true);
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let probe = may::go!(|| drop(std::hint::black_box(Box::new(1)))).join();
    count_worker(false);
    probe.expect("a coroutine");
    assert!(ALLOCATIONS.load(Ordering::Relaxed) > before, "the worker's allocations are counted");
}

#[test]
fn a_redirect_from_memory_allocates_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let store: Arc<SqliteStore> = Arc::new(SqliteStore::open(&folder.path().join("snip.db")).expect("a store"));
    for code in CODES {
        let (short_code, original_url) = (code.to_owned(), "https://example.com/a/page?of=some&length".to_owned());
        store.create_url(NewUrl { user_id: None, short_code, original_url, title: None }).expect("a link");
    }
    let links = Links::new(store.clone(), LINKS_LOCAL_BYTES);
    let clicks = Clicks::start(store.clone(), Options::new(&folder.path().join("journal"), "test")).expect("a journal");
    let stats = Arc::default();
    let api = Api::new(store, links, clicks, Arc::clone(&stats), TrustedProxies::default(), PATIENCE);
    let api = api.expect("a thread");
    let bound = Bound::bind(&ListenAddress::Tcp("127.0.0.1:0".into()), Sharing::Alone).expect("a port");
    let address = bound.tcp_address().expect("an address");
    let api = Arc::new(api);
    let server = Server::start(vec![bound], Arc::clone(&api), http::Options::default(), stats).expect("a server");

    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (redirects, allocations) = measure_in_time(&mut stream);
    let place = FIRST.get().filter(|_| allocations > 0).map(Backtrace::to_string).unwrap_or_default();
    assert_counting();
    eprintln!("{redirects} redirects, {allocations} allocations");
    assert_eq!(allocations, 0, "{place}");
    drop(stream);
    assert!(server.drain(PATIENCE));
    assert_eq!(api.close(PATIENCE), 0);
}
