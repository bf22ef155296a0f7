-- What made storing a click dear: two indexes that every event was in, and a trigger that copied each row of a batch to
-- count them. docs/postgres.md has the measurements.

-- Where a click came from. Not in `details`, whose keys are the contract's.
ALTER TABLE events ADD COLUMN IF NOT EXISTS referrer text;

-- Nearly all events are redirects. They have an index by time of their own, and nobody compares their type; the others
-- have one by time, and one by type. A list of all events merges two, each type's list is in one.
CREATE INDEX events_redirects_idx ON events (timestamp, id) WHERE event_type = 'redirect';
CREATE INDEX events_others_idx ON events (timestamp, id) WHERE event_type IS DISTINCT FROM 'redirect';
CREATE INDEX events_other_types_idx ON events (event_type, timestamp, id) WHERE event_type <> 'redirect';

-- Those that the first migration made in their place, under the names that it gave.
DO $$
DECLARE
    old_index record;
BEGIN
    FOR old_index IN
        SELECT indexrelid::regclass AS name
        FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = 'events'::regclass AND NOT indisunique AND indpred IS NULL AND indexprs IS NULL
            AND relname ~ '^events_(timestamp|event_type)_idx(_snip)*$'
            AND (
                SELECT array_agg(attname::text ORDER BY place)
                FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (number, place)
                JOIN pg_attribute ON attrelid = indrelid AND attnum = number
            ) IN ('{timestamp,id}', '{event_type,timestamp,id}')
    LOOP
        EXECUTE format('DROP INDEX %s', old_index.name);
    END LOOP;
END $$;

-- A batch of clicks counts itself, by the statement that inserts it, and says so by a setting of its transaction. What
-- anybody else inserts is counted by the trigger, row by row.
DROP TRIGGER snip_events_inserted ON events;

CREATE OR REPLACE FUNCTION snip_events_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO url_stats AS stats (url_id, redirect_count) VALUES (NEW.url_id, 1)
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = stats.redirect_count + 1;
    RETURN NULL;
END $$;

-- As in 0002: the tables are found whatever the client's search path is.
DO $$
BEGIN
    EXECUTE format('ALTER FUNCTION snip_events_inserted() SET search_path = %I, pg_temp', current_schema());
END $$;

CREATE TRIGGER snip_events_inserted AFTER INSERT ON events
    FOR EACH ROW
    WHEN (NEW.event_type = 'redirect' AND current_setting('snip.counts_itself', TRUE) IS DISTINCT FROM 'yes')
    EXECUTE FUNCTION snip_events_inserted();
