//! Holds the alerts to what they promise: rules that Prometheus takes, a test of all four of their states each, a page in
//! the runbook, a way through Alertmanager.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::command::{clean, run, text_of};
use support::docs;

/// The slowest test file computes windows of days; on a busy machine that takes a while.
const LIMIT: Duration = Duration::from_secs(300);

fn ops(name: &str) -> PathBuf {
    docs::root().join("ops").join(name)
}

fn yaml(path: &Path) -> Value {
    serde_yaml_ng::from_str(&text_of(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(ops(folder)).expect(folder).map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "yml")).collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    files
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text<'v>(value: &'v Value, name: &str) -> &'v str {
    value[name].as_str().unwrap_or_default()
}

/// Every alert by its name.
fn alerts() -> BTreeMap<String, Value> {
    let mut alerts = BTreeMap::new();
    for file in files("prometheus/rules").iter().map(|path| yaml(path)) {
        let rules = list(&file["groups"]).flat_map(|group| list(&group["rules"]));
        for rule in rules.filter(|rule| !rule["alert"].is_null()) {
            let name = text(rule, "alert").to_owned();
            assert!(alerts.insert(name.clone(), rule.clone()).is_none(), "two alerts are called {name}");
        }
    }
    alerts
}

// ---- Rules -----------------------------------------------------------------------------------------------------

#[test]
fn prometheus_takes_its_configuration() {
    run(clean(Command::new("promtool")).args(["check", "config"]).arg(ops("prometheus/prometheus.yml")), LIMIT)
        .success();
}

#[test]
fn every_rule_does_what_its_test_says() {
    let tests: Vec<_> = files("prometheus/tests")
        .into_iter()
        .map(|file| {
            thread::spawn(move || run(clean(Command::new("promtool")).args(["test", "rules"]).arg(file), LIMIT))
        })
        .collect();
    for test in tests {
        test.join().expect("promtool").success();
    }
}

#[test]
fn every_alert_says_what_it_is_and_where_to_read_on() {
    let runbook = docs::anchors(&text_of(&docs::root().join("docs/runbook.md")));
    let mut told = BTreeSet::new();
    for (name, alert) in alerts() {
        let severity = text(&alert["labels"], "severity");
        assert!(["critical", "warning", "none"].contains(&severity), "{name}: severity {severity:?}");
        for annotation in ["summary", "description"] {
            assert!(!text(&alert["annotations"], annotation).is_empty(), "{name} has no {annotation}");
        }
        let anchor = name.to_lowercase();
        assert_eq!(text(&alert["annotations"], "runbook_url"), format!("docs/runbook.md#{anchor}"), "{name}");
        assert!(runbook.contains(&anchor), "docs/runbook.md has no section {name}");
        told.insert(anchor);
    }
    // And the other way round: no section is about an alert that is gone.
    let markdown = text_of(&docs::root().join("docs/runbook.md"));
    let sections = markdown.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_lowercase);
    assert_eq!(sections.filter(|section| !told.contains(section)).collect::<Vec<_>>(), [""; 0]);
}

/// What the tests of one alert look at.
#[derive(Debug, Default, PartialEq)]
struct Looks {
    pending: bool,
    firing: bool,
    resolved: bool,
    silent: bool,
}

/// Of the groups `NAME` and `NAME, silent`: the looks that have an expectation of the right kind.
fn looks(name: &str, groups: &[Value]) -> Looks {
    let group = |wanted: &str| groups.iter().find(|group| text(group, "name") == wanted).cloned().unwrap_or_default();
    let (course, silent) = (group(name), group(&format!("{name}, silent")));
    let pending = format!(r#"ALERTS{{alertname="{name}", alertstate="pending"}}"#);
    let alerts_at = |group: &Value| -> Vec<usize> {
        let looks = list(&group["alert_rule_test"]).filter(|look| text(look, "alertname") == name);
        looks.map(|look| list(&look["exp_alerts"]).count()).collect()
    };
    let course_alerts = alerts_at(&course);
    let fires_at = course_alerts.iter().position(|&count| count > 0);
    Looks {
        pending: list(&course["promql_expr_test"])
            .any(|look| text(look, "expr") == pending && list(&look["exp_samples"]).count() > 0),
        firing: fires_at.is_some(),
        resolved: fires_at.is_some_and(|at| course_alerts[at..].contains(&0)),
        silent: { alerts_at(&silent) }.first() == Some(&0) && alerts_at(&silent).iter().all(|&count| count == 0),
    }
}

#[test]
fn every_alert_is_tested_pending_firing_resolved_and_silent() {
    let groups: Vec<Value> = files("prometheus/tests")
        .into_iter()
        .flat_map(|path| list(&yaml(&path)["tests"]).cloned().collect::<Vec<_>>())
        .collect();
    for name in alerts().keys() {
        let expect = match name.as_str() {
            // The dead man's switch fires always, at once; that is the point of it.
            "Watchdog" => Looks { firing: true, ..Looks::default() },
            _ => Looks { pending: true, firing: true, resolved: true, silent: true },
        };
        assert_eq!(looks(name, &groups), expect, "ops/prometheus/tests: {name}");
    }
}

// ---- Alertmanager ----------------------------------------------------------------------------------------------

/// The configuration as it runs, with the receiver's address filled in.
fn alertmanager_config(folder: &Path) -> PathBuf {
    let filled = text_of(&ops("alertmanager/alertmanager.yml")).replace("${RECEIVER}", "127.0.0.1:9095");
    assert!(!filled.contains("${"), "a placeholder that nobody fills");
    let path = folder.join("alertmanager.yml");
    fs::write(&path, filled).expect("a file");
    path
}

#[test]
fn alertmanager_takes_its_configuration_and_routes_by_severity() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = alertmanager_config(folder.path());
    run(clean(Command::new("amtool")).arg("check-config").arg(&config), LIMIT).success();
    for (name, alert) in alerts() {
        let severity = text(&alert["labels"], "severity");
        let receiver = if name == "Watchdog" { "dead-mans-switch" } else { severity };
        let mut amtool = clean(Command::new("amtool"));
        amtool.args(["config", "routes", "test", "--verify.receivers", receiver, "--config.file"]).arg(&config);
        run(amtool.args([format!("alertname={name}"), format!("severity={severity}"), "job=snip".into()]), LIMIT)
            .success();
    }
}

#[test]
fn inhibition_names_alerts_that_exist() {
    let config: Value = yaml(&ops("alertmanager/alertmanager.yml"));
    let alerts = alerts();
    let matchers = list(&config["inhibit_rules"])
        .flat_map(|rule| list(&rule["source_matchers"]).chain(list(&rule["target_matchers"])))
        .filter_map(Value::as_str);
    let names = matchers.map(|matcher| matcher.split('"').nth(1).or(matcher.split("= ").nth(1)).unwrap_or(matcher));
    let mut count = 0;
    for name in names.flat_map(|names| names.split('|')) {
        let (prefix, is_open) = name.strip_suffix(".*").map_or((name, false), |prefix| (prefix, true));
        let known = alerts.keys().any(|alert| if is_open { alert.starts_with(prefix) } else { alert == prefix });
        assert!(known, "alertmanager.yml inhibits by {name}, which is no alert");
        count += 1;
    }
    assert!(count > 10, "{count}");
}
