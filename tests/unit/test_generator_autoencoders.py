"""The KL autoencoders, their training and their latents."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import (
    GRID,
    IMAGE_KL,
    KL,
    LABELS,
    LDM_VAE,
    balls,
    fit_stages,
    make_run,
)
from monai.networks.utils import pixelunshuffle
from torch import nn
from torch.distributions import Normal, kl_divergence

from bench.errors import InputError
from bench.run import Run
from generators import autoencoders, label_autoencoder, reconstruction
from generators.autoencoders import (
    ImageAutoencoderConfig,
    KLAutoencoder,
    check_autoencoder,
    fit_image_autoencoder,
    latent_grid,
)
from generators.data import from_logits, images, label_ids, one_hot, to_unit_range
from generators.label_autoencoder import (
    LabelAutoencoderConfig,
    fit_label_autoencoder,
)
from generators.latents import encode_all, scale_factor
from generators.ldm import LDMVAE, decode_images, image_encoder
from generators.reconstruction import (
    AdversarialConfig,
    check_adversarial,
    reconstruction_losses,
)
from generators.vqvae import (
    VQVAEConfig,
    check_vqvae,
)

CPU = torch.device("cpu")


def test_images_go_to_the_networks_range_and_back(tmp_path: Path) -> None:
    volumes = balls(tmp_path, 3)
    x = images(volumes, [2, 0], CPU)
    assert x.shape == (2, 1, *GRID)
    assert (float(x.min()), float(x.max())) == pytest.approx((-0.8, 0.6), abs=1e-3)
    np.testing.assert_allclose(to_unit_range(x), volumes.images([2, 0]), atol=1e-6)
    assert to_unit_range(torch.tensor([[[[[-9.0, 9.0]]]]])).tolist() == [[[[0.0, 1.0]]]]


def test_label_maps_survive_one_hot_with_gaps_in_their_values() -> None:
    ids = label_ids(LABELS)
    assert ids == (0, 1, 4)
    maps = np.random.default_rng(0).choice(np.array(ids, dtype=np.uint8), (2, 4, 4, 4))
    channels = one_hot(maps, ids, CPU)
    assert channels.sum(1).unique().tolist() == [1.0]
    np.testing.assert_array_equal(from_logits(channels * 3 - 1, ids), maps)


def test_kl_term_is_the_closed_form() -> None:
    mu, sigma = torch.randn(2, 3, 4, 4, 4), torch.rand(2, 3, 4, 4, 4) + 0.1
    expected = kl_divergence(Normal(mu, sigma), Normal(0.0, 1.0)).mean()
    torch.testing.assert_close(autoencoders.kl_divergence(mu, sigma), expected)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_latents_have_the_grid_that_is_promised(block: int) -> None:
    config = ImageAutoencoderConfig.model_validate({**IMAGE_KL, "space_to_depth": block})
    network = KLAutoencoder(config, channels=2)
    x = torch.randn(1, 2, *GRID)
    mu, _ = network.encode(x)
    assert mu.shape == (1, 3, *latent_grid(config.factor, GRID))
    assert network.decode(mu).shape == x.shape


def test_cached_latents_are_means_and_the_same_each_time(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 3)
    config = ImageAutoencoderConfig.model_validate(IMAGE_KL)
    network = KLAutoencoder(config, channels=1).eval()
    encode = image_encoder(network, make_run(tmp_path, volumes, {}))
    torch.manual_seed(1)
    first = np.array(encode_all(volumes, encode, tmp_path / "z.npy"))
    torch.manual_seed(2)
    np.testing.assert_array_equal(encode_all(volumes, encode, tmp_path / "z.npy"), first)
    with torch.no_grad():
        mu, sigma = network.encode(images(volumes, [1], CPU))
        drawn = network.net.encode_stage_2_inputs(pixelunshuffle(images(volumes, [1], CPU), 3, 2))
    np.testing.assert_allclose(first[1], mu[0].numpy(), atol=1e-6)
    assert float((drawn - mu).abs().max()) > float(sigma.min()) > 0  # what a cached draw would be


def test_scale_factor_makes_the_training_latents_unit() -> None:
    values = np.random.default_rng(0).normal(3.0, 5.0, (6, 4, 8, 8, 8)).astype(np.float32)
    assert float((values * scale_factor(values)).std()) == pytest.approx(1.0, abs=1e-6)
    with pytest.raises(ValueError, match="no scale"):
        scale_factor(np.ones((2, 1, 2, 2, 2), dtype=np.float32))


def test_adversarial_term_waits_and_then_trains_the_discriminator(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 4)
    config = ImageAutoencoderConfig.model_validate(
        {
            **IMAGE_KL,
            "adversarial": {"weight": 0.01, "start": 2, "channels": 4, "layers": 1},
            "training": {"steps": 4, "batch_size": 1},
        }
    )
    run = make_run(tmp_path / "run", volumes, {})
    state = fit_image_autoencoder(config, volumes, volumes.subset([]), run)
    rows = (tmp_path / "run" / "fit.csv").read_text().splitlines()
    judged = [int(row.split(",")[0]) for row in rows if "loss/discriminator" in row]
    assert judged == [3, 4]
    assert set(state) == {"autoencoder"}


def test_adversarial_losses_are_least_squares_of_the_discriminators_output() -> None:
    """(Mao et al., arXiv 1611.04076): real to 1, fake to 0, the reconstruction towards 1; outputs
    far outside [0, 1] show that there is no activation before the squares."""
    config = ImageAutoencoderConfig.model_validate(
        {"adversarial": {"weight": 0.25, "start": 3}, "training": {"steps": 1}}
    )

    class Constant(nn.Module):
        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            return [x * 0, torch.full((2, 1, 2, 2, 2), 3.0 if x is true else -2.0)]

    true = torch.randn(2, 1, 4, 4, 4)
    losses = reconstruction_losses(lambda _, x: (x + 0.5, x.new_tensor(0.125)), config, CPU)
    nets = {"autoencoder": nn.Identity(), "discriminator": Constant()}
    assert [(n, float(v)) for n, v in losses(nets, (2, true))] == [
        ("autoencoder", pytest.approx(0.625))
    ]
    assert [(n, float(v)) for n, v in losses(nets, (3, true))] == [
        ("autoencoder", pytest.approx(0.625 + 0.25 * (-2 - 1) ** 2)),
        ("discriminator", pytest.approx(((-2 - 0) ** 2 + (3 - 1) ** 2) / 2)),
    ]


def test_latents_are_clipped_nowhere(tmp_path: Path) -> None:
    """A latent far outside [-1, 1] is cached and decoded as it is."""
    volumes = balls(tmp_path / "set", 2)
    run = make_run(tmp_path, volumes, {})
    network = KLAutoencoder(ImageAutoencoderConfig.model_validate(IMAGE_KL), channels=1).eval()
    with torch.no_grad():
        network.net.quant_conv_mu.conv.weight *= 100
    encode = image_encoder(network, run)
    cached = encode_all(volumes, encode, tmp_path / "z.npy")
    assert np.abs(cached).max() > 10
    with torch.no_grad():
        mu = network.encode(images(volumes, [0, 1], CPU))[0]
        decoded = to_unit_range(network.decode(mu))
    np.testing.assert_allclose(cached, mu.numpy(), rtol=1e-4, atol=1e-4)
    for found, expected in zip(decode_images(network, mu, run), decoded, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_scale_of_the_training_latents_is_in_the_ldms_checkpoint(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 3)
    states = fit_stages(LDMVAE(LDMVAE.Config.model_validate(LDM_VAE)), volumes, volumes, tmp_path)
    network = KLAutoencoder(ImageAutoencoderConfig.model_validate(IMAGE_KL), channels=1).eval()
    network.load_state_dict(
        torch.load(states["image-autoencoder"], weights_only=True)["autoencoder"]
    )
    with torch.no_grad():
        mu = network.encode(images(volumes, [0, 1, 2], CPU))[0]
    kept = torch.load(states["image-ldm"], weights_only=True)["scale"]
    assert kept == pytest.approx(1 / float(mu.std(correction=0)), rel=1e-4)


def records(run: Run, label: str = "") -> dict[str, float]:
    return {r["metric"]: r["value"] for r in run.records if r["label"] == label}


@pytest.mark.parametrize("val", [True, False])
def test_psnr_of_the_kept_network_and_of_the_linear_code_are_recorded(
    val: bool, tmp_path: Path
) -> None:
    volumes = balls(tmp_path / "set", 4)
    held = volumes.subset([2, 3] if val else [])
    config = ImageAutoencoderConfig.model_validate(IMAGE_KL)
    run = make_run(tmp_path / "run", volumes, {})
    state = fit_image_autoencoder(config, volumes.subset([0, 1]), held, run)
    if not val:
        assert "psnr" not in records(run)
        return
    network = KLAutoencoder(config, channels=1).eval()
    network.load_state_dict(state["autoencoder"])
    each = []
    for i in (2, 3):
        with torch.no_grad():
            y = to_unit_range(network.decode(network.encode(images(volumes, [i], CPU))[0]))[0]
        each.append(-10 * np.log10(np.mean((y - volumes.image(i).astype(np.float32)) ** 2)))
    assert records(run)["psnr"] == pytest.approx(np.mean(each), abs=1e-3)
    assert 10 < records(run)["psnr_patch_pca"] < 60


@pytest.mark.parametrize("kind", ["image", "label"])
def test_previews_are_pairs_of_real_volumes_and_reconstructions(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = balls(tmp_path / "set", 6)
    module: Any = reconstruction if kind == "image" else label_autoencoder
    shown: list[np.ndarray[Any, Any]] = []
    train = module.train

    def watched(run: Run, networks: Any, *args: Any, preview: Any, **kwargs: Any) -> Any:
        shown.append(preview(networks))
        return train(run, networks, *args, preview=preview, **kwargs)

    monkeypatch.setattr(module, "train", watched)
    run = make_run(tmp_path / "run", volumes, {})
    if kind == "image":
        config = ImageAutoencoderConfig.model_validate(IMAGE_KL)
        fit_image_autoencoder(config, volumes.subset([0]), volumes, run)
        real = volumes.images(range(4))
    else:
        labels = LabelAutoencoderConfig.model_validate(KL)
        fit_label_autoencoder(labels, volumes.subset([0]), volumes, run)
        real = np.choose(volumes.labels(range(4)), [0, 0.5, 0, 0, 1])
    (pairs,) = shown
    assert pairs.shape == (8, *GRID)
    assert pairs.dtype == np.float32
    assert 0 <= pairs.min() <= pairs.max() <= 1
    np.testing.assert_allclose(pairs[::2], real, atol=1e-6)
    assert not np.allclose(pairs[1::2], real, atol=1e-2)


def test_what_networks_cannot_take_is_refused() -> None:
    config = ImageAutoencoderConfig.model_validate(IMAGE_KL)
    check_autoencoder(config, GRID, "autoencoder")
    with pytest.raises(InputError, match=r"divisible by 4.*\(16, 18, 16\)"):
        check_autoencoder(config, (16, 18, 16), "autoencoder")
    with pytest.raises(InputError, match="norm_groups is 3"):
        check_autoencoder(config.model_copy(update={"norm_groups": 3}), GRID, "autoencoder")
    with pytest.raises(InputError, match="at least 24"):
        check_adversarial(AdversarialConfig(layers=3), GRID, "autoencoder")
    averaged = VQVAEConfig.model_validate({"training": {"ema_decay": 0.9}})
    with pytest.raises(InputError, match="ema_decay"):
        check_vqvae(averaged, (32, 32, 32), "autoencoder")


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_smallest_side_of_the_discriminator_is_enough(layers: int) -> None:
    config = AdversarialConfig(layers=layers, channels=2)
    side = config.smallest_side()
    discriminator = reconstruction.PatchDiscriminator(
        spatial_dims=3, channels=2, in_channels=1, num_layers_d=layers, norm="INSTANCE"
    )
    assert discriminator(torch.randn(1, 1, side, side, side))[-1].numel() > 0
