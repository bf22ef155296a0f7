//! The accept loop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use may::io::{CoIo, WaitIo, WaitIoWaker};
use socket2::Socket;

use super::bound::Hold;
use super::conn;
use super::head::Method;
use super::response::Refusal;
use super::server::{Service, Shared};
use crate::limits::{ACCEPT_BACKOFF, ACCEPT_BATCH, CONNECTION_STACK_WORDS};
use crate::runtime::{self, Empty, Filler, Slot};

/// An address that is being served.
pub(super) struct Listening {
    waker: WaitIoWaker,
    closed: Slot<()>,
    is_to_close: Arc<AtomicBool>,
    /// How long the socket still listens once the server drains.
    pub linger: Duration,
    /// Whether somebody else keeps the socket open, so that no connection is lost by closing it here.
    pub is_inherited: bool,
}

impl Listening {
    /// Makes the accept loop look whether the server drains.
    pub fn wake(&self) {
        self.waker.wakeup();
    }

    /// Has the socket closed once all who came are accepted.
    pub fn close(&self) {
        self.is_to_close.store(true, Ordering::Relaxed);
        self.waker.wakeup();
    }

    /// Waits until the socket is closed.
    pub fn wait_closed(self, limit: Duration) -> bool {
        // The accept loop fills nothing: it drops the other side when it ends.
        self.closed.wait(limit) != Err(Empty::TimedOut)
    }
}

/// Serves a socket that listens on a coroutine of its own.
pub(super) fn listen<S: Service>(socket: Socket, hold: Hold, shared: Arc<Shared<S>>) -> io::Result<Listening> {
    let io = CoIo::new(socket).map_err(io::Error::from)?;
    let is_to_close = Arc::new(AtomicBool::new(false));
    let (closed, filler) = runtime::slot();
    let listening = Listening {
        waker: io.waker(),
        closed,
        is_to_close: Arc::clone(&is_to_close),
        linger: hold.linger(),
        is_inherited: hold.is_inherited(),
    };
    runtime::spawn(CONNECTION_STACK_WORDS, move || accept_loop(io, &hold, &shared, &is_to_close, filler))?;
    Ok(listening)
}

fn accept_loop<S: Service>(
    io: CoIo<Socket>,
    hold: &Hold,
    shared: &Arc<Shared<S>>,
    is_to_close: &AtomicBool,
    _closed: Filler<()>,
) {
    let mut is_withdrawn = false;
    loop {
        if shared.is_draining() && !is_withdrawn {
            hold.withdraw(io.inner());
            is_withdrawn = true;
        }
        // Looked at first: who came before is accepted before the socket closes.
        let is_last = is_to_close.load(Ordering::Relaxed);
        match accept_batch(&io, shared) {
            Pause::Empty if is_last => break,
            Pause::Empty => {
                io.wait_io();
            }
            Pause::BatchOver => runtime::yield_to_reactor(),
            Pause::Exhausted => {
                shared.stats.accept_errors.fetch_add(1, Ordering::Relaxed);
                runtime::pause(ACCEPT_BACKOFF);
            }
        }
    }
    // Out of epoll before it closes. A socket that another process holds too stays in epoll beyond the close, with a
    // pointer to what `may` has freed by then: the next connection would crash this process.
    drop(io.into_inner());
}

/// Why the accept loop stops for a moment.
enum Pause {
    /// Nobody waits to be accepted.
    Empty,
    /// Others must have their turn.
    BatchOver,
    /// No descriptors or no memory: trying again at once would spin.
    Exhausted,
}

fn accept_batch<S: Service>(io: &CoIo<Socket>, shared: &Arc<Shared<S>>) -> Pause {
    for _ in 0..ACCEPT_BATCH {
        match io.inner().accept() {
            Ok((socket, peer)) => {
                if !admit(socket, peer.as_socket(), shared) {
                    return Pause::Exhausted;
                }
            }
            Err(error) => match error.raw_os_error() {
                Some(libc::EAGAIN) => return Pause::Empty,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => return Pause::Exhausted,
                // The client is gone already, or a signal came: on to the next (accept(2), "Error handling").
                _ => {}
            },
        }
    }
    Pause::BatchOver
}

/// False when there is no memory for another connection's coroutine; this one is closed then.
fn admit<S: Service>(socket: Socket, peer: Option<SocketAddr>, shared: &Arc<Shared<S>>) -> bool {
    let Some(admitted) = shared.admit() else {
        refuse(&socket);
        return true;
    };
    let is_extra = shared.is_over_limit();
    let spawned = runtime::spawn_here(CONNECTION_STACK_WORDS, move || {
        let reason = conn::serve(socket, peer, &admitted, is_extra);
        admitted.stats.count_close(reason);
    });
    spawned.is_ok()
}

/// A fresh socket has room for this answer; should it not, the client sees the connection closed.
fn refuse(socket: &Socket) {
    let mut answer = Vec::with_capacity(256);
    Refusal::OVERLOADED.write(&mut answer, Method::Get);
    if socket.set_nonblocking(true).is_ok() {
        let _ = socket.send(&answer);
    }
}
