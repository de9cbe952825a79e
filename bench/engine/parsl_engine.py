"""The Parsl engine: several cells at a time, in processes of their own.

Parsl carries keys to workers and says which were lost; everything else goes through the store.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from pathlib import Path

from bench.device import Device
from bench.disk import DiskRefused
from bench.engine import Outcome, Watcher
from bench.engine.child import GRACE_S
from bench.engine.config import EngineConfig
from bench.engine.order import Ended, Limits, Order
from bench.engine.schedule import WAIT_S, Again, Schedule
from bench.engine.workers import Workers
from bench.errors import InputError, Interrupted
from bench.plan import Cell
from bench.store import Store

POLL_S = 1.0
MOST_LOST = 3
"""Times that a cell may vanish, or be interrupted and get no further, before it has failed."""


class ParslEngine:
    """Carries cells to Parsl's workers, as many at a time as the configuration says."""

    def __init__(self, config: EngineConfig, plugins: Sequence[Path] = ()) -> None:
        self.config = config
        self.plugins = tuple(str(path.resolve()) for path in plugins)

    def run(
        self,
        store: Store,
        cells: Sequence[Cell],
        device: Device,
        watcher: Watcher,
        stop_requested: Callable[[], bool],
        again: Again,
    ) -> Outcome:
        """Execute every cell that is not done; failures block only what needs them.

        Interrupted once a stop is asked for, when the cells in work have written their checkpoints.
        """
        _require_gpus(self.config, device)
        schedule = Schedule(store, cells, watcher, again)
        device = device.model_copy(update={"threads": self._threads(device)})
        driver = _Driver(self.config, store, schedule)
        try:
            while True:
                if stop_requested():
                    raise Interrupted("Stopped; run again to go on.")
                while driver.free() and (cell := schedule.take()):
                    if driver.start(cell, self._order(store, cell, device, again)):
                        watcher.started(cell)
                if driver.running:
                    driver.collect(POLL_S)
                elif schedule.waits:
                    time.sleep(WAIT_S)
                else:
                    return schedule.outcome
        finally:
            driver.close()

    def _order(self, store: Store, cell: Cell, device: Device, again: Again) -> Order:
        config = self.config
        limits = Limits(
            timeout_s=60 * config.timeout_minutes if config.timeout_minutes else None,
            memory_mb=1e3 * config.memory_gb if config.memory_gb else None,
            walltime_s=walltime_s(config),
        )
        return Order(
            str(store.out.resolve()),
            cell.key,
            device.model_dump(mode="json"),
            self.plugins,
            cell.key in again.keys,
            limits,
            gpus(config),
        )

    def _threads(self, device: Device) -> int:
        """CPU threads of a cell: what the configuration says, else this machine's share of one."""
        if device.threads or self.config.provider == "slurm":
            return device.threads
        return max(1, len(os.sched_getaffinity(0)) // self.config.workers)


def _require_gpus(config: EngineConfig, device: Device) -> None:
    """InputError if a cell is to train on more GPUs than a worker, or a job, has."""
    slurm = config.provider == "slurm"
    there = config.slurm.gpus if slurm else len(gpus(config))
    if there and device.devices > there:
        what = "slurm.gpus" if slurm else "the number of GPUs"
        raise InputError(
            f"device.devices is {device.devices}, more than {what}, {there}; lower it."
        )


class _Driver:
    """The cells that workers have, and the workers, who are started for the first cell."""

    def __init__(self, config: EngineConfig, store: Store, schedule: Schedule) -> None:
        self.running: dict[Future[tuple[str, str]], Cell] = {}
        self._config, self._store, self._schedule = config, store, schedule
        self._workers: Workers | None = None
        self._setbacks: Counter[str] = Counter()
        self._reached: dict[str, float] = {}  # key -> time of the newest checkpoint seen

    def free(self) -> bool:
        return len(self.running) < self._config.workers

    def start(self, cell: Cell, order: Order) -> bool:
        """Give a cell to a worker; False if another run has it at the moment."""
        if self._store.status(cell.key)[0] == "running":
            self._schedule.busy(cell)
            return False
        if self._workers is None:
            self._workers = Workers(self._config, self._store.out)
        self.running[self._workers.submit(order)] = cell
        return True

    def collect(self, seconds: float) -> None:
        """Settle what ends within `seconds`; all as lost if Parsl's own process died."""
        assert self._workers is not None
        for future in wait(self.running, seconds, FIRST_COMPLETED).done:
            self._settle(self.running.pop(future), self._workers.ended(future))
        if not self._workers.alive():
            self._workers.close()
            self._workers = None
            for cell in self.running.values():
                self._settle(cell, Ended("lost", "Parsl's interchange ended"))
            self.running.clear()

    def _settle(self, cell: Cell, ended: Ended) -> None:
        """Tell the schedule how a cell ended: again later, or for good."""
        ending = ended.ending
        if ending == "refused":
            raise DiskRefused(ended.reason)
        if ending == "lost" or (ending == "interrupted" and not self._got_further(cell)):
            self._setbacks[cell.key] += 1
            if self._setbacks[cell.key] >= MOST_LOST:
                reason = f"Lost {MOST_LOST} times, the last: {ended.reason}"
                self._store.note(cell.key, "failed", host="", pid=0, reason=reason)
                ending = "failed"
        if ending in ("lost", "interrupted", "busy"):
            self._schedule.busy(cell)
        else:
            self._schedule.ended(cell, ending)

    def _got_further(self, cell: Cell) -> bool:
        """Whether a cell that was interrupted has written a checkpoint since the last look."""
        files = self._store.work(cell.key).glob("resume/*.pt")
        newest = max((path.stat().st_mtime for path in files), default=0.0)
        before = self._reached.get(cell.key, 0.0)
        self._reached[cell.key] = newest
        return newest > before

    def close(self) -> None:
        """End the workers, and wait until their cells have given back their locks."""
        if self._workers is None:
            return
        self._workers.close()
        deadline = time.monotonic() + GRACE_S
        left = list(self.running.values())
        while left and time.monotonic() < deadline:
            left = [cell for cell in left if self._store.status(cell.key)[0] == "running"]
            time.sleep(0.2)


def walltime_s(config: EngineConfig) -> float | None:
    """Seconds from a job's start until its cell must checkpoint; None is no limit."""
    if config.provider == "local":
        return None
    hours, minutes, seconds = map(int, config.slurm.walltime.split(":"))
    whole = 3600 * hours + 60 * minutes + seconds
    if whole <= config.slurm.margin_s:
        raise InputError(
            f"slurm.walltime {config.slurm.walltime} is not longer than slurm.margin_s "
            f"{config.slurm.margin_s:g}, so that a cell would stop before it begins; give more."
        )
    return whole - config.slurm.margin_s


def gpus(config: EngineConfig) -> tuple[str, ...]:
    """Names of the local GPUs that workers are dealt, one each while there are enough."""
    if config.provider == "slurm":  # a job sees its own
        return ()
    import torch

    count = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    every = named.split(",")[:count] if named else [str(n) for n in range(count)]
    return tuple(every if config.gpus == "auto" else every[: config.gpus])
