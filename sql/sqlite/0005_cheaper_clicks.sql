-- As for PostgreSQL: where a click came from, and indexes of which a click is in as few as can be.

ALTER TABLE events ADD COLUMN referrer TEXT;

-- Nearly all events are redirects. A list of all events merges them, by the index on the type, with the others. The index on
-- the type holds all of them here: SQLite would not use a partial one for a plain client's `event_type = 'x'`.
CREATE INDEX events_others_idx ON events (timestamp) WHERE event_type IS NOT 'redirect';
DROP INDEX IF EXISTS events_timestamp_idx;
