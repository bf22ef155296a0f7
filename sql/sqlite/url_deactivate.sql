UPDATE urls SET is_active = FALSE, updated_at = ?2
WHERE id = ?1 AND is_active = TRUE
RETURNING short_code, user_id
