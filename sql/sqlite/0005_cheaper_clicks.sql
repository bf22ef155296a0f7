-- As for PostgreSQL: where a click came from, and indexes of which a click is in as few as can be.

ALTER TABLE events ADD COLUMN referrer TEXT;

-- Nearly all events are redirects. A list of all events merges two of these, each type's list is in one.
CREATE INDEX events_redirects_idx ON events (timestamp) WHERE event_type = 'redirect';
CREATE INDEX events_others_idx ON events (timestamp) WHERE event_type IS NOT 'redirect';
CREATE INDEX events_other_types_idx ON events (event_type, timestamp) WHERE event_type IS NOT 'redirect';
DROP INDEX IF EXISTS events_timestamp_idx;
DROP INDEX IF EXISTS events_event_type_idx;
