"""One core and one gigabyte for a command and all that it starts: control groups of version 1 and 2.

with Droplet.make(cpu=0, memory=GIB) as droplet:
    subprocess.run([*droplet.command(), "make", "test"])
    print(droplet.usage())
"""

import os
import re
import secrets
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from . import wait

MIB = 1024**2
GIB = 1024**3
# How often resident memory is looked at.
SAMPLE_SECONDS = 0.2
END_SECONDS = 10


class Unavailable(Exception):
    """Why there can be no group here, and what to do."""


@dataclass
class Usage:
    """What all processes of the group took, those that have ended included."""

    cpu_seconds: float
    memory_peak: int  # bytes at most: what processes hold and mapped files, without the cache of files
    charged_peak: int  # the same with the cache of files, which the kernel gives back when it is needed
    out_of_memory: int  # processes that were killed for want of memory


def _mounts(kind, root):
    """Mount points of this type of file system, with their options."""
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] == kind:
            yield left.split()[4], set(right.split()[2].split(","))


def _own_groups(root):
    """Controllers to this process's group; that of version 2 under the empty name."""
    groups = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        groups.update(dict.fromkeys(controllers.split(","), path))
    return groups


def _beneath(mount, group, root):
    """The folder of our own group, or the top where the mount shows another part of the tree, as in containers."""
    own = root / mount.lstrip("/") / group.lstrip("/")
    return own if own.is_dir() else root / mount.lstrip("/")


def _write(path, value):
    try:
        path.write_text(f"{value}\n")
    except OSError as error:
        raise Unavailable(
            f"cannot write {value} to {path}: {error.strerror}. Run it as root, on a host or in a container that "
            "may change control groups"
        ) from None


def _make(parent, name):
    try:
        folder = parent / name
        folder.mkdir()
        return folder
    except OSError as error:
        raise Unavailable(
            f"cannot make a control group in {parent}: {error.strerror}. Run it as root, on a host or in a "
            "container that may change control groups"
        ) from None


def _numbers(path):
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}


# "cpu" has nothing to limit. Without it the scheduler may take each session for a group of its own (autogroups), among which
# priorities do not count; with it, as in units and containers, that is out of play.


class _Version1:
    """A folder for each controller."""

    CONTROLLERS = ("memory", "cpuset", "cpuacct", "cpu")

    def __init__(self, root, name):
        mounts = {controller: mount for mount, options in _mounts("cgroup", root) for controller in options}
        groups = _own_groups(root)
        missing = [
            controller for controller in self.CONTROLLERS if controller not in mounts or controller not in groups
        ]
        if missing:
            raise Unavailable(f"the control groups {', '.join(missing)} are not mounted; see /proc/mounts")
        self.folders = {}
        for controller in self.CONTROLLERS:
            folder = _beneath(mounts[controller], groups[controller], root) / name
            if folder not in self.folders.values():  # several controllers may share a mount
                _make(folder.parent, folder.name)
            self.folders[controller] = folder

    def limit(self, cpu, memory):
        cpuset = self.folders["cpuset"]
        _write(cpuset / "cpuset.cpus", cpu)
        _write(cpuset / "cpuset.mems", (cpuset.parent / "cpuset.mems").read_text().strip())
        _write(self.folders["memory"] / "memory.limit_in_bytes", memory)
        swap = self.folders["memory"] / "memory.memsw.limit_in_bytes"
        if swap.exists():  # memory and swap together; absent where the kernel does not account for swap
            _write(swap, memory)

    def usage(self):
        memory = self.folders["memory"]
        charged = int((memory / "memory.max_usage_in_bytes").read_text())
        killed = _numbers(memory / "memory.oom_control").get("oom_kill", 0)
        return int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / 1e9, charged, killed

    def resident(self):
        stat = _numbers(self.folders["memory"] / "memory.stat")
        return stat["total_rss"] + stat["total_mapped_file"]


class _Version2:
    """One folder."""

    CONTROLLERS = ("cpuset", "memory", "cpu")

    def __init__(self, root, name):
        groups = _own_groups(root)
        mounts = [mount for mount, _ in _mounts("cgroup2", root)]
        if not mounts or "" not in groups:
            raise Unavailable("no control groups are mounted; see /proc/mounts")
        top = root / mounts[0].lstrip("/")
        # Groups that hold processes cannot limit groups beneath them, save for the top: there is where ours goes.
        there = (top / "cgroup.controllers").read_text().split()
        missing = [controller for controller in self.CONTROLLERS if controller not in there]
        if missing:
            raise Unavailable(
                f"{top} has no controller {' and no '.join(missing)}; it was not delegated to this container, or is "
                "switched off by the kernel's command line"
            )
        enabled = (top / "cgroup.subtree_control").read_text().split()
        wanted = [f"+{controller}" for controller in self.CONTROLLERS if controller not in enabled]
        if wanted:
            _write(top / "cgroup.subtree_control", " ".join(wanted))
        self.folders = {"": _make(top, name)}

    def limit(self, cpu, memory):
        _write(self.folders[""] / "cpuset.cpus", cpu)
        _write(self.folders[""] / "memory.max", memory)
        if (self.folders[""] / "memory.swap.max").exists():
            _write(self.folders[""] / "memory.swap.max", 0)

    def usage(self):
        folder = self.folders[""]
        peak = folder / "memory.peak"  # since Linux 5.19
        charged = int(peak.read_text()) if peak.exists() else 0
        return (
            _numbers(folder / "cpu.stat")["usage_usec"] / 1e6,
            charged,
            _numbers(folder / "memory.events").get("oom_kill", 0),
        )

    def resident(self):
        stat = _numbers(self.folders[""] / "memory.stat")
        return stat["anon"] + stat["file_mapped"]


class Droplet:
    """A group with its limits; leaving it ends all that still runs in it, and removes it."""

    def __init__(self, version):
        self._version = version
        self._peak = 0
        self._is_over = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    @classmethod
    def make(cls, cpu, memory, root=Path("/")):
        """A new group beneath our own. `root` is where /proc and /sys are looked for."""
        # One of a run that was killed is still there when its process id comes again.
        name = f"snip-droplet-{os.getpid()}-{secrets.token_hex(4)}"
        has_memory_1 = any("memory" in options for _, options in _mounts("cgroup", root))
        version = (_Version1 if has_memory_1 else _Version2)(root, name)
        droplet = cls(version)
        try:
            version.limit(cpu, memory)
        except Unavailable:
            droplet._remove()
            raise
        droplet._sampler.start()
        return droplet

    def command(self):
        """A command that enters the group and becomes the command that stands behind it."""
        script = (
            'for folder in $DROPLET; do echo $$ >"$folder/cgroup.procs" || exit 125; done; unset DROPLET; exec "$@"'
        )
        folders = " ".join(map(str, self._folders()))
        return ["env", f"DROPLET={folders}", "sh", "-c", script, "droplet: cannot run"]

    def pids(self):
        """The processes in it."""
        return [int(pid) for folder in self._folders()[:1] for pid in (folder / "cgroup.procs").read_text().split()]

    def resident(self):
        """Bytes that its processes hold now, mapped files included."""
        return self._version.resident()

    def usage(self):
        """What was used until now."""
        cpu, charged, killed = self._version.usage()
        self._look()
        return Usage(cpu, self._peak, charged, killed)

    def _folders(self):
        return list(dict.fromkeys(self._version.folders.values()))

    def _look(self):
        self._peak = max(self._peak, self.resident())

    def _sample(self):
        while not self._is_over.wait(SAMPLE_SECONDS):
            self._look()

    def end(self):
        """Ends all that runs in it: asks first, and kills what does not end in time. Gives how many there were."""
        left = self.pids()
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in self.pids():
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass  # it has ended meanwhile
            try:
                wait.until("all processes of the group have ended", END_SECONDS, lambda: not self.pids())
                break
            except wait.Late:
                continue
        return len(left)

    def _remove(self):
        for folder in self._folders():
            for _ in range(50):  # the kernel needs a moment after the last process has ended
                try:
                    folder.rmdir()
                    break
                except OSError:
                    time.sleep(wait.STEP_SECONDS)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
        self._is_over.set()
        self._sampler.join()
        self._remove()


def size(text):
    """Bytes of "512MiB", "1GiB" or a plain number; ValueError for anything else."""
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if not found or int(found[1]) == 0:
        raise ValueError(f"'{text}' is not a size such as 512MiB or 1GiB")
    return int(found[1]) * {"": 1, "KiB": 1024, "MiB": MIB, "GiB": GIB}[found[2]]
