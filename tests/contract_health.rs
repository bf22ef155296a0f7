//! The contract's section "Health and metrics".

mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snip::limits::HEALTH_DEADLINE;
use support::case::{Session, get, post};
use support::client::Client;
use support::postgres::Postgres;
use support::snip::{Launch, Snip, StoreKind};
use support::wait::{eventually, wait_until};

/// More than counting a handful of rows ever takes, the rest after it included.
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn health() {
    let snip = Snip::start();
    Session::new(&snip).check_all([
        get("/health").gives(200, r#"{"status": "ok", "database": "connected"}"#),
        get("/health?a=b").gives(200, r#"{"status": "ok", "database": "connected"}"#),
        get("/livez").answers(200),
        get("/readyz").answers(200),
    ]);
}

/// On top of the deadline: what a busy machine may take. Two ordinary deadlines of the store would still be longer.
const SLACK: Duration = Duration::from_secs(6);

/// `/health` keeps its 200, whose body tells; `/readyz` sends clients elsewhere; both in time.
#[track_caller]
fn is_degraded(client: &mut Client, what: &str) {
    let asked = Instant::now();
    let health: Value = client.get("/health").expect(200).json();
    assert_eq!(health, json!({"status": "degraded", "database": "disconnected"}), "{what}");
    client.get("/readyz").expect(503);
    assert!(asked.elapsed() < 2 * HEALTH_DEADLINE + SLACK, "{what}: {:?}", asked.elapsed());
    client.get("/livez").expect(200);
}

fn is_well_again(client: &mut Client, what: &str) {
    wait_until(what, || client.get("/readyz").status == 200);
    let well = json!({"status": "ok", "database": "connected"});
    // What could not be done meanwhile may be done now, and a single answer late.
    wait_until(what, || client.get("/health").expect(200).json() == well);
}

#[test]
fn health_is_degraded_while_the_database_is_away() {
    let mut postgres = Postgres::start();
    let snip = Launch::on(StoreKind::Sqlite).arg("--database-url").arg(postgres.url()).start();
    let mut client = snip.client();
    is_well_again(&mut client, "at first");
    postgres.freeze();
    is_degraded(&mut client, "frozen");
    postgres.thaw();
    is_well_again(&mut client, "it runs on");
    postgres.stop_kill9();
    is_degraded(&mut client, "killed");
    postgres.restart();
    is_well_again(&mut client, "it was started again");
}

/// The samples of a page in Prometheus's text format, by `name{labels}`.
fn samples(client: &mut Client) -> BTreeMap<String, f64> {
    let page = client.get("/metrics").expect(200);
    let media_type = page.header("Content-Type").expect("a media type");
    assert!(media_type.starts_with("text/plain; version=0.0.4"), "{media_type}");
    let lines = page.text().lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let samples = lines.map(|line| {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample"));
        (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?} has no number")))
    });
    samples.collect()
}

/// The sum over a metric's label sets; zero when there is none yet.
fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of_it = |sample: &&String| sample.split('{').next() == Some(name);
    samples.keys().filter(of_it).map(|sample| samples[sample]).sum()
}

/// The label names of a metric, sorted, without the histogram's own `le`.
fn labels(samples: &BTreeMap<String, f64>, name: &str) -> Vec<String> {
    let sample = samples.keys().find(|key| key.starts_with(&format!("{name}{{"))).expect(name);
    let inside = &sample[name.len() + 1..sample.len() - 1];
    let names = inside.split(',').filter_map(|pair| pair.split('=').next()).filter(|name| *name != "le");
    let mut names: Vec<_> = names.map(str::to_owned).collect();
    names.sort_unstable();
    names
}

#[test]
fn metrics_count_what_happens() {
    let snip = Snip::start();
    let mut client = snip.client();
    client.get("/users").expect(200);
    let before = samples(&mut client);
    let (id, code) = client.shorten("https://example.com/");
    client.shorten("https://example.com/2");
    for _ in 0..3 {
        client.get(&format!("/{code}")).expect(302);
    }
    client.send("HEAD", &format!("/{code}"), &[], None).expect(302);
    client.get("/nosuch").expect(404);
    client.get("/users").expect(200);
    let during = samples(&mut client);
    client.delete(&format!("/urls/{id}")).expect(204);
    // Counting costs: a figure may be one from a moment ago.
    let active = sum(&before, "active_urls") + 1.0;
    eventually("the URLs are counted again", LIMIT, || sum(&samples(&mut client), "active_urls") == active);

    let grew = |name: &str| sum(&during, name) - sum(&before, name);
    assert_eq!(grew("urls_created_total"), 2.0);
    assert_eq!(grew("redirects_total"), 3.0, "HEAD and 404 are no redirects");
    assert!(grew("cache_hits_total") + grew("cache_misses_total") >= 3.0);
    assert!(grew("cache_hits_total") >= 2.0);
    assert!(grew("http_requests_total") >= 8.0);
    assert!(grew("http_request_duration_seconds_count") >= 8.0);
    assert!(grew("http_request_duration_seconds_sum") > 0.0);
    assert!(grew("http_request_duration_seconds_bucket") > 0.0);
    assert!(sum(&during, "process_resident_memory_bytes") > 1_000_000.0);
}

#[test]
fn metrics_keep_their_labels() {
    let snip = Snip::start();
    let mut client = snip.client();
    client.get("/users").expect(200);
    client.get("/users/77").expect(404);
    let samples = samples(&mut client);
    assert_eq!(labels(&samples, "http_requests_total"), ["endpoint", "method", "status"]);
    assert_eq!(labels(&samples, "http_request_duration_seconds_bucket"), ["endpoint", "method"]);
    assert_eq!(labels(&samples, "http_request_duration_seconds_count"), ["endpoint", "method"]);
    let counted = |status: &str| {
        let of_it = |key: &&String| key.starts_with("http_requests_total") && key.contains(status);
        samples.keys().filter(of_it).map(|key| samples[key]).sum::<f64>()
    };
    assert!(counted(r#"status="200""#) >= 1.0 && counted(r#"status="404""#) >= 1.0);
    assert!(samples.keys().any(|key| key.contains(r#"le="+Inf""#)));
}

#[test]
fn endpoints_do_not_grow_with_what_clients_ask_for() {
    let snip = Snip::start();
    let mut client = snip.client();
    let label_sets = |client: &mut Client| {
        samples(client).keys().filter(|key| key.starts_with("http_requests_total")).cloned().collect::<Vec<_>>()
    };
    for n in 0..200 {
        client.get(&format!("/code{n}")).expect(404);
        client.get(&format!("/nothing/{n}")).expect(404);
        client.get(&format!("/users/{}", 1000 + n)).expect(404);
        client.send(&format!("METHOD{n}"), "/users", &[], None);
    }
    let sets = label_sets(&mut client);
    assert!(sets.len() < 20, "one label set a path or method would fill the memory: {sets:#?}");
}

#[test]
fn metrics_have_help_and_type() {
    let snip = Snip::start();
    let mut session = Session::new(&snip);
    session.check(&post("/urls", r#"{"url": "https://example.com/"}"#).answers(201).keeps("code", "/short_code"));
    session.check(&get("/{code}").leads_to("https://example.com/"));
    let page = session.client().get("/metrics").expect(200);
    for (name, kind) in [
        ("http_requests_total", "counter"),
        ("http_request_duration_seconds", "histogram"),
        ("urls_created_total", "counter"),
        ("redirects_total", "counter"),
        ("cache_hits_total", "counter"),
        ("cache_misses_total", "counter"),
        ("active_urls", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
    ] {
        assert!(page.text().contains(&format!("# HELP {name} ")), "{name} has no help");
        assert!(page.text().contains(&format!("# TYPE {name} {kind}\n")), "{name} is no {kind}");
    }
    let head = session.client().send("HEAD", "/metrics", &[], None).expect(200);
    assert_eq!(head.header("Content-Type"), page.header("Content-Type"));
}
