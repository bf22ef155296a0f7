//! The thread that owns the connection, the bounded queue in front of it, and group commit.
//!
//! The thread takes one job and whatever else waits, and runs them in one transaction, each writer in a savepoint of
//! its own: one that fails does not undo its neighbours. Nobody hears of a result before the commit. While a commit
//! waits for the disk the next batch gathers by itself, so that under load a sync is shared by many and a lone writer
//! waits for nobody.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::error::{StoreError, StoreResult};
use crate::figures::{Figures, Latency, count, read};
use crate::limits::{SQLITE_BATCH_JOBS, SQLITE_QUEUE_JOBS};
use crate::runtime::{Empty, Filler, Slot, Wait, panic_text, slot, waited};

/// What a job does to the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// Only reads.
    Read,
    /// Writes, so that it needs a transaction.
    Write,
}

/// The way to the thread. Dropped, it closes the queue and waits until what is in it is done and the file is closed.
pub(super) struct Queue {
    // Fields drop in this order: without the sender the thread comes to its end, and only then can it be joined.
    jobs: SyncSender<Box<dyn Job>>,
    _thread: Joined,
    stats: Arc<Stats>,
}

/// Counts since the start.
#[derive(Default)]
struct Stats {
    /// Jobs taken in.
    submitted: AtomicU64,
    /// Of these, how many the thread has taken out of the queue.
    taken: AtomicU64,
    /// Jobs refused because the queue was full.
    busy: AtomicU64,
    /// Jobs whose caller stopped waiting.
    timeouts: AtomicU64,
    latency: Latency,
}

struct Joined(Option<JoinHandle<()>>);

impl Drop for Joined {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread of the SQLite store panicked");
        }
    }
}

impl Queue {
    /// Hands the connection to a thread of its own.
    pub(super) fn start(db: Connection) -> std::io::Result<Self> {
        let (jobs, queued) = sync_channel(SQLITE_QUEUE_JOBS);
        let stats = Arc::new(Stats::default());
        let seen = Arc::clone(&stats);
        let thread = thread::Builder::new().name("snip-sqlite".into()).spawn(move || run(db, &queued, &seen))?;
        Ok(Self { jobs, _thread: Joined(Some(thread)), stats })
    }

    /// Tells Prometheus. `docs/metrics.md` explains each.
    pub(super) fn tell(&self, figures: &mut Figures) {
        let stats = &self.stats;
        let taken = read(&stats.taken);
        let submitted = read(&stats.submitted);
        let waiting = submitted.saturating_sub(taken) as f64;
        figures.gauge("sqlite_queue_jobs", "Jobs waiting for the SQLite thread", waiting);
        figures.counter("sqlite_jobs_total", "Jobs for the SQLite thread", submitted);
        let failures = [(["busy"], read(&stats.busy)), (["timeout"], read(&stats.timeouts))];
        figures.counters("sqlite_failures_total", "Jobs that the SQLite thread did not do", ["reason"], failures);
        let help = "From a job for SQLite to its result, the queue included, or to its deadline";
        figures.latency("sqlite_job_duration_seconds", help, &stats.latency);
    }

    /// Has the thread do the work and waits for what comes of it, at most for `limit` (see [`Slot::wait`]).
    pub(super) fn call<T, W>(&self, access: Access, limit: Option<Duration>, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        let begun = Instant::now();
        let slot = self.submit(access, limit, work)?;
        let result = match limit {
            Some(limit) => slot.wait(limit),
            None => slot.wait_until_filled(),
        };
        self.stats.latency.observe(waited(Wait::Store, begun.elapsed()));
        if matches!(result, Err(Empty::TimedOut)) {
            count(&self.stats.timeouts);
        }
        result.unwrap_or_else(|empty| Err(StoreError::Unavailable(describe(empty).into())))
    }

    /// Queues the work, which is left undone if it does not begin within `limit`.
    pub(super) fn submit<T, W>(
        &self,
        access: Access,
        limit: Option<Duration>,
        work: W,
    ) -> StoreResult<Slot<StoreResult<T>>>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        let (slot, filler) = slot();
        let stale_at = limit.map(|limit| Instant::now() + limit);
        let task = Task { access, stale_at, work: Some(work), result: None, filler };
        match self.jobs.try_send(Box::new(task)) {
            Ok(()) => {
                count(&self.stats.submitted);
                Ok(slot)
            }
            Err(TrySendError::Full(_)) => {
                count(&self.stats.busy);
                Err(StoreError::Busy)
            }
            Err(TrySendError::Disconnected(_)) => Err(StoreError::Unavailable("the SQLite thread is gone".into())),
        }
    }
}

fn describe(empty: Empty) -> &'static str {
    match empty {
        Empty::TimedOut => "SQLite did not answer in time",
        Empty::Abandoned => "the SQLite thread gave the job up",
    }
}

/// A task, whatever its result is.
trait Job: Send {
    fn access(&self) -> Access;
    /// Whether its caller has stopped waiting.
    fn is_stale(&self, now: Instant) -> bool;
    /// Does the work and keeps the result; an error is told here too, so that the writes be undone.
    fn run(&mut self, db: &Connection) -> StoreResult<()>;
    /// Hands the result over, or what became of the transaction if that failed.
    fn finish(self: Box<Self>, transaction: &StoreResult<()>);
}

struct Task<T, W> {
    access: Access,
    stale_at: Option<Instant>,
    work: Option<W>,
    result: Option<StoreResult<T>>,
    filler: Filler<StoreResult<T>>,
}

impl<T, W> Job for Task<T, W>
where
    T: Send + 'static,
    W: FnOnce(&Connection) -> StoreResult<T> + Send,
{
    fn access(&self) -> Access {
        self.access
    }

    fn is_stale(&self, now: Instant) -> bool {
        self.stale_at.is_some_and(|at| at <= now)
    }

    fn run(&mut self, db: &Connection) -> StoreResult<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        // Unwind safety: what the work leaves half done in the file is undone with its savepoint; statements reset
        // themselves when they are dropped.
        let result = catch_unwind(AssertUnwindSafe(|| work(db))).unwrap_or_else(|panic| Err(panicked(&*panic)));
        let outcome = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.result = Some(result);
        outcome
    }

    fn finish(self: Box<Self>, transaction: &StoreResult<()>) {
        let unrun = || Err(StoreError::Internal("a job of the store was not run".into()));
        let Self { result, filler, .. } = *self;
        filler.fill(transaction.clone().and_then(|()| result.unwrap_or_else(unrun)));
    }
}

fn panicked(panic: &(dyn Any + Send)) -> StoreError {
    let text = panic_text(panic);
    tracing::error!(panic = text, "a job of the SQLite store panicked");
    StoreError::Internal(format!("a job of the store panicked: {text}"))
}

type Batch = Vec<Box<dyn Job>>;

fn run(db: Connection, queued: &Receiver<Box<dyn Job>>, stats: &Stats) {
    while let Ok(first) = queued.recv() {
        let mut batch: Batch = vec![first];
        batch.extend(queued.try_iter().take(SQLITE_BATCH_JOBS - 1));
        stats.taken.fetch_add(batch.len() as u64, Ordering::Relaxed);
        run_batch(&db, batch);
    }
    close(db);
}

fn run_batch(db: &Connection, mut batch: Batch) {
    // After a stall the queue is full of jobs that nobody waits for; to run them would only prolong it.
    let now = Instant::now();
    batch.retain(|job| !job.is_stale(now));
    if batch.iter().all(|job| job.access() == Access::Read) {
        return run_readers(db, batch);
    }
    match execute(db, "BEGIN IMMEDIATE") {
        Ok(()) => {
            let transaction = run_and_commit(db, &mut batch);
            finish(batch, &transaction);
        }
        // Another program holds the write lock; readers need not suffer for it.
        Err(why) => {
            let (writers, readers) = batch.into_iter().partition(|job| job.access() == Access::Write);
            finish(writers, &Err(why));
            run_readers(db, readers);
        }
    }
}

/// Readers need no transaction: each of their statements sees one state of the file by itself, and no other writer of
/// ours is there between two of them.
fn run_readers(db: &Connection, mut batch: Batch) {
    for job in &mut batch {
        // The job keeps its error for its caller.
        let _ = job.run(db);
    }
    finish(batch, &Ok(()));
}

fn finish(batch: Batch, transaction: &StoreResult<()>) {
    if let Err(why) = transaction {
        tracing::warn!(error = %why, jobs = batch.len(), "a transaction of the SQLite store failed");
    }
    batch.into_iter().for_each(|job| job.finish(transaction));
}

fn run_and_commit(db: &Connection, batch: &mut Batch) -> StoreResult<()> {
    let done = batch.iter_mut().try_for_each(|job| run_within(db, job.as_mut()));
    let done = done.and_then(|()| execute(db, "COMMIT"));
    if done.is_err()
        && !db.is_autocommit()
        && let Err(error) = execute(db, "ROLLBACK")
    {
        tracing::error!(%error, "a transaction of the SQLite store could not be undone");
    }
    done
}

/// An error is the transaction's end; a job's own error, undone by its savepoint, is not.
fn run_within(db: &Connection, job: &mut dyn Job) -> StoreResult<()> {
    let writes = job.access() == Access::Write;
    if writes {
        execute(db, "SAVEPOINT job")?;
    }
    let outcome = job.run(db);
    if let Err(why) = &outcome
        && db.is_autocommit()
    {
        // A full disk, for one, makes SQLite undo the whole transaction by itself.
        return Err(why.clone());
    }
    if writes && outcome.is_err() {
        execute(db, "ROLLBACK TO job")?;
    }
    if writes { execute(db, "RELEASE job") } else { Ok(()) }
}

fn execute(db: &Connection, sql: &str) -> StoreResult<()> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn close(db: Connection) {
    // The row that comes back tells how many pages moved, which nobody needs.
    if let Err(error) = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())) {
        tracing::warn!(%error, "the write-ahead log stays for the next start");
    }
    if let Err((_, error)) = db.close() {
        tracing::warn!(%error, "the SQLite file did not close");
    }
}
