"""ops/ci/instructions: what it makes of counts, and that docs/performance.md has those that are stored."""

import contextlib
import importlib.machinery
import importlib.util
import io
import json
import re
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parent.parent.parent


def load(path):
    """A program without .py as a module, leaving no compiled file beside it."""
    loader = importlib.machinery.SourceFileLoader(path.name, str(path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(path.name, loader))
    with mock.patch.object(sys, "dont_write_bytecode", True):
        loader.exec_module(module)
    return module


instructions = load(ROOT / "ops/ci/instructions")
STORED = {"head.parse": 1000, "route.code": 100}


class Instructions(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.file = Path(folder.name) / "instructions.json"
        self.file.write_text(json.dumps(STORED))

    def run_with(self, counted, *arguments):
        """As `run_through`, when each run counts the same."""
        return self.run_through([counted] * instructions.RUNS_MAX, *arguments)

    def run_through(self, runs, *arguments):
        """Names that it complains of, `None` when it does not, and what it prints, when its runs count this."""
        printed = io.StringIO()
        with (
            mock.patch.object(instructions, "count", mock.Mock(side_effect=runs)),
            mock.patch.object(instructions, "STORED", self.file),
            mock.patch.object(sys, "argv", ["instructions", *arguments]),
            contextlib.redirect_stdout(printed),
        ):
            try:
                instructions.main()
            except SystemExit as exit:
                return re.search(r"not in both: ([^ ]+(?:, [^ ]+)*)\. If", exit.code)[1], printed.getvalue()
        return None, printed.getvalue()

    def test_comparison(self):
        for counted, expect in (
            (STORED, None),
            ({**STORED, "head.parse": 1020}, None),
            ({**STORED, "head.parse": 1030}, None),
            ({**STORED, "head.parse": 500}, None),
            ({**STORED, "head.parse": 1031}, "head.parse"),
            ({**STORED, "route.code": 104}, "route.code"),
            ({"head.parse": 1040, "route.code": 104}, "head.parse, route.code"),
            ({"head.parse": 1000}, "route.code"),
            ({**STORED, "pg.bind": 1}, "pg.bind"),
            ({"head.parse": 1040, "pg.bind": 1}, "head.parse, pg.bind, route.code"),
        ):
            with self.subTest(counted=counted):
                self.assertEqual(self.run_with(counted)[0], expect)
                self.assertEqual(json.loads(self.file.read_text()), STORED)

    def test_a_rise_is_in_all_runs(self):
        high, low = {"head.parse": 1040, "route.code": 100}, {"head.parse": 1000, "route.code": 104}
        self.assertEqual(self.run_through([high, STORED])[0], None)
        self.assertEqual(self.run_through([high, low])[0], None, "each name by itself")
        self.assertEqual(self.run_through([high, high, STORED])[0], None)
        self.assertEqual(self.run_through([high, high, high])[0], "head.parse")

    def test_changes_are_shown(self):
        complaint, printed = self.run_with({"head.parse": 1040, "pg.bind": 7})
        self.assertEqual(complaint, "head.parse, pg.bind, route.code")
        self.assertEqual([line.split() for line in printed.splitlines()], [["head.parse", "1,040", "+4.0%"], ["pg.bind", "7", "new"]])

    def test_accept_stores(self):
        counted = {"head.parse": 2000, "pg.bind": 7}
        self.assertIsNone(self.run_with(counted, "--accept")[0])
        self.assertEqual(json.loads(self.file.read_text()), counted)
        self.assertIsNone(self.run_with(counted)[0])

    def test_without_a_file_all_is_new(self):
        self.file.unlink()
        self.assertEqual(self.run_with(STORED)[0], "head.parse, route.code")

    def test_documented(self):
        page = (ROOT / "docs/performance.md").read_text()
        rows = re.findall(r"^\| .* \| `(\w+\.\w+)` \| ([\d,]+) \|$", page, re.MULTILINE)
        stored = json.loads((ROOT / "benches/instructions.json").read_text())
        self.assertEqual({name: int(counted.replace(",", "")) for name, counted in rows}, stored)
        self.assertEqual(len(rows), len(stored))


if __name__ == "__main__":
    unittest.main()
