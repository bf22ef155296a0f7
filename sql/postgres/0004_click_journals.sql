-- How far each journal of clicks is stored. Moved by the statement that inserts the clicks, so that after any crash a click
-- is either in `events` and behind the position, or neither.

CREATE TABLE click_journals (
    journal_id text PRIMARY KEY,
    instance_id text NOT NULL,
    next_sequence bigint NOT NULL,
    updated_at timestamp NOT NULL
);
