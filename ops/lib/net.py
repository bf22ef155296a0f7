"""Ports, and one HTTP request at a time."""

import http.client
import random
import re
import socket

REQUEST_SECONDS = 5
# Below the kernel's own range (32768 and up), so that no outgoing connection takes a port meanwhile.
PORTS = range(10_000, 32_000)


def is_free(port):
    """Whether nobody listens on this port, on loopback or on all addresses."""
    for address in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as probe:
            # As servers do it: closed connections that the kernel still remembers are no hindrance.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                return False
    return True


def free_port(usual, taken):
    """The usual port, or else any that is free; none of `taken`."""
    return usual if usual not in taken and is_free(usual) else any_free_port(taken)


def any_free_port(taken):
    """A port that is free, and none of `taken`. Which one is left to chance: others that look for one at the same time, and have
    not bound theirs yet, would find the same."""
    for port in random.sample(PORTS, len(PORTS)):
        if port not in taken and is_free(port):
            return port
    raise OSError("no port is free")


def any_free_ports(names):
    """A free port for each name."""
    ports = {}
    for name in names:
        ports[name] = any_free_port(ports.values())
    return ports


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def connection(address, seconds=REQUEST_SECONDS):
    """A connection to a port of this machine (a number) or to a unix socket (a path)."""
    if isinstance(address, int):
        return http.client.HTTPConnection("127.0.0.1", address, timeout=seconds)
    return UnixConnection(address, seconds)


def get(address, path, seconds=REQUEST_SECONDS):
    """Status and body of a GET; status None when there is no answer."""
    return ask("GET", address, path, seconds)


def ask(method, address, path, seconds=REQUEST_SECONDS):
    """Status and body of a request without a body; status None when there is no answer."""
    asked = connection(address, seconds)
    try:
        asked.request(method, path)
        answer = asked.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return None, ""
    finally:
        asked.close()


def metrics(address):
    """What `/metrics` serves: names with their labels, as they stand there, to numbers. Empty without an answer."""
    status, text = get(address, "/metrics")
    if status != 200:
        return {}
    lines = (re.match(r"([^#\s].*) (\S+)$", line) for line in text.splitlines())
    return {line[1]: float(line[2]) for line in lines if line}
