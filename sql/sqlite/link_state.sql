SELECT is_active, id, user_id, version, original_url FROM urls WHERE short_code = ?1
