UPDATE urls SET user_id = NULL, version = version + 1 WHERE user_id = ?1
