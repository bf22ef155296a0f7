//! One connection: a loop on a coroutine of its own. The bytes of the whole product come in and go out here.
//!
//! While idle it holds no buffer. When bytes come it borrows two from the pool, answers what is complete, writes all
//! answers with one system call and gives them back. A short read means that the socket is drained, so a keep-alive
//! request costs one read and one write.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use may::io::{CoIo, WaitIo};
use socket2::Socket;

use super::body::Chunked;
use super::buffer::{self, ReadBuffer};
use super::head::{self, Framing, Head, Method, Parsed, Request};
use super::response::{Connection as Persistence, Refusal, Response};
use super::server::{Service, Shared};
use super::watch::{CloseReason, Watched};
use crate::limits::{LINGER_BYTES_MAX, LINGER_TIMEOUT, PIPELINE_OUTPUT_BYTES, READ_BUFFER_BYTES};
use crate::runtime;

/// Flags of `wait_io`: those of epoll, and one that says that a waker was used.
const READABLE: usize = libc::EPOLLIN as usize;
const WRITABLE: usize = libc::EPOLLOUT as usize;
const HANGUP: usize = (libc::EPOLLRDHUP | libc::EPOLLHUP | libc::EPOLLERR) as usize;

/// Serves a fresh socket to its end.
pub(super) fn serve<S: Service>(socket: Socket, peer: Option<SocketAddr>, shared: &Arc<Shared<S>>) -> CloseReason {
    let Ok(io) = CoIo::new(socket) else {
        return CloseReason::SocketError;
    };
    let watched = shared.watch.add(io.waker());
    Conn { io, peer, shared, watched, phase: Phase::Start, readable: false, hangup: false, head_seen: 0 }.run()
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
    io: CoIo<Socket>,
    peer: Option<SocketAddr>,
    shared: &'s Arc<Shared<S>>,
    watched: Watched,
    phase: Phase,
    /// An edge of readability that was seen while waiting for something else.
    readable: bool,
    /// The other end has closed its side: edges won't tell again, so read until the end.
    hangup: bool,
    /// Bytes of an incomplete head that were parsed already.
    head_seen: usize,
}

impl<S: Service> Conn<'_, S> {
    fn run(&mut self) -> CloseReason {
        loop {
            self.watched.arm(self.shared.options.idle_timeout);
            match self.wait_readable() {
                Wake::Ready => {}
                Wake::Expired => return CloseReason::IdleTimeout,
                Wake::Draining => return CloseReason::Draining,
            }
            let mut input = ReadBuffer::take();
            let mut output = buffer::take_write();
            let turn = self.turn(&mut input, &mut output);
            buffer::give_write(output);
            if let Err(reason) = turn {
                return reason;
            }
        }
    }

    /// Reads and answers until nothing is left to be done. `Ok` is an idle connection with an empty buffer.
    fn turn(&mut self, input: &mut ReadBuffer, output: &mut Vec<u8>) -> Closed<()> {
        loop {
            let drained = match self.read(input)? {
                Some(drained) => drained,
                None if input.is_empty() => return Ok(()),
                None => {
                    self.wait_for_more(output)?;
                    continue;
                }
            };
            self.answer_all(input, output)?;
            self.flush(output)?;
            match (drained, self.hangup) {
                // A client that never stops sending must not keep the others waiting.
                (false, _) => runtime::yield_to_reactor(),
                // The end of the stream is behind what was read, and no edge will tell.
                (true, true) => {}
                (true, false) if matches!(self.phase, Phase::Start) => return Ok(()),
                (true, false) => self.wait_for_more(output)?,
            }
        }
    }

    /// Reads once. `None` when there was nothing to read; else whether the socket is drained.
    fn read(&mut self, input: &mut ReadBuffer) -> Closed<Option<bool>> {
        let wanted = match &self.phase {
            Phase::Body(pending) => pending.buffer_bytes_max,
            Phase::Start | Phase::Head => READ_BUFFER_BYTES,
        };
        if input.grow(wanted).is_err() {
            let mut output = buffer::take_write();
            let reason = self.refuse(Refusal::OVERLOADED, Method::Get, &mut output);
            return Err(self.close_after(&mut output, reason));
        }
        match input.read_from(self.io.inner()) {
            Ok((0, _)) => Err(CloseReason::ByPeer),
            Ok((_, drained)) => Ok(Some(drained)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Some(false)),
            Err(_) => Err(CloseReason::SocketError),
        }
    }

    /// Answers all requests that are complete, in order.
    fn answer_all(&mut self, input: &mut ReadBuffer, output: &mut Vec<u8>) -> Closed<()> {
        while !input.is_empty() {
            match self.step(input, output) {
                Step::Answered => {
                    self.phase = Phase::Start;
                    self.head_seen = 0;
                }
                Step::Incomplete => return Ok(()),
                Step::Last(reason) => {
                    // What the client sent after its last request would turn the close into a reset.
                    let linger = reason == CloseReason::Refused || !input.is_empty();
                    return Err(if linger {
                        self.close_after(output, reason)
                    } else {
                        self.flush_last(output, reason)
                    });
                }
            }
            // Back-pressure: a client that does not read its answers gets no further ones made.
            if output.len() > PIPELINE_OUTPUT_BYTES {
                self.flush(output)?;
            }
        }
        Ok(())
    }

    fn step(&mut self, input: &mut ReadBuffer, output: &mut Vec<u8>) -> Step {
        match std::mem::replace(&mut self.phase, Phase::Head) {
            Phase::Body(pending) => self.step_body(pending, input, output),
            phase @ (Phase::Start | Phase::Head) => {
                self.phase = phase;
                self.step_head(input, output)
            }
        }
    }

    fn step_head(&mut self, input: &mut ReadBuffer, output: &mut Vec<u8>) -> Step {
        let bytes = input.bytes();
        // Parsing anew for each byte of a slow head would be quadratic: only a new line can complete it.
        let is_news = self.head_seen == 0 || bytes[self.head_seen.min(bytes.len())..].contains(&b'\n');
        if !is_news && bytes.len() < READ_BUFFER_BYTES {
            self.head_seen = bytes.len();
            return Step::Incomplete;
        }
        match head::parse(bytes) {
            Ok(Parsed::Complete(head)) => match self.body_of(&head, bytes.len()) {
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
                        output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
                    }
                    self.watched.arm(self.shared.options.body_timeout);
                    self.step_body(pending, input, output)
                }
                Err(refusal) => {
                    let method = head.method;
                    Step::Last(self.refuse(refusal, method, output))
                }
            },
            Ok(Parsed::Partial) => {
                self.head_seen = bytes.len();
                if matches!(self.phase, Phase::Start) {
                    self.phase = Phase::Head;
                    self.watched.arm(self.shared.options.head_timeout);
                }
                Step::Incomplete
            }
            Err(refusal) => Step::Last(self.refuse(refusal, Method::Get, output)),
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
        Ok(Some(PendingBody { head_bytes: head.bytes, progress, buffer_bytes_max }))
    }

    fn step_body(&mut self, mut pending: PendingBody, input: &mut ReadBuffer, output: &mut Vec<u8>) -> Step {
        let head_bytes = pending.head_bytes;
        let (body_end, request_end) = match &mut pending.progress {
            Progress::Until(end) if input.len() < *end => {
                self.phase = Phase::Body(pending);
                return Step::Incomplete;
            }
            Progress::Until(end) => (*end, *end),
            Progress::Chunked(chunked) => match chunked.decode(&mut input.bytes_mut()[head_bytes..]) {
                Ok(true) => (head_bytes + chunked.decoded(), head_bytes + chunked.looked_at()),
                Ok(false) => {
                    input.truncate(head_bytes + chunked.decoded());
                    chunked.dropped_rest();
                    self.phase = Phase::Body(pending);
                    return Step::Incomplete;
                }
                Err(refusal) => return Step::Last(self.refuse_body(refusal, input.bytes(), output)),
            },
        };
        // The head was complete and sound before; nothing has changed it.
        let Ok(Parsed::Complete(head)) = head::parse(&input.bytes()[..head_bytes]) else {
            return Step::Last(self.refuse(Refusal::BAD_REQUEST, Method::Get, output));
        };
        let close = self.answer(head, &input.bytes()[head_bytes..body_end], output);
        input.consume(request_end);
        self.after_answer(close)
    }

    /// A chunked body that turns out too large gets the same words as one that says so in its head.
    fn refuse_body(&self, refusal: Refusal, bytes: &[u8], output: &mut Vec<u8>) -> CloseReason {
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
    fn answer(&self, head: Head<'_>, body: &[u8], output: &mut Vec<u8>) -> Option<CloseReason> {
        let close = match head.keep_alive {
            false => Some(CloseReason::AsAsked),
            true if self.shared.is_draining() => Some(CloseReason::Draining),
            true => None,
        };
        let persistence = match close {
            Some(_) => Persistence::Close,
            None if head.is_http11 => Persistence::Persistent,
            None => Persistence::KeepAlive,
        };
        let method = head.method;
        let start = output.len();
        let request = Request { head, body, peer: self.peer };
        let mut response = Response::new(output, method, persistence);
        let service = &self.shared.service;
        let outcome = catch_unwind(AssertUnwindSafe(|| service.call(&request, &mut response)));
        let finished = response.is_finished();
        if let Err(panic) = &outcome {
            service.panicked(&request, panic_text(panic.as_ref()));
        }
        if outcome.is_err() || !finished {
            output.truncate(start);
            Refusal::INTERNAL.write(output, method);
            return Some(CloseReason::Refused);
        }
        close
    }

    fn refuse(&self, refusal: Refusal, method: Method, output: &mut Vec<u8>) -> CloseReason {
        self.shared.service.refused(refusal);
        refusal.write(output, method);
        CloseReason::Refused
    }

    /// Waits for the rest of a request; when its deadline passes, says so to the client.
    fn wait_for_more(&mut self, output: &mut Vec<u8>) -> Closed<()> {
        loop {
            match self.wait_readable() {
                Wake::Ready => return Ok(()),
                Wake::Draining => {} // a request that has begun is finished
                Wake::Expired => {
                    let reason = match self.phase {
                        Phase::Body(_) => CloseReason::BodyTimeout,
                        Phase::Start | Phase::Head => CloseReason::HeadTimeout,
                    };
                    self.refuse(Refusal::TIMEOUT, Method::Get, output);
                    return Err(self.close_after(output, reason));
                }
            }
        }
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
            if !self.readable && self.watched.is_expired() {
                return Wake::Expired;
            }
        }
    }

    /// Whether the socket holds bytes that were not read.
    fn has_input(&self) -> bool {
        self.io.inner().peek(&mut [MaybeUninit::uninit()]).is_ok_and(|count| count > 0)
    }

    /// Waits for any event and remembers what matters of it. Says whether the socket may take more bytes.
    fn wait(&mut self) -> bool {
        let flags = self.io.wait_io();
        self.hangup |= flags & HANGUP != 0;
        self.readable |= flags & (READABLE | HANGUP) != 0;
        flags & (WRITABLE | HANGUP) != 0
    }

    /// Writes all of `output`; as a rule with one system call.
    fn flush(&mut self, output: &mut Vec<u8>) -> Closed<()> {
        let mut written = 0;
        while written < output.len() {
            match self.io.inner().send(&output[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_writable()?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Err(CloseReason::SocketError),
            }
        }
        output.clear();
        Ok(())
    }

    fn wait_writable(&mut self) -> Closed<()> {
        self.watched.arm(self.shared.options.write_timeout);
        while !self.wait() {
            if self.watched.is_expired() {
                return Err(CloseReason::WriteTimeout);
            }
        }
        Ok(())
    }

    fn flush_last(&mut self, output: &mut Vec<u8>, reason: CloseReason) -> CloseReason {
        self.flush(output).err().unwrap_or(reason)
    }

    /// Writes the last answer and reads on for a while: closing a socket with unread bytes resets the connection, and
    /// the client might never see the answer (RFC 9112, section 9.6).
    fn close_after(&mut self, output: &mut Vec<u8>, reason: CloseReason) -> CloseReason {
        if let Err(failed) = self.flush(output) {
            return failed;
        }
        if self.io.inner().shutdown(std::net::Shutdown::Write).is_err() {
            return reason;
        }
        self.watched.arm(LINGER_TIMEOUT);
        let mut left = LINGER_BYTES_MAX;
        let mut rest = ReadBuffer::take();
        while left > 0 {
            match rest.read_from(self.io.inner()) {
                Ok((0, _)) => break,
                Ok((count, _)) => {
                    left = left.saturating_sub(count);
                    rest.consume(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait();
                    if self.watched.is_expired() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        reason
    }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}
