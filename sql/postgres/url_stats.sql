SELECT
    urls.id::bigint, urls.user_id::bigint, short_code, original_url, title, is_active, created_at, updated_at,
    coalesce(redirect_count, 0)
FROM urls LEFT JOIN url_stats ON url_stats.url_id = urls.id
WHERE urls.id = $1
