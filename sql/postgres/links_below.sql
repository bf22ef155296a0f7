SELECT id::bigint, user_id::bigint, version, original_url, short_code
FROM urls
WHERE id < $1 AND is_active
ORDER BY id DESC
LIMIT $2
