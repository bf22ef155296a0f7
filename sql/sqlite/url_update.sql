-- ?3 says whether the title is given: a title that is given may be null.
UPDATE urls
SET
    original_url = coalesce(?2, original_url),
    title = CASE WHEN ?3 THEN ?4 ELSE title END,
    is_active = coalesce(?5, is_active),
    updated_at = ?6,
    version = version + 1
WHERE id = ?1
RETURNING id, user_id, short_code, original_url, title, is_active, created_at, updated_at, version
