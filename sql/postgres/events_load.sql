-- None of them is for the trigger to count: all are counted together afterwards.
INSERT INTO events (id, url_id, user_id, event_type, timestamp, details, counted) OVERRIDING SYSTEM VALUE
SELECT *, TRUE FROM unnest($1, $2, $3, $4, $5, $6)
