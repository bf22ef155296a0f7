//! What clients cannot do to the server: hold it up by being slow, fill its memory, keep the probes out, use up its
//! descriptors; and what no stored text can do to an answer.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use snip::limits::RESERVE_TIMEOUT;
use support::client::{Client, Conn, Response};
use support::ports::free_port;
use support::postgres::Postgres;
use support::snip::{Launch, Snip, StoreKind};
use support::wait::eventually;

const GET_LIVEZ: &str = "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n";
const GET_PAGE: &str = "GET /urls?per_page=100 HTTP/1.1\r\nHost: x\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

fn launch(args: &[&str]) -> Launch {
    args.iter().fold(Launch::new(), |launch, &arg| launch.arg(arg))
}

fn closed(client: &mut Client, reason: &str) -> f64 {
    client.metric(&format!("http_connections_closed_total{{reason=\"{reason}\"}}"))
}

/// Fills the store, so that a page of URLs has some six megabytes.
fn fill(snip: &Snip) {
    let mut client = snip.client();
    let path = "a".repeat(60_000);
    (0..100).for_each(|_| drop(client.shorten(&format!("https://example.com/{path}"))));
}

// ---- Time ------------------------------------------------------------------------------------------------------

fn post_of(bytes: usize) -> Vec<u8> {
    let body = format!(r#"{{"url": "https://example.com/{}"}}"#, "a".repeat(bytes - 31));
    let length = body.len();
    format!(
        "POST /urls HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends the bytes in parts, ten a second, until all are sent or the server takes no more; reads the answer.
fn trickle(snip: &Snip, bytes: &[u8], part: usize) -> Response {
    let mut conn = snip.connect();
    for part in bytes.chunks(part) {
        if conn.try_send(part).is_err() {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    conn.response()
}

/// How long it took.
fn time_of(act: impl FnOnce()) -> Duration {
    let began = Instant::now();
    act();
    began.elapsed()
}

#[test]
fn a_body_must_keep_to_the_minimum_rate() {
    // 10,000 bytes in each five seconds: who sends them in one has four left for a machine that is busy elsewhere.
    let snip = launch(&["--body-timeout", "5s", "--min-rate", "2000"]).start();
    let took = thread::scope(|scope| {
        // Longer than the timeout in all, and as fast as it must be.
        scope.spawn(|| trickle(&snip, &post_of(60_000), 1000).expect(201));
        // Too slow, though never silent: all of it would take forty seconds.
        let slow = scope.spawn(|| time_of(|| drop(trickle(&snip, &post_of(20_000), 50).expect(408))));
        // What came fast does not count for later.
        let stalled =
            scope.spawn(|| time_of(|| drop(snip.connect().send(&post_of(60_000)[..55_000]).response().expect(408))));
        [slow, stalled].map(|client| client.join().expect("a refusal"))
    });
    assert!(took.iter().all(|took| *took < Duration::from_secs(20)), "{took:?}");
    eventually("their ends", LIMIT, || closed(&mut snip.client(), "body_timeout") == 2.0);
}

/// Takes an answer at some four megabytes a second; returns how many bytes of it came.
fn take_steadily(snip: &Snip) -> usize {
    let mut conn = TcpStream::connect(snip.authority()).expect("connect");
    conn.write_all(GET_PAGE.replace("Host", "Connection: close\r\nHost").as_bytes()).expect("send");
    let (mut taken, mut buffer) = (0, vec![0; 200_000]);
    while let Ok(count @ 1..) = conn.read(&mut buffer) {
        taken += count;
        thread::sleep(Duration::from_millis(50));
    }
    taken
}

#[test]
fn an_answer_must_be_taken_at_the_minimum_rate() {
    let snip = launch(&["--write-timeout", "1s", "--min-rate", "1000000"]).start();
    fill(&snip);
    let mut client = snip.client();
    // One takes nothing, one takes a byte ever so often.
    let mut deaf = snip.connect();
    deaf.send(GET_PAGE);
    eventually("the deaf one's end", LIMIT, || closed(&mut client, "write_timeout") >= 1.0);
    let mut slow = TcpStream::connect(snip.authority()).expect("connect");
    slow.write_all(GET_PAGE.as_bytes()).expect("send");
    eventually("the slow one's end", LIMIT, || {
        let _ = slow.read(&mut [0]);
        closed(&mut client, "write_timeout") >= 2.0
    });
    // One that is slower than the timeout and as fast as it must be gets all of it. A reader that a busy machine keeps
    // from reading is not as fast, so that it is not the first try that counts.
    eventually("all of it is taken", LIMIT, || take_steadily(&snip) > 6_000_000);
}

/// There a connection is told of room to write only while it waits for it.
#[test]
fn over_a_unix_socket_an_answer_larger_than_its_buffers_is_written() {
    let snip = launch(&["--write-timeout", "10s"]).unix().start();
    fill(&snip);
    let mut conn = snip.connect();
    for _ in 0..3 {
        conn.send(GET_PAGE);
        let body = conn.response().expect(200).body.len();
        assert!(body > 6_000_000, "{body}");
        conn.send(GET_LIVEZ).response().expect(200);
    }
    let mut deaf = snip.connect();
    deaf.send(GET_PAGE);
    eventually("the deaf one's end", LIMIT, || closed(&mut snip.client(), "write_timeout") == 1.0);
}

#[test]
fn the_time_for_a_head_is_not_lost_while_an_answer_is_written() {
    let snip = launch(&["--head-timeout", "1s", "--write-timeout", "20s"]).start();
    fill(&snip);
    let mut conn = snip.connect();
    conn.send(format!("{GET_PAGE}GET /livez HTTP/1.1\r\nHo"));
    thread::sleep(Duration::from_secs(2));
    conn.response().expect(200);
    let began = Instant::now();
    conn.response().expect(408);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    drop(conn);
    eventually("its end", LIMIT, || closed(&mut snip.client(), "head_timeout") == 1.0);
}

#[test]
fn each_deadline_has_its_count() {
    let snip = launch(&["--head-timeout", "1s", "--idle-timeout", "5s"]).start();
    let mut client = snip.client();
    let (before_idle, before_head) = (closed(&mut client, "idle_timeout"), closed(&mut client, "head_timeout"));
    snip.connect().expect_close();
    snip.connect().send("GET").response().expect(408);
    eventually("two ends", LIMIT, || {
        let mut client = snip.client();
        closed(&mut client, "idle_timeout") > before_idle && closed(&mut client, "head_timeout") == before_head + 1.0
    });
}

// ---- Memory ----------------------------------------------------------------------------------------------------

#[test]
fn answers_that_nobody_takes_are_bounded_over_all_connections() {
    let mut snip = Snip::start();
    fill(&snip);
    let mut client = snip.client();
    let deaf: Vec<_> = (0..40)
        .map(|_| {
            let mut conn = snip.connect();
            conn.send(GET_PAGE);
            conn
        })
        .collect();
    eventually("the bound", LIMIT, || client.metric("http_buffers_refused_total") > 0.0);
    let held = client.metric("http_buffer_bytes");
    assert!(held <= 64.0 * MIB, "{held} bytes");
    // Others are served meanwhile, and everybody is afterwards.
    for _ in 0..50 {
        snip.client().get("/users").expect(200);
    }
    drop(deaf);
    eventually("the memory back", LIMIT, || client.metric("http_buffer_bytes") < MIB);
    assert!(client.get("/urls?per_page=100").expect(200).body.len() > 6_000_000);
    snip.assert_alive();
}

#[test]
fn bodies_that_do_not_end_are_bounded_over_all_connections() {
    let mut snip = Snip::start();
    let head = "POST /users/bulk HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n\
                Content-Length: 9000000\r\n\r\n";
    let part = vec![b'x'; 8_000_000];
    let mut conns = Vec::new();
    let refused = loop {
        assert!(conns.len() < 20, "nobody is refused");
        let mut conn = snip.connect();
        // What is refused is refused on the way.
        if conn.send(head).try_send(&part).is_err() || snip.client().metric("http_buffers_refused_total") > 0.0 {
            break conn;
        }
        conns.push(conn);
    };
    assert!(conns.len() >= 2, "{}", conns.len());
    let mut refused = refused;
    let answer = refused.response().expect(503);
    assert!(answer.closes() && answer.header("Retry-After").is_some(), "{answer:?}");
    let mut client = snip.client();
    assert!(client.metric("http_buffer_bytes") <= 48.0 * MIB + 65_536.0);
    client.shorten("https://example.com/");
    assert!(closed(&mut client, "overloaded") >= 1.0);
    drop(conns);
    eventually("the memory back", LIMIT, || client.metric("http_buffer_bytes") < MIB);
    snip.connect().send(post_of(60_000)).response().expect(201);
    snip.assert_alive();
}

#[test]
fn who_has_sent_half_a_head_holds_a_small_buffer() {
    // The first must still wait for the rest of its head when the last has connected.
    let snip = launch(&["--head-timeout", "60s"]).start();
    let mut client = snip.client();
    let _slow: Vec<_> = (0..500)
        .map(|_| {
            let mut conn = snip.connect();
            conn.send("GET /livez HTTP/1.1\r\nHost: x\r\n");
            conn
        })
        .collect();
    eventually("500 heads", LIMIT, || client.metric("http_buffer_bytes") >= 500.0 * 4096.0);
    assert!(client.metric("http_buffer_bytes") <= 510.0 * 4096.0 + 65_536.0);
}

// ---- Connections -----------------------------------------------------------------------------------------------

/// Opens connections until so many are kept open.
fn hold(snip: &Snip, count: usize) -> Vec<Conn> {
    let mut held = Vec::new();
    eventually("connections that are kept", LIMIT, || {
        let mut conn = snip.connect();
        let answered = conn.try_send(GET_LIVEZ).and_then(|()| conn.try_response_to("GET"));
        if answered.is_ok_and(|answer| answer.status == 200 && !answer.closes()) {
            held.push(conn);
        }
        held.len() == count
    });
    held
}

/// A connection past the limit that has sent this well within its deadline; a machine that is busy elsewhere may take up
/// that time between connecting and sending.
fn ask_in_time(snip: &Snip, request: &str) -> Conn {
    loop {
        let began = Instant::now();
        let mut conn = snip.connect();
        let sent = conn.try_send(request);
        if began.elapsed() < RESERVE_TIMEOUT / 2 {
            sent.expect("the server takes the bytes");
            return conn;
        }
    }
}

#[test]
fn probes_are_answered_at_the_connection_limit() {
    let snip = launch(&["--max-connections", "20"]).start();
    let (_, code) = snip.client().shorten("https://example.com/");
    let mut held = hold(&snip, 20);
    for (request, status) in [
        (GET_LIVEZ.to_owned(), 200),
        (GET_LIVEZ.replace("livez", "readyz"), 200),
        (GET_LIVEZ.replace("livez", "metrics"), 200),
        (GET_LIVEZ.replace("GET", "HEAD"), 200),
        (GET_LIVEZ.replace("livez", "health"), 503),
        (GET_LIVEZ.replace("livez", &code), 503),
        (GET_LIVEZ.replace("livez", "urls"), 503),
        // A body would be one more thing to wait for.
        (GET_LIVEZ.replace("Host", "Content-Length: 5\r\nHost"), 503),
    ] {
        let mut conn = ask_in_time(&snip, &request);
        let method = request.split(' ').next().expect("a method");
        let answer = conn.response_to(method).expect(status);
        assert!(answer.closes(), "{request:?}: {answer:?}");
        assert_eq!(answer.header("Retry-After").is_some(), status == 503, "{request:?}");
        conn.expect_close();
    }
    // One that asks nothing is told why it is closed.
    let mut silent = snip.connect();
    silent.response().expect(503);
    silent.expect_close();
    ask_in_time(&snip, "GET /livez").response().expect(408);
    // Past the reserve nothing is read; and it lasts no longer than its deadline.
    let crowd: Vec<_> = (0..200).map(|_| snip.connect()).collect();
    eventually("a probe in a crowd", LIMIT, || {
        let mut conn = snip.connect();
        conn.try_send(GET_LIVEZ).is_ok() && conn.try_response_to("GET").is_ok_and(|answer| answer.status == 200)
    });
    drop(crowd);
    // Those that are in stay in, and know of the others.
    held[0].send(format!("GET /{code} HTTP/1.1\r\nHost: x\r\n\r\n")).response().expect(302);
    let metrics = held[1].send(GET_LIVEZ.replace("livez", "metrics")).response().expect(200);
    let over_limit = metrics.text().lines().find_map(|line| line.strip_prefix("http_connections_over_limit_total "));
    assert!(over_limit.expect("a count").parse::<f64>().expect("a number") >= 6.0, "{over_limit:?}");
    // A place that becomes free is a place like any other.
    held.pop();
    eventually("a free place", LIMIT, || {
        let mut conn = snip.connect();
        let asked = conn.try_send(GET_LIVEZ.replace("livez", &code)).and_then(|()| conn.try_response_to("GET"));
        asked.is_ok_and(|answer| answer.status == 302 && !answer.closes())
    });
}

/// Not by its metrics: a server without a descriptor to spare cannot look itself up.
fn cpu_seconds(snip: &Snip) -> f64 {
    let process = procfs::process::Process::new(snip.pid().cast_signed());
    let stat = process.and_then(|process| process.stat()).expect("the process lives");
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}

#[test]
fn want_of_descriptors_is_waited_out() {
    let snip = Snip::start();
    let mut client = snip.client();
    client.get("/livez").expect(200);
    let pid = Pid::from_raw(snip.pid().cast_signed()).expect("a process id");
    let open = std::fs::read_dir(format!("/proc/{}/fd", snip.pid())).expect("descriptors").count() as u64;
    let limit = |count| Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) };
    let before = prlimit(Some(pid), Resource::Nofile, limit(open + 10)).expect("a lower limit");
    let mut waiting: Vec<_> = (0..30).map(|_| snip.connect()).collect();
    for conn in &mut waiting {
        conn.send(GET_LIVEZ);
    }
    eventually("accept to fail", LIMIT, || client.metric("http_accept_errors_total") > 0.0);
    // It neither spins nor forgets those that it has.
    let began = Instant::now();
    let (errors, cpu) = (client.metric("http_accept_errors_total"), cpu_seconds(&snip));
    thread::sleep(Duration::from_secs(2));
    let errors = client.metric("http_accept_errors_total") - errors;
    let (cpu, seconds) = (cpu_seconds(&snip) - cpu, began.elapsed().as_secs_f64());
    assert!((1.0..=30.0 * seconds).contains(&errors), "{errors} failures in {seconds} s");
    assert!(cpu < seconds / 2.0, "{cpu} of {seconds} s");
    // Descriptors that others give back go to those that wait; with more of them all are served.
    waiting.drain(..5).for_each(|mut conn| drop(conn.response().expect(200)));
    waiting.drain(..2).for_each(|mut conn| drop(conn.response().expect(200)));
    prlimit(Some(pid), Resource::Nofile, before).expect("the old limit");
    waiting.iter_mut().for_each(|conn| drop(conn.response().expect(200)));
    snip.client().get("/livez").expect(200);
}

#[test]
fn want_of_memory_for_a_connection_costs_that_connection_alone() {
    let snip = Snip::start();
    let mut client = snip.client();
    client.get("/livez").expect(200);
    let pid = Pid::from_raw(snip.pid().cast_signed()).expect("a process id");
    let status = std::fs::read_to_string(format!("/proc/{}/status", snip.pid())).expect("its memory");
    let mapped = status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB"));
    let mapped: u64 = mapped.and_then(|kib| kib.parse().ok()).expect("a size");
    let limit = Rlimit { current: Some((mapped + 4096) * 1024), ..getrlimit(Resource::As) };
    let before = prlimit(Some(pid), Resource::As, limit).expect("a lower limit");
    let mut held = Vec::new();
    let refused = (0..200).find(|_| {
        let mut conn = snip.connect();
        let asked = conn.try_send(GET_LIVEZ).and_then(|()| conn.try_response_to("GET"));
        held.push(conn);
        asked.is_err()
    });
    prlimit(Some(pid), Resource::As, before).expect("the old limit");
    assert!(refused.is_some_and(|served| served > 0), "{refused:?}");
    snip.client().get("/livez").expect(200);
    assert!(client.metric("http_accept_errors_total") > 0.0);
}

#[test]
fn a_crowd_that_never_stops_asking_keeps_nobody_from_being_accepted() {
    let snip = Snip::start();
    let mut crowd: Vec<_> = (0..16)
        .map(|_| {
            let conn = TcpStream::connect(snip.authority()).expect("connect");
            conn.set_nonblocking(true).expect("non-blocking");
            (conn, 0)
        })
        .collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let asking = thread::spawn(move || {
        let (requests, mut answers) = (GET_LIVEZ.repeat(4), vec![0; 65536]);
        while !stopped.load(Ordering::Relaxed) {
            for (conn, sent) in &mut crowd {
                while let Ok(count) = conn.read(&mut answers) {
                    assert!(count > 0, "closed");
                }
                match conn.write(&requests.as_bytes()[*sent..]) {
                    Ok(count) => *sent = (*sent + count) % requests.len(),
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
        }
    });
    let began = Instant::now();
    for _ in 0..30 {
        snip.client().get("/livez").expect(200);
    }
    stop.store(true, Ordering::Relaxed);
    asking.join().expect("the crowd was served");
    assert!(began.elapsed() < LIMIT, "{:?}", began.elapsed());
}

// ---- Answers ---------------------------------------------------------------------------------------------------

#[test]
fn answers_say_how_to_keep_and_to_read_them() {
    let snip = Snip::start();
    let mut client = snip.client();
    let (_, code) = client.shorten("https://example.com/");
    for (path, status, has_content) in [
        (format!("/{code}"), 302, false),
        ("/nosuch".to_owned(), 404, true),
        ("/no/such".to_owned(), 404, true),
        ("/urls".to_owned(), 200, true),
        ("/livez".to_owned(), 200, true),
        ("/metrics".to_owned(), 200, true),
    ] {
        let answer = client.get(&path).expect(status);
        assert_eq!(answer.header("Cache-Control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("Server"), Some("snip"), "{path}");
        assert_eq!(answer.header("X-Content-Type-Options").is_some(), has_content, "{path}");
    }
    let refusal = snip.connect().send("GARBAGE\r\n\r\n").response().expect(400);
    assert_eq!(refusal.header("Cache-Control"), Some("no-store"));
    assert_eq!(refusal.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(client.delete("/urls/1").expect(204).header("Cache-Control"), Some("no-store"));
}

/// Targets as only another program can have written them.
const SPLITTING: [(&str, &str); 4] = [
    ("split1", "https://example.com/\r\nSet-Cookie: a=b"),
    ("split2", "https://example.com/\nSet-Cookie: a=b"),
    ("split3", "https://example.com/\rSet-Cookie: a=b"),
    ("split4", "https://example.com/\r\n\r\n<script>"),
];

fn check_splitting(snip: &Snip) {
    let mut conn = snip.connect();
    for (code, target) in SPLITTING {
        // Both when the store is asked and when a cache knows.
        for _ in 0..2 {
            let answer = conn.send(format!("GET /{code} HTTP/1.1\r\nHost: x\r\n\r\n")).response();
            assert_eq!((answer.status, answer.error().as_str()), (500, "Internal server error"), "{target:?}");
            assert_eq!((answer.header("Location"), answer.header("Set-Cookie")), (None, None), "{target:?}");
            assert!(!answer.text().contains("example.com"), "{answer:?}");
        }
    }
    conn.send(GET_LIVEZ).response().expect(200);
    // In JSON they are texts like any other.
    let urls = snip.client().get("/urls").expect(200).json();
    assert_eq!(urls[0]["original_url"], SPLITTING[0].1);
    assert_eq!(snip.client().get("/events").expect(200).text(), "[]", "what was not followed is no click");
}

const INSERT: &str = "INSERT INTO urls (short_code, original_url, created_at, updated_at) VALUES";

#[test]
fn no_stored_text_splits_a_header_sqlite() {
    let snip = Snip::start_on(StoreKind::Sqlite);
    let sql = Connection::open(snip.place().data_dir().join("snip.db")).expect("the store");
    for row in SPLITTING {
        sql.execute(&format!("{INSERT} (?, ?, '2024-01-01 00:00:00', '2024-01-01 00:00:00')"), row).expect("a row");
    }
    check_splitting(&snip);
}

#[test]
fn no_stored_text_splits_a_header_postgres() {
    let postgres = Postgres::start();
    let snip = Launch::on(StoreKind::Sqlite).arg("--database-url").arg(postgres.url()).start();
    for (code, target) in SPLITTING {
        let target = target.replace('\r', "\\r").replace('\n', "\\n");
        postgres.psql(&format!("{INSERT} ('{code}', E'{target}', now(), now())"));
    }
    check_splitting(&snip);
}

// ---- Where it listens ------------------------------------------------------------------------------------------

#[test]
fn an_address_that_others_can_reach_is_told() {
    const WARNING: &str = "there is no access control";
    let snip = Snip::start();
    assert!(!snip.log().contains(WARNING), "{}", snip.log());
    let everywhere = format!("0.0.0.0:{}", free_port().port());
    let snip = launch(&["--listen", &everywhere]).start();
    eventually("a warning", LIMIT, || snip.log().contains(WARNING));
    assert!(snip.log().contains(&everywhere), "{}", snip.log());
}
