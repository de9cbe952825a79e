"""What several tests share: the command line in this process and in another, and toy plug-ins."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

# Before torch is imported: threads that wait for one another slow tiny networks down, on a busy
# machine a hundredfold.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
TOYS = Path(__file__).parent / "integration" / "toy_plugins.py"


class Ran(NamedTuple):
    """A command that ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def restored_registries() -> Iterator[None]:
    """What a test registers is forgotten after it."""
    with restored():
        yield


@pytest.fixture(autouse=True, scope="module")
def restored_registries_of_a_module() -> Iterator[None]:
    """What a module's own fixtures register is forgotten after it."""
    with restored():
        yield


@contextmanager
def restored() -> Iterator[None]:
    """The registries are afterwards as they were before."""
    from bench.registry import EXTRACTORS, GENERATORS, SEGMENTERS

    kept = [(r, dict(r._loaded), dict(r._files)) for r in (GENERATORS, SEGMENTERS, EXTRACTORS)]
    yield
    for registry, loaded, files in kept:
        registry._loaded, registry._files = loaded, files


@pytest.fixture
def bench(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """`bench("run", ...)` in this process."""
    from bench.cli.main import main

    def call(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["bench", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ran(int(code or 0), *capsys.readouterr())

    return call


def start(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    """`python -m bench.cli.main ...` in another process, its output in pipes."""
    return subprocess.Popen(
        [sys.executable, "-m", "bench.cli.main", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout_s: float = 300) -> Ran:
    """Wait for a started command."""
    out, err = process.communicate(timeout=timeout_s)
    return Ran(process.returncode, out, err)


@pytest.fixture
def spawn() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`spawn("run", ...)` starts the command in another process; what still runs is killed."""
    started: list[subprocess.Popen[str]] = []

    def call(*arguments: object, **environment: str) -> subprocess.Popen[str]:
        started.append(start(*arguments, **environment))
        return started[-1]

    yield call
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()


ORDINARY_S = 0.03
"""In which an ordinary core adds up a million numbers in Python."""


@pytest.fixture(scope="session")
def slowness() -> float:
    """How many times longer this core takes than an ordinary one, for which limits of time are; 1
    if it is no slower."""
    return max(1.0, min(_adding_s() for _ in range(7)) / ORDINARY_S)


def _adding_s() -> float:
    start, total = time.process_time(), 0
    for n in range(1_000_000):
        total += n
    return time.process_time() - start
