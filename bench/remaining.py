"""How long a run has still to go, from the cells that ended."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from bench.plan import Cell


class Estimate:
    """Time left, from the cells that ended: those of the same network first, of the kind next."""

    def __init__(self, cells: Sequence[Cell], done: Mapping[str, float]) -> None:
        """`done`: seconds that each finished cell took, by its key."""
        self._left = {cell.key: cell for cell in cells if cell.key not in done}
        self._seen: dict[tuple[str, ...], tuple[float, int]] = {}  # seconds in all, of how many
        for cell in cells:
            if cell.key in done:
                self._note(cell, done[cell.key])

    def ended(self, cell: Cell, seconds: float | None) -> None:
        """One cell less; `seconds` is None where it did not run to its end and tells nothing."""
        self._left.pop(cell.key, None)
        if seconds is not None:
            self._note(cell, seconds)

    def opened(self, cell: Cell) -> None:
        """A cell that counted as done is to run again."""
        self._left[cell.key] = cell

    def seconds_left(self, without: Collection[str] = ()) -> float:
        """Sum over the cells left but some keys; nan until the first cell ended."""
        return sum(self.guess(cell) for key, cell in self._left.items() if key not in without)

    def _note(self, cell: Cell, seconds: float) -> None:
        for group in _groups(cell):
            total, count = self._seen.get(group, (0.0, 0))
            self._seen[group] = total + seconds, count + 1

    def guess(self, cell: Cell) -> float:
        """Seconds that a cell will take; nan until the first cell ended."""
        for group in _groups(cell):
            if group in self._seen:
                total, count = self._seen[group]
                return total / count
        return float("nan")


def _groups(cell: Cell) -> tuple[tuple[str, ...], ...]:
    network = cell.tags.segmenter or cell.tags.generator
    return (cell.kind, network), (cell.kind,), ()


def duration(seconds: float) -> str:
    """ "?" if unknown, else such as "45 s", "12 min", "3 h 20 min"."""
    if seconds != seconds:
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
