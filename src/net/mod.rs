//! What the clients of PostgreSQL and Redis share: connecting with a deadline, TLS, a socket that never blocks.
//!
//! Knows no protocol. [`opening`] blocks and belongs on plain threads; [`stream`] belongs in a coroutine.

pub mod opening;
pub mod stream;
pub mod tls;

pub use opening::Opening;
