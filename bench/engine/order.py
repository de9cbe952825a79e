"""What an engine sends to another process, and what it is told: plain values, sent anywhere."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

Ending = Literal["done", "failed", "damaged", "busy", "interrupted", "refused", "lost"]


class Ended(NamedTuple):
    """How a cell ended, and why: "refused" by the disk, "lost" without a word."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True)
class Limits:
    """What ends a cell from outside; None is no limit."""

    timeout_s: float | None = None  # of one try
    memory_mb: float | None = None  # resident, of the cell's process and its children
    walltime_s: float | None = None  # from the worker's own start; then the cell checkpoints


@dataclass(frozen=True)
class Order:
    """One cell to execute."""

    out: str
    key: str
    device: dict[str, Any]  # of `Device.model_dump`
    plugins: tuple[str, ...] = ()  # files of --plugin
    again: bool = False
    limits: Limits = Limits()
    gpus: tuple[str, ...] = ()  # of the driver's machine, dealt out to its workers; () leaves all

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Order:
        limits = Limits(**value["limits"])
        lists = {name: tuple(value[name]) for name in ("plugins", "gpus")}
        return cls(**{**value, **lists, "limits": limits})
