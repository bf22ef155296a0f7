//! The contract's section "Redirect", and what PUT and DELETE promise about it.

mod support;

use serde_json::{Value, json};
use support::case::{Case, Session, delete, get, post, put, request};
use support::client::{Client, Conn};
use support::snip::{Launch, Snip};

const TARGET: &str = "https://example.com/to?a=b%20c#d";

/// Starts from one short URL: `{code}`.
fn check(cases: impl IntoIterator<Item = Case>) {
    let mut snip = Snip::start();
    let mut session = Session::new(&snip);
    session.check(&post("/urls", json!({ "url": TARGET }).to_string()).answers(201).keeps("code", "/short_code"));
    session.check_all(cases);
    snip.assert_alive();
}

#[test]
fn redirects() {
    check([
        get("/{code}").leads_to(TARGET),
        get("/{code}").leads_to(TARGET).with("X-Cache", "HIT"),
        // The query belongs to the short link, not to its target.
        get("/{code}?utm_source=x&y=%zz").leads_to(TARGET).with("X-Cache", "HIT"),
        get("/{code}?").leads_to(TARGET),
        request("HEAD", "/{code}").leads_to(TARGET).with("X-Cache", "HIT").empty(302),
        get("/{code}").header("Accept", "application/json").leads_to(TARGET),
        get("/{code}").header("If-None-Match", "*").leads_to(TARGET),
        get("/{code}").header("Range", "bytes=0-1").leads_to(TARGET),
    ]);
}

#[test]
fn unknown_codes() {
    let long = format!("/{}", "a".repeat(2000));
    let codes = [
        "/nosuch",
        "/a",
        "/0",
        "/123456",
        "/{code}x",
        "/users1",
        "/favicon.ico",
        "/robots.txt",
        "/%00",
        "/%",
        "/%e6%bc%a2",
        "/'%20OR%201=1",
        "/..",
        "/.",
        "/a+b",
        "/~",
        "/@",
        &long,
    ];
    check(codes.into_iter().flat_map(|code| [get(code).fails(404, "URL not found"), get(code).answers(404)]));
    check([
        // Decoded, this is two segments, and the other one no text: either way there is no such thing.
        get("/a%2Fb").fails_somehow(404),
        get("/%ff%fe").fails_somehow(404),
        get("/nosuch").fails(404, "URL not found"),
        get("/events").lists([1]),
    ]);
}

#[test]
fn codes_are_case_sensitive() {
    let snip = Snip::start();
    let mut client = snip.client();
    let (_, code) = client.shorten(TARGET);
    let swapped: String = code
        .chars()
        .map(|c| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
        .collect();
    if swapped != code {
        client.get(&format!("/{swapped}")).expect(404);
    }
    client.get(&format!("/{code}")).expect(302);
}

#[test]
fn a_new_process_misses_once() {
    let snip = Snip::start();
    let (_, code) = snip.client().shorten(TARGET);
    let snip = snip.restart();
    let mut client = snip.client();
    let path = format!("/{code}");
    for wanted in ["MISS", "HIT", "HIT"] {
        let response = client.get(&path).expect(302);
        assert_eq!(response.header("X-Cache"), Some(wanted));
        assert_eq!(response.header("Location"), Some(TARGET));
    }
}

#[test]
fn no_redirect_follows_an_old_state() {
    let elsewhere = "https://example.com/elsewhere";
    check([
        get("/{code}").leads_to(TARGET),
        get("/{code}").leads_to(TARGET).with("X-Cache", "HIT"),
        put("/urls/1", json!({ "url": elsewhere }).to_string()).answers(200),
        get("/{code}").leads_to(elsewhere),
        put("/urls/1", r#"{"is_active": false}"#).answers(200),
        get("/{code}").fails(404, "URL not found"),
        get("/{code}").fails(404, "URL not found"),
        put("/urls/1", r#"{"is_active": true}"#).answers(200),
        get("/{code}").leads_to(elsewhere),
        delete("/urls/1").empty(204),
        get("/{code}").fails(404, "URL not found"),
        put("/urls/1", json!({ "is_active": true, "original_url": TARGET }).to_string()).answers(200),
        get("/{code}").leads_to(TARGET),
        // What does not concern the target leaves it alone.
        put("/urls/1", r#"{"title": "x"}"#).answers(200),
        get("/{code}").leads_to(TARGET),
    ]);
}

#[test]
fn old_states_are_gone_on_every_connection_under_load() {
    let snip = Snip::start();
    let (id, code) = snip.client().shorten("https://example.com/0");
    let path = format!("/{code}");
    // The newest state that a writer was told is done. A redirect started later shows it or a newer one.
    let done = std::sync::atomic::AtomicUsize::new(0);
    let order = std::sync::atomic::Ordering::SeqCst;
    const WRITES: usize = 200;
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = snip.client();
                loop {
                    let known = done.load(order);
                    let response = client.get(&path).expect(302);
                    let location = response.header("Location").expect("Location");
                    let seen: usize = location.rsplit('/').next().expect("a number").parse().expect("a number");
                    assert!(seen >= known, "write {known} was done, and a later redirect followed {seen}");
                    if known == WRITES {
                        return;
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut client = snip.client();
            for n in 1..=WRITES {
                let body = format!(r#"{{"url": "https://example.com/{n}"}}"#);
                client.put_json(&format!("/urls/{id}"), &body).expect(200);
                done.store(n, order);
            }
        });
    });
}

/// The number of redirects in stats, in `/events`, and in the URL's own events; these are to agree at any moment.
fn counts(client: &mut Client, id: i64) -> (i64, usize, usize) {
    let stats = client.get(&format!("/urls/{id}/stats")).expect(200).json();
    let length = |value: Value| value.as_array().expect("a list").len();
    let all = client.get(&format!("/events?event_type=redirect&url_id={id}&per_page=100")).expect(200).json();
    let own = client.get(&format!("/urls/{id}/events?per_page=100")).expect(200).json();
    let own = own.as_array().expect("a list").iter().filter(|event| event["event_type"] == "redirect").count();
    (stats["redirect_count"].as_i64().expect("a count"), length(all), own)
}

#[test]
fn each_redirect_is_counted_at_once() {
    let snip = Snip::start();
    let mut client = snip.client();
    let (id, code) = client.shorten(TARGET);
    let (other, _) = client.shorten(TARGET);
    assert_eq!(counts(&mut client, id), (0, 0, 0));
    for n in 1..=20 {
        client.get(&format!("/{code}")).expect(302);
        let seen = usize::try_from(n).expect("small");
        // Each view by itself: none may lean on another one's look.
        let views: [&str; 3] = ["stats", "events", "all"];
        match views[seen % 3] {
            "stats" => assert_eq!(client.get(&format!("/urls/{id}/stats")).json()["redirect_count"], n),
            "events" => {
                let newest = client.get(&format!("/urls/{id}/events?per_page=1")).json();
                assert_eq!(newest[0]["event_type"], "redirect");
            }
            _ => {
                let all = client.get("/events?type=redirect&per_page=100").json();
                assert_eq!(all.as_array().expect("a list").len(), seen);
            }
        }
        assert_eq!(counts(&mut client, id), (n, seen, seen));
    }
    assert_eq!(counts(&mut client, other), (0, 0, 0));
}

#[test]
fn other_connections_see_a_click_at_once() {
    let snip = Snip::start();
    let (mut clicking, mut looking) = (snip.client(), snip.client());
    let (id, code) = clicking.shorten(TARGET);
    for n in 1..=20 {
        clicking.get(&format!("/{code}")).expect(302);
        assert_eq!(looking.get(&format!("/urls/{id}/stats")).json()["redirect_count"], n);
    }
}

#[test]
fn what_is_not_counted() {
    let snip = Snip::start();
    let mut client = snip.client();
    let (id, code) = client.shorten(TARGET);
    let path = format!("/{code}");
    for _ in 0..3 {
        client.send("HEAD", &path, &[], None).expect(302);
        client.send("OPTIONS", &path, &[], None);
        client.send("POST", &path, &[], None).expect(405);
        client.get("/nosuch").expect(404);
    }
    assert_eq!(counts(&mut client, id), (0, 0, 0));
    client.get(&path).expect(302);
    client.delete(&format!("/urls/{id}")).expect(204);
    client.get(&path).expect(404);
    assert_eq!(counts(&mut client, id), (1, 1, 1));
}

#[test]
fn clicks_of_many_connections_are_all_counted() {
    let snip = Snip::start();
    let (id, code) = snip.client().shorten(TARGET);
    const CONNECTIONS: i64 = 8;
    const CLICKS: i64 = 250;
    std::thread::scope(|scope| {
        for _ in 0..CONNECTIONS {
            scope.spawn(|| {
                let mut client = snip.client();
                for _ in 0..CLICKS {
                    client.get(&format!("/{code}")).expect(302);
                }
            });
        }
    });
    let stats = snip.client().get(&format!("/urls/{id}/stats")).json();
    assert_eq!(stats["redirect_count"], CONNECTIONS * CLICKS);
}

/// The newest redirect event after a click with these header fields.
fn click(snip: &Snip, code: &str, headers: &[(&str, &str)]) -> Value {
    let mut client = snip.client();
    client.send("GET", &format!("/{code}"), headers, None).expect(302);
    let newest = client.get("/events?event_type=redirect&per_page=1").expect(200).json();
    newest[0].clone()
}

#[test]
fn the_event_tells_who_clicked() {
    let snip = Snip::start();
    let mut client = snip.client();
    client.post_json("/users", r#"{"username": "ann", "email": "ann@example.com"}"#).expect(201);
    let made = client.post_json("/urls", r#"{"url": "https://example.com/", "user_id": 1}"#).expect(201).json();
    let code = made["short_code"].as_str().expect("a code");
    let event = click(&snip, code, &[("User-Agent", "Mozilla/5.0 (X; \"y\") \\ \té")]);
    let wanted = json!({
        "id": 2, "url_id": 1, "user_id": 1, "event_type": "redirect", "timestamp": "<time>",
        "details": { "ip": "127.0.0.1", "user_agent": "Mozilla/5.0 (X; \"y\") \\ \té" }
    });
    support::case::matches(&wanted, &event).unwrap_or_else(|why| panic!("{why}: {event}"));
    assert_eq!(click(&snip, code, &[])["details"], json!({ "ip": "127.0.0.1", "user_agent": null }));
}

#[test]
fn the_address_comes_from_a_trusted_proxy() {
    let ip =
        |snip: &Snip, code: &str, forwarded: &[(&str, &str)]| click(snip, code, forwarded)["details"]["ip"].clone();
    // The test's own address, loopback, is trusted by default.
    let snip = Snip::start();
    let (_, code) = snip.client().shorten(TARGET);
    for (forwarded, wanted) in [
        ("203.0.113.9", "203.0.113.9"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("2001:db8::1", "2001:db8::1"),
        // A proxy appends: what stands left of its word is the client's own claim, which anybody can write.
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 127.0.0.1", "203.0.113.9"),
    ] {
        assert_eq!(ip(&snip, &code, &[("X-Forwarded-For", forwarded)]), wanted, "{forwarded}");
    }
    let split = [("X-Forwarded-For", "198.51.100.1"), ("X-Forwarded-For", "203.0.113.9")];
    assert_eq!(ip(&snip, &code, &split), "203.0.113.9", "two fields are one list");
    for garbage in ["", "unknown", "999.1.1.1", "<script>", "203.0.113.9; DROP", ","] {
        let seen = ip(&snip, &code, &[("X-Forwarded-For", garbage)]);
        assert_eq!(seen, "127.0.0.1", "{garbage:?} is no address");
    }
    // A peer that is not trusted is taken by its own address.
    let snip = Launch::new().arg("--trusted-proxies").arg("10.0.0.0/8").start();
    let (_, code) = snip.client().shorten(TARGET);
    assert_eq!(ip(&snip, &code, &[("X-Forwarded-For", "203.0.113.9")]), "127.0.0.1");
}

#[test]
fn a_unix_socket_is_a_trusted_peer_without_address() {
    let snip = Launch::new().unix().start();
    let (_, code) = snip.client().shorten(TARGET);
    assert_eq!(click(&snip, &code, &[])["details"], json!({ "ip": null, "user_agent": null }));
    let event = click(&snip, &code, &[("X-Forwarded-For", "203.0.113.9"), ("User-Agent", "x")]);
    assert_eq!(event["details"], json!({ "ip": "203.0.113.9", "user_agent": "x" }));
}

#[test]
fn any_user_agent_makes_json() {
    let mut snip = Snip::start();
    let (_, code) = snip.client().shorten(TARGET);
    let agents: [&[u8]; 6] = [b"\xff\xfe\x80", b"\"}{\\", b"\xe6\xbc", b"%s%n", b"'; --", &[b'a'; 6000]];
    for agent in agents {
        let mut conn: Conn = snip.connect();
        conn.send(format!("GET /{code} HTTP/1.1\r\nHost: x\r\nUser-Agent: "));
        conn.send(agent).send("\r\n\r\n");
        conn.response().expect(302);
        let newest = snip.client().get("/events?event_type=redirect&per_page=1").expect(200).json();
        assert!(newest[0]["details"].is_object(), "{newest}");
    }
    snip.assert_alive();
}
