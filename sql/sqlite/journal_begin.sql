INSERT INTO click_journals (journal_id, instance_id, next_sequence, updated_at) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (journal_id) DO NOTHING
