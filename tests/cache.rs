//! Three instances on one PostgreSQL and one Redis: they agree, and Redis may die at any time.
//!
//! `SNIP_TEST_LONG=1` runs the long forms: a minute under load, a million codes scanned, a million links warmed up.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use snip::limits::{STORE_DEADLINE, WARM_UP_LIMIT};
use snip::links::fence::{self, CHANGE, FILL, Held, Verdict};
use snip::model::{LinkState, Target};
use support::client::{Client, request};
use support::postgres::{Postgres, Setup};
use support::redis::Redis;
use support::snip::{Launch, Snip, StoreKind};
use support::wait::{eventually, wait_until};

/// What `docs/caching.md` publishes for an instance that reaches the store, and half as much again for a busy machine.
const BOUND: Duration = Duration::from_millis(4500);
const PATIENCE: Duration = Duration::from_secs(60);

fn is_long() -> bool {
    std::env::var_os("SNIP_TEST_LONG").is_some()
}

fn launch(postgres: &Postgres, redis: &str) -> Snip {
    let launch = Launch::on(StoreKind::Sqlite).arg("--database-url").arg(postgres.url());
    launch.arg("--redis-url").arg(redis).start()
}

/// One after the other: they share what the first has migrated.
fn three(postgres: &Postgres, redis: &Redis) -> Vec<Snip> {
    let snips: Vec<_> = (0..3).map(|_| launch(postgres, &redis.url_unix())).collect();
    snips.iter().for_each(trusts_redis);
    snips
}

fn lookups(client: &mut Client, level: &str, result: &str) -> f64 {
    client.metric(&format!(r#"cache_lookups_total{{level="{level}",result="{result}"}}"#))
}

fn trusts_redis(snip: &Snip) {
    let mut client = snip.client();
    wait_until("Redis is trusted", || client.metric("cache_redis_trusted") == 1.0);
}

/// Waits until each of them is warm or leaves it to another: from then on what it holds in memory it was asked for.
fn warmed_up<'s>(snips: impl IntoIterator<Item = &'s Snip>) {
    for snip in snips {
        let ended = ["the cache is warm", "another instance warms the cache up"];
        eventually("the warm-up ends", WARM_UP_LIMIT, || ended.iter().any(|line| snip.log().contains(line)));
    }
}

fn location(client: &mut Client, code: &str) -> Option<String> {
    let response = client.get(&format!("/{code}"));
    match response.status {
        302 => Some(response.header("Location").expect("a target").to_owned()),
        404 => None,
        other => panic!("GET /{code}: {other}"),
    }
}

/// Waits until the code leads there; when the last request was sent that did not, if one was.
fn leads_to(client: &mut Client, code: &str, target: &str) -> Option<Instant> {
    let mut old = None;
    wait_until(&format!("/{code} leads to {target}"), || {
        let asked = Instant::now();
        let is_new = location(client, code).as_deref() == Some(target);
        old = if is_new { old } else { Some(asked) };
        is_new
    });
    old
}

/// Acts until Redis was in time for all that these instances asked of it meanwhile. It may be late on a busy machine,
/// and they go on without it, as they should: what holds only with it is to be asserted of what this gives.
fn with_redis_in_time<'s, T>(snips: impl IntoIterator<Item = &'s Snip> + Clone, mut act: impl FnMut() -> T) -> T {
    let went_without = || snips.clone().into_iter().map(went_without_redis).sum::<f64>();
    let mut done = None;
    wait_until("Redis is in time", || {
        let before = went_without();
        done = Some(act());
        went_without() == before
    });
    done.expect("something was done")
}

/// How often an instance did not ask Redis, or did not get its answer in time.
fn went_without_redis(snip: &Snip) -> f64 {
    let mut client = snip.client();
    let failed = ["busy", "timeout", "unavailable", "breaker"]
        .map(|reason| client.metric(&format!(r#"redis_failures_total{{reason="{reason}"}}"#)));
    failed.iter().sum::<f64>() + lookups(&mut client, "redis", "bypassed")
}

/// A link that came into Redis because this instance, which is not warming up, was asked for it; its id and code.
fn in_redis(snip: &Snip, redis: &Redis, target: &str) -> (i64, String) {
    let mut client = snip.client();
    let (id, code) = with_redis_in_time([snip], || {
        let (id, code) = client.shorten(target);
        assert_eq!(client.get(&format!("/{code}")).expect(302).header("X-Cache"), Some("MISS"));
        (id, code)
    });
    is_filled(redis, &code);
    (id, code)
}

/// What is written to Redis after a question to the store is not waited for.
fn is_filled(redis: &Redis, code: &str) {
    wait_until("the link is in Redis", || shown(redis, code).is_some_and(|value| value["original_url"].is_string()));
}

/// What Redis shows of a link; `None` where there is nothing, or a lease.
fn shown(redis: &Redis, code: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(&redis.get(&format!("url:{code}"))?).expect("JSON");
    value["lease"].is_null().then_some(value)
}

/// A reader of the store's list may be at Redis before the one who made the change: it removes what is old, and the
/// change then writes over nothing (`fence`). That is no fault, but it does not happen five times in a row.
fn unless_overtaken<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..5).find_map(|_| attempt()).expect("Redis shows what changed")
}

#[test]
fn what_one_instance_changes_the_others_follow_and_redis_shows() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let snips = three(&postgres, &redis);
    warmed_up(&snips);
    let mut clients: Vec<_> = snips.iter().map(Snip::client).collect();
    let (id, code) = unless_overtaken(|| {
        let (link, changed, removed) = with_redis_in_time(&snips, || {
            let link = found_in_redis(&snips, &redis);
            let changed = changed_by_one(&mut clients, &redis, &link);
            let removed = removed_by_one(&mut clients, &redis, &link);
            (link, changed, removed)
        });
        assert_eq!(changed?["version"], 2);
        assert_eq!(removed?, json!({"deleted": true, "url_id": link.0, "version": 3}));
        Some(link)
    });

    // A plain SQL client goes by the store's list, and nothing else.
    postgres.psql(&format!("UPDATE urls SET is_active = true, original_url = 'https://example.com/3' WHERE id = {id}"));
    let changed = Instant::now();
    for client in &mut clients {
        let old = leads_to(client, &code, "https://example.com/3").map(|asked| asked - changed);
        assert!(old.is_none_or(|old| old < BOUND), "{old:?}");
    }
}

/// A link that the first instance asked the store for, and the second Redis: known by the header and by their figures.
fn found_in_redis(snips: &[Snip], redis: &Redis) -> (i64, String) {
    let mut second = snips[1].client();
    let ((id, code), header, asked) = with_redis_in_time([&snips[1]], || {
        let link = in_redis(&snips[0], redis, "https://example.com/1");
        let mut asked = || [lookups(&mut second, "redis", "hit"), lookups(&mut second, "store", "query")];
        let before = asked();
        let header = snips[1].client().get(&format!("/{}", link.1)).expect(302).header("X-Cache").map(str::to_owned);
        let after = asked();
        (link, header, [after[0] - before[0], after[1] - before[1]])
    });
    assert_eq!((header.as_deref(), asked), (Some("HIT"), [1.0, 0.0]));
    let held = json!({"original_url": "https://example.com/1", "url_id": id, "user_id": null, "version": 1});
    assert_eq!(shown(redis, &code), Some(held));
    let redis::Value::Int(life) = redis.run(&["PTTL", &format!("url:{code}")]) else { panic!("no PTTL") };
    assert!((500_000..=660_000).contains(&life), "{life}");
    (id, code)
}

/// A change: at once on the instance that made it, soon on the others. What Redis then shows.
fn changed_by_one(clients: &mut [Client], redis: &Redis, (id, code): &(i64, String)) -> Option<Value> {
    clients.iter_mut().for_each(|client| assert!(location(client, code).is_some()));
    clients[2].put_json(&format!("/urls/{id}"), r#"{"url": "https://example.com/2"}"#).expect(200);
    assert_eq!(location(&mut clients[2], code).as_deref(), Some("https://example.com/2"));
    for client in clients {
        leads_to(client, code, "https://example.com/2");
    }
    shown(redis, code)
}

/// The same of a link that is switched off: Redis shows a tombstone.
fn removed_by_one(clients: &mut [Client], redis: &Redis, (id, code): &(i64, String)) -> Option<Value> {
    clients[1].delete(&format!("/urls/{id}")).expect(204);
    assert_eq!(location(&mut clients[1], code), None);
    clients.iter_mut().for_each(|client| wait_until("it is gone", || location(client, code).is_none()));
    shown(redis, code)
}

/// What is announced comes with the change, not from a question of its own.
#[test]
fn a_change_is_one_statement_for_the_store() {
    let postgres = Postgres::start_with(&Setup { conf: "log_statement = all\n".into(), ..Setup::default() });
    let redis = Redis::start();
    let snip = launch(&postgres, &redis.url_unix());
    warmed_up([&snip]);
    let mut client = snip.client();
    // What goes on meanwhile: the polls, and a look at the store that a scrape did not wait for.
    let behind = ["url_changes", "snapshot", ": SELECT 1 ", "SELECT count(*) FROM urls WHERE is_active"];
    unless_overtaken(|| {
        let (id, log, held) = with_redis_in_time([&snip], || {
            let (id, code) = in_redis(&snip, &redis, "https://example.com/1");
            // The click is stored by then, too.
            client.get(&format!("/urls/{id}/stats")).expect(200);
            let before = postgres.log().len();
            client.put_json(&format!("/urls/{id}"), r#"{"url": "https://example.com/2", "title": "t"}"#).expect(200);
            client.delete(&format!("/urls/{id}")).expect(204);
            (id, postgres.log().split_off(before), shown(&redis, &code))
        });
        // Further lines of a statement begin with a tab.
        let log = log.replace("\n\t", " ");
        let is_behind = |line: &str| behind.iter().any(|part| line.contains(part));
        let asked: Vec<_> = log.lines().filter(|line| line.contains("execute ") && !is_behind(line)).collect();
        assert!(asked.len() == 2 && asked.iter().all(|line| line.contains("UPDATE urls")), "{asked:#?}");
        assert_eq!(held?, json!({"deleted": true, "url_id": id, "version": 3}), "and yet Redis knows all");
        Some(())
    });
}

struct Deaf;

impl snip::redis::Events for Deaf {
    fn up(&self) {}
    fn down(&self) {}
    fn message(&self, _: &[u8]) {}
    fn failed(&self) {}
}

/// The model tests go by the pure rules; this is what makes them speak for the scripts.
#[test]
fn the_scripts_do_what_the_rules_say() {
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction"]);
    let config = redis.url_unix().parse().unwrap();
    let client = snip::redis::Client::open(config, &[&CHANGE, &FILL], "c", Arc::new(Deaf)).unwrap();
    wait_until("the client is connected", || client.stats().is_connected);
    // A script changes what it finds: one whose answer was lost, and that may yet run, is run anew from the beginning.
    let run = |prepare: &dyn Fn(), script, args: &[&[u8]]| {
        let calls = [("k".to_owned(), args.iter().map(|arg| arg.to_vec()).collect())];
        let mut answers = None;
        wait_until("the script has run", || {
            if client.stats().in_flight == 0 {
                prepare();
                answers = client.script_batch(script, &calls).ok();
            }
            answers.is_some()
        });
        answers.unwrap().remove(0).expect("Redis does not refuse")
    };
    let target = |version| Target { url_id: 7, user_id: None, version, original_url: "http://a".into() };
    let tombstone = fence::state_json(&LinkState { url_id: 7, version: 5, target: None });
    let kept = [
        String::new(),
        fence::lease_json("mine"),
        fence::lease_json("other"),
        fence::link_json(&target(4)),
        fence::link_json(&target(5)),
        fence::link_json(&target(6)),
        tombstone,
        "garbage".to_owned(),
        r#"{"original_url":"http://a","url_id":7}"#.to_owned(),
        r#"{"original_url":"http://a","url_id":7,"version":"5"}"#.to_owned(),
        "[1,2]".to_owned(),
        "7".to_owned(),
    ];
    let put = |kept: &str| match kept {
        "" => drop(redis.run(&["DEL", "k"])),
        kept => drop(redis.run(&["SET", "k", kept])),
    };
    let holds = |kept: &str| if kept.is_empty() { Held::Missing } else { fence::read(kept.as_bytes()) };
    let new = fence::link_json(&target(5));
    for is_full in [false, true] {
        for kept in &kept {
            for value in [new.as_str(), ""] {
                let prepare = || {
                    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
                    put(kept);
                    redis.run(&["CONFIG", "SET", "maxmemory", if is_full { "1" } else { "0" }]);
                };
                let verdict = run(&prepare, &CHANGE, &[b"5", value.as_bytes(), b"60000", b"c", b"m"]);
                let expect = match fence::judge(&holds(kept), 5, !value.is_empty()) {
                    Verdict::Missing => ("missing", None),
                    Verdict::Kept => ("kept", Some(kept.as_str())),
                    Verdict::Replaced if is_full => ("removed", None),
                    Verdict::Replaced => ("replaced", Some(value)),
                    Verdict::Removed => ("removed", None),
                };
                assert_eq!(verdict, redis::Value::BulkString(expect.0.into()), "{kept}, {value:?}, {is_full}");
                assert_eq!(redis.get("k").as_deref(), expect.1, "{kept}, {value:?}, {is_full}");
            }
        }
    }
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    for kept in &kept {
        let filled = run(&|| put(kept), &FILL, &[fence::lease_json("mine").as_bytes(), new.as_bytes(), b"60000"]);
        let may = fence::may_fill(&holds(kept), "mine");
        assert_eq!(filled, redis::Value::Int(i64::from(may)), "{kept}");
        assert_eq!(redis.get("k").unwrap_or_default(), if may { &new } else { kept }.as_str(), "{kept}");
    }
}

#[test]
fn a_cold_code_is_asked_for_once_an_instance() {
    const CALLERS: usize = 1000;
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let snips = three(&postgres, &redis);
    warmed_up(&snips);
    let (_, code) = snips[0].client().shorten("https://example.com/cold");
    for snip in &snips {
        // All requests wait in their sockets before the first is read: the server is stopped meanwhile.
        let mut conns: Vec<_> = (0..CALLERS).map(|_| snip.connect()).collect();
        snip.freeze();
        let asked = request("GET", &format!("/{code}"), &[], None);
        for conn in &mut conns {
            conn.send(&asked);
        }
        snip.thaw();
        conns.iter_mut().for_each(|conn| drop(conn.response().expect(302)));
        let mut client = snip.client();
        let queries = lookups(&mut client, "store", "query");
        assert!(queries <= 1.0, "{queries} queries for one code");
        let gets = ["hit", "miss", "leased", "no_answer"].map(|result| lookups(&mut client, "redis", result));
        assert_eq!(gets.iter().sum::<f64>(), 1.0, "{gets:?}");
    }
}

#[test]
fn a_scan_leaves_the_hot_set_in_memory() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let snip = launch(&postgres, &redis.url_unix());
    let mut client = snip.client();
    let codes: Vec<_> = (0..20).map(|n| client.shorten(&format!("https://example.com/{n}")).1).collect();
    codes.iter().for_each(|code| assert!(location(&mut client, code).is_some()));
    let hits = lookups(&mut client, "local", "hit");
    let scan = if is_long() { 1_000_000 } else { 20_000 };
    let mut conn = snip.connect();
    for part in 0..scan / 100 {
        let asked: Vec<u8> =
            (0..100).flat_map(|n| request("GET", &format!("/x{}", part * 100 + n), &[], None)).collect();
        conn.send(asked);
        (0..100).for_each(|_| drop(conn.response().expect(404)));
        let code = &codes[part % codes.len()];
        assert!(location(&mut client, code).is_some());
    }
    let asked = (scan / 100) as f64;
    let hit = lookups(&mut client, "local", "hit") - hits;
    // Links in memory have an end, after which each is asked for again.
    assert!(hit >= asked * 0.8, "of {asked} requests for hot links {hit} were answered from memory");
    assert!(client.metric("cache_local_bytes") < 16e6);
}

#[test]
fn redirects_go_on_whatever_redis_does() {
    let postgres = Postgres::start();
    let mut redis = Redis::start_with(&["--maxmemory-policy", "noeviction"]);
    let snip = launch(&postgres, &redis.url());
    trusts_redis(&snip);
    let mut client = snip.client();
    let mut made = 0;
    let mut goes_on = |client: &mut Client, what: &str| {
        made += 1;
        let first = format!("https://example.com/{made}");
        let (id, code) = client.shorten(&first);
        let key = format!("/{code}");
        for _ in 0..3 {
            assert_eq!(location(client, &code).as_deref(), Some(first.as_str()), "{what}: {key}");
        }
        client.put_json(&format!("/urls/{id}"), r#"{"url": "https://example.com/new"}"#).expect(200);
        assert_eq!(location(client, &code).as_deref(), Some("https://example.com/new"), "{what}");
        client.delete(&format!("/urls/{id}")).expect(204);
        assert_eq!(location(client, &code), None, "{what}");
    };
    goes_on(&mut client, "all well");
    redis.run(&["CONFIG", "SET", "maxmemory", "1"]);
    goes_on(&mut client, "out of memory");
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);

    let code = with_redis_in_time([&snip], || {
        let (_, code) = client.shorten("https://example.com/typed");
        redis.run(&["RPUSH", &format!("url:{code}"), "x"]);
        assert!(location(&mut client, &code).is_some(), "a list under the key");
        code
    });
    is_filled(&redis, &code);
    for garbage in ["", "{", "[[[[", r#"{"original_url":"https://evil"}"#, "\u{0}"] {
        let (_, code) = client.shorten("https://example.com/garbage");
        redis.run(&["SET", &format!("url:{code}"), garbage]);
        assert_eq!(location(&mut client, &code).as_deref(), Some("https://example.com/garbage"), "{garbage:?}");
    }

    redis.run(&["CONFIG", "SET", "replica-read-only", "yes"]);
    redis.run(&["REPLICAOF", "127.0.0.1", "1"]);
    goes_on(&mut client, "it became a replica of nobody");
    redis.run(&["REPLICAOF", "NO", "ONE"]);

    redis.freeze();
    goes_on(&mut client, "frozen");
    redis.thaw();
    trusts_redis(&snip);
    redis.kill();
    goes_on(&mut client, "killed");
    redis.launch();
    trusts_redis(&snip);
    goes_on(&mut client, "back");
    drop(redis);
    goes_on(&mut client, "gone");

    let absent = launch(&postgres, "redis://127.0.0.1:1");
    goes_on(&mut absent.client(), "never there");
}

#[test]
fn what_changed_while_redis_was_cut_off_is_not_served_from_it() {
    let (postgres, redis) = (Postgres::start(), Redis::start());
    let first = launch(&postgres, &redis.url_unix());
    warmed_up([&first]);
    let (id, code) = in_redis(&first, &redis, "https://example.com/old");
    let key = format!("url:{code}");
    drop(first); // nobody is there who could know
    postgres.psql(&format!("UPDATE urls SET original_url = 'https://example.com/new' WHERE id = {id}"));
    assert!(redis.get(&key).unwrap().contains("old"), "Redis holds what was");

    let second = launch(&postgres, &redis.url_unix());
    let mut client = second.client();
    assert_eq!(location(&mut client, &code).as_deref(), Some("https://example.com/new"));
    trusts_redis(&second);
    assert_eq!(location(&mut client, &code).as_deref(), Some("https://example.com/new"));
    assert!(!redis.get(&key).unwrap_or_default().contains("old"));
}

/// An instance that took a refusal for another's lock left the cache to nobody.
#[test]
fn a_refused_lock_is_asked_for_again() {
    let postgres = Postgres::start();
    let redis = Redis::start_with(&["--maxmemory-policy", "noeviction", "--maxmemory", "1"]);
    let snip = launch(&postgres, &redis.url_unix());
    trusts_redis(&snip);
    let mut client = snip.client();
    let refusals = r#"redis_failures_total{reason="refused"}"#;
    wait_until("the lock is refused twice", || client.metric(refusals) >= 2.0);
    redis.run(&["CONFIG", "SET", "maxmemory", "0"]);
    wait_until("the cache is warm", || snip.log().contains("the cache is warm"));
}

/// With `SNIP_TEST_LONG=1` a million links that are active, and how long it took.
#[test]
fn one_instance_warms_the_others_up() {
    let links: u32 = if is_long() { 1_000_000 } else { 4_500 };
    let (postgres, redis) = (Postgres::start(), Redis::start());
    drop(launch(&postgres, &redis.url_unix())); // makes the tables
    redis.run(&["FLUSHALL"]);
    // Every tenth is switched off; the table's statistics are those of a table that has been in use.
    postgres.psql(&format!(
        "INSERT INTO urls (short_code, original_url, is_active)
         SELECT 'w' || n, 'https://example.com/' || n, n % 10 > 0 FROM generate_series(1, {} / 9 * 10) n;
         ANALYZE urls",
        links.next_multiple_of(9)
    ));
    let links = postgres.psql("SELECT count(*) FROM urls WHERE is_active").parse::<u32>().unwrap();
    let began = Instant::now();
    let snips = three(&postgres, &redis);
    let ready = began.elapsed();
    warmed_up(&snips);
    let took = began.elapsed();

    let warm: Vec<_> = snips.iter().filter(|snip| snip.log().contains("the cache is warm")).collect();
    assert_eq!(warm.len(), 1, "one does it, the others leave it to that one");
    // All keys but the lock.
    let keys = redis.run(&["EVAL", "return redis.call('DBSIZE') - redis.call('EXISTS', 'snip:warming')", "0"]);
    assert_eq!(keys, redis::Value::Int(i64::from(links)));
    let mut client = warm[0].client();
    let (bytes, in_memory) = (client.metric("cache_local_bytes"), client.metric("cache_local_links"));
    assert!(bytes < 16e6 && in_memory >= f64::from(links.min(50_000)), "{in_memory} links in {bytes} bytes");
    for code in [1, links / 9 * 10 - 1] {
        for snip in &snips {
            let target = format!("https://example.com/{code}");
            assert_eq!(location(&mut snip.client(), &format!("w{code}")), Some(target));
            // On a busy machine Redis may be late, and is then not waited for.
            let mut client = snip.client();
            assert!(lookups(&mut client, "store", "query") <= lookups(&mut client, "redis", "no_answer"));
        }
    }
    // What a page takes, and memory that is full: not what the table takes.
    let (peak, idle) = (peak_resident_bytes(warm[0]), peak_resident_bytes(idle_of(&snips, warm[0])));
    assert!(peak < idle + WARM_UP_BYTES, "{peak} bytes at the most, where another instance had {idle}");
    if is_long() {
        assert!(took > 2 * ready, "readiness took {ready:?}, the warm-up {took:?}");
        let told = warm[0].log().matches("warming the cache up").count();
        assert!(told >= 10, "{told} lines of progress");
    }
    #[allow(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!("{links} links: ready after {ready:?}, warm after {took:?}; resident {peak} bytes, others {idle}");
        println!("{bytes} bytes of memory hold {in_memory} links; Redis: {}", used_memory(&redis));
    }
}

/// What the instance that warms up may take beyond the others: its full memory of links (16 MiB), and pages on their
/// way.
const WARM_UP_BYTES: u64 = 32 << 20;

fn idle_of<'s>(snips: &'s [Snip], busy: &Snip) -> &'s Snip {
    snips.iter().find(|snip| snip.pid() != busy.pid()).expect("three instances")
}

/// The most that the process has ever had resident (proc(5), `VmHWM`).
fn peak_resident_bytes(snip: &Snip) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", snip.pid())).expect("the process lives");
    let kib = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")).expect("VmHWM");
    kib.trim().parse::<u64>().expect("a number") * 1024
}

fn used_memory(redis: &Redis) -> String {
    let redis::Value::BulkString(info) = redis.run(&["INFO", "memory"]) else { panic!("no INFO") };
    let info = String::from_utf8(info).expect("text");
    info.lines().find(|line| line.starts_with("used_memory:")).expect("used_memory").to_owned()
}

/// What the writers have committed: for each code the newest version, and when the one before it was replaced.
struct Hot {
    id: i64,
    code: String,
    version: AtomicU64,
    /// When each version's successor was committed, in ms since the start.
    replaced: std::sync::Mutex<Vec<u64>>,
}

/// Changes a link. A store that is late, on a busy machine, has made the change or not: it is made again.
fn put_in_time(client: &mut Client, id: i64, body: &str) {
    loop {
        let asked = Instant::now();
        let response = client.put_json(&format!("/urls/{id}"), body);
        if response.status != 503 {
            return drop(response.expect(200));
        }
        // Repeated over another connection, a statement has less than all of the time, but no less than half.
        assert!(asked.elapsed() >= STORE_DEADLINE / 2, "the store was not late: {}", response.text());
    }
}

#[test]
fn under_load_with_redis_killed_and_started_again_nothing_old_is_served_past_the_bound() {
    let length = Duration::from_secs(if is_long() { 60 } else { 12 });
    let (postgres, mut redis) = (Postgres::start(), Redis::start());
    let snips = three(&postgres, &redis);
    let mut client = snips[0].client();
    let hot: Arc<Vec<Hot>> = Arc::new(
        (0..8)
            .map(|_| {
                let (id, code) = client.shorten("https://example.com/0");
                Hot { id, code, version: AtomicU64::new(0), replaced: std::sync::Mutex::new(Vec::new()) }
            })
            .collect(),
    );
    let start = Instant::now();
    let millis = move || start.elapsed().as_millis() as u64;
    let is_over = Arc::new(AtomicBool::new(false));
    let (served, oldest) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
    let mut threads = Vec::new();
    for (n, snip) in snips.iter().enumerate() {
        let mut writer = snip.client();
        let (codes, over) = (Arc::clone(&hot), Arc::clone(&is_over));
        threads.push(thread::spawn(move || {
            // Each writer has codes of its own, so that it knows what the newest version is.
            for hot in codes.iter().skip(n).step_by(3).cycle() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let next = hot.version.load(Ordering::SeqCst) + 1;
                let body = json!({ "url": format!("https://example.com/{next}") }).to_string();
                put_in_time(&mut writer, hot.id, &body);
                // From here on the version before is out of date everywhere.
                hot.replaced.lock().unwrap().push(millis());
                hot.version.store(next, Ordering::SeqCst);
                // On its own instance at once.
                let seen = location(&mut writer, &hot.code).expect("a link");
                assert_eq!(seen, format!("https://example.com/{next}"));
                thread::sleep(Duration::from_millis(30));
            }
        }));
        for reader in 0..2 {
            let mut client = snip.client();
            let (codes, over) = (Arc::clone(&hot), Arc::clone(&is_over));
            let (served, oldest) = (Arc::clone(&served), Arc::clone(&oldest));
            threads.push(thread::spawn(move || {
                for hot in codes.iter().cycle().skip(reader * 3) {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let began = millis();
                    let seen = location(&mut client, &hot.code).expect("a link");
                    let version: usize = seen.rsplit('/').next().unwrap().parse().unwrap();
                    if let Some(replaced) = hot.replaced.lock().unwrap().get(version) {
                        oldest.fetch_max(began.saturating_sub(*replaced), Ordering::Relaxed);
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                    // Leaves some of the machine to PostgreSQL: one that never has its turn is another test's matter.
                    thread::sleep(Duration::from_millis(4));
                }
            }));
        }
    }
    for _ in 0..2 {
        thread::sleep(length / 4);
        redis.kill();
        thread::sleep(length / 8);
        redis.launch();
    }
    thread::sleep(length / 4);
    // How much that is by now is the machine's; what is held to a bound needs enough of both.
    let versions = || hot.iter().map(|hot| hot.version.load(Ordering::SeqCst)).sum::<u64>();
    eventually("enough is tried", PATIENCE, || served.load(Ordering::Relaxed) > 500 && versions() > 50);
    is_over.store(true, Ordering::Relaxed);
    threads.into_iter().for_each(|thread| thread.join().expect("no request failed"));
    let (served, oldest) = (served.load(Ordering::Relaxed), Duration::from_millis(oldest.load(Ordering::Relaxed)));
    let versions = versions();
    #[allow(clippy::print_stdout, reason = "shown with --nocapture")]
    {
        println!("{served} redirects, {versions} changes, the oldest value {oldest:?} after it was replaced");
    }
    assert!(oldest <= BOUND, "a value was served {oldest:?} after it was replaced");
    snips.iter().for_each(trusts_redis);
}
