SELECT timestamp FROM events WHERE id = ?1
