//! Deadlines of connections, and the ticker that looks after them.
//!
//! A connection writes down until when it may wait: one relaxed store. An OS thread looks at all of them ten times a
//! second and wakes those whose time is up; no timer is set on the hot path. The same thread keeps the coarse clock and
//! the date.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use may::io::WaitIoWaker;
use slab::Slab;

use super::date;
use crate::limits::{TICK, TICK_COUNTED_MAX};

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The client closed it, between requests or in the middle of one.
    ByPeer,
    /// The client asked for it, or speaks HTTP/1.0.
    AsAsked,
    /// A refused request: nothing behind it can be trusted.
    Refused,
    /// No request came.
    IdleTimeout,
    /// A head did not end in time.
    HeadTimeout,
    /// A body did not end in time, or came more slowly than the minimum rate.
    BodyTimeout,
    /// The client did not take its answer in time, or took it more slowly than the minimum rate.
    WriteTimeout,
    /// There were as many connections as allowed.
    OverLimit,
    /// There was no memory for its request or its answer.
    Overloaded,
    /// The socket failed.
    SocketError,
    /// The server is shutting down.
    Draining,
}

impl CloseReason {
    /// All reasons, in the order of their numbers.
    pub const ALL: [Self; 11] = [
        Self::ByPeer,
        Self::AsAsked,
        Self::Refused,
        Self::IdleTimeout,
        Self::HeadTimeout,
        Self::BodyTimeout,
        Self::WriteTimeout,
        Self::OverLimit,
        Self::Overloaded,
        Self::SocketError,
        Self::Draining,
    ];

    /// The reason's name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByPeer => "by_peer",
            Self::AsAsked => "as_asked",
            Self::Refused => "refused",
            Self::IdleTimeout => "idle_timeout",
            Self::HeadTimeout => "head_timeout",
            Self::BodyTimeout => "body_timeout",
            Self::WriteTimeout => "write_timeout",
            Self::OverLimit => "over_limit",
            Self::Overloaded => "overloaded",
            Self::SocketError => "socket_error",
            Self::Draining => "draining",
        }
    }
}

/// Milliseconds of the coarse clock, as of the last tick.
static NOW_MS: AtomicU64 = AtomicU64::new(0);

/// What moves the coarse clock. It counts the time in which this process ran: one that stood still, with its machine or by a
/// signal, has not read what its clients sent meanwhile, and finds it when it runs on.
struct Clock {
    ran: Duration,
    ticked_at: Option<Instant>,
}

/// One for all servers of the process (tests run several).
static CLOCK: Mutex<Clock> = Mutex::new(Clock { ran: Duration::ZERO, ticked_at: None });

impl Clock {
    /// Counts what passed since the last tick; of what is far longer than a tick, a part.
    fn tick(&mut self, now: Instant) -> Duration {
        let passed = self.ticked_at.replace(now).map_or(Duration::ZERO, |before| now.saturating_duration_since(before));
        self.ran += passed.min(TICK_COUNTED_MAX);
        self.ran
    }
}

fn now_ms() -> u64 {
    NOW_MS.load(Ordering::Relaxed)
}

fn move_clock() {
    let mut clock = CLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    NOW_MS.store(clock.tick(Instant::now()).as_millis() as u64, Ordering::Relaxed);
}

/// What the ticker knows of a connection.
struct Entry {
    /// Until when it may wait, in milliseconds of the coarse clock.
    deadline_ms: AtomicU64,
    waker: WaitIoWaker,
}

/// A connection's place among the watched. Dropped, even by a panic, it is forgotten.
pub(super) struct Watched {
    entry: Arc<Entry>,
    number: usize,
    watch: Arc<Watch>,
}

impl Watched {
    /// Lets the connection wait for `limit` from now on.
    pub fn arm(&self, limit: Duration) {
        self.entry.deadline_ms.store(now_ms().saturating_add(limit.as_millis() as u64), Ordering::Relaxed);
    }

    /// What is left of the time, so that it can be armed again after another wait.
    pub fn left(&self) -> Duration {
        Duration::from_millis(self.entry.deadline_ms.load(Ordering::Relaxed).saturating_sub(now_ms()))
    }

    /// Whether the time is up.
    pub fn is_expired(&self) -> bool {
        self.entry.is_expired()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.lock().try_remove(self.number);
    }
}

impl Entry {
    fn is_expired(&self) -> bool {
        self.deadline_ms.load(Ordering::Relaxed) <= now_ms()
    }
}

/// All connections of a server.
#[derive(Default)]
pub(super) struct Watch {
    connections: Mutex<Slab<Arc<Entry>>>,
    is_stopped: AtomicBool,
}

impl Watch {
    /// Starts the ticker. It ends when `stop` was called.
    pub fn start() -> std::io::Result<Arc<Self>> {
        let watch = Arc::new(Self::default());
        date::tick();
        let ticking = Arc::clone(&watch);
        thread::Builder::new().name("snip-ticker".into()).spawn(move || ticking.run())?;
        Ok(watch)
    }

    fn lock(&self) -> MutexGuard<'_, Slab<Arc<Entry>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a connection, with a deadline that is armed before it first waits.
    pub fn add(self: &Arc<Self>, waker: WaitIoWaker) -> Watched {
        let entry = Arc::new(Entry { deadline_ms: AtomicU64::new(u64::MAX), waker });
        let number = self.lock().insert(Arc::clone(&entry));
        Watched { entry, number, watch: Arc::clone(self) }
    }

    /// Wakes all connections, so that each sees what has changed.
    pub fn wake_all(&self) {
        self.lock().iter().for_each(|(_, entry)| entry.waker.wakeup());
    }

    /// Ends the ticker.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
    }

    fn run(&self) {
        while !self.is_stopped.load(Ordering::Relaxed) {
            thread::sleep(TICK);
            move_clock();
            date::tick();
            for (_, entry) in self.lock().iter() {
                if entry.is_expired() {
                    entry.waker.wakeup();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_process_stood_still_does_not_count() {
        let mut clock = Clock { ran: Duration::ZERO, ticked_at: None };
        let mut now = Instant::now();
        assert_eq!(clock.tick(now), Duration::ZERO);
        let mut tick = |passed: Duration| {
            now += passed;
            clock.tick(now)
        };
        assert_eq!(tick(Duration::from_micros(100_400)), Duration::from_micros(100_400));
        assert_eq!(tick(Duration::from_micros(100_700)), Duration::from_micros(201_100), "nothing is rounded away");
        assert_eq!(tick(Duration::from_secs(3600)), Duration::from_micros(201_100) + TICK_COUNTED_MAX);
    }
}
