CREATE TABLE snip_migrations (
    version integer PRIMARY KEY,
    checksum text NOT NULL,
    applied_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
)
