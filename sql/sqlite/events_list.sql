-- The filters and the source asked for stand in place of the markers; the filters use ?1 (url_id), ?2 (user_id) and ?3 (event_type).
SELECT id, url_id, user_id, event_type, timestamp, details
FROM /* source */
WHERE (timestamp, id) < (?4, ?5) /* filters */
ORDER BY timestamp DESC, id DESC
LIMIT ?6 OFFSET ?7
