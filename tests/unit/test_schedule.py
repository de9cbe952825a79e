"""The schedule: every cell once, after what it needs, whatever fails, is damaged or is busy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bench.engine.schedule as module
from bench.engine.schedule import MOST_DAMAGED, Again, Schedule, chosen
from bench.errors import InputError
from bench.plan import Cell, Tags
from bench.store import Store


class Quiet:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, str]] = []

    def started(self, cell: Cell) -> None: ...

    def step(self, step: int, total: int, scalars: Mapping[str, float]) -> None: ...

    def ended(self, cell: Cell, status: str, reason: str) -> None:
        self.told.append(("ended", cell.title, status))

    def skipped(self, cell: Cell, status: str, reason: str) -> None:
        self.told.append(("skipped", cell.title, status))

    def paused(self, cell: Cell) -> None:
        self.told.append(("paused", cell.title, ""))

    def damaged(self, cell: Cell, reason: str) -> None:
        self.told.append(("damaged", cell.title, reason))


def cell(name: str, *needs: Cell) -> Cell:
    return Cell("fit", {"n": name}, {n.key: n.key for n in needs}, Tags(stage=name))


def complete(store: Store, one: Cell) -> None:
    with store.attempt(one.key) as fresh:
        store.note(one.key, "started", host="h", pid=1)
        (fresh / "a.bin").write_bytes(b"content")
        store.finish(one.key, fresh, [], {"seconds": 1.0, "environment": {}})
        store.note(one.key, "done")


def fail(store: Store, one: Cell, reason: str = "it broke") -> None:
    store.note(one.key, "started", host="h", pid=1)
    store.note(one.key, "failed", reason=reason)


def damage(store: Store, one: Cell) -> None:
    path = store.artefacts(one.key) / "a.bin"
    path.write_bytes(b"CONTENT")
    assert store.set_aside(one.key)


def filled(folder: Path, *cells: Cell) -> Store:
    store = Store(folder)
    store.prepare_folder()
    for one in cells:
        store.add(one)
    return store


A = cell("a")
B = cell("b", A)
C = cell("c", A, B)
D = cell("d")


def run(schedule: Schedule, store: Store, failing: tuple[Cell, ...] = ()) -> list[str]:
    """Carry out a schedule, one cell after another; the names in the order of their runs."""
    order = []
    while (one := schedule.take()) is not None:
        order.append(one.spec["n"])
        if one in failing:
            fail(store, one)
            schedule.ended(one, "failed")
        else:
            complete(store, one)
            schedule.ended(one, "done")
    return order


def test_cells_run_in_the_order_of_the_plan_and_done_ones_not_again(tmp_path: Path) -> None:
    store = filled(tmp_path, A, B, C, D)
    assert run(Schedule(store, [A, B, C, D], Quiet(), Again()), store) == ["a", "b", "c", "d"]
    assert run(Schedule(store, [A, B, C, D], Quiet(), Again()), store) == []


def test_a_failure_blocks_what_needs_it_until_it_is_tried_again(tmp_path: Path) -> None:
    store = filled(tmp_path, A, B, C, D)
    schedule = Schedule(store, [A, B, C, D], Quiet(), Again())
    assert run(schedule, store, failing=(A,)) == ["a", "d"]
    assert schedule.outcome[A.key] == ("failed", "it broke")
    assert schedule.outcome[B.key] == ("blocked", "needs fit a, which failed: it broke")
    assert schedule.outcome[C.key] == schedule.outcome[B.key]
    assert run(Schedule(store, [A, B, C, D], Quiet(), Again()), store) == []
    assert run(Schedule(store, [A, B, C, D], Quiet(), Again(failed=True)), store) == ["a", "b", "c"]


def test_chosen_cells_run_again_and_nothing_else(tmp_path: Path) -> None:
    store = filled(tmp_path, A, B, C, D)
    cells = [A, B, C, D]
    run(Schedule(store, cells, Quiet(), Again()), store)
    keys = chosen(cells, ["fit b", D.key[:8]])
    assert keys == {B.key, D.key}
    assert run(Schedule(store, cells, Quiet(), Again(keys=keys)), store) == ["b", "d"]
    assert chosen(cells, ["fit *"]) == {one.key for one in cells}
    with pytest.raises(InputError, match=r"'fit e'.*did you mean"):
        chosen(cells, ["fit e"])


def test_what_was_damaged_is_computed_before_what_reads_it(tmp_path: Path) -> None:
    store, watcher = filled(tmp_path, A, B, C), Quiet()
    complete(store, A)
    schedule = Schedule(store, [A, B, C], watcher, Again())
    assert schedule.take() == B
    damage(store, A)
    schedule.ended(B, "damaged")
    assert [told[:2] for told in watcher.told] == [("paused", "fit b"), ("damaged", "fit a")]
    assert run(schedule, store) == ["a", "b", "c"]
    assert {status for status, _ in schedule.outcome.values()} == {"done"}


def test_a_disk_that_keeps_failing_ends_the_run(tmp_path: Path) -> None:
    store = filled(tmp_path, A, B)
    schedule = Schedule(store, [A, B], Quiet(), Again())
    ran: Counter[str] = Counter()
    while (one := schedule.take()) is not None:
        ran[one.spec["n"]] += 1
        if one == A:
            complete(store, A)
            schedule.ended(A, "done")
        else:
            damage(store, A)
            schedule.ended(B, "damaged")
    assert ran == {"a": MOST_DAMAGED + 1, "b": MOST_DAMAGED + 1}
    assert schedule.outcome[A.key][0] == "failed"
    assert schedule.outcome[B.key][0] == "blocked"


def test_a_cell_in_other_hands_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    store = filled(tmp_path, A, B, D)
    schedule = Schedule(store, [A, B, D], Quiet(), Again())
    one = schedule.take()
    assert one == A
    schedule.busy(A)
    assert schedule.waits
    complete(store, A)  # by the other run
    assert run(schedule, store) == ["b", "d"]
    assert not schedule.waits


@settings(max_examples=40)
@given(data=st.data(), workers=st.integers(1, 4))
def test_whatever_happens_every_cell_ends_once_and_after_what_it_needs(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, workers: int
) -> None:
    cells: list[Cell] = []
    for i in range(data.draw(st.integers(1, 8))):
        places = data.draw(st.sets(st.integers(0, i - 1), max_size=3)) if i else set()
        cells.append(cell(str(i), *(cells[place] for place in sorted(places))))
    store = filled(tmp_path_factory.mktemp("out"), *cells)
    by_key: dict[str, Any] = {one.key: one for one in cells}
    watcher = Quiet()
    schedule = Schedule(store, cells, watcher, Again())
    running: list[Cell] = []
    while True:
        while len(running) < workers and (one := schedule.take()) is not None:
            assert one not in running
            assert all(store.is_done(need) for need in one.needs.values())
            running.append(one)
        if not running:
            break
        one = running.pop(data.draw(st.integers(0, len(running) - 1)))
        event = data.draw(st.sampled_from(["done", "done", "done", "failed", "damaged"]))
        if not all(store.is_done(need) for need in one.needs.values()):
            event = "damaged"  # a sibling found it first
        elif event == "damaged" and one.needs:
            damage(store, by_key[data.draw(st.sampled_from(sorted(one.needs.values())))])
        elif event == "failed":
            fail(store, one)
        else:
            event = "done"
            complete(store, one)
        schedule.ended(one, event)
    assert set(schedule.outcome) == set(by_key)
    for key, (status, _) in schedule.outcome.items():
        if status == "blocked":
            assert any(
                schedule.outcome[need][0] in ("failed", "blocked")
                for need in by_key[key].needs.values()
            )
        if status == "done":
            assert store.is_done(key) or any(told[0] == "damaged" for told in watcher.told)
