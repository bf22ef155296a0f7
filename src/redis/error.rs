//! Why a command gave no value.

use std::fmt;
use std::sync::Arc;

/// The result of a command.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Texts are for the log, never for a client; no variant carries a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A bound of the queue was reached (`limits::REDIS_*`). Nothing was sent.
    Busy,
    /// The circuit breaker is open: the server has failed lately and is not asked. Nothing was sent.
    Open,
    /// There is no connection, or it broke. What was sent may have been carried out.
    Unavailable(Arc<str>),
    /// No answer within the deadline. The command may still be carried out.
    TimedOut,
    /// The server refused: the code (`OOM`, `WRONGTYPE`, …) and its text.
    Server {
        /// First word of the reply.
        code: Arc<str>,
        /// The rest.
        text: Arc<str>,
    },
    /// The peer does not speak the protocol as documented; the connection was closed.
    Protocol(Arc<str>),
    /// The URL, or what it refers to, is not usable.
    Config(Arc<str>),
}

impl Error {
    /// Whether the server answered, if only to refuse.
    pub fn is_answer(&self) -> bool {
        matches!(self, Self::Server { .. })
    }

    pub(super) fn unavailable(why: impl Into<String>) -> Self {
        Self::Unavailable(why.into().into())
    }

    pub(super) fn protocol(why: impl Into<String>) -> Self {
        Self::Protocol(why.into().into())
    }

    pub(super) fn config(why: impl Into<String>) -> Self {
        Self::Config(why.into().into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the queue to Redis is full"),
            Self::Open => f.write_str("Redis has failed lately and is left alone for a moment"),
            Self::Unavailable(why) => write!(f, "Redis is unavailable: {why}"),
            Self::TimedOut => f.write_str("Redis did not answer within the deadline"),
            Self::Server { code, text } => write!(f, "Redis refused: {code} {text}"),
            Self::Protocol(why) => write!(f, "Redis's answer is not understood: {why}"),
            Self::Config(why) => write!(f, "the Redis settings are not usable: {why}"),
        }
    }
}

impl std::error::Error for Error {}
