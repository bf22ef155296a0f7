INSERT INTO users (id, username, email, created_at) OVERRIDING SYSTEM VALUE
SELECT * FROM unnest($1, $2, $3, $4)
