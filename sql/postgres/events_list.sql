-- The filters asked for stand in place of the marker; they use $1 (url_id), $2 (user_id) and $3 (event_type), and $4 for
-- the row that the page is behind: when it does not exist, nothing is behind it. Pages as in users_list.
SELECT * FROM (
    SELECT id::bigint, url_id::bigint, user_id::bigint, event_type, timestamp, details
    FROM events
    WHERE TRUE /* filters */
    ORDER BY events.timestamp DESC, events.id DESC /* page */
) AS page
LIMIT $5
