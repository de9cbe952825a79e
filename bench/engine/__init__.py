"""Engines: what executes cells. An engine only carries keys; data go through the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from bench.device import Device
from bench.plan import Cell
from bench.store import Store

if TYPE_CHECKING:
    from bench.engine.schedule import Again


class Watcher(Protocol):
    """What a person is told while cells run."""

    def started(self, cell: Cell) -> None: ...

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None: ...

    def ended(self, cell: Cell, status: str, reason: str) -> None: ...

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        """A cell that will not run: it failed before, or something it needs did."""

    def paused(self, cell: Cell) -> None:
        """A cell that was begun and waits again: for another run, a new worker or what it reads."""

    def damaged(self, cell: Cell, reason: str) -> None:
        """A cell that was done and is run again, because its files are not whole."""


class Engine(Protocol):
    """Runs every cell that is not done, each after what it needs."""

    def run(
        self,
        store: Store,
        cells: Sequence[Cell],
        device: Device,
        watcher: Watcher,
        stop_requested: Callable[[], bool],
        again: Again,
    ) -> dict[str, tuple[str, str]]:
        """Execute and return key -> (status, reason) of every cell: "done", "failed", "blocked"."""
        ...


Outcome = dict[str, tuple[str, str]]
