//! The ground that coroutines stand on: `may` set up once, waiting for results, work on OS threads, time, shutdown.

mod expiry;
mod slot;

use std::sync::Once;

use crate::limits;

pub use slot::{Empty, Filler, Slot, slot};

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

/// Starts a coroutine with a stack of its own size, in machine words (a multiple of 512).
///
/// May be called from plain threads and from coroutines. The body must follow the rules of the house: nothing that
/// blocks, no recursion on what a peer sent, no guard or thread-local borrow across a wait.
pub fn spawn(stack_words: usize, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    #[allow(unsafe_code, reason = "may leaves two promises to the caller of spawn")]
    // SAFETY: (1) thread-locals are not borrowed across a wait, and with one worker a coroutine stays on its thread;
    // (2) stacks are sized for their bodies (`limits::*_STACK_WORDS`) and end in a guard page.
    let spawned = unsafe { may::coroutine::Builder::new().stack_size(stack_words).spawn(body) };
    spawned.map(drop)
}
