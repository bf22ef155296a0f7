//! Opens a session: name, socket, TLS, start-up, password. Blocking, so for plain threads only; every wait is within
//! one deadline. The open socket then goes to a coroutine (`conn`).

use std::io;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;
use rustls::ClientConnection;
use socket2::Socket;

use super::config::{Config, Host, SslMode};
use super::error::{Error, Result};
use super::tls;
use super::wire::{self, Body, Fault, Next, tag};
use crate::limits;
use crate::net;

/// What a cancel request needs to name a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CancelKey {
    process: i32,
    secret: i32,
}

/// An open session, ready for the first request.
pub(super) struct Session {
    pub socket: Socket,
    pub tls: Option<Box<ClientConnection>>,
    pub key: Option<CancelKey>,
    /// What the server sent after it was ready.
    pub unread: Vec<u8>,
}

/// Opens a session.
pub(super) fn open(config: &Config) -> Result<Session> {
    let mut opening = Opening::reach(config, Instant::now() + config.connect_timeout)?;
    let mut hello = BytesMut::new();
    let parameters = [
        ("user", config.user.as_str()),
        ("database", &config.database),
        ("application_name", &config.application_name),
        ("client_encoding", "UTF8"),
    ];
    frontend::startup_message(parameters, &mut hello).map_err(|error| Error::config(error.to_string()))?;
    opening.send(&hello)?;
    opening.log_in(config)?;
    let key = opening.await_ready()?;
    let net::Opening { socket, tls, unread, .. } = opening.connection;
    Ok(Session { socket, tls, key, unread })
}

/// Asks the server to cancel what the session is doing. Returns once the server has passed the request on.
pub(super) fn cancel(config: &Config, key: CancelKey, limit: Duration) -> Result<()> {
    let mut opening = Opening::reach(config, Instant::now() + limit)?;
    let mut request = BytesMut::new();
    frontend::cancel_request(key.process, key.secret, &mut request);
    opening.send(&request)?;
    // The server never answers; it closes the connection when it has signaled the session.
    let _ = opening.connection.read_some();
    Ok(())
}

/// A connection that is not a session yet.
struct Opening {
    connection: net::Opening,
    messages: usize,
}

impl Opening {
    /// Connects, with TLS as the settings ask for it.
    fn reach(config: &Config, deadline: Instant) -> Result<Self> {
        let mut opening = Self::plain(config, deadline)?;
        let Host::Tcp(host) = &config.host else { return Ok(opening) };
        if config.ssl_mode == SslMode::Disable {
            return Ok(opening);
        }
        if !opening.offers_tls()? {
            return match config.ssl_mode {
                SslMode::Prefer => Ok(opening),
                _ => Err(Error::config("the server does not offer TLS, which sslmode asks for")),
            };
        }
        let client = tls::client(config.ssl_mode, &config.ssl_root, host)?;
        match opening.connection.start_tls(client) {
            Ok(()) => Ok(opening),
            // As libpq does: preferred is not required.
            Err(_) if config.ssl_mode == SslMode::Prefer => Self::plain(config, deadline),
            Err(why) => Err(Error::unsent(why)),
        }
    }

    fn plain(config: &Config, deadline: Instant) -> Result<Self> {
        let connection = match (&config.host, config.socket_path()) {
            (_, Some(path)) => net::Opening::unix(&path, deadline),
            (Host::Tcp(host), None) => net::Opening::tcp(host, config.port, deadline),
            (Host::Unix(_), None) => return Err(Error::config("a unix socket without a path")),
        };
        Ok(Self { connection: connection.map_err(Error::unsent)?, messages: 0 })
    }

    fn offers_tls(&mut self) -> Result<bool> {
        let mut request = BytesMut::new();
        frontend::ssl_request(&mut request);
        self.send(&request)?;
        // Exactly one byte: whatever follows it in clear must not be taken for a part of the session (CVE-2021-23222).
        match self.connection.read_byte().map_err(Error::unsent)? {
            b'S' => Ok(true),
            b'N' => Ok(false),
            other => Err(Fault::new(format!("the answer to a request for TLS is {:?}", char::from(other))).into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.connection.send(bytes).map_err(Error::unsent)
    }

    /// The next message that matters now. Errors of the server become errors here.
    fn next_message(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            let (tag, body, used) = match wire::next_frame(&self.connection.unread)? {
                Next::Frame(frame, used) => (frame.tag, frame.body.to_vec(), used),
                Next::Needs(_) => {
                    self.connection.read_some().map_err(Error::unsent)?;
                    continue;
                }
            };
            self.connection.unread.drain(..used);
            self.messages += 1;
            if self.messages > limits::PG_STARTUP_MESSAGES_MAX {
                return Err(Fault::new("the session does not begin").into());
            }
            match tag {
                tag::ERROR => return Err(Error::Server(Box::new(wire::read_error(&body)))),
                tag::NOTICE | tag::PARAMETER_STATUS => {}
                _ => return Ok((tag, body)),
            }
        }
    }

    /// The next message of the log-in: its kind, and what it carries.
    fn next_request(&mut self) -> Result<(u32, Vec<u8>)> {
        let (tag, body) = self.next_message()?;
        if tag != tag::AUTHENTICATION {
            return Err(Fault::new(format!("a message of type {:?} during the log-in", char::from(tag))).into());
        }
        let mut body = Body(&body);
        let kind = body.u32()?;
        Ok((kind, body.0.to_vec()))
    }

    fn log_in(&mut self, config: &Config) -> Result<()> {
        let (kind, body) = self.next_request()?;
        let mut answer = BytesMut::new();
        let written = match kind {
            request::OK => return Ok(()),
            request::CLEARTEXT => frontend::password_message(password(config)?, &mut answer),
            request::MD5 => {
                let hash = md5_hash(config.user.as_bytes(), password(config)?, Body(&body).array::<4>()?);
                frontend::password_message(hash.as_bytes(), &mut answer)
            }
            request::SASL => return self.log_in_by_scram(password(config)?, &body),
            _ => return Err(Error::config(format!("the server asks for a way to log in that is not known ({kind})"))),
        };
        written.map_err(|error| Error::config(format!("the password cannot be sent: {error}")))?;
        self.send(&answer)?;
        self.await_welcome()
    }

    fn log_in_by_scram(&mut self, password: &[u8], mechanisms: &[u8]) -> Result<()> {
        if !mechanisms.split(|byte| *byte == 0).any(|name| name == SCRAM_SHA_256.as_bytes()) {
            return Err(Error::config("the server offers no way to log in that is known (SCRAM-SHA-256)"));
        }
        let mut scram = ScramSha256::new(password, ChannelBinding::unsupported());
        let mut answer = BytesMut::new();
        let failed = |error: io::Error| Error::config(format!("SCRAM: {error}"));
        frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), &mut answer).map_err(failed)?;
        self.send(&answer)?;

        let challenge = self.expect_request(request::SASL_CONTINUE)?;
        check_rounds(&challenge)?;
        scram.update(&challenge).map_err(failed)?;
        answer.clear();
        frontend::sasl_response(scram.message(), &mut answer).map_err(failed)?;
        self.send(&answer)?;

        // The server proves that it knows the password too.
        let proof = self.expect_request(request::SASL_FINAL)?;
        scram.finish(&proof).map_err(failed)?;
        self.await_welcome()
    }

    fn await_welcome(&mut self) -> Result<()> {
        self.expect_request(request::OK).map(|_| ())
    }

    fn expect_request(&mut self, wanted: u32) -> Result<Vec<u8>> {
        match self.next_request()? {
            (kind, body) if kind == wanted => Ok(body),
            (kind, _) => Err(Fault::new(format!("log-in step {kind} instead of {wanted}")).into()),
        }
    }

    /// Waits until the session is open; gives what is needed to cancel its statements (some poolers send nothing).
    fn await_ready(&mut self) -> Result<Option<CancelKey>> {
        let mut key = None;
        loop {
            match self.next_message()? {
                (tag::BACKEND_KEY, body) => {
                    let mut body = Body(&body);
                    key = Some(CancelKey { process: body.i32()?, secret: body.i32()? });
                }
                (tag::READY, _) => return Ok(key),
                (other, _) => {
                    let text = format!("a message of type {:?} before the session is open", char::from(other));
                    return Err(Fault::new(text).into());
                }
            }
        }
    }
}

/// Kinds of authentication messages (PostgreSQL manual, 55.7).
mod request {
    pub const OK: u32 = 0;
    pub const CLEARTEXT: u32 = 3;
    pub const MD5: u32 = 5;
    pub const SASL: u32 = 10;
    pub const SASL_CONTINUE: u32 = 11;
    pub const SASL_FINAL: u32 = 12;
}

fn password(config: &Config) -> Result<&[u8]> {
    match &config.password {
        Some(password) => Ok(password.expose()),
        None => Err(Error::config("the server asks for a password, and none is given")),
    }
}

/// A server must not keep this thread hashing for hours.
fn check_rounds(challenge: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(challenge);
    let rounds = text.split(',').find_map(|part| part.strip_prefix("i=")).and_then(|rounds| rounds.parse::<u32>().ok());
    match rounds {
        Some(1..=limits::PG_SCRAM_ROUNDS_MAX) => Ok(()),
        _ => Err(Fault::new("the number of rounds of password hashing is out of bounds").into()),
    }
}
