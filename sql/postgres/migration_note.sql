INSERT INTO snip_migrations (version, checksum) VALUES ($1, $2)
