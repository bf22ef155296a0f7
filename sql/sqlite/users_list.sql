SELECT id, username, email, created_at
FROM users
WHERE id > ?1
ORDER BY id
LIMIT ?2 OFFSET ?3
