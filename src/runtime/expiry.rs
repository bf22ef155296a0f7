//! Deadlines of waits, kept by one OS thread.
//!
//! `may` has timed parks, but a coroutine whose park times out is resumed on the timer's thread, where no I/O may happen
//! and thread-locals are another thread's. So no coroutine here ever parks with a time-out: this thread wakes those that
//! have waited too long, as any other filler of a slot would.

use std::collections::VecDeque;
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
}

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
pub(super) fn watch(limit: Duration, wait: Weak<dyn Expire>) {
    let expiry = shared();
    let deadline = Instant::now() + limit;
    let mut lanes = expiry.lanes.lock().unwrap_or_else(PoisonError::into_inner);
    lanes.push(limit, deadline, wait);
    if lanes.next_look.is_none_or(|at| deadline < at) {
        lanes.next_look = Some(deadline);
        expiry.sooner.notify_one();
    }
}

impl Lanes {
    fn push(&mut self, limit: Duration, deadline: Instant, wait: Weak<dyn Expire>) {
        let lane = match self.lanes.iter().position(|lane| lane.limit == limit) {
            Some(at) => &mut self.lanes[at],
            None => {
                self.lanes.push(Lane { limit, waits: VecDeque::new() });
                let last = self.lanes.len() - 1;
                &mut self.lanes[last]
            }
        };
        // Nearly all waits end long before their deadline and in order; dropping them here keeps the lane as short as
        // the number of waits that are under way.
        while lane.waits.front().is_some_and(|(_, wait)| is_over(wait)) {
            lane.waits.pop_front();
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

fn shared() -> &'static Expiry {
    static EXPIRY: OnceLock<Expiry> = OnceLock::new();
    static STARTED: OnceLock<()> = OnceLock::new();
    let expiry = EXPIRY.get_or_init(|| Expiry { lanes: Mutex::default(), sooner: Condvar::new() });
    STARTED.get_or_init(|| {
        // Without this thread no wait would ever end by its deadline: better not to start than to hang later.
        let spawned = thread::Builder::new().name("snip-expiry".into()).spawn(|| run(expiry));
        assert!(spawned.is_ok(), "the operating system refused a thread for deadlines");
    });
    expiry
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
