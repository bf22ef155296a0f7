//! The HTTP/1.1 server: sockets in, requests to a [`Service`], answers out. Knows nothing of what it serves.
//!
//! The bytes come in at [`conn`], one coroutine a connection. [`head`] and [`body`] are pure: bytes in, state out.

pub mod body;
mod bound;
mod buffer;
mod conn;
pub mod date;
pub mod head;
mod listener;
mod outbox;
pub mod response;
mod server;
mod watch;

pub use bound::{BindError, Bound, ListenAddress, Sharing};
pub use head::{Method, Request};
pub use response::{Refusal, Response};
pub use server::{Options, Server, Service, Stats};
pub use watch::CloseReason;
