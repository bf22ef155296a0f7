-- OR FAIL: the savepoint of the job undoes all of them (0006).
INSERT OR FAIL INTO events (id, url_id, user_id, event_type, timestamp, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
