"""A run talks to nobody: no process of it opens a connection beyond this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import finish
from toy_runs import tiny

GUARD = """
import ipaddress, os, sys

def loopback(host):
    if host in ("", "localhost", None):
        return True
    try:
        return ipaddress.ip_address(str(host).split("%")[0]).is_loopback
    except ValueError:
        return False

def guard(event, arguments):
    if event in ("socket.connect", "socket.bind", "socket.sendto"):
        address = arguments[-1]
        host = address[0] if isinstance(address, tuple) else ""  # else a path: a Unix socket
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(f"{'inside' if loopback(host) else 'OUTSIDE'} {event} {host!r}\\n")
    if not loopback(host):
        raise OSError(f"no connection to {host!r} is allowed")

with open(os.environ["GUARD_LOG"], "a") as log:
    log.write("guarded\\n")
sys.addaudithook(guard)
"""

FEW = ("--set", "scoring.task_features=false")


@pytest.mark.slow
def test_nothing_is_said_to_anybody(spawn: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(GUARD)
    log = tmp_path / "log"
    environment = {"PYTHONPATH": f"{tmp_path}:{Path.cwd()}", "GUARD_LOG": str(log)}
    ran = finish(spawn(*tiny(tmp_path / "out", "toy-joint", "none", *FEW), **environment))
    assert ran.code == 0, ran.err
    lines = log.read_text().splitlines()
    assert "guarded" in lines, "the guard stood"
    assert [line for line in lines if line.startswith("OUTSIDE")] == []


def test_the_libraries_are_told_to_keep_quiet() -> None:
    from huggingface_hub import constants

    import bench
    from bench.engine.config import EngineConfig
    from bench.engine.workers import executor, parsl_config

    assert bench.__version__
    assert constants.HF_HUB_DISABLE_TELEMETRY
    pytest.importorskip("parsl")
    config = EngineConfig()
    made = parsl_config(config, executor(config, Path("unused")), Path("unused"))
    assert made.usage_tracking == 0
