"""Live progress with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bench.plan import Cell
from bench.reached import Reached, reached
from bench.remaining import Estimate, duration
from bench.store import Store

LOG_S = 300.0
"""Between two lines about one cell in a log."""
SHOW_S = 1.0
"""Between two changes of the run's bar while a cell is in work."""
LOOK_S = 2.0
"""Between two looks at the curves that workers write."""


Method = TypeVar("Method", bound=Callable[..., None])


def _alone(method: Method) -> Method:
    """One thread at a time: cells begin and end while another looks how far they are."""

    @wraps(method)
    def locked(self: Plain, *args: Any) -> None:
        with self.lock:
            method(self, *args)

    return cast("Method", locked)


class Plain:
    """A line when a cell ends, and every few minutes of a long one; for logs and pipes."""

    def __init__(
        self, console: Console, cells: Sequence[Cell], store: Store, workers: int = 0
    ) -> None:
        self.console = console
        self.store = store
        self.workers = max(1, workers)
        self.elsewhere = workers > 0  # cells run in other processes
        self.total = len(cells)
        results = ((cell.key, store.result(cell.key)) for cell in cells)
        done = {key: result["seconds"] for key, result in results if result is not None}
        self.estimate = Estimate(cells, done)
        self._ended = set(done)  # keys; a cell that is run again counts once
        self.since: dict[str, float] = {}  # key of a cell in work -> when it began
        self.at_work: dict[str, Cell] = {}
        self._logged: dict[str, float] = {}  # key -> when a line last told of it
        self._first: dict[str, int] = {}  # key -> step at which this run met its fit
        self._ends: dict[str, float] = {}  # key -> when it will end, by its steps
        self._closed = threading.Event()
        self.lock = threading.RLock()

    @property
    def done(self) -> int:
        """Cells that need no more work."""
        return len(self._ended)

    def __enter__(self) -> Plain:
        if self.elsewhere:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()

    @_alone
    def started(self, cell: Cell) -> None:
        self.since[cell.key] = self._logged[cell.key] = time.monotonic()
        self.at_work[cell.key] = cell

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        """A step of this process's own cell, the only one in work."""
        self.moved(next(iter(self.at_work.values())), Reached(step, total, scalars))

    @_alone
    def moved(self, cell: Cell, at: Reached) -> None:
        """Say now and then how far a cell is."""
        if cell.key not in self.at_work:  # it ended while a thread looked
            return
        self._reached(cell, at)
        if time.monotonic() - self._logged.get(cell.key, 0.0) > LOG_S:
            self._logged[cell.key] = time.monotonic()
            self._print(f"{cell.title} step {at.step}/{at.total}  {self.note(cell, at)}")

    def note(self, cell: Cell, at: Reached) -> str:
        """The losses, and the time left for the cell by the steps that were watched."""
        loss = "  ".join(f"{name} {value:.3g}" for name, value in at.scalars.items())
        return f"{loss}  {duration(self._left_of(cell))} left".strip()

    def _reached(self, cell: Cell, at: Reached) -> None:
        """When the cell will end, by the steps that were watched."""
        now = time.monotonic()
        taken = at.step - self._first.setdefault(cell.key, at.step) + 1
        spent = now - self.since.get(cell.key, now)
        self._ends[cell.key] = now + spent / max(taken, 1) * (at.total - at.step)

    def _look(self) -> None:
        """A thread: how far the cells are that workers carry, by the curves they write."""
        while not self._closed.wait(LOOK_S):
            for cell in list(self.at_work.values()):
                with suppress(OSError, ValueError):  # half a row, or gone by now
                    if at := reached(self.store, cell):
                        self.moved(cell, at)

    def _forget(self, cell: Cell) -> float:
        """A cell that is no longer in work; the seconds that it was."""
        self.at_work.pop(cell.key, None)
        self._logged.pop(cell.key, None)
        self._first.pop(cell.key, None)
        self._ends.pop(cell.key, None)
        return time.monotonic() - self.since.pop(cell.key, time.monotonic())

    @_alone
    def ended(self, cell: Cell, status: str, reason: str) -> None:
        seconds = self._forget(cell)
        self._ended.add(cell.key)
        self.estimate.ended(cell, seconds if status == "done" else None)
        left = duration(self._left())
        what = "" if status == "done" else f" {status.upper()}: {reason}"
        self._print(f"[{self.done}/{self.total}] {cell.title} {seconds:.1f} s, {left} left{what}")

    @_alone
    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        self._ended.add(cell.key)
        self.estimate.ended(cell, None)
        self._print(f"[{self.done}/{self.total}] {cell.title} {status.upper()}: {reason}")

    @_alone
    def paused(self, cell: Cell) -> None:
        self._forget(cell)

    @_alone
    def damaged(self, cell: Cell, reason: str) -> None:
        self._ended.discard(cell.key)
        self.estimate.opened(cell)
        self._print(f"{cell.title} DAMAGED: {reason} It is computed again.")

    def _left(self) -> float:
        """Seconds until the run ends, if its workers are always busy, and its longest cell."""
        at_work = list(self.at_work.values())
        own = [self._left_of(cell) for cell in at_work]
        rest = self.estimate.seconds_left(without={cell.key for cell in at_work})
        # What is not known, nan, stays so: it is the first of the largest.
        return max((rest + sum(own)) / self.workers, *own, 0.0)

    def _left_of(self, cell: Cell) -> float:
        """Seconds of a cell in work: by its steps, or else by others of its kind."""
        now = time.monotonic()
        ends = self._ends.get(cell.key, self.since.get(cell.key, now) + self.estimate.guess(cell))
        return max(ends - now, 0.0)

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Live(Plain):
    """A bar of the run and one of each cell in work; failures stay above them."""

    def __init__(
        self, console: Console, cells: Sequence[Cell], store: Store, workers: int = 0
    ) -> None:
        super().__init__(console, cells, store, workers)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.run_bar = self.bars.add_task("run", total=self.total, completed=self.done, note="")
        self.cell_bars: dict[str, TaskID] = {}
        self._shown = 0.0  # when the bar of the run last changed

    def __enter__(self) -> Live:
        super().__enter__()
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self.bars.stop()

    @_alone
    def started(self, cell: Cell) -> None:
        super().started(cell)
        if cell.key not in self.cell_bars:
            bar = self.bars.add_task(escape(cell.title), total=None, note="")
            self.cell_bars[cell.key] = bar

    @_alone
    def moved(self, cell: Cell, at: Reached) -> None:
        bar = self.cell_bars.get(cell.key)
        if bar is None:  # it ended while a thread looked
            return
        self._reached(cell, at)
        note = escape(self.note(cell, at))
        self.bars.update(bar, total=at.total, completed=at.step, note=note)
        if time.monotonic() - self._shown > SHOW_S:  # the sum over all cells, at every step, costs
            self._show_run()

    @_alone
    def ended(self, cell: Cell, status: str, reason: str) -> None:
        super().ended(cell, status, reason)
        self.bars.remove_task(self.cell_bars.pop(cell.key))
        self._show_run()

    @_alone
    def paused(self, cell: Cell) -> None:
        super().paused(cell)
        if cell.key in self.cell_bars:  # else another run had it before it began
            self.bars.remove_task(self.cell_bars.pop(cell.key))

    @_alone
    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        super().skipped(cell, status, reason)
        self._show_run()

    def _show_run(self) -> None:
        self._shown = time.monotonic()
        note = f"{duration(self._left())} left"
        self.bars.update(self.run_bar, completed=self.done, note=note)


def make_watcher(console: Console, cells: Sequence[Cell], store: Store, workers: int = 0) -> Plain:
    """Bars on a terminal, lines elsewhere; `workers` is 0 where cells run in this process."""
    return (Live if console.is_terminal else Plain)(console, cells, store, workers)
