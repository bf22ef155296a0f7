//! Deadlines of waits, kept by one OS thread.
//!
//! `may` has timed parks, but a coroutine whose park times out is resumed on the timer's thread, where no I/O may happen
//! and thread-locals are another thread's. So no coroutine here ever parks with a time-out: this thread wakes those that
//! have waited too long, as any other filler of a slot would.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Something that waits and can be told that its time is up.
pub(super) trait Expire: Send + Sync {
    /// Whether the wait ended already.
    fn is_over(&self) -> bool;
    /// Ends the wait.
    fn expire(&self);
}

/// Waits with the same limit end in the order in which they began, so that a queue a limit is sorted by itself.
struct Lane {
    limit: Duration,
    waits: VecDeque<(Instant, Weak<dyn Expire>)>,
    /// At this length the waits that are over are swept out from behind the one at the front.
    sweep_at: usize,
}

/// Shorter lanes are not worth sweeping.
const SWEEP_WAITS_MIN: usize = 4096;

#[derive(Default)]
struct Lanes {
    lanes: Vec<Lane>,
    /// When the thread will look next; `None` while it sleeps for want of waits.
    next_look: Option<Instant>,
}

struct Expiry {
    lanes: Mutex<Lanes>,
    sooner: Condvar,
}

/// Ends `wait` after `limit`, unless it is over by then. The limits must be few and constant: each has a lane of its own.
///
/// # Errors
/// The operating system refused the thread: nobody would end the wait.
pub(super) fn watch(limit: Duration, wait: Weak<dyn Expire>) -> io::Result<()> {
    start()?;
    let expiry = &EXPIRY;
    let deadline = Instant::now() + limit;
    let mut lanes = expiry.lanes.lock().unwrap_or_else(PoisonError::into_inner);
    lanes.push(limit, deadline, wait);
    if lanes.next_look.is_none_or(|at| deadline < at) {
        lanes.next_look = Some(deadline);
        expiry.sooner.notify_one();
    }
    Ok(())
}

impl Lanes {
    fn push(&mut self, limit: Duration, deadline: Instant, wait: Weak<dyn Expire>) {
        let lane = match self.lanes.iter().position(|lane| lane.limit == limit) {
            Some(at) => &mut self.lanes[at],
            None => {
                self.lanes.push(Lane { limit, waits: VecDeque::new(), sweep_at: SWEEP_WAITS_MIN });
                let last = self.lanes.len() - 1;
                &mut self.lanes[last]
            }
        };
        // Nearly all waits end long before their deadline and in order; dropping them here keeps the lane as short as
        // the number of waits that are under way.
        while lane.waits.front().is_some_and(|(_, wait)| is_over(wait)) {
            lane.waits.pop_front();
        }
        // One long wait at the front would keep all that came after it, at full load hundreds of thousands. Sweeping at
        // twice the length that the last sweep left costs each wait one more look.
        if lane.waits.len() >= lane.sweep_at {
            lane.waits.retain(|(_, wait)| !is_over(wait));
            lane.sweep_at = SWEEP_WAITS_MIN.max(lane.waits.len() * 2);
        }
        lane.waits.push_back((deadline, wait));
    }

    /// Takes out what is due and says when the next is.
    fn due(&mut self, now: Instant) -> (Vec<Arc<dyn Expire>>, Option<Instant>) {
        let mut due = Vec::new();
        for lane in &mut self.lanes {
            while let Some((deadline, wait)) = lane.waits.front() {
                if !is_over(wait) && *deadline > now {
                    break;
                }
                due.extend(wait.upgrade().filter(|wait| !wait.is_over()));
                lane.waits.pop_front();
            }
        }
        let next = self.lanes.iter().filter_map(|lane| lane.waits.front().map(|(deadline, _)| *deadline)).min();
        (due, next)
    }
}

fn is_over(wait: &Weak<dyn Expire>) -> bool {
    wait.upgrade().is_none_or(|wait| wait.is_over())
}

static EXPIRY: Expiry =
    Expiry { lanes: Mutex::new(Lanes { lanes: Vec::new(), next_look: None }), sooner: Condvar::new() };

/// Starts the thread, unless it runs already.
///
/// # Errors
/// The operating system refused it; the next call tries again.
pub(super) fn start() -> io::Result<()> {
    static STARTED: OnceLock<()> = OnceLock::new();
    if STARTED.get().is_some() { Ok(()) } else { start_once(&STARTED, thread::Builder::new()) }
}

fn start_once(started: &OnceLock<()>, builder: thread::Builder) -> io::Result<()> {
    static STARTING: Mutex<()> = Mutex::new(());
    // One at a time: two of these threads would do each other's work.
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if started.get().is_none() {
        builder.name("snip-expiry".into()).spawn(|| run(&EXPIRY))?;
        let _ = started.set(());
    }
    Ok(())
}

fn run(expiry: &'static Expiry) {
    let mut lanes = expiry.lanes.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let now = Instant::now();
        let (due, next) = lanes.due(now);
        lanes.next_look = next;
        if !due.is_empty() {
            drop(lanes);
            due.iter().for_each(|wait| wait.expire());
            lanes = expiry.lanes.lock().unwrap_or_else(PoisonError::into_inner);
            continue;
        }
        lanes = match next {
            Some(at) => {
                let wait = expiry.sooner.wait_timeout(lanes, at.saturating_duration_since(now));
                wait.unwrap_or_else(PoisonError::into_inner).0
            }
            None => expiry.sooner.wait(lanes).unwrap_or_else(PoisonError::into_inner),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    struct Wait(AtomicBool);

    impl Expire for Wait {
        fn is_over(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }

        fn expire(&self) {}
    }

    #[test]
    fn a_long_wait_does_not_keep_the_short_ones_behind_it() {
        let (limit, now) = (Duration::from_secs(5), Instant::now());
        let mut lanes = Lanes::default();
        let long: Arc<dyn Expire> = Arc::new(Wait(AtomicBool::new(false)));
        lanes.push(limit, now, Arc::downgrade(&long));
        for _ in 0..100_000 {
            let short: Arc<dyn Expire> = Arc::new(Wait(AtomicBool::new(false)));
            lanes.push(limit, now, Arc::downgrade(&short));
        }
        assert!(lanes.lanes[0].waits.len() <= SWEEP_WAITS_MIN);
        assert_eq!(lanes.due(now + limit).0.len(), 1, "the long wait is still there");
    }

    #[test]
    fn a_thread_that_is_refused_is_an_error_and_is_tried_again() {
        let started = OnceLock::new();
        // No memory has room for its stack.
        let refused = start_once(&started, thread::Builder::new().stack_size(1 << 46));
        assert!(refused.is_err() && started.get().is_none(), "{refused:?}");
        start_once(&started, thread::Builder::new()).unwrap();
        assert!(started.get().is_some());
    }
}
