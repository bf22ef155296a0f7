SELECT to_regclass('snip_migrations') IS NOT NULL
