"""ops/pgo/rustc: which builds get the profile."""

import os
import re
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WRAPPER = ROOT / "ops/pgo/rustc"
# As cargo calls it.
OPTIMIZED = ["--crate-name", "snip", "--edition=2024", "src/lib.rs", "-C", "opt-level=3", "-C", "panic=unwind"]


class Wrapper(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.wrapper = self.folder / "rustc"
        self.wrapper.write_bytes(WRAPPER.read_bytes())
        self.compiler = self.folder / "compiler"
        self.compiler.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo "rustc 9.8.7"; echo "release: 9.8.7"; exit; }\nprintf "%s\\n" "$@"\n')
        for program in (self.wrapper, self.compiler):
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def given(self, *arguments, **environment):
        """What the compiler is given for these arguments."""
        environment = {**{name: value for name, value in os.environ.items() if name != "SNIP_PGO_RECORD"}, **environment}
        told = subprocess.run([self.wrapper, self.compiler, *arguments], check=True, stdout=subprocess.PIPE, text=True, env=environment)
        return told.stdout.splitlines()

    def profile(self, release):
        file = self.folder / f"{release}.profdata"
        file.touch()
        return file

    def test_an_optimized_build_gets_the_profile_of_its_compiler(self):
        profile = self.profile("9.8.7")
        given = self.given(*OPTIMIZED)
        self.assertEqual(given[: len(OPTIMIZED)], OPTIMIZED)
        self.assertIn(f"-Cprofile-use={profile}", given)

    def test_another_compiler_builds_without(self):
        self.profile("9.8.6")
        self.assertEqual(self.given(*OPTIMIZED), OPTIMIZED)

    def test_other_crates_and_builds_for_tests_are_left_alone(self):
        self.profile("9.8.7")
        for arguments in (["--crate-name", "bench", "-C", "opt-level=3"], ["--crate-name", "snip", "-C", "debuginfo=2"], ["-vV"]):
            self.assertEqual(self.given(*arguments, SNIP_PGO_RECORD="/x"), arguments)

    def test_a_recording_counts_and_uses_no_profile(self):
        self.profile("9.8.7")
        self.assertEqual(self.given(*OPTIMIZED, SNIP_PGO_RECORD="/a b"), [*OPTIMIZED, "-Cprofile-generate=/a b"])

    def test_there_is_a_profile_for_the_toolchain_that_ci_runs(self):
        release = re.search(r"^release: (\S+)", subprocess.check_output(["rustc", "-vV"], text=True), re.M)[1]
        wanted = re.search(r'^rust-version = "([\d.]+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
        if not f"{release}.".startswith(f"{wanted}."):
            self.skipTest(f"rustc {release} is not the {wanted} of Cargo.toml")
        self.assertTrue((ROOT / f"ops/pgo/{release}.profdata").is_file(), "ops/pgo/record makes it")


if __name__ == "__main__":
    unittest.main()
