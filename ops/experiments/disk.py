"""A small disk of our own, an ext4 file system in a file, to be filled and emptied."""

import errno
import os
import subprocess

from lib import wait

from . import Failed

UNMOUNT_SECONDS = 5
STEP_BYTES = 1024 * 1024


def _run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


class Disk:
    """A disk mounted at `path`; leaving it unmounts it. Its file takes room as it is used."""

    def __init__(self, path, megabytes):
        self.path, self._image = path, path.with_name(f"{path.name}.disk")
        self._megabytes = megabytes

    def __enter__(self):
        self.path.mkdir(mode=0o755)
        with open(self._image, "wb") as image:
            image.truncate(self._megabytes * 1024 * 1024)
        # No blocks are kept for root: full is full for everybody.
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", self._image)
        _run("mount", "-o", "loop", self._image, self.path)
        return self

    def __exit__(self, *_):
        # Who looked at it just now, as what measures its room does, still holds it.
        unmount = ["umount", str(self.path)]
        is_unmounted = lambda: subprocess.run(unmount, capture_output=True).returncode == 0  # noqa: E731
        wait.until(f"{self.path} is no longer in use", UNMOUNT_SECONDS, is_unmounted)
        self._image.unlink()

    @property
    def _ballast(self):
        return self.path / "ballast"

    def fill(self):
        """Takes all the room that is left; may be repeated when somebody made some."""
        handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT)
        size, step = os.fstat(handle).st_size, STEP_BYTES
        try:
            while step >= 4096:
                try:
                    os.posix_fallocate(handle, size, step)
                    size += step
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    step //= 16
        finally:
            os.close(handle)

    def empty(self):
        self._ballast.unlink(missing_ok=True)
