"""What ops/chaos is made of, on top of ops/lib.

world     the stack that is experimented on, with its disks, its clock and its wires in our hands
load      clients that ask all the time, and the ledger of what they were told
ledger    the ledger against the store: what was lost, doubled, stale
alarms    time running faster in the rules; which alerts reached the receiver
heartbeat  how long the stack's core stood still
wire      a connection to PostgreSQL or Redis that is slow, narrow or cut
experiment  one experiment from a steady state to its verdict
catalogue   all of them, in the order in which they run
report    JSON, and the table in docs/chaos-engineering.md

instances, redis, postgres, front, machine, deploys: what is done in the experiments, by what it is done to.
"""

import sys


def say(line):
    print(f"chaos: {line}", file=sys.stderr, flush=True)


class Failed(Exception):
    """What could not be done, for people."""
