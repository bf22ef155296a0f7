-- The sequences go too, so that later ids follow the highest of what is loaded next.
DELETE FROM url_stats;
DELETE FROM events;
DELETE FROM urls;
DELETE FROM users;
DELETE FROM sqlite_sequence WHERE name IN ('users', 'urls', 'events');
