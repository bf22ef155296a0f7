//! `snip seed`: a data set in three CSV files, read into a store, and a made-up one to begin with.
//!
//! The files have a header line, times as `YYYY-MM-DD HH:MM:SS` (UTC), booleans as `True` and `False`; an empty field
//! is null. Nothing is loaded unless every row is good.

mod generate;
mod read;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use crate::error::StoreError;
use crate::limits::SEED_FILE_BYTES_MAX;
use crate::store::{SeedData, Store};

pub use generate::{
    EVENT_COUNT, INACTIVE_URL_COUNT, REDIRECT_EVENT_COUNT, UPDATED_EVENT_COUNT, URL_COUNT, USER_COUNT, generate,
};

/// A file of the data set.
struct Table {
    file: &'static str,
    columns: &'static [&'static str],
}

const USERS: Table = Table { file: "users.csv", columns: &["id", "username", "email", "created_at"] };
const URLS: Table = Table {
    file: "urls.csv",
    columns: &["id", "user_id", "short_code", "original_url", "title", "is_active", "created_at", "updated_at"],
};
const EVENTS: Table =
    Table { file: "events.csv", columns: &["id", "url_id", "user_id", "event_type", "timestamp", "details"] };

/// How many rows a data set has. Shown as `400 users, 2000 URLs, 3422 events`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Rows of `users.csv`.
    pub users: usize,
    /// Rows of `urls.csv`.
    pub urls: usize,
    /// Rows of `events.csv`.
    pub events: usize,
}

impl Loaded {
    fn of(data: &SeedData) -> Self {
        Self { users: data.users.len(), urls: data.urls.len(), events: data.events.len() }
    }
}

impl fmt::Display for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users, {} URLs, {} events", self.users, self.urls, self.events)
    }
}

/// Why a data set was not loaded or not written, for people.
#[derive(Debug)]
pub enum Error {
    /// A file could not be read.
    Read(PathBuf, std::io::Error),
    /// A file or the folder could not be written.
    Write(PathBuf, std::io::Error),
    /// A file is longer than [`SEED_FILE_BYTES_MAX`].
    TooLong(PathBuf),
    /// Rows are bad: what is wrong with each, as `file:line: what`, and how many more there are.
    Rows {
        /// The first of them, at most [`crate::limits::SEED_PROBLEMS_MAX`].
        listed: Vec<String>,
        /// How many are not listed.
        more: usize,
    },
    /// The store did not take it.
    Store(StoreError),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(path, error) => write!(f, "cannot read {}: {error}", path.display()),
            Self::Write(path, error) => write!(f, "cannot write {}: {error}", path.display()),
            Self::TooLong(path) => {
                write!(f, "{} is too long: at most {SEED_FILE_BYTES_MAX} bytes can be loaded", path.display())
            }
            Self::Rows { listed, more } => {
                f.write_str("nothing was loaded, because rows are bad:")?;
                listed.iter().try_for_each(|problem| write!(f, "\n{problem}"))?;
                if *more > 0 { write!(f, "\nand {more} more") } else { Ok(()) }
            }
            Self::Store(StoreError::NotEmpty) => f.write_str("the store has rows already; --reset deletes them first"),
            Self::Store(error) => write!(f, "nothing was loaded: {error}"),
        }
    }
}

impl std::error::Error for Error {}

/// Reads the three files of the folder without loading them.
pub fn read(dir: &Path) -> Result<SeedData, Error> {
    read::read(dir, &ProgressBar::hidden())
}

/// Loads the three files of the folder into the store, with a progress bar when standard error is a terminal. With
/// `reset` what the store holds goes first; without it a store with rows refuses.
pub fn load(store: &dyn Store, dir: &Path, reset: bool) -> Result<Loaded, Error> {
    // It hides itself when standard error is no terminal.
    let bar = ProgressBar::no_length().with_style(bar_style());
    let data = read::read(dir, &bar)?;
    bar.set_message("writing to the store");
    let loaded = Loaded::of(&data);
    let result = store.load(data, reset).map_err(Error::Store);
    bar.finish_and_clear();
    result.map(|()| loaded)
}

fn bar_style() -> ProgressStyle {
    let template = "{bar:40} {bytes}/{total_bytes} {msg}";
    // The template is a constant; were it ever wrong, a plain bar does as well.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
