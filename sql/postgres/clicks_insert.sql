-- Nothing is written unless the journal is where the batch begins. An earlier offer of the same batch that is still under
-- way holds the journal's row; this one waits for it and then finds the journal moved.
WITH moved AS (
    UPDATE click_journals SET instance_id = $7, next_sequence = $9, updated_at = $10
    WHERE journal_id = $6 AND next_sequence = $8
    RETURNING TRUE
), counted AS (
    -- The URLs come in the order of their ids, so that two batches never wait for each other.
    INSERT INTO url_stats AS stats (url_id, redirect_count)
    SELECT unnest($11), unnest($12) WHERE EXISTS (SELECT FROM moved)
    ON CONFLICT (url_id) DO UPDATE SET redirect_count = stats.redirect_count + excluded.redirect_count
), all_owners AS (
    SELECT count(*) = cardinality($13) AS exist FROM users WHERE id = ANY ($13)
)
INSERT INTO events (url_id, user_id, event_type, timestamp, details, referrer, counted)
SELECT
    url_id,
    -- A click may have been under way when its URL's owner was deleted: then it has no owner either.
    CASE WHEN (SELECT exist FROM all_owners) THEN user_id ELSE (SELECT id FROM users WHERE id = click.user_id) END,
    'redirect', at, details, referrer, TRUE
FROM (
    -- Side by side in the list, not as a table: that would be copied first.
    SELECT unnest($1) AS url_id, unnest($2) AS user_id, unnest($3) AS at, unnest($4) AS details, unnest($5) AS referrer
    WHERE EXISTS (SELECT FROM moved)
) AS click
