//! Which events of a socket wake the coroutine that waits for it.
//!
//! `may` asks the kernel for all of them. A unix socket then tells that it takes more bytes each time the other end has
//! read some: a server behind Nginx is woken twice for each request, the second time for nothing, and on one core that
//! takes the core from Nginx in the middle of its work (`docs/performance.md` has the figures). `may` has no call to ask for
//! less, so what it has registered is changed in its own epoll. Whether that holds what is expected is looked at once, when
//! the runtime starts; if it does not, all stays as `may` has it.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use may::io::{AsIoData, CoIo};
use rustix::event::epoll::{self, EventData, EventFlags};

/// What a coroutine waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Bytes to read, or the end of the connection.
    Reads,
    /// These, and room for more bytes to write: what a fresh [`CoIo`] waits for.
    All,
}

/// The epoll of `may`.
static EPOLL: OnceLock<Option<BorrowedFd<'static>>> = OnceLock::new();

/// Looks for the epoll of `may`, whose worker must be there. Further calls do nothing.
pub(super) fn find_epoll() {
    EPOLL.get_or_init(found);
}

/// Has `socket` wake its coroutine for these events alone. An event that is there already wakes it too, so that none is
/// missed.
pub fn set<S: AsFd + AsRawFd>(socket: &CoIo<S>, interest: Interest) -> std::io::Result<()> {
    let Some(Some(epoll)) = EPOLL.get() else { return Ok(()) };
    let events = EventFlags::IN | EventFlags::RDHUP | EventFlags::ET;
    let events = if interest == Interest::All { events | EventFlags::OUT } else { events };
    Ok(epoll::modify(epoll, socket.inner(), EventData::new_u64(mark(socket)), events)?)
}

/// What `may` has the kernel return with an event of this socket: the address of what it keeps of it.
fn mark<S: AsRawFd>(socket: &CoIo<S>) -> u64 {
    Arc::as_ptr(socket.as_io_data()) as u64
}

/// The one of this process's epolls that holds a fresh socket of `may` under the mark that is expected.
fn found() -> Option<BorrowedFd<'static>> {
    let (end, _other_end) = UnixStream::pair().ok()?;
    let socket = CoIo::new(end).ok()?;
    let descriptors = fs::read_dir("/proc/self/fd").ok()?.flatten();
    let mut numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let number = numbers.find(|&number| holds(number, socket.as_raw_fd(), mark(&socket)))?;
    #[allow(unsafe_code, reason = "may does not lend its epoll")]
    // SAFETY: it is open, since the kernel has just told what is in it, and `may` keeps it open as long as the process
    // lives: its scheduler is never dropped.
    Some(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Whether this descriptor is an epoll that holds `socket` under this mark (proc(5), "fdinfo").
fn holds(descriptor: RawFd, socket: RawFd, mark: u64) -> bool {
    let told = fs::read_to_string(format!("/proc/self/fdinfo/{descriptor}")).unwrap_or_default();
    told.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ["tfd:", number, "events:", _, "data:", data, ..] = words[..] else { return false };
        number.parse() == Ok(socket) && u64::from_str_radix(data, 16) == Ok(mark)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::time::Duration;

    use may::io::WaitIo;

    use super::*;
    use crate::limits::CONNECTION_STACK_WORDS;
    use crate::runtime;

    /// The flags that end the wait for `interest` when the other end has read, and then written.
    fn woken_by(interest: Interest) -> usize {
        runtime::init();
        let (end, mut other_end) = UnixStream::pair().unwrap();
        let (slot, filler) = runtime::slot();
        let (waiting, is_waiting) = std::sync::mpsc::channel();
        runtime::spawn(CONNECTION_STACK_WORDS, move || {
            let mut socket = CoIo::new(end).unwrap();
            set(&socket, interest).unwrap();
            if interest == Interest::All {
                socket.wait_io(); // there is room at the start
            }
            socket.write_all(b"x").unwrap();
            waiting.send(()).unwrap();
            let flags = socket.wait_io();
            filler.fill((flags, socket)); // open until the other end has written
        })
        .unwrap();
        is_waiting.recv_timeout(Duration::from_secs(10)).unwrap();
        other_end.read_exact(&mut [0]).unwrap();
        other_end.write_all(b"y").unwrap();
        let (flags, _socket) = slot.wait(Duration::from_secs(10)).unwrap();
        flags
    }

    #[test]
    fn room_to_write_wakes_only_who_waits_for_it() {
        let (reads, writes) = (libc::EPOLLIN as usize, libc::EPOLLOUT as usize);
        assert_ne!(woken_by(Interest::All) & writes, 0);
        let flags = woken_by(Interest::Reads);
        assert_eq!((flags & reads, flags & writes), (reads, 0), "{flags:#x}");
    }
}
