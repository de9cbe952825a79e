"""Live progress with the time left on a terminal, one plain line per cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from bench.plan import Cell
from bench.remaining import Estimate, duration
from bench.store import Store


class Plain:
    """A line when a cell ends; for logs and pipes."""

    def __init__(
        self, console: Console, cells: Sequence[Cell], store: Store, workers: int = 1
    ) -> None:
        self.console = console
        self.workers = workers
        self.total = len(cells)
        results = ((cell.key, store.result(cell.key)) for cell in cells)
        done = {key: result["seconds"] for key, result in results if result is not None}
        self.estimate = Estimate(cells, done)
        self._ended = set(done)  # keys; a cell that is run again counts once
        self.since: dict[str, float] = {}  # key of a cell in work -> when it began

    @property
    def done(self) -> int:
        """Cells that need no more work."""
        return len(self._ended)

    def __enter__(self) -> Plain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    def started(self, cell: Cell) -> None:
        self.since[cell.key] = time.monotonic()

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        """Steps are for terminals."""

    def ended(self, cell: Cell, status: str, reason: str) -> None:
        seconds = time.monotonic() - self.since.pop(cell.key)
        self._ended.add(cell.key)
        self.estimate.ended(cell, seconds if status == "done" else None)
        left = duration(self._left())
        what = "" if status == "done" else f" {status.upper()}: {reason}"
        self._print(f"[{self.done}/{self.total}] {cell.title} {seconds:.1f} s, {left} left{what}")

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        self._ended.add(cell.key)
        self.estimate.ended(cell, None)
        self._print(f"[{self.done}/{self.total}] {cell.title} {status.upper()}: {reason}")

    def paused(self, cell: Cell) -> None:
        self.since.pop(cell.key, None)

    def damaged(self, cell: Cell, reason: str) -> None:
        self._ended.discard(cell.key)
        self.estimate.opened(cell)
        self._print(f"{cell.title} DAMAGED: {reason} It is computed again.")

    def _left(self) -> float:
        """Seconds until the run ends, if its workers are always busy."""
        return self.estimate.seconds_left() / self.workers

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Live(Plain):
    """A bar of the run and one of each cell in work; failures stay above them.

    Steps are known of this process's own cell alone.
    """

    def __init__(
        self, console: Console, cells: Sequence[Cell], store: Store, workers: int = 1
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

    def __enter__(self) -> Live:
        self.bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.bars.stop()

    def started(self, cell: Cell) -> None:
        super().started(cell)
        if cell.key not in self.cell_bars:
            bar = self.bars.add_task(escape(cell.title), total=None, note="")
            self.cell_bars[cell.key] = bar

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        key, bar = next(iter(self.cell_bars.items()))
        spent = time.monotonic() - self.since[key]
        loss = "  ".join(f"{name} {value:.3g}" for name, value in scalars.items())
        note = f"{escape(loss)}  {duration(spent / max(step, 1) * (total - step))} left"
        self.bars.update(bar, total=total, completed=step, note=note)

    def ended(self, cell: Cell, status: str, reason: str) -> None:
        super().ended(cell, status, reason)
        self.bars.remove_task(self.cell_bars.pop(cell.key))
        self._show_run()

    def paused(self, cell: Cell) -> None:
        super().paused(cell)
        if cell.key in self.cell_bars:  # else another run had it before it began
            self.bars.remove_task(self.cell_bars.pop(cell.key))

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        super().skipped(cell, status, reason)
        self._show_run()

    def _show_run(self) -> None:
        note = f"{duration(self._left())} left"
        self.bars.update(self.run_bar, completed=self.done, note=note)


def make_watcher(console: Console, cells: Sequence[Cell], store: Store, workers: int = 1) -> Plain:
    """Bars on a terminal, lines elsewhere."""
    return (Live if console.is_terminal else Plain)(console, cells, store, workers)
