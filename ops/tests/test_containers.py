"""docker-compose.yml and what belongs to it: valid, bounded, and of one mind with ops/stack, ops/systemd and the docs."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "ops"))
from lib import wait
from lib.render import Template
from lib.roles import INSTANCES, USUAL_PORTS

SNIP = Path(os.environ.get("SNIP_BIN", ROOT / "target/debug/snip"))
# Made by ops/ci/setup.sh.
VENV = ROOT / "target/venv/bin"
MIB = 1024 * 1024
GB = 10**9
PATIENCE_SECONDS = 60
# Roles of the native stack, and Grafana, which Debian has no package of.
ROLES = {"postgres", "redis", *INSTANCES, "nginx", "node-exporter", "receiver", "alertmanager", "prometheus", "grafana"}
UNITS = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager", "node-exporter": "prometheus-node-exporter"}


def text(path):
    return (ROOT / path).read_text()


def read_yaml(path):
    """A YAML file as plain data, its anchors and merges carried out."""
    script = "import sys, json; from ruamel.yaml import YAML; json.dump(YAML(typ='safe').load(sys.stdin), sys.stdout)"
    return json.loads(subprocess.run([VENV / "python", "-c", script], input=text(path), capture_output=True, text=True, check=True).stdout)


def flags(arguments):
    """Flags with their values, those aside that say where files and addresses are."""
    found = re.findall(r"--[a-z][\w.-]*(?:=[^\s'\",]*)?", " ".join(arguments))
    places = ("--config.file", "--storage.", "--web.listen-address", "--path.rootfs")
    return {flag for flag in found if not flag.startswith(places) or "retention" in flag}


class Valid(unittest.TestCase):
    def check(self, schema, *paths):
        done = subprocess.run([VENV / "check-jsonschema", "--builtin-schema", schema, *paths], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_compose_file(self):
        self.check("vendor.compose-spec", ROOT / "docker-compose.yml")

    def test_workflows(self):
        workflows = sorted((ROOT / ".github/workflows").glob("*.yml"))
        self.assertTrue(workflows)
        self.check("vendor.github-workflows", *workflows)
        for path in workflows:
            for action in re.findall(r"uses: (\S+)", path.read_text()):
                self.assertRegex(action, r"@v\d+", f"{path.name}: {action} has no version")


class Compose(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.file = read_yaml("docker-compose.yml")
        cls.services = cls.file["services"]

    def test_the_roles_are_those_of_the_stack(self):
        self.assertEqual(set(self.services), ROLES)

    def test_memory_has_limits_and_their_sum_is_documented(self):
        limits = {name: int(service["mem_limit"].removesuffix("m")) for name, service in self.services.items()}
        total = sum(limits.values())
        self.assertLess(total * MIB, GB)
        plan = text("docs/capacity-plan.md")
        self.assertIn(f"{total} MiB", plan)
        for name, limit in limits.items():
            role = "snip-1, snip-2, snip-3" if name in INSTANCES else name
            self.assertRegex(plan, rf"\| {role} \|[^\n]* {limit}\b[^\n]*\|", "docs/capacity-plan.md has another limit")

    def test_nginx_and_postgres_go_before_all_instances(self):
        instances = sum(self.services[name]["cpu_shares"] for name in INSTANCES)
        for name in ("nginx", "postgres"):
            self.assertGreater(self.services[name]["cpu_shares"], instances)

    def test_all_are_started_again_and_looked_after(self):
        for name, service in self.services.items():
            with self.subTest(name):
                self.assertEqual(service["restart"], "unless-stopped")
                # Those of the instances stand in the Dockerfile.
                self.assertTrue("healthcheck" in service or service["image"].startswith("snip:"))
        self.assertIn('HEALTHCHECK', text("ops/docker/Dockerfile"))

    def test_versions_are_exact_and_documented(self):
        for name, service in self.services.items():
            if service["image"].startswith("snip:"):
                continue
            self.assertRegex(service["image"], r":v?\d+\.\d+(\.\d+)?(-[a-z]+)?$", name)
            self.assertIn(f"`{service['image']}`", text("docs/deployment.md"))

    def test_only_nginx_is_published_and_the_rest_on_loopback(self):
        published = {name: service["ports"] for name, service in self.services.items() if "ports" in service}
        self.assertEqual(published.pop("nginx"), ["${SNIP_HTTP:-127.0.0.1:8080}:8080"])
        self.assertEqual(set(published), {"prometheus", "alertmanager", "grafana"})
        for name, ports in published.items():
            for port in ports:
                self.assertTrue(port.startswith("127.0.0.1:"), f"{name}: {port}")
        self.assertTrue(self.file["networks"]["stores"]["internal"])
        self.assertEqual(self.services["postgres"]["networks"], ["stores"])
        self.assertEqual(self.services["redis"]["network_mode"], "none")

    def test_ports_are_those_of_the_stack(self):
        for name in INSTANCES:
            listen = f"unix:/run/snip/{name}.sock,0.0.0.0:{USUAL_PORTS[name]}"
            self.assertEqual(self.services[name]["environment"]["SNIP_LISTEN"], listen)
            self.assertEqual(self.services[name]["environment"]["INSTANCE_ID"], name)
        self.assertEqual(self.services["nginx"]["environment"]["LISTEN"], str(USUAL_PORTS["nginx"]))
        targets = {"snip": INSTANCES, "snip-alerts": ["receiver"], "node": ["node-exporter"], "alertmanager": ["alertmanager"]}
        for file, roles in targets.items():
            here = read_yaml(f"ops/docker/targets/{file}.yml")[0]["targets"]
            native = read_yaml(f"ops/prometheus/targets/{file}.yml")[0]["targets"]
            self.assertEqual(here, [f"{role}:{USUAL_PORTS[role]}" for role in roles])
            self.assertEqual(native, [f"127.0.0.1:{USUAL_PORTS[role]}" for role in roles])
        for role in UNITS:
            command = " ".join(self.services[role].get("command", self.services[role].get("entrypoint")))
            self.assertIn(f"--web.listen-address=:{USUAL_PORTS[role]}", command)

    def test_flags_are_those_of_the_stack_and_the_units(self):
        stack = text("ops/lib/roles.py")
        collectors = re.search(r"collectors = \(([^)]*)\)", stack)[1]
        collectors = {f"--collector.{name}" for name in re.findall(r'"(\w+)"', collectors)}
        for role, unit in UNITS.items():
            with self.subTest(role):
                here = flags(self.services[role].get("command") or self.services[role]["entrypoint"])
                self.assertEqual(here, flags([text(f"ops/systemd/drop-in/{unit}.conf").split("ExecStart=")[2].splitlines()[0]]))
                in_stack = {flag for flag in here - collectors if flag not in stack}
                self.assertEqual(in_stack, set(), "ops/lib/roles.py has other flags")
        self.assertEqual({flag for flag in flags(self.services["node-exporter"]["command"]) if flag.count(".") == 1}, collectors | {"--collector.disable-defaults", "--log.level=warn"})

    def test_variables_are_known_to_the_program(self):
        known = known_variables("serve")
        for name in INSTANCES:
            self.assertEqual(set(self.services[name]["environment"]) - known, set(), name)
        dockerfile = re.findall(r"\b([A-Z_]+)=", "\n".join(re.findall(r"^ENV .*", text("ops/docker/Dockerfile"), re.M)))
        self.assertEqual(set(dockerfile) - known, set())

    def test_receiver_is_started_with_flags_it_knows(self):
        helped = run_snip("alerts", "--help")
        command = self.services["receiver"]["command"]
        self.assertEqual(command[0], "alerts")
        for flag in flags(command):
            self.assertIn(flag, helped)
        unit = text("ops/systemd/snip-alerts.service")
        self.assertEqual(flags(command), flags([re.search(r"^ExecStart=.*", unit, re.M)[0]]))
        self.assertIn(f"0.0.0.0:{USUAL_PORTS['receiver']}", command)
        self.assertIn(f"--listen 127.0.0.1:{USUAL_PORTS['receiver']}", unit)

    def test_grafana_is_told_what_its_files_ask(self):
        files = [path.read_text() for path in (ROOT / "ops/grafana/provisioning").rglob("*.yml")]
        asked = set(re.findall(r"\$\{(\w+)\}", "\n".join(files)))
        self.assertTrue(asked)
        self.assertEqual(asked - set(self.services["grafana"]["environment"]), set())

    def test_files_that_are_mounted_are_there(self):
        for name, service in self.services.items():
            for volume in service.get("volumes", []):
                if volume.startswith("./"):
                    self.assertTrue((ROOT / volume.split(":")[0]).exists(), f"{name}: {volume}")

    def test_secrets_are_asked_of_the_example(self):
        asked = set(re.findall(r"(?<!\$)\$\{(\w+)", text("docker-compose.yml"))) - {"SNIP_VERSION"}
        given = set(re.findall(r"^(\w+)=", text(".env.example"), re.M))
        self.assertEqual(asked, given)
        self.assertIn("/.env\n", text(".gitignore"))
        # No password stands in the file itself.
        self.assertNotRegex(text("docker-compose.yml"), r"PASSWORD: (?!\$\{)\S")


class Placeholders(unittest.TestCase):
    """Of nginx/*.conf: each place that fills them fills them all."""

    @classmethod
    def setUpClass(cls):
        cls.names = {name for path in (ROOT / "nginx").glob("*.conf") for name in Template(path.read_text()).get_identifiers()}
        assert "RUN_DIR" in cls.names

    def test_compose(self):
        nginx = read_yaml("docker-compose.yml")["services"]["nginx"]
        given = {name for name in nginx["environment"] if not name.startswith("NGINX_ENVSUBST_")}
        self.assertEqual(given, self.names)
        pattern = nginx["environment"]["NGINX_ENVSUBST_FILTER"].replace("$$", "$")
        for name in self.names:
            self.assertRegex(name, pattern)
        for name in ("HOSTNAME", "PATH", "HOME", "host", "SNIP_10"):
            self.assertNotRegex(name, pattern)
        mounted = {volume.split(":")[0] for volume in nginx["volumes"]}
        files = {f"./nginx/{path.name}" for path in (ROOT / "nginx").glob("*.conf")}
        self.assertEqual(files - mounted, set())

    def test_host(self):
        values = re.search(r"NGINX_VALUES=\(([^)]*)\)", text("ops/droplet-setup.sh"))[1]
        self.assertEqual(set(re.findall(r"\b([A-Z_0-9]+)=", values)), self.names)

    def test_alertmanager_has_one(self):
        self.assertEqual(Template(text("ops/alertmanager/alertmanager.yml")).get_identifiers(), ["RECEIVER"])


class Image(unittest.TestCase):
    """The files of the image are enough to serve: tried in a folder that has nothing else."""

    @unittest.skipUnless(os.geteuid() == 0, "only root may change its root folder")
    def test_serves_with_nothing_else(self):
        with tempfile.TemporaryDirectory(prefix="snip-image-") as folder:
            Path(folder).chmod(0o755)
            subprocess.run([ROOT / "ops/docker/rootfs.sh", SNIP, folder], check=True)
            inside = ["chroot", "--userspec=10001:10001", folder, "/usr/bin/snip"]
            listen = ["--listen", "unix:/run/snip/test.sock"]
            is_healthy = lambda: subprocess.run([*inside, "healthcheck", *listen], capture_output=True, check=False).returncode == 0
            log = open(Path(folder) / "log", "wb")
            with log, subprocess.Popen([*inside, "serve", *listen, "--data-dir", "/var/lib/snip"], stdout=log, stderr=log) as server:
                try:
                    wait.until("it is healthy", PATIENCE_SECONDS, is_healthy)
                except wait.Late as late:
                    self.fail(f"{late}: {Path(log.name).read_text()}")
                finally:
                    server.terminate()

    def test_dockerfile_builds_with_the_toolchain_of_the_project(self):
        version = re.search(r'rust-version = "([\d.]+)"', text("Cargo.toml"))[1]
        self.assertIn(f"FROM rust:{version}-slim-bookworm AS build", text("ops/docker/Dockerfile"))


def run_snip(*arguments):
    return subprocess.run([SNIP, *arguments], capture_output=True, text=True, check=True, timeout=30).stdout


def known_variables(command):
    named = set(re.findall(r"\[env: (\w+)", run_snip(command, "--help")))
    assert "SNIP_LISTEN" in named
    return named | {f"DATABASE_{part}" for part in ("HOST", "PORT", "NAME", "USER", "PASSWORD")}


if __name__ == "__main__":
    unittest.main()
