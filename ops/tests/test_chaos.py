"""The experiments' own parts: the ledger finds what is planted, wires do what they say, the pages name all."""

import contextlib
import io
import json
import re
import socket
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from experiments import ledger
from experiments.alarms import Alarms
from experiments.catalogue import ALL
from experiments.heartbeat import BEATS
from experiments.load import Link, Request, Version
from experiments.wire import Fault, Wire
from lib import net
from lib.fast_motion import in_fast_motion
from lib.roles import ROOT

HOME = "https://example.com/t/1/"


class Store:
    """Answers to the two questions of the ledger."""

    def __init__(self, clicks=(), links=()):
        self._clicks, self._links = clicks, links

    def psql(self, sql):
        return "\n".join(self._links if "original_url" in sql else self._clicks)


class Told:
    """What a load kept."""

    name = "t"

    def __init__(self, links=(), requests=()):
        self.links, self.requests = links, requests


def link(*versions):
    """A link that is called abc and has the id 1."""
    made = Link("t/1", 1, "abc")
    made.versions += [Version(target and HOME + target, sent, acknowledged) for target, sent, acknowledged in versions]
    return made


def read(of, started, status, location=None):
    return Request("read", started, started + 0.1, status, "t-5", of, location and HOME + location)


class Ledger(unittest.TestCase):
    def check_link(self, row, lost, doubled, *versions):
        found = ledger.audit(Told([link(*versions)]), Store(links=row), {}, 3)
        self.assertEqual((len(found.lost), len(found.doubled)), (lost, doubled), found)

    def test_links(self):
        created, changed = ("1", 1, 1.1), ("2", 2, 2.1)
        row = HOME + "{}|{}|abc|1|{}"
        self.check_link([row.format(1, "t", 1)], 0, 0, created)
        self.check_link([], 1, 0, created)
        self.check_link([], 0, 0, ("1", 1, None))
        self.check_link([row.format(1, "t", 1)], 1, 0, created, changed)
        self.check_link([row.format(2, "t", 1)], 0, 0, created, changed)
        self.check_link([row.format(1, "t", 1)], 0, 0, created, ("2", 2, None))
        self.check_link([row.format(2, "t", 1)], 0, 0, created, ("2", 2, None))
        self.check_link([row.format(1, "t", 1)], 1, 0, created, (None, 2, 2.1))
        self.check_link([row.format(1, "f", 1)], 0, 0, created, (None, 2, 2.1))
        self.check_link([row.format(1, "t", 1)] * 2, 0, 1, created)
        self.check_link([row.format(1, "t", 0)], 1, 0, created)
        self.check_link([row.format(1, "t", 2)], 0, 1, created)

    def check_clicks(self, status, stored, lost, doubled, tries=1):
        request = read(link(("1", 1, 1.1)), 2, status, "1" if status == 302 else None)
        found = ledger.audit(Told(requests=[request]), Store(["t-5|1"] * stored), {"t-5": tries}, 3)
        self.assertEqual((len(found.lost_clicks), len(found.doubled)), (lost, doubled), found)

    def test_clicks(self):
        self.check_clicks(302, 1, 0, 0)
        self.check_clicks(302, 0, 1, 0)
        self.check_clicks(302, 2, 0, 1)
        self.check_clicks(302, 2, 0, 0, tries=2)
        self.check_clicks(None, 0, 0, 0)
        self.check_clicks(None, 1, 0, 0)
        self.check_clicks(503, 1, 0, 1)
        self.check_clicks(503, 0, 0, 0)

    def test_a_click_that_nobody_made(self):
        self.assertEqual(len(ledger.audit(Told(), Store(["t-9|1"]), {}, 3).doubled), 1)

    def check_freshness(self, request, stale):
        found = ledger.audit(Told(requests=[request]), Store(["t-5|1"]), {}, 3)
        self.assertEqual(len(found.stale), stale, found)

    def test_freshness(self):
        of = link(("1", 1, 1.1), ("2", 10, 10.1), (None, 20, 20.1))
        self.check_freshness(read(of, 5, 302, "1"), 0)
        self.check_freshness(read(of, 13, 302, "1"), 0)
        self.check_freshness(read(of, 13.2, 302, "1"), 1)
        self.check_freshness(read(of, 13, 302, "2"), 0)
        self.check_freshness(read(of, 5, 302, "2"), 1)
        self.check_freshness(read(of, 5, 404), 1)
        self.check_freshness(read(of, 21, 404), 0)
        self.check_freshness(read(of, 24, 302, "2"), 1)
        self.check_freshness(read(of, 5, 302, "9"), 1)


class Wires(unittest.TestCase):
    """An echo server behind a wire."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path, self.beside = Path(folder.name) / "sock", Path(folder.name) / "beside"
        self.server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.addCleanup(self.server.close)
        self.server.bind(str(self.path))
        self.server.listen()
        threading.Thread(target=self.echo, daemon=True).start()

    def echo(self):
        try:
            while True:
                one, _ = self.server.accept()
                with one:
                    one.sendall(one.recv(100))
        except OSError:
            pass  # closed: the test is over

    def ask(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
            one.settimeout(5)
            one.connect(str(self.path))
            one.sendall(b"0123456789")
            answer = b""
            while piece := one.recv(100):
                answer += piece
            return answer

    def test_all_goes_through_and_the_path_is_given_back(self):
        with Wire(self.path, self.beside, Fault(), 1) as wire:
            self.assertEqual(self.ask(), b"0123456789")
            self.assertTrue(wire.pieces)
        self.assertFalse(self.beside.exists())
        self.assertEqual(self.ask(), b"0123456789")

    def test_a_reply_is_cut_in_the_middle(self):
        with Wire(self.path, self.beside, Fault(cut_chance=1), 1) as wire:
            self.assertEqual(self.ask(), b"01234")
            self.assertEqual(wire.cuts, 1)


class AlertsResolved(unittest.TestCase):
    """What the receiver was told, and what Alertmanager says that it has."""

    def check(self, heard, known, left, told=None):
        labels = lambda name: {"alertname": name, "job": "snip"}
        with tempfile.TemporaryDirectory() as folder:
            alarms = Alarms(Path(folder), 9093)
            alarms.heard = lambda: [(labels(name), status) for name, status in heard]
            text = json.dumps([{"labels": labels(name)} for name in known or ()])
            with mock.patch.object(net, "get", lambda *_: (200, text) if known is not None else (None, "")):
                self.assertEqual([one["alertname"] for one in alarms._unresolved(told)], left)

    def test_told_or_gone(self):
        slow, down = ("P99LatencyHigh", "firing"), ("StoreDown", "firing")
        self.check([], [], [])
        self.check([slow, ("P99LatencyHigh", "resolved")], ["P99LatencyHigh"], [])
        self.check([slow], ["P99LatencyHigh"], ["P99LatencyHigh"])
        self.check([slow], [], [])
        self.check([slow], None, ["P99LatencyHigh"])
        self.check([slow, down], [], ["StoreDown"], told="StoreDown")
        self.check([("ErrorBudgetBurnFast", "firing")], ["ErrorBudgetBurnFast"], [])


class Heartbeats(unittest.TestCase):
    def test_tell_how_late_they_came_within_a_stretch(self):
        said, beats = io.StringIO(), [([],)] * 6
        with (
            mock.patch.object(sys, "argv", ["-c", "1", "2"]),  # two beats of a second
            mock.patch("select.select", side_effect=[*beats, (["the end"],)]),
            mock.patch("time.monotonic", side_effect=[0, 1, 5, 8, 9, 13, 14]),  # late by 0, 3, 2, 0, 3, 0 s
            contextlib.redirect_stdout(said),
        ):
            exec(BEATS, {})
        self.assertEqual(said.getvalue(), "5.0\n")


class FastMotion(unittest.TestCase):
    def test_times_are_divided_and_thresholds_are_not(self):
        text = "interval: 15s\n  scrape_timeout: 5s\n  expr: rate(a[5m]) > 60\n  for: 1m\n"
        self.assertEqual(in_fast_motion(text, 30), "interval: 500ms\n  expr: rate(a[10000ms]) > 60\n  for: 2000ms\n")


class Pages(unittest.TestCase):
    modes = (ROOT / "docs/failure-modes.md").read_text()
    rules = "".join(path.read_text() for path in (ROOT / "ops/prometheus/rules").glob("*.yml"))

    def alerts(self):
        return set(re.findall(r"- alert: (\w+)", self.rules))

    def test_each_experiment_is_once_in_the_catalogue_and_has_a_failure_mode(self):
        names = [experiment.name for experiment in ALL]
        self.assertEqual(len(names), len(set(names)))
        linked = set(re.findall(r"\(chaos-engineering\.md#([a-z-]+)\)", self.modes))
        self.assertEqual(linked, set(names))

    def test_alerts_have_rules(self):
        self.assertLessEqual({experiment.alert for experiment in ALL if experiment.alert}, self.alerts())

    def test_failure_modes_name_the_alerts_that_the_experiments_see(self):
        """A row that links to an experiment names the experiment's alert, and no alert that has no rule."""
        expected = {experiment.name: experiment.alert for experiment in ALL}
        for line in self.modes.splitlines():
            for name in re.findall(r"#([a-z-]+)\)", line):
                if expected.get(name):
                    self.assertIn(expected[name], line, f"the row of {name}")
            if line.startswith("| ") and "chaos-engineering.md#" in line:
                named = set(re.findall(r"`([A-Z]\w+)`", line.split(" | ")[-2]))
                self.assertLessEqual(named, self.alerts(), line)


if __name__ == "__main__":
    unittest.main()
