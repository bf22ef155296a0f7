//! Messages of the protocol (PostgreSQL manual, chapter 55): requests are written to a buffer, replies are read from
//! one.
//!
//! Pure: no sockets, no state. Nothing here trusts the server's bytes.

use bytes::BytesMut;
use postgres_protocol::message::frontend;
use postgres_types::{Kind, ToSql, Type};

use super::error::{Error, Result, ServerError};
use super::rows::Column;
use super::statement::Call;
use crate::limits;

/// First bytes of the messages that a server sends.
pub(super) mod tag {
    pub const AUTHENTICATION: u8 = b'R';
    pub const BACKEND_KEY: u8 = b'K';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const COMMAND_COMPLETE: u8 = b'C';
    pub const COPY_IN: u8 = b'G';
    pub const COPY_OUT: u8 = b'H';
    pub const DATA_ROW: u8 = b'D';
    pub const EMPTY_QUERY: u8 = b'I';
    pub const ERROR: u8 = b'E';
    pub const NO_DATA: u8 = b'n';
    pub const NOTICE: u8 = b'N';
    pub const NOTIFICATION: u8 = b'A';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const READY: u8 = b'Z';
    pub const ROW_DESCRIPTION: u8 = b'T';
}

/// A reply that does not follow the protocol. The connection is closed: what comes after cannot be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub String);

impl Fault {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::protocol(fault.0)
    }
}

/// One message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub tag: u8,
    pub body: &'a [u8],
}

/// What stands at the front of a read buffer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next<'a> {
    /// A whole message, and how many bytes it takes.
    Frame(Frame<'a>, usize),
    /// A part of one, which will take so many bytes as far as one can tell.
    Needs(usize),
}

const HEADER_BYTES: usize = 5;

/// Looks at the front of a read buffer.
pub(super) fn next_frame(buffer: &[u8]) -> std::result::Result<Next<'_>, Fault> {
    let [tag, a, b, c, d, rest @ ..] = buffer else { return Ok(Next::Needs(HEADER_BYTES)) };
    // The length counts itself but not the tag.
    let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
    if !(4..limits::PG_MESSAGE_BYTES_MAX).contains(&length) {
        return Err(Fault::new(format!("a message of type {:?} says to be {length} bytes long", char::from(*tag))));
    }
    Ok(match rest.get(..length - 4) {
        Some(body) => Next::Frame(Frame { tag: *tag, body }, length + 1),
        None => Next::Needs(length + 1),
    })
}

/// Reads the parts of a message's body one after the other.
pub(super) struct Body<'a>(pub &'a [u8]);

impl<'a> Body<'a> {
    fn cut() -> Fault {
        Fault::new("a message is shorter than its parts")
    }

    pub fn array<const N: usize>(&mut self) -> std::result::Result<[u8; N], Fault> {
        let (array, rest) = self.0.split_first_chunk::<N>().ok_or_else(Self::cut)?;
        self.0 = rest;
        Ok(*array)
    }

    pub fn u8(&mut self) -> std::result::Result<u8, Fault> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> std::result::Result<u16, Fault> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> std::result::Result<u32, Fault> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn i32(&mut self) -> std::result::Result<i32, Fault> {
        self.array().map(i32::from_be_bytes)
    }

    /// Bytes up to a zero, which is taken too.
    pub fn text(&mut self) -> std::result::Result<&'a [u8], Fault> {
        let end = memchr::memchr(0, self.0).ok_or_else(Self::cut)?;
        let (text, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Ok(text)
    }
}

/// Reads an ErrorResponse or NoticeResponse. What is missing stays empty: an error about an error helps nobody.
pub(super) fn read_error(body: &[u8]) -> ServerError {
    let mut error = ServerError::default();
    let mut body = Body(body);
    while let Ok(field @ 1..) = body.u8() {
        let Ok(value) = body.text() else { break };
        match field {
            // S may be translated; V, from version 9.6 on, is not and comes after it.
            b'S' | b'V' => error.severity = log_text(value),
            b'C' => error.sqlstate = log_text(value),
            b'M' => error.message = log_text(value),
            b'D' => error.detail = Some(log_text(value)),
            b'n' => error.constraint = Some(log_text(value)),
            b't' => error.table = Some(log_text(value)),
            _ => {}
        }
    }
    error
}

/// A text for the log: bounded, and valid UTF-8 whatever the server's encoding was when it wrote it.
fn log_text(bytes: &[u8]) -> String {
    let cut = &bytes[..bytes.len().min(limits::PG_TEXT_BYTES_MAX)];
    String::from_utf8_lossy(cut).into_owned()
}

/// Reads a RowDescription.
pub(super) fn read_columns(body: &[u8]) -> std::result::Result<Vec<Column>, Fault> {
    let mut body = Body(body);
    let count = body.u16()?;
    // Not reserved by the count, which a broken server may make up.
    let mut columns = Vec::new();
    for _ in 0..count {
        let name = log_text(body.text()?).into_boxed_str();
        let _table = body.u32()?;
        let _column = body.u16()?;
        let oid = body.u32()?;
        let _size_and_modifier = body.array::<6>()?;
        let _format = body.u16()?;
        columns.push(Column { name, ty: type_of(oid) });
    }
    if body.0.is_empty() { Ok(columns) } else { Err(Fault::new("a description of rows goes on after its last column")) }
}

fn type_of(oid: u32) -> Type {
    Type::from_oid(oid).unwrap_or_else(|| Type::new("unknown".into(), oid, Kind::Simple, String::new()))
}

/// The number at the end of a command tag (`INSERT 0 5`, `SELECT 1`, `CREATE TABLE`), 0 if there is none.
pub(super) fn read_affected(body: &[u8]) -> u64 {
    let tag = body.strip_suffix(b"\0").unwrap_or(body);
    let number = tag.rsplit(|byte| *byte == b' ').next().unwrap_or_default();
    std::str::from_utf8(number).ok().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The transaction's state after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Outside a transaction.
    Idle,
    /// In one.
    Open,
    /// In one that can only be rolled back.
    Failed,
}

pub(super) fn read_status(body: &[u8]) -> std::result::Result<Status, Fault> {
    match body {
        b"I" => Ok(Status::Idle),
        b"T" => Ok(Status::Open),
        b"E" => Ok(Status::Failed),
        _ => Err(Fault::new("the state of the transaction is not known")),
    }
}

/// Writes Parse for a call's statement.
pub(super) fn write_parse(name: &str, call: &Call<'_>, out: &mut BytesMut) -> Result<()> {
    let types = call.statement.params.iter().map(Type::oid);
    frontend::parse(name, call.statement.sql, types, out).map_err(|error| misuse(call, &error))
}

/// Writes Bind with the call's values, all in binary.
pub fn write_bind(name: &str, call: &Call<'_>, out: &mut BytesMut) -> Result<()> {
    let types = call.statement.params;
    if call.params.len() != types.len() {
        let (given, wanted) = (call.params.len(), types.len());
        return Err(misuse(call, &format!("{given} parameters are given, {wanted} are wanted")));
    }
    let values = call.params.iter().zip(types);
    let write = |(value, ty): (&&(dyn ToSql + Sync), &Type), out: &mut BytesMut| {
        value.to_sql_checked(ty, out).map(|null| match null {
            postgres_types::IsNull::Yes => postgres_protocol::IsNull::Yes,
            postgres_types::IsNull::No => postgres_protocol::IsNull::No,
        })
    };
    let written = frontend::bind("", name, [1], values, write, [1], out);
    written.map_err(|error| match error {
        frontend::BindError::Conversion(error) => misuse(call, &error),
        frontend::BindError::Serialization(error) => misuse(call, &error),
    })
}

fn misuse(call: &Call<'_>, why: &dyn std::fmt::Display) -> Error {
    Error::usage(format!("statement {}: {why}", call.statement.name))
}

/// Writes Describe for the portal just bound.
pub(super) fn write_describe(out: &mut BytesMut) -> Result<()> {
    frontend::describe(b'P', "", out).map_err(|error| Error::usage(error.to_string()))
}

/// Writes Execute for the portal just bound, without a limit of rows.
pub(super) fn write_execute(out: &mut BytesMut) -> Result<()> {
    frontend::execute("", 0, out).map_err(|error| Error::usage(error.to_string()))
}

/// Writes Close for a prepared statement.
pub(super) fn write_close(name: &str, out: &mut BytesMut) -> Result<()> {
    frontend::close(b'S', name, out).map_err(|error| Error::usage(error.to_string()))
}

/// Writes a script of several statements in the simple protocol.
pub(super) fn write_script(sql: &str, out: &mut BytesMut) -> Result<()> {
    frontend::query(sql, out).map_err(|error| Error::usage(error.to_string()))
}

/// Writes Sync.
pub(super) fn write_sync(out: &mut BytesMut) {
    frontend::sync(out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::Statement;
    use proptest::prelude::*;

    #[test]
    fn frames_are_found_at_every_split() {
        let bytes = b"Z\0\0\0\x05I1\0\0\0\x04";
        for split in 0..5 {
            assert_eq!(next_frame(&bytes[..split]), Ok(Next::Needs(5)));
        }
        assert_eq!(next_frame(&bytes[..5]), Ok(Next::Needs(6)));
        let ready = Next::Frame(Frame { tag: b'Z', body: b"I" }, 6);
        assert_eq!(next_frame(bytes), Ok(ready));
        assert_eq!(next_frame(&bytes[6..]), Ok(Next::Frame(Frame { tag: b'1', body: b"" }, 5)));
    }

    #[test]
    fn lengths_out_of_bounds_are_faults() {
        for length in [0u32, 3, limits::PG_MESSAGE_BYTES_MAX as u32, u32::MAX] {
            let mut bytes = vec![b'D'];
            bytes.extend_from_slice(&length.to_be_bytes());
            assert!(next_frame(&bytes).is_err(), "{length}");
        }
    }

    #[test]
    fn errors_are_read_field_by_field() {
        let body = b"SFEHLER\0VERROR\0C23505\0Mduplicate key\0Dkey (a)=(b)\0nusers_email_key\0tusers\0Fx.c\0\0";
        let error = read_error(body);
        let expect = ServerError {
            severity: "ERROR".into(),
            sqlstate: "23505".into(),
            message: "duplicate key".into(),
            detail: Some("key (a)=(b)".into()),
            constraint: Some("users_email_key".into()),
            table: Some("users".into()),
        };
        assert_eq!(error, expect);
        assert!(!error.to_string().contains("(b)"), "users' data stays out of the log");
        for split in 0..body.len() {
            let _ = read_error(&body[..split]);
        }
    }

    #[test]
    fn command_tags_give_their_number() {
        for (tag, expect) in [
            (&b"INSERT 0 5\0"[..], 5),
            (b"SELECT 12\0", 12),
            (b"CREATE TABLE\0", 0),
            (b"\0", 0),
            (b"", 0),
            (b"UPDATE 99999999999999999999999\0", 0),
        ] {
            assert_eq!(read_affected(tag), expect, "{tag:?}");
        }
    }

    #[test]
    fn columns_are_read_and_cuts_are_faults() {
        let body = b"\0\x01id\0\0\0\x40\0\0\x01\0\0\0\x14\0\x08\xff\xff\xff\xff\0\x01";
        assert_eq!(read_columns(body), Ok(vec![Column { name: "id".into(), ty: Type::INT8 }]));
        for split in 0..body.len() {
            assert!(read_columns(&body[..split]).is_err(), "{split}");
        }
        assert!(read_columns(b"\0\0x").is_err());
    }

    #[test]
    fn wrong_parameters_are_refused_before_anything_is_sent() {
        static STATEMENT: Statement = Statement::new("two", "SELECT $1, $2", &[Type::INT8, Type::TEXT]);
        let mut out = BytesMut::new();
        for (params, says) in [
            (&[&1i64 as &(dyn postgres_types::ToSql + Sync)][..], "1 parameters are given, 2 are wanted"),
            (&[&1i64, &2i64], "two"),
        ] {
            let error = write_bind("s", &Call::new(&STATEMENT, params), &mut out).unwrap_err();
            assert!(matches!(&error, Error::Usage(why) if why.contains(says)), "{error}");
        }
        assert_eq!(write_bind("s", &Call::new(&STATEMENT, &[&1i64, &"x"]), &mut out), Ok(()));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = (next_frame(&bytes), read_error(&bytes), read_columns(&bytes), read_affected(&bytes));
            let _ = read_status(&bytes);
        }
    }
}
