"""Terms of the image autoencoders' loss beside L1, and where MedicalNet's weights come from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from generator_cases import GRID, IMAGE_KL, LABELS, LDM_VAE, LDM_VQVAE, balls, make_run
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from bench.errors import InputError
from bench.generator import Generator
from generators.autoencoders import ImageAutoencoderConfig, fit_image_autoencoder
from generators.ldm import LDMVAE, LDMVQVAE
from generators.perceptual import (
    PerceptualConfig,
    PerceptualLoss,
    gradient_difference,
    load_perceptual,
)
from metrics.extractors import weights as places
from metrics.extractors.medicalnet import load_medicalnet, medicalnet_resnet50


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MedicalNet's form with one random number for each output channel: kilobytes, not 185 MB."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in medicalnet_resnet50().state_dict().items():
        if value.ndim == 5:
            row = torch.randn(len(value), generator=generator) * 3 / value[0].numel()
            value = row.view(-1, 1, 1, 1, 1).expand(value.shape)
        state[f"module.{key}"] = value
    path = tmp_path_factory.mktemp("weights") / places.HUB_FILE
    torch.save({"state_dict": state}, path)
    assert path.stat().st_size < 3_000_000
    return path


@pytest.fixture
def here(file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(places.WEIGHTS_VARIABLE, str(file))
    return file


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def download() -> None:
        raise AssertionError("reached for the network")

    monkeypatch.delenv(places.WEIGHTS_VARIABLE, raising=False)
    monkeypatch.setattr(places, "_in_hub_cache", lambda: None)
    monkeypatch.setattr(places, "_download", download)


def image(seed: int) -> Tensor:
    draw = np.random.default_rng(seed).normal(size=(1, 1, 16, 16, 16))
    smooth = gaussian_filter(draw, (0, 0, 1, 1, 1))
    return torch.from_numpy(np.tanh(2 * smooth)).float()


def test_perceptual_term_is_the_distance_of_unit_features(file: Path) -> None:
    network, _ = load_medicalnet(file)
    x, y = image(0), image(1)
    found = PerceptualLoss(network)(y, x)

    layers: dict[str, list[Tensor]] = {}
    for name in ("layer1", "layer2", "layer3", "layer4"):
        network.get_submodule(name).register_forward_hook(
            lambda _m, _i, output, name=name: layers.setdefault(name, []).append(output)
        )
    normal = (float(x.mean()), float(x.std()))
    network((x - normal[0]) / normal[1])
    network((y - normal[0]) / normal[1])
    distances = []
    for a, b in layers.values():
        u, v = (np.asarray(t[0]).reshape(t.shape[1], -1) for t in (a, b))
        cosine = (u * v).sum(0) / (np.linalg.norm(u, axis=0) * np.linalg.norm(v, axis=0))
        distances.append((2 - 2 * cosine).mean())  # ‖u − v‖² of unit vectors
    assert len(distances) == 4
    assert float(found) == pytest.approx(np.mean(distances), rel=1e-3)


def test_perceptual_term_is_0_for_the_same_image_and_its_gradient_reaches_the_other(
    file: Path,
) -> None:
    loss = PerceptualLoss(load_medicalnet(file)[0])
    x = image(0)
    y = (x + 0.1 * image(1)).requires_grad_()
    assert float(loss(x, x)) == 0
    before = loss(y, x)
    before.backward()
    assert y.grad is not None
    assert torch.isfinite(y.grad).all()
    assert float(y.grad.abs().sum()) > 0
    assert all(p.grad is None for p in loss.parameters())
    step = 0.01 * y.grad / y.grad.abs().max()
    assert loss((y - step).detach(), x) < before
    flat = torch.zeros_like(x)
    assert torch.isfinite(loss(flat, flat))


def test_gradient_difference_is_numpys_and_blind_to_brightness() -> None:
    x, y = torch.randn(2, 1, 5, 6, 7), torch.randn(2, 1, 5, 6, 7)
    means = [
        np.abs(np.diff(y.numpy(), axis=a) - np.diff(x.numpy(), axis=a)).mean() for a in (2, 3, 4)
    ]
    assert float(gradient_difference(y, x)) == pytest.approx(np.mean(means), rel=1e-5)
    assert float(gradient_difference(x + 0.5, x)) == pytest.approx(0, abs=1e-6)


def test_gradient_difference_costs_a_blur_more_than_l1_does() -> None:
    x = image(0)
    blurred = torch.from_numpy(gaussian_filter(x.numpy(), (0, 0, 1, 1, 1)))
    brighter = x + (blurred - x).abs().mean()  # the same L1
    assert float((blurred - x).abs().mean()) == pytest.approx(float((brighter - x).abs().mean()))
    assert gradient_difference(blurred, x) > 10 * gradient_difference(brighter, x)


def test_off_needs_no_file(nowhere: None) -> None:
    assert load_perceptual(PerceptualConfig(), "autoencoder") is None


@pytest.mark.parametrize(
    ("model", "config"), [(LDMVAE, LDM_VAE), (LDMVQVAE, LDM_VQVAE)], ids=["vae", "vqvae"]
)
def test_without_the_file_the_term_is_refused_before_training(
    model: type[Generator], config: dict[str, dict[str, object]], nowhere: None
) -> None:
    asked = {**config, "autoencoder": {**config["autoencoder"], "perceptual": {"weight": 0.1}}}
    with pytest.raises(InputError, match=r"perceptual\.weight is 0\.1.*VOXELBENCH_MEDICALNET"):
        model(model.Config.model_validate(asked)).check(GRID, LABELS)


def test_another_file_than_asked_for_is_refused(here: Path) -> None:
    digest = hashlib.sha256(here.read_bytes()).hexdigest()
    assert load_perceptual(PerceptualConfig(weight=1, sha256=digest), "autoencoder") is not None
    with pytest.raises(InputError, match=f"sha256 {digest}, expected 00"):
        load_perceptual(PerceptualConfig(weight=1, sha256="00"), "autoencoder")


def test_a_file_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(places.WEIGHTS_VARIABLE, "absent.pth")
    with pytest.raises(InputError, match=r"autoencoder\.perceptual.*'absent\.pth'.*do not exist"):
        load_perceptual(PerceptualConfig(weight=1), "autoencoder")


def first_loss(tmp_path: Path, name: str, **terms: object) -> float:
    volumes = balls(tmp_path / name / "set", 2)
    config = {**IMAGE_KL, "training": {"steps": 1}, **terms}
    run = make_run(tmp_path / name, volumes, {})
    fit_image_autoencoder(
        ImageAutoencoderConfig.model_validate(config), volumes, volumes.subset([]), run
    )
    rows = (tmp_path / name / "fit.csv").read_text().splitlines()
    return next(float(r.split(",")[2]) for r in rows if ",loss/autoencoder," in r)


def test_terms_enter_the_loss_with_their_weights(tmp_path: Path, here: Path) -> None:
    plain = first_loss(tmp_path, "plain")
    for term in ("perceptual", "gradient"):
        added = [
            first_loss(
                tmp_path,
                f"{term}-{weight}",
                **(
                    {"perceptual": {"weight": weight}}
                    if term == "perceptual"
                    else {"gradient_weight": weight}
                ),
            )
            - plain
            for weight in (0.5, 1.0)
        ]
        assert added[0] > 1e-3
        assert added[1] == pytest.approx(2 * added[0], rel=1e-2)


def test_the_term_is_frozen_and_part_of_no_checkpoint(tmp_path: Path, here: Path) -> None:
    loss = load_perceptual(PerceptualConfig(weight=1.0), "autoencoder")
    assert isinstance(loss, nn.Module)
    assert not any(p.requires_grad for p in loss.parameters())
    volumes = balls(tmp_path / "set", 2)
    config = {**IMAGE_KL, "perceptual": {"weight": 0.1}, "training": {"steps": 1}}
    state = fit_image_autoencoder(
        ImageAutoencoderConfig.model_validate(config),
        volumes,
        volumes.subset([]),
        make_run(tmp_path / "run", volumes, {}),
    )
    assert sum(v.numel() for v in state["autoencoder"].values()) < 100_000
