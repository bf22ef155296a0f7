"""What is done to Redis."""

import time

from .alarms import SPEED


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
