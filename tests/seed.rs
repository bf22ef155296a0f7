//! `snip seed`: the data sets load, and every one of their links works as the files say.

mod support;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use support::client::Client;
use support::command::{self, Finished, run};
use support::snip::{Launch, Place, Snip, StoreKind};

const LIMIT: Duration = Duration::from_secs(120);
const LOADED: &str = "Loaded 400 users, 2000 URLs, 3422 events";

/// The project's own data set.
fn own_data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seed_data")
}

/// The data set of the service that this one replaces; lies beside the project on some machines only.
fn real_data() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seed_data");
    folder.join("urls.csv").exists().then_some(folder)
}

fn seed(place: &Place, folder: &Path, flags: &[&str]) -> Finished {
    run(place.command("seed").arg(folder).args(flags), LIMIT)
}

fn seeded(folder: &Path) -> Snip {
    let place = Place::new(StoreKind::of_this_run());
    let finished = seed(&place, folder, &[]).success();
    assert!(finished.stdout.contains(LOADED), "{finished:#?}");
    Launch::at(place).start()
}

type Row = HashMap<String, String>;

fn rows(folder: &Path, file: &str) -> Vec<Row> {
    let mut reader = csv::Reader::from_path(folder.join(file)).expect(file);
    reader.deserialize().map(|row| row.expect("a row")).collect()
}

/// Each short code leads where the file says, byte for byte, or nowhere when it is switched off.
fn check_links(snip: &Snip, folder: &Path) -> (usize, usize) {
    let mut client = snip.client();
    let (mut found, mut gone) = (0, 0);
    for row in rows(folder, "urls.csv") {
        let response = client.get(&format!("/{}", row["short_code"]));
        if row["is_active"] == "True" {
            assert_eq!(response.status, 302, "{row:?}");
            assert_eq!(response.header("Location"), Some(row["original_url"].as_str()), "{row:?}");
            found += 1;
        } else {
            assert_eq!(response.status, 404, "{row:?}");
            gone += 1;
        }
    }
    (found, gone)
}

fn contract_time(csv: &str) -> String {
    csv.replace(' ', "T")
}

fn or_null(text: &str) -> serde_json::Value {
    if text.is_empty() { serde_json::Value::Null } else { text.into() }
}

/// What the API shows is what the files hold: all users, all URLs, the events of some.
fn check_rows(client: &mut Client, folder: &Path) {
    for row in rows(folder, "users.csv") {
        let user = client.get(&format!("/users/{}", row["id"])).expect(200).json();
        assert_eq!(user["username"], row["username"]);
        assert_eq!(user["email"], row["email"]);
        assert_eq!(user["created_at"], contract_time(&row["created_at"]));
    }
    for row in rows(folder, "urls.csv") {
        let url = client.get(&format!("/urls/{}", row["id"])).expect(200).json();
        assert_eq!(url["short_code"], row["short_code"]);
        assert_eq!(url["original_url"], row["original_url"]);
        assert_eq!(url["title"], or_null(&row["title"]));
        assert_eq!(url["user_id"].as_i64(), row["user_id"].parse().ok());
        assert_eq!(url["is_active"], row["is_active"] == "True");
        assert_eq!(url["created_at"], contract_time(&row["created_at"]));
        assert_eq!(url["updated_at"], contract_time(&row["updated_at"]));
    }
    check_events(client, folder);
}

fn check_events(client: &mut Client, folder: &Path) {
    let mut wanted: HashMap<String, Row> =
        rows(folder, "events.csv").into_iter().map(|row| (row["id"].clone(), row)).collect();
    for page in 1.. {
        let events = client.get(&format!("/events?per_page=100&page={page}")).expect(200).json();
        let events = events.as_array().expect("a list");
        if events.is_empty() {
            break;
        }
        for event in events {
            let row = wanted.remove(&event["id"].to_string()).unwrap_or_else(|| panic!("{event} twice or unknown"));
            assert_eq!(event["url_id"].to_string(), row["url_id"]);
            assert_eq!(event["user_id"].as_i64(), row["user_id"].parse().ok());
            assert_eq!(event["event_type"], row["event_type"]);
            assert_eq!(event["timestamp"], contract_time(&row["timestamp"]));
            let details: serde_json::Value = serde_json::from_str(&row["details"]).unwrap_or(or_null(&row["details"]));
            assert_eq!(event["details"], details);
        }
    }
    assert!(wanted.is_empty(), "{} events are missing", wanted.len());
}

fn check_data(folder: &Path) -> (usize, usize) {
    let snip = seeded(folder);
    check_rows(&mut snip.client(), folder);
    let counts = check_links(&snip, folder);
    // Numbers go on after the highest.
    let mut client = snip.client();
    let user = r#"{"username": "seed-test", "email": "seed-test@example.com"}"#;
    assert_eq!(client.post_json("/users", user).expect(201).json()["id"], 401);
    assert_eq!(client.shorten("https://example.com/").0, 2001);
    counts
}

#[test]
fn the_projects_data() {
    let (found, gone) = check_data(&own_data());
    assert_eq!(found + gone, 2000);
    assert!(gone > 0, "some links are to be switched off");
}

#[test]
fn the_real_data_when_present() {
    match real_data() {
        Some(folder) => assert_eq!(check_data(&folder), (1647, 353)),
        None => eprintln!("../shared/seed_data is not on this machine"),
    }
}

#[test]
fn the_generator_writes_the_projects_data() {
    let folder = tempfile::tempdir().expect("a folder");
    run(command::snip().arg("seed").arg("--generate").arg(folder.path()), LIMIT).success();
    for file in ["users.csv", "urls.csv", "events.csv"] {
        let read = |folder: &Path| std::fs::read_to_string(folder.join(file)).expect(file);
        assert!(read(folder.path()) == read(&own_data()), "{file} is not what the generator writes");
    }
}

#[test]
fn a_store_with_rows_is_left_alone() {
    let place = Place::new(StoreKind::of_this_run());
    seed(&place, &own_data(), &[]).success();
    let refused = seed(&place, &own_data(), &[]);
    assert!(refused.one_line_of_complaint().contains("--reset"), "{refused:?}");

    let snip = Launch::at(Arc::clone(&place)).start();
    snip.client().delete("/users/1").expect(204);
    snip.client().shorten("https://example.com/");
    drop(snip);
    seed(&place, &own_data(), &["--reset"]).success();
    let snip = Launch::at(place).start();
    let mut client = snip.client();
    client.get("/users/1").expect(200);
    client.get("/urls/2001").expect(404);
    assert_eq!(client.shorten("https://example.com/").0, 2001);
}

#[test]
fn one_row_is_enough_to_be_left_alone() {
    let snip = Snip::start();
    snip.client().post_json("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).expect(201);
    let place = Arc::clone(snip.place());
    drop(snip);
    seed(&place, &own_data(), &[]).one_line_of_complaint();
    let snip = Launch::at(place).start();
    assert_eq!(snip.client().get("/users/1").expect(200).json()["username"], "ann");
}

#[test]
fn bad_rows_are_named_by_file_and_line() {
    const USERS: &str = "id,username,email,created_at\n1,ann,ann@example.com,2025-01-01 00:00:00\n";
    const URLS: &str = "id,user_id,short_code,original_url,title,is_active,created_at,updated_at\n\
                        1,1,abc123,https://example.com/,,True,2025-01-01 00:00:00,2025-01-01 00:00:00\n";
    const EVENTS: &str = "id,url_id,user_id,event_type,timestamp,details\n1,1,1,x,2025-01-01 00:00:00,{}\n";
    for (file, row) in [
        ("users.csv", "x,bob,bob@example.com,2025-01-01 00:00:00"),
        ("users.csv", "2,bob,bob@example.com,yesterday"),
        ("users.csv", "2,bob"),
        ("urls.csv", "2,1,abc124,https://example.com/,,perhaps,2025-01-01 00:00:00,2025-01-01 00:00:00"),
        ("urls.csv", "2,1,abc124,https://example.com/,,True,2025-13-01 00:00:00,2025-01-01 00:00:00"),
        ("events.csv", "2,1,,x,never,{}"),
        ("events.csv", "2,one,,x,2025-01-01 00:00:00,{}"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, good) in [("users.csv", USERS), ("urls.csv", URLS), ("events.csv", EVENTS)] {
            let bad = if name == file { format!("{row}\n") } else { String::new() };
            std::fs::write(folder.path().join(name), format!("{good}{bad}")).expect("write");
        }
        let place = Place::new(StoreKind::of_this_run());
        let finished = seed(&place, folder.path(), &[]);
        assert!(!finished.status.success(), "{file} {row}: {finished:?}");
        assert!(finished.stderr.contains(&format!("{file}:3")), "{file} {row}: {finished:#?}");
        let snip = Launch::at(place).start();
        assert_eq!(snip.client().get("/users").expect(200).text(), "[]", "nothing is loaded by halves");
    }
}

#[test]
fn folders_without_data() {
    let place = Place::new(StoreKind::of_this_run());
    let folder = tempfile::tempdir().expect("a folder");
    seed(&place, folder.path(), &[]).one_line_of_complaint();
    seed(&place, &folder.path().join("nowhere"), &[]).one_line_of_complaint();
    seed(&place, &own_data(), &["--reset", "--generate"]).one_line_of_complaint();
}
