"""`bench doctor`: what is slow and why, and how to get what is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Ran

import metrics.extractors.weights as weights_module
from bench import machine as machine_module
from bench.machine import Gpu, Machine, look, slow, usable_cores

FINE = Machine(
    gpus=(Gpu("H100", 70, 80),),
    driver=True,
    torch_cuda=True,
    cores=8,
    all_cores=8,
    threads=8,
    memory_free=60,
    memory=64,
    disk_free=500,
)


def test_nothing_is_said_of_a_good_machine() -> None:
    assert slow(FINE) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"gpus": (), "driver": False}, "There is no GPU"),
        ({"gpus": (), "torch_cuda": False}, "torch was built without CUDA"),
        ({"gpus": (), "bf16": True}, "device.precision=fast"),
        ({"cores": 2.0, "threads": 2}, "may use 2 of 8 cores"),
        ({"threads": 1}, "torch uses 1 of 8 cores: unset OMP_NUM_THREADS"),
        ({"load": 7.5}, "compute on 7.5 of 8 cores"),
        ({"memory_free": 1.0}, "1.0 GiB of memory are free, and the preset quick takes 1.6"),
        ({"disk_free": 0.5}, "0.5 GiB of disk are free"),
    ],
)
def test_what_is_slow_is_told_with_its_reason(changes: dict[str, object], said: str) -> None:
    told = slow(replace(FINE, **changes))  # type: ignore[arg-type]
    assert any(said in line for line in told), told


def test_this_machine_is_looked_at() -> None:
    here = look()
    assert 0 < here.cores <= here.all_cores
    assert here.threads == torch.get_num_threads()
    assert 0 < here.memory_free <= here.memory
    assert here.parsl


def test_a_containers_share_of_the_cores_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(machine_module, "CGROUP", tmp_path)
    whole = usable_cores()
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores() == whole
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert usable_cores() == 0.5


def test_the_doctor_says_every_way_to_the_weights(
    bench: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(weights_module.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(weights_module, "_in_hub_cache", lambda: None)
    told = bench("doctor").out
    for way in (
        "hf download TencentMedicalNet/MedicalNet-Resnet50 resnet_50_23dataset.pth",
        "--weights resnet_50_23dataset.pth",
        "export VOXELBENCH_MEDICALNET=",
        "without network",
    ):
        assert way in told
    wrong = tmp_path / "weights.pth"
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, wrong)
    monkeypatch.setenv(weights_module.WEIGHTS_VARIABLE, str(wrong))
    ran = bench("doctor")
    assert ran.code == 0
    assert "is not MedicalNet's ResNet-50" in ran.out
