-- A click may have been under way when its URL's owner was deleted: then it has no owner either. OR FAIL: the savepoint of
-- the job undoes all of them, so that none need be undone by itself (0006).
INSERT OR FAIL INTO events (url_id, user_id, event_type, timestamp, details, referrer)
VALUES (?1, (SELECT id FROM users WHERE id = ?2), ?3, ?4, ?5, ?6)
