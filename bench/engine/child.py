"""A cell in a process of its own, watched: it may hang, eat the memory or die, and no other does.

The process is forked from a server that has imported torch and computed nothing, so that a cell
begins at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from bench.cells.memory import MB, own_mb
from bench.disk import DiskRefused
from bench.engine.order import Ended, Limits, Order
from bench.store import Busy, Store
from bench.together import die_with_parent

POLL_S = 0.2
GRACE_S = 20.0
"""Between asking a cell to stop and killing it: time for a checkpoint."""


def carry_out(order: dict[str, Any]) -> tuple[str, str]:
    """Execute an order in a process of its own; an `Ended`.

    A cell that outstays its time or its memory is killed and noted as failed. One that dies without
    a word is "lost", unless the kernel killed it for want of memory.
    """
    asked = Order.from_json(order)
    # Parsl's worker asks whether the pool's process number is in use, which that of a dead process
    # is until somebody waits for it: in many containers, for ever.
    die_with_parent()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bench.engine.preload"])
    killed = kills_for_memory()
    listen, speak = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(order, speak))
    try:
        process.start()
    except (OSError, EOFError) as error:  # no memory for another process, or no server
        return Ended("lost", f"no process could be started: {type(error).__name__}: {error}")
    speak.close()
    reason = _watch(process, asked.limits)
    with suppress(EOFError, OSError):
        if listen.poll():
            return Ended(*listen.recv())
    if not reason and process.exitcode == -signal.SIGKILL and kills_for_memory() > killed:
        reason = "Out of memory: the system killed the cell's process."
    if not reason:
        return Ended("lost", f"the cell's process ended with code {process.exitcode}")
    return _note_failure(asked, process.pid, reason)


def _note_failure(asked: Order, pid: int | None, reason: str) -> Ended:
    try:
        Store(asked.out).note(
            asked.key, "failed", host=socket.gethostname(), pid=pid or 0, reason=reason
        )
    except DiskRefused as error:
        return Ended("refused", str(error))
    return Ended("failed", reason)


def _work(order: dict[str, Any], speak: Connection) -> None:
    """The process: execute the cell and say how it ended."""
    asked = Order.from_json(order)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    stop = _Stop(remaining_s(asked.limits))
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the driver, which sends SIGTERM
    if asked.gpus:
        worker = int(os.environ.get("PARSL_WORKER_RANK", "0"))
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus(asked, worker))
    speak.send(tuple(_execute(asked, stop)))
    os._exit(0)  # nothing that a plug-in left running may hold the process


def _execute(asked: Order, stop: _Stop) -> Ended:
    from bench.cells.execute import execute, reason
    from bench.device import Device
    from bench.errors import Interrupted
    from bench.registry import load_plugin

    try:
        for path in asked.plugins:
            load_plugin(Path(path))
        device = Device.model_validate(asked.device)
        store = Store(asked.out)
        ending = execute(store, asked.key, device, stop_requested=stop.requested, again=asked.again)
        return Ended(ending)
    except Busy:
        return Ended("busy")
    except (Interrupted, KeyboardInterrupt) as error:
        return Ended("interrupted", str(error))
    except DiskRefused as error:
        return Ended("refused", str(error))
    except Exception as error:  # before the cell began: a plug-in's file that this host lacks
        return _note_failure(asked, os.getpid(), reason(error))


def own_gpus(order: Order, worker: int) -> list[str]:
    """The GPUs of one worker: as many as a cell trains on, its own while there are enough."""
    devices = min(int(order.device["devices"]), len(order.gpus))
    first = worker * devices
    return [order.gpus[(first + n) % len(order.gpus)] for n in range(devices)]


class _Stop:
    """Asked by SIGTERM, or by the end of the time that a batch system gives."""

    def __init__(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._asked = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def requested(self) -> bool:
        return self._asked or (self._end is not None and time.monotonic() > self._end)


def remaining_s(limits: Limits, environment: Mapping[str, str] = os.environ) -> float | None:
    """Seconds until the cell must checkpoint; None is no limit.

    A batch job began when its Slurm says, or else when the worker's process did.
    """
    if limits.walltime_s is None:
        return None
    begun = environment.get("SLURM_JOB_START_TIME")
    worker = multiprocessing.parent_process()
    if begun is None and worker is not None:
        begun = str(psutil.Process(worker.pid).create_time())
    return limits.walltime_s - (time.time() - float(begun or time.time()))


def _end_with_worker() -> None:
    """A thread of the cell: once its worker is gone, ask for a checkpoint, then kill."""
    worker = multiprocessing.parent_process()
    if worker is not None:
        worker.join()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE_S)
        os.kill(os.getpid(), signal.SIGKILL)


def _watch(process: BaseProcess, limits: Limits) -> str:
    """Wait for the process; why it had to be killed, or ""."""
    start, pool = time.monotonic(), os.getppid()
    while process.is_alive():
        process.join(POLL_S)
        if os.getppid() != pool:  # nobody would hear of the end
            _end(process)
            return ""
        if limits.timeout_s is not None and time.monotonic() - start > limits.timeout_s:
            _end(process)
            return f"Timeout: the cell did not end within {limits.timeout_s:g} s."
        if limits.memory_mb is None:
            continue
        used = resident_mb(process.pid)
        if used > limits.memory_mb:
            process.kill()
            process.join()
            return (
                f"Out of memory: the cell used {used:.0f} MB, more than the {limits.memory_mb:g} "
                "MB that the engine allows."
            )
    return ""


def _end(process: BaseProcess) -> None:
    """Ask for a checkpoint, then kill."""
    process.terminate()
    process.join(GRACE_S)
    if process.is_alive():
        process.kill()
        process.join()


def resident_mb(pid: int | None) -> float:
    """Memory of a process and of all that it started, without the files that they have mapped."""
    total = 0.0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += own_mb(one)
    return total * MB / 1e6


def kills_for_memory() -> int:
    """Processes that the kernel has killed for want of memory; 0 where it does not say."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
