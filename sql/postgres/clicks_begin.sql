-- For this transaction the trigger on events counts nothing: clicks_insert counts by itself (0005_cheaper_clicks).
SELECT set_config('snip.counts_itself', 'yes', TRUE)
