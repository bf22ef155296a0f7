"""What the load tests share, on top of ops/lib.

tools    k6, oha and wrk: where they are, installed when they are missing
field    the stack on one core and one gigabyte, the load on the other core; the constant responder
figures  percentiles from histograms and from Nginx's log; CPU and memory by role
report   Markdown, SVG, the last line
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "ops"))


def say(line):
    print(f"loadtest: {line}", file=sys.stderr, flush=True)


class Failed(Exception):
    """What could not be done, for people."""
