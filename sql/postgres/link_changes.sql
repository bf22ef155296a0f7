SELECT sequence, short_code, version
FROM url_changes
WHERE transaction >= $1 AND sequence > $2
ORDER BY sequence
LIMIT $3
