-- The first column is null when the URL or the user does not exist; the second says which. The user is locked as in
-- url_insert.sql; URLs are never deleted.
WITH url AS (
    SELECT id FROM urls WHERE id = $1
), actor AS (
    SELECT id FROM users WHERE id = $2 FOR KEY SHARE
), event AS (
    INSERT INTO events (url_id, user_id, event_type, timestamp, details)
    SELECT url.id, (SELECT id FROM actor), $3, $4, $5
    FROM url
    WHERE $2 IS NULL OR EXISTS (SELECT 1 FROM actor)
    RETURNING id
)
SELECT (SELECT id FROM event)::bigint, EXISTS (SELECT 1 FROM url)
