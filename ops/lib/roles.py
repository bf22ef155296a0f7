"""The roles of the stack: of each the command, the files it needs, how it is stopped, and when it is ready."""

import json
import os
import pwd
import shutil
import signal
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import net, render

ROOT = Path(__file__).resolve().parent.parent.parent
INSTANCES = ("snip-1", "snip-2", "snip-3")
# A new version beside them, for as long as it takes to see whether it is any good. Nginx does not know it.
TRIAL = "snip-trial"
# Where each listens unless the port is taken. The instances listen on unix sockets for Nginx; the port is Prometheus's.
USUAL_PORTS = {
    "nginx": 8080,
    "snip-1": 8081,
    "snip-2": 8082,
    "snip-3": 8083,
    "prometheus": 9090,
    "alertmanager": 9093,
    "receiver": 9095,
    "node-exporter": 9100,
}
# To PostgreSQL: a session is a process that has to be started, on a core that may be busy.
CONNECT_SECONDS = 15
# Daemons live in sbin, which is not on everybody's path.
PATH = ":".join([os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"])


class Missing(Exception):
    """A program that is not installed."""


def program(name):
    """Where a program is."""
    found = shutil.which(name, path=PATH)
    if not found:
        raise Missing(name)
    return found


def postgres_program(name):
    """Where a program of PostgreSQL is: the newest version's. Debian keeps them off the path."""

    def version(path):
        return [int(part) if part.isdigit() else 0 for part in path.parts[4].split(".")]

    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=version)
    return str(found[-1]) if found else program(name)


def priority(nice):
    """The nice value that goes before others; none where we may not give it."""
    return nice if os.geteuid() == 0 else 0


def user(name):
    """User and group to run as; None when we are not root, and stay who we are."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam(name)
    return entry.pw_uid, entry.pw_gid


@dataclass(frozen=True)
class Plan:
    """What a stack is made of."""

    folder: Path
    ports: dict
    binary: Path
    log_redirects: bool = False

    @property
    def run(self):
        return self.folder / "run"

    @property
    def logs(self):
        return self.folder / "logs"

    def socket(self, instance):
        """The unix socket of an instance."""
        return self.run / f"{instance}.sock"

    @property
    def database_url(self):
        return f"host={self.folder / 'postgres'} user=snip dbname=snip"

    @property
    def redis_socket(self):
        return self.run / "redis.sock"


@dataclass
class Role:
    """What the supervisor is told of a role."""

    name: str
    command: list
    folder: str
    log: str
    environment: dict = field(default_factory=dict)
    user: tuple | None = None
    nice: int = 0
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 10

    def as_told(self):
        """For the supervisor's "start"."""
        return asdict(self)


def _role(plan, name, command, folder=None, **more):
    command = [str(part) for part in command]
    return Role(name, command, str(folder or plan.folder), str(plan.logs / f"{name}.log"), **more)


# What each role that speaks HTTP answers with 200 when it is ready.
READY_PATHS = {
    "nginx": "/nginx-status",
    "node-exporter": "/metrics",
    "receiver": "/",
    "alertmanager": "/-/ready",
    "prometheus": "/-/ready",
}


def is_ready(plan, name):
    """Whether a role does its work."""
    if name == "postgres":
        return _psql(plan, "postgres", "SELECT 1") is not None
    if name == "redis":
        return _pings(plan.redis_socket)
    if name in INSTANCES:
        return net.get(str(plan.socket(name)), "/readyz", seconds=1)[0] == 200
    return net.get(plan.ports[name], READY_PATHS[name], seconds=1)[0] == 200


def give(path, owner):
    """Hands a file or a folder to a user of `user()`."""
    if owner:
        os.chown(path, *owner)


# ---- PostgreSQL ---------------------------------------------------------------------------------------------------


def postgres(plan):
    """Its data, its settings and its socket are in one folder that is the server's alone."""
    home, owner = plan.folder / "postgres", user("postgres")
    home.mkdir(mode=0o700, exist_ok=True)
    give(home, owner)
    data = home / "data"
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)  # of a start that was broken off
        initdb = [postgres_program("initdb"), "-D", data, "-U", "snip", "--auth=trust", "--encoding=UTF8", "--locale=C"]
        identity = {"user": owner[0], "group": owner[1], "extra_groups": []} if owner else {}
        done = subprocess.run([*initdb, "--no-instructions"], cwd=home, capture_output=True, text=True, **identity)
        if done.returncode != 0:
            raise OSError(f"initdb: {done.stderr.strip()}")
    shutil.copyfile(ROOT / "ops/postgres/postgresql.conf", data / "postgresql.conf")
    # No port of the network: who may enter the folder may connect.
    command = [postgres_program("postgres"), "-D", data, "-k", home, "-c", "listen_addresses="]
    # Next to Nginx, before the instances: under a load that takes the whole core it must store what has gathered in a burst,
    # and readers wait for that.
    order = {"nice": priority(-8), "stop_signal": signal.SIGINT, "stop_seconds": 30}
    return _role(plan, "postgres", command, user=owner, folder=home, **order)


def _psql(plan, database, sql):
    """What a statement prints, or None when it fails."""
    command = [
        postgres_program("psql"),
        "-XAtq",
        "-v",
        "ON_ERROR_STOP=1",
        "-h",
        str(plan.folder / "postgres"),
        "-U",
        "snip",
    ]
    done = subprocess.run(
        [*command, "-d", database, "-c", sql],
        capture_output=True,
        text=True,
        env={"PATH": PATH, "PGCONNECT_TIMEOUT": str(CONNECT_SECONDS)},
    )
    return done.stdout.strip() if done.returncode == 0 else None


def psql(plan, sql):
    """What a statement prints, over a connection of its own to the database of Snip; OSError when it fails."""
    printed = _psql(plan, "snip", sql)
    if printed is None:
        raise OSError(f"PostgreSQL does not answer to: {sql}")
    return printed


def make_database(plan):
    """The database of Snip, unless it is there. The tables are made by the first instance."""
    if not _psql(plan, "postgres", "SELECT 1 FROM pg_database WHERE datname = 'snip'"):
        if _psql(plan, "postgres", "CREATE DATABASE snip") is None:
            raise OSError("cannot make the database; see the log of postgres")


# ---- Redis --------------------------------------------------------------------------------------------------------


def redis(plan):
    settings = ROOT / "ops/redis/redis.conf"
    command = [program("redis-server"), settings, "--port", 0, "--unixsocket", plan.redis_socket, "--dir", plan.run]
    return _role(plan, "redis", command)


def _pings(path):
    asked = net.UnixConnection(path, 1)
    try:
        asked.connect()
        asked.sock.sendall(b"PING\r\n")
        return asked.sock.recv(16).startswith(b"+PONG")
    except OSError:
        return False
    finally:
        asked.close()


# ---- Snip ---------------------------------------------------------------------------------------------------------


def instance(plan, name):
    return _serve(plan, name, plan.folder / "snip", f"--listen=127.0.0.1:{plan.ports[name]}")


def trial(plan):
    """An instance that nobody is sent to, to see that it gets ready. Its folder may go when it has ended."""
    return _serve(plan, TRIAL, plan.run / TRIAL)


def _serve(plan, name, data, *more):
    command = [
        plan.binary,
        "serve",
        f"--instance-id={name}",
        f"--data-dir={data}",
        f"--listen=unix:{plan.socket(name)}",
        f"--redis-url=unix://{plan.redis_socket}",
        "--drain-timeout=10s",
        "--log-format=json",
        *more,
    ]
    return _role(plan, name, command, environment={"DATABASE_URL": plan.database_url}, stop_seconds=15)


# ---- Nginx --------------------------------------------------------------------------------------------------------

NGINX_FILES = ("nginx.conf", "routes.conf", "rate-limit.conf", "tls.conf")


def nginx_user():
    """Whom the workers run as."""
    return "www-data" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def nginx(plan):
    home, run = plan.folder / "nginx", plan.run / "nginx"
    (home / "enabled").mkdir(parents=True, exist_ok=True)
    run.mkdir(exist_ok=True)
    values = {
        "NGINX_USER": nginx_user(),
        "WORKER_PRIORITY": priority(-10),
        "RUN_DIR": run,
        "LISTEN": f"127.0.0.1:{plan.ports['nginx']}",
        "TLS_LISTEN": "127.0.0.1:8443",
        "ACCESS_LOG": plan.logs / "access.log",
        "ERROR_LOG": "stderr",
        "LOG_REDIRECTS": int(plan.log_redirects),
        **{f"SNIP_{number}": f"unix:{plan.socket(name)}" for number, name in enumerate(INSTANCES, 1)},
    }
    for name in NGINX_FILES:
        render.fill_file(ROOT / "nginx" / name, home / name, values)
    command = [program("nginx"), "-p", home, "-c", home / "nginx.conf", "-e", "stderr", "-g", "daemon off;"]
    return _role(plan, "nginx", command, stop_signal=signal.SIGQUIT, stop_seconds=5)


# ---- Watching -----------------------------------------------------------------------------------------------------


def prometheus(plan):
    home = plan.folder / "prometheus"
    shutil.copytree(ROOT / "ops/prometheus", home, dirs_exist_ok=True)
    targets = {
        "snip": INSTANCES,
        "snip-alerts": ["receiver"],
        "node": ["node-exporter"],
        "alertmanager": ["alertmanager"],
    }
    for name, roles in targets.items():
        addresses = [f"127.0.0.1:{plan.ports[role]}" for role in roles]
        (home / "targets" / f"{name}.yml").write_text(json.dumps([{"targets": addresses}]))
    port = plan.ports["prometheus"]
    command = [
        program("prometheus"),
        f"--config.file={home / 'prometheus.yml'}",
        f"--storage.tsdb.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--storage.tsdb.retention.time=7d",
        "--storage.tsdb.retention.size=256MB",
        "--log.level=warn",
    ]
    # A soft bound: the collector of garbage works harder before memory grows past it.
    return _role(plan, "prometheus", command, environment={"GOMEMLIMIT": "80MiB", "GOGC": "50"})


def alertmanager(plan):
    home = plan.folder / "alertmanager"
    home.mkdir(exist_ok=True)
    values = {"RECEIVER": f"127.0.0.1:{plan.ports['receiver']}"}
    render.fill_file(ROOT / "ops/alertmanager/alertmanager.yml", home / "alertmanager.yml", values)
    port = plan.ports["alertmanager"]
    command = [
        program("prometheus-alertmanager"),
        f"--config.file={home / 'alertmanager.yml'}",
        f"--storage.path={home / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]
    return _role(plan, "alertmanager", command, environment={"GOGC": "50"})


def node_exporter(plan):
    port = plan.ports["node-exporter"]
    collectors = (
        "cpu",
        "diskstats",
        "filefd",
        "filesystem",
        "loadavg",
        "meminfo",
        "netdev",
        "pressure",
        "stat",
        "time",
        "uname",
        "vmstat",
    )
    command = [
        program("prometheus-node-exporter"),
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
        "--collector.disable-defaults",
        *(f"--collector.{name}" for name in collectors),
    ]
    return _role(plan, "node-exporter", command)


def receiver(plan):
    port = plan.ports["receiver"]
    command = [plan.binary, "alerts", f"--listen=127.0.0.1:{port}", f"--dir={plan.folder / 'alerts'}"]
    environment = {"DISCORD_WEBHOOK_URL": os.environ.get("DISCORD_WEBHOOK_URL", "")}  # empty counts as not set
    return _role(plan, "receiver", command, environment=environment)
