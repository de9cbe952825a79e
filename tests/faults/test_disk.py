"""Disks that are full, read-only or gone, and clocks that jump."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import finish, start
from toy_runs import Bench, attempts, cells, measured, statuses, tiny

from bench.cells.execute import execute
from bench.device import Device
from bench.disk import DiskRefused, refusal
from bench.plan import Cell
from bench.store import Store
from bench.validation import damaged_cells

Remount = Callable[[str], None]
SLOW = ("--set", "generators.toy-slow.nap=0.02", "--set", "device.checkpoint_minutes=0.0005")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    ran = finish(start(*tiny(out, "toy-joint,toy-slow", "toy-conv", *SLOW)))
    assert ran.code == 0, ran.err
    return out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, Remount]]:
    """A file system in memory, and a function that mounts it anew with other options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", disk], check=True, capture_output=True
        )

    try:
        mount("size=64m")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this user may not mount a tmpfs: {error}")
    yield disk, lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", disk], check=True)


def used_kb(folder: Path) -> int:
    return sum(p.stat().st_blocks // 2 for p in folder.rglob("*") if p.is_file())


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.4, 0.97])
def test_a_full_disk_ends_the_run_in_one_sentence_and_room_finishes_it(
    undisturbed: Path, small_disk: tuple[Path, Remount], share: float
) -> None:
    disk, remount = small_disk
    remount(f"size={int(share * used_kb(undisturbed))}k")
    command = tiny(disk / "out", "toy-joint,toy-slow", "toy-conv", *SLOW)
    ran = finish(start(*command))
    assert ran.code == 2, ran.out + ran.err
    assert "No space left" in ran.err
    assert "run again" in ran.err
    assert "Traceback" not in ran.out + ran.err
    remount("size=256m")
    if (disk / "out" / "run.json").is_file():
        assert "failed" not in {status for status, _ in statuses(disk / "out").values()}
    again = finish(start(*command))
    assert again.code == 0, again.out + again.err
    assert measured(disk / "out") == measured(undisturbed)
    assert all(events.count("done") <= 1 for events in attempts(disk / "out").values())
    assert not list(damaged_cells(Store(disk / "out"), list(cells(disk / "out").values())))


def told_last(err: str) -> str:
    """The command's own last word; before it, TensorBoard's thread may complain of the disk."""
    return err.rstrip().splitlines()[-1]


@pytest.mark.slow
def test_a_disk_that_becomes_read_only_ends_the_run_and_is_told_at_the_next(
    undisturbed: Path, small_disk: tuple[Path, Remount], bench: Bench
) -> None:
    disk, remount = small_disk
    command = tiny(disk / "out", "toy-joint,toy-slow", "toy-conv", *SLOW)
    process = start(*command)
    deadline = time.monotonic() + 120
    while not list((disk / "out").glob("cells/*/work/fit.csv")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    while True:
        try:
            remount("ro")
        except subprocess.CalledProcessError:  # a file is open for writing just now
            assert time.monotonic() < deadline
            continue
        break
    ran = finish(process)
    assert ran.code == 2, ran.out + ran.err
    assert told_last(ran.err).endswith("so mend that and run again.")
    assert "Read-only file system" in told_last(ran.err)
    told = bench(*command)
    assert told.code == 2
    assert "Read-only file system" in told.err
    assert bench("status", disk / "out").code == 0
    remount("rw,size=256m")
    assert bench(*command).code == 0
    assert measured(disk / "out") == measured(undisturbed)


@pytest.mark.slow
def test_a_folder_that_is_removed_under_the_run_is_told(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(*tiny(out, "toy-slow", "none", *SLOW))
    deadline = time.monotonic() + 120
    while not (out / "run.json").is_file() or not list(out.glob("cells/*/work/fit.csv")):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    shutil.rmtree(out, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    ran = finish(process)
    assert ran.code == 2, ran.out + ran.err
    wanted = f"bench: The folder {out} cannot be written or read: No such file or directory"
    assert told_last(ran.err).startswith(wanted)


@pytest.mark.parametrize("hide", [False, True])
def test_a_refusal_of_the_disk_is_no_failure_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hide: bool
) -> None:
    def full(_: object) -> list[object]:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            if hide:  # as torch's writer does
                raise RuntimeError("unexpected pos 64 vs 0") from error
            raise

    monkeypatch.setattr("bench.cells.execute._kind", lambda _: full)
    store, cell = Store(tmp_path), Cell("fit", {"seed": 1})
    store.prepare_folder()
    store.add(cell)
    with pytest.raises(DiskRefused, match="No space left on device"):
        execute(store, cell.key, Device())
    assert store.status(cell.key)[0] == "interrupted"
    assert refusal(FileNotFoundError(errno.ENOENT, "no such file")) is None


def test_a_clock_that_jumps_changes_nothing(
    bench: Bench, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance, honest = random.Random(1), time.time
    monkeypatch.setattr(time, "time", lambda: honest() + chance.uniform(-1e6, 1e6))
    out = tmp_path / "out"
    assert bench(*tiny(out, "toy-joint,toy-slow", "toy-conv", *SLOW)).code == 0
    os.utime(out, (0, 0))
    assert bench("status", out).code == 0
    assert measured(out) == measured(undisturbed)
    assert {tuple(events) for events in attempts(out).values()} == {("started", "done")}
