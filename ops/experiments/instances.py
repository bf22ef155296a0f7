"""What is done to the instances."""

import threading
import time

from lib.roles import INSTANCES

from .load import Client


def kill_one_thrice(world):
    name = world.draw.choice(INSTANCES)
    world.until_start_is_watched(name)
    for _ in range(3):
        # Starts are told in whole seconds: of two within one nobody could tell that they are two.
        time.sleep(world.draw.uniform(1, 2))
        began = time.monotonic()
        world.kill(name)
        world.stack.until_ready(name)
        world.note(f"{name} was killed and is ready again after {time.monotonic() - began:.2f} s")
        world.until_start_is_watched(name)  # it counts those that Prometheus has seen


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


# So many changes at once that the frozen instance gets some of them.
CHANGES_AT_ONCE = 24


def freeze_one(world):
    """For longer than Nginx waits for an instance. What it was asked meanwhile it finds when it goes on, although Nginx
    has given up, and perhaps asked another: an older change must not come after a newer one."""
    clients = [Client(world.load.port) for _ in range(CHANGES_AT_ONCE)]
    links = []
    for client in clients:
        world.load.create(client, links)
    name = world.draw.choice(INSTANCES)
    with world.paused(name):
        world.note(f"{name} stands still")
        threads = [threading.Thread(target=_change_twice, args=(world, *pair)) for pair in zip(clients, links)]
        for thread in threads:
            thread.start()
        time.sleep(15)
        for thread in threads:
            thread.join()
    world.note(f"{name} goes on; {CHANGES_AT_ONCE} links were changed twice meanwhile")
    for client in clients:
        client.close()


def _change_twice(world, client, link):
    began = time.monotonic()
    if world.load.change(client, link) and time.monotonic() - began > 5:
        world.note(f"a change was acknowledged after {time.monotonic() - began:.1f} s, by another instance")
    if link.is_live():
        world.load.change(client, link)
