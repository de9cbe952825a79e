"""Diffusion in the latents of a frozen autoencoder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bench.generator import State
from bench.training import Batches
from bench.volumes import new_array
from generators.diffusion import make_process
from generators.diffusion_fit import (
    VALIDATION_CASES,
    Decode,
    DiffusionConfig,
    drawn,
    fit_diffusion,
)
from generators.unet import build_unet

if TYPE_CHECKING:
    from bench.run import Run
    from bench.volumes import VolumeSet

Encode = Callable[["VolumeSet", int], Tensor]  # (set, case) -> latent mean (1, C, d, h, w)


@dataclass(frozen=True)
class Latents:
    """Latents of every case, (N, C, d, h, w) float32, memory-mapped and not yet scaled."""

    values: NDArray[np.float32]
    scale: float

    def batch(self, rows: list[int], device: torch.device) -> Tensor:
        """The latents of `rows`, scaled to about unit standard deviation."""
        stacked = torch.from_numpy(np.array(self.values[rows], dtype=np.float32))
        return stacked.to(device) * self.scale


def encode_all(volumes: VolumeSet, encode: Encode, path: Path) -> NDArray[np.float32]:
    """Encode every case once, into `path` (npy), and open it memory-mapped.

    `encode` gives the latents' mean: a frozen draw would teach the diffusion one noise pattern
    for each case.
    """
    temporary = path.with_suffix(".part")
    with torch.no_grad():
        for i in range(len(volumes)):
            z = encode(volumes, i).float().cpu().numpy()
            if i == 0:
                stored = new_array(temporary, np.float32, (len(volumes), *z.shape[1:]))
            stored[i] = z[0]
    stored.flush()
    os.replace(temporary, path)
    opened: NDArray[np.float32] = np.load(path, mmap_mode="r", allow_pickle=False)
    return opened


def scale_factor(values: NDArray[np.float32]) -> float:
    """1 / standard deviation over all cases, channels and voxels, summed in float64."""
    n, total, squares = 0, 0.0, 0.0
    for row in values:
        exact = row.astype(np.float64)
        n, total, squares = n + row.size, total + exact.sum(), squares + (exact**2).sum()
    variance = squares / n - (total / n) ** 2
    if not variance > 0:
        raise ValueError(
            "All latents are equal, so they have no scale; train the autoencoder longer."
        )
    return float(variance**-0.5)


def encode_training(train_set: VolumeSet, encode: Encode, run: Run) -> NDArray[np.float32]:
    """The latents of the training cases, in the part of the run's folder that goes with the fit."""
    folder = run.folder / "resume"
    folder.mkdir(parents=True, exist_ok=True)
    return encode_all(train_set, encode, folder / "latents.npy")


def fit_latent_diffusion(
    config: DiffusionConfig,
    encode: Encode,
    train_set: VolumeSet,
    val: VolumeSet,
    run: Run,
    decode: Decode | None = None,
) -> State:
    """An LDM stage: encode once, find the scale, train; the state holds both.

    `decode` makes pictures of unscaled latents, to look at what training draws; without it there
    are none.
    """
    values = encode_training(train_set, encode, run)
    latents = Latents(values, scale_factor(values))
    with torch.no_grad():
        watched = [encode(val, i).float() for i in range(min(len(val), VALIDATION_CASES))]
    held_out = torch.cat(watched) * latents.scale if watched else torch.empty(0)
    order = Batches(len(train_set), config.training.batch_size, run.seed)
    torch.manual_seed(run.seed)
    unet = build_unet(config.unet, channels=values.shape[1])
    process = make_process(config.process)
    show = None
    if decode is not None:
        picture = decode
        shape, batch = values.shape[1:], config.training.batch_size
        show = drawn(process, shape, lambda z: picture(z / latents.scale), run, batch)
    kept = fit_diffusion(
        config,
        unet,
        process,
        lambda step: latents.batch(order(step), run.device),
        held_out,
        run,
        show,
    )
    return {"unet": kept, "scale": latents.scale}


def loaded(network: nn.Module, state: Any, run: Run) -> Any:
    """`network` with `state`, on the run's device, frozen and in eval mode."""
    network.load_state_dict(state)
    return network.to(run.device).eval().requires_grad_(False)
