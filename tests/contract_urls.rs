//! The contract's section "URLs".

mod support;

use std::collections::HashSet;
use std::time::Duration;

use serde_json::{Value, json};
use snip::limits::SHORT_CODE_TRIES;
use support::case::{Case, Session, delete, get, is_code, post, put};
use support::postgres::Postgres;
use support::snip::{Launch, Snip, StoreKind};
use support::wait::eventually;

const INVALID: &str = "A valid HTTP or HTTPS URL is required";
const TARGET: &str = "https://example.com/";

/// Starts from two users, and one short URL of the first: `{code}`.
fn check(cases: impl IntoIterator<Item = Case>) {
    let mut snip = Snip::start();
    let mut session = started(&snip);
    session.check_all(cases);
    snip.assert_alive();
}

fn started(snip: &Snip) -> Session {
    let mut session = Session::new(snip);
    session.check_all([
        post("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).answers(201),
        post("/users", r#"{"username": "bob", "email": "bob@example.com"}"#).answers(201),
        post("/urls", r#"{"url": "https://example.com/first", "user_id": 1, "title": "First"}"#)
            .gives(201, first("First", true))
            .keeps("code", "/short_code"),
    ]);
    session
}

fn object(id: i64, user_id: Value, code: &str, url: &str, title: Value, is_active: bool) -> String {
    json!({
        "id": id, "user_id": user_id, "short_code": code, "original_url": url, "title": title,
        "is_active": is_active, "created_at": "<time>", "updated_at": "<time>"
    })
    .to_string()
}

fn first(title: &str, is_active: bool) -> String {
    object(1, json!(1), "<code>", "https://example.com/first", json!(title), is_active)
}

#[track_caller]
fn shorten(url: &str) -> Case {
    post("/urls", json!({ "url": url }).to_string())
}

fn made(id: i64, url: &str) -> String {
    object(id, Value::Null, "<code>", url, Value::Null, true)
}

fn event(id: i64, url_id: i64, user_id: Value, kind: &str, details: &str) -> String {
    format!(
        r#"{{"id": {id}, "url_id": {url_id}, "user_id": {user_id}, "event_type": "{kind}", "timestamp": "<time>",
            "details": {details}}}"#
    )
}

#[test]
fn reads() {
    check([
        get("/urls").gives(200, format!("[{}]", first("First", true))),
        get("/urls/1").gives(200, first("First", true)),
        get("/urls/1?x=y").gives(200, object(1, json!(1), "{code}", "https://example.com/first", json!("First"), true)),
        get("/urls/2").fails(404, "URL not found"),
        get("/urls/1/stats").gives(200, format!(r#"{{"url": {}, "redirect_count": 0}}"#, first("First", true))),
        get("/urls/2/stats").fails(404, "URL not found"),
        get("/urls/2/events").fails(404, "URL not found"),
        get("/users").lists([1, 2]),
    ]);
}

#[test]
fn creates() {
    let owned = |id: i64, user_id: i64| object(id, json!(user_id), "<code>", TARGET, Value::Null, true);
    check([
        post("/urls", r#"{"url": "https://example.com/"}"#).gives(201, made(2, TARGET)),
        post("/urls", r#"{"original_url": "https://example.com/"}"#).gives(201, made(3, TARGET)),
        // The first name wins, wherever it stands.
        post("/urls", r#"{"url": "https://example.com/b", "original_url": "https://example.com/a"}"#)
            .gives(201, made(4, "https://example.com/a")),
        post("/urls", r#"{"url": "https://example.com/", "user_id": 2}"#).gives(201, owned(5, 2)),
        post("/urls", r#"{"url": "https://example.com/", "user_id": 2.0}"#).gives(201, owned(6, 2)),
        post("/urls", r#"{"url": "https://example.com/", "user_id": null, "title": null}"#).gives(201, made(7, TARGET)),
        post("/urls", r#"{"url": "  \thttps://example.com/\n ", "title": "  A title\n"}"#)
            .gives(201, object(8, Value::Null, "<code>", TARGET, json!("A title"), true)),
        // What a client must not choose is not taken from it.
        post("/urls", r#"{"url": "https://example.com/", "id": 99, "short_code": "mine42", "is_active": false}"#)
            .gives(201, made(9, TARGET)),
        get("/mine42").fails(404, "URL not found"),
        get("/urls").lists(1..=9),
    ]);
}

#[test]
fn gives_urls_back_exactly() {
    let long = format!("https://example.com/{}", "long/".repeat(4000));
    let urls = [
        "http://ab",
        "https://localhost",
        "https://example.com",
        "HTTPS://EXAMPLE.com/CaSe",
        "https://example.com/?",
        "https://example.com/#",
        "https://example.com/a/../b/./c//d",
        "https://example.com/p%20q%2Fr%c3%a9?x=%26&y=1+2&z=a=b&&#frag?ment",
        "https://example.com/?redirect=https%3A%2F%2Fother.example%2F&a[]=1",
        "https://user:pass%40word@example.com:8443/path;v=1,2",
        "https://example.com/ünïcödé/漢字?q=€#é",
        "https://bücher.example/",
        "http://127.0.0.1:8080/",
        "http://[2001:db8::1]:8080/x",
        "https://example.com/a b",
        "https://example.com/\"quoted\"'<tag>\\back`tick{brace}|pipe^caret",
        "https://example.com/%",
        "https://example.com/%zz%0d%0aSet-Cookie:%20a=b",
        &long,
    ];
    check(urls.into_iter().zip(2..).flat_map(|(url, id)| {
        [
            shorten(url).gives(201, made(id, url)).keeps("made", "/short_code"),
            get(format!("/urls/{id}")).gives(200, made(id, url)),
            get("/{made}").leads_to(url),
            get(format!("/urls/{id}/events?event_type=created")).answers(200),
        ]
    }));
}

#[test]
fn refuses_an_url() {
    let with = |url: &str| post("/urls", format!(r#"{{"url": {url}}}"#));
    check(
        ["null", "\"\"", "\"  \\r\\n\"", "5", "true", "[]", "{}", "[\"https://example.com\"]"]
            .into_iter()
            .flat_map(|url| {
                [
                    with(url).fails(400, "url is required"),
                    post("/urls", format!(r#"{{"original_url": {url}}}"#)).fails(400, "url is required"),
                ]
            })
            .chain([
                post("/urls", "{}").fails(400, "url is required"),
                post("/urls", r#"{"title": "x"}"#).fails(400, "url is required"),
            ]),
    );
    let invalid = [
        "example.com",
        "www.example.com/path",
        "//example.com",
        "/path",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "mailto:ann@example.com",
        "data:text/html,x",
        "httpx://example.com",
        "http:/example.com",
        "http:example.com",
        "http//example.com",
        "http://",
        "https:///path",
        "http://?q=1",
        "http://#f",
        "http://a",
        "http://a/",
        "http://a:80/",
        "http://:80/",
        "http://user@/",
        "https://exa mple.com/",
        "h ttp://example.com/",
        "https://example.com/\r\nSet-Cookie: a=b",
        "https://example.com/\r",
        "https://example.com/a\nb",
        "https://example.com/\tb",
        "https://example.com/\0",
        "https://example.com/\u{1}x",
        "https://example.com/\u{1b}[2Jx",
        "https://example.com/\u{7f}x",
        "https://example.com/\u{85}x",
        "https://exam\u{0}ple.com/",
    ];
    // Outer white space is trimmed, so one at the end needs something behind it to be refused.
    let invalid = invalid.map(|url| if url.ends_with(['\r', '\n']) { format!("{url}x") } else { url.to_owned() });
    check(invalid.iter().flat_map(|url| {
        [
            shorten(url).fails(400, INVALID),
            post("/urls", json!({ "original_url": url }).to_string()).fails(400, INVALID),
            put("/urls/1", json!({ "original_url": url }).to_string()).fails(400, INVALID),
            put("/urls/1", json!({ "url": url }).to_string()).fails(400, INVALID),
        ]
    }));
}

#[test]
fn refuses_an_owner() {
    let with = |user_id: &str| post("/urls", format!(r#"{{"url": "https://example.com/", "user_id": {user_id}}}"#));
    check(
        ["true", "false", "\"1\"", "\"\"", "\"abc\"", "1.5", "0.1", "-1.5", "1e-1", "[]", "[1]", "{}"]
            .map(|user_id| with(user_id).fails(400, "user_id must be an integer")),
    );
    check(
        ["0", "-1", "-0", "0.0", "-1.0", "-99999999999999999999"]
            .map(|user_id| with(user_id).fails(400, "user_id must be a positive integer")),
    );
    let unknown = [
        "3",
        "3.0",
        "1e3",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "99999999999999999999999999",
        "1e300",
    ];
    check(unknown.map(|user_id| with(user_id).fails(404, "User not found")));
    check([get("/urls").lists([1]), get("/events").lists([1])]);
}

#[test]
fn titles() {
    let with = |title: &str| post("/urls", format!(r#"{{"url": "https://example.com/", "title": {title}}}"#));
    check(
        ["null", "\"\"", "\" \\t\\n \"", "5", "true", "[]", "{}", "[\"x\"]"]
            .into_iter()
            .zip(2..)
            .map(|(title, id)| with(title).gives(201, made(id, TARGET))),
    );
    let (full, over) = ("é".repeat(255), "é".repeat(256));
    check([
        with(&json!(full).to_string()).gives(201, object(2, Value::Null, "<code>", TARGET, json!(full), true)),
        with(&json!(format!("  {full}  ")).to_string()).answers(201),
        with(&json!(over).to_string()).fails(400, "title must be 255 characters or fewer"),
        with(&json!("x".repeat(256)).to_string()).fails(400, "title must be 255 characters or fewer"),
        with("\"a\\u0000b\"").fails_somehow(400),
        put("/urls/1", json!({ "title": over }).to_string()).fails(400, "title must be 255 characters or fewer"),
        get("/urls/1").gives(200, first("First", true)),
    ]);
}

#[test]
fn codes_are_random_and_differ() {
    let snip = Snip::start();
    let mut client = snip.client();
    let codes: HashSet<String> = (0..200).map(|_| client.shorten(TARGET).1).collect();
    assert_eq!(codes.len(), 200, "the same URL twice gets two codes");
    assert!(codes.iter().all(|code| is_code(code)), "{codes:?}");
    // 1,200 characters of 62 kinds: one kind missing has a chance of 2 in 10 million.
    let kinds: HashSet<char> = codes.iter().flat_map(|code| code.chars()).collect();
    assert_eq!(kinds.len(), 62, "not the whole alphabet: {kinds:?}");
}

#[test]
fn filters() {
    check([
        post("/urls", r#"{"url": "https://example.com/2", "user_id": 2}"#).answers(201),
        post("/urls", r#"{"url": "https://example.com/3", "user_id": 1}"#).answers(201),
        post("/urls", r#"{"url": "https://example.com/4"}"#).answers(201),
        delete("/urls/3").empty(204),
        get("/urls").lists(1..=4),
        get("/urls?user_id=1").lists([1, 3]),
        get("/urls?user_id=2").lists([2]),
        get("/urls?user_id=3").gives(200, "[]"),
        get("/urls?user_id=0").gives(200, "[]"),
        get("/urls?user_id=-1").gives(200, "[]"),
        get("/urls?user_id=99999999999999999999").gives(200, "[]"),
        get("/urls?user_id=9223372036854775808").gives(200, "[]"),
        get("/urls?is_active=true").lists([1, 2, 4]),
        get("/urls?is_active=TRUE").lists([1, 2, 4]),
        get("/urls?is_active=True").lists([1, 2, 4]),
        get("/urls?is_active=1").lists([1, 2, 4]),
        get("/urls?is_active=yes").lists([1, 2, 4]),
        get("/urls?is_active=Yes").lists([1, 2, 4]),
        get("/urls?is_active=%74rue").lists([1, 2, 4]),
        get("/urls?is_active=false").lists([3]),
        get("/urls?is_active=0").lists([3]),
        get("/urls?is_active=no").lists([3]),
        get("/urls?is_active=2").lists([3]),
        get("/urls?is_active=on").lists([3]),
        get("/urls?user_id=1&is_active=true").lists([1]),
        get("/urls?user_id=1&is_active=false").lists([3]),
        get("/urls?user_id=1&per_page=1").lists([1]),
        get("/urls?user_id=1&per_page=1&page=2").lists([3]),
        get("/urls?user_id=1&after_id=1").lists([3]),
        get("/urls?is_active=true&after_id=1&per_page=1").lists([2]),
        get("/urls?page=2&per_page=3").lists([4]),
        get("/urls?per_page=0&page=x").lists(1..=4),
    ]);
    check(
        ["abc", "1.5", "1.0", "true", "null", "1x", "0x1"]
            .map(|value| get(format!("/urls?user_id={value}")).fails(400, "user_id must be an integer")),
    );
}

#[test]
fn creation_writes_an_event() {
    check([
        post("/urls", r#"{"url": "https://example.com/?a=\"b\"&c=é", "user_id": 2}"#)
            .answers(201)
            .keeps("second", "/short_code"),
        get("/urls/2/events").gives(
            200,
            format!(
                "[{}]",
                event(
                    2,
                    2,
                    json!(2),
                    "created",
                    r#"{"short_code": "{second}", "original_url": "https://example.com/?a=\"b\"&c=é"}"#
                )
            ),
        ),
        get("/urls/1/events").gives(
            200,
            format!(
                "[{}]",
                event(
                    1,
                    1,
                    json!(1),
                    "created",
                    r#"{"short_code": "{code}", "original_url": "https://example.com/first"}"#
                )
            ),
        ),
    ]);
}

#[test]
fn updates_only_the_fields_given() {
    let with = |url: &str, title: Value, is_active| object(1, json!(1), "{code}", url, title, is_active);
    let (old, new) = ("https://example.com/first", "https://example.com/new?x=%20#y");
    check([
        put("/urls/1", r#"{"original_url": " https://example.com/new?x=%20#y "}"#)
            .gives(200, with(new, json!("First"), true)),
        put("/urls/1", r#"{"url": "https://example.com/first"}"#).gives(200, with(old, json!("First"), true)),
        put("/urls/1", r#"{"original_url": "https://example.com/new?x=%20#y", "url": "https://example.com/b"}"#)
            .gives(200, with(new, json!("First"), true)),
        put("/urls/1", r#"{"title": "  Second "}"#).gives(200, with(new, json!("Second"), true)),
        put("/urls/1", r#"{"title": null}"#).gives(200, with(new, Value::Null, true)),
        put("/urls/1", r#"{"title": "Third"}"#).gives(200, with(new, json!("Third"), true)),
        put("/urls/1", r#"{"title": "  "}"#).gives(200, with(new, Value::Null, true)),
        put("/urls/1", r#"{"is_active": false}"#).gives(200, with(new, Value::Null, false)),
        get("/urls/1").gives(200, with(new, Value::Null, false)),
        put("/urls/1", r#"{"is_active": true, "title": "All", "url": "https://example.com/first"}"#)
            .gives(200, with(old, json!("All"), true)),
        get("/urls/1").gives(200, with(old, json!("All"), true)),
        put("/urls/2", r#"{"title": "x"}"#).fails(404, "URL not found"),
        put("/urls/2", "{}").fails(404, "URL not found"),
    ]);
}

#[test]
fn an_update_without_fields_changes_nothing() {
    check([
        put("/urls/1", "{}").gives(200, first("First", true)),
        put("/urls/1", r#"{"id": 5, "short_code": "mine42", "user_id": 2, "created_at": "x"}"#)
            .gives(200, first("First", true)),
        get("/urls/1/events").lists([1]),
    ]);
}

#[test]
fn updates_write_one_event_a_field() {
    let updated = |id: i64, details: &str| event(id, 1, json!(1), "updated", details);
    check([
        put("/urls/1", r#"{"is_active": false, "title": null, "url": "https://example.com/new"}"#).answers(200),
        put("/urls/1", r#"{"title": "T"}"#).answers(200),
        get("/urls/1/events").gives(
            200,
            format!(
                "[{}, {}, {}, {}, {}]",
                updated(5, r#"{"field": "title", "new_value": "T"}"#),
                updated(4, r#"{"field": "is_active", "new_value": false}"#),
                updated(3, r#"{"field": "title", "new_value": null}"#),
                updated(2, r#"{"field": "original_url", "new_value": "https://example.com/new"}"#),
                event(1, 1, json!(1), "created", "\"<any>\""),
            ),
        ),
        get("/events?type=updated").lists([5, 4, 3, 2]),
        get("/urls/1/stats").gives(200, r#"{"url": "<any>", "redirect_count": 0}"#),
    ]);
}

#[test]
fn refuses_updates() {
    check(
        ["\"true\"", "\"\"", "1", "0", "null", "[]", "{}", "1.0"].map(|value| {
            put("/urls/1", format!(r#"{{"is_active": {value}}}"#)).fails(400, "is_active must be a boolean")
        }),
    );
    check([
        put("/urls/1", r#"{"url": ""}"#).fails_somehow(400),
        put("/urls/1", r#"{"original_url": null}"#).fails_somehow(400),
        put("/urls/1", r#"{"original_url": 5}"#).fails_somehow(400),
        // One bad field, and none is changed.
        put("/urls/1", r#"{"title": "New", "is_active": "no"}"#).fails(400, "is_active must be a boolean"),
        put("/urls/1", r#"{"title": "New", "url": "ftp://example.com/"}"#).fails(400, INVALID),
        get("/urls/1").gives(200, first("First", true)),
        get("/urls/1/events").lists([1]),
        get("/{code}").leads_to("https://example.com/first"),
    ]);
}

#[test]
fn updated_at_moves_and_created_at_stays() {
    let snip = Snip::start();
    let mut session = started(&snip);
    let times = |value: Value| (value["created_at"].clone(), value["updated_at"].clone());
    let at_first = times(session.client().get("/urls/1").expect(200).json());
    assert_eq!(at_first.0, at_first.1, "both are the moment of creation");
    eventually("updated_at to move", Duration::from_secs(10), || {
        let put = times(session.client().put_json("/urls/1", r#"{"title": "x"}"#).expect(200).json());
        assert_eq!(put.0, at_first.0);
        let read = times(session.client().get("/urls/1").expect(200).json());
        assert_eq!(read, put, "the answer is what is stored");
        put.1.as_str() > at_first.1.as_str()
    });
    let moved = times(session.client().get("/urls/1").expect(200).json());
    let untouched = times(session.client().put_json("/urls/1", "{}").expect(200).json());
    assert_eq!(untouched, moved);
}

#[test]
fn deletes() {
    check([
        delete("/urls/1").empty(204),
        get("/urls/1").gives(200, first("First", false)),
        get("/urls").lists([1]),
        get("/urls/1/events").gives(
            200,
            format!(
                "[{}, {}]",
                event(2, 1, json!(1), "deleted", r#"{"reason": "user_requested"}"#),
                event(1, 1, json!(1), "created", "\"<any>\"")
            ),
        ),
        delete("/urls/1").fails(404, "URL not found"),
        delete("/urls/2").fails(404, "URL not found"),
        get("/urls/1/events").lists([2, 1]),
        // Switched on again, it can be deleted again.
        put("/urls/1", r#"{"is_active": true}"#).gives(200, first("First", true)),
        delete("/urls/1").empty(204),
        get("/urls/1/events").lists([4, 3, 2, 1]),
        // An inactive one can still be changed.
        put("/urls/1", r#"{"title": "Gone"}"#).gives(200, first("Gone", false)),
        // Switched off by PUT is as inactive as by DELETE.
        put("/urls/1", r#"{"is_active": true}"#).answers(200),
        put("/urls/1", r#"{"is_active": false}"#).answers(200),
        delete("/urls/1").fails(404, "URL not found"),
    ]);
}

#[test]
fn events_of_a_url_are_a_list_with_pages() {
    let events = (0..40).map(|n| post("/events", format!(r#"{{"url_id": 1, "event_type": "n{n}"}}"#)).answers(201));
    let pages = [
        get("/urls/1/events").lists((17..=41).rev()),
        get("/urls/1/events?page=2").lists((1..=16).rev()),
        get("/urls/1/events?page=3").gives(200, "[]"),
        get("/urls/1/events?per_page=100").lists((1..=41).rev()),
        get("/urls/1/events?per_page=2&page=2").lists([39, 38]),
        get("/urls/1/events?per_page=2&after_id=39").lists([38, 37]),
        get("/urls/1/events?after_id=1").gives(200, "[]"),
    ];
    check(events.chain(pages));
}

/// Whatever code is made up, a trigger makes it one that is taken.
#[test]
fn codes_that_are_all_taken_are_an_error() {
    let postgres = Postgres::start();
    let snip = Launch::on(StoreKind::Sqlite).arg("--database-url").arg(postgres.url()).start();
    postgres.psql(
        "INSERT INTO urls (short_code, original_url) VALUES ('taken', 'https://example.com/');
         CREATE FUNCTION take() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN NEW.short_code := 'taken'; RETURN NEW; END $$;
         CREATE TRIGGER take BEFORE INSERT ON urls FOR EACH ROW EXECUTE FUNCTION take()",
    );
    let mut session = Session::new(&snip);
    let create = || post("/urls", r#"{"url": "https://example.com/"}"#);
    session.check(&create().gives(500, r#"{"error": "Failed to generate unique short code"}"#));
    // Each try takes an id.
    let tries = postgres.psql("SELECT last_value - 1 FROM urls_id_seq");
    assert_eq!(tries, SHORT_CODE_TRIES.to_string());
    assert_eq!(postgres.psql("SELECT (SELECT count(*) FROM urls), (SELECT count(*) FROM events)"), "1|0");
    postgres.psql("DROP TRIGGER take ON urls");
    session.check(&create().answers(201));
}
