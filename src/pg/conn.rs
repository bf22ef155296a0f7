//! One open session: callers queue requests, one coroutine owns the socket, writes what has gathered in one system call
//! and hands the replies out in order.
//!
//! Whoever queues does the encoding, under the queue's lock, straight into the bytes that will be sent. Callers are
//! coroutines or plain threads. The coroutine parks only in `wait_io`, and is woken by the socket or by a caller.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use may::io::WaitIoWaker;
use smallvec::SmallVec;

use super::config::Config;
use super::connect::{self, CancelKey, Session};
use super::error::{Error, QUERY_CANCELED, Result};
use super::expect::{Broken, Expected, Finished, Outcome, Part, Pending, Prepared, Refusal, Results, Shape};
use super::statement::Call;
use super::wire::{self, Next, Status};
use crate::limits;
use crate::net::turns::{Input, Protocol, Turns};
use crate::runtime::{self, Filler, Slot, slot};

/// What the caller of a batch is told.
pub(super) enum Answer {
    /// The rows of each statement.
    Done(Results),
    /// Refused or broken.
    Failed(Error),
    /// Refused for a reason that is not the caller's, and rolled back: it may be sent again.
    Retry(Error),
}

/// A caller's place in the queue.
pub(super) struct Ticket {
    pub slot: Slot<Answer>,
    /// The request's number among all of its connection.
    pub sequence: u64,
}

/// The filling side of a ticket.
struct Waiter {
    filler: Filler<Answer>,
    /// Cancel requests sent on this connection before the request was queued.
    cancels_before: u64,
    /// What the request takes on its way.
    bytes: usize,
}

/// An open session, shared by its callers and its coroutine.
pub(super) struct Conn {
    queue: Mutex<Queue>,
    /// Set by the coroutine when it has registered the socket.
    waker: OnceLock<WaitIoWaker>,
    /// Requests queued or sent, and not answered.
    in_flight: AtomicUsize,
    /// Bytes of these.
    in_flight_bytes: AtomicUsize,
    /// Requests answered, which is also the sequence number of the one that the server is at.
    completed: AtomicU64,
    /// Cancel requests sent.
    cancels: AtomicU64,
    /// Whether the session is over or about to be; set with `Queue::end`, for those who only look.
    ended: AtomicBool,
    key: Option<CancelKey>,
    /// Statements are sent unnamed, in full, each time.
    pooler: bool,
}

struct Queue {
    /// Requests not yet taken by the coroutine.
    out: BytesMut,
    /// How much of `out` is whole requests: all of it, between two callers.
    whole: usize,
    /// Their entries for the queue of replies.
    pending: VecDeque<Pending<Waiter>>,
    /// Bytes ever put into `out`.
    queued_bytes: u64,
    /// Requests ever queued: the next one's sequence number.
    submitted: u64,
    statements: HashMap<&'static str, Arc<Prepared>, ahash::RandomState>,
    /// Names of statements that the server may drop.
    to_close: Vec<String>,
    next_name: u64,
    /// Sequence numbers of requests whose callers are gone.
    abandoned: BTreeSet<u64>,
    /// Whether a thread sees to them.
    canceling: bool,
    /// The coroutine waits for the socket; whoever makes so many requests wait must wake it.
    wake_at: usize,
    /// Why the session is over or is to end.
    end: Option<Error>,
}

impl Conn {
    /// Starts the coroutine of an open session. The slot is filled when the session is over.
    pub fn start(session: Session, pooler: bool) -> Result<(Arc<Self>, Slot<()>)> {
        let queue = Queue {
            out: BytesMut::new(),
            whole: 0,
            pending: VecDeque::new(),
            queued_bytes: 0,
            submitted: 0,
            statements: HashMap::default(),
            to_close: Vec::new(),
            next_name: 0,
            abandoned: BTreeSet::new(),
            canceling: false,
            wake_at: usize::MAX,
            end: None,
        };
        let conn = Arc::new(Self {
            queue: Mutex::new(queue),
            waker: OnceLock::new(),
            in_flight: AtomicUsize::new(0),
            in_flight_bytes: AtomicUsize::new(0),
            completed: AtomicU64::new(0),
            cancels: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            key: session.key,
            pooler,
        });
        let (over, ended) = slot();
        let driver = Driver { conn: Arc::clone(&conn), expected: Expected::new(), sent_bytes: 0, why: None };
        let turns = Turns::new(driver, session.tls, session.unread);
        let body = move || {
            turns.drive(session.socket);
            ended.fill(());
        };
        runtime::spawn(limits::SOCKET_STACK_WORDS, body)
            .map_err(|error| Error::unsent(format!("no coroutine for the connection: {error}")))?;
        Ok((conn, over))
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Their bytes: what the server has to do before it comes to a further one, as far as that can be told. A batch of clicks is
    /// one request, and takes longer than a thousand lookups.
    pub fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes.load(Ordering::Relaxed)
    }

    /// Whether the session is over or about to be.
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Queues a batch of statements, which the server carries out as one implicit transaction. `unnamed`: in full,
    /// relying on nothing that was prepared before.
    pub fn submit(&self, calls: &[Call<'_>], unnamed: bool) -> Result<Ticket> {
        self.enqueue(|queue| queue.write_batch(calls, unnamed || self.pooler))
    }

    /// Queues a text of several statements.
    pub fn submit_script(&self, sql: &str) -> Result<Ticket> {
        self.enqueue(|queue| wire::write_script(sql, &mut queue.out).map(|()| Shape::Script))
    }

    /// Ends the session; its callers are told why.
    pub fn kill(&self, why: Error) {
        self.lock().end.get_or_insert(why);
        self.ended.store(true, Ordering::Release);
        self.wake();
    }

    /// Notes that the caller of a request is gone. If the server is at that request, or gets to it, it is asked to
    /// cancel; if even that does not help, the connection is given up.
    pub fn abandon(self: &Arc<Self>, sequence: u64, config: &Arc<Config>) {
        let mut queue = self.lock();
        if queue.end.is_some() {
            return;
        }
        queue.abandoned.insert(sequence);
        if queue.canceling {
            return;
        }
        let (conn, config) = (Arc::clone(self), Arc::clone(config));
        let spawned =
            thread::Builder::new().name("snip-pg-cancel".into()).spawn(move || conn.cancel_abandoned(&config));
        // Without a thread the next caller that times out tries again.
        queue.canceling = spawned.is_ok();
    }

    /// How many cancel requests were sent.
    pub fn cancels(&self) -> u64 {
        self.cancels.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Without a waker the coroutine has not begun; it looks at the queue when it does.
        if let Some(waker) = self.waker.get() {
            waker.wakeup();
        }
    }

    fn enqueue(&self, write: impl FnOnce(&mut Queue) -> Result<Shape>) -> Result<Ticket> {
        let mut queue = self.lock();
        if let Some(why) = &queue.end {
            return Err(Error::unsent(why.to_string()));
        }
        if self.in_flight() >= limits::PG_IN_FLIGHT_MAX {
            return Err(Error::Busy);
        }
        // Half a request is left behind only by a parameter whose encoding panicked.
        let base = queue.whole;
        queue.out.truncate(base);
        let shape = queue.write_bounded(base, write)?;

        let (slot, filler) = slot();
        let sequence = queue.submitted;
        let starts_at = queue.queued_bytes;
        queue.submitted += 1;
        let bytes = queue.out.len() - base;
        queue.queued_bytes += bytes as u64;
        let waiter = Waiter { filler, cancels_before: self.cancels(), bytes };
        queue.pending.push_back(Pending { shape, starts_at, waiter });
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_add(bytes, Ordering::Relaxed);
        let must_wake = queue.pending.len() >= queue.wake_at;
        if must_wake {
            queue.wake_at = usize::MAX;
        }
        drop(queue);
        if must_wake {
            self.wake();
        }
        Ok(Ticket { slot, sequence })
    }

    /// Tells the caller of a finished batch.
    fn finish(&self, finished: Finished<Waiter>) {
        let Finished { pending: Pending { shape, waiter, .. }, outcome, status } = finished;
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.in_flight_bytes.fetch_sub(waiter.bytes, Ordering::Relaxed);
        self.completed.fetch_add(1, Ordering::Release);
        let answer = match outcome {
            Outcome::Done(results) => Answer::Done(results),
            Outcome::TooLarge => {
                let bound = limits::PG_REPLY_BYTES_MAX;
                Answer::Failed(Error::usage(format!("the rows take more than {bound} bytes; ask for fewer")))
            }
            Outcome::Refused(refusal) => self.refused(&shape, refusal, status, waiter.cancels_before),
        };
        waiter.filler.fill(answer);
    }

    fn refused(&self, shape: &Shape, refusal: Refusal, status: Status, cancels_before: u64) -> Answer {
        let Refusal { error, was_prepared_before, unparsed_from } = refusal;
        let stale = was_prepared_before && error.wants_prepare();
        if let Shape::Batch { parts, .. } = shape {
            let mut queue = self.lock();
            for (at, part) in parts.iter().enumerate() {
                let unparsed = at >= unparsed_from && part.parse;
                // The session's other statements are not looked at: each finds out by itself.
                if unparsed || stale {
                    queue.forget(&part.prepared, !unparsed);
                }
            }
        }
        // A cancel request that was meant for another request; this one was rolled back by it.
        let hit_by_mistake = error.sqlstate == QUERY_CANCELED && self.cancels() != cancels_before;
        let error = Error::Server(error);
        if status == Status::Idle && (stale || hit_by_mistake) { Answer::Retry(error) } else { Answer::Failed(error) }
    }

    /// Sees to abandoned requests until there are none. Runs on a thread of its own.
    fn cancel_abandoned(&self, config: &Config) {
        loop {
            let Some(head) = self.next_abandoned() else { return };
            // The server is at another request, whose caller still waits.
            if head != self.completed.load(Ordering::Acquire) {
                thread::sleep(Duration::from_millis(10));
                continue;
            }
            self.cancels.fetch_add(1, Ordering::AcqRel);
            let sent = match self.key {
                Some(key) => connect::cancel(config, key, limits::PG_CANCEL_GRACE),
                None => Ok(()),
            };
            if let Err(error) = sent {
                tracing::warn!(%error, "a cancel request could not be sent to PostgreSQL");
            }
            if !self.moves_past(head) {
                self.kill(Error::unsent("the server neither answered nor canceled in time"));
            }
        }
    }

    /// The first abandoned request that is not answered; `None` ends the search.
    fn next_abandoned(&self) -> Option<u64> {
        let mut queue = self.lock();
        let completed = self.completed.load(Ordering::Acquire);
        queue.abandoned = queue.abandoned.split_off(&completed);
        let first = queue.abandoned.first().copied().filter(|_| queue.end.is_none());
        queue.canceling = first.is_some();
        first
    }

    /// Whether the server gets past a request within the time of grace.
    fn moves_past(&self, sequence: u64) -> bool {
        let begun = Instant::now();
        while begun.elapsed() < limits::PG_CANCEL_GRACE {
            if self.completed.load(Ordering::Acquire) > sequence || self.is_ended() {
                return true;
            }
            thread::sleep(Duration::from_millis(2));
        }
        false
    }
}

impl Queue {
    /// Lets `write` append to the queue; takes back what it wrote if it fails or goes over a bound.
    fn write_bounded(&mut self, base: usize, write: impl FnOnce(&mut Self) -> Result<Shape>) -> Result<Shape> {
        let written = write(self).and_then(|shape| match self.out.len() {
            total if total <= limits::PG_QUEUE_BYTES => Ok(shape),
            total if total - base <= limits::PG_QUEUE_BYTES => {
                self.unlearn(&shape);
                Err(Error::Busy)
            }
            total => {
                self.unlearn(&shape);
                let (bytes, bound) = (total - base, limits::PG_QUEUE_BYTES);
                Err(Error::usage(format!("a request of {bytes} bytes is over the bound of {bound}")))
            }
        });
        match &written {
            Ok(Shape::Batch { closes, .. }) => drop(self.to_close.drain(..*closes)),
            Ok(Shape::Script) => {}
            Err(_) => self.out.truncate(base),
        }
        self.whole = self.out.len();
        written
    }

    fn write_batch(&mut self, calls: &[Call<'_>], unnamed: bool) -> Result<Shape> {
        if calls.is_empty() || calls.len() > limits::PG_BATCH_STATEMENTS {
            let (count, bound) = (calls.len(), limits::PG_BATCH_STATEMENTS);
            return Err(Error::usage(format!("a batch of {count} statements, instead of 1 to {bound}")));
        }
        for name in &self.to_close {
            wire::write_close(name, &mut self.out)?;
        }
        let mut shape = Shape::Batch { closes: self.to_close.len(), parts: SmallVec::new() };
        for call in calls {
            let part = self.plan(call, unnamed);
            let written = write_call(&part, call, &mut self.out);
            if let Shape::Batch { parts, .. } = &mut shape {
                parts.push(part);
            }
            if let Err(error) = written {
                self.unlearn(&shape);
                return Err(error);
            }
        }
        wire::write_sync(&mut self.out);
        Ok(shape)
    }

    /// Decides what must be sent for a call: a statement is parsed at its first use, described until its columns are
    /// known.
    fn plan(&mut self, call: &Call<'_>, unnamed: bool) -> Part {
        let sql = call.statement.sql;
        if let Some(prepared) = self.statements.get(sql).filter(|_| !unnamed) {
            let describe = prepared.columns.get().is_none();
            return Part { prepared: Arc::clone(prepared), parse: false, describe };
        }
        if unnamed || self.statements.len() >= limits::PG_STATEMENTS_MAX {
            return Part { prepared: Arc::new(Prepared::new(String::new(), sql)), parse: true, describe: true };
        }
        let prepared = Arc::new(Prepared::new(format!("s{}", self.next_name), sql));
        self.next_name += 1;
        self.statements.insert(sql, Arc::clone(&prepared));
        Part { prepared, parse: true, describe: true }
    }

    /// Takes back that the statements of a batch are prepared, for it will not be sent.
    fn unlearn(&mut self, shape: &Shape) {
        if let Shape::Batch { parts, .. } = shape {
            parts.iter().filter(|part| part.parse).for_each(|part| self.forget(&part.prepared, false));
        }
    }

    /// Forgets a prepared statement, unless another has taken its place; the server may drop it if it has it.
    fn forget(&mut self, prepared: &Arc<Prepared>, close: bool) {
        if self.statements.get(prepared.sql).is_some_and(|known| Arc::ptr_eq(known, prepared)) {
            self.statements.remove(prepared.sql);
            if close {
                self.to_close.push(prepared.name.clone());
            }
        }
    }
}

fn write_call(part: &Part, call: &Call<'_>, out: &mut BytesMut) -> Result<()> {
    let name = &part.prepared.name;
    if part.parse {
        wire::write_parse(name, call, out)?;
    }
    wire::write_bind(name, call, out)?;
    if part.describe {
        wire::write_describe(out)?;
    }
    wire::write_execute(out)
}

// ---- The coroutine ---------------------------------------------------------------------------------------------

/// The coroutine's side of a session. Dropped, it fails whoever still waits.
struct Driver {
    conn: Arc<Conn>,
    expected: Expected<Waiter>,
    /// Bytes handed over to the kernel (or to TLS) since the beginning.
    sent_bytes: u64,
    why: Option<Error>,
}

impl Driver {
    /// How many requests must wait before they are written. One, unless the server has many before it anyway: it would
    /// not get to another before it has answered those, so more of them can share a system call. Replies on the way
    /// bring the coroutine back, so nothing waits here that could be worked on.
    fn worth_writing(&self) -> usize {
        if self.expected.len() > limits::PG_GATHER_REQUESTS { limits::PG_GATHER_REQUESTS } else { 1 }
    }
}

impl Protocol for Driver {
    type Error = Error;
    type Output = BytesMut;
    const READ_BYTES: usize = limits::PG_READ_BYTES;
    const TURN_BYTES: usize = limits::PG_TURN_BYTES;

    fn begun(&mut self, waker: WaitIoWaker) {
        let _ = self.conn.waker.set(waker);
    }

    /// Not while the server has enough to do.
    fn take_requests(&mut self, free: Option<&mut BytesMut>) -> Result<bool> {
        let mut queue = self.conn.lock();
        queue.wake_at = usize::MAX;
        if let Some(why) = &queue.end {
            return Err(why.clone());
        }
        let Some(writing) = free.filter(|_| queue.pending.len() >= self.worth_writing()) else { return Ok(false) };
        let whole = std::mem::take(&mut queue.whole);
        queue.out.truncate(whole);
        writing.clear();
        std::mem::swap(writing, &mut queue.out);
        self.expected.extend(queue.pending.drain(..));
        Ok(true)
    }

    fn sent(&mut self, bytes: usize) {
        self.sent_bytes += bytes as u64;
    }

    fn take_input(&mut self, input: &mut Input) -> Result<()> {
        loop {
            match wire::next_frame(input.unread())? {
                Next::Frame(frame, bytes) => {
                    let finished = self.expected.on_frame(frame).map_err(Error::from)?;
                    input.consume(bytes);
                    if let Some(finished) = finished {
                        self.conn.finish(finished);
                    }
                }
                Next::Needs(bytes) => {
                    input.make_room(bytes);
                    return Ok(());
                }
            }
        }
    }

    fn may_wait(&mut self, is_output: bool) -> bool {
        let mut queue = self.conn.lock();
        // While the kernel takes nothing, more requests are no reason to wake.
        let wake_at = if is_output { usize::MAX } else { self.worth_writing() };
        if queue.end.is_some() || queue.pending.len() >= wake_at {
            return false;
        }
        queue.wake_at = wake_at;
        true
    }

    fn farewell(&mut self, free: &mut BytesMut) {
        if self.expected.len() == 0 {
            postgres_protocol::message::frontend::terminate(free);
        }
    }

    fn over(&mut self, why: Error) {
        self.why = Some(why);
    }

    fn broken(why: String) -> Error {
        Error::unsent(why)
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Fault(fault) => fault.into(),
            Broken::Fatal(error) => Self::unsent(error.to_string()),
        }
    }
}

impl Drop for Driver {
    /// Fails at once whoever waits, and whoever would come later. Never waits.
    fn drop(&mut self) {
        let why = self.why.take().unwrap_or_else(|| Error::unsent("the connection's coroutine failed"));
        let mut queue = self.conn.lock();
        queue.end = Some(why.clone());
        self.conn.ended.store(true, Ordering::Release);
        let unsent = std::mem::take(&mut queue.pending);
        queue.out = BytesMut::new();
        queue.whole = 0;
        drop(queue);
        let sent = std::mem::replace(&mut self.expected, Expected::new()).into_rest();
        self.conn.in_flight.store(0, Ordering::Relaxed);
        self.conn.in_flight_bytes.store(0, Ordering::Relaxed);
        for pending in sent.into_iter().chain(unsent) {
            let maybe_sent = pending.starts_at < self.sent_bytes;
            pending.waiter.filler.fill(Answer::Failed(told(&why, maybe_sent)));
        }
    }
}

/// What a caller is told whose request was on a connection that ended.
fn told(why: &Error, maybe_sent: bool) -> Error {
    match why {
        Error::Protocol(_) if maybe_sent => why.clone(),
        Error::Unavailable { why, .. } => Error::Unavailable { maybe_sent, why: Arc::clone(why) },
        other => Error::Unavailable { maybe_sent, why: other.to_string().into() },
    }
}
