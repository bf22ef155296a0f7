//! One open session: callers queue requests, one coroutine owns the socket, writes what has gathered in one system
//! call, hands the replies out in order and the published messages on.
//!
//! Whoever queues does the packing, under the queue's lock, straight into the bytes that will be sent. Callers are
//! coroutines or plain threads. The coroutine parks only in `wait_io`, and is woken by the socket or by a caller.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value};
use may::io::WaitIoWaker;

use super::client::Events;
use super::connect::Session;
use super::error::{Error, Result};
use super::wire::{self, Arrived, Expected, Pending, Values};
use crate::limits;
use crate::net::turns::{Input, Protocol, Turns};
use crate::runtime::{self, Filler, Slot, slot};

/// Whom the replies of a request are for.
struct Waiter {
    filler: Filler<Result<Values>>,
    /// Refused, it matters even if nobody waits any more.
    sure: bool,
}

/// An open session, shared by its callers and its coroutine.
pub(super) struct Conn {
    queue: Mutex<Queue>,
    /// Told when the session is over.
    over: Condvar,
    /// Set by the coroutine when it has registered the socket.
    waker: OnceLock<WaitIoWaker>,
    /// Requests queued or sent, and not answered.
    in_flight: AtomicUsize,
    /// Requests answered.
    completed: AtomicU64,
    events: Arc<dyn Events>,
}

struct Queue {
    /// Requests not yet taken by the coroutine.
    out: Vec<u8>,
    /// Their entries for the queue of replies.
    pending: Vec<Pending<Waiter>>,
    /// The coroutine waits for the socket and has nothing to write: a caller must wake it.
    idle: bool,
    /// Why the session is over or is to end.
    end: Option<Error>,
    /// The coroutine has ended.
    is_over: bool,
}

impl Conn {
    /// Starts the coroutine of an open session.
    pub fn start(session: Session, events: Arc<dyn Events>) -> Result<Arc<Self>> {
        let queue = Queue { out: Vec::new(), pending: Vec::new(), idle: false, end: None, is_over: false };
        let conn = Arc::new(Self {
            queue: Mutex::new(queue),
            over: Condvar::new(),
            waker: OnceLock::new(),
            in_flight: AtomicUsize::new(0),
            completed: AtomicU64::new(0),
            events,
        });
        let driver = Driver { conn: Arc::clone(&conn), expected: Expected::new(), why: None };
        let turns = Turns::new(driver, session.tls, session.unread);
        runtime::spawn(limits::SOCKET_STACK_WORDS, move || turns.drive(session.socket))
            .map_err(|error| Error::unavailable(format!("no coroutine for the connection: {error}")))?;
        Ok(conn)
    }

    /// Requests that are not answered yet.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Requests answered since the session began.
    pub fn completed(&self) -> u64 {
        self.completed.load(Ordering::Relaxed)
    }

    /// Queues commands whose replies come together. `sure`: the events hear of it when one is refused.
    pub fn submit(&self, cmds: &[Cmd], sure: bool) -> Result<Slot<Result<Values>>> {
        let mut queue = self.lock();
        if let Some(why) = &queue.end {
            return Err(why.clone());
        }
        if self.in_flight() >= limits::REDIS_IN_FLIGHT_MAX {
            return Err(Error::Busy);
        }
        let base = queue.out.len();
        cmds.iter().for_each(|cmd| cmd.write_packed_command(&mut queue.out));
        if queue.out.len() > limits::REDIS_QUEUE_BYTES {
            queue.out.truncate(base);
            return Err(Error::Busy);
        }
        let (slot, filler) = slot();
        queue.pending.push(Pending::new(cmds.len(), Waiter { filler, sure }));
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let must_wake = std::mem::take(&mut queue.idle);
        drop(queue);
        if must_wake {
            self.wake();
        }
        Ok(slot)
    }

    /// Ends the session; its callers are told why.
    pub fn kill(&self, why: Error) {
        self.lock().end.get_or_insert(why);
        self.wake();
    }

    /// Waits for the end of the session; gives its reason if it came within `limit`. For plain threads.
    pub fn wait_over(&self, limit: Duration) -> Option<Error> {
        let queue = self.lock();
        let waited = self.over.wait_timeout_while(queue, limit, |queue| !queue.is_over);
        let (queue, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if queue.is_over { queue.end.clone() } else { None }
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

    fn finish(&self, waiter: Waiter, values: Values) {
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.completed.fetch_add(1, Ordering::Relaxed);
        if waiter.sure && values.iter().any(|value| matches!(value, Value::ServerError(_))) {
            self.events.failed();
        }
        waiter.filler.fill(Ok(values));
    }
}

// ---- The coroutine ---------------------------------------------------------------------------------------------

/// The coroutine's side of a session. Dropped, it fails whoever still waits.
struct Driver {
    conn: Arc<Conn>,
    expected: Expected<Waiter>,
    why: Option<Error>,
}

impl Protocol for Driver {
    type Error = Error;
    type Output = Vec<u8>;
    const READ_BYTES: usize = limits::REDIS_READ_BYTES;
    const TURN_BYTES: usize = limits::REDIS_TURN_BYTES;

    fn begun(&mut self, waker: WaitIoWaker) {
        let _ = self.conn.waker.set(waker);
    }

    fn take_requests(&mut self, free: Option<&mut Vec<u8>>) -> Result<bool> {
        let mut queue = self.conn.lock();
        queue.idle = false;
        if let Some(why) = &queue.end {
            return Err(why.clone());
        }
        let Some(writing) = free else { return Ok(false) };
        writing.clear();
        std::mem::swap(writing, &mut queue.out);
        self.expected.extend(queue.pending.drain(..));
        Ok(true)
    }

    fn take_input(&mut self, input: &mut Input) -> Result<()> {
        while let Some((value, bytes)) = wire::next_value(input.unread())? {
            input.consume(bytes);
            match self.expected.on_value(value)? {
                Arrived::Finished(waiter, values) => self.conn.finish(waiter, values),
                Arrived::Message(text) => self.conn.events.message(&text),
                Arrived::Part | Arrived::Ignored => {}
            }
        }
        // Nobody says how long a reply will be; `wire` bounds what can be unread.
        input.make_room(2 * input.unread().len());
        Ok(())
    }

    fn may_wait(&mut self, is_output: bool) -> bool {
        let mut queue = self.conn.lock();
        if queue.end.is_some() || (!is_output && !queue.out.is_empty()) {
            return false;
        }
        // While the kernel takes nothing, more requests are no reason to wake.
        queue.idle = !is_output;
        true
    }

    fn over(&mut self, why: Error) {
        self.why = Some(why);
    }

    fn broken(why: String) -> Error {
        Error::unavailable(why)
    }
}

impl Drop for Driver {
    /// Fails at once whoever waits, and whoever would come later. Never waits.
    fn drop(&mut self) {
        let why = self.why.take().unwrap_or_else(|| Error::unavailable("the connection's coroutine failed"));
        let mut queue = self.conn.lock();
        queue.end = Some(why.clone());
        queue.is_over = true;
        let unsent = std::mem::take(&mut queue.pending);
        queue.out = Vec::new();
        drop(queue);
        let sent = std::mem::replace(&mut self.expected, Expected::new());
        self.conn.in_flight.store(0, Ordering::Relaxed);
        let waiters = sent.into_waiters().chain(unsent.into_iter().map(|pending| pending.waiter));
        waiters.for_each(|waiter| waiter.filler.fill(Err(why.clone())));
        self.conn.over.notify_all();
    }
}
