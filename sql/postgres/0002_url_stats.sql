-- Redirects of each URL, so that its stats need no count over its events. Kept by the statements that write events, not
-- by triggers (docs/postgres.md has the measurement); the events of an adopted database are counted here, once.

CREATE TABLE url_stats (
    url_id bigint PRIMARY KEY,
    redirect_count bigint NOT NULL
);

-- Nobody may write events between the count and the commit: their redirects would be missed.
LOCK TABLE events IN SHARE MODE;

INSERT INTO url_stats (url_id, redirect_count)
SELECT url_id, count(*) FROM events WHERE event_type = 'redirect' GROUP BY url_id;
