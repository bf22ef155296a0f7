-- The filters asked for stand in place of the marker; they use $1 (user_id) and $2 (is_active). Pages as in users_list.
SELECT * FROM (
    SELECT id::bigint, user_id::bigint, short_code, original_url, title, is_active, created_at, updated_at
    FROM urls
    WHERE id > $3 /* filters */
    ORDER BY urls.id /* page */
) AS page
LIMIT $4
