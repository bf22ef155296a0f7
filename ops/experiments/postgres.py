"""What is done to PostgreSQL."""

import time


def kill(world):
    time.sleep(world.draw.uniform(0, 1))
    world.kill("postgres")
    world.note("postgres was killed with all of its sessions")


def freeze(world):
    with world.paused("postgres"):
        world.note("postgres stands still")
        seconds = world.alarms.until_fired("StoreDown")
        world.note(f"StoreDown reached the receiver after {seconds:.1f} s")
