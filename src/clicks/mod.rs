//! Clicks on their way to the store. A redirect lays its click down in the journal and goes on; a thread ships batches.
//!
//! `docs/clicks.md` tells what is promised: each click of an answered redirect is in the store exactly once, whatever
//! crashes meanwhile, and those that are not (journal full, disk full) are counted.

mod burst;
pub mod inspect;
pub mod journal;
pub mod record;
pub mod segment;
mod shipper;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub use journal::{Durability, Journal, OpenError, Options, Stats};
pub use record::ClickRef;

use crate::figures::{Figures, read};
use crate::limits::CLICKS_FLUSH_DEADLINE;
use crate::model::Timestamp;
use crate::runtime::{Wait, slot, waited};
use crate::store::ClickStore;
use burst::{Lookout, Watch};
use journal::Shared;
use shipper::{Desk, Shipper};

/// Takes clicks in.
pub struct Clicks {
    journal: Journal,
    desk: Arc<Desk>,
    shipper: Mutex<Option<JoinHandle<()>>>,
}

/// How much there is of the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Segment files whose clicks are not all stored, the one that is written included.
    pub segments: u64,
    /// Bytes of all segment files.
    pub bytes: u64,
    /// Files set aside because they could not be read.
    pub damaged: u64,
    /// Clicks not stored because of damage within their file.
    pub skipped: u64,
}

impl Clicks {
    /// Opens the journal and starts the thread that stores what is in it. The store need not be there yet.
    pub fn start(store: Arc<dyn ClickStore>, options: Options) -> Result<Self, StartError> {
        Self::start_with(store, options, Box::new(Watch::start()))
    }

    fn start_with(store: Arc<dyn ClickStore>, options: Options, lookout: Box<dyn Lookout>) -> Result<Self, StartError> {
        let journal = Journal::open(options).map_err(StartError::Journal)?;
        let desk = Arc::new(Desk::default());
        let (shared, at_desk) = (Arc::clone(journal.shared()), Arc::clone(&desk));
        let work = move || Shipper::new(&shared, &at_desk, store.as_ref(), lookout).run();
        let shipper = thread::Builder::new().name("snip-clicks".into()).spawn(work).map_err(StartError::Thread)?;
        Ok(Self { journal, desk, shipper: Mutex::new(Some(shipper)) })
    }

    /// The figures.
    pub fn stats(&self) -> &Stats {
        &self.journal.shared().stats
    }

    /// How much there is of the journal.
    pub fn size(&self) -> Size {
        let shared = self.journal.shared();
        let damaged = shared.folder.damaged.load(Ordering::Relaxed);
        let skipped = shared.folder.skipped.load(Ordering::Relaxed);
        Size { segments: shared.folder.count(), bytes: shared.bytes(), damaged, skipped }
    }

    /// Tells Prometheus. `docs/metrics.md` explains each.
    pub fn tell(&self, figures: &mut Figures) {
        let (size, stats) = (self.size(), self.stats());
        figures.counter("clicks_recorded_total", "Clicks appended to the journal", read(&stats.recorded));
        figures.counter("clicks_stored_total", "Clicks stored as events", read(&stats.stored));
        let help = "Clicks lost because the journal had no room";
        figures.counter("clicks_shed_total", help, read(&stats.shed));
        let help = "Clicks of earlier runs found unstored in the journal";
        figures.counter("clicks_recovered_total", help, read(&stats.recovered));
        let help = "Redirects answered before their click was on disk";
        figures.counter("clicks_unsynced_total", help, read(&stats.unsynced));
        let help = "Batches of clicks that the store refused";
        figures.counter("clicks_batches_refused_total", help, read(&stats.refused_batches));
        figures.gauge("clicks_waiting", "Clicks in the journal that are not stored yet", stats.waiting() as f64);
        let help = "1 while a burst goes on and clicks wait for the core to have room";
        figures.gauge("clicks_deferred", help, f64::from(u8::from(stats.is_deferring.load(Ordering::Relaxed))));
        let help = "Age of the oldest click that is not stored yet";
        figures.gauge("clicks_lag_seconds", help, stats.lag_seconds(Timestamp::now()));
        figures.gauge("journal_segments", "Segments of the click journal", size.segments as f64);
        figures.gauge("journal_bytes", "Bytes of the click journal on disk", size.bytes as f64);
        let help = "Bytes that the click journal may have; past it clicks are lost";
        figures.gauge("journal_bytes_limit", help, self.journal.shared().bytes_max() as f64);
        let help = "Segments set aside because of damage";
        figures.counter("journal_damaged_segments_total", help, size.damaged);
        let help = "Clicks not stored because of damage in the journal";
        figures.counter("clicks_skipped_total", help, size.skipped);
        let help = "Segments that could not be made";
        figures.counter("journal_prepare_failures_total", help, read(&stats.prepare_failures));
        figures.counter("journal_sync_failures_total", "Syncs of the journal that failed", read(&stats.sync_failures));
    }

    /// Takes a click in (see [`Journal::append`]).
    pub fn record(&self, click: ClickRef<'_>) {
        self.journal.append(click);
    }

    /// Waits until every click taken in so far is stored, so that a read sees them. False after
    /// [`CLICKS_FLUSH_DEADLINE`]: a read would miss some.
    #[must_use]
    pub fn flush(&self) -> bool {
        let (slot, told) = slot();
        if !self.desk.ask(self.journal.shared().tail(), told) {
            return true;
        }
        let begun = Instant::now();
        let is_stored = slot.wait(CLICKS_FLUSH_DEADLINE).is_ok();
        waited(Wait::Clicks, begun.elapsed());
        is_stored
    }

    /// Stores what is left and ends the threads. Returns the number of clicks that the store did not take within `limit`:
    /// they stay in the journal, and the next start stores them. To be called from a plain thread.
    pub fn close(&self, limit: Duration) -> u64 {
        self.desk.close();
        let shipper = self.shipper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let deadline = Instant::now() + limit;
        if let Some(shipper) = shipper {
            while !shipper.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
            self.desk.give_up();
        }
        self.journal.close();
        self.stats().waiting()
    }
}

/// Why clicks cannot be taken in.
#[derive(Debug)]
pub enum StartError {
    /// The journal cannot be had.
    Journal(OpenError),
    /// The operating system gave no thread.
    Thread(std::io::Error),
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Journal(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start the thread that stores clicks: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// Says in the log which journals lie beside the one in `own` with nobody to ship them.
pub fn tell_left_over(own: &Path) {
    match journal::left_over(own) {
        Ok(folders) => folders.iter().for_each(|folder| {
            tracing::warn!(
                folder = %folder.display(),
                "a click journal of another instance is left over here; if no server of that name will start again, store its \
                 clicks with 'snip journal ship {}'",
                folder.display()
            );
        }),
        Err(error) => tracing::warn!(%error, "cannot look for click journals left over"),
    }
}

/// What became of a left-over journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shipped {
    /// Clicks that were stored now; those that had been stored before are not among them.
    pub stored: u64,
    /// Files set aside because they could not be read; the folder stays for them.
    pub damaged: u64,
    /// Clicks that lay behind damage within a file, and are lost with it.
    pub skipped: u64,
}

/// Stores the clicks of a left-over journal, whosever it is, and removes it. Returns `None` if the store did not take them
/// all within `limit`.
pub fn ship(folder: &Path, store: &dyn ClickStore, limit: Duration) -> Result<Option<Shipped>, StartError> {
    let shared = Shared::adopt(folder).map_err(StartError::Journal)?;
    let desk = Desk::default();
    desk.close();
    let is_done = thread::scope(|scope| {
        let work = || Shipper::new(&shared, &desk, store, Box::new(Watch::start())).run();
        let shipping = thread::Builder::new().name("snip-clicks".into()).spawn_scoped(scope, work)?;
        let deadline = Instant::now() + limit;
        while !shipping.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(1));
        }
        let is_done = shipping.is_finished();
        desk.give_up();
        Ok(is_done)
    });
    if !is_done.map_err(StartError::Thread)? {
        return Ok(None);
    }
    let damaged = shared.folder.damaged.load(Ordering::Relaxed);
    let skipped = shared.folder.skipped.load(Ordering::Relaxed);
    let stored = shared.stats.stored.load(Ordering::Relaxed);
    let remove = |error| StartError::Journal(OpenError::io(folder, error));
    shared.folder.remove_all().map_err(remove)?;
    Ok(Some(Shipped { stored, damaged, skipped }))
}
