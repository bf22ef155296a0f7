-- The contract's tables. A database that has them already, from another program, is adopted: what is missing is added,
-- and no row is lost. Runs in one transaction. Times are UTC.

CREATE TABLE IF NOT EXISTS users (
    id serial PRIMARY KEY,
    username varchar(255) NOT NULL CONSTRAINT users_username_key UNIQUE,
    email varchar(255) NOT NULL CONSTRAINT users_email_key UNIQUE,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

CREATE TABLE IF NOT EXISTS urls (
    id serial PRIMARY KEY,
    user_id integer CONSTRAINT urls_user_id_fkey REFERENCES users (id) ON DELETE SET NULL,
    short_code varchar(20) NOT NULL CONSTRAINT urls_short_code_key UNIQUE,
    original_url text NOT NULL,
    title varchar(255),
    is_active boolean NOT NULL DEFAULT TRUE,
    created_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    updated_at timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc')
);

-- No foreign keys: they make an insert three times dearer, and what happened stays on record, whatever becomes of the
-- rows it happened to.
CREATE TABLE IF NOT EXISTS events (
    id serial PRIMARY KEY,
    url_id integer NOT NULL,
    user_id integer,
    event_type varchar(255) NOT NULL,
    timestamp timestamp NOT NULL DEFAULT (now() AT TIME ZONE 'utc'),
    details text
);

-- ---- Adoption: each of these finds nothing to do in the tables above -------------------------------------------

DO $$
DECLARE
    foreign_key record;
BEGIN
    FOR foreign_key IN SELECT conname FROM pg_constraint WHERE conrelid = 'events'::regclass AND contype = 'f' LOOP
        EXECUTE format('ALTER TABLE events DROP CONSTRAINT %I', foreign_key.conname);
    END LOOP;
    -- Not validated: rows of old that refer to nobody stay as they are, new ones are checked.
    IF NOT EXISTS (
        SELECT FROM pg_constraint
        WHERE conrelid = 'urls'::regclass AND confrelid = 'users'::regclass AND contype = 'f'
    ) THEN
        ALTER TABLE urls ADD CONSTRAINT urls_user_id_fkey
            FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE SET NULL NOT VALID;
    END IF;
END $$;

-- A column that is missing is added; one without a default gets it, so that INSERT works without the column.
-- A column that may not be null takes `fill` where it is.
CREATE FUNCTION pg_temp.snip_column(
    of_table regclass, name text, type text, may_be_null boolean, value text DEFAULT NULL, fill text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found_column record;
BEGIN
    SELECT attnotnull, atthasdef INTO found_column
    FROM pg_attribute WHERE attrelid = of_table AND attname = name AND NOT attisdropped;
    IF NOT FOUND THEN
        EXECUTE format('ALTER TABLE %s ADD COLUMN %I %s DEFAULT %s', of_table, name, type, coalesce(value, 'NULL'));
        IF fill <> value THEN
            EXECUTE format('UPDATE %s SET %I = %s', of_table, name, fill);
        END IF;
    ELSIF value IS NOT NULL AND NOT found_column.atthasdef THEN
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET DEFAULT %s', of_table, name, value);
    END IF;
    IF may_be_null THEN
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I DROP NOT NULL', of_table, name);
    ELSIF NOT coalesce(found_column.attnotnull, FALSE) THEN
        EXECUTE format('UPDATE %s SET %I = %s WHERE %2$I IS NULL', of_table, name, coalesce(fill, value));
        EXECUTE format('ALTER TABLE %s ALTER COLUMN %I SET NOT NULL', of_table, name);
    END IF;
END $$;

SELECT
    pg_temp.snip_column('users', 'created_at', 'timestamp', FALSE, $$(now() AT TIME ZONE 'utc')$$),
    pg_temp.snip_column('urls', 'user_id', 'integer', TRUE),
    pg_temp.snip_column('urls', 'title', 'varchar(255)', TRUE),
    pg_temp.snip_column('urls', 'is_active', 'boolean', FALSE, 'TRUE'),
    pg_temp.snip_column('urls', 'created_at', 'timestamp', FALSE, $$(now() AT TIME ZONE 'utc')$$),
    pg_temp.snip_column('urls', 'updated_at', 'timestamp', FALSE, $$(now() AT TIME ZONE 'utc')$$, 'created_at'),
    pg_temp.snip_column('events', 'user_id', 'integer', TRUE),
    pg_temp.snip_column('events', 'timestamp', 'timestamp', FALSE, $$(now() AT TIME ZONE 'utc')$$),
    pg_temp.snip_column('events', 'details', 'text', TRUE);

-- New ids follow the highest. Each sequence belongs to its column, so that pg_get_serial_sequence finds it.
CREATE FUNCTION pg_temp.snip_ids(of_table regclass) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    ids regclass := pg_get_serial_sequence(of_table::text, 'id');
    highest bigint;
BEGIN
    IF ids IS NULL THEN
        SELECT refobjid::regclass INTO ids
        FROM pg_attrdef
        JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum AND attname = 'id'
        JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
        JOIN pg_class ON refclassid = 'pg_class'::regclass AND refobjid = pg_class.oid AND relkind = 'S'
        WHERE adrelid = of_table;
        IF ids IS NULL THEN
            EXECUTE format('CREATE SEQUENCE %I', of_table::text || '_id_seq');
            ids := format('%I', of_table::text || '_id_seq')::regclass;
            EXECUTE format('ALTER TABLE %s ALTER COLUMN id SET DEFAULT nextval(%L)', of_table, ids);
        END IF;
        EXECUTE format('ALTER SEQUENCE %s OWNED BY %s.id', ids, of_table);
    END IF;
    EXECUTE format('SELECT max(id) FROM %s', of_table) INTO highest;
    IF highest > coalesce(pg_sequence_last_value(ids), 0) THEN
        PERFORM setval(ids, highest);
    END IF;
END $$;

SELECT pg_temp.snip_ids('users'), pg_temp.snip_ids('urls'), pg_temp.snip_ids('events');

-- An index on exactly these columns, under whatever name; another one under ours does not count.
CREATE FUNCTION pg_temp.snip_index(
    name text, of_table regclass, key_columns text[], must_be_unique boolean DEFAULT FALSE, predicate text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM pg_index
        JOIN pg_class ON pg_class.oid = indexrelid
        JOIN pg_am ON pg_am.oid = relam AND amname = 'btree'
        WHERE indrelid = of_table AND indisvalid AND indexprs IS NULL
            AND (indisunique OR NOT must_be_unique)
            AND pg_get_expr(indpred, indrelid) IS NOT DISTINCT FROM predicate
            AND 0 = ALL (indoption::int2[])
            AND key_columns = (
                SELECT array_agg(attname::text ORDER BY place)
                FROM unnest(indkey::int2[]) WITH ORDINALITY AS key (number, place)
                JOIN pg_attribute ON attrelid = indrelid AND attnum = number
                WHERE place <= indnkeyatts
            )
    ) THEN
        RETURN;
    END IF;
    WHILE to_regclass(format('%I', name)) IS NOT NULL LOOP
        name := name || '_snip';
    END LOOP;
    EXECUTE format(
        'CREATE %s INDEX %I ON %s (%s) %s',
        CASE WHEN must_be_unique THEN 'UNIQUE' END, name, of_table,
        (SELECT string_agg(format('%I', key_column), ', ') FROM unnest(key_columns) AS key_column), 'WHERE ' || predicate
    );
END $$;

-- One for each filter of a list, in the order of the list. (is_active, id) also counts the active ones by itself.
SELECT
    pg_temp.snip_index('users_id_key', 'users', '{id}', TRUE),
    pg_temp.snip_index('users_username_key', 'users', '{username}', TRUE),
    pg_temp.snip_index('users_email_key', 'users', '{email}', TRUE),
    pg_temp.snip_index('urls_id_key', 'urls', '{id}', TRUE),
    pg_temp.snip_index('urls_short_code_key', 'urls', '{short_code}', TRUE),
    pg_temp.snip_index('urls_user_id_idx', 'urls', '{user_id,id}'),
    pg_temp.snip_index('urls_is_active_idx', 'urls', '{is_active,id}'),
    pg_temp.snip_index('events_id_key', 'events', '{id}', TRUE),
    pg_temp.snip_index('events_timestamp_idx', 'events', '{timestamp,id}'),
    pg_temp.snip_index('events_url_id_idx', 'events', '{url_id,timestamp,id}'),
    pg_temp.snip_index('events_event_type_idx', 'events', '{event_type,timestamp,id}'),
    pg_temp.snip_index('events_user_id_idx', 'events', '{user_id,timestamp,id}', FALSE, '(user_id IS NOT NULL)');

DROP FUNCTION pg_temp.snip_column, pg_temp.snip_ids, pg_temp.snip_index;
