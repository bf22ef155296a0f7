//! Snip, a URL shortener on the `may` coroutine runtime.
//!
//! The modules in reading order; each knows only those above it in this list (see `docs/architecture.md`):

pub mod limits;
pub mod figures;
pub mod error;
pub mod model;
pub mod runtime;
pub mod net;
pub mod pg;
pub mod redis;
pub mod store;
pub mod seed;
pub mod http;
pub mod links;
pub mod clicks;
pub mod log;
pub mod metrics;
pub mod api;
pub mod alerts;
pub mod config;
#[doc(hidden)]
pub mod fuzzing;
