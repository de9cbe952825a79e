"""A true Slurm: one cell is one job; what is cancelled, drained or out of time is done once."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, finish, start
from slurm_cluster import Cluster, NoSlurm, cluster
from toy_runs import attempts, cells, measured, statuses, tiny

from bench.store import Store

pytestmark = pytest.mark.slow
TOY = ("toy-joint,toy-slow", "toy-conv", "--set", "device.threads=1")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pytest.importorskip("parsl")
    try:
        with cluster(tmp_path_factory.mktemp("slurm") / "cluster") as made:
            yield made
    except NoSlurm as error:
        pytest.skip(f"no Slurm on this machine: {error}")


def engine_file(folder: Path, walltime: str = "00:10:00", margin_s: float = 30) -> Path:
    path = folder / "slurm.yaml"
    lines = [
        "provider: slurm",
        "workers: 2",
        "slurm:",
        f"  walltime: '{walltime}'",
        f"  margin_s: {margin_s}",
        "  cores: 1",
        "  poll_s: 1",
        f"  setup: 'cd {ROOT}; export PATH={Path(sys.executable).parent}:$PATH OMP_NUM_THREADS=1'",
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def running(slurm: Cluster) -> list[dict[str, str]]:
    return [job for job in slurm.jobs("RUNNING") if job["node"]]


def test_a_run_through_slurm_with_a_cancelled_job_and_a_drained_node(
    slurm: Cluster, tmp_path: Path
) -> None:
    calm, out = tmp_path / "calm", tmp_path / "out"
    slow = ("--set", "generators.toy-slow.nap=0.1", "--set", "device.checkpoint_minutes=0.005")
    assert finish(start(*tiny(calm, *TOY, *slow))).code == 0
    process = start(*tiny(out, *TOY, *slow, "--engine", engine_file(tmp_path)), **slurm.environment)
    curve = Store(out).work(cells(calm)["fit toy-slow fit"].key) / "fit.csv"
    wait_for(lambda: curve.is_file() or process.poll() is not None)
    cancelled = running(slurm)
    slurm.call("scancel", *(job["id"] for job in cancelled))
    wait_for(lambda: bool(running(slurm)) or process.poll() is not None)
    slurm.call("scontrol", "update", "NodeName=one", "State=DRAIN", "Reason=tested")
    ran = finish(process, 600)
    assert ran.code == 0, ran.out + ran.err
    slurm.call("scontrol", "update", "NodeName=one", "State=RESUME")
    assert cancelled
    assert measured(out) == measured(calm)
    events = attempts(out)
    assert all(told.count("done") <= 1 for told in events.values()), events
    assert events["fit toy-slow fit"].count("started") > 1
    hosts = {event.get("host") for c in cells(out).values() for event in Store(out).attempts(c.key)}
    assert len(hosts - {None}) == 1


@pytest.mark.long
def test_a_fit_longer_than_the_walltime_takes_several_jobs(slurm: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out"
    # 30 steps of three seconds, in jobs of two minutes that stop a minute before their end.
    nap = ("--set", "generators.toy-slow.nap=3", "--set", "generators.toy-slow.training.steps=30")
    engine = engine_file(tmp_path, "00:02:00", 60)
    command = tiny(out, "toy-slow", "none", "--set", "device.threads=1", *nap, "--engine", engine)
    ran = finish(start(*command, **slurm.environment), 1800)
    assert ran.code == 0, ran.out + ran.err
    events = attempts(out)["fit toy-slow fit"]
    assert events.count("interrupted") >= 1
    assert events[-2:] == ["started", "done"]
    assert {status for status, _ in statuses(out).values()} == {"done"}
    rows = (Store(out).work(cells(out)["fit toy-slow fit"].key) / "fit.csv").read_text()
    steps = [int(row.split(",")[0]) for row in rows.splitlines() if ",loss/all," in row]
    assert steps == list(range(1, 31)), "every step once"
