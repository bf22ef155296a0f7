//! Bytes for several sockets, sent with one system call (io_uring(7)).
//!
//! Only what may be sent at once is sent, so nothing is under way between two calls. Kernels before 6.0 have no such ring, and
//! hosts may forbid it (`kernel.io_uring_disabled`, the filter of a container): whoever has none sends socket by socket.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use io_uring::squeue::Entry;
use io_uring::{IoUring, opcode, types};

/// Of one thread, the one that opened it.
pub struct SendRing {
    /// None during a call, and once one has failed: entries may be left in it then whose bytes are gone.
    ring: Option<Box<IoUring>>,
    /// Sends of one call.
    entries: usize,
}

impl SendRing {
    /// A ring for so many sends at once.
    ///
    /// # Errors
    /// This kernel has none, or it is forbidden here.
    pub fn open(entries: usize) -> io::Result<Self> {
        let size = u32::try_from(entries).map_err(|_| io::ErrorKind::InvalidInput)?;
        // One thread alone enters it: the kernel need not lock, nor interrupt that thread.
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(size)?;
        Ok(Self { ring: Some(Box::new(ring)), entries })
    }

    /// Sends each of `sends`, the first ones if there are more than the ring has entries for, as far as its socket takes it at
    /// once. Tells `took` which one's socket took how many bytes, and nothing of one that took none, for whatever reason.
    pub fn send<'a>(
        &mut self,
        sends: impl Iterator<Item = (BorrowedFd<'a>, &'a [u8])>,
        took: impl FnMut(usize, usize),
    ) {
        let Some(mut ring) = self.ring.take() else { return };
        let mut queue = ring.submission();
        for (at, (socket, bytes)) in sends.take(self.entries).enumerate() {
            let entry = entry(socket, bytes).user_data(at as u64);
            #[allow(unsafe_code, reason = "the kernel reads what an entry points to")]
            // SAFETY: bytes and socket are borrowed until this returns; by then all entries that were submitted have ended, and
            // a ring with others in it is closed, also by a panic.
            let pushed = unsafe { queue.push(&entry) };
            debug_assert!(pushed.is_ok(), "no entry is left of the last call");
        }
        drop(queue);
        match submit(&mut ring, took) {
            Ok(()) => self.ring = Some(ring),
            Err(error) => {
                tracing::warn!(%error, "answers are sent one by one from now on: the kernel did not send several at once");
            }
        }
    }
}

fn entry(socket: BorrowedFd<'_>, bytes: &[u8]) -> Entry {
    // Of what is too long for one send a part is sent, as of what is too long for the socket.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let send = opcode::Send::new(types::Fd(socket.as_raw_fd()), bytes.as_ptr(), length);
    send.flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL).build()
}

/// Has the kernel do what is in the queue, and comes back when all of it that it has accepted is done.
///
/// # Errors
/// It has not accepted all: the rest stays in the queue.
fn submit(ring: &mut IoUring, mut took: impl FnMut(usize, usize)) -> io::Result<()> {
    let submitted = ring.submit();
    let mut under_way = *submitted.as_ref().unwrap_or(&0);
    loop {
        for ended in ring.completion() {
            under_way -= 1;
            if let Ok(count) = usize::try_from(ended.result()) {
                took(ended.user_data() as usize, count);
            }
        }
        if under_way == 0 {
            break;
        }
        under_way += wait_for_end(ring);
    }
    submitted?;
    if ring.submission().is_empty() { Ok(()) } else { Err(io::ErrorKind::OutOfMemory.into()) }
}

/// A send that must not wait has ended once it is submitted. Should a kernel do otherwise, the bytes are its own until it
/// says so, and nobody may go on before that. Returns how many it has accepted meanwhile.
#[cold]
fn wait_for_end(ring: &IoUring) -> usize {
    match ring.submit_and_wait(1) {
        Ok(submitted) => submitted,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
        Err(_) => std::process::abort(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    const ENTRIES: usize = 4;

    /// What each socket took; `None` where the kernel has no ring for us.
    fn taken(sends: &[(&UnixStream, &[u8])]) -> Option<Vec<usize>> {
        let mut ring = SendRing::open(ENTRIES).ok()?;
        let mut taken = vec![0; sends.len()];
        let sends = sends.iter().map(|(socket, bytes)| (socket.as_fd(), *bytes));
        ring.send(sends, |at, count| taken[at] += count);
        assert!(ring.ring.is_some(), "the kernel did not accept them");
        Some(taken)
    }

    #[test]
    fn each_socket_gets_its_bytes() {
        let (one, mut far_one) = UnixStream::pair().unwrap();
        let (two, mut far_two) = UnixStream::pair().unwrap();
        let Some(taken) = taken(&[(&one, b"a"), (&two, b"bc"), (&one, b"d")]) else {
            return eprintln!("not tried: no ring here");
        };
        assert_eq!(taken, [1, 2, 1]);
        let mut bytes = [0; 2];
        far_one.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"ad");
        far_two.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"bc");
    }

    #[test]
    fn what_a_socket_does_not_take_is_not_waited_for() {
        // Both ends would block: the ring does not depend on how the socket is set.
        let (full, _far_full) = UnixStream::pair().unwrap();
        let (gone, far_gone) = UnixStream::pair().unwrap();
        let (sound, _far_sound) = UnixStream::pair().unwrap();
        drop(far_gone);
        let much = vec![0; 4 * 1024 * 1024];
        let Some(taken) = taken(&[(&full, &much), (&gone, b"x"), (&full, b"x"), (&sound, b"x")]) else {
            return eprintln!("not tried: no ring here");
        };
        assert!((1..much.len()).contains(&taken[0]), "{taken:?}");
        assert_eq!(taken[1..], [0, 0, 1]);
    }

    #[test]
    fn no_more_is_sent_than_there_are_entries() {
        let (socket, _far) = UnixStream::pair().unwrap();
        let Some(taken) = taken(&[(&socket, &b"x"[..]); ENTRIES + 1]) else {
            return eprintln!("not tried: no ring here");
        };
        assert_eq!(taken, [1, 1, 1, 1, 0]);
    }

    #[test]
    fn a_ring_that_fails_sends_nothing_any_more() {
        // The kernel refuses it to any thread but the one that opened it.
        let Ok(mut ring) = std::thread::spawn(|| SendRing::open(ENTRIES)).join().unwrap() else {
            return eprintln!("not tried: no ring here");
        };
        let (socket, mut far) = UnixStream::pair().unwrap();
        for _ in 0..2 {
            ring.send([(socket.as_fd(), &b"x"[..])].into_iter(), |at, count| panic!("{at} took {count}"));
            assert!(ring.ring.is_none());
        }
        drop(socket);
        assert_eq!(far.read(&mut [0]).unwrap(), 0);
    }
}
