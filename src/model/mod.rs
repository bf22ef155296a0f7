//! What the product is about: users, short URLs, events. No I/O; the only room that knows what is valid.

pub mod code;
pub mod event;
pub mod journal;
pub mod timestamp;
pub mod url;
pub mod user;
pub mod validate;

pub use code::ShortCode;
pub use event::{Click, Event, EventFilter, EventType, NewEvent};
pub use journal::{JournalId, JournalStep};
pub use timestamp::Timestamp;
pub use url::{
    ChangeCursor, ChangedUrl, Changes, LinkChange, LinkState, NewUrl, ShortUrl, Target, UrlFilter, UrlPatch, UrlStats,
    Version,
};
pub use user::{NewUser, User, UserPatch};

use crate::limits::{PER_PAGE_DEFAULT, PER_PAGE_MAX};

/// A primary key. The contract's tables use `serial` (32 bits); adopted ones may be wider.
pub type Id = i64;

/// Where a page of a list begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// This many rows into the list (`page`).
    Offset(u64),
    /// Behind the row with this id in the list's order (`after_id`): no scan over the rows before it.
    AfterId(Id),
}

/// One page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Where it begins.
    pub start: Start,
    /// Rows on it, 1 to [`PER_PAGE_MAX`].
    pub limit: u32,
}

impl Page {
    /// The page with the contract's defaults and caps: `page` and `per_page` count from 1, what is absent falls back.
    pub fn new(page: Option<u64>, per_page: Option<u64>, after_id: Option<Id>) -> Self {
        let limit = per_page.map_or(PER_PAGE_DEFAULT, |n| n.clamp(1, u64::from(PER_PAGE_MAX)) as u32);
        let start = match after_id {
            Some(id) => Start::AfterId(id),
            // No table has more rows than i64 counts; the cap keeps the product inside what SQL takes.
            None => {
                Start::Offset(page.unwrap_or(1).saturating_sub(1).saturating_mul(u64::from(limit)).min(i64::MAX as u64))
            }
        };
        Self { start, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_defaults_and_caps() {
        let check = |page, per_page, start, limit| {
            assert_eq!(Page::new(page, per_page, None), Page { start: Start::Offset(start), limit });
        };
        check(None, None, 0, 25);
        check(Some(2), None, 25, 25);
        check(Some(3), Some(10), 20, 10);
        check(None, Some(1000), 0, 100);
        check(Some(u64::MAX), Some(100), i64::MAX as u64, 100);
    }
}
