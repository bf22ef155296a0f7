//! One connection: a loop on a coroutine of its own. The bytes of the whole product come in and go out here.
//!
//! While idle it holds no buffer. When bytes come it borrows one from the pool, and with the first answer another one,
//! answers what is complete, and gives the first back. The other goes to the [outbox](super::outbox), which writes it together
//! with those of the other connections that had their turn; only when this one has more to do at once does it write them itself.
//! A short read means that the socket is drained, so a keep-alive request costs one read, and at the most one write.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use may::io::{CoIo, WaitIo};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::Socket;

use super::body::Chunked;
use super::buffer::{self, Exhausted, ReadBuffer, WriteBuffer};
use super::head::{self, Framing, Head, Method, Parsed, Request};
use super::outbox::Line;
use super::response::{Connection as Persistence, Refusal, Response};
use super::server::{Service, Shared};
use super::watch::{CloseReason, Watched};
use crate::limits::{
    HEAD_BYTES_MAX, IDLE_TRIM_AFTER, LINGER_BYTES_MAX, LINGER_TIMEOUT, PIPELINE_OUTPUT_BYTES, READ_BUFFER_BYTES,
    RESERVE_TIMEOUT,
};
use crate::runtime::interest::{self, Interest};
use crate::runtime::{self, StackTop, panic_text};

/// Flags of `wait_io`: those of epoll, and one that says that a waker was used.
const READABLE: usize = libc::EPOLLIN as usize;
const WRITABLE: usize = libc::EPOLLOUT as usize;
const HANGUP: usize = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;

/// Serves a fresh socket to its end. One that is `extra`, past the connection limit, may ask for a probe and no more.
pub(super) fn serve<S: Service>(
    socket: Socket,
    peer: Option<SocketAddr>,
    shared: &Arc<Shared<S>>,
    extra: bool,
) -> CloseReason {
    let Ok(io) = CoIo::new(socket) else {
        return CloseReason::SocketError;
    };
    let watched = shared.watch.add(io.waker());
    let phase = Phase::Start;
    let line = Line::new(io);
    let mut conn = Conn { line, peer, shared, watched, phase, extra, readable: false, hangup: false, head_seen: 0 };
    // If it goes on to tell of room, nothing is lost but time.
    let _ = conn.wake_for(Interest::Reads);
    conn.run(&StackTop::here())
}

/// Where in a request the connection is.
enum Phase {
    /// Before its first byte.
    Start,
    /// Within its head; the head's deadline is armed.
    Head,
    /// Within its body; the body's deadline is armed.
    Body(PendingBody),
}

/// A body that has not arrived in full.
struct PendingBody {
    head_bytes: usize,
    progress: Progress,
    /// Bytes that head and body may take in the buffer.
    buffer_bytes_max: usize,
    /// Bytes of the body that there were when the deadline was armed.
    armed_at: usize,
}

impl PendingBody {
    /// Bytes of the body so far, out of `buffered` bytes in all.
    fn arrived(&self, buffered: usize) -> usize {
        match &self.progress {
            Progress::Until(_) => buffered - self.head_bytes,
            Progress::Chunked(chunked) => chunked.decoded(),
        }
    }
}

enum Progress {
    /// Complete when the buffer holds so many bytes, the head included.
    Until(usize),
    Chunked(Chunked),
}

/// What came of looking at the buffer.
enum Step {
    /// A request was answered, and the connection goes on.
    Answered,
    /// More bytes are needed.
    Incomplete,
    /// The last answer was written into the output.
    Last(CloseReason),
}

/// What ended a wait.
enum Wake {
    Ready,
    Expired,
    Draining,
}

type Closed<T> = Result<T, CloseReason>;

struct Conn<'s, S> {
    line: Rc<Line>,
    peer: Option<SocketAddr>,
    shared: &'s Arc<Shared<S>>,
    watched: Watched,
    phase: Phase,
    /// Whether it was let in past the connection limit.
    extra: bool,
    /// An edge of readability that was seen while waiting for something else.
    readable: bool,
    /// The other end has closed its side: edges won't tell again, so read until the end.
    hangup: bool,
    /// Bytes of an incomplete head that were parsed already.
    head_seen: usize,
}

impl<S: Service> Conn<'_, S> {
    fn run(&mut self, stack: &StackTop) -> CloseReason {
        let reason = self.serve_all(stack);
        // A server that drains ends connections whose last answer has just been posted.
        self.send_owed().err().unwrap_or(reason)
    }

    /// Serves one request after the other, until there is a reason to close.
    fn serve_all(&mut self, stack: &StackTop) -> CloseReason {
        loop {
            match self.wait_idle(stack) {
                Wake::Ready => {}
                Wake::Expired if self.extra => return self.turn_away(),
                Wake::Expired => return CloseReason::IdleTimeout,
                Wake::Draining => return CloseReason::Draining,
            }
            if let Err(reason) = self.turn() {
                return reason;
            }
        }
    }

    /// Waits for the next request. What an earlier one has touched of the stack is kept for a while, since the next one
    /// will need it, but not for as long as the connection may be idle.
    fn wait_idle(&mut self, stack: &StackTop) -> Wake {
        let limit = if self.extra { RESERVE_TIMEOUT } else { self.shared.options.idle_timeout };
        let untrimmed = limit.min(IDLE_TRIM_AFTER);
        self.watched.arm(untrimmed);
        match self.wait_readable() {
            Wake::Expired if untrimmed < limit => {
                let _trimmed = stack.trim();
                self.watched.arm(limit - untrimmed);
                self.wait_readable()
            }
            wake => wake,
        }
    }

    /// Reads and answers until nothing is left to be done. `Ok` is an idle connection with an empty buffer.
    #[inline(never)] // its frame is not to be a part of the one that an idle connection stands on
    fn turn(&mut self) -> Closed<()> {
        // Answers leave in the order of their requests.
        self.send_owed()?;
        let Ok(mut buffer) = ReadBuffer::take() else {
            return Err(self.give_up(&mut WriteBuffer::default()));
        };
        let (input, mut output) = (&mut buffer, WriteBuffer::default());
        loop {
            let drained = match self.read(input)? {
                Some(drained) => drained,
                None if input.is_empty() => return Ok(()),
                None => {
                    self.wait_for_more(input)?;
                    continue;
                }
            };
            self.answer_all(input, &mut output)?;
            if drained && !self.hangup && matches!(self.phase, Phase::Start) {
                self.line.post(output);
                return Ok(());
            }
            self.flush(&mut output)?;
            match (drained, self.hangup) {
                // A client that never stops sending must not keep the others waiting.
                (false, _) => runtime::yield_to_reactor(),
                // The end of the stream is behind what was read, and no edge will tell.
                (true, true) => {}
                (true, false) => self.wait_for_more(input)?,
            }
        }
    }

    /// Reads once. `None` when there was nothing to read; else whether the socket is drained.
    fn read(&mut self, input: &mut ReadBuffer) -> Closed<Option<bool>> {
        let wanted = match &self.phase {
            Phase::Body(pending) => pending.buffer_bytes_max,
            Phase::Start | Phase::Head => HEAD_BYTES_MAX,
        };
        if let Err(Exhausted) = input.grow(wanted) {
            let mut output = WriteBuffer::default();
            let reason = self.overloaded(&mut output);
            return Err(self.close_after(input, &mut output, reason));
        }
        match input.read_from(self.line.io.inner()) {
            Ok((0, _)) => Err(CloseReason::ByPeer),
            Ok((_, drained)) => Ok(Some(drained)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(false)),
            Err(_) => Err(CloseReason::SocketError),
        }
    }

    /// Answers all requests that are complete, in order.
    fn answer_all(&mut self, input: &mut ReadBuffer, output: &mut WriteBuffer) -> Closed<()> {
        while !input.is_empty() {
            match self.step(input, output) {
                Step::Answered => {
                    self.phase = Phase::Start;
                    self.head_seen = 0;
                }
                Step::Incomplete => return Ok(()),
                Step::Last(reason) => {
                    // What the client sent after its last request would turn the close into a reset.
                    let linger = !matches!(reason, CloseReason::AsAsked | CloseReason::Draining) || !input.is_empty();
                    return Err(if linger {
                        self.close_after(input, output, reason)
                    } else {
                        self.flush_last(output, reason)
                    });
                }
            }
            // Back-pressure: a client that does not read its answers gets no further ones made.
            if output.bytes.len() > PIPELINE_OUTPUT_BYTES {
                self.flush(output)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, input: &mut ReadBuffer, output: &mut WriteBuffer) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Body(pending) => self.step_body(pending, input, output),
            phase @ (Phase::Start | Phase::Head) => {
                self.phase = phase;
                self.step_head(input, output)
            }
        }
    }

    fn step_head(&mut self, input: &mut ReadBuffer, output: &mut WriteBuffer) -> Step {
        let bytes = input.bytes();
        // Parsing anew for each byte of a slow head would be quadratic: only a new line can complete it.
        let is_news = self.head_seen == 0 || bytes[self.head_seen.min(bytes.len())..].contains(&b'\n');
        if !is_news && bytes.len() < HEAD_BYTES_MAX {
            self.head_seen = bytes.len();
            return Step::Incomplete;
        }
        // Looked at where it lies: a head is large, and each copy of it would lie on the stack of each connection.
        let parsed = head::parse(bytes);
        match &parsed {
            Ok(Parsed::Complete(head)) if self.extra && !self.is_let_in(head) => {
                Step::Last(self.over_limit(head.method, output))
            }
            Ok(Parsed::Complete(head)) => match self.body_of(head, bytes.len()) {
                Ok(None) => {
                    let Framing::Length(length) = head.framing else { return Step::Incomplete };
                    let end = head.bytes + length as usize;
                    let body = &bytes[head.bytes..end];
                    let close = self.answer(head, body, output);
                    input.consume(end);
                    self.after_answer(close)
                }
                Ok(Some(pending)) => {
                    if head.expects_continue {
                        buffer::ensure_write(&mut output.bytes);
                        output.bytes.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    self.watched.arm(self.shared.options.body_timeout);
                    self.step_body(pending, input, output)
                }
                Err(refusal) => Step::Last(self.refuse(refusal, head.method, output)),
            },
            Ok(Parsed::Partial) => {
                self.head_seen = bytes.len();
                if matches!(self.phase, Phase::Start) {
                    self.phase = Phase::Head;
                    let limit = self.shared.options.head_timeout;
                    self.watched.arm(if self.extra { limit.min(RESERVE_TIMEOUT) } else { limit });
                }
                Step::Incomplete
            }
            Err(refusal) => Step::Last(self.refuse(*refusal, Method::Get, output)),
        }
    }

    /// Whether the body is still to come; `None` when the buffer holds all of it.
    fn body_of(&self, head: &Head<'_>, buffered: usize) -> Result<Option<PendingBody>, Refusal> {
        let (limit, too_large) = self.shared.service.body_limit(head);
        let progress = match head.framing {
            Framing::Length(length) => {
                let length = usize::try_from(length).ok().filter(|&length| length <= limit).ok_or(too_large)?;
                if head.bytes + length <= buffered {
                    return Ok(None);
                }
                Progress::Until(head.bytes + length)
            }
            Framing::Chunked => Progress::Chunked(Chunked::new(limit)),
        };
        let buffer_bytes_max = match progress {
            Progress::Until(end) => end,
            // The framing of the chunks takes room until it is decoded.
            Progress::Chunked(_) => head.bytes + limit + READ_BUFFER_BYTES,
        };
        Ok(Some(PendingBody { head_bytes: head.bytes, progress, buffer_bytes_max, armed_at: 0 }))
    }

    fn step_body(&mut self, mut pending: PendingBody, input: &mut ReadBuffer, output: &mut WriteBuffer) -> Step {
        let head_bytes = pending.head_bytes;
        let (body_end, request_end) = match &mut pending.progress {
            Progress::Until(end) if input.len() < *end => return self.body_incomplete(pending, input.len()),
            Progress::Until(end) => (*end, *end),
            Progress::Chunked(chunked) => match chunked.decode(&mut input.bytes_mut()[head_bytes..]) {
                Ok(true) => (head_bytes + chunked.decoded(), head_bytes + chunked.looked_at()),
                Ok(false) => {
                    input.truncate(head_bytes + chunked.decoded());
                    chunked.dropped_rest();
                    return self.body_incomplete(pending, input.len());
                }
                Err(refusal) => return Step::Last(self.refuse_body(refusal, input.bytes(), output)),
            },
        };
        // The head was complete and sound before; nothing has changed it.
        let Ok(Parsed::Complete(head)) = head::parse(&input.bytes()[..head_bytes]) else {
            return Step::Last(self.refuse(Refusal::BAD_REQUEST, Method::Get, output));
        };
        let close = self.answer(&head, &input.bytes()[head_bytes..body_end], output);
        input.consume(request_end);
        self.after_answer(close)
    }

    /// A body has its whole time for each part that the minimum rate asks of this time: a long one may go on, and one
    /// that stalls does not live on what it has sent.
    fn body_incomplete(&mut self, mut pending: PendingBody, buffered: usize) -> Step {
        let (options, arrived) = (&self.shared.options, pending.arrived(buffered));
        if arrived - pending.armed_at >= options.bytes_due(options.body_timeout) {
            pending.armed_at = arrived;
            self.watched.arm(options.body_timeout);
        }
        self.phase = Phase::Body(pending);
        Step::Incomplete
    }

    /// A chunked body that turns out too large gets the same words as one that says so in its head.
    fn refuse_body(&self, refusal: Refusal, bytes: &[u8], output: &mut WriteBuffer) -> CloseReason {
        let refusal = match head::parse(bytes) {
            Ok(Parsed::Complete(head)) if refusal == Refusal::BODY_TOO_LARGE => self.shared.service.body_limit(&head).1,
            _ => refusal,
        };
        self.refuse(refusal, Method::Post, output)
    }

    fn after_answer(&self, close: Option<CloseReason>) -> Step {
        close.map_or(Step::Answered, Step::Last)
    }

    /// Has the service answer; says why the connection is to be closed afterwards, if it is.
    fn answer(&self, head: &Head<'_>, body: &[u8], output: &mut WriteBuffer) -> Option<CloseReason> {
        if head.method.may_change() && self.is_abandoned() {
            return Some(CloseReason::ByPeer);
        }
        let close = match head.keep_alive {
            false => Some(CloseReason::AsAsked),
            true if self.extra => Some(CloseReason::OverLimit),
            true if self.shared.is_draining() => Some(CloseReason::Draining),
            true => None,
        };
        let persistence = match close {
            Some(_) => Persistence::Close,
            None if head.is_http11 => Persistence::Persistent,
            None => Persistence::KeepAlive,
        };
        let method = head.method;
        let start = output.bytes.len();
        let request = Request { head, body, peer: self.peer };
        let mut response = Response::new(&mut output.bytes, method, persistence);
        let service = &self.shared.service;
        let outcome = catch_unwind(AssertUnwindSafe(|| service.call(&request, &mut response)));
        let finished = response.is_finished();
        if let Err(panic) = &outcome {
            service.panicked(&request, panic_text(panic.as_ref()));
        }
        if outcome.is_err() || !finished {
            output.bytes.truncate(start);
            Refusal::INTERNAL.write(&mut output.bytes, method);
            return Some(CloseReason::Refused);
        }
        if let Err(Exhausted) = output.settle() {
            output.shrink(start);
            return Some(self.overloaded(output));
        }
        close
    }

    /// Whether nobody waits for the answer any more. A proxy that lost patience while this process stood still has asked
    /// another one, and its client may have made a newer change since, which an older one must not undo. Tells of unix
    /// sockets alone: over TCP, one who is gone looks like one who has said all.
    fn is_abandoned(&self) -> bool {
        let mut socket = [PollFd::new(self.line.io.inner(), PollFlags::empty())];
        poll(&mut socket, Some(&Timespec::default())).is_ok() && socket[0].revents().contains(PollFlags::HUP)
    }

    fn refuse(&self, refusal: Refusal, method: Method, output: &mut WriteBuffer) -> CloseReason {
        self.shared.service.refused(refusal);
        refusal.write(&mut output.bytes, method);
        CloseReason::Refused
    }

    /// Says that there is no memory for a request or its answer.
    fn overloaded(&self, output: &mut WriteBuffer) -> CloseReason {
        self.shared.stats.buffers_refused.fetch_add(1, Ordering::Relaxed);
        self.refuse(Refusal::OVERLOADED, Method::Get, output);
        CloseReason::Overloaded
    }

    /// The same without a buffer to read what the client has sent: it may see a reset instead of the answer.
    fn give_up(&mut self, output: &mut WriteBuffer) -> CloseReason {
        let reason = self.overloaded(output);
        self.flush_last(output, reason)
    }

    /// Whether a connection past the limit may ask this. If others have gone meanwhile, it is one like any other.
    fn is_let_in(&mut self, head: &Head<'_>) -> bool {
        self.extra = self.shared.is_over_limit();
        !self.extra || (head.framing == Framing::Length(0) && self.shared.service.is_probe(head))
    }

    fn over_limit(&self, method: Method, output: &mut WriteBuffer) -> CloseReason {
        self.shared.stats.over_limit.fetch_add(1, Ordering::Relaxed);
        self.refuse(Refusal::OVERLOADED, method, output);
        CloseReason::OverLimit
    }

    /// Says so to a client that was let in past the limit and has asked nothing.
    fn turn_away(&mut self) -> CloseReason {
        let mut output = WriteBuffer::default();
        let reason = self.over_limit(Method::Get, &mut output);
        self.flush_last(&mut output, reason)
    }

    /// Waits for the rest of a request; when its deadline passes, says so to the client.
    fn wait_for_more(&mut self, input: &mut ReadBuffer) -> Closed<()> {
        let reason = match self.phase {
            Phase::Body(_) => CloseReason::BodyTimeout,
            Phase::Start | Phase::Head => {
                input.shrink();
                CloseReason::HeadTimeout
            }
        };
        // All that had come was looked at. One that sends a byte ever so often is late all the same.
        while !self.watched.is_expired() {
            // Draining or not: a request that has begun is finished.
            if let Wake::Ready = self.wait_readable() {
                return Ok(());
            }
        }
        let mut output = WriteBuffer::default();
        self.refuse(Refusal::TIMEOUT, Method::Get, &mut output);
        Err(self.close_after(input, &mut output, reason))
    }

    fn wait_readable(&mut self) -> Wake {
        loop {
            if std::mem::take(&mut self.readable) {
                return Wake::Ready;
            }
            let is_idle = matches!(self.phase, Phase::Start);
            if is_idle && self.shared.closes_idle() {
                // A request may have come whose event has not: closing now would throw it away.
                return if self.has_input() { Wake::Ready } else { Wake::Draining };
            }
            self.wait();
            // The sender woke it: the socket did not take its answers.
            if self.line.owes() {
                return Wake::Ready;
            }
            if !self.readable && self.watched.is_expired() {
                return Wake::Expired;
            }
        }
    }

    /// Whether the socket holds bytes that were not read.
    fn has_input(&self) -> bool {
        self.line.io.inner().peek(&mut [MaybeUninit::uninit()]).is_ok_and(|count| count > 0)
    }

    /// Waits for any event and remembers what matters of it. Says whether the socket may take more bytes.
    fn wait(&mut self) -> bool {
        let flags = self.line.io.wait_io();
        self.hangup |= flags & HANGUP != 0;
        self.readable |= flags & (READABLE | HANGUP) != 0;
        flags & (WRITABLE | HANGUP) != 0
    }

    /// Writes what is left of answers that were posted.
    fn send_owed(&mut self) -> Closed<()> {
        let Some((mut output, sent)) = self.line.take_back() else { return Ok(()) };
        self.flush_from(&mut output, sent)
    }

    /// Writes all of `output`; as a rule with one system call.
    fn flush(&mut self, output: &mut WriteBuffer) -> Closed<()> {
        self.flush_from(output, 0)
    }

    /// Writes `output` from this byte on.
    fn flush_from(&mut self, output: &mut WriteBuffer, mut written: usize) -> Closed<()> {
        while written < output.bytes.len() {
            match self.line.send(&output.bytes[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.flush_slowly(output, written)?;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CloseReason::SocketError),
            }
        }
        output.bytes.clear();
        Ok(())
    }

    /// Writes to a client that does not keep up. It has its whole time for each part that the minimum rate asks of this
    /// time, as a body has.
    #[cold]
    fn flush_slowly(&mut self, output: &WriteBuffer, mut written: usize) -> Closed<()> {
        self.wake_for(Interest::All)?;
        let options = &self.shared.options;
        let (limit, due) = (options.write_timeout, options.bytes_due(options.write_timeout));
        // The request that comes next does not lose the time that this one's answer takes.
        let left = self.watched.left();
        self.watched.arm(limit);
        let mut armed_at = written;
        while written < output.bytes.len() {
            match self.line.send(&output.bytes[written..]) {
                Ok(count) => {
                    written += count;
                    if written - armed_at >= due {
                        armed_at = written;
                        self.watched.arm(limit);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_writable(output)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CloseReason::SocketError),
            }
        }
        self.watched.arm(left);
        self.wake_for(Interest::Reads)
    }

    /// What a unix socket is to wake the connection for. Over TCP it is always all: there room is told of only where it was
    /// missing.
    fn wake_for(&self, interest: Interest) -> Closed<()> {
        if self.peer.is_some() {
            return Ok(());
        }
        interest::set(&self.line.io, interest).map_err(|_| CloseReason::SocketError)
    }

    fn wait_writable(&mut self, output: &WriteBuffer) -> Closed<()> {
        loop {
            if self.watched.is_expired() {
                return Err(CloseReason::WriteTimeout);
            }
            if !output.may_wait() {
                self.shared.stats.buffers_refused.fetch_add(1, Ordering::Relaxed);
                return Err(CloseReason::Overloaded);
            }
            if self.wait() {
                return Ok(());
            }
        }
    }

    fn flush_last(&mut self, output: &mut WriteBuffer, reason: CloseReason) -> CloseReason {
        self.flush(output).err().unwrap_or(reason)
    }

    /// Writes the last answer and reads on for a while: closing a socket with unread bytes resets the connection, and
    /// the client might never see the answer (RFC 9112, section 9.6).
    fn close_after(&mut self, input: &mut ReadBuffer, output: &mut WriteBuffer, reason: CloseReason) -> CloseReason {
        input.consume(input.len());
        input.shrink();
        if let Err(failed) = self.flush(output) {
            return failed;
        }
        output.release();
        if self.line.io.inner().shutdown(std::net::Shutdown::Write).is_err() {
            return reason;
        }
        self.watched.arm(LINGER_TIMEOUT);
        let mut left = LINGER_BYTES_MAX;
        while left > 0 && !self.watched.is_expired() {
            match input.read_from(self.line.io.inner()) {
                Ok((0, _)) => break,
                Ok((count, _)) => {
                    left = left.saturating_sub(count);
                    input.consume(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait();
                }
                Err(_) => break,
            }
        }
        reason
    }
}
