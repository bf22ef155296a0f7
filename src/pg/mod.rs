//! A PostgreSQL client for coroutines: few connections, shared by all callers, prepared and pipelined.
//!
//! Reading order: [`config`] (connection strings), [`error`], [`statement`] and [`rows`] (what goes in and comes out),
//! `wire` and `expect` (the protocol, pure), `tls`, `connect` (a session is opened by a plain thread with blocking
//! sockets), `conn` (one coroutine a socket), [`pool`] (what callers use).
//!
//! Invariants, mostly of what is absent:
//! - Knows nothing of links; the store on top knows nothing of sockets.
//! - Nothing blocks a coroutine: names are resolved, sockets connected, TLS and passwords shaken hands over on OS
//!   threads. No coroutine parks with a time-out.
//! - No request that may have reached the server is repeated, unless it is marked as read-only or is known to have been
//!   rolled back.
//! - COPY is absent: `unnest` batches load as fast here (`docs/postgres.md`), and need no second protocol.

pub mod config;
mod conn;
mod connect;
pub mod error;
mod expect;
pub mod pool;
pub mod rows;
pub mod statement;
mod tls;
pub mod wire;

pub use config::Config;
pub use error::{Error, Result, ServerError};
pub use pool::{Lease, Pool, Stats};
pub use postgres_types::{FromSql, ToSql, Type};
pub use rows::{Column, Row, Rows};
pub use statement::{Call, Statement};
