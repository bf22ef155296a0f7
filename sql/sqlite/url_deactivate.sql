UPDATE urls SET is_active = FALSE, updated_at = ?2, version = version + 1
WHERE id = ?1 AND is_active = TRUE
RETURNING short_code, user_id
