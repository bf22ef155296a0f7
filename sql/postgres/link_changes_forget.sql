DELETE FROM url_changes WHERE changed_at < clock_timestamp() - make_interval(secs => $1)
