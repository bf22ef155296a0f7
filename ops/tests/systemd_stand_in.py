"""What systemd does for the units of the instances and of the trial, as far as ops/deploy can tell: starts, stops, starts
again what has ended."""

import contextlib
import json
import os
import signal
import socket
import socketserver
import subprocess
import threading
import time
from pathlib import Path

START_SECONDS = 20
STOP_SECONDS = 20
RESTART_PAUSE_SECONDS = 0.3
HERE = Path(__file__).resolve().parent


def accepts(path):
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(str(path))
            return True
        except OSError:
            return False


class Unit:
    """An instance, or the trial."""

    def __init__(self, name, program, run_dir, data_dir):
        self.name = name
        self.program = program
        self.socket = run_dir / f"{name}.sock"
        self.log = run_dir / f"{name}.log"
        self.environment = {
            "PATH": os.environ["PATH"],
            "SNIP_LISTEN": f"unix:{self.socket}",
            "SNIP_DATA_DIR": str(data_dir),
            "INSTANCE_ID": name,
        }
        self.process = None
        self.is_wanted = False
        self.lock = threading.RLock()

    def _launch(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.program, "serve"], env=self.environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def start(self):
        """Whether it listens in the end."""
        with self.lock:
            self.is_wanted = True
            self._launch()
            deadline = time.monotonic() + START_SECONDS
            while self.process.poll() is None and time.monotonic() < deadline:
                if accepts(self.socket):
                    return True
                time.sleep(0.02)
            return False

    def stop(self):
        with self.lock:
            self.is_wanted = False
            if self.process and self.process.poll() is None:
                self.process.send_signal(signal.SIGTERM)
                try:
                    self.process.wait(STOP_SECONDS)
                except subprocess.TimeoutExpired:
                    self.process.kill()
                    self.process.wait()

    def look_after(self):
        with self.lock:
            if self.is_wanted and self.process.poll() is not None:
                self._launch()

    def pid(self):
        with self.lock:
            return self.process.pid if self.process and self.process.poll() is None else 0


class Supervisor:
    """Answers the stand-in systemctl, and looks after the units, until closed."""

    def __init__(self, folder, root, names):
        self.run_dir = folder / "run"
        self.run_dir.mkdir()
        self.units = {name: Unit(name, root / "current" / "snip", self.run_dir, folder / "data") for name in names}
        # Not among the units that are looked after: it is not started again.
        self.trial = Unit("snip-trial", root / "trial" / "snip", self.run_dir, folder / "trial-data")
        self.files = {unit.name.replace("-", "@") + ".service": unit for unit in (*self.units.values(), self.trial)}
        self.address = folder / "supervisor.sock"
        self.restarts = []
        self.trials = []
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                asked = self.rfile.read()
                if not asked:
                    return  # it was killed before it said what it wanted
                answer = json.dumps(outer.answer(json.loads(asked))).encode()
                with contextlib.suppress(BrokenPipeError):  # or while it waited
                    self.wfile.write(answer)

        # One after the other, in the order in which they came, as the jobs of systemd for one unit.
        self.server = socketserver.UnixStreamServer(str(self.address), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.closed = threading.Event()
        self.watch = threading.Thread(target=self._watch, daemon=True)
        self.watch.start()

    def _watch(self):
        while not self.closed.wait(RESTART_PAUSE_SECONDS):
            for unit in self.units.values():
                unit.look_after()

    def environment(self, folder):
        """For a command that is to find this supervisor under the name of systemctl."""
        tools = folder / "tools"
        tools.mkdir(exist_ok=True)
        for name in ("systemctl", "journalctl"):
            if not (tools / name).exists():
                (tools / name).symlink_to(HERE / "systemctl")
        return {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}", "SNIP_TEST_SUPERVISOR": str(self.address)}

    def answer(self, arguments):
        """Exit status and output of a call."""
        if "is-enabled" in arguments:
            return 1, "disabled"
        unit = next(unit for file, unit in self.files.items() if file in arguments)
        if arguments[0] == "journalctl":
            return 0, "".join(unit.log.read_text().splitlines(keepends=True)[-15:])
        verb = arguments[1]
        if verb == "show":
            return 0, f"{unit.pid()}\n"
        if verb == "reset-failed":
            return 0, ""
        unit.stop()
        if verb == "stop":
            return 0, ""
        assert verb == "restart", arguments
        (self.trials if unit is self.trial else self.restarts).append(unit.name)
        return (0, "") if unit.start() else (1, f"Job for {unit.name} failed.")

    def close(self):
        self.closed.set()
        self.watch.join()
        for unit in self.files.values():
            unit.stop()
        self.server.shutdown()
        self.server.server_close()
