"""The ground that measurements stand on: servers on one core, in a temporary folder that goes with them; the load, by
wrk, on another."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import net, roles, wait
from .process import Process, interrupt_once

SERVER_CORE, LOAD_CORE = "0", "1"
READY_SECONDS = 30
# Sessions as groups of the scheduler. PostgreSQL makes each of its processes a session of its own, and on a core that one
# thread takes whole such a group was seen to wait for seconds. In a control group, where the stack runs, there are none.
AUTOGROUP = Path("/proc/sys/kernel/sched_autogroup_enabled")
CODE = "Ceil01"
TARGET = "https://www.example.com/a/page/that/is/linked?from=here"


def cpu_nanoseconds(process, thread=None):
    """Time on the CPU of a process's living threads, or of those with this name."""
    total = 0
    for task in Path(f"/proc/{process.pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            if thread is None or (task / "comm").read_text().strip() == thread:
                total += int((task / "schedstat").read_text().split()[0])
    return total


class Ground:
    """A temporary folder, and processes that end with it. From its start on a signal raises KeyboardInterrupt, so that `end`
    has its turn."""

    def __init__(self):
        interrupt_once()
        self.folder = Path(tempfile.mkdtemp(prefix="snip-ground-"))
        self.folder.chmod(0o755)
        self.children = []
        self.taken = set()
        self.autogroup = self._set_autogroup("0\n")

    def _set_autogroup(self, value):
        """Sets it as far as we may; returns what it was."""
        with contextlib.suppress(OSError):
            before = AUTOGROUP.read_text()
            AUTOGROUP.write_text(value)
            return before
        return None

    def port(self):
        port = net.free_port(18_000, self.taken)
        self.taken.add(port)
        return port

    def start(self, name, command, is_ready, environment=None, user=None):
        log = open(self.folder / f"{name}.log", "ab")
        identity = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        child = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 cwd=self.folder, env={**os.environ, **(environment or {})}, **identity)
        self.children.append(child)
        try:
            wait.until(f"{name} is ready", READY_SECONDS, is_ready)
        except wait.Late:
            print(Path(log.name).read_text()[-2000:], file=sys.stderr)
            raise
        return Process.of(child.pid)

    def end(self):
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.autogroup:
            self._set_autogroup(self.autogroup)


def resident_mb(process, what="VmRSS"):
    """Memory that is resident: all, or what of it is no mapped file ("RssAnon")."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * 1024 / 1e6


def drained(*ports, seconds=120):
    """Waits until the instances that answer there have all clicks stored. Looks rarely: each look is a scrape, and would be
    counted among what a redirect costs."""
    is_done = lambda: all(net.metrics(port).get("clicks_waiting") == 0 for port in ports)  # noqa: E731
    wait.until("all clicks are stored", seconds, is_done, step_seconds=0.25)


def answers(port, path=f"/{CODE}", status=302):
    return lambda: net.get(port, path, 1)[0] == status


def postgres(ground):
    """A PostgreSQL with the settings of the stack, and the plan that leads to it."""
    plan = roles.Plan(ground.folder, {}, Path("/"))
    plan.run.mkdir()
    plan.logs.mkdir()
    role = roles.postgres(plan)
    process = ground.start("postgres", role.command, lambda: roles.is_ready(plan, "postgres"), user=role.user)
    roles.make_database(plan)
    return plan, process


def redis(ground, plan):
    """A Redis with the settings of the stack."""
    return ground.start("redis", roles.redis(plan).command, lambda: roles.is_ready(plan, "redis"))


def snip(ground, plan, binary, name, *arguments):
    """An instance of the product on that PostgreSQL, with one link in its cache: its process and its port."""
    port = ground.port()
    command = [binary, "serve", "--listen", f"127.0.0.1:{port}", "--instance-id", name, "--data-dir", ground.folder / "snip",
               "--log-level", "error", *arguments]
    process = ground.start(name, command, answers(port, "/readyz", 200), {"DATABASE_URL": plan.database_url})
    roles.psql(plan, f"INSERT INTO urls (short_code, original_url) VALUES ('{CODE}', '{TARGET}') ON CONFLICT DO NOTHING")
    wait.until("the link is followed", READY_SECONDS, answers(port))
    return process, port


def nginx(ground, folder):
    """The product's own Nginx before whatever listens on the sockets of the instances in `folder`."""
    port = ground.port()
    plan = roles.Plan(folder, {"nginx": port}, Path("/"))
    plan.logs.mkdir(exist_ok=True)
    role = roles.nginx(plan)
    return ground.start(f"nginx-{port}", role.command, answers(port)), port


@dataclass
class Load:
    """What wrk told."""

    requests: int
    rate: float
    p99_ms: float
    has_errors: bool
    told: str


def wrk(ground, port, connections, seconds, script="", path=f"/{CODE}"):
    """Puts a load on, with a script in wrk's Lua."""
    file = ground.folder / "wrk.lua"
    file.write_text(script)
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", file,
               f"http://127.0.0.1:{port}{path}"]
    told = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", told).groups()
    return Load(
        int(re.search(r"(\d+) requests in", told)[1]),
        float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1]),
        float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit],
        "Non-2xx" in told or "Socket errors" in told,
        told,
    )
