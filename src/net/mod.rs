//! What the clients of PostgreSQL and Redis share: connecting with a deadline, TLS, a socket that never blocks, the turns
//! of the coroutine that owns it.
//!
//! Knows no protocol. [`opening`] blocks and belongs on plain threads; [`stream`] and [`turns`] belong in a coroutine.

pub mod opening;
pub mod stream;
pub mod tls;
pub mod turns;

pub use opening::Opening;
