-- The URLs come in the order of their ids, so that two batches never wait for each other.
INSERT INTO url_stats AS stats (url_id, redirect_count)
SELECT url_id, clicks FROM unnest($1, $2) AS counted (url_id, clicks)
ON CONFLICT (url_id) DO UPDATE SET redirect_count = stats.redirect_count + excluded.redirect_count
