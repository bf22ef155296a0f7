SELECT next_sequence FROM click_journals WHERE journal_id = $1
