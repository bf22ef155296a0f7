//! The contract's section "General": forms, errors, methods, media types, lists, integer path segments.

mod support;

use support::case::{Session, delete, get, post, put, request};
use support::snip::Snip;

const NOT_JSON: &str = "Content-Type must be application/json";
const NO_OBJECT: &str = "Request body must be a JSON object";

/// Levels of nesting that would overflow any stack that recursed on them.
const DEEP: usize = 100_000;

/// Routes that take a JSON body.
const BODY_ROUTES: [(&str, &str); 5] =
    [("POST", "/users"), ("PUT", "/users/1"), ("POST", "/urls"), ("PUT", "/urls/1"), ("POST", "/events")];

fn check(cases: impl IntoIterator<Item = support::case::Case>) {
    let mut snip = Snip::start();
    let mut session = Session::new(&snip);
    session.check_all([
        post("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).answers(201),
        post("/urls", r#"{"url": "https://example.com/", "user_id": 1}"#).answers(201).keeps("code", "/short_code"),
    ]);
    session.check_all(cases);
    snip.assert_alive();
}

#[test]
fn unknown_paths() {
    let paths = [
        "/",
        "/?a=b",
        "/users/abc",
        "/users/1.0",
        "/users/1x",
        "/users/%31x",
        "/users/1/urls",
        "/users/",
        "/urls/abc",
        "/urls/abc/stats",
        "/urls/abc/events",
        "/urls/1/nothing",
        "/urls/",
        "/events/1",
        "/{code}/",
        "/{code}/more",
        "/a/b/c",
        "//",
        "/health/",
        "/.well-known/security.txt",
    ];
    check(paths.map(|path| get(path).fails(404, "Not found")));
    check([
        request("POST", "/nothing/here").fails(404, "Not found"),
        request("DELETE", "/users/abc").fails(404, "Not found"),
        request("OPTIONS", "/nothing/here").fails(404, "Not found"),
        put("/urls/abc", "{}").fails(404, "Not found"),
    ]);
}

#[test]
fn integers_too_large_to_exist() {
    let integers = [
        "0",
        "999999",
        "2147483647",
        "2147483648",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
    ];
    let cases = integers.into_iter().map(str::to_owned).chain(["9".repeat(400)]).flat_map(|id| {
        [
            get(format!("/users/{id}")).fails(404, "User not found"),
            put(format!("/users/{id}"), r#"{"username": "x"}"#).fails(404, "User not found"),
            delete(format!("/users/{id}")).fails(404, "User not found"),
            get(format!("/urls/{id}")).fails(404, "URL not found"),
            put(format!("/urls/{id}"), r#"{"title": "x"}"#).fails(404, "URL not found"),
            delete(format!("/urls/{id}")).fails(404, "URL not found"),
            get(format!("/urls/{id}/stats")).fails(404, "URL not found"),
            get(format!("/urls/{id}/events")).fails(404, "URL not found"),
        ]
    });
    check(cases);
}

#[test]
fn wrong_methods() {
    check([
        request("DELETE", "/users").allows_only("GET, HEAD, POST, OPTIONS"),
        request("PUT", "/users").allows_only("GET, HEAD, POST, OPTIONS"),
        request("PATCH", "/users/1").allows_only("GET, HEAD, PUT, DELETE, OPTIONS"),
        request("POST", "/users/1").allows_only("GET, HEAD, PUT, DELETE, OPTIONS"),
        request("GET", "/users/bulk").allows_only("POST, OPTIONS"),
        request("DELETE", "/users/bulk").allows_only("POST, OPTIONS"),
        request("DELETE", "/urls").allows_only("GET, HEAD, POST, OPTIONS"),
        request("POST", "/urls/1").allows_only("GET, HEAD, PUT, DELETE, OPTIONS"),
        request("POST", "/urls/1/stats").allows_only("GET, HEAD, OPTIONS"),
        request("DELETE", "/urls/1/events").allows_only("GET, HEAD, OPTIONS"),
        request("PUT", "/events").allows_only("GET, HEAD, POST, OPTIONS"),
        request("POST", "/health").allows_only("GET, HEAD, OPTIONS"),
        request("POST", "/livez").allows_only("GET, HEAD, OPTIONS"),
        request("POST", "/readyz").allows_only("GET, HEAD, OPTIONS"),
        request("DELETE", "/metrics").allows_only("GET, HEAD, OPTIONS"),
        request("POST", "/{code}").allows_only("GET, HEAD, OPTIONS"),
        request("DELETE", "/{code}").allows_only("GET, HEAD, OPTIONS"),
        post("/{code}", "{}").allows_only("GET, HEAD, OPTIONS"),
        // The method is case-sensitive (RFC 9110, section 9.1).
        request("get", "/users").allows_only("GET, HEAD, POST, OPTIONS"),
    ]);
}

#[test]
fn options_names_the_methods() {
    let snip = Snip::start();
    let mut client = snip.client();
    for (path, methods) in [
        ("/users", "GET HEAD OPTIONS POST"),
        ("/users/1", "DELETE GET HEAD OPTIONS PUT"),
        ("/users/bulk", "OPTIONS POST"),
        ("/urls", "GET HEAD OPTIONS POST"),
        ("/urls/1", "DELETE GET HEAD OPTIONS PUT"),
        ("/urls/1/stats", "GET HEAD OPTIONS"),
        ("/urls/1/events", "GET HEAD OPTIONS"),
        ("/events", "GET HEAD OPTIONS POST"),
        ("/health", "GET HEAD OPTIONS"),
        ("/livez", "GET HEAD OPTIONS"),
        ("/readyz", "GET HEAD OPTIONS"),
        ("/metrics", "GET HEAD OPTIONS"),
        ("/abc123", "GET HEAD OPTIONS"),
    ] {
        let response = client.send("OPTIONS", path, &[], None);
        assert!([200, 204].contains(&response.status), "{path}: {response:?}");
        let mut allow: Vec<_> = response.header("Allow").expect("Allow").split(',').map(str::trim).collect();
        allow.sort_unstable();
        assert_eq!(allow.join(" "), methods, "{path}");
    }
}

#[test]
fn media_types() {
    let refused = [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("application/jsonp"),
        Some("application/json-seq"),
        Some("text/json; a=application/json"),
        Some(""),
        Some("application"),
    ];
    check(refused.into_iter().flat_map(|media_type| {
        BODY_ROUTES.map(|(method, path)| {
            let case = request(method, path).body("{}").fails(400, NOT_JSON);
            match media_type {
                Some(media_type) => case.header("Content-Type", media_type),
                None => case,
            }
        })
    }));
    let taken = [
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        "Application/JSON",
        "application/json ; a=\"b;c\"",
    ];
    check(taken.into_iter().flat_map(|media_type| {
        [
            request("PUT", "/users/1").body("{}").header("Content-Type", media_type).answers(200),
            request("POST", "/users").body("{}").header("Content-Type", media_type).fails(400, "username is required"),
        ]
    }));
}

#[test]
fn bodies_that_are_no_object() {
    let bodies: [&[u8]; 22] = [
        b"",
        b" ",
        b"[]",
        b"[{}]",
        b"null",
        b"true",
        b"17",
        b"\"text\"",
        b"{",
        b"}",
        b"{\"a\"",
        b"{\"a\": }",
        b"{\"a\": 1,}",
        b"{'a': 1}",
        b"{a: 1}",
        b"{\"a\": 1} trailing",
        b"{} {}",
        b"{\"a\": \"line\nbreak\"}",
        b"{\"a\": \"\\x41\"}",
        b"{\"username\": \"\xff\xfe\"}",
        b"{\"a\": 01}",
        b"username=ann",
    ];
    check(bodies.into_iter().flat_map(|body| {
        BODY_ROUTES.map(|(method, path)| {
            request(method, path).body(body).header("Content-Type", "application/json").fails(400, NO_OBJECT)
        })
    }));
}

#[test]
fn a_missing_body_is_no_object() {
    check(
        BODY_ROUTES.map(|(method, path)| {
            request(method, path).header("Content-Type", "application/json").fails(400, NO_OBJECT)
        }),
    );
}

/// JSON texts nested so deep, all of them objects up to the depth.
fn nested(depth: usize) -> [String; 4] {
    [
        format!(r#"{{"username": {}{}}}"#, "[".repeat(depth), "]".repeat(depth)),
        format!(r#"{}1{}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth)),
        "[".repeat(depth),
        format!(r#"{{"a": {}"#, r#"[{"b":"#.repeat(depth / 2)),
    ]
}

#[test]
fn deep_nesting_is_refused() {
    check(nested(10_000).into_iter().flat_map(|body| {
        BODY_ROUTES.map(|(method, path)| {
            request(method, path).body(body.clone()).header("Content-Type", "application/json").fails(400, NO_OBJECT)
        })
    }));
    // Brackets in a string are no nesting.
    let text = format!(r#"{{"username": "deep", "email": "deep@example.com", "x": "{}"}}"#, "[{".repeat(1000));
    check([post("/users", text)
        .gives(201, r#"{"id": 2, "username": "deep", "email": "deep@example.com", "created_at": "<time>"}"#)]);
}

#[test]
fn deep_nesting_in_a_large_body_is_refused() {
    // Too deep, and maybe too long for a body as well: either answer is true.
    let mut snip = Snip::start();
    let mut client = snip.client();
    for body in nested(DEEP) {
        for (method, path) in BODY_ROUTES {
            let json = [("Content-Type", "application/json")];
            let response = client.send(method, path, &json, Some(body.as_bytes()));
            assert!([400, 413].contains(&response.status), "{method} {path}: {response:?}");
            assert!(!response.error().is_empty());
        }
    }
    snip.assert_alive();
}

#[test]
fn escapes_and_unicode() {
    let made = |id: i64, title: &str| {
        format!(
            r#"{{"id": {id}, "user_id": null, "short_code": "<code>", "original_url": "https://example.com/",
                "title": {title}, "is_active": true, "created_at": "<time>", "updated_at": "<time>"}}"#
        )
    };
    // What a client may write in a JSON text, and what it means.
    let titles = [
        (r#""plain""#, r#""plain""#),
        (r#""\u0041\u00e9\u20ac""#, r#""Aé€""#),
        (r#""\ud83d\ude00 \uD83D\uDE00 😀""#, r#""😀 😀 😀""#),
        (r#""q\"b\\s\/""#, r#""q\"b\\s/""#),
        (r#""tab\tline\nreturn\rback\bfeed\f\u0001""#, r#""tab\tline\nreturn\rback\bfeed\f\u0001""#),
        (r#""x\u2028\u2029\u007f</script>""#, r#""x\u2028\u2029\u007f</script>""#),
        (r#""ﷺ 漢字 עברית""#, r#""ﷺ 漢字 עברית""#),
    ];
    check(titles.into_iter().zip(2..).map(|((title, wanted), id)| {
        post("/urls", format!(r#"{{"url": "https://example.com/", "title": {title}}}"#)).gives(201, made(id, wanted))
    }));
    // The names of keys may be escaped, too.
    check([post("/urls", r#"{"\u0075rl": "https:\/\/example.com\/"}"#).gives(201, made(2, "null"))]);
    // Half of a surrogate pair is no character.
    let halves = [r"\ud800", r"\udc00", r"\ud83dx", r"\ud83d\ud83d", r"\ude00\ud83d", r"\ud83d\u0041"];
    check(halves.into_iter().flat_map(|half| {
        [
            post("/urls", format!(r#"{{"url": "https://example.com/{half}"}}"#)).fails(400, NO_OBJECT),
            post("/users", format!(r#"{{"username": "{half}", "email": "a@b.c"}}"#)).fails(400, NO_OBJECT),
        ]
    }));
}

#[test]
fn unknown_and_large_values_are_ignored() {
    let numbers = "1e5, -0.0, 1E-10, 123456789012345678901234567890, 1.7976931348623157e308";
    let body = format!(r#"{{"id": 99, "username": "bob", "x": [{numbers}], "email": "bob@example.com", "y": {{}}}}"#);
    check([post("/users", body)
        .gives(201, r#"{"id": 2, "username": "bob", "email": "bob@example.com", "created_at": "<time>"}"#)]);
}

#[test]
fn lists() {
    let snip = Snip::start();
    let mut session = Session::new(&snip);
    for n in 1..=130 {
        let body = format!(r#"{{"username": "user{n}", "email": "user{n}@example.com"}}"#);
        session.check(&post("/users", body).answers(201));
    }
    // A value that is not a positive integer falls back to the default.
    let defaults = ["0", "-1", "abc", "1.5", "", "%20", "1e2", "0x10", "null"];
    session.check_all(defaults.map(|value| get(format!("/users?page={value}")).lists(1..=25)));
    session.check_all(defaults.map(|value| get(format!("/users?per_page={value}")).lists(1..=25)));
    session.check_all(defaults.map(|value| get(format!("/users?after_id={value}")).lists(1..=25)));
    session.check_all([
        get("/users").lists(1..=25),
        get("/users?").lists(1..=25),
        get("/users?page=1").lists(1..=25),
        get("/users?page=2").lists(26..=50),
        get("/users?page=6").lists(126..=130),
        get("/users?page=7").gives(200, "[]"),
        get("/users?per_page=3&page=2").lists(4..=6),
        get("/users?per_page=%33&page=2").lists(4..=6),
        get("/users?per_page=1").lists([1]),
        get("/users?per_page=100").lists(1..=100),
        get("/users?per_page=101").lists(1..=100),
        get("/users?per_page=99999999999999999999").lists(1..=100),
        get("/users?per_page=100&page=2").lists(101..=130),
        get("/users?per_page=1000&page=2").lists(101..=130),
        get("/users?page=1000000000000").gives(200, "[]"),
        get("/users?page=9223372036854775807").gives(200, "[]"),
        get("/users?page=9223372036854775807&per_page=100").gives(200, "[]"),
        get("/users?page=99999999999999999999").gives(200, "[]"),
        get("/users?after_id=120").lists(121..=130),
        get("/users?after_id=3&per_page=2").lists(4..=5),
        get("/users?after_id=130").gives(200, "[]"),
        get("/users?after_id=9223372036854775807").gives(200, "[]"),
        get("/users?after_id=99999999999999999999").gives(200, "[]"),
        get("/users?unknown=1&per_page=1").lists([1]),
        get("/users?per_page=2&per_page").answers(200),
        get("/users?%ff=%zz&per_page=2").lists([1, 2]),
        // The same rules on the other lists.
        get("/urls?page=2").gives(200, "[]"),
        get("/urls?after_id=5").gives(200, "[]"),
        get("/events?page=99999999999999999999").gives(200, "[]"),
    ]);
}

#[test]
fn every_answer_has_a_date_and_json_where_due() {
    let snip = Snip::start();
    let mut client = snip.client();
    for path in ["/users", "/users/1", "/nothing/here", "/health", "/abcdef"] {
        let response = client.get(path);
        let date = response.header("Date").unwrap_or_else(|| panic!("{path} has no Date"));
        assert!(date.ends_with(" GMT") && date.len() == "Sun, 06 Nov 1994 08:49:37 GMT".len(), "{date}");
        assert_eq!(response.header("Content-Type"), Some("application/json"), "{path}");
    }
}
