"""What this machine offers to a run, and what of it would make a run slow."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
QUICK_GIB = 1.6
"""Memory that the preset quick was measured to take."""
LITTLE_DISK_GIB = 5.0


@dataclass(frozen=True)
class Gpu:
    """One CUDA device."""

    name: str
    free_gib: float
    whole_gib: float


@dataclass(frozen=True)
class Machine:
    """What a run may use here; memory and disk in GiB."""

    gpus: tuple[Gpu, ...] = ()
    driver: bool = False  # whether there is an NVIDIA driver, whatever torch can do
    torch_cuda: bool = False  # whether torch was built for CUDA
    cores: float = 1.0  # that this process may use
    all_cores: int = 1
    threads: int = 1  # of torch
    load: float = 0.0  # mean number of other processes that compute, over a minute
    bf16: bool = False  # whether the CPU multiplies bf16
    memory_free: float = 0.0
    memory: float = 0.0
    disk_free: float = 0.0
    parsl: bool = True
    tensorboard: bool = True


def look(folder: Path = Path()) -> Machine:
    """This machine; the disk is that of `folder`."""
    import psutil
    import torch

    memory = psutil.virtual_memory()
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    free = memory.available if limit is None else min(memory.available, limit - (used or 0))
    gpus = []
    for i in range(torch.cuda.device_count()):
        left, whole = torch.cuda.mem_get_info(i)
        gpus.append(Gpu(torch.cuda.get_device_name(i), left / GIB, whole / GIB))
    return Machine(
        gpus=tuple(gpus),
        driver=shutil.which("nvidia-smi") is not None,
        torch_cuda=torch.version.cuda is not None,
        cores=usable_cores(),
        all_cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        load=os.getloadavg()[0],
        bf16=torch.cpu._is_avx512_bf16_supported(),
        memory_free=max(0.0, free / GIB),
        memory=min(memory.total, limit or memory.total) / GIB,
        disk_free=shutil.disk_usage(folder).free / GIB,
        parsl=find_spec("parsl") is not None,
        tensorboard=find_spec("tensorboard") is not None,
    )


def usable_cores() -> float:
    """Cores that the process is allowed, by affinity and by its container's share."""
    allowed = float(len(os.sched_getaffinity(0)))
    with suppress(OSError, ValueError):
        quota, period = (CGROUP / "cpu.max").read_text(encoding="ascii").split()
        allowed = min(allowed, int(quota) / int(period))
    return allowed


def _cgroup(name: str) -> int | None:
    """A limit of the container in bytes; None where there is none."""
    with suppress(OSError, ValueError):
        return int((CGROUP / name).read_text(encoding="ascii"))
    return None


def slow(machine: Machine) -> list[str]:
    """A sentence for everything that would make a run slow or end it, with the reason."""
    told = _compute(machine)
    if machine.memory_free < QUICK_GIB:
        told.append(
            f"{machine.memory_free:.1f} GiB of memory are free, and the preset quick takes "
            f"{QUICK_GIB:g}: end other programs."
        )
    if machine.disk_free < LITTLE_DISK_GIB:
        told.append(
            f"{machine.disk_free:.1f} GiB of disk are free here: bench estimate says what a run "
            "leaves; a full disk ends it."
        )
    return told


def _compute(machine: Machine) -> list[str]:
    told = []
    if not machine.gpus:
        why = "There is no GPU"
        if machine.driver and not machine.torch_cuda:
            why = (
                "There is an NVIDIA driver, but torch was built without CUDA: install a CUDA build"
            )
        told.append(
            f"{why}; the preset quick is meant for CPUs, paper for GPUs, and bench estimate "
            "measures what yours takes."
        )
        if machine.bf16:
            told.append(
                "This CPU multiplies bf16, which is off by default: --set device.precision=fast "
                "turns it on."
            )
    if machine.cores < machine.all_cores:
        told.append(
            f"This process may use {machine.cores:g} of {machine.all_cores} cores, by its affinity "
            "or its container."
        )
    if machine.threads + 0.5 < machine.cores:
        told.append(
            f"torch uses {machine.threads} of {machine.cores:g} cores: unset OMP_NUM_THREADS, or "
            "give --set device.threads, or several --workers."
        )
    if machine.load > 0.5 * machine.cores:
        told.append(
            f"Programs compute on {machine.load:.1f} of {machine.cores:g} cores at the moment."
        )
    return told
