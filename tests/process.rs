//! The process: how it starts, says what is wrong, writes its log, drains and ends.

mod support;

use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::client::{Address, Client, Conn};
use support::command::{self, Finished, run};
use support::ports::free_port;
use support::snip::{Launch, Place, Snip, StoreKind};
use support::wait::eventually;

const LIMIT: Duration = Duration::from_secs(30);
const TARGET: &str = "https://example.com/";
const HALF_USER: (&str, &str) = (
    "POST /users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 46\r\n\r\n{\"username\": \"ann\"",
    ", \"email\": \"ann@b.example\" }",
);

fn new_place() -> std::sync::Arc<Place> {
    Place::new(StoreKind::of_this_run())
}

/// Waits until nothing listens any more: then the process has taken the signal to heart.
fn wait_until_refused(snip: &Snip) {
    eventually("new connections to be refused", LIMIT, || Conn::try_open(snip.address()).is_err());
}

// ---- The end ---------------------------------------------------------------------------------------------------

#[test]
fn half_user_has_the_length_it_says() {
    let (head, rest) = HALF_USER;
    let body = head.split_once("\r\n\r\n").expect("a head").1;
    assert_eq!(body.len() + rest.len(), 46);
}

#[test]
fn a_request_in_flight_is_finished() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut snip = Snip::start();
        let mut in_flight = snip.connect();
        in_flight.send(HALF_USER.0);
        let mut idle = snip.connect();
        idle.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").response().expect(200);
        snip.signal(signal);
        wait_until_refused(&snip);
        idle.expect_close();
        let response = in_flight.send(HALF_USER.1).response().expect(201);
        assert!(response.closes(), "{response:?}");
        in_flight.expect_close();
        assert!(snip.wait_exit(LIMIT).success());
        // What was answered is stored.
        let snip = Launch::at(std::sync::Arc::clone(snip.place())).start();
        assert_eq!(snip.client().get("/users/1").expect(200).json()["username"], "ann");
    }
}

#[test]
fn draining_servers_are_not_ready_but_alive() {
    // A connection to a socket that is just being closed is tried for seconds; the heads wait for their ends meanwhile.
    let snip = Launch::new().arg("--head-timeout").arg("60s").start();
    let mut conns: Vec<_> = [("/readyz", 503), ("/livez", 200), ("/users", 200)]
        .map(|(path, status)| (snip.connect(), path, status))
        .into_iter()
        .collect();
    for (conn, path, _) in &mut conns {
        conn.send(format!("GET {path} HTTP/1.1\r\nHo"));
    }
    // The heads are begun for certain once a later request of another connection is answered.
    snip.client().get("/livez").expect(200);
    snip.term();
    wait_until_refused(&snip);
    for (conn, path, status) in &mut conns {
        let response = conn.send("st: x\r\n\r\n").response();
        assert_eq!(response.status, *status, "{path}: {response:?}");
        assert!(response.closes());
    }
}

#[test]
fn what_never_ends_is_cut_off_at_the_drain_timeout() {
    let mut snip = Launch::new().arg("--drain-timeout").arg("1s").start();
    let mut stuck = snip.connect();
    stuck.send(HALF_USER.0);
    snip.client().get("/livez").expect(200);
    let start = Instant::now();
    snip.term();
    let status = snip.wait_exit(LIMIT);
    assert!(status.success(), "{status}");
    assert!(start.elapsed() < Duration::from_secs(25), "took {:?}", start.elapsed());
    drop(stuck);
}

#[test]
fn an_idle_server_ends_at_once() {
    let mut snip = Snip::start();
    let _idle: Vec<_> = (0..20).map(|_| snip.connect()).collect();
    let start = Instant::now();
    snip.stop();
    // Well below the drain timeout, which those who are idle have nothing to do with.
    assert!(start.elapsed() < Duration::from_secs(20), "took {:?}", start.elapsed());
    let log = snip.log();
    let end = log.split_once("shutting down").expect("the end is told").1;
    assert!(!end.contains("WARN"), "an orderly end is no reason to warn:\n{log}");
}

#[test]
fn a_unix_socket_is_gone_after_the_end() {
    let mut snip = Launch::new().unix().start();
    let Address::Unix(path) = snip.address().clone() else { unreachable!("started on a unix socket") };
    assert!(path.exists());
    snip.stop();
    assert!(!path.exists(), "{} is left", path.display());
}

#[test]
fn clicks_before_the_signal_are_stored() {
    const CLICKS: i64 = 500;
    let snip = Snip::start();
    let mut client = snip.client();
    let (id, code) = client.shorten(TARGET);
    for _ in 0..CLICKS {
        client.get(&format!("/{code}")).expect(302);
    }
    let snip = snip.restart();
    let stats = snip.client().get(&format!("/urls/{id}/stats")).expect(200).json();
    assert_eq!(stats["redirect_count"], CLICKS);
}

#[test]
fn what_was_answered_outlives_a_kill() {
    let mut snip = Snip::start();
    let mut client = snip.client();
    let made: Vec<_> = (0..50).map(|n| client.shorten(&format!("{TARGET}{n}"))).collect();
    client.delete(&format!("/urls/{}", made[0].0)).expect(204);
    snip.signal(Signal::KILL);
    snip.wait_exit(LIMIT);
    let snip = Launch::at(std::sync::Arc::clone(snip.place())).start();
    let mut client = snip.client();
    client.get(&format!("/{}", made[0].1)).expect(404);
    for (n, (_, code)) in made.iter().enumerate().skip(1) {
        let response = client.get(&format!("/{code}")).expect(302);
        assert_eq!(response.header("Location"), Some(format!("{TARGET}{n}").as_str()));
    }
}

// ---- What stops it from starting -------------------------------------------------------------------------------

/// Runs `snip serve` in a place of its own with these arguments; it is to refuse with one line that says these words.
#[track_caller]
fn refuses(place: &Place, args: &[&str], words: &[&str]) {
    let finished = run(place.command("serve").args(args), LIMIT);
    let line = finished.one_line_of_complaint();
    for word in words {
        assert!(line.contains(word), "{line:?} does not say {word:?}");
    }
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    refuses(&new_place(), &["--listen", &address], &[&address, "in use"]);
    // One free address does not make up for a taken one.
    refuses(&new_place(), &["--listen", &free_port().to_string(), "--listen", &address], &[&address, "in use"]);
}

#[test]
fn a_unix_socket_that_is_taken() {
    let place = new_place();
    let path = place.path().join("taken.sock");
    let listener = UnixListener::bind(&path).expect("bind");
    refuses(&place, &["--listen", &format!("unix:{}", path.display())], &["taken.sock"]);
    assert!(path.exists(), "the socket of another process was removed");
    drop(listener);
    // Nor is a file that is no socket.
    let file = place.path().join("precious.txt");
    std::fs::write(&file, "precious").expect("write");
    refuses(&place, &["--listen", &format!("unix:{}", file.display())], &["precious.txt"]);
    assert_eq!(std::fs::read_to_string(&file).expect("still there"), "precious");
}

#[test]
fn a_data_folder_that_cannot_be() {
    // Root may write into a read-only folder, but nobody makes a folder below a file.
    let place = new_place();
    let file = place.path().join("a-file");
    std::fs::write(&file, "").expect("write");
    let below = file.join("data");
    let finished = run(
        command::snip().arg("serve").arg("--listen").arg(free_port().to_string()).arg("--data-dir").arg(&below),
        LIMIT,
    );
    assert!(finished.one_line_of_complaint().contains("a-file"), "{finished:?}");
}

/// The SQLite file of a place.
fn sqlite_file(place: &Place) -> std::path::PathBuf {
    let entries = std::fs::read_dir(place.data_dir()).expect("the data folder");
    let is_store = |path: &Path| std::fs::read(path).unwrap_or_default().starts_with(b"SQLite format 3\0");
    entries.map(|entry| entry.expect("an entry").path()).find(|path| is_store(path)).expect("a SQLite file")
}

#[test]
fn a_store_from_a_newer_version() {
    let mut snip = Snip::start_on(StoreKind::Sqlite);
    snip.stop();
    let file = sqlite_file(snip.place());
    let sql = rusqlite::Connection::open(&file).expect("open");
    sql.pragma_update(None, "user_version", 9999).expect("a newer version");
    drop(sql);
    let listen = free_port().to_string();
    refuses(snip.place(), &["--listen", &listen], &["newer"]);
    let finished = run(&mut snip.place().command("migrate"), LIMIT);
    assert!(finished.one_line_of_complaint().contains("newer"), "{finished:?}");
}

#[test]
fn a_store_that_is_none() {
    let mut snip = Snip::start_on(StoreKind::Sqlite);
    snip.stop();
    std::fs::write(sqlite_file(snip.place()), "this is no database, whatever its name says".repeat(200))
        .expect("write");
    refuses(snip.place(), &["--listen", &free_port().to_string()], &[]);
}

#[test]
fn settings_that_make_no_sense() {
    let place = new_place();
    for args in [
        ["--bogus", "x"].as_slice(),
        &["extra"],
        &["--listen", "nonsense"],
        &["--listen", "127.0.0.1:99999"],
        &["--listen", "unix:"],
        &["--listen"],
        &["--drain-timeout", "soon"],
        &["--log-level", "loud"],
        &["--log-format", "xml"],
        &["--trusted-proxies", "everyone"],
    ] {
        refuses(&place, args, &[]);
    }
    for (name, value) in [
        ("SNIP_LISTEN", "nonsense"),
        ("LOG_LEVEL", "loud"),
        ("LOG_FORMAT", "xml"),
        ("SNIP_TRUSTED_PROXIES", "everyone"),
    ] {
        let finished = run(place.command("serve").env(name, value), LIMIT);
        finished.one_line_of_complaint();
    }
    run(command::snip().arg("bogus-command"), LIMIT).one_line_of_complaint();
}

#[test]
fn help_and_version() {
    let help = run(command::snip().arg("--help"), LIMIT).success().stdout;
    for word in ["serve", "migrate", "seed", "healthcheck"] {
        assert!(help.contains(word), "--help does not tell of {word}:\n{help}");
    }
    let help = run(command::snip().args(["serve", "--help"]), LIMIT).success().stdout;
    for word in [
        "--listen",
        "SNIP_LISTEN",
        "127.0.0.1:8080",
        "--data-dir",
        "SNIP_DATA_DIR",
        "--trusted-proxies",
        "SNIP_TRUSTED_PROXIES",
        "--log-level",
        "LOG_LEVEL",
        "--log-format",
        "LOG_FORMAT",
        "--drain-timeout",
    ] {
        assert!(help.contains(word), "serve --help does not tell of {word}:\n{help}");
    }
    let help = run(command::snip().args(["seed", "--help"]), LIMIT).success().stdout;
    assert!(help.contains("--reset") && help.contains("--generate"), "{help}");
    let version = run(command::snip().arg("--version"), LIMIT).success().stdout;
    assert_eq!(version.trim(), concat!("snip ", env!("CARGO_PKG_VERSION")));
}

// ---- Settings --------------------------------------------------------------------------------------------------

#[test]
fn serve_is_the_default_command() {
    let place = new_place();
    let address = free_port();
    let mut command = command::snip();
    command.env("SNIP_LISTEN", address.to_string()).env("SNIP_DATA_DIR", place.data_dir());
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().expect("start");
    let answers = || {
        let conn = Conn::try_open(&Address::Tcp(address));
        conn.is_ok_and(|mut conn| {
            conn.try_send("GET /livez HTTP/1.0\r\n\r\n").is_ok() && conn.try_response_to("GET").is_ok()
        })
    };
    eventually("the server to answer", LIMIT, answers);
    assert!(place.data_dir().is_dir(), "the data folder is where the variable says");
    child.kill().expect("kill");
    child.wait().expect("wait");
}

#[test]
fn a_flag_beats_its_variable() {
    let other = new_place();
    let address = free_port();
    let snip = Launch::new()
        .env("SNIP_LISTEN", &address.to_string())
        .env("SNIP_DATA_DIR", other.data_dir().to_str().expect("a plain path"))
        .start();
    snip.client().get("/livez").expect(200);
    let nonsense = Launch::new().env("SNIP_LISTEN", "nonsense").start();
    nonsense.client().get("/livez").expect(200);
    assert!(Conn::try_open(&Address::Tcp(address)).is_err(), "it listens where the variable says, too");
    assert!(!other.data_dir().exists());
}

#[test]
fn migrate_may_be_repeated() {
    let place = new_place();
    run(&mut place.command("migrate"), LIMIT).success();
    run(&mut place.command("migrate"), LIMIT).success();
    Launch::at(place).start().client().get("/users").expect(200);
}

fn healthcheck(address: &Address) -> Finished {
    run(command::snip().arg("healthcheck").env("SNIP_LISTEN", address.to_string()), LIMIT)
}

#[test]
fn healthcheck_tells_by_its_exit_code() {
    for mut snip in [Snip::start(), Launch::new().unix().start()] {
        // A server whose store is late for once is not ready for that moment.
        eventually("health", LIMIT, || healthcheck(snip.address()).status.success());
        snip.stop();
        healthcheck(snip.address()).one_line_of_complaint();
    }
    // Something that listens and is no server of ours, or hangs.
    let deaf = TcpListener::bind("127.0.0.1:0").expect("a port");
    healthcheck(&Address::Tcp(deaf.local_addr().expect("an address"))).one_line_of_complaint();
}

// ---- The log ---------------------------------------------------------------------------------------------------

#[test]
fn the_log_is_json_a_line_an_event() {
    let mut snip = Launch::new().env("LOG_FORMAT", "json").env("LOG_LEVEL", "debug").start();
    let mut client = snip.client();
    client.post_json("/users", "{\"username\": \"quote\\\" and \\n\", \"email\": \"a@b.c\"}").expect(201);
    client.get("/nothing%22%0a/here").expect(404);
    let mut conn = snip.connect();
    conn.send("GARBAGE \"\n\x1b[31m\r\n\r\n").response().expect(400);
    snip.stop();
    let log = snip.log();
    assert!(log.lines().count() >= 2, "start and end are told:\n{log}");
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        assert!(value.is_object(), "{line}");
        assert!(value["level"].is_string(), "no level: {line}");
        assert!(value["timestamp"].is_string(), "no timestamp: {line}");
    }
}

#[test]
fn the_log_of_a_pipe_is_json_by_default() {
    let mut snip = Snip::start();
    snip.stop();
    let log = snip.log();
    assert!(log.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{log}");
}

#[test]
fn redirects_are_not_logged_one_by_one() {
    let mut snip = Snip::start();
    let mut client = snip.client();
    let (_, code) = client.shorten(TARGET);
    let lines = |snip: &Snip| snip.log().lines().count();
    let before = lines(&snip);
    for _ in 0..200 {
        client.get(&format!("/{code}")).expect(302);
    }
    snip.stop();
    assert!(lines(&snip) < before + 50, "{} lines for 200 redirects", lines(&snip) - before);
}

#[test]
fn a_start_says_what_to_try() {
    let mut snip = Launch::on(StoreKind::Sqlite).env("LOG_FORMAT", "text").start();
    snip.stop();
    let log = snip.log();
    let data = snip.place().data_dir().display().to_string();
    for word in [snip.authority().as_str(), "curl", "SQLite", &data] {
        assert!(log.to_lowercase().contains(&word.to_lowercase()), "no {word:?} in\n{log}");
    }
}

#[test]
fn two_servers_do_not_mix() {
    let (first, second) = (Snip::start(), Snip::start());
    first.client().shorten(TARGET);
    assert_eq!(Client::new(second.address().clone()).get("/urls").expect(200).text(), "[]");
}

/// Another program wrote a target that would split the answer's head: the client learns nothing of it, the log does.
#[test]
fn a_500_says_nothing_of_the_inside_and_is_logged_with_a_request_id() {
    let mut snip = Launch::on(StoreKind::Sqlite).env("LOG_FORMAT", "json").env("LOG_LEVEL", "error").start();
    let mut client = snip.client();
    let (_, code) = client.shorten("https://example.com/");
    let sql = rusqlite::Connection::open(sqlite_file(snip.place())).expect("open");
    sql.execute("UPDATE urls SET original_url = 'https://example.com/' || char(13, 10) || 'X: y'", []).expect("update");
    let answer = client.get(&format!("/{code}")).expect(500);
    assert_eq!(answer.text(), r#"{"error":"Internal server error"}"#);
    assert_eq!(answer.header("X"), None);
    snip.stop();
    let log = snip.log();
    let line: serde_json::Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
    assert!(
        answer.header("X-Request-Id") == line["request_id"].as_str()
            && line["cause"].as_str().is_some_and(|c| c.contains("control")),
        "{line}"
    );
}
