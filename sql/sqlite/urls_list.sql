-- The filters asked for stand in place of the marker; they use ?1 (user_id) and ?2 (is_active).
SELECT id, user_id, short_code, original_url, title, is_active, created_at, updated_at
FROM urls
WHERE id > ?3 /* filters */
ORDER BY id
LIMIT ?4 OFFSET ?5
