//! The PostgreSQL client against the server itself: log-in, TLS, pipelining, and the ways in which databases fail.
//!
//! Each test says what the caller saw. Upper bounds of times are generous: they tell a wait that ends from one that
//! does not.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use snip::limits::{PG_CANCEL_GRACE, PG_IN_FLIGHT_MAX};
use snip::pg::config::SslMode;
use snip::pg::{Call, Config, Error, Lease, Pool, Statement, Type};
use support::ports::free_port;
use support::postgres::{Postgres, Setup};
use support::wait::wait_until;

static ONE: Statement = Statement::new("one", "SELECT 1::bigint", &[]).read_only();
static ECHO: Statement = Statement::new("echo", "SELECT $1::bigint", &[Type::INT8]).read_only();
static SLEEP: Statement = Statement::new("sleep", "SELECT pg_sleep($1)", &[Type::FLOAT8]);
static LOCK: Statement = Statement::new("lock", "SELECT pg_advisory_lock(1)", &[]);
static INSERT: Statement = Statement::new("insert", "INSERT INTO t (id) VALUES ($1)", &[Type::INT8]);

const READY: Duration = Duration::from_secs(30);
/// A deadline for tests of deadlines.
const SHORT: Duration = Duration::from_millis(500);
/// What is later than this is not "at once", on a busy machine either.
const SOON: Duration = Duration::from_secs(20);

fn config(url: &str) -> Config {
    Config::parse(url).unwrap()
}

fn open(url: &str) -> Pool {
    let pool = Pool::open(config(url)).unwrap();
    pool.wait_ready(READY).unwrap();
    pool
}

/// With a deadline that only a hang reaches: those of the product are tried by themselves.
fn echo(pool: &Pool, value: i64) -> Result<i64, Error> {
    pool.query_within(READY, &ECHO, &[&value])?.first().unwrap().get(0)
}

/// A lock that others wait for until the lease is dropped.
fn hold(pool: &Pool) -> Lease {
    let mut lease = pool.lease().unwrap();
    lease.script("SELECT pg_advisory_lock(1)").unwrap();
    lease
}

/// Runs `body` in so many coroutines; gives what they gave, in order.
fn in_coroutines<T: Send + 'static>(count: usize, body: impl Fn(usize) -> T + Send + Sync + 'static) -> Vec<T> {
    snip::runtime::init();
    let body = Arc::new(body);
    let handles: Vec<_> = (0..count)
        .map(|n| {
            let body = Arc::clone(&body);
            may::go!(move || body(n))
        })
        .collect();
    handles.into_iter().map(|handle| handle.join().unwrap()).collect()
}

fn is_unavailable(error: &Error) -> bool {
    matches!(error, Error::Unavailable { .. })
}

// ---- Logging in ------------------------------------------------------------------------------------------------

#[test]
fn every_way_to_log_in_works_and_wrong_passwords_are_named() {
    let hba = "local all postgres trust\n\
        host all trusted 127.0.0.1/32 trust\n\
        host all clear 127.0.0.1/32 password\n\
        host all md5 127.0.0.1/32 md5\n\
        host all scram 127.0.0.1/32 scram-sha-256\n";
    let server = Postgres::start_with(&Setup { hba: hba.into(), ..Setup::default() });
    server.psql(
        "CREATE ROLE trusted LOGIN; CREATE ROLE clear LOGIN PASSWORD 'p@ss wörd'; CREATE ROLE scram LOGIN PASSWORD 'p@ss wörd';
         SET password_encryption = 'md5'; CREATE ROLE md5 LOGIN PASSWORD 'p@ss wörd'",
    );
    let url = |user: &str| format!("postgres://{user}@127.0.0.1:{}/postgres", server.port());
    assert_eq!(echo(&open(&url("trusted")), 1), Ok(1));
    for user in ["clear", "md5", "scram"] {
        let pool = open(&url(&format!("{user}:p%40ss%20w%C3%B6rd")));
        assert_eq!(echo(&pool, 7), Ok(7), "{user}");

        let wrong = Pool::open(config(&url(&format!("{user}:wrong")))).unwrap();
        let error = wrong.wait_ready(READY).unwrap_err();
        assert_eq!(error.sqlstate(), Some("28P01"), "{user}: {error}");
        assert!(!format!("{error:?}").contains("wrong"), "{error:?} shows the password");
        // Later callers hear at once what is wrong.
        let error = echo(&wrong, 1).unwrap_err();
        assert!(matches!(&error, Error::Unavailable { maybe_sent: false, why } if why.contains("28P01")), "{error}");

        let none = Pool::open(config(&url(user))).unwrap().wait_ready(READY).unwrap_err();
        assert!(matches!(&none, Error::Config(why) if why.contains("password")), "{none}");
    }
}

#[test]
fn a_missing_database_and_a_full_server_are_named() {
    let server = Postgres::start_with(&Setup { conf: "max_connections = 5\n".into(), ..Setup::default() });
    let missing = format!("postgres://postgres@127.0.0.1:{}/nowhere", server.port());
    let error = Pool::open_with(config(&missing), 1).unwrap().wait_ready(READY).unwrap_err();
    assert_eq!(error.sqlstate(), Some("3D000"), "{error}");

    server.psql("CREATE ROLE app LOGIN");
    let app = format!("postgres://app@127.0.0.1:{}/postgres", server.port());
    let holder = Pool::open_with(config(&app), 2).unwrap();
    wait_until("two connections are open", || holder.stats().connections == 2);
    let refused = Pool::open_with(config(&app), 1).unwrap();
    let error = refused.wait_ready(READY).unwrap_err();
    assert_eq!(error.sqlstate(), Some("53300"), "{error}");
    assert_eq!(echo(&holder, 5), Ok(5), "those who are in work on");
    drop(holder);
    wait_until("a place is free and taken by itself", || echo(&refused, 6) == Ok(6));
}

#[test]
fn nobody_listening_is_said_at_once() {
    let url = format!("postgres://postgres@127.0.0.1:{}/postgres", free_port().port());
    let begun = Instant::now();
    let pool = Pool::open(config(&url)).unwrap();
    let error = pool.wait_ready(READY).unwrap_err();
    assert!(is_unavailable(&error) && error.to_string().contains("refused"), "{error}");
    assert!(is_unavailable(&echo(&pool, 1).unwrap_err()));
    assert!(begun.elapsed() < SOON, "a caller waited {:?}", begun.elapsed());
}

#[test]
fn unix_sockets_work_from_threads_and_coroutines() {
    let server = Postgres::start();
    let pool = open(&server.url_unix());
    assert_eq!(echo(&pool, 3), Ok(3));
    let clone = pool.clone();
    assert_eq!(in_coroutines(10, move |n| echo(&clone, n as i64).unwrap()), (0..10).collect::<Vec<i64>>());
}

// ---- TLS -------------------------------------------------------------------------------------------------------

/// A server whose certificate is for `localhost` only, and the folder that its authority's certificate is in.
fn tls_server(hba: &str) -> (Postgres, String) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &authority).unwrap();
    let tls = Some((certificate.pem(), key.serialize_pem()));
    let server = Postgres::start_with(&Setup { hba: hba.into(), tls, ..Setup::default() });
    let root = server.folder().join("root.pem");
    std::fs::write(&root, authority.pem()).unwrap();
    (server, root.display().to_string())
}

fn uses_tls(pool: &Pool) -> bool {
    static TLS: Statement =
        Statement::new("tls", "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()", &[]).read_only();
    pool.query(&TLS, &[]).unwrap().first().unwrap().get(0).unwrap()
}

#[test]
fn tls_is_as_strict_as_sslmode_says() {
    let (server, root) = tls_server("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n");
    server.psql("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'secret'");
    let try_open = |host: &str, rest: &str| {
        let pool =
            Pool::open(config(&format!("postgres://app:secret@{host}:{}/postgres?{rest}", server.port()))).unwrap();
        pool.wait_ready(READY).map(|()| pool)
    };
    for (host, rest) in [
        ("localhost", format!("sslmode=verify-full&sslrootcert={root}")),
        ("127.0.0.1", format!("sslmode=verify-ca&sslrootcert={root}")),
        ("127.0.0.1", format!("sslmode=require&sslrootcert={root}")),
        ("127.0.0.1", "sslmode=require".into()),
        ("127.0.0.1", String::new()),
    ] {
        let pool = try_open(host, &rest).unwrap_or_else(|error| panic!("{host} {rest}: {error}"));
        assert!(uses_tls(&pool), "{host} {rest}");
    }
    for (host, rest, says) in [
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={root}"), "not valid for name"),
        ("localhost", "sslmode=verify-full&sslrootcert=system".into(), "certificate"),
        ("localhost", "sslmode=verify-ca".into(), "certificate"),
        ("localhost", "sslmode=verify-ca&sslrootcert=/nowhere.pem".into(), "/nowhere.pem"),
        ("127.0.0.1", "sslmode=disable".into(), "28000"),
    ] {
        let error = try_open(host, &rest).map(drop).unwrap_err().to_string();
        assert!(error.contains(says), "{host} {rest}: {error}");
    }
}

#[test]
fn much_goes_over_tls_in_both_directions() {
    let (server, _) = tls_server("");
    let pool = open(&format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=require", server.port()));
    assert!(uses_tls(&pool));
    let clone = pool.clone();
    let answers = in_coroutines(2000, move |n| echo(&clone, n as i64));
    assert!(answers.into_iter().eq((0..2000).map(Ok)), "each of 2,000 callers got its own answer");
    check_large_values(&pool);
}

#[test]
fn a_server_without_tls_is_refused_when_tls_is_asked_for() {
    let server = Postgres::start();
    let mut config = config(&server.url());
    config.ssl_mode = SslMode::Require;
    let error = Pool::open(config.clone()).unwrap().wait_ready(READY).unwrap_err();
    assert!(matches!(&error, Error::Config(why) if why.contains("does not offer TLS")), "{error}");
    config.ssl_mode = SslMode::Prefer;
    let pool = Pool::open(config).unwrap();
    pool.wait_ready(READY).unwrap();
    assert!(!uses_tls(&pool));
}

// ---- Asking and answering --------------------------------------------------------------------------------------

/// Sends and receives values that fill many buffers.
fn check_large_values(pool: &Pool) {
    static LENGTH: Statement = Statement::new("length", "SELECT length($1)", &[Type::TEXT]).read_only();
    let megabytes = "snip".repeat(1 << 20);
    let rows = pool.query_within(READY, &LENGTH, &[&megabytes]).unwrap();
    assert_eq!(rows.first().unwrap().get::<i32>(0), Ok(4 << 20));
    static REPEAT: Statement =
        Statement::new("repeat", "SELECT repeat($1, 40) FROM generate_series(1, 5)", &[Type::TEXT]).read_only();
    let text = "snip".repeat(20_000);
    let rows = pool.query_within(READY, &REPEAT, &[&text]).unwrap();
    assert_eq!(rows.len(), 5);
    for row in &rows {
        assert_eq!(row.get::<&str>(0).unwrap().len(), text.len() * 40);
    }
}

#[test]
fn ten_thousand_callers_share_four_connections() {
    let server = Postgres::start();
    let pool = open(&server.url());
    wait_until("all connections are open", || pool.stats().connections == 4);
    let clone = pool.clone();
    let answers = in_coroutines(10_000, move |n| echo(&clone, n as i64));
    let wrong = answers.iter().enumerate().find(|(n, answer)| **answer != Ok(*n as i64));
    assert_eq!(wrong, None, "each of 10,000 callers got its own answer");
    let stats = pool.stats();
    assert_eq!((stats.queries, stats.errors, stats.busy, stats.in_flight), (10_000, 0, 0, 0));
    assert_eq!(server.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'snip'"), "4");
    drop(pool);
    wait_until("the server sees the connections closed", || {
        server.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'snip'") == "0"
    });
}

#[test]
fn nobody_waits_behind_a_large_request() {
    static LARGE: Statement =
        Statement::new("large", "SELECT length($1), pg_advisory_lock(1)", &[Type::TEXT]).read_only();
    let server = Postgres::start();
    let pool = Arc::new(open(&server.url()));
    wait_until("all connections are open", || pool.stats().connections == 4);
    let held = hold(&pool);
    let large = thread::spawn({
        let pool = Arc::clone(&pool);
        move || pool.query_within(READY, &LARGE, &[&"x".repeat(1 << 20)]).map(drop)
    });
    wait_until("the large one is under way", || pool.stats().in_flight == 1);
    let shared = Arc::clone(&pool);
    let answers = in_coroutines(200, move |n| echo(&shared, n as i64));
    assert!(!large.is_finished(), "some waited for it");
    assert!(answers.iter().enumerate().all(|(n, answer)| *answer == Ok(n as i64)), "{answers:?}");
    drop(held);
    assert_eq!(large.join().unwrap(), Ok(()));
}

#[test]
fn values_of_the_contracts_types_survive_the_way_there_and_back() {
    let server = Postgres::start();
    let pool = open(&server.url());
    static ALL: Statement = Statement::new(
        "all",
        "SELECT $1::bigint, $2::integer, $3::text, $4::boolean, $5::timestamptz, $6::bytea, $7::bigint[], $8::text,
            $9::jsonb::text AS json, $10::varchar",
        &[
            Type::INT8,
            Type::INT4,
            Type::TEXT,
            Type::BOOL,
            Type::TIMESTAMPTZ,
            Type::BYTEA,
            Type::INT8_ARRAY,
            Type::TEXT,
            Type::TEXT,
            Type::VARCHAR,
        ],
    );
    let time = std::time::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456);
    let rows = pool
        .query(
            &ALL,
            &[&7i64, &-1i32, &"wörd", &true, &time, &&b"\0\xff"[..], &vec![1i64, 2], &None::<&str>, &"[1]", &"v"],
        )
        .unwrap();
    let row = rows.first().unwrap();
    assert_eq!(row.get::<i64>(0), Ok(7));
    assert_eq!(row.get::<i32>(1), Ok(-1));
    assert_eq!(row.get::<&str>(2), Ok("wörd"));
    assert_eq!(row.get::<bool>(3), Ok(true));
    assert_eq!(row.get::<std::time::SystemTime>(4), Ok(time));
    assert_eq!(row.get::<&[u8]>(5), Ok(&b"\0\xff"[..]));
    assert_eq!(row.get::<Vec<i64>>(6), Ok(vec![1, 2]));
    assert_eq!(row.get::<Option<String>>(7), Ok(None));
    assert_eq!(row.get::<&str>(8), Ok("[1]"));
    assert_eq!(row.get::<&str>(9), Ok("v"));
    assert_eq!(&*rows.columns()[8].name, "json");
    assert!(matches!(row.get::<&str>(0), Err(Error::Usage(_))));
    check_large_values(&pool);
}

#[test]
fn a_batch_is_one_transaction_and_its_error_concerns_nobody_else() {
    static SERIES: Statement = Statement::new("series", "SELECT id FROM t ORDER BY id", &[]).read_only();
    static BROKEN: Statement = Statement::new("broken", "SELECT * FROM nowhere WHERE id = $1", &[Type::INT8]);
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint CONSTRAINT t_id_key UNIQUE DEFERRABLE INITIALLY IMMEDIATE)");
    let pool = Pool::open_with(config(&server.url()), 1).unwrap();
    pool.wait_ready(READY).unwrap();

    let results =
        pool.batch(&[Call::new(&INSERT, &[&1i64]), Call::new(&INSERT, &[&2i64]), Call::new(&SERIES, &[])]).unwrap();
    assert_eq!(results.iter().map(|rows| (rows.len(), rows.affected())).collect::<Vec<_>>(), [(0, 1), (0, 1), (2, 2)]);

    let clone = pool.clone();
    let answers = in_coroutines(300, move |n| match n % 3 {
        0 => echo(&clone, n as i64).map(|_| 0),
        // The second insert violates the constraint: the first must be gone too.
        1 => clone.batch(&[Call::new(&INSERT, &[&(n as i64 + 10)]), Call::new(&INSERT, &[&1i64])]).map(|r| r.len()),
        _ => clone.query(&BROKEN, &[&1i64]).map(|rows| rows.len()),
    });
    for (n, answer) in answers.iter().enumerate() {
        match n % 3 {
            0 => assert_eq!(answer, &Ok(0), "a neighbour of errors"),
            1 => {
                let error = answer.as_ref().unwrap_err();
                assert_eq!((error.sqlstate(), error.constraint()), (Some("23505"), Some("t_id_key")), "{error}");
            }
            _ => assert_eq!(answer.as_ref().unwrap_err().sqlstate(), Some("42P01")),
        }
    }
    assert_eq!(server.psql("SELECT count(*) FROM t"), "2");
    server.psql("CREATE TABLE nowhere (id bigint)");
    assert_eq!(pool.query(&BROKEN, &[&1i64]).unwrap().len(), 0, "a statement that failed can succeed later");
    let stats = pool.stats();
    assert_eq!((stats.connects, stats.in_flight), (1, 0), "no error cost a connection");
}

#[test]
fn wrong_uses_are_refused_and_cost_nobody_anything() {
    let server = Postgres::start();
    let pool = open(&server.url());
    let huge = "x".repeat(snip::limits::PG_QUEUE_BYTES);
    static TEXT: Statement = Statement::new("text", "SELECT length($1)", &[Type::TEXT]);
    static LIE: Statement = Statement::new("lie", "SELECT $1::bigint + 1", &[Type::TEXT]);
    static COPY: Statement = Statement::new("copy", "COPY (SELECT 1) TO STDOUT", &[]);
    for (error, says) in [
        (pool.query(&ECHO, &[]).unwrap_err(), "statement echo: 0 parameters are given, 1 are wanted"),
        (pool.query(&ECHO, &[&"text"]).unwrap_err(), "statement echo: "),
        (pool.query(&TEXT, &[&huge]).unwrap_err(), "over the bound"),
        (pool.batch(&[]).unwrap_err(), "a batch of 0"),
    ] {
        assert!(matches!(&error, Error::Usage(why) if why.contains(says)), "{error}");
    }
    // The types that the program declares are what the server checks the statement against.
    assert_eq!(pool.query(&LIE, &[&"12"]).unwrap().first().unwrap().get::<i64>(0), Ok(13));
    assert_eq!(pool.query(&LIE, &[&"x"]).unwrap_err().sqlstate(), Some("22P02"));
    let error = pool.query(&COPY, &[]).unwrap_err();
    assert!(matches!(&error, Error::Protocol(why) if why.contains("COPY")), "{error}");
    wait_until("the connection that saw COPY is replaced", || pool.stats().connections == 4);
    assert_eq!(echo(&pool, 1), Ok(1));
}

#[test]
fn too_many_callers_are_refused_not_queued() {
    let server = Postgres::start();
    let pool = Pool::open_with(config(&server.url()), 1).unwrap();
    pool.wait_ready(READY).unwrap();
    let held = hold(&pool);
    let clone = pool.clone();
    let callers = thread::spawn(move || {
        in_coroutines(PG_IN_FLIGHT_MAX + 500, move |n| match n {
            0 => clone.query_within(READY, &LOCK, &[]).map(|_| -1),
            n => echo(&clone, n as i64),
        })
    });
    wait_until("all have called", || pool.stats().in_flight == PG_IN_FLIGHT_MAX && pool.stats().busy == 500);
    drop(held);
    let answers = callers.join().unwrap();
    let busy = answers.iter().filter(|answer| **answer == Err(Error::Busy)).count();
    let answered = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((busy, answered), (500, PG_IN_FLIGHT_MAX), "Busy over the bound, answers within it");
}

#[test]
fn leases_carry_transactions_and_leave_nothing_behind() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint)");
    let pool = open(&server.url());
    let mut lease = pool.lease().unwrap();
    lease.script("BEGIN; LOCK TABLE t; SELECT 1").unwrap();
    lease.query(&INSERT, &[&1i64]).unwrap();
    lease.script("COMMIT").unwrap();

    let mut other = in_coroutines(1, {
        let pool = pool.clone();
        move |_| pool.lease().unwrap()
    })
    .remove(0);
    assert!(matches!(pool.lease(), Err(Error::Busy)), "leases are bounded");
    other.script("BEGIN").unwrap();
    other.query(&INSERT, &[&2i64]).unwrap();
    assert_eq!(other.script("SELEC").unwrap_err().sqlstate(), Some("42601"));
    assert_eq!(other.query(&INSERT, &[&3i64]).unwrap_err().sqlstate(), Some("25P02"));
    drop(other);
    drop(lease);
    wait_until("dropped leases are rolled back and closed", || {
        server.psql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'snip'") == "4"
    });
    assert_eq!(server.psql("SELECT count(*) FROM t"), "1");
    assert!(pool.lease().is_ok());
}

#[test]
fn statements_are_prepared_anew_when_the_session_or_a_table_changed() {
    static DISCARD: Statement = Statement::new("discard", "DEALLOCATE ALL", &[]);
    static STAR: Statement = Statement::new("star", "SELECT * FROM t WHERE id = $1", &[Type::INT8]);
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint); INSERT INTO t VALUES (1)");
    let pool = Pool::open_with(config(&server.url()), 1).unwrap();
    pool.wait_ready(READY).unwrap();
    for _ in 0..3 {
        assert_eq!(pool.query(&STAR, &[&1i64]).unwrap().columns().len(), 1);
        pool.query(&DISCARD, &[]).unwrap();
    }
    // Many callers at once find their statement gone.
    let clone = pool.clone();
    let answers = in_coroutines(100, move |n| {
        if n == 50 {
            clone.query(&DISCARD, &[]).unwrap();
        }
        clone.batch(&[Call::new(&ECHO, &[&(n as i64)]), Call::new(&STAR, &[&1i64])]).map(|results| results.len())
    });
    assert!(answers.iter().all(|answer| *answer == Ok(2)), "{answers:?}");

    server.psql("ALTER TABLE t ADD COLUMN name text DEFAULT 'x'");
    let rows = pool.query(&STAR, &[&1i64]).unwrap();
    assert_eq!(rows.columns().len(), 2, "the new column is there");
    assert_eq!(rows.first().unwrap().get::<&str>(1), Ok("x"));
    // The same on a lease, with a script in between, which cannot carry the order to drop the stale statement.
    let mut lease = pool.lease().unwrap();
    lease.query(&STAR, &[&1i64]).unwrap();
    server.psql("ALTER TABLE t ADD COLUMN note text");
    lease.script("BEGIN").unwrap();
    assert_eq!(lease.query(&STAR, &[&1i64]).unwrap_err().sqlstate(), Some("0A000"), "a transaction is not repeated");
    lease.script("ROLLBACK").unwrap();
    assert_eq!(lease.query(&STAR, &[&1i64]).unwrap().columns().len(), 3);
    static KNOWN: Statement =
        Statement::new("known", "SELECT name FROM pg_prepared_statements WHERE statement LIKE 'SELECT *%'", &[]);
    assert_eq!(lease.query(&KNOWN, &[]).unwrap().len(), 1, "the stale statement was dropped");
    drop(lease);
    server.psql("ALTER TABLE t DROP COLUMN note");
    server.psql("ALTER TABLE t ALTER COLUMN name TYPE varchar(9)");
    assert_eq!(pool.query(&STAR, &[&1i64]).unwrap().columns()[1].ty, Type::VARCHAR);
    let stats = pool.stats();
    assert_eq!((stats.connects, stats.errors), (2, 1), "callers other than the one in a transaction noticed nothing");
    assert!(stats.repeats > 0);
    let prepared: i64 = {
        static COUNT: Statement = Statement::new("count", "SELECT count(*) FROM pg_prepared_statements", &[]);
        pool.query(&COUNT, &[]).unwrap().first().unwrap().get(0).unwrap()
    };
    assert!(prepared <= 6, "{prepared} statements are prepared: old ones are not left behind");
}

// ---- Deadlines -------------------------------------------------------------------------------------------------

#[test]
fn a_statement_past_its_deadline_frees_the_caller_and_is_canceled() {
    let server = Postgres::start();
    assert!((0..5).any(|_| is_canceled_in_time(&server)), "no cancel came in time");
}

/// False when the machine stood still meanwhile: a connection that does not cancel in time is given up.
fn is_canceled_in_time(server: &Postgres) -> bool {
    let begun = Instant::now();
    let pool = Pool::open_with(config(&server.url()), 1).unwrap();
    pool.wait_ready(READY).unwrap();
    let clone = pool.clone();
    let waits = in_coroutines(20, move |n| {
        let begun = Instant::now();
        let result = match n {
            // Two sleepers: the second is past its deadline before the server gets to it.
            3 | 4 => clone.query_within(SHORT, &SLEEP, &[&3600f64]).map(|_| 0),
            _ => echo(&clone, n as i64),
        };
        (n, result, begun.elapsed())
    });
    if begun.elapsed() >= SHORT + PG_CANCEL_GRACE {
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
        return false;
    }
    for (n, result, waited) in waits {
        match n {
            3 | 4 => {
                assert_eq!(result, Err(Error::TimedOut), "{n}");
                assert!(waited >= SHORT && waited < SOON, "the caller was freed after {waited:?}");
            }
            _ => assert_eq!(result, Ok(n as i64), "neighbours of a sleeper get their answers"),
        }
    }
    assert_eq!(echo(&pool, 9), Ok(9));
    assert_eq!(server.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"), "0");
    let stats = pool.stats();
    assert_eq!((stats.timeouts, stats.connects, stats.in_flight), (2, 1, 0), "the connection lives on");
    // One will do if it hit while the first was being prepared, for then the second cannot run.
    assert!(stats.cancels >= 1, "{stats:?}");
    true
}

#[test]
fn a_frozen_server_holds_nobody_past_the_deadline() {
    let server = Postgres::start();
    let pool = open(&server.url());
    wait_until("all connections are open", || pool.stats().connections == 4);
    echo(&pool, 1).unwrap();
    server.freeze();
    let clone = pool.clone();
    let waits = in_coroutines(200, move |_| {
        let begun = Instant::now();
        (clone.query_within(SHORT, &ONE, &[]).map(drop).unwrap_err(), begun.elapsed())
    });
    for (error, waited) in waits {
        assert!(error == Error::TimedOut || is_unavailable(&error), "{error}");
        assert!(waited < SOON, "a caller waited {waited:?}");
    }
    // Connections that do not even cancel are given up, so that later callers hear of it at once.
    wait_until("the frozen connections are given up", || pool.stats().connections == 0);
    server.thaw();
    wait_until("the pool comes back by itself", || echo(&pool, 2) == Ok(2));
}

#[test]
fn a_slow_network_delays_and_a_dead_one_is_given_up() {
    let server = Postgres::start();
    let proxy = Proxy::start(server.port());
    let pool = open(&format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", proxy.port));
    let clone = pool.clone();
    let answers = in_coroutines(500, move |n| echo(&clone, n as i64));
    assert!(answers.into_iter().eq((0..500).map(Ok)), "a slow network only delays");
    check_large_values(&pool);

    proxy.swallow.store(true, Ordering::SeqCst);
    let begun = Instant::now();
    assert_eq!(pool.query_within(SHORT, &ONE, &[]).map(drop), Err(Error::TimedOut));
    assert!(begun.elapsed() < SOON, "the caller was freed after {:?}", begun.elapsed());
    proxy.swallow.store(false, Ordering::SeqCst);
    wait_until("the connection is given up and replaced", || pool.stats().connects >= 5);
    wait_until("the pool answers again", || echo(&pool, 3) == Ok(3));
}

/// Passes bytes on slowly and in small pieces, or swallows them.
struct Proxy {
    port: u16,
    swallow: Arc<AtomicBool>,
}

impl Proxy {
    fn start(to: u16) -> Self {
        use std::net::{TcpListener, TcpStream};
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let swallow = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&swallow);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { continue };
                for (from, to) in [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)] {
                    let flag = Arc::clone(&flag);
                    thread::spawn(move || pass_on(from, to, &flag));
                }
            }
        });
        Self { port, swallow }
    }
}

fn pass_on(mut from: std::net::TcpStream, mut to: std::net::TcpStream, swallow: &AtomicBool) {
    use std::io::{Read, Write};
    let mut piece = vec![0; 20_011]; // no power of two: messages are cut anywhere
    // Once something was swallowed the stream has a hole: nothing more may follow.
    let mut dead = false;
    while let Ok(read @ 1..) = from.read(&mut piece) {
        thread::sleep(Duration::from_millis(1));
        dead |= swallow.load(Ordering::SeqCst);
        if !dead && to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Both);
}

// ---- Connections and servers that die --------------------------------------------------------------------------

/// A write of the load: its number, what its caller saw, how long that took.
type Write = (i64, Result<(), Error>, Duration);

/// Inserts numbered rows from many coroutines until told to stop. Each number is tried once.
struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<may::coroutine::JoinHandle<Vec<Write>>>,
    done: Arc<AtomicUsize>,
}

impl Load {
    fn start(pool: &Pool) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let writers = (0..50i64)
            .map(|writer| {
                let (pool, stop, done) = (pool.clone(), Arc::clone(&stop), Arc::clone(&done));
                may::go!(move || {
                    let mut log = Vec::new();
                    let mut id = writer * 1_000_000;
                    while !stop.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        let result = pool.query(&INSERT, &[&id]).map(drop);
                        if result.is_err() {
                            // While the server is away errors come at once: leave the worker to others.
                            nap();
                        }
                        log.push((id, result, begun.elapsed()));
                        done.fetch_add(1, Ordering::Relaxed);
                        id += 1;
                    }
                    log
                })
            })
            .collect();
        Self { stop, writers, done }
    }

    fn await_progress(&self) {
        let before = self.done.load(Ordering::Relaxed);
        wait_until("writers get on", || self.done.load(Ordering::Relaxed) > before + 500);
    }

    /// Ends the load and compares what callers saw with what the server holds.
    fn check(self, server: &Postgres) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        let log: Vec<_> = self.writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        let stored: std::collections::HashMap<i64, i64> = server
            .psql("SELECT id, count(*) FROM t GROUP BY id")
            .lines()
            .map(|line| line.split_once('|').unwrap())
            .map(|(id, count)| (id.parse().unwrap(), count.parse().unwrap()))
            .collect();
        for (id, result, waited) in &log {
            let copies = stored.get(id).copied().unwrap_or(0);
            match result {
                Ok(()) => assert_eq!(copies, 1, "an acknowledged write is there once"),
                Err(Error::TimedOut | Error::Unavailable { maybe_sent: true, .. }) => {
                    assert!(copies <= 1, "never twice")
                }
                Err(Error::Unavailable { maybe_sent: false, .. }) => {
                    assert_eq!(copies, 0, "what was not sent is not there")
                }
                Err(error) => panic!("{error}"),
            }
            assert!(*waited < SOON, "a caller waited {waited:?}: {result:?}");
        }
        log.iter().filter(|(_, result, _)| result.is_err()).count()
    }
}

/// Leaves the worker for a few milliseconds, woken by a thread.
fn nap() {
    let (slot, filler) = snip::runtime::slot();
    thread::spawn(move || {
        thread::sleep(Duration::from_millis(5));
        filler.fill(());
    });
    let _ = slot.wait_until_filled();
}

#[test]
fn terminated_sessions_fail_their_callers_only_and_come_back() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint)");
    let pool = open(&server.url());
    wait_until("all connections are open", || pool.stats().connections == 4);
    let load = Load::start(&pool);
    for _ in 0..3 {
        load.await_progress();
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'snip'");
    }
    load.await_progress();
    load.check(&server);
    wait_until("all connections are open again", || pool.stats().connections == 4);
    assert!(pool.stats().connects >= 8, "{:?}", pool.stats());
}

#[test]
fn readers_do_not_notice_that_a_session_was_terminated() {
    let server = Postgres::start();
    let pool = open(&server.url());
    wait_until("all connections are open", || pool.stats().connections == 4);
    for round in 0..5 {
        let connects = pool.stats().connects;
        let clone = pool.clone();
        let readers = thread::spawn(move || in_coroutines(400, move |n| echo(&clone, n as i64)));
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'snip' LIMIT 2");
        let answers = readers.join().unwrap();
        assert!(answers.into_iter().eq((0..400).map(Ok)), "round {round}: a read is sent again on another connection");
        wait_until("all connections are open again", || {
            pool.stats().connects >= connects + 2 && pool.stats().connections == 4
        });
    }
}

#[test]
fn kill_9_and_restart_under_load_lose_and_repeat_nothing() {
    let mut server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint)");
    let pool = open(&server.url());
    let load = Load::start(&pool);
    for _ in 0..2 {
        load.await_progress();
        server.stop_kill9();
        load.await_progress();
        let begun = Instant::now();
        let error = echo(&pool, 1).unwrap_err();
        assert!(is_unavailable(&error), "{error}");
        assert!(begun.elapsed() < SOON, "without a server a caller waited {:?}", begun.elapsed());
        server.restart();
        wait_until("the pool comes back by itself", || echo(&pool, 2) == Ok(2));
    }
    load.await_progress();
    let failed = load.check(&server);
    assert!(failed > 0);
}

// ---- Poolers ---------------------------------------------------------------------------------------------------

#[test]
fn a_pooler_in_transaction_mode_is_worked_through() {
    let server = Postgres::start();
    server.psql("CREATE TABLE t (id bigint)");
    let bouncer = PgBouncer::start(&server);
    let pool = open(&format!("{}?pgbouncer=true", bouncer.url));
    let clone = pool.clone();
    let answers = in_coroutines(1000, move |n| match n % 4 {
        0 => clone.batch(&[Call::new(&INSERT, &[&(n as i64)]), Call::new(&ECHO, &[&(n as i64)])]).map(|_| n as i64),
        _ => echo(&clone, n as i64),
    });
    assert!(answers.into_iter().eq((0..1000).map(Ok)), "each of 1,000 callers got its own answer");
    assert_eq!(server.psql("SELECT count(*) FROM t"), "250");
    assert_eq!(pool.query(&INSERT, &[&"x"]).map(drop).map_err(|error| matches!(error, Error::Usage(_))), Err(true));
    let error = pool.query_within(SHORT, &SLEEP, &[&3600f64]).unwrap_err();
    assert_eq!(error, Error::TimedOut);
    wait_until("the cancel request went through the pooler", || {
        server.psql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == "0"
    });
    assert_eq!(echo(&pool, 4), Ok(4));
}

/// Debian's pgbouncer in front of a server: two sessions for all clients, transaction by transaction.
struct PgBouncer {
    process: std::process::Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl PgBouncer {
    fn start(server: &Postgres) -> Self {
        let folder = tempfile::Builder::new().prefix("snip-bouncer-").tempdir().unwrap();
        let port = free_port().port();
        let settings = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\ndefault_pool_size = 2\n",
            server.port()
        );
        let file = folder.path().join("pgbouncer.ini");
        std::fs::write(&file, settings).unwrap();
        support::postgres::give_to_server_user(folder.path());
        let binary =
            ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"].into_iter().find(|path| std::fs::exists(path).unwrap());
        let binary = binary.expect("no pgbouncer: install the Debian package pgbouncer");
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = support::postgres::as_server_user(std::process::Command::new(binary));
        let process = command.arg(&file).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        wait_until("pgbouncer listens", || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Self { process, url: format!("postgres://postgres@127.0.0.1:{port}/postgres"), _folder: folder }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
