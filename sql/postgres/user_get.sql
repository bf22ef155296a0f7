SELECT id::bigint, username, email, created_at FROM users WHERE id = $1
