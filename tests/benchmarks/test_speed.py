"""How fast: what the documentation promises, in processor time, which a busy machine leaves alone.

`pytest tests/benchmarks` prints the table of pytest-benchmark.
"""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import count
from typing import Any

import numpy as np
import pytest

from bench.datasets.phantom import phantom_case
from metrics.frechet import frechet_distance


@pytest.fixture
def benchmark(benchmark: Any) -> Any:
    """pytest-benchmark's, measuring this thread's processor time."""
    benchmark._timer = time.thread_time
    return benchmark


@pytest.mark.parametrize(("side", "seconds"), [(32, 0.1), (96, 1.0)])
def test_phantom_cases_a_second(benchmark: Any, slowness: float, side: int, seconds: float) -> None:
    """10 cases a second at 32^3, 1 at 96^3, on one core."""
    index = count()
    benchmark.pedantic(
        lambda: phantom_case(next(index), 1, (side,) * 3), rounds=10, warmup_rounds=1
    )
    assert np.median(benchmark.stats.stats.data) < seconds * slowness


def test_frechet_distance_at_the_papers_size(benchmark: Any, slowness: float) -> None:
    """144 volumes, 2048 features: the matrix root takes some 30 s for what takes 0.1 s here."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 144, 2048))
    benchmark.pedantic(lambda: frechet_distance(a, b), rounds=3, warmup_rounds=1)
    assert np.median(benchmark.stats.stats.data) < 1.0 * slowness


@pytest.mark.parametrize("arguments", [["--help"], ["list"]])
def test_the_command_line_starts_within_half_a_second_of_python(
    slowness: float, arguments: list[str]
) -> None:
    """The least of several processes' processor times: start-up without this machine's noise."""
    code = f"import sys; sys.argv[1:] = {arguments}; from bench.cli.main import main; main()"
    ours = min(_processor_seconds(code) for _ in range(5))
    bare = min(_processor_seconds("pass") for _ in range(5))
    assert ours - bare < 0.5 * slowness


def _processor_seconds(code: str) -> float:
    import resource

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
