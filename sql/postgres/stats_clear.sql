DELETE FROM url_stats
