"""Cells in processes of their own: what they do wrong costs them alone, and changes no number."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TOYS, finish, start
from family import Family
from toy_runs import Bench, attempts, cells, measured, statuses, tiny

from bench.engine.child import remaining_s
from bench.engine.config import EngineConfig, read_engine
from bench.engine.order import Limits
from bench.engine.parsl_engine import walltime_s
from bench.errors import InputError
from bench.store import Store

pytestmark = pytest.mark.slow
WORKERS = ("--workers", "2", "--set", "device.threads=1")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder in which the data are prepared and arm R is done."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    ran = finish(start(*tiny(out, "none", "toy-conv", "--set", "device.threads=1")))
    assert ran.code == 0, ran.err
    return out


@pytest.fixture
def out(prepared: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(prepared, tmp_path / "out"))


def test_two_workers_give_the_records_of_one_process(out: Path, tmp_path: Path) -> None:
    pytest.importorskip("parsl")
    both = tmp_path / "both"
    shutil.copytree(out, both)
    alone = ("--set", "device.threads=1")
    assert finish(start(*tiny(out, "toy-plain,toy-joint", "toy-conv", *alone))).code == 0
    family, heard, seen = Family(), set[str](), 0
    process = family.start(*tiny(both, "toy-plain,toy-joint", "toy-conv", *WORKERS))
    while process.poll() is None:
        heard |= family.addresses()
        seen = max(seen, len(family.members()))
        time.sleep(0.5)
    ran = finish(process)
    assert ran.code == 0, ran.out + ran.err
    assert seen >= 7, "the driver, Parsl's two, two workers, their servers, cells"
    assert measured(both) == measured(out)
    assert heard == {"127.0.0.1"}, "nobody else can reach the workers"
    assert {tuple(events) for events in attempts(both).values()} == {("started", "done")}
    carried = processes(both)
    assert len(carried) > 10
    assert len(set(carried) - set(processes(out))) <= 2, "each worker's process goes on"


def processes(out: Path) -> list[int]:
    """The processes that carried cells to their end, one for each cell."""
    told = [Store(out).attempts(cell.key) for cell in cells(out).values()]
    return [events[-1]["pid"] for events in told if events]


def test_a_chain_of_cells_is_carried_to_its_end(out: Path) -> None:
    """Each cell ends before another is ready: there is a moment in which no worker has one."""
    pytest.importorskip("parsl")
    alone = ("--set", "device.threads=1", "--set", "scoring.task_features=false")
    ran = finish(start(*tiny(out, "toy-joint", "none", *alone, "--workers", 1)))
    assert ran.code == 0, ran.out + ran.err
    assert {status for status, _ in statuses(out).values()} == {"done"}


@pytest.mark.parametrize(
    "faults",
    [
        {
            "plain": ("hang", "Timeout: the cell did not end within 20 s."),
            "joint": ("crash", "-11"),
        },
        {"plain": ("hoard", "Out of memory: the cell used "), "joint": ("vanish", "code 0")},
    ],
)
def test_cells_that_go_wrong_are_told_and_the_rest_goes_on(
    out: Path, tmp_path: Path, faults: dict[str, tuple[str, str]]
) -> None:
    pytest.importorskip("parsl")
    engine = tmp_path / "engine.yaml"
    engine.write_text("workers: 2\ntimeout_minutes: 0.3333333\nmemory_gb: 2\n")
    wrong = [f"generators.toy-{name}.fault={fault}" for name, (fault, _) in faults.items()]
    more = [word for setting in (*wrong, "device.threads=1") for word in ("--set", setting)]
    command = tiny(out, "toy-plain,toy-joint,toy-slow", "toy-conv", "--engine", engine, *more)
    before = set(processes(out))
    ran = finish(start(*command))
    assert ran.code == 1, ran.out + ran.err
    known = statuses(out)
    for name, (fault, reason) in faults.items():
        status, why = known[f"fit toy-{name} fit"]
        assert status == "failed"
        assert reason in why
        if fault in ("crash", "vanish"):
            assert why.startswith("Lost 3 times, the last: the cell's process ended with code ")
        assert known[f"sample toy-{name}"][0] == "blocked"
    assert known["segment toy-conv liver-only R+S toy-slow"][0] == "done"
    carried = [process for process in processes(out) if process not in before]
    assert len(carried) == len(set(carried)) > 5, "with a limit on memory, each its own"


KEPT = """
import os, signal, sys
from bench.device import Device
from bench.engine import child
from bench.engine.order import Order

if __name__ == "__main__":
    out, key, plugin = sys.argv[1:]
    device = Device(threads=1).model_dump(mode="json")
    order = Order(out, key, device, (plugin,), again=True).to_json()
    for fate in (None, signal.SIGKILL, signal.SIGTERM, None):
        print(*child.carry_out(order), child._kept.process.pid)
        if fate:
            os.kill(child._kept.process.pid, fate)
"""


def test_a_process_that_dies_between_two_cells_costs_neither(out: Path, tmp_path: Path) -> None:
    """A worker's process goes on to the next cell; killed or asked to stop while it has none, it is
    replaced, and no cell counts as lost."""
    script = tmp_path / "kept.py"
    script.write_text(KEPT)
    key = cells(out)["segment toy-conv liver-only R"].key
    expected = Store(out).result(key)
    command = [sys.executable, str(script), str(out), key, str(TOYS)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    told = [line.split() for line in ran.stdout.splitlines()]
    assert [ending for ending, _ in told] == ["done"] * 4
    first, second, third, fourth = (process for _, process in told)
    assert first == second
    assert len({second, third, fourth}) == 3
    again = Store(out).result(key)
    assert expected is not None
    assert again is not None
    assert again["artefacts"] == expected["artefacts"], "its process had carried another"


def test_what_a_plug_in_writes_over_is_found_and_made_anew(bench: Bench, out: Path) -> None:
    expected = Store(out).result(cells(out)["prepare"].key)
    assert expected is not None
    ran = bench(*tiny(out, "toy-joint", "toy-conv", "--set", "generators.toy-joint.fault=outside"))
    assert ran.code == 0, ran.out + ran.err
    assert "prepare DAMAGED: " in ran.out
    found = Store(out).result(cells(out)["prepare"].key)
    assert found is not None
    assert found["artefacts"] == expected["artefacts"]


def test_an_engine_file_names_what_it_cannot_be(tmp_path: Path) -> None:
    path = tmp_path / "engine.yaml"
    path.write_text("workers: 0\n")
    with pytest.raises(InputError, match=r"engine\.yaml at workers: .*greater than or equal to 1"):
        read_engine(path, None)
    path.write_text("slurm: {walltime: tomorrow}\n")
    with pytest.raises(InputError, match=r"slurm\.walltime"):
        read_engine(path, None)
    path.write_text("provider: slurm\nslurm: {partition: gpu, walltime: '00:10:00'}\n")
    read = read_engine(path, 8)
    assert read is not None
    assert (read.provider, read.workers, read.slurm.partition) == ("slurm", 8, "gpu")
    assert walltime_s(read) == 600 - 120
    assert read_engine(None, None) is None
    assert read_engine(None, 3) == EngineConfig(workers=3)


def test_a_cell_stops_by_the_time_that_its_job_began() -> None:
    assert remaining_s(Limits()) is None
    begun = {"SLURM_JOB_START_TIME": str(time.time() - 100)}
    left = remaining_s(Limits(walltime_s=160), begun)
    assert left is not None
    assert 55 < left <= 60
