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
    /// Too many jobs wait; nothing was done.
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
    queue().try_send(job).map_err(|_| {
        count(&REFUSED);
        NotDone::Busy
    })?;
    let begun = Instant::now();
    let done = slot.wait_until_filled().map_err(|_| NotDone::Panicked);
    waited(Wait::Thread, begun);
    done
}

fn queue() -> &'static SyncSender<Job> {
    static QUEUE: OnceLock<SyncSender<Job>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Job>(OFFLOAD_QUEUE_JOBS);
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..OFFLOAD_THREADS {
            let receiver = Arc::clone(&receiver);
            // Refused by the system, the jobs are dropped with the receiver, and each caller hears of it.
            let _ = thread::Builder::new().name("snip-offload".into()).spawn(move || run(&receiver));
        }
        sender
    })
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
}
