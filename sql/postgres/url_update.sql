-- $3 says whether the title is given: a title that is given may be null. $8: one text for each event.
WITH url AS (
    UPDATE urls
    SET
        original_url = coalesce($2, original_url),
        title = CASE WHEN $3 THEN $4 ELSE title END,
        is_active = coalesce($5, is_active),
        updated_at = $6
    WHERE id = $1
    RETURNING id, user_id, short_code, original_url, title, is_active, created_at, updated_at, version
), event AS (
    INSERT INTO events (url_id, user_id, event_type, timestamp, details)
    SELECT id, user_id, $7, $6, details
    FROM url, unnest($8) WITH ORDINALITY AS new (details, place)
    ORDER BY place
)
SELECT id::bigint, user_id::bigint, short_code, original_url, title, is_active, created_at, updated_at, version FROM url
