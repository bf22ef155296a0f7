INSERT INTO users (username, email, created_at) VALUES ($1, $2, $3) RETURNING id::bigint
