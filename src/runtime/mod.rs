//! The ground that coroutines stand on: `may` set up once, waiting for results, work on OS threads.

mod code;
mod expiry;
pub mod interest;
pub mod offload;
mod slot;
mod stack;
mod waits;

use std::io;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::figures::{Figures, count, read};
use crate::limits;

pub use code::forget_start;
pub use slot::{Empty, Filler, Slot, slot};
pub use stack::StackTop;
pub use waits::{Wait, Waited, waited, waits_since};

/// Sets `may` up; further calls do nothing. Must come before the first coroutine.
///
/// One worker: with several, `may` has use-after-free windows, and the product scales by processes
/// (`docs/decisions.md`).
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let config = may::config();
        config.set_workers(1);
        config.set_worker_pin(false);
        config.set_stack_size(limits::CONNECTION_STACK_WORDS);
        // As many as it may keep are made and touched at the start: so that is one, until the first coroutine is there.
        config.set_pool_capacity(1);
        // The worker would go by the name of whichever thread happens to come first. Without a name it works as well.
        let _ = spawn_ready(limits::CONNECTION_STACK_WORDS, || {
            let _ = rustix::thread::set_name(c"snip-worker");
        });
        config.set_pool_capacity(limits::STACK_POOL_COUNT);
        interest::find_epoll();
    });
}

/// Starts a coroutine; it begins when the worker comes to it. May be called from any thread.
pub fn spawn(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    init();
    spawn_ready(stack_words, body)
}

#[allow(unsafe_code, reason = "may marks spawning as unsafe")]
fn spawn_ready(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = may::coroutine::Builder::new().stack_size(stack_words);
    // SAFETY: what may asks for is that the body fits its stack (the sizes are in limits.rs, a guard page ends the
    // process otherwise) and that no thread-local is relied on across a wait: with one worker, and no timed park
    // anywhere, all coroutines run on one thread.
    unsafe { builder.spawn(counted(stack_words, body)) }.map(drop)
}

/// Starts a coroutine at once, within the calling one, which goes on when the new one first waits. Saves the wake-up of
/// [`spawn`]; to be called from a coroutine only.
#[allow(unsafe_code, reason = "may marks spawning as unsafe")]
pub fn spawn_here(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = may::coroutine::Builder::new().stack_size(stack_words);
    // SAFETY: as in `spawn`; the caller is a coroutine on the one worker, so the new one starts there too.
    unsafe { builder.spawn_local(counted(stack_words, body)) }.map(drop)
}

static STARTED: AtomicU64 = AtomicU64::new(0);
static ALIVE: AtomicUsize = AtomicUsize::new(0);
static STACK_BYTES: AtomicUsize = AtomicUsize::new(0);

/// Counts a coroutine for as long as it lives, or as its body waits to be run.
struct Alive(usize);

impl Alive {
    fn new(stack_words: usize) -> Self {
        let bytes = stack_words * size_of::<usize>();
        count(&STARTED);
        ALIVE.fetch_add(1, Ordering::Relaxed);
        STACK_BYTES.fetch_add(bytes, Ordering::Relaxed);
        Self(bytes)
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Relaxed);
        STACK_BYTES.fetch_sub(self.0, Ordering::Relaxed);
    }
}

fn counted(stack_words: usize, body: impl FnOnce() + Send + 'static) -> impl FnOnce() + Send + 'static {
    let alive = Alive::new(stack_words);
    move || {
        let _alive = alive;
        body();
    }
}

/// Tells Prometheus. `docs/metrics.md` explains each.
pub fn tell(figures: &mut Figures) {
    let now = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed) as f64;
    figures.gauge("runtime_coroutines", "Coroutines alive", now(&ALIVE));
    figures.counter("runtime_coroutines_started_total", "Coroutines started", read(&STARTED));
    figures.gauge("runtime_stack_bytes", "Address space of their stacks, touched or not", now(&STACK_BYTES));
    offload::tell(figures);
}

/// Lets every other coroutine run, those included whose sockets have become ready.
///
/// `yield_now` would not do: the run queue is emptied before sockets are looked at, so that two coroutines that yield to
/// each other starve all sockets. A coroutine spawned from here starts only after that look, and then wakes this one.
pub fn yield_to_reactor() {
    let (slot, filler) = slot();
    if spawn(limits::CONNECTION_STACK_WORDS, move || filler.fill(())).is_ok() {
        // Whether filled or abandoned, the look has happened.
        let _ = slot.wait_until_filled();
    }
}

/// Ends the process, with success, if it has not ended by itself in `limit`: what is left to be done then is to give back
/// memory and to join threads, and whoever starts the next process waits for this one.
pub fn end_within(limit: Duration) {
    let body = move || {
        std::thread::sleep(limit);
        tracing::error!("the process did not end by itself; it is ended as it stands");
        std::thread::sleep(limit / 10); // for the log's thread
        #[allow(unsafe_code, reason = "the end of std waits for the very thread that hangs")]
        // SAFETY: it runs no code of this process any more; there is nothing to be upheld.
        unsafe {
            libc::_exit(0)
        }
    };
    // Without a thread the process ends when it ends.
    let _ = std::thread::Builder::new().name("snip-end".into()).spawn(body);
}

/// Waits for `time`, which must be one of few constants, without holding the worker.
pub fn pause(time: Duration) {
    let (slot, filler) = slot::<()>();
    // Nobody fills it: the deadline is the purpose.
    let _ = slot.wait(time);
    drop(filler);
}
