"""Which cell is next: what every engine asks, whatever carries its cells."""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from bench.engine import Outcome, Watcher
from bench.errors import InputError, nearest
from bench.plan import Cell
from bench.store import Store

WAIT_S = 2.0
"""Between two looks at a cell that another run is working on."""
MOST_DAMAGED = 3
"""Times that one run computes a damaged cell anew before it fails what reads it."""


def chosen(cells: Sequence[Cell], patterns: Sequence[str]) -> frozenset[str]:
    """Keys of the cells that one of `patterns` names: by title, as a shell matches file names, or
    by the first eight or more digits of a key. InputError names a pattern that fits no cell."""
    keys: set[str] = set()
    for pattern in patterns:
        found = {
            cell.key
            for cell in cells
            if fnmatchcase(cell.title, pattern)
            or (len(pattern) >= 8 and cell.key.startswith(pattern))
        }
        if not found:
            titles = sorted({cell.title for cell in cells})
            raise InputError(f"No cell is named {pattern!r}: {nearest(pattern, titles)}")
        keys |= found
    return frozenset(keys)


@dataclass(frozen=True)
class Again:
    """What is run although an earlier run ended it."""

    failed: bool = False
    keys: frozenset[str] = frozenset()  # done or not


class Schedule:
    """The cells of a plan that wait, are ready, or ended; each is given out after what it needs."""

    def __init__(self, store: Store, cells: Sequence[Cell], watcher: Watcher, again: Again) -> None:
        self.outcome: Outcome = {}
        self._store, self._watcher, self._again = store, watcher, again
        self._cells = {cell.key: cell for cell in cells}
        self._place = {cell.key: i for i, cell in enumerate(cells)}
        self._dependants: dict[str, list[str]] = {cell.key: [] for cell in cells}
        self._keys = [cell.key for cell in cells]
        self._ready: list[int] = []  # heap of places: the plan's order
        self._open: set[str] = set()  # in that heap
        self._given: set[str] = set()  # to an engine, and not ended yet
        self._busy: dict[str, float] = {}  # key -> when to look again
        self._damaged: Counter[str] = Counter()
        for cell in cells:
            for need in set(cell.needs.values()):
                self._dependants[need].append(cell.key)
        for cell in cells:
            self._consider(cell.key)

    def take(self) -> Cell | None:
        """The next cell to run; None where none is ready now. Settles those that need no work."""
        for key, when in list(self._busy.items()):
            if time.monotonic() >= when:
                del self._busy[key]
                self._consider(key)
        while self._ready:
            cell = self._cells[self._keys[heapq.heappop(self._ready)]]
            self._open.discard(cell.key)
            if not self._may(cell.key):  # what it needs was found damaged meanwhile
                continue
            known = settled(self._store, cell, self.outcome, self._cells, self._again)
            if known is None:
                self._given.add(cell.key)
                return cell
            if known[0] != "done":
                self._watcher.skipped(cell, *known)
            self._settle(cell.key, known)
        return None

    @property
    def waits(self) -> bool:
        """Whether a cell is in another run's hands."""
        return bool(self._busy)

    def ended(self, cell: Cell, status: str) -> None:
        """A cell that was given out has ended as `execute` says: done, failed or damaged."""
        self._given.discard(cell.key)
        if status == "damaged":
            self._mend(cell)
            return
        reason = "" if status == "done" else self._store.status(cell.key)[1]
        self._watcher.ended(cell, status, reason)
        self._settle(cell.key, (status, reason))

    def busy(self, cell: Cell) -> None:
        """A cell that was given out is in another run's hands: look at it again later."""
        self._given.discard(cell.key)
        self._watcher.paused(cell)
        self._busy[cell.key] = time.monotonic() + WAIT_S

    def _settle(self, key: str, known: tuple[str, str]) -> None:
        self.outcome[key] = known
        for dependant in self._dependants[key]:
            self._consider(dependant)

    def _may(self, key: str) -> bool:
        """Whether a cell waits and all it needs has ended."""
        taken = key in self.outcome or key in self._given or key in self._busy
        return not taken and all(need in self.outcome for need in self._cells[key].needs.values())

    def _consider(self, key: str) -> None:
        """Make a cell ready if it may run."""
        if key not in self._open and self._may(key):
            self._open.add(key)
            heapq.heappush(self._ready, self._place[key])

    def _mend(self, cell: Cell) -> None:
        """What `cell` needs and is damaged is computed again, and `cell` after it."""
        gone = [need for need in set(cell.needs.values()) if not self._store.is_done(need)]
        if not gone:  # another run is about to mend it, or has done so
            self.busy(cell)
        else:
            self._watcher.paused(cell)
        for need in gone:
            if need not in self.outcome:  # two cells found it damaged
                continue
            self._damaged[need] += 1
            reason = self._store.status(need)[1]
            if self._damaged[need] > MOST_DAMAGED:
                known = ("failed", f"damaged {self._damaged[need]} times: {reason}")
                self._watcher.skipped(self._cells[need], *known)
                self._settle(need, known)
                continue
            del self.outcome[need]
            self._watcher.damaged(self._cells[need], reason)
            self._consider(need)
        self._consider(cell.key)


def settled(
    store: Store,
    cell: Cell,
    outcome: Mapping[str, tuple[str, str]],
    cells: Mapping[str, Cell],
    again: Again = Again(),
) -> tuple[str, str] | None:
    """How a cell stands that needs no work: done, failed before, or without something it needs.

    `outcome` has what it needs, `cells` is the whole plan by key.
    """
    if cell.key not in again.keys and store.is_done(cell.key):
        return "done", ""
    for role, key in cell.needs.items():
        status, reason = outcome[key]
        if status == "waiting":
            return "waiting", "not run yet"
        if status != "done":
            first = (
                reason
                if status == "blocked"
                else f"needs {cells[key].title}, which failed: {reason}"
            )
            return "blocked", first or f"needs {role}, which is not done"
    status, reason = store.status(cell.key)
    if status == "failed" and not (again.failed or cell.key in again.keys):
        return "failed", reason
    return None
