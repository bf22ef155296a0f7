//! What callers use: a few connections that everybody shares, kept open by a thread each, and leases for transactions
//! of several round trips.
//!
//! Callers are coroutines or plain threads. No call waits past its deadline: while there is no connection it fails at
//! once (or, if the first try to connect is still under way, when that has failed), and a caller whose time is up
//! leaves without its answer.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use postgres_types::ToSql;

use super::config::Config;
use super::conn::{Answer, Conn, Ticket};
use super::connect;
use super::error::{Error, Result};
use super::expect::Results;
use super::rows::Rows;
use super::statement::{Call, Statement};
use crate::figures::{Figures, Latency, count, read};
use crate::limits;
use crate::runtime::{self, Empty, Filler, Slot, Wait, slot};

/// How often a request is sent at the most. The last try relies on nothing prepared: of many callers who share a
/// statement that cannot be prepared, one alone hears why, and the others that it is not prepared, again and again.
const TRIES: usize = 3;
/// A connection that breaks sooner than this counts as one that could not be opened.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// A handle to the shared connections. Clones share them; the last one dropped closes them.
#[derive(Clone)]
pub struct Pool {
    handle: Arc<Handle>,
}

/// Closes the connections when no caller is left.
struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    counters: Counters,
    latency: Latency,
    state: Mutex<State>,
    /// The pool is closed: keepers in their pause must end.
    closing: Condvar,
}

struct State {
    /// One place for each shared connection, empty while it is not open.
    conns: Vec<Option<Arc<Conn>>>,
    /// Why the last try to connect failed; none after one that succeeded.
    last_error: Option<Error>,
    /// Callers that wait for the first try to end.
    waiters: Vec<Filler<()>>,
    leases: usize,
    closed: bool,
}

/// Counts since the pool was opened.
#[derive(Default)]
struct Counters {
    queries: AtomicU64,
    errors: AtomicU64,
    busy: AtomicU64,
    timeouts: AtomicU64,
    cancels: AtomicU64,
    repeats: AtomicU64,
    connects: AtomicU64,
    connect_errors: AtomicU64,
}

/// What the pool has done and is doing, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Calls of `query`, `batch` and the like.
    pub queries: u64,
    /// Of these, how many ended in an error other than the next two.
    pub errors: u64,
    /// Calls refused because a bound was reached.
    pub busy: u64,
    /// Calls that got no answer within their deadline.
    pub timeouts: u64,
    /// Cancel requests sent on connections that are open now or ended in the ordinary way.
    pub cancels: u64,
    /// Requests sent again, where that is safe.
    pub repeats: u64,
    /// Connections opened; what is over the number of connections are reconnects.
    pub connects: u64,
    /// Tries to open a connection that failed.
    pub connect_errors: u64,
    /// Shared connections open now.
    pub connections: usize,
    /// Requests on them without an answer.
    pub in_flight: usize,
}

impl Pool {
    /// Opens a pool of `limits::PG_CONNECTIONS`. Connecting goes on behind: see [`Pool::wait_ready`].
    ///
    /// # Errors
    /// `Error::Unavailable` if the operating system gives no threads.
    pub fn open(config: Config) -> Result<Self> {
        Self::open_with(config, limits::PG_CONNECTIONS)
    }

    /// Opens a pool of so many connections, at least one.
    ///
    /// # Errors
    /// As [`Pool::open`].
    pub fn open_with(config: Config, connections: usize) -> Result<Self> {
        runtime::start().map_err(|error| Error::unsent(error.to_string()))?;
        let connections = connections.max(1);
        let conns = vec![None; connections];
        let state = State { conns, last_error: None, waiters: Vec::new(), leases: 0, closed: false };
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            counters: Counters::default(),
            latency: Latency::default(),
            state: Mutex::new(state),
            closing: Condvar::new(),
        });
        // Made first: if a thread is refused, dropping it ends those that were started.
        let pool = Self { handle: Arc::new(Handle { shared: Arc::clone(&shared) }) };
        for place in 0..connections {
            let shared = Arc::clone(&shared);
            let keeper = thread::Builder::new().name(format!("snip-pg-{place}"));
            keeper
                .spawn(move || shared.keep(place))
                .map_err(|error| Error::unsent(format!("no thread for a connection: {error}")))?;
        }
        Ok(pool)
    }

    /// Waits until a connection is open.
    ///
    /// # Errors
    /// Why the last try to connect failed, as it is: `Error::Server` with `28P01` for a wrong password, for one.
    pub fn wait_ready(&self, limit: Duration) -> Result<()> {
        self.shared().pick(limit, Instant::now()).map(drop).map_err(|error| {
            match self.shared().lock().last_error.clone() {
                Some(last) => last,
                None => error,
            }
        })
    }

    /// Runs a statement with the default deadline, `limits::STORE_DEADLINE`.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn query(&self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Rows> {
        self.query_within(limits::STORE_DEADLINE, statement, params)
    }

    /// Runs a statement with a deadline of its own, which must be one of few constants.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn query_within(&self, limit: Duration, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Rows> {
        first(self.shared().run(limit, &[Call::new(statement, params)])?)
    }

    /// Runs several statements in one round trip, as one transaction: all are carried out, or none.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn batch(&self, calls: &[Call<'_>]) -> Result<Vec<Rows>> {
        self.batch_within(limits::STORE_DEADLINE, calls)
    }

    /// [`Pool::batch`] with a deadline of its own, which must be one of few constants.
    ///
    /// # Errors
    /// Any of [`Error`].
    pub fn batch_within(&self, limit: Duration, calls: &[Call<'_>]) -> Result<Vec<Rows>> {
        self.shared().run(limit, calls).map(Results::into_vec)
    }

    /// Opens a connection for the caller alone, for transactions of several round trips and for scripts. It is closed
    /// when the lease is dropped, so that no setting, lock or open transaction is left to the next.
    ///
    /// # Errors
    /// `Busy` if `limits::PG_LEASES_MAX` are out; else why it could not be opened.
    pub fn lease(&self) -> Result<Lease> {
        let shared = Arc::clone(self.shared());
        {
            let mut state = shared.lock();
            if state.leases >= limits::PG_LEASES_MAX {
                count(&shared.counters.busy);
                return Err(Error::Busy);
            }
            state.leases += 1;
        }
        // From here on the lease is counted, and its drop gives it back.
        let mut lease = Lease { shared, conn: None, limit: limits::STORE_DEADLINE };
        lease.conn = Some(lease.shared.open_aside()?);
        Ok(lease)
    }

    /// Tells Prometheus. `docs/metrics.md` explains each.
    pub fn tell(&self, figures: &mut Figures) {
        let stats = self.stats();
        figures.gauge("pg_connections", "Shared connections to PostgreSQL open now", stats.connections as f64);
        figures.gauge("pg_in_flight", "Requests to PostgreSQL without an answer", stats.in_flight as f64);
        figures.counter("pg_requests_total", "Requests for PostgreSQL", stats.queries);
        let failures = [(["error"], stats.errors), (["busy"], stats.busy), (["timeout"], stats.timeouts)];
        figures.counters("pg_failures_total", "Requests for PostgreSQL that failed", ["reason"], failures);
        figures.counter("pg_repeats_total", "Requests sent again, where that is safe", stats.repeats);
        figures.counter("pg_cancels_total", "Statements canceled because nobody waited any more", stats.cancels);
        figures.counter("pg_connects_total", "Connections to PostgreSQL opened", stats.connects);
        let help = "Connections to PostgreSQL that failed to open";
        figures.counter("pg_connect_errors_total", help, stats.connect_errors);
        let help = "From a request for PostgreSQL to its answer, or to its deadline";
        figures.latency("pg_request_duration_seconds", help, &self.shared().latency);
    }

    /// What the pool has done and is doing.
    pub fn stats(&self) -> Stats {
        self.shared().stats()
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }
}

fn first(results: Results) -> Result<Rows> {
    results.into_iter().next().ok_or_else(|| Error::protocol("a statement without a result"))
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.closed = true;
        let conns: Vec<_> = state.conns.iter_mut().filter_map(Option::take).collect();
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        self.shared.closing.notify_all();
        conns.iter().for_each(|conn| conn.kill(closed()));
        drop(waiters);
    }
}

fn closed() -> Error {
    Error::unsent("the pool is closed")
}

impl State {
    /// The open connection with the least in flight: a lookup must not wait behind a batch of clicks.
    fn least_busy(&self) -> Option<Arc<Conn>> {
        let open = self.conns.iter().flatten().filter(|conn| !conn.is_ended());
        open.min_by_key(|conn| conn.in_flight_bytes()).cloned()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, limit: Duration, calls: &[Call<'_>]) -> Result<Results> {
        count(&self.counters.queries);
        let begun = Instant::now();
        let result = self.run_until(limit, begun, calls);
        self.latency.observe(runtime::waited(Wait::Store, begun.elapsed()));
        match &result {
            Ok(_) => {}
            Err(Error::Busy) => count(&self.counters.busy),
            Err(Error::TimedOut) => count(&self.counters.timeouts),
            Err(_) => count(&self.counters.errors),
        }
        result
    }

    fn run_until(&self, limit: Duration, begun: Instant, calls: &[Call<'_>]) -> Result<Results> {
        let mut error = Error::TimedOut;
        for attempt in 0..TRIES {
            if attempt > 0 {
                count(&self.counters.repeats);
            }
            error = match self.try_once(limit, begun, calls, attempt)? {
                Answer::Done(results) => return Ok(results),
                Answer::Failed(error) if may_repeat(&error, calls) => error,
                Answer::Failed(error) => return Err(error),
                Answer::Retry(error) => error,
            };
        }
        Err(error)
    }

    /// Sends a request over one connection. Fails where another try would fail just the same.
    fn try_once(&self, limit: Duration, begun: Instant, calls: &[Call<'_>], attempt: usize) -> Result<Answer> {
        let open = self.lock().least_busy();
        // On a first try with a connection at hand no time has passed; that saves asking the clock.
        let at_once = attempt == 0 && open.is_some();
        let conn = open.map_or_else(|| self.pick(limit, begun), Ok)?;
        let left = if at_once { Some(limit) } else { share_of(limit, begun.elapsed()) }.ok_or(Error::TimedOut)?;
        match conn.submit(calls, attempt + 1 == TRIES) {
            Ok(ticket) => Ok(self.await_answer(&conn, ticket, left)),
            // It ended between the pick and the submission.
            Err(error @ Error::Unavailable { .. }) => Ok(Answer::Retry(error)),
            Err(error) => Err(error),
        }
    }

    fn await_answer(&self, conn: &Arc<Conn>, ticket: Ticket, limit: Duration) -> Answer {
        match ticket.slot.wait(limit) {
            Ok(answer) => answer,
            Err(Empty::TimedOut) => {
                conn.abandon(ticket.sequence, &self.config);
                Answer::Failed(Error::TimedOut)
            }
            Err(Empty::Abandoned) => {
                let why = "the connection's coroutine failed".into();
                Answer::Failed(Error::Unavailable { maybe_sent: true, why })
            }
        }
    }

    /// An open connection. While there is none, waits for the first try to connect.
    fn pick(&self, limit: Duration, begun: Instant) -> Result<Arc<Conn>> {
        let too_late = || Error::unsent("no connection within the deadline");
        loop {
            let wait: Slot<()> = {
                let mut state = self.lock();
                if let Some(conn) = state.least_busy() {
                    return Ok(conn);
                }
                if state.closed {
                    return Err(closed());
                }
                if let Some(error) = &state.last_error {
                    return Err(Error::unsent(error.to_string()));
                }
                if state.waiters.len() >= limits::PG_WAITERS_MAX {
                    return Err(Error::Busy);
                }
                let (slot, filler) = slot();
                state.waiters.push(filler);
                slot
            };
            let left = share_of(limit, begun.elapsed()).ok_or_else(too_late)?;
            if wait.wait(left) == Err(Empty::TimedOut) {
                return Err(too_late());
            }
        }
    }

    /// Keeps one of the shared connections open until the pool is closed. Runs on a thread of its own.
    fn keep(&self, place: usize) {
        let mut failures = 0;
        while !self.lock().closed {
            let begun = Instant::now();
            match self.open() {
                Ok((conn, over)) => {
                    self.install(place, Some(conn));
                    // Filled or abandoned, the session is over.
                    let _ = over.wait_until_filled();
                    self.install(place, None);
                    if begun.elapsed() >= SHORT_LIFE {
                        failures = 0;
                        continue;
                    }
                }
                Err(error) => self.note_failure(error),
            }
            failures += 1;
            self.pause(backoff(failures));
        }
    }

    fn open(&self) -> Result<(Arc<Conn>, Slot<()>)> {
        let opened = connect::open(&self.config).and_then(|session| Conn::start(session, self.config.pooler));
        count(if opened.is_ok() { &self.counters.connects } else { &self.counters.connect_errors });
        opened
    }

    /// Opens a connection on a thread of its own, for the caller may be a coroutine.
    fn open_aside(self: &Arc<Self>) -> Result<Arc<Conn>> {
        let (opened, filler) = slot();
        let shared = Arc::clone(self);
        thread::Builder::new()
            .name("snip-pg-lease".into())
            .spawn(move || filler.fill(shared.open().map(|(conn, _)| conn)))
            .map_err(|error| Error::unsent(format!("no thread to connect: {error}")))?;
        // Everything but the look-up of the name has a deadline of its own.
        opened.wait(self.config.connect_timeout).unwrap_or_else(|_| Err(Error::unsent("connecting takes too long")))
    }

    fn install(&self, place: usize, conn: Option<Arc<Conn>>) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            if let Some(conn) = conn {
                conn.kill(closed());
            }
            return;
        }
        if conn.is_some() {
            tracing::info!(server = %self.config, "connected to PostgreSQL");
            state.last_error = None;
        } else {
            tracing::warn!(server = %self.config, "a connection to PostgreSQL ended");
        }
        state.conns[place] = conn;
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        drop(waiters); // wakes them
    }

    fn note_failure(&self, error: Error) {
        tracing::warn!(server = %self.config, %error, "PostgreSQL cannot be reached");
        let mut state = self.lock();
        state.last_error = Some(error);
        let waiters = std::mem::take(&mut state.waiters);
        drop(state);
        drop(waiters);
    }

    fn pause(&self, pause: Duration) {
        let state = self.lock();
        // The result says whether the pool was closed, which the caller looks at anyway.
        let _ = self.closing.wait_timeout_while(state, pause, |state| !state.closed);
    }

    fn stats(&self) -> Stats {
        let conns: Vec<_> = self.lock().conns.iter().flatten().cloned().collect();
        let counters = &self.counters;
        Stats {
            queries: read(&counters.queries),
            errors: read(&counters.errors),
            busy: read(&counters.busy),
            timeouts: read(&counters.timeouts),
            cancels: read(&counters.cancels) + conns.iter().map(|conn| conn.cancels()).sum::<u64>(),
            repeats: read(&counters.repeats),
            connects: read(&counters.connects),
            connect_errors: read(&counters.connect_errors),
            connections: conns.len(),
            in_flight: conns.iter().map(|conn| conn.in_flight()).sum(),
        }
    }
}

/// Whether a request may be sent again by itself: it surely was not carried out, or changes nothing anyway.
fn may_repeat(error: &Error, calls: &[Call<'_>]) -> bool {
    match error {
        Error::Unavailable { maybe_sent, .. } => !maybe_sent || calls.iter().all(|call| call.statement.read_only),
        _ => false,
    }
}

/// A wait within what is left of a limit: the limit halved until it fits, so that the number of different waits, for
/// each of which the deadlines' thread keeps a queue, stays small. `None` if next to nothing is left.
fn share_of(limit: Duration, elapsed: Duration) -> Option<Duration> {
    // Picking an open connection takes microseconds: that is not worth halving for.
    if elapsed < limit / 64 {
        return Some(limit);
    }
    let left = limit.checked_sub(elapsed)?;
    (1..=8).map(|halvings| limit / (1 << halvings)).find(|share| *share <= left)
}

/// Doubles from the shortest pause to the longest; between half of that and all of it, so that instances do not come
/// back in step.
fn backoff(failures: u32) -> Duration {
    let doubled = limits::PG_BACKOFF_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(limits::PG_BACKOFF_MAX).mul_f64(rand::random_range(0.5..=1.0))
}

/// A connection for one caller alone.
pub struct Lease {
    shared: Arc<Shared>,
    conn: Option<Arc<Conn>>,
    limit: Duration,
}

impl Lease {
    /// Sets the deadline of each further call, which must be one of few constants (`limits::STORE_DEADLINE` at first).
    pub fn set_limit(&mut self, limit: Duration) {
        self.limit = limit;
    }

    /// Runs a statement. Outside `BEGIN` … `COMMIT` it is a transaction of its own.
    ///
    /// # Errors
    /// Any of [`Error`]. After `TimedOut` and `Unavailable` the lease is of no further use.
    pub fn query(&mut self, statement: &Statement, params: &[&(dyn ToSql + Sync)]) -> Result<Rows> {
        first(self.run(&[Call::new(statement, params)])?)
    }

    /// Runs several statements in one round trip.
    ///
    /// # Errors
    /// As [`Lease::query`].
    pub fn batch(&mut self, calls: &[Call<'_>]) -> Result<Vec<Rows>> {
        self.run(calls).map(Results::into_vec)
    }

    /// Runs a text of several statements without parameters, such as a migration or `BEGIN`; its rows are dropped.
    /// Outside `BEGIN` … `COMMIT` the text is one transaction.
    ///
    /// # Errors
    /// As [`Lease::query`].
    pub fn script(&mut self, sql: &str) -> Result<()> {
        count(&self.shared.counters.queries);
        let conn = self.conn()?;
        let ticket = conn.submit_script(sql)?;
        self.settle(self.shared.await_answer(conn, ticket, self.limit)).map(drop)
    }

    fn run(&mut self, calls: &[Call<'_>]) -> Result<Results> {
        count(&self.shared.counters.queries);
        let conn = self.conn()?;
        for _ in 1..TRIES {
            match self.shared.await_answer(conn, conn.submit(calls, false)?, self.limit) {
                // Rolled back and outside a transaction of the caller's: nothing is lost by sending it again.
                Answer::Retry(_) => count(&self.shared.counters.repeats),
                answer => return self.settle(answer),
            }
        }
        self.settle(self.shared.await_answer(conn, conn.submit(calls, true)?, self.limit))
    }

    fn conn(&self) -> Result<&Arc<Conn>> {
        self.conn.as_ref().ok_or_else(closed)
    }

    fn settle(&self, answer: Answer) -> Result<Results> {
        match answer {
            Answer::Done(results) => Ok(results),
            Answer::Failed(Error::TimedOut) => {
                count(&self.shared.counters.timeouts);
                Err(Error::TimedOut)
            }
            Answer::Failed(error) | Answer::Retry(error) => {
                count(&self.shared.counters.errors);
                Err(error)
            }
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(conn) = &self.conn {
            conn.kill(closed());
        }
        self.shared.lock().leases -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        for (failures, longest) in [(1, 50), (2, 100), (3, 200), (6, 1600), (7, 2000), (1000, 2000)] {
            let (longest, pause) = (Duration::from_millis(longest), backoff(failures));
            assert!(pause >= longest / 2 && pause <= longest, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn later_tries_fit_into_what_is_left() {
        let ms = Duration::from_millis;
        for (elapsed, share) in [(0, Some(5000)), (78, Some(5000)), (79, Some(2500)), (3000, Some(1250))] {
            assert_eq!(share_of(ms(5000), ms(elapsed)), share.map(ms), "{elapsed}");
        }
        assert_eq!(share_of(ms(5000), ms(4990)), None);
        assert_eq!(share_of(ms(5000), ms(6000)), None);
    }
}
