"""Cells in a process beside the worker, watched: one may hang, eat the memory or die, and no other.

The process is forked from a server that has imported torch and computed nothing, so that a cell
begins at once. A cell that ended well leaves it to the next, which finds libraries warm; any other
end is that of its process too.
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
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from bench.cells.memory import MB, own_mb
from bench.disk import DiskRefused
from bench.engine.between import Tidy
from bench.engine.order import Ended, Limits, Order
from bench.parent import die_with_parent
from bench.store import Busy, Store

POLL_S = 0.2
GRACE_S = 20.0
"""Between asking a cell to stop and killing it: time for a checkpoint."""
BEGIN_S = 120.0
"""In which a process, new or kept, takes an order."""
BEGUN = "begun"
MOST_KEPT_MB = 2000.0
"""A process that holds more than this after a cell is not kept for the next."""


class _Process:
    """Carries out one order after another, until it is told of no more."""

    def __init__(self) -> None:
        """OSError or EOFError: no memory for another process, or no server to fork it."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["bench.engine.preload"])
        self.pipe, there = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(there,))
        self.process.start()
        there.close()
        # Before this worker, at its own end, waits for the processes that it started.
        self._close = Finalize(self, self.pipe.close, exitpriority=10)

    def begins(self, order: dict[str, Any]) -> bool:
        """Give it an order; False where it ended before it began: nothing of the cell was done."""
        with suppress(OSError, EOFError):
            self.pipe.send(order)
            if wait([self.pipe, self.process.sentinel], BEGIN_S) and self.pipe.poll():
                return bool(self.pipe.recv() == BEGUN)
        return False

    def answer(self) -> Ended | None:
        """How the order ended; None of a process that died without a word."""
        with suppress(EOFError, OSError):
            if self.pipe.poll():
                return Ended(*self.pipe.recv())
        return None

    def end(self) -> None:
        """No more orders."""
        self._close()
        self.process.join(GRACE_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


_kept: _Process | None = None
"""The process that carried out this worker's last order well."""


def carry_out(order: dict[str, Any]) -> tuple[str, str]:
    """Execute an order in another process; an `Ended`.

    A cell that outstays its time or its memory is killed and noted as failed. One that dies without
    a word is "lost", unless the kernel killed it for want of memory.
    """
    global _kept
    asked = Order.from_json(order)
    # Parsl's worker asks whether the pool's process number is in use, which that of a dead process
    # is until somebody waits for it: in many containers, for ever.
    die_with_parent()
    killed = kills_for_memory()
    own, _kept = _kept, None
    if own is not None and not own.begins(order):  # asked to stop, or killed, while it had no cell
        own.end()
        own = None
    if own is None:
        try:
            own = _Process()
        except (OSError, EOFError) as error:
            return Ended("lost", f"no process could be started: {type(error).__name__}: {error}")
        if not own.begins(order):
            own.end()
            return Ended("lost", f"a new process ended with code {own.process.exitcode}")
    reason = _watch(own, asked.limits)
    ended = own.answer()
    if ended and _may_go_on(own, ended, asked):
        _kept = own
    else:
        own.end()
    if ended:
        return ended
    if not reason and own.process.exitcode == -signal.SIGKILL and kills_for_memory() > killed:
        reason = "Out of memory: the system killed the cell's process."
    if not reason:
        return Ended("lost", f"the cell's process ended with code {own.process.exitcode}")
    return _note_failure(asked, own.process.pid, reason)


def _may_go_on(own: _Process, ended: Ended, asked: Order) -> bool:
    """Whether the next cell may have the process: where memory is limited, each has its own."""
    well = ended.ending == "done" and asked.limits.memory_mb is None
    # A lock that a disk did not let go of is held for as long as the process lives.
    free = well and not Store(asked.out).in_work(asked.key)
    return free and resident_mb(own.process.pid) < MOST_KEPT_MB


def _note_failure(asked: Order, pid: int | None, reason: str) -> Ended:
    try:
        Store(asked.out).note(
            asked.key, "failed", host=socket.gethostname(), pid=pid or 0, reason=reason
        )
    except DiskRefused as error:
        return Ended("refused", str(error))
    return Ended("failed", reason)


def _serve(pipe: Connection) -> None:
    """The process: execute cells and say how each ended, until the worker closes the pipe."""
    stop, tidy, loaded = _Stop(), Tidy(), set[str]()
    threading.Thread(target=_end_with_worker, daemon=True).start()
    signal.signal(signal.SIGTERM, stop.ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the driver, which sends SIGTERM
    with suppress(EOFError, OSError):
        while not stop.asked:
            asked = Order.from_json(pipe.recv())
            stop.begin(remaining_s(asked.limits))
            pipe.send(BEGUN)
            if asked.gpus:
                worker = int(os.environ.get("PARSL_WORKER_RANK", "0"))
                os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(own_gpus(asked, worker))
            ended = _execute(asked, stop, loaded)
            tidy()
            pipe.send(tuple(ended))
            stop.idle()
    os._exit(0)  # nothing that a plug-in left running may hold the process


def _execute(asked: Order, stop: _Stop, loaded: set[str]) -> Ended:
    from bench.cells.execute import execute, reason
    from bench.device import Device
    from bench.errors import Interrupted
    from bench.registry import load_plugin

    try:
        for path in asked.plugins:
            if path not in loaded:
                load_plugin(Path(path))
                loaded.add(path)
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

    def __init__(self) -> None:
        self.asked = False
        self._end: float | None = None
        self._busy = False

    def begin(self, seconds: float | None) -> None:
        """A cell begins, which must stop after so many seconds."""
        self._end = None if seconds is None else time.monotonic() + seconds
        self._busy = True

    def idle(self) -> None:
        """No cell is in work: there is nothing to write before the end."""
        self._busy = False

    def ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        if not self._busy:
            os._exit(0)

    def requested(self) -> bool:
        return self.asked or (self._end is not None and time.monotonic() > self._end)


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


def _watch(own: _Process, limits: Limits) -> str:
    """Wait for an answer or the process's end; why it had to be killed, or ""."""
    process, start, pool = own.process, time.monotonic(), os.getppid()
    while not wait([own.pipe, process.sentinel], POLL_S):
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
