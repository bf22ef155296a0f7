"""The stack that is experimented on: on one core and one gigabyte, with disks of its own, and rules in fast motion."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.parse
from pathlib import Path

from lib import net, roles, wait
from lib.cgroup import GIB, Droplet
from lib.fast_motion import hasten
from lib.roles import INSTANCES
from lib.stack import MAKERS, Stack

from . import Failed, say
from .alarms import SPEED, Alarms
from .disk import Disk
from .load import Load
from .wire import Wire

HEALTHY_SECONDS = 90
SCRAPED_SECONDS = 20
# Megabytes of each disk: PostgreSQL keeps up to 512 MB of its log.
DISKS = {"postgres": 2048, "snip": 256, "logs": 64}


class World:
    """Leaving it stops and removes everything."""

    def __init__(self, binary, seed, keep):
        self.binary, self.seed, self._keep = Path(binary).resolve(), seed, keep
        self.disks = {}
        self.notes = []  # (seconds since the epoch, text): the timeline of the present experiment

    def __enter__(self):
        allowed = sorted(os.sched_getaffinity(0))
        if len(allowed) < 2 or os.geteuid() != 0:
            raise Failed(
                "the experiments need root, for disks and control groups, and two cores: one for the stack, one for "
                "the load"
            )
        os.sched_setaffinity(0, {allowed[1]})
        with contextlib.ExitStack() as undo:
            self.folder = Path(tempfile.mkdtemp(prefix="snip-chaos-", dir="/var/tmp"))
            undo.callback(self._leave)
            self.folder.chmod(0o755)
            for name, megabytes in DISKS.items():
                self.disks[name] = undo.enter_context(Disk(self.folder / name, megabytes))
            self.droplet = undo.enter_context(Droplet.make(allowed[0], GIB))
            self.stack = Stack(self.folder)
            undo.callback(self._keep_logs)
            undo.callback(self.stack.down)
            say(f"starting the stack in {self.folder}, on core {allowed[0]} with 1 GiB")
            # The usual ones would be bound only when others have had seconds to take them.
            ports = net.any_free_ports(roles.USUAL_PORTS)
            self.stack.up(self.binary, ports, log_redirects=True, wrap=self.droplet.command())
            self._hasten()
            self.load = Load(ports["nginx"], self.seed)
            self.alarms = Alarms(self.folder, ports["alertmanager"])
            self.until_healthy()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self._undo.close()

    def _leave(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def _keep_logs(self):
        if self._keep:
            kept = Path(self._keep)
            shutil.copytree(
                self.folder / "logs",
                kept / "logs",
                dirs_exist_ok=True,
                ignore=shutil.ignore_patterns("lost+found", "ballast"),
            )
            shutil.copytree(self.folder / "alerts", kept / "alerts", dirs_exist_ok=True)
            say(f"logs and alerts are in {kept}")

    def _hasten(self):
        hasten(self.folder, SPEED)
        for name in ("alertmanager", "prometheus"):
            self.stack.ask(do="restart", name=name)
        wait.until("Prometheus sees all targets", HEALTHY_SECONDS, self._is_watched)

    def _is_watched(self):
        """Whether Prometheus scrapes all of its targets; it finds them some seconds after its start."""
        status, text = net.get(self.stack.plan().ports["prometheus"], "/api/v1/targets")
        targets = json.loads(text)["data"]["activeTargets"] if status == 200 else []
        return len(targets) > len(INSTANCES) and all(target["health"] == "up" for target in targets)

    def until_start_is_watched(self, name):
        """Waits until Prometheus has scraped the present process of an instance."""
        plan, series = self.stack.plan(), "process_start_time_seconds"
        query = urllib.parse.urlencode({"query": f'{series}{{instance="127.0.0.1:{plan.ports[name]}"}}'})

        def is_watched():
            status, text = net.get(plan.ports["prometheus"], f"/api/v1/query?{query}")
            found = json.loads(text)["data"]["result"] if status == 200 else []
            return bool(found) and float(found[0]["value"][1]) == self.stack.metrics(name).get(series)

        wait.until(f"Prometheus has seen {name} start", SCRAPED_SECONDS, is_watched)

    # ---- The timeline -------------------------------------------------------------------------------------------

    def note(self, text):
        """A line of the present experiment's timeline."""
        self.notes.append((time.time(), text))
        say(f"  {text}")

    # ---- Health -------------------------------------------------------------------------------------------------

    def trouble(self):
        """What is not as it should be; nothing when all is well."""
        states = {told["name"]: told["state"] for told in self.stack.status()}
        away = [name for name in MAKERS if states.get(name) != "running"]
        if away:
            return f"{', '.join(away)} does not run"
        for name in INSTANCES:
            status, _ = net.get(self.stack.address(name), "/readyz", 2)
            if status != 200:
                return f"{name} is not ready ({status})"
            figures = self.stack.metrics(name)
            if (
                not figures.get("redis_connected")
                or not figures.get("cache_redis_trusted")
                or figures.get("redis_breaker_state")
            ):
                return f"{name} does not ask Redis"
        if net.get(self.stack.address("nginx"), "/livez", 2)[0] != 200:
            return "nginx does not answer"
        # For POST to what may be posted to, Nginx has a group of its own, with its own memory of who failed. An instance refuses
        # this one, which has no body.
        if net.ask("POST", self.stack.address("nginx"), "/urls", 2)[0] != 400:
            return "nginx has nobody to send a POST to"
        return ""

    def until_healthy(self):
        """Waits until all roles run and all instances are ready and trust Redis."""
        try:
            wait.until("all is well", HEALTHY_SECONDS, lambda: not self.trouble())
        except wait.Late as late:
            raise wait.Late(f"{late}: {self.trouble()}") from None

    def until_stored(self):
        """Waits until no click waits in a journal."""

        def waits():
            return sum(self.stack.metrics(name).get("clicks_waiting", 1) for name in INSTANCES)

        wait.until("all clicks are stored", HEALTHY_SECONDS, lambda: waits() == 0)

    def tries(self, name):
        """How many instances Nginx asked, for each user agent of a run whose request went to more than one."""
        tries = {}
        for line in self.stack.log("access").read_text(errors="replace").splitlines():
            if f'"agent":"{name}-' in line and ", " in line:
                with contextlib.suppress(ValueError):
                    told = json.loads(line)
                    tries[told["agent"]] = len(told["upstream"].split(", "))
        return tries

    def metric(self, name, figure):
        """A figure of an instance; figures that it does not tell are 0."""
        return self.stack.metrics(name).get(figure, 0)

    def sum(self, figure):
        """A figure summed over the instances."""
        return sum(self.metric(name, figure) for name in INSTANCES)

    # ---- Hands --------------------------------------------------------------------------------------------------

    def kill(self, name):
        """Kills a role and waits until its first process has ended."""
        process = self.stack.process(name)
        self.stack.kill(name)
        wait.until(f"{name} has ended", 10, lambda: not process.is_alive())

    @contextlib.contextmanager
    def paused(self, name):
        """A role stands still."""
        self.stack.pause(name)
        try:
            yield
        finally:
            self.stack.resume(name)

    def restart_as(self, name, change=lambda role: None):
        """Restarts a role, changed; without a change it is what it was."""
        role = MAKERS[name](self.stack.plan())
        change(role)
        before = self.stack.process(name)
        self.stack.ask(do="start", role=role.as_told())
        self.stack.ask(do="restart", name=name)
        wait.until(f"{name} has ended", role.stop_seconds + 5, lambda: not before.is_alive())
        self.stack.until_ready(name)

    @contextlib.contextmanager
    def changed(self, name, change):
        """A role runs changed."""
        self.restart_as(name, change)
        try:
            yield
        finally:
            self.restart_as(name)

    @contextlib.contextmanager
    def wired(self, name, fault):
        """PostgreSQL or Redis is reached by way of a faulty wire."""
        if name == "postgres":
            path = self.folder / "postgres/.s.PGSQL.5432"
            beside = self.folder / "postgres/.s.PGSQL.5433"
        else:
            path, beside = self.stack.plan().redis_socket, self.stack.run / "redis-beside.sock"
        with Wire(path, beside, fault, self.seed) as wire:
            self.cut_off(name, 5433)
            yield wire

    def cut_off(self, name, port=5432):
        """Ends the connections of the instances to PostgreSQL or Redis."""
        if name == "postgres":
            command = [
                roles.postgres_program("psql"),
                "-XAtqh",
                str(self.folder / "postgres"),
                "-p",
                str(port),
                "-U",
                "snip",
                "-d",
                "snip",
                "-c",
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = 'snip'",
            ]
            subprocess.run(command, check=True, capture_output=True)
        else:
            path = self.stack.run / ("redis-beside.sock" if port != 5432 else "redis.sock")
            self.redis("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes", path=path)
            self.redis("CLIENT", "KILL", "TYPE", "pubsub", path=path)

    def redis(self, *words, path=None):
        """What redis-cli prints to a command."""
        command = ["redis-cli", "-s", path or self.stack.plan().redis_socket, *words]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, errors="replace", timeout=30
        )
        if done.returncode != 0:
            raise OSError(f"redis-cli {words[0]}: {done.stdout}{done.stderr}")
        return done.stdout.strip()
