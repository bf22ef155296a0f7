DELETE FROM url_changes WHERE changed_at < ?1
