"""Rules, routes and scrapes of ops/ with their times divided: alerts fire in seconds. Thresholds stay as they are."""

import re

UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
TIMES = r"(?P<number>\d+)(?P<unit>ms|s|m|h|d)"


def in_fast_motion(text, speed):
    """The same configuration with its times divided by `speed`. A scrape may take as long as until the next."""

    def shorter(match):
        milliseconds = int(match["number"]) * UNITS[match["unit"]] // speed
        return f"{match['before']}{max(milliseconds, 1)}ms{match['after']}"

    text = re.sub(r"\n *scrape_timeout:.*", "", text)
    text = re.sub(rf"(?P<before>\b(?:for|\w*interval|\w*wait|\w*timeout): ){TIMES}(?P<after>\s)", shorter, text)
    return re.sub(rf"(?P<before>\[){TIMES}(?P<after>\])", shorter, text)


def hasten(folder, speed):
    """The same for the files of a Prometheus and an Alertmanager in this folder."""
    files = [
        folder / "prometheus/prometheus.yml",
        folder / "alertmanager/alertmanager.yml",
        *(folder / "prometheus/rules").glob("*.yml"),
    ]
    for file in files:
        file.write_text(in_fast_motion(file.read_text(), speed))
