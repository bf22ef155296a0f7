"""The stack on one core and one gigabyte, the load on the other core."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from lib import net, render, roles, wait
from lib.cgroup import GIB, Droplet
from lib.process import Process
from lib.roles import INSTANCES
from lib.stack import MAKERS, Stack

from . import ROOT, Failed, say

MEMORY = GIB
LINKS = 50
SAMPLE_SECONDS = 1
# Shares of memory are looked up every so many samples: the kernel walks all pages for it.
SHARES_EVERY = 5
# Until all clicks are in the store, once nobody asks any more.
DRAIN_SECONDS = 120


def cores():
    """The core of the stack and the core of the load."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Failed("a load test needs two cores: one for the stack, one for the load")
    return allowed[0], allowed[1]


@dataclass
class Sample:
    """A look at the whole, once a second."""

    at: float  # time.time()
    cpu_seconds: float
    memory: int
    clicks_waiting: int
    clicks_lag_seconds: float  # the instance whose oldest click waits for the longest time


@dataclass
class Snapshot:
    """Counters at one moment."""

    cpu_seconds: dict  # by role
    metrics: Counter  # summed over the instances


class Field:
    """A stack that runs in a droplet; leaving it stops the stack and removes its data."""

    def __init__(self, binary, log_redirects):
        self.core, self.load_core = cores()
        self._binary, self._log_redirects = binary, log_redirects
        self.samples = []
        self._shares_peak = 0
        self._is_over = threading.Event()

    def __enter__(self):
        # We work on the core of the load, not on that of the stack.
        os.sched_setaffinity(0, {self.load_core})
        with contextlib.ExitStack() as undo:
            folder = Path(tempfile.mkdtemp(prefix="snip-load-", dir="/var/tmp"))
            undo.callback(shutil.rmtree, folder)
            folder.chmod(0o755)
            self.droplet = undo.enter_context(Droplet.make(self.core, MEMORY))
            self.stack = Stack(folder)
            undo.callback(self.stack.down)
            say(f"starting the stack on core {self.core} with {MEMORY // 1024**2} MiB")
            self.stack.up(self._binary, log_redirects=self._log_redirects, wrap=self.droplet.command())
            self.port = self.stack.plan().ports["nginx"]
            self.base = f"http://127.0.0.1:{self.port}"
            sampler = threading.Thread(target=self._sample, daemon=True)
            sampler.start()
            undo.callback(sampler.join)
            undo.callback(self._is_over.set)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self._undo.close()

    def _sample(self):
        while not self._is_over.wait(SAMPLE_SECONDS):
            if len(self.samples) % SHARES_EVERY == 0:
                self._shares_peak = max(self._shares_peak, sum(self.memory().values()))
            usage = self.droplet.usage()
            told = [self.stack.metrics(name) for name in INSTANCES]
            waiting = int(sum(one.get("clicks_waiting", 0) for one in told))
            lag = max(one.get("clicks_lag_seconds", 0) for one in told)
            self.samples.append(Sample(time.time(), usage.cpu_seconds, self.droplet.resident(), waiting, lag))

    def snapshot(self):
        """What all roles have taken and counted so far."""
        cpu = {name: sum(one.cpu_seconds() for one in self.stack.process(name).family()) for name in MAKERS}
        metrics = Counter()
        for name in INSTANCES:
            metrics.update(self.stack.metrics(name))
        return Snapshot(cpu, metrics)

    def memory(self):
        """Proportional resident bytes by role, now; none for one that is being started again."""
        told = {entry["name"]: entry["process"] for entry in self.stack.status()}
        return {
            name: sum(one.memory_bytes() for one in Process(*told[name]).family()) if told.get(name) else 0
            for name in MAKERS
        }

    def memory_peak(self):
        """Resident bytes of the whole stack at their most: as the control group counts them, five times a second, or as
        the sum of the roles' shares. Pages of programs that were in memory before count in the second alone."""
        return max(self.droplet.usage().memory_peak, self._shares_peak)

    def make_links(self):
        """The codes of some new links."""
        asked = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        codes = []
        for number in range(LINKS):
            body = json.dumps({"url": f"https://example.com/load/{number}"})
            asked.request("POST", "/urls", body, {"Content-Type": "application/json"})
            answer = asked.getresponse()
            text = answer.read()
            if answer.status != 201:
                raise Failed(f"cannot make links: {answer.status} {text.decode()}")
            codes.append(json.loads(text)["short_code"])
        asked.close()
        return codes

    def clicks(self):
        """Redirects that the instances have answered and redirects in the store, once nothing waits any more."""

        def waits():
            return sum(self.stack.metrics(name).get("clicks_waiting", 1) for name in INSTANCES)

        began = time.monotonic()
        wait.until("all clicks are stored", DRAIN_SECONDS, lambda: waits() == 0)
        answered = int(sum(self.stack.metrics(name)["redirects_total"] for name in INSTANCES))
        stored = int(self.stack.psql("SELECT count(*) FROM events WHERE event_type = 'redirect'"))
        return answered, stored, time.monotonic() - began


class Constant:
    """The constant responder on this core; leaving it stops it."""

    def __init__(self, core):
        self._core = core

    def __enter__(self):
        port = net.free_port(18080, ())
        self.base = f"http://127.0.0.1:{port}"
        link = {
            "id": 1,
            "user_id": None,
            "short_code": "abc123",
            "original_url": "https://example.com/load/setup-1?from=k6",
            "title": None,
            "is_active": True,
            "created_at": "2026-01-01T00:00:00",
            "updated_at": "2026-01-01T00:00:00",
        }
        with contextlib.ExitStack() as undo:
            folder = Path(tempfile.mkdtemp(prefix="snip-constant-", dir="/var/tmp"))
            undo.callback(shutil.rmtree, folder)
            folder.chmod(0o755)
            values = {"NGINX_USER": roles.nginx_user(), "FOLDER": folder, "PORT": port, "LINK": json.dumps(link)}
            configuration = folder / "nginx.conf"
            render.fill_file(ROOT / "loadtests/constant.conf", configuration, values)
            command = [
                "taskset",
                "-c",
                self._core,
                roles.program("nginx"),
                "-c",
                configuration,
                "-e",
                "stderr",
                "-g",
                "daemon off;",
            ]
            process = subprocess.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
            undo.callback(process.wait)
            undo.callback(process.send_signal, signal.SIGTERM)
            wait.until("the constant responder answers", 10, lambda: net.get(port, "/health")[0] == 200)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self._undo.close()
