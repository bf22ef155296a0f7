SELECT short_code, id, user_id, version, original_url
FROM urls
WHERE id < ?1 AND +is_active = TRUE
ORDER BY id DESC
LIMIT ?2
