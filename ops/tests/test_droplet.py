"""Control groups: those that this machine has, and version 2 in a tree of files that stands in for a kernel."""

import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from lib import cgroup
from lib.cgroup import MIB, Droplet, Unavailable
from lib.process import Process

DROPLET = Path(__file__).resolve().parent.parent / "droplet"
# Two processes, each a session of its own as the roles of a stack are, the second with a lower priority; prints the CPU time
# that each got while the first got half a second. By the clock one could be over before the other has begun.
RIVALS = """
import mmap, os, time
shared = mmap.mmap(-1, 3)  # whether each is there, and whether it is over
for number, nice in enumerate((0, 19)):
    if os.fork() == 0:
        os.setsid()
        os.nice(nice)
        shared[number] = 1
        while not (shared[0] and shared[1]): time.sleep(0.001)
        began = time.process_time()
        while not shared[2]:
            if nice == 0 and time.process_time() > began + 0.5: shared[2] = 1
        os.write(1, b"%d %f\\n" % (nice, time.process_time() - began))
        os._exit(0)
for _ in range(2): os.wait()
"""
CANNOT = 125


def run(*arguments):
    return subprocess.run([DROPLET, *arguments], capture_output=True, text=True, timeout=60)


class OnThisMachine(unittest.TestCase):
    def setUp(self):
        if run("--", "true").returncode == CANNOT:
            self.skipTest("no control groups may be made here")

    def test_says_what_was_used_and_gives_the_status(self):
        script = "import sys\nblock = bytearray(100 << 20)\nfor _ in range(10**6): pass\nsys.exit(7)"
        done = run("--", sys.executable, "-c", script)
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertRegex(done.stderr, r"1024 MiB: \d+\.\d\d CPU seconds, peak memory \d+\.\d MiB")

    def test_memory_ends_where_it_says(self):
        done = run("--memory", "50MiB", "--", sys.executable, "-c", "block = bytearray(100 << 20)")
        self.assertEqual(done.returncode, 137, done.stderr)
        self.assertIn("killed for want of memory", done.stderr)

    def test_one_core_is_there(self):
        done = run("--", sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))")
        self.assertEqual(done.stdout, "1\n", done.stderr)

    def test_priorities_count_between_sessions(self):
        done = run("--", sys.executable, "-c", RIVALS)
        got = {nice: float(seconds) for nice, seconds in map(str.split, done.stdout.splitlines())}
        self.assertGreater(got["0"], 4 * got["19"], done)

    def test_what_is_left_is_ended(self):
        done = run("--", "sh", "-c", "sleep 1000 >/dev/null 2>&1 & echo $!")
        self.assertIn("1 processes were left", done.stderr)
        left = Process.of(int(done.stdout))
        self.assertFalse(left and left.is_alive())

    def test_bad_arguments(self):
        self.assertIn("is none of the cores", run("--cpu", "4096", "--", "true").stderr)
        self.assertIn("invalid size value", run("--memory", "much", "--", "true").stderr)


class Version2(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        self.top = self.root / "sys/fs/cgroup"
        self.top.mkdir(parents=True)
        (self.root / "proc/self").mkdir(parents=True)
        (self.root / "proc/self/mountinfo").write_text("30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n")
        (self.root / "proc/self/cgroup").write_text("0::/user.slice\n")
        (self.top / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
        (self.top / "cgroup.subtree_control").write_text("memory\n")

    def make(self):
        def make_folder(parent, name, made=cgroup._make):
            folder = made(parent, name)
            for file, text in {
                "cgroup.procs": "",
                "cpu.stat": "usage_usec 1500000\n",
                "memory.peak": "52428800\n",
                "memory.stat": "anon 10485760\nfile 99\nfile_mapped 1048576\n",
                "memory.events": "oom_kill 2\n",
                "memory.swap.max": "max\n",
            }.items():
                (folder / file).write_text(text)
            return folder

        with mock.patch.object(cgroup, "_make", make_folder):
            return Droplet.make(cpu=1, memory=64 * MIB, root=self.root)

    def test_limits_and_usage(self):
        with self.make() as droplet:
            folder = droplet._folders()[0]
            self.assertEqual((self.top / "cgroup.subtree_control").read_text(), "+cpuset +cpu\n")
            self.assertEqual((folder / "cpuset.cpus").read_text(), "1\n")
            self.assertEqual((folder / "memory.max").read_text(), f"{64 * MIB}\n")
            self.assertEqual((folder / "memory.swap.max").read_text(), "0\n")
            self.assertEqual(droplet.usage(), cgroup.Usage(1.5, 11 * MIB, 50 * MIB, 2))
            self.assertEqual(droplet.pids(), [])

    def test_says_why_not(self):
        (self.top / "cgroup.controllers").write_text("cpu pids\n")
        with self.assertRaisesRegex(Unavailable, "no controller cpuset and no memory"):
            self.make()
        (self.root / "proc/self/mountinfo").write_text("")
        with self.assertRaisesRegex(Unavailable, "not mounted|no control groups are mounted"):
            self.make()


class Sizes(unittest.TestCase):
    def test_sizes(self):
        self.assertEqual(
            [cgroup.size(text) for text in ("7", "2KiB", "512MiB", "1GiB")], [7, 2048, 512 * MIB, 1024 * MIB]
        )
        for bad in ("", "0", "1G", "-1", "1.5GiB", "GiB"):
            with self.assertRaises(ValueError):
                cgroup.size(bad)


if __name__ == "__main__":
    unittest.main()
