"""Live progress with the time left on a terminal, one plain line per cell elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from bench.plan import Cell
from bench.store import Store


class Estimate:
    """Time left, from the cells that ended: those of the same network first, of the kind next."""

    def __init__(self, cells: Sequence[Cell], store: Store) -> None:
        self._left = {cell.key: cell for cell in cells if not store.is_done(cell.key)}
        self._seen: dict[tuple[str, ...], list[float]] = {}
        for cell in cells:
            result = store.result(cell.key)
            if result is not None:
                self._note(cell, result["seconds"])

    def ended(self, cell: Cell, seconds: float | None) -> None:
        """One cell less; `seconds` is None where it did not run to its end and tells nothing."""
        self._left.pop(cell.key, None)
        if seconds is not None:
            self._note(cell, seconds)

    def seconds_left(self) -> float:
        """Sum over the cells left; nan until the first cell ended."""
        return sum(self._guess(cell) for cell in self._left.values())

    def _note(self, cell: Cell, seconds: float) -> None:
        for group in _groups(cell):
            self._seen.setdefault(group, []).append(seconds)

    def _guess(self, cell: Cell) -> float:
        for group in _groups(cell):
            if group in self._seen:
                return sum(self._seen[group]) / len(self._seen[group])
        return float("nan")


def _groups(cell: Cell) -> tuple[tuple[str, ...], ...]:
    network = cell.tags.segmenter or cell.tags.generator
    return (cell.kind, network), (cell.kind,), ()


class Plain:
    """A line when a cell ends; for logs and pipes."""

    def __init__(self, console: Console, cells: Sequence[Cell], store: Store) -> None:
        self.console = console
        self.total = len(cells)
        self.estimate = Estimate(cells, store)
        self.done = sum(store.is_done(cell.key) for cell in cells)
        self.since = 0.0

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
        self.since = time.monotonic()

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        """Steps are for terminals."""

    def ended(self, cell: Cell, status: str, reason: str) -> None:
        seconds = time.monotonic() - self.since
        self.done += 1
        self.estimate.ended(cell, seconds if status == "done" else None)
        left = duration(self.estimate.seconds_left())
        what = "" if status == "done" else f" {status.upper()}: {reason}"
        self._print(f"[{self.done}/{self.total}] {cell.title} {seconds:.1f} s, {left} left{what}")

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        self.done += 1
        self.estimate.ended(cell, None)
        self._print(f"[{self.done}/{self.total}] {cell.title} {status.upper()}: {reason}")

    def _print(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Live(Plain):
    """Two bars, the run's and the cell's; failures stay above them."""

    def __init__(self, console: Console, cells: Sequence[Cell], store: Store) -> None:
        super().__init__(console, cells, store)
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.run_bar = self.bars.add_task("run", total=self.total, completed=self.done, note="")
        self.cell_bar = self.bars.add_task("", total=None, note="")

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
        self.bars.reset(self.cell_bar, total=None, description=escape(cell.title), note="")

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None:
        spent = time.monotonic() - self.since
        loss = "  ".join(f"{name} {value:.3g}" for name, value in scalars.items())
        note = f"{escape(loss)}  {duration(spent / max(step, 1) * (total - step))} left"
        self.bars.update(self.cell_bar, total=total, completed=step, note=note)

    def ended(self, cell: Cell, status: str, reason: str) -> None:
        super().ended(cell, status, reason)
        self._show_run()

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        super().skipped(cell, status, reason)
        self._show_run()

    def _show_run(self) -> None:
        left = duration(self.estimate.seconds_left())
        self.bars.update(self.run_bar, completed=self.done, note=f"{left} left")


def make_watcher(console: Console, cells: Sequence[Cell], store: Store) -> Plain:
    """Bars on a terminal, lines elsewhere."""
    return (Live if console.is_terminal else Plain)(console, cells, store)


def duration(seconds: float) -> str:
    """ "?" if unknown, else such as "45 s", "12 min", "3 h 20 min"."""
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
