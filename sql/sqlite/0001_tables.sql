-- The contract's tables. "IF NOT EXISTS": a file that holds them already is adopted as it is.
-- Times are UTC text, `YYYY-MM-DD HH:MM:SS.ffffff`, which sorts as it counts; the defaults write the same form, so that
-- a plain SQL client may leave these columns out. AUTOINCREMENT: the id of a deleted row is never given out again.

CREATE TABLE IF NOT EXISTS users (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    username VARCHAR(255) NOT NULL,
    email VARCHAR(255) NOT NULL,
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now'))
);
CREATE UNIQUE INDEX IF NOT EXISTS users_email_key ON users (email);
-- SQLite asks the youngest index first: a user whose name and address are both taken hears about the name.
CREATE UNIQUE INDEX IF NOT EXISTS users_username_key ON users (username);

CREATE TABLE IF NOT EXISTS urls (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    user_id INTEGER REFERENCES users (id) ON DELETE SET NULL,
    short_code VARCHAR(20) NOT NULL,
    original_url TEXT NOT NULL,
    title VARCHAR(255),
    is_active BOOLEAN NOT NULL DEFAULT TRUE CHECK (is_active IN (FALSE, TRUE)),
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')),
    updated_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now'))
);
CREATE UNIQUE INDEX IF NOT EXISTS urls_short_code_key ON urls (short_code);
-- Each index of SQLite ends in the row's id, so these two give their rows in the order of the lists.
CREATE INDEX IF NOT EXISTS urls_user_id_idx ON urls (user_id);
CREATE INDEX IF NOT EXISTS urls_is_active_idx ON urls (is_active);

-- No foreign keys: what happened stays on record, whatever becomes of the rows it happened to.
CREATE TABLE IF NOT EXISTS events (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    url_id INTEGER NOT NULL,
    user_id INTEGER,
    event_type VARCHAR(255) NOT NULL,
    timestamp TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now')),
    details TEXT
);
-- One for each filter of the list, in the order of the list: (…, timestamp, id), the id being in each by itself.
-- A page behind a row starts at the row's time; SQLite steps over the younger rows of that very time one by one.
CREATE INDEX IF NOT EXISTS events_timestamp_idx ON events (timestamp);
CREATE INDEX IF NOT EXISTS events_url_id_idx ON events (url_id, timestamp);
CREATE INDEX IF NOT EXISTS events_event_type_idx ON events (event_type, timestamp);
CREATE INDEX IF NOT EXISTS events_user_id_idx ON events (user_id, timestamp) WHERE user_id IS NOT NULL;
