SELECT id, user_id, short_code, original_url, title, is_active, created_at, updated_at, version
FROM urls
WHERE id = ?1
