-- The last entry before a time; the list is in the order of time.
SELECT sequence FROM url_changes WHERE changed_at < ?1 ORDER BY changed_at DESC, sequence DESC LIMIT 1
