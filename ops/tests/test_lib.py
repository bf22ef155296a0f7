"""The small parts of ops/lib: placeholders, and the supervisor with its pauses and its successor."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib import render, wait
from lib.limits import limit
from lib.process import Process
from lib.roles import Role
from lib.stack import Stack

SUPERVISOR = Path(__file__).resolve().parent.parent / "lib/supervisor.py"
PATIENCE_SECONDS = 20


class Render(unittest.TestCase):
    def test_only_capitals_in_braces_are_filled(self):
        text = "listen ${LISTEN}; log $host ${lower} $$ ${ {{ $value }}"
        self.assertEqual(
            render.fill(text, {"LISTEN": "80", "UNUSED": "1"}), "listen 80; log $host ${lower} $$ ${ {{ $value }}"
        )

    def test_a_placeholder_without_a_value_is_an_error(self):
        with self.assertRaisesRegex(ValueError, "placeholder A, B"):
            render.fill("${B} ${A} ${C}", {"C": ""})


class Limits(unittest.TestCase):
    def test_a_bound_is_the_number_that_stands_there(self):
        bounds = {
            "LISTEN_BACKLOG": 4096,
            "CLICKS_BATCH_MAX": 16_384,
            "JOURNAL_SEGMENT_BYTES": 8 << 20,
            "JOURNAL_BYTES_MIN": 32 << 20,
            "CLICKS_FLUSH_DEADLINE": 5,
            "TICK": 0.1,
        }
        for name, value in bounds.items():
            with self.subTest(name):
                self.assertAlmostEqual(limit(name), value)
        self.assertEqual(limit("DESCRIPTORS_RESERVE"), 128 + limit("CONNECTIONS_RESERVE"))

    def test_what_has_no_number_is_an_error(self):
        self.assertRaisesRegex(ValueError, "no bound NO_SUCH", limit, "NO_SUCH")
        self.assertRaisesRegex(ValueError, "CLICKS_BATCH_QUICK is more than", limit, "CLICKS_BATCH_QUICK")


class Supervisor(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.stack = Stack(folder.name)
        self.stack.run.mkdir()
        self.start()
        self.addCleanup(self.end)

    def start(self, log=subprocess.DEVNULL):
        self.supervisor = subprocess.Popen([sys.executable, SUPERVISOR, self.stack.run], stdout=log)
        wait.until("the supervisor listens", PATIENCE_SECONDS, lambda: self.stack.ask(do="status") is not None)

    def test_a_full_disk_for_its_log_is_no_reason_to_end(self):
        self.end()
        with open("/dev/full", "w") as full:
            self.start(full)
        before = self.charge("sleep", "60")
        before.send(signal.SIGKILL)
        self.assertNotEqual(self.running(other_than=before), before)

    def end(self):
        self.stack.ask(do="end")
        self.assertEqual(self.supervisor.wait(PATIENCE_SECONDS), 0)

    def charge(self, *command, **more):
        role = Role("sleeper", list(command), str(self.stack.folder), str(self.stack.folder / "log"), **more)
        self.stack.ask(do="start", role=role.as_told())
        return self.running()

    def running(self, other_than=None):
        def look():
            told = self.stack.status()[0]["process"]
            return told and Process(*told) != other_than and Process(*told)

        return wait.until("the role runs", PATIENCE_SECONDS, look)

    def test_a_role_that_dies_is_started_again(self):
        first = self.charge("sleep", "1000")
        first.send(signal.SIGKILL)
        second = self.running(other_than=first)
        self.assertTrue(second.is_alive())
        self.assertEqual(self.stack.status()[0]["restarts"], 1)

    def test_a_role_has_its_priority(self):
        process = self.charge("sleep", "1000", nice=3)
        # It is known from its fork on, and takes on the role after that.
        priority = lambda: os.getpriority(os.PRIO_PROCESS, process.pid)
        wait.until("it has its priority", PATIENCE_SECONDS, lambda: priority() == 3)

    def test_one_that_cannot_live_is_tried_ever_later(self):
        self.end()
        with open(self.stack.folder / "supervisor.log", "w") as log:
            self.start(log)
        role = Role("sleeper", ["false"], "/", str(self.stack.folder / "log"))
        began = time.monotonic()
        self.stack.ask(do="start", role=role.as_told())
        wait.until("it has died four times", PATIENCE_SECONDS, lambda: self.stack.status()[0]["restarts"] >= 4)
        self.assertGreater(time.monotonic() - began, 0.1 + 0.2 + 0.4)
        pauses = re.findall(r"sleeper: starting it in (\S+) s", Path(log.name).read_text())
        self.assertEqual(pauses[:4], ["0.1", "0.2", "0.4", "0.8"])

    def test_a_program_that_is_not_there_is_told_in_the_log(self):
        role = Role("sleeper", ["/nonexistent"], "/", str(self.stack.folder / "log"))
        self.stack.ask(do="start", role=role.as_told())
        wait.until("it has died", PATIENCE_SECONDS, lambda: self.stack.status()[0]["restarts"])
        self.assertIn("cannot start sleeper: [Errno 2]", (self.stack.folder / "log").read_text())

    def test_one_that_is_stopped_stays_so_and_one_that_will_not_end_is_killed(self):
        process = self.charge("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", stop_seconds=0.5)
        self.stack.ask(do="stop", name="sleeper")
        wait.until("it is stopped", PATIENCE_SECONDS, lambda: self.stack.status()[0]["state"] == "stopped")
        self.assertFalse(process.is_alive())

    def test_one_that_is_stopped_as_it_starts_hears_it(self):
        role = Role("sleeper", ["sleep", "1000"], "/", str(self.stack.folder / "log"), stop_seconds=2 * PATIENCE_SECONDS)
        for _ in range(20):
            self.stack.ask(do="start", role=role.as_told())
            self.stack.ask(do="stop", name="sleeper")
            wait.until("it is stopped", PATIENCE_SECONDS, lambda: self.stack.status()[0]["state"] == "stopped")

    def test_a_restart_is_no_death(self):
        first = self.charge("sleep", "1000")
        first.send(signal.SIGSTOP)  # one that is frozen can be stopped too
        self.stack.ask(do="restart", name="sleeper")
        self.running(other_than=first)
        self.assertEqual(self.stack.status()[0]["restarts"], 0)

    def test_a_frozen_family_stands_still_till_it_is_thawed(self):
        counts = "import itertools, threading; threading.Thread(target=lambda: sum(n & 0 for n in itertools.count())).start()"
        first = self.charge("sh", "-c", f"{sys.executable} -c '{counts}' & wait")
        wait.until("its child counts", PATIENCE_SECONDS, lambda: any(child.cpu_seconds() for child in first.family()[1:]))
        first.freeze()
        family = first.family()
        before = sum(one.cpu_seconds() for one in family)
        self.assertEqual([one.stands_still() for one in family], [True, True])
        first.thaw()
        wait.until("they run on", PATIENCE_SECONDS, lambda: sum(one.cpu_seconds() for one in family) > before)

    def test_what_a_role_leaves_behind_is_ended(self):
        first = self.charge("sh", "-c", "sleep 1000 & echo $! >child; wait")
        child = Process.of(int(wait.until("a child", PATIENCE_SECONDS, lambda: self.child())))
        first.send(signal.SIGKILL)
        wait.until("the child has ended", PATIENCE_SECONDS, lambda: not child.is_alive())

    def child(self):
        path = self.stack.folder / "child"
        return path.exists() and path.read_text().strip()

    def test_a_successor_goes_on_with_what_lives(self):
        first = self.charge("sleep", "1000")
        self.supervisor.kill()
        self.supervisor.wait()
        self.start()
        self.assertEqual(self.running(), first)
        first.send(signal.SIGKILL)
        self.assertNotEqual(self.running(other_than=first), first)

    def test_a_successor_leaves_alone_what_is_dead(self):
        process = self.charge("sleep", "1000")
        self.supervisor.kill()
        self.supervisor.wait()
        process.send(signal.SIGKILL)
        wait.until("it has ended", PATIENCE_SECONDS, lambda: not process.is_alive())
        self.start()
        self.assertEqual(self.stack.status(), [])

    def test_a_signal_ends_all(self):
        process = self.charge("sleep", "1000")
        self.supervisor.send_signal(signal.SIGTERM)
        self.assertEqual(self.supervisor.wait(PATIENCE_SECONDS), 0)
        self.assertFalse(process.is_alive())

    def test_nonsense_harms_nobody(self):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.stack.run / "supervisor.sock"))
            client.sendall(b"nonsense\n")
            client.recv(1)
        self.assertEqual(self.stack.status(), [])


if __name__ == "__main__":
    unittest.main()
