"""Training of denoising networks: what is kept, and what is shown along the way."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import DDPM, DIFFUSION, LDM_VAE, LDM_VQVAE, SAMPLING, UNET, balls, fit_stages
from torch import Tensor

from bench.device import Device
from bench.run import Run
from generators.ddpm import DDPM3D
from generators.diffusion import ProcessConfig, make_process
from generators.diffusion_fit import DiffusionConfig, diffusion_loss, drawn, fit_diffusion
from generators.ldm import LDMVAE, LDMVQVAE
from generators.sampler import SamplingConfig, denoise
from generators.unet import build_unet

SHAPE = (1, 4, 4, 4)


def make_run(folder: Path) -> Run:
    return Run(3, folder, (16, 16, 16), {}, Device(accelerator="cpu", precision="32-true"))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_weights_of_least_validation_loss_are_kept_if_asked(keep: str, tmp_path: Path) -> None:
    training = {"steps": 6, "batch_size": 2, "learning_rate": 0.3, "validate_every": 1}
    config = DiffusionConfig.model_validate(
        {**DIFFUSION, "training": {**training, "ema_decay": 0, "keep": keep, "explode_factor": 0}}
    )
    run, process = make_run(tmp_path), make_process(config.process)
    torch.manual_seed(0)
    unet = build_unet(config.unet, channels=1)
    data, held_out = torch.randn(8, *SHAPE), torch.randn(2, *SHAPE)
    kept = fit_diffusion(config, unet, process, lambda step: data[:2], held_out, run)

    with (tmp_path / "fit.csv").open() as stream:
        losses = [float(r["value"]) for r in csv.DictReader(stream) if r["name"] == "val/loss"]
    unet.load_state_dict(kept)
    torch.manual_seed(run.seed)
    with torch.no_grad():
        found = float(diffusion_loss(process, unet.eval(), held_out, config.draw))
    assert losses[-1] > min(losses)
    assert found == pytest.approx(min(losses) if keep == "best" else losses[-1], rel=1e-4)


def test_a_preview_shows_the_first_volumes_of_a_few_steps(tmp_path: Path) -> None:
    torch.manual_seed(0)
    unet = build_unet(DiffusionConfig.model_validate({"unet": UNET}).unet, channels=1).eval()
    torch.nn.init.normal_(unet.out[2].conv.weight)
    process, run = make_process(ProcessConfig(timesteps=50)), make_run(tmp_path)

    def decode(x: Tensor) -> Any:
        assert x.shape == (1, *SHAPE)  # one at a time, whatever the training's batch
        return x[:, 0].sigmoid().numpy()

    shown = drawn(process, SHAPE, decode, run, batch_size=3)({"unet": unet})
    few = SamplingConfig(steps=10, solver="dpm++2m")
    x = denoise(process, unet, [0, 1, 2, 3], SHAPE, few, run)
    np.testing.assert_allclose(shown, x[:, 0].sigmoid().numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("model", "config", "stage"),
    [
        (DDPM3D, {**DDPM, "labels": "joint"}, "pixel-ddpm-joint"),
        (LDMVAE, LDM_VAE, "image-ldm"),
        (LDMVQVAE, LDM_VQVAE, "vq-ldm"),
    ],
)
def test_fits_leave_pictures(model: Any, config: Any, stage: str, tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 2)
    generator = model(model.Config.model_validate({**config, "sampling": SAMPLING}))
    fit_stages(generator, volumes, volumes, tmp_path)
    assert [p.name for p in (tmp_path / stage / "previews").iterdir()] == ["fit-000002.png"]
