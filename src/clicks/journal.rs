//! The journal: clicks laid down in memory-mapped segment files. An append copies the record and tells its readers by an
//! atomic store; it makes no system call, and what it wrote outlives a `kill -9` of the process.
//!
//! Segments are made ahead by a thread of their own (`keeper`), with all their blocks, so that a full disk is found out
//! there. When none is ready and none can be had (disk full, cap reached), clicks are shed: counted, and said once.

mod blanks;
mod folder;
mod keeper;
mod map;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub use folder::{Disk, OpenError};
pub(crate) use folder::{Folder, Segment, left_over, numbered_files};

use super::record::{ClickRef, Draft, Prepared};
use super::segment::{HEADER_BYTES, first_sequence};
use crate::figures::add_alone;
use crate::limits::{CLICKS_BURST_JOURNAL_SHARE, JOURNAL_BYTES_DEFAULT, JOURNAL_SEGMENT_BYTES, JOURNAL_SYNC_DEADLINE};
use crate::model::{Click, Timestamp};
use crate::runtime::slot;
use keeper::{Keeper, Kept};
use map::Pen;

/// What a click survives once its redirect is answered. `docs/clicks.md` tells what each costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A crash of the process.
    Process,
    /// A crash of the host too, save for the last interval.
    Interval(Duration),
    /// A crash of the host: the redirect waits for the disk.
    Always,
}

/// How a journal is kept.
#[derive(Clone)]
pub struct Options {
    /// The folder of this instance's segments.
    pub folder: PathBuf,
    /// The instance.
    pub instance: String,
    /// Bytes of all segment files together.
    pub bytes_max: u64,
    /// What a click survives.
    pub durability: Durability,
    /// The disk, as far as it can fail.
    pub disk: Disk,
}

impl Options {
    /// The defaults, in this folder.
    pub fn new(folder: &Path, instance: &str) -> Self {
        Self {
            folder: folder.to_owned(),
            instance: instance.to_owned(),
            bytes_max: JOURNAL_BYTES_DEFAULT,
            durability: Durability::Process,
            disk: Disk::default(),
        }
    }
}

/// Figures of the journal and of what becomes of its clicks, counted since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Clicks appended.
    pub recorded: AtomicU64,
    /// Clicks in the store, those left over from earlier runs included.
    pub stored: AtomicU64,
    /// Clicks that found no room and are lost.
    pub shed: AtomicU64,
    /// Clicks of earlier runs that were found unstored.
    pub recovered: AtomicU64,
    /// Clicks of earlier runs of which the store has not yet told whether they are stored.
    pub unexamined: AtomicU64,
    /// Batches that the store refused; each was offered again.
    pub refused_batches: AtomicU64,
    /// Time of the oldest click that waits, in microseconds since 1970; 0 if none does.
    pub oldest_waiting_at: AtomicI64,
    /// A burst goes on, and clicks wait for the core to have room.
    pub is_deferring: AtomicBool,
    /// Segments that could not be made.
    pub prepare_failures: AtomicU64,
    /// Syncs that failed; each ended the trust in its segment.
    pub sync_failures: AtomicU64,
    /// Redirects answered before their click was on disk, although it should have been.
    pub unsynced: AtomicU64,
}

impl Stats {
    /// Age of the oldest click that waits, in seconds; 0 if none does.
    pub fn lag_seconds(&self, now: Timestamp) -> f64 {
        match self.oldest_waiting_at.load(Ordering::Relaxed) {
            0 => 0.0,
            oldest => now.micros().saturating_sub(oldest).max(0) as f64 / 1e6,
        }
    }

    /// Notes which click waits for the longest time, if one does.
    pub(crate) fn note_oldest(&self, click: Option<&Click>) {
        self.oldest_waiting_at.store(click.map_or(0, |click| click.at.micros()), Ordering::Relaxed);
    }

    /// Clicks that are to be stored.
    pub fn waiting(&self) -> u64 {
        let stored = self.stored.load(Ordering::Relaxed);
        let recovered = self.recovered.load(Ordering::Relaxed) + self.unexamined.load(Ordering::Relaxed);
        (self.recorded.load(Ordering::Relaxed) + recovered).saturating_sub(stored)
    }
}

/// Takes clicks in.
pub struct Journal {
    writer: Mutex<Writer>,
    shared: Arc<Shared>,
    keeper: Keeper,
}

/// What the writer shares with the keeper and the shipper.
pub(crate) struct Shared {
    pub folder: Folder,
    pub stats: Stats,
    bytes_max: u64,
    durability: Durability,
    /// Behind the last click appended.
    tail: AtomicU64,
    /// The present segment is no longer trusted.
    wants_rotation: AtomicBool,
    is_shedding: AtomicBool,
}

impl Shared {
    fn new(folder: Folder, bytes_max: u64, durability: Durability) -> Self {
        Self {
            tail: AtomicU64::new(first_sequence(folder.first_own)),
            folder,
            stats: Stats::default(),
            bytes_max,
            durability,
            wants_rotation: AtomicBool::new(false),
            is_shedding: AtomicBool::new(false),
        }
    }

    /// A left-over journal that nobody writes.
    pub fn adopt(path: &Path) -> Result<Self, OpenError> {
        Ok(Self::new(Folder::adopt(path)?, 0, Durability::Process))
    }

    /// Behind the last click appended; no click of this run lies there or after.
    pub fn tail(&self) -> u64 {
        self.tail.load(Ordering::Acquire)
    }

    /// Bytes that all segment files may have.
    pub fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// Bytes of all segment files, the one that is ready included.
    pub fn bytes(&self) -> u64 {
        self.folder.bytes() + JOURNAL_SEGMENT_BYTES
    }
}

/// The end of the journal.
#[derive(Default)]
struct Writer {
    current: Option<Current>,
    draft: Draft,
}

impl Writer {
    fn append(&mut self, click: &Prepared<'_>) -> Option<u64> {
        self.current.as_mut()?.append(click, &mut self.draft)
    }
}

/// The segment that is being written.
struct Current {
    segment: Arc<Segment>,
    pen: Pen,
    offset: usize,
    next_sequence: u64,
}

impl Current {
    fn new(segment: Arc<Segment>, pen: Pen) -> Self {
        let next_sequence = first_sequence(segment.number);
        Self { segment, pen, offset: HEADER_BYTES, next_sequence }
    }

    /// Lays the click down, if it fits. Returns the sequence number behind it.
    fn append(&mut self, click: &Prepared<'_>, draft: &mut Draft) -> Option<u64> {
        let end = self.offset + click.bytes();
        click.encode(self.next_sequence, draft, self.pen.bytes(self.offset..end)?);
        self.offset = end;
        self.next_sequence += 1;
        self.segment.publish(end as u64);
        // The next record is as a rule about as long.
        self.pen.prefetch(end..end + click.bytes());
        Some(self.next_sequence)
    }
}

impl Journal {
    /// Opens the journal of an instance; what an earlier run left is in `shared().folder` for the shipper. With the disk
    /// full it opens all the same, and sheds until there is room.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let Options { folder: path, instance, bytes_max, durability, disk } = options;
        let is_synced = durability != Durability::Process;
        let folder = Folder::open(&path, &instance, disk, is_synced, spares_max(bytes_max, durability))?;
        let shared = Arc::new(Shared::new(folder, bytes_max, durability));
        let journal = Self { writer: Mutex::default(), shared, keeper: Keeper::default() };
        // The first segment now: a folder that cannot be written is to be told at the start.
        match journal.keeper.prepare(&journal.shared) {
            Err(error) if !is_for_want_of_space(&error) => return Err(OpenError::io(&path, error)),
            Ok(()) | Err(_) => {}
        }
        journal.keeper.start(&journal.shared).map_err(|error| OpenError::io(&path, error))?;
        Ok(journal)
    }

    /// What the shipper reads.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Lays a click down. Without room it is shed and counted. Waits for the disk under [`Durability::Always`] alone;
    /// else it neither waits, nor allocates, nor calls the system.
    pub fn append(&self, click: ClickRef<'_>) {
        let click = Prepared::new(click);
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = self.append_or_rotate(&mut writer, &click) else {
            drop(writer);
            return self.shed();
        };
        self.shared.tail.store(end, Ordering::Release);
        // Nobody else writes it: the writer is locked.
        add_alone(&self.shared.stats.recorded, 1);
        drop(writer);
        if self.shared.durability == Durability::Always {
            self.wait_until_synced(end);
        }
    }

    fn append_or_rotate(&self, writer: &mut Writer, click: &Prepared<'_>) -> Option<u64> {
        if !self.shared.wants_rotation.load(Ordering::Relaxed)
            && let Some(end) = writer.append(click)
        {
            return Some(end);
        }
        self.rotate(writer);
        writer.append(click)
    }

    /// Goes on to the next segment, if one can be had; else the present one stays.
    fn rotate(&self, writer: &mut Writer) {
        let Some((Kept { segment, .. }, pen)) = self.keeper.take(&self.shared) else { return };
        // First the new one, then the end of the old one: a reader that sees the end finds where to go on.
        self.shared.folder.add(Arc::clone(&segment));
        self.shared.wants_rotation.store(false, Ordering::Relaxed);
        if let Some(old) = writer.current.replace(Current::new(segment, pen)) {
            old.segment.seal();
        }
        if self.shared.is_shedding.swap(false, Ordering::Relaxed) {
            let shed = self.shared.stats.shed.load(Ordering::Relaxed);
            tracing::warn!(shed, "clicks are journaled again; so many were shed since the start");
        }
    }

    fn shed(&self) {
        self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
        if !self.shared.is_shedding.swap(true, Ordering::Relaxed) {
            tracing::error!(
                segments = self.shared.folder.count(),
                bytes_max = self.shared.bytes_max,
                "the click journal has no room: clicks are shed from now on, redirects go on"
            );
        }
    }

    fn wait_until_synced(&self, end: u64) {
        let (slot, filler) = slot();
        self.keeper.sync(end, filler);
        if slot.wait(JOURNAL_SYNC_DEADLINE) != Ok(true) {
            self.shared.stats.unsynced.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Ends the threads; under a durability beyond the process, what is not yet synced is synced first.
    pub fn close(&self) {
        self.keeper.close(&self.shared);
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.close();
    }
}

/// How many files of stored segments are kept to make others of: what a burst fills. None where the zeros written into them
/// would have to reach the disk before a click does.
fn spares_max(bytes_max: u64, durability: Durability) -> usize {
    match durability {
        Durability::Process => (bytes_max / CLICKS_BURST_JOURNAL_SHARE / JOURNAL_SEGMENT_BYTES) as usize,
        Durability::Interval(_) | Durability::Always => 0,
    }
}

/// Disk full or quota reached: it may pass, and is no reason not to serve.
fn is_for_want_of_space(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
