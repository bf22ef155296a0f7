"""A connection to PostgreSQL or Redis that is slow, narrow, or cut: a proxy in the place of the server's socket."""

import contextlib
import os
import random
import socket
import threading
import time
from dataclasses import dataclass

CHUNK_BYTES = 16 * 1024


@dataclass
class Fault:
    """What happens to what goes through, each way."""

    delay_seconds: float = 0.0
    bytes_per_second: float = 0.0  # 0: as many as there are
    # Each piece of a reply has this chance that only a part of it arrives and the connection ends.
    cut_chance: float = 0.0
    # Each piece of a reply has this chance that it and all that follows never arrives, the connection staying open.
    stall_chance: float = 0.0


class Wire:
    """While it is open, whoever connects to the server's path connects to us; leaving it gives the path back.

    Connections that were there before go on past us: `world` ends them.
    """

    def __init__(self, path, beside, fault, seed):
        self._path, self._beside, self.fault = path, beside, fault
        self._draw = random.Random(seed)
        self._open = set()
        self._lock = threading.Lock()
        self.cuts = self.stalls = self.pieces = 0

    def __enter__(self):
        os.rename(self._path, self._beside)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        os.chmod(self._path, 0o777)
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_):
        # The server's socket first, so that whoever is cut off finds it when it comes again.
        os.rename(self._beside, self._path)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            left, self._open = list(self._open), None
        for end in left:
            _end(end)

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                server.connect(str(self._beside))
                with self._lock:
                    if self._open is None:
                        raise ConnectionError
                    self._open |= {client, server}
            except OSError:
                client.close()
                server.close()
                continue
            threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source, target, is_reply):
        with contextlib.suppress(OSError):
            while piece := source.recv(CHUNK_BYTES):
                self.pieces += 1
                time.sleep(self.fault.delay_seconds)
                if self.fault.bytes_per_second:
                    time.sleep(len(piece) / self.fault.bytes_per_second)
                chance = self._draw.random() if is_reply else 1.0
                if chance < self.fault.cut_chance:
                    self.cuts += 1
                    target.sendall(piece[: len(piece) // 2])
                    break
                if chance < self.fault.cut_chance + self.fault.stall_chance:
                    self.stalls += 1
                    while source.recv(CHUNK_BYTES):
                        pass
                    break
                target.sendall(piece)
        _end(source)
        _end(target)


def _end(end):
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
