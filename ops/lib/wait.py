"""Polls with a deadline."""

import time

STEP_SECONDS = 0.02


class Late(Exception):
    """A condition did not come true in time."""


def until(what, seconds, condition, step_seconds=STEP_SECONDS):
    """The condition's first true value; `Late` when it has none within so many seconds. It is looked at every `step_seconds`.

    `what` ends the sentence "waited 10 s in vain until …".
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise Late(f"waited {seconds:g} s in vain until {what}")
        time.sleep(step_seconds)
