"""Execute one cell: lock it, run it, keep what it left or why it failed."""

from __future__ import annotations

import os
import platform
import socket
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.metadata import version
from typing import Any, Literal

from bench.cells.context import Context
from bench.cells.memory import PeakMemory
from bench.device import Device
from bench.disk import DiskRefused, refusal, refused
from bench.errors import Interrupted
from bench.records import Record
from bench.store import Damaged, Store
from bench.together import together

KINDS = {
    "prepare": "bench.cells.prepare:run",
    "fit": "bench.cells.fit:run",
    "sample": "bench.cells.sample:run",
    "labeller": "bench.cells.labeller:run",
    "label": "bench.cells.labeller:label",
    "features": "bench.cells.features:run",
    "score": "bench.cells.score:run",
    "task-score": "bench.cells.score:run",
    "memorise": "bench.cells.memorise:run",
    "task-memorise": "bench.cells.memorise:run",
    "diversity": "bench.cells.diversity:run",
    "structures": "bench.cells.structures:run",
    "fidelity": "bench.cells.fidelity:run",
    "segment": "bench.cells.segment:run",
}


def execute(
    store: Store,
    key: str,
    device: Device,
    progress: Callable[[int, int, Any], None] = lambda step, total, scalars: None,
    stop_requested: Callable[[], bool] = lambda: False,
    again: bool = False,
) -> Literal["done", "failed", "damaged"]:
    """Run the cell `key` and return "done", "failed" or "damaged"; what it needs must be done.

    A failure (an exception, a loss that is nan, a plug-in that calls sys.exit) is noted with its
    reason and traceback. KeyboardInterrupt and Interrupted pass through, noted as interrupted.
    "damaged": a cell that this one reads was not whole; it was set aside, and both are to be run.
    One that is done is not run, unless `again`. DiskRefused: the disk is full, read-only or gone,
    which is no failure of the cell.
    """
    with store.attempt(key) as fresh:
        if store.is_done(key) and not again:
            return "done"
        me = {"host": socket.gethostname(), "pid": os.getpid()}
        store.note(key, "started", **me)
        start = time.perf_counter()
        try:
            device.use_threads()
            context = Context(store.cell(key), store, fresh, device, progress, stop_requested)
            with PeakMemory() as memory, together(context) as leader:
                records = _kind(context.cell.kind)(leader)
            seconds = time.perf_counter() - start
            facts = {
                "seconds": seconds,
                "peak_memory_mb": memory.peak_mb,
                "environment": environment(device),
            }
            store.finish(key, fresh, [*records, *cost_records(facts)], facts)
        except (KeyboardInterrupt, Interrupted) as error:
            store.note(key, "interrupted", **me, reason=str(error) or "interrupted")
            raise
        except (Exception, SystemExit) as error:
            if problem := spoilt_input(store, key, error):
                store.note(key, "interrupted", **me, reason=problem)
                return "damaged"
            if (full := refusal(error)) or isinstance(error, DiskRefused):
                refusing = refused(store.out, full) if full else error
                with suppress(DiskRefused):
                    store.note(key, "interrupted", **me, reason=str(refusing))
                raise refusing from error
            store.note(
                key,
                "failed",
                **me,
                reason=reason(error),
                traceback=traceback.format_exc(),
                seconds=time.perf_counter() - start,
            )
            return "failed"
        store.note(key, "done", **me, seconds=seconds)
        return "done"


def spoilt_input(store: Store, key: str, error: BaseException) -> str:
    """What of the cell's input is not whole; "" if all is. It is set aside, to be made anew.

    Any failure may come of it: another process may have found the damage first and moved the files
    away while this cell read them.
    """
    if isinstance(error, Damaged) and error.key == key:  # its own description
        return ""
    problem = ""
    for need in store.cell(key).needs.values():
        try:
            store.verify(need, anew=True)
        except Damaged as damaged:
            store.set_aside(need)
            problem = problem or str(damaged)
    return problem


def _kind(kind: str) -> Callable[[Context], list[Record]]:
    module, function = KINDS[kind].split(":")
    run: Callable[[Context], list[Record]] = getattr(import_module(module), function)
    return run


def cost_records(facts: dict[str, Any]) -> list[Record]:
    """What the cell cost, as records."""
    return [
        Record(metric="seconds", value=facts["seconds"]),
        Record(metric="peak_memory_mb", value=facts["peak_memory_mb"]),
    ]


def reason(error: BaseException) -> str:
    """One line that says what failed."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"Out of memory: {error}".split("\n", 1)[0]
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def environment(device: Device) -> dict[str, str]:
    """Host, versions, precision, memory format: recorded with every result, never part of a key."""
    import torch

    libraries = ("voxelbench", "torch", "monai", "numpy", "lightning-fabric")
    return {
        "host": socket.gethostname(),
        "python": platform.python_version(),
        "precision": device.resolved_precision(),
        "memory_format": device.resolved_memory_format(),
        "threads": str(torch.get_num_threads()),
        "devices": str(device.devices),
        "device": device.name(),
        **{name: version(name) for name in libraries},
    }
