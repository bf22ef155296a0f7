INSERT INTO urls (user_id, short_code, original_url, title, is_active, created_at, updated_at)
VALUES (?1, ?2, ?3, ?4, TRUE, ?5, ?5)
