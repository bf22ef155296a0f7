-- A click may have been under way when its URL's owner was deleted: then it has no owner either.
INSERT INTO events (url_id, user_id, event_type, timestamp, details)
SELECT url_id, (SELECT id FROM users WHERE id = click.user_id), $1, at, details
FROM unnest($2, $3, $4, $5) AS click (url_id, user_id, at, details)
