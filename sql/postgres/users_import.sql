INSERT INTO users (username, email, created_at)
SELECT username, email, created_at
FROM unnest($1, $2, $3) WITH ORDINALITY AS row (username, email, created_at, place)
ORDER BY place
ON CONFLICT DO NOTHING
