"""A folder for each run, its tables in Markdown, its plot in SVG, its thresholds."""

import os
import platform
import re
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from lib import roles, wait
from lib.cgroup import Unavailable
from lib.process import interrupt_once
from lib.stack import Failed as StackFailed

from . import ROOT, Failed, say, tools

MIB = 1024**2


def new_folder(name):
    """A new folder for a run of this name."""
    folder = ROOT / "target/loadtests" / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    return folder


def machine():
    """Rows on the machine and the programs."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1]) / 1024**2
    return [
        ("machine", f"{model[1] if model else platform.machine()}, {os.cpu_count()} cores, {memory:.1f} GiB"),
        ("system", f"{platform.freedesktop_os_release()['PRETTY_NAME']}, Linux {platform.release()}"),
        ("load on the machine at the start", f"{os.getloadavg()[0]:.1f}"),
    ]


def versions(binary):
    """Rows on the versions of what runs."""

    def of(*command):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
        return (done.stdout + done.stderr).splitlines()[0].strip()

    commit = of("git", "-C", ROOT, "log", "-1", "--format=%h %s")
    return [
        ("Snip", f"{of(binary, '--version')}, commit {commit}"),
        ("Nginx", of(roles.program("nginx"), "-v")),
        ("PostgreSQL", of(roles.postgres_program("postgres"), "--version")),
        ("Redis", of(roles.program("redis-server"), "--version")),
        ("Prometheus", of(roles.program("prometheus"), "--version")),
        ("k6", tools.K6_VERSION),
    ]


def table(header, rows):
    """A Markdown table; the first column is text, the others numbers."""
    lines = ["| " + " | ".join(header) + " |", "|---" + "|---:" * (len(header) - 1) + "|"]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def milliseconds(seconds):
    return "–" if seconds is None else f"{seconds * 1e3:.2f} ms"


@dataclass
class Bar:
    """A threshold and how it was met."""

    what: str
    measured: str
    wanted: str
    is_met: bool

    def row(self):
        return (self.what, self.measured, self.wanted, "met" if self.is_met else "**missed**")


def at_least(what, value, bound, form="{:,.0f}"):
    return Bar(what, form.format(value), "≥ " + form.format(bound), value >= bound)


def at_most(what, value, bound, form="{:,.0f}"):
    return Bar(what, form.format(value), "≤ " + form.format(bound), value <= bound)


def conclude(folder, command, rows, run):
    """Runs `run`, which gives bars, Markdown, and the last line; writes the report. The exit status."""
    interrupt_once()
    try:
        bars, text, line = run()
    except (Failed, StackFailed, Unavailable, wait.Late, OSError) as error:
        say(error)
        return 1
    except KeyboardInterrupt:
        say("broken off")
        return 130
    title = (
        f"# {folder.name.rpartition('-')[0].rpartition('-')[0]}, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"
    )
    (folder / "report.md").write_text("\n".join([f"{title}\n\n`{command}`\n", table(("", ""), rows), *text]))
    for bar in bars:
        if not bar.is_met:
            say(f"missed: {bar.what}: {bar.measured}, wanted {bar.wanted}")
    say(f"the report is {folder / 'report.md'}")
    print(line)
    return 0 if all(bar.is_met for bar in bars) else 1


def options_of(parser):
    """The options of a load test: its own, and those that all have."""
    parser.add_argument("--quick", action="store_true", help="a fraction of the time: to see that it works")
    parser.add_argument(
        "--binary", type=Path, default=ROOT / "target/release/snip", help="[default: target/release/snip]"
    )
    options = parser.parse_args()
    if not os.access(options.binary, os.X_OK):
        parser.error(f"there is no program {options.binary}; cargo build --release makes it")
    return options


# ---- The plot -----------------------------------------------------------------------------------------------------

WIDTH, PANEL, LEFT, GAP = 900, 110, 90, 36


def plot(path, title, panels):
    """One panel below the other over the same seconds: (label, unit, [(second, value), …])."""
    panels = [panel for panel in panels if panel[2]]
    end = max((points[-1][0] for _, _, points in panels), default=1) or 1
    height = 50 + len(panels) * (PANEL + GAP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        'font-size="12">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/><text x="{LEFT}" y="24" font-size="15">{title}</text>',
    ]
    for number, (label, unit, points) in enumerate(panels):
        parts.append(_panel(50 + number * (PANEL + GAP), label, unit, points, end))
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")


def _panel(top, label, unit, points, end):
    most = max(value for _, value in points) or 1
    width = WIDTH - LEFT - 20
    line = " ".join(
        f"{LEFT + second / end * width:.1f},{top + PANEL - value / most * PANEL:.1f}" for second, value in points
    )
    return (
        f'<text x="{LEFT}" y="{top - 5}">{label}</text>'
        f'<rect x="{LEFT}" y="{top}" width="{width}" height="{PANEL}" fill="#f6f8fa" stroke="#d0d7de"/>'
        f'<text x="{LEFT - 6}" y="{top + 10}" text-anchor="end">{most:,.4g} {unit}</text>'
        f'<text x="{LEFT - 6}" y="{top + PANEL}" text-anchor="end">0</text>'
        f'<text x="{LEFT + width}" y="{top + PANEL + 14}" text-anchor="end">{end:.0f} s</text>'
        f'<polyline points="{line}" fill="none" stroke="#0969da" stroke-width="1.5"/>'
    )
