"""The ledger against the store: what was lost, doubled, or stale.

Each request is known by itself: redirects by their user agent, which the store keeps with the click, created links by
their target. So nothing is compared by number alone.
"""

from collections import Counter
from dataclasses import dataclass, field

# Nginx asks three instances at the most.
TRIES_MAX = 3


@dataclass
class Account:
    """What the comparison showed. Lists hold a line for each finding, for people."""

    reads: int = 0
    failed_reads: int = 0
    writes: int = 0
    failed_writes: int = 0
    answered_clicks: int = 0
    stored_clicks: int = 0
    unknown_clicks: int = 0  # requests without a whole answer, or with an error of Nginx: stored or not
    repeated_clicks: int = 0  # stored more than once because Nginx asked more than one instance
    lost: list = field(default_factory=list)  # acknowledged changes
    lost_clicks: list = field(default_factory=list)
    doubled: list = field(default_factory=list)
    stale: list = field(default_factory=list)
    stalest_seconds: float = 0.0


def audit(load, stack, tries, stale_seconds):
    """Compares a run's ledger with the store. `tries` maps user agents to how many instances Nginx asked."""
    account = Account()
    _count(account, load.requests)
    _clicks(account, load, stack, tries)
    _links(account, load, stack)
    for request in load.requests:
        if request.what == "read" and request.status in (302, 404):
            _freshness(account, request, stale_seconds)
    return account


def _count(account, requests):
    for request in requests:
        is_read = request.what == "read"
        account.reads += is_read
        account.writes += not is_read
        if not request.is_good():
            account.failed_reads += is_read
            account.failed_writes += not is_read


# ---- Clicks -------------------------------------------------------------------------------------------------------


def _clicks(account, load, stack, tries):
    rows = stack.psql(
        "SELECT details::json ->> 'user_agent', url_id FROM events WHERE event_type = 'redirect' "
        f"AND details::json ->> 'user_agent' LIKE '{load.name}-%'"
    )
    stored = Counter(row.split("|")[0] for row in rows.splitlines())
    account.stored_clicks = sum(stored.values())
    for request in load.requests:
        if request.what != "read":
            continue
        count = stored.pop(request.agent, 0)
        least, most = _allowed(request, tries.get(request.agent, 1))
        account.answered_clicks += request.status == 302
        account.unknown_clicks += least < most and request.status != 302
        account.repeated_clicks += request.status == 302 and 1 < count <= most
        if count < least:
            account.lost_clicks.append(f"the click of {request.agent} on {request.link.code}")
        if count > most:
            account.doubled.append(
                f"the click of {request.agent} on {request.link.code}: {count} times, status {request.status}"
            )
    account.doubled += [f"the click {agent}, which nobody made" for agent in stored]


def _allowed(request, tries):
    """How often the click of a request may be stored: at least, at most."""
    if request.status == 302:
        return 1, tries
    if request.status in (None, 502, 504):  # it may have been carried out, and its answer lost
        return 0, TRIES_MAX
    return 0, tries - 1  # the last instance said no; one before it may have carried it out


# ---- Links --------------------------------------------------------------------------------------------------------


def _links(account, load, stack):
    rows = stack.psql(
        "SELECT original_url, is_active, short_code, id, "
        "(SELECT count(*) FROM events WHERE url_id = urls.id AND event_type = 'created') "
        f"FROM urls WHERE original_url LIKE 'https://example.com/{load.name}/%'"
    )
    found = {}
    for row in rows.splitlines():
        target, is_active, code, number, created = row.split("|")
        key = target.removeprefix("https://example.com/").rpartition("/")[0]
        found.setdefault(key, []).append((target if is_active == "t" else None, code, int(number), int(created)))
    for link in load.links:
        _link(account, link, found.get(link.key, []))


def _link(account, link, rows):
    if len(rows) > 1:
        account.doubled.append(f"{link.key}: {len(rows)} links of one request")
    is_created = link.versions[1].acknowledged is not None
    if not rows:
        if is_created:
            account.lost.append(f"{link.key}: the link {link.code}")
        return
    state, code, number, created = rows[0]
    if created != 1:
        (account.lost if created < 1 else account.doubled).append(f"{link.key}: {created} events 'created'")
    if not is_created:
        return
    if (code, number) != (link.code, link.id):
        account.lost.append(f"{link.key}: it was {link.code}, {link.id}, and is {code}, {number}")
    # The last state that was acknowledged, and one after it whose outcome is not known.
    last = max(index for index, version in enumerate(link.versions) if version.acknowledged is not None)
    allowed = [version.target for version in link.versions[last:]]
    if state not in allowed:
        account.lost.append(f"{link.key}: it is {state}, and should be {' or '.join(map(str, allowed))}")


# ---- Freshness ----------------------------------------------------------------------------------------------------


def _freshness(account, request, stale_seconds):
    """Whether an answer was true, or old and within the bound. Counted from when the change was acknowledged, which is
    later than its commit, to when the request began."""
    versions = request.link.versions
    ages = []
    for version, after in zip(versions, [*versions[1:], None]):
        if version.target == request.location and version.sent <= request.ended:
            is_over = after is not None and after.acknowledged is not None and after.acknowledged < request.started
            ages.append(request.started - after.acknowledged if is_over else 0.0)
    if not ages:
        account.stale.append(f"{request.agent}: {request.location} was never the target of {request.link.code}")
        return
    account.stalest_seconds = max(account.stalest_seconds, min(ages))
    if min(ages) > stale_seconds:
        account.stale.append(
            f"{request.agent}: {request.link.code} was {min(ages):.1f} s old: {request.status} {request.location}"
        )
