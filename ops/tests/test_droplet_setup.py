"""ops/droplet-setup.sh: on a copy of this system that is thrown away, as a host with a kernel of its own."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "ops/droplet-setup.sh"
RUN_SECONDS = 120

# What would change the kernel or ask the network is noted and not done. The tests' packages are here already.
STUBS = {
    "fallocate": "exec touch \"${@: -1}\"",
    **dict.fromkeys(("mkswap", "swapon", "sysctl", "apt-get", "sshd"), "exit 0"),
    "ufw": 'case $1 in status) cat /ufw 2>/dev/null || true ;; --force) printf "Status: active\\n443/tcp ALLOW\\n" >/ufw ;; esac',
    "systemd-detect-virt": "exit 1",
    "dpkg-query": "echo install ok installed",
}
# Mounts are this process's own and go with it; the upper layer is in memory, and seen inside as /upper. So is the loopback:
# PostgreSQL's port is taken by nobody.
INSIDE = r"""
set -euo pipefail
mount -t tmpfs tmpfs "$1"
mkdir "$1"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
mount -t proc proc "$1/root/proc"
mount --rbind /dev "$1/root/dev"
mkdir -p "$1/root/snip" "$1/root/stubs" "$1/root/upper"
mount --bind "$1/upper" "$1/root/upper"
ip link set lo up
cp -r "$2/ops" "$2/nginx" "$1/root/snip/"
cp "$3"/* "$1/root/stubs/"
rm -f "$1/root/etc/sysctl.d/60-snip.conf"
chroot "$1/root" env PATH="/stubs:$PATH" bash -c "$4"
"""


def is_possible():
    """Whether file systems may be laid over each other here."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as folder:
        return run(folder, "true").returncode == 0


def run(folder, script):
    stubs = Path(folder) / "stubs"
    stubs.mkdir()
    for name, does in STUBS.items():
        (stubs / name).write_text(f'#!/bin/bash\necho "{name} $*" >>/called\n{does}\n')
        (stubs / name).chmod(0o755)
    mounted = Path(folder) / "mounted"
    mounted.mkdir()
    command = ["unshare", "--mount", "--net", "--propagation", "private", "bash", "-c", INSIDE, "-", mounted, ROOT, stubs, script]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_SECONDS, check=False)


class Arguments(unittest.TestCase):
    def test_nonsense_is_refused(self):
        for arguments, reason in ((["--nonsense"], "unknown argument"), (["--domain", "x.example"], "needs --email"), (["--domain", "a b"], "no domain name")):
            done = subprocess.run([SCRIPT, "--plan", *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 1, arguments)
            self.assertIn(reason, done.stderr)

    def test_shellcheck(self):
        scripts = [SCRIPT, ROOT / "ops/docker/rootfs.sh", ROOT / "ops/ci/setup.sh"]
        done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout)


class OnACopy(unittest.TestCase):
    def setUp(self):
        if not is_possible():
            self.skipTest("needs root, and overlay file systems")
        folder = tempfile.TemporaryDirectory(prefix="snip-setup-")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def check(self, script):
        done = run(self.folder, f"set -e; cd /snip; {script}")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        return done.stdout

    def test_plan_says_all_and_does_nothing(self):
        output = self.check("""
            # Of the copy alone: beneath it the system lives on.
            written() { find /upper ! -type d ! -path /upper/called | sort; }
            before=$(written)
            ops/droplet-setup.sh --plan --domain s.example.org --email a@example.org
            diff <(echo "$before") <(written)
            ! id snip 2>/dev/null
            echo CALLED; cat /called
        """)
        plan, called = output.split("CALLED\n")
        for step in ("1 GiB of swap", "adding the user snip", "/etc/snip/snip.env", "conf.d/snip.conf", "/etc/redis/snip.conf",
                     "/etc/nginx/nginx.conf", "/etc/prometheus/prometheus.yml", "snip@.service", "snip@trial.socket", "snip@trial.service.d/trial.conf", "adding the database snip",
                     "letting in port 443", "switching the firewall on", "asking Let's Encrypt", "nothing has been changed"):
            self.assertIn(step, plan)
        # It looks, and that is all.
        looks = r"(systemd-detect-virt|dpkg-query|ufw status|sshd -T)\b"
        self.assertEqual([line for line in called.splitlines() if not re.match(looks, line)], [])

    def test_second_run_has_nothing_to_do(self):
        output = self.check("""
            ops/droplet-setup.sh
            cluster=$(pg_lsclusters -h | awk '{ print $1, $2; exit }')
            pg_ctlcluster $cluster start
            trap 'cd /; pg_ctlcluster $cluster stop' EXIT
            ops/droplet-setup.sh >/tmp/second
            echo SECOND; cat /tmp/second
            # What was not written by us is not touched; what is the owner's neither.
            echo '# mine' >>/etc/snip/snip.env
            echo '# theirs' >>/etc/redis/snip.conf
            echo THIRD; ops/droplet-setup.sh
            grep -q mine /etc/snip/snip.env
            ! grep -q theirs /etc/redis/snip.conf
            nginx -t -q
            promtool check config /etc/prometheus/prometheus.yml >/dev/null
            amtool check-config /etc/prometheus/alertmanager.yml >/dev/null
            systemctl is-enabled snip.target snip@1.socket snip@2.socket snip@3.socket snip-alerts.service >/dev/null
            stat -c %a%U /etc/snip/snip.env | grep -qx 600root
            echo DATABASE
            cd /; set -a; . /etc/snip/snip.env
            runuser -u snip -- psql "$DATABASE_URL" -XAtc "SELECT current_user, current_setting('shared_buffers')"
            echo CALLED; cat /called
        """)
        second, rest = output.split("SECOND\n")[1].split("THIRD\n")
        third, rest = rest.split("DATABASE\n")
        database, called = rest.split("CALLED\n")
        said = [line for line in second.splitlines() if not line.startswith("setup: systemd does not run here")]
        self.assertEqual(said, ["setup: adding 1 GiB of swap, /swapfile", "setup: adding the database user snip",
                                "setup: adding the database snip", "setup: done; now put a version into service: ops/deploy BINARY"])
        self.assertEqual(re.findall(r"writing (\S+)", third), ["/etc/redis/snip.conf"])
        self.assertEqual(database, "snip|48MB\n")
        self.assertIn("ufw allow 22/tcp", called)
        self.assertEqual(called.count("ufw --force enable"), 1)


if __name__ == "__main__":
    unittest.main()
