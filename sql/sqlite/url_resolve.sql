SELECT id, user_id, version, original_url FROM urls WHERE short_code = ?1 AND is_active = TRUE
