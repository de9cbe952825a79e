"""Autoencoders, codebooks and latents of the built-in generators."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from generator_cases import GRID, IMAGE_KL, KL, LABELS, LDM_VQVAE, balls, make_run
from monai.networks.layers.vector_quantizer import EMAQuantizer
from monai.networks.utils import pixelunshuffle
from torch.distributions import Normal, kl_divergence

from bench.errors import InputError
from generators import autoencoders
from generators.autoencoders import (
    AdversarialConfig,
    ImageAutoencoderConfig,
    KLAutoencoder,
    check_adversarial,
    check_autoencoder,
    fit_image_autoencoder,
    latent_grid,
)
from generators.data import from_logits, images, label_ids, one_hot, to_unit_range
from generators.label_autoencoder import (
    LabelAutoencoderConfig,
    RoundTripError,
    class_weights,
    fit_label_autoencoder,
)
from generators.latents import encode_all, scale_factor
from generators.ldm import image_encoder
from generators.vqvae import DataDrivenQuantizer, ImageVQVAE, VQVAEConfig, check_vqvae, code_usage

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


def quantizer(tmp_config: dict[str, object] | None = None) -> DataDrivenQuantizer:
    config = {"num_embeddings": 64, "embedding_dim": 4, "restart_every": 10, **(tmp_config or {})}
    return DataDrivenQuantizer(VQVAEConfig.model_validate(config))


def test_restarts_use_more_codes_than_monais_defaults() -> None:
    torch.manual_seed(0)
    modes = torch.randn(64, 4) * 0.2 + 5.0  # far from where MONAI's codes begin
    ours, monai = quantizer(), EMAQuantizer(3, 64, 4, decay=0.99)

    def batch() -> torch.Tensor:
        rows = modes[torch.randint(64, (2 * 4**3,))] + 0.005 * torch.randn(2 * 4**3, 4)
        return rows.view(2, 4, 4, 4, 4).movedim(-1, 1).contiguous()

    for _ in range(60):
        x = batch()
        ours(x)
        monai(x)
    x = torch.cat([batch() for _ in range(8)])
    used, perplexity = code_usage(ours.eval()(x)[2], 64)
    collapsed, _ = code_usage(monai.eval()(x)[2], 64)
    assert used > 45
    assert perplexity > 35
    assert collapsed < used / 3


def test_evaluation_leaves_the_codebook_alone() -> None:
    network = quantizer()
    network(torch.randn(1, 4, 4, 4, 4))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.eval()(torch.randn(1, 4, 4, 4, 4))
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())


def test_quantiser_computes_in_float32_under_autocast() -> None:
    network = quantizer()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        quantized, loss, _ = network(torch.randn(1, 4, 4, 4, 4, dtype=torch.bfloat16))
    assert (quantized.dtype, loss.dtype) == (torch.float32, torch.float32)


def test_code_usage_of_known_frequencies() -> None:
    codes = torch.tensor([0] * 4 + [3] * 4)
    assert code_usage(codes, 10) == (2, pytest.approx(2.0))
    assert code_usage(torch.zeros(5, dtype=torch.long), 10) == (1, pytest.approx(1.0))


def test_vqvae_latents_are_continuous_and_decode_from_codes() -> None:
    config = VQVAEConfig.model_validate(LDM_VQVAE["autoencoder"])
    network = ImageVQVAE(config)
    x = torch.randn(1, 1, *GRID)
    network(x)
    network.eval()
    z = network.encode(x)
    assert z.shape == (1, 3, *latent_grid(config.factor, GRID))
    codes = network.codes(x)
    from_codes = network.net.decode(network.net.quantizer.embed(codes))
    torch.testing.assert_close(network.decode(z), from_codes, atol=1e-5, rtol=1e-4)


def test_rare_classes_weigh_more(tmp_path: Path) -> None:
    volumes = balls(tmp_path, 3)
    background, organ, tumour = class_weights(volumes, (0, 1, 4), 0.5).tolist()
    assert background < organ < tumour
    assert class_weights(volumes, (0, 1, 4), 0.0).tolist() == [1.0, 1.0, 1.0]


def test_label_autoencoder_learns_the_round_trip_and_its_gate_holds(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 4)
    config = {
        **KL,
        "training": {"steps": 40, "batch_size": 4, "learning_rate": 1e-2, "ema_decay": 0},
    }
    run = make_run(tmp_path / "run", volumes, {})
    good = LabelAutoencoderConfig.model_validate(config)
    state = fit_label_autoencoder(good, volumes, volumes, run)
    assert state["round_trip_dice"]["organ"] > 0.6
    strict = LabelAutoencoderConfig.model_validate(
        {**config, "required_dice": 0.999, "training": {"steps": 1}}
    )
    with pytest.raises(RoundTripError, match="below required_dice"):
        fit_label_autoencoder(strict, volumes, volumes, make_run(tmp_path / "other", volumes, {}))


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
    discriminator = autoencoders.PatchDiscriminator(
        spatial_dims=3, channels=2, in_channels=1, num_layers_d=layers, norm="INSTANCE"
    )
    assert discriminator(torch.randn(1, 1, side, side, side))[-1].numel() > 0
