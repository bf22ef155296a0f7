//! The threads beside the writer: one makes segments ahead and looks after mapped memory, the other syncs, if anything is
//! to be synced. Neither is told by an append, which makes no system call: they look by themselves.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::blanks::Pages;
use super::folder::Segment;
use super::map::{self, Map, Pen};
use super::{Durability, Shared, is_for_want_of_space};
use crate::clicks::segment::segment_of;
use crate::limits::{
    JOURNAL_AHEAD_BYTES, JOURNAL_DISTRUSTED_MAX, JOURNAL_LOOK_INTERVAL, JOURNAL_PREPARE_RETRY, JOURNAL_SEGMENT_BYTES,
};
use crate::runtime::Filler;

/// Bytes of a fresh segment that are present before it is written.
const FIRST_BYTES: usize = JOURNAL_AHEAD_BYTES / 8;
/// So much must be wanting before more is made present: a system call each.
const MORE_BYTES: usize = JOURNAL_AHEAD_BYTES / 4;
/// Memory is taken and given back in pieces of this size: a whole number of pages, on every machine.
const PIECE_BYTES: usize = 64 * 1024;

/// A segment that is mapped.
pub(super) struct Kept {
    pub segment: Arc<Segment>,
    map: Arc<Map>,
    file: Arc<File>,
    /// Records up to here outlive a crash of the host.
    synced: u64,
    /// A sync failed: what the kernel says of it from now on is worth nothing.
    is_distrusted: bool,
    /// Pages up to here are present.
    populated: usize,
    /// Pages up to here were given back.
    released: usize,
}

/// Where the next segment comes from.
#[derive(Default)]
struct Next {
    ready: Option<(Kept, Pen)>,
    /// After a failure.
    retry_at: Option<Instant>,
}

#[derive(Default)]
struct State {
    /// Held while a segment is made: a writer that needs it waits for that, which is what it would do itself.
    next: Mutex<Next>,
    /// Segments that are written, or sealed and not yet synced.
    kept: Mutex<Vec<Kept>>,
    syncing: Mutex<Syncing>,
    sync_news: Condvar,
    is_closing: AtomicBool,
}

#[derive(Default)]
struct Syncing {
    /// Redirects that wait until the clicks before this number are synced; they hear whether they were.
    waiters: Vec<(u64, Filler<bool>)>,
    /// The last segments whose sync failed.
    distrusted: VecDeque<u64>,
    is_closing: bool,
}

/// The two threads.
#[derive(Default)]
pub(super) struct Keeper {
    state: Arc<State>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl State {
    fn next(&self) -> MutexGuard<'_, Next> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn syncing(&self) -> MutexGuard<'_, Syncing> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeper {
    /// Starts the threads.
    pub fn start(&self, shared: &Arc<Shared>) -> io::Result<()> {
        self.spawn("snip-journal", shared, keep)?;
        if shared.durability != Durability::Process {
            self.spawn("snip-sync", shared, sync)?;
        }
        Ok(())
    }

    fn spawn(&self, name: &str, shared: &Arc<Shared>, work: fn(&State, &Shared)) -> io::Result<()> {
        let (state, shared) = (Arc::clone(&self.state), Arc::clone(shared));
        let thread = thread::Builder::new().name(name.into()).spawn(move || work(&state, &shared))?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        Ok(())
    }

    /// Makes a segment, unless one is ready or there is no room under the cap.
    pub fn prepare(&self, shared: &Shared) -> io::Result<()> {
        prepare(&mut self.state.next(), shared, Pages::One)
    }

    /// The next segment to be written, made now if the thread has not come to it. `None`: there is no room.
    pub fn take(&self, shared: &Shared) -> Option<(Kept, Pen)> {
        let mut next = self.state.next();
        // The failure is logged and counted where it happens.
        let _ = prepare(&mut next, shared, Pages::One);
        let (kept, pen) = next.ready.take()?;
        drop(next);
        self.state.kept().push(kept.handed_over());
        Some((kept, pen))
    }

    /// Has the clicks before `end` synced; `told` hears whether they are.
    pub fn sync(&self, end: u64, told: Filler<bool>) {
        let mut syncing = self.state.syncing();
        // Whoever comes after the end is told by the filler's end.
        if !syncing.is_closing {
            syncing.waiters.push((end, told));
            self.state.sync_news.notify_one();
        }
    }

    pub fn close(&self, shared: &Shared) {
        self.state.is_closing.store(true, Ordering::Relaxed);
        self.state.syncing().is_closing = true;
        self.state.sync_news.notify_one();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            thread.thread().unpark();
            if thread.join().is_err() {
                tracing::error!("a thread of the click journal panicked");
            }
        }
        if let Some((unused, _)) = self.state.next().ready.take() {
            // Were it to stay, the next start would remove it.
            let _ = std::fs::remove_file(&unused.segment.path);
        }
        shared.folder.blanks.remove_all();
    }
}

impl Kept {
    /// The same, for the list of those that are written.
    fn handed_over(&self) -> Self {
        let (segment, map, file) = (Arc::clone(&self.segment), Arc::clone(&self.map), Arc::clone(&self.file));
        Self { segment, map, file, ..*self }
    }
}

// ---- Making segments and looking after memory --------------------------------------------------------------------

fn prepare(next: &mut Next, shared: &Shared, pages: Pages) -> io::Result<()> {
    let has_room = shared.folder.bytes() + JOURNAL_SEGMENT_BYTES <= shared.bytes_max;
    if next.ready.is_some() || !has_room || next.retry_at.is_some_and(|at| Instant::now() < at) {
        return Ok(());
    }
    match make(shared, pages) {
        Ok(ready) => {
            if next.retry_at.take().is_some() {
                tracing::info!("segments of the click journal can be made again");
            }
            next.ready = Some(ready);
            Ok(())
        }
        Err(error) => {
            shared.stats.prepare_failures.fetch_add(1, Ordering::Relaxed);
            if next.retry_at.replace(Instant::now() + JOURNAL_PREPARE_RETRY).is_none() {
                let is_for_want_of_space = is_for_want_of_space(&error);
                tracing::error!(%error, is_for_want_of_space, "no segment of the click journal can be made");
            }
            Err(error)
        }
    }
}

fn make(shared: &Shared, pages: Pages) -> io::Result<(Kept, Pen)> {
    let (segment, file) = shared.folder.make_segment(pages)?;
    let (pen, map) = map::map(&file, JOURNAL_SEGMENT_BYTES as usize).inspect_err(|_| {
        let _ = std::fs::remove_file(&segment.path);
    })?;
    map.populate(0..FIRST_BYTES);
    let synced = segment.written();
    let (file, is_distrusted) = (Arc::new(file), false);
    Ok((Kept { segment, map, file, synced, is_distrusted, populated: FIRST_BYTES, released: 0 }, pen))
}

fn keep(state: &State, shared: &Shared) {
    while !state.is_closing.load(Ordering::Relaxed) {
        // Under the other durabilities each sync would bring the zeros to the disk, and redirects wait for it.
        let is_needed_soon = shared.durability == Durability::Process && state.kept().iter().any(Kept::is_used);
        let pages = if is_needed_soon { Pages::Many } else { Pages::One };
        // The failure is logged and counted where it happens.
        let _ = prepare(&mut state.next(), shared, pages);
        let is_synced = shared.durability != Durability::Process;
        state.kept().retain_mut(|kept| {
            kept.look_after_memory();
            let is_done = !is_synced || kept.is_distrusted || kept.synced >= kept.segment.written();
            !(kept.segment.is_sealed() && is_done)
        });
        shared.folder.blanks.remove_stale();
        thread::park_timeout(JOURNAL_LOOK_INTERVAL);
    }
}

impl Kept {
    fn is_used(&self) -> bool {
        self.segment.written() as usize > super::HEADER_BYTES
    }

    fn look_after_memory(&mut self) {
        let written = self.segment.written() as usize;
        let wanted = (written + JOURNAL_AHEAD_BYTES).min(JOURNAL_SEGMENT_BYTES as usize);
        // An instance that nobody clicks on keeps to the first pages.
        if self.is_used() && wanted >= self.populated + MORE_BYTES || wanted == JOURNAL_SEGMENT_BYTES as usize {
            self.map.populate(self.populated..wanted);
            self.populated = wanted.max(self.populated);
        }
        let releasable = written / PIECE_BYTES * PIECE_BYTES;
        self.map.release(self.released..releasable.max(self.released));
        self.released = releasable.max(self.released);
    }
}

// ---- Syncing -----------------------------------------------------------------------------------------------------

fn sync(state: &State, shared: &Shared) {
    while wait_for_work(state, shared) {
        sync_once(state, shared);
    }
    sync_once(state, shared);
}

/// Waits until something is to be synced; false at the end.
fn wait_for_work(state: &State, shared: &Shared) -> bool {
    let syncing = state.syncing();
    let syncing = match shared.durability {
        Durability::Interval(interval) => {
            let is_waiting = |syncing: &mut Syncing| !syncing.is_closing;
            let waited = state.sync_news.wait_timeout_while(syncing, interval, is_waiting);
            waited.unwrap_or_else(PoisonError::into_inner).0
        }
        Durability::Process | Durability::Always => {
            let is_waiting = |syncing: &mut Syncing| syncing.waiters.is_empty() && !syncing.is_closing;
            state.sync_news.wait_while(syncing, is_waiting).unwrap_or_else(PoisonError::into_inner)
        }
    };
    !syncing.is_closing
}

/// Syncs everything that is written by now. Clicks that come meanwhile share the next sync.
fn sync_once(state: &State, shared: &Shared) {
    let tail = shared.tail();
    let due: Vec<_> = {
        let kept = state.kept();
        let due = kept.iter().filter(|kept| kept.is_distrusted || kept.synced < kept.segment.written());
        due.map(|kept| (Arc::clone(&kept.segment), Arc::clone(&kept.file), kept.is_distrusted)).collect()
    };
    for (segment, file, is_distrusted) in due {
        let written = segment.written();
        let outcome = if is_distrusted { Ok(()) } else { (shared.folder.disk().sync)(&file) };
        if let Err(error) = &outcome {
            distrust(state, shared, &segment, error);
        }
        let mut kept = state.kept();
        if let Some(kept) = kept.iter_mut().find(|kept| kept.segment.number == segment.number) {
            kept.synced = written;
            kept.is_distrusted |= outcome.is_err();
        }
    }
    wake(state, tail);
}

/// After a failed sync the kernel may have dropped what it could not write and call the next sync a success. So this
/// segment's clicks are left at what the process's end leaves them, and the next ones go into another file.
fn distrust(state: &State, shared: &Shared, segment: &Segment, error: &io::Error) {
    let mut syncing = state.syncing();
    syncing.distrusted.push_back(segment.number);
    if syncing.distrusted.len() > JOURNAL_DISTRUSTED_MAX {
        syncing.distrusted.pop_front();
    }
    drop(syncing);
    shared.stats.sync_failures.fetch_add(1, Ordering::Relaxed);
    shared.wants_rotation.store(!segment.is_sealed(), Ordering::Relaxed);
    tracing::error!(
        file = %segment.path.display(),
        %error,
        "the click journal cannot be synced: if the host crashes, clicks in this file may be lost; going on in another"
    );
}

fn wake(state: &State, synced: u64) {
    let mut syncing = state.syncing();
    let (due, waiting) = std::mem::take(&mut syncing.waiters).into_iter().partition(|(end, _)| *end <= synced);
    syncing.waiters = waiting;
    let distrusted = syncing.distrusted.clone();
    drop(syncing);
    let due: Vec<(u64, Filler<bool>)> = due;
    for (end, told) in due {
        // `end` lies behind the click.
        told.fill(!distrusted.contains(&segment_of(end - 1)));
    }
}
