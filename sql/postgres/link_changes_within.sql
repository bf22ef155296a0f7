SELECT sequence, short_code, version
FROM url_changes
WHERE changed_at >= clock_timestamp() - make_interval(secs => $1)
ORDER BY sequence
LIMIT $2
