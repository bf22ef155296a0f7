-- As in url_insert.sql, once for each owner, in one order, so that two batches never wait for each other.
SELECT FROM users WHERE id = ANY ($1) ORDER BY id FOR KEY SHARE
