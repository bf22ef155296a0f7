-- $1: the texts of the migrations that this program knows, in order.
SELECT
    coalesce(ran.version, known.version)::bigint,
    ran.checksum,
    encode(sha256(convert_to(known.text, 'UTF8')), 'hex')
FROM snip_migrations AS ran
FULL JOIN unnest($1) WITH ORDINALITY AS known (text, version) ON known.version = ran.version
ORDER BY 1
