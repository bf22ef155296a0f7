//! What is special to this store, on a real server; the trait's meaning is tried by `store::contract_tests`.

// The server that the integration tests start, too. Its own notes say how it is found and stopped.
#[allow(dead_code, reason = "these tests use a part")]
#[path = "../../../tests/support"]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
    pub mod wait;
}

use std::collections::HashSet;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use self::support::postgres::{Postgres, Setup};
use self::support::wait::wait_until;
use super::*;
use crate::limits::STORE_DEADLINE;
use crate::model::{JournalId, JournalStep, Start, Timestamp};
use crate::pg::Statement;
use crate::store::contract_tests;

/// What a machine with other work may add to a deadline.
const PATIENCE: Duration = Duration::from_secs(20);

const FIRST_PAGE: Page = Page { start: Start::Offset(0), limit: 100 };

/// One server for all tests that do it no harm; its watchdog stops it when the process ends.
fn server() -> &'static Postgres {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    SERVER.get_or_init(|| Postgres::start_with(&Setup { conf: "max_connections = 200\n".into(), ..Setup::default() }))
}

/// An empty database of its own on that server.
struct Database {
    name: String,
}

impl Database {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("snip_{}", COUNT.fetch_add(1, Ordering::Relaxed));
        server().psql(&format!("CREATE DATABASE {name}"));
        Self { name }
    }

    fn config(&self) -> Config {
        Config { database: self.name.clone(), ..Config::parse(&server().url()).unwrap() }
    }

    fn open(&self) -> PostgresStore {
        PostgresStore::open(self.config(), Tables::Migrate).unwrap()
    }

    fn refusal(&self, tables: Tables) -> String {
        PostgresStore::open(self.config(), tables).err().expect("refused").to_string()
    }

    fn psql(&self, sql: &str) -> String {
        server().psql_in(&self.name, sql)
    }
}

fn new_user(name: &str) -> NewUser {
    NewUser { username: name.into(), email: format!("{name}@example.com"), created_at: None }
}

fn new_url(code: &str, user_id: Option<Id>) -> NewUrl {
    let original_url = format!("https://example.com/{code}");
    NewUrl { user_id, short_code: code.into(), original_url, title: None }
}

fn new_event(url_id: Id, user_id: Option<Id>) -> NewEvent {
    NewEvent { url_id, user_id, event_type: "seen".into(), details: None }
}

fn click(url_id: Id, user_id: Option<Id>) -> Click {
    Click { url_id, user_id, at: Timestamp::now(), client: None, user_agent: Some("agent".into()), referrer: None }
}

/// Runs `body` in so many threads at once.
fn in_threads(count: usize, body: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for n in 0..count {
            let body = &body;
            scope.spawn(move || body(n));
        }
    });
}

#[test]
fn it_is_a_store() {
    contract_tests::check_all(|| {
        let database = Database::new();
        (database.open(), database)
    });
}

#[test]
fn it_is_a_store_behind_a_pooler_too() {
    contract_tests::check_all(|| {
        let database = Database::new();
        let config = Config { pooler: true, ..database.config() };
        (PostgresStore::open(config, Tables::Migrate).unwrap(), database)
    });
}

#[test]
fn ids_too_large_to_exist_are_nowhere() {
    let store = Database::new().open();
    let url = store.create_url(new_url("abc123", None)).unwrap().id;
    for id in [i64::from(i32::MAX) + 1, i64::from(i32::MIN) - 1, Id::MAX, Id::MIN] {
        let missing = |reference| StoreError::Missing(reference);
        assert_eq!(store.user(id), Ok(None));
        assert_eq!(store.update_user(id, UserPatch { username: Some("x".into()), email: None }), Ok(None));
        assert_eq!(store.delete_user(id), Ok(false));
        assert_eq!(store.url(id), Ok(None));
        assert_eq!(store.url_stats(id), Ok(None));
        assert_eq!(store.update_url(id, UrlPatch { is_active: Some(true), ..UrlPatch::default() }), Ok(None));
        assert_eq!(store.delete_url(id), Ok(None));
        assert_eq!(store.url_events(id, FIRST_PAGE), Ok(None));
        assert_eq!(store.create_url(new_url("other", Some(id))), Err(missing(Reference::User)));
        assert_eq!(store.create_event(new_event(id, None)), Err(missing(Reference::Url)));
        assert_eq!(store.create_event(new_event(url, Some(id))), Err(missing(Reference::User)));
        assert_eq!(store.urls(UrlFilter { user_id: Some(id), is_active: None }, FIRST_PAGE), Ok(vec![]));
        let of = |url_id, user_id| EventFilter { url_id, user_id, event_type: None };
        assert_eq!(store.events(of(Some(id), None), FIRST_PAGE), Ok(vec![]));
        assert_eq!(store.events(of(None, Some(id)), FIRST_PAGE), Ok(vec![]));
        let behind = Page { start: Start::AfterId(id), limit: 10 };
        assert_eq!(store.events(EventFilter::default(), behind), Ok(vec![]));
        assert!(store.urls(UrlFilter::default(), behind).is_ok() && store.users(behind).is_ok());
    }
    assert_eq!(store.resolve("a\0c"), Ok(None), "PostgreSQL's text has no NUL");
    let nul = EventFilter { event_type: Some("a\0".into()), ..EventFilter::default() };
    assert_eq!(store.events(nul, FIRST_PAGE), Ok(vec![]));
}

// ---- Migrations ------------------------------------------------------------------------------------------------

#[test]
fn several_instances_migrate_at_once() {
    let database = Database::new();
    in_threads(3, |_| database.open().health().unwrap());
    assert_eq!(
        database.psql("SELECT string_agg(version::text, ',' ORDER BY version) FROM snip_migrations"),
        "1,2,3,4,5,6"
    );
    // And again, with nothing to do.
    in_threads(3, |_| database.open().health().unwrap());
}

#[test]
fn tables_that_are_not_ours_are_told_in_one_line() {
    let database = Database::new();
    let check = |tables, expect: &str| {
        let error = database.refusal(tables);
        assert!(error.contains(expect) && !error.contains('\n'), "{error:?} does not say {expect:?}");
    };
    check(Tables::Check, "run `snip migrate`");
    database.open();
    PostgresStore::open(database.config(), Tables::Check).unwrap();
    database.psql("INSERT INTO snip_migrations (version, checksum) VALUES (7, 'x')");
    check(Tables::Migrate, "from a newer version of snip (its schema is 7, the newest known here 6)");
    check(Tables::Check, "from a newer version");
    database.psql(
        "DELETE FROM snip_migrations WHERE version = 7; UPDATE snip_migrations SET checksum = 'x' WHERE version = 2",
    );
    check(Tables::Migrate, "migration 2 in the database");
    database
        .psql("DROP TABLE url_stats; DELETE FROM snip_migrations WHERE version = 2; CREATE TABLE url_stats (a int)");
    check(Tables::Migrate, "migration 2 of the database");
    let start = PostgresStore::start(database.config(), Tables::Migrate);
    assert!(start.is_err(), "waiting would not mend it");
}

/// Tables as another program may have made them: identities of all kinds, foreign keys, no defaults, nulls, an index of
/// our name on another column, names of constraints that are not ours, and the address's index the oldest.
const FOREIGN_TABLES: &str = r#"
    CREATE TABLE users (
        id bigserial PRIMARY KEY, email character varying(255) NOT NULL, username character varying(255) NOT NULL,
        created_at timestamp
    );
    CREATE UNIQUE INDEX uq_1 ON users (email);
    CREATE UNIQUE INDEX uq_2 ON users (lower(username));
    CREATE UNIQUE INDEX uq_3 ON users (username);
    CREATE TABLE urls (
        id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, user_id bigint REFERENCES users (id) ON DELETE CASCADE,
        short_code character varying(20) NOT NULL CONSTRAINT code_once UNIQUE, original_url text NOT NULL,
        title character varying(255), is_active boolean, created_at timestamp NOT NULL
    );
    CREATE INDEX urls_user_id_idx ON urls (title);
    CREATE INDEX urls_short_code_is_active ON urls (short_code, is_active);
    CREATE TABLE events (
        id int PRIMARY KEY, url_id int NOT NULL, user_id int, event_type character varying(255) NOT NULL,
        timestamp timestamp NOT NULL, details text,
        CONSTRAINT one FOREIGN KEY (url_id) REFERENCES urls (id), CONSTRAINT "Other One" FOREIGN KEY (user_id) REFERENCES users (id)
    );
    CREATE INDEX ix_events_url ON events (url_id);
    INSERT INTO users (email, username, created_at) SELECT 'u' || n || '@example.com', 'u' || n, '2024-01-01' FROM generate_series(1, 50) n;
    INSERT INTO users (email, username) VALUES ('late@example.com', 'late');
    INSERT INTO urls (user_id, short_code, original_url, is_active, created_at)
        SELECT CASE WHEN n % 3 > 0 THEN n % 50 + 1 END, 'code' || n, 'https://example.com/' || n,
            CASE n % 10 WHEN 0 THEN FALSE WHEN 1 THEN NULL ELSE TRUE END, '2024-02-01'
        FROM generate_series(1, 200) n;
    INSERT INTO events (id, url_id, user_id, event_type, timestamp, details)
        SELECT n, n % 100 + 1, CASE WHEN n % 2 > 0 THEN n % 50 + 1 END, CASE WHEN n % 4 = 0 THEN 'created' ELSE 'redirect' END,
            timestamp '2024-03-01' + n * interval '1 minute', CASE WHEN n % 5 > 0 THEN '{"n": ' || n || '}' END
        FROM generate_series(1, 5000) n;
"#;

#[test]
fn a_database_of_another_program_is_adopted_without_loss() {
    let database = Database::new();
    database.psql(FOREIGN_TABLES);
    let sums = "SELECT (SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM (SELECT id, email, username FROM users) u),
        (SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM (SELECT id, user_id, short_code, original_url, title, created_at FROM urls) u),
        (SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM (SELECT id, url_id, user_id, event_type, timestamp, details FROM events) e)";
    let before = database.psql(sums);
    in_threads(3, |_| database.open().health().unwrap());
    assert_eq!(database.psql(sums), before, "no row is lost or changed");
    assert_eq!(
        database.psql("SELECT count(*) FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype = 'f'"),
        "0"
    );
    assert_eq!(database.psql("SELECT sum(redirect_count), count(*) FROM url_stats"), "3750|75");
    assert_eq!(database.psql("SELECT count(*) FROM urls WHERE updated_at = created_at"), "200");
    let store = database.open();
    assert_eq!(store.url_stats(2).unwrap().unwrap().redirect_count, 50);
    assert_eq!(store.active_urls().unwrap(), 180, "an unknown state counts as active");
    assert_eq!(store.create_user(new_user("new")).unwrap().id, 52, "ids go on");
    assert_eq!(store.create_url(new_url("new", Some(52))).unwrap().id, 201);
    assert_eq!(store.create_event(new_event(201, None)).unwrap().id, 5002, "the URL's own event came before");
    adopted_refusals(&store);
    assert_eq!(indexes_of(&database), "urls_user_id_idx:title urls_user_id_idx_snip:user_id,id");
    // A plain SQL client may leave out what has a default.
    database.psql(
        "INSERT INTO users (username, email) VALUES ('plain', 'plain@example.com');
         INSERT INTO urls (short_code, original_url) VALUES ('plain', 'https://example.com');
         INSERT INTO events (url_id, event_type) SELECT max(id), 'seen' FROM urls",
    );
    let plain = store.resolve("plain").unwrap().unwrap().url_id;
    assert_eq!(store.url_events(plain, FIRST_PAGE).unwrap().unwrap().len(), 1);
    assert!(store.delete_user(5).unwrap());
    assert_eq!(database.psql("SELECT count(*) FROM urls"), "202", "its URLs stay, whatever the foreign key says");
    assert_eq!(database.psql("SELECT count(*) FROM events WHERE user_id = 5"), "0");
}

/// Conflicts are told by column, whatever the indexes are called.
fn adopted_refusals(store: &PostgresStore) {
    let conflict = |constraint| StoreError::Conflict(constraint);
    assert_eq!(store.create_user(new_user("u7")), Err(conflict(Constraint::Username)), "the name comes first");
    let other_name = NewUser { username: "other".into(), ..new_user("u7") };
    assert_eq!(store.create_user(other_name), Err(conflict(Constraint::Email)));
    assert_eq!(store.create_user(new_user("U7")), Err(conflict(Constraint::Username)), "this index ignores case");
    assert_eq!(store.create_url(new_url("code7", None)), Err(conflict(Constraint::ShortCode)));
    assert_eq!(store.create_url(new_url("other", Some(999))), Err(StoreError::Missing(Reference::User)));
}

fn indexes_of(database: &Database) -> String {
    database.psql(
        "SELECT string_agg(indexrelid::regclass::text || ':' || columns, ' ' ORDER BY indexrelid::regclass::text) FROM (
             SELECT indexrelid, string_agg(attname, ',' ORDER BY attnum) AS columns
             FROM pg_index JOIN pg_attribute ON attrelid = indexrelid
             WHERE indexrelid::regclass::text LIKE 'urls_user_id%' GROUP BY 1) AS i",
    )
}

#[test]
fn half_a_database_is_adopted_too() {
    let database = Database::new();
    database.psql("CREATE TABLE users (id serial PRIMARY KEY, username text, email text); INSERT INTO users (username) VALUES ('ann')");
    let store = database.open();
    let ann = store.user(1).unwrap().unwrap();
    assert_eq!((ann.username.as_str(), ann.email.as_str()), ("ann", ""), "a null is shown as nothing");
    assert!(store.create_url(new_url("abc123", Some(1))).is_ok());
}

// ---- Plans -----------------------------------------------------------------------------------------------------

/// A plan that holds for whatever values: the one that the server keeps for a prepared statement.
fn plan(pool: &Pool, statement: &Statement, values: &str) -> String {
    let mut lease = pool.lease().unwrap();
    let types = match statement.name() {
        "urls_list" => "bigint, boolean, bigint, bigint, bigint",
        "users_list" => "bigint, bigint, bigint",
        "links_below" => "bigint, bigint",
        _ => "bigint, bigint, text, bigint, bigint, bigint",
    };
    lease.script("SET plan_cache_mode = force_generic_plan").unwrap();
    lease.script(&format!("PREPARE listed ({types}) AS {}", statement.sql())).unwrap();
    let explain: &'static str = format!("EXPLAIN EXECUTE listed ({values})").leak();
    let rows = lease.query(&*Box::leak(Box::new(Statement::new("explain", explain, &[]))), &[]).unwrap();
    rows.iter().map(|row| row.get::<&str>(0).unwrap().to_owned() + "\n").collect()
}

#[test]
fn indexes_of_clicks_end_at_the_time() {
    let database = Database::new();
    database.open();
    let count = |which: &str| {
        database.psql(&format!("SELECT count(*) FROM pg_indexes WHERE tablename = 'events' AND indexdef ~ '{which}'"))
    };
    let short = r#"\(((url|user)_id, )?"timestamp"\) WITH \(deduplicate_items=.?off"#;
    assert_eq!((count(short).as_str(), count("").as_str()), ("3", "6"), "the longer ones in their place are gone");
}

#[test]
fn lists_use_their_indexes_and_never_sort_a_table() {
    let database = Database::new();
    let store = database.open();
    database.psql(
        "INSERT INTO users (username, email) SELECT 'u' || n, 'u' || n FROM generate_series(1, 5000) n;
         INSERT INTO urls (user_id, short_code, original_url, is_active)
             SELECT 1 + (n * 7919) % 5000, 'c' || n, 'https://example.com/' || repeat('x', 100), n % 10 > 0 FROM generate_series(1, 20000) n;
         INSERT INTO events (url_id, user_id, event_type, timestamp)
             SELECT 1 + (n * 7919::bigint) % 20000, CASE WHEN n % 2 > 0 THEN 1 + n % 5000 END,
                 (ARRAY['redirect', 'redirect', 'created', 'updated'])[1 + n % 4],
                 timestamp '2024-01-01' + ((n * 104729::bigint) % 200000) * interval '1 minute'
             FROM generate_series(1, 200000) n;
         ANALYZE",
    );
    let pool = &store.shared.pool;
    // Where two filters leave a few rows only, the server may pick these by an index or two and sort them.
    let check = |statement: &Statement, values: &str| {
        let plan = plan(pool, statement, values);
        let may_sort = statement.sql().matches(" = $").count() - statement.sql().matches("id = $4").count() > 1;
        // Rows of the same time are put in the order of their ids as they are read: no more than that.
        let sorts = plan.matches("Sort  (cost").count() - plan.matches("Incremental Sort  (cost").count();
        let is_good = plan.contains("Index") && !plan.contains("Seq Scan") && (may_sort || sorts == 0);
        assert!(is_good, "{}:\n{plan}", statement.sql());
    };
    let pages =
        [FIRST_PAGE, Page { start: Start::AfterId(70), limit: 25 }, Page { start: Start::Offset(50), limit: 25 }];
    for page in pages {
        let skips = page.start == Start::Offset(50);
        for bits in 0..8 {
            let filter = EventFilter {
                url_id: (bits & 1 > 0).then_some(1),
                user_id: (bits & 2 > 0).then_some(1),
                event_type: (bits & 4 > 0).then(|| "created".into()),
            };
            // To skip rows of an unknown number the server may choose to sort, and does so by what it knows at each
            // call.
            if !skips {
                check(queries::events_list(&filter, page), "1, 1, 'created', 70, 25, 0");
            }
        }
        for bits in 0..4 {
            let filter = UrlFilter { user_id: (bits & 1 > 0).then_some(1), is_active: (bits & 2 > 0).then_some(true) };
            check(queries::urls_list(filter, page), "1, true, 70, 25, 0");
        }
        check(queries::users_list(page), "70, 25, 0");
    }
    check(&queries::LINKS_BELOW, "10000, 256");
    database.psql("VACUUM urls");
    let count = database.psql(&format!("EXPLAIN {}", include_str!("../../../sql/postgres/urls_count_active.sql")));
    assert!(count.contains("Index Only Scan"), "{count}");
    let resolve = include_str!("../../../sql/postgres/url_resolve.sql").replace("$1", "'c77'::text");
    assert!(database.psql(&format!("EXPLAIN {resolve}")).contains("urls_short_code_key"));
}

#[test]
fn statistics_follow_a_plain_client() {
    let database = Database::new();
    let store = database.open();
    let ids = ["one", "two"].map(|code| store.create_url(new_url(code, None)).unwrap().id);
    let counts = || ids.map(|id| store.url_stats(id).unwrap().unwrap().redirect_count);
    database.psql(
        "CREATE ROLE reporter; GRANT SELECT, INSERT ON events TO reporter; GRANT USAGE ON SEQUENCE events_id_seq TO reporter;
         SET ROLE reporter; SET search_path = pg_catalog;
         INSERT INTO public.events (url_id, event_type) VALUES (1, 'redirect'), (2, 'redirect'), (1, 'seen'), (1, 'redirect')",
    );
    assert_eq!(counts(), [2, 1]);
    database.psql("UPDATE events SET url_id = 2 WHERE id = (SELECT min(id) FROM events WHERE event_type = 'redirect')");
    assert_eq!(counts(), [1, 2]);
    database.psql("UPDATE events SET event_type = 'redirect' WHERE event_type = 'seen'");
    assert_eq!(counts(), [2, 2]);
    database.psql("DELETE FROM events WHERE url_id = 2 AND event_type = 'redirect'");
    assert_eq!(counts(), [2, 0]);
}

#[test]
fn a_batch_counts_itself_and_a_plain_client_after_it_is_counted() {
    let database = Database::new();
    let store = database.open();
    let url = store.create_url(new_url("one", None)).unwrap().id;
    let from_page = Click { referrer: Some("https://a.example/\"b\"".into()), ..click(url, Some(404)) };
    let step = JournalStep { journal: JournalId([1; 16]), instance: "test".into(), from: 0, to: 2 };
    store.record_clicks(Arc::new(vec![from_page, click(url, None)]), step).unwrap();
    let event = NewEvent { url_id: url, user_id: None, event_type: "redirect".into(), details: None };
    // On the same connections: what the batch said of itself ended with it.
    (0..10).for_each(|_| drop(store.create_event(event.clone()).unwrap()));
    assert_eq!(store.url_stats(url).unwrap().unwrap().redirect_count, 12);
    let stored = "SELECT referrer, user_id, details::json ->> 'ip' FROM events WHERE referrer IS NOT NULL";
    assert_eq!(database.psql(stored), "https://a.example/\"b\"||", "an owner that is not there is none");
}

#[test]
fn a_url_that_changes_hands_within_a_batch_is_counted_whole() {
    let database = Database::new();
    let store = database.open();
    let [one, other] = ["one", "other"].map(|code| store.create_url(new_url(code, None)).unwrap().id);
    let clicks = vec![click(one, None), click(one, Some(404)), click(other, None)];
    let step = JournalStep { journal: JournalId([1; 16]), instance: "test".into(), from: 0, to: 3 };
    assert_eq!(store.record_clicks(Arc::new(clicks), step).unwrap(), 3);
    assert_eq!([one, other].map(|id| store.url_stats(id).unwrap().unwrap().redirect_count), [2, 1]);
}

#[test]
fn a_batch_of_the_version_before_is_not_counted_twice() {
    let database = Database::new();
    let store = database.open();
    let url = store.create_url(new_url("one", None)).unwrap().id;
    // As an instance stores it that still runs when this version has migrated.
    database.psql(&format!(
        "BEGIN; SELECT set_config('snip.counts_itself', 'yes', TRUE);
         INSERT INTO url_stats (url_id, redirect_count) VALUES ({url}, 2);
         INSERT INTO events (url_id, event_type) VALUES ({url}, 'redirect'), ({url}, 'redirect');
         COMMIT"
    ));
    assert_eq!(store.url_stats(url).unwrap().unwrap().redirect_count, 2);
}

// ---- Many at once ----------------------------------------------------------------------------------------------

#[test]
fn a_hundred_writers_share_the_store() {
    let database = Database::new();
    let store = Arc::new(database.open());
    crate::runtime::init();
    let writers: Vec<_> = (0..100)
        .map(|n| {
            let store = Arc::clone(&store);
            may::go!(move || {
                let user = store.create_user(new_user(&format!("user{n}"))).unwrap().id;
                let url = store.create_url(new_url(&format!("code{n}"), Some(user))).unwrap().id;
                let step = JournalStep { journal: JournalId([n; 16]), instance: "test".into(), from: 0, to: 3 };
                assert_eq!(store.record_clicks(Arc::new(vec![click(url, Some(user)); 3]), step).unwrap(), 3);
                store.update_url(url, UrlPatch { title: Some(Some("t".into())), ..UrlPatch::default() }).unwrap();
                if n % 2 == 0 {
                    assert!(store.delete_user(user).unwrap());
                }
            })
        })
        .collect();
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let counts =
        "SELECT (SELECT count(*) FROM users), (SELECT count(user_id) FROM urls), (SELECT count(*) FROM events),
        (SELECT count(user_id) FROM events), (SELECT sum(redirect_count) FROM url_stats)";
    assert_eq!(database.psql(counts), "50|50|500|250|300");
}

#[test]
fn batches_of_clicks_never_wait_for_each_other_in_a_ring() {
    let database = Database::new();
    let stores = [database.open(), database.open(), database.open()];
    let users: Vec<Id> = (0..20).map(|n| stores[0].create_user(new_user(&format!("u{n}"))).unwrap().id).collect();
    let urls: Vec<Id> = (0..50).map(|n| stores[0].create_url(new_url(&format!("c{n}"), None)).unwrap().id).collect();
    // The same URLs and owners in every batch, in an order of its own, while owners are deleted.
    in_threads(4, |n| {
        let Some(store) = stores.get(n) else {
            users[10..].iter().for_each(|user| wait_until("it is deleted", || stores[0].delete_user(*user).is_ok()));
            return;
        };
        for round in 0..20 {
            let clicks = (0..500).map(|i| (i * (7 + 2 * n) + round) % 500);
            let clicks = Arc::new(clicks.map(|i| click(urls[i % 50], Some(users[i % 20]))).collect::<Vec<_>>());
            let (journal, instance) = (JournalId([n as u8; 16]), "test".into());
            let step = JournalStep { journal, instance, from: round as u64, to: round as u64 + 1 };
            // On a machine that stands still a deadline may pass; a step is taken once, however often it is offered.
            wait_until("it is stored", || store.record_clicks(Arc::clone(&clicks), step.clone()) == Ok(step.to));
        }
    });
    assert_eq!(database.psql("SELECT sum(redirect_count), count(*) FROM url_stats"), "30000|50");
    let dangling = "SELECT count(*) FROM events WHERE user_id NOT IN (SELECT id FROM users)";
    assert_eq!(database.psql(dangling), "0", "no event names a user that is gone");
    assert!(!server().log().contains("deadlock detected"));
}

#[test]
fn large_imports_are_one_transaction() {
    let store = Database::new().open();
    let long = "x".repeat(230);
    let rows: Vec<_> = (0..6000).map(|n| new_user(&format!("{long}{}", n % 5000))).collect();
    assert_eq!(store.import_users(rows).unwrap(), 5000);
    let mut rows: Vec<_> = (0..6000).map(|n| new_user(&format!("{long}-{n}"))).collect();
    rows[5999].username = "n\0t storable".into();
    assert!(store.import_users(rows).is_err());
    assert_eq!(store.users(Page { start: Start::Offset(4999), limit: 100 }).unwrap().len(), 1, "nothing of it is left");
}

#[test]
fn the_seed_data_loads_in_less_than_two_seconds() {
    let data = crate::seed::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/seed_data"))).unwrap();
    // A machine that is busy elsewhere may take longer for once.
    let loaded = (0..3).find_map(|_| {
        let store = Database::new().open();
        let begun = Instant::now();
        store.load(data.clone(), false).unwrap();
        (begun.elapsed() < Duration::from_secs(2)).then_some(store)
    });
    let store = loaded.expect("never in less than two seconds");
    for url in &data.urls {
        let target = store.resolve(&url.short_code).unwrap();
        assert_eq!(target.map(|t| t.original_url), url.is_active.then(|| url.original_url.clone()), "{url:?}");
    }
}

// ---- Failures --------------------------------------------------------------------------------------------------

fn is_unavailable<T>(result: &StoreResult<T>) -> bool {
    matches!(result, Err(StoreError::Unavailable(_)))
}

#[test]
fn a_server_killed_under_writers_loses_nothing_it_has_acknowledged() {
    let mut server = Postgres::start();
    let store = PostgresStore::open(Config::parse(&server.url()).unwrap(), Tables::Migrate).unwrap();
    let is_over = AtomicBool::new(false);
    let acknowledged = Mutex::new(Vec::new());
    let failures = AtomicUsize::new(0);
    thread::scope(|scope| {
        for writer in 0..8 {
            let (store, is_over, acknowledged, failures) = (&store, &is_over, &acknowledged, &failures);
            scope.spawn(move || {
                let mut n = 0;
                while !is_over.load(Ordering::Relaxed) {
                    let code = format!("w{writer}-{n}");
                    let begun = Instant::now();
                    let made = store.create_url(new_url(&code, None));
                    let waited = begun.elapsed();
                    assert!(waited < STORE_DEADLINE + PATIENCE, "{waited:?}");
                    match made {
                        Ok(url) => acknowledged.lock().unwrap().push((url.id, code)),
                        Err(error) => {
                            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
                            failures.fetch_add(1, Ordering::Relaxed);
                            thread::sleep(Duration::from_millis(5));
                        }
                    }
                    n += 1;
                }
            });
        }
        for _ in 0..3 {
            let before = acknowledged.lock().unwrap().len();
            wait_until("the writers write", || acknowledged.lock().unwrap().len() > before + 50);
            server.stop_kill9();
            let failed = failures.load(Ordering::Relaxed);
            wait_until("the writers notice", || failures.load(Ordering::Relaxed) > failed);
            server.restart();
        }
        let before = acknowledged.lock().unwrap().len();
        wait_until("the writers write again", || acknowledged.lock().unwrap().len() > before + 50);
        is_over.store(true, Ordering::Relaxed);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let stored = server.psql("SELECT id || ' ' || short_code FROM urls");
    let stored: HashSet<&str> = stored.lines().collect();
    for (id, code) in &acknowledged {
        assert!(stored.contains(format!("{id} {code}").as_str()), "{code} was acknowledged and is lost");
    }
    let events = server.psql("SELECT count(*), count(DISTINCT url_id), (SELECT count(*) FROM urls) FROM events");
    assert_eq!(events, format!("{0}|{0}|{0}", stored.len()), "each URL has its event, once");
}

#[test]
fn a_store_starts_before_its_database() {
    let mut server = Postgres::start();
    server.stop_kill9();
    let config = Config::parse(&server.url()).unwrap();
    let refused = PostgresStore::open(config.clone(), Tables::Migrate).err().expect("refused").to_string();
    assert!(refused.contains("cannot use the database postgres@127.0.0.1"), "{refused}");
    let store = PostgresStore::start(config, Tables::Migrate).unwrap();
    assert!(is_unavailable(&store.health()) && is_unavailable(&store.resolve("abc123")));
    server.restart();
    wait_until("the store is ready by itself", || store.health().is_ok());
    assert!(store.create_url(new_url("abc123", None)).is_ok(), "its tables were made");
}

#[test]
fn a_frozen_server_is_unavailable_within_the_deadline() {
    let server = Postgres::start();
    let store = PostgresStore::open(Config::parse(&server.url()).unwrap(), Tables::Migrate).unwrap();
    store.create_url(new_url("abc123", None)).unwrap();
    server.freeze();
    let begun = Instant::now();
    thread::scope(|scope| {
        let resolved = scope.spawn(|| store.resolve("abc123"));
        assert!(is_unavailable(&store.health()));
        assert!(!resolved.is_finished(), "a health check has a shorter deadline than others");
        assert!(is_unavailable(&resolved.join().unwrap()));
    });
    assert!(begun.elapsed() < STORE_DEADLINE + PATIENCE, "{:?}", begun.elapsed());
    server.thaw();
    wait_until("it answers again", || store.resolve("abc123").is_ok_and(|found| found.is_some()));
}

#[test]
fn errors_are_told_apart() {
    let server = |sqlstate: &str, table: &str, detail: &str, constraint: &str| {
        let optional = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        StoreError::from(pg::Error::Server(Box::new(ServerError {
            sqlstate: sqlstate.into(),
            table: optional(table),
            detail: optional(detail),
            constraint: optional(constraint),
            ..ServerError::default()
        })))
    };
    let conflict = StoreError::Conflict;
    let key = "Key (username)=((email)=(short_code)) already exists.";
    assert_eq!(server("23505", "users", key, "users_email_key"), conflict(Constraint::Username), "the detail counts");
    let key = "Schlüssel »(lower(email::text))=(a@b.c)« existiert bereits.";
    assert_eq!(server("23505", "users", key, "x"), conflict(Constraint::Email));
    assert_eq!(server("23505", "urls", "", "urls_short_code_key"), conflict(Constraint::ShortCode));
    assert!(matches!(server("23505", "urls", "Key (id)=(7) already exists.", "urls_pkey"), StoreError::Internal(_)));
    assert_eq!(server("23503", "urls", "", ""), StoreError::Missing(Reference::User));
    assert!(matches!(server("23503", "other", "", ""), StoreError::Internal(_)));
    for state in ["08006", "57P01", "57P03", "57014", "53300", "53100", "25006", "28P01", "3D000"] {
        assert!(matches!(server(state, "", "", ""), StoreError::Unavailable(_)), "{state}");
    }
    for state in ["40001", "40P01", "55P03"] {
        assert_eq!(server(state, "", "", ""), StoreError::Busy, "{state}");
    }
    assert!(matches!(server("42P01", "", "", ""), StoreError::Internal(_)));
    assert_eq!(StoreError::from(pg::Error::Busy), StoreError::Busy);
    assert!(is_unavailable::<()>(&Err(pg::Error::TimedOut.into())));
}

// ---- The list of changes ---------------------------------------------------------------------------------------

/// Sequences count when a row is written, not when it is seen: the younger entry may be seen first.
#[test]
fn a_change_that_commits_late_is_not_missed() {
    let database = Database::new();
    let store = database.open();
    database.psql("INSERT INTO urls (short_code, original_url) VALUES ('late', 'http://ab'), ('early', 'http://ab')");
    let pool = Pool::open(database.config()).unwrap();
    let mut lease = pool.lease().unwrap();
    lease.script("BEGIN; UPDATE urls SET original_url = 'http://new' WHERE short_code = 'late'").unwrap();
    database.psql("UPDATE urls SET original_url = 'http://new' WHERE short_code = 'early'");
    let codes = |after| {
        let changes = store.link_changes(after).unwrap();
        let codes: Vec<_> = changes.changes.into_iter().map(|change| (change.short_code, change.version)).collect();
        (codes, Some(changes.next))
    };
    let (found, after) = codes(None);
    assert_eq!(found, [("early".to_owned(), 2)]);
    lease.script("COMMIT").unwrap();
    let (found, _) = codes(after);
    assert!(found.contains(&("late".to_owned(), 2)), "{found:?}");
    let plan =
        "EXPLAIN SELECT sequence FROM url_changes WHERE transaction >= 1 AND sequence > 0 ORDER BY sequence LIMIT 512";
    assert!(database.psql(plan).contains("Index"), "{}", database.psql(plan));
}
