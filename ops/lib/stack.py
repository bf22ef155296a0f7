"""The whole stack on this machine: up, down, rolling restart; signals to each role, its figures and its log.

stack = Stack(folder)
stack.up(binary)
stack.process("snip-1").send(signal.SIGKILL)
stack.until_ready("snip-1")
stack.down()
"""

import dataclasses
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from . import net, roles, wait
from .process import Process
from .roles import INSTANCES, ROOT, TRIAL, USUAL_PORTS, Plan

START_SECONDS = 60
RESTART_SECONDS = 20
# Between two instances of a rolling restart: longer than Nginx leaves one alone that it could not reach (1 s).
SETTLE_SECONDS = 1.5
# The longest path of a unix socket is 107 bytes; the longest name in `run` has 15.
FOLDER_BYTES_MAX = 85

MAKERS = {
    "postgres": roles.postgres,
    "redis": roles.redis,
    **{name: lambda plan, name=name: roles.instance(plan, name) for name in INSTANCES},
    "nginx": roles.nginx,
    "node-exporter": roles.node_exporter,
    "receiver": roles.receiver,
    "alertmanager": roles.alertmanager,
    "prometheus": roles.prometheus,
}
# Started together, one step after the other; stopped the other way round.
STEPS = (("postgres", "redis"), INSTANCES, ("nginx", "node-exporter", "receiver", "alertmanager", "prometheus"))


class Failed(Exception):
    """What could not be done, for people."""


def say(line):
    print(f"stack: {line}", file=sys.stderr, flush=True)


class Stack:
    """A stack in a folder of its own, running or not."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self.run = self.folder / "run"

    # ---- What is the case ---------------------------------------------------------------------------------------

    def plan(self):
        """What the stack was last started with; `Failed` when it never was."""
        try:
            kept = json.loads((self.folder / "stack.json").read_text())
        except FileNotFoundError:
            raise Failed(f"there is no stack in {self.folder}; ops/stack up makes one") from None
        return Plan(self.folder, kept["ports"], Path(kept["binary"]), kept["log_redirects"])

    def ask(self, **command):
        """One command to the supervisor; its view of all roles. None when there is no supervisor."""
        line = json.dumps(command).encode() + b"\n"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(10)
            try:
                client.connect(str(self.run / "supervisor.sock"))
                client.sendall(line)
                with client.makefile() as lines:
                    answer = lines.readline()
            except (FileNotFoundError, ConnectionError):
                return None
        if not answer:
            raise Failed(
                f"the supervisor did not understand {command['do']}; see {self.folder / 'logs/supervisor.log'}"
            )
        return json.loads(answer)

    def status(self):
        """What the supervisor says of each role; empty when nothing runs."""
        return self.ask(do="status") or []

    def process(self, name):
        """The process of a role: its first one, the others are its family. `Failed` while it has none."""
        found = [told["process"] for told in self.status() if told["name"] == name]
        if not found or not found[0]:
            raise Failed(f"{name} does not run")
        return Process(*found[0])

    def address(self, name):
        """Where a role is asked by `net`: a port, or the socket of an instance."""
        plan = self.plan()
        return str(plan.socket(name)) if name in (*INSTANCES, TRIAL) else plan.ports[name]

    def metrics(self, instance):
        """What an instance's `/metrics` serves, as numbers."""
        return net.metrics(self.address(instance))

    def log(self, name):
        """The file with a role's log."""
        return self.folder / "logs" / f"{name}.log"

    def psql(self, sql):
        """What a statement prints."""
        return roles.psql(self.plan(), sql)

    # ---- Signals to one role ------------------------------------------------------------------------------------

    def kill(self, name):
        """Ends all processes of a role without a chance to say good-bye; it is started again."""
        for process in self.process(name).family():
            process.send(signal.SIGKILL)

    def pause(self, name):
        """Freezes all processes of a role."""
        self.process(name).freeze()

    def resume(self, name):
        """Lets a frozen role go on."""
        self.process(name).thaw()

    def until_ready(self, name, seconds=START_SECONDS):
        """Waits until a role runs and does its work."""
        plan = self.plan()
        what = f"{name} is ready; its log is {self.log(name)}"
        wait.until(what, seconds, lambda: self._runs(name) and roles.is_ready(plan, name))

    def _runs(self, name):
        return any(told["name"] == name and told["state"] == "running" for told in self.status())

    # ---- Up -----------------------------------------------------------------------------------------------------

    def up(self, binary, ports=None, log_redirects=False, wrap=()):
        """Starts what does not run. `ports` are those that must be used; others are remembered, usual or free ones.

        `wrap` is a command that the supervisor is started under, and with it all roles.
        """
        began = time.monotonic()
        self._make_folders()
        if self.ask(do="status") is None:
            self._start_supervisor(wrap)
        plan = self._make_plan(Path(binary).resolve(), ports or {}, log_redirects)
        for step in STEPS:
            self._start(plan, step)
        say(f"all of it runs, {time.monotonic() - began:.1f} s: http://127.0.0.1:{plan.ports['nginx']}")

    def _make_folders(self):
        if len(str(self.folder)) > FOLDER_BYTES_MAX:
            raise Failed(f"{self.folder}: the names of unix sockets would be too long; choose a shorter --folder")
        for folder in (self.folder, self.run, self.folder / "logs", self.folder / "snip"):
            folder.mkdir(parents=True, exist_ok=True)
        owner = roles.user("postgres")
        if owner:
            look = subprocess.run(["test", "-x", self.folder], user=owner[0], group=owner[1], extra_groups=[])
            if look.returncode != 0:
                raise Failed(
                    f"the user postgres may not enter {self.folder}; choose another --folder, such as /var/tmp/snip"
                )

    def _make_plan(self, binary, wanted, log_redirects):
        try:
            ports = dict(self.plan().ports)
        except Failed:
            ports = {}
        running = {told["name"] for told in self.status() if told["process"]}
        for name, port in wanted.items():
            if name in running and ports[name] != port:
                raise Failed(f"{name} runs on port {ports[name]}; ops/stack down first")
            if name not in running and not net.is_free(port):
                raise Failed(f"port {port}, wanted for {name}, is in use; choose another one")
        ports.update(wanted)
        for name, usual in USUAL_PORTS.items():
            if name in wanted or name in running:
                continue
            others = {port for other, port in ports.items() if other != name}
            ports[name] = net.free_port(ports.get(name, usual), others)
        return self._keep(Plan(self.folder, ports, binary, log_redirects))

    def _keep(self, plan):
        kept = {"ports": plan.ports, "binary": str(plan.binary), "log_redirects": plan.log_redirects}
        (self.folder / "stack.json").write_text(json.dumps(kept, indent=2) + "\n")
        return plan

    def _start_supervisor(self, wrap):
        command = [*wrap, sys.executable, str(ROOT / "ops/lib/supervisor.py"), str(self.run)]
        # Settings of Snip in the caller's environment are not for this stack.
        environment = {"PATH": roles.PATH, "LC_ALL": "C.UTF-8", "HOME": str(self.folder)}
        with open(self.log("supervisor"), "a") as log:
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        wait.until(
            f"the supervisor listens; its log is {self.log('supervisor')}",
            START_SECONDS,
            lambda: self.ask(do="status") is not None,
        )

    def _start(self, plan, step):
        new = [name for name in step if not self._runs(name)]
        for name in new:
            self.ask(do="start", role=MAKERS[name](plan).as_told())
        for name in step:
            began = time.monotonic()
            self.until_ready(name)
            if name in new:
                say(f"{name} is ready ({time.monotonic() - began:.1f} s)")
        if "postgres" in new:
            roles.make_database(plan)

    # ---- Restart and down ---------------------------------------------------------------------------------------

    def restart(self, names=INSTANCES, binary=None):
        """Restarts roles one after the other, the next one only when the last is ready and Nginx sends to it again.

        With `binary`, goes over to that program, once it has been tried; an instance that does not get ready with it
        goes back, and the others stay as they are."""
        old = self.plan()
        new = dataclasses.replace(old, binary=Path(binary).resolve()) if binary else old
        if new != old:
            self._try(new)
        for name in names:
            others = [other for other in INSTANCES if name in INSTANCES and other != name]
            for other in others:
                self.until_ready(other)
            began = time.monotonic()
            try:
                self._replace(MAKERS[name](new))
            except wait.Late:
                if new == old:
                    raise
                self._replace(MAKERS[name](old))
                raise Failed(f"{name} does not get ready with {new.binary}; it is back on {old.binary}") from None
            say(f"{name} is restarted and ready ({time.monotonic() - began:.1f} s)")
            if others:
                time.sleep(SETTLE_SECONDS)
        self._keep(new)

    def _try(self, plan):
        """Has the new program get ready in a trial. `Failed` when it ends or does not get ready."""
        self.end_trial()  # of a deployment that was killed
        before = self._deaths(TRIAL)
        self.start_trial(plan)
        try:
            wait.until(
                f"{plan.binary} gets ready",
                RESTART_SECONDS,
                lambda: self._deaths(TRIAL) > before or net.get(str(plan.socket(TRIAL)), "/readyz", 1)[0] == 200,
            )
            if self._deaths(TRIAL) > before:
                raise Failed(f"{plan.binary} ends at once; its log is {self.log(TRIAL)}. Nothing was changed")
        except wait.Late as late:
            raise Failed(f"{late}; its log is {self.log(TRIAL)}. Nothing was changed") from None
        finally:
            self.end_trial()

    def start_trial(self, plan):
        """Starts this plan's program beside the instances, where Nginx sends nothing: one that listens and does not get
        ready would answer its share of the requests with 503."""
        self.ask(do="start", role=roles.trial(plan).as_told())

    def end_trial(self):
        """Ends the trial, when there is one. Its log is what it leaves."""
        if TRIAL not in {told["name"] for told in self.status()}:
            return
        role = roles.trial(self.plan())
        self.ask(do="stop", name=TRIAL)
        wait.until("the trial has ended", role.stop_seconds + 5, lambda: not self._has_process(TRIAL))
        shutil.rmtree(self.run / TRIAL, ignore_errors=True)

    def _has_process(self, name):
        return any(told["name"] == name and told["process"] for told in self.status())

    def _deaths(self, name):
        return sum(told["restarts"] for told in self.status() if told["name"] == name)

    def _replace(self, role):
        """Ends a role's process and starts one of this kind."""
        before = {told["name"]: told["process"] for told in self.status()}[role.name]
        self.ask(do="start", role=role.as_told())  # what the next start is to be
        self.ask(do="restart", name=role.name)
        if before:
            process = Process(*before)
            wait.until(f"{role.name} has ended", role.stop_seconds + 5, lambda: not process.is_alive())
        self.until_ready(role.name, RESTART_SECONDS)

    def down(self):
        """Stops all, the last started first. The data stays."""
        told = self.ask(do="end")
        if told is None:
            self._end_strays()
            return
        names = {entry["name"] for entry in told if entry["process"]}
        while names:
            left = {entry["name"] for entry in self.status() if entry["process"]}
            for name in sorted(names - left):
                say(f"{name} is stopped")
            names = left
            time.sleep(wait.STEP_SECONDS)
        wait.until("the supervisor has ended", 10, lambda: self.ask(do="status") is None)

    def _end_strays(self):
        """What a supervisor left that was killed: another one takes them over, to stop them in order."""
        if not list(self.run.glob("*.json")):
            return
        say("the supervisor is gone; starting another one to stop what it left")
        self._start_supervisor(())
        self.down()
