INSERT INTO events (id, url_id, user_id, event_type, timestamp, details) OVERRIDING SYSTEM VALUE
SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
