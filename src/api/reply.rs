//! Answers of the API: JSON, its errors, and what the contract says of each.

use crate::error::{Constraint, Reference, StoreError};
use crate::http::Response;

use super::json;

/// Everything that an answer with an error may say. The text of each is the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// 400 with this text.
    BadRequest(&'static str),
    /// 404 with this text.
    NotFound(&'static str),
    /// 405 with these methods.
    MethodNotAllowed(&'static str),
    /// 409 with this text.
    Conflict(&'static str),
    /// 413 with this text.
    TooLarge(&'static str),
    /// 507: the disk is full. The cause is for the log.
    DiskFull(String),
    /// 503: the store or a queue can't take more now. The cause is for the log.
    Unavailable(String),
    /// 500 with this text, which says nothing of the inside, and the cause for the log.
    Internal(&'static str, String),
}

impl Error {
    /// What the log is told and the client is not.
    pub fn cause(&self) -> Option<&str> {
        match self {
            Self::DiskFull(cause) | Self::Unavailable(cause) | Self::Internal(_, cause) => Some(cause),
            _ => None,
        }
    }
}

/// 404 of an unknown path.
pub const NOT_FOUND: Error = Error::NotFound("Not found");
/// 404 of a short URL or a code.
pub const URL_NOT_FOUND: Error = Error::NotFound("URL not found");
/// 404 of a user.
pub const USER_NOT_FOUND: Error = Error::NotFound("User not found");
/// 500 of anything unexpected.
pub fn internal(cause: String) -> Error {
    Error::Internal("Internal server error", cause)
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let cause = || error.to_string();
        match &error {
            StoreError::Conflict(Constraint::Username) => Self::Conflict("Username already exists"),
            StoreError::Conflict(Constraint::Email) => Self::Conflict("Email already exists"),
            StoreError::Conflict(Constraint::ShortCode) => {
                Self::Internal("Failed to generate unique short code", cause())
            }
            StoreError::Missing(Reference::User) => USER_NOT_FOUND,
            StoreError::Missing(Reference::Url) => URL_NOT_FOUND,
            StoreError::Busy | StoreError::Unavailable(_) => Self::Unavailable(cause()),
            StoreError::NotEmpty | StoreError::Internal(_) => internal(cause()),
        }
    }
}

/// Status line and fixed headers. Nothing is to be kept: links and users change at any time, and a cache may by itself
/// keep a 404 (RFC 9110, section 15.1).
macro_rules! prefix {
    ($line:literal) => {
        concat!("HTTP/1.1 ", $line, "\r\nServer: snip\r\nCache-Control: no-store\r\n")
    };
}

const OK: &str = prefix!("200 OK");
const CREATED: &str = prefix!("201 Created");
const NO_CONTENT: &str = prefix!("204 No Content");
const JSON: &str = "application/json";

/// 200 with a JSON body.
pub fn ok(response: &mut Response<'_>, write: impl FnOnce(&mut Vec<u8>)) {
    response.head(OK);
    response.body(JSON, write);
}

/// 200 with a body of another type.
pub fn ok_as(response: &mut Response<'_>, content_type: &'static str, write: impl FnOnce(&mut Vec<u8>)) {
    response.head(OK);
    response.body(content_type, write);
}

/// 201 with a JSON body.
pub fn created(response: &mut Response<'_>, write: impl FnOnce(&mut Vec<u8>)) {
    response.head(CREATED);
    response.body(JSON, write);
}

/// 204.
pub fn no_content(response: &mut Response<'_>) {
    response.head(NO_CONTENT);
    response.no_body();
}

/// The answer to OPTIONS.
pub fn options(response: &mut Response<'_>, allow: &'static str) {
    response.head(OK);
    allowed(response, allow);
    response.empty();
}

/// 503 of a readiness probe: not an error of the request, so with a body that says what is missing.
pub fn not_ready(response: &mut Response<'_>, write: impl FnOnce(&mut Vec<u8>)) {
    response.head(prefix!("503 Service Unavailable"));
    response.body(JSON, write);
}

/// An error, as `{"error": "<message>"}`.
pub fn error(response: &mut Response<'_>, error: &Error) {
    let message = match error {
        Error::BadRequest(message) => start(response, prefix!("400 Bad Request"), message),
        Error::NotFound(message) => start(response, prefix!("404 Not Found"), message),
        Error::MethodNotAllowed(allow) => {
            response.head(prefix!("405 Method Not Allowed"));
            allowed(response, allow);
            "Method not allowed"
        }
        Error::Conflict(message) => start(response, prefix!("409 Conflict"), message),
        Error::TooLarge(message) => start(response, prefix!("413 Content Too Large"), message),
        Error::DiskFull(_) => start(response, prefix!("507 Insufficient Storage"), "No space left to store this"),
        Error::Unavailable(_) => {
            start(response, concat!(prefix!("503 Service Unavailable"), "Retry-After: 1\r\n"), "Service unavailable")
        }
        Error::Internal(message, _) => start(response, prefix!("500 Internal Server Error"), message),
    };
    response.body(JSON, |out| {
        out.extend_from_slice(b"{\"error\":");
        json::write_text(out, message);
        out.push(b'}');
    });
}

fn start(response: &mut Response<'_>, prefix: &'static str, message: &'static str) -> &'static str {
    response.head(prefix);
    message
}

fn allowed(response: &mut Response<'_>, allow: &'static str) {
    // The lists are ours: none has a line break that would be refused.
    let _ = response.header("Allow", allow.as_bytes());
}
