"""The inline engine: this process, one cell after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from bench.cells.execute import execute
from bench.device import Device
from bench.engine import Outcome, Watcher
from bench.engine.between import Tidy
from bench.engine.schedule import WAIT_S, Again, Schedule
from bench.errors import Interrupted
from bench.plan import Cell
from bench.store import Busy, Store


class InlineEngine:
    """Runs the cells in the plan's order; one that another run holds is looked at again later."""

    def run(
        self,
        store: Store,
        cells: Sequence[Cell],
        device: Device,
        watcher: Watcher,
        stop_requested: Callable[[], bool],
        again: Again,
    ) -> Outcome:
        """Execute every cell that is not done; failures block only what needs them."""
        schedule, tidy = Schedule(store, cells, watcher, again), Tidy()
        while (cell := schedule.take()) is not None or schedule.waits:
            stop_if(stop_requested)
            if cell is None:
                time.sleep(WAIT_S)
                continue
            watcher.started(cell)
            try:
                status = execute(
                    store,
                    cell.key,
                    device,
                    watcher.step,
                    stop_requested,
                    again=cell.key in again.keys,
                )
            except Busy:
                schedule.busy(cell)
                continue
            tidy()
            schedule.ended(cell, status)
        return schedule.outcome


def stop_if(stop_requested: Callable[[], bool]) -> None:
    """Interrupted if the run was asked to stop."""
    if stop_requested():
        raise Interrupted("Stopped between two cells; run again to go on.")
