"""A fit with a linear shortcut begins as good as the principal components, and ends better."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generator_cases import GRID, IMAGE_KL
from scipy import ndimage
from torch import Tensor

from bench.device import Device
from bench.errors import InputError
from bench.run import Run
from bench.volumes import VolumeSet, VolumeSetWriter
from generators.autoencoders import (
    ImageAutoencoderConfig,
    KLAutoencoder,
    check_autoencoder,
    fit_image_autoencoder,
)
from generators.data import images
from generators.patch_pca import PatchPCA, fit_patch_pca

CPU = torch.device("cpu")
CONFIG = ImageAutoencoderConfig.model_validate({**IMAGE_KL, "linear_shortcut": True})


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> VolumeSet:
    """Random blobs with sharp edges, which a few numbers say and no linear code says well."""
    rng = np.random.default_rng(0)
    with VolumeSetWriter(tmp_path_factory.mktemp("set"), GRID, {0: "background"}) as writer:
        for i in range(8):
            blobs = ndimage.gaussian_filter(rng.standard_normal(GRID), 2.0, mode="wrap")
            writer.append(f"case-{i}", (blobs > 0).astype(np.float32))
    return VolumeSet.open(writer.folder)


def pca(volumes: VolumeSet) -> PatchPCA:
    return fit_patch_pca(volumes, CONFIG.factor, CONFIG.latent_channels, seed=0)


def untrained(volumes: VolumeSet) -> KLAutoencoder:
    torch.manual_seed(0)
    network = KLAutoencoder(CONFIG, channels=1).eval()
    assert network.shortcut is not None
    network.shortcut.start_from(pca(volumes))
    return network


def round_trip(network: KLAutoencoder, x: Tensor) -> Tensor:
    with torch.no_grad():
        return network.decode(network.latents(x))


def test_an_untrained_network_is_the_linear_code(volumes: VolumeSet) -> None:
    x = images(volumes, range(3), CPU)
    torch.testing.assert_close(
        round_trip(untrained(volumes), x), pca(volumes).reconstruct(x), rtol=0, atol=1e-5
    )


def test_latents_have_unit_spread_and_keep_their_ratios(volumes: VolumeSet) -> None:
    with torch.no_grad():
        z = untrained(volumes).latents(images(volumes, range(8), CPU)).double()
    spread = z.movedim(1, 0).flatten(1).std(dim=1, correction=0)
    linear = pca(volumes).spread.double()
    torch.testing.assert_close(spread / spread[0], linear / linear[0], rtol=1e-3, atol=1e-3)
    assert float(spread.square().mean().sqrt()) == pytest.approx(1, abs=1e-3)


def test_spread_is_that_of_the_components(volumes: VolumeSet) -> None:
    linear = pca(volumes)
    n, side = len(volumes), CONFIG.factor
    shape = [v for size in GRID for v in (size // side, side)]
    blocks = (volumes.images() * 2 - 1).reshape(n, *shape).transpose(0, 1, 3, 5, 2, 4, 6)
    patches = blocks.reshape(-1, side**3)
    _, s, _ = np.linalg.svd(patches - patches.mean(0), full_matrices=False)
    expected = s[: CONFIG.latent_channels] / np.sqrt(len(patches))
    np.testing.assert_allclose(linear.spread, expected, rtol=1e-4)


def test_a_fit_keeps_the_shortcut_in_its_state_and_improves_on_it(
    volumes: VolumeSet, tmp_path: Path
) -> None:
    training = {"steps": 100, "batch_size": 2, "learning_rate": 3e-3, "ema_decay": 0}
    config = ImageAutoencoderConfig.model_validate({**CONFIG.model_dump(), "training": training})
    run = Run(0, tmp_path, GRID, {0: "background"}, Device(accelerator="cpu"))
    state = fit_image_autoencoder(config, volumes, volumes, run)
    records = {record["metric"]: record["value"] for record in run.records}
    assert records["psnr"] > records["psnr_patch_pca"]
    network = KLAutoencoder(config, channels=1).eval()
    network.load_state_dict(state["autoencoder"])
    x = images(volumes, range(3), CPU)
    assert not torch.allclose(round_trip(network, x), pca(volumes).reconstruct(x), atol=1e-3)


def test_more_numbers_than_voxels_are_refused() -> None:
    config = ImageAutoencoderConfig.model_validate(
        {**CONFIG.model_dump(), "space_to_depth": 1, "channels": [8], "latent_channels": 3}
    )
    with pytest.raises(InputError, match=r"latent_channels is 3, more than the 1 voxels"):
        check_autoencoder(config, GRID, "autoencoder")
