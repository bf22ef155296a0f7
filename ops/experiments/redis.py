"""What is done to Redis."""

import time

from lib import net

from .alarms import SPEED
from .wire import Fault


def kill(world):
    time.sleep(world.draw.uniform(0, 1))
    world.kill("redis")
    world.note("redis was killed")


def freeze(world):
    with world.paused("redis"):
        world.note("redis stands still")
        _until_alert(world, "RedisDown")


def keep_away(world):
    """Stops it; it is started again when the alert has fired."""
    world.stack.ask(do="stop", name="redis")
    world.note("redis is stopped")
    try:
        _until_alert(world, "RedisDown")
    finally:
        world.stack.ask(do="restart", name="redis")
        world.stack.until_ready("redis")


def _until_alert(world, name):
    seconds = world.alarms.until_fired(name)
    world.note(f"{name} reached the receiver after {seconds:.1f} s; its rule waits {60 / SPEED:g} s instead of 1 min")


def flush(world):
    for _ in range(5):
        world.redis("FLUSHALL")
        time.sleep(world.draw.uniform(0.2, 1))
    world.note("FLUSHALL five times")


def fill(world):
    """No room for anything new, and nothing may be thrown out."""
    world.redis("CONFIG", "SET", "maxmemory-policy", "noeviction")
    world.redis("CONFIG", "SET", "maxmemory", "1")
    try:
        refused = _refused(world)
        time.sleep(8)
        world.note(f"Redis refused {_refused(world) - refused:.0f} commands for want of memory")
    finally:
        world.redis("CONFIG", "SET", "maxmemory", "48mb")
        world.redis("CONFIG", "SET", "maxmemory-policy", "allkeys-lfu")


def _refused(world):
    return world.sum('redis_failures_total{reason="refused"}')


# What stands in the place of each value: bytes, another type, half a value, an empty one, and one that is too large.
CORRUPT = """
local keys = redis.call('KEYS', 'url:*')
for number, key in ipairs(keys) do
    local kind = number % 5
    if kind == 0 then redis.call('SET', key, string.rep('\\255\\0garbage', 8), 'KEEPTTL')
    elseif kind == 1 then redis.call('DEL', key); redis.call('RPUSH', key, 'x')
    elseif kind == 2 then redis.call('SET', key, '{"original_url":"https://exam', 'KEEPTTL')
    elseif kind == 3 then redis.call('SET', key, '', 'KEEPTTL')
    else redis.call('SET', key, string.rep('a', 100000), 'KEEPTTL') end
end
return #keys
"""


def corrupt(world):
    figure = 'cache_lookups_total{level="redis",result="garbage"}'
    before, count = world.sum(figure), 0
    ends = time.monotonic() + 8
    while time.monotonic() < ends:
        count += int(world.redis("EVAL", CORRUPT, "0"))
        time.sleep(0.1)
    world.note(f"{count} values were overwritten; instances met {world.sum(figure) - before:.0f} of them")


def exhaust_connections(world):
    """No new connection is taken, and the old ones are ended."""
    ours = net.UnixConnection(world.stack.plan().redis_socket, 10)
    ours.connect()

    def say(command):
        ours.sock.sendall(command.encode() + b"\r\n")
        return ours.sock.recv(4096)

    say("CONFIG SET maxclients 1")
    try:
        say("CLIENT KILL TYPE normal SKIPME yes")
        say("CLIENT KILL TYPE pubsub")
        world.note("one connection is allowed, and it is taken")
        _until_alert(world, "RedisDown")
    finally:
        say("CONFIG SET maxclients 128")
        ours.close()


def slow_wire(world):
    with world.wired("redis", Fault(delay_seconds=0.1, bytes_per_second=50_000)):
        world.note("each piece takes 100 ms and 20 µs a byte, each way")
        _until_alert(world, "RedisBreakerOpen")


def broken_wire(world):
    with world.wired("redis", Fault(cut_chance=0.05, stall_chance=0.02)) as wire:
        time.sleep(12)
        world.note(f"{wire.cuts} connections were cut in the middle of a reply, {wire.stalls} fell silent")
