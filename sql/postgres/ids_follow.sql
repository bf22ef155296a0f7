SELECT setval(sequence, highest)
FROM (
    SELECT pg_get_serial_sequence('users', 'id')::regclass AS sequence, max(id)::bigint AS highest FROM users
    UNION ALL
    SELECT pg_get_serial_sequence('urls', 'id')::regclass, max(id)::bigint FROM urls
    UNION ALL
    SELECT pg_get_serial_sequence('events', 'id')::regclass, max(id)::bigint FROM events
) AS ids
WHERE highest > coalesce(pg_sequence_last_value(sequence), 0)
