"""Starts roles, and starts them again when they die.

One process for the whole stack, in the background: `python3 ops/lib/supervisor.py FOLDER`. It listens on
FOLDER/supervisor.sock for one JSON object a line and answers each with one. It sleeps until something happens: a
process ends (pidfd), somebody asks, or a pause is over.

    {"do": "start", "role": {…}}           the fields of `Role` in roles.py; a role that is there gets the new ones
    {"do": "stop", "name": …}              signals it, and kills it when its time is up
    {"do": "restart", "name": …}           the same, then starts it at once
    {"do": "status"}                       what is the case
    {"do": "end"}                          stops all, the last started first, then itself

Each role's process is noted in FOLDER/NAME.json. A supervisor that is started after one was killed finds these notes
and goes on with the processes that still live.
"""

import contextlib
import json
import os
import resource
import selectors
import signal
import socket
import sys
import time
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __package__ = "lib"
from .process import Process, give_priority

# A role that died is started again after the first of these pauses, then after twice as long, up to the last.
PAUSE_MIN_SECONDS = 0.1
PAUSE_MAX_SECONDS = 5.0
# A process that lived for so long died of something new: the pauses begin from the first again.
SETTLED_SECONDS = 10
# What ends the supervisor, as the command does.
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# Bytes of one command; a role's environment is the longest part.
COMMAND_BYTES_MAX = 256 * 1024


def say(line):
    # A full disk costs the line, not what is supervised.
    with contextlib.suppress(OSError):
        os.write(1, f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime())} {line}\n".encode())


class Charge:
    """A role and its process."""

    def __init__(self, role):
        self.role = role
        self.process = None
        self.handle = None  # pidfd of the process
        self.started = 0.0
        self.pause = PAUSE_MIN_SECONDS
        self.due = None  # when it is to be started again
        self.kill_at = None  # when it is to be killed, while it is being stopped
        self.is_wanted = True
        self.restarts = 0  # deaths that nobody asked for

    @property
    def name(self):
        return self.role["name"]

    def spawn(self):
        """Starts the process, in a session and a group of its own."""
        role = self.role
        log = os.open(role["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        # Held back until the child has no handlers of ours any more: one of them would take a signal to the role for its
        # own, and the role would never hear it.
        signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                become(role, log)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
            os.close(log)
        return Process.of(pid)

    def state(self):
        if self.process:
            return "running" if self.is_wanted else "stopping"
        return "waiting" if self.is_wanted else "stopped"


def become(role, log):
    """In the child: takes on the role, or ends with the reason in the log."""
    for number in END_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
    try:
        os.setsid()
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        give_priority(0, role.get("nice", 0))  # a note of an earlier supervisor may have none
        if role["user"]:
            uid, gid = role["user"]
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.chdir(role["folder"])
        os.execvpe(role["command"][0], role["command"], {**os.environ, **role["environment"]})
    except OSError as error:
        os.write(2, f"cannot start {role['name']}: {error}\n".encode())
    os._exit(127)


class Supervisor:
    def __init__(self, folder):
        self.folder = folder
        self.charges = {}  # in the order of their start
        self.selector = selectors.DefaultSelector()
        self.is_ending = False
        self.listener = self._listen(folder / "supervisor.sock")
        self.adopt()

    def _listen(self, path):
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen()
        self.selector.register(listener, selectors.EVENT_READ, self.accept)
        return listener

    # ---- Processes ----------------------------------------------------------------------------------------------

    def adopt(self):
        """Goes on with what an earlier supervisor started and still lives; what does not is for `up` to start."""
        paths = {path: json.loads(path.read_text()) for path in self.folder.glob("*.json")}
        for path, note in sorted(paths.items(), key=lambda item: item[1]["order"]):
            charge, process = Charge(note["role"]), Process(*note["process"])
            if process.is_alive():
                say(f"{charge.name}: found running, process {process.pid}")
                self.charges[charge.name] = charge
                self.watch(charge, process)
            else:
                path.unlink()

    def start(self, charge):
        charge.due = None
        try:
            process = charge.spawn()
        except OSError as error:
            say(f"{charge.name}: {error}")
            self.wait_and_retry(charge)
            return
        say(f"{charge.name}: started, process {process.pid}")
        self.watch(charge, process)
        note = {"role": charge.role, "process": [process.pid, process.start_ticks], "order": time.time()}
        beside = self.folder / f"{charge.name}.new"
        beside.touch(0o600)  # the environment may hold a password
        beside.write_text(json.dumps(note))
        beside.replace(self.folder / f"{charge.name}.json")

    def watch(self, charge, process):
        charge.process, charge.started = process, time.monotonic()
        charge.handle = os.pidfd_open(process.pid)
        self.selector.register(charge.handle, selectors.EVENT_READ, lambda _: self.ended(charge))

    def ended(self, charge):
        """Its process has ended."""
        self.selector.unregister(charge.handle)
        os.close(charge.handle)
        how = "ended"
        # What it leaves behind would be in the way of the next one: workers of Nginx hold the port.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(charge.process.pid, signal.SIGKILL)
        try:
            how = describe(os.waitpid(charge.process.pid, os.WNOHANG)[1])
        except ChildProcessError:
            pass  # the child of an earlier supervisor; init has reaped it
        lived = time.monotonic() - charge.started
        say(f"{charge.name}: process {charge.process.pid} {how} after {lived:.1f} s")
        charge.process = charge.handle = charge.kill_at = None
        (self.folder / f"{charge.name}.json").unlink(missing_ok=True)
        if not charge.is_wanted:
            return
        if lived >= SETTLED_SECONDS:
            charge.pause = PAUSE_MIN_SECONDS
        if charge.due is None:  # nobody asked for it
            charge.restarts += 1
            self.wait_and_retry(charge)

    def wait_and_retry(self, charge):
        say(f"{charge.name}: starting it in {charge.pause:.1f} s")
        charge.due = time.monotonic() + charge.pause
        charge.pause = min(charge.pause * 2, PAUSE_MAX_SECONDS)

    def stop(self, charge):
        charge.is_wanted = False
        charge.due = None
        self.signal(charge)

    def signal(self, charge):
        if charge.process and charge.kill_at is None:
            # One that was paused could not hear the signal.
            charge.process.send(charge.role["stop_signal"])
            charge.process.send(signal.SIGCONT)
            charge.kill_at = time.monotonic() + charge.role["stop_seconds"]

    def end_next(self):
        """Stops the last started role; when none is left, the program."""
        for charge in reversed(self.charges.values()):
            if charge.process:
                self.stop(charge)
                return
        for path in self.folder.glob("*.json"):
            path.unlink()
        (self.folder / "supervisor.sock").unlink(missing_ok=True)
        say("ended")
        sys.exit(0)

    # ---- Commands -----------------------------------------------------------------------------------------------

    def accept(self, listener):
        client, _ = listener.accept()
        # Commands come from this machine in one piece, but not at once where the core is somebody else's for a while. Nobody may
        # hold us up for longer than others wait for us.
        client.settimeout(5)
        with client, client.makefile("rwb") as lines:
            try:
                command = json.loads(lines.readline(COMMAND_BYTES_MAX))
                lines.write(json.dumps(self.obey(command)).encode() + b"\n")
            except (OSError, ValueError, KeyError) as error:
                say(f"a command that makes no sense: {error!r}")

    def obey(self, command):
        match command["do"]:
            case "start":
                self.start_role(command["role"])
            case "stop":
                self.stop(self.charges[command["name"]])
            case "restart":
                self.restart(self.charges[command["name"]])
            case "end":
                self.is_ending = True
                for charge in self.charges.values():
                    charge.is_wanted, charge.due = False, None
        return [self.status(charge) for charge in self.charges.values()]

    def start_role(self, role):
        charge = self.charges.setdefault(role["name"], Charge(role))
        charge.role = role
        if not charge.is_wanted or not charge.process:
            charge.is_wanted, charge.pause, charge.due = True, PAUSE_MIN_SECONDS, time.monotonic()

    def restart(self, charge):
        """It is started as soon as its process has ended."""
        charge.is_wanted, charge.pause, charge.due = True, PAUSE_MIN_SECONDS, time.monotonic()
        self.signal(charge)

    def status(self, charge):
        process = charge.process
        return {
            "name": charge.name,
            "state": charge.state(),
            "process": [process.pid, process.start_ticks] if process else None,
            "restarts": charge.restarts,
            "seconds": time.monotonic() - charge.started if process else 0,
        }

    # ---- The loop -----------------------------------------------------------------------------------------------

    def run(self):
        while True:
            for key, _ in self.selector.select(self.nap()):
                key.data(key.fileobj)
            now = time.monotonic()
            for charge in self.charges.values():
                if charge.process and charge.kill_at is not None and charge.kill_at <= now:
                    say(f"{charge.name}: did not end in time, killed")
                    charge.process.send(signal.SIGKILL)
                    charge.kill_at = now + 1
                if not charge.process and charge.due is not None and charge.due <= now:
                    self.start(charge)
            if self.is_ending:
                self.end_next()

    def nap(self):
        """Seconds until there is something to do; None when there is nothing."""
        times = [charge.kill_at if charge.process else charge.due for charge in self.charges.values()]
        times = [when for when in times if when is not None]
        return max(0, min(times) - time.monotonic()) if times else None


def describe(status):
    if os.WIFSIGNALED(status):
        return f"was ended by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with exit code {os.WEXITSTATUS(status)}"


def main(folder):
    # A connection is a file descriptor: roles get as many as the system allows.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # Asked to end by a signal, we do as if by a command.
    supervisor = Supervisor(folder)
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setblocking(False)
    signal.set_wakeup_fd(writer.fileno())
    for number in END_SIGNALS:
        signal.signal(number, lambda *_: supervisor.obey({"do": "end"}))
    supervisor.selector.register(reader, selectors.EVENT_READ, lambda end: end.recv(64))
    supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
