//! A connection whose session is not open yet: blocking, for plain threads; every wait ends at one deadline.

use std::fmt::Display;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::tls::Result;
use crate::limits;

/// The connection. Its errors are texts for the log.
pub struct Opening {
    /// The socket, blocking.
    pub socket: Socket,
    /// TLS, once it has shaken hands.
    pub tls: Option<Box<ClientConnection>>,
    /// What was read; whoever understands some of it takes it away.
    pub unread: Vec<u8>,
    deadline: Instant,
}

impl Opening {
    /// Connects to a unix socket.
    ///
    /// # Errors
    /// It cannot be reached, or its path is too long.
    pub fn unix(path: &Path, deadline: Instant) -> Result<Self> {
        let socket = connect_unix(path, deadline).map_err(|error| within(&path.display(), &error))?;
        Ok(Self { socket, tls: None, unread: Vec::new(), deadline })
    }

    /// Connects to the first address of `host` that takes the connection. Only the look-up of the name has no deadline.
    ///
    /// # Errors
    /// That of the last address.
    pub fn tcp(host: &str, port: u16, deadline: Instant) -> Result<Self> {
        let addresses = (host, port).to_socket_addrs().map_err(|error| within(&host, &error))?;
        let mut last = format!("{host} has no address");
        for address in addresses {
            match connect_tcp(address, deadline) {
                Ok(socket) => return Ok(Self { socket, tls: None, unread: Vec::new(), deadline }),
                Err(error) => last = within(&address, &error),
            }
        }
        Err(last)
    }

    /// Shakes hands.
    ///
    /// # Errors
    /// The server is not who it should be, does not speak TLS, or does not answer.
    pub fn start_tls(&mut self, mut client: ClientConnection) -> Result<()> {
        let mut timed = Timed { socket: &self.socket, deadline: self.deadline };
        while client.is_handshaking() {
            client.complete_io(&mut timed).map_err(|error| within(&"TLS", &error))?;
        }
        self.tls = Some(Box::new(client));
        Ok(())
    }

    /// Writes all.
    ///
    /// # Errors
    /// The connection is broken, or the deadline has passed.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        let mut timed = Timed { socket: &self.socket, deadline: self.deadline };
        let sent = match &mut self.tls {
            None => timed.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls.as_mut(), &mut timed);
                stream.write_all(bytes).and_then(|()| stream.flush())
            }
        };
        sent.map_err(|error| explain(&error))
    }

    /// Waits for more and adds it to `unread`.
    ///
    /// # Errors
    /// As for [`Opening::send`]; the end of the connection is one.
    pub fn read_some(&mut self) -> Result<()> {
        let mut chunk = [0; 4096];
        let read = self.read(&mut chunk)?;
        self.unread.extend_from_slice(&chunk[..read]);
        Ok(())
    }

    /// Waits for one byte, and leaves what follows it where it is.
    ///
    /// # Errors
    /// As for [`Opening::read_some`].
    pub fn read_byte(&mut self) -> Result<u8> {
        let mut byte = [0];
        self.read(&mut byte)?;
        Ok(byte[0])
    }

    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        let mut timed = Timed { socket: &self.socket, deadline: self.deadline };
        let read = match &mut self.tls {
            None => timed.read(into),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut timed).read(into),
        };
        match read {
            Ok(0) => Err(explain(&io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => Ok(read),
            Err(error) => Err(explain(&error)),
        }
    }
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        // A read that times out says WouldBlock.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            "the server did not answer in time while connecting".to_owned()
        }
        io::ErrorKind::UnexpectedEof => "the server closed the connection while connecting".to_owned(),
        _ => within(&"while connecting", error),
    }
}

fn within(what: &dyn Display, error: &io::Error) -> String {
    format!("{what}: {error}")
}

fn connect_unix(path: &Path, deadline: Instant) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.connect_timeout(&SockAddr::unix(path)?, remaining(deadline)?)?;
    Ok(socket)
}

fn connect_tcp(address: SocketAddr, deadline: Instant) -> io::Result<Socket> {
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
struct Timed<'a> {
    socket: &'a Socket,
    deadline: Instant,
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
