SELECT conname::text FROM pg_constraint WHERE conrelid = to_regclass('events') AND contype = 'f' ORDER BY conname
