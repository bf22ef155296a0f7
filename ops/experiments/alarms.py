"""Which alerts reached the receiver, and when."""

import json
import time

from lib import net, wait

# How much faster than in production time runs in rules, routes and scrapes.
SPEED = 30
# An alert's way through Prometheus and Alertmanager; each of the rules' own times is shorter at this speed.
FIRING_SECONDS = 60
RESOLVED_SECONDS = 90


# While its list is asked for again and again; the core is the stack's.
LOOK_SECONDS = 0.2


class Alarms:
    """What stands in the receiver's log from a moment on. `alertmanager` is the port of what sends it."""

    def __init__(self, folder, alertmanager):
        self._folder, self._log, self._alertmanager = folder, folder / "alerts/alerts.jsonl", alertmanager
        self.begin()

    def begin(self):
        """Forgets what came before."""
        self._offset = self._log.stat().st_size if self._log.exists() else 0

    def heard(self):
        """Labels and status of each alert, in the order of arrival."""
        if not self._log.exists():
            return []
        with open(self._log, "rb") as log:
            log.seek(self._offset)
            lines = [line for line in log.read().split(b"\n") if line.startswith(b"{")]
        alerts = []
        for line in lines:
            try:
                told = json.loads(line)["notification"]["alerts"]
            except ValueError:
                continue  # the last line is being written
            alerts += [(alert["labels"], alert["status"]) for alert in told if self._is_ours(alert["labels"])]
        return alerts

    def _is_ours(self, labels):
        """Whether it tells of the stack. The machine may have other work and other disks."""
        name = labels["alertname"]
        return name != "Watchdog" and (
            not name.startswith("Host") or labels.get("mountpoint", "").startswith(str(self._folder))
        )

    def firing(self):
        """Names of alerts that have fired and are not told to be resolved."""
        return sorted({labels["alertname"] for labels in self._firing()})

    def _firing(self):
        """Their labels. Those on budgets remember for hours: left out."""
        state = {tuple(sorted(labels.items())): status for labels, status in self.heard()}
        firing = [dict(labels) for labels, status in state.items() if status == "firing"]
        return [labels for labels in firing if "Budget" not in labels["alertname"]]

    def _unresolved(self, told):
        """Labels of those that are not resolved. Of the end of one that another one silences just then Alertmanager tells
        nobody: it is enough that it has the alert no more, except for the one that is called `told`."""
        left = self._firing()
        status, text = net.get(self._alertmanager, "/api/v2/alerts") if left else (None, "")
        if status != 200:
            return left
        known = [alert["labels"] for alert in json.loads(text)]
        return [labels for labels in left if labels["alertname"] == told or labels in known]

    def fired(self):
        """Names of alerts that have fired."""
        return sorted({labels["alertname"] for labels, status in self.heard() if status == "firing"})

    def until_fired(self, name):
        """Seconds until an alert was told."""
        began = time.monotonic()
        wait.until(f"the alert {name} fires", FIRING_SECONDS, lambda: name in self.fired())
        return time.monotonic() - began

    def until_resolved(self, told):
        """Seconds until no alert that has fired is left, and the end of `told` has been told."""
        began = time.monotonic()
        wait.until("all alerts are resolved", RESOLVED_SECONDS, lambda: not self._unresolved(told), LOOK_SECONDS)
        return time.monotonic() - began
