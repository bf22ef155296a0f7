UPDATE click_journals SET instance_id = ?2, next_sequence = ?4, updated_at = ?5
WHERE journal_id = ?1 AND next_sequence = ?3
