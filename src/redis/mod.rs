//! A Redis client for coroutines: one connection for the whole process, shared by all callers, pipelined.
//!
//! Reading order: [`config`] (URLs), [`error`], `wire` (replies cut out of bytes and matched to requests, pure),
//! `connect` (a session is opened by a plain thread with blocking sockets), `conn` (the coroutine that owns the
//! socket), [`breaker`] (pure), [`client`] (what callers use).
//!
//! Invariants, mostly of what is absent:
//! - Knows nothing of links.
//! - Nothing blocks a coroutine: names are resolved, sockets connected, TLS shaken hands over on an OS thread.
//! - Replies and pushed messages come over the same socket, in the order in which the server did things: whoever sends
//!   a read after a change of its own sees the change, and a message about a change never overtakes a reply that was
//!   read before it.
//! - No request is sent twice.
//! - No blocking command, transaction or `MONITOR` is ever sent: each would hold up everybody.

pub mod breaker;
pub mod client;
pub mod config;
mod conn;
mod connect;
pub mod error;
pub mod wire;

pub use ::redis::{Cmd, Value};
pub use client::{Client, Events, Script, Stats};
pub use config::Config;
pub use error::{Error, Result};
