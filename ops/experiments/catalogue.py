"""All experiments, in the order in which they run."""

from . import front, instances, postgres, redis
from .experiment import STALE_SECONDS_MAX, Experiment

ALL = (
    Experiment(
        "kill-one-instance", "Snip",
        "Redirects do not fail, since Nginx asks another instance; a change under way may. A restart is quicker than its "
        "alert, three in a row are told.",
        "kill -9 of one instance, three times",
        instances.kill_one_thrice, alert="RestartLoop", writes_fail=True, is_quick=True,
    ),
    Experiment(
        "kill-two-instances", "Snip",
        "The third one serves alone until the others are back.",
        "kill -9 of two instances at once",
        instances.kill_two, writes_fail=True,
    ),
    Experiment(
        "kill-all-instances", "Snip",
        "All fails until the first one is back, within seconds. What was acknowledged is there, clicks come from the journals.",
        "kill -9 of all three instances at once",
        instances.kill_all, reads_fail=True, writes_fail=True, is_quick=True,
    ),
    Experiment(
        "kill-redis", "Redis",
        "Nothing fails; Redis comes back empty and is believed only when it has been checked.",
        "kill -9 of Redis",
        redis.kill, is_quick=True,
    ),
    Experiment(
        "freeze-redis", "Redis",
        "Nothing fails: after 50 ms an instance goes on to the store.",
        "SIGSTOP of Redis until the alert, then SIGCONT",
        redis.freeze, alert="RedisDown", is_quick=True,
    ),
    Experiment(
        "kill-postgres", "PostgreSQL",
        "Redirects of links in a cache go on, the rest is refused until it has recovered. No commit is lost, and no click.",
        "kill -9 of PostgreSQL and all of its sessions",
        postgres.kill, reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX, is_quick=True,
    ),
    Experiment(
        "freeze-postgres", "PostgreSQL",
        "Redirects of links in a cache go on, the rest is refused after 5 s. Clicks wait in the journals.",
        "SIGSTOP of PostgreSQL and all of its sessions until the alert, then SIGCONT",
        postgres.freeze, alert="StoreDown", reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "kill-nginx", "Nginx",
        "All fails until it is back, within a second.",
        "kill -9 of Nginx and its worker",
        front.kill, reads_fail=True, writes_fail=True, is_quick=True,
    ),
    Experiment(
        "freeze-nginx", "Nginx",
        "All waits, and is answered when it goes on.",
        "SIGSTOP of Nginx and its worker for 6 s, then SIGCONT",
        front.freeze,
    ),
)
