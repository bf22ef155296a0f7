-- Caches compare versions: each change of a row that a redirect can see makes the next one, whoever makes it. The list of
-- what changed lately is how an instance hears of changes whose announcement was lost; triggers write it, in the
-- transaction of the change.

ALTER TABLE urls ADD COLUMN IF NOT EXISTS version bigint NOT NULL DEFAULT 1;

CREATE TABLE url_changes (
    sequence bigserial PRIMARY KEY,
    -- Sequences are not in the order of the commits; what an unfinished transaction may still add has a number that is not
    -- below the oldest of the unfinished ones. So a reader reads on from there, and misses nothing.
    transaction bigint NOT NULL DEFAULT (pg_current_xact_id()::text::bigint),
    short_code varchar(20) NOT NULL,
    version bigint NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX url_changes_transaction_idx ON url_changes (transaction);
CREATE INDEX url_changes_changed_at_idx ON url_changes (changed_at);

CREATE OR REPLACE FUNCTION snip_count_url_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.version <= OLD.version THEN
        NEW.version := OLD.version + 1;
    END IF;
    RETURN NEW;
END $$;

CREATE OR REPLACE FUNCTION snip_list_url_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO url_changes (short_code, version) SELECT short_code, version + 1 FROM urls;
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO url_changes (short_code, version) VALUES (OLD.short_code, OLD.version + 1);
        RETURN NULL;
    END IF;
    INSERT INTO url_changes (short_code, version) VALUES (NEW.short_code, NEW.version);
    IF NEW.short_code <> OLD.short_code THEN
        INSERT INTO url_changes (short_code, version) VALUES (OLD.short_code, NEW.version);
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER urls_count_version BEFORE UPDATE OF user_id, short_code, original_url, is_active ON urls
    FOR EACH ROW EXECUTE FUNCTION snip_count_url_version();
CREATE TRIGGER urls_list_update AFTER UPDATE ON urls
    FOR EACH ROW WHEN (NEW.version <> OLD.version) EXECUTE FUNCTION snip_list_url_change();
CREATE TRIGGER urls_list_delete AFTER DELETE ON urls
    FOR EACH ROW EXECUTE FUNCTION snip_list_url_change();
CREATE TRIGGER urls_list_truncate BEFORE TRUNCATE ON urls
    FOR EACH STATEMENT EXECUTE FUNCTION snip_list_url_change();
