-- Redirects of each URL, so that its stats need no count over its events. Kept by triggers: they are part of whatever
-- transaction writes the events, and see those that a plain SQL client writes too.

CREATE TABLE url_stats (
    url_id INTEGER PRIMARY KEY,
    redirect_count INTEGER NOT NULL
);

INSERT INTO url_stats (url_id, redirect_count)
SELECT url_id, count(*) FROM events WHERE event_type = 'redirect' GROUP BY url_id;

CREATE TRIGGER events_insert_counts AFTER INSERT ON events WHEN NEW.event_type = 'redirect'
BEGIN
    INSERT INTO url_stats (url_id, redirect_count) VALUES (NEW.url_id, 1)
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = redirect_count + 1;
END;

CREATE TRIGGER events_delete_counts AFTER DELETE ON events WHEN OLD.event_type = 'redirect'
BEGIN
    UPDATE url_stats SET redirect_count = redirect_count - 1 WHERE url_id = OLD.url_id;
END;

CREATE TRIGGER events_update_uncounts_old AFTER UPDATE OF url_id, event_type ON events WHEN OLD.event_type = 'redirect'
BEGIN
    UPDATE url_stats SET redirect_count = redirect_count - 1 WHERE url_id = OLD.url_id;
END;

CREATE TRIGGER events_update_counts_new AFTER UPDATE OF url_id, event_type ON events WHEN NEW.event_type = 'redirect'
BEGIN
    INSERT INTO url_stats (url_id, redirect_count) VALUES (NEW.url_id, 1)
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = redirect_count + 1;
END;
