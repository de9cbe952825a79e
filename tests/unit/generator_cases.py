"""Small sets and configurations for the tests of the built-in diffusion generators."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.device import Device
from bench.generator import Generator
from bench.run import Run
from bench.volumes import Sample, VolumeSet, VolumeSetWriter

GRID = (16, 16, 16)
LABELS = {0: "background", 1: "organ", 4: "tumour"}

TRAINING: dict[str, Any] = {"steps": 2, "batch_size": 2}
UNET = {
    "channels": [8, 8],
    "num_res_blocks": 1,
    "attention_levels": [False, True],
    "head_channels": 8,
    "norm_groups": 4,
}
DIFFUSION: dict[str, Any] = {"unet": UNET, "process": {"prediction": "flow"}, "training": TRAINING}
KL: dict[str, Any] = {
    "space_to_depth": 2,
    "channels": [8, 8],
    "num_res_blocks": 1,
    "norm_groups": 4,
    "latent_channels": 3,
    "training": TRAINING,
}
IMAGE_KL: dict[str, Any] = {**KL, "adversarial": {"weight": 0}}
SAMPLING = {"steps": 3, "batch_size": 2}
LDM_VAE = {"autoencoder": IMAGE_KL, "ldm": DIFFUSION, "sampling": SAMPLING}
LDM_VQVAE = {
    "autoencoder": {
        "channels": [8, 8],
        "num_res_layers": 1,
        "num_embeddings": 16,
        "embedding_dim": 3,
        "adversarial": {"weight": 0.01, "start": 1, "channels": 4, "layers": 1},
        "training": TRAINING,
    },
    "ldm": DIFFUSION,
    "sampling": SAMPLING,
}
DDPM = {
    "diffusion": {
        "unet": UNET,
        "process": {"timesteps": 20},
        "training": TRAINING,
        "space_to_depth": 2,
    },
    "sampling": {"steps": 4, "eta": 1.0, "batch_size": 2},
}
LLDM = {
    **LDM_VAE,
    "label_autoencoder": KL,
    "label_ldm": DIFFUSION,
    "label_sampling": {"steps": 3},
    "controlnet": {"embedding_channels": [4, 4, 4], "training": TRAINING},
    "cleaning": {"organ": "organ", "min_voxels": 2},
}


def balls(folder: Path, n: int, grid: tuple[int, int, int] = GRID) -> VolumeSet:
    """`n` bright balls with a small dark one inside, labelled."""
    axes = np.stack(np.meshgrid(*(np.arange(s) for s in grid), indexing="ij"))
    with VolumeSetWriter(folder, grid, LABELS) as writer:
        for i in range(n):
            rng = np.random.default_rng(i)
            centre = np.asarray(grid)[:, None, None, None] / 2 + rng.uniform(-2, 2, (3, 1, 1, 1))
            radius = np.sqrt(((axes - centre) ** 2).sum(0))
            label = np.where(radius < 2, 4, np.where(radius < 5, 1, 0)).astype(np.uint8)
            writer.append(
                f"ball-{i}", np.choose(label // 1 % 4 + (label == 4) * 2, [0.1, 0.8, 0.4]), label
            )
    return VolumeSet.open(folder)


def fit_stages(
    generator: Generator, train: VolumeSet, val: VolumeSet, folder: Path
) -> dict[str, Path]:
    """Run every stage, save its state as the harness does, and name the files."""
    states: dict[str, Path] = {}
    for stage in generator.stages():
        needs = {name: states[name] for name in stage.needs}
        state = stage.fit(train, val, make_run(folder / stage.name, train, needs))
        path = folder / f"{stage.name}.pt"
        torch.save(state, path)
        states[stage.name] = path
    return states


def make_run(folder: Path, volumes: VolumeSet, states: Mapping[str, Path], seed: int = 0) -> Run:
    """A run on the CPU in float32."""
    device = Device(accelerator="cpu", precision="32-true")
    return Run(seed, folder, volumes.grid, volumes.label_names, device, states)


def draw(generator: Generator, indices: list[int], run: Run) -> list[Sample]:
    """Samples with the given indices, as a list."""
    return list(generator.sample(indices, run))
