"""A pool whose shared server is killed ends by itself; one that ends as it should says so."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

POOL = """
import multiprocessing, threading, time
from bench.engine.pool import end_with_server

if __name__ == "__main__":
    ending = threading.Event()
    threading.Thread(target=end_with_server, args=[ending], daemon=True).start()
    server = multiprocessing.get_context("spawn").Manager()
    print(server._process.pid, flush=True)
    input()
    ending.set()
"""


@pytest.fixture
def pool(tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "pool.py"
    script.write_text(POOL)
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, script], stdin=pipe, stdout=pipe, text=True)


def test_it_ends_when_its_server_is_killed(pool: subprocess.Popen[str]) -> None:
    assert pool.stdout is not None
    psutil.Process(int(pool.stdout.readline())).send_signal(signal.SIGKILL)
    assert pool.wait(30) == 1


def test_it_ends_well_otherwise(pool: subprocess.Popen[str]) -> None:
    assert pool.stdout is not None
    assert pool.stdin is not None
    pool.stdout.readline()
    with pytest.raises(subprocess.TimeoutExpired):
        pool.wait(3)
    pool.stdin.write("\n")
    pool.stdin.close()
    assert pool.wait(30) == 0
