-- The sequences start again, so that later ids follow the highest of what is loaded next.
TRUNCATE users, urls, events, url_stats RESTART IDENTITY
