INSERT INTO urls (id, user_id, short_code, original_url, title, is_active, created_at, updated_at)
OVERRIDING SYSTEM VALUE
SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
