UPDATE events SET user_id = NULL WHERE user_id = $1
