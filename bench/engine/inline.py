"""The inline engine: this process, one cell after another."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

from bench.cells.execute import execute
from bench.device import Device
from bench.engine import Outcome, Watcher
from bench.errors import Interrupted
from bench.plan import Cell
from bench.store import Busy, Store

WAIT_S = 2.0
"""Between two looks at a cell that another run is working on."""


class InlineEngine:
    """Runs the cells in the plan's order; one that another run holds is looked at again later."""

    def run(
        self,
        store: Store,
        cells: Sequence[Cell],
        device: Device,
        watcher: Watcher,
        stop_requested: Callable[[], bool],
        retry_failed: bool = False,
    ) -> Outcome:
        """Execute every cell that is not done; failures block only what needs them."""
        outcome: Outcome = {}
        waiting = list(cells)
        while waiting:
            busy = []
            for cell in waiting:
                if any(key not in outcome for key in cell.needs.values()):
                    busy.append(cell)  # what it needs is another run's at the moment
                    continue
                try:
                    outcome[cell.key] = self._one(
                        store, cell, outcome, device, watcher, stop_requested, retry_failed
                    )
                except Busy:
                    busy.append(cell)
            if len(busy) == len(waiting):
                stop_if(stop_requested)
                time.sleep(WAIT_S)
            waiting = busy
        return outcome

    def _one(
        self,
        store: Store,
        cell: Cell,
        outcome: Outcome,
        device: Device,
        watcher: Watcher,
        stop_requested: Callable[[], bool],
        retry_failed: bool,
    ) -> tuple[str, str]:
        known = settled(store, cell, outcome, retry_failed)
        if known is None:
            stop_if(stop_requested)
            watcher.started(cell)
            status = execute(store, cell.key, device, watcher.step, stop_requested)
            known = (status, store.status(cell.key)[1])
            gc.collect()
            watcher.ended(cell, *known)
        elif known[0] != "done":
            watcher.skipped(cell, *known)
        return known


def stop_if(stop_requested: Callable[[], bool]) -> None:
    """Interrupted if the run was asked to stop."""
    if stop_requested():
        raise Interrupted("Stopped between two cells; run again to go on.")


def settled(
    store: Store, cell: Cell, outcome: Outcome, retry_failed: bool
) -> tuple[str, str] | None:
    """How a cell stands that needs no work: done, failed before, or without something it needs."""
    if store.is_done(cell.key):
        return "done", ""
    for role, key in cell.needs.items():
        status, reason = outcome[key]
        if status == "waiting":
            return "waiting", "not run yet"
        if status != "done":
            first = (
                reason
                if status == "blocked"
                else f"needs {store.cell(key).title}, which failed: {reason}"
            )
            return "blocked", first or f"needs {role}, which is not done"
    status, reason = store.status(cell.key)
    if status == "failed" and not retry_failed:
        return "failed", reason
    return None
