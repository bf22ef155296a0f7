//! `snip alerts`: what it takes, keeps, shows and forwards, with a stand-in for Discord.

mod support;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::{Value, json};
use snip::limits::ALERT_FORWARD_TIMEOUT;
use socket2::SockRef;
use support::client::{Address, Client, Conn};
use support::command::{self, run, text_of, wait};
use support::ports::free_port;
use support::wait::eventually;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);
/// A path of the stand-in that must not show up anywhere.
const SECRET: &str = "/api/webhooks/1/very-secret";

// ---- The receiver ----------------------------------------------------------------------------------------------

/// A running receiver. Killed when dropped; its log is shown when the test fails.
struct Receiver {
    child: Child,
    folder: PathBuf,
    place: Arc<TempDir>,
    log_path: PathBuf,
}

fn place() -> Arc<TempDir> {
    Arc::new(tempfile::Builder::new().prefix("snip-test-").tempdir().expect("a temporary folder"))
}

impl Receiver {
    #[track_caller]
    fn start(env: &[(&str, &str)]) -> Self {
        Self::start_in(&place(), "alerts", env)
    }

    /// On the files of another one, in a folder of this name.
    #[track_caller]
    fn start_in(place: &Arc<TempDir>, folder: &str, env: &[(&str, &str)]) -> Self {
        let folder = place.path().join(folder);
        let log_path = place.path().join("alerts.log");
        let log = File::options().append(true).create(true).open(&log_path).expect("a file for the log");
        let mut command = command::snip();
        command.arg("alerts").arg("--dir").arg(&folder).envs(env.iter().copied());
        command.arg("--listen").arg(format!("unix:{}", place.path().join("alerts.sock").display()));
        let child = command.stdout(log.try_clone().expect("stdout")).stderr(log).spawn().expect("the receiver starts");
        let mut receiver = Self { child, folder, place: Arc::clone(place), log_path };
        eventually("the receiver to listen", LIMIT, || {
            let ended = receiver.child.try_wait().expect("wait");
            assert!(ended.is_none(), "it has ended: {ended:?}\n{}", receiver.log());
            Conn::try_open(&receiver.address()).is_ok()
        });
        receiver
    }

    fn address(&self) -> Address {
        Address::Unix(self.place.path().join("alerts.sock"))
    }

    fn client(&self) -> Client {
        Client::new(self.address())
    }

    #[track_caller]
    fn post(&self, notification: &Value) {
        self.client().post_json("/alert", &notification.to_string()).expect(200);
    }

    /// A figure of `/metrics`: here all are counts.
    #[track_caller]
    fn figure(&self, name: &str) -> u64 {
        self.client().metric(name) as u64
    }

    fn overview(&self) -> Value {
        self.client().get("/").expect(200).json()
    }

    fn lines(&self) -> Vec<Value> {
        let text = text_of(&self.folder.join("alerts.jsonl"));
        text.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect()
    }

    fn evidence(&self) -> Vec<(String, Value)> {
        let entries = fs::read_dir(self.folder.join("evidence")).expect("a folder of evidence");
        let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        files.sort();
        let name = |path: &Path| path.file_name().unwrap().to_str().expect("plain names").to_owned();
        files.iter().map(|path| (name(path), serde_json::from_str(&text_of(path)).expect("JSON"))).collect()
    }

    fn log(&self) -> String {
        text_of(&self.log_path)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.child.id().cast_signed()).expect("a process id"), signal).expect("signal");
    }

    #[track_caller]
    fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        wait(&mut self.child, LIMIT).expect("it ends")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("---- log of the receiver\n{}----", self.log());
        }
    }
}

fn alert(name: &str, status: &str) -> Value {
    let ends_at = if status == "firing" { "0001-01-01T00:00:00Z" } else { "2026-01-02T03:14:05Z" };
    json!({
        "status": status,
        "labels": { "alertname": name, "instance": "web-1", "severity": "critical" },
        "annotations": { "summary": "web-1 is down", "runbook_url": "https://example.com/runbook#servicedown" },
        "startsAt": "2026-01-02T03:04:05.678Z",
        "endsAt": ends_at,
        "generatorURL": "http://127.0.0.1:9090/graph",
        "fingerprint": "0123456789abcdef"
    })
}

fn notification(alerts: &[Value]) -> Value {
    json!({
        "version": "4", "groupKey": "{}:{}", "truncatedAlerts": 0, "status": "firing", "receiver": "snip",
        "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://127.0.0.1:9093",
        "alerts": alerts
    })
}

fn one(name: &str) -> Value {
    notification(&[alert(name, "firing")])
}

// ---- A stand-in for Discord ------------------------------------------------------------------------------------

/// What the stand-in does with a post.
#[derive(Clone, Copy)]
enum Answer {
    Status(u16),
    /// 429 with so many seconds in `Retry-After`.
    Later(&'static str),
    /// Nothing, for as long as the test lives.
    Hang,
    Reset,
}

/// A post that came in.
struct Post {
    at: Instant,
    path: String,
    body: Value,
}

impl Post {
    /// The titles of its embeds.
    fn titles(&self) -> Vec<&str> {
        let embeds = self.body["embeds"].as_array().expect("embeds");
        embeds.iter().map(|embed| embed["title"].as_str().expect("a title")).collect()
    }
}

/// Takes posts and answers them in order: first what it is told to, then with 204.
struct StandIn {
    address: SocketAddr,
    posts: Arc<Mutex<Vec<Post>>>,
}

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl StandIn {
    fn start(answers: &[Answer]) -> Self {
        Self::start_with(answers, |stream| Some(Box::new(stream)))
    }

    fn start_with(answers: &[Answer], wrap: impl Fn(TcpStream) -> Option<Box<dyn Stream>> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let posts = Arc::new(Mutex::new(Vec::new()));
        let (mut answers, seen) = (VecDeque::from(answers.to_vec()), Arc::clone(&posts));
        std::thread::spawn(move || {
            let mut hanging = Vec::new();
            for connection in listener.incoming() {
                let connection = connection.expect("a connection");
                let raw = connection.try_clone().expect("the socket");
                let Some(mut stream) = wrap(connection) else { continue };
                let Some(post) = read_post(&mut stream) else { continue };
                seen.lock().unwrap().push(post);
                let status = match answers.pop_front().unwrap_or(Answer::Status(204)) {
                    Answer::Status(status) => format!("{status} Said\r\nLocation: {SECRET}"),
                    Answer::Later(seconds) => format!("429 Too Many Requests\r\nRetry-After: {seconds}"),
                    Answer::Hang => {
                        hanging.push(stream);
                        continue;
                    }
                    Answer::Reset => {
                        SockRef::from(&raw).set_linger(Some(Duration::ZERO)).expect("linger");
                        continue;
                    }
                };
                let length = if status.starts_with("204") { "" } else { "Content-Length: 0\r\n" };
                let _ = write!(stream, "HTTP/1.1 {status}\r\n{length}Connection: close\r\n\r\n");
            }
        });
        Self { address, posts }
    }

    fn url(&self) -> String {
        format!("http://{}{SECRET}", self.address)
    }

    fn count(&self) -> usize {
        self.posts.lock().unwrap().len()
    }

    #[track_caller]
    fn wait_for(&self, posts: usize) {
        eventually(&format!("{posts} posts"), LIMIT, || self.count() >= posts);
    }
}

fn read_post(stream: &mut impl Read) -> Option<Post> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => length = value.parse().ok()?,
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Post { at: Instant::now(), path, body: serde_json::from_slice(&body).expect("a post is JSON") })
}

// ---- Taking, keeping, showing ----------------------------------------------------------------------------------

#[test]
fn a_notification_is_kept_and_shown() {
    let receiver = Receiver::start(&[]);
    assert_eq!(receiver.overview()["notifications"], 0);
    receiver.post(&notification(&[alert("ServiceDown", "firing"), alert("RedisDown", "resolved")]));

    let lines = receiver.lines();
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["notification"]["alerts"][0]["labels"]["alertname"], "ServiceDown");
    assert_eq!(lines[0]["notification"]["groupKey"], "{}:{}");
    let evidence = receiver.evidence();
    assert_eq!(evidence.len(), 2);
    assert!(evidence[0].0.starts_with("20260102T030405Z-RedisDown-") && evidence[0].0.ends_with("-resolved.json"));
    assert!(evidence[1].0.starts_with("20260102T030405Z-ServiceDown-") && evidence[1].0.ends_with("-firing.json"));
    assert_eq!(evidence[1].1["alert"]["annotations"]["summary"], "web-1 is down");
    assert_eq!(evidence[1].1["received_at"], lines[0]["received_at"]);

    let overview = receiver.overview();
    assert_eq!((&overview["notifications"], &overview["firing"]["critical"]), (&json!(1), &json!(1)));
    assert_eq!(overview["latest"][0]["name"], "RedisDown");
    assert_eq!(overview["latest"][1]["evidence"], json!(evidence[1].0));
    assert_eq!(overview["latest"][1]["ends_at"], Value::Null);
    assert_eq!(overview["forwarding"], Value::Null);
    assert_eq!(receiver.figure(r#"alerts_received_total{severity="critical",status="firing"}"#), 1);
    assert_eq!(receiver.figure(r#"alert_notifications_total{result="stored"}"#), 1);
    for path in ["/livez", "/readyz"] {
        receiver.client().get(path).expect(200);
    }
}

#[test]
fn listens_where_it_is_told_to() {
    let (place, address) = (place(), free_port());
    let mut command = command::snip();
    command.arg("alerts").env("SNIP_ALERTS_LISTEN", address.to_string()).env("SNIP_ALERTS_DIR", place.path());
    let log = File::create(place.path().join("log")).expect("a log");
    let mut child = command.stdout(log).spawn().expect("the receiver starts");
    eventually("the receiver to listen", LIMIT, || TcpStream::connect(address).is_ok());
    Client::new(Address::Tcp(address)).post_json("/alert", &one("ServiceDown").to_string()).expect(200);
    assert!(place.path().join("alerts.jsonl").exists());
    run(command::snip().args(["healthcheck", "--listen", &address.to_string()]), LIMIT).success();
    kill_process(Pid::from_raw(child.id().cast_signed()).unwrap(), Signal::INT).expect("signal");
    assert!(wait(&mut child, LIMIT).expect("it ends").success());
}

#[test]
fn what_is_no_notification_is_refused() {
    let receiver = Receiver::start(&[]);
    let json_type = ("Content-Type", "application/json");
    let check = |method: &str, path: &str, content_type: (&str, &str), body: &str, status: u16| {
        let response = receiver.client().send(method, path, &[content_type], Some(body.as_bytes())).expect(status);
        assert!(!response.error().is_empty());
    };
    let good = one("ServiceDown").to_string();
    for body in ["", "{}", "[]", "null", "x", &good[1..], &good.replace(r#""4""#, r#""3""#)] {
        check("POST", "/alert", json_type, body, 400);
    }
    check("POST", "/alert", json_type, &"[".repeat(100_000), 400);
    check("POST", "/alert", json_type, &good.replace("2026-01-02T03:04:05.678Z", "soon"), 400);
    // A form, or a text, is what a page in a browser could send from anywhere.
    check("POST", "/alert", ("Content-Type", "text/plain"), &good, 400);
    check("POST", "/alert", json_type, &"x".repeat(1024 * 1024 + 1), 413);
    let many = notification(&vec![alert("Many", "firing"); 501]);
    check("POST", "/alert", json_type, &many.to_string(), 413);
    check("PUT", "/alert", json_type, &good, 405);
    check("GET", "/alert", json_type, "", 405);
    check("POST", "/", json_type, &good, 405);
    check("GET", "/alerts.jsonl", json_type, "", 404);
    assert_eq!(
        receiver.client().send("OPTIONS", "/alert", &[], None).expect(200).header("Allow"),
        Some("OPTIONS, POST")
    );
    assert_eq!((receiver.lines().len(), receiver.evidence().len()), (0, 0));
    assert_eq!(receiver.figure(r#"alert_notifications_total{result="invalid"}"#), 10);
    assert_eq!(receiver.figure(r#"alert_notifications_total{result="too_large"}"#), 2);
}

#[test]
fn hostile_labels_stay_text() {
    let receiver = Receiver::start(&[]);
    let hostile = "../../x</td><script>alert(1)</script>\"'\r\nSet-Cookie: a=b\n{\"received_at\"";
    let mut bad = alert(hostile, "firing");
    for name in ["instance", "severity"] {
        bad["labels"][name] = json!(hostile);
    }
    bad["annotations"]["summary"] = json!(hostile);
    bad["generatorURL"] = json!("javascript:alert(1)");
    receiver.post(&notification(&[bad]));
    // One line, whatever was in it; one file, inside its folder.
    assert_eq!(receiver.lines()[0]["notification"]["alerts"][0]["labels"]["alertname"], hostile);
    assert_eq!(receiver.evidence().len(), 1);
    let entries = fs::read_dir(receiver.place.path()).expect("the folder").count();
    assert_eq!(entries, 3, "the folder, the socket and the log");
    assert_eq!(receiver.overview()["latest"][0]["name"], hostile);

    let page = receiver.client().send("GET", "/", &[("Accept", "text/html,*/*;q=0.8")], None).expect(200);
    assert_eq!(page.header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(page.header("Content-Security-Policy").is_some_and(|policy| policy.starts_with("default-src 'none'")));
    assert_eq!(page.header("Set-Cookie"), None);
    let text = page.text();
    assert!(!text.contains("<script") && !text.contains("javascript:"), "{text}");
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;"), "{text}");
    assert_eq!(receiver.figure(r#"alerts_received_total{severity="other",status="firing"}"#), 1);
}

#[test]
fn a_restart_keeps_counts() {
    let place = place();
    let receiver = Receiver::start_in(&place, "alerts", &[]);
    receiver.post(&notification(&[alert("ServiceDown", "firing")]));
    receiver.post(&notification(&[alert("ServiceDown", "resolved")]));
    let before = receiver.overview();
    // What was answered with 200 outlives any end.
    receiver.signal(Signal::KILL);
    drop(receiver);
    let log = place.path().join("alerts/alerts.jsonl");
    File::options().append(true).open(log).expect("the log").write_all(b"{\"received_at\":\"20").expect("half a line");
    let mut receiver = Receiver::start_in(&place, "alerts", &[]);
    assert_eq!(receiver.overview(), before);
    receiver.post(&one("RedisDown"));
    assert_eq!(receiver.overview()["notifications"], 3);
    assert_eq!(receiver.lines().len(), 3);
    assert!(receiver.stop().success());
}

#[test]
fn repeated_alerts_share_their_evidence() {
    let receiver = Receiver::start(&[]);
    for _ in 0..3 {
        receiver.post(&one("ServiceDown"));
    }
    assert_eq!((receiver.lines().len(), receiver.evidence().len()), (3, 1));
}

#[test]
fn the_log_is_rotated() {
    let receiver = Receiver::start(&[]);
    let mut big = one("Big");
    big["alerts"][0]["annotations"]["description"] = json!("x".repeat(1_000_000));
    for _ in 0..11 {
        receiver.post(&big);
    }
    assert_eq!(receiver.lines().len(), 1);
    assert_eq!(text_of(&receiver.folder.join("alerts.jsonl.1")).lines().count(), 10);
    assert_eq!(receiver.overview()["notifications"], 11);
}

#[test]
fn two_receivers_do_not_share_a_folder() {
    let receiver = Receiver::start(&[]);
    let mut second = command::snip();
    second.args(["alerts", "--listen", "127.0.0.1:0", "--dir"]).arg(&receiver.folder);
    let finished = run(&mut second, LIMIT);
    assert!(finished.one_line_of_complaint().contains("another process"), "{finished:?}");
}

#[test]
fn every_metric_is_documented() {
    let receiver = Receiver::start(&[]);
    let metrics = receiver.client().get("/metrics").expect(200);
    let types = metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: BTreeSet<_> = types.filter_map(|rest| rest.split(' ').next()).collect();
    assert!(names.contains("alerts_received_total"), "{names:?}");
    let page = text_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/alert-receiver.md"));
    let missing: Vec<_> = names.into_iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    // Those of the process are the same for every command.
    let missing: Vec<_> = missing.into_iter().filter(|name| !name.starts_with("process_")).collect();
    assert_eq!(missing, [""; 0], "/metrics serves what docs/alert-receiver.md does not name");
}

// ---- A full disk -----------------------------------------------------------------------------------------------

/// A file system of its own, unmounted at the end.
struct Tmpfs(PathBuf);

impl Tmpfs {
    fn mount(at: &Path, size: &str) -> Option<Self> {
        fs::create_dir(at).expect("a mount point");
        let mounted = geteuid().is_root()
            && run(
                Command::new("mount").args(["-t", "tmpfs", "-o"]).arg(format!("size={size}")).arg("tmpfs").arg(at),
                LIMIT,
            )
            .status
            .success();
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_told_and_the_alert_forwarded_once() {
    let place = place();
    let Some(_tmpfs) = Tmpfs::mount(&place.path().join("disk"), "512k") else {
        eprintln!("skipped: a file system of its own can be mounted by root only");
        return;
    };
    let discord = StandIn::start(&[]);
    let receiver = Receiver::start_in(&place, "disk", &[("DISCORD_WEBHOOK_URL", &discord.url())]);
    receiver.post(&one("Before"));
    let filler = place.path().join("disk/filler");
    let mut file = File::create(&filler).expect("a file");
    while file.write_all(&[0; 4096]).is_ok() {}
    drop(file); // open, it would keep its room when it is removed
    let body = one("HostDiskSpaceCritical").to_string();
    for _ in 0..3 {
        // Alertmanager tries again when it hears of a 5xx.
        let error = receiver.client().post_json("/alert", &body).expect(507).error();
        assert_eq!(error, "No space left to store this");
    }
    assert_eq!(receiver.figure(r#"alert_disk_errors_total{reason="full"}"#), 3);
    assert_eq!(receiver.overview()["disk_errors"], 3);
    assert_eq!(receiver.lines().len(), 1);
    fs::remove_file(&filler).expect("room again");
    receiver.client().post_json("/alert", &body).expect(200);
    receiver.post(&one("After"));
    assert_eq!((receiver.lines().len(), receiver.evidence().len()), (3, 3));
    eventually("all to be forwarded", LIMIT, || receiver.figure("alerts_forwarded_total") == 3);
    let posts = discord.posts.lock().unwrap();
    let titles: Vec<&str> = posts.iter().flat_map(Post::titles).collect();
    assert_eq!(titles, ["🚨 FIRING: Before", "🚨 FIRING: HostDiskSpaceCritical", "🚨 FIRING: After"]);
}

// ---- Discord ---------------------------------------------------------------------------------------------------

fn forwarding(discord: &StandIn) -> Receiver {
    let grafana = "http://127.0.0.1:3000/d/snip";
    Receiver::start(&[("DISCORD_WEBHOOK_URL", &discord.url()), ("SNIP_GRAFANA_URL", grafana)])
}

#[test]
fn alerts_are_forwarded_as_embeds() {
    let discord = StandIn::start(&[]);
    let receiver = forwarding(&discord);
    receiver.post(&one("ServiceDown"));
    discord.wait_for(1);
    receiver.post(&notification(&[alert("ServiceDown", "resolved")]));
    discord.wait_for(2);
    eventually("the count of it", LIMIT, || receiver.figure("alerts_forwarded_total") == 2);
    assert_eq!(receiver.overview()["forwarding"], json!({ "forwarded": 2, "waiting": 0, "lost": 0 }));
    let posts = discord.posts.lock().unwrap();
    assert_eq!(posts[0].path, SECRET);
    assert_eq!(posts[0].titles(), ["🚨 FIRING: ServiceDown"]);
    assert_eq!(posts[1].titles(), ["✅ RESOLVED: ServiceDown"]);
    let (firing, resolved) = (&posts[0].body["embeds"][0], &posts[1].body["embeds"][0]);
    assert_eq!((&firing["color"], &resolved["color"]), (&json!(0xE7_4C_3C), &json!(0x2E_CC_71)));
    assert_eq!(firing["url"], "http://127.0.0.1:3000/d/snip?from=1767322145678&to=now");
    let fields = resolved["fields"].as_array().expect("fields");
    let value = |name: &str| fields.iter().find(|field| field["name"] == name).map(|field| field["value"].clone());
    assert_eq!(value("Started"), Some(json!("2026-01-02 03:04:05 UTC")));
    assert_eq!(value("Ended"), Some(json!("2026-01-02 03:14:05 UTC")));
    assert_eq!(value("Runbook"), Some(json!("https://example.com/runbook#servicedown")));
}

#[test]
fn many_alerts_share_messages() {
    let discord = StandIn::start(&[]);
    let receiver = forwarding(&discord);
    let alerts: Vec<Value> = (0..25).map(|n| alert(&format!("Alert{n}"), "firing")).collect();
    receiver.post(&notification(&alerts));
    eventually("all to be forwarded", LIMIT, || receiver.figure("alerts_forwarded_total") == 25);
    let posts = discord.posts.lock().unwrap();
    let titles: Vec<&str> = posts.iter().flat_map(Post::titles).collect();
    assert_eq!(titles, (0..25).map(|n| format!("🚨 FIRING: Alert{n}")).collect::<Vec<_>>());
    assert!(posts.len() < 25 && posts.iter().all(|post| post.titles().len() <= 10), "{}", posts.len());
}

#[test]
fn what_fails_is_tried_again() {
    let check = |answers: &[Answer], pause: Duration| {
        let discord = StandIn::start(answers);
        let receiver = forwarding(&discord);
        let asked = Instant::now();
        receiver.post(&one("ServiceDown"));
        // Discord's trouble is not Alertmanager's: who waited for its answer would wait for so long at least, if it hangs.
        assert!(asked.elapsed() < ALERT_FORWARD_TIMEOUT, "{:?}", asked.elapsed());
        eventually("the alert to be forwarded", LIMIT, || receiver.figure("alerts_forwarded_total") == 1);
        let failures = answers.len() as u64;
        assert_eq!(receiver.figure("alert_forward_failures_total"), failures);
        let posts = discord.posts.lock().unwrap();
        assert_eq!(posts.len() as u64, failures + 1);
        // The time for an answer runs from before the post, which may have come late.
        let since = if matches!(answers[0], Answer::Hang) { asked } else { posts[0].at };
        assert!(posts[1].at - since >= pause, "{:?}", posts[1].at - since);
    };
    check(&[Answer::Status(500)], Duration::from_millis(500));
    check(&[Answer::Status(503), Answer::Status(502)], Duration::from_millis(500));
    check(&[Answer::Later("2")], Duration::from_secs(2));
    check(&[Answer::Later("1.25")], Duration::from_millis(1250));
    check(&[Answer::Later("soon")], Duration::from_millis(500));
    check(&[Answer::Reset], Duration::from_millis(500));
    check(&[Answer::Hang], ALERT_FORWARD_TIMEOUT);
}

#[test]
fn what_is_refused_is_not_tried_again() {
    // A redirect is not followed: it could take alerts anywhere.
    for status in [400, 401, 404, 302, 307] {
        let discord = StandIn::start(&[Answer::Status(status)]);
        let receiver = forwarding(&discord);
        receiver.post(&one("First"));
        eventually("it to be given up", LIMIT, || {
            receiver.figure(r#"alerts_not_forwarded_total{reason="refused"}"#) == 1
        });
        receiver.post(&one("Second"));
        eventually("the next to be forwarded", LIMIT, || receiver.figure("alerts_forwarded_total") == 1);
        assert_eq!(discord.count(), 2, "{status}");
    }
}

#[test]
fn the_end_waits_for_what_can_still_be_forwarded() {
    let discord = StandIn::start(&[Answer::Status(500)]);
    let mut receiver = forwarding(&discord);
    receiver.post(&one("First"));
    receiver.post(&one("Second"));
    discord.wait_for(1);
    assert!(receiver.stop().success());
    let posts = discord.posts.lock().unwrap();
    let last: BTreeSet<&str> = posts[1..].iter().flat_map(Post::titles).collect();
    assert_eq!(last, BTreeSet::from(["🚨 FIRING: First", "🚨 FIRING: Second"]));
}

#[test]
fn the_end_does_not_wait_for_a_discord_that_hangs() {
    // Who waits for its answer takes all of that time whenever asked; a busy machine does so now and then.
    let ends_before_the_answer_is_given_up = || {
        let discord = StandIn::start(&[Answer::Hang; 8]);
        let mut receiver = forwarding(&discord);
        let asked = Instant::now();
        receiver.post(&one("ServiceDown"));
        discord.wait_for(1);
        assert!(receiver.stop().success());
        assert!(receiver.log().contains("were not forwarded"), "{}", receiver.log());
        asked.elapsed() < ALERT_FORWARD_TIMEOUT
    };
    assert!((0..3).any(|_| ends_before_the_answer_is_given_up()));
}

#[test]
fn the_secret_is_never_shown() {
    let discord = StandIn::start(&[Answer::Status(404), Answer::Status(500), Answer::Reset, Answer::Later("0")]);
    let receiver = Receiver::start(&[("DISCORD_WEBHOOK_URL", &discord.url()), ("LOG_LEVEL", "debug")]);
    receiver.post(&one("First"));
    discord.wait_for(1);
    receiver.post(&one("Second"));
    eventually("it to be forwarded", LIMIT, || receiver.figure("alerts_forwarded_total") == 1);
    let shown = [
        receiver.log(),
        receiver.client().get("/").text().to_owned(),
        receiver.client().send("GET", "/", &[("Accept", "text/html")], None).text().to_owned(),
        receiver.client().get("/metrics").text().to_owned(),
        text_of(&receiver.folder.join("alerts.jsonl")),
        run(command::snip().args(["alerts", "--help"]).env("DISCORD_WEBHOOK_URL", discord.url()), LIMIT).stdout,
    ];
    for text in shown {
        assert!(!text.is_empty() && !text.contains("very-secret"), "{text}");
    }
    for url in ["ftp://host/very-secret", "very-secret", "https://a very-secret"] {
        let finished = run(command::snip().arg("alerts").env("DISCORD_WEBHOOK_URL", url), LIMIT);
        assert_eq!(finished.status.code(), Some(2));
        assert!(!finished.one_line_of_complaint().contains("secret"), "{finished:?}");
    }
    let finished = run(command::snip().args(["alerts", "--grafana-url", "javascript:x"]), LIMIT);
    assert!(finished.one_line_of_complaint().contains("expected a URL"), "{finished:?}");
}

#[test]
fn discord_is_spoken_to_in_tls_and_its_certificate_is_checked() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let place = place();
    let trusted = place.path().join("trusted.pem");
    fs::write(&trusted, cert.pem()).expect("a file");
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let untrusted = place.path().join("untrusted.pem");
    fs::write(&untrusted, other.cert.pem()).expect("a file");
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![cert.der().clone()], key).unwrap());
    let discord = StandIn::start_with(&[], move |stream| {
        let session = rustls::ServerConnection::new(Arc::clone(&config)).ok()?;
        Some(Box::new(rustls::StreamOwned::new(session, stream)))
    });
    let url = discord.url().replace("http://127.0.0.1", "https://localhost");
    let start = |roots: &Path| {
        Receiver::start(&[("DISCORD_WEBHOOK_URL", &url), ("SSL_CERT_FILE", roots.to_str().expect("a path"))])
    };
    let receiver = start(&trusted);
    receiver.post(&one("ServiceDown"));
    eventually("it to be forwarded", LIMIT, || receiver.figure("alerts_forwarded_total") == 1);
    let receiver = start(&untrusted);
    receiver.post(&one("ServiceDown"));
    eventually("a failure", LIMIT, || receiver.figure("alert_forward_failures_total") > 0);
    assert_eq!(discord.count(), 1);
    // The log has a thread of its own.
    eventually("a line in the log", LIMIT, || receiver.log().contains("certificate"));
}
