//! The statements and what they read and write. Each function is one job: it may fail half way, its savepoint undoes
//! it.

use std::sync::LazyLock;

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Params, Row, params};

use crate::error::{Reference, StoreError, StoreResult};
use crate::limits::{LINK_CHANGES_KEPT, LINK_CHANGES_PAGE, LINK_CHANGES_WINDOW};
use crate::model::Start;
use crate::model::event::{Details, deleted_details};
use crate::model::{
    ChangeCursor, ChangedUrl, Changes, Click, Event, EventFilter, EventType, Id, JournalId, JournalStep, LinkChange,
    NewEvent, NewUrl, NewUser, Page, ShortCode, ShortUrl, Target, Timestamp, UrlFilter, UrlPatch, UrlStats, User,
    UserPatch,
};
use crate::store::SeedData;
use crate::store::lists::{FILTERS_MARKER, combination, id_bounds, sql_offset};

/// The text of a file in `sql/sqlite/`.
macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("../../../sql/sqlite/", $name, ".sql"))
    };
}
pub(super) use sql;

// ---- Running a statement ---------------------------------------------------------------------------------------

type ReadRow<T> = fn(&Row<'_>) -> rusqlite::Result<T>;

fn rows<T>(db: &Connection, sql: &str, params: impl Params, read: ReadRow<T>) -> StoreResult<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map(params, read)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

fn row<T>(db: &Connection, sql: &str, params: impl Params, read: ReadRow<T>) -> StoreResult<Option<T>> {
    Ok(db.prepare_cached(sql)?.query_row(params, read).optional()?)
}

fn is_true(db: &Connection, sql: &str, params: impl Params) -> StoreResult<bool> {
    Ok(row(db, sql, params, |row| row.get(0))?.unwrap_or(false))
}

/// Runs a statement that returns no rows; tells how many it changed.
fn change(db: &Connection, sql: &str, params: impl Params) -> StoreResult<usize> {
    Ok(db.prepare_cached(sql)?.execute(params)?)
}

// ---- Reading rows ----------------------------------------------------------------------------------------------

/// A plain SQL client may have written anything. One bad time must not take a whole list away: it shows as 1970.
fn timestamp(row: &Row<'_>, column: usize) -> rusqlite::Result<Timestamp> {
    let text = row.get_ref(column)?.as_str().ok();
    Ok(text.and_then(Timestamp::parse).unwrap_or(Timestamp::from_micros(0)))
}

fn read_user(row: &Row<'_>) -> rusqlite::Result<User> {
    Ok(User { id: row.get(0)?, username: row.get(1)?, email: row.get(2)?, created_at: timestamp(row, 3)? })
}

fn read_url(row: &Row<'_>) -> rusqlite::Result<ShortUrl> {
    Ok(ShortUrl {
        id: row.get(0)?,
        user_id: row.get(1)?,
        short_code: row.get(2)?,
        original_url: row.get(3)?,
        title: row.get(4)?,
        is_active: row.get(5)?,
        created_at: timestamp(row, 6)?,
        updated_at: timestamp(row, 7)?,
    })
}

/// The columns of a short URL, then its version.
fn read_changed(row: &Row<'_>) -> rusqlite::Result<ChangedUrl> {
    Ok(ChangedUrl { url: read_url(row)?, version: row.get(8)? })
}

fn read_event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: row.get(0)?,
        url_id: row.get(1)?,
        user_id: row.get(2)?,
        event_type: row.get(3)?,
        timestamp: timestamp(row, 4)?,
        details: row.get(5)?,
    })
}

// ---- Store -----------------------------------------------------------------------------------------------------

pub(super) fn health(db: &Connection) -> StoreResult<()> {
    is_true(db, sql!("health"), []).map(|_| ())
}

// ---- Users -----------------------------------------------------------------------------------------------------

pub(super) fn users(db: &Connection, page: Page) -> StoreResult<Vec<User>> {
    let (after_id, offset) = id_bounds(page);
    rows(db, sql!("users_list"), params![after_id, page.limit, offset], read_user)
}

pub(super) fn user(db: &Connection, id: Id) -> StoreResult<Option<User>> {
    row(db, sql!("user_get"), [id], read_user)
}

fn user_exists(db: &Connection, id: Id) -> StoreResult<bool> {
    is_true(db, sql!("user_exists"), [id])
}

pub(super) fn create_user(db: &Connection, new: NewUser) -> StoreResult<User> {
    let created_at = new.created_at.unwrap_or_else(Timestamp::now);
    change(db, sql!("user_insert"), params![new.username, new.email, created_at.sql_text()])?;
    Ok(User { id: db.last_insert_rowid(), username: new.username, email: new.email, created_at })
}

pub(super) fn update_user(db: &Connection, id: Id, patch: &UserPatch) -> StoreResult<Option<User>> {
    row(db, sql!("user_update"), params![id, patch.username, patch.email], read_user)
}

pub(super) fn delete_user(db: &Connection, id: Id) -> StoreResult<bool> {
    if !user_exists(db, id)? {
        return Ok(false);
    }
    change(db, sql!("urls_disown"), [id])?;
    change(db, sql!("events_disown"), [id])?;
    Ok(change(db, sql!("user_delete"), [id])? > 0)
}

pub(super) fn import_users(db: &Connection, users: &[NewUser]) -> StoreResult<u64> {
    let now = Timestamp::now();
    let mut imported = 0;
    for user in users {
        let created_at = user.created_at.unwrap_or(now).sql_text();
        imported += change(db, sql!("user_import"), params![user.username, user.email, created_at])?;
    }
    Ok(imported as u64)
}

// ---- Short URLs ------------------------------------------------------------------------------------------------

/// One statement for each combination of filters, so that each has its own plan: `?1 IS NULL OR user_id = ?1` would
/// keep SQLite from using an index. The unary plus leaves a term to be checked row by row, where a more selective index
/// is at hand: without statistics SQLite cannot know which that is.
static URLS_LIST: LazyLock<[String; 4]> = LazyLock::new(|| {
    std::array::from_fn(|combination| {
        let filters = match (combination & 1 != 0, combination & 2 != 0) {
            (false, false) => "",
            (true, false) => "AND user_id = ?1",
            (false, true) => "AND is_active = ?2",
            (true, true) => "AND user_id = ?1 AND +is_active = ?2",
        };
        sql!("urls_list").replace(FILTERS_MARKER, filters)
    })
});

pub(super) fn urls_list(filter: UrlFilter) -> &'static str {
    &URLS_LIST[combination([filter.user_id.is_some(), filter.is_active.is_some()])]
}

pub(super) fn urls(db: &Connection, filter: UrlFilter, page: Page) -> StoreResult<Vec<ShortUrl>> {
    let (after_id, offset) = id_bounds(page);
    let params = params![filter.user_id, filter.is_active, after_id, page.limit, offset];
    rows(db, urls_list(filter), params, read_url)
}

pub(super) fn url(db: &Connection, id: Id) -> StoreResult<Option<ShortUrl>> {
    row(db, sql!("url_get"), [id], read_url)
}

fn url_exists(db: &Connection, id: Id) -> StoreResult<bool> {
    is_true(db, sql!("url_exists"), [id])
}

pub(super) fn url_stats(db: &Connection, id: Id) -> StoreResult<Option<UrlStats>> {
    row(db, sql!("url_stats"), [id], |row| Ok(UrlStats { url: read_url(row)?, redirect_count: row.get(8)? }))
}

pub(super) fn create_url(db: &Connection, new: NewUrl) -> StoreResult<ShortUrl> {
    let now = Timestamp::now();
    let insert = params![new.user_id, new.short_code, new.original_url, new.title, now.sql_text()];
    change(db, sql!("url_insert"), insert)?;
    let id = db.last_insert_rowid();
    write_events(db, id, new.user_id, now, [new.created_event()])?;
    Ok(ShortUrl {
        id,
        user_id: new.user_id,
        short_code: new.short_code,
        original_url: new.original_url,
        title: new.title,
        is_active: true,
        created_at: now,
        updated_at: now,
    })
}

pub(super) fn update_url(db: &Connection, id: Id, patch: &UrlPatch) -> StoreResult<Option<ChangedUrl>> {
    if patch.is_empty() {
        return row(db, sql!("url_get"), [id], read_changed);
    }
    let now = Timestamp::now();
    let update = params![id, patch.original_url, patch.title.is_some(), patch.title, patch.is_active, now.sql_text()];
    let Some(changed) = row(db, sql!("url_update"), update, read_changed)? else { return Ok(None) };
    write_events(db, id, changed.url.user_id, now, patch.updated_events())?;
    Ok(Some(changed))
}

pub(super) fn delete_url(db: &Connection, id: Id) -> StoreResult<Option<ChangedUrl>> {
    let now = Timestamp::now();
    let deactivate = params![id, now.sql_text()];
    let Some(changed) = row(db, sql!("url_deactivate"), deactivate, read_changed)? else { return Ok(None) };
    write_events(db, id, changed.url.user_id, now, [(EventType::Deleted, deleted_details())])?;
    Ok(Some(changed))
}

/// The columns of a target, from `first` on: id, user_id, version, original_url.
fn read_target(row: &Row<'_>, first: usize) -> rusqlite::Result<Target> {
    Ok(Target {
        url_id: row.get(first)?,
        user_id: row.get(first + 1)?,
        version: row.get(first + 2)?,
        original_url: row.get(first + 3)?,
    })
}

pub(super) fn resolve(db: &Connection, code: &str) -> StoreResult<Option<Target>> {
    row(db, sql!("url_resolve"), [code], |row| read_target(row, 0))
}

pub(super) fn links_below(db: &Connection, before: Id, limit: u32) -> StoreResult<Vec<(ShortCode, Target)>> {
    rows(db, sql!("links_below"), params![before, limit], |row| Ok((row.get(0)?, read_target(row, 1)?)))
}

/// SQLite has one writer at a time, so that the order of the list is the order of the commits.
pub(super) fn link_changes(db: &Connection, after: Option<ChangeCursor>) -> StoreResult<Changes> {
    let mut next = match after {
        Some(after) => after,
        None => {
            let begin = ago(LINK_CHANGES_WINDOW).sql_text();
            let sequence: Option<i64> = row(db, sql!("link_changes_before"), [begin], |row| row.get(0))?;
            ChangeCursor { sequence: sequence.unwrap_or(0), ..ChangeCursor::default() }
        }
    };
    let found = rows(db, sql!("link_changes"), params![next.sequence, LINK_CHANGES_PAGE], |row| {
        Ok((row.get::<_, i64>(0)?, LinkChange { short_code: row.get(1)?, version: row.get(2)? }))
    })?;
    next.sequence = found.last().map_or(next.sequence, |(sequence, _)| *sequence);
    let is_end = found.len() < LINK_CHANGES_PAGE as usize;
    Ok(Changes { changes: found.into_iter().map(|(_, change)| change).collect(), next, is_end })
}

pub(super) fn forget_link_changes(db: &Connection) -> StoreResult<()> {
    change(db, sql!("link_changes_forget"), [ago(LINK_CHANGES_KEPT).sql_text()]).map(drop)
}

fn ago(time: std::time::Duration) -> Timestamp {
    Timestamp::from_micros(Timestamp::now().micros() - i64::try_from(time.as_micros()).unwrap_or(0))
}

pub(super) fn active_urls(db: &Connection) -> StoreResult<u64> {
    let count: Option<i64> = row(db, sql!("urls_count_active"), [], |row| row.get(0))?;
    Ok(count.map_or(0, i64::unsigned_abs))
}

// ---- Events ----------------------------------------------------------------------------------------------------

const SOURCE_MARKER: &str = "/* source */";
/// Where a list of all events comes from: the redirects are found by the index on the type, the others have one by time,
/// and SQLite merges the two.
const ALL_EVENTS: &str = "(SELECT * FROM events WHERE event_type = 'redirect' \
    UNION ALL SELECT * FROM events WHERE event_type IS NOT 'redirect')";

/// As for the short URLs. Of several filters the URL's index is the most selective, then the user's.
static EVENTS_LIST: LazyLock<[String; 8]> = LazyLock::new(|| {
    std::array::from_fn(|combination| {
        let (url, user, event_type) = (combination & 1 != 0, combination & 2 != 0, combination & 4 != 0);
        let filters = [
            if url { "AND url_id = ?1" } else { "" },
            match (user, url) {
                (false, _) => "",
                (true, false) => " AND user_id = ?2",
                (true, true) => " AND +user_id = ?2",
            },
            match (event_type, url || user) {
                (false, _) => "",
                (true, false) => " AND event_type = ?3",
                (true, true) => " AND +event_type = ?3",
            },
        ];
        let source = if combination == 0 { ALL_EVENTS } else { "events" };
        sql!("events_list").replace(SOURCE_MARKER, source).replace(FILTERS_MARKER, &filters.concat())
    })
});

pub(super) fn events_list(filter: &EventFilter) -> &'static str {
    &EVENTS_LIST[combination([filter.url_id.is_some(), filter.user_id.is_some(), filter.event_type.is_some()])]
}

/// Where a list that counts down begins: the row it is behind, and how many rows to leave out.
struct Behind {
    timestamp: Value,
    id: Id,
    offset: i64,
}

/// `None` when the row to begin behind does not exist: then nothing is behind it.
fn behind(db: &Connection, start: Start) -> StoreResult<Option<Behind>> {
    match start {
        // SQLite sorts any blob after any text: all rows are behind the empty one.
        Start::Offset(rows) => {
            let offset = sql_offset(rows);
            Ok(Some(Behind { timestamp: Value::Blob(Vec::new()), id: Id::MAX, offset }))
        }
        Start::AfterId(id) => {
            // As it is stored: a time of a plain SQL client need not be one that we read.
            let timestamp = row(db, sql!("event_timestamp"), [id], |row| row.get(0))?;
            Ok(timestamp.map(|timestamp| Behind { timestamp, id, offset: 0 }))
        }
    }
}

pub(super) fn events(db: &Connection, filter: &EventFilter, page: Page) -> StoreResult<Vec<Event>> {
    let Some(behind) = behind(db, page.start)? else { return Ok(Vec::new()) };
    let params = params![
        filter.url_id,
        filter.user_id,
        filter.event_type,
        behind.timestamp,
        behind.id,
        page.limit,
        behind.offset
    ];
    rows(db, events_list(filter), params, read_event)
}

pub(super) fn url_events(db: &Connection, url_id: Id, page: Page) -> StoreResult<Option<Vec<Event>>> {
    if !url_exists(db, url_id)? {
        return Ok(None);
    }
    let filter = EventFilter { url_id: Some(url_id), ..EventFilter::default() };
    events(db, &filter, page).map(Some)
}

pub(super) fn create_event(db: &Connection, new: NewEvent) -> StoreResult<Event> {
    if !url_exists(db, new.url_id)? {
        return Err(StoreError::Missing(Reference::Url));
    }
    if let Some(user_id) = new.user_id
        && !user_exists(db, user_id)?
    {
        return Err(StoreError::Missing(Reference::User));
    }
    let timestamp = Timestamp::now();
    let insert = params![new.url_id, new.user_id, new.event_type, timestamp.sql_text(), new.details];
    change(db, sql!("event_insert"), insert)?;
    Ok(Event {
        id: db.last_insert_rowid(),
        url_id: new.url_id,
        user_id: new.user_id,
        event_type: new.event_type,
        timestamp,
        details: new.details,
    })
}

fn write_events(
    db: &Connection,
    url_id: Id,
    user_id: Option<Id>,
    at: Timestamp,
    events: impl IntoIterator<Item = (EventType, Details)>,
) -> StoreResult<()> {
    let at = at.sql_text();
    for (event_type, details) in events {
        let insert = params![url_id, user_id, event_type.as_str(), at, details.finish()];
        change(db, sql!("event_insert"), insert)?;
    }
    Ok(())
}

pub(super) fn record_clicks(db: &Connection, clicks: &[Click], step: &JournalStep) -> StoreResult<u64> {
    if !move_journal(db, step)? {
        return Ok(journal_position(db, step.journal)?.unwrap_or(JournalStep::UNKNOWN));
    }
    let event_type = EventType::Redirect.as_str();
    let mut insert = db.prepare_cached(sql!("click_insert"))?;
    let mut details = String::new();
    for click in Click::by_owner(clicks) {
        let at = click.at.sql_text();
        details.clear();
        click.write_details(&mut details);
        insert.execute(params![click.url_id, click.user_id, event_type, at, details, click.referrer])?;
    }
    Ok(step.to)
}

/// Whether the journal was where the step says and now is where the step leads.
fn move_journal(db: &Connection, step: &JournalStep) -> StoreResult<bool> {
    let (journal, at) = (step.journal.to_string(), Timestamp::now().sql_text());
    let (from, to) = (step.from.cast_signed(), step.to.cast_signed()); // SQL has no other integers; bits are bits
    let changed = match step.from {
        JournalStep::UNKNOWN => change(db, sql!("journal_begin"), params![journal, step.instance, to, at])?,
        _ => change(db, sql!("journal_move"), params![journal, step.instance, from, to, at])?,
    };
    Ok(changed == 1)
}

pub(super) fn journal_position(db: &Connection, journal: JournalId) -> StoreResult<Option<u64>> {
    Ok(row(db, sql!("journal_position"), [journal.to_string()], |row| row.get(0))?.map(i64::cast_unsigned))
}

// ---- Seed ------------------------------------------------------------------------------------------------------

pub(super) fn load(db: &Connection, data: &SeedData, reset: bool) -> StoreResult<()> {
    if reset {
        db.execute_batch(sql!("store_clear"))?;
    } else if is_true(db, sql!("store_has_rows"), [])? {
        return Err(StoreError::NotEmpty);
    }
    for user in &data.users {
        let insert = params![user.id, user.username, user.email, user.created_at.sql_text()];
        change(db, sql!("user_load"), insert)?;
    }
    data.urls.iter().try_for_each(|url| load_url(db, url))?;
    data.events.iter().try_for_each(|event| load_event(db, event))
}

fn load_url(db: &Connection, url: &ShortUrl) -> StoreResult<()> {
    let (created_at, updated_at) = (url.created_at.sql_text(), url.updated_at.sql_text());
    let insert = params![
        url.id,
        url.user_id,
        url.short_code,
        url.original_url,
        url.title,
        url.is_active,
        created_at,
        updated_at
    ];
    change(db, sql!("url_load"), insert).map(|_| ())
}

fn load_event(db: &Connection, event: &Event) -> StoreResult<()> {
    let at = event.timestamp.sql_text();
    let insert = params![event.id, event.url_id, event.user_id, event.event_type, at, event.details];
    change(db, sql!("event_load"), insert).map(|_| ())
}
