"""What is done to PostgreSQL."""

import re
import socket
import struct
import time

from .wire import Fault


def kill(world):
    time.sleep(world.draw.uniform(0, 1))
    world.kill("postgres")
    world.note("postgres was killed with all of its sessions")


def freeze(world):
    with world.paused("postgres"):
        world.note("postgres stands still")
        seconds = world.alarms.until_fired("StoreDown")
        world.note(f"StoreDown reached the receiver after {seconds:.1f} s")


def recover_long(world):
    """Killed when much has been written since the last checkpoint."""
    world.stack.psql("CREATE TABLE filler (id int, text text); CHECKPOINT")
    before = world.stack.psql("SELECT pg_current_wal_lsn()")
    world.stack.psql("INSERT INTO filler SELECT n, repeat(md5(n::text), 8) FROM generate_series(1, 500000) AS n")
    size = int(world.stack.psql(f"SELECT pg_current_wal_lsn() - '{before}'"))
    world.kill("postgres")
    world.note(f"postgres was killed with {size / 1e6:.0f} MB of log since the last checkpoint")
    world.stack.until_ready("postgres")
    redo = re.findall(r"redo done.*elapsed: ([\d.]+) s", world.stack.log("postgres").read_text(errors="replace"))
    world.note(f"it has recovered; reading the log took {redo[-1] if redo else '?'} s")
    world.stack.psql("DROP TABLE filler")


class Session:
    """A session of our own: the start-up message, and simple queries."""

    def __init__(self, folder):
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(10)
        try:
            self._sock.connect(str(folder / "postgres/.s.PGSQL.5432"))
            words = b"user\0snip\0database\0snip\0\0"
            self._sock.sendall(struct.pack("!ii", len(words) + 8, 196608) + words)
            self._until_ready()
        except OSError:
            self._sock.close()
            raise

    def query(self, sql):
        text = sql.encode() + b"\0"
        self._sock.sendall(b"Q" + struct.pack("!i", len(text) + 4) + text)
        self._until_ready()

    def _until_ready(self):
        kind = b""
        while kind != b"Z":
            kind, length = struct.unpack("!ci", self._exactly(5))
            self._exactly(length - 4)
            if kind == b"E":
                raise ConnectionRefusedError("PostgreSQL refused")

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self._sock.recv(count - len(data))
            if not piece:
                raise ConnectionResetError
            data += piece
        return data

    def close(self):
        self._sock.close()


def exhaust_connections(world):
    """All sessions that the server allows are ours."""
    ours = []
    try:
        deadline = time.monotonic() + 20
        while len(ours) < 40 and time.monotonic() < deadline:
            try:
                ours.append(Session(world.folder))
            except OSError:
                # Full: end a session of somebody else and take its place.
                ours[0].query(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name <> '' AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
                )
        world.note(f"{len(ours)} of 40 sessions are taken")
        seconds = world.alarms.until_fired("StoreDown")
        world.note(f"StoreDown reached the receiver after {seconds:.1f} s")
    finally:
        for session in ours:
            session.close()


def slow_wire(world):
    with world.wired("postgres", Fault(delay_seconds=0.1, bytes_per_second=1_000_000)):
        world.note("each piece takes 100 ms and 1 µs a byte, each way")
        seconds = world.alarms.until_fired("HighLatency")
        world.note(f"HighLatency reached the receiver after {seconds:.1f} s")


def broken_wire(world):
    with world.wired("postgres", Fault(cut_chance=0.02, stall_chance=0.005)) as wire:
        time.sleep(15)
        world.note(f"{wire.cuts} connections were cut in the middle of a reply, {wire.stalls} fell silent")
