"""What extractors that are networks share: how they are run, and how they are told what to feed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@torch.inference_mode()
def in_batches(
    network: Callable[[Tensor], Tensor], images: NDArray[Any], device: str, batch_size: int
) -> NDArray[Any]:
    """The network's output of every image, few of them on the device at once.

    Computed in float32 with neither autocast nor TF32, whose rounding would depend on the GPU.

    Args:
        network: maps a batch ``(b, ...)`` of float32 on the device to features ``(b, d)``.
        images: ``(B, ...)``, B >= 1, of any strides.
        device: torch device, such as "cpu" or "cuda:0".
        batch_size: images on the device at once; it bounds memory and does not change features.

    Returns:
        ``(B, d)``, of the network's own precision.
    """
    where = torch.device(device)
    rows = []
    with (
        torch.autocast(where.type, enabled=False),
        torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False),
    ):
        for start in range(0, len(images), batch_size):
            part = np.array(images[start : start + batch_size], dtype=np.float32, order="C")
            rows.append(network(torch.from_numpy(part).to(where)).cpu().numpy())
    return np.concatenate(rows)


def chosen(preprocess: str, known: Sequence[str]) -> str:
    """The preprocessing that was asked for, the first known one for ""; else a ValueError."""
    if preprocess and preprocess not in known:
        raise ValueError(f"Preprocessing '{preprocess}' is unknown; use one of {', '.join(known)}.")
    return preprocess or known[0]
