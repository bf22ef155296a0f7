//! The ground that coroutines stand on: `may` set up once, waiting for results, work on OS threads.

mod code;
mod expiry;
pub mod interest;
pub mod offload;
pub mod processors;
mod ring;
mod slot;
mod stack;
mod waits;

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::figures::{Figures, count, read};
use crate::limits;

pub use code::forget_start;
pub use ring::SendRing;
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
        // Has the processor's counter measured, which takes a millisecond and 200 at the most: no request is to wait for that.
        let _ = quanta::Instant::now();
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

/// Sets up all that coroutines need whose waits have deadlines: `may`, and the thread that ends those waits. Whoever serves
/// begins with it: that the system has nothing left for it is to be found out then, not in the middle of a request.
///
/// # Errors
/// The operating system refused a thread or what `may` needs.
pub fn start() -> io::Result<()> {
    // `may` knows panics alone: of a thread that it could not start, or an epoll.
    let told =
        "the operating system refused what coroutines run on: raise the limits on threads, memory and descriptors";
    catch_unwind(init).map_err(|_| io::Error::other(told))?;
    expiry::start()
}

/// In place of the text of a panic that has none.
pub const NO_PANIC_TEXT: &str = "a panic without a text";

/// What was said with a panic that was caught.
pub fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or(NO_PANIC_TEXT)
}

/// Starts a coroutine; it begins when the worker comes to it. May be called from any thread.
pub fn spawn(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    init();
    spawn_ready(stack_words, body)
}

#[allow(unsafe_code, reason = "may marks spawning as unsafe")]
fn spawn_ready(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = may::coroutine::Builder::new().stack_size(stack_words);
    let body = counted(stack_words, body);
    // SAFETY: what may asks for is that the body fits its stack (the sizes are in limits.rs, a guard page ends the
    // process otherwise) and that no thread-local is relied on across a wait: with one worker, and no timed park
    // anywhere, all coroutines run on one thread.
    refusal_caught(|| unsafe { builder.spawn(body) }.map(drop))
}

/// Starts a coroutine at once, within the calling one, which goes on when the new one first waits. Saves the wake-up of
/// [`spawn`]; to be called from a coroutine only.
#[allow(unsafe_code, reason = "may marks spawning as unsafe")]
pub fn spawn_here(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = may::coroutine::Builder::new().stack_size(stack_words);
    let body = counted(stack_words, body);
    // SAFETY: as in `spawn`; the caller is a coroutine on the one worker, so the new one starts there too.
    refusal_caught(|| unsafe { builder.spawn_local(body) }.map(drop))
}

/// Makes an error of the panic with which `may` tells that there is no memory for a stack (or too many maps, sysctl
/// `vm.max_map_count`). It comes before anything of the coroutine is there. Whoever accepts connections would end by it,
/// and nobody would come in any more. A panic of the coroutine's own body does not come by here: `may` keeps it.
fn refusal_caught(spawn: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let refused = || io::Error::new(io::ErrorKind::OutOfMemory, "the operating system refused a coroutine its stack");
    catch_unwind(AssertUnwindSafe(spawn)).unwrap_or_else(|_| Err(refused()))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// More than there are addresses.
    const NO_SUCH_STACK_WORDS: usize = 1 << 45;

    #[test]
    fn a_stack_that_is_refused_is_an_error_and_the_next_one_is_had() {
        let refused = spawn(NO_SUCH_STACK_WORDS, || {}).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::OutOfMemory, "{refused}");
        let (slot, filler) = slot();
        spawn(limits::CONNECTION_STACK_WORDS, move || {
            // As the accept loop does, which must go on.
            let refused = spawn_here(NO_SUCH_STACK_WORDS, || {}).map_err(|error| error.kind());
            filler.fill((refused, spawn_here(limits::CONNECTION_STACK_WORDS, || {}).is_ok()));
        })
        .unwrap();
        assert_eq!(slot.wait_until_filled(), Ok((Err(io::ErrorKind::OutOfMemory), true)));
    }
}
