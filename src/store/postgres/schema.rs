//! Bringing the database's tables up to date, and what people are told when that cannot be done.

use std::fmt;

use super::may_pass;
use super::queries::sql;
use crate::limits::PG_COMMAND_DEADLINE;
use crate::pg::{self, Config, Lease, Pool, Rows, Statement, Type};

/// In order; the first has the version 1. What has been released is never edited: its checksum stands in databases.
const MIGRATIONS: [&str; 6] = [
    sql!("0001_tables"),
    sql!("0002_url_stats"),
    sql!("0003_url_versions"),
    sql!("0004_click_journals"),
    sql!("0005_cheaper_clicks"),
    sql!("0006_slimmer_clicks"),
];
/// The version whose script takes the foreign keys of `events` away.
const ADOPTING: i64 = 1;

static HAVE_TABLE: Statement = Statement::new("migrations_have_table", sql!("migrations_have_table"), &[]);
static MAKE_TABLE: Statement = Statement::new("migrations_table", sql!("migrations_table"), &[]);
static KNOWN: Statement = Statement::new("migrations_known", sql!("migrations_known"), &[Type::TEXT_ARRAY]);
static COMPARE: Statement = Statement::new("migrations_compare", sql!("migrations_compare"), &[Type::TEXT_ARRAY]);
static NOTE: Statement = Statement::new("migration_note", sql!("migration_note"), &[Type::INT4, Type::TEXT]);
static FOREIGN_KEYS: Statement = Statement::new("events_foreign_keys", sql!("events_foreign_keys"), &[]);

/// What is done about tables that are not this version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tables {
    /// They are brought up to date.
    Migrate,
    /// The database is refused.
    Check,
}

/// Why a database cannot be used, in one line for people. The password is not in it.
#[derive(Debug)]
pub struct OpenError {
    server: String,
    why: Why,
}

#[derive(Debug)]
enum Why {
    Client(pg::Error),
    Newer { version: i64 },
    Changed { version: i64 },
    Missing { version: i64 },
    Failed { version: i64, error: pg::Error },
    Thread(String),
}

impl OpenError {
    pub(super) fn client(config: &Config, error: pg::Error) -> Self {
        Self { server: config.to_string(), why: Why::Client(error) }
    }

    /// The operating system gave no thread.
    pub(super) fn thread(config: &Config, refused: &std::io::Error) -> Self {
        Self { server: config.to_string(), why: Why::Thread(refused.to_string()) }
    }

    /// Whether it may go away by itself, such as a server that is not up yet.
    pub(super) fn may_pass(&self) -> bool {
        match &self.why {
            Why::Client(error) | Why::Failed { error, .. } => match error {
                pg::Error::Busy | pg::Error::Unavailable { .. } | pg::Error::TimedOut => true,
                pg::Error::Server(refusal) => may_pass(&refusal.sqlstate),
                pg::Error::Protocol(_) | pg::Error::Config(_) | pg::Error::Usage(_) => false,
            },
            Why::Newer { .. } | Why::Changed { .. } | Why::Missing { .. } | Why::Thread(_) => false,
        }
    }
}

impl From<pg::Error> for Why {
    fn from(error: pg::Error) -> Self {
        Self::Client(error)
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let server = &self.server;
        let newest = MIGRATIONS.len();
        match &self.why {
            Why::Client(error) => write!(f, "cannot use the database {server}: {error}"),
            Why::Newer { version } => write!(
                f,
                "the database {server} is a store from a newer version of snip (its schema is {version}, the newest \
                 known here {newest})"
            ),
            Why::Changed { version } => write!(
                f,
                "migration {version} in the database {server} is not the one known here: was another build of snip \
                 used with it?"
            ),
            Why::Missing { version } => write!(
                f,
                "the tables of the database {server} are not up to date (migration {version} is missing): run `snip \
                 migrate`"
            ),
            Why::Failed { version, error } => {
                write!(f, "migration {version} of the database {server} failed, nothing was changed: {error}")
            }
            Why::Thread(error) => write!(f, "cannot start a thread for the database {server}: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// Sees to the tables.
pub(super) fn make_ready(pool: &Pool, config: &Config, tables: Tables) -> Result<(), OpenError> {
    let done = match tables {
        Tables::Migrate => migrate(pool, config),
        Tables::Check => check(pool),
    };
    done.map_err(|why| OpenError { server: config.to_string(), why })
}

fn check(pool: &Pool) -> Result<(), Why> {
    let mut lease = pool.lease()?;
    let have_table = has_table(&mut lease)?;
    match pending(&mut lease, have_table)?.first() {
        Some(migration) => Err(Why::Missing { version: migration.version }),
        None => Ok(()),
    }
}

/// All in one transaction, under a lock: of several instances that start at once, one migrates, and the others find it
/// done. A lease that is dropped on the way rolls back.
fn migrate(pool: &Pool, config: &Config) -> Result<(), Why> {
    let mut lease = pool.lease()?;
    lease.set_limit(PG_COMMAND_DEADLINE);
    lease.script(sql!("migrations_begin"))?;
    let have_table = has_table(&mut lease)?;
    let pending = pending(&mut lease, have_table)?;
    if pending.is_empty() {
        return Ok(());
    }
    if !have_table {
        lease.query(&MAKE_TABLE, &[])?;
    }
    let mut dropped = Vec::new();
    for migration in &pending {
        if migration.version == ADOPTING {
            dropped = names(&lease.query(&FOREIGN_KEYS, &[])?)?;
        }
        let failed = |error| Why::Failed { version: migration.version, error };
        migration.run(&mut lease).map_err(failed)?;
    }
    lease.script("COMMIT")?;
    for foreign_key in dropped {
        tracing::info!(server = %config, foreign_key, "adopted the database: a foreign key of events was dropped");
    }
    tracing::info!(server = %config, migrations = pending.len(), "the tables were brought up to date");
    Ok(())
}

fn has_table(lease: &mut Lease) -> pg::Result<bool> {
    let rows = lease.query(&HAVE_TABLE, &[])?;
    rows.first().map_or(Ok(false), |row| row.get(0))
}

fn names(rows: &Rows) -> pg::Result<Vec<String>> {
    rows.iter().map(|row| row.get(0)).collect()
}

struct Migration {
    version: i64,
    script: &'static str,
    checksum: String,
}

impl Migration {
    fn run(&self, lease: &mut Lease) -> pg::Result<()> {
        lease.script(self.script)?;
        lease.query(&NOTE, &[&(self.version as i32), &self.checksum]).map(drop)
    }
}

/// The migrations that have not run. Those that have must be the ones known here.
fn pending(lease: &mut Lease, have_table: bool) -> Result<Vec<Migration>, Why> {
    let statement = if have_table { &COMPARE } else { &KNOWN };
    let rows = lease.query(statement, &[&MIGRATIONS.as_slice()])?;
    let mut pending = Vec::new();
    for row in &rows {
        let version: i64 = row.get(0)?;
        let (ran, known): (Option<&str>, Option<&str>) = (row.get(1)?, row.get(2)?);
        let script = usize::try_from(version - 1).ok().and_then(|at| MIGRATIONS.get(at));
        match (ran, known, script) {
            (None, Some(checksum), Some(script)) => {
                pending.push(Migration { version, script, checksum: checksum.to_owned() });
            }
            (Some(ran), Some(known), _) if ran == known => {}
            (Some(_), Some(_), _) => return Err(Why::Changed { version }),
            _ => return Err(Why::Newer { version }),
        }
    }
    Ok(pending)
}
