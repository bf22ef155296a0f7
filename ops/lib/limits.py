"""The bounds of src/limits.rs as numbers, so that what measures or checks them does not say them again."""

import re
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src/limits.rs"
# What is left when names, types and units are gone.
ARITHMETIC = re.compile(r"[\d_\s()+*/<-]+")


@cache
def limit(name):
    """A bound's value: seconds of a duration, else the number that stands there. One that is reckoned otherwise than by plain
    arithmetic is a ValueError."""
    found = re.search(rf"^pub const {name}: [\w:]+ = ([^;]+);", SOURCE.read_text(), re.M)
    if not found:
        raise ValueError(f"no bound {name} in {SOURCE}")
    expression = re.sub(r" as \w+", "", found[1])
    expression = expression.replace("Duration::from_secs", "").replace("Duration::from_millis", "1 / 1000 * ")
    expression = re.sub(r"\b[A-Z][A-Z0-9_]+\b", lambda other: str(limit(other[0])), expression)
    if not ARITHMETIC.fullmatch(expression):
        raise ValueError(f"{name} is more than arithmetic: {found[1]}")
    return eval(expression)  # of digits and operators alone
