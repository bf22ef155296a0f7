-- Pages stand in place of the markers: LIMIT alone, or with OFFSET. The inner limit is a constant, for with a parameter
-- the planner would reckon with a tenth of the table and might sort it.
SELECT * FROM (
    SELECT id::bigint, username, email, created_at
    FROM users
    WHERE id > $1
    ORDER BY users.id /* page */
) AS page
LIMIT $2
