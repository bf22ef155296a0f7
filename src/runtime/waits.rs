//! What a coroutine has waited for lately, so that a slow request can say where its time went.
//!
//! Only who waits writes something down, so a request that waits for nothing pays nothing. Kept with the coroutine, not with
//! the thread.

use std::cell::RefCell;
use std::time::Duration;

use quanta::Instant;

use crate::limits::WAITS_KEPT;

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The store: its queue, its connection, its answer.
    Store,
    /// Redis.
    Redis,
    /// Another request that asks for the same code already.
    Joined,
    /// The clicks so far to be stored, before a read that must see them.
    Clicks,
    /// Work on another thread.
    Thread,
}

impl Wait {
    const COUNT: usize = Self::Thread as usize + 1;
}

/// Times by what was waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited([Duration; Wait::COUNT]);

impl Waited {
    /// The time for one of them in microseconds; `None` if it was not waited for.
    pub fn micros(&self, what: Wait) -> Option<u64> {
        let time = self.0[what as usize];
        (!time.is_zero()).then(|| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
    }
}

#[derive(Clone, Copy)]
struct Past {
    what: Wait,
    began: Instant,
    took: Duration,
}

/// The last waits, each in the place of the oldest.
#[derive(Default)]
struct Ring {
    waits: [Option<Past>; WAITS_KEPT],
    next: usize,
}

may::coroutine_local!(static RING: RefCell<Ring> = RefCell::default());

/// Notes a wait that has just ended, and returns how long it took.
pub fn waited(what: Wait, took: Duration) -> Duration {
    let began = Instant::now() - took;
    RING.with(|ring| {
        let ring = &mut *ring.borrow_mut();
        ring.waits[ring.next] = Some(Past { what, began, took });
        ring.next = (ring.next + 1) % WAITS_KEPT;
    });
    took
}

/// What the caller has waited for since then, as far as it is kept.
pub fn waits_since(then: Instant) -> Waited {
    let mut sum = Waited::default();
    RING.with(|ring| {
        for past in ring.borrow().waits.iter().flatten().filter(|past| past.began >= then) {
            sum.0[past.what as usize] += past.took;
        }
    });
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_count_for_the_request_that_they_belong_to() {
        let pause = Duration::from_millis(2);
        waited(Wait::Redis, pause);
        let then = Instant::now();
        assert_eq!(waits_since(then), Waited::default(), "what was before does not count");
        std::thread::sleep(2 * pause);
        let one = waited(Wait::Store, pause);
        let two = waited(Wait::Store, then.elapsed());
        assert_eq!(waits_since(then).micros(Wait::Store), Some((one + two).as_micros() as u64));
        assert_eq!(waits_since(then).micros(Wait::Redis), None);
        for _ in 0..3 * WAITS_KEPT {
            waited(Wait::Clicks, pause);
        }
        assert_eq!(waits_since(then).micros(Wait::Store), None, "the oldest make room");
    }
}
