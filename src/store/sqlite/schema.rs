//! Opening the file: its settings, its schema, and what people are told when it cannot be had.

use std::fmt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, Transaction, TransactionBehavior};

use super::queries::sql;
use crate::limits::{SQLITE_LOCK_WAIT, SQLITE_PAGE_CACHE_KIB, SQLITE_STATEMENTS, SQLITE_WAL_KEPT_BYTES};

/// In order; the number of those that ran is the schema's version, kept in `PRAGMA user_version`.
const MIGRATIONS: [&str; 6] = [
    sql!("0001_tables"),
    sql!("0002_url_stats"),
    sql!("0003_url_versions"),
    sql!("0004_click_journals"),
    sql!("0005_cheaper_clicks"),
    sql!("0006_cheaper_counts"),
];
/// The schema's version when all have run, in the type of the pragma.
const NEWEST: i32 = MIGRATIONS.len() as i32;

/// Why a store could not be opened, in one line for people.
#[derive(Debug)]
pub struct OpenError {
    path: PathBuf,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Folder(std::io::Error),
    NotWritable,
    NotADatabase,
    Newer { version: i32 },
    Locked,
    Thread(String),
    Other(rusqlite::Error),
}

impl OpenError {
    /// The operating system gave no thread.
    pub(super) fn thread(path: &Path, refused: &std::io::Error) -> Self {
        Self { path: path.to_owned(), why: Why::Thread(refused.to_string()) }
    }
}

impl From<rusqlite::Error> for Why {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => Self::NotWritable,
            Some(ErrorCode::NotADatabase) => Self::NotADatabase,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            _ => Self::Other(error),
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match &self.why {
            Why::Folder(error) => write!(f, "cannot make the folder of {path}: {error}"),
            Why::NotWritable => write!(f, "cannot write {path}: are the file and its folder writable?"),
            Why::NotADatabase => write!(f, "{path} is not a SQLite database"),
            Why::Newer { version } => write!(
                f,
                "{path} is a store from a newer version of snip (its schema is {version}, the newest known here {NEWEST})"
            ),
            Why::Locked => write!(f, "{path} is locked by another program"),
            Why::Thread(error) => write!(f, "cannot start the thread of {path}: {error}"),
            Why::Other(error) => write!(f, "cannot use {path} as a store: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// A connection with the project's settings to a file with the present schema.
pub(super) fn open(path: &Path) -> Result<Connection, OpenError> {
    connect(path).map_err(|why| OpenError { path: path.to_owned(), why })
}

fn connect(path: &Path) -> Result<Connection, Why> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(Why::Folder)?;
    }
    let mut db = Connection::open(path)?;
    configure(&db)?;
    migrate(&mut db)?;
    Ok(db)
}

fn configure(db: &Connection) -> rusqlite::Result<()> {
    db.busy_timeout(SQLITE_LOCK_WAIT)?;
    db.set_prepared_statement_cache_capacity(SQLITE_STATEMENTS);
    db.pragma_update(None, "journal_mode", "WAL")?;
    // Under WAL, NORMAL would sync at checkpoints alone and lose the last commits in a power cut.
    db.pragma_update(None, "synchronous", "FULL")?;
    db.pragma_update(None, "foreign_keys", true)?;
    // A negative size is in KiB, a positive one in pages.
    db.pragma_update(None, "cache_size", -SQLITE_PAGE_CACHE_KIB)?;
    db.pragma_update(None, "journal_size_limit", SQLITE_WAL_KEPT_BYTES)
}

fn version(db: &Connection) -> rusqlite::Result<i32> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}

fn migrate(db: &mut Connection) -> Result<(), Why> {
    if version(db)? == NEWEST {
        return Ok(());
    }
    // All in one transaction, and the version read within: of two processes that start at once, one finds it done.
    let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    migrate_within(&transaction)?;
    Ok(transaction.commit()?)
}

fn migrate_within(transaction: &Transaction<'_>) -> Result<(), Why> {
    let version = version(transaction)?;
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(migrations) = MIGRATIONS.get(done..) else { return Err(Why::Newer { version }) };
    for migration in migrations {
        transaction.execute_batch(migration)?;
    }
    Ok(transaction.pragma_update(None, "user_version", NEWEST)?)
}
