//! Holds the documentation to the program: every setting, every metric, every link.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::command::{self, run, text_of};
use support::docs::{anchors, root};
use support::redis::Redis;
use support::snip::{Launch, Snip, StoreKind};

/// More than the program ever takes to print its help.
const LIMIT: Duration = Duration::from_secs(30);
const COMMANDS: [&[&str]; 7] =
    [&["serve"], &["seed"], &["alerts"], &["healthcheck"], &["migrate"], &["journal", "inspect"], &["journal", "ship"]];

fn page(name: &str) -> String {
    text_of(&root().join("docs").join(name))
}

/// Whether `page` has `name` as a word of its own: not as a part of a longer name.
fn has(page: &str, name: &str) -> bool {
    let part_of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    page.match_indices(name)
        .any(|(at, _)| !page[..at].ends_with(part_of_name) && !page[at + name.len()..].starts_with(part_of_name))
}

fn missing(page: &str, names: &BTreeSet<String>) -> Vec<String> {
    names.iter().filter(|name| !has(page, name)).cloned().collect()
}

#[test]
fn names_are_found_as_words() {
    let check = |page: &str, expect: bool| assert_eq!(has(page, "--log"), expect, "{page}");
    check("| `--log` |", true);
    check("--log-level, --log", true);
    check("--log-level", false);
    check("", false);
}

// ---- Settings --------------------------------------------------------------------------------------------------

fn help(of: &[&str]) -> String {
    run(command::snip().args(of).arg("--help"), LIMIT).success().stdout
}

/// Flags and variables that a help text names.
fn settings(help: &str) -> BTreeSet<String> {
    let flags = help.split(|c: char| c.is_whitespace() || matches!(c, ',' | '<' | '[')).filter(|w| w.starts_with("--"));
    let flags = flags.map(|word| word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned());
    let variables = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next()).map(str::to_owned);
    flags.chain(variables).collect()
}

#[test]
fn every_setting_is_documented() {
    let page = page("configuration.md");
    for command in COMMANDS {
        let settings = settings(&help(command));
        assert!(settings.contains("--help"), "{command:?}: {settings:?}");
        assert_eq!(
            missing(&page, &settings),
            [""; 0],
            "snip {command:?} --help names what docs/configuration.md does not"
        );
    }
    let serve = settings(&help(&["serve"]));
    assert!(serve.contains("--listen") && serve.contains("SNIP_LISTEN"), "{serve:?}");
}

#[test]
fn every_command_is_documented() {
    let page = page("configuration.md");
    let help = help(&[]);
    let listed = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a list of commands");
    let names = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help");
    let commands: BTreeSet<_> = names.map(|name| format!("snip {name}")).collect();
    assert!(commands.contains("snip serve"), "{commands:?}");
    assert_eq!(missing(&page, &commands), [""; 0], "snip --help names what docs/configuration.md does not");
}

// ---- Metrics ---------------------------------------------------------------------------------------------------

#[test]
fn every_metric_is_documented() {
    let redis = Redis::start();
    let both_ways = [
        Launch::on(StoreKind::Sqlite).start(),
        Launch::on(StoreKind::Postgres).arg("--redis-url").arg(redis.url()).start(),
    ];
    let served: BTreeSet<_> = both_ways.iter().flat_map(metrics).collect();
    assert!(served.contains("http_requests_total") && served.contains("redirects_total"), "{served:?}");
    let page = page("metrics.md");
    assert_eq!(missing(&page, &served), [""; 0], "/metrics serves what docs/metrics.md does not name");
    let documented: BTreeSet<_> = first_columns(&page).collect();
    let gone: Vec<_> = documented.difference(&served).collect();
    assert_eq!(gone, [""; 0], "docs/metrics.md names what /metrics does not serve");
}

fn metrics(snip: &Snip) -> BTreeSet<String> {
    // Metrics with labels are served from their first use on.
    snip.client().get("/health").expect(200);
    let page = snip.client().get("/metrics").expect(200);
    let types = page.text().lines().filter_map(|line| line.strip_prefix("# TYPE "));
    types.filter_map(|rest| rest.split(' ').next()).map(str::to_owned).collect()
}

/// The names in the first columns of those tables that have a column `type`.
fn first_columns(markdown: &str) -> impl Iterator<Item = String> {
    let tables = markdown.split("\n\n").filter(|block| block.starts_with("| name | type |"));
    let rows = tables.flat_map(|table| table.lines().skip(2));
    let columns = rows.filter_map(|row| row.split('|').nth(1));
    columns.flat_map(|column| column.split('`').skip(1).step_by(2)).map(str::to_owned)
}

// ---- Links -----------------------------------------------------------------------------------------------------

fn pages() -> Vec<PathBuf> {
    let docs = fs::read_dir(root().join("docs")).expect("docs").map(|entry| entry.expect("an entry").path());
    let top = ["README.md", "CHANGELOG.md"].map(|name| root().join(name));
    docs.filter(|path| path.extension().is_some_and(|extension| extension == "md")).chain(top).collect()
}

/// The targets of a page's links and pictures, those in blocks of code aside.
fn links(markdown: &str) -> Vec<&str> {
    let prose = markdown.split("```").step_by(2);
    prose.flat_map(|part| part.split("](").skip(1)).filter_map(|rest| rest.split(')').next()).collect()
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut broken = Vec::new();
    for page in pages() {
        let markdown = text_of(&page);
        for link in links(&markdown) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name("").join(file) };
            let leads = match anchor {
                Some(anchor) if target.is_file() => anchors(&text_of(&target)).contains(anchor),
                _ => target.exists(),
            };
            if !leads {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, [""; 0]);
}
