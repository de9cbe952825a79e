"""Engines: what executes cells. An engine only carries keys; data go through the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from bench.device import Device
from bench.plan import Cell
from bench.store import Store


class Watcher(Protocol):
    """What a person is told while cells run."""

    def started(self, cell: Cell) -> None: ...

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None: ...

    def ended(self, cell: Cell, status: str, reason: str) -> None: ...

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        """A cell that will not run: it failed before, or something it needs did."""


class Engine(Protocol):
    """Runs every cell that is not done, each after what it needs."""

    def run(
        self,
        store: Store,
        cells: Sequence[Cell],
        device: Device,
        watcher: Watcher,
        stop_requested: Callable[[], bool],
        retry_failed: bool = False,
    ) -> dict[str, tuple[str, str]]:
        """Execute and return key -> (status, reason) of every cell: "done", "failed", "blocked"."""
        ...


Outcome = dict[str, tuple[str, str]]
