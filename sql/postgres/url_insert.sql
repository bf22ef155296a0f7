-- No row when there is no such user. The owner is locked as a foreign key would: who deletes the user waits for this row,
-- its event included, and finds both.
WITH owner AS (
    SELECT id FROM users WHERE id = $1 FOR KEY SHARE
), url AS (
    INSERT INTO urls (user_id, short_code, original_url, title, is_active, created_at, updated_at)
    SELECT (SELECT id FROM owner), $2, $3, $4, TRUE, $5, $5
    WHERE $1 IS NULL OR EXISTS (SELECT 1 FROM owner)
    RETURNING id, user_id
), event AS (
    INSERT INTO events (url_id, user_id, event_type, timestamp, details)
    SELECT id, user_id, $6, $5, $7 FROM url
)
SELECT id::bigint FROM url
