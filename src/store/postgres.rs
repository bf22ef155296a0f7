//! The store in a PostgreSQL database: what production runs on, alone or several instances beside each other.
//!
//! Every method is one round trip on the shared connections, and every write one transaction: a single statement, or a
//! batch that the server carries out as a whole. Only a data set (`load`) and an import that fills more than one
//! message take several, on a connection of their own. `sql/postgres/` holds the statements, one a file, and the
//! migrations.

mod columns;
mod queries;
mod schema;
mod values;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use super::{ClickStore, SeedData, Store};
use crate::error::{Constraint, Reference, StoreError, StoreResult};
use crate::figures::Figures;
use crate::limits::{CLICKS_BATCH_MAX, PG_CONNECT_TIMEOUT, PG_SCHEMA_RETRY};
use crate::model::{
    ChangeCursor, ChangedUrl, Changes, Click, Event, EventFilter, Id, JournalId, JournalStep, NewEvent, NewUrl,
    NewUser, Page, ShortCode, ShortUrl, Target, UrlFilter, UrlPatch, UrlStats, User, UserPatch,
};
use crate::pg::{self, Config, Pool, ServerError};

pub use self::schema::{OpenError, Tables};

/// A database and the connections to it. Dropping it closes them.
pub struct PostgresStore {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    config: Config,
    tables: Tables,
    /// The database was reached and its tables are this program's: until then nothing is asked of it.
    is_ready: AtomicBool,
    /// Why it is not ready, for those who ask meanwhile.
    obstacle: Mutex<String>,
}

impl PostgresStore {
    /// Opens the database and brings its tables up to date, or sees that they are. Blocks, so for plain threads.
    ///
    /// # Errors
    /// Why the database cannot be used, one that cannot be reached included.
    pub fn open(config: Config, tables: Tables) -> Result<Self, OpenError> {
        let store = Self::unready(config, tables)?;
        store.shared.make_ready()?;
        Ok(store)
    }

    /// As [`PostgresStore::open`], but a database that cannot be reached yet is waited for in the background: until it
    /// is there and its tables are right, every call is `Unavailable`. An instance may thus start before its database.
    ///
    /// # Errors
    /// What waiting will not mend: tables of a newer version, for one.
    pub fn start(config: Config, tables: Tables) -> Result<Self, OpenError> {
        let store = Self::unready(config, tables)?;
        match store.shared.make_ready() {
            Ok(()) => {}
            Err(error) if error.may_pass() => {
                tracing::warn!(%error, "starting without the database; it is waited for, requests get 503 until then");
                store.keep_trying(error)?;
            }
            Err(error) => return Err(error),
        }
        Ok(store)
    }

    fn unready(config: Config, tables: Tables) -> Result<Self, OpenError> {
        let pool = Pool::open(config.clone()).map_err(|error| OpenError::client(&config, error))?;
        let (is_ready, obstacle) = (AtomicBool::new(false), Mutex::default());
        Ok(Self { shared: Arc::new(Shared { pool, config, tables, is_ready, obstacle }) })
    }

    fn keep_trying(&self, error: OpenError) -> Result<(), OpenError> {
        self.shared.note(&error);
        // Weak: the thread ends with the store.
        let shared = Arc::downgrade(&self.shared);
        let trying = thread::Builder::new().name("snip-pg-tables".into()).spawn(move || keep_trying(&shared));
        trying.map(drop).map_err(|refused| OpenError::thread(&self.shared.config, &refused))
    }

    /// The connections, once the tables behind them can be relied on.
    fn pool(&self) -> StoreResult<&Pool> {
        if self.shared.is_ready.load(Ordering::Acquire) {
            return Ok(&self.shared.pool);
        }
        Err(StoreError::Unavailable(self.shared.obstacle().clone()))
    }
}

/// The thread's work: until the database can be used, or nobody wants it any more.
fn keep_trying(shared: &Weak<Shared>) {
    loop {
        thread::sleep(PG_SCHEMA_RETRY);
        let Some(shared) = shared.upgrade() else { return };
        match shared.make_ready() {
            Ok(()) => {
                tracing::info!(server = %shared.config, "the database is there; requests are served from now on");
                return;
            }
            Err(error) => shared.note(&error),
        }
    }
}

impl Shared {
    fn obstacle(&self) -> MutexGuard<'_, String> {
        self.obstacle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers why the database cannot be used. In the log only when it is something new.
    fn note(&self, error: &OpenError) {
        let why = error.to_string();
        let mut obstacle = self.obstacle();
        if *obstacle != why {
            tracing::error!(%error, "the database cannot be used yet");
            *obstacle = why;
        }
    }

    fn make_ready(&self) -> Result<(), OpenError> {
        let reached = self.pool.wait_ready(PG_CONNECT_TIMEOUT);
        reached.map_err(|error| OpenError::client(&self.config, error))?;
        schema::make_ready(&self.pool, &self.config, self.tables)?;
        self.is_ready.store(true, Ordering::Release);
        Ok(())
    }
}

impl ClickStore for PostgresStore {
    fn record_clicks(&self, clicks: Arc<Vec<Click>>, step: JournalStep) -> StoreResult<u64> {
        queries::record_clicks(self.pool()?, &clicks, &step)
    }

    fn batch_max(&self) -> usize {
        CLICKS_BATCH_MAX
    }

    fn journal_position(&self, journal: JournalId) -> StoreResult<Option<u64>> {
        queries::journal_position(self.pool()?, journal)
    }
}

impl Store for PostgresStore {
    fn tell(&self, figures: &mut Figures) {
        self.shared.pool.tell(figures);
    }

    fn health(&self) -> StoreResult<()> {
        queries::health(self.pool()?)
    }

    fn users(&self, page: Page) -> StoreResult<Vec<User>> {
        queries::users(self.pool()?, page)
    }

    fn user(&self, id: Id) -> StoreResult<Option<User>> {
        queries::user(self.pool()?, id)
    }

    fn create_user(&self, new: NewUser) -> StoreResult<User> {
        queries::create_user(self.pool()?, new)
    }

    fn update_user(&self, id: Id, patch: UserPatch) -> StoreResult<Option<User>> {
        queries::update_user(self.pool()?, id, &patch)
    }

    fn delete_user(&self, id: Id) -> StoreResult<bool> {
        queries::delete_user(self.pool()?, id)
    }

    fn import_users(&self, rows: Vec<NewUser>) -> StoreResult<u64> {
        queries::import_users(self.pool()?, &rows)
    }

    fn urls(&self, filter: UrlFilter, page: Page) -> StoreResult<Vec<ShortUrl>> {
        queries::urls(self.pool()?, filter, page)
    }

    fn url(&self, id: Id) -> StoreResult<Option<ShortUrl>> {
        queries::url(self.pool()?, id)
    }

    fn url_stats(&self, id: Id) -> StoreResult<Option<UrlStats>> {
        queries::url_stats(self.pool()?, id)
    }

    fn create_url(&self, new: NewUrl) -> StoreResult<ShortUrl> {
        queries::create_url(self.pool()?, new)
    }

    fn update_url(&self, id: Id, patch: UrlPatch) -> StoreResult<Option<ChangedUrl>> {
        queries::update_url(self.pool()?, id, &patch)
    }

    fn delete_url(&self, id: Id) -> StoreResult<Option<ChangedUrl>> {
        queries::delete_url(self.pool()?, id)
    }

    fn resolve(&self, code: &str) -> StoreResult<Option<Target>> {
        queries::resolve(self.pool()?, code)
    }

    fn link_changes(&self, after: Option<ChangeCursor>) -> StoreResult<Changes> {
        queries::link_changes(self.pool()?, after)
    }

    fn forget_link_changes(&self) -> StoreResult<()> {
        queries::forget_link_changes(self.pool()?)
    }

    fn links_below(&self, before: Id, limit: u32) -> StoreResult<Vec<(ShortCode, Target)>> {
        queries::links_below(self.pool()?, before, limit)
    }

    fn active_urls(&self) -> StoreResult<u64> {
        queries::active_urls(self.pool()?)
    }

    fn events(&self, filter: EventFilter, page: Page) -> StoreResult<Vec<Event>> {
        queries::events(self.pool()?, &filter, page)
    }

    fn url_events(&self, url_id: Id, page: Page) -> StoreResult<Option<Vec<Event>>> {
        queries::url_events(self.pool()?, url_id, page)
    }

    fn create_event(&self, new: NewEvent) -> StoreResult<Event> {
        queries::create_event(self.pool()?, new)
    }

    fn load(&self, data: SeedData, reset: bool) -> StoreResult<()> {
        queries::load(self.pool()?, &data, reset)
    }
}

impl From<pg::Error> for StoreError {
    fn from(error: pg::Error) -> Self {
        match &error {
            pg::Error::Busy => Self::Busy,
            pg::Error::Unavailable { .. } | pg::Error::TimedOut => Self::Unavailable(error.to_string()),
            pg::Error::Server(refusal) => refused(refusal, error.to_string()),
            pg::Error::Protocol(_) | pg::Error::Config(_) | pg::Error::Usage(_) => Self::Internal(error.to_string()),
        }
    }
}

/// By SQLSTATE (PostgreSQL manual, appendix A).
fn refused(refusal: &ServerError, text: String) -> StoreError {
    match refusal.sqlstate.as_str() {
        UNIQUE_VIOLATION => conflict(refusal).map_or(StoreError::Internal(text), StoreError::Conflict),
        // The only foreign key that a write of ours can violate is that of urls.user_id.
        FOREIGN_KEY_VIOLATION if refusal.table.as_deref() == Some("urls") => StoreError::Missing(Reference::User),
        // Rolled back, to be tried again: serialization failure, deadlock, lock not available.
        "40001" | "40P01" | "55P03" => StoreError::Busy,
        // A server that has become a replica: the next connection may lead to another.
        "25006" => StoreError::Unavailable(text),
        state if may_pass(state) => StoreError::Unavailable(text),
        _ => StoreError::Internal(text),
    }
}

const UNIQUE_VIOLATION: &str = "23505";
const FOREIGN_KEY_VIOLATION: &str = "23503";

/// Whether the server, rather than the request, is in trouble: connections (08), log-in (28), no such database (3D),
/// resources (53), intervention (57), disks (58).
fn may_pass(sqlstate: &str) -> bool {
    matches!(sqlstate.get(..2), Some("08" | "28" | "3D" | "53" | "57" | "58"))
}

/// Which column a unique index refused. In an adopted database its name may be any; but the detail, in whatever
/// language, begins with `Key (username)=(ann)`, or with an expression over the column.
fn conflict(refusal: &ServerError) -> Option<Constraint> {
    let detail = refusal.detail.as_deref().unwrap_or_default();
    let key = detail.split_once('(').and_then(|(_, key)| key.split_once(")=(")).map(|(key, _)| key);
    let names = [key, refusal.constraint.as_deref()];
    names.into_iter().flatten().find_map(|name| match refusal.table.as_deref() {
        Some("users") if name.contains("username") => Some(Constraint::Username),
        Some("users") if name.contains("email") => Some(Constraint::Email),
        Some("urls") if name.contains("short_code") => Some(Constraint::ShortCode),
        _ => None,
    })
}
