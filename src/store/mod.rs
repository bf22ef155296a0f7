//! Where users, short URLs and events are kept. The trait is what the API and the caches know of it; the files beside
//! this one are the only places that know SQL.
//!
//! Every call may be made from a coroutine or from a plain thread. It blocks its caller alone (never the worker), for
//! [`crate::limits::STORE_DEADLINE`] at the most, and then says [`crate::error::StoreError::Unavailable`].

mod lists;
pub mod postgres;
pub mod sqlite;

#[cfg(test)]
mod contract_tests;

use std::sync::Arc;

use crate::error::StoreResult;
use crate::figures::Figures;
use crate::model::{
    ChangeCursor, ChangedUrl, Changes, Click, Event, EventFilter, Id, JournalId, JournalStep, NewEvent, NewUrl,
    NewUser, Page, ShortCode, ShortUrl, Target, UrlFilter, UrlPatch, UrlStats, User, UserPatch,
};

/// A whole data set, as the three CSV files of `snip seed` hold it.
#[derive(Clone, Debug, Default)]
pub struct SeedData {
    /// Rows of `users`.
    pub users: Vec<User>,
    /// Rows of `urls`.
    pub urls: Vec<ShortUrl>,
    /// Rows of `events`.
    pub events: Vec<Event>,
}

/// What the journal of clicks wants of a store.
pub trait ClickStore: Send + Sync + 'static {
    /// Writes one `redirect` event for each click and moves the journal's position from `step.from` to `step.to`, all
    /// in one transaction. If the position is not `step.from`, nothing is written. Returns the position after the call:
    /// anything but `step.to` means that these clicks were not written. So a batch whose outcome is unknown may be
    /// offered again as it is: if it was written then, its position tells. Shared for that reason.
    fn record_clicks(&self, clicks: Arc<Vec<Click>>, step: JournalStep) -> StoreResult<u64>;
    /// Clicks that one call may bring, at the most [`crate::limits::CLICKS_BATCH_MAX`].
    fn batch_max(&self) -> usize;
    /// How far the journal is stored; `None` for one that the store has never heard of.
    fn journal_position(&self, journal: JournalId) -> StoreResult<Option<u64>>;
}

/// Rows by id unless said otherwise; writes are durable when the call returns.
pub trait Store: ClickStore {
    /// Tells Prometheus of the way to the database.
    fn tell(&self, figures: &mut Figures);
    /// A real query with a deadline of [`crate::limits::HEALTH_DEADLINE`].
    fn health(&self) -> StoreResult<()>;

    /// A page of the users.
    fn users(&self, page: Page) -> StoreResult<Vec<User>>;
    /// One user.
    fn user(&self, id: Id) -> StoreResult<Option<User>>;
    /// Makes a user. Errors: `Conflict(Username)`, `Conflict(Email)`.
    fn create_user(&self, new: NewUser) -> StoreResult<User>;
    /// Changes the fields given; `None` when there is no such user. Errors: `Conflict`.
    fn update_user(&self, id: Id, patch: UserPatch) -> StoreResult<Option<User>>;
    /// Deletes a user and sets `user_id` of its URLs and events to null, in one transaction; false when there is none.
    fn delete_user(&self, id: Id) -> StoreResult<bool>;
    /// Inserts those rows that collide with none in the table nor with an earlier one of these; returns how many.
    fn import_users(&self, rows: Vec<NewUser>) -> StoreResult<u64>;

    /// A page of the short URLs.
    fn urls(&self, filter: UrlFilter, page: Page) -> StoreResult<Vec<ShortUrl>>;
    /// One short URL, active or not.
    fn url(&self, id: Id) -> StoreResult<Option<ShortUrl>>;
    /// One short URL with its number of redirects.
    fn url_stats(&self, id: Id) -> StoreResult<Option<UrlStats>>;
    /// Makes a short URL and its `created` event in one transaction. Errors: `Conflict(ShortCode)`, `Missing(User)`.
    fn create_url(&self, new: NewUrl) -> StoreResult<ShortUrl>;
    /// Changes the fields given and writes one `updated` event for each, in one transaction; `None` when there is no
    /// such URL. An empty patch changes nothing.
    fn update_url(&self, id: Id, patch: UrlPatch) -> StoreResult<Option<ChangedUrl>>;
    /// Switches an active short URL off and writes the `deleted` event, in one transaction. `None` when there is no
    /// such URL or it is inactive already.
    fn delete_url(&self, id: Id) -> StoreResult<Option<ChangedUrl>>;
    /// What a redirect needs; `None` for an unknown or inactive code.
    fn resolve(&self, code: &str) -> StoreResult<Option<Target>>;
    /// A part of the list of what changed lately: what is behind `after`, or from the beginning, which is at least
    /// [`crate::limits::LINK_CHANGES_WINDOW`] ago. Every committed change is found by each reader that reads on from
    /// part to part, whatever the order in which transactions commit. A new link is not a change.
    fn link_changes(&self, after: Option<ChangeCursor>) -> StoreResult<Changes>;
    /// Drops what is older than [`crate::limits::LINK_CHANGES_KEPT`] from that list.
    fn forget_link_changes(&self) -> StoreResult<()>;
    /// Up to `limit` active links with ids below `before`, the youngest first, with their codes.
    fn links_below(&self, before: Id, limit: u32) -> StoreResult<Vec<(ShortCode, Target)>>;
    /// Number of active short URLs.
    fn active_urls(&self) -> StoreResult<u64>;

    /// A page of the events, newest first (by timestamp, then id).
    fn events(&self, filter: EventFilter, page: Page) -> StoreResult<Vec<Event>>;
    /// A page of one URL's events, newest first; `None` when there is no such URL.
    fn url_events(&self, url_id: Id, page: Page) -> StoreResult<Option<Vec<Event>>>;
    /// Writes an event a client handed in. Errors: `Missing(Url)`, `Missing(User)`, looked for in this order.
    fn create_event(&self, new: NewEvent) -> StoreResult<Event>;

    /// Loads a data set with its ids in one transaction; later ids follow the highest. With `reset` what was there goes
    /// first; without it a store that has rows refuses: `NotEmpty`. Has no deadline: it is a command's work.
    fn load(&self, data: SeedData, reset: bool) -> StoreResult<()>;
}
