//! Answers of one turn of the worker: they are made one after the other, and then sent one after the other.
//!
//! The kernel's way out over TCP is long enough to leave nothing of ours in the processor's first caches. A connection that
//! sent its answer itself had each request begin with cold code; with several requests read and answered in a row, all but the
//! first find it warm (decision 53). What an answer waits for is bounded: the requests that were there when it was made, and
//! no more than [`OUTBOX_ANSWERS_MAX`] of them. Single answers wait for nothing, but their way goes by one more coroutine.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;

use may::io::{CoIo, WaitIo};
use may::sync::Blocker;
use rustix::net::SendFlags;
use socket2::Socket;

use super::buffer::WriteBuffer;
use crate::limits::{CONNECTION_STACK_WORDS, OUTBOX_ANSWERS_MAX};
use crate::runtime::{self, SendRing};

/// A socket, and what it did not take of posted answers. The connection's own; the outbox holds it while it has something for
/// it.
pub(super) struct Line {
    pub io: CoIo<Socket>,
    is_posted: Cell<bool>,
    owed: RefCell<Owed>,
}

/// Answers that are left to the connection.
#[derive(Default)]
struct Owed {
    output: WriteBuffer,
    /// Bytes of it that are sent.
    sent: usize,
}

impl Line {
    pub fn new(io: CoIo<Socket>) -> Rc<Self> {
        Rc::new(Self { io, is_posted: Cell::new(false), owed: RefCell::default() })
    }

    /// Writes once, as far as the socket takes it.
    pub fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::net::send(self.io.inner(), bytes, SendFlags::NOSIGNAL)?)
    }

    /// Whether the socket did not take all that was posted.
    pub fn owes(&self) -> bool {
        !self.owed.borrow().output.bytes.is_empty()
    }

    /// Takes what is left of posted answers: whoever has them sends them, from the byte that comes along on. Those that the
    /// outbox has not come to yet are sent first.
    pub fn take_back(&self) -> Option<(WriteBuffer, usize)> {
        if self.is_posted.get() {
            send_all();
        }
        if !self.owes() {
            return None;
        }
        let Owed { output, sent } = self.owed.take();
        Some((output, sent))
    }

    /// Has `output` sent at the end of the worker's turn. None may be owed or posted.
    pub fn post(self: &Rc<Self>, output: WriteBuffer) {
        debug_assert!(!self.owes() && !self.is_posted.get());
        self.is_posted.set(true);
        let count = OUTBOX.with_borrow_mut(|outbox| {
            outbox.posted.push(Posted { line: Rc::clone(self), output, sent: Cell::new(0) });
            outbox.posted.len()
        });
        match count {
            1 if !wake_sender() => send_all(),
            OUTBOX_ANSWERS_MAX => send_all(),
            _ => {}
        }
    }
}

/// Answers of a connection, on their way.
struct Posted {
    line: Rc<Line>,
    output: WriteBuffer,
    /// Bytes of it that are sent.
    sent: Cell<usize>,
}

impl Posted {
    fn left(&self) -> &[u8] {
        &self.output.bytes[self.sent.get()..]
    }

    /// Sends what is left. What the socket does not take, for whatever reason, is left to the connection.
    fn deliver(self) {
        self.line.is_posted.set(false);
        while !self.left().is_empty() {
            match self.line.send(self.left()) {
                Ok(count) => self.sent.set(self.sent.get() + count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.give_back(),
            }
        }
    }

    #[cold]
    fn give_back(self) {
        self.line.owed.replace(Owed { output: self.output, sent: self.sent.get() });
        self.line.io.waker().wakeup();
    }
}

/// What is to be sent, and the coroutine that sends it.
struct Outbox {
    posted: Vec<Posted>,
    sender: Option<Arc<Blocker>>,
    /// Sends several at once, where the kernel does.
    ring: Option<SendRing>,
}

impl Outbox {
    /// Sends all that is in it: together, and what is left of it then one by one.
    fn send_all(&mut self) {
        if let (Some(ring), [_, _, ..]) = (&mut self.ring, &self.posted[..]) {
            let sends = self.posted.iter().map(|posted| (posted.line.io.inner().as_fd(), posted.left()));
            ring.send(sends, |at, count| self.posted[at].sent.set(count));
        }
        self.posted.drain(..).for_each(Posted::deliver);
    }
}

thread_local! {
    // Borrowed for single steps: nothing of it is held while a coroutine waits.
    static OUTBOX: RefCell<Outbox> = const { RefCell::new(Outbox { posted: Vec::new(), sender: None, ring: None }) };
}

/// Has the sender run once those have run whose sockets are ready now: `may` resumes them first, and then what was woken
/// meanwhile. False if there is no memory for a sender.
fn wake_sender() -> bool {
    if let Some(sender) = OUTBOX.with_borrow(|outbox| outbox.sender.clone()) {
        sender.unpark();
        return true;
    }
    start_sender().is_ok()
}

#[cold]
fn start_sender() -> io::Result<()> {
    let sender = Arc::new(Blocker::new(true));
    let waiting = Arc::clone(&sender);
    runtime::spawn(CONNECTION_STACK_WORDS, move || {
        loop {
            send_all();
            // It ends with the process. However the wait ended, a look at the outbox is right.
            let _ = waiting.park(None);
        }
    })?;
    let ring = SendRing::open(OUTBOX_ANSWERS_MAX).inspect_err(
        |error| tracing::info!(%error, "answers are sent one by one: io_uring is not to be had here (docs/troubleshooting.md)"),
    );
    OUTBOX.with_borrow_mut(|outbox| (outbox.sender, outbox.ring) = (Some(sender), ring.ok()));
    Ok(())
}

/// Sends all that is in the outbox.
#[inline(never)] // its frame is not to be a part of the one that a connection answers on
fn send_all() {
    OUTBOX.with_borrow_mut(Outbox::send_all);
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// A line, and the other end of its socket.
    fn line() -> (Rc<Line>, UnixStream) {
        let (end, other_end) = UnixStream::pair().unwrap();
        other_end.set_nonblocking(true).unwrap();
        (Line::new(CoIo::new(Socket::from(end)).unwrap()), other_end)
    }

    fn output(bytes: &[u8]) -> WriteBuffer {
        let mut output = WriteBuffer::default();
        super::super::buffer::ensure_write(&mut output.bytes);
        output.bytes.extend_from_slice(bytes);
        output.settle().unwrap();
        output
    }

    /// What there is to be read now.
    fn arrived(other_end: &mut UnixStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        match other_end.read_to_end(&mut bytes) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => bytes,
            other => panic!("{other:?}"),
        }
    }

    /// Runs a body on a coroutine that begins with an empty outbox, which all tests of the process share.
    fn on_coroutine<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        let (slot, filler) = runtime::slot();
        let body = move || {
            send_all();
            filler.fill(body());
        };
        runtime::spawn(CONNECTION_STACK_WORDS, body).unwrap();
        slot.wait_until_filled().unwrap()
    }

    #[test]
    fn what_is_posted_is_sent_once_others_have_run() {
        let (before, after, owes) = on_coroutine(|| {
            let mut ends = [line(), line(), line()];
            ends.iter().zip([b"a", b"b", b"c"]).for_each(|((line, _), bytes)| line.post(output(bytes)));
            let before = ends.each_mut().map(|(_, other_end)| arrived(other_end));
            runtime::yield_to_reactor();
            let after = ends.each_mut().map(|(_, other_end)| arrived(other_end));
            (before, after, ends.each_ref().map(|(line, _)| line.take_back().is_some()))
        });
        assert_eq!(before, [b"", b"", b""]);
        assert_eq!(after, [b"a", b"b", b"c"]);
        assert_eq!(owes, [false; 3]);
    }

    #[test]
    fn a_full_outbox_is_sent_at_once() {
        let counts = on_coroutine(|| {
            let mut ends: Vec<_> = (0..OUTBOX_ANSWERS_MAX).map(|_| line()).collect();
            let (last, others) = ends.split_last().unwrap();
            others.iter().for_each(|(line, _)| line.post(output(b"x")));
            let waiting = others.iter().filter(|(line, _)| line.is_posted.get()).count();
            last.0.post(output(b"x"));
            (waiting, ends.iter_mut().filter_map(|(_, other_end)| arrived(other_end).pop()).count())
        });
        assert_eq!(counts, (OUTBOX_ANSWERS_MAX - 1, OUTBOX_ANSWERS_MAX));
    }

    #[test]
    fn what_is_taken_back_early_is_sent_first() {
        let (is_left, arrived) = on_coroutine(|| {
            let (line, mut other_end) = line();
            line.post(output(b"a"));
            (line.take_back().is_some(), arrived(&mut other_end))
        });
        assert_eq!((is_left, arrived), (false, b"a".to_vec()));
    }

    #[test]
    fn without_a_ring_they_are_sent_one_by_one() {
        let arrived = on_coroutine(|| {
            let mut ends = [line(), line()];
            let ring = OUTBOX.with_borrow_mut(|outbox| outbox.ring.take());
            ends.iter().zip([b"a", b"b"]).for_each(|((line, _), bytes)| line.post(output(bytes)));
            send_all();
            OUTBOX.with_borrow_mut(|outbox| outbox.ring = ring);
            ends.each_mut().map(|(_, other_end)| arrived(other_end))
        });
        assert_eq!(arrived, [b"a", b"b"]);
    }

    #[test]
    fn what_several_sockets_do_not_take_is_left_to_their_connections() {
        let owe = on_coroutine(|| {
            let [(full, mut far_full), (gone, far_gone), (sound, mut far_sound)] = [line(), line(), line()];
            drop(far_gone);
            full.post(output(&vec![0; 4 * 1024 * 1024]));
            gone.post(output(b"x"));
            sound.post(output(b"x"));
            send_all();
            let (left, sent) = full.take_back().unwrap();
            assert_eq!(arrived(&mut far_full).len(), sent);
            assert!((1..left.bytes.len()).contains(&sent));
            (gone.owes(), sound.owes(), arrived(&mut far_sound))
        });
        assert_eq!(owe, (true, false, b"x".to_vec()));
    }

    #[test]
    fn what_a_socket_does_not_take_is_left_to_its_connection() {
        let answer: Vec<u8> = (0..4 * 1024 * 1024_u32).map(|at| at as u8).collect();
        let expected = answer.clone();
        let (sent, left, arrived) = on_coroutine(move || {
            let (line, mut other_end) = line();
            line.post(output(&answer));
            // Of a connection that waits for its client: it is to be woken by what is left, not by the client.
            while !line.owes() {
                line.io.wait_io();
            }
            let arrived = arrived(&mut other_end);
            let (left, sent) = line.take_back().unwrap();
            assert!(!line.owes());
            (sent, left.bytes[sent..].to_vec(), arrived)
        });
        assert!(sent > 0 && !left.is_empty(), "{sent} of {}", expected.len());
        assert_eq!([arrived, left].concat(), expected);
    }

    #[test]
    fn a_client_that_is_gone_is_left_to_its_connection() {
        let failed = on_coroutine(|| {
            let (line, other_end) = line();
            drop(other_end);
            line.post(output(b"x"));
            runtime::yield_to_reactor();
            line.owes() && line.send(b"x").is_err()
        });
        assert!(failed);
    }
}
