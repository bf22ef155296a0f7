//! `snip journal inspect` and `ship` on journals in every state, and what a server says of them when it starts.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;
use snip::clicks::{ClickRef, Journal, Options};
use snip::model::Timestamp;
use support::command::{self, Finished, run};
use support::postgres::Postgres;
use support::snip::{Launch, Place, StoreKind};
use support::wait::eventually;

const LIMIT: Duration = Duration::from_secs(60);
const CLICKS: i64 = 5;
// Bytes of a segment's header, and of each record below (docs/clicks.md).
const HEADER: usize = 256;
const RECORD: usize = 64;

/// A journal of [`CLICKS`] clicks that the instance `name` left; returns its folder and its file.
fn left_over(place: &Place, name: &str) -> (PathBuf, PathBuf) {
    leave(place, name, 1..=CLICKS)
}

/// As [`left_over`], with a click on each of these URLs.
fn leave(place: &Place, name: &str, url_ids: impl Iterator<Item = i64>) -> (PathBuf, PathBuf) {
    let folder = place.data_dir().join("journal").join(name);
    let journal = Journal::open(Options::new(&folder, name)).expect("a journal");
    for url_id in url_ids {
        let at = Timestamp::from_micros(url_id);
        journal.append(ClickRef { url_id, user_id: None, at, client: None, user_agent: None, referrer: None });
    }
    drop(journal);
    let file = fs::read_dir(&folder).expect("files").map(|entry| entry.expect("a file").path());
    let file = file.into_iter().find(|path| path.extension().is_some_and(|it| it == "clicks")).expect("a segment");
    (folder, file)
}

fn place() -> Arc<Place> {
    Place::new(StoreKind::Sqlite)
}

fn change(file: &Path, at: usize, value: impl Fn(u8) -> u8) {
    let mut bytes = fs::read(file).expect("the file");
    bytes[at] = value(bytes[at]);
    fs::write(file, bytes).expect("the file");
}

fn inspect(folder: &Path) -> Finished {
    run(command::snip().args(["journal", "inspect"]).arg(folder), LIMIT)
}

fn ship(place: &Place, folder: &Path) -> Finished {
    let mut command = command::snip();
    run(command.args(["journal", "ship", "--data-dir"]).arg(place.data_dir()).arg(folder), LIMIT)
}

fn stored(place: &Place) -> i64 {
    let db = Connection::open(place.data_dir().join("snip.db")).expect("the file");
    db.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("a count")
}

#[test]
fn a_healthy_one_is_shipped_once() {
    let place = place();
    let (folder, _) = left_over(&place, "old");
    let report = inspect(&folder).success().stdout;
    assert!(report.contains("instance   old\n") && report.contains("clicks     5, "), "{report}");
    let told = ship(&place, &folder).success().stdout;
    assert_eq!(told, format!("Stored 5 clicks and removed the journal in {}\n", folder.display()));
    assert_eq!(stored(&place), CLICKS);
    let complaint = ship(&place, &folder).one_line_of_complaint().to_owned();
    assert_eq!(complaint, format!("snip: there is no click journal in {}", folder.display()));
}

/// Damage in the third click: two are stored, and the rest is told.
#[test]
fn flipped_bits_lose_what_lies_behind_and_say_so() {
    let place = place();
    let (folder, file) = left_over(&place, "old");
    change(&file, HEADER + 2 * RECORD + 30, |byte| byte ^ 4);
    let report = inspect(&folder).success().stdout;
    assert!(report.contains("clicks     2, ") && report.contains("TORN at byte 384 of "), "{report}");
    let told = ship(&place, &folder).success().stdout;
    assert!(told.contains("Stored 2 clicks") && told.contains("3 clicks behind damaged records are lost"), "{told}");
    assert_eq!(stored(&place), 2);
}

#[test]
fn half_a_record_at_the_end_is_no_click() {
    let place = place();
    let (folder, file) = left_over(&place, "old");
    // Without its checksum, which is written last, the last record is unfinished.
    (0..4).for_each(|at| change(&file, HEADER + 4 * RECORD + at, |_| 0));
    let report = inspect(&folder).success().stdout;
    assert!(report.contains("clicks     4, ") && report.contains("half a record"), "{report}");
    assert!(ship(&place, &folder).success().stdout.starts_with("Stored 4 clicks"));
    assert_eq!(stored(&place), 4);
}

#[test]
fn another_format_is_refused() {
    let place = place();
    let (folder, file) = left_over(&place, "old");
    change(&file, 8, |_| 0);
    let report = inspect(&folder).success().stdout;
    assert!(report.contains("format 0, which this program does not know"), "{report}");
    let complaint = ship(&place, &folder).one_line_of_complaint().to_owned();
    assert!(complaint.contains("has format 0, this program knows 1"), "{complaint}");
    assert!(file.exists());
}

#[test]
fn another_instances_is_refused_at_the_start() {
    let place = place();
    let (folder, _) = left_over(&place, "old");
    fs::rename(&folder, folder.with_file_name("new")).expect("another name");
    let mut command = place.command("serve");
    let ended = run(command.args(["--listen", "127.0.0.1:0", "--instance-id", "new"]), LIMIT);
    assert!(!ended.status.success());
    let told = ended.stderr.contains("was written by the instance 'old'; store its clicks with 'snip journal ship ");
    assert!(told, "{ended:#?}");
}

/// The file lost its end after the store had taken it: nothing is stored twice, none is invented.
#[test]
fn a_position_ahead_of_the_file_stores_nothing() {
    let place = place();
    let (folder, file) = left_over(&place, "old");
    let bytes = fs::read(&file).expect("the file");
    ship(&place, &folder).success();
    fs::create_dir_all(&folder).expect("the folder");
    fs::write(&file, &bytes[..HEADER + 3 * RECORD]).expect("the file");
    let told = ship(&place, &folder).success();
    assert!(told.stdout.starts_with("Stored 0 clicks"), "{told:#?}");
    assert_eq!(stored(&place), CLICKS);
}

#[test]
fn a_server_tells_what_others_left() {
    let place = place();
    let (folder, _) = left_over(&place, "old");
    let snip = Launch::at(Arc::clone(&place)).arg("--instance-id").arg("new").start();
    let advice = format!("snip journal ship {}", folder.display());
    eventually("a line in the log", LIMIT, || snip.log().contains(&advice));
    // And it leaves the lock to whoever follows the advice.
    assert!(ship(&place, &folder).success().stdout.starts_with("Stored 5 clicks"));
}

/// So slow that what is waiting does not get through within the deadline of one transaction (`limits::STORE_DEADLINE`).
#[test]
fn a_store_that_has_become_slow_gets_every_click_once() {
    const WAITING: i64 = 2_000;
    let (place, postgres) = (place(), Postgres::start());
    let start = || {
        let launch = Launch::at(Arc::clone(&place)).arg("--instance-id").arg("slow");
        launch.arg("--database-url").arg(postgres.url()).start()
    };
    let (id, _) = start().client().shorten("https://www.example.com/");
    postgres.psql(
        "CREATE FUNCTION rest() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.004); RETURN NEW; END';
         CREATE TRIGGER slow BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION rest()",
    );
    leave(&place, "slow", std::iter::repeat_n(id, WAITING as usize));
    let snip = start();
    let count = || {
        postgres
            .psql("SELECT count(*) FROM events WHERE event_type = 'redirect'")
            .trim()
            .parse::<i64>()
            .expect("a number")
    };
    eventually("all clicks are stored", LIMIT, || count() >= WAITING);
    let mut client = snip.client();
    eventually("none waits", LIMIT, || client.metric("clicks_waiting") == 0.0);
    assert!(client.metric("clicks_batches_refused_total") > 0.0, "it was not slow enough");
    assert_eq!(count(), WAITING);
}
