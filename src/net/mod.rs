//! What the clients of PostgreSQL and Redis share: connecting with a deadline, TLS, a socket that never blocks.
//!
//! Knows no protocol. Connecting blocks and belongs on plain threads; [`stream`] belongs in a coroutine.

pub mod stream;
pub mod tls;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use crate::limits;

/// Connects to a unix socket.
///
/// # Errors
/// As the system says; `InvalidInput` for a path that is too long.
pub fn connect_unix(path: &Path, deadline: Instant) -> io::Result<Socket> {
    let address = SockAddr::unix(path).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&address, remaining(deadline)?)?;
    Ok(socket)
}

/// Connects to the first address of `host` that takes the connection. Only the look-up of the name has no deadline.
///
/// # Errors
/// That of the last address.
pub fn connect_tcp(host: &str, port: u16, deadline: Instant) -> io::Result<Socket> {
    let within =
        |what: &dyn std::fmt::Display, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    let addresses = (host, port).to_socket_addrs().map_err(|error| within(&host, error))?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        match connect_address(address, deadline) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = within(&address, error),
        }
    }
    Err(last)
}

fn connect_address(address: SocketAddr, deadline: Instant) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.connect_timeout(&address.into(), remaining(deadline)?)?;
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(limits::SOCKET_KEEPALIVE).with_interval(limits::SOCKET_KEEPALIVE);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(limits::SOCKET_KEEPALIVE))?;
    Ok(socket)
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    let remaining = deadline.saturating_duration_since(Instant::now());
    if remaining.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(remaining) }
}

/// A blocking socket whose every wait ends at the deadline.
pub struct Timed<'a> {
    /// The socket.
    pub socket: &'a Socket,
    /// When to give up.
    pub deadline: Instant,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket.set_read_timeout(Some(remaining(self.deadline)?))?;
        let mut socket = self.socket;
        socket.read(buffer)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.socket.set_write_timeout(Some(remaining(self.deadline)?))?;
        let mut socket = self.socket;
        socket.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
