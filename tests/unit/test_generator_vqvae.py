"""The VQ-VAE: a codebook that stays in use, and is resumed bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from generator_cases import (
    GRID,
    LDM_VQVAE,
    balls,
    make_run,
)
from monai.networks.layers.vector_quantizer import EMAQuantizer

from bench.errors import Interrupted
from bench.run import Run
from generators.autoencoders import (
    latent_grid,
)
from generators.data import images
from generators.vqvae import (
    DataDrivenQuantizer,
    ImageVQVAE,
    VQVAEConfig,
    code_usage,
    fit_vqvae,
)

CPU = torch.device("cpu")


def records(run: Run, label: str = "") -> dict[str, float]:
    return {r["metric"]: r["value"] for r in run.records if r["label"] == label}


def quantizer(**changes: Any) -> DataDrivenQuantizer:
    config = {"num_embeddings": 64, "embedding_dim": 4, "restart_every": 10, **changes}
    return DataDrivenQuantizer(VQVAEConfig.model_validate(config))


def used_by(network: EMAQuantizer, x: torch.Tensor) -> tuple[float, float]:
    codes = network.eval()(x)[2]
    network.train()
    return code_usage(torch.bincount(codes.flatten(), minlength=64))


def encodings(modes: torch.Tensor, n: int = 2) -> torch.Tensor:
    """(n, 4, 4, 4, 4): each voxel near one of the 64 `modes`."""
    rows = modes[torch.randint(64, (n * 4**3,))] + 0.005 * torch.randn(n * 4**3, 4)
    return rows.view(n, 4, 4, 4, 4).movedim(-1, 1).contiguous()


def test_restarts_use_more_codes_than_monais_defaults() -> None:
    torch.manual_seed(0)
    modes = torch.randn(64, 4) * 0.2 + 5.0  # far from where MONAI's codes begin
    ours, monai = quantizer(), EMAQuantizer(3, 64, 4, decay=0.99)
    for _ in range(60):
        x = encodings(modes)
        ours(x)
        monai(x)
    x = encodings(modes, 16)
    used, perplexity = used_by(ours, x)
    assert used > 0.7
    assert perplexity > 35
    assert used_by(monai, x)[0] < used / 3


def test_a_codebook_collapses_when_encodings_move_unless_dead_codes_restart() -> None:
    """An encoder that learns leaves its first codes behind: data initialisation is not enough."""
    torch.manual_seed(0)
    modes = torch.randn(64, 4)
    kept, restarted = quantizer(restart_every=0), quantizer()
    for _ in range(20):
        x = encodings(modes)
        kept(x)
        restarted(x)
    x = encodings(modes, 16)
    before = used_by(kept, x)[0]
    assert before > 0.4  # begun well
    for _ in range(60):
        x = encodings(0.3 * modes + 8)
        kept(x)
        restarted(x)
    x = encodings(0.3 * modes + 8, 16)
    assert used_by(kept, x)[0] < 0.1
    assert used_by(kept, x)[1] < 4
    assert used_by(restarted, x)[0] > 0.8
    assert used_by(restarted, x)[1] > 40


def test_a_quantiser_that_is_saved_between_restarts_goes_on_bit_for_bit() -> None:
    def steps(network: DataDrivenQuantizer, first: int, last: int) -> dict[str, torch.Tensor]:
        for step in range(first, last):
            torch.manual_seed(step)
            network(torch.randn(1, 4, 4, 4, 4) + step / 4)
        return network.state_dict()

    torch.manual_seed(0)
    whole, half = quantizer(restart_every=5), quantizer(restart_every=5)
    whole.load_state_dict(half.state_dict())
    expected = steps(whole, 0, 20)
    resumed = quantizer(restart_every=5)
    resumed.load_state_dict({k: v.clone() for k, v in steps(half, 0, 8).items()})
    found = steps(resumed, 8, 20)
    assert int(found["age"]) == 20
    assert all(torch.equal(found[k], v) for k, v in expected.items())
    without_uses = quantizer(restart_every=5)
    without_uses.load_state_dict({**steps(half, 8, 8), "uses": torch.ones(64)})
    lost = steps(without_uses, 8, 20)
    assert not torch.equal(lost["embedding.weight"], expected["embedding.weight"])


def test_a_vqvae_that_was_stopped_between_restarts_resumes_bit_for_bit(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 4)
    training = {"steps": 7, "batch_size": 1, "learning_rate": 1e-2}
    config = VQVAEConfig.model_validate(
        {**LDM_VQVAE["autoencoder"], "restart_every": 2, "training": training}
    )
    whole_run = make_run(tmp_path / "whole", volumes, {})
    whole = fit_vqvae(config, volumes, volumes, whole_run)
    run = make_run(tmp_path / "halves", volumes, {})
    steps: list[int] = []
    run.progress = lambda step, _total, _scalars: steps.append(step)
    run.stop_requested = lambda: steps[-1] == 5  # which lies between restarts
    with pytest.raises(Interrupted):
        fit_vqvae(config, volumes, volumes, run)
    run.stop_requested = lambda: False
    resumed = fit_vqvae(config, volumes, volumes, run)
    assert steps == [1, 2, 3, 4, 5, 6, 7]
    for key, value in whole["autoencoder"].items():
        assert torch.equal(resumed["autoencoder"][key], value), key
    for metric in ("psnr", "codes_used", "perplexity"):
        assert records(run)[metric] == records(whole_run)[metric]


def test_codes_used_and_perplexity_of_the_training_volumes_are_recorded(tmp_path: Path) -> None:
    volumes = balls(tmp_path / "set", 4)
    config = VQVAEConfig.model_validate({**LDM_VQVAE["autoencoder"], "restart_every": 1})
    run = make_run(tmp_path / "run", volumes, {})
    train = volumes.subset([0, 1, 2])
    state = fit_vqvae(config, train, volumes.subset([3]), run)
    network = ImageVQVAE(config).eval()
    network.load_state_dict(state["autoencoder"])
    z = network.encode(images(train, [0, 1, 2], CPU)).movedim(1, -1).flatten(0, 3)
    codes = torch.cdist(z, network.net.quantizer.quantizer.embedding.weight).argmin(1)
    counts = np.unique(codes.numpy(), return_counts=True)[1]
    p = counts / counts.sum()
    assert records(run)["codes_used"] == pytest.approx(len(counts) / 16)
    assert records(run)["perplexity"] == pytest.approx(np.prod(p**-p), rel=1e-4)
    assert 10 < records(run)["psnr_patch_pca"] < 60


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
    assert code_usage(torch.tensor([4, 0, 0, 4, 0])) == (0.4, pytest.approx(2.0))
    assert code_usage(torch.tensor([5] + 9 * [0])) == (0.1, pytest.approx(1.0))
    assert code_usage(torch.full((8,), 3)) == (1.0, pytest.approx(8.0))


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
