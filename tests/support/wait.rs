//! Waits for what must come true, with a deadline.

use std::thread;
use std::time::{Duration, Instant};

/// Polls until the condition holds, and fails with what was waited for when it does not within the limit.
#[track_caller]
pub fn eventually(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// [`eventually`] for what takes as long as the machine makes it: within a minute.
#[track_caller]
pub fn wait_until(what: &str, holds: impl FnMut() -> bool) {
    eventually(what, Duration::from_secs(60), holds);
}
