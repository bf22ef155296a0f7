"""What is done to the instances."""

import time

from lib.roles import INSTANCES


def kill_one_thrice(world):
    name = world.draw.choice(INSTANCES)
    for _ in range(3):
        time.sleep(world.draw.uniform(0, 1))
        began = time.monotonic()
        world.kill(name)
        world.stack.until_ready(name)
        world.note(f"{name} was killed and is ready again after {time.monotonic() - began:.2f} s")
        time.sleep(2)  # Prometheus must see each start


def kill_two(world):
    _kill(world, world.draw.sample(INSTANCES, 2))


def kill_all(world):
    _kill(world, INSTANCES)


def _kill(world, names):
    time.sleep(world.draw.uniform(0, 1))
    processes = [world.stack.process(name) for name in names]
    for process in processes:
        process.send(9)
    world.note(f"{', '.join(names)} were killed")


def freeze_one(world):
    """For longer than Nginx waits for an instance, so that it repeats elsewhere what it may."""
    name = world.draw.choice(INSTANCES)
    with world.paused(name):
        world.note(f"{name} stands still")
        time.sleep(15)
    world.note(f"{name} goes on")
