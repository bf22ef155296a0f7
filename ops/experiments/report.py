"""What came of it: JSON, and the table in docs/chaos-engineering.md."""

import json
import platform
import time

BEGIN, END = "<!-- begin: written by make chaos -->\n", "<!-- end -->\n"


def as_json(outcomes, seed):
    """All that was measured."""
    return json.dumps(
        {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seed": seed,
            "machine": f"{platform.machine()}, Linux {platform.release()}",
            "experiments": [_one(outcome) for outcome in outcomes],
        },
        indent=2,
    )


def _one(outcome):
    experiment, account = outcome.experiment, outcome.account
    return {
        "name": experiment.name,
        "on": experiment.on,
        "hypothesis": experiment.hypothesis,
        "injection": experiment.injection,
        "passed": outcome.has_passed(),
        "shortcomings": outcome.shortcomings,
        "reads": account.reads,
        "failed_reads": account.failed_reads,
        "writes": account.writes,
        "failed_writes": account.failed_writes,
        "failing_seconds": round(outcome.failing_seconds, 2),
        "recovered_seconds": round(outcome.recovered_seconds, 2),
        "clicks": {
            "answered": account.answered_clicks,
            "stored": account.stored_clicks,
            "unknown": account.unknown_clicks,
            "repeated_by_nginx": account.repeated_clicks,
            "shed": outcome.shed_clicks,
        },
        "lost": account.lost,
        "lost_clicks": account.lost_clicks,
        "doubled": account.doubled,
        "stale": account.stale,
        "stalest_seconds": round(account.stalest_seconds, 3),
        "stale_bound_seconds": round(outcome.stale_seconds, 3),
        "alert": experiment.alert,
        "alerts_fired_and_resolved": outcome.alerts,
        "seconds": round(outcome.seconds, 1),
        "timeline": [
            {"at": time.strftime("%H:%M:%S", time.gmtime(at)) + f"{at % 1:.2f}"[1:], "what": text}
            for at, text in outcome.timeline
        ],
    }


def table(outcomes):
    """The Markdown table."""
    lines = [
        "| experiment | failed reads | failed writes | clicks answered / stored | lost | doubled | oldest answer "
        "| all well after | alert | |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    for outcome in outcomes:
        account, experiment = outcome.account, outcome.experiment
        lost = str(outcome.lost()) + (f" ({outcome.shed_clicks} shed)" if outcome.shed_clicks else "")
        lines.append(
            f"| [{experiment.name}](#{experiment.name}) | {account.failed_reads} of {account.reads} "
            f"| {account.failed_writes} of {account.writes} | {account.answered_clicks} / {account.stored_clicks} "
            f"| {lost} | {len(account.doubled)} | {account.stalest_seconds:.2f} s | {outcome.recovered_seconds:.1f} s "
            f"| {experiment.alert or '–'} | {'passed' if outcome.has_passed() else '**fell short**'} |"
        )
    return "\n".join(lines) + "\n"


def descriptions(outcomes):
    """A section for each experiment, by component."""
    lines = []
    for outcome in outcomes:
        experiment = outcome.experiment
        lines += [
            f"### {experiment.name}\n",
            f"**{experiment.on}.** {experiment.injection}. *Expected:* {experiment.hypothesis}\n",
        ]
    return "\n".join(lines)


def write_into(page, outcomes, seed):
    """Puts the results in their place in the page."""
    text = page.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    stamp = time.strftime("%Y-%m-%d", time.gmtime())
    machine = f"`ops/chaos --seed {seed}`, {stamp}, Linux {platform.release().split('-')[0]}: {summary(outcomes)}.\n"
    page.write_text(
        f"{head}{BEGIN}\n{machine}\n{table(outcomes)}\n## The experiments\n\n{descriptions(outcomes)}\n{END}{tail}"
    )


def summary(outcomes):
    """The last line."""
    passed = sum(outcome.has_passed() for outcome in outcomes)
    lost = sum(outcome.lost() for outcome in outcomes)
    doubled = sum(len(outcome.account.doubled) for outcome in outcomes)
    stale = sum(len(outcome.account.stale) for outcome in outcomes)
    return f"{len(outcomes)} experiments, {passed} passed, {lost} lost, {doubled} doubled, {stale} stale"


def line(outcome):
    """One outcome in a line."""
    account = outcome.account
    return (
        f"{outcome.experiment.name}: {'passed' if outcome.has_passed() else 'FELL SHORT'} in {outcome.seconds:.0f} s; "
        f"{account.failed_reads}/{account.reads} reads and {account.failed_writes}/{account.writes} writes failed, "
        f"{account.answered_clicks} clicks answered, {account.stored_clicks} stored, {account.unknown_clicks} unknown, "
        f"{account.repeated_clicks} repeated, oldest answer {account.stalest_seconds:.2f} s, "
        f"alerts {', '.join(outcome.alerts) or 'none'}"
    )
