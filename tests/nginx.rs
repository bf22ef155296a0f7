//! The project's Nginx configuration, run by a real Nginx: the contract through it, who the client is, what is repeated
//! and what never, pages kept for a second, bounds in tune with the server's, errors in its words.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use snip::limits;
use support::case::{Session, delete, get, post, put};
use support::client::{Address, Client, PATIENCE};
use support::command::run;
use support::nginx::{Nginx, source};
use support::snip::{Launch, Place, Snip, StoreKind};
use support::wait::eventually;
use tempfile::TempDir;

// ---- Three servers behind Nginx ------------------------------------------------------------------------------------

/// Three servers on one store, and Nginx before them.
struct Stack {
    nginx: Nginx,
    instances: Vec<Snip>,
}

impl Stack {
    /// Over unix sockets, with these files of `enabled/`.
    fn start(enabled: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        Self::of(Self::instances(Launch::unix), enabled, prepare)
    }

    fn instances(form: impl Fn(Launch) -> Launch) -> Vec<Snip> {
        let place = Place::new(StoreKind::of_this_run());
        open_folder(place.path());
        let launch = |n| form(Launch::at(Arc::clone(&place))).arg("--instance-id").arg(format!("snip-{n}")).start();
        (1..=3).map(launch).collect()
    }

    fn of(instances: Vec<Snip>, enabled: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let addresses = [0, 1, 2].map(|n| instances[n].address().to_string());
        Self { nginx: Nginx::start_with(&addresses, enabled, prepare), instances }
    }
}

/// Nginx runs as another user when we are root.
fn open_folder(path: &Path) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("permissions");
}

/// Lists are asked for by pages that nobody asked for before, so that none is a second old.
fn walk(session: &mut Session) {
    let user = r#"{"id":"<any>","username":"ann","email":"ann@example.com","created_at":"<time>"}"#;
    let url = r#"{"id":"<any>","user_id":{user},"short_code":"<code>","original_url":"https://example.com/a?b=%20c#d",
        "title":null,"is_active":true,"created_at":"<time>","updated_at":"<time>"}"#;
    // A server whose store is late for once is not ready for that moment; health that was good is shown again for a while.
    for path in ["/readyz", "/health"] {
        eventually(path, PATIENCE, || session.client().get(path).status == 200);
    }
    session.check_all([
        get("/health").gives(200, r#"{"status":"ok","database":"connected"}"#),
        post("/users", r#"{"username":"ann","email":"ann@example.com"}"#).gives(201, user).keeps("user", "/id"),
        post("/users", r#"{"username":"ann","email":"b@example.com"}"#).fails(409, "Username already exists"),
        post("/urls", r#"{"url":"https://example.com/a?b=%20c#d","user_id":{user}}"#)
            .gives(201, url)
            .keeps("code", "/short_code")
            .keeps("id", "/id"),
        get("/{code}").leads_to("https://example.com/a?b=%20c#d"),
    ]);
    // Else the instance that has the clicks may be storing them when another one wants to change something.
    let stats = format!("/urls/{}/stats", session.kept("id"));
    eventually("the clicks are stored", PATIENCE, || session.client().get(&stats).json()["redirect_count"] == 1);
    session.check_all([
        get("/urls/{id}").gives(200, url),
        get("/urls?per_page=7").gives(200, format!("[{url}]")),
        get("/urls?user_id=x").fails(400, "user_id must be an integer"),
        put("/urls/{id}", r#"{"url":"https://example.com/b"}"#).answers(200),
        put("/urls/{id}", r#"{"is_active":1}"#).fails(400, "is_active must be a boolean"),
        get("/nope42").fails(404, "URL not found"),
        get("/a/b/c").fails(404, "Not found"),
        post("/health", "{}").allows_only("GET,HEAD"),
        delete("/urls/{id}").empty(204),
        get("/urls/{id}/stats").answers(200),
        delete("/users/{user}").empty(204),
        get("/nginx-status").answers(200),
    ]);
    session.client().get("/metrics").expect(200);
}

#[test]
fn the_contract_holds_over_unix_sockets() {
    let stack = Stack::start(&[], |_| {});
    walk(&mut Session::over(stack.nginx.client()));
}

#[test]
fn the_contract_holds_over_tcp() {
    let stack = Stack::of(Stack::instances(|launch| launch), &[], |_| {});
    walk(&mut Session::over(stack.nginx.client()));
}

#[test]
fn a_client_cannot_say_who_it_is() {
    let stack = Stack::start(&[], |_| {});
    let mut client = stack.nginx.client();
    let (id, code) = client.shorten("https://example.com/");
    let lies = [("X-Forwarded-For", "203.0.113.9"), ("X-Real-IP", "203.0.113.9"), ("Forwarded", "for=203.0.113.9")];
    client.send("GET", &format!("/{code}"), &lies, None).expect(302);
    let path = format!("/urls/{id}/events");
    let mut redirect = None;
    eventually("the click is stored", PATIENCE, || {
        let events = client.get(&path).expect(200).json();
        redirect = events.as_array().and_then(|events| events.iter().find(|e| e["event_type"] == "redirect").cloned());
        redirect.is_some()
    });
    assert_eq!(redirect.expect("an event")["details"]["ip"], "127.0.0.1");

    let answer = client.send("GET", &format!("/urls/{id}"), &[("X-Request-Id", "a-lie")], None).expect(200);
    assert_ne!(answer.header("X-Request-Id"), Some("a-lie"));
}

#[test]
fn a_stopped_instance_costs_nobody_an_answer() {
    let mut stack = Stack::start(&[], |_| {});
    let mut client = stack.nginx.client();
    let (_, code) = client.shorten("https://example.com/");
    for instance in &mut stack.instances[..2] {
        instance.stop();
        for _ in 0..20 {
            client.get(&format!("/{code}")).expect(302);
            shorten_patiently(&mut client);
        }
    }
}

/// Makes a short URL on a store that several write to. One that waits too long for another answers 503, and when to ask
/// again: an answer, too.
fn shorten_patiently(client: &mut Client) {
    eventually("a short URL", PATIENCE, || {
        let answer = client.post_json("/urls", r#"{"url":"https://example.com/"}"#);
        if answer.status == 503 && answer.header("Retry-After").is_some() {
            return false;
        }
        answer.expect(201);
        true
    });
}

#[test]
fn a_long_target_and_a_gzipped_list_come_through() {
    let stack = Stack::start(&[], |_| {});
    let mut client = stack.nginx.client();
    let long = format!("https://example.com/{}", "a".repeat(60_000));
    let (_, code) = client.shorten(&long);
    let answer = client.get(&format!("/{code}")).expect(302);
    assert_eq!(answer.header("Location"), Some(long.as_str()));

    let list = client.send("GET", "/urls?per_page=3", &[("Accept-Encoding", "gzip")], None).expect(200);
    assert_eq!(list.header("Content-Encoding"), Some("gzip"));
    assert!(list.body.len() < 10_000, "{} bytes", list.body.len());
}

#[test]
fn an_upload_larger_than_any_buffer_comes_through() {
    let stack = Stack::start(&[], |_| {});
    let users = 6000;
    let rows: String = (0..users).map(|n| format!("user-{n},user-{n}@example.com\n")).collect();
    let head = "--boundary\r\nContent-Disposition: form-data; name=\"file\"; filename=\"users.csv\"\r\n\r\n";
    let body = format!("{head}username,email\n{rows}\r\n--boundary--\r\n");
    assert!(body.len() > 2 * limits::BODY_BYTES_MAX);
    let form = [("Content-Type", "multipart/form-data; boundary=boundary")];
    let answer = stack.nginx.client().send("POST", "/users/bulk", &form, Some(body.as_bytes())).expect(201);
    assert_eq!(answer.json(), serde_json::json!({ "imported": users, "count": users }));
}

#[test]
fn the_tls_server_can_be_switched_on() {
    let stack = Stack::start(&["tls.conf"], |conf| {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        fs::create_dir(conf.join("tls")).expect("a folder");
        fs::write(conf.join("tls/fullchain.pem"), made.cert.pem()).expect("a certificate");
        fs::write(conf.join("tls/privkey.pem"), made.signing_key.serialize_pem()).expect("a key");
    });
    let url = format!("https://{}/livez", stack.nginx.tls_address());
    let asked =
        run(Command::new("curl").args(["-sk", "--max-time", "20", "-w", " %{http_version}", &url]), PATIENCE * 2);
    assert_eq!(asked.success().stdout, r#"{"status":"ok"} 2"#);
}

#[test]
fn rates_can_be_limited() {
    // In one go, and of what Nginx answers by itself: these are too many unless it takes eight seconds for them.
    const REQUESTS: usize = 1000;
    let count = |enabled: &[&str]| {
        let nginx = Nginx::start_with(&[1, 2, 3].map(|n| format!("unix:/nobody-{n}")), enabled, |_| {});
        let mut conn = nginx.connect();
        conn.send("GET /nginx-status HTTP/1.1\r\nHost: snip.test\r\n\r\n".repeat(REQUESTS));
        let answers = (0..REQUESTS).map(|_| conn.response()).filter(|answer| answer.status != 200);
        answers
            .inspect(|answer| assert_eq!((answer.status, answer.error().as_str()), (429, "Too many requests")))
            .count()
    };
    assert_eq!(count(&[]), 0, "limited although nobody switched it on");
    assert!(count(&["rate-limit.conf"]) > 0, "{REQUESTS} at once are not too many");
}

// ---- Errors of Nginx itself ----------------------------------------------------------------------------------------

#[test]
fn errors_of_nginx_are_json() {
    let stack = Stack::start(&[], |_| {});
    let check = |request: String, status: u16, message: &str| {
        let shown: String = request.chars().take(60).collect();
        let mut conn = stack.nginx.connect();
        let _ = conn.try_send(&request);
        let answer = conn.try_response_to("POST").unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!(answer.status, status, "{shown}");
        assert_eq!(answer.header("Content-Type"), Some("application/json"), "{shown}");
        assert_eq!(answer.json(), serde_json::json!({ "error": message }), "{shown}");
    };
    let host = "HTTP/1.1\r\nHost: snip.test\r\n";
    check("GET\r\n\r\n".to_owned(), 400, "Bad request");
    check("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "Bad request");
    check(format!("TRACE / {host}\r\n"), 405, "Method not allowed");
    check(format!("GET /{} {host}\r\n", "a".repeat(20_000)), 414, "URI too long");
    check(format!("GET /x {host}X-Long: {}\r\n\r\n", "a".repeat(20_000)), 431, "Request header fields too large");
    check(format!("POST /urls {host}Content-Length: 65537\r\n\r\n"), 413, "Request body too large");
    check(format!("POST /users/bulk {host}Content-Length: 10551297\r\n\r\n"), 413, "File too large (max 10MB)");
    check(format!("POST /urls {host}Transfer-Encoding: unknown\r\n\r\n"), 501, "Not implemented");
    check("GET / HTTP/7.0\r\nHost: snip.test\r\n\r\n".to_owned(), 505, "HTTP version not supported");
}

#[test]
fn bounds_are_in_tune_with_the_servers() {
    let conf = fs::read_to_string(source().join("nginx.conf")).expect("nginx.conf");
    let routes = fs::read_to_string(source().join("routes.conf")).expect("routes.conf");
    let bytes = |text: &str| text.strip_suffix('k').map(|k| k.parse::<usize>().expect("a number") * 1024).expect("k");
    let seconds = |text: &str| Duration::from_secs(text.strip_suffix('s').expect("s").parse().expect("a number"));

    assert_eq!(bytes(setting(&conf, "client_max_body_size")), limits::BODY_BYTES_MAX);
    assert_eq!(bytes(setting(&routes, "client_max_body_size")), limits::UPLOAD_BODY_BYTES_MAX);
    let head = setting(&conf, "large_client_header_buffers").split(' ').nth(1).expect("a size");
    assert_eq!(bytes(head), limits::HEAD_BYTES_MAX);
    assert!(bytes(setting(&conf, "proxy_buffer_size")) > limits::BODY_BYTES_MAX, "a Location may be as long as a body");

    assert_eq!(seconds(setting(&conf, "client_header_timeout")), limits::HEAD_TIMEOUT_DEFAULT);
    assert_eq!(seconds(setting(&conf, "client_body_timeout")), limits::BODY_TIMEOUT_DEFAULT);
    assert_eq!(seconds(setting(&conf, "send_timeout")), limits::WRITE_TIMEOUT_DEFAULT);
    let upstream = conf.split("upstream snip").nth(1).expect("an upstream");
    assert!(seconds(setting(upstream, "keepalive_timeout")) < limits::IDLE_TIMEOUT_DEFAULT);
    let slowest = limits::STORE_DEADLINE + limits::CLICKS_FLUSH_DEADLINE;
    assert!(seconds(setting(&conf, "proxy_read_timeout")) > slowest, "Nginx gives up before Snip does");
}

/// The value of the first line with this directive.
fn setting<'t>(text: &'t str, name: &str) -> &'t str {
    let lines = text.lines().map(str::trim).filter_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    lines.filter_map(|rest| rest.split(';').next()).next().unwrap_or_else(|| panic!("no {name}"))
}

// ---- Instances that misbehave --------------------------------------------------------------------------------------

/// What a stand-in does with a request that it has read.
#[derive(Clone, Copy)]
enum Manner {
    /// Answers 200 after this time.
    Answers(Duration),
    /// Dies without a word, as a killed process does.
    Dies,
    /// Answers the first request of each connection and dies at the second.
    DiesAtSecond,
}

/// A stand-in for an instance, behind a unix socket.
struct StandIn {
    folder: TempDir,
    manner: Arc<Mutex<Manner>>,
    requests: Arc<AtomicUsize>,
}

impl StandIn {
    fn start(manner: Manner) -> Self {
        let folder = tempfile::Builder::new().prefix("snip-stand-in-").tempdir().expect("a temporary folder");
        open_folder(folder.path());
        let path = folder.path().join("sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).expect("permissions");
        let (manner, requests) = (Arc::new(Mutex::new(manner)), Arc::new(AtomicUsize::new(0)));
        let (its_manner, its_requests) = (Arc::clone(&manner), Arc::clone(&requests));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (manner, requests) = (Arc::clone(&its_manner), Arc::clone(&its_requests));
                let Ok(stream) = stream else { return };
                thread::spawn(move || serve(stream, &manner, &requests));
            }
        });
        Self { folder, manner, requests }
    }

    fn address(&self) -> String {
        Address::Unix(self.folder.path().join("sock")).to_string()
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().expect("manner") = manner;
    }
}

fn serve(mut stream: UnixStream, manner: &Mutex<Manner>, requests: &AtomicUsize) {
    for nth in 0.. {
        if !read_request(&mut stream) {
            return;
        }
        requests.fetch_add(1, Ordering::SeqCst);
        let manner = *manner.lock().expect("manner");
        match manner {
            Manner::Dies => return,
            Manner::DiesAtSecond if nth > 0 => return,
            Manner::DiesAtSecond => {}
            Manner::Answers(after) => thread::sleep(after),
        }
        if stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            .is_err()
        {
            return;
        }
    }
}

/// Whether a whole request came: a head, and the two bytes of body that these tests send.
fn read_request(stream: &mut UnixStream) -> bool {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return false,
        }
    }
    let has_body = String::from_utf8_lossy(&bytes).to_lowercase().contains("content-length: 2\r\n");
    !has_body || stream.read_exact(&mut [0; 2]).is_ok()
}

fn stand_ins(manners: [Manner; 3]) -> ([StandIn; 3], Nginx) {
    let stand_ins = manners.map(StandIn::start);
    let nginx = Nginx::start(&stand_ins.each_ref().map(StandIn::address));
    (stand_ins, nginx)
}

fn delivered(stand_ins: &[StandIn]) -> usize {
    stand_ins.iter().map(|one| one.requests.load(Ordering::SeqCst)).sum()
}

const AT_ONCE: Manner = Manner::Answers(Duration::ZERO);

fn body_of(method: &str) -> Option<&'static [u8]> {
    matches!(method, "POST" | "PUT" | "PATCH").then_some(b"{}")
}

#[test]
fn only_what_may_be_repeated_is_repeated() {
    let check = |method: &str, deliveries: usize| {
        let (all, nginx) = stand_ins([Manner::Dies; 3]);
        let answer = nginx.client().send(method, "/x", &[], body_of(method)).expect(502);
        if method != "HEAD" {
            assert_eq!(answer.error(), "Bad gateway");
        }
        assert_eq!(answer.header("Retry-After"), Some("1"));
        assert_eq!(delivered(&all), deliveries, "{method}");
    };
    check("POST", 1);
    check("PATCH", 1);
    check("GET", 3);
    check("HEAD", 3);
    check("PUT", 3);
    check("DELETE", 3);
}

#[test]
fn an_instance_that_dies_is_no_matter_for_what_may_be_repeated() {
    let (_all, nginx) = stand_ins([Manner::Dies, AT_ONCE, AT_ONCE]);
    let mut client = nginx.client();
    for method in ["GET", "PUT", "DELETE"] {
        for _ in 0..10 {
            client.send(method, "/x", &[], body_of(method)).expect(200);
        }
    }
}

#[test]
fn a_kept_connection_that_dies_does_not_repeat_a_post() {
    let (all, nginx) = stand_ins([Manner::DiesAtSecond; 3]);
    let mut client = nginx.client();
    // One connection to each is kept.
    (0..3).for_each(|_| drop(client.get("/x").expect(200)));
    client.send("POST", "/x", &[], body_of("POST")).expect(502);
    assert_eq!(delivered(&all), 4);
}

#[test]
fn a_post_that_changes_something_is_sent_on_no_kept_connection() {
    let (_all, nginx) = stand_ins([Manner::DiesAtSecond; 3]);
    let mut client = nginx.client();
    (0..3).for_each(|_| drop(client.get("/x").expect(200)));
    for path in ["/urls", "/users", "/events", "/users/bulk"] {
        (0..6).for_each(|_| drop(client.send("POST", path, &[], body_of("POST")).expect(200)));
    }
}

#[test]
fn an_instance_that_is_not_there_is_no_matter() {
    let good = [AT_ONCE, AT_ONCE].map(StandIn::start);
    let missing = format!("unix:{}/missing", good[0].folder.path().display());
    let nginx = Nginx::start(&[missing, good[0].address(), good[1].address()]);
    let mut client = nginx.client();
    for _ in 0..10 {
        client.send("POST", "/x", &[], body_of("POST")).expect(200); // it had not left
    }
}

// ---- Pages kept for a moment ---------------------------------------------------------------------------------------

/// How long lists and health are fresh.
const LIST_FRESH: Duration = Duration::from_secs(1);
const HEALTH_FRESH: Duration = Duration::from_secs(5);

/// What comes of an act that is over within this time. One that a busy machine draws out says nothing: it is done again,
/// and told how often it was done.
fn within<T>(limit: Duration, mut act: impl FnMut(usize) -> T) -> T {
    let in_time = (0..20).find_map(|nth| {
        let began = Instant::now();
        let outcome = act(nth);
        (began.elapsed() < limit).then_some(outcome)
    });
    in_time.unwrap_or_else(|| panic!("always longer than {limit:?}"))
}

#[test]
fn a_list_is_asked_for_once_a_second() {
    let (all, nginx) = stand_ins([AT_ONCE; 3]);
    let mut client = nginx.client();
    let mut state = |path: &str| client.get(path).expect(200).header("X-Cache-Status").expect("a state").to_owned();
    for (path, fresh) in
        [("/urls", LIST_FRESH), ("/users", LIST_FRESH), ("/events", LIST_FRESH), ("/health", HEALTH_FRESH)]
    {
        let (states, deliveries) = within(fresh, |nth| {
            let (page, before) = (format!("{path}?page={nth}"), delivered(&all));
            ([state(&page), state(&page)], delivered(&all) - before)
        });
        assert_eq!((states, deliveries), (["MISS", "HIT"].map(str::to_owned), 1), "{path}");
    }
    let health = within(HEALTH_FRESH, |nth| {
        let health = format!("/health?nth={nth}");
        state(&health);
        state("/urls");
        eventually("the list is asked for anew", PATIENCE, || state("/urls") == "EXPIRED");
        state(&health)
    });
    assert_eq!(health, "HIT");

    // Changes and single things are never kept.
    for (method, path) in [("POST", "/urls"), ("GET", "/urls/1"), ("GET", "/abc123"), ("GET", "/readyz")] {
        let before = delivered(&all);
        for _ in 0..2 {
            client.send(method, path, &[], body_of(method)).expect(200);
        }
        assert_eq!(delivered(&all), before + 2, "{method} {path}");
    }
}

#[test]
fn of_many_who_ask_for_a_new_page_one_asks_the_server() {
    // Who comes up to three seconds late still gets this page, and no one waits so long that he is let through by himself.
    let (all, nginx) = stand_ins([Manner::Answers(Duration::from_secs(2)); 3]);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| nginx.client().get("/urls").expect(200));
        }
    });
    assert_eq!(delivered(&all), 1);
}

#[test]
fn while_no_instance_answers_lists_are_old_and_health_is_none() {
    let (all, nginx) = stand_ins([AT_ONCE; 3]);
    let mut client = nginx.client();
    client.get("/urls").expect(200);
    client.get("/health").expect(200);
    all.iter().for_each(|one| one.behave(Manner::Dies));
    eventually("the list is an old one", PATIENCE, || {
        client.get("/urls").expect(200).header("X-Cache-Status") == Some("STALE")
    });
    eventually("there is no answer on health", PATIENCE, || client.get("/health").status == 502);
}
