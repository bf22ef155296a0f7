//! From the journal to a store that fails as told.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::burst::{Load, Sight};
use super::segment::{HEADER_BYTES, first_sequence};
use super::*;
use crate::error::{StoreError, StoreResult};
use crate::limits::{
    CLICKS_BATCH_MAX, CLICKS_BURST_IDLE_PERCENT, CLICKS_BURST_MAX, CLICKS_BURST_RATE, JOURNAL_SEGMENT_BYTES,
};
use crate::model::{Click, Id, JournalId, JournalStep, Timestamp};

/// Long enough that only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a store does with the next batch that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mood {
    Takes,
    /// Does nothing and says so.
    Refuses,
    /// Takes it and says that it did not answer.
    TakesSilently,
    /// Takes it and panics.
    Panics,
    /// Takes at most so many clicks at a time: more would last too long.
    TakesAtMost(usize),
}

/// A store in memory.
struct Memory {
    state: Mutex<State>,
    changed: std::sync::Condvar,
}

struct State {
    moods: Vec<Mood>,
    /// When the moods are used up.
    lasting: Mood,
    clicks: Vec<Click>,
    positions: HashMap<[u8; 16], u64>,
    offers: Vec<(usize, u64, u64)>,
}

impl Memory {
    fn new() -> Arc<Self> {
        let (moods, clicks, positions, offers) = Default::default();
        let state = Mutex::new(State { moods, lasting: Mood::Takes, clicks, positions, offers });
        Arc::new(Self { state, changed: std::sync::Condvar::new() })
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    fn get<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().unwrap())
    }

    /// Waits until `holds`.
    fn wait_until(&self, what: &str, holds: impl Fn(&State) -> bool) {
        let state = self.state.lock().unwrap();
        let (state, outcome) = self.changed.wait_timeout_while(state, PATIENCE, |state| !holds(state)).unwrap();
        assert!(!outcome.timed_out(), "waited in vain until {what}: {:?}", state.offers);
    }

    fn ids(&self) -> Vec<Id> {
        self.get(|state| state.clicks.iter().map(|click| click.url_id).collect())
    }
}

impl ClickStore for Memory {
    fn batch_max(&self) -> usize {
        CLICKS_BATCH_MAX
    }

    fn record_clicks(&self, clicks: Arc<Vec<Click>>, step: JournalStep) -> StoreResult<u64> {
        let mut state = self.state.lock().unwrap();
        state.offers.push((clicks.len(), step.from, step.to));
        self.changed.notify_all();
        let mood = if state.moods.is_empty() { state.lasting } else { state.moods.remove(0) };
        if mood == Mood::Refuses || matches!(mood, Mood::TakesAtMost(count) if clicks.len() > count) {
            return Err(StoreError::Unavailable("on purpose".into()));
        }
        let position = state.positions.get(&step.journal.0).copied().unwrap_or(JournalStep::UNKNOWN);
        if position == step.from {
            state.positions.insert(step.journal.0, step.to);
            state.clicks.extend(clicks.iter().cloned());
        }
        if mood == Mood::Panics {
            drop(state);
            panic!("on purpose");
        }
        if mood == Mood::TakesSilently {
            return Err(StoreError::Unavailable("no answer, on purpose".into()));
        }
        Ok(state.positions.get(&step.journal.0).copied().unwrap_or(JournalStep::UNKNOWN))
    }

    fn journal_position(&self, journal: JournalId) -> StoreResult<Option<u64>> {
        let state = self.state.lock().unwrap();
        match state.lasting {
            Mood::Refuses => Err(StoreError::Unavailable("on purpose".into())),
            Mood::Takes | Mood::TakesSilently | Mood::Panics | Mood::TakesAtMost(_) => {
                Ok(state.positions.get(&journal.0).copied())
            }
        }
    }
}

fn click(id: Id) -> ClickRef<'static> {
    let at = Timestamp::from_micros(1_000_000 + id);
    ClickRef { url_id: id, user_id: None, at, client: None, user_agent: Some(b"agent"), referrer: None }
}

/// A folder with a journal that comes and goes.
struct Place {
    folder: TempDir,
    store: Arc<Memory>,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), store: Memory::new() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("web-1")
    }

    fn start(&self) -> Clicks {
        Clicks::start(Arc::clone(&self.store) as Arc<dyn ClickStore>, Options::new(&self.path(), "web-1")).unwrap()
    }

    /// Appends these to a journal that no store ever sees, as a run does that is killed.
    fn leave(&self, ids: std::ops::Range<Id>) {
        let journal = Journal::open(Options::new(&self.path(), "web-1")).unwrap();
        ids.for_each(|id| journal.append(click(id)));
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|it| it == "clicks")).collect();
        files.sort();
        files
    }
}

/// However long the machine stands still meanwhile, one flush that gave up is no hang.
fn flush(clicks: &Clicks) {
    let begun = Instant::now();
    while !clicks.flush() {
        assert!(begun.elapsed() < PATIENCE, "clicks are not stored");
    }
}

fn end(clicks: &Clicks) {
    assert_eq!(clicks.close(PATIENCE), 0, "clicks that are left");
}

#[test]
fn clicks_get_into_the_store_in_order() {
    let place = Place::new();
    let clicks = place.start();
    for id in 0..10 {
        clicks.record(click(id));
    }
    flush(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..10));
    clicks.record(click(10));
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..11));
    let stored = place.store.get(|state| state.clicks[3].clone());
    assert_eq!((stored.at, stored.user_agent.as_deref()), (Timestamp::from_micros(1_000_003), Some("agent")));
    assert_eq!(clicks.stats().recorded.load(Ordering::Relaxed), 11);
}

#[test]
fn without_anybody_asking_they_are_shipped_too() {
    let place = Place::new();
    let clicks = place.start();
    clicks.record(click(1));
    place.store.wait_until("a batch was offered", |state| !state.offers.is_empty());
    end(&clicks);
    assert_eq!(place.store.ids(), [1]);
}

#[test]
fn what_a_killed_run_left_is_shipped_once() {
    let place = Place::new();
    place.leave(0..5);
    place.leave(5..10);
    let clicks = place.start();
    clicks.record(click(10));
    flush(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..11), "a flush waits for what was left, too");
    assert_eq!(clicks.stats().recovered.load(Ordering::Relaxed), 10);
    end(&clicks);
    drop(clicks);
    // Its last segment is still there, and all of it is known to the store.
    assert_eq!(place.files().len(), 1);
    let clicks = place.start();
    clicks.record(click(11));
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..12));
}

#[test]
fn a_batch_without_an_answer_is_not_stored_twice() {
    for moods in [
        vec![Mood::TakesSilently],
        vec![Mood::Panics],
        vec![Mood::Refuses],
        vec![Mood::Refuses, Mood::TakesSilently, Mood::TakesSilently, Mood::Panics, Mood::Refuses],
    ] {
        let place = Place::new();
        place.store.set(|state| state.moods = moods.clone());
        let clicks = place.start();
        for id in 0..100 {
            clicks.record(click(id));
            if id == 50 {
                flush(&clicks);
            }
        }
        end(&clicks);
        assert_eq!(place.store.ids(), Vec::from_iter(0..100), "{moods:?}");
        let refused = moods.iter().filter(|mood| **mood != Mood::Takes).count() as u64;
        assert_eq!(clicks.stats().refused_batches.load(Ordering::Relaxed), refused);
        assert_eq!(clicks.stats().stored.load(Ordering::Relaxed), 100);
    }
}

#[test]
fn a_smaller_offer_finds_that_a_larger_one_was_taken() {
    let place = Place::new();
    place.leave(0..1000);
    place.store.set(|state| state.moods = vec![Mood::Refuses, Mood::TakesSilently]);
    let clicks = place.start();
    flush(&clicks);
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..1000));
    let sizes: Vec<_> = place.store.get(|state| state.offers.iter().map(|offer| offer.0).collect());
    // The third was for nothing: the second was in the store. What is left after it is less than the store may get again.
    assert_eq!(sizes, [1000, 500, 250, 500]);
    assert_eq!(clicks.stats().stored.load(Ordering::Relaxed), 1000);
    assert_eq!(clicks.stats().waiting(), 0);
}

#[test]
fn a_store_that_is_too_slow_for_a_batch_gets_smaller_ones_and_then_larger_ones_again() {
    let place = Place::new();
    place.leave(0..1000);
    place.store.set(|state| state.lasting = Mood::TakesAtMost(200));
    let clicks = place.start();
    flush(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..1000));
    end(&clicks);
    drop(clicks);
    place.leave(1000..3000);
    place.store.set(|state| (state.moods, state.lasting) = (vec![Mood::Refuses; 3], Mood::Takes));
    place.store.set(|state| state.offers.clear());
    let clicks = place.start();
    flush(&clicks);
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..3000));
    let sizes: Vec<_> = place.store.get(|state| state.offers.iter().map(|offer| offer.0).collect());
    assert_eq!(sizes, [2000, 1000, 500, 250, 500, 1000, 250]);
}

/// The worst moment: the batch is stored, its answer is lost, and then the process is killed.
#[test]
fn a_batch_that_was_stored_in_a_killed_runs_last_moment_is_not_stored_twice() {
    let place = Place::new();
    let clicks = place.start();
    (0..10).for_each(|id| clicks.record(click(id)));
    end(&clicks);
    drop(clicks);
    let newest = place.files().pop().unwrap();
    let mark = segment::read_mark(&newest).unwrap();
    // The run died before it could note this mark.
    segment::write_mark(&newest, 0).unwrap();
    assert!(mark > 0);
    let clicks = place.start();
    flush(&clicks);
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..10));
}

#[test]
fn with_the_store_away_the_journal_holds_everything() {
    let place = Place::new();
    place.store.set(|state| state.lasting = Mood::Refuses);
    let clicks = place.start();
    let count = 3 * CLICKS_BATCH_MAX as Id + 7;
    (0..count).for_each(|id| clicks.record(click(id)));
    assert_eq!(clicks.close(Duration::from_millis(1)), count as u64, "they stay");
    drop(clicks);
    place.store.set(|state| state.lasting = Mood::Takes);
    let clicks = place.start();
    clicks.record(click(count));
    flush(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..=count));
    let largest = place.store.get(|state| state.offers.iter().map(|offer| offer.0).max());
    assert_eq!(largest, Some(CLICKS_BATCH_MAX), "in bounded batches");
    assert_eq!(clicks.stats().waiting(), 0);
    end(&clicks);
}

#[test]
fn a_flush_gives_up_on_a_store_that_is_away() {
    let place = Place::new();
    place.store.set(|state| state.lasting = Mood::Refuses);
    let clicks = place.start();
    clicks.record(click(1));
    let began = Instant::now();
    assert!(!clicks.flush());
    assert!(began.elapsed() >= CLICKS_FLUSH_DEADLINE, "it waits, ");
    assert!(began.elapsed() < PATIENCE, "but not for ever");
    clicks.close(Duration::from_millis(1));
}

#[test]
fn segments_that_are_stored_go() {
    let place = Place::new();
    let clicks = place.start();
    let long = vec![b'x'; 500];
    // Three segments and more.
    for id in 0..50_000 {
        clicks.record(ClickRef { user_agent: Some(&long), ..click(id) });
    }
    flush(&clicks);
    assert!(clicks.size().segments <= 2, "{:?}", clicks.size());
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..50_000));
    drop(clicks);
    assert_eq!(place.files().len(), 1, "the newest stays: it has the journal's name");
}

#[test]
fn a_store_that_never_heard_of_a_stored_journal_gets_the_rest() {
    let mut place = Place::new();
    let clicks = place.start();
    (0..5).for_each(|id| clicks.record(click(id)));
    end(&clicks);
    drop(clicks);
    place.leave(5..8);
    place.store = Memory::new();
    let clicks = place.start();
    end(&clicks);
    assert_eq!(place.store.ids(), [5, 6, 7]);
}

#[test]
fn a_position_ahead_of_its_segment_is_believed() {
    let place = Place::new();
    place.leave(0..10);
    let clicks = place.start();
    end(&clicks);
    drop(clicks);
    // The host crashed: the end of the file, which the store has, never got to the disk.
    let newest = place.files().pop().unwrap();
    let bytes = fs::read(&newest).unwrap();
    fs::write(&newest, &bytes[..HEADER_BYTES + 3 * 72]).unwrap();
    let clicks = place.start();
    clicks.record(click(10));
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..11));
}

#[test]
fn a_position_ahead_of_all_segments_loses_no_new_click() {
    let place = Place::new();
    place.leave(0..3);
    let journal = segment::read_header(&place.files()[0]).unwrap().unwrap().journal;
    let far = first_sequence(u64::from(u32::MAX) * 2);
    place.store.set(|state| state.positions.extend([(journal.0, far)]));
    let clicks = place.start();
    (3..6).for_each(|id| clicks.record(click(id)));
    end(&clicks);
    drop(clicks);
    let clicks = place.start();
    clicks.record(click(6));
    end(&clicks);
    assert_eq!(place.store.ids(), [3, 4, 5, 6]);
}

#[test]
fn a_store_put_back_to_an_earlier_state_gets_what_is_still_there() {
    let place = Place::new();
    let clicks = place.start();
    (0..3).for_each(|id| clicks.record(click(id)));
    flush(&clicks);
    let backup = place.store.get(|state| (state.clicks.clone(), state.positions.clone()));
    (3..6).for_each(|id| clicks.record(click(id)));
    flush(&clicks);
    place.store.set(|state| (state.clicks, state.positions) = backup);
    (6..9).for_each(|id| clicks.record(click(id)));
    flush(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..9));
    assert_eq!(clicks.stats().waiting(), 0);
    end(&clicks);
}

#[test]
fn a_store_that_forgets_the_journal_gets_each_click_once() {
    let place = Place::new();
    let clicks = place.start();
    (0..3).for_each(|id| clicks.record(click(id)));
    flush(&clicks);
    place.store.set(|state| state.positions.clear());
    (3..6).for_each(|id| clicks.record(click(id)));
    flush(&clicks);
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..6));
}

#[test]
fn damage_that_is_read_again_is_counted_once() {
    let place = Place::new();
    place.store.set(|state| state.lasting = Mood::Refuses);
    // Nothing is read before the store has told the journal's position.
    let clicks = place.start();
    (0..10).for_each(|id| clicks.record(click(id)));
    let segment = place.files().remove(0);
    let file = fs::File::options().write(true).open(&segment).unwrap();
    file.write_all_at(b"A", (HEADER_BYTES + 4 * 72 + 64) as u64).unwrap(); // instead of an "a", in the fifth's user agent
    place.store.set(|state| (state.moods, state.lasting) = (vec![Mood::Refuses; 3], Mood::Takes));
    place.store.wait_until("they are stored", |state| state.clicks.len() == 4);
    clicks.close(Duration::from_millis(1));
    assert_eq!(clicks.size().skipped, 6, "it and those behind it");
}

#[test]
fn torn_segments_give_what_lies_before_the_damage() {
    let record = 72;
    for flip in [HEADER_BYTES + 4 * record, HEADER_BYTES + 4 * record + 70, HEADER_BYTES + 5 * record - 8] {
        let place = Place::new();
        place.leave(0..10);
        place.leave(10..13);
        let first = &place.files()[0];
        let mut bytes = fs::read(first).unwrap();
        bytes[flip] ^= 0x40;
        fs::write(first, bytes).unwrap();
        let clicks = place.start();
        end(&clicks);
        // The padding of a record is not covered by its checksum, and is not its content either.
        let is_content = flip < HEADER_BYTES + 5 * record - 3;
        let expected: Vec<Id> = if is_content { (0..4).chain(10..13).collect() } else { (0..13).collect() };
        assert_eq!(place.store.ids(), expected, "a flip at {flip}");
    }
}

#[test]
fn a_left_over_journal_is_shipped_and_removed() {
    let place = Place::new();
    place.leave(0..10);
    let report = inspect::report(&place.path()).unwrap();
    for part in ["instance   web-1", "clicks     10, 1970-01-01 00:00:01.000000 .. 1970-01-01 00:00:01.000009", "none"]
    {
        assert!(report.contains(part), "{part} is not in\n{report}");
    }
    place.store.set(|state| state.lasting = Mood::Refuses);
    assert_eq!(ship(&place.path(), place.store.as_ref(), Duration::from_millis(1)).unwrap(), None);
    place.store.set(|state| state.lasting = Mood::Takes);
    let shipped = ship(&place.path(), place.store.as_ref(), PATIENCE).unwrap();
    assert_eq!(shipped, Some(Shipped { stored: 10, damaged: 0, skipped: 0 }));
    assert_eq!(place.store.ids(), Vec::from_iter(0..10));
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    let error = ship(&place.path(), place.store.as_ref(), PATIENCE).unwrap_err().to_string();
    assert_eq!(error, format!("there is no click journal in {}", place.path().display()));
}

#[test]
fn a_journal_in_use_is_not_shipped() {
    let place = Place::new();
    let clicks = place.start();
    let error = ship(&place.path(), place.store.as_ref(), PATIENCE).unwrap_err().to_string();
    assert_eq!(error, format!("the click journal in {} is in use by another process", place.path().display()));
    end(&clicks);
}

// ---- Bursts ------------------------------------------------------------------------------------------------------

/// A machine whose load is as told.
struct Machine {
    seen: Mutex<Seen>,
    changed: std::sync::Condvar,
}

struct Seen {
    rate: u64,
    idle_percent: u64,
    /// Time that passes between two looks, beside what really does.
    skipped: Duration,
    looks: u64,
    load: Load,
}

impl Machine {
    /// Saturated, and clicks arrive in numbers.
    fn busy() -> Arc<Self> {
        let (rate, idle_percent, skipped, looks) = (CLICKS_BURST_RATE + 1, 0, Duration::ZERO, 0);
        let seen = Mutex::new(Seen { rate, idle_percent, skipped, looks, load: Load::Light });
        Arc::new(Self { seen, changed: std::sync::Condvar::new() })
    }

    fn set(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.seen.lock().unwrap());
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&Seen) -> bool) {
        let seen = self.seen.lock().unwrap();
        let (seen, outcome) = self.changed.wait_timeout_while(seen, PATIENCE, |seen| !holds(seen)).unwrap();
        drop(seen);
        assert!(!outcome.timed_out(), "waited in vain until {what}");
    }

    /// Waits until the shipper has looked, waited, and looked again; whatever it would do meanwhile is done.
    fn let_look(&self) {
        let looks = self.seen.lock().unwrap().looks;
        self.wait_until("the shipper looked", |seen| seen.looks >= looks + 3);
    }
}

impl Lookout for Arc<Machine> {
    fn look(&mut self, _: u64, load: Load) -> Sight {
        let mut seen = self.seen.lock().unwrap();
        (seen.looks, seen.load) = (seen.looks + 1, load);
        self.changed.notify_all();
        Sight { at: Instant::now() + seen.skipped, rate: seen.rate, idle_percent: Some(seen.idle_percent) }
    }
}

impl Place {
    fn start_on(&self, machine: &Arc<Machine>, options: Options) -> Clicks {
        let store = Arc::clone(&self.store) as Arc<dyn ClickStore>;
        Clicks::start_with(store, options, Box::new(Arc::clone(machine))).unwrap()
    }

    fn start_in_burst(&self) -> (Arc<Machine>, Clicks) {
        let machine = Machine::busy();
        let clicks = self.start_on(&machine, Options::new(&self.path(), "web-1"));
        (machine, clicks)
    }
}

/// That these wait, and that the figures say so.
fn check_deferred(place: &Place, machine: &Machine, clicks: &Clicks, stored: Id, oldest: Id) {
    machine.let_look();
    assert_eq!(place.store.ids(), Vec::from_iter(0..stored));
    assert!(clicks.stats().is_deferring.load(Ordering::Relaxed));
    // The click that is the next to be stored, though nobody has asked for it.
    assert_eq!(clicks.stats().oldest_waiting_at.load(Ordering::Relaxed), 1_000_000 + oldest);
    assert_eq!(clicks.stats().lag_seconds(Timestamp::from_micros(8_000_000 + oldest)), 7.0);
}

#[test]
fn in_a_burst_clicks_wait_for_room() {
    let ends: [fn(&mut Seen); 3] = [
        |seen| seen.idle_percent = CLICKS_BURST_IDLE_PERCENT,
        |seen| seen.rate = CLICKS_BURST_RATE,
        |seen| seen.skipped = CLICKS_BURST_MAX,
    ];
    for end_of_wait in ends {
        let place = Place::new();
        let (machine, clicks) = place.start_in_burst();
        (0..100).for_each(|id| clicks.record(click(id)));
        check_deferred(&place, &machine, &clicks, 0, 0);
        // The first offer is not taken, so that what was looked at ahead is read once more.
        place.store.set(|state| state.moods = vec![Mood::Refuses]);
        machine.set(end_of_wait);
        place.store.wait_until("they are stored", |state| state.clicks.len() == 100);
        assert!(!clicks.stats().is_deferring.load(Ordering::Relaxed));
        end(&clicks);
        assert_eq!(place.store.ids(), Vec::from_iter(0..100));
    }
}

#[test]
fn who_waits_for_clicks_is_served_in_a_burst_too() {
    let place = Place::new();
    let (machine, clicks) = place.start_in_burst();
    (0..10).for_each(|id| clicks.record(click(id)));
    check_deferred(&place, &machine, &clicks, 0, 0);
    flush(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..10));
    // Those that come after wait on.
    (10..20).for_each(|id| clicks.record(click(id)));
    check_deferred(&place, &machine, &clicks, 10, 10);
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..20), "nor does the end wait");
}

#[test]
fn what_a_killed_run_left_waits_in_a_burst_with_the_rest() {
    let place = Place::new();
    place.leave(0..5);
    let (machine, clicks) = place.start_in_burst();
    check_deferred(&place, &machine, &clicks, 0, 0);
    clicks.record(click(5));
    machine.set(|seen| seen.idle_percent = 100);
    place.store.wait_until("they are stored", |state| state.clicks.len() == 6);
    end(&clicks);
}

#[test]
fn under_a_load_that_lasts_clicks_wait_once() {
    let place = Place::new();
    let (machine, clicks) = place.start_in_burst();
    clicks.record(click(0));
    check_deferred(&place, &machine, &clicks, 0, 0);
    machine.set(|seen| seen.skipped = CLICKS_BURST_MAX);
    for id in 1..4 {
        clicks.record(click(id));
        place.store.wait_until("it is stored", |state| state.clicks.len() as Id == id + 1);
    }
    machine.set(|seen| seen.idle_percent = CLICKS_BURST_IDLE_PERCENT);
    machine.wait_until("the load is light", |seen| seen.load == Load::Light);
    machine.set(|seen| seen.idle_percent = CLICKS_BURST_IDLE_PERCENT - 1);
    machine.wait_until("there is another burst", |seen| seen.load != Load::Light);
    clicks.record(click(4));
    check_deferred(&place, &machine, &clicks, 4, 4);
    end(&clicks);
}

#[test]
fn a_burst_is_over_when_its_clicks_are_stored() {
    let place = Place::new();
    let (machine, clicks) = place.start_in_burst();
    clicks.record(click(0));
    check_deferred(&place, &machine, &clicks, 0, 0);
    place.store.set(|state| state.lasting = Mood::Refuses);
    machine.set(|seen| seen.idle_percent = 100);
    machine.let_look();
    assert!(matches!(machine.seen.lock().unwrap().load, Load::Burst(_)), "room alone is not the end");
    place.store.set(|state| state.lasting = Mood::Takes);
    machine.wait_until("it is over", |seen| seen.load == Load::Light);
    assert_eq!(place.store.ids(), [0]);
    end(&clicks);
}

#[test]
fn a_journal_that_fills_waits_no_longer() {
    let place = Place::new();
    let machine = Machine::busy();
    // The segment that is written and the one that is ready are a quarter; one more is too many.
    let options = Options { bytes_max: 8 * JOURNAL_SEGMENT_BYTES, ..Options::new(&place.path(), "web-1") };
    let clicks = place.start_on(&machine, options);
    clicks.record(click(0));
    check_deferred(&place, &machine, &clicks, 0, 0);
    let long = vec![b'x'; 500];
    let count = 20_000;
    (1..count).for_each(|id| clicks.record(ClickRef { user_agent: Some(&long), ..click(id) }));
    place.store.wait_until("they are stored", |state| state.clicks.len() as Id == count);
    machine.wait_until("that is no burst", |seen| seen.load == Load::Lasting);
    end(&clicks);
    assert_eq!(place.store.ids(), Vec::from_iter(0..count));
}
