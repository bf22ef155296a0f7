use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::limits::SEED_PROBLEMS_MAX;
use crate::model::{EventFilter, Page, ShortUrl, Timestamp};
use crate::store::sqlite::SqliteStore;

const GOOD_USERS: &str = "id,username,email,created_at\n1,ann,ann@example.com,2025-01-01 00:00:00\n";
const GOOD_URLS: &str = "id,user_id,short_code,original_url,title,is_active,created_at,updated_at\n\
    5,1,abc123,https://example.com/a?b=c,A title,True,2025-01-02 00:00:00,2025-01-03 00:00:00\n\
    6,,def456,https://example.com/,,False,2025-01-02 00:00:00,2025-01-02 00:00:00\n";
const GOOD_EVENTS: &str = "id,url_id,user_id,event_type,timestamp,details\n\
    1,5,1,created,2025-01-02 00:00:00,\"{\"\"a\"\": 1}\"\n\
    2,6,,seen,2025-01-02 00:00:00,\n";

fn folder(users: &[u8], urls: &[u8], events: &[u8]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (table, text) in [(USERS, users), (URLS, urls), (EVENTS, events)] {
        std::fs::write(folder.path().join(table.file), text).unwrap();
    }
    folder
}

fn store() -> (SqliteStore, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (SqliteStore::open(&folder.path().join("snip.sqlite")).unwrap(), folder)
}

/// Reads the good rows with these behind them, and compares the problems.
fn check_bad(users: &str, urls: &str, events: &str, expected: &[&str]) {
    check_bad_bytes(users.as_bytes(), urls.as_bytes(), events.as_bytes(), expected);
}

fn check_bad_bytes(users: &[u8], urls: &[u8], events: &[u8], expected: &[&str]) {
    let folder = folder(
        &[GOOD_USERS.as_bytes(), users].concat(),
        &[GOOD_URLS.as_bytes(), urls].concat(),
        &[GOOD_EVENTS.as_bytes(), events].concat(),
    );
    match read(folder.path()) {
        Err(Error::Rows { listed, more: 0 }) => assert_eq!(listed, expected),
        other => panic!("{expected:?}, but {other:?}"),
    }
}

#[test]
fn good_rows_are_read() {
    let folder = folder(GOOD_USERS.as_bytes(), GOOD_URLS.as_bytes(), GOOD_EVENTS.as_bytes());
    let data = read(folder.path()).unwrap();
    assert_eq!(Loaded::of(&data), Loaded { users: 1, urls: 2, events: 2 });
    let first = ShortUrl {
        id: 5,
        user_id: Some(1),
        short_code: "abc123".into(),
        original_url: "https://example.com/a?b=c".into(),
        title: Some("A title".into()),
        is_active: true,
        created_at: Timestamp::parse("2025-01-02 00:00:00").unwrap(),
        updated_at: Timestamp::parse("2025-01-03 00:00:00").unwrap(),
    };
    assert_eq!(data.urls[0], first);
    assert_eq!((data.urls[1].user_id, &data.urls[1].title, data.urls[1].is_active), (None, &None, false));
    assert_eq!(data.events[0].details.as_deref(), Some(r#"{"a": 1}"#));
    assert_eq!((data.events[1].user_id, &data.events[1].details), (None, &None));
}

#[test]
fn columns_are_found_by_name() {
    let users = "more,created_at,email,username,id\nx,2025-01-01 00:00:00,ann@example.com,ann,1\n";
    let folder = folder(users.as_bytes(), GOOD_URLS.as_bytes(), GOOD_EVENTS.as_bytes());
    assert_eq!(read(folder.path()).unwrap().users[0].username, "ann");
}

#[test]
fn bad_users_are_told() {
    check_bad(
        "x,bob,bob@example.com,2025-01-01 00:00:00\n",
        "",
        "",
        &[r#"users.csv:3: id is not a positive integer: "x""#],
    );
    check_bad(
        "2,,nobody,soon\n",
        "",
        "",
        &[
            r#"users.csv:3: username is required: """#,
            r#"users.csv:3: Invalid email format: "nobody""#,
            r#"users.csv:3: created_at is not a time (YYYY-MM-DD HH:MM:SS): "soon""#,
        ],
    );
    check_bad(
        "1,ann,ann@example.com,2025-01-01 00:00:00\n",
        "",
        "",
        &[
            "users.csv:3: id 1 stands on line 2 already",
            "users.csv:3: username ann stands on line 2 already",
            "users.csv:3: email ann@example.com stands on line 2 already",
        ],
    );
    check_bad("2,bob\n", "", "", &["users.csv:3: the row has 2 fields, the header 4"]);
    check_bad_bytes(b"2,\xFF,b@example.com,2025-01-01 00:00:00\n", b"", b"", &["users.csv:3: the row is not UTF-8"]);
}

#[test]
fn bad_urls_are_told() {
    let times = "2025-01-02 00:00:00,2025-01-02 00:00:00";
    let check = |fields: &str, expected: &[&str]| check_bad("", &format!("{fields},{times}\n"), "", expected);
    check(
        "7,,1234567890123456789012345,https://example.com/,,True",
        &["urls.csv:4: short_code is 25 characters, at most 20 fit"],
    );
    check(
        "7,,a/b,https://example.com/,,True",
        &[r#"urls.csv:4: short_code is not made of A-Z, a-z, 0-9, - and _: "a/b""#],
    );
    check("7,,,https://example.com/,,True", &[r#"urls.csv:4: short_code is not made of A-Z, a-z, 0-9, - and _: """#]);
    check(
        "7,9,xyz789,ftp://example.com/,,maybe",
        &[
            "urls.csv:4: user_id 9 refers to no row",
            r#"urls.csv:4: A valid HTTP or HTTPS URL is required: "ftp://example.com/""#,
            r#"urls.csv:4: is_active is not True or False: "maybe""#,
        ],
    );
    check(
        "5,,abc123,https://example.com/,,True",
        &["urls.csv:4: id 5 stands on line 2 already", "urls.csv:4: short_code abc123 stands on line 2 already"],
    );
    check("-7,,xyz789,https://example.com/,,True", &[r#"urls.csv:4: id is not a positive integer: "-7""#]);
}

#[test]
fn bad_events_are_told() {
    let check = |row: &str, expected: &[&str]| check_bad("", "", row, expected);
    check(
        "3,99,98,,2025-01-02 00:00:00,\n",
        &[
            "events.csv:4: url_id 99 refers to no row",
            "events.csv:4: user_id 98 refers to no row",
            r#"events.csv:4: event_type is required: """#,
        ],
    );
    check(
        "2,,,seen,never,\n",
        &[
            "events.csv:4: url_id is empty",
            r#"events.csv:4: timestamp is not a time (YYYY-MM-DD HH:MM:SS): "never""#,
            "events.csv:4: id 2 stands on line 3 already",
        ],
    );
}

#[test]
fn what_refers_to_a_bad_row_is_not_told() {
    let url = "7,2,xyz789,https://example.com/,,True,2025-01-02 00:00:00,2025-01-02 00:00:00\n";
    check_bad("2,bob,nowhere,2025-01-01 00:00:00\n", url, "", &[r#"users.csv:3: Invalid email format: "nowhere""#]);
}

#[test]
fn problems_are_listed_up_to_a_bound() {
    let rows: String = (0..SEED_PROBLEMS_MAX + 5).map(|n| format!("{n}x,{}\n", "y".repeat(100))).collect();
    let users = format!("id,username\n{rows}");
    let users = users.replace("id,username", "id,username,email,created_at");
    let folder = folder(users.as_bytes(), GOOD_URLS.as_bytes(), GOOD_EVENTS.as_bytes());
    let error = read(folder.path()).unwrap_err();
    let text = error.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), SEED_PROBLEMS_MAX + 2);
    assert_eq!(lines[0], "nothing was loaded, because rows are bad:");
    assert_eq!(lines[1], "users.csv:2: the row has 2 fields, the header 4");
    // Five rows, the owner of a URL and of an event that stand in none of them.
    assert_eq!(lines[SEED_PROBLEMS_MAX + 1], "and 7 more");
}

#[test]
fn long_values_are_cut() {
    let expected = format!("users.csv:3: Invalid email format: \"{}\"…", "é".repeat(40));
    check_bad(&format!("2,bob,{},2025-01-01 00:00:00\n", "é".repeat(41)), "", "", &[&expected]);
}

#[test]
fn missing_files_and_columns_are_told() {
    let empty = tempfile::tempdir().unwrap();
    let error = read(empty.path()).unwrap_err().to_string();
    let path = empty.path().join("users.csv");
    assert!(error.starts_with(&format!("cannot read {}: ", path.display())), "{error}");
    let folder = folder(GOOD_USERS.as_bytes(), b"id,short_code,original_url\n", GOOD_EVENTS.as_bytes());
    let error = read(folder.path()).unwrap_err().to_string();
    let missing: Vec<_> = error.lines().skip(1).collect();
    let columns = ["user_id", "title", "is_active", "created_at", "updated_at"];
    assert_eq!(missing, columns.map(|column| format!("urls.csv:1: the column {column} is missing")));
}

#[test]
fn a_bad_set_leaves_the_store_alone_and_a_full_store_refuses() {
    let (store, _folder) = store();
    let good = folder(GOOD_USERS.as_bytes(), GOOD_URLS.as_bytes(), GOOD_EVENTS.as_bytes());
    let loaded = load(&store, good.path(), false).unwrap();
    assert_eq!(loaded.to_string(), "1 users, 2 URLs, 2 events");
    let refused = load(&store, good.path(), false).unwrap_err().to_string();
    assert_eq!(refused, "the store has rows already; --reset deletes them first");
    let bad = folder(b"id\n", GOOD_URLS.as_bytes(), GOOD_EVENTS.as_bytes());
    assert!(load(&store, bad.path(), true).is_err());
    assert_eq!(store.active_urls().unwrap(), 1);
    assert_eq!(load(&store, good.path(), true).unwrap(), loaded);
}

// ---- The generated set -----------------------------------------------------------------------------------------

fn texts(dir: &Path) -> [String; 3] {
    [USERS, URLS, EVENTS].map(|table| std::fs::read_to_string(dir.join(table.file)).unwrap())
}

/// The set that is part of the source tree.
fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("seed_data")
}

#[test]
fn generating_gives_the_committed_files_each_time() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let into_new_folder = second.path().join("new");
    let counts = Loaded { users: USER_COUNT, urls: URL_COUNT, events: EVENT_COUNT };
    assert_eq!(generate(first.path()).unwrap(), counts);
    assert_eq!(generate(&into_new_folder).unwrap(), counts);
    let texts_of_first = texts(first.path());
    assert!(texts_of_first == texts(&into_new_folder));
    assert!(texts_of_first == texts(&committed()), "run `snip seed seed_data --generate` and commit what it writes");
}

#[test]
fn the_committed_set_has_its_shape() {
    let data = read(&committed()).unwrap();
    assert_eq!(Loaded::of(&data), Loaded { users: 400, urls: 2000, events: 3422 });
    let active = data.urls.iter().filter(|url| url.is_active).count();
    assert_eq!(active, URL_COUNT - INACTIVE_URL_COUNT);
    assert!(data.urls.iter().any(|url| url.user_id.is_none()) && data.urls.iter().any(|url| url.title.is_none()));
    assert!(data.urls.iter().all(|url| url.short_code.len() == 6 && url.updated_at >= url.created_at));
    let of_type = |event_type: &str| data.events.iter().filter(|event| event.event_type == event_type).count();
    assert_eq!(of_type("created"), URL_COUNT);
    assert_eq!(of_type("deleted"), INACTIVE_URL_COUNT);
    assert_eq!(of_type("redirect"), REDIRECT_EVENT_COUNT);
    for (url, event) in data.urls.iter().zip(&data.events) {
        let details = format!(r#"{{"short_code": "{}", "original_url": "{}"}}"#, url.short_code, url.original_url);
        assert_eq!((event.url_id, event.details.as_deref()), (url.id, Some(details.as_str())));
    }
    for event in &data.events {
        let url = &data.urls[event.url_id as usize - 1];
        assert_eq!(event.user_id, url.user_id);
        let lifetime = url.created_at..=url.updated_at;
        assert!(event.timestamp >= url.created_at, "{event:?}");
        assert!(event.event_type == "redirect" && url.is_active || lifetime.contains(&event.timestamp), "{event:?}");
    }
}

#[test]
fn the_committed_set_loads() {
    let (store, _folder) = store();
    load(&store, &committed(), false).unwrap();
    assert_eq!(store.active_urls().unwrap(), (URL_COUNT - INACTIVE_URL_COUNT) as u64);
    let page = Page::new(None, None, None);
    let newest = store.events(EventFilter::default(), page).unwrap();
    assert!(newest.is_sorted_by(|a, b| a.timestamp >= b.timestamp));
}

/// The data set of the service that this project replaces, where it lies beside the source tree.
#[test]
fn an_adopted_set_loads_and_resolves() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/seed_data");
    if !dir.exists() {
        return;
    }
    let (store, _folder) = store();
    let loaded = load(&store, &dir, false).unwrap();
    assert_eq!(loaded, Loaded { users: 400, urls: 2000, events: 3422 });
    let urls = read(&dir).unwrap().urls;
    let resolved = urls.iter().filter(|url| {
        let target = store.resolve(&url.short_code).unwrap();
        assert_eq!(target.as_ref().map(|target| &target.original_url), url.is_active.then_some(&url.original_url));
        target.is_some()
    });
    assert_eq!(resolved.count(), 1647);
    assert_eq!(store.active_urls().unwrap(), 1647);
}
