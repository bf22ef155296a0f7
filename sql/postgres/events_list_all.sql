-- All events: the redirects and the others have each an index by time, and the first rows of the two are merged. Parameters
-- as in events_list.
SELECT id::bigint, url_id::bigint, user_id::bigint, event_type, timestamp, details
FROM (
    (SELECT * FROM events WHERE event_type = 'redirect' /* filters */ ORDER BY timestamp DESC, id DESC /* part */)
    UNION ALL
    (
        SELECT * FROM events WHERE event_type IS DISTINCT FROM 'redirect' /* filters */
        ORDER BY timestamp DESC, id DESC /* part */
    )
) AS parts
ORDER BY parts.timestamp DESC, parts.id DESC /* page */
