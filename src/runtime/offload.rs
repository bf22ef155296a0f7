//! Work that would block the worker, handed to OS threads over a bounded channel.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::Instant;

use super::slot::slot;
use super::waits::{Wait, waited};
use crate::figures::{Figures, count, read};
use crate::limits::{OFFLOAD_QUEUE_JOBS, OFFLOAD_THREADS};

static JOBS: AtomicU64 = AtomicU64::new(0);
static REFUSED: AtomicU64 = AtomicU64::new(0);

/// Tells Prometheus. `docs/metrics.md` explains each.
pub(super) fn tell(figures: &mut Figures) {
    figures.counter("runtime_offload_jobs_total", "Jobs handed to threads that may block", read(&JOBS));
    figures.counter("runtime_offload_refused_total", "Jobs refused because too many wait", read(&REFUSED));
}

type Job = Box<dyn FnOnce() + Send>;

/// Why a job gave no result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotDone {
    /// Too many jobs wait, or the operating system has no thread for them; nothing was done.
    Busy,
    /// The job panicked.
    Panicked,
}

/// Runs `job` on a thread that may block and waits for its result. The job must have bounds of its own.
pub fn offload<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> Result<T, NotDone> {
    let (slot, filler) = slot();
    let job: Job = Box::new(move || {
        // A panic drops the filler, which tells the caller; the thread lives on.
        let _ = catch_unwind(AssertUnwindSafe(move || filler.fill(job())));
    });
    count(&JOBS);
    let is_taken = queue().is_some_and(|queue| queue.try_send(job).is_ok());
    if !is_taken {
        count(&REFUSED);
        return Err(NotDone::Busy);
    }
    let begun = Instant::now();
    let done = slot.wait_until_filled().map_err(|_| NotDone::Panicked);
    waited(Wait::Thread, begun.elapsed());
    done
}

/// The queue before the threads, which the first job starts; `None` while the operating system refuses them all.
fn queue() -> Option<&'static SyncSender<Job>> {
    static QUEUE: OnceLock<SyncSender<Job>> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if QUEUE.get().is_none() {
        // One at a time: there are to be so many threads and no more.
        let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if QUEUE.get().is_none() {
            let _ = QUEUE.set(start(thread::Builder::new)?);
        }
    }
    QUEUE.get()
}

/// Starts as many of the threads as the operating system gives, if it gives any.
fn start(builder: fn() -> thread::Builder) -> Option<SyncSender<Job>> {
    let (sender, receiver) = sync_channel::<Job>(OFFLOAD_QUEUE_JOBS);
    let receiver = Arc::new(Mutex::new(receiver));
    let started = (0..OFFLOAD_THREADS).filter(|_| {
        let receiver = Arc::clone(&receiver);
        let spawned = builder().name("snip-offload".into()).spawn(move || run(&receiver));
        spawned.inspect_err(|error| tracing::error!(%error, "no thread for work that may block")).is_ok()
    });
    (started.count() > 0).then_some(sender)
}

fn run(receiver: &Mutex<Receiver<Job>>) {
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(job) => job(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_results_and_outlives_panics() {
        assert_eq!(offload(|| 6 * 7), Ok(42));
        assert_eq!(offload(|| -> u8 { panic!("on purpose") }), Err(NotDone::Panicked));
        assert_eq!(offload(|| "still here"), Ok("still here"));
    }

    #[test]
    fn without_a_thread_there_is_no_queue_to_wait_in() {
        // No memory has room for its stack.
        assert!(start(|| thread::Builder::new().stack_size(1 << 46)).is_none());
        assert!(start(thread::Builder::new).is_some());
    }
}
