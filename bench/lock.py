"""A lock file with host, process and heartbeat: one cell, one worker."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

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
        self._me = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "started": psutil.Process().create_time(),
        }

    def held(self) -> bool:
        """Whether a living process holds the lock."""
        owner = self._owner()
        if owner is None:
            return False
        if owner["host"] == socket.gethostname():
            return _alive(owner["pid"], owner["started"])
        try:
            return self._file_system_time() - self.path.stat().st_mtime < STALE_S
        except FileNotFoundError:  # given back just now
            return False
        except OSError:  # a full or read-only disk does not tell the time; rather wait than steal
            return True

    def _file_system_time(self) -> float:
        """Now, by the clock that stamps the heartbeats: hosts may disagree on the time."""
        probe = self.path.with_name(f"{self.path.name}.{self._me['host']}.{os.getpid()}.now")
        probe.write_text("", encoding="utf-8")
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink(missing_ok=True)

    def _owner(self) -> dict[str, Any] | None:
        try:
            owner: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            return None
        return owner

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
        if self._owned and self._owner() == self._me:  # a host that slept may have lost it
            with suppress(OSError):  # a disk that is read-only now; the lock dies with the process
                self.path.unlink()

    def _take(self) -> bool:
        """Create the file with its owner in one step: a link to a whole file never half exists."""
        mine = self.path.with_name(f"{self.path.name}.{self._me['host']}.{os.getpid()}")
        mine.write_text(json.dumps(self._me), encoding="utf-8")
        try:
            for _ in range(2):
                try:
                    os.link(mine, self.path)
                    return True
                except FileExistsError:
                    if self.held():
                        return False
                    self._bury()
            return False
        finally:
            mine.unlink(missing_ok=True)

    def _bury(self) -> None:
        """Take a dead owner's file away.

        Of all who saw it only one may, or one of them would take away what a quicker one has put
        there: who has locked the file itself, and finds it to be the same and still a dead owner's.
        """
        with suppress(FileNotFoundError), self.path.open("r+b") as dead:
            with suppress(OSError):  # a file system without such locks
                fcntl.flock(dead, fcntl.LOCK_EX)
            if os.path.samestat(os.fstat(dead.fileno()), self.path.stat()) and not self.held():
                self.path.unlink()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_S):
            with suppress(OSError):  # a network file system's hiccup must not cost the lock
                os.utime(self.path)


def _alive(pid: int, started: float) -> bool:
    """Whether the process runs; a recycled process number has another start time.

    One that ended but was not waited for (nobody does in many containers) is not running.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        return abs(process.create_time() - started) < 2
    except psutil.Error:
        return False
