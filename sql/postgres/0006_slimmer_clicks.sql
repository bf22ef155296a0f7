-- What still made storing a click dear: keys that were longer than they need be, and a trigger that asked for a setting of the
-- transaction at each row. docs/decisions.md, number 49.

-- Indexes that clicks are in end at the time: lists sort what has the same time by id as they read. No two entries of them are
-- alike, so that looking for duplicates before a page is split finds none. Each has the name that the system gives it: ours
-- may be taken. First of all, while lists can still be read: what follows locks readers out too, and is soon done.
CREATE INDEX ON events (timestamp) WITH (deduplicate_items = off) WHERE event_type = 'redirect';
CREATE INDEX ON events (url_id, timestamp) WITH (deduplicate_items = off);
CREATE INDEX ON events (user_id, timestamp) WITH (deduplicate_items = off) WHERE user_id IS NOT NULL;

-- Those in their place so far, under the names that the migrations gave.
DROP INDEX IF EXISTS events_redirects_idx;
DO $$
DECLARE
    old_index record;
BEGIN
    FOR old_index IN
        SELECT indexrelid::regclass AS name
        FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        WHERE indrelid = 'events'::regclass AND NOT indisunique AND indexprs IS NULL
            AND relname ~ '^events_(url|user)_id_idx(_snip)*$'
            AND (
                SELECT array_agg(attname::text ORDER BY place)
                FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (number, place)
                JOIN pg_attribute ON attrelid = indrelid AND attnum = number
            ) IN ('{url_id,timestamp,id}', '{user_id,timestamp,id}')
    LOOP
        EXECUTE format('DROP INDEX %s', old_index.name);
    END LOOP;
END $$;

-- True: the statement that inserted the row has counted it in url_stats.
ALTER TABLE events ADD COLUMN IF NOT EXISTS counted boolean;

-- The setting is for instances of the version before, which go on beside this one until they are replaced.
DROP TRIGGER snip_events_inserted ON events;
CREATE TRIGGER snip_events_inserted AFTER INSERT ON events
    FOR EACH ROW
    WHEN (
        NEW.counted IS NOT TRUE AND NEW.event_type = 'redirect'
        AND current_setting('snip.counts_itself', TRUE) IS DISTINCT FROM 'yes'
    )
    EXECUTE FUNCTION snip_events_inserted();
