//! From the journal to the store: each batch is one transaction of its clicks and the journal's position. The position in
//! the store is what counts. What the store does not take is offered again, half as much at a time, until it tells a
//! position: if an earlier offer was taken after all, that is the position behind it, and nothing is written twice. In a burst
//! the clicks are left in the journal for a while (`burst`).

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::burst::{Backlog, Load, Lookout};
use super::journal::{Folder, Segment, Shared};
use super::segment::{Next, Reader, first_sequence, index_of, segment_of};
use crate::error::{StoreError, StoreResult};
use crate::limits::{
    CLICKS_BATCH_MIN, CLICKS_BATCH_QUICK, CLICKS_BATCH_TEXT_BYTES, CLICKS_BURST_JOURNAL_SHARE, CLICKS_FLUSH_INTERVAL,
    CLICKS_FLUSH_INTERVAL_MAX, CLICKS_FLUSH_SHARE, CLICKS_REST_MAX, CLICKS_REST_SHARE, CLICKS_RETRY_MAX,
    CLICKS_RETRY_MIN,
};
use crate::model::{Click, JournalStep};
use crate::runtime::{Filler, panic_text};
use crate::store::ClickStore;

/// What others want of the shipper.
#[derive(Default)]
pub(super) struct Desk {
    wishes: Mutex<Wishes>,
    news: Condvar,
    /// The end is near, and what the store does not take is left in the journal.
    gives_up: AtomicBool,
}

#[derive(Default)]
struct Wishes {
    /// Those who wait until the clicks before this number are stored.
    waiters: Vec<(u64, Filler<()>)>,
    /// The clicks before this number are stored.
    stored_to: u64,
    is_closing: bool,
}

impl Wishes {
    /// Somebody wants what is in the journal to be stored now.
    fn are_urgent(&self) -> bool {
        !self.waiters.is_empty() || self.is_closing
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the clicks before `end` stored soon; `told` hears when they are. False: they are already.
    pub fn ask(&self, end: u64, told: Filler<()>) -> bool {
        let mut wishes = self.lock();
        if wishes.stored_to >= end {
            return false;
        }
        wishes.waiters.push((end, told));
        self.news.notify_one();
        true
    }

    /// What is in the journal is to be stored, and then the work ends.
    pub fn close(&self) {
        self.lock().is_closing = true;
        self.news.notify_one();
    }

    /// The work is to end even if the store does not take what is left.
    pub fn give_up(&self) {
        self.gives_up.store(true, Ordering::Relaxed);
        drop(self.lock());
        self.news.notify_one();
    }

    fn gives_up(&self) -> bool {
        self.gives_up.load(Ordering::Relaxed)
    }

    fn is_closing(&self) -> bool {
        self.lock().is_closing
    }

    fn is_pressed(&self) -> bool {
        self.lock().are_urgent()
    }

    /// Waits until it is time for the next batch, or somebody wants it sooner.
    fn wait_for_batch(&self, began: Instant, interval: Duration) {
        let mut wishes = self.lock();
        while !wishes.are_urgent() {
            let left = interval.saturating_sub(began.elapsed());
            if left.is_zero() {
                return;
            }
            wishes = self.news.wait_timeout(wishes, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits, at most for `pause`; whoever asks for something ends it.
    fn rest(&self, pause: Duration) {
        if !self.gives_up() {
            drop(self.news.wait_timeout(self.lock(), pause).unwrap_or_else(PoisonError::into_inner));
        }
    }

    /// Tells those whose clicks are stored.
    fn tell(&self, stored_to: u64) {
        let mut wishes = self.lock();
        wishes.stored_to = wishes.stored_to.max(stored_to);
        let waiters = std::mem::take(&mut wishes.waiters);
        let (due, waiting) = waiters.into_iter().partition(|(end, _)| *end <= stored_to);
        wishes.waiters = waiting;
        drop(wishes);
        let due: Vec<(u64, Filler<()>)> = due;
        due.into_iter().for_each(|(_, told)| told.fill(()));
    }
}

/// A place in the journal, from which it is read on.
struct Cursor {
    segment: Option<(Arc<Segment>, Reader)>,
    /// The next click, if it was looked at before it was wanted.
    peeked: Option<Click>,
    /// The last segment that was left behind.
    passed: u64,
    /// Damage was met in the present segment; nothing behind it counts.
    is_torn: bool,
    /// The last segment whose damage was told; it is met again when clicks are read again.
    told: u64,
}

impl Cursor {
    fn new() -> Self {
        Self { segment: None, peeked: None, passed: 0, is_torn: false, told: 0 }
    }

    /// Behind the last click taken.
    fn sequence(&self) -> u64 {
        let read = self.segment.as_ref().map_or(first_sequence(self.passed + 1), |(_, reader)| reader.sequence());
        read - u64::from(self.peeked.is_some())
    }

    /// The next click, which stays the next.
    fn peek(&mut self, folder: &Folder) -> io::Result<Option<&Click>> {
        if self.peeked.is_none() {
            self.peeked = self.next(folder)?;
        }
        Ok(self.peeked.as_ref())
    }

    /// The next click; `None` when there is no more so far.
    fn next(&mut self, folder: &Folder) -> io::Result<Option<Click>> {
        if self.peeked.is_some() {
            return Ok(self.peeked.take());
        }
        loop {
            let Some((segment, reader)) = &mut self.segment else {
                let Some(segment) = folder.segment_after(self.passed) else { return Ok(None) };
                let reader = Reader::open(&segment.path, segment.number)?;
                (self.segment, self.is_torn) = (Some((segment, reader)), false);
                continue;
            };
            let (is_sealed, written) = segment.extent();
            let next = if self.is_torn { Next::End } else { reader.next(written)? };
            match next {
                Next::Click(click) => return Ok(Some(click)),
                Next::Torn | Next::Unfinished => {
                    // What an earlier run left was looked at when it was counted.
                    if segment.number >= folder.first_own && segment.number > self.told {
                        tell_torn(folder, segment, reader, written)?;
                        self.told = segment.number;
                    }
                    self.is_torn = true;
                }
                Next::End if is_sealed => {
                    self.passed = segment.number;
                    self.segment = None;
                }
                Next::End => return Ok(None),
            }
        }
    }

    /// Goes to the click with this number, or to the first one behind it. Returns the number of clicks passed, and whether
    /// the journal holds fewer clicks than that place says.
    fn seek(&mut self, sequence: u64, folder: &Folder) -> io::Result<(u64, bool)> {
        *self = Self { told: self.told, ..Self::new() };
        let mut passed = 0;
        let mut reached = None;
        while let Some(segment) = folder.segment_after(self.passed) {
            if segment.number > segment_of(sequence) {
                break;
            }
            let mut reader = Reader::open(&segment.path, segment.number)?;
            passed += reader.skip_to(sequence, segment.written())?;
            reached = Some((reader.sequence(), segment.number));
            let is_there = reader.sequence() == sequence;
            if is_there || !segment.is_sealed() {
                self.segment = Some((segment, reader));
                return Ok((passed, !is_there));
            }
            self.passed = segment.number;
        }
        Ok((passed, reached.is_some_and(|(_, number)| number == segment_of(sequence)) && index_of(sequence) > 0))
    }
}

/// Counts the clicks that earlier runs left, and tells where some are missing.
fn count_left_over(folder: &Folder) -> io::Result<u64> {
    let mut count = 0;
    for segment in folder.segments().iter().filter(|segment| segment.number < folder.first_own) {
        let mut reader = Reader::open(&segment.path, segment.number)?;
        count += reader.skip_to(u64::MAX, segment.written())?;
        if !reader.is_at_the_end(segment.written())? {
            tell_torn(folder, segment, &mut reader, segment.written())?;
        }
    }
    Ok(count)
}

fn tell_torn(folder: &Folder, segment: &Segment, reader: &mut Reader, written: u64) -> io::Result<()> {
    let clicks = reader.skipped(written)?;
    folder.skipped.fetch_add(clicks, Ordering::Relaxed);
    tracing::error!(
        file = %segment.path.display(),
        offset = reader.offset(),
        bytes = written - reader.offset(),
        clicks,
        "the click journal is torn here: what lies behind in this file is not stored"
    );
    Ok(())
}

/// Some clicks on their way.
struct Batch {
    clicks: Arc<Vec<Click>>,
    step: JournalStep,
    /// The sequence number of its first click, or one before.
    began_at: u64,
    /// Every click before this number is in the store when the batch is.
    covers: u64,
    is_full: bool,
}

/// Why no more can be done.
struct GivenUp;

/// The work of the thread, or of `snip journal ship`.
pub(super) struct Shipper<'a> {
    shared: &'a Shared,
    desk: &'a Desk,
    store: &'a dyn ClickStore,
    lookout: Box<dyn Lookout>,
    load: Load,
    /// There are clicks that waited for a burst to be over, or that did not fit the last batch.
    is_behind: bool,
    cursor: Cursor,
    /// What the store last said; the next step leads on from here.
    position: u64,
    /// Where offers from that position led to which the store did not answer: each may have been taken all the same. No
    /// two are alike, and each is at most as large as the one before, so that they are as few as there are halves.
    unanswered: Vec<u64>,
    /// Clicks in the next batch, at the most. Less than the store's own measure after it did not take one: to one that has
    /// become slow, the same batch would be too large for ever.
    batch_max: usize,
    /// Pause after the next offer that is not taken.
    retry_after: Duration,
}

impl<'a> Shipper<'a> {
    pub fn new(shared: &'a Shared, desk: &'a Desk, store: &'a dyn ClickStore, lookout: Box<dyn Lookout>) -> Self {
        let (load, is_behind) = (Load::default(), false);
        let (cursor, position, unanswered) = (Cursor::new(), JournalStep::UNKNOWN, Vec::new());
        let (batch_max, retry_after) = (store.batch_max(), CLICKS_RETRY_MIN);
        Self { shared, desk, store, lookout, load, is_behind, cursor, position, unanswered, batch_max, retry_after }
    }

    /// Ships until the desk is closed and nothing is left, or the desk gives up.
    pub fn run(mut self) {
        // The one error is that there was an order to stop.
        let _ = self.ship();
    }

    fn ship(&mut self) -> Result<(), GivenUp> {
        self.recover()?;
        loop {
            self.wait_for_room();
            let began = Instant::now();
            let is_closing = self.desk.is_closing();
            let batch = self.persist("read the click journal", |shipper| shipper.next_batch())?;
            let Some(batch) = batch else {
                self.is_behind = false;
                if is_closing {
                    return Ok(());
                }
                self.desk.wait_for_batch(began, CLICKS_FLUSH_INTERVAL);
                continue;
            };
            if !self.store_batch(&batch)? {
                continue;
            }
            self.is_behind = batch.is_full;
            if batch.is_full && is_closing {
                // Nobody is served any more who would suffer.
            } else if batch.is_full {
                self.desk.rest((began.elapsed() / CLICKS_REST_SHARE).min(CLICKS_REST_MAX));
            } else {
                let interval = began.elapsed() * CLICKS_FLUSH_SHARE;
                self.desk.wait_for_batch(began, interval.clamp(CLICKS_FLUSH_INTERVAL, CLICKS_FLUSH_INTERVAL_MAX));
            }
        }
    }

    /// In a burst clicks wait here, until the core has room, somebody wants them stored, or they have waited for long enough.
    fn wait_for_room(&mut self) {
        while !self.desk.is_pressed()
            && let Some(pause) = self.burst_pause()
        {
            self.is_behind = true;
            self.shared.stats.is_deferring.store(true, Ordering::Relaxed);
            // What cannot be read now is told when it is to be stored.
            if let Ok(oldest) = self.cursor.peek(&self.shared.folder) {
                self.shared.stats.note_oldest(oldest);
            }
            self.desk.wait_for_batch(Instant::now(), pause);
        }
        self.shared.stats.is_deferring.store(false, Ordering::Relaxed);
    }

    fn burst_pause(&mut self) -> Option<Duration> {
        let sight = self.lookout.look(self.shared.stats.recorded.load(Ordering::Relaxed), self.load);
        let is_large = self.shared.bytes() > self.shared.bytes_max() / CLICKS_BURST_JOURNAL_SHARE;
        self.load.pause(&sight, Backlog { is_stored: !self.is_behind, is_large })
    }

    /// Does `work` until it succeeds, with growing pauses.
    fn persist<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        mut work: impl FnMut(&mut Self) -> Result<T, E>,
    ) -> Result<T, GivenUp> {
        let mut pause = CLICKS_RETRY_MIN;
        loop {
            if self.desk.gives_up() {
                return Err(GivenUp);
            }
            match work(self) {
                Ok(done) => return Ok(done),
                Err(error) => tracing::warn!(%error, retry_after = ?pause, "could not {what}"),
            }
            self.desk.rest(pause);
            pause = (pause * 2).min(CLICKS_RETRY_MAX);
        }
    }

    // ---- What earlier runs left ----------------------------------------------------------------------------------

    /// Looks through what earlier runs left, and finds the place from which it is to be stored.
    fn recover(&mut self) -> Result<(), GivenUp> {
        let found = self.persist("read the click journal", |shipper| count_left_over(&shipper.shared.folder))?;
        self.shared.stats.unexamined.store(found, Ordering::Relaxed);
        let journal = self.shared.folder.journal;
        let known = self
            .persist("ask the store for the journal's position", |shipper| shipper.store.journal_position(journal))?;
        self.position = known.unwrap_or(JournalStep::UNKNOWN);
        let first_own = first_sequence(self.shared.folder.first_own);
        let from = match known {
            Some(position) if position > first_own => {
                tracing::error!(
                    position,
                    "the store is ahead of this click journal, whose folder must be an old copy: its old clicks count as \
                     stored, those of this run go on"
                );
                first_own
            }
            Some(position) => position,
            None => self.persist("read the click journal", |shipper| shipper.shared.folder.read_mark())?,
        };
        if known.is_none() && from > 0 {
            tracing::warn!(
                "the store does not know this click journal, which was stored elsewhere before: going on from there"
            );
        }
        let (passed, is_ahead) = self.seek(from)?;
        let left = found.saturating_sub(passed);
        self.shared.stats.recovered.store(left, Ordering::Relaxed);
        self.shared.stats.unexamined.store(0, Ordering::Relaxed);
        if is_ahead {
            self.tell_ahead(from);
        }
        if left > 0 {
            tracing::info!(clicks = left, "clicks of an earlier run are in the journal and go to the store now");
        }
        Ok(())
    }

    fn seek(&mut self, sequence: u64) -> Result<(u64, bool), GivenUp> {
        self.persist("read the click journal", |shipper| shipper.cursor.seek(sequence, &shipper.shared.folder))
    }

    fn tell_ahead(&self, position: u64) {
        tracing::error!(
            segment = segment_of(position),
            clicks = index_of(position),
            "the store has more clicks of this segment than the file: the file lost its end; nothing is stored twice"
        );
    }

    // ---- Batches -------------------------------------------------------------------------------------------------

    /// What is in the journal by now, at most a batch. `None`: nothing; then those who wait are told.
    fn next_batch(&mut self) -> io::Result<Option<Batch>> {
        // Looked at first: all that lies before it is in reach.
        let tail = self.shared.tail();
        let began_at = self.cursor.sequence();
        let mut clicks = Vec::new();
        let mut text_bytes = 0;
        let batch_max = self.batch_max;
        let is_full = |clicks: &Vec<Click>, text_bytes| {
            clicks.len() == batch_max || text_bytes > CLICKS_BATCH_TEXT_BYTES - Click::TEXT_BYTES_MAX
        };
        while !is_full(&clicks, text_bytes) {
            match self.cursor.next(&self.shared.folder) {
                Ok(Some(click)) => {
                    text_bytes += click.text_bytes();
                    clicks.push(click);
                }
                Ok(None) => break,
                Err(error) => {
                    // What was read so far is read again.
                    self.cursor.seek(began_at, &self.shared.folder)?;
                    return Err(error);
                }
            }
        }
        let is_full = is_full(&clicks, text_bytes);
        self.shared.stats.note_oldest(clicks.first());
        if clicks.is_empty() {
            self.settle(tail);
            return Ok(None);
        }
        let to = self.cursor.sequence();
        let covers = if is_full { to } else { tail.max(to) };
        let Shared { folder, .. } = self.shared;
        let (journal, instance) = (folder.journal, Arc::clone(&folder.instance));
        let step = JournalStep { journal, instance, from: self.position, to };
        Ok(Some(Batch { clicks: Arc::new(clicks), step, began_at, covers, is_full }))
    }

    /// Offers a batch; whether the store told a position.
    fn store_batch(&mut self, batch: &Batch) -> Result<bool, GivenUp> {
        let began = Instant::now();
        let position = match self.offer(batch) {
            Ok(position) => position,
            Err(error) => return self.put_off(batch, &error).map(|()| false),
        };
        let is_earlier_offer = self.unanswered.contains(&position);
        self.unanswered.clear();
        self.position = position;
        self.retry_after = CLICKS_RETRY_MIN;
        if began.elapsed() < CLICKS_BATCH_QUICK {
            self.batch_max = (self.batch_max * 2).clamp(CLICKS_BATCH_MIN, self.store.batch_max());
        }
        if position == batch.step.to {
            self.shared.stats.stored.fetch_add(batch.clicks.len() as u64, Ordering::Relaxed);
            self.shared.folder.mark(position);
            self.settle(batch.covers);
        } else if is_earlier_offer {
            self.go_on_from(batch.began_at, position)?;
            self.shared.folder.mark(position);
        } else {
            self.realign(position, batch.began_at)?;
        }
        Ok(true)
    }

    /// A panic in the store is a defect, and no reason never to store a click again. As when no answer comes, the offer may
    /// have been taken all the same.
    fn offer(&self, batch: &Batch) -> StoreResult<u64> {
        let offer = || self.store.record_clicks(Arc::clone(&batch.clicks), batch.step.clone());
        let panicked = |panic: &(dyn Any + Send)| StoreError::Internal(format!("a panic: {}", panic_text(panic)));
        catch_unwind(AssertUnwindSafe(offer)).unwrap_or_else(|panic| Err(panicked(&*panic)))
    }

    /// The batch was not taken, or nobody knows. After a pause the next one begins at the same click.
    fn put_off(&mut self, batch: &Batch, error: &StoreError) -> Result<(), GivenUp> {
        let (clicks, pause) = (batch.clicks.len(), self.retry_after);
        self.shared.stats.refused_batches.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%error, clicks, retry_after = ?pause, "could not store clicks");
        if !self.unanswered.contains(&batch.step.to) {
            self.unanswered.push(batch.step.to);
        }
        self.batch_max = (clicks / 2).max(clicks.min(CLICKS_BATCH_MIN));
        if self.desk.gives_up() {
            return Err(GivenUp);
        }
        self.desk.rest(pause);
        self.retry_after = (pause * 2).min(CLICKS_RETRY_MAX);
        self.seek(batch.began_at)?;
        Ok(())
    }

    /// The store is elsewhere than where we left it: it was put back to an earlier state, it lost the journal's row, or a
    /// copy of this folder is in use elsewhere.
    fn realign(&mut self, position: u64, began_at: u64) -> Result<(), GivenUp> {
        let is_ours = began_at >= first_sequence(self.shared.folder.first_own);
        let place = match position {
            JournalStep::UNKNOWN => began_at,
            // What the store lost and the journal still has is stored again.
            earlier if earlier < began_at => earlier,
            // Nobody else can have stored what this run wrote; of what earlier runs wrote, the store knows best.
            _ if is_ours => began_at,
            later => later,
        };
        tracing::error!(position, place, "the store's position in the click journal is not where this process left it");
        self.go_on_from(began_at, place)
    }

    /// Goes on at another place than at `began_at`: the clicks between are stored, or are to be stored once more.
    fn go_on_from(&mut self, began_at: u64, place: u64) -> Result<(), GivenUp> {
        let (passed_before, _) = self.seek(began_at)?;
        let (passed_now, _) = self.seek(place)?;
        let stats = &self.shared.stats;
        stats.stored.fetch_add(passed_now.saturating_sub(passed_before), Ordering::Relaxed);
        stats.recovered.fetch_add(passed_before.saturating_sub(passed_now), Ordering::Relaxed);
        Ok(())
    }

    /// All clicks before `stored_to` are in the store: segments that the cursor has left can go, and who waits is told.
    fn settle(&mut self, stored_to: u64) {
        if self.cursor.passed > 0 {
            self.shared.folder.remove(self.cursor.passed);
        }
        self.desk.tell(stored_to);
    }
}
