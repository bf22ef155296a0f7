INSERT INTO events (url_id, user_id, event_type, timestamp, details) VALUES (?1, ?2, ?3, ?4, ?5)
