-- One instance at a time. The lock ends with the transaction, whatever becomes of the instance; a lock of the session
-- would not hold behind a pooler.
BEGIN;
SET LOCAL statement_timeout = 0;
SET LOCAL lock_timeout = 0;
SELECT pg_advisory_xact_lock(hashtextextended('snip_migrations', 0));
