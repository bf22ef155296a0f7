-- The row that the first batch moves; without that batch it does not come to stay.
INSERT INTO click_journals (journal_id, instance_id, next_sequence, updated_at) VALUES ($1, $2, 0, $3)
ON CONFLICT (journal_id) DO NOTHING
