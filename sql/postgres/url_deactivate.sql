WITH url AS (
    UPDATE urls SET is_active = FALSE, updated_at = $2
    WHERE id = $1 AND is_active
    RETURNING id, user_id, short_code, original_url, title, is_active, created_at, updated_at, version
), event AS (
    INSERT INTO events (url_id, user_id, event_type, timestamp, details)
    SELECT id, user_id, $3, $2, $4 FROM url
)
SELECT id::bigint, user_id::bigint, short_code, original_url, title, is_active, created_at, updated_at, version FROM url
