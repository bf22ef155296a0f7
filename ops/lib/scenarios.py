"""Kinds of load, each with its servers: what flame graphs are recorded of, and the compiler's profile."""

from dataclasses import dataclass
from pathlib import Path

from . import ground as grounds
from . import roles
from .ground import CODE
from .limits import limit

# Over before its clicks have waited for as long as they may: so they are stored behind it.
BURST_SECONDS = limit("CLICKS_BURST_MAX") - 2
CODES = 50_000
CREATE = '''wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"url": "https://www.example.com/a/page/that/is/linked?from=here"}'
'''
# Codes that are in the store, each hardly ever asked for twice in a row.
MISS = f'''request = function() return wrk.format("GET", string.format("/m%05d", math.random(0, {CODES - 1}))) end
'''
# The mix of loadtests/gold.js, without its pauses.
GOLD = f'''local body = '{{"url": "https://www.example.com/made/under/load"}}'
request = function()
  local draw = math.random(100)
  if draw <= 80 then return wrk.format("GET", "/{CODE}") end
  if draw <= 90 then return wrk.format("GET", "/urls?per_page=5") end
  if draw <= 97 then return wrk.format("POST", "/urls", {{["Content-Type"] = "application/json"}}, body) end
  return wrk.format("GET", "/health")
end
'''


@dataclass
class Scenario:
    """A load by wrk, and whose work it is."""

    port: int
    script: str = ""
    path: str = f"/{CODE}"
    processes: tuple = ()
    # Threads whose work it is alone.
    only: tuple = ()
    # The work begins when the load is over.
    is_after: bool = False

    def load(self, ground, seconds):
        grounds.wrk(ground, self.port, 64, seconds, self.script, self.path)


def threads(process, name):
    """The threads of a process that have this name."""
    tasks = Path(f"/proc/{process.pid}/task").iterdir()
    return tuple(task.name for task in tasks if (task / "comm").read_text().strip() == name)


def started(ground, binary):
    """All of them by name, with their servers."""
    plan, _ = grounds.postgres(ground)
    hit, hit_port = grounds.snip(ground, plan, binary, "hit")
    miss, miss_port = grounds.snip(ground, plan, binary, "miss", "--cache-bytes", "1")
    roles.psql(plan, f"INSERT INTO urls (short_code, original_url) SELECT 'm' || lpad(n::text, 5, '0'), '{grounds.TARGET}' FROM generate_series(0, {CODES - 1}) n")
    three = [grounds.snip(ground, plan, binary, name, "--listen", f"unix:{plan.socket(name)}")[0] for name in roles.INSTANCES]
    nginx, nginx_port = grounds.nginx(ground, ground.folder)
    return {
        "redirect-hit": Scenario(hit_port, processes=(hit,)),
        "redirect-miss": Scenario(miss_port, MISS, processes=(miss,)),
        "create": Scenario(hit_port, CREATE, "/urls", processes=(hit,)),
        "list": Scenario(hit_port, path="/urls?per_page=25", processes=(hit,)),
        # Its work of a burst comes when that is over.
        "shipper": Scenario(hit_port, only=threads(hit, "snip-clicks"), is_after=True),
        "nginx-gold": Scenario(nginx_port, GOLD, processes=(nginx, *three)),
    }
