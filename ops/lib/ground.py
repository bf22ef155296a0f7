"""The ground that measurements stand on: servers on one core, in a temporary folder that goes with them; the load, by
wrk, on another."""

import contextlib
import csv
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import net, roles, wait
from .process import Process, give_priority, interrupt_once

SERVER_CORE, LOAD_CORE = "0", "1"
READY_SECONDS = 30
# Sessions as groups of the scheduler. PostgreSQL makes each of its processes a session of its own, and on a core that one
# thread takes whole such a group was seen to wait for seconds. In a control group, where the stack runs, there are none.
AUTOGROUP, OFF = Path("/proc/sys/kernel/sched_autogroup_enabled"), "0\n"
# Where a link is found, as /metrics calls it.
LOOKUPS = (("local", "hit"), ("redis", "hit"), ("store", "query"))
STORING = ("snip-clicks", "snip-sqlite")  # threads of an instance
CODE = "Ceil01"
TARGET = "https://www.example.com/a/page/that/is/linked?from=here"


def command(name, main):
    """Runs a command's `main` and ends with its status; of what went wrong a line is told."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except roles.Missing as missing:
        sys.exit(f"{name}: {missing} is missing; make setup installs it")
    except (wait.Late, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"{name}: {error}")


def built():
    """The product, built from its source as that is now."""
    subprocess.run(["cargo", "build", "--release"], cwd=roles.ROOT, check=True)
    return roles.ROOT / "target/release/snip"


def cpu_nanoseconds(process, thread=None):
    """Time on the CPU of a process's living threads, or of those with this name."""
    total = 0
    for task in Path(f"/proc/{process.pid}/task").glob("*"):
        with contextlib.suppress(OSError):
            if thread is None or (task / "comm").read_text().strip() == thread:
                total += int((task / "schedstat").read_text().split()[0])
    return total


def family_cpu_nanoseconds(process, thread=None):
    """The same of a process and all of its descendants."""
    return sum(cpu_nanoseconds(one, thread) for one in process.family())


def cpu_by_purpose(process):
    """The same of an instance: of its threads that answer, and of those that store clicks."""
    storing = sum(family_cpu_nanoseconds(process, thread) for thread in STORING)
    return family_cpu_nanoseconds(process) - storing, storing


def allow_descriptors(count):
    """Lets us and what we start have so many open files and connections each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
        except (ValueError, PermissionError):
            raise OSError(f"the system allows {hard} file descriptors, {count} are needed: see ulimit -Hn") from None
    else:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


class Ground:
    """A temporary folder, and processes that end with it. From its start on a signal raises KeyboardInterrupt, so that `end`
    has its turn."""

    def __init__(self):
        interrupt_once()
        self.folder = Path(tempfile.mkdtemp(prefix="snip-ground-"))
        self.folder.chmod(0o755)
        self.children = []
        self.taken = set()
        self.autogroup = self._set_autogroup(OFF)

    def _set_autogroup(self, value):
        """Sets it as far as we may; returns what it was."""
        with contextlib.suppress(OSError):
            before = AUTOGROUP.read_text()
            AUTOGROUP.write_text(value)
            return before
        return None

    def port(self):
        port = net.any_free_port(self.taken)
        self.taken.add(port)
        return port

    def start(self, name, command, is_ready, environment=None, user=None, nice=0):
        log = open(self.folder / f"{name}.log", "ab")
        identity = {"user": user[0], "group": user[1], "extra_groups": []} if user else {}
        child = subprocess.Popen(["taskset", "-c", SERVER_CORE, *map(str, command)], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                 cwd=self.folder, env={**os.environ, **(environment or {})}, **identity)
        give_priority(child.pid, nice)
        self.children.append(child)
        try:
            wait.until(f"{name} is ready", READY_SECONDS, is_ready)
        except wait.Late:
            print(Path(log.name).read_text()[-2000:], file=sys.stderr)
            raise
        return Process.of(child.pid)

    def load(self, *command):
        """Starts a program on the core of the load, to be looked at while it runs."""
        child = subprocess.Popen(["taskset", "-c", LOAD_CORE, *map(str, command)], stdout=subprocess.PIPE, text=True)
        self.children.append(child)
        return child

    def end(self, keeps_folder=False):
        for child in reversed(self.children):
            child.terminate()
        for child in reversed(self.children):
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        if not keeps_folder:
            shutil.rmtree(self.folder, ignore_errors=True)
        # Who found it off already, beside another one's run, leaves it to that one.
        if self.autogroup not in (None, OFF):
            self._set_autogroup(self.autogroup)


def resident_mb(process, what="VmRSS"):
    """Memory that is resident: all, or what of it is no mapped file ("RssAnon")."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * 1024 / 1e6


def drained(*ports, seconds=120):
    """Waits until the instances that answer there have all clicks stored. Looks rarely: each look is a scrape, and would be
    counted among what a redirect costs."""
    is_done = lambda: all(net.metrics(port).get("clicks_waiting") == 0 for port in ports)  # noqa: E731
    wait.until("all clicks are stored", seconds, is_done, step_seconds=0.25)


def answers(port, path=f"/{CODE}", status=302):
    return lambda: net.get(port, path, 1)[0] == status


@contextlib.contextmanager
def stopped(process):
    """Lets a process and all of its descendants stand still."""
    try:
        process.freeze()
        yield
    finally:
        process.thaw()


def new_plan(ground):
    """A plan of roles in the folder of this ground."""
    plan = roles.Plan(ground.folder, {}, Path("/"))
    plan.run.mkdir()
    plan.logs.mkdir()
    return plan


def postgres(ground):
    """A PostgreSQL with the settings of the stack, and the plan that leads to it."""
    plan = new_plan(ground)
    role = roles.postgres(plan)
    is_ready = lambda: roles.is_ready(plan, "postgres")  # noqa: E731
    process = ground.start("postgres", role.command, is_ready, user=role.user, nice=role.nice)
    roles.make_database(plan)
    return plan, process


def redis(ground, plan):
    """A Redis with the settings of the stack."""
    return ground.start("redis", roles.redis(plan).command, lambda: roles.is_ready(plan, "redis"))


def serve(ground, binary, name, *arguments, environment=None):
    """An instance of the product on a store in the folder of this ground, unless the environment names another: its process
    and its port."""
    port = ground.port()
    command = [binary, "serve", "--listen", f"127.0.0.1:{port}", "--instance-id", name, "--data-dir", data_folder(ground),
               "--log-level", "error", *arguments]
    return ground.start(name, command, answers(port, "/readyz", 200), environment), port


def data_folder(ground):
    """The data folder of all instances on this ground."""
    return ground.folder / "snip"


def snip(ground, plan, binary, name, *arguments):
    """An instance of the product on that PostgreSQL, with one link in its cache: its process and its port."""
    process, port = serve(ground, binary, name, *arguments, environment={"DATABASE_URL": plan.database_url})
    make_link(plan)
    wait.until("the link is followed", READY_SECONDS, answers(port))
    return process, port


def make_link(plan):
    """The link that is followed unless others are, in a store that has its tables."""
    roles.psql(plan, f"INSERT INTO urls (short_code, original_url) VALUES ('{CODE}', '{TARGET}') ON CONFLICT DO NOTHING")


def shortened(port):
    """A link to the usual target, made through the API of an instance: its path."""
    asked = net.connection(port)
    try:
        asked.request("POST", "/urls", json.dumps({"url": TARGET}), {"Content-Type": "application/json"})
        return "/" + json.load(asked.getresponse())["short_code"]
    finally:
        asked.close()


def warmed_up(process):
    """Waits until an instance has nothing more to bring into its memory and into Redis."""
    wait.until("the warm-up has ended", READY_SECONDS, lambda: not _has_thread(process, "snip-warm-up"))


def _has_thread(process, name):
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it may end just now
            if (task / "comm").read_text().strip() == name:
                return True
    return False


def found(port):
    """Redirects of an instance so far, by where their link was found: in its memory, in Redis, in the store."""
    figures = net.metrics(port)
    return [figures[f'cache_lookups_total{{level="{level}",result="{result}"}}'] for level, result in LOOKUPS]


def seed(binary, *store):
    """Loads the made-up data set into the store that these arguments name."""
    subprocess.run([binary, "seed", roles.ROOT / "seed_data", *store], check=True, stdout=sys.stderr)


def seeded_codes():
    """Codes of that data set that lead somewhere: those of active links."""
    with open(roles.ROOT / "seed_data/urls.csv", newline="", encoding="utf-8") as file:
        return [row["short_code"] for row in csv.DictReader(file) if row["is_active"] == "True"]


def asks_seeded():
    """wrk's script: each time one of those codes, at random."""
    codes = ",".join(f'"/{code}"' for code in seeded_codes())
    return f'local codes = {{{codes}}}\nrequest = function() return wrk.format("GET", codes[math.random(#codes)]) end\n'


def nginx(ground, folder):
    """The product's own Nginx before whatever listens on the sockets of the instances in `folder`."""
    port = ground.port()
    plan = roles.Plan(folder, {"nginx": port}, Path("/"))
    plan.logs.mkdir(exist_ok=True)
    role = roles.nginx(plan)
    return ground.start(f"nginx-{port}", role.command, answers(port)), port


@dataclass
class Load:
    """What wrk told."""

    requests: int
    rate: float
    p99_ms: float
    has_errors: bool
    told: str


def wrk(ground, port, connections, seconds, script="", path=f"/{CODE}"):
    """Puts a load on, with a script in wrk's Lua."""
    file = ground.folder / "wrk.lua"
    file.write_text(script)
    command = ["taskset", "-c", LOAD_CORE, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", file,
               f"http://127.0.0.1:{port}{path}"]
    told = subprocess.run(list(map(str, command)), check=True, stdout=subprocess.PIPE, text=True).stdout
    number, unit = re.search(r"99%\s+([\d.]+)(us|ms|s)", told).groups()
    return Load(
        int(re.search(r"(\d+) requests in", told)[1]),
        float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1]),
        float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit],
        "Non-2xx" in told or "Socket errors" in told,
        told,
    )


def redirects(ground, port, connections, seconds, script="", path=f"/{CODE}", may_be_late=False):
    """The same, where all answers must be redirects. wrk also tells of those that took longer than two seconds: they may be
    let pass."""
    load = wrk(ground, port, connections, seconds, script, path)
    if "Non-2xx" in load.told or (load.has_errors and not may_be_late):
        raise OSError(f"not every request was redirected:\n{load.told}")
    return load
