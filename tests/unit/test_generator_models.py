"""3D-DDPM, LDM-VQVAE, LDM-VAE and 3D-LLDM as a whole: fit, save, load, sample."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import (
    DDPM,
    DIFFUSION,
    GRID,
    LABELS,
    LDM_VAE,
    LDM_VQVAE,
    LLDM,
    balls,
    draw,
    fit_stages,
    make_run,
)

from bench.contract.config import check_described
from bench.contract.samples import (
    check_count,
    check_images,
    check_labels,
    check_range,
    check_same,
)
from bench.errors import InputError
from bench.generator import Generator
from bench.registry import GENERATORS
from generators.control import ControlNetConfig, build_controlnet, guided
from generators.data import one_hot
from generators.ddpm import DDPM3D
from generators.diffusion_fit import DiffusionConfig
from generators.ldm import LDMVAE, LDMVQVAE
from generators.lldm import LLDM3D
from generators.unet import build_unet

MODELS: dict[str, tuple[type[Generator], Mapping[str, Any]]] = {
    "3d-ddpm": (DDPM3D, DDPM),
    "ldm-vqvae": (LDMVQVAE, LDM_VQVAE),
    "ldm-vae": (LDMVAE, LDM_VAE),
    "3d-lldm": (LLDM3D, LLDM),
}


def make(name: str, **changes: Any) -> Generator:
    model, config = MODELS[name]
    return model(model.Config.model_validate({**config, **changes}))


@pytest.mark.parametrize("name", MODELS)
def test_fit_save_load_and_sample(name: str, tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 5)
    train, val = volumes.subset(range(4)), volumes.subset([4])
    generator = make(name)
    generator.check(GRID, LABELS)
    states = fit_stages(generator, train, val, tmp_path)
    run = make_run(tmp_path / "sample", train, states)
    together = draw(generator, [0, 1, 2, 9], run)
    check_count(together, 4)
    check_images(together, GRID)
    check_range(together)
    check_labels(together, generator.labels, GRID, LABELS)
    assert {sample.image.dtype for sample in together} == {np.dtype(np.float32)}
    alone = draw(generator, [9], run)[0]
    check_same(alone, together[3], "another batch, another range")
    other = draw(generator, [9], make_run(tmp_path / "sample", train, states, seed=1))[0]
    assert not np.allclose(other.image, alone.image, atol=1e-4)


def test_own_masks_guide_images(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 3)
    generator = make("3d-lldm")
    assert isinstance(generator, LLDM3D)
    states = fit_stages(generator, volumes, volumes, tmp_path)
    run = make_run(tmp_path / "sample", volumes, states)
    drawn = draw(generator, [0, 1], run)
    masks = [sample.label for sample in drawn if sample.label is not None]
    again = list(generator.sample_images(masks, [0, 1], run))
    for a, b in zip(drawn, again, strict=True):
        np.testing.assert_allclose(a.image, b.image, atol=1e-6)
    mine = volumes.label(0)
    other = next(generator.sample_images([mine], [0], run))
    np.testing.assert_array_equal(other.label, mine)


def test_ldm_vae_and_lldm_share_their_image_stages() -> None:
    def key(name: str) -> list[tuple[Any, ...]]:
        return [(s.name, s.version, s.config.model_dump(), s.needs) for s in make(name).stages()]

    assert key("ldm-vae") == key("3d-lldm")[:2]
    defaults = [model(model.Config()).stages() for model in (LDMVAE, LLDM3D)]
    for a, b in zip(*defaults, strict=False):
        assert (a.name, a.needs, a.config.model_dump()) == (b.name, b.needs, b.config.model_dump())


@pytest.mark.parametrize("name", MODELS)
def test_sampling_is_part_of_no_stage(name: str) -> None:
    changed = make(name, sampling={"steps": 2, "batch_size": 7})
    assert [s.config for s in changed.stages()] == [s.config for s in make(name).stages()]


@pytest.mark.parametrize("name", MODELS)
def test_registered_and_every_field_is_described(name: str) -> None:
    model = MODELS[name][0]
    assert GENERATORS.get(name) is model
    assert model.__doc__

    check_described(model.Config)
    model(model.Config()).check((64, 64, 64), {0: "background", 1: "liver"})


@pytest.mark.parametrize("name", MODELS)
def test_a_grid_the_networks_cannot_take_is_refused_before_training(name: str) -> None:
    with pytest.raises(InputError, match="divisible by"):
        make(name).check((16, 18, 16), LABELS)


def test_wrong_configurations_are_refused_before_training() -> None:
    with pytest.raises(InputError, match="2 widths and shrinks the label map 2 times"):
        make("3d-lldm", controlnet={"embedding_channels": [4, 4]}).check(GRID, LABELS)
    with pytest.raises(InputError, match="labelled structures"):
        make("3d-lldm").check(GRID, {0: "background"})
    with pytest.raises(InputError, match=r"cleaning\.organ is 'liver'"):
        make("3d-lldm", cleaning={"organ": "liver"}).check(GRID, LABELS)
    for change, message in (
        ({"head_channels": 3}, "head_channels is 3"),
        ({"attention_levels": [True]}, "attention_levels has 1 entries"),
    ):
        ldm = {**DIFFUSION, "unet": {**DIFFUSION["unet"], **change}}
        with pytest.raises(InputError, match=message):
            make("ldm-vae", ldm=ldm).check(GRID, LABELS)


def test_controlnet_begins_as_no_difference_and_its_embedding_fits_the_latents() -> None:
    ldm = DiffusionConfig.model_validate(DIFFUSION)
    config = ControlNetConfig(embedding_channels=(4, 4, 4))
    unet = build_unet(ldm.unet, 3).eval()
    torch.nn.init.normal_(unet.out[2].conv.weight)  # a trained network's output is not 0
    controlnet = build_controlnet(config, ldm, unet, channels=3).eval()
    condition = one_hot(np.ones((2, *GRID), dtype=np.uint8), (0, 1, 4), torch.device("cpu"))
    x, t = torch.randn(2, 3, 4, 4, 4), torch.tensor([3, 900])
    with torch.no_grad():
        embedded = controlnet.controlnet_cond_embedding(condition)
        torch.testing.assert_close(guided(unet, controlnet, condition)(x, t), unet(x, t))
    assert embedded.shape[2:] == x.shape[2:]
    torch.testing.assert_close(controlnet.time_embed[0].weight, unet.time_embed[0].weight)


@pytest.mark.parametrize("train_ldm", [False, True])
def test_ldm_is_frozen_unless_asked(train_ldm: bool, tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 3)
    control = {"embedding_channels": [4, 4, 4], "train_ldm": train_ldm, "training": {"steps": 2}}
    states = fit_stages(make("3d-lldm", controlnet=control), volumes, volumes, tmp_path)
    before, after = (
        torch.load(states[stage], weights_only=True)["unet"]
        for stage in ("image-ldm", "controlnet")
    )
    changed = any(not torch.equal(before[k], after[k]) for k in before)
    assert changed == train_ldm


@pytest.mark.slow
def test_controlnet_learns_to_follow_the_label(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 24)
    training = {"steps": 150, "batch_size": 8, "learning_rate": 5e-3, "schedule": "cosine"}
    long = {**DIFFUSION, "training": {**training, "ema_decay": 0}}
    generator = make(
        "3d-lldm",
        autoencoder={**LDM_VAE["autoencoder"], "training": {**training, "ema_decay": 0}},
        ldm=long,
        controlnet={"embedding_channels": [4, 8, 8], "train_ldm": True, "training": training},
    )
    fit_stages(generator, volumes.subset(range(16)), volumes.subset(range(16, 24)), tmp_path)
    rows = (tmp_path / "controlnet" / "fit.csv").read_text().splitlines()[1:]
    scalars = {name: float(value) for _, name, value in (row.split(",") for row in rows)}
    assert scalars["val/loss"] < 0.97 * scalars["val/loss_shuffled"]
