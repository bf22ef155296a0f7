SELECT id::bigint, user_id::bigint, version, original_url, is_active FROM urls WHERE short_code = $1
