//! Opens a session: name, socket, TLS, log-in, scripts, subscription. Blocking, so for plain threads only; every wait
//! is within one deadline. The open socket then goes to a coroutine (`conn`).

use std::time::Instant;

use ::redis::{Cmd, PushKind, Value};
use rustls::ClientConnection;
use socket2::Socket;

use super::client::Script;
use super::config::{Config, Host};
use super::error::{Error, Result};
use super::wire;
use crate::limits::REDIS_CONNECT_TIMEOUT;
use crate::net::{self, tls};

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
    let net::Opening { socket, tls, unread, .. } = opening.connection;
    Ok(Session { socket, tls, unread })
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
    connection: net::Opening,
}

impl Opening {
    fn reach(config: &Config, deadline: Instant) -> Result<Self> {
        let connection = match &config.host {
            Host::Unix(path) => net::Opening::unix(path, deadline),
            Host::Tcp(host, port) => net::Opening::tcp(host, *port, deadline),
        };
        let mut connection = connection.map_err(Error::unavailable)?;
        if let (Some((verify, roots)), Host::Tcp(host, _)) = (&config.tls, &config.host) {
            let client = tls::client(*verify, roots, host).map_err(Error::config)?;
            connection.start_tls(client).map_err(Error::unavailable)?;
        }
        Ok(Self { connection })
    }

    fn send(&mut self, cmd: &Cmd) -> Result<()> {
        self.connection.send(&cmd.get_packed_command()).map_err(Error::unavailable)
    }

    fn next_value(&mut self) -> Result<Value> {
        loop {
            if let Some((value, used)) = wire::next_value(&self.connection.unread)? {
                self.connection.unread.drain(..used);
                return Ok(value);
            }
            self.connection.read_some().map_err(Error::unavailable)?;
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
