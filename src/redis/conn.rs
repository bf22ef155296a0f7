//! One open session: callers queue requests, one coroutine owns the socket, writes what has gathered in one system
//! call, hands the replies out in order and the published messages on.
//!
//! Whoever queues does the packing, under the queue's lock, straight into the bytes that will be sent. Callers are
//! coroutines or plain threads. The coroutine parks only in `wait_io`, and is woken by the socket or by a caller.

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ::redis::{Cmd, Value};
use may::io::{CoIo, WaitIo, WaitIoWaker};
use socket2::Socket;

use super::client::Events;
use super::connect::Session;
use super::error::{Error, Result};
use super::wire::{self, Arrived, Expected, Pending, Values};
use crate::limits;
use crate::net::stream::{Got, Stream};
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
        let driver = Driver::new(Arc::clone(&conn), session);
        runtime::spawn(limits::SOCKET_STACK_WORDS, move || driver.drive())
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
    socket: Option<Socket>,
    stream: Stream,
    expected: Expected<Waiter>,
    input: Input,
    /// What is being written, and how much of it the kernel has taken.
    writing: Vec<u8>,
    written: usize,
    why: Option<Error>,
}

impl Driver {
    fn new(conn: Arc<Conn>, session: Session) -> Self {
        let Session { socket, tls, unread } = session;
        Self {
            conn,
            socket: Some(socket),
            stream: Stream::new(tls),
            expected: Expected::new(),
            input: Input::new(unread),
            writing: Vec::new(),
            written: 0,
            why: None,
        }
    }

    /// The body of the coroutine.
    fn drive(mut self) {
        let Some(socket) = self.socket.take() else { return };
        // Registered here, on the worker's thread, as sockets are also closed here: a number that is closed and given
        // out again between the closing and the deregistration would lose its registration.
        let io = match CoIo::new(socket) {
            Ok(io) => io,
            Err(error) => {
                self.why = Some(Error::unavailable(format!("registering the socket: {error}")));
                return;
            }
        };
        let _ = self.conn.waker.set(io.waker());
        self.why = Some(self.run(&io));
        // The callers first: closing can wait.
        drop(self);
        drop(io.into_inner());
    }

    /// Writes and reads until the session is over; says why.
    fn run(&mut self, io: &CoIo<Socket>) -> Error {
        if let Err(why) = self.take_values() {
            return why;
        }
        loop {
            if let Err(why) = self.turn(io) {
                return why;
            }
        }
    }

    /// One round: write what there is, read what there is, wait.
    fn turn(&mut self, io: &CoIo<Socket>) -> Result<()> {
        self.take_requests()?;
        self.write(io.inner())?;
        if self.read(io.inner())? == Reading::More {
            runtime::yield_to_reactor();
            return Ok(());
        }
        if self.may_wait() {
            self.stream.note(io.wait_io());
        }
        Ok(())
    }

    /// Takes over what callers have queued, unless the last lot is still being written.
    fn take_requests(&mut self) -> Result<()> {
        let mut queue = self.conn.lock();
        queue.idle = false;
        if let Some(why) = &queue.end {
            return Err(why.clone());
        }
        if self.written == self.writing.len() {
            self.writing.clear();
            self.written = 0;
            std::mem::swap(&mut self.writing, &mut queue.out);
            self.expected.extend(queue.pending.drain(..));
        }
        Ok(())
    }

    fn has_output(&self) -> bool {
        self.written < self.writing.len() || self.stream.holds_output()
    }

    /// Whether there is nothing to do but wait for the socket or for callers.
    fn may_wait(&self) -> bool {
        let has_output = self.has_output();
        if has_output && self.stream.is_writable() {
            return false;
        }
        let mut queue = self.conn.lock();
        if queue.end.is_some() || (!has_output && !queue.out.is_empty()) {
            return false;
        }
        // While the kernel takes nothing, more requests are no reason to wake.
        queue.idle = !has_output;
        true
    }

    fn write(&mut self, socket: &Socket) -> Result<()> {
        while self.stream.is_writable() && self.has_output() {
            let taken = self.stream.write(socket, &self.writing[self.written..]);
            self.written += taken.map_err(|error| broken("writing", &error))?;
        }
        Ok(())
    }

    /// Reads what the socket has, up to a turn's share, and hands the replies out.
    fn read(&mut self, socket: &Socket) -> Result<Reading> {
        let mut turn_bytes = 0;
        while turn_bytes < limits::REDIS_TURN_BYTES {
            match self.stream.read(socket, self.input.spare()).map_err(|error| broken("reading", &error))? {
                Got::Bytes(bytes) => {
                    turn_bytes += bytes;
                    self.input.filled(bytes);
                    self.take_values()?;
                }
                Got::Nothing => return Ok(Reading::Drained),
                Got::End => return Err(Error::unavailable("the server closed the connection")),
            }
        }
        Ok(Reading::More)
    }

    /// Handles all whole values of the input.
    fn take_values(&mut self) -> Result<()> {
        while let Some((value, bytes)) = wire::next_value(self.input.unread())? {
            self.input.consume(bytes);
            match self.expected.on_value(value)? {
                Arrived::Finished(waiter, values) => self.conn.finish(waiter, values),
                Arrived::Message(text) => self.conn.events.message(&text),
                Arrived::Part | Arrived::Ignored => {}
            }
        }
        self.input.make_room();
        Ok(())
    }
}

/// Whether the socket was read to its end for now.
#[derive(PartialEq, Eq)]
enum Reading {
    Drained,
    More,
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

fn broken(what: &str, error: &io::Error) -> Error {
    Error::unavailable(format!("{what}: {error}"))
}

/// Bytes from the server that are not understood yet.
struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    fn new(unread: Vec<u8>) -> Self {
        let end = unread.len();
        let mut input = Self { buffer: unread, start: 0, end };
        input.make_room();
        input
    }

    fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Room for more; never empty, as `take_values` makes room each time.
    fn spare(&mut self) -> &mut [u8] {
        &mut self.buffer[self.end..]
    }

    fn filled(&mut self, bytes: usize) {
        self.end += bytes;
    }

    fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Moves what is unread to the front and sees to room behind it; `wire` bounds what can be unread.
    fn make_room(&mut self) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let wanted = limits::REDIS_READ_BYTES.max(2 * self.end);
        if self.buffer.len() != wanted {
            self.buffer.resize(wanted, 0);
            self.buffer.shrink_to(wanted);
        }
    }
}
