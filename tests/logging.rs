//! Holds the log to its schema, and requests to their ids.

mod support;

use std::process::Command;
use std::time::Duration;
use std::{env, thread};

use serde_json::Value;
use snip::log;
use support::client::{Response, request};
use support::command::{run, text_of};
use support::docs;
use support::snip::{Launch, Snip, StoreKind};

/// Every request that waits for anything at all is slower than this.
const AT_ONCE: &str = "1us";

fn start(slow: &str) -> Snip {
    Launch::on(StoreKind::Sqlite).env("LOG_FORMAT", "json").env("SNIP_SLOW_REQUEST", slow).start()
}

fn lines(snip: &Snip) -> Vec<Value> {
    snip.log().lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}"))).collect()
}

/// The line of the request that was answered with this id.
fn line_of<'l>(lines: &'l [Value], answer: &Response) -> &'l Value {
    let id = answer.header("X-Request-Id").expect("an id");
    let mut of_it = lines.iter().filter(|line| line["request_id"] == id);
    let line = of_it.next().unwrap_or_else(|| panic!("no line of {id}: {lines:#?}"));
    assert!(of_it.next().is_none(), "a second line of {id}");
    line
}

// ---- Schema ----------------------------------------------------------------------------------------------------

/// What is wrong with `value` by those keywords of JSON Schema that the schema uses; any other keyword is an error.
fn problems(schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let length = || value.as_str().map_or(0, |text| text.chars().count() as u64);
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    for (keyword, rule) in schema.as_object().expect("a schema") {
        let holds = match keyword.as_str() {
            "$schema" | "title" | "description" => true,
            "type" => match rule.as_str().expect("a type") {
                "object" => value.is_object(),
                "string" => value.is_string(),
                "integer" => value.is_i64() || value.is_u64(),
                other => panic!("the test does not know the type {other}"),
            },
            "enum" => rule.as_array().expect("a list").contains(value),
            "minimum" => value.as_i64() >= rule.as_i64(),
            "maximum" => value.as_i64() <= rule.as_i64(),
            "minLength" => length() >= rule.as_u64().expect("a length"),
            "maxLength" => length() <= rule.as_u64().expect("a length"),
            "required" => names(rule).iter().all(|name| value.get(name).is_some()),
            "dependentRequired" => rule.as_object().expect("names").iter().all(|(name, others)| {
                value.get(name).is_none() || names(others).iter().all(|other| value.get(other).is_some())
            }),
            "properties" => {
                for (name, schema) in rule.as_object().expect("properties") {
                    if let Some(field) = value.get(name) {
                        problems(schema, field, &format!("{at}.{name}"), found);
                    }
                }
                true
            }
            other => panic!("the test does not know the keyword {other}"),
        };
        if !holds {
            found.push(format!("{at}: {keyword} {rule} does not hold for {value}"));
        }
    }
}

/// What is wrong with a line.
fn check(line: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(&text_of(&docs::root().join("docs/log.schema.json"))).expect("a schema");
    let mut found = Vec::new();
    problems(&schema, line, "line", &mut found);
    found
}

#[test]
fn every_line_is_as_the_schema_has_it() {
    for slow in [AT_ONCE, "1h"] {
        let mut snip = start(slow);
        let mut client = snip.client();
        let (id, code) = client.shorten("https://example.com/");
        client.get(&format!("/{code}")).expect(302);
        client.get(&format!("/urls/{id}/stats")).expect(200);
        client.get("/nosuch").expect(404);
        client.get("/health").expect(200);
        client.send("BREW", "/urls", &[], None).expect(405);
        let sql = rusqlite::Connection::open(snip.place().data_dir().join("snip.db")).expect("open");
        sql.execute("UPDATE urls SET original_url = char(10), short_code = 'broken'", []).expect("update");
        client.get("/broken").expect(500);
        snip.stop();
        let lines = lines(&snip);
        let messages: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
        let expect = if slow == AT_ONCE { "slow request" } else { "request" };
        assert!(messages.contains(&expect) && messages.contains(&"request failed"), "{messages:?}");
        for line in &lines {
            assert_eq!(check(line), [""; 0]);
        }
    }
    // The check itself can fail.
    let broken = serde_json::json!({ "level": "LOUD", "message": "", "status": 99, "target": "x" });
    assert_eq!(check(&broken).len(), 5, "{:#?}", check(&broken));
}

/// Set for the program that [`a_panic_is_a_line_like_any_other`] starts.
const PANICS: &str = "SNIP_TEST_PANICS";

/// Nothing makes the binary panic on demand, so this test starts itself once more, as a program that does.
#[test]
fn a_panic_is_a_line_like_any_other() {
    if env::var_os(PANICS).is_some() {
        let _log = log::start(log::Level::Info, log::Format::Json);
        let unlucky = thread::Builder::new().name("unlucky".into()).spawn(|| panic!("on {}", "purpose"));
        assert!(unlucky.expect("a thread").join().is_err());
        return;
    }
    let mut again = Command::new(env::current_exe().expect("this program"));
    again.args(["--exact", "a_panic_is_a_line_like_any_other", "--nocapture"]).env(PANICS, "1");
    let told = run(&mut again, Duration::from_secs(60)).success();
    assert_eq!(told.stderr, "", "nobody is to wait for the standard error");
    let lines: Vec<_> =
        told.stdout.lines().filter_map(|line| line.find("{\"timestamp\"").map(|at| &line[at..])).collect();
    let [line] = lines[..] else { panic!("one line, not {lines:?}") };
    let line: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(check(&line), [""; 0]);
    assert_eq!((&line["level"], &line["message"]), (&"ERROR".into(), &"panicked".into()));
    assert_eq!((&line["panic"], &line["thread"]), (&"on purpose".into(), &"unlucky".into()));
    assert!(line["location"].as_str().expect("a location").starts_with("tests/logging.rs:"), "{line}");
}

// ---- Slow requests ---------------------------------------------------------------------------------------------

/// The waits that the line of a slow request names.
fn waits_of(line: &Value) -> Vec<&str> {
    assert_eq!((&line["message"], &line["level"]), (&"slow request".into(), &"WARN".into()), "{line}");
    let names = line.as_object().expect("an object").keys().map(String::as_str);
    let waits: Vec<_> = names.filter(|name| name.ends_with("_micros")).collect();
    let sum: u64 = waits.iter().map(|name| line[name].as_u64().expect("a time")).sum();
    assert!(sum <= line["micros"].as_u64().expect("a time"), "{line}");
    waits
}

#[test]
fn slow_requests_say_where_the_time_went() {
    let mut snip = start(AT_ONCE);
    let mut client = snip.client();
    let (id, code) = client.shorten("https://example.com/");
    let list = client.get("/urls").expect(200);
    let stats: Vec<_> = (0..50)
        .map(|_| {
            client.get(&format!("/{code}")).expect(302);
            client.get(&format!("/urls/{id}/stats")).expect(200)
        })
        .collect();
    snip.stop();
    let lines = lines(&snip);
    assert_eq!(waits_of(line_of(&lines, &list)), ["store_micros"]);
    // Clicks are stored without being asked for, too: then there is nothing to wait for.
    let stats: Vec<_> = stats.iter().map(|answer| waits_of(line_of(&lines, answer))).collect();
    let (waited, rest): (Vec<_>, Vec<_>) = stats.iter().partition(|waits| **waits == ["store_micros", "clicks_micros"]);
    assert!(!waited.is_empty(), "{stats:?}");
    assert!(rest.iter().all(|waits| **waits == ["store_micros"]), "{stats:?}");
    assert!(lines.iter().any(|line| line["path"] == format!("/{code}")), "a slow redirect has a line too");
}

#[test]
fn quick_redirects_and_probes_have_no_line() {
    let mut snip = start("1h");
    let mut client = snip.client();
    let (_, code) = client.shorten("https://example.com/");
    client.get(&format!("/{code}")).expect(302);
    client.get("/metrics").expect(200);
    snip.stop();
    let paths: Vec<_> = lines(&snip).iter().filter_map(|line| line["path"].as_str().map(str::to_owned)).collect();
    assert_eq!(paths, ["/urls"]);
}

// ---- Request ids -----------------------------------------------------------------------------------------------

#[test]
fn ids_of_trusted_proxies_are_given_back_and_others_are_replaced() {
    let given = "0af7651916cd43dd8448eb211c80319c";
    let longest = "x".repeat(64);
    let check = |snip: &Snip, id: &str, is_taken: bool| {
        let answer = snip.client().send("GET", "/users", &[("X-Request-Id", id)], None).expect(200);
        let back = answer.header("X-Request-Id").expect("an id");
        assert!(!back.is_empty());
        assert_eq!(back == id, is_taken, "{id:?} → {back:?}");
    };
    let trusting = start("1h");
    check(&trusting, given, true);
    check(&trusting, &longest, true);
    check(&trusting, &format!("{longest}x"), false);
    check(&trusting, "a b", false);
    check(&trusting, "a\"b", false);
    check(&trusting, "", false);
    let wary = Launch::on(StoreKind::Sqlite).arg("--trusted-proxies").arg("").start();
    check(&wary, given, false);
}

#[test]
fn redirects_have_an_id_if_they_were_given_one_and_errors_always_do() {
    let snip = start("1h");
    let mut client = snip.client();
    let (_, code) = client.shorten("https://example.com/");
    let path = format!("/{code}");
    assert_eq!(client.get(&path).expect(302).header("X-Request-Id"), None);
    let named = client.send("GET", &path, &[("X-Request-Id", "abc")], None).expect(302);
    assert_eq!(named.header("X-Request-Id"), Some("abc"));
    let (one, other) = (client.get("/nosuch").expect(404), client.get("/nosuch").expect(404));
    assert_ne!(one.header("X-Request-Id").expect("an id"), other.header("X-Request-Id").expect("an id"));
    // Two requests in one go keep their own.
    let both =
        [request("GET", "/users", &[("X-Request-Id", "one")], None), request("GET", "/users", &[], None)].concat();
    let mut conn = snip.connect();
    conn.send(both);
    assert_eq!(conn.response().header("X-Request-Id"), Some("one"));
    assert_ne!(conn.response().header("X-Request-Id"), Some("one"));
}
