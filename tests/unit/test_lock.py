"""The lock of a cell: one holder, given up by the dead, never by the living."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from bench.lock import STALE_S, Lock

HOLD = """
import sys
from pathlib import Path
from bench.lock import Lock
with Lock(Path(sys.argv[1])) as held:
    print(held, flush=True)
    sys.stdin.readline()
"""

CONTEND = """
import os, sys, time
from pathlib import Path
from bench.lock import Lock
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for turn in range(int(sys.argv[2])):
    while not (folder / f"open-{turn}").exists():
        time.sleep(0.0005)
    with Lock(folder / f"lock-{turn}") as held:
        if held:
            os.mkdir(folder / f"inside-{turn}-{os.getpid()}")
            time.sleep(0.02)
            inside = len(list(folder.glob(f"inside-{turn}-*")))
            os.rmdir(folder / f"inside-{turn}-{os.getpid()}")
            print(f"{turn} {inside}", flush=True)
"""


def child(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds tmp_path / "lock"."""
    process = child(HOLD, tmp_path / "lock")
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    yield process
    process.kill()
    process.communicate()


def owned_by(path: Path, pid: int, started: float, host: str | None = None, age: float = 0) -> None:
    owner = {"host": host or socket.gethostname(), "pid": pid, "started": started}
    path.write_text(json.dumps(owner))
    os.utime(path, (time.time() - age,) * 2)


def test_a_living_process_keeps_its_lock(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert Lock(path).held()
    with Lock(path) as held:
        assert not held
    assert path.is_file()
    holder.communicate("\n")
    assert not Lock(path).held()
    with Lock(path) as held:
        assert held
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_loses_its_lock_at_once(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    holder.kill()
    while psutil.Process(holder.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    # Not waited for: in many containers nobody ever does.
    assert not Lock(tmp_path / "lock").held()
    with Lock(tmp_path / "lock") as held:
        assert held
    assert list(tmp_path.iterdir()) == []


def test_a_recycled_process_number_is_not_the_owner(tmp_path: Path) -> None:
    me = psutil.Process()
    owned_by(tmp_path / "lock", me.pid, me.create_time() - 1000)
    assert not Lock(tmp_path / "lock").held()
    owned_by(tmp_path / "lock", me.pid, me.create_time())
    assert Lock(tmp_path / "lock").held()


@pytest.mark.parametrize(("age", "held"), [(0, True), (STALE_S - 20, True), (STALE_S + 20, False)])
def test_another_hosts_lock_lives_by_its_heartbeat(tmp_path: Path, age: float, held: bool) -> None:
    owned_by(tmp_path / "lock", os.getpid(), 0, "another-host", age)
    assert Lock(tmp_path / "lock").held() == held
    with Lock(tmp_path / "lock") as mine:
        assert mine != held


def test_the_heart_beats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.lock.HEARTBEAT_S", 0.02)
    with Lock(tmp_path / "lock"):
        os.utime(tmp_path / "lock", (0, 0))
        deadline = time.monotonic() + 5
        while (tmp_path / "lock").stat().st_mtime == 0:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_rival_that_was_quicker_keeps_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a dead owner's file and its removal a rival may have taken over."""
    path = tmp_path / "lock"
    owned_by(path, os.getpid(), 0)
    look = Lock.held
    looked: list[bool] = []

    def held(lock: Lock) -> bool:
        found = look(lock)
        if not looked:
            parent = psutil.Process(os.getppid())
            path.unlink()
            owned_by(path, parent.pid, parent.create_time())
        looked.append(found)
        return found

    monkeypatch.setattr(Lock, "held", held)
    with Lock(path) as mine:
        assert not mine
        assert json.loads(path.read_text())["pid"] == os.getppid()
    assert looked[0] is False
    assert [p.name for p in tmp_path.iterdir()] == ["lock"]


def test_a_lock_that_was_lost_is_not_taken_from_its_new_owner(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with Lock(path) as held:
        assert held
        owned_by(path, 1, 0, "another-host")
    assert json.loads(path.read_text())["host"] == "another-host"


def test_contenders_for_a_dead_lock_are_never_inside_together(tmp_path: Path) -> None:
    turns = 20
    rivals = [child(CONTEND, tmp_path, turns) for _ in range(3)]
    for rival in rivals:
        assert rival.stdin is not None
        assert rival.stdout is not None
        assert rival.stdout.readline() == "ready\n"
        rival.stdin.write("\n")
        rival.stdin.flush()
    for turn in range(turns):
        owned_by(tmp_path / f"lock-{turn}", os.getpid(), 0)
        (tmp_path / f"open-{turn}").touch()
        time.sleep(0.03)
    seen = [line.split() for rival in rivals for line in rival.communicate()[0].splitlines()]
    assert {turn for turn, _ in seen} == {str(turn) for turn in range(turns)}
    assert {inside for _, inside in seen} == {"1"}
