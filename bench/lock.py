"""A lock file with host, process and heartbeat: one cell, one worker."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil

HEARTBEAT_S = 10.0
STALE_S = 120.0
"""A lock whose heartbeat is older, by the file system's clock, belongs to a lost host."""


class Lock:
    """`with Lock(path) as held:`; `held` says whether this process got it.

    A lock of a dead process on this host is taken over at once, one of another host after
    `STALE_S` seconds without a heartbeat.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stop = threading.Event()
        self._owned = False

    def held(self) -> bool:
        """Whether a living process holds the lock."""
        try:
            owner = json.loads(self.path.read_text(encoding="utf-8"))
            age = time.time() - self.path.stat().st_mtime
        except (OSError, json.JSONDecodeError):
            return False
        if owner["host"] == socket.gethostname():
            return _alive(owner["pid"], owner["started"])
        return age < STALE_S

    def __enter__(self) -> bool:
        self._owned = self._take()
        if self._owned:
            threading.Thread(target=self._beat, daemon=True).start()
        return self._owned

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._owned:
            self.path.unlink(missing_ok=True)

    def _take(self) -> bool:
        """Create the file with its owner in one step: a hard link of a finished file never half exists."""
        mine = self.path.with_name(f"{self.path.name}.{socket.gethostname()}.{os.getpid()}")
        started = psutil.Process().create_time()
        owner = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
        mine.write_text(json.dumps(owner), encoding="utf-8")
        try:
            for _ in range(2):
                try:
                    os.link(mine, self.path)
                    return True
                except FileExistsError:
                    if self.held():
                        return False
                    self.path.unlink(missing_ok=True)
            return False
        finally:
            mine.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            try:
                os.utime(self.path)
            except OSError:
                return


def _alive(pid: int, started: float) -> bool:
    """Whether the process runs; a recycled process number has another start time."""
    try:
        return abs(psutil.Process(pid).create_time() - started) < 2
    except psutil.Error:
        return False
