-- For a statement that may fail half way SQLite copies each page that it changes, to undo it alone; within a savepoint the
-- copies of all statements are kept to its end. A click's INSERT says OR FAIL, since its job is undone as a whole, and that
-- holds for the trigger's statements too. ON CONFLICT DO UPDATE, which was here, always wants the copies.

DROP TRIGGER events_insert_counts;
CREATE TRIGGER events_insert_counts AFTER INSERT ON events WHEN NEW.event_type = 'redirect'
BEGIN
    INSERT INTO url_stats (url_id, redirect_count)
    SELECT NEW.url_id, 0 WHERE NOT EXISTS (SELECT * FROM url_stats WHERE url_id = NEW.url_id);
    UPDATE url_stats SET redirect_count = redirect_count + 1 WHERE url_id = NEW.url_id;
END;
