//! The order of questions on the way to a link, pure: which comes next, given what the last one said.
//!
//! The order is half of the coherence: the lease is left before the store is asked, and only its holder fills.

use super::fence::Held;

/// The next question, or the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Ask Redis.
    Get,
    /// Remove what is under the key, for nobody here wrote it; then leave a lease.
    Clean,
    /// Leave a lease in Redis.
    Lease,
    /// Ask the store.
    Query,
    /// Nothing more to ask.
    Done,
}

/// Where to begin when the instance's own memory does not know.
pub fn begin(trusts_redis: bool) -> Next {
    if trusts_redis { Next::Get } else { Next::Query }
}

/// After Redis answered; `None`: it did not.
pub fn after_get(held: Option<&Held>) -> Next {
    match held {
        Some(Held::Link(_) | Held::Tombstone(_)) => Next::Done,
        Some(Held::Missing) => Next::Lease,
        Some(Held::Garbage) => Next::Clean,
        // Another instance fills. Waiting for it would make this one as slow as that.
        Some(Held::Lease(_)) | None => Next::Query,
    }
}
