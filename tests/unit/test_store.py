"""The store: a result is there whole or not at all, and nothing hides it afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.cells.execute import execute
from bench.device import Device
from bench.errors import InputError, Interrupted
from bench.plan import Cell
from bench.sealed import read_sealed, write_atomic, write_sealed
from bench.states import cell_states
from bench.store import Busy, Damaged, Store

CELL = Cell("fit", {"seed": 1})
FACTS: dict[str, Any] = {"seconds": 1.0, "environment": {}}

# A process that dies without a word before, between and after the steps of `finish`.
DIE = """
import os, shutil, signal, sys
from pathlib import Path
import bench.store as store_module
from bench.plan import Cell
from bench.store import Store
die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store, cell, moment = Store(sys.argv[1]), Cell("fit", {"seed": 1}), sys.argv[2]
if moment == "hashing":
    store_module.sums = die
if moment == "renaming":
    Path.rename = die
if moment == "result":
    store_module.write_sealed = die
if moment == "replacing":
    os.replace = die
with store.attempt(cell.key) as fresh:
    store.note(cell.key, "started", host="h", pid=1)
    (fresh / "sub").mkdir()
    (fresh / "sub" / "a.bin").write_bytes(b"torn" * 1000)
    if moment == "working":
        die()
    store.finish(cell.key, fresh, [], {"seconds": 1.0, "environment": {}})
    die()
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "out")
    assert store.prepare_folder()
    store.add(CELL)
    return store


def complete(store: Store, content: bytes = b"content") -> Path:
    """A finished attempt with one artefact; returns the artefact."""
    with store.attempt(CELL.key) as fresh:
        store.note(CELL.key, "started", host="h", pid=1)
        (fresh / "deep").mkdir()
        (fresh / "deep" / "a.bin").write_bytes(content)
        store.finish(CELL.key, fresh, [{"metric": "loss", "value": 0.5}], FACTS)
        store.note(CELL.key, "done")
    return store.artefacts(CELL.key) / "deep" / "a.bin"


def break_off(store: Store) -> None:
    """An attempt that ends by an exception with half of an artefact written."""

    def attempt() -> None:
        with store.attempt(CELL.key) as fresh:
            (fresh / "half").write_bytes(b"half")
            raise RuntimeError("broke")

    with pytest.raises(RuntimeError, match="broke"):
        attempt()


def test_a_finished_cell_holds_its_records_and_artefacts(store: Store) -> None:
    assert store.status(CELL.key) == ("waiting", "")
    artefact = complete(store)
    result = store.result(CELL.key)
    assert result is not None
    assert result["records"] == [{"metric": "loss", "value": 0.5}]
    assert result["artefacts"]["deep/a.bin"]["size"] == artefact.stat().st_size == 7
    assert store.status(CELL.key) == ("done", "")
    assert store.cell(CELL.key).key == CELL.key
    store.verify(CELL.key)
    assert not (store.folder(CELL.key) / "lock").exists()


@pytest.mark.parametrize("moment", ["working", "hashing", "renaming", "result", "replacing"])
def test_a_killed_write_leaves_no_result_and_the_next_try_succeeds(
    store: Store, moment: str
) -> None:
    dead = subprocess.run([sys.executable, "-c", DIE, str(store.out), moment], check=False)
    assert dead.returncode == -9
    assert store.result(CELL.key) is None
    status, reason = store.status(CELL.key)
    assert status == "interrupted"
    assert "process 1" in reason
    artefact = complete(store, b"whole")
    assert artefact.read_bytes() == b"whole"
    assert [p.name for p in store.artefacts(CELL.key).rglob("*")] == ["deep", "a.bin"]
    store.verify(CELL.key)


def test_what_was_finished_before_the_kill_is_finished(store: Store) -> None:
    dead = subprocess.run([sys.executable, "-c", DIE, str(store.out), "after"], check=False)
    assert dead.returncode == -9
    assert store.status(CELL.key) == ("done", "")
    store.verify(CELL.key)


def test_an_exception_leaves_no_result_and_frees_the_cell(store: Store) -> None:
    break_off(store)
    assert not store.is_done(CELL.key)
    with store.attempt(CELL.key) as fresh:
        assert list(fresh.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "grow"])
def test_damage_is_found(store: Store, damage: str) -> None:
    artefact = complete(store, bytes(range(256)) * 16)
    content = bytearray(artefact.read_bytes())
    if damage == "flip":
        content[1234] ^= 1
    artefact.write_bytes(content[:-1] if damage == "truncate" else content)
    if damage == "grow":
        artefact.write_bytes(content + b"\0")
    if damage == "remove":
        artefact.unlink()
    with pytest.raises(Damaged, match=r"a\.bin"):
        store.verify(CELL.key)


def flip(path: Path, byte: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1 << bit
    path.write_bytes(content)


def test_every_bit_of_a_result_is_watched(store: Store) -> None:
    complete(store)
    path = store.folder(CELL.key) / "result.json"
    whole = path.read_bytes()
    for byte in range(len(whole)):
        flip(path, byte, byte % 8)
        assert store.result(CELL.key) is None, f"byte {byte} of {path.read_bytes()!r}"
        path.write_bytes(whole)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert not store.is_done(CELL.key)
        assert store.status(CELL.key)[0] == "damaged"
    path.write_bytes(whole)
    assert store.is_done(CELL.key)


def test_a_damaged_description_of_a_cell_is_not_believed(store: Store) -> None:
    flip(store.folder(CELL.key) / "cell.json", 150, 0)
    with pytest.raises(Damaged, match=r"cell\.json"):
        store.cell(CELL.key)
    store.add(CELL)
    assert store.cell(CELL.key) == CELL


def test_what_is_damaged_is_set_aside_and_the_cell_waits(store: Store) -> None:
    artefact = complete(store)
    assert not store.set_aside(CELL.key)  # it is whole
    flip(artefact, 3, 3)
    with store.attempt(CELL.key):
        assert not store.set_aside(CELL.key)  # another process has the cell
    assert store.set_aside(CELL.key)
    status, reason = store.status(CELL.key)
    assert status == "damaged"
    assert "a.bin differs" in reason
    assert not artefact.exists()
    aside = sorted(p.name for p in (store.folder(CELL.key) / "damaged").rglob("*") if p.is_file())
    assert aside == ["a.bin", "result.json"]
    complete(store)
    assert store.status(CELL.key) == ("done", "")
    store.verify(CELL.key)


def test_a_verified_file_is_read_again_only_when_it_was_touched(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import bench.checksums as checksums

    read: list[Path] = []
    honest = checksums.sha256
    monkeypatch.setattr(checksums, "sha256", lambda path: read.append(path) or honest(path))
    artefact = complete(store)
    read.clear()
    for _ in range(3):
        store.verify(CELL.key)
    assert read == [artefact]
    store.verify(CELL.key, anew=True)
    assert read == [artefact] * 2
    os.utime(artefact)
    store.verify(CELL.key)
    assert read == [artefact] * 3


def test_another_attempt_at_a_done_cell_takes_its_place(store: Store) -> None:
    complete(store, b"earlier")
    break_off(store)
    artefact = store.artefacts(CELL.key) / "deep" / "a.bin"
    assert artefact.read_bytes() == b"earlier"
    complete(store, b"later")
    assert artefact.read_bytes() == b"later"
    store.verify(CELL.key)
    assert not (store.folder(CELL.key) / "artefacts.old").exists()


def test_a_failed_attempt_never_hides_a_result(store: Store) -> None:
    complete(store)
    store.note(CELL.key, "started", host="h", pid=1)
    store.note(CELL.key, "failed", reason="a later try failed")
    assert store.status(CELL.key) == ("done", "")
    break_off(store)
    assert store.status(CELL.key) == ("done", "")
    store.verify(CELL.key)


def test_executing_a_done_cell_again_does_nothing(store: Store) -> None:
    complete(store)
    attempts = len(store.attempts(CELL.key))
    assert execute(store, CELL.key, Device()) == "done"
    assert len(store.attempts(CELL.key)) == attempts


def test_a_result_of_another_version_is_none(store: Store) -> None:
    complete(store)
    path = store.folder(CELL.key) / "result.json"
    write_sealed(path, read_sealed(path) | {"version": 0})
    assert store.result(CELL.key) is None
    assert store.status(CELL.key) == ("waiting", "")


@given(torn=st.integers(0, 60))
def test_a_torn_last_line_is_passed_over_and_costs_no_other(
    tmp_path_factory: pytest.TempPathFactory, torn: int
) -> None:
    store = Store(tmp_path_factory.mktemp("out"))
    store.add(CELL)
    store.note(CELL.key, "started", host="h", pid=1)
    path = store.folder(CELL.key) / "attempts.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole[: min(torn, len(whole) - 1)])
    seen = store.attempts(CELL.key)
    assert seen[0]["event"] == "started"
    store.note(CELL.key, "failed", reason="why")
    store.note(CELL.key, "started", host="h", pid=2)
    assert [row["event"] for row in store.attempts(CELL.key)][-2:] == ["failed", "started"]
    assert len(store.attempts(CELL.key)) == len(seen) + 2


def test_a_cell_in_work_is_busy(store: Store) -> None:
    with store.attempt(CELL.key):
        assert store.status(CELL.key)[0] == "running"
        with pytest.raises(Busy), store.attempt(CELL.key):
            raise AssertionError("two attempts at once")
        assert store.status(CELL.key)[0] == "running"


def test_a_done_cell_that_is_run_again_shows_as_running(store: Store) -> None:
    complete(store)
    with store.attempt(CELL.key):
        assert cell_states(store, [CELL])[0]["status"] == "running"
        assert store.is_done(CELL.key)
    assert cell_states(store, [CELL])[0]["status"] == "done"


def test_where_inputs_lie_is_brought_up_to_date_until_the_cell_is_done(store: Store) -> None:
    for place in ("/old", "/new"):
        store.add(Cell("fit", {"seed": 1}, extra={"weights": place}))
    assert store.cell(CELL.key).extra == {"weights": "/new"}
    complete(store)
    store.add(Cell("fit", {"seed": 1}, extra={"weights": "/later"}))
    assert store.cell(CELL.key).extra == {"weights": "/new"}


@pytest.mark.parametrize(
    "error", [RuntimeError("it\nbroke"), SystemExit(3), MemoryError("37 GiB"), AssertionError()]
)
def test_a_failure_is_noted_with_its_reason(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def kind(_: str) -> Any:
        raise error

    monkeypatch.setattr("bench.cells.execute._kind", kind)
    assert execute(store, CELL.key, Device()) == "failed"
    status, reason = store.status(CELL.key)
    assert status == "failed"
    expected = {
        RuntimeError: "RuntimeError: it",
        SystemExit: "SystemExit: 3",
        MemoryError: "Out of memory: 37 GiB",
        AssertionError: "AssertionError",
    }
    assert reason == expected[type(error)]
    assert "Traceback" in store.attempts(CELL.key)[-1]["traceback"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Interrupted("Stopped at step 3")])
def test_an_interruption_is_no_failure(
    store: Store, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def kind(_: str) -> Any:
        raise error

    monkeypatch.setattr("bench.cells.execute._kind", kind)
    with pytest.raises(type(error)):
        execute(store, CELL.key, Device())
    assert store.status(CELL.key)[0] == "interrupted"
    assert not (store.folder(CELL.key) / "lock").exists()


def test_an_out_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere/out")):
        with pytest.raises(InputError, match=str(out)):
            Store(out).prepare_folder()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_atomic_write_leaves_the_old_text_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "text"
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
