INSERT INTO users (id, username, email, created_at) VALUES (?1, ?2, ?3, ?4)
