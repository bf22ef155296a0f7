SELECT id::bigint, user_id::bigint, version, original_url FROM urls WHERE short_code = $1 AND is_active
