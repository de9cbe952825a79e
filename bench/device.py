"""The device and precision that a cell runs with."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.errors import InputError
from bench.generator import Frozen

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["auto", "fast", "32-true", "bf16-mixed"]
MemoryFormat = Literal["contiguous", "channels_last"]


class Device(Frozen):
    """Where networks run; recorded with every result, never part of a key."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto is the first GPU where there is one, else the CPU"
    )
    precision: Precision = Field(
        "auto",
        description="auto: bf16-mixed on a GPU that multiplies bf16, else 32-true; fast: "
        "bf16-mixed on a CPU that multiplies bf16 as well",
    )
    threads: int = Field(0, ge=0, description="CPU threads of a cell; 0 leaves torch's own choice")
    memory_format: Literal["auto", "contiguous", "channels_last"] = Field(
        "auto", description="of networks in training; channels_last on a CUDA GPU, else contiguous"
    )
    devices: int = Field(
        1, ge=1, description="GPUs, or processes of a CPU, that train one network together"
    )
    checkpoint_minutes: float = Field(10.0, gt=0, description="time between a fit's checkpoints")

    def fabric(self, rank: int = 0, world: int = 1) -> Fabric:
        """A Fabric with the resolved precision, on one device: of several, that of `rank`."""
        from lightning_fabric import Fabric

        from bench.ranks import Member

        # It announces its precision anew for every cell, between the lines of progress.
        logging.getLogger("lightning_utilities.core.rank_zero").setLevel(logging.WARNING)
        logging.getLogger("lightning_fabric.utilities.rank_zero").setLevel(logging.WARNING)
        with warnings.catch_warnings():
            # One device needs no srun, on a cluster or off.
            warnings.filterwarnings("ignore", message="The `srun` command is available")
            fabric = Fabric(
                accelerator=self.accelerator,
                devices=world,
                strategy="auto" if world == 1 else Member(rank, world).strategy(),
                precision=self.resolved_precision(),
            )
        fabric.launch()
        return fabric

    def torch_device(self) -> str:
        """Name of the one torch device that Fabric chooses, such as "cpu" or "cuda:0"."""
        return str(self.fabric().device)

    def name(self) -> str:
        """The device in words: a GPU's name, or "cpu"."""
        import torch

        device = self.torch_device()
        return torch.cuda.get_device_name(device) if device.startswith("cuda") else device

    def use_threads(self) -> None:
        """Set this process's CPU threads."""
        import torch

        if self.threads:
            torch.set_num_threads(self.threads)

    def share_threads(self, among: int) -> Device:
        """The setting of each of several processes that share this one's CPU threads."""
        import torch

        threads = self.threads or torch.get_num_threads()
        return self.model_copy(update={"threads": max(1, threads // among)})

    def check(self) -> None:
        """InputError if this machine has no such device, or not as many."""
        import torch

        if self.on_cuda() and self.devices > torch.cuda.device_count():
            raise InputError(
                f"device.devices is {self.devices}, but this machine has "
                f"{torch.cuda.device_count()} GPUs; lower it."
            )
        try:
            self.fabric()
        except Exception as error:  # Fabric's own types differ between accelerators
            raise InputError(
                f"device.accelerator is {self.accelerator!r}, which this machine does not offer: "
                f"{error}; use auto or cpu."
            ) from error

    def resolved_precision(self) -> Literal["32-true", "bf16-mixed"]:
        """What "auto" means on this machine: see docs/adr/0005-precision.md for the CPU."""
        if self.precision == "32-true" or self.precision == "bf16-mixed":
            return self.precision
        import torch

        if self.on_cuda():
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = self.precision == "fast" and torch.cpu._is_avx512_bf16_supported()
        return "bf16-mixed" if fast else "32-true"

    def resolved_memory_format(self) -> MemoryFormat:
        """What "auto" means on this machine: see docs/adr/0010-memory-format.md for the CPU."""
        if self.memory_format != "auto":
            return self.memory_format
        return "channels_last" if self.on_cuda() else "contiguous"

    def on_cuda(self) -> bool:
        """Whether networks run on a CUDA GPU."""
        import torch

        return self.accelerator in ("auto", "cuda") and torch.cuda.is_available()
