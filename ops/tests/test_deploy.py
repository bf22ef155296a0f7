"""ops/deploy for real: three instances, a client that never stops asking, good versions and bad ones."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ops"))
from lib import net  # noqa: E402
from lib.stack import Stack  # noqa: E402
from systemd_stand_in import Supervisor  # noqa: E402

SNIP = Path(os.environ.get("SNIP_BIN", ROOT / "target/debug/snip"))
INSTANCES = ["snip-1", "snip-2", "snip-3"]
DEPLOY_SECONDS = 120
PAUSE_SECONDS = 0.02


def ask(address):
    """Status of a redirect of an unknown code: it takes a look into the store. None without an answer."""
    return net.get(address, "/nobody", 10)[0]


class Client(threading.Thread):
    """Asks all addresses in turn and goes on to the next when one is away, as the proxy does."""

    def __init__(self, addresses):
        super().__init__(daemon=True)
        self.addresses = addresses
        self.answered = 0
        self.failed = []
        self.ended = threading.Event()

    def run(self):
        turn = 0
        while not self.ended.wait(PAUSE_SECONDS):
            turn += 1
            order = [self.addresses[(turn + step) % len(self.addresses)] for step in range(len(self.addresses))]
            self.answered += 1
            if not any(ask(address) == 404 for address in order):
                self.failed.append(time.monotonic())


class Versions(unittest.TestCase):
    """Programs to deploy: two that work, three that are no good."""

    @classmethod
    def setUpClass(cls):
        if not SNIP.exists():
            raise AssertionError(f"{SNIP} is missing: cargo build, or SNIP_BIN=FILE")
        cls.versions = Path(tempfile.mkdtemp(prefix="snip-versions-"))
        cls.addClassCleanup(shutil.rmtree, cls.versions)
        # Bytes behind the end of an ELF file change nothing but its hash: two versions that both work.
        for name in ("old", "new"):
            shutil.copy(SNIP, cls.versions / name)
            with open(cls.versions / name, "ab") as file:
                file.write(name.encode())
        for fault in (1, 2, 3):
            source = ROOT / "ops/tests/bad_snip.c"
            subprocess.run(
                ["cc", "-O1", "-Wall", "-Werror", f"-DFAULT={fault}", "-o", cls.versions / f"bad{fault}", source], check=True
            )

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="snip-deploy-"))
        self.folder.chmod(0o755)  # PostgreSQL has a user of its own
        self.addCleanup(shutil.rmtree, self.folder)

    def under_load(self, addresses, act):
        client = Client(addresses)
        client.start()
        try:
            return act()
        finally:
            client.ended.set()
            client.join()
            self.assertGreater(client.answered, 20)
            self.assertEqual(client.failed, [], f"of {client.answered} requests")


class Units(Versions):
    """With the units of systemd, and a stand-in for systemctl that does what they say."""

    def setUp(self):
        super().setUp()
        self.root = self.folder / "opt"
        self.supervisor = Supervisor(self.folder, self.root, INSTANCES)
        self.addCleanup(self.supervisor.close)

    def command(self, version, settle=0.3):
        command = [ROOT / "ops/deploy", "--root", self.root, "--run-dir", self.supervisor.run_dir]
        return [*command, "--settle-seconds", str(settle), "--ready-seconds", "5", self.versions / version]

    def deploy(self, version, settle=0.3):
        """Exit status and output."""
        done = subprocess.run(
            self.command(version, settle), env=self.supervisor.environment(self.folder), timeout=DEPLOY_SECONDS,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )
        return done.returncode, done.stdout

    def installed(self):
        status, output = self.deploy("old")
        self.assertEqual(status, 0, output)
        self.supervisor.restarts.clear()

    def serving(self):
        """The bytes that tell versions apart, by instance; nothing for one that is away."""
        units = self.supervisor.units.values()
        return [Path(f"/proc/{unit.pid()}/exe").read_bytes()[-3:].decode() if unit.pid() else "" for unit in units]

    def all_answer(self):
        return [ask(path) for path in self.sockets()]

    def sockets(self):
        return [unit.socket for unit in self.supervisor.units.values()]

    def test_first_release_starts_all(self):
        status, output = self.deploy("old")
        self.assertEqual(status, 0, output)
        self.assertEqual(self.serving(), ["old"] * 3)
        self.assertEqual(self.all_answer(), [404] * 3)

    def test_good_version_replaces_one_after_the_other(self):
        self.installed()
        status, output = self.under_load(self.sockets(), lambda: self.deploy("new"))
        self.assertEqual(status, 0, output)
        self.assertEqual(self.serving(), ["new"] * 3)
        self.assertEqual(self.supervisor.restarts, INSTANCES)
        # The same once more has nothing to do; the older one is the way back.
        self.supervisor.restarts.clear()
        self.assertEqual(self.deploy("new")[0], 0)
        self.assertEqual(self.supervisor.restarts, [])
        self.assertEqual(self.deploy("old")[0], 0)
        self.assertEqual(self.serving(), ["old"] * 3)

    def check_rolled_back(self, version, reason, settle=0.3):
        self.installed()
        status, output = self.under_load(self.sockets(), lambda: self.deploy(version, settle))
        self.assertEqual(status, 1, output)
        self.assertIn(reason, output)
        self.assertIn("going back to", output)
        self.assertEqual(self.serving(), ["old"] * 3, output)
        self.assertEqual(self.all_answer(), [404] * 3)
        self.assertEqual(self.supervisor.restarts, ["snip-1", "snip-1"], "the others are not touched")

    def test_version_that_does_not_start_is_taken_back(self):
        self.check_rolled_back("bad1", "snip-1 does not start")

    def test_version_that_is_not_ready_is_taken_back(self):
        self.check_rolled_back("bad2", '/readyz answered 503 {"status":"no store"}')

    def test_version_that_ends_soon_is_taken_back(self):
        # Whether it is seen ended or back again is a matter of when one looks.
        self.check_rolled_back("bad3", "was ready, ", settle=1.5)

    def test_interrupted_deployment_is_taken_back(self):
        self.installed()
        process = subprocess.Popen(
            self.command("new"), env=self.supervisor.environment(self.folder), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        lines = []
        for line in process.stdout:
            lines.append(line)
            if "restarting snip-2" in line:
                process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(DEPLOY_SECONDS), 1, lines)
        process.stdout.close()
        self.assertIn("stopped by SIGTERM", "".join(lines))
        self.assertEqual(self.serving(), ["old"] * 3)
        self.assertEqual(self.supervisor.restarts[-2:], ["snip-2", "snip-1"], "the last one first")
        self.assertNotIn("snip-3", self.supervisor.restarts)

    def test_killed_deployment_is_completed_by_the_next(self):
        self.installed()
        process = subprocess.Popen(
            self.command("new"), env=self.supervisor.environment(self.folder), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
        for line in process.stdout:
            if "restarting snip-2" in line:
                process.kill()
        process.wait()
        process.stdout.close()
        status, output = self.deploy("new")
        self.assertEqual(status, 0, output)
        self.assertEqual(self.serving(), ["new"] * 3)
        self.assertIn("snip-1 serves", output)

    def test_first_release_that_is_no_good_is_stopped(self):
        status, output = self.deploy("bad2")
        self.assertEqual(status, 1, output)
        self.assertIn("there is no earlier release", output)
        self.assertEqual(self.serving(), ["", "", ""])
        self.assertFalse((self.root / "current").exists())

    def test_what_is_no_snip_changes_nothing(self):
        self.installed()
        (self.versions / "text").write_text("#!/bin/sh\necho hello\n")
        (self.versions / "text").chmod(0o755)
        status, output = self.deploy("text")
        self.assertEqual(status, 1, output)
        self.assertIn("before anything was changed", output)
        self.assertEqual(self.supervisor.restarts, [])


class NativeStack(Versions):
    """With a stack of ops/stack: PostgreSQL, Redis, and Nginx, which is the client's only address."""

    def setUp(self):
        super().setUp()
        self.stack = Stack(self.folder / "stack")
        self.addCleanup(self.stack.down)
        self.stack.up(self.versions / "old")
        self.nginx = self.stack.address("nginx")

    def deploy(self, version):
        command = [ROOT / "ops/deploy", "--root", self.folder / "opt", "--stack", self.stack.folder]
        done = subprocess.run(
            [*command, "--settle-seconds", "1", "--ready-seconds", "10", self.versions / version],
            timeout=DEPLOY_SECONDS, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )
        return done.returncode, done.stdout

    def serving(self):
        pids = [self.stack.process(name).pid for name in INSTANCES]
        return [Path(f"/proc/{pid}/exe").read_bytes()[-3:].decode() for pid in pids]

    def test_service_goes_on(self):
        for version, expected_status, serving in (("old", 0, "old"), ("bad1", 1, "old"), ("bad2", 1, "old"), ("new", 0, "new")):
            with self.subTest(version):
                status, output = self.under_load([self.nginx], lambda version=version: self.deploy(version))
                self.assertEqual(status, expected_status, output)
                self.assertEqual(self.serving(), [serving] * 3, output)


if __name__ == "__main__":
    unittest.main()
