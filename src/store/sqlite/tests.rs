//! What is special to this store; the trait's meaning is tried by `store::contract_tests`.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rusqlite::params;
use tempfile::TempDir;

use super::*;
use crate::limits::{SQLITE_BATCH_JOBS, SQLITE_QUEUE_JOBS};
use crate::model::{Start, Timestamp};
use crate::store::contract_tests;

const FIRST_PAGE: Page = Page { start: Start::Offset(0), limit: 100 };

/// A store in a folder that goes away with it.
struct Temporary {
    store: Option<SqliteStore>,
    folder: TempDir,
}

impl Temporary {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Some(SqliteStore::open(&folder.path().join("snip.sqlite")).unwrap());
        Self { store, folder }
    }

    fn store(&self) -> &SqliteStore {
        self.store.as_ref().unwrap()
    }

    fn path(&self) -> std::path::PathBuf {
        self.folder.path().join("snip.sqlite")
    }

    /// A second connection, as a plain SQL client has one.
    fn client(&self) -> Connection {
        let client = Connection::open(self.path()).unwrap();
        client.busy_timeout(STORE_DEADLINE).unwrap();
        client
    }

    fn reopen(&mut self) {
        self.store = None;
        self.store = Some(SqliteStore::open(&self.path()).unwrap());
    }
}

fn new_user(name: &str) -> NewUser {
    NewUser { username: name.into(), email: format!("{name}@example.com"), created_at: None }
}

fn new_url(code: &str) -> NewUrl {
    NewUrl { user_id: None, short_code: code.into(), original_url: "https://example.com/".into(), title: None }
}

fn usernames(store: &SqliteStore) -> Vec<String> {
    store.users(FIRST_PAGE).unwrap().into_iter().map(|user| user.username).collect()
}

fn usernames_within(db: &Connection) -> Vec<String> {
    queries::users(db, FIRST_PAGE).unwrap().into_iter().map(|user| user.username).collect()
}

/// Runs `test` while the store's thread is held up inside a job of `access`; what `test` queues is one batch behind it.
fn while_held<T>(store: &SqliteStore, access: Access, test: impl FnOnce() -> T) -> (T, StoreResult<()>) {
    let (entered, has_entered): (Sender<()>, Receiver<()>) = channel();
    let (release, released): (Sender<()>, Receiver<()>) = channel();
    thread::scope(|scope| {
        let holder = scope.spawn(move || {
            store.call(access, None, move |_| {
                entered.send(()).unwrap();
                // An error means that the test is over, by a panic at the worst.
                let _ = released.recv();
                Ok(())
            })
        });
        has_entered.recv().unwrap();
        let result = test();
        drop(release);
        (result, holder.join().unwrap())
    })
}

/// Queues a job without waiting for it, so that the order of several is certain.
fn queue<T: Send + 'static>(
    store: &SqliteStore,
    work: impl FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
) -> crate::runtime::Slot<StoreResult<T>> {
    store.queue.submit(Access::Write, None, work).unwrap()
}

fn one_row<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> T {
    db.query_row(sql, [], |row| row.get(0)).unwrap()
}

// ---- As a store ------------------------------------------------------------------------------------------------

#[test]
fn it_is_a_store() {
    contract_tests::check_all(|| {
        let folder = tempfile::tempdir().unwrap();
        (SqliteStore::open(&folder.path().join("snip.sqlite")).unwrap(), folder)
    });
}

#[test]
fn coroutines_can_call_it() {
    crate::runtime::init();
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(&folder.path().join("snip.sqlite")).unwrap());
    let callers: Vec<_> = (0..100)
        .map(|n| {
            let store = Arc::clone(&store);
            may::go!(move || store.create_user(new_user(&format!("user{n}"))).map(|user| user.username))
        })
        .collect();
    for (n, caller) in callers.into_iter().enumerate() {
        assert_eq!(caller.join().unwrap(), Ok(format!("user{n}")));
    }
    assert_eq!(usernames(&store).len(), 100);
}

// ---- The file --------------------------------------------------------------------------------------------------

#[test]
fn reopening_keeps_the_data() {
    let mut temporary = Temporary::new();
    let url = temporary.store().create_url(new_url("abc123")).unwrap();
    temporary.reopen();
    assert_eq!(temporary.store().url(url.id).unwrap(), Some(url));
}

#[test]
fn dropping_finishes_the_queue_and_empties_the_log() {
    let mut temporary = Temporary::new();
    let store = temporary.store.take().unwrap();
    let (entered, has_entered) = channel();
    let (release, released) = channel::<()>();
    let held = store.queue.submit(Access::Write, None, move |_| {
        entered.send(()).unwrap();
        let _ = released.recv();
        Ok(())
    });
    has_entered.recv().unwrap();
    let queued: Vec<_> =
        (0..10).map(|n| queue(&store, move |db| queries::create_user(db, new_user(&format!("u{n}"))))).collect();
    let dropping = thread::spawn(move || drop(store));
    drop(release);
    dropping.join().unwrap();
    assert!(held.unwrap().wait_until_filled().unwrap().is_ok());
    assert!(queued.into_iter().all(|slot| slot.wait_until_filled().unwrap().is_ok()));
    let log = temporary.folder.path().join("snip.sqlite-wal");
    assert!(!log.exists(), "the log is in the file");
    temporary.reopen();
    assert_eq!(usernames(temporary.store()).len(), 10);
}

#[test]
fn its_settings_hold() {
    let temporary = Temporary::new();
    let settings = temporary.store().read(|db| {
        let number = |sql: &str| one_row::<i64>(db, sql);
        Ok((
            one_row::<String>(db, "PRAGMA journal_mode"),
            number("PRAGMA synchronous"),
            number("PRAGMA foreign_keys"),
            number("PRAGMA busy_timeout"),
        ))
    });
    let lock_wait = crate::limits::SQLITE_LOCK_WAIT.as_millis() as i64;
    assert_eq!(settings, Ok(("wal".into(), 2, 1, lock_wait)), "2 is FULL");
}

#[test]
fn files_that_cannot_be_used_are_told_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let check = |path: &Path, expected: &str| {
        let error = SqliteStore::open(path).map(|_| ()).unwrap_err().to_string();
        assert_eq!(error, expected.replace("{path}", &path.display().to_string()));
    };
    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, but a text that is long enough to be read as a page header").unwrap();
    check(&text, "{path} is not a SQLite database");
    check(folder.path(), "cannot write {path}: are the file and its folder writable?");
    let below_a_file = text.join("snip.sqlite");
    let error = SqliteStore::open(&below_a_file).map(|_| ()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot make the folder of {}: ", below_a_file.display())), "{error}");
    assert!(!error.contains('\n'));
}

#[test]
fn a_store_from_a_newer_version_is_refused() {
    let mut temporary = Temporary::new();
    temporary.store = None;
    let newest: i32 = one_row(&temporary.client(), "PRAGMA user_version");
    temporary.client().pragma_update(None, "user_version", newest + 1).unwrap();
    let error = SqliteStore::open(&temporary.path()).map(|_| ()).unwrap_err().to_string();
    let expected = format!(
        "{} is a store from a newer version of snip (its schema is {}, the newest known here {newest})",
        temporary.path().display(),
        newest + 1
    );
    assert_eq!(error, expected);
    temporary.client().pragma_update(None, "user_version", newest).unwrap();
    temporary.reopen();
}

#[test]
fn missing_folders_are_made() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a/b/snip.sqlite");
    drop(SqliteStore::open(&path).unwrap());
    assert!(path.exists());
}

#[test]
fn rows_from_before_the_statistics_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("snip.sqlite");
    let old = Connection::open(&path).unwrap();
    old.execute_batch(queries::sql!("0001_tables")).unwrap();
    old.execute_batch(
        "INSERT INTO urls (short_code, original_url) VALUES ('abc123', 'https://example.com/');
         INSERT INTO events (url_id, event_type) VALUES (1, 'redirect'), (1, 'created'), (1, 'redirect');",
    )
    .unwrap();
    drop(old);
    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(store.url_stats(1).unwrap().unwrap().redirect_count, 2);
}

// ---- Beside a plain SQL client ---------------------------------------------------------------------------------

#[test]
fn rows_of_a_plain_client_are_read() {
    let temporary = Temporary::new();
    let before = Timestamp::now().micros() / 1_000_000;
    let client = temporary.client();
    client
        .execute_batch(
            "INSERT INTO users (username, email) VALUES ('ann', 'ann@example.com');
             INSERT INTO users (username, email, created_at) VALUES ('bob', 'bob@example.com', CURRENT_TIMESTAMP);
             INSERT INTO urls (user_id, short_code, original_url) VALUES (1, 'abc123', 'https://example.com/');
             INSERT INTO events (url_id, event_type) VALUES (1, 'redirect');
             INSERT INTO events (url_id, event_type, timestamp) VALUES (1, 'seen', '2999-01-01 00:00:00');",
        )
        .unwrap();
    let store = temporary.store();
    for user in store.users(FIRST_PAGE).unwrap() {
        let created_at = user.created_at.micros() / 1_000_000;
        assert!((before..=before + 60).contains(&created_at), "{user:?}");
    }
    let url = store.url(1).unwrap().unwrap();
    assert!(url.is_active && url.title.is_none() && url.updated_at.micros() / 1_000_000 >= before);
    assert_eq!(store.resolve("abc123").unwrap().unwrap().user_id, Some(1));
    assert_eq!(store.url_stats(1).unwrap().unwrap().redirect_count, 1);
    let default: String = one_row(&client, "SELECT created_at FROM users WHERE id = 1");
    assert_eq!(Timestamp::parse(&default).unwrap().sql_text(), default, "the default has the form of ours");
    let events = store.events(EventFilter::default(), FIRST_PAGE).unwrap();
    assert_eq!(events.iter().map(|event| event.event_type.as_str()).collect::<Vec<_>>(), ["seen", "redirect"]);
    let ours = store.create_url(new_url("def456")).unwrap();
    let theirs: (String, bool) = client
        .query_row("SELECT created_at, is_active FROM urls WHERE id = ?1", [ours.id], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(theirs, (ours.created_at.sql_text(), true));
}

#[test]
fn malformed_times_show_as_1970() {
    let temporary = Temporary::new();
    let client = temporary.client();
    for time in ["", "yesterday", "9999-99-99 99:99:99"] {
        client.execute("INSERT INTO events (url_id, event_type, timestamp) VALUES (1, 'x', ?1)", [time]).unwrap();
    }
    client.execute("INSERT INTO events (url_id, event_type, timestamp) VALUES (1, 'x', ?1)", [17]).unwrap();
    client.execute("INSERT INTO events (url_id, event_type, timestamp) VALUES (1, 'x', ?1)", [&[0xFF_u8][..]]).unwrap();
    let store = temporary.store();
    let all = store.events(EventFilter::default(), Page { start: Start::AfterId(5), limit: 100 }).unwrap();
    assert_eq!(all.iter().map(|event| event.id).collect::<Vec<_>>(), [2, 3, 4, 1], "as their texts sort");
    assert!(all.iter().all(|event| event.timestamp == Timestamp::from_micros(0)));
    let behind = store.events(EventFilter::default(), Page { start: Start::AfterId(3), limit: 100 }).unwrap();
    assert_eq!(behind.iter().map(|event| event.id).collect::<Vec<_>>(), [4, 1]);
}

#[test]
fn statistics_follow_a_plain_client() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let (first, second) = (store.create_url(new_url("abc123")).unwrap().id, store.create_url(new_url("d")).unwrap().id);
    let client = temporary.client();
    let check = |sql: &str, expected: (i64, i64)| {
        client.execute_batch(sql).unwrap();
        let count = |id| store.url_stats(id).unwrap().unwrap().redirect_count;
        assert_eq!((count(first), count(second)), expected, "{sql}");
    };
    check("INSERT INTO events (id, url_id, event_type) VALUES (90, 1, 'redirect'), (91, 1, 'redirect')", (2, 0));
    check("UPDATE events SET url_id = 2 WHERE id = 90", (1, 1));
    check("UPDATE events SET event_type = 'seen' WHERE id = 91", (0, 1));
    check("UPDATE events SET event_type = 'redirect' WHERE id = 91", (1, 1));
    check("UPDATE events SET details = '{}'", (1, 1));
    check("DELETE FROM events WHERE url_id = 2", (1, 0));
}

#[test]
fn a_locked_file_stops_writers_alone() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let mut client = temporary.client();
    let lock = client.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).unwrap();
    let (queued, _) = while_held(store, Access::Read, || {
        let writer = queue(store, |db| queries::create_user(db, new_user("ann")));
        let reader = store.queue.submit(Access::Read, None, queries::active_urls).unwrap();
        (writer, reader)
    });
    let writer = queued.0.wait_until_filled().unwrap();
    assert!(matches!(writer, Err(StoreError::Unavailable(ref why)) if why.contains("locked")), "{writer:?}");
    assert_eq!(queued.1.wait_until_filled().unwrap(), Ok(0));
    lock.commit().unwrap();
    assert!(store.create_user(new_user("ann")).is_ok());
}

// ---- The queue and group commit --------------------------------------------------------------------------------

#[test]
fn many_writers_share_the_store() {
    let temporary = Temporary::new();
    let store = temporary.store();
    thread::scope(|scope| {
        for writer in 0..16 {
            scope.spawn(move || {
                for n in 0..20 {
                    let user = store.create_user(new_user(&format!("user{writer}-{n}"))).unwrap();
                    assert_eq!(store.user(user.id).unwrap(), Some(user), "what is written can be read");
                }
            });
        }
    });
    assert_eq!(one_row::<i64>(&temporary.client(), "SELECT count(*) FROM users"), 320);
}

#[test]
fn a_batch_is_one_transaction_and_a_failure_in_it_is_alone() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let client = temporary.client();
    let ((slots, last), _) = while_held(store, Access::Write, || {
        let names = ["ann", "bob", "ann", "cid"];
        let slots = names.map(|name| queue(store, move |db| queries::create_user(db, new_user(name))));
        let last = queue(store, move |db| Ok((usernames_within(db), usernames_within(&client))));
        (slots, last)
    });
    let (within, outside) = last.wait_until_filled().unwrap().unwrap();
    assert_eq!(within, ["ann", "bob", "cid"]);
    assert_eq!(outside, [""; 0], "nothing is committed before the last job of the batch");
    let [ann, bob, again, cid] = slots.map(|slot| slot.wait_until_filled().unwrap());
    assert!(ann.is_ok() && bob.is_ok() && cid.is_ok());
    assert_eq!(again, Err(StoreError::Conflict(Constraint::Username)));
    assert_eq!(usernames(store), ["ann", "bob", "cid"]);
}

#[test]
fn a_failed_job_leaves_nothing_half_done() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let half = store.write(|db| {
        queries::create_user(db, new_user("half"))?;
        Err::<(), _>(StoreError::Internal("on purpose".into()))
    });
    assert_eq!(half, Err(StoreError::Internal("on purpose".into())));
    assert_eq!(usernames(store), [""; 0]);
}

#[test]
fn a_panic_is_its_callers_alone() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let (slots, _) = while_held(store, Access::Read, || {
        let before = queue(store, |db| queries::create_user(db, new_user("before")));
        let panics = queue(store, |db| {
            queries::create_user(db, new_user("half"))?;
            if usernames_within(db).contains(&"half".into()) {
                panic!("on purpose");
            }
            Ok(())
        });
        let after = queue(store, |db| queries::create_user(db, new_user("after")));
        (before, panics, after)
    });
    assert!(slots.0.wait_until_filled().unwrap().is_ok());
    let panicked = Err(StoreError::Internal("a job of the store panicked: on purpose".into()));
    assert_eq!(slots.1.wait_until_filled().unwrap(), panicked);
    assert!(slots.2.wait_until_filled().unwrap().is_ok());
    assert_eq!(usernames(store), ["before", "after"]);
}

#[test]
fn a_failed_commit_is_told_to_all() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let (slots, _) = while_held(store, Access::Read, || {
        let first = queue(store, |db| queries::create_user(db, new_user("ann")));
        // A deferred foreign key is looked at by COMMIT.
        let second = queue(store, |db| {
            db.pragma_update(None, "defer_foreign_keys", true)?;
            queries::create_url(db, NewUrl { user_id: Some(99), ..new_url("abc123") })
        });
        let third = store.queue.submit(Access::Read, None, queries::active_urls).unwrap();
        (first, second, third)
    });
    assert!(slots.0.wait_until_filled().unwrap().is_err());
    assert!(slots.1.wait_until_filled().unwrap().is_err());
    assert!(slots.2.wait_until_filled().unwrap().is_err(), "it saw what was never committed");
    assert_eq!(usernames(store), [""; 0]);
    assert_eq!(store.active_urls().unwrap(), 0);
    assert!(store.create_user(new_user("ann")).is_ok(), "the next transaction is not hurt");
}

#[test]
fn a_transaction_that_sqlite_undoes_is_told_to_all() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let (slots, _) = while_held(store, Access::Read, || {
        let before = queue(store, |db| queries::create_user(db, new_user("before")));
        let undone = queue(store, |db| {
            db.execute_batch("ROLLBACK")?;
            Err::<(), _>(StoreError::Unavailable("the disk is full".into()))
        });
        let after = queue(store, |db| queries::create_user(db, new_user("after")));
        (before, undone, after)
    });
    let full = StoreError::Unavailable("the disk is full".into());
    assert_eq!(slots.0.wait_until_filled().unwrap().unwrap_err(), full);
    assert_eq!(slots.1.wait_until_filled().unwrap().unwrap_err(), full);
    assert_eq!(slots.2.wait_until_filled().unwrap().unwrap_err(), full);
    assert_eq!(usernames(store), [""; 0]);
}

#[test]
fn a_full_disk_is_unavailable_and_the_store_recovers() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let pages = store.read(|db| Ok(one_row::<i64>(db, "PRAGMA page_count"))).unwrap();
    let cap = |pages: i64| store.read(move |db| Ok(one_row::<i64>(db, &format!("PRAGMA max_page_count = {pages}"))));
    cap(pages).unwrap();
    let long = NewUrl { title: Some("t".repeat(100_000)), ..new_url("abc123") };
    let refused = store.create_url(long.clone());
    assert!(matches!(refused, Err(StoreError::Unavailable(ref why)) if why.contains("full")), "{refused:?}");
    cap(i64::from(u32::MAX - 1)).unwrap();
    assert!(store.create_url(long).is_ok());
}

#[test]
fn a_full_queue_is_busy() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let (slots, _) = while_held(store, Access::Read, || {
        let slots: Vec<_> = (0..SQLITE_QUEUE_JOBS)
            .map(|n| queue(store, move |db| queries::create_user(db, new_user(&format!("user{n}")))))
            .collect();
        assert_eq!(store.create_user(new_user("refused")), Err(StoreError::Busy));
        assert_eq!(store.health(), Err(StoreError::Busy));
        slots
    });
    assert!(slots.into_iter().all(|slot| slot.wait_until_filled().unwrap().is_ok()));
    assert_eq!(one_row::<i64>(&temporary.client(), "SELECT count(*) FROM users"), SQLITE_QUEUE_JOBS as i64);
    const { assert!(SQLITE_BATCH_JOBS < SQLITE_QUEUE_JOBS, "the queue above is more than one batch") }
}

#[test]
fn a_job_that_nobody_waits_for_any_more_is_left_undone() {
    let temporary = Temporary::new();
    let store = temporary.store();
    let (timed_out, _) = while_held(store, Access::Read, || {
        // One of the few constant limits; the shortest there is.
        let limit = crate::limits::SQLITE_LOCK_WAIT;
        store.call(Access::Write, Some(limit), |db| queries::create_user(db, new_user("late")))
    });
    assert_eq!(timed_out, Err(StoreError::Unavailable("SQLite did not answer in time".into())));
    assert_eq!(usernames(store), [""; 0]);
}

/// Bytes that this thread has given to `write` and its like so far (proc(5)).
fn bytes_written() -> u64 {
    let io = std::fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

/// Each click's statement used to copy all pages that it changed into a file: some 20 KiB a click, most of the batch's time.
#[test]
fn clicks_are_written_without_copies_of_pages() {
    const CLICKS: u64 = 2000;
    let temporary = Temporary::new();
    let url_id = temporary.store().create_url(new_url("code")).unwrap().id;
    let (at, journal) = (Timestamp::now(), JournalId([7; 16]));
    let click = Click { url_id, user_id: None, at, client: None, user_agent: None, referrer: None };
    let record = |from: u64, to: u64| {
        let (clicks, instance) = (vec![click.clone(); CLICKS as usize], "one".into());
        let step = JournalStep { journal, instance, from, to };
        let written = temporary.store().write(move |db| {
            let before = bytes_written();
            assert_eq!(queries::record_clicks(db, &clicks, &step)?, step.to);
            Ok(bytes_written() - before)
        });
        written.unwrap()
    };
    // The second batch finds pages that the savepoint copies.
    let written = record(JournalStep::UNKNOWN, 1).max(record(1, 2));
    assert!(written < CLICKS * 1024, "{written} bytes for {CLICKS} clicks");
    assert_eq!(temporary.store().url_stats(url_id).unwrap().unwrap().redirect_count, 2 * CLICKS as i64);
}

// ---- Plans -----------------------------------------------------------------------------------------------------

/// The lines of the plan; parameters unbound are null, and the plan does not look at them.
fn plan(db: &Connection, sql: &str) -> String {
    let mut statement = db.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).unwrap();
    let mut rows = statement.raw_query();
    let mut lines = Vec::new();
    while let Some(row) = rows.next().unwrap() {
        lines.push(row.get::<_, String>(3).unwrap());
    }
    lines.join("; ")
}

/// With `statistics` SQLite may know a better index, but must still neither sort nor read whole tables.
fn check_plans(db: &Connection, statistics: bool) {
    let check = |sql: &str, expected: &str| {
        let plan = plan(db, sql);
        assert!(statistics || plan.starts_with(expected), "{sql}\nplan: {plan}\nwanted: {expected}");
        assert!(!plan.contains("TEMP B-TREE") && !plan.contains("SCAN"), "{sql}\nplan: {plan}");
    };
    check(queries::sql!("users_list"), "SEARCH users USING INTEGER PRIMARY KEY (rowid>?)");
    check(queries::sql!("url_resolve"), "SEARCH urls USING INDEX urls_short_code_key (short_code=?)");
    check(queries::sql!("urls_count_active"), "SEARCH urls USING COVERING INDEX urls_is_active_idx (is_active=?)");
    check(queries::sql!("urls_disown"), "SEARCH urls USING COVERING INDEX urls_user_id_idx (user_id=?)");
    check(queries::sql!("events_disown"), "SEARCH events USING INDEX events_user_id_idx (user_id=?)");
    let urls = |user_id, is_active| queries::urls_list(UrlFilter { user_id, is_active });
    check(urls(None, None), "SEARCH urls USING INTEGER PRIMARY KEY (rowid>?)");
    check(urls(Some(1), None), "SEARCH urls USING INDEX urls_user_id_idx (user_id=? AND rowid>?)");
    check(urls(None, Some(true)), "SEARCH urls USING INDEX urls_is_active_idx (is_active=? AND rowid>?)");
    check(urls(Some(1), Some(true)), "SEARCH urls USING INDEX urls_user_id_idx (user_id=? AND rowid>?)");
    let events = |url_id, user_id, event_type: Option<&str>| {
        queries::events_list(&EventFilter { url_id, user_id, event_type: event_type.map(str::to_owned) })
    };
    for user_id in [None, Some(1)] {
        for event_type in [None, Some("redirect"), Some("created")] {
            let of_url = events(Some(1), user_id, event_type);
            check(of_url, "SEARCH events USING INDEX events_url_id_idx (url_id=? AND timestamp<?)");
        }
    }
    for event_type in [None, Some("redirect"), Some("created")] {
        let of_user = events(None, Some(1), event_type);
        check(of_user, "SEARCH events USING INDEX events_user_id_idx (user_id=? AND timestamp<?)");
    }
    let of_type = events(None, None, Some("redirect"));
    check(of_type, "SEARCH events USING INDEX events_event_type_idx (event_type=? AND timestamp<?)");
    check(
        events(None, None, None),
        "MERGE (UNION ALL); LEFT; SEARCH events USING INDEX events_event_type_idx (event_type=? AND timestamp<?); RIGHT; SEARCH events USING \
         INDEX events_others_idx (timestamp<?)",
    );
}

#[test]
fn lists_use_their_indexes_and_never_sort() {
    let temporary = Temporary::new();
    check_plans(&temporary.client(), false);
    // With rows and statistics too, which a database administrator may have gathered.
    let client = temporary.client();
    let mut insert = client.prepare("INSERT INTO urls (short_code, original_url) VALUES (?1, '')").unwrap();
    for n in 0..500 {
        insert.execute([n]).unwrap();
    }
    let mut insert = client.prepare("INSERT INTO events (url_id, user_id, event_type) VALUES (?1, ?2, ?3)").unwrap();
    for n in 0..500 {
        insert.execute(params![n % 50, n % 20, "redirect"]).unwrap();
    }
    client.execute_batch("ANALYZE").unwrap();
    check_plans(&temporary.client(), true);
}
