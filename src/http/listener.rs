//! Listening sockets, TCP and unix alike, and the accept loop.

use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use may::io::{CoIo, WaitIo, WaitIoWaker};
use socket2::{Domain, SockAddr, Socket, Type};

use super::conn;
use super::head::Method;
use super::response::Refusal;
use super::server::{Service, Shared};
use crate::limits::{ACCEPT_BACKOFF, ACCEPT_BATCH, CONNECTION_STACK_WORDS, LISTEN_BACKLOG};
use crate::runtime::{self, Empty, Filler, Slot};

/// Where to listen: `host:port` or `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; the host may be a name.
    Tcp(String),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') {
                Ok(Self::Unix(path.into()))
            } else {
                Err(format!("'{text}': a unix socket needs an absolute path, as in unix:/run/snip.sock"))
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Self::Tcp(text.to_owned())),
            _ => Err(format!("'{text}' is neither host:port nor unix:/path")),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Why an address can't be listened on.
#[derive(Debug)]
pub struct BindError {
    address: ListenAddress,
    source: io::Error,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, source } = self;
        match source.kind() {
            io::ErrorKind::AddrInUse => {
                write!(f, "cannot listen on {address}: it is in use; stop the other program or choose another --listen")
            }
            io::ErrorKind::PermissionDenied => write!(f, "cannot listen on {address}: permission denied"),
            _ => write!(f, "cannot listen on {address}: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

/// A socket that listens, not yet served.
#[derive(Debug)]
pub struct Bound {
    socket: Socket,
    address: ListenAddress,
}

impl Bound {
    /// Binds and listens. Port 0 takes a free port.
    pub fn bind(address: &ListenAddress) -> Result<Self, BindError> {
        let bound = match address {
            ListenAddress::Tcp(text) => bind_tcp(text),
            ListenAddress::Unix(path) => bind_unix(path),
        };
        bound.map_err(|source| BindError { address: address.clone(), source })
    }

    /// Where it listens, with the port that port 0 became.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// The TCP address, if it is one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }
}

fn bind_tcp(text: &str) -> io::Result<Bound> {
    let address = text.to_socket_addrs()?.next().ok_or_else(|| io::Error::other("the host name has no address"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec().nonblocking(), None)?;
    // Not SO_REUSEPORT: a second process on the same port must be told so.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?; // accepted sockets inherit it
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    let address = socket.local_addr()?.as_socket().unwrap_or(address);
    Ok(Bound { socket, address: ListenAddress::Tcp(address.to_string()) })
}

fn bind_unix(path: &Path) -> io::Result<Bound> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    let address = SockAddr::unix(path)?;
    remove_stale(path, &address)?;
    socket.bind(&address)?;
    // The proxy runs as another user. Who may reach the folder may connect, as with a loopback port.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    socket.listen(LISTEN_BACKLOG)?;
    Ok(Bound { socket, address: ListenAddress::Unix(path.to_owned()) })
}

/// A socket file that nobody listens on is left over from a process that was killed.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => {
            match Socket::new(Domain::UNIX, Type::STREAM.cloexec(), None)?.connect(address) {
                Ok(()) => Err(io::ErrorKind::AddrInUse.into()),
                Err(_) => fs::remove_file(path),
            }
        }
        Ok(_) => Err(io::Error::other("a file that is no socket is in the way")),
        Err(_) => Ok(()),
    }
}

/// An address that is being served.
pub(super) struct Listening {
    waker: WaitIoWaker,
    closed: Slot<()>,
}

impl Listening {
    /// Makes the accept loop look whether it is to end.
    pub fn wake(&self) {
        self.waker.wakeup();
    }

    /// Waits until the socket is closed.
    pub fn wait_closed(self, limit: Duration) -> bool {
        // The accept loop fills nothing: it drops the other side when it ends.
        self.closed.wait(limit) != Err(Empty::TimedOut)
    }
}

/// Serves a bound socket on a coroutine of its own.
pub(super) fn listen<S: Service>(bound: Bound, shared: Arc<Shared<S>>) -> io::Result<Listening> {
    let Bound { socket, address } = bound;
    let io = CoIo::new(socket).map_err(io::Error::from)?;
    let waker = io.waker();
    let (closed, filler) = runtime::slot();
    runtime::spawn(CONNECTION_STACK_WORDS, move || accept_loop(&io, &address, &shared, filler))?;
    Ok(Listening { waker, closed })
}

fn accept_loop<S: Service>(io: &CoIo<Socket>, address: &ListenAddress, shared: &Arc<Shared<S>>, _closed: Filler<()>) {
    loop {
        match accept_batch(io, shared) {
            // Connections that the kernel had accepted already are served before the socket closes.
            Pause::Empty if shared.is_draining() => break,
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
    if let ListenAddress::Unix(path) = address {
        // It may be gone, or another process's by now; either way there is nothing to be done.
        let _ = fs::remove_file(path);
    }
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
            Ok((socket, peer)) => admit(socket, peer.as_socket(), shared),
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

fn admit<S: Service>(socket: Socket, peer: Option<SocketAddr>, shared: &Arc<Shared<S>>) {
    let Some(admitted) = shared.admit() else {
        refuse(&socket);
        return;
    };
    let is_extra = shared.is_over_limit();
    let spawned = runtime::spawn_here(CONNECTION_STACK_WORDS, move || {
        let reason = conn::serve(socket, peer, &admitted, is_extra);
        admitted.stats.count_close(reason);
    });
    if spawned.is_err() {
        shared.stats.accept_errors.fetch_add(1, Ordering::Relaxed);
    }
}

/// A fresh socket has room for this answer; should it not, the client sees the connection closed.
fn refuse(socket: &Socket) {
    let mut answer = Vec::with_capacity(256);
    Refusal::OVERLOADED.write(&mut answer, Method::Get);
    if socket.set_nonblocking(true).is_ok() {
        let _ = socket.send(&answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |text: &str| assert_eq!(text.parse(), Ok(ListenAddress::Tcp(text.into())));
        tcp("127.0.0.1:8080");
        tcp("localhost:0");
        tcp("[::1]:80");
        assert_eq!("unix:/run/s.sock".parse(), Ok(ListenAddress::Unix("/run/s.sock".into())));
        for bad in ["", "8080", ":8080", "host:", "host:99999", "unix:relative"] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_taken_port_is_told() {
        let first = Bound::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Bound::bind(first.address()).unwrap_err().to_string();
        assert!(error.contains("is in use"), "{error}");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = ListenAddress::Unix(folder.path().join("s"));
        let first = Bound::bind(&address).unwrap();
        assert!(Bound::bind(&address).unwrap_err().to_string().contains("is in use"));
        drop(first);
        Bound::bind(&address).unwrap();
        let file = ListenAddress::Unix(folder.path().join("f"));
        fs::write(folder.path().join("f"), "x").unwrap();
        assert!(Bound::bind(&file).unwrap_err().to_string().contains("in the way"));
    }
}
