-- As migrations_compare.sql, of a database without the table.
SELECT version, NULL::text, encode(sha256(convert_to(text, 'UTF8')), 'hex')
FROM unnest($1) WITH ORDINALITY AS known (text, version)
ORDER BY version
