INSERT INTO users (username, email, created_at) VALUES (?1, ?2, ?3)
ON CONFLICT DO NOTHING
