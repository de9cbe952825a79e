"""A probe in a process of its own, ended where it passes a limit."""

from __future__ import annotations

import json
import multiprocessing
import signal
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from bench.probe import FAILED, MEASURED, MEMORY, STATE, Job, probe
from bench.scaling import Limits, Work

WATCHED_S = 0.05
GRACE = 3
"""What was measured stands: so many times longer its fit may take to end and leave a state."""


def measured(job: Job, limits: Limits) -> tuple[Work | str, dict[str, Any]]:
    """Run `job` in a process of its own, ended where it passes a limit.

    What was written before it ended stands.
    """
    process = _processes(limits.gpu).Process(target=probe, args=(job,), daemon=True)
    process.start()
    ended = _watch(process, limits, job.folder / MEASURED)
    if process.exitcode == -signal.SIGKILL and not ended:
        ended = MEMORY  # by the system
    facts = {name: _read(job.folder / name) for name in (MEASURED, STATE, FAILED)}
    if facts[MEASURED]:
        return Work(**{**facts[MEASURED], "grid": job.grid}), facts[STATE]
    reason = ended or facts[FAILED].get("reason", f"the process ended with {process.exitcode}")
    told = {
        MEMORY: f"needs more than {limits.memory_mb / 1024:.1f} GiB",
        "time": f"takes longer than {limits.seconds:g} s to measure",
    }
    return told.get(reason, reason), {}


def _watch(process: Any, limits: Limits, found: Path) -> str:
    """Wait for the end; kill what passes a limit, and say which: "memory", "time" or ""."""
    started = time.monotonic()
    ended = ""
    while process.is_alive():
        process.join(WATCHED_S)
        try:
            resident = psutil.Process(process.pid).memory_info().rss / 2**20
        except psutil.Error:
            break
        if resident > limits.memory_mb and not limits.gpu:
            ended = MEMORY
        elif time.monotonic() - started > limits.seconds * (GRACE if found.is_file() else 1):
            ended = "time"
        if ended:
            process.kill()
    process.join()
    return ended


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


@cache
def _processes(gpu: bool) -> Any:
    """Makes processes for which the libraries are imported once; the first waits for that.

    With a GPU each imports its own: its driver, once looked at, does not survive a fork.
    """
    methods = multiprocessing.get_all_start_methods()
    forks = "forkserver" in methods and not gpu
    context: Any = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(["bench.probe", "monai.networks.nets", "lightning_fabric"])
    first = context.Process(target=int)
    first.start()
    first.join()
    return context
