//! Snip, a URL shortener on the `may` coroutine runtime.
//!
//! The modules in reading order; each knows only those above it in this list (see `docs/architecture.md`):

pub mod error;
pub mod limits;
pub mod model;
pub mod pg;
pub mod runtime;
pub mod store;
