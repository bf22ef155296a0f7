"""The figures of load tests: percentiles from histograms and from Nginx's log."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "loadtests"))
from harness.figures import histogram_quantile, quantile, read_log

LINE = (
    '{{"time":"2026-01-01T00:00:0{second}+00:00","client":"127.0.0.1","method":"GET","target":"{target}","status":{status},'
    '"bytes":0,"seconds":{seconds},"upstream":"unix:/a","upstream_status":"302","upstream_seconds":"0.001","cache":"","agent":"x"}}\n'
)


def bucket(endpoint, end):
    return f'http_request_duration_seconds_bucket{{endpoint="{endpoint}",method="GET",le="{end}"}}'


class Figures(unittest.TestCase):
    def test_histograms(self):
        before = {bucket("/a", "0.1"): 10, bucket("/a", "0.2"): 10, bucket("/a", "+Inf"): 10}
        after = {
            bucket("/a", "0.1"): 60,
            bucket("/a", "0.2"): 110,
            bucket("/a", "+Inf"): 110,
            bucket("/metrics", "0.1"): 999,
            bucket("/b", "+Inf"): 0,
            "redirects_total": 5,
        }
        for share, expect in ((0.25, 0.05), (0.5, 0.1), (0.75, 0.15), (1, 0.2)):
            self.assertAlmostEqual(histogram_quantile(share, before, after, "/a"), expect)
        self.assertIsNone(histogram_quantile(0.5, before, after, "/b"))
        # Beyond the last bucket nothing is known but its begin.
        self.assertEqual(histogram_quantile(0.9, {}, {bucket("/a", "5"): 1, bucket("/a", "+Inf"): 10}), 5)

    def test_values(self):
        for share, values, expect in (
            (0.95, list(range(1, 101)), 95),
            (0.5, [1, 2, 3], 2),
            (0.95, [7], 7),
            (0.5, [], None),
        ):
            self.assertEqual(quantile(share, values), expect)

    def test_log(self):
        lines = [
            (1, "/abc", 302, "0.001"),
            (1, "/abc", 302, "0.003"),
            (2, "/urls", 201, "0.009"),
            (2, "/metrics", 200, "9.0"),
        ]
        with tempfile.NamedTemporaryFile("w") as file:
            file.writelines(LINE.format(second=s, target=t, status=n, seconds=taken) for s, t, n, taken in lines)
            file.write('{"time":"2026-01-01T00:00:03')  # cut off
            file.flush()
            log = read_log(file.name)
        self.assertEqual((log.requests, log.p95, log.statuses), (3, 0.009, {"302": 2, "201": 1}))
        self.assertEqual(log.by_second, {"2026-01-01T00:00:01": (2, 0.003), "2026-01-01T00:00:02": (1, 0.009)})


if __name__ == "__main__":
    unittest.main()
