"""The device and precision that a cell runs with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from bench.errors import InputError
from bench.generator import Frozen

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Precision = Literal["auto", "32-true", "bf16-mixed"]


class Device(Frozen):
    """Where networks run; recorded with every result, never part of a key."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="auto is the first GPU where there is one, else the CPU"
    )
    precision: Precision = Field(
        "auto", description="bf16-mixed on a GPU that multiplies bf16, else 32-true"
    )
    threads: int = Field(0, ge=0, description="CPU threads of a cell; 0 leaves torch's own choice")
    checkpoint_minutes: float = Field(10.0, gt=0, description="time between a fit's checkpoints")

    def fabric(self) -> Fabric:
        """A Fabric on one device with the resolved precision."""
        from lightning_fabric import Fabric

        fabric = Fabric(
            accelerator=self.accelerator, devices=1, precision=self.resolved_precision()
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

    def check(self) -> None:
        """InputError if this machine has no such device."""
        try:
            self.fabric()
        except Exception as error:  # Fabric's own types differ between accelerators
            raise InputError(
                f"device.accelerator is {self.accelerator!r}, which this machine does not offer: "
                f"{error}; use auto or cpu."
            ) from error

    def resolved_precision(self) -> Literal["32-true", "bf16-mixed"]:
        """What "auto" means on this machine: see docs/adr/0005-precision.md for the CPU."""
        if self.precision != "auto":
            return self.precision
        import torch

        cuda = self.accelerator in ("auto", "cuda") and torch.cuda.is_available()
        fast = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        return "bf16-mixed" if fast else "32-true"
