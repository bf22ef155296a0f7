-- By the table's id, not by the one that is given out: that one no index knows.
SELECT id::bigint, user_id::bigint, version, original_url, short_code
FROM urls
WHERE id < $1 AND is_active
ORDER BY urls.id DESC
LIMIT $2
