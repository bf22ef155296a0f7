"""What is done to Nginx, and what clients do."""

import time


def kill(world):
    time.sleep(world.draw.uniform(0, 1))
    world.kill("nginx")
    world.note("nginx was killed with its worker")


def freeze(world):
    with world.paused("nginx"):
        world.note("nginx stands still")
        time.sleep(6)
