//! The statements and what they read and write.
//!
//! Ids are 64 bits wide here and 32 in the contract's tables: PostgreSQL compares the two by the same indexes, so that
//! an id too large to exist is found nowhere; what is read is widened by the statement.

use std::sync::LazyLock;

use super::columns::{ClickDetails, column};
use crate::error::{Constraint, Reference, StoreError, StoreResult};
use crate::limits::{
    HEALTH_DEADLINE, LINK_CHANGES_KEPT, LINK_CHANGES_PAGE, LINK_CHANGES_WINDOW, PER_PAGE_MAX, PG_CHUNK_BYTES,
    PG_COMMAND_DEADLINE,
};
use crate::model::event::deleted_details;
use crate::model::{
    ChangeCursor, ChangedUrl, Changes, Click, Event, EventFilter, EventType, Id, JournalId, JournalStep, LinkChange,
    NewEvent, NewUrl, NewUser, Page, ShortCode, ShortUrl, Start, Target, Timestamp, UrlFilter, UrlPatch, UrlStats,
    User, UserPatch,
};
use crate::pg::{self, Call, Lease, Pool, Row, Rows, Statement, ToSql, Type};
use crate::store::SeedData;
use crate::store::lists::{FILTERS_MARKER, combination, id_bounds, sql_offset};

/// The text of a file in `sql/postgres/`.
macro_rules! sql {
    ($name:literal) => {
        include_str!(concat!("../../../sql/postgres/", $name, ".sql"))
    };
}
pub(super) use sql;

/// The statement of a file, with the types of its parameters.
macro_rules! statement {
    ($name:literal, [$($param:ident),*]) => {
        Statement::new($name, sql!($name), &[$(Type::$param),*])
    };
}

// ---- Running a statement ---------------------------------------------------------------------------------------

type Params<'a> = &'a [&'a (dyn ToSql + Sync)];
type ReadRow<T> = fn(Row<'_>) -> pg::Result<T>;

fn read_all<T>(rows: &Rows, read: ReadRow<T>) -> StoreResult<Vec<T>> {
    Ok(rows.iter().map(read).collect::<pg::Result<_>>()?)
}

fn read_first<T>(rows: &Rows, read: ReadRow<T>) -> StoreResult<Option<T>> {
    Ok(rows.first().map(read).transpose()?)
}

fn rows<T>(pool: &Pool, statement: &Statement, params: Params<'_>, read: ReadRow<T>) -> StoreResult<Vec<T>> {
    read_all(&pool.query(statement, params)?, read)
}

fn row<T>(pool: &Pool, statement: &Statement, params: Params<'_>, read: ReadRow<T>) -> StoreResult<Option<T>> {
    read_first(&pool.query(statement, params)?, read)
}

/// A statement that always gives a row gave none.
fn no_row(statement: &Statement) -> StoreError {
    StoreError::Internal(format!("{} gave no row", statement.name()))
}

fn is_true(row: Row<'_>) -> pg::Result<bool> {
    row.get(0)
}

// ---- Reading rows ----------------------------------------------------------------------------------------------

/// A table of another program may hold nulls where ours cannot. One of them must not take a whole list away: it shows
/// as the least value.
fn text(row: Row<'_>, column: usize) -> pg::Result<String> {
    Ok(row.get::<Option<&str>>(column)?.unwrap_or_default().to_owned())
}

/// As [`text`].
fn time(row: Row<'_>, column: usize) -> pg::Result<Timestamp> {
    Ok(row.get::<Option<Timestamp>>(column)?.unwrap_or(Timestamp::from_micros(0)))
}

fn read_id(row: Row<'_>) -> pg::Result<Id> {
    row.get(0)
}

fn read_user(row: Row<'_>) -> pg::Result<User> {
    Ok(User { id: row.get(0)?, username: text(row, 1)?, email: text(row, 2)?, created_at: time(row, 3)? })
}

fn read_url(row: Row<'_>) -> pg::Result<ShortUrl> {
    Ok(ShortUrl {
        id: row.get(0)?,
        user_id: row.get(1)?,
        short_code: text(row, 2)?,
        original_url: text(row, 3)?,
        title: row.get(4)?,
        is_active: row.get(5)?,
        created_at: time(row, 6)?,
        updated_at: time(row, 7)?,
    })
}

/// The columns of a short URL, then its version.
fn read_changed(row: Row<'_>) -> pg::Result<ChangedUrl> {
    Ok(ChangedUrl { url: read_url(row)?, version: row.get(8)? })
}

fn read_url_stats(row: Row<'_>) -> pg::Result<UrlStats> {
    Ok(UrlStats { url: read_url(row)?, redirect_count: row.get(8)? })
}

fn read_target(row: Row<'_>) -> pg::Result<Target> {
    Ok(Target { url_id: row.get(0)?, user_id: row.get(1)?, version: row.get(2)?, original_url: text(row, 3)? })
}

fn read_event(row: Row<'_>) -> pg::Result<Event> {
    Ok(Event {
        id: row.get(0)?,
        url_id: row.get::<Option<_>>(1)?.unwrap_or_default(),
        user_id: row.get(2)?,
        event_type: text(row, 3)?,
        timestamp: time(row, 4)?,
        details: row.get(5)?,
    })
}

// ---- Lists -----------------------------------------------------------------------------------------------------

const PAGE_MARKER: &str = "/* page */";
const PART_MARKER: &str = "/* part */";

/// A list's statement with its markers replaced. Each combination is a statement of its own, so that each has its own
/// plan, and the plan need not be made again for each call. They are made once and live as long as the program.
fn list(name: &'static str, sql: &str, filters: &str, page: &str, params: &'static [Type]) -> Statement {
    let sql = sql.replace(FILTERS_MARKER, filters).replace(PAGE_MARKER, page);
    Statement::new(name, sql.leak(), params).read_only()
}

/// The inner limit of a page that skips no rows.
fn longest_page() -> String {
    format!("LIMIT {PER_PAGE_MAX}")
}

// ---- Store -----------------------------------------------------------------------------------------------------

static HEALTH: Statement = statement!("health", []).read_only();

pub(super) fn health(pool: &Pool) -> StoreResult<()> {
    pool.query_within(HEALTH_DEADLINE, &HEALTH, &[])?;
    Ok(())
}

// ---- Users -----------------------------------------------------------------------------------------------------

static USER_GET: Statement = statement!("user_get", [INT8]).read_only();
static USERNAME_EXISTS: Statement = statement!("username_exists", [TEXT]).read_only();
static USER_INSERT: Statement = statement!("user_insert", [TEXT, TEXT, TIMESTAMP]);
static USER_UPDATE: Statement = statement!("user_update", [INT8, TEXT, TEXT]);
static USER_LOCK: Statement = statement!("user_lock", [INT8]);
static URLS_DISOWN: Statement = statement!("urls_disown", [INT8]);
static EVENTS_DISOWN: Statement = statement!("events_disown", [INT8]);
static USER_DELETE: Statement = statement!("user_delete", [INT8]);
static USERS_IMPORT: Statement = statement!("users_import", [TEXT_ARRAY, TEXT_ARRAY, TIMESTAMP_ARRAY]);

static USERS_LIST: LazyLock<[Statement; 2]> = LazyLock::new(|| {
    let make = |page: &str| {
        let params = &[Type::INT8, Type::INT8, Type::INT8];
        list("users_list", sql!("users_list"), "", page, params)
    };
    [make(&longest_page()), make("LIMIT $2 OFFSET $3")]
});

/// The statement of a list, by whether rows are to be skipped.
pub(super) fn users_list(page: Page) -> &'static Statement {
    &USERS_LIST[usize::from(id_bounds(page).1 > 0)]
}

pub(super) fn users(pool: &Pool, page: Page) -> StoreResult<Vec<User>> {
    let (after_id, offset) = id_bounds(page);
    rows(pool, users_list(page), &[&after_id, &i64::from(page.limit), &offset], read_user)
}

pub(super) fn user(pool: &Pool, id: Id) -> StoreResult<Option<User>> {
    row(pool, &USER_GET, &[&id], read_user)
}

pub(super) fn create_user(pool: &Pool, new: NewUser) -> StoreResult<User> {
    let created_at = new.created_at.unwrap_or_else(Timestamp::now);
    let id = match row(pool, &USER_INSERT, &[&new.username, &new.email, &created_at], read_id) {
        Ok(id) => id.ok_or_else(|| no_row(&USER_INSERT))?,
        Err(error) => return Err(first_conflict(pool, &new.username, error)),
    };
    Ok(User { id, username: new.username, email: new.email, created_at })
}

/// Of a name and an address that are both taken, the name is told. PostgreSQL asks the oldest index first, which in an
/// adopted database may be that of the address.
fn first_conflict(pool: &Pool, username: &str, error: StoreError) -> StoreError {
    let is_email = error == StoreError::Conflict(Constraint::Email);
    match is_email.then(|| row(pool, &USERNAME_EXISTS, &[&username], is_true)) {
        Some(Ok(Some(true))) => StoreError::Conflict(Constraint::Username),
        _ => error,
    }
}

pub(super) fn update_user(pool: &Pool, id: Id, patch: &UserPatch) -> StoreResult<Option<User>> {
    row(pool, &USER_UPDATE, &[&id, &patch.username, &patch.email], read_user)
}

/// The statements see what was committed before each of them: rows of this user that were being written when it was
/// locked are found by the next two.
pub(super) fn delete_user(pool: &Pool, id: Id) -> StoreResult<bool> {
    let params: Params<'_> = &[&id];
    let done = pool.batch(&[
        Call::new(&USER_LOCK, params),
        Call::new(&URLS_DISOWN, params),
        Call::new(&EVENTS_DISOWN, params),
        Call::new(&USER_DELETE, params),
    ])?;
    Ok(done.last().is_some_and(|deleted| deleted.affected() > 0))
}

pub(super) fn import_users(pool: &Pool, users: &[NewUser]) -> StoreResult<u64> {
    let now = Timestamp::now();
    let chunks: Vec<_> = chunks(users, |user| user.username.len() + user.email.len()).collect();
    let [only] = chunks.as_slice() else { return import_in_chunks(pool, &chunks, now) };
    import_with(only, now, |params| pool.query(&USERS_IMPORT, params))
}

/// Of several messages, so on a connection of its own; in one transaction all the same.
fn import_in_chunks(pool: &Pool, chunks: &[&[NewUser]], now: Timestamp) -> StoreResult<u64> {
    if chunks.is_empty() {
        return Ok(0);
    }
    in_transaction(&mut pool.lease()?, |lease| {
        let mut imported = 0;
        for chunk in chunks {
            imported += import_with(chunk, now, |params| lease.query(&USERS_IMPORT, params))?;
        }
        Ok(imported)
    })
}

fn import_with(
    users: &[NewUser],
    now: Timestamp,
    query: impl FnOnce(Params<'_>) -> pg::Result<Rows>,
) -> StoreResult<u64> {
    let usernames = column(users, |user| user.username.as_str());
    let emails = column(users, |user| user.email.as_str());
    let times = column(users, |user| user.created_at.unwrap_or(now));
    Ok(query(&[&usernames, &emails, &times])?.affected())
}

// ---- Short URLs ------------------------------------------------------------------------------------------------

static URL_GET: Statement = statement!("url_get", [INT8]).read_only();
static URL_EXISTS: Statement = statement!("url_exists", [INT8]).read_only();
static URL_STATS: Statement = statement!("url_stats", [INT8]).read_only();
static URL_RESOLVE: Statement = statement!("url_resolve", [TEXT]).read_only();
pub(super) static LINKS_BELOW: Statement = statement!("links_below", [INT8, INT8]).read_only();
static LINK_CHANGES_HORIZON: Statement = statement!("link_changes_horizon", []).read_only();
static LINK_CHANGES: Statement = statement!("link_changes", [INT8, INT8, INT8]).read_only();
static LINK_CHANGES_WITHIN: Statement = statement!("link_changes_within", [FLOAT8, INT8]).read_only();
static LINK_CHANGES_FORGET: Statement = statement!("link_changes_forget", [FLOAT8]);
static URLS_COUNT_ACTIVE: Statement = statement!("urls_count_active", []).read_only();
static URL_INSERT: Statement = statement!("url_insert", [INT8, TEXT, TEXT, TEXT, TIMESTAMP, TEXT, TEXT]);
static URL_UPDATE: Statement = statement!("url_update", [INT8, TEXT, BOOL, TEXT, BOOL, TIMESTAMP, TEXT, TEXT_ARRAY]);
static URL_DEACTIVATE: Statement = statement!("url_deactivate", [INT8, TIMESTAMP, TEXT, TEXT]);

/// By filters (owner, then state), each without and with rows to be skipped.
static URLS_LIST: LazyLock<[Statement; 8]> = LazyLock::new(|| {
    std::array::from_fn(|combination| {
        let filters = [
            if combination & 1 != 0 { "AND user_id = $1 " } else { "" },
            if combination & 2 != 0 { "AND is_active = $2" } else { "" },
        ];
        let page = if combination & 4 != 0 { "LIMIT $4 OFFSET $5".to_owned() } else { longest_page() };
        let params = &[Type::INT8, Type::BOOL, Type::INT8, Type::INT8, Type::INT8];
        list("urls_list", sql!("urls_list"), &filters.concat(), &page, params)
    })
});

pub(super) fn urls_list(filter: UrlFilter, page: Page) -> &'static Statement {
    &URLS_LIST[combination([filter.user_id.is_some(), filter.is_active.is_some(), id_bounds(page).1 > 0])]
}

pub(super) fn urls(pool: &Pool, filter: UrlFilter, page: Page) -> StoreResult<Vec<ShortUrl>> {
    let (after_id, offset) = id_bounds(page);
    let params: Params<'_> = &[&filter.user_id, &filter.is_active, &after_id, &i64::from(page.limit), &offset];
    rows(pool, urls_list(filter, page), params, read_url)
}

pub(super) fn url(pool: &Pool, id: Id) -> StoreResult<Option<ShortUrl>> {
    row(pool, &URL_GET, &[&id], read_url)
}

pub(super) fn url_stats(pool: &Pool, id: Id) -> StoreResult<Option<UrlStats>> {
    row(pool, &URL_STATS, &[&id], read_url_stats)
}

pub(super) fn create_url(pool: &Pool, new: NewUrl) -> StoreResult<ShortUrl> {
    let now = Timestamp::now();
    let (event_type, details) = new.created_event();
    let params: Params<'_> =
        &[&new.user_id, &new.short_code, &new.original_url, &new.title, &now, &event_type.as_str(), &details.finish()];
    let id = row(pool, &URL_INSERT, params, read_id)?.ok_or(StoreError::Missing(Reference::User))?;
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

pub(super) fn update_url(pool: &Pool, id: Id, patch: &UrlPatch) -> StoreResult<Option<ChangedUrl>> {
    if patch.is_empty() {
        return row(pool, &URL_GET, &[&id], read_changed);
    }
    let events: Vec<String> = patch.updated_events().into_iter().map(|(_, details)| details.finish()).collect();
    let params: Params<'_> = &[
        &id,
        &patch.original_url,
        &patch.title.is_some(),
        &patch.title.clone().flatten(),
        &patch.is_active,
        &Timestamp::now(),
        &EventType::Updated.as_str(),
        &events,
    ];
    row(pool, &URL_UPDATE, params, read_changed)
}

pub(super) fn delete_url(pool: &Pool, id: Id) -> StoreResult<Option<ChangedUrl>> {
    let (event_type, details) = (EventType::Deleted.as_str(), deleted_details().finish());
    row(pool, &URL_DEACTIVATE, &[&id, &Timestamp::now(), &event_type, &details], read_changed)
}

/// The hottest statement: one row by the unique index.
pub(super) fn resolve(pool: &Pool, code: &str) -> StoreResult<Option<Target>> {
    if !is_storable(code) {
        return Ok(None);
    }
    row(pool, &URL_RESOLVE, &[&code], read_target)
}

pub(super) fn links_below(pool: &Pool, before: Id, limit: u32) -> StoreResult<Vec<(ShortCode, Target)>> {
    rows(pool, &LINKS_BELOW, &[&before, &i64::from(limit)], |row| Ok((text(row, 4)?, read_target(row)?)))
}

/// The horizon is asked for before the entries, by a statement of its own: what commits between the two is read twice.
pub(super) fn link_changes(pool: &Pool, after: Option<ChangeCursor>) -> StoreResult<Changes> {
    let (after, limit) = (after, i64::from(LINK_CHANGES_PAGE));
    let from = after.unwrap_or_default();
    let window = LINK_CHANGES_WINDOW.as_secs_f64();
    let read_on: Params<'_> = &[&from.horizon, &from.sequence, &limit];
    let begin: Params<'_> = &[&window, &limit];
    let entries = match after {
        Some(_) => Call::new(&LINK_CHANGES, read_on),
        None => Call::new(&LINK_CHANGES_WITHIN, begin),
    };
    let answers = pool.batch(&[Call::new(&LINK_CHANGES_HORIZON, &[]), entries])?;
    let [horizon, entries] = answers.as_slice() else { return Err(no_row(&LINK_CHANGES_HORIZON)) };
    let horizon = read_first(horizon, read_id)?.ok_or_else(|| no_row(&LINK_CHANGES_HORIZON))?;
    let found = read_all(entries, |row| {
        let sequence: i64 = row.get(0)?;
        Ok((sequence, LinkChange { short_code: text(row, 1)?, version: row.get(2)? }))
    })?;
    let is_end = found.len() < LINK_CHANGES_PAGE as usize;
    // The first part of a reading decides from where the next reading goes on.
    let next_horizon = if from.sequence == 0 { horizon } else { from.next_horizon };
    let next = match found.last() {
        Some((sequence, _)) if !is_end => ChangeCursor { sequence: *sequence, next_horizon, horizon: from.horizon },
        _ => ChangeCursor { horizon: next_horizon, ..ChangeCursor::default() },
    };
    Ok(Changes { changes: found.into_iter().map(|(_, change)| change).collect(), next, is_end })
}

pub(super) fn forget_link_changes(pool: &Pool) -> StoreResult<()> {
    pool.query(&LINK_CHANGES_FORGET, &[&LINK_CHANGES_KEPT.as_secs_f64()])?;
    Ok(())
}

/// PostgreSQL's text has no NUL: what holds one is not there, and to ask would be an error.
fn is_storable(text: &str) -> bool {
    !text.contains('\0')
}

pub(super) fn active_urls(pool: &Pool) -> StoreResult<u64> {
    let count = row(pool, &URLS_COUNT_ACTIVE, &[], read_id)?;
    Ok(count.map_or(0, i64::unsigned_abs))
}

// ---- Events ----------------------------------------------------------------------------------------------------

static EVENT_INSERT: Statement = statement!("event_insert", [INT8, INT8, TEXT, TIMESTAMP, TEXT]);
static CLICKS_LOCK_OWNERS: Statement = statement!("clicks_lock_owners", [INT8_ARRAY]);
static CLICKS_INSERT: Statement = statement!(
    "clicks_insert",
    [
        INT8_ARRAY,
        INT8_ARRAY,
        TIMESTAMP_ARRAY,
        TEXT_ARRAY,
        TEXT_ARRAY,
        TEXT,
        TEXT,
        INT8,
        INT8,
        TIMESTAMP,
        INT8_ARRAY,
        INT8_ARRAY,
        INT8_ARRAY
    ]
);
static JOURNAL_BEGIN: Statement = statement!("journal_begin", [TEXT, TEXT, TIMESTAMP]);
static JOURNAL_POSITION: Statement = statement!("journal_position", [TEXT]);

const BEHIND: &str = "AND (timestamp, id) < ((SELECT timestamp FROM events WHERE id = $4), $4)";

/// What a list says of the type. The literals tell the server which of the partial indexes will do.
const TYPE_FILTERS: [&str; 3] =
    ["", "AND event_type = 'redirect' ", "AND event_type = $3 AND event_type <> 'redirect' "];

/// By filters (URL, user), by what is said of the type, and each from the first row, with rows to be skipped, and behind a
/// row.
static EVENTS_LIST: LazyLock<[[[Statement; 4]; 3]; 3]> = LazyLock::new(|| {
    let longest = longest_page();
    [("", longest.as_str()), ("", "LIMIT $5 OFFSET $6"), (BEHIND, longest.as_str())].map(|(behind, page)| {
        TYPE_FILTERS
            .map(|of_type| std::array::from_fn(|combination| make_events_list(combination, of_type, behind, page)))
    })
});

/// Of several filters the server knows by its statistics which is the most selective.
fn make_events_list(combination: usize, of_type: &str, behind: &str, page: &str) -> Statement {
    let filters = [
        if combination & 1 != 0 { "AND url_id = $1 " } else { "" },
        if combination & 2 != 0 { "AND user_id = $2 " } else { "" },
        of_type,
        behind,
    ];
    let params = &[Type::INT8, Type::INT8, Type::TEXT, Type::INT8, Type::INT8, Type::INT8];
    if filters[..3].iter().all(|filter| filter.is_empty()) {
        // The sum is a bigint too, whatever page was asked for.
        let part = if page.contains("OFFSET") { "LIMIT $5 + least($6, 9223372036854775807 - $5)" } else { page };
        let page = if page.contains("OFFSET") { page } else { "LIMIT $5" };
        return list("events_list_all", &sql!("events_list_all").replace(PART_MARKER, part), behind, page, params);
    }
    list("events_list", sql!("events_list"), &filters.concat(), page, params)
}

pub(super) fn events_list(filter: &EventFilter, page: Page) -> &'static Statement {
    let kind = match page.start {
        Start::Offset(0) => 0,
        Start::Offset(_) => 1,
        Start::AfterId(_) => 2,
    };
    let of_type = match filter.event_type.as_deref() {
        None => 0,
        Some(name) if name == EventType::Redirect.as_str() => 1,
        Some(_) => 2,
    };
    &EVENTS_LIST[kind][of_type][combination([filter.url_id.is_some(), filter.user_id.is_some()])]
}

/// Hands a list's statement and parameters over to `run`.
fn with_events_list<T>(filter: &EventFilter, page: Page, run: impl FnOnce(Call<'_>) -> T) -> T {
    let (behind, offset) = match page.start {
        Start::Offset(rows) => (None, sql_offset(rows)),
        Start::AfterId(id) => (Some(id), 0),
    };
    let limit = i64::from(page.limit);
    let params: Params<'_> = &[&filter.url_id, &filter.user_id, &filter.event_type, &behind, &limit, &offset];
    run(Call::new(events_list(filter, page), params))
}

pub(super) fn events(pool: &Pool, filter: &EventFilter, page: Page) -> StoreResult<Vec<Event>> {
    if !filter.event_type.as_deref().is_none_or(is_storable) {
        return Ok(Vec::new());
    }
    let found = with_events_list(filter, page, |list| pool.batch(&[list]))?;
    found.first().map_or_else(|| Ok(Vec::new()), |rows| read_all(rows, read_event))
}

pub(super) fn url_events(pool: &Pool, url_id: Id, page: Page) -> StoreResult<Option<Vec<Event>>> {
    let filter = EventFilter { url_id: Some(url_id), ..EventFilter::default() };
    let found = with_events_list(&filter, page, |list| pool.batch(&[Call::new(&URL_EXISTS, &[&url_id]), list]))?;
    let [exists, events] = found.as_slice() else { return Err(no_row(&URL_EXISTS)) };
    if read_first(exists, is_true)? != Some(true) {
        return Ok(None);
    }
    read_all(events, read_event).map(Some)
}

pub(super) fn create_event(pool: &Pool, new: NewEvent) -> StoreResult<Event> {
    let timestamp = Timestamp::now();
    let params: Params<'_> = &[&new.url_id, &new.user_id, &new.event_type, &timestamp, &new.details];
    let made = row(pool, &EVENT_INSERT, params, |row| Ok((row.get(0)?, row.get(1)?)))?;
    let (id, url_exists): (Option<Id>, bool) = made.ok_or_else(|| no_row(&EVENT_INSERT))?;
    let missing = if url_exists { Reference::User } else { Reference::Url };
    Ok(Event {
        id: id.ok_or(StoreError::Missing(missing))?,
        url_id: new.url_id,
        user_id: new.user_id,
        event_type: new.event_type,
        timestamp,
        details: new.details,
    })
}

pub(super) fn record_clicks(pool: &Pool, clicks: &[Click], step: &JournalStep) -> StoreResult<u64> {
    let sorted = Click::by_owner(clicks);
    let mut owners: Vec<Id> = sorted.iter().filter_map(|click| click.user_id).collect();
    owners.dedup();
    let (counted, counts) = counts(&sorted);
    let (journal, instance, now) = (step.journal.to_string(), step.instance.as_ref(), Timestamp::now());
    let (from, to) = (step.from.cast_signed(), step.to.cast_signed()); // SQL has no other integers; bits are bits
    let insert: Params<'_> = &[
        &column(&sorted, |click| click.url_id),
        &column(&sorted, |click| click.user_id),
        &column(&sorted, |click| click.at),
        &column(&sorted, |click| ClickDetails(click)),
        &column(&sorted, |click| click.referrer.as_deref()),
        &journal,
        &instance,
        &from,
        &to,
        &now,
        &counted,
        &counts,
        &owners,
    ];
    let begin: Params<'_> = &[&journal, &instance, &now];
    let (lock, position): (Params<'_>, Params<'_>) = (&[&owners], &[&journal]);
    let calls = [
        Call::new(&JOURNAL_BEGIN, begin),
        Call::new(&CLICKS_LOCK_OWNERS, lock),
        Call::new(&CLICKS_INSERT, insert),
        Call::new(&JOURNAL_POSITION, position),
    ];
    let is_first = step.from == JournalStep::UNKNOWN;
    let outcome = pool.batch(if is_first { &calls } else { &calls[1..] })?;
    let position = outcome.last().map(|rows| read_first(rows, read_id)).transpose()?.flatten();
    Ok(position.map_or(JournalStep::UNKNOWN, i64::cast_unsigned))
}

/// The URLs in the order of their ids, each once, and how many clicks each has got. Those of a URL lie together as a rule, so
/// that few runs are left to be sorted; a URL that has got another owner meanwhile has two.
fn counts(sorted: &[&Click]) -> (Vec<Id>, Vec<i64>) {
    let same_url = |one: &&Click, other: &&Click| one.url_id == other.url_id;
    let mut runs: Vec<(Id, i64)> = sorted.chunk_by(same_url).map(|run| (run[0].url_id, run.len() as i64)).collect();
    runs.sort_unstable();
    let sum = |same: &[(Id, i64)]| (same[0].0, same.iter().map(|(_, count)| count).sum::<i64>());
    runs.chunk_by(|one, other| one.0 == other.0).map(sum).unzip()
}

pub(super) fn journal_position(pool: &Pool, journal: JournalId) -> StoreResult<Option<u64>> {
    Ok(row(pool, &JOURNAL_POSITION, &[&journal.to_string()], read_id)?.map(i64::cast_unsigned))
}

// ---- Seed ------------------------------------------------------------------------------------------------------

static STORE_LOCK: Statement = statement!("store_lock", []);
static STORE_CLEAR: Statement = statement!("store_clear", []);
static STORE_HAS_ROWS: Statement = statement!("store_has_rows", []);
static USERS_LOAD: Statement = statement!("users_load", [INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TIMESTAMP_ARRAY]);
static URLS_LOAD: Statement = statement!(
    "urls_load",
    [INT8_ARRAY, INT8_ARRAY, TEXT_ARRAY, TEXT_ARRAY, TEXT_ARRAY, BOOL_ARRAY, TIMESTAMP_ARRAY, TIMESTAMP_ARRAY]
);
static EVENTS_LOAD: Statement =
    statement!("events_load", [INT8_ARRAY, INT8_ARRAY, INT8_ARRAY, TEXT_ARRAY, TIMESTAMP_ARRAY, TEXT_ARRAY]);
static STATS_CLEAR: Statement = statement!("stats_clear", []);
static STATS_COUNT: Statement = statement!("stats_count", []);
static IDS_FOLLOW: Statement = statement!("ids_follow", []);

pub(super) fn load(pool: &Pool, data: &SeedData, reset: bool) -> StoreResult<()> {
    let mut lease = pool.lease()?;
    lease.set_limit(PG_COMMAND_DEADLINE);
    in_transaction(&mut lease, |lease| {
        lease.query(&STORE_LOCK, &[])?;
        if reset {
            lease.query(&STORE_CLEAR, &[])?;
        } else if read_first(&lease.query(&STORE_HAS_ROWS, &[])?, is_true)? == Some(true) {
            return Err(StoreError::NotEmpty);
        }
        load_users(lease, &data.users)?;
        load_urls(lease, &data.urls)?;
        load_events(lease, &data.events)?;
        // A plain client's TRUNCATE of events, of which triggers hear nothing, may have left counts.
        lease.query(&STATS_CLEAR, &[])?;
        lease.query(&STATS_COUNT, &[])?;
        lease.query(&IDS_FOLLOW, &[])?;
        Ok(())
    })
}

/// Commits what `work` did. After an error the lease is of no further use: dropping it rolls back.
fn in_transaction<T>(lease: &mut Lease, work: impl FnOnce(&mut Lease) -> StoreResult<T>) -> StoreResult<T> {
    lease.script("BEGIN")?;
    let done = work(lease)?;
    lease.script("COMMIT")?;
    Ok(done)
}

fn load_users(lease: &mut Lease, users: &[User]) -> StoreResult<()> {
    for users in chunks(users, |user| user.username.len() + user.email.len()) {
        let ids = column(users, |user| user.id);
        let usernames = column(users, |user| user.username.as_str());
        let emails = column(users, |user| user.email.as_str());
        let times = column(users, |user| user.created_at);
        lease.query(&USERS_LOAD, &[&ids, &usernames, &emails, &times])?;
    }
    Ok(())
}

fn load_urls(lease: &mut Lease, urls: &[ShortUrl]) -> StoreResult<()> {
    for urls in chunks(urls, |url| url.original_url.len() + url.title.as_ref().map_or(0, String::len)) {
        let ids = column(urls, |url| url.id);
        let user_ids = column(urls, |url| url.user_id);
        let codes = column(urls, |url| url.short_code.as_str());
        let originals = column(urls, |url| url.original_url.as_str());
        let titles = column(urls, |url| url.title.as_deref());
        let actives = column(urls, |url| url.is_active);
        let (created, updated) = (column(urls, |url| url.created_at), column(urls, |url| url.updated_at));
        lease.query(&URLS_LOAD, &[&ids, &user_ids, &codes, &originals, &titles, &actives, &created, &updated])?;
    }
    Ok(())
}

fn load_events(lease: &mut Lease, events: &[Event]) -> StoreResult<()> {
    for events in chunks(events, |event| event.event_type.len() + event.details.as_ref().map_or(0, String::len)) {
        let ids = column(events, |event| event.id);
        let url_ids = column(events, |event| event.url_id);
        let user_ids = column(events, |event| event.user_id);
        let types = column(events, |event| event.event_type.as_str());
        let times = column(events, |event| event.timestamp);
        let details = column(events, |event| event.details.as_deref());
        lease.query(&EVENTS_LOAD, &[&ids, &url_ids, &user_ids, &types, &times, &details])?;
    }
    Ok(())
}

/// What a row takes in a message beside its texts, about.
const ROW_BYTES: usize = 100;

/// Cuts rows into pieces of about [`PG_CHUNK_BYTES`], in order.
fn chunks<T>(rows: &[T], text_bytes: impl Fn(&T) -> usize) -> impl Iterator<Item = &[T]> {
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|row| {
            bytes += text_bytes(row) + ROW_BYTES;
            bytes <= PG_CHUNK_BYTES
        });
        // A row that is too long for a piece is one by itself.
        let count = fitting.count().max(1).min(rest.len());
        let (chunk, left) = rest.split_at(count);
        rest = left;
        (!chunk.is_empty()).then_some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_hold_every_row_once() {
        let check = |sizes: &[usize], expect: &[usize]| {
            let lengths: Vec<usize> = chunks(sizes, |size| size - ROW_BYTES).map(<[usize]>::len).collect();
            assert_eq!(lengths, expect, "{sizes:?}");
        };
        let (all, half) = (PG_CHUNK_BYTES, PG_CHUNK_BYTES / 2);
        check(&[], &[]);
        check(&[all], &[1]);
        check(&[half, half, 200], &[2, 1]);
        check(&[all + 1, 200, 2 * all], &[1, 1, 1]);
        check(&[200; 3], &[3]);
    }
}
