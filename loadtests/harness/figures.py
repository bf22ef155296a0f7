"""Percentiles from histograms and from Nginx's log."""

import re
from dataclasses import dataclass

BUCKET = "http_request_duration_seconds_bucket{"
LABEL = re.compile(r'(\w+)="([^"]*)"')
LINE = re.compile(r'"time":"([^"+]*)[^"]*".*"target":"([^"]*)","status":(\d+),.*?"seconds":([\d.]+)')
# Asked for by those who watch.
WATCHERS = ("/metrics", "/nginx-status")


def histogram_quantile(share, before, after, endpoint=None):
    """Seconds within which this share of the requests was answered, from two snapshots of metrics; as PromQL's function
    of this name: linear within a bucket. None without requests."""
    counts = {}
    for name in after:
        labels = dict(LABEL.findall(name)) if name.startswith(BUCKET) else {}
        if labels and labels["endpoint"] not in WATCHERS and endpoint in (None, labels["endpoint"]):
            end = float(labels["le"])
            counts[end] = counts.get(end, 0) + after[name] - before.get(name, 0)
    ends = sorted(counts)
    if not ends or counts[ends[-1]] == 0:
        return None
    rank = share * counts[ends[-1]]
    lower, below = 0.0, 0
    for end in ends:
        if counts[end] >= rank:
            if end == float("inf"):
                return lower
            return lower + (end - lower) * (rank - below) / (counts[end] - below)
        lower, below = end, counts[end]


def quantile(share, values):
    """Nearest rank; the values are sorted. None without values."""
    return values[max(0, -(-int(share * len(values) * 1000) // 1000) - 1)] if values else None


@dataclass
class Log:
    """What Nginx's access log says."""

    requests: int
    p95: float  # seconds
    p99: float
    statuses: dict
    by_second: dict  # time of day to (requests, p95 in seconds)


def read_log(path):
    """Of all requests but those of watchers."""
    seconds, times, statuses = {}, [], {}
    with open(path) as lines:
        for line in lines:
            found = LINE.search(line)
            if found and found[2] not in WATCHERS:
                taken = float(found[4])
                times.append(taken)
                seconds.setdefault(found[1], []).append(taken)
                statuses[found[3]] = statuses.get(found[3], 0) + 1
    times.sort()
    by_second = {when: (len(taken), quantile(0.95, sorted(taken))) for when, taken in sorted(seconds.items())}
    return Log(len(times), quantile(0.95, times) or 0.0, quantile(0.99, times) or 0.0, statuses, by_second)
