"""One experiment, from a steady state to its verdict."""

import random
import time
from dataclasses import dataclass, field
from typing import Callable

from lib import wait
from lib.stack import Failed as StackFailed

from . import Failed, ledger, say
from .heartbeat import Heartbeat

# Load before the fault and after all is well again.
STEADY_SECONDS = 2
AFTER_SECONDS = 2
# A change is seen everywhere within this time (docs/caching.md): while the store answers within a second, and always. What
# the stack's core loses to others meanwhile, which the store could not answer in, comes on top of the first.
STALE_SECONDS = 3
STALE_SECONDS_MAX = 8
# Of each kind; results.json has all.
FINDINGS_SHOWN = 5


@dataclass(frozen=True)
class Experiment:
    """What is done, what should come of it."""

    name: str
    on: str  # the component
    hypothesis: str
    injection: str
    # Does the injection and ends it; returns after the fault is over, or at once where what died comes back by itself.
    strike: Callable
    alert: str | None = None  # this alert fires, and is resolved in the end; None: it is over before anybody need know
    reads_fail: bool = False  # whether redirects may fail meanwhile
    writes_fail: bool = False
    sheds: bool = False  # whether clicks may be lost and counted as shed
    stale_seconds: float = STALE_SECONDS
    recover_seconds: float = 30
    is_quick: bool = False


@dataclass
class Outcome:
    """What was measured."""

    experiment: Experiment
    account: ledger.Account
    stale_seconds: float  # older than this no answer may be
    recovered_seconds: float  # from the end of the fault until all was well
    failing_seconds: float  # from the first failed request to the last
    alerts: list
    shed_clicks: int
    shortcomings: list  # why it did not pass, for people
    timeline: list = field(default_factory=list)
    seconds: float = 0.0

    def has_passed(self):
        return not self.shortcomings

    def lost(self):
        """Acknowledged changes that are lost, and lost clicks that no instance has counted as shed."""
        return len(self.account.lost) + max(0, len(self.account.lost_clicks) - self.shed_clicks)


def run(world, experiment):
    """Carries out one experiment. The world is healthy before; whether it is afterwards, the outcome tells."""
    began = time.time()
    say(f"{experiment.name}: {experiment.injection}")
    world.notes = []
    world.draw = random.Random(f"{world.seed} {experiment.name}")
    world.alarms.begin()
    shed = world.sum("clicks_shed_total")
    with Heartbeat(world.droplet, STALE_SECONDS) as heartbeat:
        over, recovered, shortcomings = _under_load(world, experiment)
    return _conclude(world, experiment, began, over, recovered, shed, heartbeat.lost_seconds, shortcomings)


def _under_load(world, experiment):
    """When the fault was over, seconds from then until all was well, and what fell short."""
    shortcomings, recovered = [], 0.0
    world.load.start(experiment.name)
    try:
        time.sleep(STEADY_SECONDS)
        world.note("the fault begins")
        try:
            experiment.strike(world)
        except (Failed, StackFailed, wait.Late, OSError) as error:
            shortcomings.append(str(error))
        over = time.monotonic()
        world.note("the fault is over")
        try:
            world.until_healthy()
            recovered = time.monotonic() - over
            world.note(f"all is well, {recovered:.1f} s after the fault")
        except (wait.Late, StackFailed) as error:
            shortcomings.append(f"did not recover: {error}")
        time.sleep(AFTER_SECONDS)
    finally:
        world.load.stop()
    return over, recovered, shortcomings


def _conclude(world, experiment, began, over, recovered, shed, lost_seconds, shortcomings):
    account, alerts = ledger.Account(), []
    stale_seconds = min(experiment.stale_seconds + lost_seconds, STALE_SECONDS_MAX)
    world.note(
        f"of any {STALE_SECONDS} s the core lost {lost_seconds:.2f} s at the most; answers may be {stale_seconds:.2f} s old"
    )
    try:
        world.until_stored()
        account = ledger.audit(world.load, world.stack, world.tries(experiment.name), stale_seconds)
        alerts = _alerts(world, experiment, shortcomings)
    except (wait.Late, OSError) as error:
        shortcomings.append(str(error))
    bad = [request for request in world.load.requests if not request.is_good()]
    outcome = Outcome(
        experiment,
        account,
        stale_seconds,
        recovered,
        max((one.ended for one in bad), default=0) - min((one.started for one in bad), default=0),
        alerts,
        max(0, int(world.sum("clicks_shed_total") - shed)),
        shortcomings,
    )
    _judge(outcome, [request for request in bad if request.started > over + recovered])
    outcome.timeline, outcome.seconds = world.notes, time.time() - began
    if not outcome.has_passed():
        findings = (account.lost, account.lost_clicks, account.doubled, account.stale)
        for line in [*outcome.shortcomings, *(line for found in findings for line in found[:FINDINGS_SHOWN])]:
            say(f"  FELL SHORT: {line}")
    return outcome


def _alerts(world, experiment, shortcomings):
    """The alerts that fired, once they are resolved."""
    try:
        if experiment.alert:
            world.alarms.until_fired(experiment.alert)
        seconds = world.alarms.until_resolved(experiment.alert)
        if world.alarms.fired():
            world.note(
                f"{', '.join(world.alarms.fired())} fired and resolved; the last {seconds:.1f} s after the load ended"
            )
    except wait.Late as late:
        shortcomings.append(f"{late}; still firing: {', '.join(world.alarms.firing()) or 'none'}")
    return world.alarms.fired()


def _judge(outcome, failed_after):
    account, experiment, short = outcome.account, outcome.experiment, outcome.shortcomings
    if outcome.lost():
        short.append(f"{outcome.lost()} acknowledged writes or clicks lost")
    if outcome.shed_clicks and not experiment.sheds:
        short.append(f"{outcome.shed_clicks} clicks shed")
    if account.doubled:
        short.append(f"{len(account.doubled)} doubled")
    if account.stale:
        short.append(f"{len(account.stale)} answers were stale beyond {outcome.stale_seconds:.2f} s, or wrong")
    if account.failed_reads and not experiment.reads_fail:
        short.append(f"{account.failed_reads} redirects failed")
    if account.failed_writes and not experiment.writes_fail:
        short.append(f"{account.failed_writes} writes failed")
    if failed_after:
        short.append(f"{len(failed_after)} requests failed after all was well")
    if outcome.recovered_seconds > experiment.recover_seconds:
        short.append(
            f"recovery took {outcome.recovered_seconds:.1f} s, wanted {experiment.recover_seconds:g} s at the most"
        )
