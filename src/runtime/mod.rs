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
