UPDATE users
SET username = coalesce($2, username), email = coalesce($3, email)
WHERE id = $1
RETURNING id::bigint, username, email, created_at
