//! The contract's section "Users", bulk upload apart.

mod support;

use serde_json::json;
use support::case::{Case, Session, delete, get, post, put};
use support::snip::Snip;

const ANN: &str = r#"{"id": 1, "username": "ann", "email": "ann@example.com", "created_at": "<time>"}"#;
const BOB: &str = r#"{"id": 2, "username": "bob", "email": "bob@example.com", "created_at": "<time>"}"#;

/// Starts from two users, ann and bob.
fn check(cases: impl IntoIterator<Item = Case>) {
    let mut snip = Snip::start();
    let mut session = Session::new(&snip);
    session.check_all([
        post("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).gives(201, ANN),
        post("/users", r#"{"username": "bob", "email": "bob@example.com"}"#).gives(201, BOB),
    ]);
    session.check_all(cases);
    snip.assert_alive();
}

#[track_caller]
fn new_user(username: &str, email: &str) -> Case {
    post("/users", json!({ "username": username, "email": email }).to_string())
}

#[test]
fn reads() {
    check([
        get("/users").gives(200, format!("[{ANN}, {BOB}]")),
        get("/users/1").gives(200, ANN),
        get("/users/2").gives(200, BOB),
        get("/users/2?a=b").gives(200, BOB),
        get("/users/3").fails(404, "User not found"),
    ]);
}

#[test]
fn an_empty_list_is_an_array() {
    let snip = Snip::start();
    Session::new(&snip).check(&get("/users").gives(200, "[]"));
}

#[test]
fn creates() {
    let long = "é".repeat(255);
    let long_email = format!("{}@b.example", "ü".repeat(245));
    let made = |id: i64, username: &str, email: &str| {
        json!({ "id": id, "username": username, "email": email, "created_at": "<time>" }).to_string()
    };
    check([
        new_user("  cid\t", "\n cid@example.com ").gives(201, made(3, "cid", "cid@example.com")),
        new_user(&long, "long@example.com").gives(201, made(4, &long, "long@example.com")),
        new_user(&format!("  {}  ", "x".repeat(255)), "x@example.com")
            .gives(201, made(5, &"x".repeat(255), "x@example.com")),
        new_user("long e-mail", &long_email).gives(201, made(6, "long e-mail", &long_email)),
        new_user("Ann", "Ann@example.com").gives(201, made(7, "Ann", "Ann@example.com")),
        new_user("Robert'); DROP TABLE users;--", "o'hara@example.com")
            .gives(201, made(8, "Robert'); DROP TABLE users;--", "o'hara@example.com")),
        new_user("😀", "a@b.c").gives(201, made(9, "😀", "a@b.c")),
        get("/users").lists(1..=9),
    ]);
}

#[test]
fn refuses_a_username() {
    let with = |username: &str| post("/users", format!(r#"{{"username": {username}, "email": "x@example.com"}}"#));
    check(
        ["\"\"", "\"  \\t\\n\"", "null", "5", "true", "[]", "{}", "[\"x\"]"]
            .map(|username| with(username).fails(400, "username is required")),
    );
    check([
        post("/users", "{}").fails(400, "username is required"),
        post("/users", r#"{"email": "x@example.com"}"#).fails(400, "username is required"),
        post("/users", r#"{"Username": "x", "email": "x@example.com"}"#).fails(400, "username is required"),
        new_user(&"x".repeat(256), "x@example.com").fails(400, "username must be 255 characters or fewer"),
        new_user(&"é".repeat(256), "x@example.com").fails(400, "username must be 255 characters or fewer"),
        new_user(&"x".repeat(50_000), "x@example.com").fails(400, "username must be 255 characters or fewer"),
        // PostgreSQL's text has no NUL; what the message is, the contract leaves open.
        new_user("a\0b", "x@example.com").fails_somehow(400),
        get("/users").lists([1, 2]),
    ]);
}

#[test]
fn refuses_an_email() {
    let with = |email: &str| post("/users", format!(r#"{{"username": "x", "email": {email}}}"#));
    check(
        ["\"\"", "\"   \"", "null", "5", "false", "[]", "{}"].map(|email| with(email).fails(400, "email is required")),
    );
    check(
        ["plain", "@example.com", "x@example", "x@@example.com", "x@y@example.com", "x@", "@", "x.y@z"]
            .map(|email| new_user("x", email).fails(400, "Invalid email format")),
    );
    check([
        post("/users", r#"{"username": "x"}"#).fails(400, "email is required"),
        new_user("x", &format!("{}@b.example", "x".repeat(246))).fails(400, "email must be 255 characters or fewer"),
        new_user("x", &format!("{}@b.example", "é".repeat(246))).fails(400, "email must be 255 characters or fewer"),
        new_user("x", "a\0@b.example").fails_somehow(400),
        get("/users").lists([1, 2]),
    ]);
}

#[test]
fn refuses_duplicates() {
    check([
        new_user("ann", "other@example.com").fails(409, "Username already exists"),
        new_user(" ann ", "other@example.com").fails(409, "Username already exists"),
        new_user("other", "ann@example.com").fails(409, "Email already exists"),
        new_user("other", " ann@example.com ").fails(409, "Email already exists"),
        new_user("ann", "ann@example.com").fails(409, "Username already exists"),
        get("/users").lists([1, 2]),
    ]);
}

#[test]
fn updates_only_the_fields_given() {
    let ann = |username: &str, email: &str| {
        json!({ "id": 1, "username": username, "email": email, "created_at": "<time>" }).to_string()
    };
    check([
        put("/users/1", "{}").gives(200, ANN),
        put("/users/1", r#"{"unknown": 1, "id": 7, "created_at": "2000-01-01T00:00:00"}"#).gives(200, ANN),
        put("/users/1", r#"{"username": "  anna "}"#).gives(200, ann("anna", "ann@example.com")),
        put("/users/1", r#"{"email": " anna@example.com "}"#).gives(200, ann("anna", "anna@example.com")),
        put("/users/1", r#"{"email": "ann@example.com", "username": "ann"}"#).gives(200, ANN),
        put("/users/1", r#"{"email": "ann@example.com", "username": "ann"}"#).gives(200, ANN),
        put("/users/1", json!({ "username": "é".repeat(255) }).to_string())
            .gives(200, ann(&"é".repeat(255), "ann@example.com")),
        get("/users/1").gives(200, ann(&"é".repeat(255), "ann@example.com")),
        get("/users/2").gives(200, BOB),
    ]);
}

#[test]
fn refuses_updates() {
    let empty = ["\"\"", "\" \\n \"", "null", "5", "true", "[]", "{}"];
    check(empty.into_iter().flat_map(|value| {
        [
            put("/users/1", format!(r#"{{"username": {value}}}"#)).fails(400, "username cannot be empty"),
            put("/users/1", format!(r#"{{"email": {value}}}"#)).fails(400, "email cannot be empty"),
        ]
    }));
    let too_long = "x".repeat(256);
    check([
        put("/users/1", format!(r#"{{"username": "{too_long}"}}"#))
            .fails(400, "username must be 255 characters or fewer"),
        put("/users/1", format!(r#"{{"email": "{too_long}@b.c"}}"#))
            .fails(400, "email must be 255 characters or fewer"),
        put("/users/1", r#"{"email": "plain"}"#).fails(400, "Invalid email format"),
        put("/users/1", r#"{"email": "a@@b.c"}"#).fails(400, "Invalid email format"),
        put("/users/1", r#"{"username": "bob"}"#).fails(409, "Username or email already exists"),
        put("/users/1", r#"{"email": "bob@example.com"}"#).fails(409, "Username or email already exists"),
        put("/users/1", r#"{"username": "new", "email": "bob@example.com"}"#)
            .fails(409, "Username or email already exists"),
        // One bad field, and none is changed.
        put("/users/1", r#"{"username": "new", "email": "plain"}"#).fails(400, "Invalid email format"),
        put("/users/3", r#"{"username": "new"}"#).fails(404, "User not found"),
        put("/users/3", "{}").fails(404, "User not found"),
        get("/users/1").gives(200, ANN),
    ]);
}

#[test]
fn deletes() {
    check([
        delete("/users/1").empty(204),
        delete("/users/1").fails(404, "User not found"),
        get("/users/1").fails(404, "User not found"),
        put("/users/1", "{}").fails(404, "User not found"),
        delete("/users/3").fails(404, "User not found"),
        get("/users").gives(200, format!("[{BOB}]")),
        // Name and address are free again; the number is not given twice.
        new_user("ann", "ann@example.com")
            .gives(201, r#"{"id": 3, "username": "ann", "email": "ann@example.com", "created_at": "<time>"}"#),
    ]);
}

#[test]
fn what_a_deleted_user_owned_stays() {
    check([
        post("/urls", r#"{"url": "https://example.com/", "user_id": 1}"#).answers(201).keeps("code", "/short_code"),
        post("/urls", r#"{"url": "https://example.com/", "user_id": 2}"#).answers(201),
        get("/{code}").leads_to("https://example.com/"),
        post("/events", r#"{"url_id": 1, "user_id": 1, "event_type": "seen"}"#).answers(201),
        get("/urls?user_id=1").lists([1]),
        delete("/users/1").empty(204),
        get("/urls/1").gives(
            200,
            r#"{"id": 1, "user_id": null, "short_code": "{code}", "original_url": "https://example.com/",
                "title": null, "is_active": true, "created_at": "<time>", "updated_at": "<time>"}"#,
        ),
        get("/urls?user_id=1").gives(200, "[]"),
        get("/urls?user_id=2").lists([2]),
        get("/events?user_id=1").gives(200, "[]"),
        get("/events?event_type=seen").gives(
            200,
            r#"[{"id": "<any>", "url_id": 1, "user_id": null, "event_type": "seen", "timestamp": "<time>",
                 "details": null}]"#,
        ),
        get("/urls/1/stats").gives(200, r#"{"url": "<any>", "redirect_count": 1}"#),
        // Clicks on what is left belong to nobody.
        get("/{code}").leads_to("https://example.com/"),
        get("/events?user_id=1").gives(200, "[]"),
        get("/urls/1/stats").gives(200, r#"{"url": "<any>", "redirect_count": 2}"#),
    ]);
}

#[test]
fn timestamps_are_utc_and_now() {
    let snip = Snip::start();
    let mut client = snip.client();
    let made = client.post_json("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).expect(201);
    let created: jiff::civil::DateTime = made.json()["created_at"].as_str().expect("text").parse().expect("a time");
    let created = jiff::tz::Offset::UTC.to_timestamp(created).expect("in range");
    let age = jiff::Timestamp::now().duration_since(created).as_secs();
    assert!((0..=30).contains(&age), "created {age} s ago");
}
