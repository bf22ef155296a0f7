//! Bytes on their way in: a buffer that belongs to a connection only while it is busy.
//!
//! The only unsafe code of the room is here: reading into memory that is not initialized yet.

use std::cell::RefCell;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};

use socket2::Socket;

use crate::limits::{BODIES_TOTAL_BYTES_MAX, BUFFER_POOL_COUNT, READ_BUFFER_BYTES, WRITE_BUFFER_BYTES};

/// Bytes held, over all connections, by bodies that outgrew their pooled buffer.
static BODIES: AtomicUsize = AtomicUsize::new(0);

/// Bytes held at present by bodies that outgrew their pooled buffer, over all connections.
pub fn bodies_bytes() -> usize {
    BODIES.load(Ordering::Relaxed)
}

thread_local! {
    // Taken and given back by value: no borrow is held while a coroutine waits.
    static READ_POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    static WRITE_POOL: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// An empty write buffer from the pool.
pub(super) fn take_write() -> Vec<u8> {
    WRITE_POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(WRITE_BUFFER_BYTES))
}

/// Gives a write buffer back. One that grew is dropped: its memory was for one large answer.
pub(super) fn give_write(mut bytes: Vec<u8>) {
    bytes.clear();
    if bytes.capacity() == WRITE_BUFFER_BYTES {
        give(&WRITE_POOL, bytes);
    }
}

fn give(pool: &'static std::thread::LocalKey<RefCell<Vec<Vec<u8>>>>, bytes: Vec<u8>) {
    pool.with_borrow_mut(|pool| {
        if pool.len() < BUFFER_POOL_COUNT {
            pool.push(bytes);
        }
    });
}

/// All memory for bodies is in use.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Exhausted;

/// Bytes read and not yet consumed. Dropped, it gives its memory back to the pool or to the budget of bodies.
pub(super) struct ReadBuffer {
    bytes: Vec<u8>,
    /// Where the unconsumed bytes begin.
    start: usize,
    /// What was taken from the budget of bodies.
    charged: usize,
}

impl ReadBuffer {
    /// An empty buffer from the pool.
    pub fn take() -> Self {
        let bytes = READ_POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| Vec::with_capacity(READ_BUFFER_BYTES));
        Self { bytes, start: 0, charged: 0 }
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
        let more = capacity - self.charged;
        BODIES
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_add(more).filter(|&held| held <= BODIES_TOTAL_BYTES_MAX)
            })
            .map_err(|_| Exhausted)?;
        self.charged += more;
        self.bytes.reserve_exact(capacity - self.bytes.len());
        Ok(())
    }

    /// Reads once into the free room. `Ok` gives the number of bytes and whether the socket had no more: a short read
    /// from a stream socket means that it is drained.
    #[allow(unsafe_code, reason = "reading into uninitialized memory saves clearing it for each request")]
    pub fn read_from(&mut self, socket: &Socket) -> io::Result<(usize, bool)> {
        let room = self.bytes.spare_capacity_mut();
        let offered = room.len();
        let count = socket.recv(room)?;
        // SAFETY: recv wrote `count` bytes at the start of the spare capacity (never more than `offered`), so the first
        // `len + count` bytes are initialized and within the capacity.
        unsafe { self.bytes.set_len(self.bytes.len() + count) };
        Ok((count, count < offered))
    }

    #[cfg(test)]
    pub fn with(bytes: &[u8]) -> Self {
        let mut buffer = Self::take();
        buffer.bytes.extend_from_slice(bytes);
        buffer
    }
}

impl Drop for ReadBuffer {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if self.charged > 0 {
            BODIES.fetch_sub(self.charged, Ordering::Relaxed);
        } else if bytes.capacity() == READ_BUFFER_BYTES {
            bytes.clear();
            give(&READ_POOL, bytes);
        }
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
    fn memory_for_bodies_is_bounded_and_given_back() {
        let full = vec![b'x'; READ_BUFFER_BYTES];
        let mut held = Vec::new();
        let before = bodies_bytes();
        let refused = loop {
            let mut buffer = ReadBuffer::with(&full);
            match buffer.grow(8 * 1024 * 1024) {
                Ok(()) => held.push(buffer),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused, Exhausted);
        assert!(bodies_bytes() <= BODIES_TOTAL_BYTES_MAX);
        assert!(held.len() >= BODIES_TOTAL_BYTES_MAX / (2 * READ_BUFFER_BYTES) - 8);
        drop(held);
        assert_eq!(bodies_bytes(), before);
    }
}
