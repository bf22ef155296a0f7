//! The coroutine that owns a client's socket: turn by turn it writes what callers have queued, reads what has come, and
//! waits. What the bytes mean its [`Protocol`] knows.

use may::io::{CoIo, WaitIo, WaitIoWaker};
use rustls::ClientConnection;
use socket2::Socket;

use super::stream::{Got, Stream};
use crate::limits::CLIENT_WRITE_KEEP_BYTES;
use crate::runtime;

/// One session's side of the coroutine. Dropped, it fails whoever still waits for an answer.
pub trait Protocol {
    /// Why a session is over.
    type Error;
    /// What requests are written into.
    type Output: AsRef<[u8]> + Default;
    /// Bytes of the buffer for what is read; a larger message makes it grow for as long as it takes.
    const READ_BYTES: usize;
    /// Bytes that are read before others get their turn.
    const TURN_BYTES: usize;

    /// The socket is registered; callers wake the coroutine by this.
    fn begun(&mut self, waker: WaitIoWaker);

    /// Puts what callers have queued in the place of what is in `free`; whether it did. Without `free` the last lot is
    /// still being written.
    ///
    /// # Errors
    /// The session is to end.
    fn take_requests(&mut self, free: Option<&mut Self::Output>) -> Result<bool, Self::Error>;

    /// So many bytes more of the requests were handed over to the kernel, or to TLS.
    fn sent(&mut self, _bytes: usize) {}

    /// Consumes what is whole of the input, and makes room for more.
    ///
    /// # Errors
    /// What came is not to be understood, or ends the session.
    fn take_input(&mut self, input: &mut Input) -> Result<(), Self::Error>;

    /// Whether there is nothing to do but wait: for the socket, and for callers too, unless there `is_output` that the kernel
    /// does not take. From then on callers wake the coroutine.
    fn may_wait(&mut self, is_output: bool) -> bool;

    /// Writes into `free` what the server is told at the end, if anything.
    fn farewell(&mut self, _free: &mut Self::Output) {}

    /// The session is over.
    fn over(&mut self, why: Self::Error);

    /// The socket failed.
    fn broken(why: String) -> Self::Error;
}

/// A session's socket and what is on its way through it.
pub struct Turns<P: Protocol> {
    protocol: P,
    stream: Stream,
    input: Input,
    /// What is being written, and how much of it the kernel has taken.
    writing: P::Output,
    written: usize,
}

/// Whether the socket was read to its end for now.
#[derive(PartialEq, Eq)]
enum Reading {
    Drained,
    More,
}

impl<P: Protocol> Turns<P> {
    /// A session whose TLS, if any, has shaken hands, and which has `unread` bytes from the server already.
    pub fn new(protocol: P, tls: Option<Box<ClientConnection>>, unread: Vec<u8>) -> Self {
        let (stream, input) = (Stream::new(tls), Input::new(unread, P::READ_BYTES));
        Self { protocol, stream, input, writing: P::Output::default(), written: 0 }
    }

    /// The body of the coroutine.
    pub fn drive(mut self, socket: Socket) {
        // Registered here, on the worker's thread, as sockets are also closed here: a number that is closed and given out
        // again between the closing and the deregistration would lose its registration.
        let io = match CoIo::new(socket) {
            Ok(io) => io,
            Err(error) => return self.protocol.over(P::broken(format!("registering the socket: {error}"))),
        };
        self.protocol.begun(io.waker());
        let why = self.run(&io);
        self.say_farewell(io.inner());
        self.protocol.over(why);
        // The callers first: closing can wait.
        drop(self);
        // Deregisters, then closes.
        drop(io.into_inner());
    }

    /// Writes and reads until the session is over; says why.
    fn run(&mut self, io: &CoIo<Socket>) -> P::Error {
        // What came together with the end of the start-up.
        if let Err(why) = self.protocol.take_input(&mut self.input) {
            return why;
        }
        loop {
            if let Err(why) = self.turn(io) {
                return why;
            }
        }
    }

    /// One round: write what there is, read what there is, wait.
    fn turn(&mut self, io: &CoIo<Socket>) -> Result<(), P::Error> {
        let free = (self.written == self.writing.as_ref().len()).then_some(&mut self.writing);
        if self.protocol.take_requests(free)? {
            self.written = 0;
        }
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

    fn has_output(&self) -> bool {
        self.written < self.writing.as_ref().len() || self.stream.holds_output()
    }

    fn may_wait(&mut self) -> bool {
        let has_output = self.has_output();
        !(has_output && self.stream.is_writable()) && self.protocol.may_wait(has_output)
    }

    fn write(&mut self, socket: &Socket) -> Result<(), P::Error> {
        while self.stream.is_writable() && self.has_output() {
            let rest = &self.writing.as_ref()[self.written..];
            let taken = self.stream.write(socket, rest).map_err(|error| P::broken(format!("writing: {error}")))?;
            self.written += taken;
            self.protocol.sent(taken);
        }
        let lot = self.writing.as_ref().len();
        if self.written == lot && lot > CLIENT_WRITE_KEEP_BYTES {
            (self.writing, self.written) = (P::Output::default(), 0);
        }
        Ok(())
    }

    /// Reads what the socket has, up to a turn's share, and hands the replies out.
    fn read(&mut self, socket: &Socket) -> Result<Reading, P::Error> {
        let mut turn_bytes = 0;
        while turn_bytes < P::TURN_BYTES {
            let got = self.stream.read(socket, self.input.spare());
            match got.map_err(|error| P::broken(format!("reading: {error}")))? {
                Got::Bytes(bytes) => {
                    turn_bytes += bytes;
                    self.input.end += bytes;
                    self.protocol.take_input(&mut self.input)?;
                }
                Got::Nothing => return Ok(Reading::Drained),
                Got::End => return Err(P::broken("the server closed the connection".into())),
            }
        }
        Ok(Reading::More)
    }

    /// Tells the server that the session ends, if the socket takes it without waiting.
    fn say_farewell(&mut self, socket: &Socket) {
        if !self.has_output() {
            (self.writing, self.written) = (P::Output::default(), 0);
            self.protocol.farewell(&mut self.writing);
            let _ = self.write(socket);
        }
    }
}

/// Bytes from the server that are not understood yet.
pub struct Input {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    bytes_min: usize,
}

impl Input {
    fn new(unread: Vec<u8>, bytes_min: usize) -> Self {
        let end = unread.len();
        let mut input = Self { buffer: unread, start: 0, end, bytes_min };
        input.make_room(0);
        input
    }

    /// What is there.
    pub fn unread(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// Room for more; never empty, as a protocol makes room each time.
    fn spare(&mut self) -> &mut [u8] {
        &mut self.buffer[self.end..]
    }

    /// The first `bytes` are understood.
    pub fn consume(&mut self, bytes: usize) {
        self.start += bytes;
    }

    /// Moves what is unread to the front and sees to it that a message of so many bytes fits: large ones make the
    /// buffer grow for as long as it takes.
    pub fn make_room(&mut self, message_bytes: usize) {
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        let wanted = message_bytes.max(self.end + 1).max(self.bytes_min);
        self.buffer.resize(wanted, 0);
        self.buffer.shrink_to(wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: usize = 8;

    #[test]
    fn input_keeps_what_is_unread_and_has_room() {
        let mut input = Input::new(b"abcdef".to_vec(), LEAST);
        let check = |input: &mut Input, unread: &[u8], bytes: usize| {
            assert_eq!(input.unread(), unread);
            assert_eq!((unread.len() + input.spare().len(), input.buffer.capacity()), (bytes, bytes));
        };
        check(&mut input, b"abcdef", LEAST);
        input.consume(4);
        input.make_room(20);
        check(&mut input, b"ef", 20);
        // A message that is there as a whole needs room for the next all the same.
        input.spare().fill(b'x');
        input.end = 20;
        input.make_room(20);
        check(&mut input, b"efxxxxxxxxxxxxxxxxxx", 21);
        input.consume(20);
        input.make_room(0);
        check(&mut input, b"", LEAST);
    }
}
