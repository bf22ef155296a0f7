SELECT count(*) FROM urls WHERE is_active
