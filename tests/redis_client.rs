//! The Redis client against the server itself: log-in, pipelining, scripts, messages, and the ways in which caches
//! fail.
//!
//! Upper bounds of times are generous: they tell a wait that ends from one that does not.

mod support;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use snip::limits::{REDIS_BATCH_DEADLINE, REDIS_BREAKER_FAILURES};
use snip::redis::client::Care;
use snip::redis::{Client, Cmd, Error, Events, Result, Script, Value};
use support::ports::free_port;
use support::redis::{Redis, impostor};
use support::wait::wait_until;

const CHANNEL: &str = "news";
const SOON: Duration = Duration::from_secs(20);

static ECHO: Script = Script::new("redis.call('PUBLISH', 'news', ARGV[1]) return {KEYS[1], ARGV[1]}");

#[derive(Default)]
struct Heard {
    ups: AtomicUsize,
    downs: AtomicUsize,
    failed: AtomicUsize,
    messages: Mutex<Vec<String>>,
}

impl Events for Heard {
    fn up(&self) {
        self.ups.fetch_add(1, Ordering::SeqCst);
    }

    fn down(&self) {
        self.downs.fetch_add(1, Ordering::SeqCst);
    }

    fn message(&self, text: &[u8]) {
        self.messages.lock().unwrap().push(String::from_utf8_lossy(text).into_owned());
    }

    fn failed(&self) {
        self.failed.fetch_add(1, Ordering::SeqCst);
    }
}

fn open(url: &str) -> (Client, Arc<Heard>) {
    let heard = Arc::new(Heard::default());
    let client = Client::open(url.parse().unwrap(), &[&ECHO], CHANNEL, Arc::clone(&heard) as Arc<dyn Events>).unwrap();
    (client, heard)
}

fn connect(url: &str) -> (Client, Arc<Heard>) {
    let (client, heard) = open(url);
    wait_until("the client is connected", || client.stats().is_connected);
    (client, heard)
}

fn cmd(args: &[&str]) -> Cmd {
    let mut cmd = Cmd::new();
    cmd.arg(args);
    cmd
}

fn call(client: &Client, args: &[&str]) -> Result<Value> {
    client.call(&cmd(args))
}

fn text(text: &str) -> Value {
    Value::BulkString(text.into())
}

/// On a busy machine a reply may take longer than the deadline of requests; these tests are not about that.
fn insist<T>(mut act: impl FnMut() -> Result<T>) -> T {
    let begun = Instant::now();
    loop {
        match act() {
            Ok(value) => return value,
            Err(error) => assert!(begun.elapsed() < SOON, "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn commands_are_answered_over_tcp_and_unix_sockets_in_any_database() {
    let redis = Redis::start();
    for (url, database) in [
        (redis.url(), 0),
        (redis.url_unix(), 0),
        (format!("{}/3", redis.url()), 3),
        (format!("redis+{}?db=4", redis.url_unix()), 4),
    ] {
        let (client, _) = connect(&url);
        insist(|| call(&client, &["SET", "k", &url]));
        assert_eq!(insist(|| call(&client, &["GET", "k"])), text(&url));
        let Value::BulkString(info) = redis.run(&["INFO", "keyspace"]) else { panic!("INFO says something") };
        assert!(String::from_utf8(info).unwrap().contains(&format!("db{database}:keys=1")), "{url}");
    }
}

#[test]
fn users_and_passwords() {
    let redis =
        Redis::start_with(&["--user", "ann", "on", ">s3:cret", "~*", "&*", "+@all", "--requirepass", "def@ult"]);
    for login in ["ann:s3%3Acret@", ":def%40ult@"] {
        let (client, _) = connect(&redis.url().replace("//", &format!("//{login}")));
        assert_eq!(insist(|| call(&client, &["PING"])), Value::SimpleString("PONG".into()));
    }
    let (client, heard) = open(&redis.url().replace("//", "//ann:wrong@"));
    wait_until("the log-in failed", || client.stats().connect_errors > 1);
    assert!(matches!(call(&client, &["PING"]), Err(Error::Unavailable(_))));
    assert_eq!(heard.ups.load(Ordering::SeqCst), 0);
}

#[test]
fn a_thousand_coroutines_share_one_connection() {
    let redis = Redis::start();
    let (client, _) = connect(&redis.url_unix());
    let waits: Vec<_> = (0..1000)
        .map(|n| {
            let client = client.clone();
            may::go!(move || {
                // All are asked before the first answer is read: that may take longer than one request may.
                let echoed = client.batch(&[cmd(&["ECHO", &n.to_string()])], REDIS_BATCH_DEADLINE);
                (n, echoed)
            })
        })
        .collect();
    let mut answered = 0;
    for wait in waits {
        let (n, echoed) = wait.join().unwrap();
        match echoed {
            Ok(values) => {
                assert_eq!(values, [Ok(text(&n.to_string()))], "replies find their callers");
                answered += 1;
            }
            Err(error) => assert!(matches!(error, Error::TimedOut | Error::Open), "{error}"),
        }
    }
    assert!(answered > 0);
    assert_eq!(client.stats().connects, 1);
}

#[test]
fn scripts_run_after_the_server_forgot_them_and_messages_come() {
    let redis = Redis::start();
    let (client, heard) = connect(&redis.url());
    let echo = |text: &str| insist(|| client.script(&ECHO, "k", &[text.as_bytes()], Care::Best));
    let pair = |value: &str| Value::Array(vec![text("k"), text(value)]);
    assert_eq!(echo("one"), pair("one"));
    redis.run(&["SCRIPT", "FLUSH"]);
    assert_eq!(echo("two"), pair("two"));
    redis.run(&["SCRIPT", "FLUSH"]);
    let calls = [("k".to_owned(), vec![b"three".to_vec()]), ("k".to_owned(), vec![b"four".to_vec()])];
    let answers: Vec<_> = insist(|| client.script_batch(&ECHO, &calls)).into_iter().map(Result::unwrap).collect();
    assert_eq!(answers, [pair("three"), pair("four")]);
    wait_until("the messages came", || heard.messages.lock().unwrap().iter().any(|text| text == "four"));
    assert_eq!(heard.failed.load(Ordering::SeqCst), 0);
}

#[test]
fn refusals_are_told_apart_and_matter_only_where_they_do() {
    let redis = Redis::start();
    let (client, heard) = connect(&redis.url());
    redis.run(&["RPUSH", "list", "x"]);
    let begun = Instant::now();
    let error = loop {
        match call(&client, &["GET", "list"]).unwrap_err() {
            Error::TimedOut | Error::Open if begun.elapsed() < SOON => thread::sleep(Duration::from_millis(20)),
            error => break error,
        }
    };
    assert!(matches!(&error, Error::Server { code, .. } if &**code == "WRONGTYPE"), "{error}");
    assert!(error.is_answer());
    assert_eq!(heard.failed.load(Ordering::SeqCst), 0);
    static BROKEN: Script = Script::new("return redis.call('NOSUCH')");
    let opened = client.stats().breaker_opened;
    let _ = client.script(&BROKEN, "k", &[], Care::Sure);
    wait_until("the refusal is heard of", || heard.failed.load(Ordering::SeqCst) == 1);
    assert_eq!(client.stats().breaker_opened, opened, "an answer is an answer");
}

#[test]
fn a_killed_server_fails_callers_at_once_and_is_found_again() {
    let mut redis = Redis::start();
    let (client, heard) = connect(&redis.url());
    for _ in 0..2 {
        // A stall may have cost a connection before: what counts is that there is one more end, and one more beginning.
        let (ups, downs) = (heard.ups.load(Ordering::SeqCst), heard.downs.load(Ordering::SeqCst));
        redis.kill();
        wait_until("the end is noticed", || heard.downs.load(Ordering::SeqCst) > downs);
        let begun = Instant::now();
        for _ in 0..1000 {
            assert!(call(&client, &["PING"]).is_err());
        }
        assert!(begun.elapsed() < SOON, "nobody waits for a server that is not there");
        redis.launch();
        wait_until("it is found again", || heard.ups.load(Ordering::SeqCst) > ups);
        insist(|| call(&client, &["PING"]));
    }
    let _ = client.script(&ECHO, "k", &[b"x"], Care::Sure);
    redis.kill();
    wait_until("the end is noticed", || !client.stats().is_connected);
    let before = heard.failed.load(Ordering::SeqCst);
    let _ = client.script(&ECHO, "k", &[b"x"], Care::Sure);
    assert_eq!(heard.failed.load(Ordering::SeqCst), before + 1, "what could not be sent is heard of");
}

#[test]
fn a_frozen_server_costs_a_few_callers_their_deadline_and_the_rest_nothing() {
    let redis = Redis::start();
    let (client, heard) = connect(&redis.url());
    redis.freeze();
    let begun = Instant::now();
    for _ in 0..200 {
        assert!(call(&client, &["PING"]).is_err());
    }
    assert!(begun.elapsed() < Duration::from_secs(8), "200 callers waited {:?}", begun.elapsed());
    let stats = client.stats();
    // The connection may be given up before so many have waited that the breaker opens.
    let is_left_alone = stats.breaker_opened > 0 || stats.timeouts < u64::from(REDIS_BREAKER_FAILURES);
    assert!(is_left_alone && stats.skipped + stats.unavailable > stats.timeouts, "{stats:?}");
    wait_until("the connection is given up", || heard.downs.load(Ordering::SeqCst) > 0);
    redis.thaw();
    insist(|| call(&client, &["PING"]));
    assert_eq!(client.stats().breaker_state, 0);
}

#[test]
fn a_silent_connection_is_asked_for_a_sign_of_life() {
    let redis = Redis::start();
    let (_client, heard) = connect(&redis.url());
    redis.freeze();
    // Nobody calls.
    wait_until("the connection is given up", || heard.downs.load(Ordering::SeqCst) > 0);
    redis.thaw();
}

#[test]
fn whoever_is_no_redis_is_not_believed() {
    for says in
        [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"*99999999\r\n", b"$-7\r\n", b"-ERR unknown command\r\n", b""]
    {
        let (client, heard) = open(&format!("redis://127.0.0.1:{}", impostor(says)));
        wait_until("it is found out", || client.stats().connect_errors > 0);
        assert_eq!(heard.ups.load(Ordering::SeqCst), 0);
        assert!(call(&client, &["PING"]).is_err());
    }
}

#[test]
fn tls_to_a_verified_server_and_to_no_other() {
    let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("crt"), key.cert.pem()).unwrap();
    std::fs::write(path("key"), key.signing_key.serialize_pem()).unwrap();
    let port = free_port().port();
    let redis = Redis::start_with(&[
        "--tls-port",
        &port.to_string(),
        "--tls-cert-file",
        &path("crt"),
        "--tls-key-file",
        &path("key"),
        "--tls-ca-cert-file",
        &path("crt"),
        "--tls-auth-clients",
        "no",
    ]);
    let (client, _) = connect(&format!("rediss://localhost:{port}?sslrootcert={}", path("crt")));
    let long = "x".repeat(300_000);
    insist(|| call(&client, &["SET", "k", &long]));
    assert_eq!(insist(|| call(&client, &["GET", "k"])), text(&long));
    assert_eq!(redis.get("k").map(|text| text.len()), Some(long.len()));
    let (client, _) = connect(&format!("rediss://127.0.0.1:{port}?verify=none"));
    insist(|| call(&client, &["PING"]));
    for strange in
        [format!("rediss://localhost:{port}"), format!("rediss://127.0.0.1:{port}?sslrootcert={}", path("crt"))]
    {
        let (client, _) = open(&strange);
        wait_until("it is refused", || client.stats().connect_errors > 0);
        assert!(!client.stats().is_connected, "{strange}");
    }
}
