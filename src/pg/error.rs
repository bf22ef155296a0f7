//! Why a query gave no rows, in the terms that a caller needs to decide what to do.

use std::fmt;
use std::sync::Arc;

/// The result of a call to the database.
pub type Result<T> = std::result::Result<T, Error>;

/// What went wrong. Texts are for the log, never for a client; no variant carries a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// A bound of the queue was reached (`limits::PG_*`). Nothing was sent; the caller may try again later.
    Busy,
    /// There is no connection, or it broke.
    Unavailable {
        /// Whether the server may have carried the request out. If `false`, it surely did not.
        maybe_sent: bool,
        /// What broke.
        why: Arc<str>,
    },
    /// No answer within the deadline. The server was asked to cancel; a write may or may not have been done.
    TimedOut,
    /// The server refused. The batch was rolled back as a whole.
    Server(Box<ServerError>),
    /// The peer does not speak the protocol as documented; the connection was closed.
    Protocol(Arc<str>),
    /// The connection string, or what it refers to, is not usable.
    Config(Arc<str>),
    /// The program asked for something impossible: a wrong number or type of parameters or columns, a request over
    /// its bound. Nothing was sent, or the rows are there and only the reading of them failed.
    Usage(Arc<str>),
}

/// An error as the server reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerError {
    /// `ERROR`, `FATAL` or `PANIC`, not translated.
    pub severity: String,
    /// Five characters (appendix A of the PostgreSQL manual), such as `23505`.
    pub sqlstate: String,
    /// The primary message.
    pub message: String,
    /// More on it; may hold users' data.
    pub detail: Option<String>,
    /// The violated constraint.
    pub constraint: Option<String>,
    /// The table that the constraint or column belongs to.
    pub table: Option<String>,
}

/// SQLSTATE of a statement that ended because of a cancel request.
pub(super) const QUERY_CANCELED: &str = "57014";
/// SQLSTATE of a prepared statement that the session does not know (any more).
const INVALID_STATEMENT_NAME: &str = "26000";
/// SQLSTATE of a cached plan whose result type changed, among other things.
const FEATURE_NOT_SUPPORTED: &str = "0A000";

impl ServerError {
    /// Whether the session is over with this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity.as_str(), "FATAL" | "PANIC")
    }

    /// Whether preparing the statement anew may help: the session forgot it, or a table under it changed.
    pub(super) fn wants_prepare(&self) -> bool {
        self.sqlstate == INVALID_STATEMENT_NAME || self.sqlstate == FEATURE_NOT_SUPPORTED
    }
}

impl Error {
    /// The SQLSTATE, if it was the server that refused.
    pub fn sqlstate(&self) -> Option<&str> {
        match self {
            Self::Server(error) => Some(&error.sqlstate),
            _ => None,
        }
    }

    /// The violated constraint's name, if that was the reason.
    pub fn constraint(&self) -> Option<&str> {
        match self {
            Self::Server(error) => error.constraint.as_deref(),
            _ => None,
        }
    }

    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into().into())
    }

    pub(super) fn config(text: impl Into<String>) -> Self {
        Self::Config(text.into().into())
    }

    pub(super) fn protocol(text: impl Into<String>) -> Self {
        Self::Protocol(text.into().into())
    }

    /// A failure before anything was sent.
    pub(super) fn unsent(why: impl Into<String>) -> Self {
        Self::Unavailable { maybe_sent: false, why: why.into().into() }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.severity, self.sqlstate, self.message)?;
        match &self.constraint {
            Some(constraint) => write!(f, " (constraint {constraint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the queue to PostgreSQL is full"),
            Self::Unavailable { maybe_sent: false, why } => write!(f, "PostgreSQL is unavailable: {why}"),
            Self::Unavailable { maybe_sent: true, why } => {
                write!(f, "PostgreSQL went away before it answered; the request may have been carried out: {why}")
            }
            Self::TimedOut => f.write_str("PostgreSQL did not answer within the deadline"),
            Self::Server(error) => write!(f, "PostgreSQL refused: {error}"),
            Self::Protocol(why) => write!(f, "PostgreSQL's answer is not understood: {why}"),
            Self::Config(why) => write!(f, "the PostgreSQL settings are not usable: {why}"),
            Self::Usage(why) => write!(f, "a query is used wrongly: {why}"),
        }
    }
}

impl std::error::Error for Error {}
