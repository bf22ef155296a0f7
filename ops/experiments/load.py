"""Clients that ask all the time, through Nginx, and the ledger of what they were told."""

import http.client
import json
import random
import select
import threading
import time
from dataclasses import dataclass, field

# Longer than Nginx waits for an instance (12 s) and then for the next one's answer: who gives up earlier knows less.
REQUEST_SECONDS = 20
READERS = 6
READS_PER_SECOND = 25  # each reader
WRITERS = 4
WRITES_PER_SECOND = 5  # each writer
# Live links that each writer keeps, and how long one that was deleted is still asked for.
LINKS = 12
ASKED_AFTER_DELETION_SECONDS = 10
# A writer whose request failed rests: 503 comes at once.
PAUSE_SECONDS = 0.2


@dataclass
class Version:
    """A state that a link was asked to take: a target, or None for none."""

    target: str | None
    sent: float
    acknowledged: float | None = None


@dataclass
class Link:
    """A link and all states that its one writer gave it. The first state is that there is no such link."""

    key: str
    id: int = 0
    code: str = ""
    versions: list = field(default_factory=lambda: [Version(None, 0.0, 0.0)])
    # The outcome of its last change is not known: no other follows, so that the two cannot be mixed up.
    is_retired: bool = False

    def target(self):
        """The next version's target."""
        return f"https://example.com/{self.key}/{len(self.versions)}"

    def is_live(self):
        return not self.is_retired and self.versions[-1].target is not None

    def is_worth_asking(self):
        last = self.versions[-1]
        return self.code and (last.target is not None or time.monotonic() - last.sent < ASKED_AFTER_DELETION_SECONDS)


@dataclass
class Request:
    """One request and its answer. `status` is None when no whole answer was seen."""

    what: str  # read, create, change, delete
    started: float
    ended: float
    status: int | None
    agent: str = ""
    link: Link | None = None
    location: str | None = None

    def is_good(self):
        return self.status is not None and self.status < 500


class Client:
    """A kept connection to Nginx; a failure closes it."""

    def __init__(self, port):
        self._conn = http.client.HTTPConnection("127.0.0.1", port, timeout=REQUEST_SECONDS)

    def ask(self, method, path, body=None, agent="chaos"):
        """Status, headers and body; status None when no whole answer was seen."""
        headers = {"User-Agent": agent}
        if body is not None:
            body = json.dumps(body)
            headers["Content-Type"] = "application/json"
        if self._conn.sock and select.select([self._conn.sock], [], [], 0)[0]:
            self._conn.close()  # the server has closed it; a client sees that before it sends
        try:
            self._conn.request(method, path, body, headers)
            answer = self._conn.getresponse()
            text = answer.read()
            return answer.status, answer.headers, text
        except (OSError, http.client.HTTPException):
            self._conn.close()
            return None, {}, b""

    def close(self):
        self._conn.close()


class Load:
    """Readers and writers, from `start` to `stop`. Numbers go on over all runs: no two requests are alike."""

    def __init__(self, port, seed):
        self.port, self._seed = port, seed
        self._names = threading.Lock()
        self._next = 0
        self.links = []  # of this run; writers append
        self.requests = []  # of this run

    def start(self, name):
        """Begins a run; `name` distinguishes its requests and links from those of others."""
        self.name, self.links, self.requests = name, [], []
        self._is_over = threading.Event()
        workers = [(self._write, number) for number in range(WRITERS)] + [
            (self._read, number) for number in range(READERS)
        ]
        self._threads = [threading.Thread(target=work, args=(number,), daemon=True) for work, number in workers]
        for thread in self._threads:
            thread.start()

    def stop(self):
        """Ends the run, when all requests under way have been answered or given up."""
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _number(self):
        with self._names:
            self._next += 1
            return self._next

    def _paced(self, rate, draw):
        """Until the end of the run, `rate` times a second at irregular moments."""
        while not self._is_over.wait(draw.expovariate(rate)):
            yield

    # ---- Reading ------------------------------------------------------------------------------------------------

    def _read(self, number):
        draw, client = random.Random(f"{self._seed} {self.name} read {number}"), Client(self.port)
        for _ in self._paced(READS_PER_SECOND, draw):
            links = [link for link in self.links if link.is_worth_asking()]
            if links:
                # What was changed last is where a stale answer would show.
                recent = sorted(links, key=lambda link: link.versions[-1].sent)[-8:]
                self._follow(client, draw.choice(recent if draw.random() < 0.5 else links))
        client.close()

    def _follow(self, client, link):
        agent = f"{self.name}-{self._number()}"
        started = time.monotonic()
        status, headers, _ = client.ask("GET", f"/{link.code}", agent=agent)
        self.requests.append(Request("read", started, time.monotonic(), status, agent, link, headers.get("Location")))

    # ---- Writing ------------------------------------------------------------------------------------------------

    def _write(self, number):
        draw, client, own = random.Random(f"{self._seed} {self.name} write {number}"), Client(self.port), []
        for _ in self._paced(WRITES_PER_SECOND, draw):
            live = [link for link in own if link.is_live()]
            chance = draw.random()
            if len(live) < LINKS and (len(live) < 3 or chance < 0.4):
                is_good = self.create(client, own)
            elif chance < 0.8:
                is_good = self.change(client, draw.choice(live))
            else:
                is_good = self.change(client, draw.choice(live), delete=True)
            if not is_good:
                self._is_over.wait(PAUSE_SECONDS)
        client.close()

    def create(self, client, own):
        """Makes a link, and adds it to `own`; whether that was acknowledged."""
        link = Link(f"{self.name}/{self._number()}")
        version = Version(link.target(), time.monotonic())
        link.versions.append(version)
        status, _, text = client.ask("POST", "/urls", {"url": version.target})
        self._record("create", version, status, 201, link)
        own.append(link)
        if status == 201:
            told = json.loads(text)
            link.id, link.code = told["id"], told["short_code"]
        self.links.append(link)
        return status == 201

    def change(self, client, link, delete=False):
        """Gives a link another target, or deletes it; whether that was acknowledged."""
        version = Version(None if delete else link.target(), time.monotonic())
        link.versions.append(version)
        if delete:
            status, _, _ = client.ask("DELETE", f"/urls/{link.id}")
        else:
            status, _, _ = client.ask("PUT", f"/urls/{link.id}", {"url": version.target})
        wanted = 204 if delete else 200
        self._record("delete" if delete else "change", version, status, wanted, link)
        return status == wanted

    def _record(self, what, version, status, wanted, link):
        now = time.monotonic()
        if status == wanted:
            version.acknowledged = now
        else:
            # A DELETE that Nginx repeated is answered with 404 though it was done; 503 says that it may have been done.
            link.is_retired = True
        self.requests.append(Request(what, version.sent, now, status, link=link))
