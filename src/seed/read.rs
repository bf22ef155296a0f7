//! The three CSV files, checked row by row. Reading goes on behind a bad row, so that one run tells of all.

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::hash::Hash;
use std::path::Path;

use csv::{ErrorKind, StringRecord};
use indicatif::ProgressBar;

use super::{EVENTS, Error, Table, URLS, USERS};
use crate::limits::{SEED_FILE_BYTES_MAX, SEED_PROBLEMS_MAX, SEED_SHOWN_CHARS_MAX, SHORT_CODE_CHARS_MAX};
use crate::model::validate::{self, Message};
use crate::model::{Event, Id, ShortCode, ShortUrl, Timestamp, User};
use crate::store::SeedData;

/// Reads and checks all three; the bar counts their bytes.
pub(super) fn read(dir: &Path, bar: &ProgressBar) -> Result<SeedData, Error> {
    let mut reading = Reading::default();
    let files = [open(dir, &USERS)?, open(dir, &URLS)?, open(dir, &EVENTS)?];
    bar.set_length(files.iter().map(|file| file.bytes).sum());
    let [users, urls, events] = files;
    let data = SeedData {
        users: reading.rows(&users, bar, user)?,
        urls: reading.rows(&urls, bar, url)?,
        events: reading.rows(&events, bar, event)?,
    };
    reading.problems.result().map(|()| data)
}

struct Source<'a> {
    dir: &'a Path,
    table: &'static Table,
    file: File,
    bytes: u64,
}

fn open<'a>(dir: &'a Path, table: &'static Table) -> Result<Source<'a>, Error> {
    let path = dir.join(table.file);
    let opened = File::open(&path).and_then(|file| file.metadata().map(|metadata| (file, metadata.len())));
    let (file, bytes) = opened.map_err(|error| Error::Read(path.clone(), error))?;
    if bytes > SEED_FILE_BYTES_MAX {
        return Err(Error::TooLong(path));
    }
    Ok(Source { dir, table, file, bytes })
}

/// What is wrong so far.
#[derive(Default)]
struct Problems {
    listed: Vec<String>,
    more: usize,
}

impl Problems {
    fn add(&mut self, file: &str, line: u64, what: impl Display) {
        if self.listed.len() < SEED_PROBLEMS_MAX {
            self.listed.push(format!("{file}:{line}: {what}"));
        } else {
            self.more += 1;
        }
    }

    fn result(self) -> Result<(), Error> {
        if self.listed.is_empty() { Ok(()) } else { Err(Error::Rows { listed: self.listed, more: self.more }) }
    }
}

/// Values that may stand only once, each with the line on which it stands.
struct Unique<K>(HashMap<K, u64>);

impl<K> Default for Unique<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Hash + Eq + Display> Unique<K> {
    fn add(&mut self, row: &mut Row<'_>, column: &str, key: Option<K>) {
        let Some(key) = key else { return };
        if let Some(line) = self.0.get(&key) {
            row.refuse(format_args!("{column} {key} stands on line {line} already"));
        } else {
            self.0.insert(key, row.line);
        }
    }
}

/// What rows are checked against. Ids of bad rows are in it too: what refers to them is not a fault of its own.
#[derive(Default)]
struct Known {
    users: Unique<Id>,
    usernames: Unique<String>,
    emails: Unique<String>,
    urls: Unique<Id>,
    short_codes: Unique<ShortCode>,
    events: Unique<Id>,
}

#[derive(Default)]
struct Reading {
    known: Known,
    problems: Problems,
}

impl Reading {
    /// The rows of one file that are good; an error is one of the whole file.
    fn rows<T>(
        &mut self,
        source: &Source<'_>,
        bar: &ProgressBar,
        parse: fn(&mut Row<'_>, &mut Known) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let Source { dir, table, file, .. } = source;
        bar.set_message(table.file);
        let unreadable = |error: csv::Error| Error::Read(dir.join(table.file), error.into());
        let mut reader = csv::Reader::from_reader(bar.wrap_read(file));
        let header = reader.headers().map_err(unreadable)?.clone();
        check_header(table, &header)?;
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = match record {
                Ok(record) => record,
                Err(error) if error.is_io_error() => return Err(unreadable(error)),
                Err(error) => {
                    self.problems.add(table.file, line_of(error.position()), describe(&error));
                    continue;
                }
            };
            let line = line_of(record.position());
            let mut row =
                Row { file: table.file, line, header: &header, record: &record, problems: &mut self.problems };
            rows.extend(parse(&mut row, &mut self.known));
        }
        Ok(rows)
    }
}

/// Without a column each row would be bad, and each that refers to one: the header alone is told of.
fn check_header(table: &Table, header: &StringRecord) -> Result<(), Error> {
    let missing = table.columns.iter().filter(|column| !header.iter().any(|name| name == **column));
    let listed: Vec<_> = missing.map(|column| format!("{}:1: the column {column} is missing", table.file)).collect();
    if listed.is_empty() { Ok(()) } else { Err(Error::Rows { listed, more: 0 }) }
}

fn line_of(position: Option<&csv::Position>) -> u64 {
    position.map_or(0, csv::Position::line)
}

fn describe(error: &csv::Error) -> String {
    match error.kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            format!("the row has {len} fields, the header {expected_len}")
        }
        ErrorKind::Utf8 { .. } => String::from("the row is not UTF-8"),
        _ => error.to_string(),
    }
}

/// One row and where to complain about it.
struct Row<'a> {
    file: &'static str,
    line: u64,
    header: &'a StringRecord,
    record: &'a StringRecord,
    problems: &'a mut Problems,
}

impl<'a> Row<'a> {
    fn refuse(&mut self, what: impl Display) {
        self.problems.add(self.file, self.line, what);
    }

    /// The field as it stands; the header was checked to have the column.
    fn text(&self, column: &str) -> &'a str {
        let at = self.header.iter().position(|name| name == column);
        at.and_then(|at| self.record.get(at)).unwrap_or("")
    }

    fn checked<T>(&mut self, column: &str, wanted: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let text = self.text(column);
        let value = parse(text);
        if value.is_none() {
            self.refuse(format_args!("{column} is not {wanted}: {}", shown(text)));
        }
        value
    }

    fn id(&mut self, column: &str) -> Option<Id> {
        self.checked(column, "a positive integer", |text| text.parse().ok().filter(|&id| id > 0))
    }

    /// An id or null that refers to a row of another file. `None` when it is bad.
    fn reference(&mut self, column: &str, known: &Unique<Id>) -> Option<Option<Id>> {
        if self.text(column).is_empty() {
            return Some(None);
        }
        let id = self.id(column)?;
        if !known.0.contains_key(&id) {
            self.refuse(format_args!("{column} {id} refers to no row"));
            return None;
        }
        Some(Some(id))
    }

    fn time(&mut self, column: &str) -> Option<Timestamp> {
        self.checked(column, "a time (YYYY-MM-DD HH:MM:SS)", Timestamp::parse)
    }

    fn boolean(&mut self, column: &str) -> Option<bool> {
        self.checked(column, "True or False", |text| match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        })
    }

    /// A text under the same rule as the API's.
    fn valid<T>(&mut self, column: &str, rule: fn(Option<&str>) -> Result<T, Message>) -> Option<T> {
        let text = self.text(column);
        let value = rule(Some(text));
        if let Err(message) = value {
            self.refuse(format_args!("{message}: {}", shown(text)));
        }
        value.ok()
    }

    fn short_code(&mut self) -> Option<ShortCode> {
        let code = self.text("short_code");
        let chars = code.chars().count();
        if chars > SHORT_CODE_CHARS_MAX {
            self.refuse(format_args!("short_code is {chars} characters, at most {SHORT_CODE_CHARS_MAX} fit"));
            return None;
        }
        let in_path = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        self.checked("short_code", "made of A-Z, a-z, 0-9, - and _", |code| {
            (!code.is_empty() && code.bytes().all(in_path)).then(|| code.to_owned())
        })
    }

    fn details(&mut self) -> Option<Option<String>> {
        self.checked("details", "without NUL characters", |text| {
            (!text.contains('\0')).then(|| Some(text.to_owned()).filter(|text| !text.is_empty()))
        })
    }
}

/// A value in a message: quoted, escaped, not too long.
fn shown(text: &str) -> String {
    match text.char_indices().nth(SEED_SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

// Each of these looks at all fields before it gives up, so that all that is wrong with a row is told at once.

fn user(row: &mut Row<'_>, known: &mut Known) -> Option<User> {
    let id = row.id("id");
    let username = row.valid("username", validate::new_username);
    let email = row.valid("email", validate::new_email);
    let created_at = row.time("created_at");
    known.users.add(row, "id", id);
    known.usernames.add(row, "username", username.clone());
    known.emails.add(row, "email", email.clone());
    Some(User { id: id?, username: username?, email: email?, created_at: created_at? })
}

fn url(row: &mut Row<'_>, known: &mut Known) -> Option<ShortUrl> {
    let id = row.id("id");
    let user_id = row.reference("user_id", &known.users);
    let short_code = row.short_code();
    let original_url = row.valid("original_url", validate::original_url);
    let title = row.valid("title", validate::title);
    let is_active = row.boolean("is_active");
    let (created_at, updated_at) = (row.time("created_at"), row.time("updated_at"));
    known.urls.add(row, "id", id);
    known.short_codes.add(row, "short_code", short_code.clone());
    Some(ShortUrl {
        id: id?,
        user_id: user_id?,
        short_code: short_code?,
        original_url: original_url?,
        title: title?,
        is_active: is_active?,
        created_at: created_at?,
        updated_at: updated_at?,
    })
}

fn event(row: &mut Row<'_>, known: &mut Known) -> Option<Event> {
    let id = row.id("id");
    let url_id = row.reference("url_id", &known.urls);
    if url_id == Some(None) {
        row.refuse("url_id is empty");
    }
    let user_id = row.reference("user_id", &known.users);
    let event_type = row.valid("event_type", validate::event_type);
    let timestamp = row.time("timestamp");
    let details = row.details();
    known.events.add(row, "id", id);
    Some(Event {
        id: id?,
        url_id: url_id??,
        user_id: user_id?,
        event_type: event_type?,
        timestamp: timestamp?,
        details: details?,
    })
}
