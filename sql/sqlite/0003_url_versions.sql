-- Caches compare versions: each change of a row that a redirect can see makes the next one. The list of what changed lately
-- is how an instance hears of changes whose announcement was lost; triggers write it, in the transaction of the change.

ALTER TABLE urls ADD COLUMN version BIGINT NOT NULL DEFAULT 1;

CREATE TABLE url_changes (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    short_code VARCHAR(20) NOT NULL,
    version BIGINT NOT NULL,
    changed_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%d %H:%M:%f000', 'now'))
);
CREATE INDEX url_changes_changed_at_idx ON url_changes (changed_at);

-- Our statements count the version up themselves, as RETURNING cannot see what a trigger does. For a plain SQL client the
-- trigger does it; the update within it fires no trigger again (recursive_triggers is off).
CREATE TRIGGER urls_update_lists_change
AFTER UPDATE OF user_id, short_code, original_url, is_active, version ON urls
BEGIN
    UPDATE urls SET version = OLD.version + 1 WHERE id = NEW.id AND NEW.version <= OLD.version;
    INSERT INTO url_changes (short_code, version) VALUES (NEW.short_code, max(NEW.version, OLD.version + 1));
    INSERT INTO url_changes (short_code, version)
    SELECT OLD.short_code, OLD.version + 1 WHERE OLD.short_code <> NEW.short_code;
END;

CREATE TRIGGER urls_delete_lists_change AFTER DELETE ON urls
BEGIN
    INSERT INTO url_changes (short_code, version) VALUES (OLD.short_code, OLD.version + 1);
END;
