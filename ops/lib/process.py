"""A process by its id and its start time, so that another one that got the same id is never taken for it."""

import contextlib
import os
import signal
from dataclasses import dataclass
from pathlib import Path

from . import wait

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Each thread has to be scheduled once to notice that it is to stand still.
FREEZE_SECONDS = 20


def interrupt_once():
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt, the first of them alone: none disturbs the cleaning."""
    numbers = (signal.SIGINT, signal.SIGTERM)

    def interrupt(*_):
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def give_priority(pid, nice):
    """Gives a process its nice value (0: ourselves). Without the right to it, as in some containers, it goes with all others."""
    with contextlib.suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)


def _stat(pid, folder=Path("/proc")):
    """The fields of /proc/PID/stat from the third on, or those of a thread in its process's folder; None when there is none."""
    try:
        text = (folder / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()  # the name before may hold blanks and brackets


@dataclass(frozen=True)
class Process:
    """A process that was there when this was made."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid):
        """The process that has this id now, or None."""
        stat = _stat(pid)
        return cls(pid, int(stat[19])) if stat else None

    def is_alive(self):
        """Whether it runs or is stopped; one that is dead and not yet reaped does not count."""
        stat = _stat(self.pid)
        return bool(stat) and int(stat[19]) == self.start_ticks and stat[0] not in "ZX"

    def send(self, number):
        """Sends a signal; False when the process is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return False
        try:
            # The handle is that of whoever has the id now; it stays so while we look.
            if not self.is_alive():
                return False
            signal.pidfd_send_signal(handle, number)
            return True
        except ProcessLookupError:
            return False
        finally:
            os.close(handle)

    def family(self):
        """This process and all of its descendants that live."""
        children = {}
        for entry in os.listdir("/proc"):
            stat = _stat(entry) if entry.isdigit() else None
            if stat and stat[0] not in "ZX":
                children.setdefault(int(stat[1]), []).append(Process(int(entry), int(stat[19])))
        found = [self] if self.is_alive() else []
        for process in found:
            found.extend(children.get(process.pid, []))
        return found

    def freeze(self):
        """Lets this process and all of its descendants stand still, and returns when they do: after the signal, threads on
        other cores go on for a while, and what one of them starts meanwhile has to be frozen too."""
        frozen = set()
        while running := set(self.family()) - frozen:
            for process in running:
                process.send(signal.SIGSTOP)
            stand_still = lambda: all(process.stands_still() for process in running)  # noqa: B023, E731
            wait.until(f"process {self.pid} and its family stand still", FREEZE_SECONDS, stand_still)
            frozen |= running

    def thaw(self):
        """Lets this process and all of its descendants run on."""
        for process in self.family():
            process.send(signal.SIGCONT)

    def stands_still(self):
        """Whether no thread of it runs, or could."""
        folder = Path(f"/proc/{self.pid}/task")
        try:
            threads = os.listdir(folder)
        except OSError:
            return True  # it has ended
        return all(stat[0] in "TZX" for stat in (_stat(thread, folder) for thread in threads) if stat)

    def cpu_seconds(self):
        """Time on the CPU so far, its own and that of children that were waited for, user and system."""
        stat = _stat(self.pid)
        return sum(map(int, stat[11:15])) / TICKS_PER_SECOND if stat else 0.0

    def memory_bytes(self):
        """Proportional resident memory: a page that several processes share counts in parts."""
        try:
            text = Path(f"/proc/{self.pid}/smaps_rollup").read_text()
        except OSError:
            return 0
        return sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
