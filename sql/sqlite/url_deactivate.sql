UPDATE urls SET is_active = FALSE, updated_at = ?2, version = version + 1
WHERE id = ?1 AND is_active = TRUE
RETURNING id, user_id, short_code, original_url, title, is_active, created_at, updated_at, version
