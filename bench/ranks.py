"""Several devices in one fit: what the processes, one for each, exchange at every step.

Each has all networks, computes on its share of the batch, and steps with the gradients of the whole
batch, as in distributed data parallel training (Li et al., arXiv 2006.15704). It is done here and
not by torch's wrapper of a module: see docs/adr/0015-several-devices.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map

States = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class Ranks:
    """This process among the `world` that train together; rank 0 leads: it validates and writes.

    Alone, nothing is exchanged and every method gives back what it was given. Otherwise all
    processes must call the same methods in the same order.
    """

    rank: int = 0
    world: int = 1
    folder: Path | None = None  # the leader's scratch, where its checkpoints are; None when alone

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def share(self, batch: Any, size: int) -> tuple[Any, float]:
        """This rank's rows of a batch of `size` cases, and what part of the batch they are.

        Split are all tensors and arrays in `batch` whose first axis has `size` entries. A rank
        that is left without a row computes one that counts nothing, so that it takes every step.
        """
        if self.world == 1:
            return batch, 1.0
        rows = np.array_split(np.arange(size), self.world)[self.rank]
        mine = slice(rows[0], rows[-1] + 1) if len(rows) else slice(0, 1)

        def cut(value: Any) -> Any:
            arrays = isinstance(value, Tensor | np.ndarray) and value.ndim
            return value[mine] if arrays and len(value) == size else value

        return tree_map(cut, batch), len(rows) / size

    def mean(self, value: float, weight: float) -> float:
        """Mean over the batch of a value that this rank has for the part `weight` of it."""
        return value if self.world == 1 else self._reduced(value * weight, dist.ReduceOp.SUM)

    def any(self, flag: bool) -> bool:
        """Whether any rank says so."""
        return flag if self.world == 1 else self._reduced(float(flag), dist.ReduceOp.MAX) > 0

    def _reduced(self, value: float, how: Any) -> float:
        total = torch.tensor(value, dtype=torch.float64, device=_device())
        dist.all_reduce(total, how)
        return float(total)

    def average_gradients(self, optimizer: torch.optim.Optimizer, weight: float) -> None:
        """Give every rank the gradients of the whole batch, for the parameters of `optimizer`."""
        if self.world == 1:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.uint8)
        used = used.to(_device())
        dist.all_reduce(used, dist.ReduceOp.MAX)
        waiting = []
        for parameter, anywhere in zip(parameters, used.tolist(), strict=True):
            if anywhere:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.mul_(weight)
                waiting.append(dist.all_reduce(parameter.grad, async_op=True))
        _wait(waiting)

    def follow(self, networks: Iterable[nn.Module]) -> None:
        """Take from the leader what gradients do not change: running means, codebooks."""
        if self.world == 1:
            return
        tensors = [
            tensor.data
            for network in networks
            for tensor in (
                *network.buffers(),
                *(p for p in network.parameters() if not p.requires_grad),
            )
        ]
        _wait([dist.broadcast(tensor, 0, async_op=True) for tensor in tensors])

    def told(self, compute: Callable[[], Mapping[str, float]]) -> Mapping[str, float]:
        """What the leader computes; the others wait for it."""
        if self.world == 1:
            return compute()
        box = [compute() if self.leads else None]
        dist.broadcast_object_list(box, 0, device=_device())
        told: Mapping[str, float] = box[0] or {}
        return told

    def same(self, states: Callable[[], States], like: States) -> States:
        """The leader's `states`, which have the shapes of `like`."""
        if self.world == 1:
            return states()
        given = states() if self.leads else like
        states_ = {
            name: {key: value.to(_device()).clone() for key, value in state.items()}
            for name, state in given.items()
        }
        _wait(
            [
                dist.broadcast(value, 0, async_op=True)
                for state in states_.values()
                for value in state.values()
            ]
        )
        return states_


ALONE = Ranks()


def _wait(works: Iterable[Any]) -> None:
    for work in works:
        work.wait()


def _device() -> torch.device:
    """Where the group's backend wants its tensors."""
    if dist.get_backend() == "nccl":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("cpu")


@dataclass(frozen=True)
class Member:
    """Tells Fabric that its processes exist already, and which of them this one is."""

    rank: int
    world: int

    def strategy(self) -> Any:
        """Fabric's data parallel strategy in this process."""
        from lightning_fabric.plugins.environments import LightningEnvironment
        from lightning_fabric.strategies import DDPStrategy

        rank = self.rank

        class Started(LightningEnvironment):  # type: ignore[misc]
            @property
            def creates_processes_externally(self) -> bool:
                return True

            def local_rank(self) -> int:
                return rank

        place = Started()
        place.set_global_rank(rank)
        place.set_world_size(self.world)
        return DDPStrategy(cluster_environment=place)
