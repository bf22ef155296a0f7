//! The contract's section "Events".

mod support;

use serde_json::{Value, json};
use support::case::{Case, Session, get, post};
use support::snip::Snip;

/// Starts from two users, and a short URL of each; so there are two `created` events, 1 and 2.
fn check(cases: impl IntoIterator<Item = Case>) {
    let mut snip = Snip::start();
    let mut session = Session::new(&snip);
    session.check_all([
        post("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).answers(201),
        post("/users", r#"{"username": "bob", "email": "bob@example.com"}"#).answers(201),
        post("/urls", r#"{"url": "https://example.com/1", "user_id": 1}"#).answers(201).keeps("code", "/short_code"),
        post("/urls", r#"{"url": "https://example.com/2", "user_id": 2}"#).answers(201),
    ]);
    session.check_all(cases);
    snip.assert_alive();
}

fn event(id: i64, url_id: i64, user_id: Value, kind: &str, details: Value) -> String {
    json!({
        "id": id, "url_id": url_id, "user_id": user_id, "event_type": kind, "timestamp": "<time>", "details": details
    })
    .to_string()
}

#[test]
fn an_empty_list_is_an_array() {
    let snip = Snip::start();
    Session::new(&snip).check(&get("/events").gives(200, "[]"));
}

#[test]
fn creates() {
    let full = "é".repeat(255);
    check([
        post("/events", r#"{"url_id": 1, "event_type": "seen"}"#).gives(
            201,
            event(3, 1, Value::Null, "seen", Value::Null),
        ),
        post("/events", r#"{"details": {"b": 1, "a": [true, null, {"x": "é"}]}, "user_id": 2, "event_type": "x", "url_id": 1}"#)
            .gives(201, event(4, 1, json!(2), "x", json!({ "b": 1, "a": [true, null, { "x": "é" }] }))),
        post("/events", r#"{"url_id": 2.0, "event_type": "x", "user_id": 1.0, "details": {}}"#).gives(
            201,
            event(5, 2, json!(1), "x", json!({})),
        ),
        post("/events", r#"{"url_id": 2, "event_type": "x", "user_id": null, "details": null}"#).gives(
            201,
            event(6, 2, Value::Null, "x", Value::Null),
        ),
        post("/events", json!({ "url_id": 1, "event_type": full }).to_string()).gives(
            201,
            event(7, 1, Value::Null, &full, Value::Null),
        ),
        post("/events", r#"{"url_id": 1, "event_type": "x", "details": {"q": "\"\\\n\u0001\ud83d\ude00", "n": 1.5, "i": 9007199254740993}}"#)
            .gives(201, event(8, 1, Value::Null, "x", json!({ "q": "\"\\\n\u{1}😀", "n": 1.5, "i": 9007199254740993_i64 }))),
        get("/events").lists((1..=8).rev()),
        get("/urls/1/events").lists([8, 7, 4, 3, 1]),
        get("/events?event_type=seen").gives(200, format!("[{}]", event(3, 1, Value::Null, "seen", Value::Null))),
    ]);
}

#[test]
fn an_inactive_url_has_events_too() {
    check([
        support::case::delete("/urls/1").empty(204),
        post("/events", r#"{"url_id": 1, "event_type": "x"}"#).answers(201),
    ]);
}

#[test]
fn an_event_by_hand_may_be_of_any_type() {
    // `redirect` included: what is counted is what is stored.
    check([
        post("/events", r#"{"url_id": 1, "event_type": "redirect", "details": {"ip": "203.0.113.9"}}"#).answers(201),
        get("/urls/1/stats").gives(200, r#"{"url": "<any>", "redirect_count": 1}"#),
    ]);
}

#[test]
fn refuses_a_url_id() {
    let with = |url_id: &str| post("/events", format!(r#"{{"url_id": {url_id}, "event_type": "x"}}"#));
    check(
        ["true", "false", "\"1\"", "\"\"", "1.5", "-1.5", "[]", "[1]", "{}"]
            .map(|url_id| with(url_id).fails(400, "url_id must be an integer")),
    );
    check(
        ["0", "-1", "0.0", "-99999999999999999999"].map(|id| with(id).fails(400, "url_id must be a positive integer")),
    );
    check(
        ["3", "3.0", "2147483648", "9223372036854775807", "9223372036854775808", "99999999999999999999", "1e300"]
            .map(|url_id| with(url_id).fails(404, "URL not found")),
    );
    check([
        post("/events", "{}").fails(400, "url_id is required"),
        post("/events", r#"{"event_type": "x"}"#).fails(400, "url_id is required"),
        with("null").fails(400, "url_id is required"),
        get("/events").lists([2, 1]),
    ]);
}

#[test]
fn refuses_an_event_type() {
    let with = |kind: &str| post("/events", format!(r#"{{"url_id": 1, "event_type": {kind}}}"#));
    check(["\"\"", "null", "5", "true", "[]", "{}"].map(|kind| with(kind).fails(400, "event_type is required")));
    check([
        post("/events", r#"{"url_id": 1}"#).fails(400, "event_type is required"),
        // The column holds 255 characters: more is refused, not cut, and never a 500.
        with(&json!("x".repeat(256)).to_string()).fails_somehow(400),
        with("\"a\\u0000b\"").fails_somehow(400),
        get("/events").lists([2, 1]),
    ]);
}

#[test]
fn refuses_a_user_id() {
    let with = |user_id: &str| post("/events", format!(r#"{{"url_id": 1, "event_type": "x", "user_id": {user_id}}}"#));
    check(["true", "\"1\"", "1.5", "[]", "{}"].map(|user_id| with(user_id).fails(400, "user_id must be an integer")));
    check(["0", "-1", "-1.0"].map(|user_id| with(user_id).fails(400, "user_id must be a positive integer")));
    check(
        ["3", "2147483648", "9223372036854775808", "99999999999999999999"]
            .map(|user_id| with(user_id).fails(404, "User not found")),
    );
}

#[test]
fn refuses_details() {
    let with = |details: &str| post("/events", format!(r#"{{"url_id": 1, "event_type": "x", "details": {details}}}"#));
    check(
        ["\"text\"", "\"\"", "\"{}\"", "5", "0", "true", "false", "[]", "[{}]"]
            .map(|details| with(details).fails(400, "details must be a JSON object")),
    );
    check([get("/events").lists([2, 1])]);
}

#[test]
fn filters() {
    check([
        get("/{code}").leads_to("https://example.com/1"),
        // A click gets its number when it is stored; being asked for brings that about.
        get("/events").lists([3, 2, 1]),
        post("/events", r#"{"url_id": 2, "event_type": "a b&c=é", "user_id": 1}"#).answers(201),
        post("/events", r#"{"url_id": 1, "event_type": "seen"}"#).answers(201),
        // 1 created (url 1, user 1), 2 created (2, 2), 3 redirect (1, 1), 4 "a b&c=é" (2, 1), 5 seen (1, none)
        get("/events").lists((1..=5).rev()),
        get("/events?event_type=created").lists([2, 1]),
        get("/events?type=created").lists([2, 1]),
        get("/events?event_type=redirect").lists([3]),
        get("/events?event_type=nothing").gives(200, "[]"),
        get("/events?event_type=CREATED").gives(200, "[]"),
        get("/events?event_type=a%20b%26c%3D%C3%A9").lists([4]),
        get("/events?event_type=a+b%26c%3d%c3%a9").lists([4]),
        get("/events?event_type=created&type=seen").lists([2, 1]),
        get("/events?url_id=1").lists([5, 3, 1]),
        get("/events?url_id=2").lists([4, 2]),
        get("/events?url_id=3").gives(200, "[]"),
        get("/events?url_id=0").gives(200, "[]"),
        get("/events?url_id=-1").gives(200, "[]"),
        get("/events?url_id=99999999999999999999").gives(200, "[]"),
        get("/events?user_id=1").lists([4, 3, 1]),
        get("/events?user_id=2").lists([2]),
        get("/events?user_id=99999999999999999999").gives(200, "[]"),
        get("/events?user_id=1&url_id=1").lists([3, 1]),
        get("/events?user_id=1&url_id=1&type=created").lists([1]),
        get("/events?url_id=1&per_page=2").lists([5, 3]),
        get("/events?url_id=1&per_page=2&page=2").lists([1]),
        get("/events?per_page=2").lists([5, 4]),
        get("/events?per_page=2&after_id=4").lists([3, 2]),
        get("/events?after_id=2").lists([1]),
        get("/events?after_id=1").gives(200, "[]"),
        get("/events?url_id=1&after_id=5").lists([3, 1]),
        get("/events?type=created&after_id=2").lists([1]),
        get("/events?user_id=1&after_id=4&per_page=1").lists([3]),
        get("/events?page=2&per_page=3").lists([2, 1]),
        get("/events?page=3&per_page=3").gives(200, "[]"),
    ]);
    check(["abc", "1.5", "1.0", "true", "1x"].into_iter().flat_map(|value| {
        [
            get(format!("/events?url_id={value}")).fails(400, "url_id must be an integer"),
            get(format!("/events?user_id={value}")).fails(400, "user_id must be an integer"),
        ]
    }));
}

#[test]
fn newest_first_goes_by_time() {
    let snip = Snip::start();
    let mut client = snip.client();
    let (id, code) = client.shorten("https://example.com/");
    let mut wanted = vec!["created".to_owned()];
    for n in 0..5 {
        client.get(&format!("/{code}")).expect(302);
        wanted.push("redirect".to_owned());
        let kind = format!("kind{n}");
        client.post_json("/events", &json!({ "url_id": id, "event_type": kind }).to_string()).expect(201);
        wanted.push(kind);
    }
    wanted.reverse();
    for path in ["/events".to_owned(), format!("/urls/{id}/events"), format!("/events?url_id={id}")] {
        let events = client.get(&path).expect(200).json();
        let kinds: Vec<_> =
            events.as_array().expect("a list").iter().map(|event| event["event_type"].clone()).collect();
        assert_eq!(kinds, wanted, "{path}");
    }
    // One after the other by `after_id`, none twice, none left out.
    let mut seen = Vec::new();
    let mut path = "/events?per_page=2".to_owned();
    loop {
        let page = client.get(&path).expect(200).json();
        let page = page.as_array().expect("a list");
        let Some(last) = page.last() else { break };
        seen.extend(page.iter().map(|event| event["event_type"].clone()));
        path = format!("/events?per_page=2&after_id={}", last["id"]);
    }
    assert_eq!(seen, wanted);
}

#[test]
fn types_that_only_look_alike() {
    check([
        post("/events", r#"{"url_id": 1, "event_type": "%"}"#).answers(201),
        get("/events?event_type=%25").lists([3]),
        get("/events?event_type=_reated").gives(200, "[]"),
        get("/events?event_type='%20OR%20''='").gives(200, "[]"),
        get("/events?event_type=%00").gives(200, "[]"),
        get("/events?event_type=%ff").gives(200, "[]"),
    ]);
}
