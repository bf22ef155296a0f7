-- Nothing is written unless the journal is where the batch begins. An earlier offer of the same batch that is still under
-- way holds the journal's row; this one waits for it and then finds the journal moved.
WITH moved AS (
    UPDATE click_journals SET instance_id = $7, next_sequence = $9, updated_at = $10
    WHERE journal_id = $6 AND next_sequence = $8
    RETURNING TRUE
)
-- A click may have been under way when its URL's owner was deleted: then it has no owner either.
INSERT INTO events (url_id, user_id, event_type, timestamp, details)
SELECT url_id, (SELECT id FROM users WHERE id = click.user_id), $1, at, details
FROM unnest($2, $3, $4, $5) AS click (url_id, user_id, at, details)
WHERE EXISTS (SELECT FROM moved)
