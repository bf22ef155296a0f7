"""What is done to the machine: disks, clock, memory, file descriptors."""

import contextlib
import email.utils
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from lib import net, wait
from lib.roles import INSTANCES
from lib.stack import MAKERS

from . import Failed

FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
HOUR_SECONDS = 3600

# ---- Disks --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _full(world, name):
    disk = world.disks[name]
    disk.fill()
    world.note(f"the disk of {name} is full")
    try:
        yield disk
    finally:
        disk.empty()


def fill_journals(world):
    with _full(world, "snip"):
        seconds = world.alarms.until_fired("HostDiskSpaceCritical")
        world.note(f"HostDiskSpaceCritical reached the receiver after {seconds:.1f} s")


def fill_journals_without_store(world):
    """More clicks than one instance's journal has room for, while the store takes none."""
    name = world.draw.choice(INSTANCES)
    code = next(link.code for link in world.load.links if link.is_live())
    target = f"http://127.0.0.1:{world.stack.plan().ports[name]}/{code}"
    with world.paused("postgres"), _full(world, "snip"):
        burst = subprocess.Popen(
            ["wrk", "-t1", "-c16", "-d60s", target], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait.until(f"{name} has no room for a click", 60, lambda: world.metric(name, "clicks_shed_total") > 0)
        finally:
            burst.kill()
            burst.wait()
        world.note(
            f"{name} holds {world.metric(name, 'clicks_waiting'):,.0f} clicks that the store has not; there is no room "
            "for more"
        )
        seconds = world.alarms.until_fired("ClicksShed")
        world.note(f"ClicksShed reached the receiver after {seconds:.1f} s")


def fill_postgres(world):
    with _full(world, "postgres") as disk:
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            with contextlib.suppress(OSError):
                world.stack.psql("SELECT pg_switch_wal()")  # the next segment of its log finds no room
            disk.fill()
            time.sleep(0.5)
        world.alarms.until_fired("HostDiskSpaceCritical")
        panics = world.stack.log("postgres").read_text(errors="replace").count("PANIC")
        world.note(f"PostgreSQL ended itself {panics} times for want of room")


def fill_logs(world):
    with _full(world, "logs"):
        world.kill("redis")
        world.note("redis was killed meanwhile")
        world.stack.until_ready("redis")
        seconds = world.alarms.until_fired("HostDiskSpaceCritical")
        world.note(f"HostDiskSpaceCritical reached the receiver after {seconds:.1f} s")


# ---- The clock ----------------------------------------------------------------------------------------------------


def clock_forward(world):
    _jump(world, HOUR_SECONDS)


def clock_back(world):
    _jump(world, -HOUR_SECONDS)


def _jump(world, seconds):
    """The wall clock of one instance jumps there and back; the clock that only goes on does not."""
    library = sorted(Path("/").glob(FAKETIME.lstrip("/")))
    if not library:
        raise Failed("libfaketime is not installed: run make setup")
    offset = world.folder / "run/clock"
    offset.write_text("+0\n")

    def faked(role):
        role.environment |= {
            "LD_PRELOAD": str(library[0]),
            "FAKETIME_TIMESTAMP_FILE": str(offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    name = world.draw.choice(INSTANCES)
    with world.changed(name, faked):
        before = _clock(world, name)
        offset.write_text(f"{seconds:+d}\n")
        world.note(f"the clock of {name} jumps by {seconds:+d} s")
        time.sleep(5)
        seen = _clock(world, name)
        world.note(f"{name} tells {seen - before:+.0f} s by its own clock")
        if abs(seen - before - seconds) > 60:
            raise Failed(f"the clock of {name} did not jump")
        world.kill(name)
        world.stack.until_ready(name)
        world.note(f"{name} was killed and starts with that clock")
        time.sleep(3)
        offset.write_text("+0\n")
        world.note("the clock jumps back")
        time.sleep(5)


def _clock(world, name):
    """Seconds since the epoch by the `Date` of an instance."""
    asked = net.connection(world.stack.address(name))
    asked.request("GET", "/livez")
    date = asked.getresponse().headers["Date"]
    asked.close()
    return email.utils.parsedate_to_datetime(date).timestamp()


# ---- Memory -------------------------------------------------------------------------------------------------------

# Processes that each hold less than any of ours, so that the kernel, which kills the largest, does not begin with them.
HOG = """
import os, time
ends = time.monotonic() + 20
for _ in range(200):
    if os.fork() == 0:
        held = b'x' * (8 << 20)
        time.sleep(max(0, ends - time.monotonic()))
        os._exit(0)
    time.sleep(0.05)
time.sleep(max(0, ends - time.monotonic()))
"""
KILLED = 5


def hog_memory(world):
    """Small programs in the same group take all there is, until the kernel has killed some processes."""
    before, rest = world.droplet.usage().out_of_memory, {name: world.stack.process(name) for name in MAKERS}
    hog = subprocess.Popen(
        [*world.droplet.command(), sys.executable, "-c", HOG], start_new_session=True, stderr=subprocess.DEVNULL
    )
    try:
        ends = time.monotonic() + 20
        while time.monotonic() < ends and world.droplet.usage().out_of_memory < before + KILLED:
            time.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(hog.pid, signal.SIGKILL)
        hog.wait()
    killed = world.droplet.usage().out_of_memory - before
    dead = [name for name, process in rest.items() if not process.is_alive()]
    world.note(
        f"the kernel killed {killed} processes for want of memory; first processes of roles among them: "
        f"{', '.join(dead) or 'none'}"
    )
    if not killed:
        raise Failed("memory did not become scarce")


# ---- File descriptors ---------------------------------------------------------------------------------------------


def exhaust_descriptors(world):
    """An instance may open nothing more, while its connections are ended under it."""
    name = world.draw.choice(INSTANCES)
    process = world.stack.process(name)
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    open_now = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (open_now // 2, before[1]))
    world.note(f"{name} has {open_now} files open and may have {open_now // 2}")
    try:
        world.cut_off("postgres")
        world.cut_off("redis")
        time.sleep(8)
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    world.note(f"{name} could not accept {world.metric(name, 'http_accept_errors_total'):.0f} times")
