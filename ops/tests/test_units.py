"""ops/systemd: units that systemd takes, settings that the program knows, a filter that lets through what it calls."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ops"))
from lib import net, wait
from lib.limits import limit
from lib.roles import INSTANCES, TRIAL, USUAL_PORTS
from test_containers import SNIP, known_variables, text

SYSTEMD = ROOT / "ops/systemd"
# Of ten, less is better; in tenths, as systemd-analyze wants it.
EXPOSURE_MAX = 20
NOBODY = 65534


def setting(unit, name):
    """All values of a setting in a unit."""
    return re.findall(rf"^{name}=(.*)$", text(f"ops/systemd/{unit}"), re.M)


def laid_out(folder):
    """The units as they are installed, with a program that is there in the place of ours."""
    files = [path for path in (*SYSTEMD.glob("snip*"), *SYSTEMD.glob("snip*.d/*")) if path.is_file()]
    for path in files:
        place = folder / path.relative_to(SYSTEMD)
        place.parent.mkdir(exist_ok=True)
        place.write_text(re.sub("/opt/snip/(current|trial)/snip", "/bin/true", path.read_text()))
    for path in (SYSTEMD / "drop-in").glob("*.conf"):
        unit = path.stem + ".service"
        shutil.copy(f"/lib/systemd/system/{unit}", folder)
        (folder / f"{unit}.d").mkdir()
        shutil.copy(path, folder / f"{unit}.d/snip.conf")


class Units(unittest.TestCase):
    def test_systemd_takes_them(self):
        with tempfile.TemporaryDirectory(prefix="snip-units-") as name:
            folder = Path(name)
            laid_out(folder)
            units = [path.name.replace("@.", "@1.") for path in folder.iterdir() if path.is_file()]
            units.append("snip@trial.service")
            self.assertIn("redis-server.service", units)
            self.assertIn("snip@trial.socket", units)
            done = subprocess.run(
                ["systemd-analyze", "verify", "--recursive-errors=no", *(folder / unit for unit in units)],
                capture_output=True, text=True, check=False, env={**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:"},
            )
            self.assertEqual(done.stdout + done.stderr, "")
            self.assertEqual(done.returncode, 0)

    def test_they_are_closed_to_what_they_do_not_need(self):
        for unit in ("snip@.service", "snip-alerts.service"):
            command = ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE_MAX}", SYSTEMD / unit]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout[-200:] + done.stderr)

    def test_variables_are_known_to_the_program(self):
        environment = setting("snip@.service", "Environment")
        self.assertIn("INSTANCE_ID=snip-%i", environment)
        self.assertEqual({line.split("=")[0] for line in environment} - known_variables("serve"), set())
        files = re.findall(r"^([A-Z_]+)=", text("ops/droplet-setup.sh").split("<<'ENV'")[1], re.M)
        self.assertIn("DATABASE_URL", files)
        self.assertEqual(set(files) - known_variables("serve"), set())

    def test_sockets_are_those_of_the_stack(self):
        for number, name in enumerate(INSTANCES, 1):
            streams = [stream.replace("%i", str(number)) for stream in setting("snip@.socket", "ListenStream")]
            self.assertEqual(streams, [f"/run/snip/{name}.sock", f"127.0.0.1:{USUAL_PORTS[name]}"])
        backlog = limit("LISTEN_BACKLOG")
        self.assertEqual(setting("snip@.socket", "Backlog"), [str(backlog)])
        self.assertIn(f"net.core.somaxconn = {backlog}", text("ops/systemd/sysctl.conf"))

    def test_trial_is_an_instance_that_nobody_is_sent_to(self):
        own = re.findall(r"^([A-Za-z]+)=", text("ops/systemd/snip@trial.service.d/trial.conf"), re.M)
        allowed = {"ExecStart", "RuntimeDirectory", "RuntimeDirectoryMode", "Restart", "OOMScoreAdjust"}
        self.assertEqual(set(own), allowed, "all else, the hardening first, is the template's")
        streams = setting("snip@trial.socket", "ListenStream")
        self.assertEqual(streams, [f"/run/snip/{TRIAL}.sock"])
        self.assertNotIn(TRIAL, text("ops/droplet-setup.sh"), "Nginx is not to know it")
        for unit in ("snip@trial.socket", "snip@trial.service.d/trial.conf"):
            self.assertNotIn("[Install]", text(f"ops/systemd/{unit}"), "nothing but a deployment starts it")
        # The file that ops/deploy links to, and a folder that goes with the process.
        self.assertEqual(setting("snip@trial.service.d/trial.conf", "ExecStart"), ["", f"/opt/snip/trial/snip serve --data-dir=/run/{TRIAL}"])
        self.assertEqual(setting("snip@trial.service.d/trial.conf", "RuntimeDirectory"), [TRIAL])

    def test_descriptors_are_enough_for_connections(self):
        connections = next(value for value in setting("snip@.service", "Environment") if "MAX_CONNECTIONS" in value)
        wanted = int(connections.split("=")[1]) + limit("DESCRIPTORS_RESERVE")
        self.assertGreaterEqual(int(setting("snip@.service", "LimitNOFILE")[0]), wanted)

    def test_memory_is_that_of_the_plan(self):
        plan = text("docs/capacity-plan.md")
        roles = {"snip-1, snip-2, snip-3": "snip@.service", "receiver": "snip-alerts.service", "postgres": "drop-in/postgresql@.conf",
                 "redis": "drop-in/redis-server.conf", "nginx": "drop-in/nginx.conf", "prometheus": "drop-in/prometheus.conf",
                 "alertmanager": "drop-in/prometheus-alertmanager.conf", "node-exporter": "drop-in/prometheus-node-exporter.conf"}
        for role, unit in roles.items():
            limit = setting(unit, "MemoryMax")[0].removesuffix("M")
            self.assertRegex(plan, rf"\| {role} \|[^\n]* {limit} \|", f"docs/capacity-plan.md has another limit than {unit}")

    def test_nginx_and_postgres_go_before_all_instances(self):
        weight = lambda unit: int(setting(unit, "CPUWeight")[0])
        for unit in ("drop-in/nginx.conf", "drop-in/postgresql@.conf"):
            self.assertGreater(weight(unit), len(INSTANCES) * weight("snip@.service"))


class Calls(unittest.TestCase):
    """No system call of the program is one that the unit refuses."""

    @staticmethod
    def members(group):
        done = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
        lines = [line.strip() for line in done.stdout.splitlines()[1:]]
        found = set()
        for line in lines:
            if line.startswith("@"):
                found |= Calls.members(line)
            elif line and not line.startswith("#"):
                found.add(line)
        return found

    def allowed(self):
        calls = set()
        for groups in setting("snip@.service", "SystemCallFilter"):
            sign, names = (groups[0] == "~"), groups.removeprefix("~").split()
            members = set().union(*map(self.members, names))
            calls = calls - members if sign else calls | members
        return calls

    def test_filter(self):
        allowed = self.allowed()
        self.assertIn("epoll_wait", allowed)
        self.assertNotIn("reboot", allowed)
        with tempfile.TemporaryDirectory(prefix="snip-calls-") as name:
            folder = Path(name)
            folder.chmod(0o777)  # as the unit has it, the program is not root
            command = ["strace", "-f", "-qq", "-o", folder / "trace"]
            if os.geteuid() == 0:
                command = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *command]
            # Where nobody may look for it.
            shutil.copy(SNIP, folder / "snip")
            socket = folder / "snip.sock"
            command += [folder / "snip", "serve", "--listen", f"unix:{socket}", "--data-dir", folder / "data"]
            with open(folder / "log", "wb") as log, subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as tracer:
                try:
                    wait.until("the traced server is ready", 60, lambda: net.get(str(socket), "/readyz")[0] == 200)
                    for path in ("/urls", "/nobody", "/events", "/metrics", "/health"):
                        self.assertIn(net.get(str(socket), path)[0], (200, 404), path)
                finally:
                    # The group: strace itself does not pass signals on.
                    os.killpg(tracer.pid, signal.SIGTERM)
                    tracer.wait(60)
            called = set(re.findall(r"^\d+ +([a-z]\w+)\(", (folder / "trace").read_text(), re.M))
        self.assertIn("epoll_wait", called)
        self.assertEqual(called - allowed, set())


if __name__ == "__main__":
    unittest.main()
