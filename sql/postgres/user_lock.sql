-- Waits for those who are writing rows of this user, and keeps others from beginning to: see url_insert.sql.
SELECT FROM users WHERE id = $1 FOR UPDATE
