//! A socket that never blocks, with or without TLS, and what its edges said.
//!
//! `may` reports each edge once: a socket that became readable while its coroutine waited to write stays readable
//! without being reported again. So what was seen is kept here, and only a system call that would block unsets it.

use std::io::{self, Read, Write};

use rustls::ClientConnection;
use socket2::Socket;

/// Events as epoll reports them (epoll_ctl(2)).
mod event {
    pub const IN: usize = 0x1;
    pub const OUT: usize = 0x4;
    pub const ERR: usize = 0x8;
    pub const HUP: usize = 0x10;
    pub const RDHUP: usize = 0x2000;
}

/// The coroutine's side of a connection, beside the socket itself.
pub struct Stream {
    tls: Option<Box<ClientConnection>>,
    readable: bool,
    writable: bool,
    /// The peer has closed: no further edge will come, so read to the very end.
    hung_up: bool,
}

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes, more than none.
    Bytes(usize),
    /// Nothing for now.
    Nothing,
    /// The end.
    End,
}

impl Stream {
    /// A fresh connection; `tls` has shaken hands already.
    pub fn new(tls: Option<Box<ClientConnection>>) -> Self {
        Self { tls, readable: true, writable: true, hung_up: false }
    }

    /// Takes in what a wait reported.
    pub fn note(&mut self, flags: usize) {
        self.readable |= flags & (event::IN | event::ERR | event::HUP | event::RDHUP) != 0;
        self.writable |= flags & (event::OUT | event::ERR | event::HUP) != 0;
        self.hung_up |= flags & (event::ERR | event::HUP | event::RDHUP) != 0;
    }

    /// Whether the socket may take bytes.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// Whether TLS holds bytes that the socket has not taken.
    pub fn holds_output(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Writes what can be written; gives the number of bytes that were taken over, none while the socket takes none.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn write(&mut self, socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
        while self.writable {
            let taken = match &mut self.tls {
                None => write_plain(socket, bytes),
                Some(tls) => write_tls(tls, socket, bytes),
            };
            match taken {
                Ok(taken) => return Ok(taken),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(0)
    }

    /// Reads what there is, up to the length of `into`.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self, socket: &Socket, into: &mut [u8]) -> io::Result<Got> {
        loop {
            let read = match &mut self.tls {
                None => self.read_plain(socket, into),
                Some(_) => self.read_tls(socket, into),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    return Ok(Got::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn read_plain(&mut self, mut socket: &Socket, into: &mut [u8]) -> io::Result<Got> {
        if !self.readable {
            return Ok(Got::Nothing);
        }
        let read = socket.read(into)?;
        // Less than was asked for: the socket is drained (epoll(7)), unless the end of the stream follows.
        self.readable = read == into.len() || self.hung_up;
        Ok(if read == 0 { Got::End } else { Got::Bytes(read) })
    }

    fn read_tls(&mut self, mut socket: &Socket, into: &mut [u8]) -> io::Result<Got> {
        loop {
            let Some(tls) = &mut self.tls else { return Ok(Got::End) };
            match tls.reader().read(into) {
                Ok(0) => return Ok(Got::End),
                Ok(read) => return Ok(Got::Bytes(read)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            if !self.readable {
                return Ok(Got::Nothing);
            }
            if tls.read_tls(&mut socket)? == 0 {
                return Ok(Got::End);
            }
            tls.process_new_packets().map_err(|error| io::Error::other(format!("TLS: {error}")))?;
        }
    }
}

/// Writes what a socket without TLS takes.
fn write_plain(mut socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    socket.write(bytes)
}

/// Encrypts what TLS has room for and writes what it has encrypted; gives the number of bytes that TLS took.
fn write_tls(tls: &mut ClientConnection, mut socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    let taken = if bytes.is_empty() { 0 } else { tls.writer().write(bytes)? };
    match tls.write_tls(&mut socket) {
        Ok(_) => Ok(taken),
        // The bytes are TLS's now; the rest of what it holds goes out when the socket takes more.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => Ok(taken),
        Err(error) => Err(error),
    }
}
