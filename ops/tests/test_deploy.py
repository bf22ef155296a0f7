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
from lib import net, wait  # noqa: E402
from lib.roles import TRIAL, USUAL_PORTS  # noqa: E402
from lib.stack import Stack  # noqa: E402
from systemd_stand_in import Supervisor  # noqa: E402

SNIP = Path(os.environ.get("SNIP_BIN", ROOT / "target/debug/snip"))
INSTANCES = ["snip-1", "snip-2", "snip-3"]
DEPLOY_SECONDS = 120
PATIENCE_SECONDS = 20
REQUESTS_MIN = 20
PAUSE_SECONDS = 0.02
# For those that never get ready, and for the others, which are not to be found wanting on a busy machine.
UNREADY_SECONDS, READY_SECONDS = 10, 30
UNREADY = {"bad2", "bad4", "late1", "late2"}
# The last time that it was asked, it may have been too late.
NOT_READY = rf'is not ready after {UNREADY_SECONDS} s: /readyz (answered 503 \{{"status":"no store"\}}|gives no answer)'


def ask(address):
    """Status of a redirect of an unknown code: it takes a look into the store. None without an answer."""
    return net.get(address, "/nobody", 10)[0]


def kill(deployment):
    """With its systemctl, which would have its way in the midst of what comes next."""
    os.killpg(deployment.pid, signal.SIGKILL)


def times(version, settle):
    """Options of ops/deploy."""
    ready = UNREADY_SECONDS if version in UNREADY else READY_SECONDS
    return ["--settle-seconds", str(settle), "--ready-seconds", str(ready)]


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
    """Programs to deploy: two that work, some that are no good, and such as seem good until they are instances."""

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
        for fault in (1, 2, 3, 4, 5):
            cls.compile(f"bad{fault}", f"-DFAULT={fault}")
        for fault in (1, 2, 3):
            cls.compile(f"late{fault}", f"-DFAULT={fault}", "-DGOOD_TRIAL")

    @classmethod
    def compile(cls, name, *defines):
        source = ROOT / "ops/tests/bad_snip.c"
        subprocess.run(["cc", "-O1", "-Wall", "-Werror", *defines, "-o", cls.versions / name, source], check=True)

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="snip-deploy-"))
        self.folder.chmod(0o755)  # PostgreSQL has a user of its own
        self.addCleanup(shutil.rmtree, self.folder)

    def under_load(self, addresses, act):
        client = Client(addresses)
        client.start()
        try:
            done = act()
            # What is over at once is followed by as many requests as tell something.
            wait.until("enough is asked", PATIENCE_SECONDS, lambda: client.answered > REQUESTS_MIN)
            return done
        finally:
            client.ended.set()
            client.join()
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
        return [*command, *times(version, settle), self.versions / version]

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
        self.supervisor.trials.clear()

    def deploy_until(self, version, line, act):
        """Acts on the deployment's process when it says a line; exit status and output."""
        process = subprocess.Popen(
            self.command(version), env=self.supervisor.environment(self.folder), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )
        with process:
            lines = []
            for said in process.stdout:
                lines.append(said)
                if line in said:
                    act(process)
        return process.returncode, "".join(lines)

    def check_no_trial(self):
        self.assertEqual(self.supervisor.trial.pid(), 0)
        self.assertFalse((self.root / "trial").is_symlink())

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
        self.assertEqual(len(self.supervisor.trials), 1)
        self.check_no_trial()
        # The same once more has nothing to do, nor to try; the older one is the way back.
        self.supervisor.restarts.clear()
        self.assertEqual(self.deploy("new")[0], 0)
        self.assertEqual(self.supervisor.restarts, [])
        self.assertEqual(len(self.supervisor.trials), 1)
        self.assertEqual(self.deploy("old")[0], 0)
        self.assertEqual(self.serving(), ["old"] * 3)

    def check_let_go(self, version, reason, settle=0.3):
        self.installed()
        status, output = self.under_load(self.sockets(), lambda: self.deploy(version, settle))
        self.assertEqual(status, 1, output)
        self.assertRegex(output, reason)
        self.assertRegex(output, "nothing was changed; /.*/snip still serves")
        self.assertEqual(self.supervisor.restarts, [], "no instance is touched")
        self.assertEqual(self.serving(), ["old"] * 3, output)
        self.assertEqual(len(self.supervisor.trials), 1)
        self.check_no_trial()
        return output

    def test_version_that_does_not_start_is_let_go(self):
        output = self.check_let_go("bad1", "snip-trial does not start")
        self.assertIn("| snip: this version does not start", output, "its last words")

    def test_version_that_is_not_ready_is_let_go(self):
        self.check_let_go("bad2", f"snip-trial {NOT_READY}")

    def test_version_that_is_not_ready_any_more_is_let_go(self):
        self.check_let_go("bad4", f"snip-trial {NOT_READY}")

    def test_version_that_is_not_ready_for_a_moment_serves(self):
        status, output = self.deploy("bad5")
        self.assertEqual(status, 0, output)
        self.assertEqual(self.supervisor.restarts, INSTANCES)
        self.assertEqual(len(self.supervisor.trials), 1)

    def test_version_that_ends_soon_is_let_go(self):
        self.check_let_go("bad3", "snip-trial was ready, and then not: ", settle=1.5)

    def check_rolled_back(self, version, reason, settle=0.3):
        self.installed()
        status, output = self.under_load(self.sockets(), lambda: self.deploy(version, settle))
        self.assertEqual(status, 1, output)
        self.assertRegex(output, reason)
        self.assertIn("going back to", output)
        self.assertEqual(self.serving(), ["old"] * 3, output)
        self.assertEqual(self.all_answer(), [404] * 3)
        self.assertEqual(self.supervisor.restarts, ["snip-1", "snip-1"], "the others are not touched")

    def test_version_that_does_not_start_is_taken_back(self):
        self.check_rolled_back("late1", "snip-1 does not start")

    def test_version_that_is_not_ready_is_taken_back(self):
        self.check_rolled_back("late2", f"snip-1 {NOT_READY}")

    def test_version_that_ends_soon_is_taken_back(self):
        # Whether it is seen ended or back again is a matter of when one looks.
        self.check_rolled_back("late3", "was ready, ", settle=1.5)

    def test_interrupted_deployment_is_taken_back(self):
        self.installed()
        interrupt = lambda process: process.send_signal(signal.SIGTERM)
        status, output = self.deploy_until("new", "restarting snip-2", interrupt)
        self.assertEqual(status, 1, output)
        self.assertIn("stopped by SIGTERM", output)
        self.assertEqual(self.serving(), ["old"] * 3)
        self.assertEqual(self.supervisor.restarts[-2:], ["snip-2", "snip-1"], "the last one first")
        self.assertNotIn("snip-3", self.supervisor.restarts)

    def test_killed_deployment_is_completed_by_the_next(self):
        self.installed()
        self.deploy_until("new", "restarting snip-2", kill)
        status, output = self.deploy("new")
        self.assertEqual(status, 0, output)
        self.assertEqual(self.serving(), ["new"] * 3)
        self.assertIn("snip-1 serves", output)

    def test_trial_that_is_interrupted_changes_nothing(self):
        self.installed()
        interrupt = lambda process: process.send_signal(signal.SIGTERM)
        status, output = self.deploy_until("bad2", "trying ", interrupt)
        self.assertEqual(status, 1, output)
        self.assertIn("stopped by SIGTERM", output)
        self.assertIn("nothing was changed", output)
        self.assertEqual(self.supervisor.restarts, [])
        self.check_no_trial()

    def kill_in_trial(self, version):
        """Leaves a trial that runs, as a deployment does that is killed."""

        def kill_when_it_runs(process):
            wait.until("the trial runs", PATIENCE_SECONDS, self.supervisor.trial.pid)
            kill(process)

        self.deploy_until(version, "trying ", kill_when_it_runs)
        self.assertNotEqual(self.supervisor.trial.pid(), 0)
        self.assertTrue((self.root / "trial").is_symlink())

    def test_deployment_killed_in_its_trial_disturbs_no_other(self):
        self.installed()
        # The second one serves already and is not tried: what was left is cleared away all the same.
        for trials in (["snip-trial"] * 2, ["snip-trial"]):
            self.supervisor.trials.clear()
            self.kill_in_trial("bad2")
            status, output = self.deploy("new")
            self.assertEqual(status, 0, output)
            self.assertEqual(self.serving(), ["new"] * 3)
            self.assertEqual(self.supervisor.trials, trials)
            self.check_no_trial()

    def test_first_release_that_is_no_good_starts_nothing(self):
        status, output = self.deploy("bad2")
        self.assertEqual(status, 1, output)
        self.assertIn("nothing was changed; nothing served before", output)
        self.assertEqual(self.supervisor.restarts, [])
        self.assertFalse((self.root / "current").exists())

    def test_first_release_that_is_no_good_as_an_instance_is_stopped(self):
        status, output = self.deploy("late2")
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
        self.stack.up(self.versions / "old", net.any_free_ports(USUAL_PORTS))
        self.nginx = self.stack.address("nginx")

    def deploy(self, version, settle=1):
        command = [ROOT / "ops/deploy", "--root", self.folder / "opt", "--stack", self.stack.folder]
        done = subprocess.run(
            [*command, *times(version, settle), self.versions / version],
            timeout=DEPLOY_SECONDS, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )
        return done.returncode, done.stdout

    def serving(self):
        pids = [self.stack.process(name).pid for name in INSTANCES]
        return [Path(f"/proc/{pid}/exe").read_bytes()[-3:].decode() for pid in pids]

    @unittest.skipIf(os.geteuid() != 0, "only root gives priority")
    def test_nginx_goes_before_postgres_and_that_before_the_instances(self):
        nice = lambda process: os.getpriority(os.PRIO_PROCESS, process.pid)
        postgres = nice(self.stack.process("postgres"))
        self.assertLess(min(map(nice, self.stack.process("nginx").family())), postgres)
        for name in INSTANCES:
            self.assertGreater(nice(self.stack.process(name)), postgres)

    def test_service_goes_on(self):
        for version, expected_status, serving in (("old", 0, "old"), ("late1", 1, "old"), ("new", 0, "new")):
            with self.subTest(version):
                status, output = self.under_load([self.nginx], lambda version=version: self.deploy(version))
                self.assertEqual(status, expected_status, output)
                self.assertEqual(self.serving(), [serving] * 3, output)

    def test_version_that_is_no_good_is_not_met(self):
        before = [self.stack.process(name) for name in INSTANCES]
        for version, reason in (("bad1", "snip-trial "), ("bad2", NOT_READY), ("bad3", "snip-trial was ready, ")):
            with self.subTest(version):
                status, output = self.under_load([self.nginx], lambda version=version: self.deploy(version, settle=1.5))
                self.assertEqual(status, 1, output)
                self.assertRegex(output, reason)
                self.assertIn("nothing was changed", output)
                self.assertEqual([self.stack.process(name) for name in INSTANCES], before, "none is restarted")
                states = {told["name"]: told["state"] for told in self.stack.status()}
                self.assertEqual(states[TRIAL], "stopped")


if __name__ == "__main__":
    unittest.main()
