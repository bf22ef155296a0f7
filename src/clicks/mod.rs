//! Clicks on their way to the store. A redirect hands its click over and goes on; a thread stores them in batches.
//!
//! The queue is in memory: what is in it is lost with the process if it is killed, and stored before an orderly end.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::limits::{
    CLICKS_BATCH_MAX, CLICKS_FLUSH_DEADLINE, CLICKS_FLUSH_INTERVAL, CLICKS_QUEUE_MAX, CLICKS_RETRY_MAX,
    CLICKS_RETRY_MIN,
};
use crate::model::Click;
use crate::runtime::{Filler, slot};
use crate::store::Store;

/// Figures of the clicks, counted since the start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Clicks handed over.
    pub recorded: AtomicU64,
    /// Clicks in the store.
    pub stored: AtomicU64,
    /// Clicks that found the queue full and are lost.
    pub shed: AtomicU64,
    /// Batches that the store refused; each was offered again.
    pub refused_batches: AtomicU64,
}

#[derive(Default)]
struct Queue {
    clicks: VecDeque<Click>,
    /// Clicks ever taken in; the newest one's number.
    taken_in: u64,
    /// Those who wait until the click with this number is stored.
    waiters: Vec<(u64, Filler<()>)>,
    is_closing: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    /// Told when the first click comes, when somebody waits, and at the end.
    news: Condvar,
    stats: Stats,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes clicks in.
pub struct Clicks {
    shared: Arc<Shared>,
    shipper: Mutex<Option<JoinHandle<()>>>,
}

impl Clicks {
    /// Starts the thread that stores them.
    pub fn start(store: Arc<dyn Store>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared { queue: Mutex::default(), news: Condvar::new(), stats: Stats::default() });
        let shipping = Arc::clone(&shared);
        let shipper =
            thread::Builder::new().name("snip-clicks".into()).spawn(move || ship(&shipping, store.as_ref()))?;
        Ok(Self { shared, shipper: Mutex::new(Some(shipper)) })
    }

    /// The figures.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Takes a click in. Never waits: with the queue full the click is shed and counted.
    pub fn record(&self, click: Click) {
        let mut queue = self.shared.lock();
        if queue.clicks.len() >= CLICKS_QUEUE_MAX {
            self.shared.stats.shed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.clicks.push_back(click);
        queue.taken_in += 1;
        self.shared.stats.recorded.fetch_add(1, Ordering::Relaxed);
        if queue.clicks.len() == 1 {
            self.shared.news.notify_one();
        }
    }

    /// Waits until every click taken in so far is stored, so that a read sees them. False after
    /// [`CLICKS_FLUSH_DEADLINE`]: a read would miss some.
    #[must_use]
    pub fn flush(&self) -> bool {
        let mut queue = self.shared.lock();
        let newest = queue.taken_in;
        if self.shared.stats.stored.load(Ordering::Relaxed) >= newest {
            return true;
        }
        let (slot, filler) = slot();
        queue.waiters.push((newest, filler));
        self.shared.news.notify_one();
        drop(queue);
        slot.wait(CLICKS_FLUSH_DEADLINE).is_ok()
    }

    /// Stores what is left and ends the thread. Returns the number of clicks that the store would not take within
    /// `limit`. To be called from a plain thread.
    pub fn close(&self, limit: Duration) -> u64 {
        self.shared.lock().is_closing = true;
        self.shared.news.notify_one();
        let shipper = self.shipper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let deadline = Instant::now() + limit;
        if let Some(shipper) = shipper {
            while !shipper.is_finished() && Instant::now() < deadline {
                thread::sleep(Duration::from_millis(1));
            }
        }
        let stats = &self.shared.stats;
        stats.recorded.load(Ordering::Relaxed).saturating_sub(stats.stored.load(Ordering::Relaxed))
    }
}

/// The thread's work, until the end.
fn ship(shared: &Shared, store: &dyn Store) {
    while let Some(batch) = next_batch(shared) {
        let count = batch.len() as u64;
        store_batch(shared, store, &Arc::new(batch));
        let stored = shared.stats.stored.fetch_add(count, Ordering::Relaxed) + count;
        wake_waiters(shared, stored);
    }
}

/// Waits for clicks, lets a few more come, and takes a batch. `None` at the end, when nothing is left.
fn next_batch(shared: &Shared) -> Option<Vec<Click>> {
    let mut queue = shared.lock();
    while queue.clicks.is_empty() {
        if queue.is_closing {
            return None;
        }
        queue = shared.news.wait(queue).unwrap_or_else(PoisonError::into_inner);
    }
    let deadline = Instant::now() + CLICKS_FLUSH_INTERVAL;
    while queue.clicks.len() < CLICKS_BATCH_MAX && queue.waiters.is_empty() && !queue.is_closing {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        queue = shared.news.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    let count = queue.clicks.len().min(CLICKS_BATCH_MAX);
    Some(queue.clicks.drain(..count).collect())
}

/// Offers a batch until the store takes it. A batch is one transaction, but "no answer" may hide that it was taken: such
/// a batch is then stored twice rather than lost. The journal's position, stored with the batch, is to close that gap.
fn store_batch(shared: &Shared, store: &dyn Store, batch: &Arc<Vec<Click>>) {
    let mut pause = CLICKS_RETRY_MIN;
    while let Err(error) = store.record_clicks(Arc::clone(batch)) {
        shared.stats.refused_batches.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(clicks = batch.len(), %error, "clicks could not be stored; trying again");
        thread::sleep(pause);
        pause = (pause * 2).min(CLICKS_RETRY_MAX);
    }
}

fn wake_waiters(shared: &Shared, stored: u64) {
    let mut queue = shared.lock();
    let (due, waiting) = std::mem::take(&mut queue.waiters).into_iter().partition(|(number, _)| *number <= stored);
    queue.waiters = waiting;
    drop(queue);
    let due: Vec<(u64, Filler<()>)> = due;
    due.into_iter().for_each(|(_, filler)| filler.fill(()));
}
