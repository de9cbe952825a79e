"""Workers whose pool is gone: they wait for ever where a dead process keeps its number."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress

import psutil

MARK = "VOXELBENCH_WORKERS"
"""Environment variable that all processes of one engine share."""


def mark() -> str:
    """Name whatever this process starts from now on."""
    name = uuid.uuid4().hex
    # Parsl's titles of processes would lie over the environment that the system shows.
    os.environ.update({MARK: name, "SPT_NOENV": "1"})
    return name


def end_strays(name: str) -> None:
    """Kill the idle workers of that name that outlived their pool.

    A worker that has carried a cell dies with its pool by itself, and its cell after a checkpoint.
    """
    own = {process.pid: process for process in psutil.process_iter() if _named(process, name)}
    for process in own.values():
        with suppress(psutil.Error):
            worker = "spawn_main" in " ".join(process.cmdline())
            parent = process.ppid()
            if worker and parent != os.getpid() and not _alive(own.get(parent)):
                process.kill()


def _named(process: psutil.Process, name: str) -> bool:
    with suppress(psutil.Error):
        return process.environ().get(MARK) == name
    return False


def _alive(process: psutil.Process | None) -> bool:
    with suppress(psutil.Error):
        return process is not None and process.status() != psutil.STATUS_ZOMBIE
    return False
