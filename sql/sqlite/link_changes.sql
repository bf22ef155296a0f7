SELECT sequence, short_code, version FROM url_changes WHERE sequence > ?1 ORDER BY sequence LIMIT ?2
