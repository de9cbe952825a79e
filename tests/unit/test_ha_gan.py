"""HA-GAN: the paper's sizes, the alignment of crops, the losses, and a fit that can be resumed."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrize import is_parametrized

from bench.device import Device
from bench.errors import InputError
from bench.run import Run
from bench.training import Interrupted
from bench.volumes import VolumeSet, VolumeSetWriter
from generators.ha_gan import HAGAN, HAGANConfig, HAGANTraining
from generators.ha_gan.augment import augment
from generators.ha_gan.geometry import Geometry, Size, reductions
from generators.ha_gan.model import Losses, adams, build, collapse, frozen, gradient_penalty
from generators.ha_gan.networks import (
    BatchSpread,
    GridEncoder,
    HierarchicalDiscriminator,
    HierarchicalGenerator,
    HighResolutionGenerator,
    SlabEncoder,
)
from generators.joint import Channels

GRIDS: list[Size] = [(32, 32, 32), (48, 64, 48), (32, 48, 32), (64, 32, 32), (36, 40, 44)]
grids = st.tuples(*[st.integers(8, 64).map(lambda n: 4 * n)] * 3)


def tiny(steps: int = 2, **changes: Any) -> HAGANConfig:
    training = HAGANTraining(steps=steps, batch_size=2, learning_rate=1e-3, ema_decay=0.5)
    return HAGANConfig(latent_dim=4, width=1 / 64, training=training).model_copy(update=changes)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> VolumeSet:
    random = np.random.default_rng(0)
    with VolumeSetWriter(tmp_path_factory.mktemp("set"), (32, 32, 32), {0: "background"}) as writer:
        for i in range(3):
            writer.append(f"case-{i}", random.random((32, 32, 32), dtype=np.float32))
    return VolumeSet.open(writer.folder)


def make_run(folder: Path, volumes: VolumeSet, **options: Any) -> Run:
    return Run(
        seed=7,
        folder=folder,
        grid=volumes.grid,
        label_names=volumes.label_names,
        device_setting=Device(accelerator="cpu", precision="32-true"),
        **options,
    )


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# Sizes


def test_parameter_counts_are_the_papers_at_128() -> None:
    geometry = Geometry((128, 128, 128))
    with torch.device("meta"):
        g, e, sub_e = HierarchicalGenerator(geometry), SlabEncoder(), GridEncoder(geometry)
    d = HierarchicalDiscriminator(geometry)
    assert parameters(g) == pytest.approx(52.5e6, abs=0.05e6)
    assert parameters(d) == pytest.approx(7.3e6, abs=0.06e6)  # 7 241 442
    assert parameters(e) == pytest.approx(0.16e6, abs=0.005e6)
    assert parameters(sub_e) == pytest.approx(19.7e6, abs=0.05e6)


@pytest.mark.parametrize("side", [32, 64, 128, 256, 512])
def test_cubes_follow_the_paper(side: int) -> None:
    geometry = Geometry((side, side, side))
    doublings = int(math.log2(side / 16))
    assert geometry.levels == tuple((4 * 2**i,) * 3 for i in range(doublings + 1))
    assert geometry.slab == side // 32
    slab_layers, _ = reductions((side // 8, side, side), (1, 4, 4))
    assert [layer.kernel[0] for layer in slab_layers][-3:] == [2, 2, 1]
    assert all(layer.kernel[1:] == (4, 4) for layer in slab_layers)
    assert len(slab_layers) == doublings + 2


@settings(deadline=None, max_examples=50)
@given(grid=grids)
def test_levels_of_any_grid(grid: Size) -> None:
    geometry = Geometry(grid)
    assert geometry.levels[-1] == geometry.latent
    assert all(2 < n <= 4 for n in geometry.levels[0])
    for small, large in itertools.pairwise(geometry.levels):
        assert all(n in (s, 2 * s - 1, 2 * s) for s, n in zip(small, large, strict=True))
    covered = [p + geometry.slab - new + i for p, new in geometry.cover for i in range(new)]
    assert covered == list(range(geometry.latent[0]))


@settings(deadline=None, max_examples=50)
@given(grid=grids)
def test_reductions_reach_their_target(grid: Size) -> None:
    target = (1, 4, 4)
    layers, rest = reductions(grid, target)
    shape: torch.Size = torch.Size((1, 1, *grid))
    for layer in layers:
        convolution = nn.Conv3d(1, 1, *layer, device="meta")
        shape = convolution(torch.empty(shape, device="meta")).shape
    assert shape[2:] == rest
    assert all(1 <= n <= t for n, t in zip(rest, target, strict=True))


@pytest.mark.parametrize("grid", [*GRIDS, (128, 32, 32), (32, 64, 128), (80, 112, 96)])
@torch.no_grad()
def test_shapes(grid: Size) -> None:
    geometry, config = Geometry(grid), tiny()
    d, h, w = grid
    thick = math.ceil(d / 32)
    networks: dict[str, Any] = build(geometry, config)
    noise = torch.randn(1, config.latent_dim)
    latent = networks["generator"].common(noise)
    slab, low = networks["generator"].slab_and_low(noise, 0)
    assert latent.shape == (1, 8, d // 4, h // 4, w // 4)
    assert networks["generator"](noise).shape == (1, 1, d, h, w)
    assert slab.shape == (1, 1, 4 * thick, h, w)
    assert low.shape == (1, 1, d // 4, h // 4, w // 4)
    assert networks["discriminator"](slab, low, 0).shape == (1, 1)
    assert networks["encoder"](slab).shape == (1, 8, thick, h // 4, w // 4)
    assert networks["sub_encoder"](latent).shape == noise.shape


@pytest.mark.parametrize("grid", [(16, 32, 32), (32, 33, 32), (32, 32, 50), (0, 32, 32), (32, 32)])
def test_grids_that_cannot_work_are_refused(grid: Any) -> None:
    with pytest.raises(InputError, match="multiples of 4"):
        HAGAN(HAGANConfig()).check(grid, {})


def test_grids_that_work_are_taken() -> None:
    for grid in GRIDS:
        HAGAN(HAGANConfig()).check(grid, {0: "background"})


def test_the_configuration_is_read_without_torch() -> None:
    code = "import sys, generators.ha_gan as h; h.HAGANConfig(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Alignment of image and latent grid


def without_norm(network: nn.Module) -> nn.Module:
    """Group norm sees all voxels; without it an output voxel depends on its surroundings alone."""
    for name, child in network.named_children():
        if isinstance(child, nn.GroupNorm):
            setattr(network, name, nn.Identity())
        else:
            without_norm(child)
    return network


def test_slab_of_the_volume_is_the_volume_of_the_slab() -> None:
    torch.manual_seed(0)
    geometry = Geometry((128, 32, 32))
    high = without_norm(HighResolutionGenerator(width=0.25))
    latent = torch.randn(1, 16, *geometry.latent)
    whole = high(latent)
    border = 3  # one voxel of the last convolution, one of double size of the one before
    for position in (0, 5, geometry.positions - 1):
        alone = high(geometry.latent_slab(latent, position))
        expected = geometry.image_slab(whole, position)
        inner = slice(border, -border)
        torch.testing.assert_close(alone[:, :, inner], expected[:, :, inner], rtol=0, atol=1e-6)
        assert not torch.allclose(alone, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("grid", GRIDS)
def test_crops_cover_the_same_voxels(grid: Size) -> None:
    geometry = Geometry(grid)
    latent = torch.randn(2, 1, *geometry.latent)
    volume = F.interpolate(latent, scale_factor=4, mode="nearest")
    torch.testing.assert_close(geometry.low_resolution(volume), latent)
    for position in range(geometry.positions):
        slab = geometry.image_slab(volume, position)
        assert slab.shape[2] == 4 * geometry.slab
        torch.testing.assert_close(F.avg_pool3d(slab, 4), geometry.latent_slab(latent, position))


@pytest.mark.parametrize("side", [32, 64, 80, 88])
def test_encoding_slab_by_slab_covers_the_volume_once(side: int) -> None:
    geometry = Geometry((side, 32, 32))
    volume = torch.randn(2, 1, *geometry.grid)
    encoded = Losses(geometry, tiny()).encode(nn.AvgPool3d(4), volume)
    torch.testing.assert_close(encoded, F.avg_pool3d(volume, 4))


# Discriminator


def test_spectral_norm_holds_in_every_layer_of_the_discriminator() -> None:
    torch.manual_seed(0)
    geometry = Geometry((32, 32, 32))
    network = HierarchicalDiscriminator(geometry, width=1 / 16)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv3d | nn.Linear)]
    assert len(layers) == 8
    with torch.no_grad():
        for layer in layers:
            layer.get_parameter("parametrizations.weight.original").mul_(10)
        for _ in range(100):
            network(torch.randn(1, 1, 4, 32, 32), torch.randn(1, 1, 8, 8, 8), 0)
    for layer in layers:
        assert is_parametrized(layer, "weight")
        values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
        assert float(values[0]) == pytest.approx(1, abs=0.02)


def test_position_reaches_the_logit_as_a_number_from_0_to_1() -> None:
    geometry = Geometry((32, 32, 32))
    network = HierarchicalDiscriminator(geometry, width=1 / 64).eval()
    seen: list[float] = []
    network.high.hidden.register_forward_pre_hook(lambda _, x: seen.append(float(x[0][0, -1])))
    slab, low = torch.randn(1, 1, 4, 32, 32), torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        logits = [float(network(slab, low, p)) for p in (0, geometry.positions - 1)]
    assert seen == [0, 1]
    assert logits[0] != logits[1]


def test_batch_spread_in_closed_form() -> None:
    features = torch.randn(5, 3, 2, 4, 4)
    seen = BatchSpread()(features)
    assert seen.shape == (5, 4, 2, 4, 4)
    torch.testing.assert_close(seen[:, :3], features)
    expected = float(np.std(features.numpy(), axis=0).mean())
    torch.testing.assert_close(seen[:, 3], torch.full((5, 2, 4, 4), expected))
    assert float(BatchSpread()(features[:1].expand(4, -1, -1, -1, -1))[:, 3].max()) < 1e-3


def test_discriminator_tells_equal_volumes_from_different_ones_where_asked() -> None:
    geometry = Geometry((32, 32, 32))
    slab, low = torch.randn(4, 1, 4, 32, 32), torch.randn(4, 1, 8, 8, 8)
    for batch_spread in (False, True):
        torch.manual_seed(0)
        network = HierarchicalDiscriminator(geometry, 1 / 16, batch_spread=batch_spread).eval()
        with torch.no_grad():
            alone, together = network(slab[:1], low[:1], 0), network(slab, low, 0)[:1]
        assert torch.allclose(alone, together, atol=1e-6) != batch_spread


def test_real_and_generated_volumes_spread_among_their_own_kind() -> None:
    geometry, config = Geometry((32, 32, 32)), tiny(batch_spread=True)
    networks = build(geometry, config)
    sizes: list[int] = []
    for spread in (m for m in networks["discriminator"].modules() if isinstance(m, BatchSpread)):
        spread.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    losses = Losses(geometry, config)(networks, (0, torch.rand(2, 1, *geometry.grid) * 2 - 1))
    assert [name for name, _ in losses][:2] == ["discriminator", "generator"]
    assert sizes == [2] * 6  # real, generated, and generated again in G's step; each D's two parts


def test_comparing_the_one_case_of_a_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch_spread compares the cases of a batch"):
        HAGANConfig(batch_spread=True, training=HAGANTraining(batch_size=1))
    with pytest.raises(ValidationError, match="mode_seeking compares the cases of a batch"):
        HAGANConfig(mode_seeking=0.1, training=HAGANTraining(batch_size=1))


# Losses


class ConstantGenerator(nn.Module):
    """Volumes of one value, whatever the noise."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def slab_and_low(self, noise: Tensor, position: int) -> tuple[Tensor, Tensor]:
        n = len(noise)
        return self.value.expand(n, 1, 4, 32, 32), self.value.expand(n, 1, 8, 8, 8)

    def high(self, latent: Tensor) -> Tensor:
        return self.value.expand(len(latent), 1, 4, 32, 32) + 0 * latent.mean()


class MeanDiscriminator(nn.Module):
    def forward(self, slab: Tensor, low: Tensor, position: int) -> Tensor:
        return (slab.mean((1, 2, 3, 4)) + low.mean((1, 2, 3, 4)))[:, None] / 2


class Pool(nn.Module):
    def forward(self, volume: Tensor) -> Tensor:
        return F.avg_pool3d(volume, 4)


class Squash(nn.Module):
    def forward(self, latent: Tensor) -> Tensor:
        return latent.mean((2, 3, 4))


def test_losses_in_closed_form() -> None:
    networks = {
        "generator": ConstantGenerator(-0.5),
        "discriminator": MeanDiscriminator(),
        "encoder": Pool(),
        "sub_encoder": Squash(),
    }
    real = torch.full((3, 1, 32, 32, 32), 0.75)
    losses = {k: v.item() for k, v in Losses(Geometry((32, 32, 32)), tiny())(networks, (0, real))}

    def softplus(x: float) -> float:
        return math.log1p(math.exp(x))

    assert list(losses) == ["discriminator", "generator", "encoder", "sub_encoder"]
    assert losses["discriminator"] == pytest.approx(softplus(-0.75) + softplus(-0.5), rel=1e-5)
    assert losses["generator"] == pytest.approx(softplus(0.5), rel=1e-5)
    assert losses["encoder"] == pytest.approx(1.25, rel=1e-5)
    assert losses["sub_encoder"] == pytest.approx(1.25, rel=1e-5)


def test_each_loss_moves_its_own_network_alone_and_batch_1_works() -> None:
    geometry, config = Geometry((32, 48, 32)), tiny()
    networks = build(geometry, config)
    real = torch.rand(1, 1, *geometry.grid) * 2 - 1
    for name, loss in Losses(geometry, config)(networks, (0, real)):
        loss.backward()  # type: ignore[no-untyped-call]
        for other, network in networks.items():
            gradients = [p.grad for p in network.parameters()]
            assert all((g is None) == (other != name) for g in gradients), (name, other)
            network.zero_grad(set_to_none=True)


class SquareDiscriminator(nn.Module):
    """Logit a sum of squares, so the gradient is twice the input."""

    def forward(self, slab: Tensor, low: Tensor, position: int) -> Tensor:
        return ((slab**2).sum((1, 2, 3, 4)) + (low**2).sum((1, 2, 3, 4)))[:, None] / 2


def test_mode_seeking_in_closed_form_and_in_the_generators_loss_alone() -> None:
    noise = torch.tensor([[0.0, 0.0], [3.0, 1.0]])  # 2 apart, in the mean
    slab = torch.stack([torch.zeros(1, 4, 4, 4), torch.full((1, 4, 4, 4), 0.5)])
    low = torch.stack([torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), 0.3)])
    assert float(collapse(noise, slab, low)) == pytest.approx(2 / 0.401, rel=1e-5)
    equal = collapse(noise, torch.zeros_like(slab), torch.zeros_like(low))
    assert torch.isfinite(equal)
    assert 1e3 < float(equal) < 1e4

    geometry = Geometry((32, 32, 32))
    real = torch.rand(2, 1, *geometry.grid) * 2 - 1
    networks = build(geometry, tiny())
    networks["discriminator"].eval()
    found = {}
    for weight in (0.0, 2.0, 4.0):
        torch.manual_seed(0)
        rows = Losses(geometry, tiny(mode_seeking=weight))(networks, (0, real))
        found[weight] = {name: float(loss) for name, loss in rows}
    for name in ("discriminator", "encoder", "sub_encoder"):
        assert found[0.0][name] == found[4.0][name]
    terms = [found[w]["generator"] - found[0.0]["generator"] for w in (2.0, 4.0)]
    assert terms[0] > 0
    assert terms[1] == pytest.approx(2 * terms[0], rel=1e-3)


def test_r1_in_closed_form_and_on_its_own_steps() -> None:
    slab, low = torch.randn(3, 1, 4, 8, 8), torch.randn(3, 1, 2, 2, 2)
    expected = ((slab**2).sum() + (low**2).sum()) / 3
    torch.testing.assert_close(gradient_penalty(SquareDiscriminator(), slab, low, 0), expected)

    geometry = Geometry((32, 32, 32))
    real = torch.rand(2, 1, *geometry.grid) * 2 - 1
    networks = build(geometry, tiny())
    networks["discriminator"].eval()  # whose power iteration would go on
    found = {}
    for weight, step in ((0.0, 0), (4.0, 0), (4.0, 1), (4.0, 3)):
        torch.manual_seed(0)
        losses = Losses(geometry, tiny(r1_weight=weight, r1_every=3))
        _, found[weight, step] = next(losses(networks, (step, real)))
    assert found[4.0, 1] == found[0.0, 0]
    assert found[4.0, 3] == found[4.0, 0]
    torch.manual_seed(0)
    position = int(torch.randint(geometry.positions, ()))
    penalty = gradient_penalty(
        networks["discriminator"],
        geometry.image_slab(real, position),
        geometry.low_resolution(real),
        position,
    )
    torch.testing.assert_close(found[4.0, 0] - found[0.0, 0], 3 * 4 / 2 * penalty)
    found[4.0, 0].backward()  # type: ignore[no-untyped-call]
    for p in networks["discriminator"].parameters():
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()


# Augmentation


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    kinds=st.sets(st.sampled_from(["flip", "translate", "contrast"])),
    position=st.integers(0, 7),
)
def test_slab_and_low_resolution_volume_are_changed_as_one_volume(
    seed: int, kinds: set[str], position: int
) -> None:
    geometry = Geometry((32, 48, 64))
    torch.manual_seed(seed)
    volume = torch.rand(2, 3, *geometry.grid) * 2 - 1
    slab, low = geometry.image_slab(volume, position), geometry.low_resolution(volume)
    changed_slab, changed_low = augment(slab, low, kinds)
    assert (changed_slab.shape, changed_low.shape) == (slab.shape, low.shape)
    torch.testing.assert_close(
        F.avg_pool3d(changed_slab, 4), geometry.latent_slab(changed_low, position)
    )


def test_augmentation_changes_each_case_its_own_way_and_labels_keep_their_values() -> None:
    torch.manual_seed(0)
    slab = torch.rand(1, 2, 4, 64, 64).expand(64, -1, -1, -1, -1) * 2 - 1
    low = F.avg_pool3d(slab, 4)
    assert augment(slab, low, ())[0] is slab
    flipped, _ = augment(slab, low, ["flip"])
    both = [slab[0], slab[0].flip(-1), slab[0].flip(-2), slab[0].flip(-1, -2)]
    counts = [sum(torch.equal(v, one) for v in flipped) for one in both]
    assert sum(counts) == 64
    assert all(counts)
    assert counts[0] > counts[1] + counts[3]  # mostly as it was: flips do not leak to G
    moved, _ = augment(slab, low, ["translate"])
    assert len({v[0, 0].numpy().tobytes() for v in moved}) > 10
    contrasted, _ = augment(slab, low, ["contrast"])
    torch.testing.assert_close(contrasted[:, 1:], slab[:, 1:])
    assert (contrasted[:, 0] != slab[:, 0]).any(dim=(1, 2, 3)).all()


def test_gradients_pass_through_augmentation() -> None:
    torch.manual_seed(0)
    slab = torch.rand(2, 1, 4, 32, 32, requires_grad=True)
    low = torch.rand(2, 1, 8, 8, 8, requires_grad=True)
    for x in augment(slab, low, ["flip", "translate", "contrast"]):
        x.sum().backward()  # type: ignore[no-untyped-call]
    assert slab.grad is not None
    assert low.grad is not None
    assert (slab.grad != 0).float().mean() > 0.5
    assert (low.grad != 0).float().mean() > 0.5


def test_real_and_generated_are_augmented_in_both_steps() -> None:
    geometry, config = Geometry((32, 32, 32)), tiny(augment=("contrast",), train_encoders=False)
    networks = build(geometry, config)
    seen: list[Tensor] = []
    networks["discriminator"].register_forward_pre_hook(lambda _, x: seen.append(x[1]))
    real = torch.full((2, 1, 32, 32, 32), 0.5)  # contrast about its mean: the offset alone
    list(Losses(geometry, config)(networks, (0, real)))
    of_d, of_g = seen
    assert (of_d[:2] != 0.5).all()
    assert of_d[0].mean() != of_d[1].mean()
    assert of_d.shape == (4, 1, 8, 8, 8)
    assert of_g.shape == (2, 1, 8, 8, 8)


def test_frozen_gives_gradients_back() -> None:
    network = nn.Linear(2, 2)
    network.bias.requires_grad_(False)
    with frozen(network):
        assert not any(p.requires_grad for p in network.parameters())
    assert network.weight.requires_grad
    assert not network.bias.requires_grad


def test_the_four_adams() -> None:
    config = HAGANConfig(width=1 / 64, latent_dim=4)
    optimizers = adams(build(Geometry((32, 32, 32)), config), config)
    rates = {name: o.param_groups[0]["lr"] for name, o in optimizers.items()}
    assert rates == {
        "generator": 1e-4,
        "discriminator": 4e-4,
        "encoder": 1e-4,
        "sub_encoder": 1e-4,
    }
    assert all(o.param_groups[0]["betas"] == (0.0, 0.999) for o in optimizers.values())
    assert (config.training.batch_size, config.training.steps) == (4, 80_000)
    shorter = HAGANConfig.model_validate({"training": {"steps": 5}}).training
    assert shorter == config.training.model_copy(update={"steps": 5})


# Fit and sample


def fit(config: HAGANConfig, volumes: VolumeSet, run: Run) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = HAGAN(config).fit(volumes, volumes, run)["generator"]
    return weights


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def fitted(volumes: VolumeSet, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Run]:
    """A run with the state of a fit of two steps, by seed of the noise."""
    folder = tmp_path_factory.mktemp("fit")
    generator = HAGAN(tiny())
    torch.save(generator.fit(volumes, volumes, make_run(folder, volumes)), folder / "state.pt")

    def run(seed: int) -> Run:
        states = {"ha-gan/fit": folder / "state.pt"}
        made = make_run(folder, volumes, states=states)
        made.seed = seed
        return made

    return run


def test_samples_depend_on_seed_and_index_alone(fitted: Callable[[int], Run]) -> None:
    generator = HAGAN(tiny())
    several = [s.image for s in generator.sample([5, 0, 3], fitted(1))]
    again = [s.image for i in (3, 5) for s in generator.sample([i], fitted(1))]
    other = next(iter(generator.sample([5], fitted(2)))).image
    assert [image.shape for image in several] == [(32, 32, 32)] * 3
    assert all(image.dtype == np.float32 for image in several)
    assert all(image.min() >= 0 and image.max() <= 1 for image in several)
    np.testing.assert_array_equal(several[2], again[0])
    np.testing.assert_array_equal(several[0], again[1])
    assert not np.array_equal(several[0], several[1])
    assert not np.array_equal(several[0], other)


def test_a_sample_is_the_generator_in_evaluation_mode_from_its_own_noise(
    fitted: Callable[[int], Run],
) -> None:
    config, run = tiny(), fitted(1)
    network = HierarchicalGenerator(Geometry(run.grid), config.latent_dim, config.width).eval()
    network.load_state_dict(run.state()["generator"])
    noise = torch.stack([run.noise(i, (config.latent_dim,)) for i in (2, 4)])
    with torch.no_grad():
        expected = (network(noise)[:, 0] + 1) / 2
    sampled = np.stack([s.image for s in HAGAN(config).sample([2, 4], run)])
    np.testing.assert_allclose(sampled, expected.numpy(), atol=1e-5)


def test_encoders_do_not_change_the_generator(volumes: VolumeSet, tmp_path: Path) -> None:
    with_encoders = fit(tiny(), volumes, make_run(tmp_path / "a", volumes))
    without = fit(tiny(train_encoders=False), volumes, make_run(tmp_path / "b", volumes))
    assert_same(with_encoders, without)


def test_every_epoch_sees_all_cases_in_a_new_order_and_leaves_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with VolumeSetWriter(tmp_path / "set", (32, 32, 32), {0: "background"}) as writer:
        for i in range(6):
            writer.append(f"case-{i}", np.full((32, 32, 32), i / 6, np.float32))
    seen: list[int] = []
    original = Channels.batch

    def spy(self: Channels, volumes: VolumeSet, rows: Any, device: torch.device) -> Tensor:
        seen.extend(rows)
        return original(self, volumes, rows, device)

    monkeypatch.setattr(Channels, "batch", spy)
    volumes = VolumeSet.open(tmp_path / "set")
    fit(tiny(steps=6, train_encoders=False), volumes, make_run(tmp_path / "fit", volumes))
    first, second = seen[:6], seen[6:]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert list(range(6)) not in (first, second)
    assert [p.name for p in (tmp_path / "fit" / "previews").iterdir()] == ["fit-000006.png"]


def test_the_average_of_the_weights_is_kept(volumes: VolumeSet, tmp_path: Path) -> None:
    averaged = fit(tiny(), volumes, make_run(tmp_path / "a", volumes))
    off = tiny().training.model_copy(update={"ema_decay": 0.0})
    last = fit(tiny(training=off), volumes, make_run(tmp_path / "b", volumes))
    assert averaged.keys() == last.keys()
    assert not torch.equal(averaged["common.seed.weight"], last["common.seed.weight"])


def test_an_interrupted_fit_ends_as_if_it_had_not_been(volumes: VolumeSet, tmp_path: Path) -> None:
    config = tiny(steps=3)
    straight = fit(config, volumes, make_run(tmp_path / "a", volumes))
    stop = iter([True, True])
    interrupted = make_run(tmp_path / "b", volumes, stop_requested=lambda: next(stop))
    with pytest.raises(Interrupted, match="step 1 of 3"):
        fit(config, volumes, interrupted)
    torch.manual_seed(123)  # another process has another random state
    assert_same(straight, fit(config, volumes, make_run(tmp_path / "b", volumes)))


@pytest.mark.slow
def test_learns_the_brightness_of_the_data(tmp_path: Path) -> None:
    """Flat volumes of value 0.8: an untrained generator gives about 0.5."""
    with VolumeSetWriter(tmp_path / "set", (32, 32, 32), {0: "background"}) as writer:
        writer.append("flat", np.full((32, 32, 32), 0.8, np.float32))
    volumes = VolumeSet.open(tmp_path / "set")
    training = HAGANTraining(steps=150, batch_size=2, learning_rate=1e-3, betas=(0.0, 0.99))
    config = tiny(training=training, train_encoders=False, discriminator_learning_rate=1e-3)
    run = make_run(tmp_path / "fit", volumes, states={"fit": tmp_path / "state.pt"})
    generator = HAGAN(config)
    torch.save(generator.fit(volumes, volumes, run), tmp_path / "state.pt")
    images = np.stack([s.image for s in generator.sample(range(4), run)])
    assert images.mean() == pytest.approx(0.8, abs=0.1)
