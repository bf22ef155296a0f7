"""All experiments, in the order in which they run."""

from . import deploys, front, instances, machine, postgres, redis
from .experiment import STALE_SECONDS_MAX, Experiment

ALL = (
    # ---- Snip -----------------------------------------------------------------------------------------------------
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
        "freeze-one-instance", "Snip",
        "What it was asked is asked of another one after 12 s, and what it does when it goes on undoes nothing.",
        "SIGSTOP of one instance for 15 s, then SIGCONT",
        instances.freeze_one, alert="ServiceDown", writes_fail=True,
    ),
    Experiment(
        "clock-forward", "Snip",
        "Clicks carry that time; nothing else notices.",
        "the wall clock of one instance jumps by +1 h, the instance is killed, the clock jumps back",
        machine.clock_forward, writes_fail=True,
    ),
    Experiment(
        "clock-back", "Snip",
        "Clicks carry that time; nothing else notices.",
        "the wall clock of one instance jumps by −1 h, the instance is killed, the clock jumps back",
        machine.clock_back, writes_fail=True,
    ),
    Experiment(
        "no-descriptors", "Snip",
        "The other instances serve; what waits to be accepted by this one is asked elsewhere after 12 s.",
        "prlimit: one instance may open nothing more, and its connections to PostgreSQL and Redis are ended",
        machine.exhaust_descriptors, reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "connection-limit", "Snip",
        "Kept connections of Nginx go on; new ones to this instance are answered with 503 while it is full.",
        "250 idle connections to one instance that allows 200",
        front.fill_connections, alert="ConnectionLimitNear", reads_fail=True, writes_fail=True,
    ),
    Experiment(
        "broken-version", "Snip",
        "It is tried beside the instances first, so that clients meet none of it.",
        "ops/stack restart --binary with versions that end at once, never listen, never get ready",
        deploys.broken,
    ),
    # ---- Redis ----------------------------------------------------------------------------------------------------
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
        "full-redis", "Redis",
        "Nothing fails: what cannot be written is removed, or not believed.",
        "maxmemory 1 with noeviction: each write is refused",
        redis.fill,
    ),
    Experiment(
        "flush-redis", "Redis",
        "Nothing fails, and no older value takes the empty place.",
        "FLUSHALL five times",
        redis.flush, is_quick=True,
    ),
    Experiment(
        "corrupt-redis", "Redis",
        "What is no value of ours is removed, and the store asked.",
        "all values overwritten ten times a second: other bytes, another type, half a value, none, 100 kB",
        redis.corrupt, is_quick=True,
    ),
    Experiment(
        "redis-connections", "Redis",
        "Nothing fails: as if Redis were away.",
        "maxclients 1, and the instances' connections are ended",
        redis.exhaust_connections, alert="RedisDown",
    ),
    Experiment(
        "slow-redis", "Redis",
        "Nothing fails: after 50 ms an instance goes on to the store, and soon does not ask any more.",
        "a proxy before Redis: 100 ms each way, 50 kB/s",
        redis.slow_wire, alert="RedisBreakerOpen",
    ),
    Experiment(
        "lossy-redis", "Redis",
        "Nothing fails: a broken connection is replaced, and Redis believed when it has been checked.",
        "a proxy before Redis: of 100 replies 5 are cut in the middle, after 2 the connection is silent",
        redis.broken_wire,
    ),
    # ---- PostgreSQL -----------------------------------------------------------------------------------------------
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
        "long-recovery", "PostgreSQL",
        "As when it is killed, for as long as it reads its log.",
        "kill -9 of PostgreSQL with much written since the last checkpoint",
        postgres.recover_long, reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "postgres-connections", "PostgreSQL",
        "As if it were away, until there are sessions again.",
        "all 40 sessions taken by others",
        postgres.exhaust_connections, alert="StoreDown", reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "slow-postgres", "PostgreSQL",
        "Writes and first redirects take as long as the way to PostgreSQL. A write may fail when connections go over to the proxy and back.",
        "a proxy before PostgreSQL: 100 ms each way, 1 MB/s",
        postgres.slow_wire, alert="HighLatency", writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "lossy-postgres", "PostgreSQL",
        "Reads are repeated; of a write whose answer was cut off the client is told that it may have been done. A batch of "
        "clicks whose answer was lost is not stored twice.",
        "a proxy before PostgreSQL: of 1,000 replies 20 are cut in the middle, after 5 the connection is silent",
        postgres.broken_wire, reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    # ---- Nginx and clients ------------------------------------------------------------------------------------------
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
    Experiment(
        "flood", "Nginx",
        "Other clients are served; codes that nobody has are asked of the store once a second at the most.",
        "2,000 silent connections, bodies of 20 MiB, and 32 clients that try random codes",
        front.flood, alert="CacheHitRatioLow",
    ),
    # ---- The machine ------------------------------------------------------------------------------------------------
    Experiment(
        "full-journal-disk", "the machine",
        "Nothing is lost while the store takes the clicks: the journal has a file ready, and frees those that are stored.",
        "the disk of the journals is filled",
        machine.fill_journals, alert="HostDiskSpaceCritical",
    ),
    Experiment(
        "full-journal-disk-no-store", "the machine",
        "Redirects of links in a cache go on; clicks that there is no room for are counted as shed, and told.",
        "PostgreSQL stands still, the disk of the journals is filled, and one instance has more clicks than its journal holds",
        machine.fill_journals_without_store, alert="ClicksShed", reads_fail=True, writes_fail=True, sheds=True,
        stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "full-postgres-disk", "the machine",
        "PostgreSQL ends itself and is started again until there is room. Redirects of links in a cache go on.",
        "the disk of PostgreSQL is filled for 10 s",
        machine.fill_postgres, alert="HostDiskSpaceCritical", reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX,
    ),
    Experiment(
        "full-log-disk", "the machine",
        "Log lines are lost, nothing else; what dies meanwhile is started again.",
        "the disk of the logs is filled, and Redis killed",
        machine.fill_logs, alert="HostDiskSpaceCritical",
    ),
    Experiment(
        "no-memory", "the machine",
        "Whatever the kernel kills is started again, and nothing is lost.",
        "programs in the control group, each smaller than ours, take all memory until the kernel has killed five processes",
        machine.hog_memory, reads_fail=True, writes_fail=True, stale_seconds=STALE_SECONDS_MAX, recover_seconds=60,
    ),
)
