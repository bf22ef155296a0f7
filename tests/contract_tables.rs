//! The contract's section "Tables": a plain SQL client reads and writes them, beside the running server.

mod support;

use std::path::PathBuf;

use rusqlite::Connection;
use support::case::{Session, get, post};
use support::snip::{Place, Snip, StoreKind};

/// Opens the store as reporting tools do: by its file.
fn open(place: &Place) -> Connection {
    let is_store = |path: &PathBuf| {
        let head = std::fs::read(path).unwrap_or_default();
        head.starts_with(b"SQLite format 3\0")
    };
    let entries = std::fs::read_dir(place.data_dir()).expect("the data folder");
    let mut stores: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).filter(is_store).collect();
    assert_eq!(stores.len(), 1, "one SQLite file: {stores:?}");
    let sql = Connection::open(stores.remove(0)).expect("the store");
    sql.busy_timeout(std::time::Duration::from_secs(10)).expect("a time to wait");
    sql
}

#[test]
fn sql_clients_write_and_the_api_reads() {
    let snip = Snip::start_on(StoreKind::Sqlite);
    let sql = open(snip.place());
    sql.execute_batch(
        "INSERT INTO users (username, email, created_at) VALUES ('ann', 'ann@example.com', '2024-02-29 12:00:00');
         INSERT INTO urls (user_id, short_code, original_url, title, created_at, updated_at)
           VALUES (1, 'sqlsql', 'https://example.com/sql', NULL, '2024-03-01 00:00:00', '2024-03-02 00:00:00');
         INSERT INTO events (url_id, user_id, event_type, timestamp, details)
           VALUES (1, 1, 'a', '2024-03-03 00:00:00', '{\"b\":1, \"a\": null}');
         INSERT INTO events (url_id, user_id, event_type, timestamp, details)
           VALUES (1, NULL, 'b', '2024-03-04 00:00:00.5', 'no JSON {');
         INSERT INTO events (url_id, event_type, timestamp) VALUES (1, 'c', '2024-03-05 00:00:00');
         INSERT INTO events (url_id, event_type, timestamp, details) VALUES (1, 'd', '2024-03-06 00:00:00', '\"text\"');
         INSERT INTO events (url_id, event_type, timestamp, details) VALUES (1, 'e', '2024-03-01 00:00:00', '');",
    )
    .expect("plain INSERT");
    let mut session = Session::new(&snip);
    session.check_all([
        get("/users").gives(
            200,
            r#"[{"id": 1, "username": "ann", "email": "ann@example.com", "created_at": "2024-02-29T12:00:00"}]"#,
        ),
        get("/urls/1").gives(
            200,
            r#"{"id": 1, "user_id": 1, "short_code": "sqlsql", "original_url": "https://example.com/sql",
                "title": null, "is_active": true, "created_at": "2024-03-01T00:00:00",
                "updated_at": "2024-03-02T00:00:00"}"#,
        ),
        get("/sqlsql").leads_to("https://example.com/sql"),
        // Newest first goes by time, not by number.
        get("/events?after_id=999").answers(200),
        get("/urls/1/events?per_page=100&user_id=1").answers(200),
        get("/events?type=a").gives(
            200,
            r#"[{"id": 1, "url_id": 1, "user_id": 1, "event_type": "a", "timestamp": "2024-03-03T00:00:00",
                 "details": {"b": 1, "a": null}}]"#,
        ),
        get("/events?type=b").gives(
            200,
            r#"[{"id": 2, "url_id": 1, "user_id": null, "event_type": "b", "timestamp": "2024-03-04T00:00:00",
                 "details": "no JSON {"}]"#,
        ),
        get("/events?type=c").gives(
            200,
            r#"[{"id": 3, "url_id": 1, "user_id": null, "event_type": "c", "timestamp": "2024-03-05T00:00:00",
                 "details": null}]"#,
        ),
        get("/urls/1/stats").gives(200, r#"{"url": "<any>", "redirect_count": 1}"#),
    ]);
    let events = session.client().get("/urls/1/events").expect(200).json();
    let types: Vec<_> = events.as_array().expect("a list").iter().map(|event| event["event_type"].clone()).collect();
    assert_eq!(types, ["redirect", "d", "c", "b", "a", "e"], "newest first goes by time, then by number");
    // A number given by SQL is not given again.
    session.check(
        &post("/users", r#"{"username": "bob", "email": "bob@example.com"}"#)
            .gives(201, r#"{"id": 2, "username": "bob", "email": "bob@example.com", "created_at": "<time>"}"#),
    );
}

#[test]
fn the_api_writes_and_sql_clients_read() {
    let snip = Snip::start_on(StoreKind::Sqlite);
    let mut client = snip.client();
    client.post_json("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).expect(201);
    let url = r#"{"url": "https://example.com/", "user_id": 1, "title": "T"}"#;
    let made = client.post_json("/urls", url).expect(201).json();
    client.get(&format!("/{}", made["short_code"].as_str().expect("a code"))).expect(302);
    client.get("/urls/1/stats").expect(200);
    let sql = open(snip.place());
    let text = |query: &str| sql.query_row(query, [], |row| row.get::<_, String>(0)).expect(query);
    let user = "SELECT id || username || email || strftime('%Y', created_at) FROM users";
    assert!(text(user).starts_with("1annann@example.com20"));
    let row = "SELECT id || user_id || original_url || title || is_active FROM urls WHERE updated_at = created_at";
    assert_eq!(text(row), "11https://example.com/T1");
    let events = "SELECT group_concat(event_type || url_id || user_id, ' ') FROM (SELECT * FROM events ORDER BY id)";
    assert_eq!(text(events), "created11 redirect11");
    let ip = "SELECT json_extract(details, '$.ip') FROM events WHERE event_type = 'redirect'";
    assert_eq!(text(ip), "127.0.0.1");
}

#[test]
fn indexes_carry_the_queries() {
    let snip = Snip::start_on(StoreKind::Sqlite);
    let sql = open(snip.place());
    for query in [
        "SELECT 1 FROM urls WHERE short_code = 'x' AND is_active",
        "SELECT 1 FROM urls WHERE user_id = 1",
        "SELECT 1 FROM events WHERE url_id = 1",
        "SELECT 1 FROM events WHERE event_type = 'x'",
        "SELECT 1 FROM users WHERE username = 'x'",
        "SELECT 1 FROM users WHERE email = 'x'",
    ] {
        let plan: String =
            sql.query_row(&format!("EXPLAIN QUERY PLAN {query}"), [], |row| row.get("detail")).expect("a plan");
        assert!(plan.starts_with("SEARCH") && plan.contains("INDEX"), "{query}: {plan}");
    }
}

#[test]
fn constraints_hold_for_sql_clients_too() {
    let snip = Snip::start_on(StoreKind::Sqlite);
    let mut client = snip.client();
    client.post_json("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).expect(201);
    let (_, code) = client.shorten("https://example.com/");
    let sql = open(snip.place());
    for statement in [
        "INSERT INTO users (username, email, created_at) VALUES ('ann', 'x@example.com', '2024-01-01 00:00:00')",
        "INSERT INTO users (username, email, created_at) VALUES ('x', 'ann@example.com', '2024-01-01 00:00:00')",
        &format!(
            "INSERT INTO urls (short_code, original_url, created_at, updated_at)
             VALUES ('{code}', 'https://example.com/', '2024-01-01 00:00:00', '2024-01-01 00:00:00')"
        ),
    ] {
        let error = sql.execute(statement, []).expect_err(statement).to_string();
        assert!(error.contains("UNIQUE"), "{statement}: {error}");
    }
}
