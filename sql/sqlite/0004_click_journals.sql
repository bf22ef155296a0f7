-- How far each journal of clicks is stored. Moved in the transaction that inserts the clicks, so that after any crash a
-- click is either in `events` and behind the position, or neither.

CREATE TABLE click_journals (
    journal_id TEXT PRIMARY KEY,
    instance_id TEXT NOT NULL,
    next_sequence INTEGER NOT NULL,
    updated_at TEXT NOT NULL
);
