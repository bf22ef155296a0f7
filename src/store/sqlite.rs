//! The store in a SQLite file, for development, tests and small sites.
//!
//! One OS thread owns the connection (see `queue`): callers hand it closures over the functions of `queries` and wait
//! for what these return. Writes of many callers share a transaction and so one `fsync`: the file is opened with
//! `synchronous = FULL`, because a write is durable when the call returns.

mod queries;
mod queue;
mod schema;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, ffi};

use self::queue::{Access, Queue};
use super::{ClickStore, SeedData, Store};
use crate::error::{Constraint, Reference, StoreError, StoreResult};
use crate::figures::Figures;
use crate::limits::{HEALTH_DEADLINE, SQLITE_CLICKS_MAX, STORE_DEADLINE};
use crate::model::{
    ChangeCursor, ChangedUrl, Changes, Click, Event, EventFilter, Id, JournalId, JournalStep, NewEvent, NewUrl,
    NewUser, Page, ShortCode, ShortUrl, Target, UrlFilter, UrlPatch, UrlStats, User, UserPatch,
};

pub use self::schema::OpenError;

/// A SQLite file and the thread that owns it.
///
/// Dropping it finishes what is queued, moves the write-ahead log into the file and ends the thread. That blocks, so
/// it belongs on a plain thread, at the end of the process.
pub struct SqliteStore {
    queue: Queue,
}

impl SqliteStore {
    /// Opens the file, making it and its folder if they are missing, and brings its schema up to date.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let db = schema::open(path)?;
        let queue = Queue::start(db).map_err(|refused| OpenError::thread(path, &refused))?;
        Ok(Self { queue })
    }

    fn read<T, W>(&self, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        self.call(Access::Read, Some(STORE_DEADLINE), work)
    }

    fn write<T, W>(&self, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        self.call(Access::Write, Some(STORE_DEADLINE), work)
    }

    fn call<T, W>(&self, access: Access, limit: Option<Duration>, work: W) -> StoreResult<T>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> StoreResult<T> + Send + 'static,
    {
        self.queue.call(access, limit, work)
    }
}

impl ClickStore for SqliteStore {
    fn record_clicks(&self, clicks: Arc<Vec<Click>>, step: JournalStep) -> StoreResult<u64> {
        self.write(move |db| queries::record_clicks(db, &clicks, &step))
    }

    fn batch_max(&self) -> usize {
        SQLITE_CLICKS_MAX
    }

    fn journal_position(&self, journal: JournalId) -> StoreResult<Option<u64>> {
        self.read(move |db| queries::journal_position(db, journal))
    }
}

impl Store for SqliteStore {
    fn tell(&self, figures: &mut Figures) {
        self.queue.tell(figures);
    }

    fn health(&self) -> StoreResult<()> {
        self.call(Access::Read, Some(HEALTH_DEADLINE), queries::health)
    }

    fn users(&self, page: Page) -> StoreResult<Vec<User>> {
        self.read(move |db| queries::users(db, page))
    }

    fn user(&self, id: Id) -> StoreResult<Option<User>> {
        self.read(move |db| queries::user(db, id))
    }

    fn create_user(&self, new: NewUser) -> StoreResult<User> {
        self.write(move |db| queries::create_user(db, new))
    }

    fn update_user(&self, id: Id, patch: UserPatch) -> StoreResult<Option<User>> {
        self.write(move |db| queries::update_user(db, id, &patch))
    }

    fn delete_user(&self, id: Id) -> StoreResult<bool> {
        self.write(move |db| queries::delete_user(db, id))
    }

    fn import_users(&self, rows: Vec<NewUser>) -> StoreResult<u64> {
        self.write(move |db| queries::import_users(db, &rows))
    }

    fn urls(&self, filter: UrlFilter, page: Page) -> StoreResult<Vec<ShortUrl>> {
        self.read(move |db| queries::urls(db, filter, page))
    }

    fn url(&self, id: Id) -> StoreResult<Option<ShortUrl>> {
        self.read(move |db| queries::url(db, id))
    }

    fn url_stats(&self, id: Id) -> StoreResult<Option<UrlStats>> {
        self.read(move |db| queries::url_stats(db, id))
    }

    fn create_url(&self, new: NewUrl) -> StoreResult<ShortUrl> {
        self.write(move |db| queries::create_url(db, new))
    }

    fn update_url(&self, id: Id, patch: UrlPatch) -> StoreResult<Option<ChangedUrl>> {
        self.write(move |db| queries::update_url(db, id, &patch))
    }

    fn delete_url(&self, id: Id) -> StoreResult<Option<ChangedUrl>> {
        self.write(move |db| queries::delete_url(db, id))
    }

    fn resolve(&self, code: &str) -> StoreResult<Option<Target>> {
        let code = code.to_owned();
        self.read(move |db| queries::resolve(db, &code))
    }

    fn link_changes(&self, after: Option<ChangeCursor>) -> StoreResult<Changes> {
        self.read(move |db| queries::link_changes(db, after))
    }

    fn forget_link_changes(&self) -> StoreResult<()> {
        self.write(queries::forget_link_changes)
    }

    fn links_below(&self, before: Id, limit: u32) -> StoreResult<Vec<(ShortCode, Target)>> {
        self.read(move |db| queries::links_below(db, before, limit))
    }

    fn active_urls(&self) -> StoreResult<u64> {
        self.read(queries::active_urls)
    }

    fn events(&self, filter: EventFilter, page: Page) -> StoreResult<Vec<Event>> {
        self.read(move |db| queries::events(db, &filter, page))
    }

    fn url_events(&self, url_id: Id, page: Page) -> StoreResult<Option<Vec<Event>>> {
        self.read(move |db| queries::url_events(db, url_id, page))
    }

    fn create_event(&self, new: NewEvent) -> StoreResult<Event> {
        self.write(move |db| queries::create_event(db, new))
    }

    fn load(&self, data: SeedData, reset: bool) -> StoreResult<()> {
        self.call(Access::Write, None, move |db| queries::load(db, &data, reset))
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        let rusqlite::Error::SqliteFailure(failure, _) = error else { return Self::Internal(text) };
        match failure.code {
            ErrorCode::ConstraintViolation => violated(failure.extended_code, text),
            ErrorCode::DiskFull
            | ErrorCode::SystemIoFailure
            | ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::PermissionDenied
            | ErrorCode::ReadOnly => Self::Unavailable(text),
            _ => Self::Internal(text),
        }
    }
}

/// SQLite names the columns of a unique index in its message and nowhere else; a foreign key it does not name, but
/// `urls.user_id` is the only one.
fn violated(extended_code: i32, text: String) -> StoreError {
    match extended_code {
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => StoreError::Missing(Reference::User),
        ffi::SQLITE_CONSTRAINT_UNIQUE if text.ends_with("users.username") => StoreError::Conflict(Constraint::Username),
        ffi::SQLITE_CONSTRAINT_UNIQUE if text.ends_with("users.email") => StoreError::Conflict(Constraint::Email),
        ffi::SQLITE_CONSTRAINT_UNIQUE if text.ends_with("urls.short_code") => {
            StoreError::Conflict(Constraint::ShortCode)
        }
        _ => StoreError::Internal(text),
    }
}
