INSERT INTO url_stats (url_id, redirect_count)
SELECT url_id, count(*) FROM events WHERE event_type = 'redirect' GROUP BY url_id
