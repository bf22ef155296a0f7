"""What is done to Nginx, and what clients do."""

import socket
import subprocess
import time

from lib import net
from lib.roles import INSTANCES


def kill(world):
    time.sleep(world.draw.uniform(0, 1))
    world.kill("nginx")
    world.note("nginx was killed with its worker")


def freeze(world):
    with world.paused("nginx"):
        world.note("nginx stands still")
        time.sleep(6)


RANDOM_CODES = """
local letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
function request()
    local code = {}
    for place = 1, 6 do local at = math.random(#letters); code[place] = letters:sub(at, at) end
    return wrk.format("GET", "/" .. table.concat(code))
end
function delay() return 20 end
"""
IDLE_CONNECTIONS = 2000
BODY_BYTES = 20 * 1024 * 1024


def flood(world):
    """Codes that nobody has, bodies that are too large, connections that say nothing: all at once."""
    port = world.stack.plan().ports["nginx"]
    script = world.folder / "codes.lua"
    script.write_text(RANDOM_CODES)
    wrk = subprocess.Popen(
        ["wrk", "-t1", "-c32", "-d60s", "-s", str(script), f"http://127.0.0.1:{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    idle = []
    try:
        for number in range(IDLE_CONNECTIONS):
            one = socket.create_connection(("127.0.0.1", port), timeout=5)
            idle.append(one)
            if number % 2:
                one.sendall(b"GET / HTTP/1.1\r\nHost: slow")  # and never the rest
        world.note(f"{IDLE_CONNECTIONS} connections that say nothing or half a head; 32 that try codes")
        refused = sum(_large_body(port) for _ in range(20))
        world.note(f"{refused} of 20 bodies of {BODY_BYTES // 1024**2} MiB were refused")
        seconds = world.alarms.until_fired("CacheHitRatioLow")
        world.note(f"CacheHitRatioLow reached the receiver after {seconds:.1f} s")
    finally:
        wrk.kill()
        wrk.wait()
        for one in idle:
            one.close()


def _large_body(port):
    """Whether such a body is refused, with an answer or by the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as one:
        fields = f"Host: flood\r\nContent-Type: application/json\r\nContent-Length: {BODY_BYTES}"
        head = f"POST /urls HTTP/1.1\r\n{fields}\r\n\r\n"
        try:
            one.sendall(head.encode())
            one.sendall(bytes(1024 * 1024))
            return b" 413 " in one.recv(1024)
        except OSError:
            return True


def fill_connections(world):
    """All connections that one instance allows, past Nginx."""
    name = world.draw.choice(INSTANCES)
    idle = []

    def fewer(role):
        role.command += ["--max-connections", "200"]

    with world.changed(name, fewer):
        try:
            for _ in range(250):
                one = net.connection(world.stack.plan().ports[name], 5)
                one.connect()
                idle.append(one)
            seconds = world.alarms.until_fired("ConnectionLimitNear")
            world.note(f"ConnectionLimitNear reached the receiver after {seconds:.1f} s")
        finally:
            for one in idle:
                one.close()
