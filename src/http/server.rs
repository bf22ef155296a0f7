//! The server as a whole: what it serves, its options, its figures, its end.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::bound::Bound;
use super::buffer;
use super::head::{Head, Request};
use super::listener::{self, Listening};
use super::response::{Refusal, Response};
use super::watch::{CloseReason, Watch};
use crate::figures::{Figures, read};
use crate::limits;

/// What a server serves. Called on the connection's coroutine: it may wait for slots, but never block the thread.
pub trait Service: Send + Sync + 'static {
    /// Whether a request with this head tells of the service's state, and is to be answered even at the connection limit.
    fn is_probe(&self, head: &Head<'_>) -> bool;
    /// The largest body that a request with this head may carry, in bytes, and the refusal for a larger one.
    fn body_limit(&self, head: &Head<'_>) -> (usize, Refusal);
    /// Answers a request.
    fn call(&self, request: &Request<'_>, response: &mut Response<'_>);
    /// Hears of a request that the server answered on its own.
    fn refused(&self, refusal: Refusal);
    /// Hears of a panic in `call`, which was answered with a 500.
    fn panicked(&self, request: &Request<'_>, what: &str);
}

/// Bounds that an operator may set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Connections open at once.
    pub connections_max: usize,
    /// From the first byte of a request to the end of its head.
    pub head_timeout: Duration,
    /// For a body, or for as much of it as the minimum rate asks of this time.
    pub body_timeout: Duration,
    /// Between requests.
    pub idle_timeout: Duration,
    /// For the client to take what waits for it, or as much of it as the minimum rate asks of this time.
    pub write_timeout: Duration,
    /// The minimum rate of bodies and of the taking of answers, in bytes per second.
    pub rate_min: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections_max: limits::CONNECTIONS_MAX_DEFAULT,
            head_timeout: limits::HEAD_TIMEOUT_DEFAULT,
            body_timeout: limits::BODY_TIMEOUT_DEFAULT,
            idle_timeout: limits::IDLE_TIMEOUT_DEFAULT,
            write_timeout: limits::WRITE_TIMEOUT_DEFAULT,
            rate_min: limits::RATE_MIN_DEFAULT,
        }
    }
}

impl Options {
    /// Bytes that must move within `time`, or all that are left if they are fewer.
    pub(super) fn bytes_due(&self, time: Duration) -> usize {
        usize::try_from(u128::from(self.rate_min) * time.as_millis() / 1000).unwrap_or(usize::MAX).max(1)
    }
}

/// Figures of a server, counted since its start.
#[derive(Debug, Default)]
pub struct Stats {
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Connections open now.
    pub open: AtomicUsize,
    /// Connections that may be open at once.
    pub limit: AtomicUsize,
    /// Connections answered with 503 at the connection limit.
    pub over_limit: AtomicU64,
    /// Requests and answers given up because the memory for buffers was in use.
    pub buffers_refused: AtomicU64,
    /// Bytes of buffers that were in use when they were last noted.
    buffer_bytes: AtomicUsize,
    /// Failures of accept for want of descriptors or memory.
    pub accept_errors: AtomicU64,
    closed: [AtomicU64; CloseReason::ALL.len()],
}

impl Stats {
    pub(super) fn count_close(&self, reason: CloseReason) {
        self.closed[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how much memory is in use, for whoever tells it on another thread. To be called on a connection's coroutine.
    pub fn note_buffers(&self) {
        self.buffer_bytes.store(buffer::held_bytes(), Ordering::Relaxed);
    }

    /// Tells Prometheus. `docs/metrics.md` explains each.
    pub fn tell(&self, figures: &mut Figures) {
        let now = |gauge: &AtomicUsize| gauge.load(Ordering::Relaxed) as f64;
        figures.gauge("http_connections_open", "Connections open now", now(&self.open));
        figures.gauge("http_connections_limit", "Connections that may be open at once", now(&self.limit));
        figures.counter("http_connections_accepted_total", "Connections accepted", read(&self.accepted));
        figures.counter(
            "http_connections_over_limit_total",
            "Connections refused at the limit",
            read(&self.over_limit),
        );
        let help = "Failures to accept for want of descriptors or memory";
        figures.counter("http_accept_errors_total", help, read(&self.accept_errors));
        let closed = CloseReason::ALL.map(|reason| ([reason.as_str()], self.closed(reason)));
        figures.counters("http_connections_closed_total", "Connections closed", ["reason"], closed);
        let help = "Memory of requests coming in and answers going out";
        figures.gauge("http_buffer_bytes", help, now(&self.buffer_bytes));
        let help = "Requests and answers that found no memory";
        figures.counter("http_buffers_refused_total", help, read(&self.buffers_refused));
    }

    /// Connections that ended for this reason.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize].load(Ordering::Relaxed)
    }
}

/// What all coroutines of a server share.
pub(super) struct Shared<S> {
    pub service: Arc<S>,
    pub options: Options,
    pub stats: Arc<Stats>,
    pub watch: Arc<Watch>,
    is_draining: AtomicBool,
    /// Connections between requests are closed from now on.
    closes_idle: AtomicBool,
    /// Told when the last connection ends.
    ended: (Mutex<()>, Condvar),
}

impl<S> Shared<S> {
    /// Whether the server is on its way out: each answer is the last of its connection.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Ordering::Relaxed)
    }

    /// Whether a connection between two requests is to be closed.
    pub fn closes_idle(&self) -> bool {
        self.closes_idle.load(Ordering::Relaxed)
    }

    /// Counts a connection in, unless there are as many as allowed and the reserve is used up as well.
    pub fn admit(self: &Arc<Self>) -> Option<Admitted<S>> {
        if self.stats.open.load(Ordering::Relaxed) >= self.options.connections_max + limits::CONNECTIONS_RESERVE {
            self.stats.over_limit.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.stats.open.fetch_add(1, Ordering::Relaxed);
        self.stats.accepted.fetch_add(1, Ordering::Relaxed);
        Some(Admitted(Arc::clone(self)))
    }

    /// Whether connections of the reserve are in use: the one that was admitted last is then one of them.
    pub fn is_over_limit(&self) -> bool {
        self.stats.open.load(Ordering::Relaxed) > self.options.connections_max
    }

    fn leave(&self) {
        if self.stats.open.fetch_sub(1, Ordering::Relaxed) == 1 && self.is_draining() {
            drop(self.ended.0.lock());
            self.ended.1.notify_all();
        }
    }

    /// Waits until no connection is open, on a server that drains; false if some still are at the deadline.
    fn wait_until_empty(&self, deadline: Instant) -> bool {
        let (lock, told) = &self.ended;
        let mut guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        while self.stats.open.load(Ordering::Relaxed) > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            guard = told.wait_timeout(guard, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// A place among the connections. Dropped, even by a panic, it is free again.
pub(super) struct Admitted<S>(Arc<Shared<S>>);

impl<S> std::ops::Deref for Admitted<S> {
    type Target = Arc<Shared<S>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<S> Drop for Admitted<S> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A server that runs.
pub struct Server<S: Service> {
    shared: Arc<Shared<S>>,
    listening: Vec<Listening>,
}

impl<S: Service> Server<S> {
    /// Serves on all of `bound`, on coroutines. `stats` may be looked at by others.
    pub fn start(bound: Vec<Bound>, service: Arc<S>, options: Options, stats: Arc<Stats>) -> std::io::Result<Self> {
        // Before the first socket meets the reactor: a runtime that set itself up would take a worker per core.
        crate::runtime::start()?;
        stats.limit.store(options.connections_max, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            service,
            options,
            stats,
            watch: Watch::start()?,
            is_draining: AtomicBool::new(false),
            closes_idle: AtomicBool::new(false),
            ended: (Mutex::new(()), Condvar::new()),
        });
        // All are open before one is served: whoever is answered at one address finds the others, too.
        let open = bound.into_iter().map(Bound::open).collect::<Result<Vec<_>, _>>().map_err(std::io::Error::other)?;
        let listen = |(socket, hold)| listener::listen(socket, hold, Arc::clone(&shared));
        let listening = open.into_iter().map(listen).collect::<Result<_, _>>()?;
        Ok(Self { shared, listening })
    }

    /// Ends without losing a request, as far as that is in a server's hands (`docs/restart.md`): leaves its addresses,
    /// tells those who ask again on a connection that it closes, finishes what is in flight, and closes all else. Returns
    /// whether everything ended within `limit`. To be called from a plain thread.
    pub fn drain(self, limit: Duration) -> bool {
        let Self { shared, listening } = self;
        let began = Instant::now();
        let grace = limits::DRAIN_GRACE.min(limit / 2);
        shared.is_draining.store(true, Ordering::Relaxed);
        listening.iter().for_each(Listening::wake);
        let (inherited, own): (Vec<_>, Vec<_>) = listening.into_iter().partition(|listening| listening.is_inherited);
        if let Some(linger) = own.iter().map(|listening| listening.linger).max() {
            thread::sleep(linger.min(grace));
        }
        let mut is_over = close_all(own, limit);
        // Who comes to a socket that others keep open waits for the next process from here on: the later the better.
        if !inherited.is_empty() {
            shared.wait_until_empty(began + grace.saturating_sub(limits::DRAIN_LAST_CALL));
            is_over &= close_all(inherited, limit);
        }
        shared.wait_until_empty(began + grace);
        shared.closes_idle.store(true, Ordering::Relaxed);
        shared.watch.wake_all();
        is_over &= shared.wait_until_empty(began + limit);
        shared.watch.stop();
        is_over
    }
}

/// Closes all these sockets, each once those who came are accepted. Each is waited for, whatever came of the one before.
fn close_all(listening: Vec<Listening>, limit: Duration) -> bool {
    listening.iter().for_each(Listening::close);
    listening.into_iter().map(|listening| listening.wait_closed(limit)).fold(true, |all, closed| all & closed)
}
