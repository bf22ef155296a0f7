//! A place for one result: an OS thread or another coroutine fills it, the caller waits for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use may::sync::Blocker;

use super::expiry::{self, Expire};

/// The waiting side of a one-shot result. The waiter may be a coroutine or a plain thread.
pub struct Slot<T> {
    shared: Arc<Shared<T>>,
}

/// The filling side. Dropped unfilled, it wakes the waiter, who then sees [`Empty::Abandoned`].
pub struct Filler<T> {
    shared: Arc<Shared<T>>,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    blocker: Blocker,
}

enum State<T> {
    Waiting,
    Filled(T),
    Empty(Empty),
}

/// Why a wait ended without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// The deadline passed; a result that comes later is dropped.
    TimedOut,
    /// The filling side is gone.
    Abandoned,
}

/// A slot for the calling coroutine or thread, which alone may wait on it.
pub fn slot<T: Send + 'static>() -> (Slot<T>, Filler<T>) {
    // Cancellation is never used in this project, so the blocker need not listen for it.
    let shared = Arc::new(Shared { state: Mutex::new(State::Waiting), blocker: Blocker::new(true) });
    (Slot { shared: Arc::clone(&shared) }, Filler { shared })
}

impl<T> Shared<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first to set decides; whoever comes later changes nothing.
    fn set(&self, new: State<T>) {
        let mut state = self.lock();
        if matches!(*state, State::Waiting) {
            *state = new;
            drop(state);
            self.blocker.unpark();
        }
    }

    fn take(&self) -> Option<Result<T, Empty>> {
        let mut state = self.lock();
        if matches!(*state, State::Waiting) {
            return None;
        }
        match std::mem::replace(&mut *state, State::Empty(Empty::Abandoned)) {
            State::Filled(value) => Some(Ok(value)),
            State::Empty(why) => Some(Err(why)),
            State::Waiting => None,
        }
    }
}

impl<T: Send> Expire for Shared<T> {
    fn is_over(&self) -> bool {
        !matches!(*self.lock(), State::Waiting)
    }

    fn expire(&self) {
        self.set(State::Empty(Empty::TimedOut));
    }
}

impl<T: Send + 'static> Slot<T> {
    /// Waits for the result, at most for `limit`, which must be one of few constants.
    pub fn wait(self, limit: Duration) -> Result<T, Empty> {
        if let Some(result) = self.shared.take() {
            return result;
        }
        let watched: Weak<Shared<T>> = Arc::downgrade(&self.shared);
        // A wait that nobody would end is over at once.
        expiry::watch(limit, watched).map_err(|_| Empty::TimedOut)?;
        self.wait_until_filled()
    }

    /// Waits for the result without a limit: for commands, and where the filling side has a deadline of its own.
    pub fn wait_until_filled(self) -> Result<T, Empty> {
        loop {
            if let Some(result) = self.shared.take() {
                return result;
            }
            // The result may have come between the look and the park: an unpark before a park makes it return at once.
            // The outcome says nothing that the next look does not.
            let _ = self.shared.blocker.park(None);
        }
    }
}

impl<T> Filler<T> {
    /// Hands the result over and wakes the waiter.
    pub fn fill(self, value: T) {
        // Dropping `self` afterwards finds the slot filled and leaves it so.
        self.shared.set(State::Filled(value));
    }
}

impl<T> Drop for Filler<T> {
    fn drop(&mut self) {
        self.shared.set(State::Empty(Empty::Abandoned));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filled_slot_gives_its_value() {
        let (slot, filler) = slot();
        std::thread::spawn(move || filler.fill(7));
        assert_eq!(slot.wait(Duration::from_secs(10)), Ok(7));
    }

    #[test]
    fn an_abandoned_slot_says_so_at_once() {
        let (slot, filler) = slot::<u8>();
        drop(filler);
        assert_eq!(slot.wait(Duration::from_secs(10)), Err(Empty::Abandoned));
    }

    #[test]
    fn a_slot_times_out() {
        let (slot, _filler) = slot::<u8>();
        assert_eq!(slot.wait(Duration::from_millis(5)), Err(Empty::TimedOut));
    }

    #[test]
    fn coroutines_wait_without_holding_the_worker() {
        crate::runtime::init();
        let (fillers, waits): (Vec<_>, Vec<_>) = (0..100)
            .map(|_| {
                let (to_waiter, from_test) = std::sync::mpsc::channel();
                let waiter = may::go!(move || {
                    let (slot, filler) = slot::<u32>();
                    to_waiter.send(filler).unwrap();
                    slot.wait(Duration::from_secs(10))
                });
                (from_test.recv().unwrap(), waiter)
            })
            .unzip();
        // All hundred wait at once, although there is one worker.
        for (n, filler) in (0..).zip(fillers) {
            filler.fill(n);
        }
        for (n, wait) in (0..).zip(waits) {
            assert_eq!(wait.join().unwrap(), Ok(n));
        }
    }

    #[test]
    fn coroutines_time_out_too() {
        crate::runtime::init();
        let waiter = may::go!(|| {
            let (slot, _filler) = slot::<u8>();
            slot.wait(Duration::from_millis(5))
        });
        assert_eq!(waiter.join().unwrap(), Err(Empty::TimedOut));
    }
}
