-- Redirects of each URL, so that its stats need no count over its events. Kept by triggers: they are part of whatever
-- transaction writes the events, and see those that a plain SQL client writes too. One call for each statement, not for
-- each row: a batch of clicks costs one more statement (docs/postgres.md has the measurement). All write the URLs in the
-- order of their ids, so that two batches never wait for each other.

CREATE TABLE url_stats (
    url_id bigint PRIMARY KEY,
    redirect_count bigint NOT NULL
);

-- Nobody may write events between the count and the commit: their redirects would be missed.
LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE;

INSERT INTO url_stats (url_id, redirect_count)
SELECT url_id, count(*) FROM events WHERE event_type = 'redirect' GROUP BY url_id;

-- SECURITY DEFINER: who may write events need not have a right to url_stats.

CREATE FUNCTION snip_events_inserted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO url_stats AS stats (url_id, redirect_count)
    SELECT url_id, count(*) FROM new_rows WHERE event_type = 'redirect' GROUP BY url_id ORDER BY url_id
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = stats.redirect_count + excluded.redirect_count;
    RETURN NULL;
END $$;

CREATE FUNCTION snip_events_deleted() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO url_stats AS stats (url_id, redirect_count)
    SELECT url_id, -count(*) FROM old_rows WHERE event_type = 'redirect' GROUP BY url_id ORDER BY url_id
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = stats.redirect_count + excluded.redirect_count;
    RETURN NULL;
END $$;

CREATE FUNCTION snip_events_updated() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO url_stats AS stats (url_id, redirect_count)
    SELECT url_id, sum(change)
    FROM (
        SELECT url_id, 1 AS change FROM new_rows WHERE event_type = 'redirect'
        UNION ALL
        SELECT url_id, -1 FROM old_rows WHERE event_type = 'redirect'
    ) AS changes
    GROUP BY url_id HAVING sum(change) <> 0 ORDER BY url_id
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = stats.redirect_count + excluded.redirect_count;
    RETURN NULL;
END $$;

-- They find the tables whatever the client's search path is, and no temporary ones before them.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['snip_events_inserted', 'snip_events_deleted', 'snip_events_updated'] LOOP
        EXECUTE format('ALTER FUNCTION %I() SET search_path = %I, pg_temp', name, current_schema());
    END LOOP;
END $$;

CREATE TRIGGER snip_events_inserted AFTER INSERT ON events
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION snip_events_inserted();
CREATE TRIGGER snip_events_deleted AFTER DELETE ON events
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION snip_events_deleted();
CREATE TRIGGER snip_events_updated AFTER UPDATE ON events
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION snip_events_updated();
