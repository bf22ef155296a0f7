"""How long the stack's core stood still for reasons of its own: the machine had other work, or was stolen from us."""

import subprocess
import sys

BEAT_SECONDS = 0.05
# Tells, when its input ends, by how much beats within so many seconds came late at the most.
BEATS = """
import collections, select, sys, time
beat, within = map(float, sys.argv[1:])
late, most, last = collections.deque(maxlen=round(within / beat)), 0, time.monotonic()
while not select.select([sys.stdin], [], [], beat)[0]:
    now = time.monotonic()
    late.append(now - last - beat)
    most, last = max(most, sum(late)), now
print(most)
"""


class Heartbeat:
    """Beats in a droplet from entering to leaving, as a process among those of the stack and no busier than it has to be."""

    def __init__(self, droplet, within_seconds):
        self._command = [*droplet.command(), sys.executable, "-c", BEATS, str(BEAT_SECONDS), str(within_seconds)]
        self.lost_seconds = 0.0  # of any such stretch of time, at the most; known on leaving

    def __enter__(self):
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
        return self

    def __exit__(self, *_):
        told, _ = self._process.communicate()
        self.lost_seconds = float(told or 0)  # nothing when it was killed for want of memory
