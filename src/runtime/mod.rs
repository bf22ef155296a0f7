//! The ground that coroutines stand on: `may` set up once, waiting for results, work on OS threads.

mod expiry;
pub mod offload;
mod slot;
mod stack;

use std::io;
use std::sync::Once;
use std::time::Duration;

use crate::limits;

pub use slot::{Empty, Filler, Slot, slot};
pub use stack::StackTop;

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
        config.set_pool_capacity(limits::STACK_POOL_COUNT);
    });
}

/// Starts a coroutine; it begins when the worker comes to it. May be called from any thread.
#[allow(unsafe_code, reason = "may marks spawning as unsafe")]
pub fn spawn(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    init();
    let builder = may::coroutine::Builder::new().stack_size(stack_words);
    // SAFETY: what may asks for is that the body fits its stack (the sizes are in limits.rs, a guard page ends the
    // process otherwise) and that no thread-local is relied on across a wait: with one worker, and no timed park
    // anywhere, all coroutines run on one thread.
    unsafe { builder.spawn(body) }.map(drop)
}

/// Starts a coroutine at once, within the calling one, which goes on when the new one first waits. Saves the wake-up of
/// [`spawn`]; to be called from a coroutine only.
#[allow(unsafe_code, reason = "may marks spawning as unsafe")]
pub fn spawn_here(stack_words: usize, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = may::coroutine::Builder::new().stack_size(stack_words);
    // SAFETY: as in `spawn`; the caller is a coroutine on the one worker, so the new one starts there too.
    unsafe { builder.spawn_local(body) }.map(drop)
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

/// Waits for `time`, which must be one of few constants, without holding the worker.
pub fn pause(time: Duration) {
    let (slot, filler) = slot::<()>();
    // Nobody fills it: the deadline is the purpose.
    let _ = slot.wait(time);
    drop(filler);
}
