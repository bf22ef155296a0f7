//! Opens a session: name, socket, TLS, log-in, scripts, subscription. Blocking, so for plain threads only; every wait is
//! within one deadline. The open socket then goes to a coroutine (`conn`).

use std::io::{self, Read, Write};
use std::time::Instant;

use ::redis::{Cmd, PushKind, Value};
use rustls::ClientConnection;
use socket2::Socket;

use super::client::Script;
use super::config::{Config, Host};
use super::error::{Error, Result};
use super::wire;
use crate::limits::REDIS_CONNECT_TIMEOUT;
use crate::net::{self, Timed, tls};

/// An open session, ready for the first request.
pub(super) struct Session {
    pub socket: Socket,
    pub tls: Option<Box<ClientConnection>>,
    /// What the server sent after it was ready.
    pub unread: Vec<u8>,
}

/// Opens a session with the scripts loaded and the channel subscribed to.
pub(super) fn open(config: &Config, scripts: &[&'static Script], channel: &str) -> Result<Session> {
    let deadline = Instant::now() + REDIS_CONNECT_TIMEOUT;
    let mut opening = Opening::reach(config, deadline)?;
    opening.ask(&hello(config)).map_err(explain)?;
    if config.database != 0 {
        opening.ask(Cmd::new().arg("SELECT").arg(config.database))?;
    }
    for script in scripts {
        match opening.ask(Cmd::new().arg("SCRIPT").arg("LOAD").arg(script.text))? {
            Value::BulkString(hash) => script.learn(&hash),
            other => return Err(Error::protocol(format!("the answer to SCRIPT LOAD is {other:?}"))),
        }
    }
    opening.send(Cmd::new().arg("SUBSCRIBE").arg(channel))?;
    opening.await_subscription()?;
    opening.socket.set_nonblocking(true).map_err(|error| unreachable(&error))?;
    Ok(Session { socket: opening.socket, tls: opening.tls, unread: opening.buffer })
}

fn hello(config: &Config) -> Cmd {
    let mut hello = Cmd::new();
    hello.arg("HELLO").arg(3);
    if let Some(password) = &config.password {
        hello.arg("AUTH").arg(config.user.as_deref().unwrap_or("default")).arg(password);
    }
    hello.arg("SETNAME").arg("snip");
    hello
}

fn explain(error: Error) -> Error {
    match &error {
        Error::Server { code, .. } if matches!(&**code, "NOPROTO" | "ERR") => {
            Error::config(format!("the server does not speak RESP3, as Redis 6 and newer do ({error})"))
        }
        _ => error,
    }
}

/// A connection that is not a session yet.
struct Opening {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
    deadline: Instant,
    buffer: Vec<u8>,
}

impl Opening {
    fn reach(config: &Config, deadline: Instant) -> Result<Self> {
        let socket = match &config.host {
            Host::Unix(path) => net::connect_unix(path, deadline)
                .map_err(|error| Error::unavailable(format!("{}: {error}", path.display())))?,
            Host::Tcp(host, port) => {
                net::connect_tcp(host, *port, deadline).map_err(|error| Error::unavailable(error.to_string()))?
            }
        };
        let mut opening = Self { socket, tls: None, deadline, buffer: Vec::new() };
        if let (Some((verify, roots)), Host::Tcp(host, _)) = (&config.tls, &config.host) {
            opening.start_tls(tls::client(*verify, roots, host).map_err(Error::config)?)?;
        }
        Ok(opening)
    }

    fn start_tls(&mut self, mut client: ClientConnection) -> Result<()> {
        let mut timed = Timed { socket: &self.socket, deadline: self.deadline };
        while client.is_handshaking() {
            client.complete_io(&mut timed).map_err(|error| Error::unavailable(format!("TLS: {error}")))?;
        }
        self.tls = Some(Box::new(client));
        Ok(())
    }

    fn send(&mut self, cmd: &Cmd) -> Result<()> {
        let mut bytes = Vec::new();
        cmd.write_packed_command(&mut bytes);
        let mut timed = Timed { socket: &self.socket, deadline: self.deadline };
        let sent = match &mut self.tls {
            None => timed.write_all(&bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls.as_mut(), &mut timed);
                stream.write_all(&bytes).and_then(|()| stream.flush())
            }
        };
        sent.map_err(|error| unreachable(&error))
    }

    fn read_some(&mut self) -> Result<()> {
        let mut timed = Timed { socket: &self.socket, deadline: self.deadline };
        let mut chunk = [0; 4096];
        let read = match &mut self.tls {
            None => timed.read(&mut chunk),
            Some(tls) => rustls::Stream::new(tls.as_mut(), &mut timed).read(&mut chunk),
        };
        match read.map_err(|error| unreachable(&error))? {
            0 => Err(Error::unavailable("the server closed the connection")),
            read => {
                self.buffer.extend_from_slice(&chunk[..read]);
                Ok(())
            }
        }
    }

    fn next_value(&mut self) -> Result<Value> {
        loop {
            if let Some((value, used)) = wire::next_value(&self.buffer)? {
                self.buffer.drain(..used);
                return Ok(value);
            }
            self.read_some()?;
        }
    }

    fn ask(&mut self, cmd: &Cmd) -> Result<Value> {
        self.send(cmd)?;
        refuse_errors(self.next_value()?)
    }

    fn await_subscription(&mut self) -> Result<()> {
        match refuse_errors(self.next_value()?)? {
            Value::Push { kind: PushKind::Subscribe, .. } => Ok(()),
            other => Err(Error::protocol(format!("the answer to SUBSCRIBE is {other:?}"))),
        }
    }
}

/// Makes an error of a reply that is one.
pub(super) fn refuse_errors(value: Value) -> Result<Value> {
    match value {
        Value::ServerError(error) => {
            Err(Error::Server { code: error.code().into(), text: error.details().unwrap_or_default().into() })
        }
        value => Ok(value),
    }
}

fn unreachable(error: &io::Error) -> Error {
    match error.kind() {
        // A read that times out says WouldBlock.
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            Error::unavailable("the server did not answer in time while connecting")
        }
        _ => Error::unavailable(format!("while connecting: {error}")),
    }
}
