//! Bytes on their way in and out: memory that belongs to a connection only while it is busy, and all of it counted.

use std::cell::RefCell;
use std::io;

use rustix::buffer::spare_capacity;
use rustix::net::RecvFlags;
use socket2::Socket;

use crate::limits::{
    BUFFER_POOL_COUNT, BUFFERS_GROWTH_BYTES_MAX, BUFFERS_TOTAL_BYTES_MAX, MODEST_ANSWER_BYTES, READ_BUFFER_BYTES,
    WRITE_BUFFER_BYTES,
};

/// Buffers for reuse, and the count of those in use. Per thread: all connections are on the one worker.
struct Pool {
    read: Vec<Vec<u8>>,
    write: Vec<Vec<u8>>,
    held: usize,
}

thread_local! {
    // Buffers are taken and given back by value: no borrow is held while a coroutine waits.
    static POOL: RefCell<Pool> = const { RefCell::new(Pool { read: Vec::new(), write: Vec::new(), held: 0 }) };
}

/// Bytes of the buffers in use at present, over all connections of the calling thread.
pub fn held_bytes() -> usize {
    POOL.with_borrow(|pool| pool.held)
}

/// All memory for buffers is in use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// Counts `more` bytes in, for a buffer that outgrows its pooled size.
fn charge_growth(more: usize) -> Result<(), Exhausted> {
    POOL.with_borrow_mut(|pool| {
        if pool.held + more > BUFFERS_GROWTH_BYTES_MAX {
            return Err(Exhausted);
        }
        pool.held += more;
        Ok(())
    })
}

/// Gives `out` the memory of a pooled buffer, if it has none. To be taken over by a [`WriteBuffer`].
pub(super) fn ensure_write(out: &mut Vec<u8>) {
    if out.capacity() == 0 {
        *out = POOL.with_borrow_mut(|pool| {
            pool.held += WRITE_BUFFER_BYTES;
            pool.write.pop().unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER_BYTES))
        });
    }
}

/// Answers that are to be written. Has no memory until the first of them begins: who waits for a store holds none.
#[derive(Default)]
pub(super) struct WriteBuffer {
    /// Empty and without capacity, or from [`ensure_write`].
    pub bytes: Vec<u8>,
    /// What was counted in beyond the pooled size.
    grown: usize,
}

impl WriteBuffer {
    /// Counts in what the last answer made the buffer grow.
    pub fn settle(&mut self) -> Result<(), Exhausted> {
        let beyond = self.bytes.capacity().saturating_sub(WRITE_BUFFER_BYTES);
        let more = beyond.saturating_sub(self.grown);
        if more > 0 {
            match self.bytes.capacity() {
                ..=MODEST_ANSWER_BYTES => POOL.with_borrow_mut(|pool| pool.held += more),
                _ => charge_growth(more)?,
            }
            self.grown = beyond;
        }
        Ok(())
    }

    /// Whether a client may take its time for what is in here: with so much in use in all, only for little.
    pub fn may_wait(&self) -> bool {
        held_bytes() <= if self.grown > 0 { BUFFERS_GROWTH_BYTES_MAX } else { BUFFERS_TOTAL_BYTES_MAX }
    }

    /// Keeps the first `count` bytes and gives back the memory beyond them.
    pub fn shrink(&mut self, count: usize) {
        self.bytes.truncate(count);
        self.bytes.shrink_to(WRITE_BUFFER_BYTES);
    }

    /// Gives all memory back.
    pub fn release(&mut self) {
        if self.bytes.capacity() == 0 {
            return;
        }
        let (mut bytes, grown) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.grown));
        POOL.with_borrow_mut(|pool| {
            pool.held -= WRITE_BUFFER_BYTES + grown;
            if bytes.capacity() == WRITE_BUFFER_BYTES && pool.write.len() < BUFFER_POOL_COUNT {
                bytes.clear();
                pool.write.push(bytes);
            }
        });
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes read and not yet consumed. Dropped, it gives its memory back.
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    /// Where the unconsumed bytes begin.
    start: usize,
    /// What was counted in beyond the pooled size.
    grown: usize,
}

impl ReadBuffer {
    /// An empty buffer from the pool.
    pub fn take() -> Result<Self, Exhausted> {
        POOL.with_borrow_mut(|pool| {
            if pool.held + READ_BUFFER_BYTES > BUFFERS_TOTAL_BYTES_MAX {
                return Err(Exhausted);
            }
            pool.held += READ_BUFFER_BYTES;
            let bytes = pool.read.pop().unwrap_or_else(|| Vec::with_capacity(READ_BUFFER_BYTES));
            Ok(Self { bytes, start: 0, grown: 0 })
        })
    }

    /// The unconsumed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// The unconsumed bytes, for decoding in place.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }

    /// Number of unconsumed bytes.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `count` unconsumed bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    /// Keeps the first `count` unconsumed bytes only.
    pub fn truncate(&mut self, count: usize) {
        self.bytes.truncate(self.start + count);
    }

    /// Moves the unconsumed bytes to the front, so that all free room lies behind them.
    pub fn compact(&mut self) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }

    /// Makes room behind the unconsumed bytes: a pooled buffer's worth, or twice what there is, but no more than for
    /// `wanted` unconsumed bytes in all. Memory follows what has arrived, not what a head claims.
    pub fn grow(&mut self, wanted: usize) -> Result<(), Exhausted> {
        self.compact();
        if self.bytes.len() < self.bytes.capacity() {
            return Ok(());
        }
        let capacity = (self.bytes.capacity() * 2).min(wanted.max(self.bytes.len() + 1));
        let more = capacity - self.bytes.capacity();
        charge_growth(more)?;
        self.grown += more;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    /// Gives back what it had grown by, unless the unconsumed bytes need it. For a wait between requests' parts: what is
    /// held then may be held for long.
    pub fn shrink(&mut self) {
        if self.grown > 0 && self.len() < READ_BUFFER_BYTES {
            let mut small = Vec::with_capacity(READ_BUFFER_BYTES);
            small.extend_from_slice(self.bytes());
            self.bytes = small;
            self.start = 0;
            POOL.with_borrow_mut(|pool| pool.held -= std::mem::take(&mut self.grown));
        }
    }

    /// Reads once into the free room. `Ok` gives the number of bytes and whether the socket had no more: a short read
    /// from a stream socket means that it is drained.
    pub fn read_from(&mut self, socket: &Socket) -> io::Result<(usize, bool)> {
        let offered = self.bytes.capacity() - self.bytes.len();
        // Not by way of libc, whose call is a point where a thread might be cancelled, and pays for that.
        let (count, _) = rustix::net::recv(socket, spare_capacity(&mut self.bytes), RecvFlags::empty())?;
        Ok((count, count < offered))
    }

    #[cfg(test)]
    pub fn with(bytes: &[u8]) -> Self {
        let mut buffer = Self::take().unwrap();
        buffer.bytes.extend_from_slice(bytes);
        buffer
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        POOL.with_borrow_mut(|pool| {
            pool.held -= READ_BUFFER_BYTES + self.grown;
            if bytes.capacity() == READ_BUFFER_BYTES && pool.read.len() < BUFFER_POOL_COUNT {
                bytes.clear();
                pool.read.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumes_and_compacts() {
        let mut buffer = ReadBuffer::with(b"abcdef");
        buffer.consume(2);
        assert_eq!(buffer.bytes(), b"cdef");
        buffer.compact();
        assert_eq!(buffer.bytes(), b"cdef");
        buffer.truncate(3);
        assert_eq!(buffer.bytes(), b"cde");
        buffer.consume(3);
        assert!(buffer.is_empty());
    }

    #[test]
    fn growth_is_bounded_and_given_back() {
        let full = vec![b'x'; READ_BUFFER_BYTES];
        let mut held = Vec::new();
        let refused = loop {
            let mut buffer = ReadBuffer::with(&full);
            match buffer.grow(8 * 1024 * 1024) {
                Ok(()) => held.push(buffer),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Exhausted);
        assert!(held_bytes() <= BUFFERS_GROWTH_BYTES_MAX);
        assert!(held.len() >= BUFFERS_GROWTH_BYTES_MAX / (2 * READ_BUFFER_BYTES) - 8);
        // Those that need no more than a pooled buffer are still served.
        let mut small = Vec::new();
        while let Ok(buffer) = ReadBuffer::take() {
            small.push(buffer);
        }
        assert!(held_bytes() <= BUFFERS_TOTAL_BYTES_MAX && small.len() >= 4096);
        drop((held, small));
        assert_eq!(held_bytes(), 0);
    }

    #[test]
    fn a_grown_buffer_shrinks_when_little_is_left() {
        let mut buffer = ReadBuffer::with(&vec![b'x'; READ_BUFFER_BYTES]);
        buffer.grow(usize::MAX).unwrap();
        assert_eq!(held_bytes(), 2 * READ_BUFFER_BYTES);
        buffer.shrink();
        assert_eq!(held_bytes(), 2 * READ_BUFFER_BYTES, "what is full is kept");
        buffer.consume(READ_BUFFER_BYTES - 3);
        buffer.shrink();
        assert_eq!((buffer.bytes(), held_bytes()), (&b"xxx"[..], READ_BUFFER_BYTES));
    }

    #[test]
    fn answers_are_counted() {
        let mut output = WriteBuffer::default();
        assert_eq!(held_bytes(), 0);
        ensure_write(&mut output.bytes);
        output.bytes.extend_from_slice(&[0; 10]);
        assert_eq!((output.settle(), held_bytes()), (Ok(()), WRITE_BUFFER_BYTES));
        output.bytes.extend_from_slice(&vec![0; 10 * WRITE_BUFFER_BYTES]);
        assert_eq!(output.settle(), Ok(()));
        assert_eq!(held_bytes(), output.bytes.capacity());
        assert!(output.may_wait());
        output.bytes.extend_from_slice(&vec![0; BUFFERS_GROWTH_BYTES_MAX]);
        assert_eq!(output.settle(), Err(Exhausted));
        output.shrink(10);
        assert_eq!(output.bytes.capacity(), WRITE_BUFFER_BYTES);
        drop(output);
        assert_eq!(held_bytes(), 0);
    }
}
