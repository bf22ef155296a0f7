-- Nobody writes between the look whether there are rows and the commit.
LOCK TABLE users, urls, events, url_stats IN SHARE ROW EXCLUSIVE MODE
