//! Asks every question of the dashboards, as Grafana would, of a real Prometheus that scrapes a running server and the
//! machine: each must have data.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::client::{Address, Client, Conn};
use support::command::{clean, text_of};
use support::docs;
use support::ports::free_port;
use support::redis::Redis;
use support::snip::{Launch, Snip, StoreKind};
use support::wait::eventually;

/// For a daemon to start, and for all figures to come together.
const LIMIT: Duration = Duration::from_secs(90);
/// The data source that is provisioned.
const DATA_SOURCE: &str = "snip-prometheus";

fn grafana(name: &str) -> PathBuf {
    docs::root().join("ops/grafana").join(name)
}

fn dashboards() -> Vec<(PathBuf, Value)> {
    let files = fs::read_dir(grafana("dashboards")).expect("dashboards").map(|entry| entry.expect("an entry").path());
    let read = |path: PathBuf| {
        let json = serde_json::from_str(&text_of(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        (path, json)
    };
    files.map(read).collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The questions of a dashboard, with the names of their panels.
fn questions(dashboard: &Value) -> Vec<(String, String)> {
    let of_panels = list(&dashboard["panels"]).flat_map(|panel| {
        let title = panel["title"].as_str().expect("a title");
        list(&panel["targets"])
            .map(move |target| (title.to_owned(), target["expr"].as_str().expect("a query").to_owned()))
    });
    of_panels.collect()
}

/// A daemon that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(program: &str, args: &[String], folder: &Path) -> Self {
        let log = fs::File::create(folder.join(format!("{program}.log"))).expect("a file for the log");
        let mut command = clean(Command::new(program));
        command.args(args).current_dir(folder).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("stdout")).stderr(log);
        Self(command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs it")))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The project's own configuration, with other targets and no patience.
fn configure(folder: &Path, snip: &str, node: &str) {
    for part in ["rules", "targets"] {
        fs::create_dir(folder.join(part)).expect(part);
    }
    for file in fs::read_dir(docs::root().join("ops/prometheus/rules")).expect("rules") {
        let file = file.expect("an entry");
        fs::copy(file.path(), folder.join("rules").join(file.file_name())).expect("a copy");
    }
    for (name, target) in [("snip", snip), ("node", node)] {
        let targets = json!([{ "targets": [target] }]).to_string();
        fs::write(folder.join(format!("targets/{name}.yml")), targets).expect(name);
    }
    let hasty = text_of(&docs::root().join("ops/prometheus/prometheus.yml"))
        .replace("_interval: 15s", "_interval: 1s")
        .replace("scrape_timeout: 5s", "scrape_timeout: 1s");
    fs::write(folder.join("prometheus.yml"), hasty).expect("prometheus.yml");
}

/// Some of everything: redirects that are found and are not, lists, changes, refusals.
fn make_traffic(snip: &Snip) {
    let mut client = snip.client();
    let (id, code) = client.shorten("https://example.com/");
    for _ in 0..20 {
        client.get(&format!("/{code}")).expect(302);
    }
    client.get("/nosuch").expect(404);
    client.get("/urls").expect(200);
    client.get("/health").expect(200);
    client.post_json("/urls", "{}").expect(400);
    client.put_json(&format!("/urls/{id}"), r#"{"title": "x"}"#).expect(200);
    let refused = snip.connect().send("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n").response().status;
    assert!(refused >= 400, "{refused}");
}

/// Whether a query has an answer with a number in it.
fn has_data(prometheus: &mut Client, query: &str) -> bool {
    let encode =
        |text: &str| percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string();
    let response = prometheus.get(&format!("/api/v1/query?query={}", encode(query)));
    assert_eq!(response.status, 200, "{query}: {}", response.text());
    let numbers = |value: &Value| list(&value["data"]["result"]).filter(|row| row["value"][1] != "NaN").count();
    numbers(&response.json()) > 0
}

#[test]
fn every_query_of_every_dashboard_has_data() {
    let redis = Redis::start();
    let snip = Launch::on(StoreKind::Postgres).arg("--redis-url").arg(redis.url()).start();
    let folder = tempfile::tempdir().expect("a folder");
    let (node, prometheus) = (free_port(), free_port());
    configure(folder.path(), &snip.authority(), &node.to_string());
    let _node = Daemon::start("prometheus-node-exporter", &[format!("--web.listen-address={node}")], folder.path());
    let arguments = [format!("--web.listen-address={prometheus}"), "--config.file=prometheus.yml".into()];
    let _prometheus = Daemon::start("prometheus", &arguments, folder.path());
    eventually("Prometheus is ready", LIMIT, || {
        let address = Address::Tcp(prometheus);
        Conn::try_open(&address).is_ok() && Client::new(address).get("/-/ready").status == 200
    });

    let mut asker = Client::new(Address::Tcp(prometheus));
    let deadline = Instant::now() + LIMIT;
    for (path, dashboard) in dashboards() {
        let mut without_data = questions(&dashboard);
        assert!(without_data.len() > 20, "{}: {} queries", path.display(), without_data.len());
        while !without_data.is_empty() {
            make_traffic(&snip);
            // Grafana's own: four times the interval of scrapes.
            without_data.retain(|(_, query)| !has_data(&mut asker, &query.replace("$__rate_interval", "4s")));
            let log = || text_of(&folder.path().join("prometheus.log"));
            assert!(Instant::now() < deadline, "{}: no data for {without_data:#?}\n{}", path.display(), log());
        }
    }
}

#[test]
fn panels_ask_the_data_source_that_is_provisioned() {
    assert!(text_of(&grafana("provisioning/datasources/prometheus.yml")).contains(&format!("uid: {DATA_SOURCE}\n")));
    for (path, dashboard) in dashboards() {
        for panel in list(&dashboard["panels"]).filter(|panel| panel["type"] != "row") {
            assert_eq!(panel["datasource"]["uid"], DATA_SOURCE, "{}: {}", path.display(), panel["title"]);
        }
    }
}

#[test]
fn the_dashboard_has_what_the_replaced_service_showed() {
    let (_, dashboard) = dashboards().remove(0);
    let titles: Vec<_> = list(&dashboard["panels"]).filter_map(|panel| panel["title"].as_str()).collect();
    for title in [
        "Request rate by status",
        "Error rate",
        "Latency",
        "Active URLs",
        "URLs created",
        "Redirects",
        "Cache hit ratio",
        "Instance health",
    ] {
        assert!(titles.contains(&title), "no panel {title:?}");
    }
}
